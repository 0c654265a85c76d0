using Nacre.Contracts;
using Nacre.Player.Leases;
using Nacre.Player.Releases;
using Nacre.Volumes;
using Nacre.Volumes.Releases;

namespace Nacre.Player.Stacks;

/// <summary>The opened releases of a stack, as one.</summary>
internal sealed class OpenReleases : IDisposable
{
    private readonly List<ReleaseReader> readers = [];
    private readonly ReleaseOpener opener;

    /// <summary>By the place in the stack, where there is one to use; with the release that it is from.</summary>
    private readonly Dictionary<int, (DeltaReader Delta, ReleaseReader From)> deltas = [];

    private OpenReleases(CorporateStack stack, ReleaseOpener opener)
    {
        Stack = stack;
        this.opener = opener;
    }

    public CorporateStack Stack { get; }

    /// <summary>The system's.</summary>
    public ReleaseReader System => readers[0];

    /// <summary>Bytes of all their artifacts.</summary>
    public long Size { get; private set; }

    /// <summary>What their readers did; a segment that several of them name counts for each.</summary>
    public ReleaseStatistics Statistics => readers.Select(reader => reader.Statistics).Aggregate(
        new ReleaseStatistics(opener.FetchedBytes, 0, 0, 0),
        (sum, one) => new ReleaseStatistics(sum.FetchedBytes + one.FetchedBytes, sum.Requests + one.Requests, sum.PresentBytes + one.PresentBytes, sum.TotalBytes + one.TotalBytes));

    /// <summary>Bytes that are still to be fetched to have all of them, with deltas where those are used.</summary>
    public long MissingBytes => Statistics.TotalBytes - Statistics.PresentBytes - SavedBytes;

    /// <summary>Bytes that deltas save.</summary>
    public long SavedBytes => deltas.Values.Sum(one => one.Delta.ReplacedBytes - one.Delta.Bytes);

    /// <summary>Why a delta, or a part of one, could not be used: whole chunks are fetched instead. Null where there was no such thing.</summary>
    public string? DeltaFailure { get; private set; }

    /// <summary>Why one of them can't be read now; null where all can.</summary>
    public VolumeException? Failure => readers.Select(reader => reader.Failure).FirstOrDefault(failure => failure is not null);

    /// <summary>The application layers' disks, lowest first: their names at the NBD server and their content.</summary>
    public IEnumerable<(string Export, IBlockDevice Device)> Layers => readers.Skip(1).Select((reader, number) => (ExportOf(number), (IBlockDevice)new ReleaseVolume(reader, "layer")));

    /// <summary>What an application layer's disk is called.</summary>
    public static string ExportOf(int number) => $"app-{number:00}";

    /// <summary>Opens every release of a stack that the lease covers.</summary>
    /// <exception cref="NacreException">What keeps one from being opened.</exception>
    public static async Task<OpenReleases> OpenAsync(OpenedLease lease, CorporateStack stack, ReleaseOpener opener, CancellationToken cancellationToken)
    {
        var opened = new OpenReleases(stack, opener);
        try
        {
            foreach (var release in stack.Releases)
            {
                var manifest = lease.Release(release).Manifest;
                opened.readers.Add(await opener.OpenAsync(manifest, lease.ReleaseKey(release), cancellationToken).ConfigureAwait(false));
                opened.Size += manifest.Size;
            }

            return opened;
        }
        catch
        {
            opened.Dispose();
            throw;
        }
    }

