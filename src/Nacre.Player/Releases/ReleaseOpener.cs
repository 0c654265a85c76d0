using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Volumes;
using Nacre.Volumes.Releases;

namespace Nacre.Player.Releases;

/// <summary>Opens a verified release over the device's cache.</summary>
internal sealed class ReleaseOpener
{
    /// <summary>Prevents a hostile manifest from asking for memory.</summary>
    private const int MaxIndexBytes = 64 * 1024 * 1024;

    private readonly PlayerPaths paths;
    private readonly SegmentCache cache;
    private readonly ISegmentOrigin origin;

    public ReleaseOpener(PlayerPaths paths, SegmentCache cache, ISegmentOrigin origin)
    {
        this.paths = paths;
        this.cache = cache;
        this.origin = origin;
    }

    /// <summary>Bytes of indexes and plans of deltas that came from the origin.</summary>
    public long FetchedBytes { get; private set; }

    /// <summary>Reads the release's index, from the cache or the origin, and checks it against the manifest.</summary>
    public async Task<ReleaseReader> OpenAsync(ReleaseManifest manifest, byte[] releaseKey, CancellationToken cancellationToken)
    {
        try
        {
            var bytes = await ReadIndexAsync(manifest.Index, cancellationToken).ConfigureAwait(false);
            var index = ReleaseIndex.Open(bytes, releaseKey);
            var allowed = manifest.Segments.ToDictionary(segment => segment.Name, segment => segment.Length, StringComparer.Ordinal);
            foreach (var segment in index.Segments)
            {
                if (!Names.IsSegmentName(segment.Name) || !allowed.TryGetValue(segment.Name, out var length) || length != segment.Length)
                {
                    throw new VolumeException(VolumeErrorKind.NotAuthentic, $"the index names segment {segment.Name}, which the manifest does not");
                }
            }

            return new ReleaseReader(index, cache, origin);
        }
        catch (VolumeException exception)
        {
            throw VolumeErrors.OfRelease(exception);
        }
    }

    /// <summary>Reads a delta's plan from the origin, checks it against the manifest, and chooses what of the delta is worth its bytes.</summary>
    /// <exception cref="VolumeException">The plan can't be had, is not what the manifest names, or is for other releases.</exception>
    public async Task<DeltaReader> OpenDeltaAsync(
        (ReleaseReader Reader, ReleaseManifest Manifest) from, (ReleaseReader Reader, ReleaseManifest Manifest) to, ReleaseDelta delta, byte[] releaseKey, CancellationToken cancellationToken)
    {
        if (delta.Parts.Append(delta.Plan).Any(file => !Names.IsSegmentName(file.Name)) || delta.Plan.Length is <= 0 or > DeltaPlan.MaxSealedSize)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, "the manifest's delta is out of bounds");
        }

        var bytes = await FetchAsync(delta.Plan, "the delta's plan", cancellationToken).ConfigureAwait(false);
        var plan = DeltaPlan.Open(bytes, releaseKey, (from.Reader.Index, from.Manifest.Index.Name), (to.Reader.Index, to.Manifest.Index.Name));
        return new DeltaReader(from.Reader, to.Reader, plan, [.. delta.Parts.Select(file => new DeltaFile(file.Name, file.Length, file.Sha256))], releaseKey, origin);
    }

    /// <summary>Reads what a boot pack holds.</summary>
    /// <exception cref="VolumeException">Io, Truncated; Corrupt: it is none.</exception>
    public async Task<IReadOnlyList<StoredRange>> ReadPackAsync(BootPack untrustedPack, CancellationToken cancellationToken)
    {
        if (!Names.IsSegmentName(untrustedPack.Name) || untrustedPack.Chunks is < 1 or > BootSet.MostChunks)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, "the boot pack is out of bounds");
        }

        var table = new byte[BootSet.TableSize(untrustedPack.Chunks)];
        await origin.ReadAsync(new SegmentRange(untrustedPack.Name, 0, table, arrived => arrived, isUrgent: true), cancellationToken).ConfigureAwait(false);
        FetchedBytes += table.Length;
        return BootSet.TryDecode(table) ?? throw new VolumeException(VolumeErrorKind.Corrupt, $"the boot pack {untrustedPack.Name} does not begin as one");
    }

    private async Task<byte[]> ReadIndexAsync(SegmentReference reference, CancellationToken cancellationToken)
    {
        if (!Names.IsSegmentName(reference.Name) || reference.Length is <= 0 or > MaxIndexBytes)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, "the manifest's index is out of bounds");
        }

        var path = Path.Combine(paths.Indexes, reference.Name);
        if (File.Exists(path) && await File.ReadAllBytesAsync(path, cancellationToken).ConfigureAwait(false) is var kept && IsAuthentic(kept, reference))
        {
            return kept;
        }

        var bytes = await FetchAsync(reference, "the index", cancellationToken).ConfigureAwait(false);
        PlayerPaths.MakePrivate(paths.Indexes);
        DurableFile.Write(path, bytes);
        return bytes;
    }

    private async Task<byte[]> FetchAsync(SegmentReference reference, string what, CancellationToken cancellationToken)
    {
        var bytes = new byte[reference.Length];
        await origin.ReadAsync(new SegmentRange(reference.Name, 0, bytes, Verify, isUrgent: true), cancellationToken).ConfigureAwait(false);
        FetchedBytes += bytes.Length;
        return bytes;

        int Verify(int arrived) => arrived < bytes.Length ? 0
            : IsAuthentic(bytes, reference) ? arrived : throw new VolumeException(VolumeErrorKind.NotAuthentic, $"{what} {reference.Name}");
    }

    private static bool IsAuthentic(byte[] bytes, SegmentReference reference) =>
        bytes.Length == reference.Length && Convert.ToHexStringLower(SHA256.HashData(bytes)) == reference.Sha256;
}
