using System.Security.Cryptography;
using Nacre.Contracts;

namespace Nacre.Client;

/// <summary>
/// A device's P-256 key pair. The contract has one key for each device, so this one both signs requests (ECDSA) and opens leases
/// (ECDH-ES); the uses can't be taken for each other, since what is signed is SHA-256 of a JWS with its own <c>typ</c> and what is agreed
/// goes through the Concat KDF. Thread-safe. The private half leaves only through <see cref="ExportPkcs8"/>.
/// </summary>
public sealed class DeviceKey : IDisposable
{
    private readonly Lock gate = new();
    private readonly ECDsa key;
    private readonly IHardwareKey? hardware;

    private DeviceKey(ECDsa key, IHardwareKey? hardware = null)
    {
        this.key = key;
        this.hardware = hardware;
        PublicKey = PublicKeys.From(key);
    }

    /// <summary>The half that the server knows.</summary>
    public PublicKey PublicKey { get; }

    /// <summary>Makes a new key.</summary>
    public static DeviceKey Create() => new(ECDsa.Create(ECCurve.NamedCurves.nistP256));

    /// <summary>A key that is in hardware and stays there.</summary>
    public static DeviceKey Of(IHardwareKey hardware) => new(new HardwareSigning(hardware), hardware);

    /// <summary>Whether the private half is in hardware, so that nobody can copy it.</summary>
    public bool IsInHardware => hardware is not null;

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

    /// <summary>The private key, unencrypted (PKCS #8): the caller protects and erases it. One in hardware has none.</summary>
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

    /// <summary>Signs what this device says of an order.</summary>
    public string SignReceipt(DeviceReceiptClaims receipt)
    {
        ArgumentNullException.ThrowIfNull(receipt);
        lock (gate)
        {
            return Jws.SignClaims(receipt, key, DeviceReceiptClaims.Type, receipt.Sub);
        }
    }

    /// <summary>Opens <see cref="LeaseGrant.Keys"/>. The algorithms are pinned: what the header says is compared, never obeyed.</summary>
    /// <exception cref="NacreException"><see cref="ErrorCatalogue.LeaseNotAuthentic"/>: not encrypted to this key, changed, or of other algorithms.</exception>
    public LeaseKeys DecryptKeys(string untrustedJwe)
    {
        ArgumentNullException.ThrowIfNull(untrustedJwe);
        var plaintext = Decrypt(untrustedJwe);
        return Jws.TryRead<LeaseKeys>(plaintext, out var keys) && keys is { Share: not null, ReleaseKeys: not null }
            ? keys : throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the lease's keys are not what they should be");
    }

    /// <summary>Encrypts a secret of this device's own to its key.</summary>
    public string Seal(ReadOnlySpan<byte> secret) => Jwe.Encrypt(secret, PublicKey);

    /// <summary>Opens what <see cref="Seal"/> made.</summary>
    /// <exception cref="NacreException"><see cref="ErrorCatalogue.FileAccess"/>: it was sealed by another key, or changed.</exception>
    public byte[] Unseal(string untrustedSealed)
    {
        ArgumentNullException.ThrowIfNull(untrustedSealed);
        try
        {
            return Decrypt(untrustedSealed);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.LeaseNotAuthentic)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, "what is sealed does not open with this device's key", exception);
        }
    }

    /// <summary>Nothing of the private half.</summary>
    public override string ToString() => $"DeviceKey {PublicKey.X}";

    /// <summary>Forgets the key.</summary>
    public void Dispose() => key.Dispose();

    private byte[] Decrypt(string untrustedJwe)
    {
        lock (gate)
        {
            byte[]? plaintext;
            if (hardware is not null)
            {
                using var agreement = new HardwareAgreement(hardware);
                plaintext = Jwe.TryDecrypt(untrustedJwe, agreement);
            }
            else
            {
                plaintext = Jwe.TryDecrypt(untrustedJwe, key);
            }

            return plaintext ?? throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the lease's keys do not open with this device's key, or are not encrypted as they must be");
        }
    }
}