    /// <summary>Finds, for each release that is not complete, the delta from a release on this device that saves the most.</summary>
    /// <param name="lease">Covers the releases.</param>
    /// <param name="kept">The releases on this device.</param>
    /// <param name="cancellationToken">Stops.</param>
    public async Task FindDeltasAsync(OpenedLease lease, IReadOnlyList<ReleaseName> kept, CancellationToken cancellationToken)
    {
        foreach (var (reader, number) in readers.Select((reader, number) => (reader, number)).Where(one => one.reader.Statistics is var now && now.PresentBytes < now.TotalBytes))
        {
            var (manifest, _) = lease.Release(Stack.Releases[number]);
            foreach (var delta in manifest.Deltas ?? [])
            {
                var name = new ReleaseName(manifest.Image, delta.From);
                if (!kept.Contains(name) || !lease.Covers(name))
                {
                    continue;
                }

                await TryDeltaAsync(lease, name, number, manifest, delta, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Fetches and verifies all that is missing of all of them.</summary>
    public async Task EnsureAllAsync(IProgress<ReleaseStatistics>? progress, CancellationToken cancellationToken)
    {
        foreach (var (reader, number) in readers.Select((reader, number) => (reader, number)))
        {
            if (deltas.TryGetValue(number, out var found))
            {
                await found.Delta.ApplyAsync(progress is null ? null : new Summed(this, progress), cancellationToken).ConfigureAwait(false);
                DeltaFailure = found.Delta.Failure?.Message ?? DeltaFailure;
            }

            await reader.EnsureAllAsync(progress is null ? null : new Summed(this, progress), cancellationToken).ConfigureAwait(false);
        }
    }

    public void Dispose()
    {
        readers.ForEach(reader => reader.Dispose());
        foreach (var (_, from) in deltas.Values)
        {
            from.Dispose();
        }
    }

    private async Task TryDeltaAsync(OpenedLease lease, ReleaseName name, int number, ReleaseManifest manifest, ReleaseDelta delta, CancellationToken cancellationToken)
    {
        ReleaseReader? from = null;
        try
        {
            var earlier = lease.Release(name).Manifest;
            from = await opener.OpenAsync(earlier, lease.ReleaseKey(name), cancellationToken).ConfigureAwait(false);
            var candidate = await opener.OpenDeltaAsync((from, earlier), (readers[number], manifest), delta, lease.ReleaseKey(manifest.Name), cancellationToken).ConfigureAwait(false);
            var saved = candidate.ReplacedBytes - candidate.Bytes;
            if (saved > (deltas.TryGetValue(number, out var best) ? best.Delta.ReplacedBytes - best.Delta.Bytes : 0))
            {
                best.From?.Dispose();
                deltas[number] = (candidate, from);
                from = null;
            }
        }
        catch (Exception exception) when (exception is VolumeException or NacreException)
        {
            DeltaFailure = exception.Message;
        }
        finally
        {
            from?.Dispose();
        }
    }

    /// <summary>A pack of one of the releases.</summary>
    internal sealed record FoundPack(ReleaseReader Reader, BootPack Pack, IReadOnlyList<StoredRange> Copies);

    /// <summary>Reads what the packs hold of the releases that are not all here.</summary>
    /// <exception cref="VolumeException">One can't be read, or is none.</exception>
    public async Task<IReadOnlyList<FoundPack>> FindPacksAsync(IReadOnlyList<BootPack> untrustedPacks, CancellationToken cancellationToken)
    {
        var found = new List<FoundPack>();
        foreach (var (release, reader) in Stack.Releases.Zip(readers))
        {
            if (reader.Statistics is var now && now.PresentBytes < now.TotalBytes && untrustedPacks.FirstOrDefault(pack => pack is not null && pack.Release == release) is { } pack)
            {
                found.Add(new FoundPack(reader, pack, await opener.ReadPackAsync(pack, cancellationToken).ConfigureAwait(false)));
            }
        }

        return found;
    }

    /// <summary>What each release's start read so far; the recording ends.</summary>
    public IReadOnlyList<(ReleaseName Release, IReadOnlyList<StoredRange> Chunks)> EndRecording() => [.. Stack.Releases.Zip(readers, (release, reader) =>
        (release, (IReadOnlyList<StoredRange>)[.. reader.EndRecording().Select(chunk => new StoredRange(chunk.Segment, chunk.Offset, chunk.Length))]))];

    private sealed class Summed(OpenReleases releases, IProgress<ReleaseStatistics> progress) : IProgress<ReleaseStatistics>
    {
        public void Report(ReleaseStatistics value) => progress.Report(releases.Statistics);
    }
}
