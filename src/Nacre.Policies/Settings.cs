using System.Collections.Immutable;
using System.Text.RegularExpressions;

namespace Nacre.Policies;

/// <summary>What a device does by itself with corporate layers that are on offer.</summary>
public enum UpdateMode
{
    /// <summary>Nothing: <c>nacre livepc update</c> takes them.</summary>
    Manual,

    /// <summary>It downloads them; <c>nacre livepc update</c> takes them.</summary>
    Download,

    /// <summary>It downloads them, and they start at the next start.</summary>
    NextStart,

    /// <summary>The same, and where that has not come some days later, it warns the user and starts again.</summary>
    Deadline,
}

/// <summary>What a download that nobody waits for does on a metered network.</summary>
public enum MeteredBehaviour
{
    /// <summary>It waits.</summary>
    Pause,

    /// <summary>It goes on.</summary>
    Go,
}

/// <summary>What is downloaded of a release before a guest reads it.</summary>
public enum Prefetch
{
    /// <summary>Nothing.</summary>
    Off,

    /// <summary>What a start reads.</summary>
    BootSet,

    /// <summary>All of it.</summary>
    Full,
}

/// <summary>Every setting that there is. One that is not built is not here: there is no switch that does nothing.</summary>
public static partial class Settings
{
    /// <summary>How many devices a user may have.</summary>
    public static Setting<int> MaxDevicesPerUser { get; } = new WholeNumber(
        "maxDevicesPerUser", SettingScope.Container, 3, 1, 100, "devices", "How many devices a user may have that are not revoked; a further one is refused when it enrols.") { IsAboutPerson = true };

    /// <summary>Minutes between two contacts.</summary>
    public static Setting<int> PolicyRefreshInterval { get; } = new WholeNumber(
        "policyRefreshInterval", SettingScope.Container, 60, 1, 1440, "minutes", "How often a LivePC that runs asks the server for its policy and for updates; nothing asks more often by itself.");

    /// <summary>Hours that a lease lasts.</summary>
    public static Setting<int> LeaseHours { get; } = new WholeNumber(
        "lease.hours", SettingScope.Container, 168, 1, 8760, "hours", "How long a LivePC can be used without contact to the server, counted from the last renewal of its lease, which is made anew once an eighth of that, or 12 hours, are over.");

    /// <summary>What a device does by itself with updates.</summary>
    public static Setting<UpdateMode> UpdateApply { get; } = new Choice<UpdateMode>(
        "update.apply", SettingScope.Container, UpdateMode.NextStart,
        "What a device does by itself with corporate layers on offer: nothing (manual), download them (download), and start them at the next start (next-start), which it brings about itself after update.deadlineDays (deadline).",
        ("manual", UpdateMode.Manual), ("download", UpdateMode.Download), ("next-start", UpdateMode.NextStart), ("deadline", UpdateMode.Deadline));

    /// <summary>With <see cref="UpdateMode.Deadline"/>: days that a downloaded update may wait.</summary>
    public static Setting<int> UpdateDeadlineDays { get; } = new WholeNumber(
        "update.deadlineDays", SettingScope.Container, 7, 0, 30, "days", "With update.apply deadline: how long a downloaded update waits for the next start, before the LivePC warns its user and starts again.");

    /// <summary>How often the user may put that off by a day.</summary>
    public static Setting<int> UpdatePostponeMax { get; } = new WholeNumber(
        "update.postponeMax", SettingScope.Container, 3, 0, 10, "times", "How often the user may put that off by a day (nacre livepc postpone).");

    /// <summary>When updates are downloaded.</summary>
    public static Setting<IReadOnlyList<string>> UpdateWindow { get; } = new Lines(
        "update.window", SettingScope.Container, 32, "a part of the week as 'mon-fri 18:00-06:00' or '22:00-05:00'",
        line => Policies.UpdateWindow.TryParse(line) is null ? $"'{Shorten(line)}' is none" : null, "When updates are downloaded by themselves, in the device's own time; none: at any time.");

    /// <summary>How fast a LivePC downloads at most.</summary>
    public static Setting<int> UpdateBandwidthKbps { get; } = new WholeNumber(
        "update.bandwidthKbps", SettingScope.Container, 0, 80, 16_000_000, "kbit/s", "How fast a LivePC downloads at most; what a guest waits for is counted and not slowed.", "no limit");

    /// <summary>Units that a healthy start has active.</summary>
    public static Setting<IReadOnlyList<string>> UpdateHealthUnits { get; } = new Lines(
        "update.healthUnits", SettingScope.Container, 64, "a systemd unit with its type, such as ssh.service", line => UnitPattern().IsMatch(line) ? null : $"'{Shorten(line)}' is none",
        "systemd units that are active in a healthy start. Corporate layers that do not reach one are set aside after update.tries starts, and those before them start.") { IsForNextStart = true };

    /// <summary>Minutes until a start must be healthy.</summary>
    public static Setting<int> UpdateHealthMinutes { get; } = new WholeNumber(
        "update.healthMinutes", SettingScope.Container, 15, 1, 240, "minutes", "How long a start may take until it is healthy.") { IsForNextStart = true };

    /// <summary>Unhealthy starts until updates are set aside.</summary>
    public static Setting<int> UpdateTries { get; } = new WholeNumber(
        "update.tries", SettingScope.Container, 2, 1, 5, "starts", "After how many starts that were not healthy new corporate layers are set aside, and those before them start.");

