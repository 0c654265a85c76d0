using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using Nacre.Contracts;
using Nacre.Player.Machines;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>A running guest outlives its player, and a full disk under it.</summary>
public sealed class RobustnessTests
{
    private const string Errors = "dmesg | grep -iE 'I/O error|ext4.*(error|abort)|remount.*read-only' || true";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_guest_runs_on_without_an_error_while_its_player_is_killed_and_started_again()
    {
        await using var organisation = await Organisation.CreateAsync();
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        Assert.False((await StartAsync(organisation)).GetProperty("adopted").GetBoolean());
        var boot = await BootAsync(organisation);
        var machine = Assert.Single(organisation.Machines());

        // The guest writes a line to its user's layer and a file to its system layer, flushes both, and says how far it is.
        await organisation.InGuestAsync(
            "systemd-run -q --unit=writer sh -c 'i=0; while :; do i=$((i+1)); echo $i >> /home/user/log; sync /home/user/log; head -c 300000 /dev/urandom > /var/tmp/bulk.$((i%20)); "
            + "sha256sum /var/tmp/bulk.$((i%20)) > /var/tmp/sum.$((i%20)); sync -f /var/tmp; echo $i > /run/flushed; done'");
        var flushed = await WaitForMoreAsync(organisation, 0);
        for (var round = 1; round <= 3; round++)
        {
            await organisation.KillPlayerAsync();
            Assert.Contains("office: abandoned", (await organisation.Device.RunAsync("livepc", "status", "office")).Output, StringComparison.Ordinal);
            Assert.Contains("waits for the next start", (await organisation.Device.FailAsync(ErrorCatalogue.NotRunning, "livepc", "stop", "office")).Error, StringComparison.Ordinal);
            var status = await StartAsync(organisation);
            Assert.True(status.GetProperty("adopted").GetBoolean());
            TestContext.Current.SendDiagnosticMessage("figure: round {0}: served again after {1:0.0} s", round, status.GetProperty("secondsToAgent").GetDouble());
            Assert.Equal(boot, await BootAsync(organisation));
            flushed = await WaitForMoreAsync(organisation, flushed);
        }

        // Away for so long that QEMU gives up waiting and pauses the guest; and there is no server.
        await organisation.WaitUntilCompleteAsync();
        await organisation.StopServerAsync();
        await organisation.KillPlayerAsync();
        await WaitUntilPausedAsync(organisation);
        var last = await StartAsync(organisation);
        TestContext.Current.SendDiagnosticMessage("figure: after a pause: served again after {0:0.0} s", last.GetProperty("secondsToAgent").GetDouble());
        Assert.Equal(boot, await BootAsync(organisation));
        Assert.Equal([machine], organisation.Machines());
        flushed = await WaitForMoreAsync(organisation, flushed);

        Assert.Empty(await organisation.InGuestAsync("systemctl stop writer; " + Errors));
        Assert.Equal("whole", (await organisation.InGuestAsync("seq $(wc -l < /home/user/log) | cmp - /home/user/log && echo 3 > /proc/sys/vm/drop_caches && rm -f /var/tmp/sum.$(($(wc -l < /home/user/log)%20)) && cat /var/tmp/sum.* | sha256sum -c --quiet && echo whole")).TrimEnd());
        await organisation.Device.RunAsync("livepc", "screenshot", "office", organisation["screen.png"]);
        Assert.True(new FileInfo(organisation["screen.png"]).Length > 100);

        // A clean end: nothing is left, and what the guest wrote is there at the next start.
        await organisation.Device.RunAsync("livepc", "stop", "office");
        Assert.Empty(organisation.Machines());
        Assert.False(Directory.Exists(Path.Combine(organisation.DeviceState, "livepcs", "office", "volumes", "scratch")));
        Assert.False((await StartAsync(organisation)).GetProperty("adopted").GetBoolean());
        Assert.NotEqual(boot, await BootAsync(organisation));
        Assert.True(await LinesAsync(organisation) >= flushed);
        Assert.Equal("clean", (await organisation.InGuestAsync("dmesg | grep -i 'ext4.*recovery' || test -e /var/tmp/bulk.1 || echo clean")).TrimEnd());
    }

