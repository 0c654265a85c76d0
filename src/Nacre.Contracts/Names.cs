using System.Text.RegularExpressions;

namespace Nacre.Contracts;

/// <summary>The rule for names of users, images, channels and LivePCs: they appear in URLs, file names and command lines.</summary>
public static partial class Names
{
    /// <summary>Whether <paramref name="untrustedName"/> is 1 to 63 lower-case letters, digits and hyphens, beginning with a letter.</summary>
    public static bool IsValid(string? untrustedName) => untrustedName is not null && NamePattern().IsMatch(untrustedName);

    /// <summary>Returns the name, or throws <see cref="ErrorCatalogue.NameInvalid"/> saying what it was to name.</summary>
    public static string Parse(string? untrustedName, string what) => IsValid(untrustedName)
        ? untrustedName!
        : throw new NacreException(ErrorCatalogue.NameInvalid, $"'{Shorten(untrustedName)}' can't be the name of {what}");

    /// <summary>Whether <paramref name="untrustedName"/> is the name of a segment: 32 lower-case hexadecimal digits.</summary>
    public static bool IsSegmentName(string? untrustedName) => untrustedName is not null && SegmentPattern().IsMatch(untrustedName);

    /// <summary>Whether <paramref name="untrustedId"/> is the number of an order: 16 lower-case hexadecimal digits.</summary>
    public static bool IsOrderId(string? untrustedId) => untrustedId is { Length: 16 } && untrustedId.All(char.IsAsciiHexDigitLower);

    private static string Shorten(string? text) => text is null ? "" : text.Length <= 80 ? text : text[..80] + "…";

    [GeneratedRegex(@"\A[a-z][a-z0-9-]{0,62}\z")]
    private static partial Regex NamePattern();

    [GeneratedRegex(@"\A[0-9a-f]{32}\z")]
    private static partial Regex SegmentPattern();
}
