using System.Text.Json.Serialization;
using Nacre.Policies;

namespace Nacre.Player.HostChecks;

/// <summary>What a host check found.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<HostCheckOutcome>))]
public enum HostCheckOutcome
{
    /// <summary>It is as it has to be.</summary>
    [JsonStringEnumMemberName("passed")]
    Passed,

    /// <summary>It is not.</summary>
    [JsonStringEnumMemberName("failed")]
    Failed,

    /// <summary>This computer does not say.</summary>
    [JsonStringEnumMemberName("unknown")]
    Unknown,
}

/// <summary>The result of one check.</summary>
/// <param name="Setting">The setting that asks for it; of the administrator's scripts with the script's name.</param>
/// <param name="Outcome">What was found.</param>
/// <param name="Detail">For a person: what is so.</param>
/// <param name="Fix">For a person: what to do about it; null where nothing is to be done.</param>
public sealed record HostCheckResult(string Setting, HostCheckOutcome Outcome, string Detail, string? Fix)
{
    /// <summary>What follows where it does not pass.</summary>
    [JsonConverter(typeof(JsonStringEnumConverter<CheckAction>))]
    public CheckAction Action { get; init; }

    /// <summary>Whether it counts as failed: an unknown one does where the policy says so.</summary>
    public bool Fails { get; init; }

    /// <summary>Facts that one of the administrator's scripts found, beside its message.</summary>
    public IReadOnlyDictionary<string, string> Facts { get; init; } = new Dictionary<string, string>();

    /// <summary>In one line, with what to do.</summary>
    public override string ToString() => $"{Setting}: {Detail}{(Fix is null || Outcome == HostCheckOutcome.Passed ? "" : $"; {Fix}")}";

    internal static HostCheckResult Passed(string setting, string detail) => new(setting, HostCheckOutcome.Passed, detail, null);

    internal static HostCheckResult Failed(string setting, string detail, string fix) => new(setting, HostCheckOutcome.Failed, detail, fix);

    internal static HostCheckResult Unknown(string setting, string detail, string? fix = null) => new(setting, HostCheckOutcome.Unknown, detail, fix);
}
