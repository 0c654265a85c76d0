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

    /// <summary>Fetches and verifies all that is missing of all of them.</summary>
    public async Task EnsureAllAsync(IProgress<ReleaseStatistics>? progress, CancellationToken cancellationToken)
    {
        foreach (var reader in readers)
        {
            await reader.EnsureAllAsync(progress is null ? null : new Summed(this, progress), cancellationToken).ConfigureAwait(false);
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

    public void Dispose() => readers.ForEach(reader => reader.Dispose());

    private sealed class Summed(OpenReleases releases, IProgress<ReleaseStatistics> progress) : IProgress<ReleaseStatistics>
    {
        public void Report(ReleaseStatistics value) => progress.Report(releases.Statistics);
    }
}
