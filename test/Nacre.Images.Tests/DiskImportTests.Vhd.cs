using System.Buffers.Binary;
using System.Text;
using Nacre.Images.Importing;
using Xunit;

namespace Nacre.Images.Tests;

/// <content>VHD: fixed and dynamic, by programs that mean different things by its size, and footers that lie.</content>
public sealed partial class DiskImportTests
{
    private const int FooterLength = 512;
    private const int CreatorAt = 28, SizeAt = 48, GeometryAt = 56, TypeAt = 60, ChecksumAt = 64;

    [Theory]
    [InlineData("fixed", "qemu", true)]
    [InlineData("dynamic", "qemu", true)]
    [InlineData("fixed", "qem2", false)]
    [InlineData("dynamic", "qem2", false)]
    [InlineData("fixed", "win ", false)]
    [InlineData("dynamic", "win ", false)]
    [InlineData("fixed", "vbox", false)]
    [InlineData("dynamic", "vbox", false)]
    public async Task A_vhd_has_the_size_that_its_maker_means(string kind, string creator, bool roundsUp)
    {
        var disk = Disk(64 * MiB);
        var file = folder[$"disk, of {creator}.vhd"];
        await QemuAsync(["convert", "-f", "raw", "-O", "vpc", "-o", $"subformat={kind},force_size={(roundsUp ? "off" : "on")}", disk, file]);
        await ChangeFootersAsync(file, footer =>
        {
            Encoding.ASCII.GetBytes(creator).CopyTo(footer, CreatorAt);
            if (creator == "vbox")
            {
                BinaryPrimitives.WriteUInt16BigEndian(footer.AsSpan(GeometryAt), 900); // cylinders: fewer than the disk has, as VirtualBox rounds
            }
        });
        var image = await ImportAsync(file);
        Assert.Equal(DiskFormat.Vhd, image.From);

        // qemu-img by itself makes a disk of whole cylinders; the others mean the size that they state.
        Assert.Equal(roundsUp ? 67_125_248 : 64 * MiB, image.DiskSize);
        var imported = await File.ReadAllBytesAsync(Path.Combine(folder["image"], ImportedDisk.FileName), Token);
        Assert.True((await File.ReadAllBytesAsync(disk, Token)).AsSpan().SequenceEqual(imported.AsSpan(0, 64 * MiB)));
        Assert.False(imported.AsSpan(64 * MiB).ContainsAnyExcept((byte)0));
        Assert.InRange(await StoredBytesAsync(Path.Combine(folder["image"], ImportedDisk.FileName)), 1, 4 * MiB);
    }

    [Fact]
    public async Task A_fixed_vhd_whose_footer_is_a_byte_short_is_read()
    {
        // As Virtual PC made them before 2004.
        var file = await VhdAsync("fixed");
        using (var stream = File.OpenWrite(file))
        {
            stream.SetLength(stream.Length - 1);
        }

        Assert.Equal(4 * MiB, (await ImportAsync(file)).DiskSize);
    }

    [Fact]
    public async Task A_vhd_of_changes_to_another_disk_is_refused_and_names_that()
    {
        var file = await VhdAsync("dynamic");
        await ChangeFootersAsync(file, footer => footer[TypeAt + 3] = 4);
        using (var handle = File.OpenHandle(file, FileMode.Open, FileAccess.Write))
        {
            RandomAccess.Write(handle, Encoding.BigEndianUnicode.GetBytes("C:\\disks\\parent.vhd"), FooterLength + 64);
        }

        await RefusedAsync("disk.vhd", "changes to another disk, 'C:\\disks\\parent.vhd'");
    }

