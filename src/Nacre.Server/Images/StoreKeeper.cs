using System.Globalization;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Server;

/// <summary>
/// Keeps the store to what is needed, and finds out whether it is whole. Safe while others publish and download: what goes is decided and removed under
/// the database's lock, which a publication takes to land, and the database itself does not let a segment go that a release refers to.
/// </summary>
internal sealed class StoreKeeper(NacreDatabase database, ISegmentStore store, Segments segments, Policies policies, AuditTrail audit, ServerOptions options, TimeProvider time)
{
    /// <summary>Segments that go under one lock: few, so that who publishes waits for little.</summary>
    private const int Batch = 20;

    /// <summary>Fills in what releases refer to that were published before that was written down.</summary>
    public async Task NoteUsesAsync(CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var unnoted = await database.Releases.AsNoTracking()
            .Where(row => !database.SegmentUses.Any(use => use.Image == row.Image && use.Version == row.Version)).ToListAsync(cancellationToken);
        foreach (var release in unnoted)
        {
            var payload = System.Buffers.Text.Base64Url.DecodeFromChars(release.Manifest.Split('.')[1]);
            if (!Jws.TryRead<ReleaseManifest>(payload, out var manifest))
            {
                throw new NacreException(ErrorCatalogue.FileAccess, $"the database has a manifest that can't be read: release {release.Version} of '{release.Image}'");
            }

            var names = manifest.Stored.Select(segment => segment.Name).ToHashSet(StringComparer.Ordinal);
            var known = await database.Segments.Where(row => names.Contains(row.Name)).Select(row => row.Name).ToListAsync(cancellationToken);
            database.SegmentUses.AddRange(known.Select(name => new SegmentUseRow { Image = release.Image, Version = release.Version, Segment = name }));
        }

        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
    }

    /// <summary>Removes releases outside their image's retention, and segments and bytes that nobody needs.</summary>
    /// <param name="dryRun">Whether it is only found out what would go; the segments of releases that would go are not among them.</param>
    /// <param name="cancellationToken">Stops after what is under way; running it again goes on.</param>
    public async Task<StoreCleaned> CleanAsync(bool dryRun, CancellationToken cancellationToken)
    {
        var retired = await RetireAsync(dryRun, cancellationToken);
        var (count, bytes) = await RemoveSegmentsAsync(dryRun, cancellationToken);
        if (!dryRun)
        {
            await RemoveOrphansAsync(cancellationToken);
            if (count > 0)
            {
                await using var transaction = await database.BeginWriteAsync(cancellationToken);
                await audit.AppendAsync("server", "store.clean", "segments", string.Create(CultureInfo.InvariantCulture, $"{count} segments, {bytes} bytes"), cancellationToken);
                await transaction.CommitAsync(cancellationToken);
            }
        }

        return new StoreCleaned(retired, count, bytes);
    }

