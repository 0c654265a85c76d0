using System.Globalization;
using System.Text.RegularExpressions;
using Nacre.Player.Machines;
using Nacre.Policies;

namespace Nacre.Player.HostChecks;

/// <summary>The checks that Nacre knows itself. Each says what is so and what to do about it in words that a person can follow, or that this computer does not say.</summary>
/// <param name="facts">The host.</param>
/// <param name="folder">The folder that the LivePC lies in.</param>
/// <param name="client">The version of nacre.</param>
/// <param name="time">The clock.</param>
internal sealed partial class HostInspection(HostFacts facts, string folder, Version client, TimeProvider time)
{
    private const long GB = 1_000_000_000;

    private static readonly string[] PackageDatabases = ["/var/lib/dpkg/status", "/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite", "/var/lib/pacman/local"];

    private static readonly string[] SignatureFiles = ["daily.cld", "daily.cvd", "main.cld", "main.cvd"];

    private static readonly string[] AdministratorGroups = ["sudo", "wheel", "admin"];

    /// <summary>Those that the policy asks for, or all.</summary>
    public async Task<IReadOnlyList<HostCheckResult>> RunAsync(Policy policy, bool isForShow, CancellationToken cancellationToken)
    {
        var checks = new (Setting<CheckAction> Setting, Func<string, Task<HostCheckResult>> Check)[]
        {
            (Settings.HostOs, name => Now(OperatingSystem(name, policy.Get(Settings.HostOsMin), policy.Get(Settings.HostOsMax)))),
            (Settings.HostPatches, name => Now(Patches(name, policy.Get(Settings.HostPatchMaxAgeDays)))),
            (Settings.HostDiskEncryption, name => Now(DiskEncryption(name))),
            (Settings.HostFirewall, name => FirewallAsync(name, cancellationToken)),
            (Settings.HostScreenLock, name => ScreenLockAsync(name, cancellationToken)),
            (Settings.HostAntivirus, name => Now(Antivirus(name, policy.Get(Settings.HostAntivirusMaxAgeDays)))),
            (Settings.HostSecureBoot, name => Now(SecureBoot(name))),
            (Settings.HostNotAdmin, name => Now(NotAdministrator(name))),
            (Settings.HostClient, name => Now(Client(name, policy.Get(Settings.HostClientMinVersion)))),
            (Settings.HostResources, name => Now(Resources(name, policy.Get(Settings.HostMinFreeDiskGB), policy.Get(Settings.HostMinRamGB)))),
            (Settings.HostVirtualisation, name => Now(Virtualisation(name))),
        };
        var results = new List<HostCheckResult>();
        foreach (var (setting, check) in checks.Where(check => isForShow || policy.Get(check.Setting) != CheckAction.Off))
        {
            var result = await check(setting.Name).ConfigureAwait(false);
            results.Add(result with { Action = policy.Get(setting) });
        }

        return results;
    }

    private static Task<HostCheckResult> Now(HostCheckResult result) => Task.FromResult(result);

    private HostCheckResult OperatingSystem(string name, IReadOnlyList<string> allowed, IReadOnlyList<string> tried)
    {
        var text = facts.Read("/etc/os-release") ?? facts.Read("/usr/lib/os-release");
        if (text is null || Field(text, "ID") is not { Length: > 0 } id)
        {
            return HostCheckResult.Unknown(name, "this computer does not say which operating system it has (/etc/os-release)");
        }

        var (version, words) = (Field(text, "VERSION_ID") ?? "", Field(text, "PRETTY_NAME") ?? id);
        var rules = allowed.Select(line => line.Split(' ')).ToList();
        var list = string.Join(", ", allowed);
        var wanted = rules.Find(rule => rule[0] == id);
        if (rules.Count > 0 && wanted is null)
        {
            return HostCheckResult.Failed(name, $"{words} is none of the operating systems that your company allows", $"use a computer with one of them: {list}");
        }

        var newest = tried.Select(line => line.Split(' ')).LastOrDefault(rule => rule[0] == id)?[1];
        if (wanted is null && newest is null)
        {
            return HostCheckResult.Passed(name, words);
        }

        return !TryParseVersion(version, out var has) || !TryParseVersion(wanted?[1] ?? "0", out var least)
            ? HostCheckResult.Unknown(name, $"{words} does not say which version it is")
            : has < least
            ? HostCheckResult.Failed(name, $"{words} is older than your company allows", $"upgrade the operating system to version {wanted![1]} or newer")
            : newest is not null && IsNewer(version, newest)
            ? HostCheckResult.Failed(name, $"{words} is newer than your company has tried", $"use a computer with version {newest} or older, until your company allows this one")
            : HostCheckResult.Passed(name, words);
    }

