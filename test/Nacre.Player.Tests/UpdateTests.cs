using System.Security.Cryptography;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Nacre.Contracts;
using Nacre.Player.Leases;
using Nacre.Player.LivePcs;
using Nacre.Player.Releases;
using Nacre.Player.Stacks;
using Nacre.Player.UserPackages;
using Nacre.Policies;
using Nacre.Volumes.Releases;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>Updates of real releases from a server and an origin: what of them a device keeps, and how its user goes back.</summary>
[Collection("NACRE_HOME")]
public sealed class UpdateTests : IAsyncLifetime
{
    private const int ChunkLength = 64 * 1024;

    private readonly PublisherKeys publisher = new(SHA256.HashData("an organisation"u8));
    private readonly byte[] common = RandomNumberGenerator.GetBytes(ChunkLength);
    private readonly byte[] releaseKey = RandomNumberGenerator.GetBytes(32);
    private readonly Dictionary<string, byte[]> stored = [];
    private readonly Dictionary<int, string> manifests = [];
    private readonly HashSet<int> withdrawn = [];
    private readonly List<SendReport> reports = [];
    private TrustedOrganisation organisation = null!;
    private FaultyOrigin origin = null!;
    private PolicyDocument policy = PolicyDocument.Empty;
    private int offered = 1;
    private bool isDown;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private Office Office => organisation.Office;

    private LivePcPlayer Player => new(Office.Paths, null, organisation.Time);

    private StackBook Book => new(Office.Folder, organisation.Time);

    public async ValueTask InitializeAsync()
    {
        organisation = await TrustedOrganisation.BeginAsync();
        for (var version = 1; version <= 6; version++)
        {
            Publish(version);
        }

        organisation.Vouch(6, manifest: version => manifests[version]);
        origin = await FaultyOrigin.StartAsync(stored);
        organisation.Attack = AnswerAsync;
    }

    public async ValueTask DisposeAsync()
    {
        await origin.DisposeAsync();
        await organisation.DisposeAsync();
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(5)]
    public async Task A_device_keeps_as_many_releases_as_the_policy_says_and_what_they_share(int versions)
    {
        policy = policy.With(Settings.UpdateKeepVersions, versions);
        for (var version = 1; version <= 6; version++)
        {
            await UpdateAsync(version);

            // On trial the one before is needed, whatever the number.
            Assert.Equal(Enumerable.Range(1, version).TakeLast(Math.Max(version == 1 ? 1 : 2, versions)), Kept());
            await StartAsync(version);
        }

        await CleanAsync();
        Assert.Equal(Enumerable.Range(1, 6).TakeLast(versions), Kept());
        Assert.Equal(versions + 1, Directory.GetFiles(Office.Paths.Segments).Length); // with the segment that all have
        Assert.Equal(versions, Directory.GetFiles(Office.Paths.Indexes).Length);

        // What was kept is whole: it starts without a network. Fewer are kept from the next contact on.
        for (var version = 6; version > 6 - versions; version--)
        {
            await AssertWholeAsync(version);
        }

        policy = policy.With(Settings.UpdateKeepVersions, 1);
        Assert.Null(await TryUpdateAsync());
        Assert.Equal([6], Kept());
    }

    [Fact]
    public async Task A_release_that_another_LivePC_of_the_device_has_stays()
    {
        policy = policy.With(Settings.UpdateKeepVersions, 1);
        foreach (var name in new[] { "lab", "office" })
        {
            await Player.UpdateAsync(name, UserPackageChoice.Postpone, _ => { }, new Ignored(), Retake.Nothing, isToStart: true, null, Token);
            await StartAsync(1, new LivePcFolder(Office.Paths, name));
        }

        foreach (var version in new[] { 2, 3 })
        {
            await UpdateAsync(version);
            await StartAsync(version);
        }

        await CleanAsync();
        Assert.Equal([1, 3], Kept());
        Player.Forget("lab");
        await CleanAsync();
        Assert.Equal([3], Kept());
    }

