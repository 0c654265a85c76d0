using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text.Json;
using Jose;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Player.LivePcs;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>A network that recorded the server's answers can't give them to the device a second time.</summary>
[Collection("NACRE_HOME")]
public sealed class LeaseReplayTests : IDisposable
{
    private readonly TemporaryDirectory home = new();
    private readonly PlayerPaths paths;
    private readonly LivePcFolder folder;
    private readonly ECDsa leaseKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
    private readonly DeviceKey deviceKey = DeviceKey.Create();
    private readonly HttpListener server = new();
    private byte[]? recorded;
    private bool replays, alwaysLeavesOut;
    private string[] manifests = [];

    public LeaseReplayTests()
    {
        Environment.SetEnvironmentVariable("NACRE_HOME", home.Path);
        paths = PlayerPaths.Open();
        string url;
        using (var probe = new TcpListener(IPAddress.Loopback, 0))
        {
            probe.Start();
            url = $"http://127.0.0.1:{((IPEndPoint)probe.LocalEndpoint).Port}/";
        }

        server.Prefixes.Add(url);
        server.Start();
        _ = ServeAsync();
        DurableFile.Write(Path.Combine(paths.State, "device.secret"), RandomNumberGenerator.GetBytes(32));
        DurableFile.Write(Path.Combine(paths.State, "device.key"), deviceKey.ExportPkcs8());
        DurableFile.WriteJson(
            Path.Combine(paths.State, "device.json"), new DeviceRecord(new Uri(url), "device-1", "ann", "o", PublicKeys.From(leaseKey), PublicKeys.From(leaseKey)));
        folder = new LivePcFolder(paths, "office");
        folder.Create();
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        server.Close();
        leaseKey.Dispose();
        deviceKey.Dispose();
        Directory.Delete(folder.Sockets, recursive: true);
        home.Dispose();
    }

    [Fact]
    public async Task A_lease_that_answered_another_request_is_refused_and_not_kept()
    {
        using var identity = EnrolledIdentity.Open(paths);
        Assert.True((await OpenedLease.TakeAsync(identity, folder, null, [], TimeProvider.System, Token)).IsNew);
        var old = recorded;
        await OpenedLease.TakeAsync(identity, folder, null, [], TimeProvider.System, Token);
        var kept = folder.Grant!.Lease;
        (recorded, replays) = (old, true);
        var refused = await Assert.ThrowsAsync<NacreException>(() => OpenedLease.TakeAsync(identity, folder, null, [], TimeProvider.System, Token));
        Assert.Equal(ErrorCatalogue.LeaseNotAuthentic, refused.Kind);
        Assert.Equal(kept, folder.Grant!.Lease);
        Assert.False(OpenedLease.TryOpenKept(identity, folder, TimeProvider.System)!.IsNew);
    }

    [Fact]
    public async Task What_a_renewal_leaves_out_is_taken_from_the_lease_that_was_kept()
    {
        using var identity = EnrolledIdentity.Open(paths);
        manifests = [TrustedOrganisation.Manifest(1)];
        await OpenedLease.TakeAsync(identity, folder, null, [], TimeProvider.System, Token);
        await OpenedLease.TakeAsync(identity, folder, null, [], TimeProvider.System, Token);
        Assert.Empty(JsonDocument.Parse(recorded!).RootElement.GetProperty("manifests").EnumerateArray());
        Assert.Equal(manifests, folder.Grant!.Manifests);

        (alwaysLeavesOut, manifests) = (true, [TrustedOrganisation.Manifest(2)]);
        var refused = await Assert.ThrowsAsync<NacreException>(() => OpenedLease.TakeAsync(identity, folder, null, [], TimeProvider.System, Token));
        Assert.Equal(ErrorCatalogue.LeaseNotAuthentic, refused.Kind);
        Assert.Equal([TrustedOrganisation.Manifest(1)], folder.Grant!.Manifests);
    }

    [Fact]
    public async Task What_the_server_knew_at_another_request_is_refused()
    {
        using var identity = EnrolledIdentity.Open(paths);
        using var client = identity.Connect();
        Assert.Empty((await OpenedLease.StateAnchorsAsync(identity, client, "office", [], null, Token)).Anchors);
        replays = true;
        var refused = await Assert.ThrowsAsync<NacreException>(() => OpenedLease.StateAnchorsAsync(identity, client, "office", [], null, Token));
        Assert.Equal(ErrorCatalogue.LeaseNotAuthentic, refused.Kind);
    }

    private async Task ServeAsync()
    {
        while (true)
        {
            HttpListenerContext context;
            try
            {
                context = await server.GetContextAsync();
            }
            catch (Exception exception) when (exception is HttpListenerException or ObjectDisposedException)
            {
                return;
            }

            if (context.Request.HttpMethod == "GET")
            {
                context.Response.StatusCode = 404; // no trust metadata: it has no release either
                context.Response.Close();
                continue;
            }

            var request = await JsonDocument.ParseAsync(context.Request.InputStream, cancellationToken: CancellationToken.None);
            var nonce = request.RootElement.GetProperty("nonce").GetString()!;
            if (!replays)
            {
                recorded = context.Request.Url!.AbsolutePath.EndsWith("/lease", StringComparison.Ordinal)
                    ? JsonSerializer.SerializeToUtf8Bytes(Grant(nonce, request.RootElement.Deserialize<TakeLease>(ContractJson.Options)!.KnownManifests ?? []), ContractJson.Options)
                    : JsonSerializer.SerializeToUtf8Bytes(
                        new SignedAnchors(Jws.SignClaims(new AnchorClaims("device-1", "office", nonce, []), leaseKey, AnchorClaims.Type)), ContractJson.Options);
            }

            context.Response.ContentType = "application/json";
            await context.Response.OutputStream.WriteAsync(recorded);
            context.Response.Close();
        }
    }

    private LeaseGrant Grant(string nonce, IReadOnlyList<string> known)
    {
        var now = TimeProvider.System.GetUtcNow().ToUnixTimeSeconds();
        var claims = new LeaseClaims("device-1", "ann", "office", "desk", 2, 1, now, now + 600, nonce, []);
        var keys = JWE.EncryptBytes(
            JsonSerializer.SerializeToUtf8Bytes(new LeaseKeys("", new Dictionary<string, string>()), ContractJson.Options),
            [new JweRecipient(JweAlgorithm.ECDH_ES_A256KW, new Jwk(crv: "P-256", x: deviceKey.PublicKey.X, y: deviceKey.PublicKey.Y))], JweEncryption.A256GCM, mode: SerializationMode.Compact);
        var leftOut = manifests.ToLookup(manifest => alwaysLeavesOut || known.Contains(LeaseGrant.DigestOf(manifest)));
        return new LeaseGrant(
            Jws.SignClaims(claims, leaseKey, DeviceToken.LeaseType), [.. leftOut[false]], keys, KnownManifests: [.. leftOut[true].Select(LeaseGrant.DigestOf)]);
    }
}
