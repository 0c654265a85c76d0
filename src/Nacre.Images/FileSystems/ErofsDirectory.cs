using System.Buffers.Binary;
using System.Text;

namespace Nacre.Images.FileSystems;

/// <summary>An entry of a directory.</summary>
/// <param name="Node">Its inode.</param>
/// <param name="Type">What it says the inode is.</param>
/// <param name="Name">Its name.</param>
internal readonly record struct ErofsEntry(ulong Node, byte Type, string Name);

/// <summary>The blocks of directories.</summary>
internal static class ErofsDirectory
{
    /// <summary>The type of a directory.</summary>
    public const byte Folder = 2;

    private const int EntrySize = 12;

    /// <summary>Reads one block, but for the entries of the directory itself and the one above it.</summary>
    /// <param name="untrustedBlock">The block.</param>
    /// <param name="entries">The entries, up to the first that makes no sense.</param>
    /// <returns>Whether all of it makes sense.</returns>
    public static bool TryRead(ReadOnlySpan<byte> untrustedBlock, out List<ErofsEntry> entries)
    {
        entries = [];

        // The first entry's name begins where the entries end.
        var end = untrustedBlock.Length < EntrySize ? 0 : NameOffset(untrustedBlock, 0);
        if (end < EntrySize || end > untrustedBlock.Length || end % EntrySize != 0)
        {
            return false;
        }

        for (var at = 0; at < end; at += EntrySize)
        {
            var first = NameOffset(untrustedBlock, at);
            var last = at + EntrySize < end ? NameOffset(untrustedBlock, at + EntrySize) : untrustedBlock.Length;
            if (first < end || first > last || last > untrustedBlock.Length)
            {
                return false;
            }

            // Behind the last name are zeroes.
            var name = untrustedBlock[first..last];
            var zero = name.IndexOf((byte)0);
            name = zero < 0 ? name : name[..zero];
            if (name.IsEmpty || name.Contains((byte)'/'))
            {
                return false;
            }

            if (!name.SequenceEqual("."u8) && !name.SequenceEqual(".."u8))
            {
                entries.Add(new ErofsEntry(BinaryPrimitives.ReadUInt64LittleEndian(untrustedBlock[at..]), untrustedBlock[at + 10], Encoding.UTF8.GetString(name)));
            }
        }

        return true;
    }

    private static int NameOffset(ReadOnlySpan<byte> block, int entry) => BinaryPrimitives.ReadUInt16LittleEndian(block[(entry + 8)..]);
}