    [Fact]
    public async Task What_is_downloaded_and_does_not_start_yet_stays_and_what_was_set_aside_goes()
    {
        policy = policy.With(Settings.UpdateKeepVersions, 1);
        await UpdateAsync(1);
        await StartAsync(1);
        offered = 2;
        await Player.UpdateAsync("office", UserPackageChoice.Postpone, _ => { }, new Ignored(), Retake.Nothing, isToStart: false, null, Token);
        await CleanAsync();
        Assert.Equal([1, 2], Kept());
        Assert.Equal(Stack(1), Book.Read().Next);

        // A download that was interrupted: what is here stays, and is not fetched again.
        offered = 3;
        origin.Fault = (context, _) => Task.FromResult(context.Request.Path.Value!.EndsWith(SegmentOf(3), StringComparison.Ordinal) && Abort(context));
        await Assert.ThrowsAsync<NacreException>(() => Player.UpdateAsync("office", UserPackageChoice.Postpone, _ => { }, new Ignored(), Retake.Nothing, isToStart: true, null, Token));
        await CleanAsync();
        Assert.Contains(IndexOf(3), Names(Office.Paths.Indexes));
        origin.Fault = null;
        await UpdateAsync(3);
        await Book.ChangeAsync(state => state.PutAside(Stack(3), Stack(1), "broken", organisation.Time.GetUtcNow()), Token);
        offered = 4;
        await UpdateAsync(4);
        Assert.Equal([1, 4], Kept());
    }

    [Fact]
    public async Task Nothing_goes_while_it_is_not_known_what_is_needed()
    {
        policy = policy.With(Settings.UpdateKeepVersions, 1);
        await UpdateAsync(1);
        await StartAsync(1);
        await UpdateAsync(2);
        await StartAsync(2);
        File.Copy(Office.Folder.GrantPath, Office["kept"]);
        await File.WriteAllBytesAsync(Path.Combine(Office.Paths.Segments, new string('e', 32)), [1], Token);

        // A lease that somebody changed.
        await File.WriteAllTextAsync(Office.Folder.GrantPath, (await File.ReadAllTextAsync(Office["kept"], Token)).Replace("lease\":\"ey", "lease\":\"ez", StringComparison.Ordinal), Token);
        await CleanAsync();
        Assert.Equal(4, Directory.GetFiles(Office.Paths.Segments).Length);
        await File.WriteAllTextAsync(Office.Folder.GrantPath, "{", Token);
        await CleanAsync();
        Assert.Equal(4, Directory.GetFiles(Office.Paths.Segments).Length);
        File.Copy(Office["kept"], Office.Folder.GrantPath, overwrite: true);

        // A guest that runs what its lease does not cover any more reads on.
        using (var guest = LeftOverTests.Start(Office.Folder))
        {
            await CleanAsync();
            Assert.Equal(4, Directory.GetFiles(Office.Paths.Segments).Length);
            Office.Folder.Machine = new MachineRecord
            {
                ProcessId = 1, StartTime = 1, Stack = Stack(6), Release = "", Kind = ImageKind.System, Accelerator = "tcg", Memory = 1, Processors = 1, Shape = "", Fresh = [],
            };
            await CleanAsync();
            Assert.Equal(4, Directory.GetFiles(Office.Paths.Segments).Length);
            Office.Folder.Machine = Office.Folder.Machine with { Stack = Stack(1) };
            await CleanAsync();
            Assert.Equal([1, 2], Kept());
            guest.Kill();
            await guest.WaitForExitAsync(Token);
        }

        await CleanAsync();
        Assert.Equal([2], Kept());
    }

