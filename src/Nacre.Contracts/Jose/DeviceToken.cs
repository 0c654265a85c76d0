using System.Buffers.Text;
using System.Security.Cryptography;

namespace Nacre.Contracts;

/// <summary>
/// What a device signs for each request (JWS ES256, <c>typ</c> <see cref="Type"/>, <c>kid</c> the device's identity), so that a token that
/// somebody saw opens nothing but the same request again, for a few minutes. Times are seconds since 1970.
/// </summary>
/// <param name="Aud">Always <c>nacre</c>.</param>
/// <param name="Iat">Issued at.</param>
/// <param name="Exp">Ends at; at most <see cref="LongestLife"/> after <paramref name="Iat"/>.</param>
/// <param name="Htm">The request's method.</param>
/// <param name="Htu">The request's path, with its query where there is one.</param>
/// <param name="Bsha256">SHA-256 of the request's body (of nothing, where there is none), base64url.</param>
public sealed record DeviceToken(string Aud, long Iat, long Exp, string Htm, string Htu, string Bsha256)
{
    /// <summary>The <c>typ</c> of a device's token.</summary>
    public const string Type = "nacre-device+jwt";

    /// <summary>The <c>typ</c> of a lease.</summary>
    public const string LeaseType = "nacre-lease+jwt";

    /// <summary>The <c>aud</c> of a device's token.</summary>
    public const string Audience = "nacre";

    /// <summary>Seconds that a token may live.</summary>
    public const int LongestLife = 300;

    /// <summary>Seconds that the device's clock may be off.</summary>
    public const int LargestSkew = 300;

    /// <summary>The <see cref="Bsha256"/> of a body.</summary>
    public static string Digest(ReadOnlySpan<byte> body) => Base64Url.EncodeToString(SHA256.HashData(body));
}
