using System.Collections.Immutable;

namespace Nacre.Images.Building;

/// <summary>The Debian archives that this machine itself uses, as one-line sources for a suite.</summary>
internal static class AptSources
{
    private const string DefaultKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg";

    /// <summary>Lines of the sources in <paramref name="aptFolder"/> whose suite is <paramref name="suite"/> or one of its companions.</summary>
    internal static ImmutableArray<string> ForSuite(string aptFolder, string suite, ImmutableArray<string> components)
    {
        var files = new List<string>();
        var main = Path.Combine(aptFolder, "sources.list");
        if (File.Exists(main))
        {
            files.Add(main);
        }

        var parts = Path.Combine(aptFolder, "sources.list.d");
        if (Directory.Exists(parts))
        {
            files.AddRange(Directory.EnumerateFiles(parts).Where(file => file.EndsWith(".list", StringComparison.Ordinal)
                || file.EndsWith(".sources", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
        }

        var entries = files.SelectMany(file => file.EndsWith(".sources", StringComparison.Ordinal)
            ? ReadStanzas(File.ReadAllLines(file))
            : ReadLines(File.ReadAllLines(file)));
        return
        [
            .. entries
                .Where(entry => IsOfSuite(entry.Suite, suite) && IsDebian(entry.Uri))
                .Select(entry => $"deb {entry.Options}{entry.Uri} {entry.Suite} {string.Join(' ', components)}")
                .Where(line => Recipes.RecipeSyntax.Source().IsMatch(line))
                .Distinct(StringComparer.Ordinal),
        ];
    }

    private static bool IsOfSuite(string candidate, string suite) =>
        candidate == suite || candidate == $"{suite}-updates" || candidate == $"{suite}-security";

    // Other vendors also serve a suite called bookworm; Debian's archives end in /debian or /debian-security on any mirror.
    private static bool IsDebian(string uri) =>
        uri.TrimEnd('/') is var address
        && (address.EndsWith("/debian", StringComparison.Ordinal) || address.EndsWith("/debian-security", StringComparison.Ordinal)
            || address.Contains("/archive/debian", StringComparison.Ordinal));

    private static IEnumerable<(string Options, string Uri, string Suite)> ReadLines(string[] lines)
    {
        foreach (var line in lines.Select(line => line.Split('#')[0].Trim()).Where(line => line.StartsWith("deb ", StringComparison.Ordinal)))
        {
            var rest = line[4..].Trim();
            var keyring = "";
            if (rest.StartsWith('[') && rest.IndexOf(']', StringComparison.Ordinal) is > 0 and var end)
            {
                keyring = rest[1..end].Split(' ').FirstOrDefault(word => word.StartsWith("signed-by=/", StringComparison.OrdinalIgnoreCase)) ?? "";
                rest = rest[(end + 1)..].Trim();
            }

            var words = rest.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (words.Length >= 2)
            {
                yield return (OptionsOf(keyring.Length > 0 ? keyring["signed-by=".Length..] : ""), words[0], words[1]);
            }
        }
    }

    private static IEnumerable<(string Options, string Uri, string Suite)> ReadStanzas(string[] lines)
    {
        var stanza = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
        string? last = null;
        foreach (var line in lines.Append(""))
        {
            if (line.StartsWith('#'))
            {
                continue;
            }

            if (line.Trim().Length > 0)
            {
                if (char.IsWhiteSpace(line[0]) && last is not null)
                {
                    stanza[last] += " " + line.Trim();
                }
                else if (line.IndexOf(':', StringComparison.Ordinal) is > 0 and var colon)
                {
                    last = line[..colon].Trim();
                    stanza[last] = line[(colon + 1)..].Trim();
                }

                continue;
            }

            foreach (var entry in FromStanza(stanza))
            {
                yield return entry;
            }

            stanza.Clear();
            last = null;
        }
    }

    private static IEnumerable<(string Options, string Uri, string Suite)> FromStanza(Dictionary<string, string> stanza)
    {
        if (!Words(stanza, "Types").Contains("deb", StringComparer.Ordinal)
            || Words(stanza, "Enabled").Any(word => string.Equals(word, "no", StringComparison.OrdinalIgnoreCase)))
        {
            yield break;
        }

        var keyring = Words(stanza, "Signed-By") is [['/', ..] file] ? file : "";
        foreach (var uri in Words(stanza, "URIs"))
        {
            foreach (var suite in Words(stanza, "Suites"))
            {
                yield return (OptionsOf(keyring), uri, suite);
            }
        }
    }

    private static string[] Words(Dictionary<string, string> stanza, string key) =>
        stanza.TryGetValue(key, out var value) ? value.Split(' ', StringSplitOptions.RemoveEmptyEntries) : [];

    private static string OptionsOf(string keyring) =>
        keyring.Length > 0 ? $"[signed-by={keyring}] " : File.Exists(DefaultKeyring) ? $"[signed-by={DefaultKeyring}] " : "";
}
