using System.Buffers.Text;
using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;

namespace Nacre.Contracts;

/// <summary>Between <see cref="PublicKey"/> and the framework's keys.</summary>
public static class PublicKeys
{
    private const int CoordinateLength = 32;

    /// <summary>The public half of a P-256 key.</summary>
    public static PublicKey From(ECAlgorithm key)
    {
        ArgumentNullException.ThrowIfNull(key);
        var q = key.ExportParameters(includePrivateParameters: false).Q;
        if (q.X is not { Length: CoordinateLength } x || q.Y is not { Length: CoordinateLength } y)
        {
            throw new ArgumentException("the key is not on P-256", nameof(key));
        }

        return new PublicKey("EC", "P-256", Base64Url.EncodeToString(x), Base64Url.EncodeToString(y));
    }

    /// <summary>Reads a key: false where it is not a point on P-256, spelled in the one canonical way.</summary>
    public static bool TryRead(PublicKey? untrustedKey, out ECParameters parameters)
    {
        parameters = default;
        if (untrustedKey is not { Kty: "EC", Crv: "P-256" }
            || !StrictBase64Url.TryDecode(untrustedKey.X, CoordinateLength, out var x) || x.Length != CoordinateLength
            || !StrictBase64Url.TryDecode(untrustedKey.Y, CoordinateLength, out var y) || y.Length != CoordinateLength)
        {
            return false;
        }

        var candidate = new ECParameters { Curve = ECCurve.NamedCurves.nistP256, Q = new ECPoint { X = x, Y = y } };
        try
        {
            using var key = ECDsa.Create(candidate);
        }
        catch (CryptographicException)
        {
            return false; // not on the curve
        }

        parameters = candidate;
        return true;
    }

    /// <summary>Opens a key for verifying signatures; the caller disposes it.</summary>
    public static bool TryOpen(PublicKey? untrustedKey, [NotNullWhen(true)] out ECDsa? key)
    {
        key = TryRead(untrustedKey, out var parameters) ? ECDsa.Create(parameters) : null;
        return key is not null;
    }
}
