using System.Buffers.Text;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Security.Claims;
using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Server;

/// <summary>What a start of a release read on one device.</summary>
internal sealed class RecordingRow
{
    public required string Image { get; init; }

    public required int Version { get; init; }

    public required string DeviceId { get; init; }

    public required DateTimeOffset ReceivedAt { get; init; }

    /// <summary>A <see cref="BootSet"/>.</summary>
    public required byte[] Chunks { get; init; }

    /// <summary>Whether the administrator said that it counts alone.</summary>
    public bool IsTrusted { get; set; }

    public IReadOnlyList<StoredRange> Ranges => BootSet.TryDecode(Chunks) ?? [];
}

/// <summary>A release's boot pack.</summary>
internal sealed class BootPackRow
{
    public required string Image { get; init; }

    public required int Version { get; init; }

    /// <summary>Its name in the store.</summary>
    public required string Segment { get; set; }

    public required int Chunks { get; set; }

    public required long Length { get; set; }

    public BootPack ToContract() => new(new ReleaseName(Image, Version), Segment, Chunks, Length);
}

/// <summary>
/// Boot packs out of what devices recorded. A device may lie: what it says is bounded, and counts only where a second device says the same or the
/// administrator trusts the device. The packs' bytes are copies of sealed chunks; nothing here can open them.
/// </summary>
internal sealed class BootSets(NacreDatabase database, Segments segments, ISegmentStore store, Policies policies, AuditTrail audit, TimeProvider time)
{
    /// <summary>Recordings of a release: more than enough, as two starts read what a third one reads.</summary>
    private const int Most = 8;

    /// <summary>So many must agree; one that is trusted counts for all of them.</summary>
    private const int Agreement = 2;

    /// <summary>A start that reads more of a release than half of it and this is none.</summary>
    private const long LeastLimit = 16 * 1024 * 1024;