    [Fact]
    public async Task A_user_goes_back_and_stays_there_until_something_newer_is_on_offer_or_the_update_is_asked_for()
    {
        await UpdateAsync(1);
        await StartAsync(1);
        await UpdateAsync(2);
        var waiting = await RefusedAsync(ErrorCatalogue.NotFound);
        Assert.Contains("release 2 of desk is here and starts at the next start", waiting.Message, StringComparison.Ordinal);
        await StartAsync(2);
        var plan = await Player.PlanRollbackAsync("office", Token);
        Assert.Equal(("release 2 of desk", "release 1 of desk", 0), (plan.From, plan.To, plan.Layers.Count));
        Assert.Equal(Stack(2), Book.Read().Next);
        Assert.Equal("release 1 of desk", (await RollBackAsync()).To);
        Assert.Equal(Stack(1), Book.Read().Next);
        var report = Assert.Single(reports, one => one.Kind == ReportKind.RolledBack);
        Assert.Equal(new ReleaseName("desk", 2), Assert.Single(report.Stack));
        Assert.Equal("its user went back to release 1 of desk", report.Reason);
        Assert.Contains("its user went back from release 2 of desk", (await Player.StatusAsync("office", Token)).SetAside, StringComparison.Ordinal);
        Assert.Equal([1, 2], Kept());

        // By itself it is not taken again: before the start, and after it.
        Assert.Contains("'nacre livepc update office' takes it again", (await Assert.ThrowsAsync<NacreException>(TryUpdateAsync)).Message, StringComparison.Ordinal);
        await StartAsync(1);
        Assert.Equal(ErrorCatalogue.StackSetAside, (await Assert.ThrowsAsync<NacreException>(TryUpdateAsync)).Kind);
        Assert.Equal(Stack(1), Book.Read().Choose(_ => true, Stack(2)));
        await RefusedAsync(ErrorCatalogue.NotFound);

        // Something newer comes by itself.
        await UpdateAsync(3);
        await StartAsync(3);
        Assert.Empty(Book.Read().SetAside);

        // The user asks for what was left: nothing is to download.
        Assert.Equal("release 1 of desk", (await RollBackAsync()).To);
        Assert.Equal(0, (await TryUpdateAsync(Retake.Left))!.Bytes);
        Assert.Equal(Stack(3), Book.Read().Next);
        await StartAsync(3);
        Assert.Null(await TryUpdateAsync());
    }

    [Fact]
    public async Task A_user_who_goes_back_while_the_update_starts_is_not_overruled_by_its_health()
    {
        await UpdateAsync(1);
        await StartAsync(1);
        await UpdateAsync(2);
        Office.Folder.Started = Stack(2);
        await RollBackAsync();
        await Book.ChangeAsync(state => state.Healthy(Stack(2)), Token);
        Assert.Equal(Stack(1), Book.Read().Next);
    }

    [Fact]
    public async Task Going_back_needs_no_network_where_the_earlier_release_is_here()
    {
        await UpdateAsync(1);
        await StartAsync(1);
        await UpdateAsync(2);
        await StartAsync(2);
        Assert.Null(await TryUpdateAsync());
        isDown = true;
        await origin.KillAsync();
        await RollBackAsync();
        Assert.Equal(Stack(1), Book.Read().Next);
        Assert.Single(Book.Read().Reports);
        isDown = false;
        await origin.StartAsync();
        await Assert.ThrowsAsync<NacreException>(TryUpdateAsync);
        Assert.Single(reports, one => one.Kind == ReportKind.RolledBack);
    }

