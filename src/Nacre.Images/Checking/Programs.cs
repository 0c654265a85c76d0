using Nacre.Contracts;
using Nacre.Images.Building;

namespace Nacre.Images.Checking;

/// <summary>Programs of this computer that look at untrusted files.</summary>
internal static class Programs
{
    private const string SearchPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

    internal static IReadOnlyDictionary<string, string> Environment { get; } = new Dictionary<string, string> { ["PATH"] = SearchPath, ["LC_ALL"] = "C.UTF-8" };

    /// <exception cref="NacreException">ProgramMissing.</exception>
    internal static void Require(string program, string package)
    {
        if (ProcessTree.Find(program, SearchPath, []) is null)
        {
            throw new NacreException(ErrorCatalogue.ProgramMissing, $"{program} is not installed (Debian: {package})");
        }
    }

    /// <summary>A text of the image's or a program's as a finding: one line of bounded length, without what a terminal would obey.</summary>
    internal static string Printable(string untrusted)
    {
        var text = string.Concat(untrusted.EnumerateRunes().Select(rune => System.Text.Rune.IsControl(rune) || rune == System.Text.Rune.ReplacementChar ? "?" : rune.ToString()));
        var from = Math.Max(0, text.Length - ReleaseChecks.LongestText + 1);
        from += from > 0 && char.IsLowSurrogate(text[from]) ? 1 : 0;
        return from > 0 && text.Length > ReleaseChecks.LongestText ? $"…{text[from..]}" : text;
    }
}
