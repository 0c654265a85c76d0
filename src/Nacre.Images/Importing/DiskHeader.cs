using System.Buffers.Binary;
using System.Text;
using Nacre.Contracts;

namespace Nacre.Images.Importing;

/// <summary>
/// The beginning of a disk's file, before any other program reads it: which format it is, and that it stands on its own. An image that names
/// other files (a backing file, a data file, extents) would have qemu-img read whatever of this computer its maker chose.
/// </summary>
internal static class DiskHeader
{
    private const int HeaderBytes = 1 << 20;
    private const int SectorSize = 512;
    private const uint Qcow2Magic = 0x514649FB;

    /// <summary>What a disk is, by its own first bytes, and the driver of <c>qemu-img</c> with the options that read it and no other file.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="wanted">What it is said to be; null: what it looks like.</param>
    /// <exception cref="NacreException">NotADisk.</exception>
    public static (DiskFormat Format, string Driver) Recognise(DiskSource disk, DiskFormat? wanted)
    {
        if (disk.Length == 0)
        {
            throw Refused(disk.Name, "it is empty");
        }

        var file = disk.Name;
        var header = disk.Read(0, HeaderBytes).AsSpan();
        var format = wanted ?? FormatOf(disk, header);
        switch (format)
        {
            case DiskFormat.Qcow2:
                RequireWholeQcow2(file, header);
                return (format, "qcow2,backing=");
            case DiskFormat.Vmdk:
                RequireWholeVmdk(file, header);
                return (format, "vmdk,backing=");
            case DiskFormat.Vdi:
                RequireWholeVdi(file, header, disk.Length);
                return (format, "vdi");
            case DiskFormat.Vhd:
                return (format, VhdFooter.RequireWhole(disk));
            case DiskFormat.Raw when wanted is null && !IsPartitioned(header):
                throw Refused(file, "it is of no known format, and has no partition table either");
            case DiskFormat.Ova when disk.Offset > 0:
                throw Refused(file, "it is an archive in an archive");
            default:
                return (format, format.ToString().ToLowerInvariant());
        }
    }

    /// <summary>Requires that a raw disk has a partition table, and all of what that says.</summary>
    /// <exception cref="NacreException">NotADisk.</exception>
    public static void RequirePartitions(string file, string disk)
    {
        const int AlternateAt = SectorSize + 32;
        using var stream = File.OpenRead(disk);
        var header = new byte[2 * SectorSize];
        if (stream.ReadAtLeast(header, header.Length, throwOnEndOfStream: false) < header.Length || !IsPartitioned(header))
        {
            throw Refused(file, "it has no partition table, so nothing could start from it");
        }

        if (header.AsSpan(SectorSize).StartsWith("EFI PART"u8) && BinaryPrimitives.ReadUInt64LittleEndian(header.AsSpan(AlternateAt)) is var last
            && last > (ulong)(stream.Length / SectorSize) - 1)
        {
            throw Refused(file, $"its partition table is that of a disk of {last + 1} sectors, and it has {stream.Length / SectorSize}: it was cut off");
        }
    }

    public static NacreException Refused(string file, string why) => new(ErrorCatalogue.NotADisk, $"'{file}' can't be imported: {why}");

    private static bool IsPartitioned(ReadOnlySpan<byte> header) => header.Length >= SectorSize && header[510] == 0x55 && header[511] == 0xAA;

    private static DiskFormat FormatOf(DiskSource disk, ReadOnlySpan<byte> header)
    {
        const uint VdiSignature = 0xBEDA107F;
        return header switch
        {
            _ when header.Length >= 4 && BinaryPrimitives.ReadUInt32BigEndian(header) == Qcow2Magic => DiskFormat.Qcow2,
            _ when header.StartsWith("KDMV"u8) => DiskFormat.Vmdk,
            _ when header.StartsWith("vhdxfile"u8) => DiskFormat.Vhdx,
            _ when header.Length >= 512 && BinaryPrimitives.ReadUInt32LittleEndian(header[0x40..]) == VdiSignature => DiskFormat.Vdi,
            _ when header.StartsWith("COWD"u8) || header.StartsWith("# Disk DescriptorFile"u8) =>
                throw Refused(disk.Name, "it is a part of a VMDK disk that is made of several files; 'qemu-img convert -O qcow2' where all of them are makes one of it"),
            _ when VhdFooter.IsMarked(header) || VhdFooter.Find(disk) is not null => DiskFormat.Vhd,
            _ when ApplianceArchive.IsOne(header) && !IsPartitioned(header) => DiskFormat.Ova,
            _ => DiskFormat.Raw,
        };
    }

