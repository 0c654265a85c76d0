using System.Buffers.Binary;
using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Images.Importing;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests;

/// <summary>Importing disks that <c>qemu-img</c> made, and files that somebody else made to do harm.</summary>
public sealed partial class DiskImportTests : IDisposable
{
    private const string Canary = "canary-of-a-file-that-no-image-may-read-51f2";
    private const int MiB = 1 << 20;

    private readonly TemporaryDirectory folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("raw")]
    [InlineData("qcow2")]
    [InlineData("vmdk")]
    [InlineData("vmdk", "subformat=streamOptimized")]
    [InlineData("vhdx")]
    [InlineData("vdi")]
    public async Task A_disk_of_every_format_arrives_bit_for_bit_with_its_holes(string format, string? option = null)
    {
        var disk = Disk(64 * MiB);
        var content = await File.ReadAllBytesAsync(disk, Token);
        var file = folder[$"a disk, with a comma.{format}"];
        await QemuAsync(["convert", "-f", "raw", "-O", format, .. option is null ? Array.Empty<string>() : ["-o", option], disk, file]);
        var image = await ImportAsync(file);
        Assert.Equal(format, image.From.ToString().ToLowerInvariant());
        var golden = GoldenImage.Open(folder["image"]);
        Assert.Equal(ImageKind.Disk, golden.Kind);
        var artifact = Assert.Single(golden.Artifacts);
        Assert.Equal(("disk", 64L * MiB), (artifact.Name, artifact.Size));
        var imported = await File.ReadAllBytesAsync(artifact.Path, Token);
        Assert.True(content.AsSpan().SequenceEqual(imported));
        Assert.InRange(await StoredBytesAsync(artifact.Path), 1, 4 * MiB);
    }

    [Fact]
    public async Task An_image_that_names_another_file_is_refused_before_that_is_read()
    {
        var secret = folder["secret"];
        await File.WriteAllTextAsync(secret, string.Concat(Enumerable.Repeat(Canary + "\n", 2000)), Token);
        await QemuAsync("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", folder["backing.qcow2"], "1M");
        await RefusedAsync("backing.qcow2", "a backing file");
        await QemuAsync("create", "-q", "-f", "qcow2", "-o", $"data_file={folder["data"]},data_file_raw=on", folder["external.qcow2"], "1M");
        await RefusedAsync("external.qcow2", "a data file");
        await QemuAsync("convert", "-f", "raw", "-O", "vmdk", Disk(MiB), folder["base.vmdk"]);
        await QemuAsync("create", "-q", "-f", "vmdk", "-b", folder["base.vmdk"], "-F", "vmdk", folder["child.vmdk"]);
        await RefusedAsync("child.vmdk", "changes to another disk");
        await File.WriteAllTextAsync(folder["extents.vmdk"], $"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 100 FLAT \"{secret}\" 0\n", Token);
        await RefusedAsync("extents.vmdk", "several files");
        await RefusedAsync("extents.vmdk", "one file", DiskFormat.Vmdk);

        // As a raw disk it is nothing but its bytes.
        await RefusedAsync("extents.vmdk", "no partition table", DiskFormat.Raw);

        // The descriptor of a disk in one file, taken for a list of other files where the header says that it has no sectors.
        var bytes = await File.ReadAllBytesAsync(folder["base.vmdk"], Token);
        bytes.AsSpan(12, 8).Clear();
        await File.WriteAllBytesAsync(folder["capacity.vmdk"], bytes, Token);
        await RefusedAsync("capacity.vmdk", "one file");
    }

    [Fact]
    public async Task A_footer_that_names_another_descriptor_reads_no_other_file()
    {
        // QEMU takes the footer of a stream-optimised disk for its header; this one's descriptor has a parent.
        var parent = folder["parent.raw"];
        await File.WriteAllTextAsync(parent, string.Concat(Enumerable.Repeat(Canary + "\n", MiB / Canary.Length)), Token);
        var secret = folder["secret.vmdk"];
        await QemuAsync("convert", "-f", "raw", "-O", "vmdk", parent, secret);
        await QemuAsync("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", Disk(MiB), folder["footer.vmdk"]);
        var bytes = (await File.ReadAllBytesAsync(folder["footer.vmdk"], Token)).ToList();
        var header = bytes.GetRange(0, 512);
        var descriptor = new byte[512];
        System.Text.Encoding.ASCII.GetBytes($"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=00000001\ncreateType=\"streamOptimized\"\nparentFileNameHint=\"{secret}\"\n").CopyTo(descriptor, 0);
        var at = bytes.Count / 512;
        bytes.RemoveRange(at * 512, bytes.Count - (at * 512));
        bytes.AddRange(descriptor);
        var footer = header.ToArray();
        BinaryPrimitives.WriteInt64LittleEndian(footer.AsSpan(28), at);
        BinaryPrimitives.WriteInt64LittleEndian(footer.AsSpan(36), 1);
        var marker = new byte[512];
        BinaryPrimitives.WriteInt64LittleEndian(marker, 1);
        BinaryPrimitives.WriteInt32LittleEndian(marker.AsSpan(12), 3);
        for (var i = 0; i < 8; i++)
        {
            bytes[56 + i] = 0xFF; // the grain directory is where the footer says
        }

        bytes.AddRange(marker);
        bytes.AddRange(footer);
        bytes.AddRange(new byte[512]);
        await File.WriteAllBytesAsync(folder["footer.vmdk"], [.. bytes], Token);
        if (await Record.ExceptionAsync(() => ImportAsync(folder["footer.vmdk"])) is { } exception)
        {
            Assert.Equal(ErrorCatalogue.NotADisk, Assert.IsType<NacreException>(exception).Kind);
        }
        else
        {
            Assert.DoesNotContain(Canary, System.Text.Encoding.Latin1.GetString(await File.ReadAllBytesAsync(Path.Combine(folder["image"], ImportedDisk.FileName), Token)), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task What_is_no_disk_is_refused()
    {
        await File.WriteAllBytesAsync(folder["empty.raw"], [], Token);
        await RefusedAsync("empty.raw", "it is empty");
        await File.WriteAllTextAsync(folder["letter.qcow2"], "Dear administrator, this is no disk", Token);
        await RefusedAsync("letter.qcow2", "no known format");
        await RefusedAsync("letter.qcow2", "not qcow2", DiskFormat.Qcow2);
        await RefusedAsync("letter.qcow2", "not a VDI", DiskFormat.Vdi);
        await RefusedAsync("letter.qcow2", "can't be imported", DiskFormat.Vhdx);
        await RefusedAsync("letter.qcow2", "one file", DiskFormat.Vmdk);
        await File.WriteAllBytesAsync(folder["zeroes.raw"], new byte[MiB], Token);
        await RefusedAsync("zeroes.raw", "no partition table");
        await QemuAsync("create", "-q", "-f", "qcow2", folder["blank.qcow2"], "10M");
        await RefusedAsync("blank.qcow2", "no partition table");
        await QemuAsync("create", "-q", "-f", "qcow2", folder["nothing.qcow2"], "0");
        await RefusedAsync("nothing.qcow2", "its disk has 0 bytes");
        Assert.Equal(ErrorCatalogue.FileAccess, (await Assert.ThrowsAsync<NacreException>(() => ImportAsync(folder["missing.raw"]))).Kind);
        Assert.Equal(ErrorCatalogue.FileAccess, (await Assert.ThrowsAsync<NacreException>(() => ImportAsync(folder.Path))).Kind);
    }

    [Fact]
    public async Task A_disk_that_says_it_is_larger_than_any_is_refused()
    {
        await QemuAsync("convert", "-f", "raw", "-O", "qcow2", Disk(MiB), folder["huge.qcow2"]);
        var bytes = await File.ReadAllBytesAsync(folder["huge.qcow2"], Token);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(24), 10UL << 60);
        await File.WriteAllBytesAsync(folder["huge.qcow2"], bytes, Token);
        await RefusedAsync("huge.qcow2", "1 byte to 2 TiB");
        await QemuAsync("convert", "-f", "raw", "-O", "vdi", Disk(MiB), folder["huge.vdi"]);
        bytes = await File.ReadAllBytesAsync(folder["huge.vdi"], Token);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(0x170), 10UL << 60);
        await File.WriteAllBytesAsync(folder["huge.vdi"], bytes, Token);
        await RefusedAsync("huge.vdi", "1 byte to 2 TiB");
        await QemuAsync("create", "-q", "-f", "vhdx", folder["huge.vhdx"], "3T");
        await RefusedAsync("huge.vhdx", "1 byte to 2 TiB");
        using (var sparse = File.OpenHandle(folder["huge.raw"], FileMode.Create, FileAccess.Write))
        {
            RandomAccess.Write(sparse, new byte[] { 0x55, 0xAA }, 510);
            RandomAccess.SetLength(sparse, 3L << 40);
        }

        await RefusedAsync("huge.raw", "1 byte to 2 TiB");
    }

    [Theory]
    [InlineData("qcow2")]
    [InlineData("vmdk")]
    [InlineData("vhdx")]
    [InlineData("vdi")]
    public async Task A_disk_that_was_cut_off_is_refused(string format)
    {
        var file = folder[$"cut.{format}"];
        await QemuAsync("convert", "-f", "raw", "-O", format, Disk(64 * MiB), file);
        var length = new FileInfo(file).Length;
        using (var stream = File.OpenWrite(file))
        {
            stream.SetLength((length - (MiB / 2)) / 512 * 512);
        }

        Assert.Equal(ErrorCatalogue.NotADisk, (await Assert.ThrowsAsync<NacreException>(() => ImportAsync(file))).Kind);
        Assert.False(Directory.Exists(folder["image"]));
    }

    [Fact]
    public async Task A_raw_disk_whose_partition_table_knows_more_of_it_was_cut_off()
    {
        var disk = Disk(4 * MiB);
        using (var stream = new FileStream(disk, FileMode.Open, FileAccess.ReadWrite))
        {
            stream.Position = 512;
            stream.Write("EFI PART"u8);
            var last = new byte[8];
            BinaryPrimitives.WriteInt64LittleEndian(last, (8 * MiB / 512) - 1);
            stream.Position = 512 + 32;
            stream.Write(last);
        }

        Assert.Contains("it was cut off", (await Assert.ThrowsAsync<NacreException>(() => ImportAsync(disk))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Random_damage_of_an_image_never_does_more_than_be_refused()
    {
        await QemuAsync("convert", "-f", "raw", "-O", "qcow2", Disk(2 * MiB), folder["whole.qcow2"]);
        var whole = await File.ReadAllBytesAsync(folder["whole.qcow2"], Token);
        var seed = int.TryParse(Environment.GetEnvironmentVariable("NACRE_SEED"), out var given) ? given : Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"NACRE_SEED={seed}");
        var random = new Random(seed);
        for (var round = 0; round < 25; round++)
        {
            var damaged = (byte[])whole.Clone();
            for (var i = 0; i < 4; i++)
            {
                damaged[random.Next(round % 2 == 0 ? 112 : damaged.Length)] = (byte)random.Next(256);
            }

            await File.WriteAllBytesAsync(folder["damaged.qcow2"], damaged, Token);
            if (await Record.ExceptionAsync(() => ImportAsync(folder["damaged.qcow2"])) is { } exception)
            {
                Assert.Contains(Assert.IsType<NacreException>(exception).Kind, new[] { ErrorCatalogue.NotADisk, ErrorCatalogue.NoSpace });
            }
            else
            {
                Directory.Delete(folder["image"], recursive: true);
            }

            Assert.Empty(Directory.GetDirectories(folder.Path));
        }
    }

    [Fact]
    public async Task An_import_that_is_cancelled_leaves_nothing_and_a_folder_that_is_there_is_left_alone()
    {
        await QemuAsync("convert", "-f", "raw", "-O", "qcow2", Disk(8 * MiB), folder["disk.qcow2"]);
        using var cancelled = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => DiskImporter.ImportAsync(
            folder["disk.qcow2"], null, null, "desktop", folder["image"], (_, _) => cancelled.Cancel(), cancelled.Token));
        Assert.Empty(Directory.GetDirectories(folder.Path));
        Directory.CreateDirectory(folder["image"]);
        Assert.Equal(ErrorCatalogue.AlreadyExists, (await Assert.ThrowsAsync<NacreException>(() => ImportAsync(folder["disk.qcow2"]))).Kind);
        Assert.Empty(Directory.GetFiles(folder["image"]));
    }

    private Task<ImportedDisk> ImportAsync(string file, DiskFormat? format = null) =>
        DiskImporter.ImportAsync(file, format, null, "desktop", folder["image"], null, Token);

    private async Task RefusedAsync(string file, string why, DiskFormat? format = null)
    {
        var refused = await Assert.ThrowsAsync<NacreException>(() => ImportAsync(folder[file], format));
        Assert.Contains(why, refused.Message, StringComparison.Ordinal);
        Assert.Equal(ErrorCatalogue.NotADisk, refused.Kind);
        Assert.Empty(Directory.GetDirectories(folder.Path));
    }

    /// <summary>A raw disk with the mark of a partition table, some data near its beginning and its end, and nothing in between.</summary>
    private string Disk(long size)
    {
        var path = folder[$"disk-{size}.raw"];
        using var file = File.OpenHandle(path, FileMode.Create, FileAccess.Write);
        RandomAccess.SetLength(file, size);
        var data = new byte[400_000];
        new Random(5).NextBytes(data);
        (data[510], data[511]) = (0x55, 0xAA);
        RandomAccess.Write(file, data, 0);
        RandomAccess.Write(file, data.AsSpan(1000), size - data.Length);
        return path;
    }

    private static async Task<long> StoredBytesAsync(string file)
    {
        using var process = Process.Start(new ProcessStartInfo("stat", ["-c", "%b", file]) { RedirectStandardOutput = true })!;
        return 512 * long.Parse(await process.StandardOutput.ReadToEndAsync(Token), System.Globalization.CultureInfo.InvariantCulture);
    }

    private static async Task QemuAsync(params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(Require.Tool("qemu-img"), arguments) { RedirectStandardError = true })!;
        var errors = await process.StandardError.ReadToEndAsync(Token);
        await process.WaitForExitAsync(Token);
        Assert.True(process.ExitCode == 0, errors);
    }
}