    public async Task<Result<Done>> TakeAsync(string deviceId, string untrustedLivePc, SendRecording untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.Release is null || !Names.IsValid(untrusted.Release.Image) || TryRead(untrusted.Chunks) is not { } ranges)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, "a recording has a 'release', and 'chunks' that are a boot set in base64");
        }

        var (image, version) = (untrusted.Release.Image, untrusted.Release.Version);
        int count;
        await using (var transaction = await database.BeginWriteAsync(cancellationToken))
        {
            var device = await database.Devices.AsNoTracking().SingleAsync(row => row.Id == deviceId, cancellationToken);
            var livePc = await database.LivePcs.AsNoTracking().SingleOrDefaultAsync(
                row => row.Name == untrustedLivePc && database.Entitlements.Any(one => one.LivePc == row.Name && one.User == device.User), cancellationToken);
            if (livePc is null || (livePc.Image != image && !await database.LivePcLayers.AnyAsync(row => row.LivePc == livePc.Name && row.Image == image, cancellationToken)))
            {
                return LeaseErrors.NotEntitled;
            }

            if ((await policies.ResolveAsync(device.User, livePc.Name, deviceId, cancellationToken)).Get(Settings.Telemetry) == TelemetryLevel.Off)
            {
                return new Failure(ErrorCatalogue.NotEntitled, "the policy of this LivePC says that starts are not told ('telemetry.level')");
            }

            if (await FindAsync(image, version, cancellationToken) is not { } release)
            {
                return ImageErrors.NoRelease(image, version);
            }

            if (ranges.Sum(range => (long)range.Length) > Limit(release) || !AreOf(release, ranges))
            {
                return new Failure(ErrorCatalogue.RequestInvalid, "the recording has chunks that are not the release's, or more of it than a start reads");
            }

            count = await database.Recordings.CountAsync(row => row.Image == image && row.Version == version, cancellationToken);
            if (count >= Most || await database.Recordings.AnyAsync(row => row.Image == image && row.Version == version && row.DeviceId == deviceId, cancellationToken))
            {
                return default(Done);
            }

            database.Recordings.Add(new RecordingRow { Image = image, Version = version, DeviceId = deviceId, ReceivedAt = time.Now(), Chunks = BootSet.Encode(ranges) });
            await audit.AppendAsync("device:" + deviceId, "boot-set.record", Named(image, version), string.Create(CultureInfo.InvariantCulture, $"{ranges.Count} chunks"), cancellationToken);
            await transaction.CommitAsync(cancellationToken);
            count++;
        }

        // At 2, 4 and 8 recordings: a device can have packs made a few times, not at will.
        if (count >= Agreement && int.IsPow2(count))
        {
            await MakeAsync(image, version, cancellationToken);
        }

        return default(Done);
    }

    public async Task<Result<BootSetState>> GetAsync(string untrustedImage, int version, CancellationToken cancellationToken)
    {
        if (await FindAsync(untrustedImage, version, cancellationToken) is not { } release)
        {
            return ImageErrors.NoRelease(Names.IsValid(untrustedImage) ? untrustedImage : "?", version);
        }

        var pack = await database.BootPacks.AsNoTracking().SingleOrDefaultAsync(row => row.Image == release.Image && row.Version == version, cancellationToken);
        return new BootSetState((await RecordingsAsync(release.Image, version, cancellationToken)).ConvertAll(row =>
        {
            var ranges = row.Ranges;
            return new Recording(row.DeviceId, row.ReceivedAt, ranges.Count, ranges.Sum(range => (long)range.Length), row.IsTrusted);
        }), pack?.ToContract());
    }

    /// <summary>Lets a device's recording count alone, and makes the pack anew.</summary>
    public async Task<Result<BootSetState>> TrustAsync(string untrustedImage, int version, TrustRecording untrusted, CancellationToken cancellationToken)
    {
        await using (var transaction = await database.BeginWriteAsync(cancellationToken))
        {
            if (await database.Recordings.SingleOrDefaultAsync(row => row.Image == untrustedImage && row.Version == version && row.DeviceId == untrusted.Device, cancellationToken) is not { } row)
            {
                return new Failure(ErrorCatalogue.NotFound, "that device has sent no recording of this release: start it there first");
            }

            if (!row.IsTrusted)
            {
                row.IsTrusted = true;
                await audit.AppendAsync(Roles.Administrator, "boot-set.trust", Named(row.Image, version), "device " + row.DeviceId, cancellationToken);
                await transaction.CommitAsync(cancellationToken);
            }
        }

        await MakeAsync(untrustedImage, version, cancellationToken);
        return await GetAsync(untrustedImage, version, cancellationToken);
    }

    /// <summary>The packs of these releases that are in the store.</summary>
    public async Task<IReadOnlyList<BootPack>> FindAsync(IReadOnlyList<ReleaseRow> releases, CancellationToken cancellationToken)
    {
        var packs = new List<BootPack>();
        foreach (var release in releases)
        {
            if (await database.BootPacks.AsNoTracking().SingleOrDefaultAsync(row => row.Image == release.Image && row.Version == release.Version, cancellationToken) is { } pack
                && (await segments.FindAsync([pack.Segment], cancellationToken)).Count > 0)
            {
                packs.Add(pack.ToContract());
            }
        }

        return packs;
    }

    /// <summary>What enough recordings agree on, in the order of first use; no more than <paramref name="limit"/> bytes.</summary>
    internal static IReadOnlyList<StoredRange> Merge(IReadOnlyList<(IReadOnlyList<StoredRange> Ranges, bool IsTrusted)> recordings, long limit)
    {
        var found = new Dictionary<StoredRange, (int Weight, List<int> Places)>();
        foreach (var (ranges, isTrusted) in recordings)
        {
            for (var place = 0; place < ranges.Count; place++)
            {
                var (weight, places) = found.GetValueOrDefault(ranges[place], (0, []));
                places.Add(place);
                found[ranges[place]] = (weight + (isTrusted ? Agreement : 1), places);
            }
        }

        var merged = new List<StoredRange>();
        foreach (var (range, _) in found.Where(one => one.Value.Weight >= Agreement).OrderBy(one => Median(one.Value.Places))
            .ThenBy(one => one.Key.Segment, StringComparer.Ordinal).ThenBy(one => one.Key.Offset))
        {
            if (range.Length > limit || merged.Count == BootSet.MostChunks)
            {
                break;
            }

            limit -= range.Length;
            merged.Add(range);
        }

        return merged;
    }

    private static int Median(List<int> places)
    {
        places.Sort();
        return places[(places.Count - 1) / 2];
    }

    /// <summary>Half of the release: a device that lies can't have everything sent.</summary>
    private static long Limit(ReleaseRow release) => Math.Clamp(release.StoredSize / 2, LeastLimit, BootSet.MostBytes);

    private static string Named(string image, int version) => string.Create(CultureInfo.InvariantCulture, $"{image}/{version}");

    private static IReadOnlyList<StoredRange>? TryRead(string? untrusted)
    {
        if (untrusted is null || untrusted.Length > (BootSet.TableSize(BootSet.MostChunks) + 2) / 3 * 4)
        {
            return null;
        }

        var bytes = new byte[untrusted.Length / 4 * 3];
        return Convert.TryFromBase64String(untrusted, bytes, out var length) ? BootSet.TryDecode(bytes.AsSpan(0, length)) : null;
    }

    /// <summary>Whether all of it is in segments of the release. The manifest was verified when it was published.</summary>
    private static bool AreOf(ReleaseRow release, IReadOnlyList<StoredRange> ranges)
    {
        if (!Jws.TryRead<ReleaseManifest>(Base64Url.DecodeFromChars(release.Manifest.Split('.')[1]), out var manifest))
        {
            return false;
        }

        var lengths = manifest.Segments.ToDictionary(segment => segment.Name, segment => segment.Length, StringComparer.Ordinal);
        return ranges.All(range => lengths.TryGetValue(range.Segment, out var length) && range.Offset + (long)range.Length <= length);
    }

    private Task<ReleaseRow?> FindAsync(string image, int version, CancellationToken cancellationToken) =>
        database.Releases.AsNoTracking().SingleOrDefaultAsync(row => row.Image == image && row.Version == version, cancellationToken);

    private Task<List<RecordingRow>> RecordingsAsync(string image, int version, CancellationToken cancellationToken) =>
        database.Recordings.AsNoTracking().Where(row => row.Image == image && row.Version == version).OrderBy(row => row.ReceivedAt).ThenBy(row => row.DeviceId).ToListAsync(cancellationToken);

    private async Task MakeAsync(string image, int version, CancellationToken cancellationToken)
    {
        if (await FindAsync(image, version, cancellationToken) is not { } release)
        {
            return;
        }

        var recordings = await RecordingsAsync(image, version, cancellationToken);
        var ranges = Merge(recordings.ConvertAll(row => (row.Ranges, row.IsTrusted)), Limit(release));
        if (ranges.Count == 0)
        {
            return;
        }

        // Segments never change, so the table says all of the content.
        var table = BootSet.Encode(ranges);
        var name = Text.Hex(SHA256.HashData(table))[..32];
        if (await segments.StoreAsync(name, ReadAsync(table, ranges, cancellationToken), cancellationToken) is not { } stored)
        {
            return; // the store lacks a segment: 'nacre store check' finds it
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.BootPacks.SingleOrDefaultAsync(row => row.Image == image && row.Version == version, cancellationToken) is { } pack)
        {
            (pack.Segment, pack.Chunks, pack.Length) = (name, ranges.Count, stored.Length);
        }
        else
        {
            database.BootPacks.Add(new BootPackRow { Image = image, Version = version, Segment = name, Chunks = ranges.Count, Length = stored.Length });
        }

        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
    }

    /// <summary>The pack's bytes: the table, then the chunks.</summary>
    /// <exception cref="FileNotFoundException">The store lacks a segment, or a part of it.</exception>
    private async IAsyncEnumerable<ReadOnlyMemory<byte>> ReadAsync(byte[] table, IReadOnlyList<StoredRange> ranges, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        yield return table;
        Stream? segment = null;
        var opened = "";
        try
        {
            foreach (var range in ranges)
            {
                if (opened != range.Segment)
                {
                    if (segment is not null)
                    {
                        await segment.DisposeAsync();
                    }

                    segment = await store.OpenAsync(range.Segment, cancellationToken) ?? throw new FileNotFoundException("the store lacks a segment", range.Segment);
                    opened = range.Segment;
                }

                var chunk = new byte[range.Length];
                segment!.Position = range.Offset;
                if (await segment.ReadAtLeastAsync(chunk, chunk.Length, throwOnEndOfStream: false, cancellationToken) < chunk.Length)
                {
                    throw new FileNotFoundException("the store lacks a part of a segment", range.Segment);
                }

                yield return chunk;
            }
        }
        finally
        {
            if (segment is not null)
            {
                await segment.DisposeAsync();
            }
        }
    }
}

