using System.Collections.Concurrent;
using System.Net;
using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>Retention, cleaning while others publish and download, checking, origins and replicas.</summary>
public class StoreTests
{
    private static readonly TimeSpan Grace = new ServerOptions { DataDirectory = "x" }.SegmentGrace;

    private static async Task<Release> PublishAsync(World world, ReleaseManifest manifest)
    {
        await world.Admin.PutSigningKeyAsync(PublicKeys.From(world.Publisher));
        return await world.Admin.PublishReleaseAsync(manifest.Image, new PublishRelease(Jws.SignClaims(manifest, world.Publisher), Convert.ToBase64String(new byte[32])));
    }

    private static string[] Stored(World world) => [.. Directory.GetFiles(Path.Combine(world.Data, "segments"), "*", SearchOption.AllDirectories).Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal)];

    private static IEnumerable<SegmentReference> All(ReleaseManifest manifest) => manifest.Segments.Append(manifest.Index);

    [Fact]
    public async Task Releases_outside_retention_go_and_their_segments_follow_after_the_grace_period()
    {
        await using var world = await StartAsync();
        var shared = await world.UploadAsync();
        var manifests = new List<ReleaseManifest>();
        for (var version = 1; version <= 5; version++)
        {
            var manifest = await world.ManifestAsync(version);
            manifests.Add(manifest with { Segments = [.. manifest.Segments, shared] });
            await PublishAsync(world, manifests[^1]);
        }

        await world.Admin.MoveChannelAsync("debian", "pilot", 2);
        Assert.Empty((await world.Admin.CleanStoreAsync(dryRun: false)).Releases);
        Assert.Equal(2, (await world.Admin.SetRetentionAsync("debian", 2)).Keep);
        var dry = await world.Admin.CleanStoreAsync(dryRun: true);
        Assert.Equal([new("debian", 3), new("debian", 1)], dry.Releases);
        Assert.Equal(5, (await world.Admin.ListReleasesAsync("debian")).Count);
        var cleaned = await world.Admin.CleanStoreAsync(dryRun: false);
        Assert.Equal(dry.Releases, cleaned.Releases);
        Assert.Equal([2, 4, 5], (await world.Admin.ListReleasesAsync("debian")).Select(release => release.Version));

        // A publisher that read of release 1 a moment ago may still refer to its segments.
        Assert.Equal(0, cleaned.Segments);
        world.Time.Advance(Grace - TimeSpan.FromMinutes(1));
        Assert.Equal(0, (await world.Admin.CleanStoreAsync(dryRun: false)).Segments);
        world.Time.Advance(TimeSpan.FromMinutes(2));
        Assert.Equal((6, 6000L), ((await world.Admin.CleanStoreAsync(dryRun: true)) is var would ? would.Segments : 0, would.Bytes));
        cleaned = await world.Admin.CleanStoreAsync(dryRun: false);
        Assert.Equal((6, 6000L), (cleaned.Segments, cleaned.Bytes));
        Assert.Equal(new[] { manifests[1], manifests[3], manifests[4] }.SelectMany(All).Select(segment => segment.Name).Distinct().Order(StringComparer.Ordinal), Stored(world));

        // What went is not published again under its number, and the next number is the next.
        await FailsAsync(ErrorCatalogue.Immutable, PublishAsync(world, manifests[0]));
        Assert.Equal(6, (await PublishAsync(world, await world.ManifestAsync(6))).Version);
        Assert.Equal(["release.retire", "release.retire", "store.clean"],
            (await world.Admin.GetAuditAsync()).Entries.Where(entry => entry.Action is "release.retire" or "store.clean").Select(entry => entry.Action));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.SetRetentionAsync("debian", 0));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.SetRetentionAsync("other", 1));
        Assert.Null((await world.Admin.SetRetentionAsync("debian", null)).Keep);
    }

    [Fact]
    public async Task A_release_that_a_device_has_stays_until_the_device_has_another_or_is_revoked()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (device, key, first) = await world.EnrolAsync();
        using var client = first;
        await world.EntitleAsync();
        await client.TakeLeaseAsync("desk", new TakeLease(null));
        await world.PublishAsync(2);
        await world.PublishAsync(3);
        await world.Admin.SetRetentionAsync("debian", 1);
        Assert.Equal([new("debian", 2)], (await world.Admin.CleanStoreAsync(dryRun: false)).Releases);

        // It goes on with release 1 although 3 is offered, and its lease has ended long ago.
        await client.TakeLeaseAsync("desk", new TakeLease(null, Kept: [new("debian", 1)]));
        world.Time.Advance(TimeSpan.FromDays(90));
        Assert.Empty((await world.Admin.CleanStoreAsync(dryRun: false)).Releases);

        // With another lease it has given it up; the one before lasts a while.
        using var later = world.As(device, key);
        await later.TakeLeaseAsync("desk", new TakeLease(null, Kept: [new("debian", 1)]));
        await later.TakeLeaseAsync("desk", new TakeLease(null));
        Assert.Empty((await world.Admin.CleanStoreAsync(dryRun: false)).Releases);
        world.Time.Advance(TimeSpan.FromDays(8));
        await later.TakeLeaseAsync("desk", new TakeLease(null));
        Assert.Equal([new("debian", 1)], (await world.Admin.CleanStoreAsync(dryRun: false)).Releases);

        await world.PublishAsync(4);
        Assert.Empty((await world.Admin.CleanStoreAsync(dryRun: false)).Releases);
        await world.Admin.RevokeDeviceAsync(device.DeviceId);
        Assert.Equal([new("debian", 3)], (await world.Admin.CleanStoreAsync(dryRun: false)).Releases);
    }

    [Fact]
    public async Task What_a_publisher_was_told_is_there_or_sent_stays_for_the_grace_period()
    {
        await using var world = await StartAsync();
        var asked = await world.UploadAsync();
        var bytes = RandomNumberGenerator.GetBytes(1000);
        var sent = Describe(SegmentName(), bytes);
        await world.Admin.UploadSegmentAsync(sent.Name, bytes);
        var forgotten = await world.UploadAsync();
        world.Time.Advance(Grace - TimeSpan.FromMinutes(1));
        Assert.Empty(await world.Admin.FindMissingSegmentsAsync([asked.Name]));
        await world.Admin.UploadSegmentAsync(sent.Name, bytes);
        world.Time.Advance(TimeSpan.FromMinutes(2));
        Assert.Equal(1, (await world.Admin.CleanStoreAsync(dryRun: false)).Segments);
        Assert.Equal([forgotten.Name], await world.Admin.FindMissingSegmentsAsync([asked.Name, sent.Name, forgotten.Name]));
        await PublishAsync(world, new ReleaseManifest(1, "debian", 1, 0, "", 1, asked, [sent]));
        world.Time.Advance(Grace * 10);
        Assert.Equal(0, (await world.Admin.CleanStoreAsync(dryRun: false)).Segments);
    }

    /// <summary>Publishers, a cleaner and a clock at once. What landed is whole whatever the clock did; within the grace period nobody loses what was found to be there.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_release_that_lands_is_whole_while_the_store_is_cleaned(bool jumps)
    {
        var seed = int.TryParse(Environment.GetEnvironmentVariable("NACRE_SEED"), out var given) ? given : RandomNumberGenerator.GetInt32(int.MaxValue);
        TestContext.Current.SendDiagnosticMessage($"NACRE_SEED={seed}");
        await using var world = await StartAsync();
        await world.Admin.PutSigningKeyAsync(PublicKeys.From(world.Publisher));
        var pool = Enumerable.Range(0, 12).Select(number => (Name: SegmentName(), Bytes: RandomNumberGenerator.GetBytes(500 + number))).ToArray();
        var landed = new ConcurrentBag<ReleaseManifest>();
        var refused = 0;
        using var done = new CancellationTokenSource();
        var cleaning = Task.Run(async () =>
        {
            var random = new Random(seed);
            while (!done.IsCancellationRequested)
            {
                world.Time.Advance(jumps && random.Next(3) == 0 ? Grace + TimeSpan.FromMinutes(1) : TimeSpan.FromMinutes(20));
                await world.Admin.CleanStoreAsync(dryRun: false);
            }
        });
        await Task.WhenAll(Enumerable.Range(0, 3).Select(number => Task.Run(async () =>
        {
            var random = new Random(seed + number + 1);
            var image = $"image-{number}";
            for (var version = 1; version <= 12;)
            {
                var chosen = random.GetItems(pool, random.Next(1, 6)).DistinctBy(one => one.Name).ToArray();
                var began = world.Time.GetUtcNow();
                var missing = await world.Admin.FindMissingSegmentsAsync([.. chosen.Select(one => one.Name)]);
                foreach (var (name, bytes) in chosen.Where(one => missing.Contains(one.Name)))
                {
                    await world.Admin.UploadSegmentAsync(name, bytes);
                }

                var segments = chosen.Select(one => Describe(one.Name, one.Bytes)).ToArray();
                var manifest = new ReleaseManifest(1, image, version, 0, "", 1, segments[0], segments);
                try
                {
                    await world.Admin.PublishReleaseAsync(image, new PublishRelease(Jws.SignClaims(manifest, world.Publisher), Convert.ToBase64String(new byte[32])));
                }
                catch (NacreException exception) when (exception.Kind == ErrorCatalogue.SegmentsMissing)
                {
                    Assert.True(world.Time.GetUtcNow() - began >= Grace, $"a segment went within the grace period; NACRE_SEED={seed}");
                    Interlocked.Increment(ref refused);
                    continue;
                }

                landed.Add(manifest);
                version++;
                await world.Admin.SetRetentionAsync(image, 1);
            }
        })));
        await done.CancelAsync();
        await cleaning;
        await world.Admin.CleanStoreAsync(dryRun: false);
        Assert.Equal(36, landed.Count);
        foreach (var manifest in landed.Where(manifest => manifest.Version == 12))
        {
            foreach (var segment in manifest.Segments)
            {
                Assert.Equal(segment.Sha256, Convert.ToHexStringLower(SHA256.HashData(await world.Nobody.DownloadSegmentAsync(segment.Name))));
            }
        }

        world.Time.Advance(Grace * 2);
        await world.Admin.CleanStoreAsync(dryRun: false);
        Assert.Equal(landed.Where(manifest => manifest.Version == 12).SelectMany(All).Select(segment => segment.Name).Distinct().Order(StringComparer.Ordinal), Stored(world));
        TestContext.Current.SendDiagnosticMessage($"{refused} publications were told to send again");
    }

    [Fact]
    public async Task The_database_does_not_let_a_segment_go_that_a_release_refers_to()
    {
        await using var world = await StartAsync();
        var manifest = await world.ManifestAsync();
        await PublishAsync(world, manifest);
        await using var scope = world.App.Services.CreateAsyncScope();
        var database = scope.ServiceProvider.GetRequiredService<NacreDatabase>();
        var name = manifest.Segments[0].Name;
        await Assert.ThrowsAnyAsync<Exception>(() => database.Segments.Where(row => row.Name == name).ExecuteDeleteAsync());
        Assert.True(await database.Segments.AnyAsync(row => row.Name == name));
    }

    [Fact]
    public async Task A_database_of_before_learns_at_its_next_start_what_its_releases_refer_to()
    {
        await using var world = await StartAsync();
        var manifest = await world.ManifestAsync();
        await PublishAsync(world, manifest);
        await using (var scope = world.App.Services.CreateAsyncScope())
        {
            await scope.ServiceProvider.GetRequiredService<NacreDatabase>().SegmentUses.ExecuteDeleteAsync();
        }

        await world.StartAgainAsync();
        world.Time.Advance(Grace * 2);
        Assert.Equal(0, (await world.Admin.CleanStoreAsync(dryRun: false)).Segments);
        Assert.Equal(3, Stored(world).Length);
    }

    [Fact]
    public async Task Who_downloads_a_segment_while_it_goes_gets_all_of_it()
    {
        await using var world = await StartAsync();
        var bytes = RandomNumberGenerator.GetBytes(1_000_000);
        var name = SegmentName();
        await world.Admin.UploadSegmentAsync(name, bytes);
        using var response = await world.Http.GetAsync(new Uri($"v1/segments/{name}", UriKind.Relative), HttpCompletionOption.ResponseHeadersRead);
        world.Time.Advance(Grace * 2);
        Assert.Equal(1, (await world.Admin.CleanStoreAsync(dryRun: false)).Segments);
        Assert.False(File.Exists(world.FileOf(name)));
        Assert.Equal(bytes, await response.Content.ReadAsByteArrayAsync());
        await FailsAsync(ErrorCatalogue.NotFound, world.Nobody.DownloadSegmentAsync(name));
    }

    [Fact]
    public async Task A_check_finds_what_is_missing_damaged_or_nobodys_and_what_is_sent_again_mends_it()
    {
        await using var world = await StartAsync();
        var bytes = RandomNumberGenerator.GetBytes(5000);
        var rotten = Describe(SegmentName(), bytes);
        await world.Admin.UploadSegmentAsync(rotten.Name, bytes);
        var manifest = await world.ManifestAsync();
        await PublishAsync(world, manifest with { Segments = [.. manifest.Segments, rotten] });
        var clean = await CheckAsync(world);
        Assert.Equal((4, 8000L, 0), (clean.Segments, clean.Bytes, clean.Problems.Count));

        var flipped = bytes.ToArray();
        flipped[2500] ^= 4;
        await File.WriteAllBytesAsync(world.FileOf(rotten.Name), flipped);
        File.Delete(world.FileOf(manifest.Segments[0].Name));
        var orphan = SegmentName();
        Directory.CreateDirectory(Path.GetDirectoryName(world.FileOf(orphan))!);
        await File.WriteAllBytesAsync(world.FileOf(orphan), bytes);
        var found = (await CheckAsync(world)).Problems.ToDictionary(problem => problem.Segment);
        Assert.Equal(3, found.Count);
        Assert.Equal((StoreProblemKind.Damaged, rotten.Sha256, "debian/1"), (found[rotten.Name].Kind, found[rotten.Name].Sha256, $"{found[rotten.Name].Releases.Single().Image}/{found[rotten.Name].Releases.Single().Version}"));
        Assert.Equal(StoreProblemKind.Missing, found[manifest.Segments[0].Name].Kind);
        Assert.Equal((StoreProblemKind.Orphan, 0), (found[orphan].Kind, found[orphan].Releases.Count));

        // The same length, and yet it is taken again; other bytes are not.
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.UploadSegmentAsync(rotten.Name, flipped));
        await world.Admin.UploadSegmentAsync(rotten.Name, bytes);
        Assert.Equal(bytes, await world.Nobody.DownloadSegmentAsync(rotten.Name));

        // Nobody's bytes go once they are old.
        await world.Admin.CleanStoreAsync(dryRun: false);
        Assert.True(File.Exists(world.FileOf(orphan)));
        File.SetLastWriteTimeUtc(world.FileOf(orphan), (world.Time.GetUtcNow() - Grace - TimeSpan.FromHours(1)).UtcDateTime);
        await world.Admin.CleanStoreAsync(dryRun: false);
        Assert.False(File.Exists(world.FileOf(orphan)));
        Assert.Equal([manifest.Segments[0].Name], (await CheckAsync(world)).Problems.Select(problem => problem.Segment));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.CheckStoreAsync(StoreCheck.Parts));
    }

    [Fact]
    public async Task Origins_are_kept_in_order_audited_and_signed_into_leases()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (device, key, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        Assert.Null(Claims(await client.TakeLeaseAsync("desk", new TakeLease(null)), device).Origins);
        Assert.Empty((await world.Admin.GetOriginsAsync()).Urls);
        string[] urls = ["https://cdn.example.com/nacre/", "http://10.1.2.3:8421/"];
        Assert.Equal(urls, (await world.Admin.PutOriginsAsync(new StoreOrigins(["https://cdn.example.com/nacre", "http://10.1.2.3:8421"]))).Urls);
        await world.StartAgainAsync();
        using var again = world.As(device, key);
        Assert.Equal(urls, Claims(await again.TakeLeaseAsync("desk", new TakeLease(null)), device).Origins);
        foreach (var wrong in new[] { "ftp://x/", "x", "https://user@x/", "https://x/?q", "https://x/#f", "https://" + new string('x', 300) })
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PutOriginsAsync(new StoreOrigins([wrong])));
        }

        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PutOriginsAsync(new StoreOrigins([.. Enumerable.Repeat("https://x/", 17)])));
        Assert.Equal(urls, (await world.Admin.GetOriginsAsync()).Urls);
        Assert.Single((await world.Admin.GetAuditAsync()).Entries, entry => entry.Action == "store.origins");
        await world.Admin.PutOriginsAsync(new StoreOrigins([]));
        Assert.Null(Claims(await again.TakeLeaseAsync("desk", new TakeLease(null)), device).Origins);
    }

    [Fact]
    public async Task A_replica_learns_what_to_mirror_with_its_token_only_and_mirrors_just_that()
    {
        await using var world = await StartAsync();
        var manifest = await world.ManifestAsync();
        await PublishAsync(world, manifest);
        await world.Admin.MoveChannelAsync("debian", "stable", 1);
        var other = await world.ManifestAsync(2);
        await PublishAsync(world, other);
        var earlier = (await world.Admin.CreateReplicaTokenAsync()).Token;
        var token = (await world.Admin.CreateReplicaTokenAsync()).Token;
        await world.StartAgainAsync();
        using var stranger = new NacreClient(world.Url, Credential.Replica(earlier));
        await FailsAsync(ErrorCatalogue.Unauthenticated, stranger.GetReplicaPlanAsync());
        using var client = new NacreClient(world.Url, Credential.Replica(token));
        await FailsAsync(ErrorCatalogue.Forbidden, client.ListReleasesAsync("debian"));
        Assert.DoesNotContain(token, world.Log.Text, StringComparison.Ordinal);

        using var folder = new TemporaryDirectory();
        var replica = new ReplicaFolder(folder["replica"]);
        var (contents, done) = await replica.SyncAsync(client, release => release.Channels.Count > 0, null, default);
        Assert.Equal([new ReleaseName("debian", 1)], contents.Releases);
        Assert.Equal(3000, done.FetchedBytes);
        var files = Directory.GetFiles(folder["replica"], "*", SearchOption.AllDirectories).Select(file => Path.GetFileName(file)).Where(Names.IsSegmentName);
        Assert.Equal(All(manifest).Select(segment => segment.Name).Order(), files.Order());

        // Damage is found and fetched again; what no chosen release needs goes; what was not asked for is not touched.
        await File.WriteAllBytesAsync(replica.PathOf(manifest.Index.Name), new byte[1000]);
        await File.WriteAllTextAsync(Path.Combine(folder["replica"], "notes.txt"), "mine");
        Assert.Equal(1000, (await replica.SyncAsync(client, release => release.Channels.Count > 0, null, default)).Done.FetchedBytes);
        Assert.Equal(0, (await replica.SyncAsync(client, release => release.Channels.Count > 0, null, default)).Done.FetchedBytes);
        await replica.SyncAsync(client, release => release.Release.Version == 2, null, default);
        Assert.False(File.Exists(replica.PathOf(manifest.Index.Name)));
        Assert.True(File.Exists(replica.PathOf(other.Index.Name)));
        Assert.True(File.Exists(Path.Combine(folder["replica"], "notes.txt")));

        // The server's own folder, or anybody else's, is not taken for a replica.
        await FailsAsync(ErrorCatalogue.UsageInvalid, new ReplicaFolder(Path.Combine(world.Data, "segments")).SyncAsync(client, _ => false, null, default));
        Assert.Equal(6, Stored(world).Length);

        // A server that sends something else fills nothing.
        await File.WriteAllBytesAsync(world.FileOf(manifest.Index.Name), new byte[1000]);
        await FailsAsync(ErrorCatalogue.SegmentNotAuthentic, replica.SyncAsync(client, release => release.Release.Version == 1, null, default));
        Assert.False(File.Exists(replica.PathOf(manifest.Index.Name)));
    }

    [Fact]
    public async Task A_replica_serves_segments_with_ranges_and_nothing_else_of_its_folder()
    {
        using var folder = new TemporaryDirectory();
        var name = SegmentName();
        var bytes = RandomNumberGenerator.GetBytes(10_000);
        Directory.CreateDirectory(folder[name[..2]]);
        await File.WriteAllBytesAsync(Path.Combine(folder[name[..2]], name), bytes);
        var linked = name[..2] + new string('e', 30);
        await File.WriteAllTextAsync(folder["replica.json"], "{}");
        File.CreateSymbolicLink(Path.Combine(folder[name[..2]], linked), "/etc/passwd");
        await using var server = ReplicaServer.Create(folder.Path, "http://127.0.0.1:0");
        await ReplicaServer.StartAsync(server, "http://127.0.0.1:0");
        using var http = new HttpClient { BaseAddress = new Uri(server.Urls.First()) };
        Assert.Equal(bytes, await http.GetByteArrayAsync(new Uri($"/{name[..2]}/{name}", UriKind.Relative)));
        using var request = new HttpRequestMessage(HttpMethod.Get, $"/{name[..2]}/{name}");
        request.Headers.Range = new(9000, 9999);
        using var part = await http.SendAsync(request);
        Assert.Equal((HttpStatusCode.PartialContent, "bytes 9000-9999/10000"), (part.StatusCode, part.Content.Headers.ContentRange!.ToString()));
        Assert.Equal(bytes[9000..], await part.Content.ReadAsByteArrayAsync());
        foreach (var path in new[] { "/", "/replica.json", $"/{name}", $"/00/{name}", $"/{name[..2]}/{linked}", $"/{name[..2]}/../replica.json", $"/{name[..2]}/%2e%2e/replica.json" })
        {
            using var answer = await http.GetAsync(new Uri(path, UriKind.Relative));
            Assert.Equal(HttpStatusCode.NotFound, answer.StatusCode);
        }

        using var put = await http.PutAsync(new Uri($"/{name[..2]}/{name}", UriKind.Relative), null);
        Assert.Equal(HttpStatusCode.MethodNotAllowed, put.StatusCode);
    }

    private static LeaseClaims Claims(LeaseGrant grant, EnrolledDevice device) =>
        Jws.VerifyClaims<LeaseClaims>(grant.Lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceToken.LeaseType);

    private static async Task<StoreCheck> CheckAsync(World world)
    {
        // All parts, in-process: 256 requests would be most of the test's time.
        await using var scope = world.App.Services.CreateAsyncScope();
        var keeper = scope.ServiceProvider.GetRequiredService<StoreKeeper>();
        var parts = new List<StoreCheck> { await world.Admin.CheckStoreAsync(0) };
        for (var part = 1; part < StoreCheck.Parts; part++)
        {
            parts.Add((await keeper.CheckAsync(part, default)).Value);
        }

        return new StoreCheck(parts.Sum(part => part.Segments), parts.Sum(part => part.Bytes), [.. parts.SelectMany(part => part.Problems)]);
    }
}
