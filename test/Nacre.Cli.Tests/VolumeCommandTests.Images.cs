using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.Cli.Tests;

/// <content>Disk images of other programs: import and export.</content>
public sealed partial class VolumeCommandTests
{
    [Fact]
    public async Task Export_rescues_what_can_be_read_of_a_damaged_volume_and_names_the_rest()
    {
        var image = new byte[Size];
        new Random(5).NextBytes(image);
        await File.WriteAllBytesAsync(folder["image"], image, TestContext.Current.CancellationToken);
        await SucceedAsync("import", Volume, folder["image"], "-k", Key, "--format", "raw");
        await FlipAsync(image, 3);
        await FlipAsync(image, 4);
        await FlipAsync(image, 9);
        await FailAsync(ErrorCatalogue.FileAccess, "export", Volume, folder["out"], "-k", Key);
        Assert.False(File.Exists(folder["out"]));

        var (code, output, error) = await NacreProgram.RunAsync(folder, "volume", "export", Volume, folder["out"], "-k", Key, "--rescue");
        Assert.Equal((int)ExitCode.NotAuthentic, code);
        Assert.Contains($"lost: bytes {3 * Block} to {(5 * Block) - 1}\nlost: bytes {9 * Block} to {(10 * Block) - 1}\n", output, StringComparison.Ordinal);
        Assert.Contains("2 ranges could not be read and are zeroes", error, StringComparison.Ordinal);
        image.AsSpan(3 * Block, 2 * Block).Clear();
        image.AsSpan(9 * Block, Block).Clear();
        Assert.Equal(image, await File.ReadAllBytesAsync(folder["out"], TestContext.Current.CancellationToken));
    }