    [Fact]
    [Trait("lane", "long")]
    public async Task A_guest_that_can_not_be_gone_on_with_is_ended_and_started_anew()
    {
        await using var organisation = await Organisation.CreateAsync();
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        await StartAsync(organisation);
        var (boot, machine) = (await BootAsync(organisation), Assert.Single(organisation.Machines()));
        await organisation.InGuestAsync("echo kept > /home/user/note; sync");

        // Asked for with other memory.
        await organisation.KillPlayerAsync();
        var status = JsonDocument.Parse((await organisation.Device.RunAsync("livepc", "start", "office", "--memory", "1100", "--json")).Output).RootElement;
        Assert.False(status.GetProperty("adopted").GetBoolean());
        Assert.NotEqual(boot, await BootAsync(organisation));
        Assert.NotEqual(machine, Assert.Single(organisation.Machines()));
        Assert.Equal("kept", (await organisation.InGuestAsync("cat /home/user/note")).TrimEnd());

        // It does not answer.
        await organisation.KillPlayerAsync();
        machine = Assert.Single(organisation.Machines());
        await ShellAsync("kill", "-STOP", $"{machine}");
        Assert.False((await StartAsync(organisation)).GetProperty("adopted").GetBoolean());
        Assert.NotEqual(machine, Assert.Single(organisation.Machines()));
        Assert.Equal("kept", (await organisation.InGuestAsync("cat /home/user/note")).TrimEnd());

        // A rejuvenation takes the system layer back also from a guest whose player was killed.
        await organisation.InGuestAsync("touch /usr/infected; sync");
        await organisation.KillPlayerAsync();
        await organisation.Device.RunAsync("livepc", "rejuvenate", "office");
        Assert.Equal("gone kept", (await organisation.InGuestAsync("test -e /usr/infected || printf 'gone '; cat /home/user/note")).TrimEnd());
    }

