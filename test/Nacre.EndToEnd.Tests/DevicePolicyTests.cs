using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Nacre.Contracts;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>What an administrator decides of the computer around a LivePC, and of what passes between the two, in a real guest: seen from inside it and on the host.</summary>
public sealed class DevicePolicyTests
{
    /// <summary>What spice-vdagent is in a desktop: an agent on the port com.redhat.spice.0. It takes what the host offers at once, and offers what is in /run/out.</summary>
    private const string Agent = """
        use strict;
        open(my $port, '+<:raw', '/dev/virtio-ports/com.redhat.spice.0') or die "no port: $!";
        sub fetch { my ($count, $bytes) = (shift, ''); while (length $bytes < $count) { my $got = sysread($port, $bytes, $count - length $bytes, length $bytes); die 'end' if defined $got ? !$got : $! != 4 } return $bytes }
        sub say_it { my ($type, $data) = @_; my $message = pack('VVVVV', 1, $type, 0, 0, length $data) . $data; syswrite($port, pack('VV', 1, length $message) . $message) }
        my $stream = '';
        say_it(6, pack('VV', 1, 1 << 5 | 1 << 6));
        $SIG{USR1} = sub { say_it(7, pack('VV', 0, 1)) };
        while (1) {
            my ($chunk, $size) = unpack('VV', fetch(8));
            $stream .= fetch($size);
            while (length $stream >= 20) {
                my (undef, $type, undef, undef, $length) = unpack('VVVVV', $stream);
                last if length $stream < 20 + $length;
                my $data = substr($stream, 20, $length);
                $stream = substr($stream, 20 + $length);
                if ($type == 7) { open(my $seen, '>', '/run/offered'); say_it(8, pack('VV', 0, 1)) }
                elsif ($type == 8) { open(my $asked, '>>', '/run/asked'); print $asked "x"; local (@ARGV, $/) = ('/run/out'); say_it(4, pack('VV', 0, 1) . <>) }
                elsif ($type == 4) { open(my $in, '>:raw', '/run/in.new'); print $in substr($data, 8); close $in; rename('/run/in.new', '/run/in') }
                elsif ($type == 9) { unlink('/run/offered') }
            }
        }
        """;

