using System.Buffers.Binary;
using System.Text;

namespace Nacre.Images.Importing;

/// <summary>What a VHD disk says of itself: in its last sector, and where it is dynamic in its first one too.</summary>
/// <param name="Type">Fixed, dynamic or differencing.</param>
/// <param name="Size">Bytes of the disk.</param>
/// <param name="HeaderAt">Where a dynamic disk's own header is.</param>
/// <param name="CountsGeometry">Whether the program that made it means the cylinders, heads and sectors, and not <paramref name="Size"/>.</param>
internal sealed record VhdFooter(uint Type, ulong Size, ulong HeaderAt, bool CountsGeometry)
{
    public const int Length = 512;
    private const int OldLength = 511; // of Virtual PC before 2004
    private const uint Fixed = 2;
    private const uint Dynamic = 3;
    private const uint Differencing = 4;

    private static ReadOnlySpan<byte> Cookie => "conectix"u8;

    /// <summary>Whether bytes begin with a footer's mark.</summary>
    public static bool IsMarked(ReadOnlySpan<byte> bytes) => bytes.StartsWith(Cookie);

    /// <summary>Where the footer at the end begins; null where there is none.</summary>
    public static long? Find(DiskSource disk)
    {
        var end = disk.Read(Math.Max(0, disk.Length - Length), Length);
        return end.Length < Length ? null
            : IsMarked(end) ? disk.Length - Length
            : IsMarked(end.AsSpan(1)) ? disk.Length - OldLength
            : null;
    }

    /// <summary>Reads a whole VHD disk's footer, and requires that all of what the disk says of itself agrees.</summary>
    /// <returns>The driver for <c>qemu-img</c>, with its options.</returns>
    /// <exception cref="Nacre.Contracts.NacreException">NotADisk.</exception>
    public static string RequireWhole(DiskSource disk)
    {
        var at = Find(disk) ?? throw DiskHeader.Refused(disk.Name, IsMarked(disk.Read(0, Length)) ? "the footer at its end is missing: it was cut off" : "it is no VHD disk");
        var footer = Parse(disk, at);
        if (footer.Type == Differencing)
        {
            throw DiskHeader.Refused(disk.Name, $"it is made of changes to another disk{ParentOf(disk, footer)}; 'qemu-img convert' knows no such VHD: merge the two where it was made");
        }

        DiskHeader.RequireSize(disk.Name, footer.Size);
        switch (footer.Type)
        {
            case Fixed when footer.Size != (ulong)at:
                throw DiskHeader.Refused(disk.Name, $"its footer says that it has {footer.Size} bytes, and it has {at}: it was cut off, or its footer is another disk's");
            case Fixed when footer.Size % Length != 0:
                throw DiskHeader.Refused(disk.Name, $"it has {footer.Size} bytes, which are no sectors of {Length}");
            case Fixed:
                // Nothing but the disk's bytes, and the footer behind them.
                return $"raw,size={footer.Size}";
            case Dynamic:
                RequireSameAtStart(disk, footer);

                // Left alone, qemu-img takes the geometry, which is smaller than the disk, for programs that it does not know, such as VirtualBox.
                return footer.CountsGeometry ? "vpc" : "vpc,force_size_calc=current_size";
            default:
                throw DiskHeader.Refused(disk.Name, $"it is a VHD disk of type {footer.Type}, which is neither fixed nor dynamic");
        }
    }

    private static VhdFooter Parse(DiskSource disk, long at)
    {
        const int Version = 12, DataOffset = 16, Creator = 28, CurrentSize = 48, DiskType = 60, Checksum = 64;
        var bytes = new byte[Length];
        disk.Read(at, Length).CopyTo(bytes, 0);
        var stated = BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(Checksum));
        bytes.AsSpan(Checksum, sizeof(uint)).Clear();
        if (!IsMarked(bytes) || BinaryPrimitives.ReadUInt16BigEndian(bytes.AsSpan(Version)) != 1 || stated != ~(uint)bytes.Sum(value => value))
        {
            throw DiskHeader.Refused(disk.Name, $"its VHD footer at byte {at} is damaged");
        }

        return new VhdFooter(
            BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(DiskType)), BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(CurrentSize)),
            BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(DataOffset)), bytes.AsSpan(Creator, 4) is var creator && (creator.SequenceEqual("vpc "u8) || creator.SequenceEqual("qemu"u8)));
    }

    /// <summary>qemu-img reads the copy in the first sector, and takes for dynamic whatever has one.</summary>
    private static void RequireSameAtStart(DiskSource disk, VhdFooter footer)
    {
        if (Parse(disk, 0) != footer)
        {
            throw DiskHeader.Refused(disk.Name, "its two VHD footers contradict each other");
        }

        if (footer.HeaderAt > (ulong)disk.Length || !disk.Read((long)footer.HeaderAt, 8).AsSpan().SequenceEqual("cxsparse"u8))
        {
            throw DiskHeader.Refused(disk.Name, "its header is not where its footer says: it is damaged");
        }
    }

    private static string ParentOf(DiskSource disk, VhdFooter footer)
    {
        const int NameAt = 64, NameLength = 512;
        if (footer.HeaderAt > (ulong)disk.Length)
        {
            return "";
        }

        var name = Encoding.BigEndianUnicode.GetString(disk.Read((long)footer.HeaderAt + NameAt, NameLength)).Split('\0')[0];
        return name.Length == 0 ? "" : $", '{Checking.Programs.Printable(name)}'";
    }
}
