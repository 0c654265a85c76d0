using System.Text.RegularExpressions;

namespace Nacre.Policies;

/// <summary>Which applications a user has, by <see cref="Settings.AppVisibility"/>: lines 'PACKAGE GROUP…', with '-' for nobody.</summary>
public static partial class AppVisibility
{
    /// <summary>What is wrong with a line; null for nothing.</summary>
    public static string? Judge(string untrusted)
    {
        ArgumentNullException.ThrowIfNull(untrusted);
        var words = Words(untrusted);
        return words.Length < 2 ? "it names no package and group ('gimp design press', or 'gimp -' for nobody)"
            : !Package().IsMatch(words[0]) ? $"'{Settings.Shorten(words[0])}' is no name of a Debian package"
            : words.Skip(1).FirstOrDefault(word => word != "-" && PolicyLevel.TryParse($"group:{word}") is null) is { } wrong ? $"'{Settings.Shorten(wrong)}' is no name of a group"
            : null;
    }

    /// <summary>The packages that somebody has not, in order.</summary>
    /// <param name="policy">The policy.</param>
    /// <param name="groups">The groups that they are in.</param>
    public static IReadOnlyList<string> Hidden(Policy policy, IReadOnlyCollection<string> groups)
    {
        ArgumentNullException.ThrowIfNull(policy);
        return
        [
            .. policy.Get(Settings.AppVisibility).Select(Words).GroupBy(words => words[0], words => words.Skip(1), StringComparer.Ordinal)
                .Where(package => !package.SelectMany(allowed => allowed).Any(groups.Contains)).Select(package => package.Key).Order(StringComparer.Ordinal),
        ];
    }

    /// <summary>The groups that it depends on.</summary>
    public static IReadOnlySet<string> Groups(Policy policy)
    {
        ArgumentNullException.ThrowIfNull(policy);
        return policy.Get(Settings.AppVisibility).SelectMany(line => Words(line).Skip(1)).Where(word => word != "-").ToHashSet(StringComparer.Ordinal);
    }

    private static string[] Words(string line) => line.Split(' ', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>Debian policy 5.6.1.</summary>
    [GeneratedRegex(@"\A[a-z0-9][a-z0-9+.-]{1,99}\z")]
    private static partial Regex Package();
}
