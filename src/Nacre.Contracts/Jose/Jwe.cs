using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Jose;
using Base64Url = System.Buffers.Text.Base64Url;

namespace Nacre.Contracts;

/// <summary>Secrets for one P-256 key: compact JWE (RFC 7516) with ECDH-ES+A256KW and A256GCM. The algorithms are pinned: what a header says is compared, never obeyed.</summary>
public static class Jwe
{
    private const int Longest = 1024 * 1024;

    /// <summary>Encrypts.</summary>
    public static string Encrypt(ReadOnlySpan<byte> secret, PublicKey to)
    {
        ArgumentNullException.ThrowIfNull(to);
        var key = new Jwk(crv: to.Crv, x: to.X, y: to.Y);
        return JWE.EncryptBytes(secret.ToArray(), [new JweRecipient(JweAlgorithm.ECDH_ES_A256KW, key)], JweEncryption.A256GCM, mode: SerializationMode.Compact);
    }

    /// <summary>Decrypts; null where it is not encrypted to this key, was changed, or is of other algorithms. The caller erases the answer.</summary>
    public static byte[]? TryDecrypt(string untrusted, ECDsa key)
    {
        ArgumentNullException.ThrowIfNull(key);
        var parameters = key.ExportParameters(includePrivateParameters: true);
        try
        {
            return TryDecrypt(untrusted, (object)new Jwk(
                crv: "P-256", x: Base64Url.EncodeToString(parameters.Q.X), y: Base64Url.EncodeToString(parameters.Q.Y), d: Base64Url.EncodeToString(parameters.D)));
        }
        finally
        {
            CryptographicOperations.ZeroMemory(parameters.D);
        }
    }

    /// <summary>The same with a key that does not leave its hardware.</summary>
    /// <exception cref="NacreException">What the hardware says.</exception>
    public static byte[]? TryDecrypt(string untrusted, ECDiffieHellman agreement) => TryDecrypt(untrusted, (object)agreement);

    private static byte[]? TryDecrypt(string untrusted, object key)
    {
        ArgumentNullException.ThrowIfNull(untrusted);
        try
        {
            return HasPinnedHeader(untrusted) ? JWE.Decrypt(untrusted, key, JweAlgorithm.ECDH_ES_A256KW, JweEncryption.A256GCM).PlaintextBytes : null;
        }
        catch (Exception exception) when ((exception as NacreException ?? exception.InnerException as NacreException) is { } hardwares)
        {
            throw hardwares;
        }
#pragma warning disable CA1031 // A hostile text makes the library throw whatever it likes; the answer is one.
        catch (Exception)
#pragma warning restore CA1031
        {
            return null;
        }
    }

    private static bool HasPinnedHeader(string untrusted)
    {
        if (untrusted.Length > Longest || untrusted.AsSpan().Count('.') != 4)
        {
            return false;
        }

        try
        {
            using var header = JsonDocument.Parse(Encoding.UTF8.GetString(Base64Url.DecodeFromChars(untrusted.AsSpan(0, untrusted.IndexOf('.', StringComparison.Ordinal)))));
            var root = header.RootElement;
            return root.ValueKind == JsonValueKind.Object
                && root.TryGetProperty("alg", out var alg) && alg.ValueEquals("ECDH-ES+A256KW")
                && root.TryGetProperty("enc", out var enc) && enc.ValueEquals("A256GCM")
                && !root.TryGetProperty("zip", out _) && !root.TryGetProperty("crit", out _); // compressed: a bomb
        }
        catch (Exception exception) when (exception is FormatException or JsonException or InvalidOperationException)
        {
            return false;
        }
    }
}
