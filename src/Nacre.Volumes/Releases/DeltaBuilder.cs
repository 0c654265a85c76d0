using System.Buffers;
using System.Threading.Channels;

namespace Nacre.Volumes.Releases;

/// <summary>Reads a chunk's content into <paramref name="destination"/>, which has its length.</summary>
/// <param name="artifact">Of which artifact it is.</param>
/// <param name="chunk">The chunk.</param>
/// <param name="destination">Receives the content.</param>
public delegate void ReadNewChunk(ReleaseArtifact artifact, ReleaseChunk chunk, Span<byte> destination);

/// <summary>
/// Makes a delta: for each run of chunks that only the new release has, a frame that continues what the old release has in that place. The places are found by
/// the chunks that both have.
/// </summary>
public sealed class DeltaBuilder
{
    /// <summary>Content of the new release in a part: the more, the fewer borders; a device holds it in memory.</summary>
    private const int PartBytes = 16 * 1024 * 1024;

    private const int Level = 9;

    private readonly ReleaseReader from;
    private readonly ReleaseIndex to;
    private readonly ReadNewChunk read;
    private readonly byte[] releaseKey;
    private readonly List<(int Number, long Start)> bases = [];
    private readonly List<(int Number, ReleaseArtifact Artifact, ReleaseChunk Chunk, long Place)> targets = [];
    private long baseBytes;

    /// <summary>Finds what differs.</summary>
    /// <param name="from">The old release; the chunks that only it has are fetched into its cache.</param>
    /// <param name="to">The new release.</param>
    /// <param name="read">Its content.</param>
    /// <param name="releaseKey">Its key.</param>
    public DeltaBuilder(ReleaseReader from, ReleaseIndex to, ReadNewChunk read, ReadOnlySpan<byte> releaseKey)
    {
        this.from = from;
        this.to = to;
        this.read = read;
        this.releaseKey = releaseKey.ToArray();
        Align();
    }

    /// <summary>Bytes of content that only the new release has.</summary>
    public long TargetBytes => targets.Sum(target => (long)target.Chunk.Length);

