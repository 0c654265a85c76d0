using System.Security.Cryptography;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>Application layers at the server: what they are published as, how they are stacked, leased and reported on.</summary>
public class LayerTests
{
    private static readonly string SystemDigest = new('a', 64);

    [Fact]
    public async Task Layers_are_stacked_in_order_leased_with_their_keys_and_told_apart_from_systems()
    {
        await using var world = await StartAsync();
        var systemKey = await world.PublishAsync();
        var editorKey = await PublishLayerAsync(world, "editor", 1, Contents());
        await PublishLayerAsync(world, "tools", 1, Contents());
        var (device, key, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.CreateLivePcAsync(new CreateLivePc("other", "editor", null)));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PutLayersAsync("desk", [new("debian", null)]));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PutLayersAsync("desk", [new("editor", null), new("editor", null)]));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.PutLayersAsync("desk", [new("nothing", null)]));
        await FailsAsync(ErrorCatalogue.ChannelEmpty, world.Admin.PutLayersAsync("desk", [new("editor", "pilot")]));
        await FailsAsync(ErrorCatalogue.Immutable, PublishLayerAsync(world, "debian", 2, Contents()));
        Assert.Empty((await world.Admin.GetLayersAsync("desk")).Layers);

        var set = await world.Admin.PutLayersAsync("desk", [new("tools", null), new("editor", null)]);
        Assert.Equal([new StackedLayer("tools", "stable", 1), new("editor", "stable", 1)], set.Layers);
        var grant = await client.TakeLeaseAsync("desk", new TakeLease(null));
        var claims = Claims(grant, device);
        Assert.Equal([new ReleaseName("tools", 1), new("editor", 1)], claims.Layers);
        var keys = key.DecryptKeys(grant.Keys);
        Assert.Equal(["1", "editor/1", "tools/1"], keys.ReleaseKeys.Keys.Order(StringComparer.Ordinal));
        Assert.Equal(systemKey, Convert.FromBase64String(keys.ReleaseKeys["1"]));
        Assert.Equal(editorKey, Convert.FromBase64String(keys.ReleaseKeys["editor/1"]));
        Assert.Equal(3, grant.Manifests.Count);

        await world.Admin.PutLayersAsync("desk", [new("editor", null)]);
        Assert.Equal([new ReleaseName("editor", 1)], Claims(await client.TakeLeaseAsync("desk", new TakeLease(null)), device).Layers);
        Assert.Equal(
            ["tools/stable, editor/stable", "editor/stable"],
            (await world.Admin.GetAuditAsync()).Entries.Where(entry => entry.Action == "livepc.layers").Select(entry => entry.Detail));
    }

    [Fact]
    public async Task A_lease_covers_what_the_device_may_go_back_to_and_nothing_that_was_taken_away()
    {
        await using var world = await StartAsync();
        await world.PublishAsync(1);
        await world.PublishAsync(2);
        await world.PublishAsync(3, channel: null);
        await PublishLayerAsync(world, "editor", 1, Contents());
        await PublishLayerAsync(world, "editor", 2, Contents());
        await PublishLayerAsync(world, "secret", 1, Contents());
        var (device, key, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        await world.Admin.PutLayersAsync("desk", [new("editor", null)]);
        ReleaseName[] asked = [new("debian", 1), new("debian", 3), new("editor", 1), new("secret", 1), new("editor", 9), new("debian", 0), new("nothing", 1)];
        var grant = await client.TakeLeaseAsync("desk", new TakeLease(null, Kept: asked));
        Assert.Equal([new ReleaseName("debian", 1), new("editor", 1)], Claims(grant, device).Kept);
        Assert.Equal(["1", "2", "editor/1", "editor/2"], key.DecryptKeys(grant.Keys).ReleaseKeys.Keys.Order(StringComparer.Ordinal));
        await world.Admin.MoveChannelAsync("editor", "stable", 1);
        await world.Admin.MoveChannelAsync("debian", "stable", 1);
        grant = await client.TakeLeaseAsync("desk", new TakeLease(null, Kept: [new("debian", 2), new("editor", 2)]));
        Assert.Empty(Claims(grant, device).Kept!);
        Assert.Equal(["1", "editor/1"], key.DecryptKeys(grant.Keys).ReleaseKeys.Keys.Order(StringComparer.Ordinal));
        await FailsAsync(ErrorCatalogue.RequestInvalid, client.TakeLeaseAsync("desk", new TakeLease(null, Kept: [.. Enumerable.Range(1, 65).Select(version => new ReleaseName("debian", version))])));
    }

    [Fact]
    public async Task Paths_that_several_layers_bring_are_named_with_the_winner()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        await PublishLayerAsync(world, "one", 1, Contents(
            files: [new("/usr/bin/a", "11"), new("/usr/share/same", "22"), new("/usr/bin/only", "33"), new("/opt/x", "folder"), new("/etc/issue", "44")],
            packages: [new("liba", "1.0", "amd64")], covers: [new CoveredPath("/etc/issue", "base-files", false)]));
        await PublishLayerAsync(world, "two", 1, Contents(
            files: [new("/usr/bin/a", "99"), new("/usr/share/same", "22"), new("/opt/x", "folder")], packages: [new("liba", "2.0", "amd64")]), builtOn: new string('b', 64));
        await world.EntitleAsync(user: (await world.EnrolAsync()).Device.User);
        var stack = await world.Admin.PutLayersAsync("desk", [new("one", null), new("two", null)]);
        Assert.Equal(["/etc/issue: system, one: one", "/usr/bin/a: one, two: two"], stack.Conflicts.Select(one => $"{one.Path}: {string.Join(", ", one.Layers)}: {one.Winner}"));
        Assert.Contains(stack.Warnings, warning => warning.Contains("liba 1.0", StringComparison.Ordinal) && warning.Contains("liba 2.0", StringComparison.Ordinal));
        Assert.Equal("one", (await world.Admin.PutLayersAsync("desk", [new("two", null), new("one", null)])).Conflicts.Single(one => one.Path == "/usr/bin/a").Winner);
    }

    [Fact]
    public async Task Layers_that_give_one_number_to_two_accounts_are_refused()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        await PublishLayerAsync(world, "one", 1, Contents(accounts: [new("passwd", "ann", 300), new("group", "ann", 300)]));
        await PublishLayerAsync(world, "two", 1, Contents(accounts: [new("passwd", "bob", 300), new("group", "ann", 300)]));
        await world.EntitleAsync(user: (await world.EnrolAsync()).Device.User);
        var refused = await FailsAsync(ErrorCatalogue.LayersIncompatible, world.Admin.PutLayersAsync("desk", [new("one", null), new("two", null)]));
        Assert.Contains("300", refused.Message, StringComparison.Ordinal);
        Assert.Empty((await world.Admin.GetLayersAsync("desk")).Layers);
    }

    [Fact]
    public async Task A_layer_is_published_with_the_contents_that_it_signs()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var contents = Contents();
        var manifest = await ManifestAsync(world, "editor", 1, contents);
        Task Publish(ReleaseManifest signed, string? sent) => world.Admin.PublishReleaseAsync(
            "editor", new PublishRelease(Jws.SignClaims(signed, world.Publisher), Convert.ToBase64String(new byte[32]), sent));
        await FailsAsync(ErrorCatalogue.RequestInvalid, Publish(manifest, null));
        await FailsAsync(ErrorCatalogue.RequestInvalid, Publish(manifest, "%%"));
        await FailsAsync(ErrorCatalogue.RequestInvalid, Publish(manifest, Convert.ToBase64String([1, 2, 3])));
        await FailsAsync(ErrorCatalogue.RequestInvalid, Publish(manifest, Sent(Contents(packages: [new("x", "1", "all")]))));
        await FailsAsync(ErrorCatalogue.RequestInvalid, Publish(manifest with { BuiltOn = null }, Sent(contents)));
        await FailsAsync(ErrorCatalogue.RequestInvalid, Publish(manifest with { Kind = ImageKind.System }, Sent(contents)));
        await FailsAsync(ErrorCatalogue.RequestInvalid, Publish(manifest with { Kind = (ImageKind)7 }, Sent(contents)));
        Assert.DoesNotContain(await world.Admin.ListImagesAsync(), image => image.Name == "editor");
        await Publish(manifest, Sent(contents));
        Assert.Equal(ImageKind.Application, (await world.Admin.ListImagesAsync()).Single(image => image.Name == "editor").Kind);
    }

    [Fact]
    public async Task A_report_is_kept_once_shown_and_audited()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (device, _, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        var report = new SendReport(new string('1', 32), world.Time.GetUtcNow(), ReportKind.SetAside, [new("debian", 2), new("editor", 1)], "the unit nginx.service failed", "line 1\nline 2");
        await client.SendReportAsync("desk", report);
        await client.SendReportAsync("desk", report);
        var kept = Assert.Single(await world.Admin.ListReportsAsync(null, "desk"));
        Assert.Equal((device.DeviceId, "the unit nginx.service failed", "line 1\nline 2"), (kept.Device, kept.Report.Reason, kept.Report.Console));
        Assert.Empty(await world.Admin.ListReportsAsync(null, "other"));
        Assert.Single(await world.Admin.ListReportsAsync(device.DeviceId, null));
        var entry = Assert.Single((await world.Admin.GetAuditAsync()).Entries, one => one.Action == "device.report");
        Assert.Equal("set-aside: debian 2, editor 1: the unit nginx.service failed", entry.Detail);
        foreach (var wrong in new[]
        {
            report with { Id = "x" }, report with { Stack = [] }, report with { Reason = "" }, report with { Reason = new string('x', 1001) }, report with { Kind = (ReportKind)9 },
            report with { Console = new string('x', 8001) }, report with { Console = "\u001b[2J" }, report with { Stack = [new("../x", 1)] },
        })
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, client.SendReportAsync("desk", wrong));
        }

        await FailsAsync(ErrorCatalogue.NotEntitled, client.SendReportAsync("none", report with { Id = new string('2', 32) }));
        Assert.Single(await world.Admin.ListReportsAsync(null, null));
    }

    [Fact]
    public async Task The_oldest_reports_of_a_device_give_way()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (_, _, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        for (var number = 0; number < 203; number++)
        {
            world.Time.Advance(TimeSpan.FromSeconds(1));
            await client.SendReportAsync("desk", new SendReport($"{number:x32}", world.Time.GetUtcNow(), ReportKind.Failed, [new("debian", 1)], $"number {number}", ""));
        }

        var kept = await world.Admin.ListReportsAsync(null, null);
        Assert.Equal((200, "number 202", "number 3"), (kept.Count, kept[0].Report.Reason, kept[^1].Report.Reason));
    }

    internal static LayerContents Contents(
        IReadOnlyList<LayerPackage>? packages = null, IReadOnlyList<LayerAccount>? accounts = null, IReadOnlyList<LayerFile>? files = null, IReadOnlyList<CoveredPath>? covers = null) =>
        new(packages ?? [], accounts ?? [], files ?? [], covers ?? []);

    private static string Sent(LayerContents contents) => Convert.ToBase64String(LayerContents.Compress(contents.ToJson()));

    private static async Task<ReleaseManifest> ManifestAsync(World world, string image, int version, LayerContents contents, string? builtOn = null) =>
        await world.ManifestAsync(version, image) with
        {
            Kind = ImageKind.Application, Digest = new string('d', 64), BuiltOn = builtOn ?? SystemDigest, Contents = LayerContents.DigestOf(contents.ToJson()),
        };

    internal static async Task<byte[]> PublishLayerAsync(World world, string image, int version, LayerContents contents, string? builtOn = null)
    {
        var key = RandomNumberGenerator.GetBytes(32);
        var manifest = await ManifestAsync(world, image, version, contents, builtOn);
        await world.Admin.PublishReleaseAsync(image, new PublishRelease(Jws.SignClaims(manifest, world.Publisher), Convert.ToBase64String(key), Sent(contents)));
        await world.Admin.MoveChannelAsync(image, "stable", version);
        return key;
    }

    private static LeaseClaims Claims(LeaseGrant grant, EnrolledDevice device) =>
        Jws.VerifyClaims<LeaseClaims>(grant.Lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceToken.LeaseType);
}
