using System.Globalization;
using System.Text.RegularExpressions;

namespace Nacre.Policies;

/// <content>Which releases a device follows, keeps and goes back to.</content>
public static partial class Settings
{
    /// <summary>The channel that a LivePC follows on a device, or the release that it is held at; empty: its own.</summary>
    public static Setting<string> UpdateChannel { get; } = new Phrase(
        "update.channel", SettingScope.Container, 63, "the name of a channel, or a release as 'release 7'", text => ChannelPattern().IsMatch(text) ? null : $"'{Shorten(text)}' is neither",
        "The channel that a LivePC and its application layers follow on a device, in the place of their own; one whose image has no such channel follows its own, and the device says so. 'release 7' holds the LivePC's image at that release (its layers follow their own channels); where there is none of that number, or it is not approved, the device gets no lease.");

    /// <summary>How many releases of a layer a device keeps.</summary>
    public static Setting<int> UpdateKeepVersions { get; } = new WholeNumber(
        "update.keepVersions", SettingScope.Container, 2, 1, 5, "releases",
        "How many releases of the system, and of each application layer, a device keeps: the one that runs, the one before, and so on. What is on offer, and what starts next, stays beyond that.");

    /// <summary>Whether the user may go back to earlier corporate layers.</summary>
    public static Setting<bool> UpdateUserRollback { get; } = new Switch(
        "update.userRollback", SettingScope.Container, true,
        "Whether the user may go back by hand to the corporate layers from before the last update (nacre livepc rollback), as far as update.keepVersions keeps them and the server lets them start.");

    private static IEnumerable<Setting> OfUpdates => [UpdateChannel, UpdateKeepVersions, UpdateUserRollback];

    /// <summary>The release at which a value of <see cref="UpdateChannel"/> holds an image; null: it names a channel, or nothing.</summary>
    public static int? TryReadRelease(string untrusted) => ChannelPattern().Match(untrusted).Groups["release"] is { Success: true } release ? int.Parse(release.ValueSpan, CultureInfo.InvariantCulture) : null;

    [GeneratedRegex(@"\A([a-z][a-z0-9-]{0,62}|release (?<release>[1-9][0-9]{0,8}))\z")]
    private static partial Regex ChannelPattern();
}