    [Fact]
    public async Task Footers_of_a_vhd_that_lie_are_refused()
    {
        await VhdAsync("fixed");
        await ChangeFootersAsync(folder["disk.vhd"], footer => BinaryPrimitives.WriteInt64BigEndian(footer.AsSpan(SizeAt), 8 * MiB));
        await RefusedAsync("disk.vhd", "its footer says that it has 8388608 bytes, and it has 4194304");
        await ChangeFootersAsync(folder["disk.vhd"], footer => BinaryPrimitives.WriteInt64BigEndian(footer.AsSpan(SizeAt), -1));
        await RefusedAsync("disk.vhd", "1 byte to 2 TiB");
        await VhdAsync("fixed");
        await ChangeFootersAsync(folder["disk.vhd"], footer => footer[TypeAt + 3] = 6);
        await RefusedAsync("disk.vhd", "type 6");
        await ChangeFootersAsync(folder["disk.vhd"], footer => footer[TypeAt + 3] = 3);
        await RefusedAsync("disk.vhd", "its VHD footer at byte 0 is damaged");

        await VhdAsync("dynamic");
        var whole = await File.ReadAllBytesAsync(folder["disk.vhd"], Token);
        await ChangeFootersAsync(folder["disk.vhd"], footer => BinaryPrimitives.WriteInt64BigEndian(footer.AsSpan(SizeAt), 2 * MiB), atStart: false);
        await RefusedAsync("disk.vhd", "contradict");
        await File.WriteAllBytesAsync(folder["disk.vhd"], whole, Token);
        await ChangeFootersAsync(folder["disk.vhd"], footer => BinaryPrimitives.WriteInt64BigEndian(footer.AsSpan(SizeAt), 64L << 30));
        await RefusedAsync("disk.vhd", "can't be imported"); // more than its table has places for
        await ChangeFootersAsync(folder["disk.vhd"], footer => BinaryPrimitives.WriteInt64BigEndian(footer.AsSpan(16), long.MaxValue));
        await RefusedAsync("disk.vhd", "its header is not where its footer says");
        whole[SizeAt]++;
        await File.WriteAllBytesAsync(folder["disk.vhd"], whole, Token);
        await RefusedAsync("disk.vhd", "its VHD footer at byte 0 is damaged");
        await RefusedAsync($"disk-{4 * MiB}.raw", "no VHD disk", DiskFormat.Vhd);
    }

    [Theory]
    [InlineData("fixed", false, "no partition table")] // a fixed disk's content alone can't be told from a raw one
    [InlineData("fixed", true, "no VHD disk")]
    [InlineData("dynamic", false, "the footer at its end is missing: it was cut off")]
    public async Task A_vhd_that_was_cut_off_is_refused(string kind, bool isNamed, string why)
    {
        var file = await VhdAsync(kind);
        using (var stream = File.Open(file, FileMode.Open))
        {
            stream.SetLength((stream.Length - (MiB / 2)) / 512 * 512);
            if (kind == "fixed")
            {
                stream.Position = 510;
                stream.Write([0, 0]);
            }
        }

        await RefusedAsync("disk.vhd", why, isNamed ? DiskFormat.Vhd : null);
    }

    private async Task<string> VhdAsync(string kind)
    {
        await QemuAsync("convert", "-f", "raw", "-O", "vpc", "-o", $"subformat={kind},force_size=on", Disk(4 * MiB), folder["disk.vhd"]);
        return folder["disk.vhd"];
    }

    /// <summary>Changes the footer, the copy at the beginning too, and makes their checksums right again.</summary>
    private static async Task ChangeFootersAsync(string file, Action<byte[]> change, bool atStart = true)
    {
        using var handle = File.OpenHandle(file, FileMode.Open, FileAccess.ReadWrite);
        var footer = new byte[FooterLength];
        foreach (var at in new[] { RandomAccess.GetLength(handle) - FooterLength, 0 })
        {
            await RandomAccess.ReadAsync(handle, footer, at, Token);
            if (footer.AsSpan().StartsWith("conectix"u8) && (at > 0 || atStart))
            {
                change(footer);
                footer.AsSpan(ChecksumAt, 4).Clear();
                BinaryPrimitives.WriteUInt32BigEndian(footer.AsSpan(ChecksumAt), ~(uint)footer.Sum(value => value));
                await RandomAccess.WriteAsync(handle, footer, at, Token);
            }
        }
    }
}
