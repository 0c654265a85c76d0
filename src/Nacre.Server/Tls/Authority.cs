using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.EntityFrameworkCore;

namespace Nacre.Server;

/// <summary>The organisation's own certificate authority: made at the first start, its key encrypted in the database, the same for all servers of it. It certifies servers
/// and devices, and nothing below it.</summary>
internal sealed class Authority(SecretBox secrets, TimeProvider time) : IDisposable
{
    private const string KeySetting = "authority-key", CertificateSetting = "authority-certificate";
    private const int SerialLength = 16;
    private static readonly TimeSpan Life = TimeSpan.FromDays(30 * 365);

    /// <summary>Certificates begin earlier than they are made: the clocks of devices may be behind.</summary>
    private static readonly TimeSpan Earlier = TimeSpan.FromDays(1);
    private readonly Lock gate = new();

    /// <summary>What it vouched for, for as long as the connections last that showed it: a device asks often on one.</summary>
    private readonly ConditionalWeakTable<X509Certificate2, string> vouched = [];
    private ECDsa? key;
    private X509Certificate2? certificate;

    /// <summary>Its own certificate; devices keep it.</summary>
    public X509Certificate2 Certificate => certificate ?? throw new InvalidOperationException("the server has not started");

    public async Task EnsureAsync(NacreDatabase database, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var kept = await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == CertificateSetting, cancellationToken);
        key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        if (kept is null)
        {
            certificate = Make(key, time.Now());
            var fresh = key.ExportPkcs8PrivateKey();
            database.Settings.Add(new SettingRow { Name = KeySetting, Value = Convert.ToBase64String(secrets.Protect(fresh, KeySetting)) });
            database.Settings.Add(new SettingRow { Name = CertificateSetting, Value = Convert.ToBase64String(certificate.RawData) });
            CryptographicOperations.ZeroMemory(fresh);
            await database.SaveChangesAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        else
        {
            var setting = await database.Settings.AsNoTracking().SingleAsync(row => row.Name == KeySetting, cancellationToken);
            var pkcs8 = secrets.Reveal(Convert.FromBase64String(setting.Value), KeySetting);
            key.ImportPkcs8PrivateKey(pkcs8, out _);
            CryptographicOperations.ZeroMemory(pkcs8);
            certificate = X509CertificateLoader.LoadCertificate(Convert.FromBase64String(kept.Value));
        }
    }

    /// <summary>Certifies a key for one purpose. What the certificate says is the caller's to have checked.</summary>
    /// <param name="request">Subject, key, and extensions beyond those that every certificate has.</param>
    /// <param name="purpose">The object identifier of what it may be used for.</param>
    /// <param name="life">How long it lasts from now.</param>
    public X509Certificate2 Issue(CertificateRequest request, string purpose, TimeSpan life)
    {
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: false, hasPathLengthConstraint: false, 0, critical: true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, critical: true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid(purpose)], critical: true));
        request.CertificateExtensions.Add(X509AuthorityKeyIdentifierExtension.CreateFromCertificate(Certificate, includeKeyIdentifier: true, includeIssuerAndSerial: false));
        var now = time.Now();
        lock (gate) // the framework's keys are not for several threads at once
        {
            return request.Create(Certificate.SubjectName, X509SignatureGenerator.CreateForECDsa(key!), now - Earlier, now + life, Serial());
        }
    }

    /// <summary>Whether this authority certified it for that purpose, and its time is now.</summary>
    public bool Vouches(X509Certificate2 untrusted, string purpose, out bool isOver)
    {
        var now = time.Now();
        if (vouched.TryGetValue(untrusted, out var before) && before == purpose && IsTime(untrusted, now) && IsTime(Certificate, now))
        {
            isOver = false;
            return true;
        }

        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.Add(Certificate);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck; // what was taken back is in the database
        chain.ChainPolicy.DisableCertificateDownloads = true;
        chain.ChainPolicy.VerificationTime = now.UtcDateTime;
        chain.ChainPolicy.ApplicationPolicy.Add(new Oid(purpose));
        var good = chain.Build(untrusted);
        isOver = !good && chain.ChainStatus.All(status => status.Status == X509ChainStatusFlags.NotTimeValid);
        if (good)
        {
            vouched.AddOrUpdate(untrusted, purpose);
        }

        return good;
    }

    private static bool IsTime(X509Certificate2 certificate, DateTimeOffset now) => now >= certificate.NotBefore && now < certificate.NotAfter;

    public void Dispose()
    {
        key?.Dispose();
        certificate?.Dispose();
    }

    private static byte[] Serial()
    {
        var serial = RandomNumberGenerator.GetBytes(SerialLength);
        serial[0] = (byte)((serial[0] & 0x3F) | 0x40); // positive, and of one length
        return serial;
    }

    private static X509Certificate2 Make(ECDsa key, DateTimeOffset now)
    {
        var name = new X500DistinguishedNameBuilder();
        name.AddCommonName("Nacre authority " + Text.Hex(RandomNumberGenerator.GetBytes(8)));
        var request = new CertificateRequest(name.Build(), key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: true, hasPathLengthConstraint: true, 0, critical: true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign, critical: true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, critical: false));
        using var made = request.Create(request.SubjectName, X509SignatureGenerator.CreateForECDsa(key), now - Earlier, now + Life, Serial());
        return X509CertificateLoader.LoadCertificate(made.RawData);
    }
}
