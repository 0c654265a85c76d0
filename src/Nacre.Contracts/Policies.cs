using System.Text.Json.Nodes;

namespace Nacre.Contracts;

/// <summary>What holds for a LivePC.</summary>
/// <param name="Version">16 hexadecimal digits: the same policy is the same version.</param>
/// <param name="Settings">Every setting.</param>
/// <param name="Problems">For a person: what of it does not come true, each <c>SETTING: why</c>.</param>
public sealed record EffectivePolicy(string Version, IReadOnlyList<EffectiveSetting> Settings, IReadOnlyList<string> Problems);

/// <summary>A setting's value.</summary>
/// <param name="Name">The setting.</param>
/// <param name="Value">Its value.</param>
/// <param name="DecidedBy">The level that decided it, or <c>factory</c>.</param>
public sealed record EffectiveSetting(string Name, JsonNode Value, string DecidedBy);

/// <summary>Which policy a device enforces.</summary>
/// <param name="Version">The policy's version.</param>
/// <param name="FromNextStart">Settings of it that take effect at the LivePC's next start; at most 100.</param>
/// <param name="Unenforceable">Settings of it that this device can't enforce, each <c>SETTING: why</c>; at most 100.</param>
/// <param name="HostChecks">What the checks of the device's computer found that the policy asks for; at most 100.</param>
/// <param name="AcceptedTerms">Which terms of use the user agreed to (<c>eula.text</c>): 16 hexadecimal digits; null: none.</param>
public sealed record AcknowledgePolicy(
    string Version, IReadOnlyList<string>? FromNextStart = null, IReadOnlyList<string>? Unenforceable = null, IReadOnlyList<StatedHostCheck>? HostChecks = null, string? AcceptedTerms = null);

/// <summary>What a check of a device's computer found, as the device says it: who controls the computer can make it say anything.</summary>
/// <param name="Check">The setting that asks for it; of a script of the administrator's with its name.</param>
/// <param name="Outcome"><c>passed</c>, <c>failed</c> or <c>unknown</c>.</param>
/// <param name="Detail">In words.</param>
public sealed record StatedHostCheck(string Check, string Outcome, string Detail);

/// <summary>Which policy a device said that it enforces.</summary>
/// <param name="Device">The device.</param>
/// <param name="DeviceName">Its name.</param>
/// <param name="User">Its user.</param>
/// <param name="LivePc">The LivePC.</param>
/// <param name="Version">The policy's version.</param>
/// <param name="IsCurrent">Whether that is what holds now.</param>
/// <param name="At">When it said so.</param>
/// <param name="FromNextStart">Settings that take effect at the LivePC's next start.</param>
/// <param name="Unenforceable">Settings that the device can't enforce, each <c>SETTING: why</c>.</param>
/// <param name="HostChecks">What the checks of its computer found.</param>
/// <param name="AcceptedTerms">Which terms of use the user agreed to; null: none.</param>
public sealed record EnforcedPolicy(
    string Device, string DeviceName, string User, string LivePc, string Version, bool IsCurrent, DateTimeOffset At, IReadOnlyList<string> FromNextStart, IReadOnlyList<string> Unenforceable,
    IReadOnlyList<StatedHostCheck> HostChecks, string? AcceptedTerms = null);

/// <summary>Creates a group of users.</summary>
/// <param name="Name">Unique name; see <see cref="Names"/>.</param>
public sealed record CreateGroup(string Name);

/// <summary>A group of users.</summary>
/// <param name="Name">Unique name.</param>
/// <param name="Users">Who is in it.</param>
public sealed record Group(string Name, IReadOnlyList<string> Users);

/// <summary>Orders the groups.</summary>
/// <param name="Groups">Every group once; of a user in several the later one's policy wins.</param>
public sealed record OrderGroups(IReadOnlyList<string> Groups);