    private static void RequireWholeQcow2(string file, ReadOnlySpan<byte> header)
    {
        const ulong ExternalData = 4; // of the incompatible features
        if (header.Length < 104 || BinaryPrimitives.ReadUInt32BigEndian(header) != Qcow2Magic || BinaryPrimitives.ReadUInt32BigEndian(header[4..]) is not (2 or 3))
        {
            throw Refused(file, "it is not qcow2 of version 2 or 3");
        }

        if (BinaryPrimitives.ReadUInt64BigEndian(header[8..]) != 0 || BinaryPrimitives.ReadUInt32BigEndian(header[16..]) != 0)
        {
            throw Refused(file, "it is made of changes to another disk (a backing file); 'qemu-img convert -O qcow2' where that is makes a whole one of it");
        }

        if (BinaryPrimitives.ReadUInt32BigEndian(header[32..]) != 0)
        {
            throw Refused(file, "it is encrypted");
        }

        if (BinaryPrimitives.ReadUInt32BigEndian(header[4..]) == 3 && (BinaryPrimitives.ReadUInt64BigEndian(header[72..]) & ExternalData) != 0)
        {
            throw Refused(file, "its content is in another file (a data file)");
        }

        RequireSize(file, BinaryPrimitives.ReadUInt64BigEndian(header[24..]));
    }

    private static void RequireWholeVmdk(string file, ReadOnlySpan<byte> header)
    {
        // A capacity of 0 makes readers take the descriptor's list of extents, which are files.
        var sectors = header.Length < SectorSize || !header.StartsWith("KDMV"u8) ? 0 : BinaryPrimitives.ReadUInt64LittleEndian(header[12..]);
        if (sectors == 0)
        {
            throw Refused(file, "it is not a VMDK disk in one file");
        }

        RequireSize(file, sectors > long.MaxValue / SectorSize ? ulong.MaxValue : sectors * SectorSize);
        var at = BinaryPrimitives.ReadUInt64LittleEndian(header[28..]);
        var length = BinaryPrimitives.ReadUInt64LittleEndian(header[36..]);
        if (at == 0 || length == 0 || at > HeaderBytes / SectorSize || length > HeaderBytes / SectorSize || (int)(at + length) * SectorSize > header.Length)
        {
            throw Refused(file, "its descriptor is not where it should be");
        }

        var descriptor = Encoding.Latin1.GetString(header.Slice((int)at * SectorSize, (int)length * SectorSize));
        if (!descriptor.Contains("parentCID=ffffffff", StringComparison.OrdinalIgnoreCase) || descriptor.Contains("parentFileNameHint", StringComparison.OrdinalIgnoreCase))
        {
            throw Refused(file, "it is made of changes to another disk");
        }
    }

    private static void RequireWholeVdi(string file, ReadOnlySpan<byte> header, long fileLength)
    {
        if (header.Length < 512)
        {
            throw Refused(file, "it is not a VDI disk");
        }

        RequireSize(file, BinaryPrimitives.ReadUInt64LittleEndian(header[0x170..]));
        var end = BinaryPrimitives.ReadUInt32LittleEndian(header[0x158..])
            + ((ulong)BinaryPrimitives.ReadUInt32LittleEndian(header[0x184..]) * BinaryPrimitives.ReadUInt32LittleEndian(header[0x178..]));
        if (end > (ulong)fileLength)
        {
            throw Refused(file, $"it has {fileLength} bytes, and says that it has {end}: it was cut off");
        }
    }

    public static void RequireSize(string file, ulong bytes)
    {
        if (bytes is 0 or > DiskImporter.MaximumSize)
        {
            throw Refused(file, $"its disk has {bytes} bytes; it must have 1 byte to {DiskImporter.MaximumSize >> 40} TiB");
        }
    }
}
