using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Jose;
using Nacre.Contracts;
using Base64Url = System.Buffers.Text.Base64Url;

namespace Nacre.Client;

/// <summary>
/// A device's P-256 key pair. The contract has one key for each device, so this one both signs requests (ECDSA) and opens leases
/// (ECDH-ES); the uses can't be taken for each other, since what is signed is SHA-256 of a JWS with its own <c>typ</c> and what is agreed
/// goes through the Concat KDF. Thread-safe. The private half leaves only through <see cref="ExportPkcs8"/>.
/// </summary>
public sealed class DeviceKey : IDisposable
{
    private const int LongestKeys = 1024 * 1024;
    private readonly Lock gate = new();
    private readonly ECDsa key;

    private DeviceKey(ECDsa key)
    {
        this.key = key;
        PublicKey = PublicKeys.From(key);
    }

    /// <summary>The half that the server knows.</summary>
    public PublicKey PublicKey { get; }

    /// <summary>Makes a new key.</summary>
    public static DeviceKey Create() => new(ECDsa.Create(ECCurve.NamedCurves.nistP256));

    /// <summary>Reads a key that <see cref="ExportPkcs8"/> wrote.</summary>
    /// <exception cref="NacreException"><see cref="ErrorCatalogue.FileAccess"/>: it is not a P-256 key.</exception>
    public static DeviceKey Import(ReadOnlySpan<byte> pkcs8)
    {
        var key = ECDsa.Create();
        try
        {
            key.ImportPkcs8PrivateKey(pkcs8, out var read);
            if (read == pkcs8.Length && key.KeySize == 256 && key.ExportParameters(false).Curve.Oid?.Value == ECCurve.NamedCurves.nistP256.Oid.Value)
            {
                return new DeviceKey(key);
            }
        }
        catch (CryptographicException exception)
        {
            key.Dispose();
            throw new NacreException(ErrorCatalogue.FileAccess, "the device's key can't be read", exception);
        }

        key.Dispose();
        throw new NacreException(ErrorCatalogue.FileAccess, "the device's key is not a P-256 key");
    }

    /// <summary>The private key, unencrypted (PKCS #8): the caller protects and erases it.</summary>
    public byte[] ExportPkcs8()
    {
        lock (gate)
        {
            return key.ExportPkcs8PrivateKey();
        }
    }

    /// <summary>Signs the token for one request.</summary>
    /// <param name="deviceId">The device's identity at the server.</param>
    /// <param name="method">The request's method.</param>
    /// <param name="pathAndQuery">The request's path, with its query where there is one.</param>
    /// <param name="body">The request's body.</param>
    /// <param name="now">The device's time.</param>
    public string SignToken(string deviceId, string method, string pathAndQuery, ReadOnlySpan<byte> body, DateTimeOffset now)
    {
        var issued = now.ToUnixTimeSeconds();
        var token = new DeviceToken(DeviceToken.Audience, issued, issued + DeviceToken.LongestLife, method, pathAndQuery, DeviceToken.Digest(body));
        lock (gate)
        {
            return Jws.SignClaims(token, key, DeviceToken.Type, deviceId);
        }
    }

    /// <summary>Opens <see cref="LeaseGrant.Keys"/>. The algorithms are pinned: what the header says is compared, never obeyed.</summary>
    /// <exception cref="NacreException"><see cref="ErrorCatalogue.LeaseNotAuthentic"/>: not encrypted to this key, changed, or of other algorithms.</exception>
    public LeaseKeys DecryptKeys(string untrustedJwe)
    {
        ArgumentNullException.ThrowIfNull(untrustedJwe);
        if (!HasPinnedHeader(untrustedJwe))
        {
            throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the lease's keys are not encrypted as they must be");
        }

        byte[] plaintext;
        try
        {
            lock (gate)
            {
                var parameters = key.ExportParameters(includePrivateParameters: true);
                var jwk = new Jwk(
                    crv: "P-256", x: Base64Url.EncodeToString(parameters.Q.X), y: Base64Url.EncodeToString(parameters.Q.Y), d: Base64Url.EncodeToString(parameters.D));
                plaintext = JWE.Decrypt(untrustedJwe, jwk, JweAlgorithm.ECDH_ES_A256KW, JweEncryption.A256GCM).PlaintextBytes;
            }
        }
#pragma warning disable CA1031 // A hostile text makes the library throw whatever it likes; the answer is one.
        catch (Exception exception)
#pragma warning restore CA1031
        {
            throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the lease's keys do not open with this device's key", exception);
        }

        return Jws.TryRead<LeaseKeys>(plaintext, out var keys) && keys is { Share: not null, ReleaseKeys: not null }
            ? keys : throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the lease's keys are not what they should be");
    }

    /// <summary>Nothing of the private half.</summary>
    public override string ToString() => $"DeviceKey {PublicKey.X}";

    /// <summary>Forgets the key.</summary>
    public void Dispose() => key.Dispose();

    private static bool HasPinnedHeader(string untrustedJwe)
    {
        if (untrustedJwe.Length > LongestKeys || untrustedJwe.AsSpan().Count('.') != 4)
        {
            return false;
        }

        try
        {
            using var header = JsonDocument.Parse(Encoding.UTF8.GetString(Base64Url.DecodeFromChars(untrustedJwe.AsSpan(0, untrustedJwe.IndexOf('.', StringComparison.Ordinal)))));
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
