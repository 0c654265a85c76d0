using System.Collections.Immutable;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace Nacre.Policies;

/// <summary>What follows from a host check that fails.</summary>
public enum CheckAction
{
    /// <summary>Nothing: it is not looked at.</summary>
    Off,

    /// <summary>The user and the server are told.</summary>
    Warn,

    /// <summary>That, and the LivePC does not start; one that runs goes on.</summary>
    Block,

    /// <summary>That, and one that runs is locked until the check passes.</summary>
    Lock,
}

/// <summary>What a check counts as whose answer this computer does not give.</summary>
public enum UnknownFact
{
    /// <summary>It is reported.</summary>
    Warn,

    /// <summary>It counts as failed.</summary>
    Fail,
}

/// <content>Host checks: what the computer around a LivePC has to be like.</content>
public static partial class Settings
{
    private const string Actions = "off; warn: the user and the server are told; block: that, and the LivePC does not start; lock: that, and one that runs is locked until it passes.";

    /// <summary>How often the host is checked while a LivePC runs.</summary>
    public static Setting<int> HostCheckInterval { get; } = new WholeNumber(
        "host.checkInterval", SettingScope.Container, 60, 1, 1440, "minutes", "How often the host is checked while a LivePC runs; it is checked before every start.", "only before a start");

    /// <summary>What a check counts as whose answer the host does not give.</summary>
    public static Setting<UnknownFact> HostUnknown { get; } = new Choice<UnknownFact>(
        "host.unknown", SettingScope.Container, UnknownFact.Warn, "What a host check counts as where this computer does not say what it asks: it is reported (warn), or counts as failed (fail).", ("warn", UnknownFact.Warn), ("fail", UnknownFact.Fail));

    /// <summary>The oldest operating systems that are allowed.</summary>
    public static Setting<IReadOnlyList<string>> HostOsMin { get; } = new Lines(
        "host.osMin", SettingScope.Container, 32, "an operating system and its oldest version as 'debian 12' (ID and VERSION_ID of os-release)", line => OsPattern().IsMatch(line) ? null : $"'{Shorten(line)}' is none",
        "The operating systems that a host may have, each with its oldest version; none: any.");

    /// <summary>The newest operating systems that are allowed.</summary>
    public static Setting<IReadOnlyList<string>> HostOsMax { get; } = new Lines(
        "host.osMax", SettingScope.Container, 32, "an operating system and its newest version as 'debian 13' (ID and VERSION_ID of os-release)", line => OsPattern().IsMatch(line) ? null : $"'{Shorten(line)}' is none",
        "Up to which version a host may have an operating system, so that one that nobody has tried is not used; one that is not named: any version. 'debian 13' lets 13.1 through.");

    /// <summary>What follows where the operating system is not one of them.</summary>
    public static Setting<CheckAction> HostOs { get; } = Action("host.os", "What follows where the host's operating system is not one of host.osMin, or newer than host.osMax");

    /// <summary>Days since the host's packages changed.</summary>
    public static Setting<int> HostPatchMaxAgeDays { get; } = new WholeNumber(
        "host.patchMaxAgeDays", SettingScope.Container, 30, 1, 3650, "days", "How long ago the host's packages may have changed last (dpkg, rpm or pacman).");

    /// <summary>What follows where it is longer ago.</summary>
    public static Setting<CheckAction> HostPatches { get; } = Action("host.patches", "What follows where the host's packages changed longer ago than host.patchMaxAgeDays");

    /// <summary>What follows where the player's folder is not on an encrypted disk.</summary>
    public static Setting<CheckAction> HostDiskEncryption { get; } = Action("host.diskEncryption", "What follows where the folder that the LivePC lies in is not on an encrypted disk (dm-crypt/LUKS, eCryptfs, gocryptfs)");

    /// <summary>What follows where no firewall filters what comes in.</summary>
    public static Setting<CheckAction> HostFirewall { get; } = Action("host.firewall", "What follows where no firewall filters what comes into the host (nftables, ufw, firewalld)");

    /// <summary>What follows where the screen does not lock itself.</summary>
    public static Setting<CheckAction> HostScreenLock { get; } = Action("host.screenLock", "What follows where the user's desktop (GNOME, KDE, Xfce) does not lock its screen by itself");

    /// <summary>What follows where there is no antivirus.</summary>
    public static Setting<CheckAction> HostAntivirus { get; } = Action("host.avRequired", "What follows where no antivirus runs on the host (ClamAV's daemon), or its signatures are older than host.avSignatureMaxAgeDays");

