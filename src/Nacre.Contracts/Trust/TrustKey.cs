using System.Security.Cryptography;
using System.Text.Json;

namespace Nacre.Contracts.Trust;

/// <summary>A public key of a role: ECDSA on P-256 (TUF's <c>ecdsa-sha2-nistp256</c>), named by the hash of what it is. Immutable; thread-safe.</summary>
public sealed class TrustKey
{
    /// <summary>TUF's name of the one scheme.</summary>
    public const string Scheme = "ecdsa-sha2-nistp256";

    private readonly PublicKey key;

    private TrustKey(PublicKey key, string pem)
    {
        this.key = key;
        Pem = pem;
        Id = Convert.ToHexStringLower(SHA256.HashData(CanonicalJson.EncodeSigned(ToMetadata())));
    }

    /// <summary>SHA-256 of the key's canonical metadata, hexadecimal.</summary>
    public string Id { get; }

    /// <summary>The key as text.</summary>
    public string Pem { get; }

    /// <summary>The same key as the rest of the API spells it.</summary>
    public PublicKey PublicKey => key;

    /// <summary>The public half of a key pair.</summary>
    public static TrustKey From(ECDsa key)
    {
        ArgumentNullException.ThrowIfNull(key);
        return new TrustKey(PublicKeys.From(key), key.ExportSubjectPublicKeyInfoPem());
    }

    /// <summary>The same key.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic: it is not on P-256.</exception>
    public static TrustKey From(PublicKey key)
    {
        if (!PublicKeys.TryOpen(key, out var ecdsa))
        {
            throw NotAKey();
        }

        using (ecdsa)
        {
            return From(ecdsa);
        }
    }

    /// <summary>Reads a key's text, which must be the one spelling of it: else one key could count as two.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic.</exception>
    public static TrustKey Parse(string untrustedPem)
    {
        ArgumentNullException.ThrowIfNull(untrustedPem);
        using var key = ECDsa.Create();
        try
        {
            if (untrustedPem.Length <= 1024)
            {
                key.ImportFromPem(untrustedPem.AsSpan());
                if (key.KeySize == 256 && key.ExportSubjectPublicKeyInfoPem() == untrustedPem)
                {
                    return From(key);
                }
            }
        }
        catch (Exception exception) when (exception is CryptographicException or ArgumentException or NotSupportedException) // the last: a curve that is not known here
        {
            throw NotAKey(exception);
        }

        throw NotAKey();
    }

    /// <summary>Whether this key made that signature.</summary>
    public bool Verify(ReadOnlySpan<byte> content, ReadOnlySpan<byte> untrustedSignature)
    {
        if (!PublicKeys.TryOpen(key, out var ecdsa))
        {
            return false;
        }

        using (ecdsa)
        {
            return ecdsa.VerifyData(content, untrustedSignature, HashAlgorithmName.SHA256, DSASignatureFormat.Rfc3279DerSequence);
        }
    }

    internal static TrustKey Parse(string untrustedId, JsonElement untrusted)
    {
        if (untrusted.Text("keytype") != "ecdsa" || untrusted.Text("scheme") != Scheme)
        {
            throw new NacreException(ErrorCatalogue.Unsupported, "trust metadata has a key of another kind than ecdsa-sha2-nistp256");
        }

        var key = Parse(untrusted.Object("keyval").Text("public"));
        return key.Id == untrustedId ? key : throw new NacreException(ErrorCatalogue.TrustNotAuthentic, "a key of the trust metadata has the name of another");
    }

    internal object ToMetadata() => new { keytype = "ecdsa", keyval = new { @public = Pem }, scheme = Scheme };

    private static NacreException NotAKey(Exception? inner = null) => new(ErrorCatalogue.TrustNotAuthentic, "a key of the trust metadata is not one on P-256, in its one spelling", inner);
}

/// <summary>Who may sign for a role: so many of these keys. A key counts once.</summary>
public sealed class TrustRole
{
    private const int MostKeys = 64;

    /// <summary>Makes a role.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic: no threshold that these keys can reach.</exception>
    public TrustRole(IEnumerable<TrustKey> keys, int threshold)
    {
        Keys = [.. keys.OrderBy(key => key.Id, StringComparer.Ordinal)];
        Threshold = threshold;
        if (Keys.Count > MostKeys || Keys.DistinctBy(key => key.Id).Count() != Keys.Count)
        {
            throw new NacreException(ErrorCatalogue.TrustNotAuthentic, $"a role of the trust metadata names a key twice, or more than {MostKeys}");
        }

        if (threshold < 1 || threshold > Keys.Count)
        {
            throw new NacreException(ErrorCatalogue.TrustNotAuthentic, $"a role of the trust metadata wants {threshold} signatures of {Keys.Count} keys");
        }
    }

    /// <summary>The keys, by their name.</summary>
    public IReadOnlyList<TrustKey> Keys { get; }

    /// <summary>How many of them must sign.</summary>
    public int Threshold { get; }

    /// <summary>Whether both want the same signatures.</summary>
    public bool IsSameAs(TrustRole other)
    {
        ArgumentNullException.ThrowIfNull(other);
        return Threshold == other.Threshold && Keys.Select(key => key.Id).SequenceEqual(other.Keys.Select(key => key.Id), StringComparer.Ordinal);
    }

    /// <summary>How many of the role's keys signed.</summary>
    public int Count(TrustMetadata untrusted)
    {
        ArgumentNullException.ThrowIfNull(untrusted);
        return Keys.Count(key => untrusted.Signatures.TryGetValue(key.Id, out var signature) && key.Verify(untrusted.SignedBytes, signature));
    }

    /// <summary>Requires enough signatures.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic.</exception>
    public void Verify(TrustMetadata untrusted)
    {
        var count = Count(untrusted);
        if (count < Threshold)
        {
            throw new NacreException(ErrorCatalogue.TrustNotAuthentic, $"{untrusted.Words} has {count} of the {Threshold} signatures that it needs");
        }
    }
}