    [Fact]
    public async Task Going_back_is_refused_by_the_policy_by_the_server_and_by_the_trust_metadata()
    {
        await UpdateAsync(1);
        await RefusedAsync(ErrorCatalogue.NotFound);
        await StartAsync(1);
        await RefusedAsync(ErrorCatalogue.NotFound);
        await UpdateAsync(2);
        await StartAsync(2);
        policy = policy.With(Settings.UpdateUserRollback, false);
        Assert.Contains("update.userRollback", (await RefusedAsync(ErrorCatalogue.Forbidden)).Message, StringComparison.Ordinal);
        policy = PolicyDocument.Empty;
        withdrawn.Add(1);
        Assert.Contains("does not let release 1 of desk start any more", (await RefusedAsync(ErrorCatalogue.Forbidden)).Message, StringComparison.Ordinal);
        withdrawn.Clear();
        await Player.PlanRollbackAsync("office", Token);

        // The server says yes, and the organisation's metadata lists another release 1.
        organisation.Vouch(6, manifest: version => version == 1 ? TrustedOrganisation.Manifest(1) : manifests[version]);
        await RefusedAsync(ErrorCatalogue.Forbidden);
        Assert.Equal(Stack(2), Book.Read().Next);
        Assert.Empty(Book.Read().SetAside);
        Assert.DoesNotContain(reports, one => one.Kind == ReportKind.RolledBack);

        // Nothing is kept to go back to.
        organisation.Vouch(6, manifest: version => manifests[version]);
        policy = policy.With(Settings.UpdateKeepVersions, 1);
        Assert.Null(await TryUpdateAsync());
        Assert.EndsWith("(update.keepVersions is 1)", (await RefusedAsync(ErrorCatalogue.NotFound)).Message, StringComparison.Ordinal);
    }

    private static CorporateStack Stack(int version) => new([new ReleaseName("desk", version)]);

    private static bool Abort(HttpContext context)
    {
        context.Abort();
        return true;
    }

    private static IEnumerable<string> Names(string folder) => Directory.GetFiles(folder).Select(file => Path.GetFileName(file)!);

    private string SegmentOf(int version) => OpenedLease.ReadManifest(manifests[version]).Segments[1].Name;

    private string IndexOf(int version) => OpenedLease.ReadManifest(manifests[version]).Index.Name;

    /// <summary>The releases of which segment and index are here.</summary>
    private IEnumerable<int> Kept() => manifests.Keys.Where(version => Names(Office.Paths.Segments).Contains(SegmentOf(version)) && Names(Office.Paths.Indexes).Contains(IndexOf(version)));

    /// <summary>Makes a release of a segment that all have and one of its own.</summary>
    private void Publish(int version)
    {
        var (described, chunks, references) = (new List<ReleaseSegment>(), new List<ReleaseChunk>(), new List<SegmentReference>());
        foreach (var plain in new[] { common, RandomNumberGenerator.GetBytes(ChunkLength) })
        {
            var builder = new SegmentBuilder(publisher);
            builder.Add(publisher.NameChunk(plain), plain, ChunkLength, compressed: false);
            var segment = builder.Seal();
            stored[segment.Name] = segment.Bytes;
            references.Add(new SegmentReference(segment.Name, segment.Bytes.Length, Convert.ToHexStringLower(SHA256.HashData(segment.Bytes))));
            var place = segment.Chunks.Single().Place;
            chunks.Add(new ReleaseChunk((long)described.Count * ChunkLength, ChunkLength, described.Count, place.Ordinal, place.Offset, place.StoredLength, place.Compressed));
            described.Add(new ReleaseSegment(segment.Name, publisher.SegmentKey(Convert.FromHexString(segment.Name)), segment.Bytes.Length));
        }

        var index = new ReleaseIndex(described, [new ReleaseArtifact("system", 2 * ChunkLength, chunks)]).Seal(releaseKey);
        var hash = Convert.ToHexStringLower(SHA256.HashData(index));
        stored[hash[..32]] = index;
        manifests[version] = TrustedOrganisation.Manifest(new ReleaseManifest(1, "desk", version, 0, "", 2 * ChunkLength, new SegmentReference(hash[..32], index.Length, hash), references));
    }

    private async Task UpdateAsync(int version)
    {
        offered = version;
        await TryUpdateAsync();
        Assert.Equal(Stack(version), Book.Read().Next);
    }

    private Task<UpdateResult?> TryUpdateAsync() => TryUpdateAsync(Retake.Nothing);

