using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Nacre.Client;
using Nacre.Contracts;
using PublicKey = Nacre.Contracts.PublicKey;

namespace Nacre.Player.Devices;

/// <summary>With what the device shows itself in TLS: a key of its own, for that alone, and the organisation's certificate of it. In TLS because the framework can't use a key in
/// the TPM there; that the device is the device is proved by the token of each request.</summary>
internal sealed class TlsIdentity : IDisposable
{
    private readonly Content content;
    private readonly X509Certificate2? certificate;

    private TlsIdentity(Content content)
    {
        this.content = content;
        if (content.Certificate is not null)
        {
            using var key = OpenKey();
            using var loaded = X509CertificateLoader.LoadCertificate(content.Certificate);
            certificate = loaded.CopyWithPrivateKey(key);
        }
    }

    /// <summary>The key's public half.</summary>
    public PublicKey PublicKey
    {
        get
        {
            using var key = OpenKey();
            return PublicKeys.From(key);
        }
    }

    /// <summary>The certificate with its key; null where the server has given none.</summary>
    public X509Certificate2? Certificate => certificate;

    /// <summary>A new key without a certificate.</summary>
    public static TlsIdentity Create()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        return new TlsIdentity(new Content(key.ExportPkcs8PrivateKey(), null));
    }

    /// <summary>The key with the certificate that the server gave for it.</summary>
    /// <param name="untrustedCertificate">DER, base64; null: it gave none.</param>
    /// <exception cref="NacreException">ServerNotAuthentic: that is no certificate of this key.</exception>
    public TlsIdentity With(string? untrustedCertificate)
    {
        try
        {
            return new TlsIdentity(content with { Certificate = untrustedCertificate is null ? null : Convert.FromBase64String(untrustedCertificate) });
        }
        catch (Exception exception) when (exception is FormatException or CryptographicException or ArgumentException or InvalidOperationException)
        {
            throw new NacreException(ErrorCatalogue.ServerNotAuthentic, "what the server gave as this device's certificate is not one of its key", exception);
        }
    }

    /// <summary>Whether two thirds of the certificate's life are over.</summary>
    public bool IsDue(DateTimeOffset now) => certificate is not null && now >= certificate.NotBefore + ((certificate.NotAfter - certificate.NotBefore) * 2 / 3);

    /// <summary>Reads it; null where there is none.</summary>
    public static TlsIdentity? Read(string path, DeviceKey key)
    {
        if (!File.Exists(path))
        {
            return null;
        }

        var bytes = DeviceSecrets.Read(path, key);
        try
        {
            return new TlsIdentity(System.Text.Json.JsonSerializer.Deserialize<Content>(bytes, ContractJson.Options) ?? throw new NacreException(ErrorCatalogue.FileAccess, $"'{path}' is empty"));
        }
        catch (Exception exception) when (exception is System.Text.Json.JsonException or CryptographicException or ArgumentException or InvalidOperationException)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"'{path}' can't be read: {exception.Message}", exception);
        }
        finally
        {
            CryptographicOperations.ZeroMemory(bytes);
        }
    }

    /// <summary>Keeps it, durably, in the place of what was there.</summary>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public void Write(string path, DeviceKey key)
    {
        var bytes = System.Text.Json.JsonSerializer.SerializeToUtf8Bytes(content, ContractJson.Options);
        DeviceSecrets.Write(path, key, bytes);
        CryptographicOperations.ZeroMemory(bytes);
    }

    public void Dispose() => certificate?.Dispose();

    private ECDsa OpenKey()
    {
        var key = ECDsa.Create();
        key.ImportPkcs8PrivateKey(content.Key, out _);
        return key;
    }

    /// <param name="Key">PKCS #8.</param>
    /// <param name="Certificate">DER.</param>
    private sealed record Content(byte[] Key, byte[]? Certificate)
    {
        public override string ToString() => nameof(TlsIdentity);
    }
}

/// <summary>Small secrets of this device in files that only its user can read; sealed to the device's key where that is in hardware, so that a copy opens nowhere else.</summary>
internal static class DeviceSecrets
{
    /// <summary>Reads one.</summary>
    /// <exception cref="NacreException">FileAccess, DeviceKeyElsewhere: it is sealed to another key.</exception>
    public static byte[] Read(string path, DeviceKey key)
    {
        var bytes = File.ReadAllBytes(path);
        return key.IsInHardware ? key.Unseal(System.Text.Encoding.ASCII.GetString(bytes)) : bytes;
    }

    /// <summary>Keeps one, durably.</summary>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public static void Write(string path, DeviceKey key, ReadOnlySpan<byte> secret) =>
        DurableFile.Write(path, key.IsInHardware ? System.Text.Encoding.ASCII.GetBytes(key.Seal(secret)) : secret);
}
