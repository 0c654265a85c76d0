using System.Security.Cryptography;
using System.Text;

namespace Nacre.Policies;

/// <content>What the user is told, and agrees to.</content>
public static partial class Settings
{
    /// <summary>Whom the user asks.</summary>
    public static Setting<string> SupportContact { get; } = new Phrase(
        "supportContact", SettingScope.Container, 200, "whom to ask, as 'IT, room 12, +41 44 123 45 67'", JudgeLine, "Whom the user asks: it is shown with the LivePC's status, and wherever it does not start.");

    /// <summary>What a start says.</summary>
    public static Setting<string> MessagesStart { get; } = new Phrase(
        "messages.start", SettingScope.Container, 400, "a line of text", JudgeLine, "What each start of a LivePC tells who started it.");

    /// <summary>What is said where a LivePC does not start.</summary>
    public static Setting<string> MessagesRefused { get; } = new Phrase(
        "messages.refused", SettingScope.Container, 400, "a line of text", JudgeLine, "What the user is told, after the reason, where a LivePC does not start because the company does not let it.");

    /// <summary>What the user agrees to.</summary>
    public static Setting<string> EulaText { get; } = new Phrase(
        "eula.text", SettingScope.Container, 20_000, "a text", JudgeText,
        "The terms of use that the user of a LivePC agrees to before it starts ('nacre livepc terms'), once for each text: when it changes, again. The server is told which text was accepted.") { IsForNextStart = true };

    /// <summary>After how many days without a snapshot the user and the administrator are warned.</summary>
    public static Setting<int> SnapshotWarnIfNoneDays { get; } = new WholeNumber(
        "snapshot.warnIfNoneDays", SettingScope.Workspace, 7, 1, 60, "days", "From how many days on after the last snapshot the status of a LivePC that runs says so, to its user and to the administrator.", "never");

    /// <summary>Which text it is that was accepted: the first 16 hexadecimal digits of its SHA-256; empty: there is none to accept.</summary>
    public static string VersionOf(string terms) => terms.Length == 0 ? "" : Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(terms)).AsSpan(0, 8));

    private static string? JudgeLine(string untrusted) => untrusted.Any(char.IsControl) ? "it has a control character" : null;

    private static string? JudgeText(string untrusted) => untrusted.Any(letter => char.IsControl(letter) && letter is not ('\n' or '\t')) ? "it has a control character other than line breaks and tabulators" : null;

    private static IEnumerable<Setting> OfMessages => [SupportContact, MessagesStart, MessagesRefused, EulaText];
}
