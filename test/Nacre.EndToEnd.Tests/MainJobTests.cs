using System.Diagnostics;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>The main job, with a real Debian, a real server and a real guest.</summary>
public sealed class MainJobTests
{
    private const string Canary = "canary-8f14e45fceea167a5a36dedd4bea2543";

    [Fact]
    public async Task A_golden_image_streams_in_runs_is_rejuvenated_and_updated_and_keeps_the_users_files()
    {
        await using var organisation = await Organisation.CreateAsync();
        var device = organisation.Device;
        var published = await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        Figure("publish, release 1", published.Line);
        await organisation.EnrolAsync();
        Assert.Matches(@"office +debian-minimal +stable +- +1 +stopped", (await device.RunAsync("livepc", "list")).Output);

        // An empty device: start by streaming.
        var started = await StartAsync(device);
        Figure("first start, empty device", Words(started));
        Assert.InRange(started.GetProperty("bytesToAgent").GetInt64(), 1, started.GetProperty("imageBytes").GetInt64() / 10);
        Assert.InRange(started.GetProperty("rejuvenationMilliseconds").GetDouble(), 0, 100);
        Assert.Equal("root", (await organisation.InGuestAsync("id -un")).TrimEnd());

        // The user works; something else gets in.
        await organisation.InGuestAsync($"su user -c 'mkdir -p /home/user/Documents && echo {Canary} > /home/user/report.txt'");
        await organisation.InGuestAsync("printf '#!/bin/sh\\necho forbidden\\n' > /usr/bin/forbidden && chmod 755 /usr/bin/forbidden && forbidden");
        await organisation.InGuestAsync("echo '* * * * * root /usr/bin/forbidden' > /etc/cron.d/forbidden; echo infected > /usr/bin/passwd; echo /usr/lib/forbidden.so > /etc/ld.so.preload; useradd -o -u 0 forbidden; echo root:forbidden | chpasswd");

        // Settings of the user's: a file that the next release changes too, and a unit.
        await organisation.InGuestAsync("echo 'mine, \\l' > /etc/issue; printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/mine.service; systemctl enable mine.service; echo user:changed | chpasswd; mkdir -p /opt/tool; echo tool > /opt/tool/file");
        await organisation.InGuestAsync("sync");

        // Rejuvenate: the canary and the settings stay, what got in is gone.
        var rejuvenated = await device.RunAsync("livepc", "rejuvenate", "office", "--memory", "1024");
        Figure("rejuvenated", rejuvenated.Line);
        Assert.Equal(Canary, (await organisation.InGuestAsync("cat /home/user/report.txt")).TrimEnd());
        Assert.Equal("user", (await organisation.InGuestAsync("stat -c %U /home/user/report.txt")).TrimEnd());
        Assert.Equal("gone gone gone gone locked ELF", (await organisation.InGuestAsync(
            "for file in /usr/bin/forbidden /etc/cron.d/forbidden /etc/ld.so.preload; do test -e $file || printf 'gone '; done; id forbidden >/dev/null 2>&1 || printf 'gone '; grep -q '^root:!' /etc/shadow && printf 'locked '; head -c 4 /usr/bin/passwd | tail -c 3")).TrimEnd());
        Assert.Equal("mine, \\l active", (await organisation.InGuestAsync("printf '%s ' \"$(cat /etc/issue)\"; systemctl is-active mine.service")).TrimEnd());

        // The administrator publishes release 2: one more package, one upgraded file.
        var second = await organisation.Administrator.RunAsync("image", "publish", await GoldenImages.MinimalAsync(2), "--channel", "stable");
        Figure("publish, release 2", second.Line);
        Assert.Matches(@"office +debian-minimal +stable +1 +2 +running", (await device.RunAsync("livepc", "list")).Output);
        await organisation.WaitUntilCompleteAsync();
        await File.WriteAllTextAsync(organisation["policy.json"], """{"layer.rules":["# ours","/opt data"]}""", TestContext.Current.CancellationToken);
        await organisation.Administrator.RunAsync("policy", "set", "livepc:office", "--file", organisation["policy.json"]);
        var updated = await device.RunAsync("livepc", "update", "office");
        Figure("update", updated.Line);
        Assert.Matches(@"release 1 to 2: [0-9.]+ [kM]B to download", updated.Error);
        await device.RunAsync("livepc", "stop", "office");
        var restarted = await StartAsync(device);
        Figure("start of release 2", Words(restarted));
        Assert.Equal(2, restarted.GetProperty("version").GetInt32());

        // The user's edit stands, the release's is beside it; the unit runs, the password is the user's; what the changed rule moves is moved.
        Assert.Equal("mine, \\l", (await organisation.InGuestAsync("cat /etc/issue")).TrimEnd());
        Assert.Contains("second release", await organisation.InGuestAsync("cat /etc/issue.dpkg-dist"), StringComparison.Ordinal);
        Assert.Equal("active", (await organisation.InGuestAsync("systemctl is-active mine.service")).TrimEnd());
        Assert.Matches(@"^user:\$", await organisation.InGuestAsync("grep ^user: /etc/shadow"));
        Assert.Equal("tool tool", (await organisation.InGuestAsync("echo $(cat /opt/tool/file /run/nacre/volumes/data/opt/tool/file)")).TrimEnd());
        Assert.Matches("/usr/bin/tree", await organisation.InGuestAsync("command -v tree"));
        Assert.Equal(Canary, (await organisation.InGuestAsync("cat /home/user/report.txt")).TrimEnd());

        // Where things live: the device and the guest say the same, and the device says it of a guest that does not run.
        foreach (var (path, layer, rule) in new[]
        {
            ("/etc/issue", "settings", "/etc"), ("/opt/tool/file", "data", "/opt"), ("/usr/bin/tree", "scratch", "/"),
            ("/home/user/report.txt", "data", "/home"), ("/etc/cron.d", "scratch", "/etc/cron.*"),
        })
        {
            var explained = JsonDocument.Parse((await device.RunAsync("explain", "office", path, "--json")).Output).RootElement;
            var inside = JsonDocument.Parse(await organisation.InGuestAsync($"nacre-where --json {path}")).RootElement[0];
            Assert.Equal((layer, rule, true, 0), (explained.GetProperty("layer").GetString(), explained.GetProperty("rule").GetProperty("pattern").GetString(),
                explained.GetProperty("askedGuest").GetBoolean(), explained.GetProperty("notes").GetArrayLength()));
            Assert.True(JsonElement.DeepEquals(explained.GetProperty("survives"), inside.GetProperty("survives")));
            Assert.Equal(layer, inside.GetProperty("layer").GetString());
        }

        Assert.Equal("up to date", Regex.Match((await device.RunAsync("livepc", "update", "office")).Output, "up to date").Value);
        await organisation.WaitUntilCompleteAsync();
        await device.RunAsync("livepc", "stop", "office");

        // No server: it still starts, and says where things live before.
        await organisation.StopServerAsync();
        Assert.Matches("/usr/bin/tree\\n  layer     scratch: .*\\n.*\\n  rule      / scratch \\(/usr/share/nacre/layers, line [0-9]+\\)\\n  owner     package tree of the release\\n$",
            (await device.RunAsync("explain", "office", "/usr/bin/tree")).Output);
        Assert.Matches("layer     the user's data\\n  survives  system: yes, applications: yes, settings: yes, data: as in the snapshot, moment: as in the snapshot\\n  rule      /opt data \\(the administrator's rules, line 2\\)",
            (await device.RunAsync("explain", "office", "/opt/tool/file")).Output);
        var offline = await StartAsync(device);
        Figure("start without a server", Words(offline));
        Assert.True(offline.GetProperty("offline").GetBoolean());
        Assert.Equal(0, offline.GetProperty("bytesToAgent").GetInt64());
        Assert.Equal(Canary, (await organisation.InGuestAsync("cat /home/user/report.txt")).TrimEnd());
        Assert.Empty(FilesWith(Canary, organisation.DeviceState, organisation.ServerData, organisation.Runtime));
        await device.RunAsync("livepc", "stop", "office");

        // Nothing of it lies anywhere in the clear, and the search itself works.
        Assert.Empty(FilesWith(Canary, organisation.DeviceState, organisation.ServerData, organisation.Runtime));
        await File.WriteAllTextAsync(organisation["proof"], "xx" + Canary, TestContext.Current.CancellationToken);
        Assert.Single(FilesWith(Canary, Path.GetDirectoryName(organisation["proof"])!));
    }

