using System.Security.Cryptography;
using Jose;
using Nacre.Client;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

public class LeaseTests
{
    [Fact]
    public async Task An_entitled_device_gets_a_lease_that_opens()
    {
        await using var world = await StartAsync();
        var releaseKey = await world.PublishAsync();
        var (device, key, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        Assert.Equal([new EntitledLivePc("desk", "debian", "stable", 1)], await client.ListEntitledLivePcsAsync());
        var grant = await client.TakeLeaseAsync("desk", new TakeLease(null));
        var claims = Jws.VerifyClaims<LeaseClaims>(grant.Lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceToken.LeaseType);
        var now = world.Time.GetUtcNow().ToUnixTimeSeconds();
        Assert.Equal(new LeaseClaims(device.DeviceId, "ann", "desk", "debian", 1, null, now, now + (7 * 86400)), claims with { Anchors = null, Policy = null, Layers = null, Kept = null });
        var manifest = Jws.VerifyClaims<ReleaseManifest>(Assert.Single(grant.Manifests), PublicKeys.From(world.Publisher), ErrorCatalogue.ReleaseNotAuthentic);
        Assert.Equal(1, manifest.Version);
        var keys = key.DecryptKeys(grant.Keys);
        Assert.Equal(releaseKey, Convert.FromBase64String(keys.ReleaseKeys["1"]));
        Assert.Equal(32, Convert.FromBase64String(keys.Share).Length);
        Assert.Contains((await world.Admin.GetAuditAsync()).Entries, entry => entry.Action == "lease.grant" && entry.Actor == "device:" + device.DeviceId);
    }

    [Fact]
    public async Task The_share_is_the_same_for_ever_and_another_for_another_device()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (device, key, client) = await world.EnrolAsync();
        var (_, otherKey, other) = await world.EnrolAsync();
        await world.EntitleAsync();
        var share = key.DecryptKeys((await client.TakeLeaseAsync("desk", new TakeLease(null))).Keys).Share;
        Assert.NotEqual(share, otherKey.DecryptKeys((await other.TakeLeaseAsync("desk", new TakeLease(null))).Keys).Share);
        await world.StartAgainAsync();
        using var again = world.As(device, key);
        var grant = await again.TakeLeaseAsync("desk", new TakeLease(1));
        Assert.Equal(share, key.DecryptKeys(grant.Keys).Share);
        Jws.Verify(grant.Lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic);
    }

