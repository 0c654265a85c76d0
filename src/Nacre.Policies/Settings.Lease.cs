using System.Globalization;
using System.Text.RegularExpressions;

namespace Nacre.Policies;

/// <summary>When a LivePC itself ends for a user.</summary>
public enum ExpirationMode
{
    /// <summary>Never.</summary>
    Never,

    /// <summary>After a day.</summary>
    Date,

    /// <summary>Some days after its user's first lease.</summary>
    DaysAfterFirstUse,
}

/// <summary>What a device does with a LivePC that has ended.</summary>
public enum ExpirationAction
{
    /// <summary>It does not open it.</summary>
    Lock,

    /// <summary>It destroys its keys.</summary>
    Delete,
}

/// <summary>What becomes of a guest that runs when its LivePC ends.</summary>
public enum RunningSession
{
    /// <summary>It runs until its user ends it.</summary>
    Finish,

    /// <summary>It is shut down after a warning.</summary>
    Stop,
}

/// <summary>What a device does when its clock was set back.</summary>
public enum ClockTamperAction
{
    /// <summary>Nothing but say it.</summary>
    Ignore,

    /// <summary>It opens nothing without the server.</summary>
    Lock,
}

/// <summary>What a kill destroys.</summary>
public enum KillErasure
{
    /// <summary>Keys.</summary>
    Keys,

    /// <summary>Keys, and then files.</summary>
    KeysAndFiles,
}

/// <summary>Which files go with a kill.</summary>
public enum KillScope
{
    /// <summary>Cached releases too.</summary>
    All,

    /// <summary>What the user made.</summary>
    WorkData,
}

/// <summary>When a second administrator has to approve a kill.</summary>
public enum SecondAdministrator
{
    /// <summary>Never.</summary>
    Never,

    /// <summary>Each time.</summary>
    Always,

    /// <summary>Above a number of devices.</summary>
    Above,
}

/// <content>How long a LivePC may be used, without the server too, and how permission is taken away.</content>
public static partial class Settings
{
    /// <summary>When a LivePC itself ends.</summary>
    public static Setting<ExpirationMode> ExpirationMode { get; } = new Choice<ExpirationMode>(
        "expiration.mode", SettingScope.Container, Policies.ExpirationMode.Never, "When a LivePC itself ends for its user, whatever its lease: never, after expiration.date (date), or expiration.days after that user's first lease of it (days-after-first-use). The server decides it.",
        ("never", Policies.ExpirationMode.Never), ("date", Policies.ExpirationMode.Date), ("days-after-first-use", Policies.ExpirationMode.DaysAfterFirstUse));

    /// <summary>The days between which it may be used.</summary>
    public static Setting<IReadOnlyList<string>> ExpirationDate { get; } = new Lines(
        "expiration.date", SettingScope.Container, 2, "a day (UTC) such as 2027-06-30", line => TryReadDay(line) is null ? $"'{Shorten(line)}' is none" : null,
        "With expiration.mode date: the last day, or the first and the last day, on which the LivePC may be used; none: it does not end.");

    /// <summary>Days after the first use.</summary>
    public static Setting<int> ExpirationDays { get; } = new WholeNumber(
        "expiration.days", SettingScope.Container, 90, 1, 3650, "days", "With expiration.mode days-after-first-use: how long the LivePC may be used.");

    /// <summary>Days before the end on which the user is warned.</summary>
    public static Setting<int> ExpirationWarnDays { get; } = new WholeNumber(
        "expiration.warnDays", SettingScope.Container, 14, 0, 60, "days", "From how many days before the end of the LivePC its status and each start say so.");

    /// <summary>What a device does with a LivePC that has ended.</summary>
    public static Setting<ExpirationAction> ExpirationAction { get; } = new Choice<ExpirationAction>(
        "expiration.action", SettingScope.Container, Policies.ExpirationAction.Lock, "What a device does with a LivePC that has ended: it does not start it (lock), or it destroys its keys too (delete).",
        ("lock", Policies.ExpirationAction.Lock), ("delete", Policies.ExpirationAction.Delete));

    /// <summary>What becomes of a guest that runs at the end.</summary>
    public static Setting<RunningSession> ExpirationRunningSession { get; } = new Choice<RunningSession>(
        "expiration.runningSession", SettingScope.Container, RunningSession.Stop, "What becomes of a guest that runs when its LivePC ends: it runs until its user ends it (finish), or it is shut down after a warning (stop).",
        ("finish", RunningSession.Finish), ("stop", RunningSession.Stop));

    /// <summary>Whether a LivePC starts without the server.</summary>
    public static Setting<bool> OfflineAllow { get; } = new Switch(
        "offline.allow", SettingScope.Container, true, "Whether a LivePC starts, and runs on, without contact to the server. If not, its lease lasts two refresh intervals, and is never used from the disk.");

    /// <summary>How long before the end of a lease the user is warned.</summary>
    public static Setting<IReadOnlyList<string>> LeaseWarnAt { get; } = new Lines(
        "lease.warnAt", SettingScope.Container, 16, "a time such as 72h or 15m", line => ReadSpan(line) is null ? $"'{Shorten(line)}' is none" : null,
        "How long before the end of a lease that could not be renewed its user is warned: in the status, at the start, and in the guest.", factory: ["72h", "24h", "1h", "15m", "5m"]);