    [Fact]
    public async Task A_killed_player_loses_nothing_that_the_guest_had_flushed()
    {
        await using var organisation = await Organisation.CreateAsync();
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        var first = await StartAsync(organisation.Device);

        // The guest writes numbers, each flushed before the next is begun, and says how far it is.
        await organisation.InGuestAsync(
            "systemd-run -q --unit=counter sh -c 'i=0; while :; do i=$((i+1)); echo $i > /home/user/count.new; sync /home/user/count.new; mv /home/user/count.new /home/user/count; sync /home/user; head -c 300000 /dev/urandom > /home/user/bulk.$((i%20)); echo $i > /run/flushed; done'");
        var flushed = 0;
        for (var limit = Stopwatch.StartNew(); flushed < 5; await Task.Delay(200, TestContext.Current.CancellationToken))
        {
            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(2));
            _ = int.TryParse((await organisation.InGuestAsync("cat /run/flushed 2>/dev/null || echo 0")).TrimEnd(), out flushed);
        }

        // Its QEMU too, as when memory runs out: nobody can go on with the guest, and the next start reads what was flushed.
        await organisation.KillPlayerAsync();
        await organisation.KillMachineAsync();

        // Nothing of the release is on the device any more; what its first start read makes the boot pack, which the next start takes instead of asking for each chunk.
        var boot = JsonDocument.Parse((await organisation.Administrator.RunAsync("image", "boot-set", "debian-minimal", "1", "--json")).Output).RootElement;
        var recorder = Assert.Single(boot.GetProperty("recordings").EnumerateArray()).GetProperty("device").GetString()!;
        Assert.Equal(JsonValueKind.Null, boot.GetProperty("pack").ValueKind);
        Assert.Matches("boot pack: [0-9]+ chunks, [0-9.]+ MB", (await organisation.Administrator.RunAsync("image", "boot-set", "debian-minimal", "1", "--trust", recorder)).Output);
        Directory.Delete(Path.Combine(organisation.DeviceState, "segments"), recursive: true);
        var started = await StartAsync(organisation.Device);
        Figure("start after SIGKILL, with the boot pack", Words(started));
        Assert.InRange(started.GetProperty("fetchRequests").GetInt64(), 2, first.GetProperty("fetchRequests").GetInt64() / 2);
        Assert.Matches("^(Usable|Complete)$", started.GetProperty("presence").GetString());
        var kept = int.Parse((await organisation.InGuestAsync("cat /home/user/count")).TrimEnd(), System.Globalization.CultureInfo.InvariantCulture);
        Assert.True(kept >= flushed, $"the guest had flushed {flushed}, and {kept} is there");
        Assert.DoesNotContain("error", await organisation.InGuestAsync("dmesg | grep -iE 'ext4.*error|I/O error' || true"), StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public async Task A_first_start_that_is_killed_while_it_formats_the_users_disks_is_simply_repeated()
    {
        await using var organisation = await Organisation.CreateAsync();
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        using (var starting = organisation.Device.Start("livepc", "start", "office", "--memory", "1024"))
        {
            var volume = Path.Combine(organisation.DeviceState, "livepcs", "office", "volumes", "data");
            for (var limit = Stopwatch.StartNew(); !Directory.Exists(volume) || Directory.GetFiles(volume, "segment-*").Length == 0; await Task.Delay(5, TestContext.Current.CancellationToken))
            {
                Assert.True(limit.Elapsed < TimeSpan.FromMinutes(5), "nothing was ever written to the user's disk");
            }

            await organisation.KillPlayerAsync();
            await starting.WaitForExitAsync(TestContext.Current.CancellationToken);
            Assert.NotEqual(0, starting.ExitCode);
        }

        await StartAsync(organisation.Device);
        Assert.Equal("ext4", (await organisation.InGuestAsync("stat -f -c %T /home | sed 's,ext2/ext3,ext4,'")).TrimEnd());
        await organisation.InGuestAsync("touch /home/user/works");
    }

    private static async Task<JsonElement> StartAsync(Shell device)
    {
        var result = await device.RunAsync("livepc", "start", "office", "--memory", "1024", "--json");
        return JsonDocument.Parse(result.Output).RootElement;
    }

    private static string Words(JsonElement status) =>
        $"release {status.GetProperty("version")}: agent after {status.GetProperty("secondsToAgent").GetDouble():0.0} s, {status.GetProperty("bytesToAgent").GetInt64():N0} of {status.GetProperty("imageBytes").GetInt64():N0} bytes fetched "
        + $"({100.0 * status.GetProperty("bytesToAgent").GetInt64() / status.GetProperty("imageBytes").GetInt64():0.00} %) in {status.GetProperty("fetchRequests").GetInt64()} requests, system layer clean in {status.GetProperty("rejuvenationMilliseconds").GetDouble():0.0} ms";

    private static void Figure(string what, string words) => TestContext.Current.SendDiagnosticMessage("figure: {0}: {1}", what, words);

    /// <summary>The files in which the text occurs.</summary>
    private static List<string> FilesWith(string text, params string[] folders)
    {
        var needle = Encoding.ASCII.GetBytes(text);
        return [.. folders.SelectMany(folder => Directory.GetFiles(folder, "*", SearchOption.AllDirectories))
            .Where(file => new FileInfo(file).Length > 0 && Holds(file, needle))];
    }

    private static bool Holds(string file, byte[] needle)
    {
        using var stream = File.OpenRead(file);
        var buffer = new byte[4 << 20];
        for (var kept = 0; ;)
        {
            var filled = kept + stream.ReadAtLeast(buffer.AsSpan(kept), buffer.Length - kept, throwOnEndOfStream: false);
            if (buffer.AsSpan(0, filled).IndexOf(needle) >= 0)
            {
                return true;
            }

            if (filled < buffer.Length)
            {
                return false;
            }

            // The needle may begin in this part and end in the next.
            kept = needle.Length - 1;
            buffer.AsSpan(filled - kept, kept).CopyTo(buffer);
        }
    }
}