    /// <summary>What is downloaded before it is read.</summary>
    public static Setting<Prefetch> Prefetch { get; } = new Choice<Prefetch>(
        "prefetch", SettingScope.Container, Policies.Prefetch.Full,
        "What is downloaded of a release before a guest reads it: nothing (off), what a start reads as far as a boot pack says (boot-set), and after that all of it (full). Only with full it starts without a network.",
        ("off", Policies.Prefetch.Off), ("boot-set", Policies.Prefetch.BootSet), ("full", Policies.Prefetch.Full));

    /// <summary>Whether updates are downloaded over a metered network.</summary>
    public static Setting<MeteredBehaviour> MeteredBehaviour { get; } = new Choice<MeteredBehaviour>(
        "net.meteredBehaviour", SettingScope.Container, Policies.MeteredBehaviour.Pause, "What downloads of updates do on a network that is metered, as the host's NetworkManager says.",
        ("pause", Policies.MeteredBehaviour.Pause), ("go", Policies.MeteredBehaviour.Go));

    /// <summary>Whether updates are downloaded on the battery.</summary>
    public static Setting<bool> PrefetchOnBattery { get; } = new Switch(
        "prefetch.onBattery", SettingScope.Container, false, "Whether updates are downloaded while the computer runs on its battery.");

    /// <summary>Hours between two snapshots on schedule.</summary>
    public static Setting<int> SnapshotEveryHours { get; } = new WholeNumber(
        "snapshot.everyHours", SettingScope.Workspace, 4, 1, 8760, "hours", "How often a snapshot of the user's layers is taken while the LivePC runs.", "none on a schedule");

    /// <summary>How many snapshots are kept.</summary>
    public static Setting<int> SnapshotKeep { get; } = new WholeNumber(
        "snapshot.keep", SettingScope.Workspace, 30, 1, 1000, "snapshots", "How many snapshots are kept at most.");

    /// <summary>How long snapshots are kept.</summary>
    public static Setting<int> SnapshotKeepDays { get; } = new WholeNumber(
        "snapshot.keepDays", SettingScope.Workspace, 30, 1, 3650, "days", "How long a snapshot is kept at most.");

    /// <summary>How much of the host's processors a guest gets.</summary>
    public static Setting<int> VmCpu { get; } = new WholeNumber(
        "vm.autoFitCpu", SettingScope.Workspace, 100, 1, 100, "% of the host's processors", "How many processors a guest gets, at least one and at most 4.") { IsForNextStart = true };

    /// <summary>How much of the host's memory a guest gets.</summary>
    public static Setting<int> VmMemory { get; } = new WholeNumber(
        "vm.autoFitMemory", SettingScope.Workspace, 50, 5, 90, "% of the host's memory", "How much memory a guest gets, at least 1,024 and at most 4,096 MiB.") { IsForNextStart = true };

    /// <summary>All of them, in the order in which they are shown.</summary>
    public static ImmutableArray<Setting> All => InOrder.All;

    /// <summary>The setting of this name; null: there is none.</summary>
    public static Setting? Find(string untrustedName) => All.FirstOrDefault(setting => setting.Name == untrustedName);

    /// <summary>Apart, because the initialisers of a class in several files run in no certain order.</summary>
    private static class InOrder
    {
        public static ImmutableArray<Setting> All { get; } =
        [
            PasswordRequired, PasswordMinLength, PasswordClasses, PasswordHistory, PasswordMaxAgeDays, MaxAttempts, MaxAttemptsAction, LockIdleMinutes, LockOnHostLock, LockOnSleep, ReauthPeriodHours,
            MaxDevicesPerUser, PolicyRefreshInterval, LeaseHours, UpdateApply, UpdateDeadlineDays, UpdatePostponeMax, UpdateWindow, UpdateBandwidthKbps, UpdateHealthUnits, UpdateHealthMinutes, UpdateTries, .. OfUpdates, Prefetch, MeteredBehaviour,
            PrefetchOnBattery, .. OfLayers, SnapshotEveryHours, SnapshotKeep, SnapshotKeepDays, SnapshotWarnIfNoneDays, VmCpu, VmMemory, Telemetry, LogsEventLevel, LogsAdminReasonRequired,
            EnrolmentApproval, EnrolmentBySelf,
            .. OfHost,
            .. OfDevices,
            .. LeaseSettings,
            .. OfMessages,
        ];
    }

    /// <summary>What is said of a name that no setting has, with the one that was probably meant.</summary>
    public static string Unknown(string untrustedName)
    {
        var near = All.Select(setting => (setting.Name, Distance: Distance(setting.Name.ToLowerInvariant(), Shorten(untrustedName).ToLowerInvariant()))).MinBy(one => one.Distance);
        return $"there is no setting '{Shorten(untrustedName)}'{(near.Distance <= Math.Max(2, near.Name.Length / 3) ? $" (is '{near.Name}' meant?)" : "")}";
    }

    internal static string Shorten(string untrusted) => string.Concat((untrusted.Length <= 60 ? untrusted : untrusted[..60] + "…").Select(character => char.IsControl(character) ? '?' : character));

    /// <summary>Levenshtein's distance.</summary>
    private static int Distance(string one, string other)
    {
        var row = Enumerable.Range(0, other.Length + 1).ToArray();
        for (var i = 1; i <= one.Length; i++)
        {
            var diagonal = row[0];
            row[0] = i;
            for (var j = 1; j <= other.Length; j++)
            {
                (diagonal, row[j]) = (row[j], Math.Min(Math.Min(row[j], row[j - 1]) + 1, diagonal + (one[i - 1] == other[j - 1] ? 0 : 1)));
            }
        }

        return row[^1];
    }

    [GeneratedRegex(@"\A[A-Za-z0-9_][A-Za-z0-9_.@:\\-]{0,200}\.(service|socket|target|timer|mount|path|device|swap|scope|slice|automount)\z")]
    private static partial Regex UnitPattern();
}
