using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>The organisation's own authority, the server's certificate and the devices': over real sockets.</summary>
public class TlsTests
{
    private const string ForClients = "1.3.6.1.5.5.7.3.2", ForServers = "1.3.6.1.5.5.7.3.1";

    internal sealed record Enrolled(EnrolledDevice Device, DeviceKey Key, X509Certificate2 Certificate);

    internal static async Task<Enrolled> EnrolAsync(World world)
    {
        var key = DeviceKey.Create();
        using var tls = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var device = await world.Nobody.EnrolAsync(await world.CodeAsync(), "laptop", key, PublicKeys.From(tls));
        using var issued = X509CertificateLoader.LoadCertificate(Convert.FromBase64String(device.Certificate!));
        return new Enrolled(device, key, issued.CopyWithPrivateKey(tls));
    }

    private static async Task<X509Certificate2> RenewAsync(NacreClient client)
    {
        using var tls = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var answer = await client.RenewCertificateAsync(PublicKeys.From(tls));
        using var issued = X509CertificateLoader.LoadCertificate(Convert.FromBase64String(answer.Certificate));
        return issued.CopyWithPrivateKey(tls);
    }

    internal static async Task<HttpResponseMessage> AskAsync(World world, Enrolled who, X509Certificate2? certificate, string method = "GET", string path = "/v1/device/livepcs")
    {
        using var http = world.Open(certificate);
        var body = method == "GET" ? [] : "{}"u8.ToArray();
        using var request = new HttpRequestMessage(new HttpMethod(method), path) { Content = method == "GET" ? null : new ByteArrayContent(body) };
        request.Content?.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", who.Key.SignToken(who.Device.DeviceId, method, path, body, world.Time.GetUtcNow()));
        return await http.SendAsync(request);
    }

    /// <summary>An authority that calls itself like another.</summary>
    private static X509Certificate2 Authority(string name)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest(name, key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        return request.CreateSelfSigned(new DateTimeOffset(2020, 1, 1, 0, 0, 0, TimeSpan.Zero), new DateTimeOffset(2050, 1, 1, 0, 0, 0, TimeSpan.Zero));
    }