    [Fact]
    public async Task A_full_disk_pauses_the_guest_and_it_goes_on_by_itself_when_there_is_room()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "mounting a small disk needs root");
        await using var organisation = await Organisation.CreateAsync();
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        Directory.CreateDirectory(organisation.DeviceState);
        await ShellAsync("mount", "-t", "tmpfs", "-o", "size=1500m,mode=0700", "tmpfs", organisation.DeviceState);
        try
        {
            await organisation.EnrolAsync();
            await organisation.Device.RunAsync("livepc", "start", "office", "--memory", "1024", "--no-fetch");
            var boot = await BootAsync(organisation);
            var ballast = Path.Combine(organisation.DeviceState, "ballast");
            await ShellAsync("fallocate", "-l", $"{new DriveInfo(organisation.DeviceState).AvailableFreeSpace - (120 << 20)}", ballast);
            await organisation.InGuestAsync(
                "systemd-run -q --unit=writer sh -c 'head -c 200000000 /dev/urandom | tee /home/user/big | sha256sum | cut -c-64 > /run/sum; sync; touch /run/done'");
            var paused = await WaitForStatusAsync(organisation, "paused: the disk of this computer is full: free [0-9]+ MB");
            Assert.Matches("office: paused", paused);
            await organisation.Device.FailAsync(ErrorCatalogue.Paused, "livepc", "exec", "office", "--", "/bin/true");

            // The player is killed on top of it: the next one finds the disk still full.
            await organisation.KillPlayerAsync();
            using (var starting = organisation.Device.Start("livepc", "start", "office", "--no-fetch"))
            {
                await WaitForStatusAsync(organisation, "paused: the disk of this computer is full: free [0-9]+ MB");
                File.Delete(ballast);
                await starting.WaitForExitAsync(Token);
                Assert.Equal(0, starting.ExitCode);
            }

            await WaitForStatusAsync(organisation, "office: running");
            for (var limit = Stopwatch.StartNew(); (await organisation.InGuestAsync("test -e /run/done && echo done || true")).TrimEnd() != "done"; await Task.Delay(500, Token))
            {
                Assert.True(limit.Elapsed < TimeSpan.FromMinutes(8), "the guest did not finish what it was writing");
            }

            Assert.Equal(boot, await BootAsync(organisation));
            Assert.Equal("whole", (await organisation.InGuestAsync(
                "echo 3 > /proc/sys/vm/drop_caches; test $(stat -c %s /home/user/big) = 200000000 && test \"$(sha256sum < /home/user/big | cut -c-64)\" = \"$(cat /run/sum)\" && echo whole")).TrimEnd());
            Assert.Empty(await organisation.InGuestAsync(Errors));
            Assert.Matches(@"(?s)Z Paused: the disk of this computer is full.*Z Running: ", await File.ReadAllTextAsync(Directory.GetFiles(organisation.Runtime, "player.log", SearchOption.AllDirectories).Single(), Token));
            await organisation.Device.RunAsync("livepc", "stop", "office");
        }
        finally
        {
            await organisation.KillPlayerAsync();
            await organisation.KillMachineAsync();
            await ShellAsync("umount", "-l", organisation.DeviceState);
        }
    }

    private static async Task<JsonElement> StartAsync(Organisation organisation) =>
        JsonDocument.Parse((await organisation.Device.RunAsync("livepc", "start", "office", "--memory", "1024", "--json")).Output).RootElement;

    private static async Task<string> BootAsync(Organisation organisation) => (await organisation.InGuestAsync("cat /proc/sys/kernel/random/boot_id")).TrimEnd();

    private static async Task<int> LinesAsync(Organisation organisation) =>
        int.Parse((await organisation.InGuestAsync("wc -l < /home/user/log")).TrimEnd(), CultureInfo.InvariantCulture);

    /// <summary>Waits until the guest has flushed some more than <paramref name="before"/>, and returns how far it is.</summary>
    private static async Task<int> WaitForMoreAsync(Organisation organisation, int before)
    {
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(200, Token))
        {
            var now = int.Parse((await organisation.InGuestAsync("cat /run/flushed 2>/dev/null || echo 0")).TrimEnd(), CultureInfo.InvariantCulture);
            if (now > before + 3)
            {
                return now;
            }

            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(2), $"the guest got no further than {now}");
        }
    }

    private static async Task<string> WaitForStatusAsync(Organisation organisation, string pattern)
    {
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(500, Token))
        {
            var status = (await organisation.Device.RunAsync("livepc", "status", "office")).Output;
            if (Regex.IsMatch(status, pattern))
            {
                return status;
            }

            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(3), status);
        }
    }

    /// <summary>Waits until QEMU, alone, has paused the guest because of its disks.</summary>
    private static async Task WaitUntilPausedAsync(Organisation organisation)
    {
        var socket = Directory.GetFiles(organisation.Runtime, "qmp.sock", SearchOption.AllDirectories).Single();
        await using var qmp = await Qmp.ConnectAsync(socket, Token);
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(500, Token))
        {
            // A QEMU that stops its guest waits for the requests of all disks; that of the disk which is only read may wait for a day.
            using var answer = CancellationTokenSource.CreateLinkedTokenSource(Token);
            answer.CancelAfter(TimeSpan.FromMinutes(1));
            string? status;
            try
            {
                status = (await qmp.ExecuteAsync("query-status", null, answer.Token))?["status"]?.GetValue<string>();
            }
            catch (OperationCanceledException) when (!Token.IsCancellationRequested)
            {
                return;
            }

            if (status == "io-error")
            {
                return;
            }

            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(4), status);
        }
    }

    private static async Task ShellAsync(string program, params string[] arguments)
    {
        using var process = Process.Start(program, arguments);
        await process.WaitForExitAsync(Token);
        Assert.Equal(0, process.ExitCode);
    }
}