    /// <summary>Reads a 256th of the store and compares it with what should be there.</summary>
    public async Task<Result<StoreCheck>> CheckAsync(int untrustedPart, CancellationToken cancellationToken)
    {
        if (untrustedPart is < 0 or >= StoreCheck.Parts)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"a store has the parts 0 to {StoreCheck.Parts - 1}");
        }

        var digits = Digits(untrustedPart);
        var known = await InPart(digits).ToListAsync(cancellationToken);
        var problems = new List<StoreProblem>();
        var bytes = 0L;
        foreach (var row in known)
        {
            var found = await segments.HashAsync(row.Name, cancellationToken);
            bytes += found?.Length ?? 0;

            // One that went meanwhile is not missing.
            if (found != (row.Length, row.Sha256) && await database.Segments.AnyAsync(one => one.Name == row.Name, cancellationToken))
            {
                var releases = await database.SegmentUses.Where(use => use.Segment == row.Name).OrderBy(use => use.Image).ThenBy(use => use.Version)
                    .Select(use => new ReleaseName(use.Image, use.Version)).ToListAsync(cancellationToken);
                problems.Add(new StoreProblem(row.Name, found is null ? StoreProblemKind.Missing : StoreProblemKind.Damaged, row.Sha256, releases));
            }
        }

        await foreach (var orphan in OrphansAsync(digits, cancellationToken))
        {
            problems.Add(new StoreProblem(orphan.Name, StoreProblemKind.Orphan, null, []));
        }

        return new StoreCheck(known.Count, bytes, problems);
    }

    private static string Digits(int part) => part.ToString("x2", CultureInfo.InvariantCulture);

    private IQueryable<SegmentRow> InPart(string digits) => database.Segments.AsNoTracking()
        .Where(row => string.Compare(row.Name, digits) >= 0 && string.Compare(row.Name, digits + "g") < 0).OrderBy(row => row.Name);

    /// <summary>Takes away the releases that nobody keeps: not among the newest of their image, on no channel, in no roll-out, held by no policy, and on no device that is not revoked.</summary>
    private async Task<IReadOnlyList<ReleaseName>> RetireAsync(bool dryRun, CancellationToken cancellationToken)
    {
        var now = time.Now();
        var retired = new List<ReleaseName>();
        await using var transaction = await database.BeginWriteAsync(cancellationToken);

        // What a device has is what its leases cover that have not ended, and its newest one in any case.
        await database.LeasedReleases.Where(row => database.Leases.Any(lease => lease.Id == row.LeaseId && lease.ExpiresAt <= now
            && database.Leases.Any(newer => newer.DeviceId == lease.DeviceId && newer.LivePc == lease.LivePc && newer.IssuedAt > lease.IssuedAt))).ExecuteDeleteAsync(cancellationToken);
        var held = (await policies.FindDecidedAsync(Settings.UpdateChannel, cancellationToken)).Values.Select(Settings.TryReadRelease).OfType<int>().ToList();
        foreach (var image in await database.Images.AsNoTracking().Where(row => row.Keep != null).ToListAsync(cancellationToken))
        {
            var old = await database.Releases.AsNoTracking().Where(row => row.Image == image.Name).OrderByDescending(row => row.Version).Skip(image.Keep!.Value)
                .Where(row => !database.Channels.Any(channel => channel.Image == row.Image && channel.Version == row.Version)
                    && !database.Rollouts.Any(rollout => rollout.Image == row.Image && rollout.Version == row.Version)
                    && !(held.Contains(row.Version) && database.LivePcs.Any(livePc => livePc.Image == row.Image))
                    && !database.LeasedReleases.Any(leased => leased.Image == row.Image && leased.Version == row.Version
                        && database.Leases.Any(lease => lease.Id == leased.LeaseId && database.Devices.Any(device => device.Id == lease.DeviceId && device.RevokedAt == null))))
                .Select(row => row.Version).ToListAsync(cancellationToken);
            retired.AddRange(old.Select(version => new ReleaseName(image.Name, version)));
        }

        if (dryRun)
        {
            return retired;
        }

        foreach (var release in retired)
        {
            // Who publishes may have read of this release, and refer to its segments: they stay for the grace period from now on.
            await database.Segments.Where(row => database.SegmentUses.Any(use => use.Segment == row.Name && use.Image == release.Image && use.Version == release.Version))
                .ExecuteUpdateAsync(update => update.SetProperty(row => row.NeededAt, now), cancellationToken);
            await database.Contents.Where(row => row.Image == release.Image && row.Version == release.Version).ExecuteDeleteAsync(cancellationToken);
            await database.Releases.Where(row => row.Image == release.Image && row.Version == release.Version).ExecuteDeleteAsync(cancellationToken);
            await audit.AppendAsync("server", "release.retire", string.Create(CultureInfo.InvariantCulture, $"{release.Image}/{release.Version}"), "outside the image's retention", cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);
        return retired;
    }

    private async Task<(int Count, long Bytes)> RemoveSegmentsAsync(bool dryRun, CancellationToken cancellationToken)
    {
        var until = time.Now() - options.SegmentGrace;
        var unneeded = database.Segments.AsNoTracking()
            .Where(row => row.NeededAt <= until && !database.SegmentUses.Any(use => use.Segment == row.Name) && !database.BootPacks.Any(pack => pack.Segment == row.Name));
        if (dryRun)
        {
            return (await unneeded.CountAsync(cancellationToken), await unneeded.SumAsync(row => row.Length, cancellationToken));
        }

        var (count, bytes) = (0, 0L);
        while (true)
        {
            await using var transaction = await database.BeginWriteAsync(cancellationToken);
            var batch = await unneeded.OrderBy(row => row.Name).Take(Batch).ToListAsync(cancellationToken);
            foreach (var row in batch)
            {
                // The bytes first: if this is where it ends, the segment is known and not there, which who looks for it is told. The other way round nobody would know of the bytes.
                await store.DeleteAsync(row.Name, cancellationToken);
                await database.Segments.Where(one => one.Name == row.Name).ExecuteDeleteAsync(cancellationToken);
                bytes += row.Length;
            }

            await transaction.CommitAsync(CancellationToken.None);
            count += batch.Count;
            if (batch.Count < Batch)
            {
                return (count, bytes);
            }
        }
    }

    /// <summary>Removes bytes that no upload made known within the grace period.</summary>
    private async Task RemoveOrphansAsync(CancellationToken cancellationToken)
    {
        for (var part = 0; part < StoreCheck.Parts; part++)
        {
            await foreach (var orphan in OrphansAsync(Digits(part), cancellationToken))
            {
                if (orphan.WrittenAt > time.GetUtcNow() - options.SegmentGrace)
                {
                    continue;
                }

                await using var transaction = await database.BeginWriteAsync(cancellationToken);
                if (!await database.Segments.AnyAsync(row => row.Name == orphan.Name, cancellationToken))
                {
                    await store.DeleteAsync(orphan.Name, cancellationToken);
                }
            }
        }
    }

    private async IAsyncEnumerable<StoredSegment> OrphansAsync(string digits, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var stored = new List<StoredSegment>();
        await foreach (var one in store.ListAsync(digits, cancellationToken))
        {
            stored.Add(one);
        }

        if (stored.Count == 0)
        {
            yield break;
        }

        // The rows after the bytes: an upload writes its bytes first.
        var known = (await InPart(digits).Select(row => row.Name).ToListAsync(cancellationToken)).ToHashSet(StringComparer.Ordinal);
        foreach (var one in stored.Where(one => !known.Contains(one.Name)))
        {
            yield return one;
        }
    }
}

