using System.Buffers;
using System.Buffers.Text;
using System.Security.Cryptography;

namespace Nacre.Server;

/// <summary>Rules for texts that come from outside.</summary>
internal static class Text
{
    private static readonly SearchValues<char> LowerHex = SearchValues.Create("0123456789abcdef");

    /// <summary>1 to <paramref name="maximum"/> characters for people, none of them a control character.</summary>
    public static bool IsLabel(string? untrusted, int maximum) =>
        !string.IsNullOrWhiteSpace(untrusted) && untrusted.Length <= maximum && IsPrintable(untrusted);

    public static bool IsPrintable(string untrusted)
    {
        foreach (var rune in untrusted.EnumerateRunes())
        {
            if (System.Text.Rune.IsControl(rune) || rune == System.Text.Rune.ReplacementChar)
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>The beginning of a text, with question marks for what <see cref="IsPrintable"/> refuses.</summary>
    public static string Printable(string untrusted, int maximum) =>
        string.Concat(untrusted.EnumerateRunes().Take(maximum).Select(rune => System.Text.Rune.IsControl(rune) || rune == System.Text.Rune.ReplacementChar ? "?" : rune.ToString()));

    public static bool IsSha256(string? untrusted) => untrusted is { Length: 64 } && !untrusted.AsSpan().ContainsAnyExcept(LowerHex);

    public static string Hex(ReadOnlySpan<byte> bytes) => Convert.ToHexStringLower(bytes);

    public static string RandomId() => RandomNumberGenerator.GetHexString(32, lowercase: true);

    /// <summary>Exactly 32 bytes in canonical base 64.</summary>
    public static bool TryReadKey(string? untrusted, out byte[] key)
    {
        key = new byte[32];
        return untrusted is { Length: 44 } && Convert.TryFromBase64String(untrusted, key, out var written) && written == 32
            && Convert.ToBase64String(key) == untrusted;
    }

    public static string Url(ReadOnlySpan<byte> bytes) => Base64Url.EncodeToString(bytes);
}