    private static X509Certificate2 Issue(X509Certificate2 authority, string name, string purpose)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest(name, key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid(purpose)], true));
        var names = new SubjectAlternativeNameBuilder();
        names.AddIpAddress(IPAddress.Loopback);
        request.CertificateExtensions.Add(names.Build());
        using var issued = request.Create(authority, new DateTimeOffset(2020, 1, 1, 0, 0, 0, TimeSpan.Zero), new DateTimeOffset(2050, 1, 1, 0, 0, 0, TimeSpan.Zero), RandomNumberGenerator.GetBytes(8));
        return issued.CopyWithPrivateKey(key);
    }

    private static async Task<X509Certificate2> ShownByAsync(World world)
    {
        using var connection = new TcpClient();
        await connection.ConnectAsync(IPAddress.Loopback, world.Url.Port);
        X509Certificate2? shown = null;
#pragma warning disable CA5359 // It is looked at, not believed.
        await using var stream = new SslStream(connection.GetStream(), false, (_, certificate, _, _) =>
        {
            shown = X509CertificateLoader.LoadCertificate(certificate!.GetRawCertData());
            return true;
        });
#pragma warning restore CA5359
        await stream.AuthenticateAsClientAsync("127.0.0.1");
        Assert.Equal(SslProtocols.Tls13, stream.SslProtocol);
        return shown!;
    }

    [Fact]
    public async Task A_device_with_its_certificate_is_let_in_and_its_certificate_is_listed()
    {
        await using var world = await StartTlsAsync();
        var ann = await EnrolAsync(world);
        using var client = world.As(ann.Device, ann.Key, ann.Certificate);
        Assert.Empty(await client.ListEntitledLivePcsAsync());
        Assert.Equal($"CN={ann.Device.DeviceId}", ann.Certificate.Subject);
        Assert.Equal(TimeSpan.FromDays(90), ann.Certificate.NotAfter - world.Time.GetUtcNow());
        var listed = await world.Admin.GetDeviceAsync(ann.Device.DeviceId);
        Assert.Equal((ann.Certificate.SerialNumber.ToLowerInvariant(), ann.Certificate.NotAfter), (listed.CertificateSerial, listed.CertificateEndsAt!.Value.LocalDateTime));
        Assert.False(listed.Waiting);
    }

    [Fact]
    public async Task Every_endpoint_for_devices_refuses_who_shows_no_certificate_or_a_wrong_one()
    {
        await using var world = await StartTlsAsync();
        await using var elsewhere = await StartInsideAsync(world);
        var ann = await EnrolAsync(world);
        var bob = await EnrolAsync(world);
        var stranger = await EnrolAsync(elsewhere);
        using var own = X509CertificateLoader.LoadCertificate(Convert.FromBase64String(await AuthorityOfAsync(world)));
        using var impostor = Authority(own.Subject);
        using var forged = Issue(impostor, $"CN={ann.Device.DeviceId}", ForClients);
        using var selfSigned = Authority($"CN={ann.Device.DeviceId}");
        var endpoints = world.App.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .Select(endpoint => (Method: endpoint.Metadata.GetMetadata<IHttpMethodMetadata>()!.HttpMethods[0], Path: "/" + endpoint.RoutePattern.RawText!.TrimStart('/')))
            .Where(one => one.Path.StartsWith("/v1/device/", StringComparison.Ordinal) && one.Path != "/v1/device/certificate").ToList();
        Assert.InRange(endpoints.Count, 7, 100);
        foreach (var (method, pattern) in endpoints)
        {
            var path = pattern.Replace("{name}", "desk", StringComparison.Ordinal);
            foreach (var (wrong, why) in new (X509Certificate2?, string)[]
            {
                (null, "shows no certificate"), (selfSigned, "not one of this organisation"), (forged, "not one of this organisation"), (stranger.Certificate, "not one of this organisation"), (bob.Certificate, "another device"),
            })
            {
                using var refused = await AskAsync(world, ann, wrong, method, path);
                Assert.Contains(why, (await ProblemAsync(refused, ErrorCatalogue.CertificateRefused)).Detail, StringComparison.Ordinal);
            }
        }

        // The other way round, too: a stolen certificate with its key does not make ann's token bob's.
        await ProblemAsync(await AskAsync(world, bob, ann.Certificate), ErrorCatalogue.CertificateRefused);
        Assert.Contains((await world.Admin.GetAuditAsync()).Entries, entry => entry.Action == "sign-in" && entry.Actor == $"device:{ann.Device.DeviceId}" && entry.Detail.StartsWith("E_CERTIFICATE_REFUSED", StringComparison.Ordinal));
        using (var client = world.As(ann.Device, ann.Key, ann.Certificate))
        {
            Assert.Empty(await client.ListEntitledLivePcsAsync());
            await world.Admin.RevokeDeviceAsync(ann.Device.DeviceId);

            // On the connection that is open already.
            await FailsAsync(ErrorCatalogue.DeviceRevoked, client.ListEntitledLivePcsAsync());
            await FailsAsync(ErrorCatalogue.DeviceRevoked, RenewAsync(client));
        }

        // And one whose time ends while its connection stays.
        using var staying = world.As(bob.Device, bob.Key, bob.Certificate);
        Assert.Empty(await staying.ListEntitledLivePcsAsync());
        world.Time.Advance(TimeSpan.FromDays(91));
        await FailsAsync(ErrorCatalogue.CertificateRefused, staying.ListEntitledLivePcsAsync());
        Assert.Contains("ended on", (await ProblemAsync(await AskAsync(world, bob, bob.Certificate), ErrorCatalogue.CertificateRefused)).Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_certificate_of_the_authority_for_servers_is_not_a_devices()
    {
        await using var world = await StartTlsAsync();
        var ann = await EnrolAsync(world);
        var authority = world.App.Services.GetRequiredService<Authority>();
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var issued = authority.Issue(new CertificateRequest($"CN={ann.Device.DeviceId}", key, HashAlgorithmName.SHA256), ForServers, TimeSpan.FromDays(1));
        using var wrong = issued.CopyWithPrivateKey(key);
        await ProblemAsync(await AskAsync(world, ann, wrong), ErrorCatalogue.CertificateRefused);

        // One for clients that is not on the device's record is not enough either.
        using var unrecorded = authority.Issue(new CertificateRequest($"CN={ann.Device.DeviceId}", key, HashAlgorithmName.SHA256), ForClients, TimeSpan.FromDays(1));
        using var other = unrecorded.CopyWithPrivateKey(key);
        await ProblemAsync(await AskAsync(world, ann, other), ErrorCatalogue.CertificateRefused);
    }

    [Fact]
    public async Task A_certificate_is_renewed_and_an_interrupted_renewal_loses_nothing()
    {
        await using var world = await StartTlsAsync();
        var ann = await EnrolAsync(world);
        using var client = world.As(ann.Device, ann.Key, ann.Certificate);
        world.Time.Advance(TimeSpan.FromDays(61));

        // The answer is lost twice: what the device has goes on.
        (await RenewAsync(client)).Dispose();
        (await RenewAsync(client)).Dispose();
        Assert.Empty(await client.ListEntitledLivePcsAsync());
        using var next = await RenewAsync(client);
        Assert.Equal(TimeSpan.FromDays(90), next.NotAfter - world.Time.GetUtcNow());
        using var renewed = world.As(ann.Device, ann.Key, next);
        Assert.Empty(await renewed.ListEntitledLivePcsAsync());

        // Once the next one follows on that, the first is over before its time.
        using var third = await RenewAsync(renewed);
        using var old = await AskAsync(world, ann, ann.Certificate);
        Assert.Contains("replaced", (await ProblemAsync(old, ErrorCatalogue.CertificateRefused)).Detail, StringComparison.Ordinal);
        var line = (await world.Admin.GetAuditAsync(action: "device.certificate")).Entries[^1];
        Assert.Equal(($"device:{ann.Device.DeviceId}", AuditResult.Done), (line.Actor, line.Result));
        Assert.Contains(third.SerialNumber, line.Detail, StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public async Task A_device_that_comes_back_after_its_certificate_ended_gets_a_new_one_by_its_key_alone()
    {
        await using var world = await StartTlsAsync();
        var ann = await EnrolAsync(world);
        world.Time.Advance(TimeSpan.FromDays(300));
        using var client = world.As(ann.Device, ann.Key, ann.Certificate);
        await FailsAsync(ErrorCatalogue.CertificateRefused, client.ListEntitledLivePcsAsync());
        using var next = await RenewAsync(client);
        using var renewed = world.As(ann.Device, ann.Key, next);
        Assert.Empty(await renewed.ListEntitledLivePcsAsync());

        // Not by another key.
        using var theirs = DeviceKey.Create();
        using var stranger = world.As(ann.Device, theirs, ann.Certificate);
        await FailsAsync(ErrorCatalogue.Unauthenticated, RenewAsync(stranger));
    }

    [Fact]
    public async Task Who_is_in_between_with_another_certificate_is_refused()
    {
        await using var world = await StartTlsAsync();
        var ann = await EnrolAsync(world);
        using var authority = Authority("CN=somebody");
        using var certificate = Issue(authority, "CN=127.0.0.1", ForServers);
        var reached = false;
        await using var middle = await HostilePeer.StartAsync(async context =>
        {
            reached = true;
            using var http = world.Open(null);
            using var forwarded = await http.PostAsync(context.Request.Path.Value, JsonContent.Create(await context.Request.ReadFromJsonAsync<EnrolDevice>(ContractJson.Options), options: ContractJson.Options));
            context.Response.ContentType = "application/json";
            await forwarded.Content.CopyToAsync(context.Response.Body);
        }, certificate);
        var url = new UriBuilder(middle.Url) { Scheme = "https" }.Uri;
        using (var client = new NacreClient(url, Credential.Device(ann.Device.DeviceId, ann.Key, () => ann.Certificate), world.Time, trust: ServerTrust.Of(ann.Device.Authorities)))
        {
            var refused = await FailsAsync(ErrorCatalogue.ServerNotAuthentic, client.ListEntitledLivePcsAsync());
            Assert.Contains("not one of the authority", refused.Message, StringComparison.Ordinal);
            Assert.False(reached);
        }

        // An administrator's token does not reach it either, whether its command line knows the authority or goes by this computer's.
        foreach (var trust in new[] { world.Trust, ServerTrust.System })
        {
            using var admin = new NacreClient(url, Credential.Administrator(world.Token), world.Time, trust: trust);
            await FailsAsync(ErrorCatalogue.ServerNotAuthentic, admin.ListUsersAsync());
            Assert.False(reached);
        }

        // At the enrolment, which passes it: it is named.
        using var key = DeviceKey.Create();
        using var nobody = new NacreClient(url, null, world.Time, trust: ServerTrust.ByCode());
        await FailsAsync(ErrorCatalogue.ServerNotAuthentic, nobody.EnrolAsync(await world.CodeAsync(), "laptop", key, key.PublicKey));
        Assert.True(reached);
    }

    [Theory]
    [InlineData("authority")]
    [InlineData("certificate")]
    [InlineData("waits")]
    public async Task A_network_that_changes_what_the_answer_says_of_certificates_is_noticed(string what)
    {
        await using var world = await StartTlsAsync();
        await using var elsewhere = await StartTlsAsync();
        var code = await world.CodeAsync();
        await using var middle = await HostilePeer.StartAsync(async context =>
        {
            using var http = world.Open(null);
            using var forwarded = await http.PostAsync("/v1/devices", JsonContent.Create(await context.Request.ReadFromJsonAsync<EnrolDevice>(ContractJson.Options), options: ContractJson.Options));
            var answer = (await forwarded.Content.ReadFromJsonAsync<EnrolledDevice>(ContractJson.Options))!;
            await context.Response.WriteAsJsonAsync(what switch
            {
                "authority" => answer with { Authorities = await File.ReadAllTextAsync(Path.Combine(elsewhere.Data, "ca.pem")) },
                "certificate" => answer with { Certificate = null },
                _ => answer with { Waits = true },
            }, ContractJson.Options);
        });
        using var key = DeviceKey.Create();
        using var client = new NacreClient(middle.Url);
        await FailsAsync(ErrorCatalogue.ServerNotAuthentic, client.EnrolAsync(code, "laptop", key, key.PublicKey));
    }

    [Fact]
    public async Task The_servers_certificate_is_made_anew_before_it_ends_and_the_authority_stays()
    {
        await using var world = await StartTlsAsync();
        var ann = await EnrolAsync(world);
        using var first = await ShownByAsync(world);
        using (var again = await ShownByAsync(world))
        {
            Assert.Equal(first.SerialNumber, again.SerialNumber);
        }

        world.Time.Advance(TimeSpan.FromDays(61));
        using var second = await ShownByAsync(world);
        Assert.NotEqual(first.SerialNumber, second.SerialNumber);
        Assert.True(second.NotAfter > first.NotAfter);
        await world.StartAgainAsync();
        using var client = new NacreClient(world.Url, Credential.Device(ann.Device.DeviceId, ann.Key, () => ann.Certificate), world.Time, trust: ServerTrust.Of(ann.Device.Authorities));
        Assert.Empty(await client.ListEntitledLivePcsAsync());

        // Its key is not in the clear.
        var kept = Convert.FromBase64String((string)(await world.SqlAsync("SELECT \"Value\" FROM \"Settings\" WHERE \"Name\" = 'authority-key'"))!);
        using var probe = ECDsa.Create();
        Assert.ThrowsAny<CryptographicException>(() => probe.ImportPkcs8PrivateKey(kept, out _));
    }

    [Fact]
    public async Task A_certificate_for_another_name_is_refused()
    {
        await using var world = await StartTlsAsync();
        using var client = new NacreClient(new UriBuilder(world.Url) { Host = "localhost.localdomain" }.Uri, Credential.Administrator(world.Token), world.Time, trust: world.Trust);
        var exception = await Assert.ThrowsAsync<NacreException>(() => client.ListUsersAsync());
        Assert.True(exception.Kind == ErrorCatalogue.ServerNotAuthentic || exception.Message.Contains("resolve", StringComparison.OrdinalIgnoreCase) || exception.Message.Contains("not known", StringComparison.OrdinalIgnoreCase), exception.Message);
    }

    [Fact]
    public async Task An_older_TLS_is_refused()
    {
        await using var world = await StartTlsAsync();
        using var connection = new TcpClient();
        await connection.ConnectAsync(IPAddress.Loopback, world.Url.Port);
#pragma warning disable CA5359, CA5398 // That is the test.
        await using var stream = new SslStream(connection.GetStream(), false, (_, _, _, _) => true);
        await Assert.ThrowsAnyAsync<Exception>(() => stream.AuthenticateAsClientAsync("127.0.0.1", null, SslProtocols.Tls12, false));
#pragma warning restore CA5359, CA5398
    }

    [Fact]
    public async Task An_administrators_own_certificate_is_served_and_read_again_when_it_changes()
    {
        using var folder = new TemporaryDirectory();
        using var authority = Authority("CN=the company's");
        Write();
        await File.WriteAllTextAsync(folder["ca.pem"], authority.ExportCertificatePem());
        await using var world = await StartTlsAsync(options => options with { CertificateFile = folder["cert.pem"], CertificateKeyFile = folder["key.pem"], AuthoritiesFile = folder["ca.pem"] });
        var ann = await EnrolAsync(world);
        Assert.Equal(authority.Thumbprint, X509Certificate2.CreateFromPem(ann.Device.Authorities).Thumbprint);
        using var client = world.As(ann.Device, ann.Key, ann.Certificate);
        Assert.Empty(await client.ListEntitledLivePcsAsync());
        using var first = await ShownByAsync(world);
        Assert.Equal(authority.Subject, first.Issuer);

        // Half written: the one that there is goes on.
        await File.WriteAllTextAsync(folder["cert.pem"], "-----BEGIN");
        File.SetLastWriteTimeUtc(folder["cert.pem"], TimeProvider.System.GetUtcNow().UtcDateTime.AddMinutes(1));
        world.Time.Advance(TimeSpan.FromMinutes(2));
        using (var same = await ShownByAsync(world))
        {
            Assert.Equal(first.SerialNumber, same.SerialNumber);
        }

        Write();
        File.SetLastWriteTimeUtc(folder["cert.pem"], TimeProvider.System.GetUtcNow().UtcDateTime.AddMinutes(2));
        world.Time.Advance(TimeSpan.FromMinutes(2));
        using var second = await ShownByAsync(world);
        Assert.NotEqual(first.SerialNumber, second.SerialNumber);

        void Write()
        {
            using var certificate = Issue(authority, "CN=nacre", ForServers);
            File.WriteAllText(folder["key.pem"], certificate.GetECDsaPrivateKey()!.ExportPkcs8PrivateKeyPem());
            File.WriteAllText(folder["cert.pem"], certificate.ExportCertificatePem());
        }
    }

    [Theory]
    [InlineData("https://0.0.0.0:0", null, null, null)]
    [InlineData("https://nacre.example:0", "nacre.example", null, null)]
    [InlineData("https://0.0.0.0:0", "a name", null, null)]
    [InlineData("https://127.0.0.1:0", null, "cert.pem", null)]
    [InlineData("https://127.0.0.1:0", null, null, "key.pem")]
    [InlineData("http://127.0.0.1:0", "nacre.example", null, null)]
    [InlineData("http://127.0.0.1:0", null, "cert.pem", "key.pem")]
    [InlineData("ftp://127.0.0.1:0", null, null, null)]
    public void Options_that_make_no_sense_are_refused(string listen, string? name, string? certificate, string? key)
    {
        using var folder = new TemporaryDirectory();
        var options = new ServerOptions { DataDirectory = folder["data"], Listen = listen, Names = name is null ? [] : [name], CertificateFile = certificate, CertificateKeyFile = key };
        Assert.Equal(ErrorCatalogue.UsageInvalid, Assert.Throws<NacreException>(() => NacreServer.Create(options)).Kind);
    }

    [Fact]
    public async Task Without_TLS_of_its_own_the_server_gives_no_certificates_and_the_token_alone_counts()
    {
        await using var world = await StartAsync();
        using var key = DeviceKey.Create();
        using var tls = DeviceKey.Create();
        var device = await world.Nobody.EnrolAsync(await world.CodeAsync(), "laptop", key, tls.PublicKey);
        Assert.Equal((null, null), (device.Certificate, device.Authorities));
        using var client = world.As(device, key);
        Assert.Empty(await client.ListEntitledLivePcsAsync());
        await FailsAsync(ErrorCatalogue.RequestInvalid, client.RenewCertificateAsync(tls.PublicKey));
    }

    private static async Task<string> AuthorityOfAsync(World world) => (string)(await world.SqlAsync("SELECT \"Value\" FROM \"Settings\" WHERE \"Name\" = 'authority-certificate'"))!;
}
