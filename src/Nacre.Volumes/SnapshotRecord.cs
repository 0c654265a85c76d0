using System.Buffers.Binary;
using System.Text;

namespace Nacre.Volumes;

/// <summary>The content of a snapshot's slot: number (4 bytes), length of the name (4), milliseconds since 1970 (8), name (UTF-8).</summary>
internal static class SnapshotRecord
{
    private const int NameOffset = 16;

    public static void Write(Span<byte> content, uint id, string name, DateTimeOffset taken)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(content, id);
        BinaryPrimitives.WriteInt32LittleEndian(content[4..], Encoding.UTF8.GetBytes(name, content[NameOffset..]));
        BinaryPrimitives.WriteInt64LittleEndian(content[8..], taken.ToUnixTimeMilliseconds());
    }

    public static bool TryRead(ReadOnlySpan<byte> content, out uint id, out string name, out DateTimeOffset taken)
    {
        id = BinaryPrimitives.ReadUInt32LittleEndian(content);
        var length = BinaryPrimitives.ReadInt32LittleEndian(content[4..]);
        var time = BinaryPrimitives.ReadInt64LittleEndian(content[8..]);
        if (length is < 1 or > CheckpointFile.MaximumNameBytes
            || time < DateTimeOffset.MinValue.ToUnixTimeMilliseconds() || time > DateTimeOffset.MaxValue.ToUnixTimeMilliseconds())
        {
            (name, taken) = ("", default);
            return false;
        }

        name = Encoding.UTF8.GetString(content.Slice(NameOffset, length));
        taken = DateTimeOffset.FromUnixTimeMilliseconds(time);
        return true;
    }
}
