using System.Diagnostics;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Security;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>Several organisations on one server. That no endpoint lets in another organisation's people and devices is in <see cref="RoleTests"/> and <see cref="TlsTests"/>.</summary>
public class OrganisationTests
{
    private static OrganisationSettings Settings(params string[] hosts) => new("Org", hosts);

    /// <summary>Asks the listener for a name.</summary>
    private static async Task<HttpResponseMessage> AskAsync(World world, string host, string path = "/v1/server", string? bearer = null)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, path);
        request.Headers.Host = host;
        request.Headers.Authorization = bearer is null ? null : new AuthenticationHeaderValue("Bearer", bearer);
        return await world.Http.SendAsync(request);
    }

    private static async Task<string> NameAsync(World world, string host)
    {
        using var response = await AskAsync(world, host);
        return response.IsSuccessStatusCode ? JsonSerializer.Deserialize<ServerInfo>(await response.Content.ReadAsStringAsync(), ContractJson.Options)!.Organisation : $"{(int)response.StatusCode}";
    }

    /// <summary>What is answered to bytes as they are.</summary>
    private static async Task<string> RawAsync(World world, string request)
    {
        using var connection = new TcpClient();
        await connection.ConnectAsync(IPAddress.Loopback, world.Url.Port);
        await connection.GetStream().WriteAsync(Encoding.ASCII.GetBytes(request));
        using var reader = new StreamReader(connection.GetStream());
        return await reader.ReadToEndAsync();
    }

    [Fact]
    public async Task A_name_leads_to_its_organisation_and_every_other_one_to_the_servers_own()
    {
        await using var world = await StartAsync();
        await using var acme = await StartInsideAsync(world);
        foreach (var (host, expected) in new[] { ("localhost", "Acme"), ("LOCALHOST", "Acme"), ("localhost:9", "Acme"), ("127.0.0.1", "Müller & Co"), ("acme", "Müller & Co"), ("localhost.", "Müller & Co"), ("x.localhost", "Müller & Co") })
        {
            Assert.Equal((host, expected), (host, await NameAsync(world, host)));
        }

        // What else a request may say of where it wants to go says nothing.
        using var forwarded = new HttpRequestMessage(HttpMethod.Get, "/v1/server");
        forwarded.Headers.Add("X-Forwarded-Host", "localhost");
        forwarded.Headers.Add("Forwarded", "host=localhost");
        Assert.Contains("ller", await (await world.Http.SendAsync(forwarded)).Content.ReadAsStringAsync(), StringComparison.Ordinal);
        Assert.Contains("Acme", await RawAsync(world, "GET http://localhost/v1/server HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 400", await RawAsync(world, "GET http://localhost/v1/server HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"), StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 400", await RawAsync(world, "GET /v1/server HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Two_organisations_share_nothing_not_even_what_has_the_same_name()
    {
        await using var world = await StartAsync();
        await using var acme = await StartInsideAsync(world);
        var (first, firstKey, firstClient) = await world.EnrolAsync("ann");
        var (second, _, secondClient) = await acme.EnrolAsync("ann");
        var segment = await world.UploadAsync();
        await world.PublishAsync();
        await world.EntitleAsync();

        Assert.Equal("debian", Assert.Single(await world.Admin.ListImagesAsync()).Name);
        Assert.Empty(await acme.Admin.ListImagesAsync());
        Assert.Equal(first.DeviceId, Assert.Single(await world.Admin.ListDevicesAsync()).Id);
        Assert.Equal(second.DeviceId, Assert.Single(await acme.Admin.ListDevicesAsync()).Id);
        Assert.Single(await firstClient.ListEntitledLivePcsAsync());
        Assert.Empty(await secondClient.ListEntitledLivePcsAsync());

        // Segments are given to whoever knows their name: but not the other organisation's.
        Assert.Equal(HttpStatusCode.OK, (await world.SendAsync("GET", $"v1/segments/{segment.Name}")).StatusCode);
        Assert.Equal(HttpStatusCode.NotFound, (await acme.SendAsync("GET", $"v1/segments/{segment.Name}")).StatusCode);
        Assert.Equal([segment.Name], await acme.Admin.FindMissingSegmentsAsync([segment.Name]));

        // A device that asks the wrong one is a stranger there, and that is written down there.
        using var strayed = new NacreClient(acme.Url, Credential.Device(first.DeviceId, firstKey, () => null), world.Time);
        await FailsAsync(ErrorCatalogue.Unauthenticated, strayed.ListEntitledLivePcsAsync());
        foreach (var token in new[] { world.Token, acme.Token })
        {
            Assert.Equal(token == world.Token ? HttpStatusCode.OK : HttpStatusCode.Unauthorized, (await world.SendAsync("GET", "v1/users", token)).StatusCode);
            Assert.Equal(token == acme.Token ? HttpStatusCode.OK : HttpStatusCode.Unauthorized, (await acme.SendAsync("GET", "v1/users", token)).StatusCode);
        }

        Assert.NotEqual((await world.Admin.GetTrustAsync()).OnlineKey.X, (await acme.Admin.GetTrustAsync()).OnlineKey.X);
        Assert.True(Directory.Exists(Path.Combine(acme.Data, "keys")));
        Assert.NotEmpty(Directory.GetFiles(Path.Combine(acme.Data, "keys")).Select(Path.GetFileName));
        Assert.Empty(Directory.GetFiles(Path.Combine(acme.Data, "keys")).Select(Path.GetFileName).Intersect(Directory.GetFiles(Path.Combine(world.Data, "keys")).Select(Path.GetFileName)));
    }

    [Fact]
    public async Task A_connection_is_answered_with_its_organisations_certificate_and_carries_no_request_to_another()
    {
        await using var world = await StartTlsAsync();
        await using var acme = await StartInsideAsync(world);
        Assert.NotEqual(await File.ReadAllTextAsync(Path.Combine(world.Data, "ca.pem")), await File.ReadAllTextAsync(Path.Combine(acme.Data, "ca.pem")));

        // Each is believed by its own people, and the other's do not believe it.
        Assert.Empty(await acme.Admin.ListDevicesAsync());
        using (var mistaken = new NacreClient(acme.Url, Credential.Administrator(world.Token), world.Time, trust: world.Trust))
        {
            await Assert.ThrowsAsync<NacreException>(() => mistaken.ListUsersAsync());
        }

        // Opened to the one, it asks for the other: with either's credential.
        foreach (var (opened, host) in new[] { (world, "localhost"), (acme, "127.0.0.1"), (acme, "nobody.example") })
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, "/v1/users");
            request.Headers.Host = host;
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", host == "localhost" ? acme.Token : world.Token);
            using var http = Connected(opened);
            using var response = await http.SendAsync(request);
            await ProblemAsync(response, ErrorCatalogue.Misdirected);
        }

        // A device has its certificate from its own organisation, at which it works.
        var ann = await TlsTests.EnrolAsync(acme);
        using var let = await TlsTests.AskAsync(acme, ann, ann.Certificate);
        Assert.Equal(HttpStatusCode.OK, let.StatusCode);
    }

    /// <summary>Speaks TLS with the name of a world's address, whatever the requests name.</summary>
    private static HttpClient Connected(World world) => new(new SocketsHttpHandler
    {
        ConnectCallback = async (_, cancellationToken) =>
        {
            var connection = new TcpClient();
            await connection.ConnectAsync(IPAddress.Loopback, world.Url.Port, cancellationToken);
#pragma warning disable CA5359 // Whom it reached is not the question here.
            var stream = new SslStream(connection.GetStream(), false, (_, _, _, _) => true);
#pragma warning restore CA5359
            await stream.AuthenticateAsClientAsync(new SslClientAuthenticationOptions { TargetHost = world.Url.Host }, cancellationToken);
            return stream;
        },
    })
    { BaseAddress = new UriBuilder(world.Url) { Scheme = "http" }.Uri };

    [Fact]
    public async Task Organisations_come_change_and_go_while_the_server_runs_and_one_that_fails_leaves_the_others_alone()
    {
        await using var world = await StartAsync();
        Assert.Empty(OrganisationFolders.List(world.Data));
        OrganisationFolders.Add(world.Data, "red", new OrganisationSettings("Red", ["red.example", "rot.example"]));
        OrganisationFolders.Add(world.Data, "blue", new OrganisationSettings("Blue", ["blue.example"]));
        if (world.Cluster is not null)
        {
            // Their databases are not there: both say so, and nobody else is disturbed.
            await WaitAsync(() => world.Log.Text.Contains("Organisation red can't be served", StringComparison.Ordinal));
            Assert.Equal("503", await NameAsync(world, "red.example"));
            Assert.Equal("Müller & Co", await NameAsync(world, "127.0.0.1"));
            return;
        }

        await WaitAsync(() => world.App.Services.GetRequiredService<Organisations>() is var there && there.ServerOf("red") is not null && there.ServerOf("blue") is not null);
        Assert.Equal(["Red", "Red", "Blue"], [await NameAsync(world, "red.example"), await NameAsync(world, "rot.example"), await NameAsync(world, "blue.example")]);
        Assert.Contains("Organisation red is served as red.example, rot.example", world.Log.Text, StringComparison.Ordinal);

        // Another name: the file is what counts.
        var file = Path.Combine(OrganisationFolders.PathOf(world.Data, "red"), "organisation.json");
        await File.WriteAllTextAsync(file, JsonSerializer.Serialize(new OrganisationSettings("Rouge", ["rouge.example"]), ContractJson.Options));
        await WaitAsync(() => NameAsync(world, "rouge.example").GetAwaiter().GetResult() == "Rouge");
        Assert.Equal("Müller & Co", await NameAsync(world, "red.example"));

        // Two that want the same name, and one that wants none: what ran goes on.
        await File.WriteAllTextAsync(file, JsonSerializer.Serialize(new OrganisationSettings("Rouge", ["blue.example"]), ContractJson.Options));
        await WaitAsync(() => world.Log.Text.Contains("Organisation red can't be served", StringComparison.Ordinal) && world.Log.Text.Contains("'blue.example' is another organisation's name", StringComparison.Ordinal));
        Assert.Equal("Blue", await NameAsync(world, "blue.example"));
        await File.WriteAllTextAsync(file, "{ \"name\": \"Rouge\", \"hosts\": [");
        await WaitAsync(() => world.Log.Text.Contains("is not the JSON of an organisation", StringComparison.Ordinal));
        await File.WriteAllTextAsync(file, JsonSerializer.Serialize(new OrganisationSettings("Rouge", ["red.example"]), ContractJson.Options));
        await WaitAsync(() => NameAsync(world, "red.example").GetAwaiter().GetResult() == "Rouge");

        // Gone, while somebody of it listens: broken off, served no more, and all of its data are there.
        var token = (await File.ReadAllTextAsync(Path.Combine(OrganisationFolders.PathOf(world.Data, "blue"), "admin-token"))).Trim();
        var goal = await OrganisationFolders.RemoveAsync(world.Data, "blue", TimeProvider.System, default);
        await WaitAsync(() => NameAsync(world, "blue.example").GetAwaiter().GetResult() == "Müller & Co");
        Assert.Equal(HttpStatusCode.Unauthorized, (await AskAsync(world, "blue.example", "/v1/users", token)).StatusCode);
        Assert.Equal(["red"], OrganisationFolders.List(world.Data));
        Assert.True(File.Exists(Path.Combine(goal, "nacre.db")));

        // Moved back it is what it was; and it is there after the server's next start, too.
        Directory.Move(goal, OrganisationFolders.PathOf(world.Data, "blue"));
        await WaitAsync(() => NameAsync(world, "blue.example").GetAwaiter().GetResult() == "Blue");
        Assert.Equal(HttpStatusCode.OK, (await AskAsync(world, "blue.example", "/v1/users", token)).StatusCode);
        await world.StartAgainAsync();
        Assert.Equal(["Rouge", "Blue", "Müller & Co"], [await NameAsync(world, "red.example"), await NameAsync(world, "blue.example"), await NameAsync(world, "x.example")]);
    }

    [Fact]
    public async Task A_server_that_stops_waits_for_no_listener_of_an_organisation_inside_it()
    {
        await using var world = await StartAsync();
        await using var acme = await StartInsideAsync(world);
        var (_, _, client) = await acme.EnrolAsync("ann");
        using var ending = new CancellationTokenSource(TimeSpan.FromMinutes(1));
        var heard = 0;
        var listening = client.ListenForOrdersAsync(_ => Task.FromResult(Interlocked.Increment(ref heard)), ending.Token);
        await WaitAsync(() => Volatile.Read(ref heard) > 0 || listening.IsCompleted);
        var stopping = Stopwatch.StartNew();
        await world.StartAgainAsync();
        Assert.InRange(stopping.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(20)); // the listener waits 30 s for what does not end
        await ending.CancelAsync();
        await listening.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
    }

    [Theory]
    [InlineData("Big", "big.example")]
    [InlineData("../x", "big.example")]
    [InlineData("", "big.example")]
    [InlineData("big", "")]
    [InlineData("big", "BIG.example")]
    [InlineData("big", "big.example.")]
    [InlineData("big", "127.0.0.1")]
    [InlineData("big", "big example")]
    [InlineData("big", "bücher.example")]
    [InlineData("big", "taken.example")]
    [InlineData("taken", "big.example")]
    public void What_can_be_no_organisation_is_refused_and_leaves_nothing(string name, string host)
    {
        using var folder = new TemporaryDirectory();
        OrganisationFolders.Add(folder.Path, "taken", Settings("taken.example"));
        var before = Directory.GetFileSystemEntries(folder.Path, "*", SearchOption.AllDirectories);
        Assert.Throws<NacreException>(() => OrganisationFolders.Add(folder.Path, name, host.Length == 0 ? Settings() : Settings(host)));
        Assert.Equal(before, Directory.GetFileSystemEntries(folder.Path, "*", SearchOption.AllDirectories));
    }

    [Fact]
    public void Databases_whose_names_would_be_cut_to_the_same_are_refused() =>
        Assert.Equal(ErrorCatalogue.UsageInvalid, Assert.Throws<NacreException>(() => new PostgresOptions { ConnectionString = "Host=x;Database=nacre" }.WithDatabase(name => name + new string('a', 60))).Kind);
}
