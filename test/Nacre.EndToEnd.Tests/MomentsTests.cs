using System.Diagnostics;
using System.Text.Json;
using System.Text.RegularExpressions;
using Nacre.Client;
using Nacre.Contracts;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>A real guest is infected: its user's layers go back to the moment before, from outside, and nothing of the infection is left.</summary>
public sealed class MomentsTests
{
    private const int Documents = 40;

    /// <summary>What the user's work is made of, by digest; of encrypted ones nothing would match.</summary>
    private const string Digests = "cd /home/user/Documents && sha256sum d* | sha256sum";

    /// <summary>What every infection wants: a system program, a unit, a cron job, a user, a preloaded library, the user's shell and autostart, a program before the
    /// system's in the path; and the documents are encrypted, and the originals removed.</summary>
    private const string Infect = """
        set -e
        printf '#!/bin/sh\necho owned\n' > /tmp/evil; chmod 755 /tmp/evil
        cp /tmp/evil /usr/bin/passwd
        printf '[Service]\nExecStart=/usr/local/bin/evil\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/evil.service
        mkdir -p /etc/systemd/system/multi-user.target.wants; ln -s ../evil.service /etc/systemd/system/multi-user.target.wants/evil.service
        mkdir -p /etc/cron.d; echo '* * * * * root /usr/local/bin/evil' > /etc/cron.d/evil
        useradd -m -s /bin/sh evil
        mkdir -p /usr/local/bin /usr/local/lib; cp /tmp/evil /usr/local/bin/evil; cp /lib/x86_64-linux-gnu/libc.so.6 /usr/local/lib/evil.so; echo /usr/local/lib/evil.so > /etc/ld.so.preload; : > /etc/ld.so.preload
        echo 'alias sudo=/usr/local/bin/evil' >> /home/user/.bashrc
        mkdir -p /home/user/.config/autostart /home/user/.local/bin; echo evil > /home/user/.config/autostart/evil.desktop; cp /tmp/evil /home/user/.local/bin/sudo
        cd /home/user/Documents
        for file in d*; do perl -e 'local $/; open F, "<", $ARGV[0]; $_ = <F>; open K, "<", "/dev/urandom"; read K, $k, length; print $_ ^ $k' "$file" > "$file.locked"; rm "$file"; done
        sync
        """;

