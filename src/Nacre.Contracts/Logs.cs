using System.Globalization;
using System.Text.RegularExpressions;
using Nacre.Policies;

namespace Nacre.Contracts;

/// <summary>An event in the log of a LivePC, which its player keeps on the device.</summary>
/// <param name="Time">When, by the device's clock.</param>
/// <param name="LivePc">The LivePC.</param>
/// <param name="Level">How much it matters.</param>
/// <param name="Event">What it is, such as <c>lease.renewed</c>: at most 40 lower-case letters, digits, hyphens and points.</param>
/// <param name="Text">For people: one line, printable.</param>
public sealed partial record LogLine(DateTimeOffset Time, string LivePc, EventLevel Level, string Event, string Text)
{
    /// <summary>The most characters of a text.</summary>
    public const int LongestText = 1000;

    /// <summary>Makes one of what anybody said: the first line of it, without what could move a terminal's cursor or colour, or turn its writing around.</summary>
    public static LogLine Of(DateTimeOffset time, string livePc, EventLevel level, string name, string untrustedText)
    {
        ArgumentNullException.ThrowIfNull(untrustedText);
        var text = string.Concat(untrustedText.Split('\n', 2)[0].Where(IsPlain).Take(LongestText)).Trim();
        return new LogLine(time, livePc, level, name, text.Length == 0 ? "-" : text);
    }

    /// <summary>Whether somebody else's is one.</summary>
    public static bool IsValid(LogLine? untrusted) => untrusted is { Text: { Length: > 0 and <= LongestText } text } && text.All(IsPlain) && Names.IsValid(untrusted.LivePc)
        && Enum.IsDefined(untrusted.Level) && untrusted.Level != EventLevel.None && EventPattern().IsMatch(untrusted.Event ?? "");

    private static bool IsPlain(char character) => !char.IsControl(character) && !char.IsSurrogate(character) && character != '\ufffd'
        && char.GetUnicodeCategory(character) is not (UnicodeCategory.Format or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator);

    [GeneratedRegex(@"\A[a-z][a-z0-9.-]{0,39}\z")]
    private static partial Regex EventPattern();
}

/// <summary>Asks for the log of a device.</summary>
/// <param name="LivePc">The LivePC; null: all of the device's.</param>
/// <param name="Reason">Why, which the user and the audit log are told; null where the policy does not want one.</param>
public sealed record OrderLog(string? LivePc = null, string? Reason = null)
{
    /// <summary>The longest <see cref="Reason"/>.</summary>
    public const int LongestReason = 200;
}

/// <summary>A device's log, as it was asked for.</summary>
/// <param name="Lines">The oldest first, of <see cref="LongestLines"/> at most.</param>
public sealed record SendLog(IReadOnlyList<LogLine> Lines)
{
    /// <summary>Bytes of the lines, each as JSON with a line break. Older ones stay on the device.</summary>
    public const int LongestLines = 512 * 1024;

    /// <summary>Bytes of the whole request.</summary>
    public const int LongestBody = LongestLines + 1024;
}

/// <summary>A log that a device sent.</summary>
/// <param name="Order">The order that asked for it.</param>
/// <param name="Device">The device.</param>
/// <param name="ReceivedAt">When the server got it.</param>
/// <param name="Lines">What the device said: who controls the computer can make it say anything.</param>
public sealed record DeviceLog(string Order, string Device, DateTimeOffset ReceivedAt, IReadOnlyList<LogLine> Lines);
