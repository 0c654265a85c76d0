using System.Diagnostics;
using System.Text.Json;
using Nacre.Player;
using Nacre.Player.Keys;
using Nacre.Player.LivePcs;
using Nacre.Player.Moments;
using Nacre.Volumes;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>A guest whose inside Nacre does not know: a disk that boots by UEFI, imported, run, rejuvenated and updated.</summary>
public sealed class WholeDiskTests
{
    private const string Later = "what-was-written-after-the-moment-88ad";
    private const string Canary = "canary-of-the-user-disk-3b9c1d7e55";

    [Fact]
    public async Task An_imported_disk_boots_by_uefi_is_rejuvenated_and_updated_and_keeps_the_users_disk()
    {
        await using var organisation = await Organisation.CreateAsync();
        var device = organisation.Device;
        await ImportAsync(organisation, "first", "agent");
        await organisation.OfferAsync(organisation["first"], "desktop");
        await organisation.EnrolAsync();

        // Without a time limit of its own: firmware and kernel are emulated here.
        var started = await StartAsync(device);
        Figure("first start", started);
        Assert.Equal("answers", started.GetProperty("agent").GetString());
        Assert.Equal(1, started.GetProperty("version").GetInt32());

        // Both disks are written to; an intruder is on the system disk, and would say so on the user's.
        await organisation.InGuestAsync($"echo {Canary} > /home/report; echo intruder > /bin/intruder; rm /bin/sfdisk; dd if=/dev/zero of=/zeroes bs=1M count=8; sync");
        await device.RunAsync("livepc", "snapshot", "take", "office");

        // Rejuvenated: the system disk is the release again, whatever was written, removed or filled with zeroes; the user's stays.
        Figure("rejuvenated", await device.RunAsync("livepc", "rejuvenate", "office", "--depth", "system", "--yes", "--memory", "512"));
        var clean = JsonDocument.Parse((await device.RunAsync("livepc", "status", "office", "--json")).Output).RootElement;
        Assert.InRange(clean.GetProperty("rejuvenationMilliseconds").GetDouble(), 0, 500);
        Assert.Equal("gone sfdisk gone " + Canary, (await organisation.InGuestAsync(
            "test -e /bin/intruder || printf 'gone '; test -x /bin/sfdisk && printf 'sfdisk '; test -e /zeroes || printf 'gone '; cat /home/report")).TrimEnd());

        // Release 2 has no agent; what it finds it writes on the user's disk.
        await organisation.InGuestAsync($"echo {Later} > /home/later; sync");
        await ImportAsync(organisation, "second", "");
        Figure("publish, release 2", await organisation.Administrator.RunAsync("image", "publish", organisation["second"], "--channel", "stable"));
        await organisation.WaitUntilCompleteAsync();
        await device.RunAsync("livepc", "update", "office");
        await device.RunAsync("livepc", "stop", "office");

        // The user's disk goes back to its moment, offline, under the release that comes.
        var moments = JsonDocument.Parse((await device.RunAsync("livepc", "snapshot", "list", "office", "--json")).Output).RootElement;
        var moment = moments.EnumerateArray().First(one => one.GetProperty("kind").GetString()!.Equals("user", StringComparison.OrdinalIgnoreCase)).GetProperty("id").GetString()!;
        await device.RunAsync("livepc", "rejuvenate", "office", "--depth", "data", "--to", moment, "--yes");
        var updated = await StartAsync(device, "--agent-wait", "5");
        var began = DateTime.UnixEpoch + TimeSpan.FromSeconds(TimeProvider.System.GetUtcNow().ToUnixTimeSeconds());
        Figure("start of release 2", updated);
        Assert.Equal(2, updated.GetProperty("version").GetInt32());
        Assert.Equal("none", updated.GetProperty("agent").GetString());
        Assert.Contains("agent: none", (await device.RunAsync("livepc", "status", "office")).Output, StringComparison.Ordinal);
        Assert.Equal(7, (await device.TryAsync(null, "livepc", "exec", "office", "--", "/bin/true")).ExitCode);

        // Nothing of it can be asked: it is up once it has written on the user's disk, and is done with that.
        var volume = Path.Combine(organisation.DeviceState, "livepcs", "office", "volumes", "data");
        DateTime Written() => Directory.GetFiles(volume).Max(File.GetLastWriteTimeUtc);
        for (var limit = Stopwatch.StartNew(); Written() <= began || TimeProvider.System.GetUtcNow().UtcDateTime - Written() < TimeSpan.FromSeconds(15);
            await Task.Delay(500, TestContext.Current.CancellationToken))
        {
            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(6), "the guest has not written to the user's disk");
        }

