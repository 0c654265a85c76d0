using System.Globalization;
using System.Text.RegularExpressions;

namespace Nacre.Policies;

/// <summary>A part of the week, in the device's own time: <c>[DAY[-DAY]] HH:MM-HH:MM</c>, such as <c>mon-fri 18:00-06:00</c>. One that goes past midnight belongs to the day on which it begins.</summary>
public sealed partial record UpdateWindow
{
    private static readonly string[] Days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

    private readonly string text;
    private readonly bool[] days = new bool[7];
    private readonly TimeSpan from;
    private readonly TimeSpan to;

    private UpdateWindow(string text, Match match)
    {
        this.text = text;
        var first = Day(match.Groups["first"]) ?? 0;
        var last = match.Groups["first"].Success ? Day(match.Groups["last"]) ?? first : 6;
        for (var day = first; ; day = (day + 1) % 7)
        {
            days[day] = true;
            if (day == last)
            {
                break;
            }
        }

        (from, to) = (Time(match, "from"), Time(match, "to"));
    }

    /// <summary>Reads a window.</summary>
    /// <returns>Null where the text is none.</returns>
    public static UpdateWindow? TryParse(string? untrusted) => untrusted is { Length: <= 40 } && Pattern().Match(untrusted) is { Success: true } match ? new UpdateWindow(untrusted, match) : null;

    /// <summary>Whether a time of the device's is inside. The minute that a window ends with is not.</summary>
    public bool Contains(DateTimeOffset local)
    {
        var (day, time) = ((int)local.DayOfWeek, local.TimeOfDay);
        return from < to
            ? days[day] && time >= from && time < to
            : (days[day] && time >= from) || (days[(day + 6) % 7] && time < to);
    }

    /// <inheritdoc/>
    public override string ToString() => text;

    private static int? Day(Group group) => group.Success ? Array.IndexOf(Days, group.Value) : null;

    private static TimeSpan Time(Match match, string name) =>
        new(int.Parse(match.Groups[name + "h"].ValueSpan, CultureInfo.InvariantCulture), int.Parse(match.Groups[name + "m"].ValueSpan, CultureInfo.InvariantCulture), 0);

    [GeneratedRegex(@"\A((?<first>sun|mon|tue|wed|thu|fri|sat)(-(?<last>sun|mon|tue|wed|thu|fri|sat))? )?(?<fromh>[01]\d|2[0-3]):(?<fromm>[0-5]\d)-(?<toh>[01]\d|2[0-3]):(?<tom>[0-5]\d)\z", RegexOptions.CultureInvariant)]
    private static partial Regex Pattern();
}