    /// <summary>Makes the parts, on every processor.</summary>
    /// <param name="store">Takes each finished part, one after the other: how its file goes into the store.</param>
    /// <param name="progress">Told the bytes of content that are done.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <returns>What belongs into the plan, in the order of the files.</returns>
    /// <exception cref="VolumeException">As reading the old release.</exception>
    public async Task<IReadOnlyList<DeltaPart>> BuildAsync(Func<ReadOnlyMemory<byte>, CancellationToken, Task> store, IProgress<long>? progress, CancellationToken cancellationToken)
    {
        await from.EnsureAsync(bases.Select(one => from.Index.Stored[one.Number]), isUrgent: false, null, cancellationToken).ConfigureAwait(false);
        var parts = new List<DeltaPart>();
        var channel = Channel.CreateBounded<Task<(DeltaPart Part, byte[] File, long Bytes)>>(Math.Max(1, Math.Min(Environment.ProcessorCount, 8) - 1));
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var making = Task.Run(
            async () =>
            {
                for (var first = 0; first < targets.Count;)
                {
                    var count = CountOfPart(first);
                    var start = first;
                    await channel.Writer.WriteAsync(Task.Run(() => Make(start, count), stop.Token), stop.Token).ConfigureAwait(false);
                    first += count;
                }

                channel.Writer.Complete();
            },
            stop.Token);
        try
        {
            var done = 0L;
            await foreach (var task in channel.Reader.ReadAllAsync(cancellationToken).ConfigureAwait(false))
            {
                var (part, file, bytes) = await task.ConfigureAwait(false);
                if (file.Length > 0)
                {
                    await store(file, cancellationToken).ConfigureAwait(false);
                    parts.Add(part);
                }

                progress?.Report(done += bytes);
            }
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            await making.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        return parts;
    }

    /// <summary>Puts what only the old release has into one line, and says of each chunk that only the new one has where in that line its counterpart should be.</summary>
    private void Align()
    {
        var old = Numbers(from.Index);
        var shared = new HashSet<(string, uint)>(Numbers(to).Keys);
        shared.IntersectWith(old.Keys);
        var places = new Dictionary<(string, uint), long>();
        var artifacts = new Dictionary<string, long>(StringComparer.Ordinal);
        foreach (var artifact in from.Index.Artifacts)
        {
            artifacts[artifact.Name] = baseBytes;
            foreach (var chunk in artifact.Chunks.Where(chunk => chunk.Segment >= 0))
            {
                var key = Key(from.Index, chunk);
                if (places.TryAdd(key, baseBytes) && !shared.Contains(key))
                {
                    bases.Add((old[key], baseBytes));
                    baseBytes += chunk.Length;
                }
            }
        }

        var numbers = Numbers(to);
        var seen = new HashSet<(string, uint)>();
        foreach (var artifact in to.Artifacts)
        {
            var place = artifacts.GetValueOrDefault(artifact.Name);
            foreach (var chunk in artifact.Chunks.Where(chunk => chunk.Segment >= 0))
            {
                var key = Key(to, chunk);
                if (shared.Contains(key))
                {
                    place = places[key];
                }
                else if (seen.Add(key))
                {
                    targets.Add((numbers[key], artifact, chunk, place));
                    place += chunk.Length;
                }
            }
        }
    }

    private static (string Segment, uint Ordinal) Key(ReleaseIndex index, ReleaseChunk chunk) => (index.Segments[chunk.Segment].Name, chunk.Ordinal);

    private static Dictionary<(string, uint), int> Numbers(ReleaseIndex index) =>
        index.Stored.Select((chunk, number) => (Key(index, chunk), number)).ToDictionary(one => one.Item1, one => one.number);

    private int CountOfPart(int first)
    {
        var bytes = 0;
        var count = 0;
        while (first + count < targets.Count && (bytes += targets[first + count].Chunk.Length) <= PartBytes)
        {
            count++;
        }

        return Math.Max(1, count);
    }

    private (DeltaPart Part, byte[] File, long Bytes) Make(int first, int count)
    {
        var part = targets.GetRange(first, count);
        var length = part.Sum(target => target.Chunk.Length);
        var places = part.Select(target => target.Place).Order().ToArray();
        var window = BasesAround(places[places.Length / 2]);
        var prefix = ArrayPool<byte>.Shared.Rent(DeltaPlan.MaxBaseBytes);
        var content = ArrayPool<byte>.Shared.Rent(length);
        var frame = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            var filled = 0;
            foreach (var chunk in window.Select(number => from.Index.Stored[number]))
            {
                if (!from.TryReadLocal(chunk, prefix.AsSpan(filled, chunk.Length)))
                {
                    throw new VolumeException(VolumeErrorKind.Io, "a chunk of the old release is not in the cache any more");
                }

                filled += chunk.Length;
            }

            var tags = new byte[count * SegmentFormat.TagSize];
            var sealedChunk = new byte[SegmentFormat.MaxChunkSize + SegmentFormat.TagSize];
            var position = 0;
            for (var i = 0; i < count; i++)
            {
                var chunk = part[i].Chunk;
                var plain = content.AsSpan(position, chunk.Length);
                read(part[i].Artifact, chunk, plain);
                var bytes = sealedChunk.AsSpan(0, chunk.Length + SegmentFormat.TagSize);
                SegmentFormat.SealPlain(to.Segments[chunk.Segment].Key.Span, chunk.Ordinal, plain, bytes);
                bytes[^SegmentFormat.TagSize..].CopyTo(tags.AsSpan(i * SegmentFormat.TagSize));
                position += chunk.Length;
            }

            // A part that is no shorter than its chunks as they are stored helps nobody.
            var most = Math.Min(length, part.Sum(target => target.Chunk.StoredLength));
            var written = PrefixCompression.Compress(prefix.AsSpan(0, filled), content.AsSpan(0, length), Level, frame.AsSpan(0, most));
            return (
                new DeltaPart(window, [.. part.Select(target => target.Number)], tags),
                written is { } bytesWritten ? DeltaPlan.SealPart(releaseKey, frame.AsSpan(0, bytesWritten)) : [], length);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(prefix);
            ArrayPool<byte>.Shared.Return(content);
            ArrayPool<byte>.Shared.Return(frame);
        }
    }

    /// <summary>As many bases as a device can hold, around a place of their line.</summary>
    private List<int> BasesAround(long place)
    {
        var start = Math.Max(0, Math.Min(place - (DeltaPlan.MaxBaseBytes / 2), baseBytes - DeltaPlan.MaxBaseBytes));
        var window = new List<int>();
        var bytes = 0;
        foreach (var (number, _) in bases.SkipWhile(one => one.Start < start))
        {
            if ((bytes += from.Index.Stored[number].Length) > DeltaPlan.MaxBaseBytes)
            {
                break;
            }

            window.Add(number);
        }

        return window;
    }
}
