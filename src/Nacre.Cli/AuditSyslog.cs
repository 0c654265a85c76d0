using System.Globalization;
using System.Text;
using Nacre.Contracts;

namespace Nacre.Cli;

/// <summary>Lines of the audit log for a log server, as RFC 5424 says. Whatever a field holds, a line of the audit log is one line.</summary>
internal static class AuditSyslog
{
    /// <summary>The number that RFC 5612 sets aside for documentation: Nacre has none of its own.</summary>
    private const string Data = "nacre@32473";

    /// <summary>Facility 13, "log audit".</summary>
    private const int Facility = 13;

    /// <summary>A line without its end.</summary>
    /// <param name="entry">What to write.</param>
    /// <param name="host">The server's name.</param>
    public static string Format(AuditEntry entry, string host)
    {
        var severity = entry.Result switch { AuditResult.Failed => 3, AuditResult.Refused => 4, _ => 6 };
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"<{(Facility * 8) + severity}>1 {entry.At.UtcDateTime:yyyy-MM-dd'T'HH:mm:ss.fff'Z'} {Word(host, 255)} nacre - {Word(entry.Action, 32)} [{Data}");
        text.Append(CultureInfo.InvariantCulture, $" format=\"{entry.Format}\" sequence=\"{entry.Sequence}\"");
        foreach (var (name, value) in new[]
        {
            ("actor", entry.Actor), ("source", entry.Source), ("action", entry.Action), ("subject", entry.Subject), ("result", Result(entry)), ("detail", entry.Detail), ("hash", entry.Hash),
        })
        {
            if (value is not null)
            {
                text.Append(CultureInfo.InvariantCulture, $" {name}=\"{Value(value)}\"");
            }
        }

        // The mark says that UTF-8 follows.
        return text.Append(CultureInfo.InvariantCulture, $"] \uFEFF{Plain($"{entry.Actor} {entry.Action} {entry.Subject}: {Result(entry) ?? "done"}")}").ToString();
    }

    /// <summary>In the words of JSON.</summary>
    public static string? Result(AuditEntry entry) => entry.Result?.ToString().ToLowerInvariant();

    /// <summary>Visible ASCII without spaces; "-" where nothing is left.</summary>
    private static string Word(string untrusted, int longest)
    {
        var word = string.Concat(untrusted.Where(character => character is > ' ' and < '\x7f').Take(longest));
        return word.Length == 0 ? "-" : word;
    }

    private static string Value(string untrusted) =>
        Plain(untrusted).Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal).Replace("]", "\\]", StringComparison.Ordinal);

    /// <summary>Whatever ends a line, or that a terminal obeys, is shown as <c>\u000a</c>.</summary>
    private static string Plain(string untrusted) => string.Concat(untrusted.EnumerateRunes().Select(rune =>
        Rune.IsControl(rune) || Rune.GetUnicodeCategory(rune) is UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator ? $"\\u{rune.Value:x4}" : rune.ToString()));
}