    [Theory]
    [InlineData("raw")]
    [InlineData("qcow2")]
    public async Task Import_and_export_give_the_same_disk(string format)
    {
        var content = new byte[Size];
        new Random(3).NextBytes(content.AsSpan(1 << 20, 3 << 20));
        await File.WriteAllBytesAsync(folder["raw"], content, TestContext.Current.CancellationToken);
        await ToolAsync("qemu-img", "convert", "-f", "raw", "-O", format, folder["raw"], folder["image"]);
        var imported = await JsonAsync("import", Volume, folder["image"], "-k", Key);
        Assert.Equal(Size, imported.GetProperty("size").GetInt64());
        Assert.Equal(3 << 20, imported.GetProperty("liveBytes").GetInt64());
        Assert.Equal(folder["out"], (await JsonAsync("export", Volume, folder["out"], "-k", Key, "--format", format)).GetProperty("file").GetString());
        await ToolAsync("qemu-img", "compare", "-f", "raw", "-F", format, folder["raw"], folder["out"]);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(folder["out"]));
        await FailAsync(ErrorCatalogue.AlreadyExists, "export", Volume, folder["out"], "-k", Key);
        await SucceedAsync("import", folder["again"], folder["out"], "-k", Key, "-f", format);
        Assert.Equal(content, await ExportAsync(folder["again"]));
    }

    [Fact]
    public async Task Import_of_an_image_that_names_another_file_is_refused()
    {
        await File.WriteAllTextAsync(folder["secret"], "of this computer", TestContext.Current.CancellationToken);
        await ToolAsync("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", folder["secret"], folder["backed"], "4M");
        await ToolAsync("qemu-img", "create", "-q", "-f", "qcow2", "-o", $"data_file={folder["data"]},data_file_raw=on", folder["split"], "4M");
        await ToolAsync("qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", folder["extents.vmdk"], "5G");
        foreach (var (image, other) in new[] { ("backed", "secret"), ("split", "data"), ("extents.vmdk", "extents-s002.vmdk") })
        {
            Assert.Contains(folder[other], (await FailAsync(ErrorCatalogue.NotADisk, "import", Volume, folder[image], "-k", Key)).Message, StringComparison.Ordinal);
            Assert.False(Directory.Exists(Volume));
        }
    }

    [Fact]
    public async Task Import_of_a_file_that_ends_within_a_block_adds_zeroes()
    {
        await File.WriteAllBytesAsync(folder["image"], [.. Enumerable.Repeat((byte)7, 1000)], TestContext.Current.CancellationToken);
        await SucceedAsync("import", Volume, folder["image"], "-k", Key, "--format", "raw");
        var content = await ExportAsync(Volume);
        Assert.Equal([.. Enumerable.Repeat((byte)7, 1000), .. new byte[Block - 1000]], content);
    }

    [Fact]
    public async Task Import_that_is_killed_leaves_nothing_that_looks_like_a_volume()
    {
        var slow = await SlowOrBrokenImageAsync("--filter=delay", "rdelay=200ms");
        var import = NacreProgram.Start(folder, "volume", "import", Volume, slow, "-k", Key, "--chain");
        started.Add(import);
        while (!Directory.Exists(Volume + ".part"))
        {
            Assert.False(import.HasExited);
            await Task.Delay(20, TestContext.Current.CancellationToken);
        }

        import.Kill(entireProcessTree: true);
        await import.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.False(Directory.Exists(Volume));
        await FailAsync(ErrorCatalogue.FileAccess, "stat", Volume, "-k", Key);
        await FailAsync(ErrorCatalogue.AlreadyExists, "import", Volume, slow, "-k", Key, "--chain");
        Directory.Delete(Volume + ".part", recursive: true);
        await File.WriteAllBytesAsync(folder["image"], new byte[Size], TestContext.Current.CancellationToken);
        await SucceedAsync("import", Volume, folder["image"], "-k", Key, "-f", "raw");
    }

    [Fact]
    public async Task Import_that_fails_leaves_everything_as_it_was()
    {
        await FailAsync(ErrorCatalogue.FileAccess, "import", Volume, folder["missing"], "-k", Key);
        await File.WriteAllBytesAsync(folder["image"], new byte[Size], TestContext.Current.CancellationToken);
        await FailAsync(ErrorCatalogue.FileAccess, "import", Volume, folder["image"], "-k", Key, "-f", "nonsense");
        Assert.False(Directory.Exists(Volume));

        var broken = await SlowOrBrokenImageAsync("--filter=error", "error-pread-rate=100%");
        await FailAsync(ErrorCatalogue.FileAccess, "import", Volume, broken, "-k", Key, "--chain");
        Assert.False(Directory.Exists(Volume));
        Directory.CreateDirectory(Volume);
        await FailAsync(ErrorCatalogue.FileAccess, "import", Volume, broken, "-k", Key, "--chain");
        Assert.Empty(Directory.GetFileSystemEntries(Volume));

        Directory.CreateDirectory(folder["documents/inside"]);
        await FailAsync(ErrorCatalogue.AlreadyExists, "import", folder["documents"], broken, "-k", Key, "--chain");
        Assert.True(Directory.Exists(folder["documents/inside"]));
        await SucceedAsync("import", Volume, folder["image"], "-k", Key);
        await FailAsync(ErrorCatalogue.AlreadyExists, "import", Volume, broken, "-k", Key, "--chain");
        await FailAsync(ErrorCatalogue.AlreadyExists, "create", Volume, "-k", Key, "-s", "4K");
        await SucceedAsync("verify", Volume, "-k", Key);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Interrupted_import_leaves_nothing_behind(bool wholeGroup)
    {
        var slow = await SlowOrBrokenImageAsync("--filter=delay", "rdelay=200ms");
        var process = NacreProgram.StartGroup(folder, "volume", "import", Volume, slow, "-k", Key, "--chain");
        started.Add(process);
        var part = Volume + ".part";
        while (!Directory.Exists(part) || Directory.GetFiles(part, "segment-*").Length == 0)
        {
            Assert.False(process.HasExited, "it ended before it was interrupted");
            await Task.Delay(20, TestContext.Current.CancellationToken);
        }

        NacreProgram.Signal(process, NacreProgram.Interrupt, wholeGroup);
        var (code, output, error) = await NacreProgram.EndAsync(process);
        Assert.True(code == (int)ExitCode.Cancelled, error);
        Assert.Empty(output);
        Assert.Contains("nacre: error: interrupted", error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(Volume) || Directory.Exists(part));
    }

    private async Task<string[]> SnapshotsAsync(string volume) =>
        [.. (await JsonAsync("stat", volume, "-k", Key)).GetProperty("snapshots").EnumerateArray().Select(snapshot => snapshot.GetProperty("name").GetString()!)];

    /// <summary>A qcow2 image whose second half is read from an nbdkit that is slow, or fails.</summary>
    private async Task<string> SlowOrBrokenImageAsync(params string[] nbdkit)
    {
        var (image, socket) = (folder["overlay"], folder["nbdkit"]);
        await ToolAsync("qemu-img", "create", "-f", "qcow2", image, "64M");
        await ToolAsync("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 8M", image);
        var process = Process.Start(new ProcessStartInfo(Require.Tool("nbdkit"), ["-f", "-U", socket, nbdkit[0], "pattern", "64M", nbdkit[1]]) { RedirectStandardError = true })!;
        started.Add(process);
        while (!File.Exists(socket))
        {
            Assert.False(process.HasExited, "nbdkit ended");
            await Task.Delay(20, TestContext.Current.CancellationToken);
        }

        await ToolAsync("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", $"nbd+unix:///?socket={socket}", image);
        return image;
    }
}