/// <summary>Where devices may fetch segments besides the server, as the administrator says.</summary>
internal sealed class Origins(NacreDatabase database, AuditTrail audit)
{
    public const string Setting = "origins";

    public async Task<IReadOnlyList<string>?> ListAsync(CancellationToken cancellationToken) =>
        await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken) is { Value.Length: > 0 } row ? row.Value.Split('\n') : null;

    public async Task<Result<StoreOrigins>> PutAsync(StoreOrigins untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.Urls is not { Count: <= StoreOrigins.Most })
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"'urls' must be at most {StoreOrigins.Most} URLs");
        }

        var urls = new List<string>();
        foreach (var untrustedUrl in untrusted.Urls)
        {
            if (!StoreOrigins.TryReadUrl(untrustedUrl, out var url))
            {
                return new Failure(ErrorCatalogue.RequestInvalid, "an origin is a base URL, http or https, such as https://cdn.example.com/nacre: without a user, a query or a fragment, of at most 300 characters");
            }

            urls.Add(url.AbsoluteUri);
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var row = await database.Settings.SingleOrDefaultAsync(one => one.Name == Setting, cancellationToken);
        var value = string.Join('\n', urls);
        if ((row?.Value ?? "") != value)
        {
            if (row is null)
            {
                database.Settings.Add(new SettingRow { Name = Setting, Value = value });
            }
            else
            {
                row.Value = value;
            }

            await audit.AppendAsync(Roles.Administrator, "store.origins", "origins", value.Replace('\n', ' '), cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }

        return new StoreOrigins(urls);
    }
}

