using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;
using System.Text;

namespace Nacre.Contracts;

/// <summary>A code that a person reads aloud and types: characters of Crockford's base 32 (five bits each), shown in groups of four.</summary>
public static class TypedCode
{
    private const string Alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    private const int LongestTyped = 100;

    /// <summary>Makes a random one.</summary>
    /// <param name="length">Its characters, five bits each.</param>
    public static string Create(int length) => RandomNumberGenerator.GetString(Alphabet, length);

    /// <summary>Reads a code as a person types it: any case, with or without hyphens and spaces, O for 0, I and L for 1.</summary>
    public static bool TryRead(string? untrustedText, int length, [NotNullWhen(true)] out string? code)
    {
        code = null;
        if (untrustedText is null || untrustedText.Length > LongestTyped)
        {
            return false;
        }

        var builder = new StringBuilder(length);
        foreach (var character in untrustedText.ToUpperInvariant())
        {
            var meant = character switch { 'O' => '0', 'I' or 'L' => '1', _ => character };
            if (meant is '-' or ' ')
            {
                continue;
            }

            if (!Alphabet.Contains(meant, StringComparison.Ordinal))
            {
                return false;
            }

            builder.Append(meant);
        }

        code = builder.Length == length ? builder.ToString() : null;
        return code is not null;
    }

    /// <summary>As it is shown: <c>ABCD-EFGH-…</c>.</summary>
    public static string Show(string code) => string.Join('-', code.Chunk(4).Select(group => new string(group)));
}
