using System.Text.Json.Serialization;

namespace Nacre.Policies;

/// <summary>What a device tells the server beyond what it needs to.</summary>
public enum TelemetryLevel
{
    /// <summary>Nothing.</summary>
    Off,

    /// <summary>How releases and the device's computer do.</summary>
    Health,

    /// <summary>What of the user's own stands in a release's way, too.</summary>
    Usage,
}

/// <summary>How much an event matters; as a setting, the least that is written down.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<EventLevel>))]
public enum EventLevel
{
    /// <summary>No event has it: nothing is written down.</summary>
    [JsonStringEnumMemberName("none")]
    None,

    /// <summary>Something did not work, and nobody puts it right by itself.</summary>
    [JsonStringEnumMemberName("error")]
    Error,

    /// <summary>Something did not work now, or somebody should know of it.</summary>
    [JsonStringEnumMemberName("warning")]
    Warning,

    /// <summary>What happens in the course of things.</summary>
    [JsonStringEnumMemberName("information")]
    Information,

    /// <summary>Each step.</summary>
    [JsonStringEnumMemberName("debug")]
    Debug,
}

/// <content>What devices tell and write down.</content>
public static partial class Settings
{
    /// <summary>What a device tells the server beyond what it needs to.</summary>
    public static Setting<TelemetryLevel> Telemetry { get; } = new Choice<TelemetryLevel>(
        "telemetry.level", SettingScope.Container, TelemetryLevel.Health,
        "What a device tells the server beyond what it needs to (docs/operations.md has the table): nothing (off); why starts were not healthy, what the checks of its computer found, and which chunks a first start read, for boot packs (health); which of the user's own packages a release can't carry, too (usage).",
        ("off", TelemetryLevel.Off), ("health", TelemetryLevel.Health), ("usage", TelemetryLevel.Usage));

    /// <summary>The least that a LivePC's log has.</summary>
    public static Setting<EventLevel> LogsEventLevel { get; } = new Choice<EventLevel>(
        "logs.eventLevel", SettingScope.Container, EventLevel.Warning,
        "Which events the log of a LivePC on its device has (nacre livepc log): none, or those of this level and of the ones before it. That an administrator asked for the log is in it whatever this says.",
        ("none", EventLevel.None), ("error", EventLevel.Error), ("warning", EventLevel.Warning), ("information", EventLevel.Information), ("debug", EventLevel.Debug));

    /// <summary>Whether who asks for a log says why.</summary>
    public static Setting<bool> LogsAdminReasonRequired { get; } = new Switch(
        "logs.adminReasonRequired", SettingScope.Container, true, "Whether who asks for a device's log (nacre device logs) has to say why. Its user and the audit log are told who asked, and the reason.");
}
