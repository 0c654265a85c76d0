using System.Globalization;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using PublicKey = Nacre.Contracts.PublicKey;

namespace Nacre.Server;

/// <summary>On an endpoint that a device with an expired or lost certificate can call: the token alone proves it.</summary>
internal sealed record WithoutCertificate;

/// <summary>The certificates with which devices show themselves in TLS.</summary>
internal sealed class DeviceCertificates(NacreDatabase database, Authority authority, ServerOptions options, AuditTrail audit)
{
    public const string Purpose = "1.3.6.1.5.5.7.3.2"; // clientAuth
    public static readonly TimeSpan Life = TimeSpan.FromDays(90);

    /// <summary>Certifies a device's key for TLS, where devices reach this server by TLS; the caller saves the row.</summary>
    /// <param name="device">Whose it is; its row takes note of the certificate.</param>
    /// <param name="tlsKey">The key, which the device vouched for.</param>
    /// <param name="shown">The serial of the certificate that goes on for its time, so that an answer that is lost loses nothing; null: none does.</param>
    /// <returns>The certificate, DER in base64; null where TLS ends at a proxy.</returns>
    public string? Issue(DeviceRow device, PublicKey tlsKey, string? shown)
    {
        if (!options.IsTls || !PublicKeys.TryOpen(tlsKey, out var key))
        {
            return null;
        }

        using (key)
        {
            var name = new X500DistinguishedNameBuilder();
            name.AddCommonName(device.Id);
            using var issued = authority.Issue(new CertificateRequest(name.Build(), key, HashAlgorithmName.SHA256), Purpose, Life);
            device.CertificateBefore = shown;
            device.CertificateSerial = SerialOf(issued);
            device.CertificateEndsAt = issued.NotAfter;
            return Convert.ToBase64String(issued.RawData);
        }
    }

    /// <summary>Certifies a device's next key.</summary>
    public async Task<Result<DeviceCertificate>> RenewAsync(string deviceId, RenewCertificate untrusted, X509Certificate2? untrustedShown, CancellationToken cancellationToken)
    {
        if (!PublicKeys.TryRead(untrusted.TlsKey, out _))
        {
            return DeviceErrors.RequestInvalid("'tlsKey' is not a P-256 key");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var device = await database.Devices.SingleAsync(row => row.Id == deviceId, cancellationToken);
        if (device.RevokedAt is not null)
        {
            return DeviceErrors.Revoked; // since it was let in
        }

        var shown = untrustedShown is not null && Check(untrustedShown, device) is null ? SerialOf(untrustedShown) : null;
        if (Issue(device, untrusted.TlsKey, shown) is not { } certificate)
        {
            return DeviceErrors.NoTls;
        }

        await audit.AppendAsync("device:" + device.Id, "device.certificate", device.Id, string.Create(CultureInfo.InvariantCulture, $"{device.CertificateSerial} until {device.CertificateEndsAt:u}"), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new DeviceCertificate(certificate);
    }

    /// <summary>Why a request may not go on with what its connection showed; null: it may. A connection without TLS comes from a proxy, or from this computer.</summary>
    public Failure? Check(HttpContext context, DeviceRow device)
    {
        if (context.Features.Get<ITlsConnectionFeature>() is not { } tls || context.GetEndpoint()?.Metadata.GetMetadata<WithoutCertificate>() is not null)
        {
            return null;
        }

        if (device.RevokedAt is not null)
        {
            return null; // it comes for its last orders, and gets no certificate any more: its signed token is enough for them
        }

        return tls.ClientCertificate is { } untrusted ? Check(untrusted, device) : DeviceErrors.Certificate("the device shows no certificate");
    }

    private Failure? Check(X509Certificate2 untrusted, DeviceRow device)
    {
        if (!authority.Vouches(untrusted, Purpose, out var isOver))
        {
            return DeviceErrors.Certificate(isOver
                ? string.Create(CultureInfo.InvariantCulture, $"the device's certificate ended on {untrusted.NotAfter.ToUniversalTime():u}")
                : "the device's certificate is not one of this organisation's authority");
        }

        if (untrusted.GetNameInfo(X509NameType.SimpleName, forIssuer: false) != device.Id)
        {
            return DeviceErrors.Certificate("the certificate is another device's than the token");
        }

        var serial = SerialOf(untrusted);
        return serial == device.CertificateSerial || serial == device.CertificateBefore ? null : DeviceErrors.Certificate("the device's certificate was replaced by a newer one");
    }

    private static string SerialOf(X509Certificate2 certificate) => Text.Hex(certificate.SerialNumberBytes.Span);
}