    /// <summary>Whether a version is newer than another, as far as that is written out: 13.1 is no newer than 13.</summary>
    private static bool IsNewer(string version, string than)
    {
        foreach (var (has, most) in version.Split('.').Zip(than.Split('.'), (one, other) => (int.Parse(one, CultureInfo.InvariantCulture), int.Parse(other, CultureInfo.InvariantCulture))))
        {
            if (has != most)
            {
                return has > most;
            }
        }

        return false;
    }

    private HostCheckResult Patches(string name, int most)
    {
        var changed = PackageDatabases.Select(facts.ChangedAt).OfType<DateTimeOffset>().ToList();
        if (changed.Count == 0)
        {
            return HostCheckResult.Unknown(name, "this computer does not say when it was updated (it has no package database of dpkg, rpm or pacman)");
        }

        var days = (int)Math.Max(0, (time.GetUtcNow() - changed.Max()).TotalDays);
        var words = string.Create(CultureInfo.InvariantCulture, $"packages changed {days} days ago");
        return days <= most
            ? HostCheckResult.Passed(name, words)
            : HostCheckResult.Failed(name, string.Create(CultureInfo.InvariantCulture, $"{words}, and your company allows {most}"), "install the updates of this computer (on Debian and Ubuntu: sudo apt update && sudo apt upgrade)");
    }

    /// <summary>Follows the folder to its file system, and that to the devices below it: each way down has to come to one that encrypts.</summary>
    private HostCheckResult DiskEncryption(string name)
    {
        if (facts.Read("/proc/self/mountinfo") is not { } mounts || FindMount(mounts) is not { } mount)
        {
            return HostCheckResult.Unknown(name, $"this computer does not say which disk {folder} is on");
        }

        if (mount.Kind is "ecryptfs" or "fuse.gocryptfs" or "fuse.cryfs")
        {
            return HostCheckResult.Passed(name, $"{folder} is on an encrypted folder ({mount.Kind})");
        }

        var device = facts.Resolve($"/sys/dev/block/{mount.Device}") ?? (mount.Source.StartsWith("/dev/", StringComparison.Ordinal) ? FindBySource(mount.Source["/dev/".Length..]) : null);
        return device is null ? HostCheckResult.Unknown(name, $"this computer does not say which disk {folder} is on: its file system is {mount.Kind}")
            : IsEncrypted(device, 0) ? HostCheckResult.Passed(name, $"the disk below {mount.Point} is encrypted")
            : HostCheckResult.Failed(name, $"the disk below {mount.Point} is not encrypted", "encrypt the disk of this computer: its operating system offers that when it is installed (LUKS); or ask your help desk");
    }

    private (string Point, string Device, string Kind, string Source)? FindMount(string mounts)
    {
        (string Point, string Device, string Kind, string Source)? best = null;
        foreach (var words in mounts.Split('\n').Select(line => line.Split(' ')))
        {
            var dash = Array.IndexOf(words, "-");
            if (words.Length < 10 || dash < 6 || dash + 2 >= words.Length)
            {
                continue;
            }

            // The kernel writes spaces as octal numbers.
            var point = OctalPattern().Replace(words[4], match => ((char)Convert.ToInt32(match.Groups[1].Value, 8)).ToString());
            if ((point == "/" || folder == point || folder.StartsWith(point + "/", StringComparison.Ordinal)) && (best is null || point.Length >= best.Value.Point.Length))
            {
                best = (point, words[2], words[dash + 1], words[dash + 2]);
            }
        }

        return best;
    }

