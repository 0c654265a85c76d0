using System.Runtime.InteropServices;
using System.Text;
using Nacre.Player.HostChecks;
using Nacre.Policies;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>What the checks say of hosts, each a tree of real files, links and programs; and of this one.</summary>
public sealed class HostCheckTests : IDisposable
{
    private static readonly DateTimeOffset Now = new(2026, 11, 28, 12, 0, 0, TimeSpan.Zero);

    private readonly TemporaryDirectory folder = new();
    private readonly Dictionary<string, string> variables = new(StringComparer.Ordinal) { ["HOME"] = "/home/ann" };

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("debian 12", "passed")]
    [InlineData("debian 11.9", "passed")]
    [InlineData("debian 13", "failed")]
    [InlineData("ubuntu 22.04", "failed")]
    [InlineData("", "passed")]
    public async Task The_operating_system_is_one_that_the_policy_allows(string allowed, string outcome)
    {
        Write("/etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\n");
        var result = await CheckAsync(Settings.HostOs, policy => allowed.Length == 0 ? policy : policy.With(Settings.HostOsMin, [allowed]));
        Assert.Equal(outcome, Word(result));
        Assert.Contains("Debian GNU/Linux 12", result.Detail, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("12", "debian 12", "passed")]
    [InlineData("12.7", "debian 12", "passed")]
    [InlineData("12.7", "debian 12.8", "passed")]
    [InlineData("12.9", "debian 12.8", "failed")]
    [InlineData("13", "debian 12.8", "failed")]
    [InlineData("13", "ubuntu 12", "passed")]
    [InlineData("sid", "debian 12", "unknown")]
    public async Task An_operating_system_that_nobody_has_tried_is_not_allowed(string version, string newest, string outcome)
    {
        Write("/etc/os-release", $"ID=debian\nVERSION_ID=\"{version}\"\n");
        Assert.Equal(outcome, Word(await CheckAsync(Settings.HostOs, policy => policy.With(Settings.HostOsMax, [newest]))));
    }

    [Fact]
    public async Task An_operating_system_that_does_not_say_what_it_is_is_not_known()
    {
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostOs, policy => policy.With(Settings.HostOsMin, ["debian 12"]))));
        Write("/etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian sid\u001b[31m\"\n");
        var result = await CheckAsync(Settings.HostOs, policy => policy.With(Settings.HostOsMin, ["debian 12"]));
        Assert.Equal("unknown", Word(result));
        Assert.DoesNotContain('\u001b', result.Detail);
    }

    [Theory]
    [InlineData(30, "passed")]
    [InlineData(31, "failed")]
    public async Task Packages_that_changed_too_long_ago_fail(int days, string outcome)
    {
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostPatches)));
        Write("/var/lib/dpkg/status", "");
        File.SetLastWriteTimeUtc(folder["var/lib/dpkg/status"], Now.AddDays(-days).UtcDateTime);
        Assert.Equal(outcome, Word(await CheckAsync(Settings.HostPatches)));
    }

    [Fact]
    public async Task A_folder_on_LUKS_passes_and_one_beside_it_does_not()
    {
        // A volume group on an encrypted partition, with a logical volume; and a plain disk.
        Device("253:1", "dm-1", "LVM-abc", "dm-0");
        Device("253:0", "dm-0", "CRYPT-LUKS2-0f3c-root", "sda2");
        Device("8:2", "sda2", null);
        Device("8:17", "sdb1", null);
        Mounts("21 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw", "22 21 8:17 / /srv/My\\040Data rw - ext4 /dev/sdb1 rw");
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostDiskEncryption, at: "/home/ann/.local/share/nacre")));
        var plain = await CheckAsync(Settings.HostDiskEncryption, at: "/srv/My Data/nacre");
        Assert.Equal("failed", Word(plain));
        Assert.Contains("/srv/My Data", plain.Detail, StringComparison.Ordinal);
        Assert.NotNull(plain.Fix);
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostDiskEncryption, at: "/srv/My Data2")));
    }

    [Fact]
    public async Task A_volume_that_is_encrypted_in_part_fails_and_one_that_nobody_knows_is_not_known()
    {
        Device("253:2", "dm-2", "LVM-abc", "dm-0", "sdb1");
        Device("253:0", "dm-0", "CRYPT-LUKS2-0f3c-root", "sda2");
        Device("8:2", "sda2", null);
        Device("8:17", "sdb1", null);
        Mounts("21 1 253:2 / / rw - ext4 /dev/mapper/vg-root rw", "22 21 0:40 / /pool rw - zfs pool/home rw", "23 21 0:41 / /b rw - btrfs /dev/sdb1 rw", "24 21 0:42 / /c rw - btrfs /dev/mapper/crypt rw", "25 21 0:43 / /e rw - ecryptfs /home/.e rw");
        Write("/sys/block/dm-0/dm/name", "crypt\n");
        Write("/sys/block/dm-0/dm/uuid", "CRYPT-LUKS2-0f3c-root");
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostDiskEncryption, at: "/home")));
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostDiskEncryption, at: "/pool/x")));
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostDiskEncryption, at: "/b/x")));
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostDiskEncryption, at: "/c/x")));
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostDiskEncryption, at: "/e/x")));
        Mounts("nonsense", "1 2 3", "");
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostDiskEncryption, at: "/home")));
    }

    [Fact]
    public async Task A_firewall_is_what_filters_what_comes_in()
    {
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostFirewall)));
        Directory.CreateDirectory(folder["run/systemd/units"]);
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostFirewall)));
        Write("/etc/ufw/ufw.conf", "# ufw\nENABLED=no\n");
        Unit("ufw.service");
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostFirewall)));
        Write("/etc/ufw/ufw.conf", "ENABLED=yes\n");
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostFirewall)));
        File.Delete(folder["etc/ufw/ufw.conf"]);
        Unit("nftables.service");
        Write("/etc/nftables.conf", "table inet filter { }\n");
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostFirewall)));
        Write("/etc/nftables.conf", "table inet filter { chain in { type filter hook input priority 0; } }\n");
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostFirewall)));

        // Who sees the rules does not believe what is switched on.
        Program("/usr/sbin/nft", "echo 'table inet filter { chain out { type filter hook output priority 0; } }'");
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostFirewall)));
        Program("/usr/sbin/nft", "echo 'table inet filter { chain in { type filter hook input priority 0; } }'");
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostFirewall)));
    }

    [Fact]
    public async Task A_desktop_locks_its_screen_where_its_settings_say_so()
    {
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostScreenLock)));
        variables["XDG_CURRENT_DESKTOP"] = "ubuntu:GNOME";
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostScreenLock)));
        Program("/usr/bin/gsettings", "case $3 in lock-enabled) echo true ;; *) echo 'uint32 300' ;; esac");
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostScreenLock)));
        Program("/usr/bin/gsettings", "case $3 in lock-enabled) echo true ;; *) echo 'uint32 0' ;; esac");
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostScreenLock)));

        variables["XDG_CURRENT_DESKTOP"] = "KDE";
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostScreenLock)));
        Write("/home/ann/.config/kscreenlockerrc", "[Daemon]\nAutolock=false\n");
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostScreenLock)));

        variables["XDG_CURRENT_DESKTOP"] = "XFCE";
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostScreenLock)));
        Write("/usr/bin/xfce4-screensaver", "");
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostScreenLock)));
        const string Xfce = "/home/ann/.config/xfce4/xfconf/xfce-perchannel-xml/xfce4-screensaver.xml";
        Write(Xfce, """<channel><property name="saver" type="empty"><property name="enabled" type="bool" value="true"/></property><property name="lock" type="empty"><property name="enabled" type="bool" value="true"/></property></channel>""");
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostScreenLock)));
        Write(Xfce, """<channel><property name="lock" type="empty"><property name="sleep-activation" type="bool" value="true"/><property name="enabled" type="bool" value="false"/></property></channel>""");
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostScreenLock)));
        variables["XDG_CURRENT_DESKTOP"] = "sway\u001b";
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostScreenLock)));
    }

    [Fact]
    public async Task An_antivirus_runs_and_has_signatures_that_are_new_enough()
    {
        Directory.CreateDirectory(folder["run/systemd/units"]);
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostAntivirus)));
        Write("/proc/77/comm", "clamd\n");
        Assert.Contains("no signatures", (await CheckAsync(Settings.HostAntivirus)).Detail, StringComparison.Ordinal);
        Write("/var/lib/clamav/main.cvd", "ClamAV-VDB:16 Sep 2021 08-32 -0400:62:6647427:90:x:y:sigmgr:1631795562");
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostAntivirus)));
        Write("/var/lib/clamav/daily.cld", "ClamAV-VDB:27 Nov 2026 03-23 -0500:27468:2000000:90:x:y:raynman:1795767780");
        var result = await CheckAsync(Settings.HostAntivirus);
        Assert.Equal("passed", Word(result));
        Assert.Contains("1 days old", result.Detail, StringComparison.Ordinal);
        Directory.Delete(folder["proc"], recursive: true);
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostAntivirus)));
        Unit("clamav-daemon.service");
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostAntivirus)));
    }

    [Fact]
    public async Task Secure_boot_is_what_the_firmware_says()
    {
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostSecureBoot)));
        Directory.CreateDirectory(folder["sys/firmware"]);
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostSecureBoot)));
        Directory.CreateDirectory(folder["sys/firmware/efi/efivars"]);
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostSecureBoot)));
        var variable = folder["sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"];
        await File.WriteAllBytesAsync(variable, [6, 0, 0, 0, 1], Token);
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostSecureBoot)));
        await File.WriteAllBytesAsync(variable, [6, 0, 0, 0, 0], Token);
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostSecureBoot)));
        await File.WriteAllBytesAsync(variable, [6, 0], Token);
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostSecureBoot)));
    }

    [Theory]
    [InlineData("0", "", "sudo:x:27:", "failed")]
    [InlineData("1000", "24 25", "sudo:x:27:bob\nusers:x:24:", "passed")]
    [InlineData("1000", "24 27", "sudo:x:27:", "failed")]
    [InlineData("1000", "24", "wheel:x:10:bob,ann", "failed")]
    [InlineData("1000", "24", "adm:x:10:ann", "passed")]
    public async Task The_user_is_no_administrator(string user, string groups, string all, string outcome)
    {
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostNotAdmin)));
        Write("/proc/self/status", $"Name:\tnacre\nUid:\t{user}\t{user}\t{user}\t{user}\nGroups:\t{groups} \n");
        Write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n");
        Write("/etc/group", all + "\n");
        Assert.Equal(outcome, Word(await CheckAsync(Settings.HostNotAdmin)));
    }

    [Fact]
    public async Task Client_resources_and_virtualisation_are_what_there_is()
    {
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostClient, policy => policy.With(Settings.HostClientMinVersion, "1.2"))));
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostClient, policy => policy.With(Settings.HostClientMinVersion, "1.10"))));
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostResources)));
        Write("/proc/meminfo", "MemTotal:        3900000 kB\n");
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostResources, policy => policy.With(Settings.HostMinFreeDiskGB, 1))));
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostResources, policy => policy.With(Settings.HostMinFreeDiskGB, 1).With(Settings.HostMinRamGB, 8))));
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostResources, policy => policy.With(Settings.HostMinFreeDiskGB, 10_000))));
        Assert.Equal("unknown", Word(await CheckAsync(Settings.HostVirtualisation)));
        Write("/proc/cpuinfo", "flags\t\t: fpu vme svmlock\n");
        Assert.Equal("failed", Word(await CheckAsync(Settings.HostVirtualisation)));
        Write("/dev/kvm", "");
        Assert.Equal("passed", Word(await CheckAsync(Settings.HostVirtualisation)));
    }

    [Fact]
    public async Task Only_what_is_asked_for_is_looked_at_and_what_fails_says_what_to_do()
    {
        var results = await new HostInspection(Host(), folder.Path, new Version(1, 5), new At()).RunAsync(
            Policy.Of("lease", PolicyDocument.Empty.With(Settings.HostFirewall, CheckAction.Lock).With(Settings.HostSecureBoot, CheckAction.Warn)), isForShow: false, Token);
        Assert.Equal([("host.firewall", CheckAction.Lock), ("host.secureBoot", CheckAction.Warn)], results.Select(result => (result.Setting, result.Action)));
        Directory.CreateDirectory(folder["run/systemd/units"]);
        Directory.CreateDirectory(folder["sys/firmware"]);
        Write("/etc/os-release", "ID=debian\nVERSION_ID=\"11\"\n");
        Write("/proc/self/status", "Uid:\t0\t0\t0\t0\n");
        foreach (var result in await RunAsync(PolicyDocument.Empty.With(Settings.HostOsMin, ["debian 12"]), folder.Path))
        {
            Assert.True(result.Outcome != HostCheckOutcome.Failed || result.Fix is { Length: > 10 }, $"{result}");
        }
    }

    [Fact]
    public async Task This_computer_answers_every_check()
    {
        var results = await new HostInspection(HostFacts.Real, folder.Path, new Version(1, 5), TimeProvider.System).RunAsync(Policy.Factory, isForShow: true, Token);
        Assert.Equal(11, results.Count);
        Assert.All(results, result => Assert.True(result.Detail.Length > 3 && !result.Detail.Contains('\n', StringComparison.Ordinal), $"{result}"));
        Assert.Equal(HostCheckOutcome.Passed, results.Single(result => result.Setting == "host.os").Outcome);
        Assert.Equal(getuid() == 0, results.Single(result => result.Setting == "host.notAdmin").Detail == "nacre runs as root");
    }

    [DllImport("libc")]
    private static extern uint getuid();

    private static string Word(HostCheckResult result) => result.Outcome.ToString().ToLowerInvariant();

    private HostFacts Host() => new(folder.Path, variables);

    private async Task<HostCheckResult> CheckAsync(Setting<CheckAction> setting, Func<PolicyDocument, PolicyDocument>? change = null, string? at = null) =>
        (await RunAsync((change ?? (policy => policy))(PolicyDocument.Empty), at ?? folder.Path)).Single(result => result.Setting == setting.Name);

    private Task<IReadOnlyList<HostCheckResult>> RunAsync(PolicyDocument policy, string at) =>
        new HostInspection(Host(), at, new Version(1, 5), new At()).RunAsync(Policy.Of("lease", policy), isForShow: true, Token);

    private void Write(string path, string text)
    {
        var file = folder[path.TrimStart('/')];
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllText(file, text, new UTF8Encoding(false));
    }

    private void Program(string path, string script)
    {
        Write(path, $"#!/bin/sh\n{script}\n");
        File.SetUnixFileMode(folder[path.TrimStart('/')], UnixFileMode.UserRead | UnixFileMode.UserExecute | UnixFileMode.UserWrite);
    }

    /// <summary>As systemd does it: a link to nothing that is there.</summary>
    private void Unit(string name) => File.CreateSymbolicLink(folder[$"run/systemd/units/invocation:{name}"], "0123456789abcdef0123456789abcdef");

    private void Mounts(params string[] lines) => Write("/proc/self/mountinfo", string.Concat(lines.Select(line => line + "\n")));

    private void Device(string number, string name, string? uuid, params string[] below)
    {
        Directory.CreateDirectory(folder[$"sys/devices/{name}/slaves"]);
        if (uuid is not null)
        {
            Write($"/sys/devices/{name}/dm/uuid", uuid);
        }

        foreach (var one in below)
        {
            Directory.CreateSymbolicLink(folder[$"sys/devices/{name}/slaves/{one}"], $"../../{one}");
        }

        Directory.CreateDirectory(folder["sys/dev/block"]);
        Directory.CreateDirectory(folder["sys/class/block"]);
        Directory.CreateSymbolicLink(folder[$"sys/dev/block/{number}"], $"../../devices/{name}");
        Directory.CreateSymbolicLink(folder[$"sys/class/block/{name}"], $"../../devices/{name}");
    }

    private sealed class At : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => Now;
    }
}
