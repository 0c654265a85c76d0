using System.Buffers.Text;

namespace Nacre.Contracts;

/// <summary>Base64url with one spelling for each value: no padding, no white space, no stray bits at the end.</summary>
internal static class StrictBase64Url
{
    public static bool TryDecode(ReadOnlySpan<char> untrustedText, int maximumLength, out byte[] bytes)
    {
        bytes = [];
        if (untrustedText.Length > Base64Url.GetEncodedLength(maximumLength) || untrustedText.ContainsAnyExcept(Alphabet))
        {
            return false;
        }

        if (!Base64Url.IsValid(untrustedText, out var length))
        {
            return false;
        }

        var decoded = new byte[length];
        if (!Base64Url.TryDecodeFromChars(untrustedText, decoded, out var written) || written != length
            || !untrustedText.SequenceEqual(Base64Url.EncodeToString(decoded)))
        {
            return false;
        }

        bytes = decoded;
        return true;
    }

    private static readonly System.Buffers.SearchValues<char> Alphabet =
        System.Buffers.SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
}