    /// <summary>For file systems of several devices (btrfs), which have a number of their own.</summary>
    private string? FindBySource(string source) => source.StartsWith("mapper/", StringComparison.Ordinal)
        ? facts.List("/sys/block").Where(device => facts.Read($"/sys/block/{device}/dm/name")?.Trim() == source["mapper/".Length..]).Select(device => facts.Resolve($"/sys/block/{device}")).FirstOrDefault()
        : source.Contains('/', StringComparison.Ordinal) ? null : facts.Resolve($"/sys/class/block/{source}");

    private static bool IsEncrypted(string device, int depth)
    {
        const int Deepest = 16; // devices do not lie upon each other in circles, but this is not ours to believe
        var uuid = Path.Combine(device, "dm", "uuid");
        if (File.Exists(uuid) && File.ReadAllText(uuid).StartsWith("CRYPT-", StringComparison.Ordinal))
        {
            return true;
        }

        var below = Path.Combine(device, "slaves");
        var devices = Directory.Exists(below) ? Directory.GetFileSystemEntries(below) : [];
        return depth < Deepest && devices.Length > 0
            && devices.All(one => (new DirectoryInfo(one).ResolveLinkTarget(returnFinalTarget: true)?.FullName ?? one) is var target && Directory.Exists(target) && IsEncrypted(target, depth + 1));
    }

    private async Task<HostCheckResult> FirewallAsync(string name, CancellationToken cancellationToken)
    {
        const string Fix = "switch a firewall on (on Debian and Ubuntu: sudo apt install ufw && sudo ufw enable)";
        if (await facts.AskAsync("nft", ["list", "ruleset"], cancellationToken).ConfigureAwait(false) is { } rules)
        {
            return InputPattern().IsMatch(rules) ? HostCheckResult.Passed(name, "nftables filters what comes in") : HostCheckResult.Failed(name, "no rule of nftables filters what comes in", Fix);
        }

        // An ordinary user does not see the rules: then what is switched on counts.
        if (facts.Read("/etc/ufw/ufw.conf") is { } ufw && UfwPattern().IsMatch(ufw) && facts.IsActive("ufw.service") != false)
        {
            return HostCheckResult.Passed(name, "ufw is on");
        }

        if (facts.IsActive("firewalld.service") == true)
        {
            return HostCheckResult.Passed(name, "firewalld is on");
        }

        if (facts.IsActive("nftables.service") == true)
        {
            return facts.Read("/etc/nftables.conf") is not { } configuration ? HostCheckResult.Unknown(name, "nftables is on, and this user can't see its rules")
                : InputPattern().IsMatch(configuration) ? HostCheckResult.Passed(name, "nftables is on, with rules for what comes in")
                : HostCheckResult.Failed(name, "nftables is on, and has no rule for what comes in", "write rules into /etc/nftables.conf, or: sudo apt install ufw && sudo ufw enable");
        }

        return facts.IsActive("nftables.service") is null
            ? HostCheckResult.Unknown(name, "this computer does not say whether it has a firewall (this user can't see the rules, and there is no systemd)", Fix)
            : HostCheckResult.Failed(name, "neither nftables nor ufw nor firewalld is on", Fix);
    }