    /// <summary>Days after a lease's end until its keys are destroyed.</summary>
    public static Setting<int> LeaseDeleteAfterDays { get; } = new WholeNumber(
        "lease.deleteAfterDays", SettingScope.Container, 90, 1, 365, "days", "How many days after the end of its lease a device destroys the keys of a LivePC by itself.", "never");

    /// <summary>Hours of an offline extension.</summary>
    public static Setting<int> LeaseOfflineExtensionHours { get; } = new WholeNumber(
        "lease.offlineExtensionHours", SettingScope.Container, 72, 1, 720, "hours", "How long a code that the help desk reads out ('nacre lease extend') may put off the end of a lease.", "no codes");

    /// <summary>What a device does when its clock was set back.</summary>
    public static Setting<ClockTamperAction> ClockTamperAction { get; } = new Choice<ClockTamperAction>(
        "clock.tamperAction", SettingScope.Container, Policies.ClockTamperAction.Lock, "What a device does where its clock shows a time before one that it knows has passed: it only says so (ignore), or it opens the LivePC only with the server, which proves the time (lock).",
        ("ignore", Policies.ClockTamperAction.Ignore), ("lock", Policies.ClockTamperAction.Lock));

    /// <summary>What a kill destroys.</summary>
    public static Setting<KillErasure> KillMode { get; } = new Choice<KillErasure>(
        "kill.mode", SettingScope.Container, KillErasure.KeysAndFiles, "What a kill destroys: all keys, so that what is left is noise (crypto-erase), or the keys and then the files (both).",
        ("crypto-erase", KillErasure.Keys), ("both", KillErasure.KeysAndFiles));

    /// <summary>When a second administrator has to approve a kill.</summary>
    public static Setting<SecondAdministrator> KillRequireTwoAdmins { get; } = new Choice<SecondAdministrator>(
        "kill.requireTwoAdmins", SettingScope.Container, SecondAdministrator.Above, "Whether a second administrator has to approve a kill before a device hears of it: never, always, or where one administrator kills more than kill.twoAdminsAbove devices in 24 hours (above).",
        ("never", SecondAdministrator.Never), ("always", SecondAdministrator.Always), ("above", SecondAdministrator.Above));

    /// <summary>Devices that one administrator may kill in a day.</summary>
    public static Setting<int> KillTwoAdminsAbove { get; } = new WholeNumber(
        "kill.twoAdminsAbove", SettingScope.Container, 10, 1, 100_000, "devices", "With kill.requireTwoAdmins above: how many devices one administrator may order killed in 24 hours without a second one.");

    /// <summary>Whether a revoked device can be killed.</summary>
    public static Setting<bool> KillQueueWhenLocked { get; } = new Switch(
        "kill.queueWhenLocked", SettingScope.Container, true, "Whether a kill is queued for a device that is revoked already; otherwise it is refused until the permission is given back.");

    /// <summary>How long the user may save after a revoke.</summary>
    public static Setting<int> RevokeGraceMinutes { get; } = new WholeNumber(
        "revoke.graceMinutes", SettingScope.Container, 0, 0, 60, "minutes", "How long a guest that runs goes on after a revoke, so that its user, who is warned, can save.");

    /// <summary>Which files go with a kill.</summary>
    public static Setting<KillScope> WipeScope { get; } = new Choice<KillScope>(
        "wipe.scope", SettingScope.Container, KillScope.All, "With kill.mode both: whether cached releases that no other LivePC of the device uses go too (all), or only the LivePC's own folder (work-data). Never anything outside the player's folders.",
        ("all", KillScope.All), ("work-data", KillScope.WorkData));

    private static IEnumerable<Setting> LeaseSettings =>
    [
        ExpirationMode, ExpirationDate, ExpirationDays, ExpirationWarnDays, ExpirationAction, ExpirationRunningSession, OfflineAllow, LeaseWarnAt, LeaseDeleteAfterDays, LeaseOfflineExtensionHours,
        ClockTamperAction, KillMode, KillRequireTwoAdmins, KillTwoAdminsAbove, KillQueueWhenLocked, RevokeGraceMinutes, WipeScope,
    ];

    /// <summary>The time that a line of <see cref="LeaseWarnAt"/> says; null: none.</summary>
    public static TimeSpan? ReadSpan(string untrusted) => SpanPattern().Match(untrusted) is { Success: true } match && int.Parse(match.Groups[1].ValueSpan, CultureInfo.InvariantCulture) is > 0 and var number
        ? match.Groups[2].ValueSpan is "h" ? TimeSpan.FromHours(number) : TimeSpan.FromMinutes(number)
        : null;

    /// <summary>The day that a line of <see cref="ExpirationDate"/> says; null: none.</summary>
    public static DateOnly? TryReadDay(string untrusted) => DateOnly.TryParseExact(untrusted, "yyyy-MM-dd", CultureInfo.InvariantCulture, DateTimeStyles.None, out var day) && day.Year < 9999 ? day : null;

    [GeneratedRegex(@"\A([0-9]{1,4})(h|m)\z")]
    private static partial Regex SpanPattern();
}