    [Fact]
    [Trait("lane", "long")]
    public async Task What_is_decided_of_devices_and_of_the_host_holds_in_a_guest_and_what_is_tightened_is_taken_away()
    {
        await using var organisation = await Organisation.CreateAsync();
        var (administrator, device) = (organisation.Administrator, organisation.Device);
        await organisation.OfferAsync(await GoldenImages.DevicesAsync());
        await organisation.EnrolAsync();

        // A check of the administrator's, which does not pass: nothing starts, and the server knows why.
        var mark = organisation["compliant"];
        await File.WriteAllTextAsync(organisation["check.sh"], $"[ -e '{mark}' ] && echo 'message=it is there' && exit 0\necho 'message=the mark is missing'; echo 'fix=put it back'; exit 1\n", TestContext.Current.CancellationToken);
        await administrator.RunAsync("policy", "script", organisation["check.sh"], "--name", "mark", "--output", organisation["check.json"]);
        await administrator.RunAsync("policy", "set", "organisation", "--script", organisation["check.json"], "host.scriptsAction=lock", "host.os=block", "host.avRequired=warn", "policyRefreshInterval=1", "snapshot.everyHours=0");
        await administrator.RunAsync(
            "policy", "set", "livepc:office", "vm.computerName=WS-%serial%", "vm.timeZone=Europe/Zurich", "audioOut=on", "usb.mode=allow-list", """usb.classes=["hid","storage"]""", "clipboard.in=text", "clipboard.out=text",
            "clipboard.maxChars=20", "vm.localSnapshots=off");
        var refused = await device.FailAsync(ErrorCatalogue.HostCheckFailed, "livepc", "start", "office");
        Assert.Contains("host.scripts mark: the mark is missing; put it back", refused.Error, StringComparison.Ordinal);
        Assert.Contains(Checks(await administrator.RunAsync("policy", "status", "--json")), check => check is ("host.scripts mark", "failed"));
        Assert.Contains("host.scripts mark: failed", (await administrator.RunAsync("audit", "list", "--action", "host.check")).Output, StringComparison.Ordinal);
        Assert.Equal((int)ExitCode.Denied, (await device.TryAsync(null, "host", "check", "office")).ExitCode);

        await File.WriteAllTextAsync(mark, "", TestContext.Current.CancellationToken);
        var started = await device.RunAsync("livepc", "start", "office");
        Assert.Contains("this computer: host.avRequired: ", started.Output, StringComparison.Ordinal); // warned
        await UntilAsync(async () => Checks(await administrator.RunAsync("policy", "status", "--json")).Single(check => check.Check == "host.scripts mark").Outcome, "passed"); // said once the guest was asked what it can do

        // Name, time zone and sound, as the guest sees them.
        Assert.Matches("^WS-[0-9a-f]{8}$", (await organisation.InGuestAsync("hostname")).Trim());
        Assert.Contains("127.0.1.1 WS-", await organisation.InGuestAsync("cat /etc/hosts"), StringComparison.Ordinal);
        Assert.Equal("Mon Jul  6 14:00:00 CEST 2026", (await organisation.InGuestAsync("LC_ALL=C date -d @1783339200")).Trim());
        Assert.Equal((true, false), await SoundAsync(organisation));
        await device.FailAsync(ErrorCatalogue.Forbidden, "livepc", "snapshot", "take", "office");

        // USB: by what a device says that it is.
        await device.RunAsync("livepc", "usb", "attach", "office", "usb-kbd");
        await device.RunAsync("livepc", "usb", "attach", "office", "46f4:0001");
        Assert.Contains("smart-card", (await device.FailAsync(ErrorCatalogue.Forbidden, "livepc", "usb", "attach", "office", "usb-ccid")).Error, StringComparison.Ordinal);
        await UntilAsync(async () => await UsbAsync(organisation), "0627 46f4");
        Assert.Equal(["usb-kbd", "usb-storage"], JsonDocument.Parse((await device.RunAsync("livepc", "usb", "list", "office", "--json")).Output).RootElement.EnumerateArray()
            .Where(one => one.GetProperty("isAttached").GetBoolean()).Select(one => one.GetProperty("id").GetString()));
        await device.RunAsync("livepc", "usb", "detach", "office", "usb-kbd");
        await UntilAsync(async () => await UsbAsync(organisation), "46f4");
        await device.RunAsync("livepc", "usb", "attach", "office", "usb-kbd");

        // The clipboard: by direction and size.
        await device.FailAsync(ErrorCatalogue.NoAgent, "livepc", "clipboard", "paste", "office");
        Assert.Equal(0, (await device.TryAsync(Agent, "livepc", "exec", "office", "--", "/bin/sh", "-c", "cat >/run/agent.pl; setsid perl /run/agent.pl >/run/agent.log 2>&1 </dev/null &")).ExitCode);
        await UntilAsync(async () => $"{(await device.TryAsync("guten Tag", "livepc", "clipboard", "copy", "office")).ExitCode}", "0");
        await UntilAsync(async () => await organisation.InGuestAsync("cat /run/in 2>/dev/null; true"), "guten Tag");
        Assert.Contains("21 characters", (await CopyAsync(device, new string('x', 21), ErrorCatalogue.TooLarge)), StringComparison.Ordinal);
        await organisation.InGuestAsync("printf 'Grüezi, geheim' >/run/out; kill -USR1 $(pidof perl)");
        await UntilAsync(async () => (await device.TryAsync(null, "livepc", "clipboard", "paste", "office")).Output, "Grüezi, geheim");
        await organisation.InGuestAsync("head -c 21 /dev/zero | tr '\\0' y >/run/out");
        await device.FailAsync(ErrorCatalogue.TooLarge, "livepc", "clipboard", "paste", "office");

        // The host is no longer as it has to be: the guest stands still, unseen, until it is.
        var before = await UptimeAsync(organisation);
        var standing = Stopwatch.StartNew();
        File.Delete(mark);
        Assert.Equal((int)ExitCode.Denied, (await device.TryAsync(null, "host", "check", "office")).ExitCode);
        Assert.Contains("locked: host.scripts mark: the mark is missing; put it back", (await device.RunAsync("livepc", "status", "office")).Output, StringComparison.Ordinal);
        await device.FailAsync(ErrorCatalogue.Locked, "livepc", "exec", "office", "--", "true");
        await device.FailAsync(ErrorCatalogue.Locked, "livepc", "screenshot", "office", organisation["screen.png"]);
        await device.FailAsync(ErrorCatalogue.Locked, "livepc", "clipboard", "paste", "office");
        await Task.Delay(TimeSpan.FromSeconds(15), TestContext.Current.CancellationToken);
        await File.WriteAllTextAsync(mark, "", TestContext.Current.CancellationToken);

        // Nobody asks: its player looks again by itself.
        await UntilAsync(async () => $"{JsonDocument.Parse((await device.RunAsync("livepc", "status", "office", "--json")).Output).RootElement.GetProperty("locked").GetArrayLength()}", "0");
        var after = await UptimeAsync(organisation);
        Assert.True(after - before < standing.Elapsed.TotalSeconds - 14, $"the guest's clock went on by {after - before} s of {standing.Elapsed.TotalSeconds}");

        // Tightened while it runs, and while something is offered that nobody has pasted yet.
        await organisation.InGuestAsync("rm -f /run/offered");
        Assert.Equal(0, (await device.TryAsync("noch da", "livepc", "clipboard", "copy", "office")).ExitCode);
        await UntilAsync(async () => await organisation.InGuestAsync("ls /run/offered; cat /run/in"), "/run/offered\nnoch da");
        var asked = await organisation.InGuestAsync("wc -c </run/asked");
        await administrator.RunAsync("policy", "set", "livepc:office", """usb.classes=["hid"]""", "clipboard.out=off", "clipboard.in=off");
        await UntilAsync(async () => await UsbAsync(organisation), "0627");
        await device.FailAsync(ErrorCatalogue.Forbidden, "livepc", "clipboard", "paste", "office");
        await CopyAsync(device, "x", ErrorCatalogue.Forbidden);
        await device.FailAsync(ErrorCatalogue.Forbidden, "livepc", "usb", "attach", "office", "usb-storage");
        await UntilAsync(async () => await organisation.InGuestAsync("ls /run/offered 2>/dev/null; true"), "");
        Assert.Equal(asked, await organisation.InGuestAsync("wc -c </run/asked"));
        await administrator.RunAsync("policy", "set", "livepc:office", "usb.mode=deny", "microphone=on", "vm.computerName=", "vm.timeZone=");
        await UntilAsync(async () => await UsbAsync(organisation), "");

        // From the next start on: another machine, and the image's own name and time zone again.
        await device.RunAsync("livepc", "stop", "office");
        await device.RunAsync("livepc", "start", "office");
        Assert.Equal((true, true), await SoundAsync(organisation));
        Assert.Equal(["debian-minimal", "UTC"], (await organisation.InGuestAsync("hostname; date +%Z")).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
        Assert.Equal("no xhci, no port", (await organisation.InGuestAsync("grep -lx 0x0c0330 /sys/bus/pci/devices/*/class >/dev/null 2>&1 && echo xhci || [ -e /dev/virtio-ports/com.redhat.spice.0 ] && echo port || echo no xhci, no port")).Trim());
        await device.FailAsync(ErrorCatalogue.Forbidden, "livepc", "usb", "attach", "office", "usb-kbd");
        await device.FailAsync(ErrorCatalogue.Forbidden, "livepc", "clipboard", "paste", "office");
    }

    private static IEnumerable<(string Check, string Outcome)> Checks(CommandResult status) => JsonDocument.Parse(status.Output).RootElement[0].GetProperty("hostChecks").EnumerateArray()
        .Select(check => (check.GetProperty("check").GetString()!, check.GetProperty("outcome").GetString()!));

    private static async Task<string> CopyAsync(Shell device, string text, ErrorKind expected)
    {
        var result = await device.TryAsync(text, "livepc", "clipboard", "copy", "office");
        Assert.Equal((int)expected.ExitCode, result.ExitCode);
        Assert.Contains($"nacre: hint: {expected.Hint}", result.Error, StringComparison.Ordinal);
        return result.Error;
    }

    /// <summary>Whether the guest's sound device plays, and whether it records.</summary>
    private static async Task<(bool Plays, bool Records)> SoundAsync(Organisation organisation)
    {
        await UntilAsync(async () => await organisation.InGuestAsync("modprobe -q snd-hda-intel; grep -q . /proc/asound/pcm && echo there; true"), "there\n");
        var text = await organisation.InGuestAsync("cat /proc/asound/pcm");
        return (text.Contains("playback", StringComparison.Ordinal), text.Contains("capture", StringComparison.Ordinal));
    }

    /// <summary>The vendors of the devices on the guest's USB, but for its own hubs.</summary>
    private static async Task<string> UsbAsync(Organisation organisation) =>
        (await organisation.InGuestAsync("cat /sys/bus/usb/devices/*/idVendor 2>/dev/null | grep -vx 1d6b | sort | tr '\\n' ' '; true")).Trim();

    private static async Task<double> UptimeAsync(Organisation organisation) => double.Parse((await organisation.InGuestAsync("cut -d' ' -f1 /proc/uptime")).Trim(), CultureInfo.InvariantCulture);

    private static async Task UntilAsync(Func<Task<string>> ask, string wanted)
    {
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(1000, TestContext.Current.CancellationToken))
        {
            var answer = await ask();
            if (answer == wanted)
            {
                return;
            }

            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(4), $"'{wanted}' did not come, but '{answer}'");
        }
    }
}
