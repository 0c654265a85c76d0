using System.Net;
using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>With which certificate the server answers: the administrator's, read again when its file changes, or one of the organisation's own authority, made in memory
/// and made anew once two thirds of its life are over.</summary>
internal sealed class ServerCertificates(ServerOptions options, Authority authority, TimeProvider time, ILogger<ServerCertificates> logger) : IDisposable
{
    public const string Purpose = "1.3.6.1.5.5.7.3.1"; // serverAuth
    private static readonly TimeSpan Life = TimeSpan.FromDays(90), BetweenLooks = TimeSpan.FromMinutes(1);
    private readonly Lock gate = new();
    private Answer? current;

    /// <summary>Whose certificates devices are to believe the server, PEM; null: those that their computers trust.</summary>
    public string? Authorities { get; private set; }

    /// <summary>Reads what the administrator gave.</summary>
    /// <exception cref="NacreException">FileAccess: it can't be read, or is no certificate with its key.</exception>
    public void Prepare()
    {
        Authorities = options.AuthoritiesFile is { } file ? ReadAuthorities(file) : options.IsTls && options.CertificateFile is null ? authority.Certificate.ExportCertificatePem() : null;
        if (options.IsTls)
        {
            current = Make();
        }
    }

    /// <summary>What a connection that begins now is answered with.</summary>
    public SslServerAuthenticationOptions Current()
    {
        lock (gate)
        {
            var now = time.Now();
            if (now >= current!.LookAgainAt)
            {
                try
                {
                    var before = current;
                    current = options.CertificateFile is null || File.GetLastWriteTimeUtc(options.CertificateFile) != before.WrittenAt ? Make() : before with { LookAgainAt = now + BetweenLooks };
                }
                catch (Exception exception) when (exception is NacreException or IOException or UnauthorizedAccessException)
                {
                    logger.CertificateNotRead(exception); // half written, perhaps: the one that there is goes on
                    current = current with { LookAgainAt = now + BetweenLooks };
                }
            }

            return current.Options;
        }
    }

    public void Dispose() => current?.Certificate.Dispose();

    private Answer Make()
    {
        var now = time.Now();
        if (options.CertificateFile is null)
        {
            var own = MakeOwn(out var ends);
            return new Answer(OptionsFor(own, []), own, now + ((ends - now) * 2 / 3), default);
        }

        var written = File.GetLastWriteTimeUtc(options.CertificateFile);
        try
        {
            var chain = new X509Certificate2Collection();
            chain.ImportFromPemFile(options.CertificateFile);
            var given = X509Certificate2.CreateFromPemFile(options.CertificateFile, options.CertificateKeyFile);
            return new Answer(OptionsFor(given, chain), given, now + BetweenLooks, written);
        }
        catch (Exception exception) when (exception is CryptographicException or ArgumentException or IOException or UnauthorizedAccessException)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"'{options.CertificateFile}' and '{options.CertificateKeyFile}' are not a certificate and its key, PEM: {exception.Message}", exception);
        }
    }

    private X509Certificate2 MakeOwn(out DateTimeOffset ends)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var name = new X500DistinguishedNameBuilder();
        name.AddCommonName("Nacre server");
        var names = new SubjectAlternativeNameBuilder();
        foreach (var one in options.CertifiedNames)
        {
            if (IPAddress.TryParse(one, out var address))
            {
                names.AddIpAddress(address);
            }
            else
            {
                names.AddDnsName(one);
            }
        }

        var request = new CertificateRequest(name.Build(), key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(names.Build());
        using var issued = authority.Issue(request, Purpose, Life);
        ends = issued.NotAfter;
        return issued.CopyWithPrivateKey(key);
    }

    /// <summary>A certificate of the device's is asked for and looked at with the request (<see cref="DeviceCertificates"/>): administrators and devices that enrol have none.</summary>
    private SslServerAuthenticationOptions OptionsFor(X509Certificate2 certificate, X509Certificate2Collection chain) => new()
    {
        ServerCertificateContext = SslStreamCertificateContext.Create(
            certificate, chain, offline: true, SslCertificateTrust.CreateForX509Collection([authority.Certificate], sendTrustInHandshake: true)),
        EnabledSslProtocols = SslProtocols.Tls13,
        ClientCertificateRequired = true,
#pragma warning disable CA5359 // It is the device's, and judged with the request, where a refusal can be said and written down.
        RemoteCertificateValidationCallback = static (_, _, _, _) => true,
#pragma warning restore CA5359
        CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
        AllowTlsResume = false, // each connection shows its certificate itself
    };

    private static string ReadAuthorities(string file)
    {
        try
        {
            var read = new X509Certificate2Collection();
            read.ImportFromPemFile(file);
            return read.Count > 0 ? read.ExportCertificatePems() : throw new NacreException(ErrorCatalogue.FileAccess, $"'{file}' has no certificate, PEM");
        }
        catch (Exception exception) when (exception is CryptographicException or IOException or UnauthorizedAccessException)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"'{file}' can't be read as certificates, PEM: {exception.Message}", exception);
        }
    }

    private sealed record Answer(SslServerAuthenticationOptions Options, X509Certificate2 Certificate, DateTimeOffset LookAgainAt, DateTime WrittenAt);
}
