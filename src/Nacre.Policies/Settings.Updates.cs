using System.Globalization;
using System.Text.RegularExpressions;

namespace Nacre.Policies;

/// <content>Which releases a device follows.</content>
public static partial class Settings
{
    /// <summary>The channel that a LivePC follows on a device, or the release that it is held at; empty: its own.</summary>
    public static Setting<string> UpdateChannel { get; } = new Phrase(
        "update.channel", SettingScope.Container, 63, "the name of a channel, or a release as 'release 7'", text => ChannelPattern().IsMatch(text) ? null : $"'{Shorten(text)}' is neither",
        "The channel that a LivePC and its application layers follow on a device, in the place of their own; one whose image has no such channel follows its own, and the device says so. 'release 7' holds the LivePC's image at that release (its layers follow their own channels); where there is none of that number, or it is not approved, the device gets no lease.");

    private static IEnumerable<Setting> OfUpdates => [UpdateChannel];

    /// <summary>The release at which a value of <see cref="UpdateChannel"/> holds an image; null: it names a channel, or nothing.</summary>
    public static int? TryReadRelease(string untrusted) => ChannelPattern().Match(untrusted).Groups["release"] is { Success: true } release ? int.Parse(release.ValueSpan, CultureInfo.InvariantCulture) : null;

    [GeneratedRegex(@"\A([a-z][a-z0-9-]{0,62}|release (?<release>[1-9][0-9]{0,8}))\z")]
    private static partial Regex ChannelPattern();
}