    /// <summary>Days since its signatures were made.</summary>
    public static Setting<int> HostAntivirusMaxAgeDays { get; } = new WholeNumber(
        "host.avSignatureMaxAgeDays", SettingScope.Container, 7, 1, 365, "days", "How old the antivirus's signatures may be.");

    /// <summary>What follows where the host did not start with secure boot.</summary>
    public static Setting<CheckAction> HostSecureBoot { get; } = Action("host.secureBoot", "What follows where the host was not started with secure boot");

    /// <summary>What follows where the user is an administrator of the host.</summary>
    public static Setting<CheckAction> HostNotAdmin { get; } = Action("host.notAdmin", "What follows where the LivePC's user is root on the host, or in one of the groups sudo, wheel and admin");

    /// <summary>The oldest player.</summary>
    public static Setting<string> HostClientMinVersion { get; } = new Phrase(
        "host.clientMinVersion", SettingScope.Container, 40, "a version such as 1.4.0", text => Version.TryParse(text, out _) ? null : $"'{Shorten(text)}' is none", "The oldest version of nacre on a device.");

    /// <summary>What follows where it is older.</summary>
    public static Setting<CheckAction> HostClient { get; } = Action("host.client", "What follows where nacre on the device is older than host.clientMinVersion");

    /// <summary>Free disk.</summary>
    public static Setting<int> HostMinFreeDiskGB { get; } = new WholeNumber(
        "host.minFreeDiskGB", SettingScope.Container, 5, 1, 10_000, "GB", "How much of the disk that the LivePC lies on has to be free.");

    /// <summary>Memory.</summary>
    public static Setting<int> HostMinRamGB { get; } = new WholeNumber(
        "host.minRamGB", SettingScope.Container, 4, 1, 1000, "GB", "How much memory the host has to have.");

    /// <summary>What follows where there is less of either.</summary>
    public static Setting<CheckAction> HostResources { get; } = Action("host.resources", "What follows where the host has less than host.minFreeDiskGB or host.minRamGB");

    /// <summary>What follows where there is no hardware virtualisation.</summary>
    public static Setting<CheckAction> HostVirtualisation { get; } = Action("host.virtualisation", "What follows where the host's user can't use hardware virtualisation (KVM)");

    /// <summary>The administrator's own checks.</summary>
    public static Setting<IReadOnlyList<string>> HostScripts { get; } = new Lines(
        "host.scripts", SettingScope.Container, 8, "a signed script as 'nacre policy script' makes it", SignedFile,
        "The administrator's own checks: shell scripts, signed by the organisation's targets keys, that run as the user of the host. Exit code 0 passes; the lines message=… and fix=… of the output are told to the user.", 32 * 1024);

    /// <summary>What follows where one of them does not pass.</summary>
    public static Setting<CheckAction> HostScriptsAction { get; } = Action("host.scriptsAction", "What follows where one of host.scripts does not pass");

    /// <summary>All of them, in the order in which they are shown.</summary>
    private static ImmutableArray<Setting> OfHost =>
    [
        HostCheckInterval, HostUnknown, HostOsMin, HostOsMax, HostOs, HostPatchMaxAgeDays, HostPatches, HostDiskEncryption, HostFirewall, HostScreenLock, HostAntivirus, HostAntivirusMaxAgeDays, HostSecureBoot, HostNotAdmin,
        HostClientMinVersion, HostClient, HostMinFreeDiskGB, HostMinRamGB, HostResources, HostVirtualisation, HostScripts, HostScriptsAction,
    ];

    private static Choice<CheckAction> Action(string name, string help) => new(
        name, SettingScope.Container, CheckAction.Off, $"{help}: {Actions}", ("off", CheckAction.Off), ("warn", CheckAction.Warn), ("block", CheckAction.Block), ("lock", CheckAction.Lock));

    /// <summary>Only whether it can be one: the device verifies what it says, and who signed it.</summary>
    private static string? SignedFile(string untrusted)
    {
        try
        {
            using var json = JsonDocument.Parse(untrusted);
            return json.RootElement.ValueKind == JsonValueKind.Object && json.RootElement.TryGetProperty("signatures", out _) && json.RootElement.TryGetProperty("signed", out _) ? null : "it is no signed file";
        }
        catch (JsonException)
        {
            return "it is no signed file";
        }
    }

    [GeneratedRegex(@"\A[a-z0-9._-]{1,40} [0-9]{1,8}(\.[0-9]{1,8}){0,3}\z")]
    private static partial Regex OsPattern();
}
