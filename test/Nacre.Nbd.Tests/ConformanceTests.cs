using System.Diagnostics;
using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Testing;
using Nacre.Volumes;
using Xunit;

namespace Nacre.Nbd.Tests;

/// <summary>Real clients against the server, over a device in memory and over a real volume.</summary>
public sealed class ConformanceTests : IAsyncDisposable
{
    private const long Size = 64 << 20;

    private readonly TemporaryDirectory _folder = new();
    private NbdServer? _server;
    private IBlockDevice? _device;

    public async ValueTask DisposeAsync()
    {
        if (_server is not null)
        {
            await _server.DisposeAsync();
        }

        if (_device is not null)
        {
            await _device.DisposeAsync();
        }

        _folder.Dispose();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Nbdinfo_sees_size_flags_and_extents(bool real)
    {
        var uri = Serve(real);
        var info = await RunAsync("nbdinfo", uri);
        Assert.Contains("export-size: 67108864", info, StringComparison.Ordinal);
        Assert.Contains("can_multi_conn: true", info, StringComparison.Ordinal);
        Assert.Contains("can_fast_zero: true", info, StringComparison.Ordinal);
        Assert.Contains("base:allocation", info, StringComparison.Ordinal);
        Assert.Contains("block_size_preferred: 4096", info, StringComparison.Ordinal);
        Assert.Contains("disk", await RunAsync("nbdinfo", "--list", uri), StringComparison.Ordinal);
        var map = await RunAsync("nbdinfo", "--map", uri);
        Assert.Contains(real ? "3  hole,zero" : "0  data", map, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Nbdcopy_brings_an_image_in_and_out_unchanged(bool real)
    {
        var uri = Serve(real);
        var (source, copy) = (_folder["source"], _folder["copy"]);
        var content = new byte[Size];
        new Random(7).NextBytes(content.AsSpan(3 << 20, 20 << 20));
        await File.WriteAllBytesAsync(source, content, TestContext.Current.CancellationToken);
        await RunAsync("nbdcopy", "--flush", source, uri);
        await RunAsync("nbdcopy", uri, copy);
        Assert.Equal(SHA256.HashData(content), SHA256.HashData(await File.ReadAllBytesAsync(copy, TestContext.Current.CancellationToken)));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Qemu_io_reads_what_it_wrote(bool real)
    {
        var uri = Serve(real);
        await RunAsync(
            "qemu-io", "-f", "raw", "-c", "write -P 0xa5 1M 1M", "-c", "write -f -P 0x5a 1536k 7k", "-c", "write -z -u 1200k 64k", "-c", "discard 1300k 64k",
            "-c", "flush", "-c", "read -P 0xa5 1M 176k", "-c", "read -P 0 1200k 64k", "-c", "read -P 0 1300k 64k", "-c", "read -P 0x5a 1536k 7k",
            "-c", "read -P 0xa5 1543k 1k", "-c", "write -P 0x11 513 1000", "-c", "read -P 0x11 513 1000", "-c", "read -P 0 0 513", uri);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Qemu_img_converts_and_compares(bool real)
    {
        var uri = Serve(real);
        var source = _folder["source"];
        var content = new byte[Size];
        new Random(8).NextBytes(content.AsSpan(5 << 20, 9 << 20));
        await File.WriteAllBytesAsync(source, content, TestContext.Current.CancellationToken);
        await RunAsync("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, uri);
        await RunAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri);
        Assert.Equal(
            real ? [(0, 5 << 20, false), (5 << 20, 9 << 20, true), (14 << 20, Size - (14 << 20), false)] : [(0, Size, true)],
            await MapAsync("raw", uri));
    }

    [Fact]
    public async Task Qcow2_image_inside_the_device_is_sound_and_keeps_its_content()
    {
        var uri = Serve(real: true);
        var source = _folder["source"];
        var content = new byte[16 << 20];
        new Random(9).NextBytes(content.AsSpan(2 << 20, 5 << 20));
        await File.WriteAllBytesAsync(source, content, TestContext.Current.CancellationToken);
        await RunAsync("qemu-img", "create", "-f", "qcow2", uri, "16M");
        await RunAsync("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", source, uri);
        Assert.Contains("No errors were found", await RunAsync("qemu-img", "check", "-f", "qcow2", uri), StringComparison.Ordinal);
        await RunAsync("qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, uri);
        Assert.Equal([(0, 2 << 20, false), (2 << 20, 5 << 20, true), (7 << 20, 9 << 20, false)], await MapAsync("qcow2", uri));
        await RunAsync("qemu-io", "-f", "qcow2", "-c", "write -P 3 513 70000", "-c", "write -z 3M 1M", "-c", "discard 4M 1M", "-c", "flush", uri);
        await RunAsync("qemu-img", "snapshot", "-c", "inside", uri);
        await RunAsync("qemu-io", "-f", "qcow2", "-c", "write -P 4 0 8M", "-c", "read -P 4 0 8M", uri);
        await RunAsync("qemu-img", "snapshot", "-a", "inside", uri);
        await RunAsync("qemu-io", "-f", "qcow2", "-c", "read -P 3 513 70000", "-c", "read -P 0 3M 2M", uri);
        await RunAsync("qemu-img", "check", "-f", "qcow2", uri);
        Assert.Empty(((Volume)_device!).Verify(null, TestContext.Current.CancellationToken).Damages);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Fio_verifies_what_it_wrote(bool real)
    {
        var fio = Require.Tool("fio");
        var uri = Serve(real);
        if (!(await RunAsync(fio, "--enghelp")).Contains("nbd", StringComparison.Ordinal))
        {
            Assert.Skip("fio has no nbd engine");
        }

        await RunAsync(
            fio, "--name=verify", "--ioengine=nbd", $"--uri={uri}", "--rw=randwrite", "--bsrange=512-64k", "--iodepth=16", "--size=32M",
            "--verify=crc32c", "--verify_fatal=1", "--fsync=16", "--randseed=3");
    }

    [Fact]
    public async Task Killed_client_loses_nothing_that_was_answered()
    {
        var uri = Serve(real: true);
        var fio = Require.Tool("fio");
        using (var process = Start(fio, "--name=load", "--ioengine=nbd", $"--uri={uri}", "--rw=randwrite", "--bs=64k", "--iodepth=16", "--size=32M", "--offset=16M", "--time_based", "--runtime=60"))
        {
            var volume = (Volume)_device!;
            while (volume.Statistics.WrittenBytes < 4 << 20)
            {
                await Task.Delay(10, TestContext.Current.CancellationToken);
            }

            process.Kill(entireProcessTree: true);
            await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        }

        await RunAsync("qemu-io", "-f", "raw", "-c", "write -P 7 0 1M", "-c", "read -P 7 0 1M", uri);
        var deadline = Stopwatch.StartNew();
        while (_server!.Connections > 0)
        {
            Assert.True(deadline.Elapsed < TimeSpan.FromSeconds(20), "a connection outlived its client");
            await Task.Delay(10, TestContext.Current.CancellationToken);
        }
    }

    private string Serve(bool real) =>
        Serve(real ? Volume.Create(_folder["volume"], new VolumeOptions { Size = Size }, new byte[32]) : new MemoryDevice(Size));

    private string Serve(IBlockDevice device)
    {
        _device = device;
        _server = NbdServer.Start(_folder["nbd"], new Dictionary<string, IBlockDevice> { ["disk"] = _device });
        return $"nbd+unix:///disk?socket={_folder["nbd"]}";
    }

    private static async Task<(long, long, bool)[]> MapAsync(string format, string uri)
    {
        using var map = JsonDocument.Parse(await RunAsync("qemu-img", "map", "-f", format, "--output=json", uri));
        return [.. map.RootElement.EnumerateArray().Select(extent => (extent.GetProperty("start").GetInt64(), extent.GetProperty("length").GetInt64(), extent.GetProperty("data").GetBoolean()))];
    }

    private static Process Start(string tool, params string[] arguments) => Process.Start(new ProcessStartInfo(Require.Tool(tool), arguments)
    {
        RedirectStandardOutput = true,
        RedirectStandardError = true,
    })!;

    private static async Task<string> RunAsync(string tool, params string[] arguments)
    {
        using var process = Start(tool, arguments);
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var error = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        var text = await output;
        Assert.True(process.ExitCode == 0 && !text.Contains("ailed", StringComparison.Ordinal), $"{tool} exited with {process.ExitCode}: {text}{await error}");
        return text;
    }
}