    [Fact]
    public async Task The_installed_release_is_leased_beside_a_newer_one_but_not_beside_an_older_one()
    {
        await using var world = await StartAsync();
        var first = await world.PublishAsync(1);
        await world.PublishAsync(2);
        var (device, key, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        var grant = await client.TakeLeaseAsync("desk", new TakeLease(1));
        Assert.Equal(2, grant.Manifests.Count);
        Assert.Equal(1, Jws.VerifyClaims<LeaseClaims>(grant.Lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic).InstalledVersion);
        Assert.Equal(first, Convert.FromBase64String(key.DecryptKeys(grant.Keys).ReleaseKeys["1"]));
        await FailsAsync(ErrorCatalogue.NotFound, client.TakeLeaseAsync("desk", new TakeLease(9)));
        await FailsAsync(ErrorCatalogue.RequestInvalid, client.TakeLeaseAsync("desk", new TakeLease(0)));
        await world.Admin.MoveChannelAsync("debian", "stable", 1);
        grant = await client.TakeLeaseAsync("desk", new TakeLease(2));
        var claims = Jws.VerifyClaims<LeaseClaims>(grant.Lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic);
        Assert.Equal((1, null), (claims.Version, claims.InstalledVersion));
        Assert.Equal(["1"], key.DecryptKeys(grant.Keys).ReleaseKeys.Keys);
    }

    [Fact]
    public async Task Manifests_that_the_device_has_are_left_out_and_only_those()
    {
        await using var world = await StartAsync();
        await world.PublishAsync(1);
        var (_, _, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        var first = await client.TakeLeaseAsync("desk", new TakeLease(null));
        Assert.Null(first.KnownManifests);
        string[] known = [LeaseGrant.DigestOf(Assert.Single(first.Manifests)), LeaseGrant.DigestOf("another server's")];
        var renewed = await client.TakeLeaseAsync("desk", new TakeLease(null, KnownManifests: known));
        Assert.Empty(renewed.Manifests);
        Assert.Equal(first.Manifests, renewed.With(first.Manifests).Manifests);

        // What is new is sent, beside what is known.
        await world.PublishAsync(2);
        var updated = await client.TakeLeaseAsync("desk", new TakeLease(1, KnownManifests: known));
        Assert.Equal([known[0]], updated.KnownManifests);
        Assert.Equal([.. updated.Manifests, .. first.Manifests], updated.With(first.Manifests).Manifests);
        Assert.NotEqual(first.Manifests, updated.Manifests);

        await FailsAsync(ErrorCatalogue.RequestInvalid, client.TakeLeaseAsync("desk", new TakeLease(1, KnownManifests: [.. Enumerable.Repeat(known[0], TakeLease.MostKnown + 1)])));
        await FailsAsync(ErrorCatalogue.RequestInvalid, client.TakeLeaseAsync("desk", new TakeLease(1, KnownManifests: [null!])));
    }

    [Fact]
    public async Task Who_is_not_entitled_learns_nothing()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (_, _, client) = await world.EnrolAsync("bob");
        await world.CodeAsync("ann");
        await world.EntitleAsync();
        Assert.Empty(await client.ListEntitledLivePcsAsync());
        var there = await FailsAsync(ErrorCatalogue.NotEntitled, client.TakeLeaseAsync("desk", new TakeLease(null)));
        var missing = await FailsAsync(ErrorCatalogue.NotEntitled, client.TakeLeaseAsync("none", new TakeLease(null)));
        Assert.Equal(there.Message, missing.Message);
        Assert.Equal(0L, await world.SqlAsync("SELECT COUNT(*) FROM \"Shares\""));
        await world.Admin.EntitleAsync("desk", "bob");
        await client.TakeLeaseAsync("desk", new TakeLease(null));
        await world.Admin.RemoveEntitlementAsync("desk", "bob");
        await FailsAsync(ErrorCatalogue.NotEntitled, client.TakeLeaseAsync("desk", new TakeLease(null)));
    }

    [Fact]
    public async Task A_channel_without_a_release_has_no_lease()
    {
        await using var world = await StartAsync();
        await world.PublishAsync(channel: null);
        var (_, _, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        Assert.Null(Assert.Single(await client.ListEntitledLivePcsAsync()).Version);
        await FailsAsync(ErrorCatalogue.ChannelEmpty, client.TakeLeaseAsync("desk", new TakeLease(null)));
    }

    [Fact]
    public void Keys_open_only_with_the_pinned_algorithms_and_the_right_key()
    {
        using var key = DeviceKey.Create();
        using var other = DeviceKey.Create();
        var jwk = new Jwk(crv: "P-256", x: key.PublicKey.X, y: key.PublicKey.Y);
        string Encrypt(JweAlgorithm algorithm, JweEncryption encryption, object to, JweCompression? compression = null) =>
            JWT.Encode("""{"share":"AAAA","releaseKeys":{}}""", to, algorithm, encryption, compression);
        Assert.Equal("AAAA", key.DecryptKeys(Encrypt(JweAlgorithm.ECDH_ES_A256KW, JweEncryption.A256GCM, jwk)).Share);
        string[] hostile =
        [
            Encrypt(JweAlgorithm.ECDH_ES, JweEncryption.A256GCM, jwk),
            Encrypt(JweAlgorithm.ECDH_ES_A128KW, JweEncryption.A256GCM, jwk),
            Encrypt(JweAlgorithm.ECDH_ES_A256KW, JweEncryption.A128GCM, jwk),
            Encrypt(JweAlgorithm.ECDH_ES_A256KW, JweEncryption.A256GCM, jwk, JweCompression.DEF),
            Encrypt(JweAlgorithm.DIR, JweEncryption.A256GCM, new byte[32]),
            Encrypt(JweAlgorithm.ECDH_ES_A256KW, JweEncryption.A256GCM, new Jwk(crv: "P-256", x: other.PublicKey.X, y: other.PublicKey.Y)),
            JWT.Encode("""{"share":"AAAA","releaseKeys":{}}""", null, JwsAlgorithm.none),
            JWT.Encode("""{"share":"AAAA","releaseKeys":{}}""", new byte[32], JwsAlgorithm.HS256),
            JWT.Encode("[]", jwk, JweAlgorithm.ECDH_ES_A256KW, JweEncryption.A256GCM),
            "", "....", "a.b.c.d.e",
        ];
        foreach (var text in hostile)
        {
            Assert.Equal(ErrorCatalogue.LeaseNotAuthentic, Assert.Throws<NacreException>(() => key.DecryptKeys(text)).Kind);
        }
    }

    [Fact]
    public void A_device_key_survives_export_and_refuses_other_curves()
    {
        using var key = DeviceKey.Create();
        using var again = DeviceKey.Import(key.ExportPkcs8());
        Assert.Equal(key.PublicKey, again.PublicKey);
        using var large = ECDsa.Create(ECCurve.NamedCurves.nistP384);
        Assert.Equal(ErrorCatalogue.FileAccess, Assert.Throws<NacreException>(() => DeviceKey.Import(large.ExportPkcs8PrivateKey())).Kind);
        Assert.Equal(ErrorCatalogue.FileAccess, Assert.Throws<NacreException>(() => DeviceKey.Import([1, 2, 3])).Kind);
    }
}