        // Its power button shuts it down, long before a guest that does not listen would be switched off.
        var stopping = Stopwatch.StartNew();
        await device.RunAsync("livepc", "stop", "office");
        Assert.InRange(stopping.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(80));

        // What it left: the user's disk as it was at the moment, and what the second release found.
        Environment.SetEnvironmentVariable("NACRE_HOME", organisation.DeviceState);
        Environment.SetEnvironmentVariable("XDG_RUNTIME_DIR", organisation.Runtime);
        Environment.SetEnvironmentVariable("TPM2TOOLS_TCTI", "none");
        using var secrets = new KeySecrets { Password = SecretBytes.Take(System.Text.Encoding.UTF8.GetBytes(Shell.Password)) };
        await using var layers = await OpenLayers.OpenAsync(PlayerPaths.Open(), "office", secrets, TimeProvider.System, TestContext.Current.CancellationToken);
        await using var disk = layers.Moments.Open(layers.Moments.Take(MomentKind.User, null), "data");
        var text = await TextAsync(disk);
        Assert.Contains("first release, intruder: none\nsecond release, intruder: none\n", text, StringComparison.Ordinal);
        Assert.Contains(Canary, text, StringComparison.Ordinal);
        Assert.DoesNotContain(Later, text, StringComparison.Ordinal);
    }

    /// <summary>All that a disk holds.</summary>
    private static async Task<string> TextAsync(IBlockDevice disk)
    {
        var text = new System.Text.StringBuilder();
        var extents = new BlockExtent[1];
        for (var offset = 0L; offset < disk.Size; offset += extents[0].Length)
        {
            disk.DescribeExtents(offset, Math.Min(disk.Size - offset, 16 << 20), extents);
            if (!extents[0].IsHole)
            {
                var bytes = new byte[extents[0].Length];
                await disk.ReadAsync(offset, bytes, TestContext.Current.CancellationToken);
                text.Append(System.Text.Encoding.Latin1.GetString(bytes));
            }
        }

        return text.ToString();
    }

    internal static async Task ImportAsync(Organisation organisation, string release, string agent)
    {
        var file = Repository.Path("artifacts", "uefi-guest", $"{release}{agent}.qcow2");
        using var making = Process.Start(new ProcessStartInfo(Repository.Path("scripts", "uefi-guest.sh"), [file, $"{release} release", agent]) { RedirectStandardError = true })!;
        var words = await making.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await making.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.True(making.ExitCode == 0, words);
        Figure($"import, {release}", await organisation.Administrator.RunAsync("image", "import", file, "--name", "desktop", "--output", organisation[release]));
    }

    private static async Task<JsonElement> StartAsync(Shell device, params string[] options)
    {
        var result = await device.RunAsync(["livepc", "start", "office", "--memory", "512", "--json", .. options]);
        return JsonDocument.Parse(result.Output).RootElement;
    }

    private static void Figure(string what, JsonElement status) => Figure(what, string.Create(System.Globalization.CultureInfo.InvariantCulture,
        $"{status.GetProperty("secondsToAgent").GetDouble():0.0} s, system back in {status.GetProperty("rejuvenationMilliseconds").GetDouble():0.0} ms"));

    private static void Figure(string what, CommandResult result) => Figure(what, result.Line);

    private static void Figure(string what, string words) => TestContext.Current.SendDiagnosticMessage("figure: {0}: {1}", what, words);
}
