namespace Nacre.Contracts;

/// <summary>Where devices may fetch segments besides the server. An origin has a segment at <c>BASE/ab/abcdef…</c>: the first two digits of its name, then the name.</summary>
/// <param name="Urls">Base URLs, http or https, in the order in which they are asked; the server itself comes last.</param>
public sealed record StoreOrigins(IReadOnlyList<string> Urls)
{
    /// <summary>How many there are at most.</summary>
    public const int Most = 16;

    private const int LongestUrl = 300;

    /// <summary>Where an origin has a segment, relative to its base.</summary>
    /// <param name="segment">A segment's name.</param>
    public static string PathOf(string segment) => Names.IsSegmentName(segment)
        ? $"{segment[..2]}/{segment}"
        : throw new ArgumentException("not the name of a segment", nameof(segment));

    /// <summary>Reads a base URL: http or https, no user, no query, no fragment, at most 300 characters. The result ends with a slash.</summary>
    public static bool TryReadUrl(string? untrustedUrl, out Uri url)
    {
        url = null!;
        if (untrustedUrl is not { Length: <= LongestUrl } || !Uri.TryCreate(untrustedUrl, UriKind.Absolute, out var parsed) || parsed.Scheme is not ("http" or "https")
            || parsed.UserInfo.Length > 0 || parsed.Query.Length > 0 || parsed.Fragment.Length > 0)
        {
            return false;
        }

        url = parsed.AbsolutePath.EndsWith('/') ? parsed : new Uri(parsed.AbsoluteUri + "/");
        return true;
    }
}