    private async Task<HostCheckResult> ScreenLockAsync(string name, CancellationToken cancellationToken)
    {
        var desktop = facts.Variables.GetValueOrDefault("XDG_CURRENT_DESKTOP") ?? "";
        if (desktop.Contains("GNOME", StringComparison.OrdinalIgnoreCase) || desktop.Contains("Unity", StringComparison.OrdinalIgnoreCase))
        {
            var enabled = await facts.AskAsync("gsettings", ["get", "org.gnome.desktop.screensaver", "lock-enabled"], cancellationToken).ConfigureAwait(false);
            var delay = await facts.AskAsync("gsettings", ["get", "org.gnome.desktop.session", "idle-delay"], cancellationToken).ConfigureAwait(false);
            return enabled is null || delay is null ? HostCheckResult.Unknown(name, "GNOME does not say whether it locks the screen")
                : enabled.Trim() == "true" && delay.Trim() != "uint32 0" ? HostCheckResult.Passed(name, "GNOME locks the screen")
                : HostCheckResult.Failed(name, "GNOME does not lock the screen by itself", "Settings, Privacy, Screen: switch 'Automatic Screen Lock' on, and choose a time for 'Blank Screen Delay'");
        }

        if (desktop.Contains("KDE", StringComparison.OrdinalIgnoreCase))
        {
            // What the file does not say is as KDE has it: it locks after 5 minutes.
            var text = facts.Read($"{facts.Home}/.config/kscreenlockerrc") ?? "";
            return KdePattern().IsMatch(text) ? HostCheckResult.Failed(name, "KDE does not lock the screen by itself", "System Settings, Screen Locking: switch 'Lock screen automatically' on")
                : HostCheckResult.Passed(name, "KDE locks the screen");
        }

        if (desktop.Contains("XFCE", StringComparison.OrdinalIgnoreCase))
        {
            const string Fix = "Settings, Screensaver: switch the screensaver and 'Lock Screen' on";
            if (facts.Read($"{facts.Home}/.config/xfce4/xfconf/xfce-perchannel-xml/xfce4-screensaver.xml") is { } text)
            {
                return IsOff(text, "saver") || IsOff(text, "lock") ? HostCheckResult.Failed(name, "Xfce does not lock the screen by itself", Fix) : HostCheckResult.Passed(name, "Xfce locks the screen");
            }

            return facts.Exists("/usr/bin/xfce4-screensaver") ? HostCheckResult.Passed(name, "Xfce locks the screen")
                : facts.Exists("/usr/bin/light-locker") ? HostCheckResult.Passed(name, "light-locker locks the screen")
                : HostCheckResult.Failed(name, "this Xfce has no program that locks the screen", $"install xfce4-screensaver; then {Fix}");
        }

        return HostCheckResult.Unknown(name, desktop.Length == 0 ? "this user has no desktop that could say whether it locks the screen" : $"it is not known where the desktop '{GuestText.Line(desktop)}' says whether it locks the screen");

        // Both are on where the file does not say otherwise.
        static bool IsOff(string text, string property) =>
            Regex.IsMatch(text, $"""<property name="{property}" type="empty">\s*(?:<property name="(?!enabled")[^>]*/>\s*)*<property name="enabled" type="bool" value="false"/>""", RegexOptions.None, TimeSpan.FromSeconds(1));
    }

    private HostCheckResult Antivirus(string name, int most)
    {
        const string Install = "install ClamAV with its daemon (on Debian and Ubuntu: sudo apt install clamav-daemon)";
        var made = SignatureFiles.Select(file => SignaturesMade($"/var/lib/clamav/{file}")).OfType<DateTimeOffset>().ToList();
        if (facts.IsActive("clamav-daemon.service") != true && facts.IsActive("clamd@scan.service") != true
            && !facts.List("/proc").Where(entry => entry.All(char.IsAsciiDigit)).Any(process => facts.Read($"/proc/{process}/comm")?.Trim() == "clamd"))
        {
            return HostCheckResult.Failed(name, "no antivirus that is known here runs (ClamAV's daemon)", Install);
        }

        if (made.Count == 0)
        {
            return HostCheckResult.Failed(name, "ClamAV runs, and has no signatures", "let it fetch them: sudo systemctl enable --now clamav-freshclam");
        }

        var days = (int)Math.Max(0, (time.GetUtcNow() - made.Max()).TotalDays);
        var words = string.Create(CultureInfo.InvariantCulture, $"ClamAV runs; its signatures are {days} days old");
        return days <= most ? HostCheckResult.Passed(name, words)
            : HostCheckResult.Failed(name, string.Create(CultureInfo.InvariantCulture, $"{words}, and your company allows {most}"), "let it fetch new ones: sudo systemctl enable --now clamav-freshclam");
    }

