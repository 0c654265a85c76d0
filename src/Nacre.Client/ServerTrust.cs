using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Nacre.Contracts;

namespace Nacre.Client;

/// <summary>Whose certificates a client believes a server. Thread-safe.</summary>
public sealed class ServerTrust
{
    private const string ServerPurpose = "1.3.6.1.5.5.7.3.1";
    private readonly X509Certificate2Collection? authorities;
    private readonly bool believesAnyone;
    private volatile Seen? seen;

    private ServerTrust(X509Certificate2Collection? authorities, bool believesAnyone)
    {
        this.authorities = authorities;
        this.believesAnyone = believesAnyone;
    }

    /// <summary>The authorities that this computer trusts.</summary>
    public static ServerTrust System => new(null, believesAnyone: false);

    /// <summary>These authorities and no other.</summary>
    /// <param name="untrustedPem">Their certificates, PEM; null: <see cref="System"/>.</param>
    /// <exception cref="NacreException"><see cref="ErrorCatalogue.FileAccess"/>: it has none, or one that can't be read.</exception>
    public static ServerTrust Of(string? untrustedPem)
    {
        if (untrustedPem is null)
        {
            return System;
        }

        var read = new X509Certificate2Collection();
        try
        {
            read.ImportFromPem(untrustedPem);
        }
        catch (CryptographicException exception)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"the authority's certificate can't be read: {exception.Message}", exception);
        }

        return read.Count > 0 ? new ServerTrust(read, believesAnyone: false) : throw new NacreException(ErrorCatalogue.FileAccess, "there is no certificate of an authority, PEM");
    }

    /// <summary>Whoever answers, for one who proves himself otherwise: <see cref="NacreClient.EnrolAsync"/> judges the certificate afterwards.</summary>
    public static ServerTrust ByCode() => new(null, believesAnyone: true);

    /// <summary>The authorities that are believed, PEM; null: those that this computer trusts.</summary>
    public string? Authorities => authorities?.ExportCertificatePems();

    /// <summary>Why the last certificate was refused; null: it was not.</summary>
    internal string? Problem => seen?.Problem;

    /// <summary>Why the server that answered is not one that these vouch for; null: it is, or there was no TLS.</summary>
    internal string? ProblemOfLast(ServerTrust others, TimeProvider time) => seen is { } last ? others.Judge(last.Certificate, last.Chain, last.Errors, time) : null;

    /// <summary>How connections begin.</summary>
    /// <param name="own">The certificate to show where one is asked for; null: none.</param>
    /// <param name="time">The clock.</param>
    public SslClientAuthenticationOptions Options(Func<X509Certificate2?>? own, TimeProvider time)
    {
        var options = new SslClientAuthenticationOptions
        {
            // What the organisation's own authority certifies speaks 1.3; proxies may not yet.
            EnabledSslProtocols = authorities is null ? SslProtocols.Tls12 | SslProtocols.Tls13 : SslProtocols.Tls13,
            CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
            CertificateChainPolicy = new X509ChainPolicy { DisableCertificateDownloads = true, RevocationMode = X509RevocationMode.NoCheck },
            AllowTlsResume = false,
            RemoteCertificateValidationCallback = (_, certificate, chain, errors) =>
            {
                // By itself the framework would judge by this computer's authorities and its own clock; of its judgement only the name's counts.
                using var copy = certificate is null ? null : X509CertificateLoader.LoadCertificate(certificate.GetRawCertData());
                var sent = chain?.ChainPolicy.ExtraStore.Select(one => X509CertificateLoader.LoadCertificate(one.RawData)).ToArray() ?? [];
                var problem = believesAnyone ? null : Judge(copy?.RawData, sent, errors, time);
                seen = new Seen(copy?.RawData, sent, errors, problem);
                return problem is null;
            },
        };
        if (own is not null)
        {
            options.LocalCertificateSelectionCallback = (_, _, _, _, _) => own()!;
        }

        return options;
    }

    private string? Judge(byte[]? untrusted, IEnumerable<X509Certificate2> sent, SslPolicyErrors errors, TimeProvider time)
    {
        if (untrusted is null)
        {
            return "it shows no certificate";
        }

        using var certificate = X509CertificateLoader.LoadCertificate(untrusted);
        if ((errors & SslPolicyErrors.RemoteCertificateNameMismatch) != 0)
        {
            return $"its certificate is for {Names(certificate)}";
        }

        using var chain = new X509Chain();
        var policy = chain.ChainPolicy;
        policy.RevocationMode = X509RevocationMode.NoCheck;
        policy.DisableCertificateDownloads = true;
        policy.VerificationTime = time.GetUtcNow().UtcDateTime;
        policy.ApplicationPolicy.Add(new Oid(ServerPurpose));
        policy.ExtraStore.AddRange(sent.ToArray());
        if (authorities is not null)
        {
            policy.TrustMode = X509ChainTrustMode.CustomRootTrust;
            policy.CustomTrustStore.AddRange(authorities);
        }

        return chain.Build(certificate) ? null
            : chain.ChainStatus.All(status => status.Status == X509ChainStatusFlags.NotTimeValid) ? $"its certificate is for another time, {certificate.NotBefore.ToUniversalTime():u} to {certificate.NotAfter.ToUniversalTime():u}"
            : authorities is null ? "its certificate is not one of an authority that this computer trusts" : "its certificate is not one of the authority that it must be of";
    }

    private static string Names(X509Certificate2 certificate)
    {
        var names = certificate.Extensions.OfType<X509SubjectAlternativeNameExtension>().SelectMany(extension => extension.EnumerateDnsNames().Concat(extension.EnumerateIPAddresses().Select(address => address.ToString()))).Take(5).ToArray();
        return names.Length == 0 ? "another name" : string.Join(", ", names);
    }

    private sealed record Seen(byte[]? Certificate, X509Certificate2[] Chain, SslPolicyErrors Errors, string? Problem);
}
