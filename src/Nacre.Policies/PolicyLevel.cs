using System.Text.RegularExpressions;

namespace Nacre.Policies;

/// <summary>Who decides. The later ones win.</summary>
public enum PolicyLevelKind
{
    /// <summary>Everybody.</summary>
    Organisation,

    /// <summary>The users of a group.</summary>
    Group,

    /// <summary>A LivePC.</summary>
    LivePc,

    /// <summary>A device.</summary>
    Device,
}

/// <summary>One level of the policy, written <c>organisation</c>, <c>group:NAME</c>, <c>livepc:NAME</c> or <c>device:ID</c>.</summary>
/// <param name="Kind">Which kind.</param>
/// <param name="Subject">Whose it is; empty for the organisation.</param>
public sealed partial record PolicyLevel(PolicyLevelKind Kind, string Subject)
{
    /// <summary>The organisation's.</summary>
    public static PolicyLevel Organisation { get; } = new(PolicyLevelKind.Organisation, "");

    /// <summary>Reads one; null where the text is none.</summary>
    public static PolicyLevel? TryParse(string? untrusted) => untrusted is null || Pattern().Match(untrusted) is not { Success: true } match ? null
        : match.Groups["kind"].Value switch
        {
            "group" => new PolicyLevel(PolicyLevelKind.Group, match.Groups["subject"].Value),
            "livepc" => new PolicyLevel(PolicyLevelKind.LivePc, match.Groups["subject"].Value),
            "device" => new PolicyLevel(PolicyLevelKind.Device, match.Groups["subject"].Value),
            _ => Organisation,
        };

    /// <summary>What is wrong with a document at this level: settings that it can't decide.</summary>
    public IReadOnlyList<string> Problems(PolicyDocument document)
    {
        ArgumentNullException.ThrowIfNull(document);
        return Kind is PolicyLevelKind.Organisation or PolicyLevelKind.Group
            ? []
            : [.. document.Settings.Where(setting => setting.IsAboutPerson).Select(setting => $"'{setting.Name}' is about a person: the organisation or a group decides it")];
    }

    /// <inheritdoc/>
    public override string ToString() => Kind == PolicyLevelKind.Organisation ? "organisation" : $"{Kind.ToString().ToLowerInvariant()}:{Subject}";

    [GeneratedRegex(@"\A(organisation|(?<kind>group|livepc|device):(?<subject>[A-Za-z0-9_-]{1,63}))\z")]
    private static partial Regex Pattern();
}
