using System.Security.Cryptography;
using Microsoft.Win32.SafeHandles;
using Nacre.Contracts;
using Nacre.Volumes;
using Nacre.Volumes.Releases;
using ZstdSharp;

namespace Nacre.Images.Publishing;

/// <summary>How far publishing is.</summary>
/// <param name="ReadBytes">Bytes of the image read.</param>
/// <param name="TotalBytes">Bytes of the image.</param>
/// <param name="UploadedBytes">Bytes sent to the store.</param>
/// <param name="DeltaFrom">The earlier release to which a delta is being made: <paramref name="ReadBytes"/> and <paramref name="TotalBytes"/> count what changed since then. Null
/// while the image itself is published.</param>
public readonly record struct PublishProgress(long ReadBytes, long TotalBytes, long UploadedBytes, int? DeltaFrom = null);

/// <summary>What publishing did.</summary>
/// <param name="Release">The release.</param>
/// <param name="ImageBytes">Bytes of the image.</param>
/// <param name="UploadedBytes">Bytes sent to the store.</param>
/// <param name="ReusedBytes">Bytes of the image that the store had already.</param>
/// <param name="Deltas">The deltas to it.</param>
public sealed record PublishResult(Release Release, long ImageBytes, long UploadedBytes, long ReusedBytes, IReadOnlyList<ReleaseDelta> Deltas);

/// <summary>
/// Publishes a golden image as a release: cuts it into chunks, leaves out those that the organisation has published before, compresses and
/// seals the rest into segments, uploads what the store lacks, and signs the manifest. Interrupted and run again on the same image, it makes
/// the same segments again and uploads only those that are missing.
/// </summary>
public sealed class ReleasePublisher
{
    private const int SegmentTarget = 8 * 1024 * 1024;
    private const int BatchBytes = 16 * 1024 * 1024;
    private const int CompressionLevel = 9;
    private const int MostNames = 10_000;

    private const int MostDeltas = 4;

    /// <summary>The longest hole that is one entry of the index: 1 GiB.</summary>
    private const int MaxHoleBlocks = 1 << 18;

    private readonly IReleaseStore store;
    private readonly PublisherKeys keys;
    private readonly ECDsa signingKey;
    private readonly Func<Release, bool> isTrusted;
    private readonly Dictionary<UInt128, ChunkPlace> known = [];
    private readonly Dictionary<string, SegmentReference> stored = new(StringComparer.Ordinal);
    private long uploaded;

    /// <summary>Creates a publisher.</summary>
    /// <param name="store">Where releases go.</param>
    /// <param name="keys">The organisation's keys.</param>
    /// <param name="signingKey">The organisation's release signing key, P-256; the caller disposes it.</param>
    /// <param name="isTrusted">Whether a release that this key did not sign is the organisation's all the same: its key was replaced since. Null: none is.</param>
    public ReleasePublisher(IReleaseStore store, PublisherKeys keys, ECDsa signingKey, Func<Release, bool>? isTrusted = null)
    {
        this.isTrusted = isTrusted ?? (_ => false);
        this.store = store;
        this.keys = keys;
        this.signingKey = signingKey;
    }