    private Task<UpdateResult?> TryUpdateAsync(Retake retake) => Player.UpdateAsync("office", UserPackageChoice.Postpone, _ => { }, new Ignored(), retake, isToStart: true, null, Token);

    private Task<RollbackPlan> RollBackAsync() => Player.RollBackAsync("office", UserPackageChoice.Postpone, _ => { }, new Ignored(), Token);

    private async Task<NacreException> RefusedAsync(ErrorKind kind)
    {
        var planned = await Assert.ThrowsAsync<NacreException>(() => Player.PlanRollbackAsync("office", Token));
        var refused = await Assert.ThrowsAsync<NacreException>(RollBackAsync);
        Assert.Equal((kind, planned.Message), (refused.Kind, refused.Message));
        return refused;
    }

    /// <summary>A healthy start.</summary>
    private async Task StartAsync(int version, LivePcFolder? folder = null)
    {
        (folder ?? Office.Folder).Started = Stack(version);
        await new StackBook(folder ?? Office.Folder, organisation.Time).ChangeAsync(state => state.Healthy(Stack(version)), Token);
    }

    private Task<int> CleanAsync() => new CacheKeeper(Office.Paths, organisation.Identity, organisation.Time).CleanAsync(Token);

    private async Task AssertWholeAsync(int version)
    {
        var manifest = OpenedLease.ReadManifest(manifests[version]);
        using var cache = new SegmentCache(Office.Paths.Segments);
        using var reader = new ReleaseReader(ReleaseIndex.Open(await File.ReadAllBytesAsync(Path.Combine(Office.Paths.Indexes, manifest.Index.Name), Token), releaseKey), cache, new NoOrigin());
        await reader.EnsureAllAsync(null, Token);
    }

    private async Task<bool> AnswerAsync(string name, HttpContext context)
    {
        if (isDown)
        {
            return Abort(context);
        }

        switch (name)
        {
            case "lease":
                var request = (await context.Request.ReadFromJsonAsync<TakeLease>(ContractJson.Options, Token))!;
                await context.Response.WriteAsJsonAsync(Grant(context.Request.Path.Value!.Split('/')[^2], request), ContractJson.Options, Token);
                return true;
            case "reports":
                reports.Add((await context.Request.ReadFromJsonAsync<SendReport>(ContractJson.Options, Token))!);
                context.Response.StatusCode = 204;
                return true;
            default:
                return false;
        }
    }

    /// <summary>A lease as the server gives it: what is offered, and of what is kept what is not newer.</summary>
    private LeaseGrant Grant(string livePc, TakeLease request)
    {
        var kept = (request.Kept ?? []).Where(release => release.Version <= offered && !withdrawn.Contains(release.Version)).ToList();
        var now = organisation.Time.GetUtcNow().ToUnixTimeSeconds();
        var claims = new LeaseClaims(
            "device-1", "ann", livePc, "desk", offered, null, now, now + 600, request.Nonce, [], policy.ToJson(), [], kept, [origin.Url.AbsoluteUri]);
        var versions = kept.Select(release => release.Version).Append(offered).Distinct().ToList();
        var keys = new LeaseKeys(Convert.ToBase64String(new byte[32]), versions.ToDictionary(version => $"{version}", _ => Convert.ToBase64String(releaseKey)));
        return new LeaseGrant(
            Jws.SignClaims(claims, organisation.LeaseKey, DeviceToken.LeaseType), [.. versions.Select(version => manifests[version])],
            Jwe.Encrypt(JsonSerializer.SerializeToUtf8Bytes(keys, ContractJson.Options), organisation.Identity.Key.PublicKey));
    }

    private sealed class NoOrigin : ISegmentOrigin
    {
        public ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken) => throw new InvalidOperationException("all of it should be here");
    }

    private sealed class Ignored : IProgress<long>
    {
        public void Report(long value)
        {
        }
    }
}