internal static class StoreEndpoints
{
    public static void Map(Groups groups)
    {
        var group = groups.Administrator;
        groups.Of(Roles.Administrator, Roles.Author, Roles.Auditor).MapGet("/origins", async (Origins origins, CancellationToken cancellationToken) => new StoreOrigins(await origins.ListAsync(cancellationToken) ?? []))
            .WithName("GetOrigins").WithSummary("Where devices may fetch segments besides this server.");
        group.MapPut("/origins", async (StoreOrigins body, Origins origins, CancellationToken cancellationToken) =>
                (await origins.PutAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("PutOrigins").WithSummary("Sets where devices may fetch segments besides this server, in order. Devices learn it with their next lease.")
            .Produces<StoreOrigins>().Fails(ErrorCatalogue.RequestInvalid);
        group.MapPost("/store/clean", (CleanStore body, StoreKeeper keeper, CancellationToken cancellationToken) => keeper.CleanAsync(body.DryRun, cancellationToken))
            .WithName("CleanStore").WithSummary("Removes releases outside retention and segments that nobody needs, as the server does by itself every hour.");
        group.MapPost("/store/check/{part:int}", async (int part, StoreKeeper keeper, CancellationToken cancellationToken) =>
                (await keeper.CheckAsync(part, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("CheckStore").WithSummary("Reads the segments whose names begin with the two hexadecimal digits of this number (0 to 255), and compares them with their hashes.")
            .Produces<StoreCheck>().Fails(ErrorCatalogue.RequestInvalid);
        group.MapPost("/replica-token", async (ReplicaToken token, CancellationToken cancellationToken) => new CreatedReplicaToken(await token.RenewAsync(cancellationToken)))
            .WithName("CreateReplicaToken").WithSummary("Makes the token with which replicas learn which segments to mirror; an earlier one is void.");
        groups.Replica.MapGet("/releases", async (NacreDatabase database, CancellationToken cancellationToken) => await PlanAsync(database, cancellationToken))
            .WithName("GetReplicaPlan").WithSummary("All releases with the names, lengths and hashes of their segments.");
    }

    private static async Task<ReplicaPlan> PlanAsync(NacreDatabase database, CancellationToken cancellationToken)
    {
        var channels = (await database.Channels.AsNoTracking().ToListAsync(cancellationToken)).ToLookup(row => new ReleaseName(row.Image, row.Version), row => row.Name);
        var uses = await (
            from use in database.SegmentUses.AsNoTracking()
            join segment in database.Segments on use.Segment equals segment.Name
            orderby use.Image, use.Version, segment.Name
            select new { use.Image, use.Version, Segment = new SegmentReference(segment.Name, segment.Length, segment.Sha256) }).ToListAsync(cancellationToken);
        return new ReplicaPlan([.. uses.GroupBy(use => new ReleaseName(use.Image, use.Version))
            .Select(group => new ReplicaRelease(group.Key, [.. channels[group.Key].Order(StringComparer.Ordinal)], [.. group.Select(use => use.Segment)]))]);
    }
}

/// <summary>Cleans the store every hour.</summary>
internal sealed class StoreSweeper(IServiceScopeFactory scopes, TimeProvider time, ILogger<StoreSweeper> logger) : BackgroundService
{
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromHours(1), time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            try
            {
                await using var scope = scopes.CreateAsyncScope();
                await scope.ServiceProvider.GetRequiredService<StoreKeeper>().CleanAsync(dryRun: false, stoppingToken);
            }
#pragma warning disable CA1031 // The next hour is the next chance; a store that is away now must not end the server.
            catch (Exception exception) when (exception is not OperationCanceledException)
#pragma warning restore CA1031
            {
                logger.StoreNotCleaned(exception);
            }
        }
    }
}
