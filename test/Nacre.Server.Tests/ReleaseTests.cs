using System.Net;
using System.Security.Cryptography;
using System.Text;
using Nacre.Client;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

public class ReleaseTests
{
    private static readonly string Key = Convert.ToBase64String(new byte[32]);

    private static async Task<World> ReadyAsync()
    {
        var world = await StartAsync();
        await world.Admin.PutSigningKeyAsync(PublicKeys.From(world.Publisher));
        return world;
    }

    private static Task<Release> PublishAsync(World world, ReleaseManifest manifest, string? image = null) =>
        world.Admin.PublishReleaseAsync(image ?? manifest.Image, new PublishRelease(Jws.SignClaims(manifest, world.Publisher), Key));

    [Fact]
    public async Task The_signing_key_is_registered_once()
    {
        await using var world = await StartAsync();
        Assert.Null(await world.Admin.FindSigningKeyAsync());
        var key = PublicKeys.From(world.Publisher);
        Assert.Equal(key, await world.Admin.PutSigningKeyAsync(key));
        Assert.Equal(key, await world.Admin.PutSigningKeyAsync(key));
        using var other = DeviceKey.Create();
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.PutSigningKeyAsync(other.PublicKey));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PutSigningKeyAsync(key with { Crv = "P-384" }));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PutSigningKeyAsync(key with { X = key.Y }));
        Assert.Equal(key, await world.Admin.FindSigningKeyAsync());
    }

    [Fact]
    public async Task A_release_is_published_listed_and_followed_by_a_channel()
    {
        await using var world = await ReadyAsync();
        var manifest = await world.ManifestAsync();
        var release = await PublishAsync(world, manifest);
        Assert.Equal(("debian", 1, 4096L, 3000L), (release.Image, release.Version, release.Size, release.StoredSize));
        Assert.Equal(world.Time.GetUtcNow(), release.PublishedAt);
        var image = await world.Admin.MoveChannelAsync("debian", "stable", 1);
        Assert.Equal(1, image.Channels["stable"]);
        Assert.Equal(["stable"], (await world.Admin.GetReleaseAsync("debian", 1)).Channels);
        await PublishAsync(world, await world.ManifestAsync(2));
        Assert.Equal([1, 2], (await world.Admin.ListReleasesAsync("debian")).Select(one => one.Version));
        await world.Admin.MoveChannelAsync("debian", "stable", 2);
        await world.Admin.MoveChannelAsync("debian", "stable", 1);
        var listed = Assert.Single(await world.Admin.ListImagesAsync());
        Assert.Equal((2, 1), (listed.LatestVersion, listed.Channels["stable"]));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.MoveChannelAsync("debian", "stable", 3));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.MoveChannelAsync("other", "stable", 1));
        await FailsAsync(ErrorCatalogue.NameInvalid, world.Admin.MoveChannelAsync("debian", "Stable", 1));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.GetReleaseAsync("debian", 3));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.ListReleasesAsync("other"));
    }

    [Fact]
    public async Task The_same_release_again_is_fine_and_another_is_not()
    {
        await using var world = await ReadyAsync();
        var manifest = await world.ManifestAsync();
        var first = await PublishAsync(world, manifest);
        var again = await PublishAsync(world, manifest); // signed again: another signature over the same
        Assert.Equal(first.Manifest, again.Manifest);
        await FailsAsync(ErrorCatalogue.Immutable, PublishAsync(world, manifest with { Size = 1 }));
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.PublishReleaseAsync(
            "debian", new PublishRelease(first.Manifest, Convert.ToBase64String(RandomNumberGenerator.GetBytes(32)))));
        Assert.Single(await world.Admin.ListReleasesAsync("debian"));
        Assert.Single((await world.Admin.GetAuditAsync()).Entries, entry => entry.Action == "release.publish");
    }

    [Fact]
    public async Task A_release_signed_by_another_key_or_before_there_is_one_is_refused()
    {
        await using var world = await StartAsync();
        var manifest = await world.ManifestAsync();
        await FailsAsync(ErrorCatalogue.ReleaseNotAuthentic, PublishAsync(world, manifest));
        await world.Admin.PutSigningKeyAsync(PublicKeys.From(world.Publisher));
        using var other = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        await FailsAsync(ErrorCatalogue.ReleaseNotAuthentic, world.Admin.PublishReleaseAsync("debian", new PublishRelease(Jws.SignClaims(manifest, other), Key)));
        await FailsAsync(ErrorCatalogue.ReleaseNotAuthentic, world.Admin.PublishReleaseAsync("debian", new PublishRelease("a.b.c", Key)));
        Assert.Empty(await world.Admin.ListImagesAsync());
    }

    [Fact]
    public async Task A_release_with_a_missing_or_other_segment_is_refused()
    {
        await using var world = await ReadyAsync();
        var manifest = await world.ManifestAsync();
        await FailsAsync(ErrorCatalogue.SegmentsMissing, PublishAsync(world, manifest with { Segments = [.. manifest.Segments, Describe(SegmentName(), [1])] }));
        await FailsAsync(ErrorCatalogue.SegmentsMissing, PublishAsync(world, manifest with { Index = Describe(SegmentName(), [1]) }));
        await FailsAsync(ErrorCatalogue.SegmentsMissing, PublishAsync(world, manifest with { Segments = [manifest.Segments[0] with { Length = 999 }] }));
        await FailsAsync(ErrorCatalogue.SegmentsMissing, PublishAsync(world, manifest with { Segments = [manifest.Segments[0] with { Sha256 = new string('0', 64) }] }));
        Assert.Empty(await world.Admin.ListImagesAsync());
    }

    [Fact]
    public async Task A_version_can_not_be_skipped()
    {
        await using var world = await ReadyAsync();
        await FailsAsync(ErrorCatalogue.RequestInvalid, PublishAsync(world, await world.ManifestAsync(2)));
        await PublishAsync(world, await world.ManifestAsync(1));
        await FailsAsync(ErrorCatalogue.RequestInvalid, PublishAsync(world, await world.ManifestAsync(3)));
    }

    [Fact]
    public async Task A_release_is_published_only_with_all_files_of_its_deltas()
    {
        await using var world = await ReadyAsync();
        await PublishAsync(world, await world.ManifestAsync(1));
        var second = await world.ManifestAsync(2);
        var file = Describe(SegmentName(), [1]);
        foreach (var delta in new[] { new ReleaseDelta(1, file, []), new ReleaseDelta(1, second.Index, [file]) })
        {
            await FailsAsync(ErrorCatalogue.SegmentsMissing, PublishAsync(world, second with { Deltas = [delta] }));
        }

        await world.Admin.UploadSegmentAsync(file.Name, new byte[] { 1 });
        var release = await PublishAsync(world, second with { Deltas = [new ReleaseDelta(1, file, [])] });
        Assert.Equal(second.Segments.Append(second.Index).Sum(stored => stored.Length), release.StoredSize);
    }

    [Fact]
    public async Task A_signed_manifest_must_still_be_sane()
    {
        await using var world = await ReadyAsync();
        var good = await world.ManifestAsync();
        await FailsAsync(ErrorCatalogue.Unsupported, PublishAsync(world, good with { Format = 2 }));
        await FailsAsync(ErrorCatalogue.NameInvalid, PublishAsync(world, good, "Debian"));
        ReleaseManifest[] wrong =
        [
            good with { Image = "other" }, good with { Version = 0 }, good with { Created = -1 }, good with { Size = -1 }, good with { CommandLine = "a\nb" },
            good with { CommandLine = new string('a', 2049) },
            good with { Segments = [good.Segments[0], good.Segments[0]] }, good with { Index = good.Index with { Name = "../x" } },
            good with { Index = good.Index with { Length = 0 } }, good with { Index = good.Index with { Length = long.MaxValue } }, good with { Index = good.Index with { Sha256 = "x" } },
            good with { Segments = [good.Index with { Length = 5 }] },
            good with { Deltas = [new ReleaseDelta(1, good.Index, [])] }, good with { Deltas = [new ReleaseDelta(0, good.Index, [])] },
            good with { Version = 2, Deltas = [new ReleaseDelta(1, good.Index, [good.Segments[0] with { Name = "../x" }])] },
            good with { Version = 2, Deltas = [new ReleaseDelta(1, good.Index, []), new ReleaseDelta(1, good.Index, [])] },
            good with { Version = 2, Deltas = [new ReleaseDelta(1, good.Index with { Length = 5 }, [])] },
        ];
        foreach (var manifest in wrong)
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, PublishAsync(world, manifest, "debian"));
        }

        foreach (var payload in (string[])
            [
                "[]", "null", "{", """{"format":1,"image":"debian","version":1}""",
                """{"format":1,"image":"debian","version":1,"created":0,"commandLine":"","size":0,"index":null,"segments":[]}""",
                """{"format":1,"image":"debian","version":1,"created":0,"commandLine":"","size":0,"index":{"name":"00000000000000000000000000000000","length":1,"sha256":"00"},"segments":[null]}""",
            ])
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PublishReleaseAsync("debian", new PublishRelease(Jws.Sign(Encoding.UTF8.GetBytes(payload), world.Publisher), Key)));
        }

        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PublishReleaseAsync("debian", new PublishRelease(Jws.SignClaims(good, world.Publisher), "AAAA")));
        Assert.Empty(await world.Admin.ListImagesAsync());
    }

    [Fact]
    public async Task Users_and_livepcs_are_made_once_and_entitled()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var user = await world.Admin.CreateUserAsync(new CreateUser("ann", "Ann Ä"));
        Assert.Equal(new User("ann", "Ann Ä", world.Time.GetUtcNow()), user);
        Assert.Equal([user], await world.Admin.ListUsersAsync());
        await FailsAsync(ErrorCatalogue.AlreadyExists, world.Admin.CreateUserAsync(new CreateUser("ann", null)));
        await FailsAsync(ErrorCatalogue.NameInvalid, world.Admin.CreateUserAsync(new CreateUser("Ann", null)));
        await ProblemAsync(await world.SendAsync("POST", "v1/users", world.Token, Json("""{"name":null}""")), ErrorCatalogue.RequestInvalid);
        await ProblemAsync(await world.SendAsync("POST", "v1/users", world.Token, Json("{}")), ErrorCatalogue.NameInvalid);
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.CreateUserAsync(new CreateUser("bob", "a\u0007")));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.CreateUserAsync(new CreateUser("bob", new string('a', 201))));

        var livePc = await world.Admin.CreateLivePcAsync(new CreateLivePc("desk", "debian", null));
        Assert.Equal("stable", livePc.Channel);
        await FailsAsync(ErrorCatalogue.AlreadyExists, world.Admin.CreateLivePcAsync(new CreateLivePc("desk", "debian", "pilot")));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.CreateLivePcAsync(new CreateLivePc("other", "windows", null)));
        await FailsAsync(ErrorCatalogue.NameInvalid, world.Admin.CreateLivePcAsync(new CreateLivePc("-", "debian", null)));
        await world.Admin.EntitleAsync("desk", "ann");
        await world.Admin.EntitleAsync("desk", "ann");
        Assert.Equal(["ann"], Assert.Single(await world.Admin.ListLivePcsAsync()).Users);
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.EntitleAsync("desk", "bob"));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.EntitleAsync("other", "ann"));
        await world.Admin.RemoveEntitlementAsync("desk", "ann");
        await world.Admin.RemoveEntitlementAsync("desk", "ann");
        Assert.Empty(Assert.Single(await world.Admin.ListLivePcsAsync()).Users);
        Assert.Equal(HttpStatusCode.NoContent, (await world.SendAsync("PUT", "v1/livepcs/desk/entitlements/ann", world.Token)).StatusCode);
    }
}
