using System.Buffers.Text;
using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Nacre.Contracts;

/// <summary>
/// Compact JSON Web Signatures (RFC 7515) with the one algorithm that Nacre uses, ES256. The algorithm is pinned by the reader: what the
/// header says is compared, never obeyed. Keys named or carried in the header (<c>jwk</c>, <c>jku</c>, <c>x5c</c>) are never used.
/// Thread-safe.
/// </summary>
public static class Jws
{
    /// <summary>A longer text is refused before anything of it is decoded: manifests of the largest release fit.</summary>
    public const int MaximumLength = 16 * 1024 * 1024;

    private const int MaximumHeaderLength = 1024;
    private const int SignatureLength = 64;

    /// <summary>Signs the bytes.</summary>
    /// <param name="payload">What is signed.</param>
    /// <param name="key">A P-256 private key.</param>
    /// <param name="type">The header's <c>typ</c>: what kind of statement it is, so that one can't serve as another.</param>
    /// <param name="keyId">The header's <c>kid</c>.</param>
    public static string Sign(ReadOnlySpan<byte> payload, ECDsa key, string? type = null, string? keyId = null)
    {
        ArgumentNullException.ThrowIfNull(key);
        var header = JsonSerializer.SerializeToUtf8Bytes(new Header("ES256", type, keyId, null), HeaderOptions);
        var signed = Base64Url.EncodeToString(header) + "." + Base64Url.EncodeToString(payload);
        var signature = key.SignData(Encoding.ASCII.GetBytes(signed), HashAlgorithmName.SHA256, DSASignatureFormat.IeeeP1363FixedFieldConcatenation);
        return signed + "." + Base64Url.EncodeToString(signature);
    }

    /// <summary>Signs <paramref name="claims"/> as JSON.</summary>
    public static string SignClaims<T>(T claims, ECDsa key, string? type = null, string? keyId = null)
        where T : class => Sign(JsonSerializer.SerializeToUtf8Bytes(claims, ContractJson.Options), key, type, keyId);

    /// <summary>The bytes that <paramref name="key"/> signed; otherwise throws <paramref name="otherwise"/>, whatever the reason.</summary>
    public static byte[] Verify(string? untrustedCompact, PublicKey key, ErrorKind otherwise, string? type = null) =>
        TryVerify(untrustedCompact, key, type, out var payload) ? payload : throw new NacreException(otherwise, "the signature does not verify");

    /// <summary>The claims that <paramref name="key"/> signed; otherwise throws <paramref name="otherwise"/>, whatever the reason.</summary>
    public static T VerifyClaims<T>(string? untrustedCompact, PublicKey key, ErrorKind otherwise, string? type = null)
        where T : class => TryRead<T>(Verify(untrustedCompact, key, otherwise, type), out var claims)
            ? claims : throw new NacreException(otherwise, $"the signed text is not a {typeof(T).Name}");

    /// <summary>Whether <paramref name="key"/> signed this.</summary>
    /// <param name="untrustedCompact">The three parts.</param>
    /// <param name="key">Who must have signed.</param>
    /// <param name="type">The <c>typ</c> that the header must have; null: any.</param>
    /// <param name="payload">What was signed; empty where the answer is false.</param>
    public static bool TryVerify(string? untrustedCompact, PublicKey key, string? type, out byte[] payload)
    {
        payload = [];
        if (!TrySplit(untrustedCompact, out var header, out var body, out var signature, out var signed)
            || header.Alg != "ES256" || header.Crit is not null || (type is not null && header.Typ != type)
            || !PublicKeys.TryOpen(key, out var ecdsa))
        {
            return false;
        }

        using (ecdsa)
        {
            if (!ecdsa.VerifyData(signed, signature, HashAlgorithmName.SHA256, DSASignatureFormat.IeeeP1363FixedFieldConcatenation))
            {
                return false;
            }
        }

        payload = body;
        return true;
    }

    /// <summary>The <c>kid</c> that the text claims, for finding the key to verify with. It proves nothing.</summary>
    public static bool TryReadKeyId(string? untrustedCompact, [NotNullWhen(true)] out string? untrustedKeyId)
    {
        untrustedKeyId = TrySplit(untrustedCompact, out var header, out _, out _, out _) ? header.Kid : null;
        return untrustedKeyId is not null;
    }

    /// <summary>What is signed, without looking at the signature: for a text that is known by its hash.</summary>
    /// <param name="untrustedCompact">The three parts.</param>
    /// <param name="type">The <c>typ</c> that the header must have.</param>
    /// <param name="untrustedPayload">What was signed; empty where the answer is false.</param>
    public static bool TryReadPayload(string? untrustedCompact, string type, out byte[] untrustedPayload)
    {
        if (TrySplit(untrustedCompact, out var header, out untrustedPayload, out _, out _) && header.Typ == type)
        {
            return true;
        }

        untrustedPayload = [];
        return false;
    }

    /// <summary>Reads verified bytes as JSON; false where they are not a <typeparamref name="T"/>.</summary>
    public static bool TryRead<T>(ReadOnlySpan<byte> payload, [NotNullWhen(true)] out T? value)
        where T : class
    {
        try
        {
            value = JsonSerializer.Deserialize<T>(payload, ContractJson.Options);
        }
        catch (JsonException)
        {
            value = null;
        }

        return value is not null;
    }

    private static bool TrySplit(string? untrustedCompact, out Header header, out byte[] payload, out byte[] signature, out byte[] signed)
    {
        header = new Header("", null, null, null);
        payload = signature = signed = [];
        if (untrustedCompact is null || untrustedCompact.Length > MaximumLength)
        {
            return false;
        }

        var first = untrustedCompact.IndexOf('.', StringComparison.Ordinal);
        var second = first < 0 ? -1 : untrustedCompact.IndexOf('.', first + 1);
        if (second < 0 || untrustedCompact.IndexOf('.', second + 1) >= 0)
        {
            return false;
        }

        var text = untrustedCompact.AsSpan();
        if (!StrictBase64Url.TryDecode(text[..first], MaximumHeaderLength, out var headerBytes)
            || !StrictBase64Url.TryDecode(text[(first + 1)..second], MaximumLength, out payload)
            || !StrictBase64Url.TryDecode(text[(second + 1)..], SignatureLength, out signature) || signature.Length != SignatureLength
            || !TryRead<Header>(headerBytes, out var read))
        {
            return false;
        }

        header = read;
        signed = Encoding.ASCII.GetBytes(untrustedCompact, 0, second);
        return true;
    }

    private static readonly JsonSerializerOptions HeaderOptions = new(ContractJson.Options)
    {
        DefaultIgnoreCondition = System.Text.Json.Serialization.JsonIgnoreCondition.WhenWritingNull,
    };

    private sealed record Header(string Alg, string? Typ, string? Kid, JsonElement? Crit);
}