    private const string Traces = """
        for trace in /etc/systemd/system/evil.service /etc/systemd/system/multi-user.target.wants/evil.service /etc/cron.d/evil /usr/local/bin/evil /usr/local/lib/evil.so \
            /home/evil /home/user/.config/autostart/evil.desktop /home/user/.local/bin/sudo /etc/ld.so.preload; do
            if [ -e "$trace" ] || [ -L "$trace" ]; then echo "$trace"; fi
        done
        id evil >/dev/null 2>&1 && echo user
        grep -l evil /home/user/.bashrc
        head -c 4 /usr/bin/passwd | grep -q ELF || echo /usr/bin/passwd
        ls /home/user/Documents | grep locked
        true
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task An_infected_LivePC_goes_back_to_the_moment_before()
    {
        await using var organisation = await Organisation.CreateAsync();
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        var device = organisation.Device;
        await device.RunAsync("livepc", "start", "office", "--memory", "1024");
        await organisation.InGuestAsync(
            $"mkdir /home/user/Documents; for i in $(seq {Documents}); do head -c $((i*10000)) /dev/urandom > /home/user/Documents/d$i; done; chmod 640 /home/user/Documents/d7; chown -R user: /home/user/Documents; "
            + "mkdir -p /usr/local/bin; echo tool > /usr/local/bin/tool; su user -c 'echo mine > /home/user/.config/setting'; sync");
        var digests = await organisation.InGuestAsync(Digests);
        Assert.Empty(await organisation.InGuestAsync(Traces));

        // Moments of a guest that writes all the time: how long does it wait?
        await organisation.InGuestAsync(
            "systemd-run -q --unit=writer perl -MTime::HiRes=time,sleep -e 'open F, \">\", \"/home/user/written\"; $| = 1; my ($last, $most) = (time, 0); while (1) { syswrite F, \"x\" x 4096 for 1..4; seek F, 0, 0; "
            + "my $now = time; $most = $now - $last if $now - $last > $most; if (-e \"/run/report\") { open R, \">\", \"/run/most.new\"; printf R \"%.0f\", $most * 1000; close R; rename \"/run/most.new\", \"/run/most\"; unlink \"/run/report\"; $most = 0; $now = time } $last = $now; sleep 0.002 }'");
        var pauses = new List<(double Host, int Guest, int Quiet)>();

        // What else this computer does only adds to it: the least of several says what the moment costs.
        for (var round = 0; round < 3 || (round < 10 && pauses.Min(pause => pause.Guest) >= 200); round++)
        {
            await LongestWaitAsync(organisation);
            await Task.Delay(2000, Token);
            var quiet = await LongestWaitAsync(organisation);
            var taken = JsonDocument.Parse((await device.RunAsync("livepc", "snapshot", "take", "office", "--name", $"clean {round}", "--json")).Output).RootElement;
            pauses.Add((taken.GetProperty("stoodStillMilliseconds").GetDouble(), await LongestWaitAsync(organisation), quiet));
        }

        foreach (var pause in pauses)
        {
            Figure($"a moment of a writing guest: it stood still for at most {pause.Host:0} ms as the player saw it; its longest wait between two writes was {pause.Guest} ms with the moment, {pause.Quiet} ms in 2 s without one");
        }

        Assert.True(pauses.Min(pause => pause.Guest) < 200, "a moment holds a writer up for less than 200 ms");
        var clean = $"clean {pauses.Count - 1}";
        Assert.Matches($@"user .*{clean}\s*$", (await device.RunAsync("livepc", "snapshot", "list", "office")).Output.TrimEnd());

        // The player is killed in the middle of taking one: the guest goes on, and there is no half of it.
        var random = new Random(8);
        for (var round = 0; round < 3; round++)
        {
            using (var taking = device.Start("livepc", "snapshot", "take", "office", "--name", $"killed {round}"))
            {
                await Task.Delay(random.Next(150, 1500), Token);
                await organisation.KillPlayerAsync();
                await taking.WaitForExitAsync(Token);
            }

            await device.RunAsync("livepc", "start", "office", "--memory", "1024");
            Assert.Equal("goes on", (await organisation.InGuestAsync("timeout 30 sh -c 'echo x > /home/user/after && sync /home/user/after && rm /home/user/after' && echo goes on")).TrimEnd());
        }

        await organisation.InGuestAsync("systemctl stop writer; rm -f /home/user/written");

        // Something gets in. What it did is seen from outside, and single files can be taken back at once.
        await organisation.InGuestAsync(Infect);
        Assert.Equal(Documents, Regex.Count(await organisation.InGuestAsync(Traces), "locked"));
        var differences = (await device.RunAsync("livepc", "snapshot", "compare", "office", clean)).Output;
        Assert.Matches("changed +data .*/home/user/.bashrc", differences);
        Assert.Matches("removed +data .*/home/user/Documents/d7\n", differences);
        Assert.Matches("added +data .*/home/user/Documents/d7.locked", differences);
        Assert.Matches("added +settings .*/home/user/.config/autostart/evil.desktop", differences);
        Assert.Matches("added +applications .*/usr/local/bin/evil", differences);
        Assert.Matches("added +applications .*/home/user/.local/bin/sudo", differences);
        Assert.DoesNotContain("/home/user/.config/setting", differences, StringComparison.Ordinal);
        Assert.Matches(@"f +640 +user:user +70\.0 kB .* d7\n", (await device.RunAsync("livepc", "snapshot", "browse", "office", clean, "/home/user/Documents")).Output);
        await device.RunAsync("livepc", "snapshot", "restore", "office", clean, "/home/user/Documents/d7");
        Assert.Equal("640 user 70000", (await organisation.InGuestAsync("stat -c '%a %U %s' /home/user/Documents/d7")).TrimEnd());
        Assert.Contains("/home/user/.bashrc.displaced", (await device.RunAsync("livepc", "snapshot", "restore", "office", clean, "/home/user/.bashrc")).Output, StringComparison.Ordinal);
        await device.RunAsync("livepc", "snapshot", "restore", "office", clean, "/home/user/Documents", "--to", "/home/user/Restored");
        Assert.Equal(digests, await organisation.InGuestAsync(Digests.Replace("Documents", "Restored", StringComparison.Ordinal)));
        Assert.Contains("nobody to ask", (await device.FailAsync(ErrorCatalogue.UsageInvalid, "livepc", "rejuvenate", "office", "--depth", "moment", "--to", clean)).Error, StringComparison.Ordinal);
        await organisation.InGuestAsync("cp /home/user/.bashrc.displaced /home/user/.bashrc; sync");

        // Player and machine are killed while a moment is taken; then, from outside: back to the moment before.
        using (var taking = device.Start("livepc", "snapshot", "take", "office"))
        {
            await Task.Delay(700, Token);
            await organisation.KillPlayerAsync();
            await organisation.KillMachineAsync();
            await taking.WaitForExitAsync(Token);
        }

        var clock = Stopwatch.StartNew();
        var rejuvenated = await device.RunAsync("livepc", "rejuvenate", "office", "--depth", "moment", "--to", clean, "--yes");
        Figure($"infected LivePC back to the moment before in {clock.Elapsed.TotalSeconds:0.0} s with opening and closing its layers: {rejuvenated.Output.Split('\n')[0]}; {Regex.Match(rejuvenated.Error, "  data .*").Value.Trim()}");
        Assert.Matches("data +as at moment .* is lost", rejuvenated.Error);
        await device.RunAsync("livepc", "start", "office", "--memory", "1024");
        Figure($"and usable {clock.Elapsed.TotalSeconds:0.0} s after the command");
        Assert.Empty(await organisation.InGuestAsync(Traces));
        Assert.Equal(digests, await organisation.InGuestAsync(Digests));
        Assert.Equal("640 tool mine", (await organisation.InGuestAsync("stat -c %a /home/user/Documents/d7; cat /usr/local/bin/tool /home/user/.config/setting")).ReplaceLineEndings(" ").Trim());

        // Undone, and undone by the administrator's order while it runs: once, with a receipt.
        var undone = await device.RunAsync("livepc", "undo", "office", "--yes", "--memory", "1024");
        Figure($"undone, with a restart: {undone.Output.Split('\n')[0]}");
        Assert.Equal(Documents, Regex.Count(await organisation.InGuestAsync(Traces), "locked"));
        var id = Regex.Match((await organisation.Administrator.RunAsync("device", "list")).Output, "^[0-9a-f]{32}", RegexOptions.Multiline).Value;
        var order = (await organisation.Administrator.RunAsync("livepc", "order", "rejuvenate", "office", "--device", id, "--depth", "moment", "--to", clean)).Line;
        var withdrawn = (await organisation.Administrator.RunAsync("livepc", "order", "rejuvenate", "office", "--device", id, "--depth", "data", "--to", "clean 0")).Line;
        await organisation.Administrator.RunAsync("livepc", "order", "withdraw", withdrawn);
        Assert.StartsWith("office: an order is carried out", (await device.RunAsync("livepc", "contact", "office")).Line, StringComparison.Ordinal);
        await WaitForAsync(organisation, order, "done");
        for (var limit = Stopwatch.StartNew(); !(await device.RunAsync("livepc", "status", "office")).Output.Contains("office: running", StringComparison.Ordinal); await Task.Delay(500, Token))
        {
            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(10), "the guest started again");
        }

        Assert.Empty(await organisation.InGuestAsync(Traces));
        Assert.Equal(digests, await organisation.InGuestAsync(Digests));
        var boot = await organisation.InGuestAsync("cat /proc/sys/kernel/random/boot_id");
        Assert.Equal("office: nothing is ordered", (await device.RunAsync("livepc", "contact", "office")).Line);
        Assert.Equal(boot, await organisation.InGuestAsync("cat /proc/sys/kernel/random/boot_id"));
        await device.FailAsync(ErrorCatalogue.Forbidden, "livepc", "undo", "office", "--yes");
        Assert.Equal(
            ["order.create", "order.create", "order.withdraw", "order.done"],
            (await AuditAsync(organisation)).Select(entry => entry.Action).Where(action => action.StartsWith("order.", StringComparison.Ordinal)));

        // Without a server and without a guest. The layers' anchors stay true: nothing is taken for an older copy, before or after.
        await device.RunAsync("livepc", "stop", "office");
        await organisation.StopServerAsync();
        Assert.Matches("applications +blank: all of it is lost", (await device.RunAsync("livepc", "rejuvenate", "office", "--depth", "settings", "--yes")).Error);
        await device.RunAsync("livepc", "undo", "office", "--yes");
        Assert.Matches("nothing was changed", (await device.RunAsync("livepc", "undo", "office", "--dry-run")).Output);
        await organisation.StartServerAsync();
        await device.RunAsync("livepc", "snapshot", "take", "office", "--name", "last");
        await device.RunAsync("livepc", "snapshot", "delete", "office", "last");
        Assert.DoesNotContain(await AuditAsync(organisation), entry => entry.Action.StartsWith("anchor.", StringComparison.Ordinal));
    }

    /// <summary>The longest time between two of the writer's writes since it was asked last, in milliseconds.</summary>
    private static async Task<int> LongestWaitAsync(Organisation organisation) => int.Parse(
        (await organisation.InGuestAsync("rm -f /run/most; touch /run/report; while [ ! -e /run/most ]; do sleep 0.1; done; cat /run/most")).Trim(), System.Globalization.CultureInfo.InvariantCulture);

    private static async Task WaitForAsync(Organisation organisation, string order, string state)
    {
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(500, Token))
        {
            var orders = (await organisation.Administrator.RunAsync("livepc", "orders")).Output;
            if (Regex.IsMatch(orders, $"^{order} .* {state} ", RegexOptions.Multiline))
            {
                return;
            }

            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(5), orders);
        }
    }

    private static async Task<IReadOnlyList<AuditEntry>> AuditAsync(Organisation organisation)
    {
        var token = (await File.ReadAllTextAsync(Path.Combine(organisation.ServerData, "admin-token"), Token)).Trim();
        using var client = new NacreClient(new Uri(organisation.Url), Credential.Administrator(token));
        return (await client.GetAuditAsync(cancellationToken: Token)).Entries;
    }

    private static void Figure(string words) => TestContext.Current.SendDiagnosticMessage("figure: {0}", words);
}
