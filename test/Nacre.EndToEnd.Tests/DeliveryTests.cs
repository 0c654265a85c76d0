using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>How a release gets from the server to a device by other ways, with the real program everywhere. No guest runs.</summary>
public sealed class DeliveryTests
{
    [Fact]
    public async Task A_release_comes_from_a_replica_from_any_web_server_and_from_a_stick_and_the_store_is_checked_repaired_and_cleaned()
    {
        Require.Tool("qemu-img");
        await using var organisation = await Organisation.CreateAsync();
        var (admin, device) = (organisation.Administrator, organisation.Device);
        var size = await ImportAsync(organisation, "disk-1");
        await organisation.OfferAsync(organisation["disk-1"], "desktop");
        await organisation.EnrolAsync();

        // A replica with its own token, and nothing of the administrator's.
        await File.WriteAllTextAsync(organisation["token"], (await admin.RunAsync("replica", "token")).Line, TestContext.Current.CancellationToken);
        var replica = new Shell();
        string[] sync = ["replica", "sync", organisation["replica"], "--server", organisation.Url, "--token-file", organisation["token"]];
        Assert.Contains("desktop 1", (await replica.RunAsync(sync)).Output, StringComparison.Ordinal);
        Assert.Contains("0 B were fetched", (await replica.RunAsync(sync)).Output, StringComparison.Ordinal);
        await File.WriteAllTextAsync(organisation["wrong"], "wrong", TestContext.Current.CancellationToken);
        await replica.FailAsync(ErrorCatalogue.Unauthenticated, "replica", "sync", organisation["replica"], "--server", organisation.Url, "--token-file", organisation["wrong"]);

        // The server keeps its manifests and loses its segments: what the device gets now comes from elsewhere.
        var segments = Path.Combine(organisation.ServerData, "segments");
        Directory.Move(segments, organisation["away"]);
        Directory.CreateDirectory(segments);
        var checkedStore = await admin.FailAsync(ErrorCatalogue.StoreDamaged, "store", "check");
        Assert.Contains("missing, needed by desktop 1", checkedStore.Output, StringComparison.Ordinal);

        var port = FreePort();
        using (var serving = replica.Start("replica", "serve", organisation["replica"], "--listen", $"http://127.0.0.1:{port}"))
        {
            await ReachAsync(port);
            await admin.RunAsync("store", "origins", $"http://127.0.0.1:{FreePort()}/nobody", $"http://127.0.0.1:{port}");
            Assert.Contains($"http://127.0.0.1:{port}/", (await admin.RunAsync("store", "origins")).Output, StringComparison.Ordinal);
            Assert.Contains("is here", (await device.RunAsync("livepc", "update", "office")).Output, StringComparison.Ordinal);
            Assert.Contains("up to date", (await device.RunAsync("livepc", "update", "office")).Output, StringComparison.Ordinal);
            serving.Kill();
            await serving.WaitForExitAsync(TestContext.Current.CancellationToken);
        }

        // Any web server does: this one does not even know ranges.
        ForgetSegments(organisation);
        port = FreePort();
        using (var python = Process.Start(new ProcessStartInfo(Require.Tool("python3"), ["-m", "http.server", "--bind", "127.0.0.1", "--directory", organisation["replica"], $"{port}"]) { RedirectStandardError = true, RedirectStandardOutput = true })!)
        {
            _ = python.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
            await ReachAsync(port);
            await admin.RunAsync("store", "origins", $"http://127.0.0.1:{port}");
            await device.RunAsync("livepc", "update", "office");
            python.Kill();
            await python.WaitForExitAsync(TestContext.Current.CancellationToken);
        }

        // A stick, without any network; what is damaged on it is not taken.
        ForgetSegments(organisation);
        await admin.RunAsync("store", "origins", "--none");
        await device.FailAsync(ErrorCatalogue.NotFound, "livepc", "update", "office");
        await organisation.StopServerAsync();
        await device.FailAsync(ErrorCatalogue.ServerUnreachable, "livepc", "update", "office");
        var largest = new DirectoryInfo(organisation["replica"]).EnumerateFiles("*", SearchOption.AllDirectories).MaxBy(file => file.Length)!;
        var whole = await File.ReadAllBytesAsync(largest.FullName, TestContext.Current.CancellationToken);
        var flipped = whole.ToArray();
        flipped[flipped.Length / 2] ^= 1;
        await File.WriteAllBytesAsync(largest.FullName, flipped, TestContext.Current.CancellationToken);
        await device.FailAsync(ErrorCatalogue.ServerUnreachable, "livepc", "update", "office", "--from", organisation["replica"]);
        await File.WriteAllBytesAsync(largest.FullName, whole, TestContext.Current.CancellationToken);
        var imported = JsonDocument.Parse((await device.RunAsync("livepc", "update", "office", "--from", organisation["replica"], "--json")).Output).RootElement;
        Assert.InRange(imported.GetProperty("bytes").GetInt64(), 1, size);
        await device.FailAsync(ErrorCatalogue.FileAccess, "livepc", "update", "office", "--from", organisation["nowhere"]);

        // The store is repaired from the replica; a later release makes the first one go, and its segments after the grace period, which is a day here.
        await organisation.StartServerAsync();
        Assert.Contains("put back", (await admin.RunAsync("store", "check", "--repair", organisation["replica"])).Output, StringComparison.Ordinal);
        Assert.Contains("all of it is as it should be", (await admin.RunAsync("store", "check")).Output, StringComparison.Ordinal);
        await ImportAsync(organisation, "disk-2");
        await admin.RunAsync("image", "publish", organisation["disk-2"], "--channel", "stable");
        Assert.Contains("newest 1", (await admin.RunAsync("image", "retention", "desktop", "--keep", "1")).Output, StringComparison.Ordinal);
        Assert.Contains("0 segments", (await admin.RunAsync("store", "clean")).Output, StringComparison.Ordinal);
        Assert.Equal(2, JsonDocument.Parse((await admin.RunAsync("image", "list", "--json")).Output).RootElement.GetArrayLength());
        await device.RunAsync("livepc", "update", "office");
        Assert.Contains("desktop 2", (await replica.RunAsync(sync)).Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_download_that_is_killed_again_and_again_gets_on()
    {
        Require.Tool("qemu-img");
        await using var organisation = await Organisation.CreateAsync();
        await ImportAsync(organisation, "disk-1");
        await organisation.OfferAsync(organisation["disk-1"], "desktop");
        await organisation.EnrolAsync();
        await organisation.Administrator.RunAsync("policy", "set", "livepc:office", "update.bandwidthKbps=16000");
        var before = 0L;
        for (var kill = 0; kill < 2; kill++)
        {
            using var update = organisation.Device.Start("livepc", "update", "office");
            for (var limit = Stopwatch.StartNew(); Kept(organisation) < before + 2_000_000; await Task.Delay(50, TestContext.Current.CancellationToken))
            {
                Assert.False(update.HasExited, "it ended before it could be killed");
                Assert.True(limit.Elapsed < TimeSpan.FromMinutes(2));
            }

            update.Kill();
            await update.WaitForExitAsync(TestContext.Current.CancellationToken);
            before = Kept(organisation);
        }

        await organisation.Administrator.RunAsync("policy", "set", "livepc:office", "--clear", "update.bandwidthKbps");
        var result = JsonDocument.Parse((await organisation.Device.RunAsync("livepc", "update", "office", "--json")).Output).RootElement;

        // What is counted is on the disk; a chunk at a time of each request that was under way is not.
        Assert.InRange(result.GetProperty("bytes").GetInt64(), 1, result.GetProperty("releaseBytes").GetInt64() - before + 2_000_000);
    }

    private static long Kept(Organisation organisation)
    {
        var folder = new DirectoryInfo(Path.Combine(organisation.DeviceState, "segments"));
        return folder.Exists ? folder.EnumerateFiles().Sum(file => AllocatedBytes(file.FullName)) : 0;
    }

    private static long AllocatedBytes(string path)
    {
        using var du = Process.Start(new ProcessStartInfo("du", ["-B1", path]) { RedirectStandardOutput = true })!;
        var words = du.StandardOutput.ReadToEnd().Split('\t');
        return long.TryParse(words[0], out var bytes) ? bytes : 0;
    }

    private static void ForgetSegments(Organisation organisation)
    {
        foreach (var name in new[] { "segments", "indexes" })
        {
            Directory.Delete(Path.Combine(organisation.DeviceState, name), recursive: true);
        }
    }

    /// <summary>Makes a golden image of a disk of noise with an empty partition table.</summary>
    private static async Task<long> ImportAsync(Organisation organisation, string name)
    {
        const int Size = 24 * 1024 * 1024;
        var disk = RandomNumberGenerator.GetBytes(Size);
        disk.AsSpan(0, 4096).Clear();
        (disk[510], disk[511]) = (0x55, 0xAA);
        await File.WriteAllBytesAsync(organisation[name + ".raw"], disk, TestContext.Current.CancellationToken);
        await organisation.Administrator.RunAsync("image", "import", organisation[name + ".raw"], "--format", "raw", "--name", "desktop", "--output", organisation[name]);
        return 2 * Size;
    }

    private static int FreePort()
    {
        using var probe = new TcpListener(IPAddress.Loopback, 0);
        probe.Start();
        return ((IPEndPoint)probe.LocalEndpoint).Port;
    }

    private static async Task ReachAsync(int port)
    {
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(50, TestContext.Current.CancellationToken))
        {
            try
            {
                using var client = new TcpClient();
                await client.ConnectAsync(IPAddress.Loopback, port, TestContext.Current.CancellationToken);
                return;
            }
            catch (SocketException) when (limit.Elapsed < TimeSpan.FromSeconds(60))
            {
                // Not yet.
            }
        }
    }
}
