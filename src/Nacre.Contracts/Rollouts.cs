using System.Text.Json.Serialization;

namespace Nacre.Contracts;

/// <summary>Where a roll-out is.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<RolloutState>))]
public enum RolloutState
{
    /// <summary>The devices of its share get the release.</summary>
    [JsonStringEnumMemberName("running")]
    Running,

    /// <summary>The administrator halted it: who started the release keeps it, nobody else gets it.</summary>
    [JsonStringEnumMemberName("paused")]
    Paused,

    /// <summary>Too many starts failed: halted as if paused, until the administrator resumes or withdraws it.</summary>
    [JsonStringEnumMemberName("stopped")]
    Stopped,
}

/// <summary>Begins a roll-out: a channel's devices get a release in growing shares, and the channel moves at its end.</summary>
/// <param name="Version">The release.</param>
/// <param name="Steps">The shares in percent, 1 to 100, growing, at most 20; 100 is added where it is not last. Null: 5, 25, 100.</param>
/// <param name="StepHours">Hours after which the next step begins by itself, at most 8760; 0: the administrator says when.</param>
/// <param name="StopAtPercent">The share of failed starts, in percent of the devices that tried, from which the roll-out stops, 1 to 100.</param>
/// <param name="StopAfter">So many devices must have failed before that share counts, 1 to 100000.</param>
public sealed record StartRollout(int Version, IReadOnlyList<int>? Steps = null, int StepHours = 0, int StopAtPercent = 10, int StopAfter = 1);

/// <summary>A roll-out that is under way.</summary>
/// <param name="Image">The golden image.</param>
/// <param name="Channel">The channel.</param>
/// <param name="From">The release that the channel points at: who has no share goes on with it.</param>
/// <param name="Version">The release that is rolled out.</param>
/// <param name="State">Where it is.</param>
/// <param name="Steps">The shares in percent.</param>
/// <param name="Step">The step that it is at, from 0 on.</param>
/// <param name="StepSince">When that began, or was resumed.</param>
/// <param name="StepHours">Hours to the next step; 0: the administrator says when.</param>
/// <param name="StopAtPercent">The share of failed starts that stops it.</param>
/// <param name="StopAfter">The fewest failed devices that stop it.</param>
/// <param name="Healthy">Devices on which the release reached a healthy start.</param>
/// <param name="Failed">Devices on which it did not.</param>
/// <param name="IsOver">Whether the channel has moved.</param>
public sealed record Rollout(
    string Image, string Channel, int From, int Version, RolloutState State, IReadOnlyList<int> Steps, int Step, DateTimeOffset StepSince, int StepHours, int StopAtPercent, int StopAfter,
    int Healthy, int Failed, bool IsOver = false);

/// <summary>What an administrator does to a roll-out.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<RolloutAction>))]
public enum RolloutAction
{
    /// <summary>Halts it.</summary>
    [JsonStringEnumMemberName("pause")]
    Pause,

    /// <summary>Goes on, whatever halted it; what failed before counts no more.</summary>
    [JsonStringEnumMemberName("resume")]
    Resume,

    /// <summary>Begins the next step; after the last one, the channel moves and the roll-out is over.</summary>
    [JsonStringEnumMemberName("advance")]
    Advance,

    /// <summary>Ends it: the channel stays, and who has the release goes back at the next start online.</summary>
    [JsonStringEnumMemberName("withdraw")]
    Withdraw,
}

/// <summary>Does something to a roll-out.</summary>
/// <param name="Action">What.</param>
public sealed record ChangeRollout(RolloutAction Action);

/// <summary>How a release did on a device, as the device says.</summary>
/// <param name="Device">The device.</param>
/// <param name="LivePc">The LivePC.</param>
/// <param name="Release">The release, of a system or an application layer.</param>
/// <param name="HealthyAt">When the server heard of its newest healthy start; null: never.</param>
/// <param name="FailedAt">When the server heard last that it did not reach one; null: never.</param>
public sealed record DeviceStart(string Device, string LivePc, ReleaseName Release, DateTimeOffset? HealthyAt, DateTimeOffset? FailedAt);
