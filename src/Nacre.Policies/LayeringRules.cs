using System.Collections.Immutable;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;

namespace Nacre.Policies;

/// <summary>A layer as the layering rules name it.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<Layer>))]
public enum Layer
{
    /// <summary>Gone at the next start.</summary>
    [JsonStringEnumMemberName("scratch")]
    Scratch,

    /// <summary>The user's applications.</summary>
    [JsonStringEnumMemberName("applications")]
    Applications,

    /// <summary>The user's settings.</summary>
    [JsonStringEnumMemberName("settings")]
    Settings,

    /// <summary>The user's data.</summary>
    [JsonStringEnumMemberName("data")]
    Data,
}

/// <summary>One layering rule: what it covers, and the layer of that.</summary>
/// <param name="Pattern">An absolute path, in which <c>*</c> stands for any part of one name; it covers what it names and all below it.</param>
/// <param name="Layer">The layer.</param>
/// <param name="Source">Who said so: <c>factory</c> (the release), <c>administrator</c>, or <c>default</c>.</param>
/// <param name="Line">The line there, from 1 on; null for the default.</param>
public sealed record LayeringRule(string Pattern, Layer Layer, string Source, int? Line)
{
    /// <summary>What holds where no rule covers a path.</summary>
    public static LayeringRule Default { get; } = new("/", Layer.Scratch, "default", null);
}

/// <summary>
/// Layering rules: which path of a guest belongs to which layer; the last rule that covers a path decides. The guest's initramfs
/// (<c>guest/initramfs/scripts/nacre</c>) reads and judges the same lines in the same words.
/// </summary>
public sealed partial class LayeringRules
{
    private const int LongestPattern = 200;

    /// <summary>Folders of which nothing can be kept: the kernel's, and those that hold nothing but the company's programs.</summary>
    private static readonly ImmutableArray<string> NeverKept =
        ["proc", "sys", "dev", "run", "tmp", "boot", "bin", "sbin", "lib", "lib32", "lib64", "libx32", ".nacre", "lost+found"];

    private readonly ImmutableArray<(LayeringRule Rule, Regex[] Names)> rules;

    private LayeringRules(IEnumerable<LayeringRule> rules) => this.rules = [.. rules.Select(rule => (rule, Names(rule.Pattern)))];

    /// <summary>The rules in their order.</summary>
    public IEnumerable<LayeringRule> Rules => rules.Select(rule => rule.Rule);

    /// <summary>Reads the factory's rules and the administrator's, which follow them. A line of the administrator's that is no rule is left out, as the guest does.</summary>
    /// <param name="factory">Lines of the release's <c>/usr/share/nacre/layers</c>.</param>
    /// <param name="administrator">Lines of the policy.</param>
    /// <exception cref="PolicyException">A line of the factory's is no rule.</exception>
    public static LayeringRules Parse(IEnumerable<string> factory, IEnumerable<string> administrator)
    {
        ArgumentNullException.ThrowIfNull(factory);
        ArgumentNullException.ThrowIfNull(administrator);
        return new LayeringRules([.. Read(factory, "factory", isStrict: true), .. Read(administrator, "administrator", isStrict: false)]);
    }

    /// <summary>What is wrong with a line of rules; null for a rule, a comment or an empty line.</summary>
    public static string? Judge(string line)
    {
        ArgumentNullException.ThrowIfNull(line);
        return line.Any(character => char.IsControl(character) && character != '\t') ? "it has a control character" : Split(line) is { } words ? Judge(words) : null;
    }

    /// <summary>The rule that decides about a path.</summary>
    /// <param name="path">An absolute, plain path.</param>
    public LayeringRule RuleOf(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        var names = Parts(path);
        return rules.LastOrDefault(rule => rule.Names.Length <= names.Length && rule.Names.Zip(names).All(pair => pair.First.IsMatch(pair.Second))).Rule ?? LayeringRule.Default;
    }

    private static IEnumerable<LayeringRule> Read(IEnumerable<string> lines, string source, bool isStrict)
    {
        var number = 0;
        foreach (var line in lines)
        {
            number++;
            if (Split(line) is not { } words)
            {
                continue;
            }

            if (Judge(line) is { } wrong)
            {
                if (isStrict)
                {
                    throw new PolicyException([$"layering rule in line {number}: {wrong}"]);
                }

                continue;
            }

            yield return new LayeringRule(Plain(words[0]), Enum.Parse<Layer>(words[1], ignoreCase: true), source, number);
        }
    }

    private static string[]? Split(string line) =>
        line.Split([' ', '\t'], StringSplitOptions.RemoveEmptyEntries) is { Length: > 0 } words && words[0][0] != '#' ? words : null;

    private static string? Judge(string[] words)
    {
        var pattern = Plain(words[0]);
        var names = Parts(pattern);
        if (words.Length < 2 || words[1] is not ("scratch" or "applications" or "settings" or "data"))
        {
            return "the layer is none of scratch, applications, settings, data";
        }

        if (words.Length > 2)
        {
            return "more than a pattern and a layer";
        }

        if (pattern.Length > LongestPattern)
        {
            return "the pattern has more than 200 characters";
        }

        if (pattern[0] != '/')
        {
            return "the pattern does not begin with '/'";
        }

        if (!PatternCharacters().IsMatch(pattern))
        {
            return "the pattern has a character other than letters, digits and ._+@~*/-";
        }

        if (pattern.Contains("//", StringComparison.Ordinal) || names.Any(name => name is "." or ".."))
        {
            return "the pattern is not plain";
        }

        return names is [var first, ..] && first.Contains('*', StringComparison.Ordinal) ? "the first name in the pattern has a '*'"
            : names is ["home", _] ? "a home is not split from the other homes: name /home, or a folder inside a home"
            : words[1] == "scratch" ? null
            : names is [] || NeverKept.Contains(names[0]) ? "nothing there can be kept"
            : names[0] == "usr" && names is not [_, "local", ..] ? "of /usr only /usr/local can be kept"
            : Touches(names, "/var/lib/dpkg") || Touches(names, "/var/lib/apt") ? "the package database is no layer's alone"
            : null;
    }

    /// <summary>Whether a pattern can name a path, a folder above it, or something below it.</summary>
    private static bool Touches(string[] pattern, string path) => pattern.Zip(Parts(path)).All(pair => Name(pair.First).IsMatch(pair.Second));

    private static string Plain(string pattern) => pattern is ['/', _, ..] && pattern.EndsWith('/') ? pattern[..^1] : pattern;

    private static string[] Parts(string path) => path.Split('/', StringSplitOptions.RemoveEmptyEntries);

    private static Regex[] Names(string pattern) => [.. Parts(pattern).Select(Name)];

    /// <summary>Runs without backtracking: a pattern of many asterisks takes no longer than another.</summary>
    private static Regex Name(string name) =>
        new($@"\A{string.Join(".*", name.Split('*').Select(Regex.Escape))}\z", RegexOptions.Singleline | RegexOptions.CultureInvariant | RegexOptions.NonBacktracking);

    [GeneratedRegex(@"\A[-A-Za-z0-9._+@~*/]*\z")]
    private static partial Regex PatternCharacters();
}