    /// <summary>The head of a signature file: <c>ClamAV-VDB:27 Nov 2026 03-23 -0500:…</c>.</summary>
    private DateTimeOffset? SignaturesMade(string path)
    {
        var head = facts.ReadBytes(path, 512) is { } bytes ? System.Text.Encoding.ASCII.GetString(bytes) : "";
        var match = SignaturesPattern().Match(head);
        return match.Success && DateTimeOffset.TryParseExact($"{match.Groups[1].Value} {match.Groups[2].Value}:{match.Groups[3].Value}", "d MMM yyyy HH-mm zzz", CultureInfo.InvariantCulture, DateTimeStyles.None, out var made) ? made : null;
    }

    private HostCheckResult SecureBoot(string name)
    {
        const string Fix = "switch secure boot on in the settings of this computer's firmware (often by F2 or Del when it starts); or ask your help desk";
        const string Variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
        return !facts.Exists("/sys/firmware") ? HostCheckResult.Unknown(name, "this computer does not say how it was started")
            : !facts.Exists("/sys/firmware/efi") ? HostCheckResult.Failed(name, "this computer was started without UEFI, so without secure boot", Fix)
            : facts.ReadBytes(Variable, 8) is not [_, _, _, _, var value] ? HostCheckResult.Unknown(name, "this computer's firmware does not say whether secure boot is on")
            : value == 1 ? HostCheckResult.Passed(name, "secure boot is on")
            : HostCheckResult.Failed(name, "secure boot is off", Fix);
    }

    private HostCheckResult NotAdministrator(string name)
    {
        if (facts.Read("/proc/self/status") is not { } status || UserPattern().Match(status) is not { Success: true } user)
        {
            return HostCheckResult.Unknown(name, "this computer does not say as whom nacre runs");
        }

        const string Fix = "use an ordinary account of this computer for work, and another one to administer it";
        if (user.Groups[1].Value == "0")
        {
            return HostCheckResult.Failed(name, "nacre runs as root", Fix);
        }

        var account = (facts.Read("/etc/passwd") ?? "").Split('\n').Select(line => line.Split(':')).FirstOrDefault(fields => fields.Length > 3 && fields[2] == user.Groups[1].Value);
        var numbers = (GroupsPattern().Match(status).Groups[1].Value + " " + account?[3]).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
        var found = (facts.Read("/etc/group") ?? "").Split('\n').Select(line => line.Split(':'))
            .Where(fields => fields.Length > 3 && AdministratorGroups.Contains(fields[0]) && (numbers.Contains(fields[2]) || (account is not null && fields[3].Split(',').Contains(account[0]))))
            .Select(fields => fields[0]).ToList();
        return found.Count == 0 ? HostCheckResult.Passed(name, "the user is no administrator of this computer")
            : HostCheckResult.Failed(name, $"the user is an administrator of this computer (group {string.Join(", ", found)})", Fix);
    }

    private HostCheckResult Client(string name, string least) => least.Length == 0 || client >= Version.Parse(least)
        ? HostCheckResult.Passed(name, $"nacre {client}")
        : HostCheckResult.Failed(name, $"nacre {client} is older than your company allows ({least})", "update nacre on this computer");