    /// <summary>Publishes the next release of the image.</summary>
    /// <param name="image">What to publish.</param>
    /// <param name="deltas">Whether deltas are made too: from the latest release, and from each that a channel points at.</param>
    /// <param name="progress">Told after each batch.</param>
    /// <param name="cancellationToken">Stops; running again continues.</param>
    public async Task<PublishResult> PublishAsync(GoldenImage image, bool deltas, IProgress<PublishProgress>? progress, CancellationToken cancellationToken)
    {
        var releases = await store.ListReleasesAsync(cancellationToken).ConfigureAwait(false);
        var others = await LearnKnownChunksAsync(releases, cancellationToken).ConfigureAwait(false);
        if (others.FirstOrDefault(manifest => manifest.Image == image.Name && manifest.Kind != image.Kind) is { } other)
        {
            throw new NacreException(ErrorCatalogue.AlreadyExists, $"'{image.Name}' is an image of kind {Word(other.Kind)} there, and this one is of kind {Word(image.Kind)}: what its users keep would not fit");
        }

        var version = 1 + releases.Where(release => release.Image == image.Name).Select(release => release.Version).DefaultIfEmpty().Max();
        var total = image.Artifacts.Sum(artifact => artifact.Size);

        // Beside the chunks: one processor reads the file for its digest while the others cut and compress it.
        using var stopping = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var digesting = image.Kind == ImageKind.Disk ? null : Task.Run(() => DigestAsync(image.Artifacts[^1].Path, stopping.Token), stopping.Token);
        try
        {
            return await PublishAsync(image, deltas, releases, others, version, total, digesting, progress, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await stopping.CancelAsync().ConfigureAwait(false);
            await (digesting ?? Task.CompletedTask).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private async Task<PublishResult> PublishAsync(
        GoldenImage image, bool deltas, IReadOnlyList<Release> releases, IReadOnlyList<ReleaseManifest> others, int version, long total, Task<string>? digesting,
        IProgress<PublishProgress>? progress, CancellationToken cancellationToken)
    {
        var artifacts = new List<(GoldenArtifact Artifact, List<(int Blocks, UInt128? Chunk)> Chunks)>();
        var run = new Run(this, total, progress);
        foreach (var artifact in image.Artifacts)
        {
            artifacts.Add((artifact, await run.StoreAsync(artifact, cancellationToken).ConfigureAwait(false)));
        }

        await run.FinishAsync(cancellationToken).ConfigureAwait(false);
        var releaseKey = keys.ReleaseKey(image.Name, version);
        var (index, segments) = BuildIndex(artifacts);
        var indexBytes = index.Seal(releaseKey);
        var indexName = Convert.ToHexStringLower(SHA256.HashData(indexBytes))[..32];
        await store.UploadSegmentAsync(indexName, indexBytes, cancellationToken).ConfigureAwait(false);
        uploaded += indexBytes.Length;
        var manifest = new ReleaseManifest(
            1, image.Name, version, image.Created, image.CommandLine, total, Reference(indexName, indexBytes), segments,
            image.Kind, digesting is null ? null : await digesting.ConfigureAwait(false), image.BuiltOn, image.Contents is null ? null : LayerContents.DigestOf(image.Contents));
        var made = new List<ReleaseDelta>();
        foreach (var earlier in deltas ? EarlierReleases(image.Name, releases, others) : [])
        {
            var maker = new DeltaPublisher(store, keys, bytes => uploaded += bytes);
            if (await maker.MakeAsync(earlier, image, index, indexName, releaseKey, progress, cancellationToken).ConfigureAwait(false) is { } delta)
            {
                made.Add(delta);
            }
        }

        manifest = made.Count == 0 ? manifest : manifest with { Deltas = made };
        var release = await store.PublishReleaseAsync(
            image.Name,
            new PublishRelease(
                Jws.SignClaims(manifest, signingKey, ReleaseManifest.Type), Convert.ToBase64String(releaseKey),
                image.Contents is null ? null : Convert.ToBase64String(LayerContents.Compress(image.Contents))),
            cancellationToken).ConfigureAwait(false);
        return new PublishResult(release, total, uploaded, run.ReusedBytes, made);
    }

    private static string Word(ImageKind kind) => kind.ToString().ToLowerInvariant();

    private static async Task<string> DigestAsync(string path, CancellationToken cancellationToken)
    {
        var stream = File.OpenRead(path);
        await using var _ = stream.ConfigureAwait(false);
        return Convert.ToHexStringLower(await SHA256.HashDataAsync(stream, cancellationToken).ConfigureAwait(false));
    }

    /// <summary>The releases that devices are likely to have: the latest, and those that channels point at.</summary>
    private static IEnumerable<ReleaseManifest> EarlierReleases(string image, IReadOnlyList<Release> releases, IReadOnlyList<ReleaseManifest> manifests) =>
        releases.Zip(manifests).Where(one => one.Second.Image == image).OrderByDescending(one => one.Second.Version)
            .Where((one, number) => number == 0 || one.First.Channels.Count > 0).Take(MostDeltas).Select(one => one.Second);

    internal static SegmentReference Reference(string name, byte[] bytes) => new(name, bytes.Length, Convert.ToHexStringLower(SHA256.HashData(bytes)));

    private async Task<IReadOnlyList<ReleaseManifest>> LearnKnownChunksAsync(IReadOnlyList<Release> releases, CancellationToken cancellationToken)
    {
        // Only what this organisation signed is referred to again: a hostile store can't slip in a segment of its own.
        var publicKey = PublicKeys.From(signingKey);
        var manifests = releases.Select(release => isTrusted(release) && Jws.TryReadPayload(release.Manifest, ReleaseManifest.Type, out var payload) && Jws.TryRead<ReleaseManifest>(payload, out var known)
            ? known : Jws.VerifyClaims<ReleaseManifest>(release.Manifest, publicKey, ErrorCatalogue.ReleaseNotAuthentic, ReleaseManifest.Type)).ToArray();
        foreach (var segment in manifests.SelectMany(manifest => manifest.Segments))
        {
            stored.TryAdd(segment.Name, segment);
        }

        // The store holds what it is asked about for as long as a publication takes; what it has lost is made again.
        foreach (var names in stored.Keys.Chunk(MostNames))
        {
            foreach (var lost in await store.FindMissingSegmentsAsync(names, cancellationToken).ConfigureAwait(false))
            {
                stored.Remove(lost);
            }
        }

        foreach (var segment in stored.Values)
        {
            var trailer = new byte[SegmentCatalogue.TrailerLength];
            await store.DownloadRangeAsync(segment.Name, segment.Length - trailer.Length, trailer, cancellationToken).ConfigureAwait(false);
            var tail = new byte[SegmentCatalogue.TailLength(trailer, segment.Length)];
            await store.DownloadRangeAsync(segment.Name, segment.Length - tail.Length, tail, cancellationToken).ConfigureAwait(false);
            foreach (var (chunk, place) in SegmentCatalogue.Parse(keys, segment.Name, tail))
            {
                known.TryAdd(chunk, place);
            }
        }

        return manifests;
    }

    private (ReleaseIndex Index, List<SegmentReference> Segments) BuildIndex(List<(GoldenArtifact Artifact, List<(int Blocks, UInt128? Chunk)> Chunks)> artifacts)
    {
        var segments = new List<SegmentReference>();
        var numbers = new Dictionary<string, int>(StringComparer.Ordinal);
        var built = new List<ReleaseArtifact>();
        foreach (var (artifact, cuts) in artifacts)
        {
            var chunks = new List<ReleaseChunk>(cuts.Count);
            var start = 0L;
            foreach (var (blocks, name) in cuts)
            {
                var length = Chunker.Bytes(blocks);
                if (name is { } chunk)
                {
                    var place = known[chunk];
                    if (!numbers.TryGetValue(place.Segment, out var number))
                    {
                        number = segments.Count;
                        numbers.Add(place.Segment, number);
                        segments.Add(stored[place.Segment]);
                    }

                    chunks.Add(new ReleaseChunk(start, length, number, place.Ordinal, place.Offset, place.StoredLength, place.Compressed));
                }
                else
                {
                    chunks.Add(new ReleaseChunk(start, length, -1, 0, 0, 0, false));
                }

                start += length;
            }

            built.Add(new ReleaseArtifact(artifact.Name, artifact.Size, chunks));
        }

        var withKeys = segments.Select(segment => new ReleaseSegment(segment.Name, keys.SegmentKey(Convert.FromHexString(segment.Name)), segment.Length)).ToArray();
        return (new ReleaseIndex(withKeys, built), segments);
    }

    /// <summary>One pass over an image: the segment being filled and what was done.</summary>
    private sealed class Run(ReleasePublisher publisher, long total, IProgress<PublishProgress>? progress)
    {
        private SegmentBuilder builder = new(publisher.keys);
        private readonly HashSet<UInt128> inBuilder = [];
        private Task upload = Task.CompletedTask;
        private long read;

        public long ReusedBytes { get; private set; }

        /// <summary>Stores an artifact's chunks and returns its cuts in order; null names a hole.</summary>
        public async Task<List<(int Blocks, UInt128? Chunk)>> StoreAsync(GoldenArtifact artifact, CancellationToken cancellationToken)
        {
            var result = new List<(int, UInt128?)>();
            using var file = File.OpenHandle(artifact.Path);
            var position = 0L;
            foreach (var (start, end) in SparseFile.DataRanges(file, artifact.Size, BatchBytes))
            {
                Skip(start - position, result);
                await StoreRangeAsync(file, start, end, result, cancellationToken).ConfigureAwait(false);
                position = end;
            }

            Skip(artifact.Size - position, result);
            progress?.Report(new PublishProgress(read, total, publisher.uploaded));
            return result;
        }

        /// <summary>Adds a hole; its last block may be cut by the artifact's end.</summary>
        private void Skip(long length, List<(int, UInt128?)> result)
        {
            read += length;
            for (var blocks = (length + IBlockDevice.BlockSize - 1) / IBlockDevice.BlockSize; blocks > 0; blocks -= MaxHoleBlocks)
            {
                result.Add(((int)Math.Min(blocks, MaxHoleBlocks), null));
            }
        }

        private async Task StoreRangeAsync(SafeFileHandle file, long start, long end, List<(int, UInt128?)> result, CancellationToken cancellationToken)
        {
            var chunker = new Chunker(publisher.keys.ChunkingSeed);
            var buffer = new byte[(int)Math.Min(BatchBytes, (end - start + IBlockDevice.BlockSize - 1) / IBlockDevice.BlockSize * IBlockDevice.BlockSize)];
            var filled = 0;
            var examined = 0;
            var ends = new List<Chunker.Cut>();
            for (var atEnd = false; !atEnd;)
            {
                var wanted = (int)Math.Min(buffer.Length - filled, end - start);
                for (var count = 0; wanted > 0; wanted -= count, start += count, filled += count, read += count)
                {
                    count = await RandomAccess.ReadAsync(file, buffer.AsMemory(filled, wanted), start, cancellationToken).ConfigureAwait(false);
                    if (count == 0)
                    {
                        throw new EndOfStreamException("the image became shorter while it was read");
                    }
                }

                atEnd = start == end;
                if (atEnd && filled % IBlockDevice.BlockSize is var rest and > 0)
                {
                    buffer.AsSpan(filled, IBlockDevice.BlockSize - rest).Clear();
                    filled += IBlockDevice.BlockSize - rest;
                }

                ends.Clear();
                for (; examined < filled; examined += IBlockDevice.BlockSize)
                {
                    chunker.Add(buffer.AsSpan(examined, IBlockDevice.BlockSize), ends);
                }

                if (atEnd)
                {
                    chunker.Finish(ends);
                }

                var used = await StoreCutsAsync(buffer, ends, result, cancellationToken).ConfigureAwait(false);
                buffer.AsSpan(used, filled - used).CopyTo(buffer);
                filled -= used;
                examined -= used;
                progress?.Report(new PublishProgress(read, total, publisher.uploaded));
            }
        }

        public async Task FinishAsync(CancellationToken cancellationToken)
        {
            await SealAsync(cancellationToken).ConfigureAwait(false);
            await upload.ConfigureAwait(false);
            progress?.Report(new PublishProgress(read, total, publisher.uploaded));
        }

        private async Task<int> StoreCutsAsync(byte[] buffer, List<Chunker.Cut> cuts, List<(int, UInt128?)> result, CancellationToken cancellationToken)
        {
            var starts = new int[cuts.Count];
            var position = 0;
            for (var i = 0; i < cuts.Count; i++)
            {
                starts[i] = position;
                position += Chunker.Bytes(cuts[i].Blocks);
            }

            // Naming and compressing use every processor; the order of chunks in segments stays that of the image.
            var names = new UInt128[cuts.Count];
            var frames = new byte[]?[cuts.Count];
            Parallel.For(0, cuts.Count, new ParallelOptions { CancellationToken = cancellationToken }, () => new Compressor(CompressionLevel), (i, _, compressor) =>
            {
                if (!cuts[i].IsHole)
                {
                    var plain = buffer.AsSpan(starts[i], Chunker.Bytes(cuts[i].Blocks));
                    names[i] = publisher.keys.NameChunk(plain);
                    frames[i] = publisher.known.ContainsKey(names[i]) ? null : compressor.Wrap(plain).ToArray();
                }

                return compressor;
            }, compressor => compressor.Dispose());

            for (var i = 0; i < cuts.Count; i++)
            {
                if (cuts[i].IsHole)
                {
                    result.Add((cuts[i].Blocks, null));
                    continue;
                }

                result.Add((cuts[i].Blocks, names[i]));
                var plain = buffer.AsMemory(starts[i], Chunker.Bytes(cuts[i].Blocks));
                if (frames[i] is not { } frame || publisher.known.ContainsKey(names[i]) || !inBuilder.Add(names[i]))
                {
                    ReusedBytes += plain.Length;
                    continue;
                }

                var compressed = frame.Length < plain.Length;
                builder.Add(names[i], compressed ? frame : plain.Span, plain.Length, compressed);
                if (builder.Length >= SegmentTarget)
                {
                    await SealAsync(cancellationToken).ConfigureAwait(false);
                }
            }

            return position;
        }

        /// <summary>Seals the segment and uploads it while the next one is being filled.</summary>
        private async Task SealAsync(CancellationToken cancellationToken)
        {
            if (builder.Count == 0)
            {
                return;
            }

            var segment = builder.Seal();
            builder = new SegmentBuilder(publisher.keys);
            inBuilder.Clear();
            foreach (var (chunk, place) in segment.Chunks)
            {
                publisher.known.Add(chunk, place);
            }

            publisher.stored.TryAdd(segment.Name, Reference(segment.Name, segment.Bytes));
            await upload.ConfigureAwait(false);
            upload = UploadAsync(segment, cancellationToken);
        }

        private async Task UploadAsync(BuiltSegment segment, CancellationToken cancellationToken)
        {
            await Task.Yield();
            var missing = await publisher.store.FindMissingSegmentsAsync([segment.Name], cancellationToken).ConfigureAwait(false);
            if (missing.Count > 0)
            {
                await publisher.store.UploadSegmentAsync(segment.Name, segment.Bytes, cancellationToken).ConfigureAwait(false);
                Interlocked.Add(ref publisher.uploaded, segment.Bytes.Length);
            }
        }
    }
}
