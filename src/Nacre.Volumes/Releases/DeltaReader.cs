using System.Security.Cryptography;

namespace Nacre.Volumes.Releases;

/// <summary>The stored file of a part of a delta.</summary>
/// <param name="Name">32 hexadecimal digits.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Sha256">Of the file, hexadecimal.</param>
public sealed record DeltaFile(string Name, long Length, string Sha256);

/// <summary>
/// Puts chunks of a new release together from those of an old one and a delta. Only parts that are shorter than what is missing of their chunks are fetched. Each chunk is verified
/// with the new release's own keys before it is kept; whatever is wrong with a part, its chunks are simply still missing then. Not thread-safe.
/// </summary>
public sealed class DeltaReader
{
    private readonly ReleaseReader from;
    private readonly ReleaseReader to;
    private readonly byte[] releaseKey;
    private readonly ISegmentOrigin origin;
    private readonly List<(DeltaPart Part, DeltaFile File)> chosen;

    // The content of the last part's bases and where each is in it: the next part has most of them too.
    private byte[] prefix = [];
    private byte[] other = [];
    private Dictionary<int, int> places = [];

    /// <summary>Chooses what of a delta to use.</summary>
    /// <param name="from">The old release, present in the cache as far as it is used.</param>
    /// <param name="to">The new release.</param>
    /// <param name="plan">What the delta holds.</param>
    /// <param name="files">Its parts' files.</param>
    /// <param name="releaseKey">The new release's key.</param>
    /// <param name="origin">Where the files are.</param>
    /// <exception cref="VolumeException">Corrupt: plan and files do not fit, or a file is out of bounds.</exception>
    public DeltaReader(ReleaseReader from, ReleaseReader to, DeltaPlan plan, IReadOnlyList<DeltaFile> files, ReadOnlySpan<byte> releaseKey, ISegmentOrigin origin)
    {
        if (plan.Parts.Count != files.Count || files.Any(file => file.Length is <= 0 or > SegmentFormat.MaxSegmentSize))
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, "the delta's files do not fit its plan");
        }

        this.from = from;
        this.to = to;
        this.releaseKey = releaseKey.ToArray();
        this.origin = origin;
        chosen = [.. plan.Parts.Zip(files).Where(part => MissingBytes(part.First) > part.Second.Length
            && part.First.Bases.All(number => from.IsPresumedPresent(from.Index.Stored[number])))];
        Bytes = chosen.Sum(part => part.File.Length);
        ReplacedBytes = chosen.Sum(part => MissingBytes(part.Part));
    }

    /// <summary>Bytes to fetch.</summary>
    public long Bytes { get; }

    /// <summary>Bytes of whole chunks that need not be fetched then.</summary>
    public long ReplacedBytes { get; }

    /// <summary>Why the last part that could not be used could not; null where all could.</summary>
    public VolumeException? Failure { get; private set; }

    /// <summary>Fetches the chosen parts and keeps the chunks that they give. While a part is decompressed the next one is fetched and its bases are read, and the chunks of the one
    /// before are kept.</summary>
    /// <param name="progress">Told after each part.</param>
    /// <param name="cancellationToken">Stops after the part under way.</param>
    /// <exception cref="VolumeException">NoSpace, Io: the cache does not take the chunks.</exception>
    public async Task ApplyAsync(IProgress<ReleaseStatistics>? progress, CancellationToken cancellationToken)
    {
        var fetching = Fetch(0);
        var loading = Load(0);
        var keeping = Task.CompletedTask;
        try
        {
            for (var i = 0; i < chosen.Count; i++)
            {
                var part = chosen[i].Part;
                var frame = await fetching.ConfigureAwait(false);
                var filled = await loading.ConfigureAwait(false);
                var bases = prefix;
                cancellationToken.ThrowIfCancellationRequested();
                fetching = Fetch(i + 1);
                loading = Load(i + 1);
                if (filled is null)
                {
                    Failure = new VolumeException(VolumeErrorKind.NotAuthentic, "a chunk of the old release");
                }
                else if (frame is not null && await Task.Run(() => Decompress(part, bases.AsSpan(0, filled.Value), frame), CancellationToken.None).ConfigureAwait(false) is { } content)
                {
                    await keeping.ConfigureAwait(false);
                    keeping = Task.Run(() => Keep(part, content), CancellationToken.None);
                }

                progress?.Report(to.Statistics);
                if (to.CacheFailure is { } failure)
                {
                    throw failure;
                }
            }

            await keeping.ConfigureAwait(false);
            progress?.Report(to.Statistics);
            if (to.CacheFailure is { } last)
            {
                throw last;
            }
        }
        finally
        {
            // Nothing is still at the buffers or the cache when this returns.
            await Task.WhenAll(fetching, loading, keeping).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            prefix = other = [];
            places = [];
        }

        Task<byte[]?> Fetch(int number) => number < chosen.Count ? FetchAsync(chosen[number].File, cancellationToken) : Task.FromResult<byte[]?>(null);

        Task<int?> Load(int number) => number < chosen.Count ? Task.Run(() => LoadBases(chosen[number].Part), CancellationToken.None) : Task.FromResult<int?>(null);
    }

    private long MissingBytes(DeltaPart part) =>
        part.Targets.Select(number => to.Index.Stored[number]).Where(chunk => !to.IsPresumedPresent(chunk)).Sum(chunk => (long)chunk.StoredLength);

    private async Task<byte[]?> FetchAsync(DeltaFile file, CancellationToken cancellationToken)
    {
        try
        {
            var untrusted = new byte[file.Length];
            await origin.ReadAsync(new SegmentRange(file.Name, 0, untrusted, Verify, isUrgent: false), cancellationToken).ConfigureAwait(false);
            to.CountFetched(untrusted.Length);
            return DeltaPlan.OpenPart(releaseKey, untrusted);

            int Verify(int arrived) => arrived < untrusted.Length ? 0
                : Convert.ToHexStringLower(SHA256.HashData(untrusted)) == file.Sha256 ? arrived : throw new VolumeException(VolumeErrorKind.NotAuthentic, $"part {file.Name} of the delta");
        }
        catch (VolumeException exception)
        {
            Failure = exception;
            return null;
        }
    }

    /// <summary>A part's content; null where the frame is none of it.</summary>
    private byte[]? Decompress(DeltaPart part, ReadOnlySpan<byte> bases, byte[] frame)
    {
        var content = new byte[part.Targets.Sum(number => to.Index.Stored[number].Length)];
        if (PrefixCompression.TryDecompress(bases, frame, content))
        {
            return content;
        }

        Failure = new VolumeException(VolumeErrorKind.Corrupt, "a part of the delta is no frame of its length");
        return null;
    }

    /// <summary>Keeps a part's chunks, as far as they are the release's.</summary>
    private void Keep(DeltaPart part, byte[] content)
    {
        var starts = new int[part.Targets.Count];
        for (var i = 1; i < starts.Length; i++)
        {
            starts[i] = starts[i - 1] + to.Index.Stored[part.Targets[i - 1]].Length;
        }

        Parallel.For(0, starts.Length, i =>
        {
            var chunk = to.Index.Stored[part.Targets[i]];
            if (!to.TryKeepPlain(chunk, content.AsSpan(starts[i], chunk.Length), part.Tags.Span.Slice(i * SegmentFormat.TagSize, SegmentFormat.TagSize)))
            {
                Failure = new VolumeException(VolumeErrorKind.NotAuthentic, "a chunk that a delta gives");
            }
        });
    }

    /// <summary>Puts the content of a part's bases into <see cref="prefix"/>, out of those of the part before (which may be read meanwhile) and of the cache; null where one of them can't be
    /// read.</summary>
    private int? LoadBases(DeltaPart part)
    {
        var filled = 0;
        var current = new Dictionary<int, int>(part.Bases.Count);
        var loads = new List<(int Number, int Start)>();
        var size = part.Bases.Sum(number => from.Index.Stored[number].Length);
        if (other.Length < size)
        {
            other = new byte[size];
        }

        foreach (var number in part.Bases)
        {
            var length = from.Index.Stored[number].Length;
            if (places.TryGetValue(number, out var place))
            {
                prefix.AsSpan(place, length).CopyTo(other.AsSpan(filled));
            }
            else
            {
                loads.Add((number, filled));
            }

            current[number] = filled;
            filled += length;
        }

        (prefix, other, places) = (other, prefix, []);
        var complete = true;
        Parallel.ForEach(loads, load =>
        {
            var chunk = from.Index.Stored[load.Number];
            if (!from.TryReadLocal(chunk, prefix.AsSpan(load.Start, chunk.Length)))
            {
                complete = false;
            }
        });
        if (!complete)
        {
            return null;
        }

        places = current;
        return filled;
    }
}