    private HostCheckResult Resources(string name, int disk, int memory)
    {
        var match = MemoryPattern().Match(facts.Read("/proc/meminfo") ?? "");
        if (!match.Success)
        {
            return HostCheckResult.Unknown(name, "this computer does not say how much memory it has");
        }

        // Firmware and graphics take some of what was bought.
        var has = long.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture) * 1024;
        var free = new DriveInfo(folder).AvailableFreeSpace;
        var words = string.Create(CultureInfo.InvariantCulture, $"{(double)free / GB:0.0} GB of the disk are free, and there are {(double)has / GB:0.0} GB of memory");
        return free < disk * GB ? HostCheckResult.Failed(name, words, string.Create(CultureInfo.InvariantCulture, $"free some of the disk, until {disk} GB are free"))
            : has < memory * GB * 9 / 10 ? HostCheckResult.Failed(name, words, string.Create(CultureInfo.InvariantCulture, $"use a computer with {memory} GB of memory"))
            : HostCheckResult.Passed(name, words);
    }

    private HostCheckResult Virtualisation(string name)
    {
        const string Firmware = "switch virtualisation (VT-x, AMD-V, SVM) on in the settings of this computer's firmware (often by F2 or Del when it starts)";
        if (facts.Exists("/dev/kvm"))
        {
            try
            {
                using var device = File.OpenHandle(facts.At("/dev/kvm"), FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
                return HostCheckResult.Passed(name, "KVM can be used");
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                return HostCheckResult.Failed(name, "there is KVM, and this user may not use it", "let this user use it (sudo adduser USER kvm), and log in again");
            }
        }

        return facts.Read("/proc/cpuinfo") is not { } processor ? HostCheckResult.Unknown(name, "this computer does not say what its processor can do")
            : VirtualisationPattern().IsMatch(processor) ? HostCheckResult.Failed(name, "the processor can virtualise, and the operating system does not offer it (no /dev/kvm)", "load the module (sudo modprobe kvm_intel or kvm_amd); where that fails, " + Firmware)
            : HostCheckResult.Failed(name, "the processor does not offer virtualisation", Firmware);
    }

    private static string? Field(string text, string name)
    {
        var match = Regex.Match(text, $"""(?m)^{name}=("?)([^"\n]*)\1\s*$""", RegexOptions.None, TimeSpan.FromSeconds(1));
        return match.Success ? GuestText.Line(match.Groups[2].Value) : null;
    }

    private static bool TryParseVersion(string text, out Version version)
    {
        var isOne = Version.TryParse(text.Contains('.', StringComparison.Ordinal) ? text : text + ".0", out var parsed);
        version = parsed ?? new Version();
        return isOne;
    }

    [GeneratedRegex(@"\\([0-7]{3})")]
    private static partial Regex OctalPattern();

    [GeneratedRegex(@"\bhook\s+(input|ingress|prerouting)\b")]
    private static partial Regex InputPattern();

    [GeneratedRegex(@"(?mi)^ENABLED=yes\s*$")]
    private static partial Regex UfwPattern();

    [GeneratedRegex(@"(?mi)^\s*(Autolock=false|Timeout=0)\s*$")]
    private static partial Regex KdePattern();

    [GeneratedRegex(@"\AClamAV-VDB:(\d{1,2} [A-Z][a-z]{2} \d{4} \d{2}-\d{2}) ([+-]\d{2})(\d{2}):")]
    private static partial Regex SignaturesPattern();

    [GeneratedRegex(@"(?m)^Uid:\s+\d+\s+(\d+)")]
    private static partial Regex UserPattern();

    [GeneratedRegex(@"(?m)^Groups:[ \t]*([0-9 \t]*)$")]
    private static partial Regex GroupsPattern();

    [GeneratedRegex(@"(?m)^MemTotal:\s+(\d{1,15}) kB")]
    private static partial Regex MemoryPattern();

    [GeneratedRegex(@"(?m)^flags\s*:.*\b(vmx|svm)\b")]
    private static partial Regex VirtualisationPattern();
}