internal static class BootSetEndpoints
{
    public static void Map(Groups groups)
    {
        groups.Device.MapPost("/livepcs/{name}/recordings", async (string name, SendRecording body, ClaimsPrincipal caller, BootSets sets, CancellationToken cancellationToken) =>
                (await sets.TakeAsync(caller.FindFirstValue(ClaimTypes.NameIdentifier)!, name, body, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("SendRecording").WithSummary("Which chunks a start of a release read on this device, in which order.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotEntitled, ErrorCatalogue.NotFound, ErrorCatalogue.NoSpace);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.Auditor).MapGet("/images/{image}/releases/{version:int}/boot-set", async (string image, int version, BootSets sets, CancellationToken cancellationToken) =>
                (await sets.GetAsync(image, version, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("GetBootSet").WithSummary("The recordings of a release's starts, and its boot pack.")
            .Produces<BootSetState>().Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.Author).MapPost("/images/{image}/releases/{version:int}/boot-set", async (string image, int version, TrustRecording body, BootSets sets, CancellationToken cancellationToken) =>
                (await sets.TrustAsync(image, version, body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("TrustRecording").WithSummary("Lets one device's recording count alone, and makes the boot pack of it.")
            .Produces<BootSetState>().Fails(ErrorCatalogue.NotFound, ErrorCatalogue.RequestInvalid, ErrorCatalogue.NoSpace);
    }
}
