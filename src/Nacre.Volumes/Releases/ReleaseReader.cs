using System.Buffers;
using System.Collections.Concurrent;

namespace Nacre.Volumes.Releases;

/// <summary>What a release's reader did so far.</summary>
/// <param name="FetchedBytes">Bytes that came from the origin.</param>
/// <param name="Requests">Requests to the origin.</param>
/// <param name="PresentBytes">Stored bytes of the release that are on this device.</param>
/// <param name="TotalBytes">Stored bytes of the release.</param>
public readonly record struct ReleaseStatistics(long FetchedBytes, long Requests, long PresentBytes, long TotalBytes);

/// <summary>
/// Reads a release's chunks: from the cache where they are, from the origin where not; each verified before it is used or kept. Thread-safe.
/// </summary>
public sealed partial class ReleaseReader : IDisposable
{
    private const int MaxRun = 4 * 1024 * 1024;
    private const int PlainCacheChunks = 256;
    private const int MaxAttempts = 3;
    private readonly SegmentCache cache;
    private readonly ISegmentOrigin origin;
    private readonly ConcurrentDictionary<(int Segment, int Offset), byte> present = new();
    private readonly ConcurrentDictionary<(int Segment, int Offset), Lazy<Task<byte[]>>> loading = new();
    private readonly LinkedList<(int Segment, int Offset)> recent = new();
    private readonly Dictionary<(int Segment, int Offset), (byte[] Plain, LinkedListNode<(int Segment, int Offset)> Node)> plains = [];
    private readonly Lock plainLock = new();
    private readonly CancellationTokenSource closing = new();
    private long fetchedBytes;
    private long requests;
    private long presentBytes;

    /// <summary>Opens a release over a cache and an origin.</summary>
    public ReleaseReader(ReleaseIndex index, SegmentCache cache, ISegmentOrigin origin)
    {
        Index = index;
        this.cache = cache;
        this.origin = origin;
        Unique = index.Artifacts.SelectMany(artifact => artifact.Chunks).Where(chunk => chunk.Segment >= 0)
            .DistinctBy(chunk => (chunk.Segment, chunk.Offset)).OrderBy(chunk => chunk.Segment).ThenBy(chunk => chunk.Offset).ToArray();
        TotalBytes = Unique.Sum(chunk => (long)chunk.StoredLength);
        GuessWhatIsPresent();
    }

    /// <summary>The release's map.</summary>
    public ReleaseIndex Index { get; }

    /// <summary>What was done so far.</summary>
    public ReleaseStatistics Statistics => new(
        Interlocked.Read(ref fetchedBytes), Interlocked.Read(ref requests), Interlocked.Read(ref presentBytes), TotalBytes);

    /// <summary>The last failure to keep a fetched chunk (a full disk): reading goes on without the cache. Null where there was none.</summary>
    public VolumeException? CacheFailure { get; private set; }

    /// <summary>Why reads wait (the origin can't be reached: Io) or fail (what it serves is not the release: NotAuthentic, Truncated). Null while all is well.</summary>
    public VolumeException? Failure { get; private set; }

    private ReleaseChunk[] Unique { get; }

    private long TotalBytes { get; }

    /// <summary>Reads a whole artifact into memory, as for a kernel.</summary>
    /// <exception cref="VolumeException">As reading; Corrupt where the artifact is larger than <paramref name="most"/>.</exception>
    public async Task<byte[]> ReadAllAsync(string artifact, int most, CancellationToken cancellationToken)
    {
        var found = Index[artifact];
        if (found.Size > most)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, $"the artifact '{artifact}' has {found.Size} bytes, more than the {most} allowed");
        }

        var chunks = found.Chunks.Where(chunk => chunk.Segment >= 0).ToArray();
        await AwaitComingAsync(chunks, cancellationToken).ConfigureAwait(false);
        await EnsureAsync(chunks, null, cancellationToken).ConfigureAwait(false);
        var bytes = new byte[found.Size];
        foreach (var chunk in chunks)
        {
            var plain = await ReadChunkAsync(chunk, cancellationToken).ConfigureAwait(false);
            plain.AsSpan(0, (int)Math.Min(plain.Length, found.Size - chunk.Start)).CopyTo(bytes.AsSpan((int)chunk.Start));
        }

        return bytes;
    }

    /// <summary>Makes every chunk of the release present and verified on this device, so that it starts without a network.</summary>
    /// <param name="progress">Told the bytes present so far.</param>
    /// <param name="cancellationToken">Stops after the request under way.</param>
    public async Task EnsureAllAsync(IProgress<ReleaseStatistics>? progress, CancellationToken cancellationToken)
    {
        await EnsureAsync(Unique, progress, cancellationToken).ConfigureAwait(false);
        cache.Flush();
    }

    /// <summary>Ends reads that wait for the origin.</summary>
    public void Dispose() => closing.Cancel();

    /// <summary>A chunk's plain content; the array is shared and must not be changed.</summary>
    internal ValueTask<byte[]> ReadChunkAsync(ReleaseChunk chunk, CancellationToken cancellationToken)
    {
        Record(chunk);
        var key = (chunk.Segment, chunk.Offset);
        lock (plainLock)
        {
            if (plains.TryGetValue(key, out var entry))
            {
                recent.Remove(entry.Node);
                recent.AddFirst(entry.Node);
                return ValueTask.FromResult(entry.Plain);
            }
        }

        if (present.ContainsKey(key) && TryReadLocal(chunk) is { } plain)
        {
            Remember(key, plain);
            return ValueTask.FromResult(plain);
        }

        // One fetch serves all who wait for it; a reader that is cancelled leaves without stopping the others.
        var load = loading.GetOrAdd(key, _ => new Lazy<Task<byte[]>>(() => LoadAsync(chunk)));
        return new ValueTask<byte[]>(load.Value.WaitAsync(cancellationToken));
    }

    private async Task<byte[]> LoadAsync(ReleaseChunk chunk)
    {
        var key = (chunk.Segment, chunk.Offset);
        try
        {
            await Task.Yield();
            await AwaitComingAsync(chunk).ConfigureAwait(false);
            if (TryReadLocal(chunk) is not { } plain)
            {
                plain = new byte[chunk.Length];
                await FetchPatientlyAsync(chunk, plain).ConfigureAwait(false);
            }

            Remember(key, plain);
            return plain;
        }
        finally
        {
            loading.TryRemove(key, out _);
        }
    }

    /// <summary>A guest that reads waits while the origin can't be reached; an error would make it lose what it was doing. What is not authentic
    /// is tried again a few times, as it may have been damaged on the way, and then fails.</summary>
    private async Task FetchPatientlyAsync(ReleaseChunk chunk, byte[] plain)
    {
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                await FetchRunAsync([chunk], plain, closing.Token).ConfigureAwait(false);
                Failure = null;
                return;
            }
            catch (VolumeException exception)
            {
                Failure = exception;
                if (exception.Kind != VolumeErrorKind.Io && attempt >= MaxAttempts)
                {
                    throw;
                }
            }

            var pause = Failure.Kind == VolumeErrorKind.Io ? Math.Min(5000, 100 << Math.Min(attempt, 6)) : 20;
            await Task.Delay(TimeSpan.FromMilliseconds(pause), closing.Token).ConfigureAwait(false);
        }
    }

    private async Task EnsureAsync(IEnumerable<ReleaseChunk> chunks, IProgress<ReleaseStatistics>? progress, CancellationToken cancellationToken)
    {
        var run = new List<ReleaseChunk>();
        foreach (var chunk in chunks.DistinctBy(chunk => (chunk.Segment, chunk.Offset)).OrderBy(chunk => chunk.Segment).ThenBy(chunk => chunk.Offset))
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (IsVerifiedLocally(chunk))
            {
                continue;
            }

            if (run.Count > 0 && (run[^1].Segment != chunk.Segment || run[^1].Offset + run[^1].StoredLength != chunk.Offset
                || chunk.Offset + chunk.StoredLength - run[0].Offset > MaxRun))
            {
                await FetchRunAsync(run, null, cancellationToken).ConfigureAwait(false);
                progress?.Report(Statistics);
                run.Clear();
            }

            run.Add(chunk);
        }

        if (run.Count > 0)
        {
            await FetchRunAsync(run, null, cancellationToken).ConfigureAwait(false);
        }

        progress?.Report(Statistics);
        if (CacheFailure is { } failure)
        {
            throw failure;
        }
    }

    /// <summary>Fetches adjacent chunks of one segment in one request, verifies each, and keeps them.</summary>
    /// <param name="run">The chunks.</param>
    /// <param name="plain">Where the content of a run of one chunk goes; null where only the ciphertext is wanted.</param>
    /// <param name="cancellationToken">Stops the request.</param>
    private async Task FetchRunAsync(List<ReleaseChunk> run, byte[]? plain, CancellationToken cancellationToken)
    {
        var start = run[0].Offset;
        var length = run[^1].Offset + run[^1].StoredLength - start;
        var segment = Index.Segments[run[0].Segment];
        var buffer = ArrayPool<byte>.Shared.Rent(length);
        var scratch = ArrayPool<byte>.Shared.Rent(SegmentFormat.MaxChunkSize);
        try
        {
            await origin.ReadAsync(segment.Name, start, buffer.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
            Interlocked.Increment(ref requests);
            Interlocked.Add(ref fetchedBytes, length);
            foreach (var chunk in run)
            {
                var untrusted = buffer.AsSpan(chunk.Offset - start, chunk.StoredLength);
                var authentic = plain is not null
                    ? SegmentFormat.TryOpenChunk(segment.Key.Span, chunk.Ordinal, chunk.Compressed, untrusted, plain, scratch)
                    : Authenticates(chunk, untrusted, scratch);
                if (!authentic)
                {
                    throw NotAuthentic(chunk);
                }

                Keep(segment.Name, chunk, untrusted);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
            ArrayPool<byte>.Shared.Return(scratch);
        }
    }

    private void Keep(string segment, ReleaseChunk chunk, ReadOnlySpan<byte> verified)
    {
        var key = (chunk.Segment, chunk.Offset);
        try
        {
            cache.Write(segment, chunk.Offset, verified);
            if (present.TryAdd(key, 0))
            {
                Interlocked.Add(ref presentBytes, chunk.StoredLength);
            }

            CacheFailure = null;
        }
        catch (VolumeException failure)
        {
            CacheFailure = failure;
        }
    }

    private byte[]? TryReadLocal(ReleaseChunk chunk)
    {
        var segment = Index.Segments[chunk.Segment];
        var buffer = ArrayPool<byte>.Shared.Rent(chunk.StoredLength);
        var scratch = ArrayPool<byte>.Shared.Rent(SegmentFormat.MaxChunkSize);
        try
        {
            var untrusted = buffer.AsSpan(0, chunk.StoredLength);
            var plain = new byte[chunk.Length];
            if (cache.TryRead(segment.Name, chunk.Offset, untrusted)
                && SegmentFormat.TryOpenChunk(segment.Key.Span, chunk.Ordinal, chunk.Compressed, untrusted, plain, scratch))
            {
                return plain;
            }

            Forget(chunk);
            return null;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
            ArrayPool<byte>.Shared.Return(scratch);
        }
    }

    private bool IsVerifiedLocally(ReleaseChunk chunk)
    {
        if (!present.ContainsKey((chunk.Segment, chunk.Offset)))
        {
            return false;
        }

        var segment = Index.Segments[chunk.Segment];
        var buffer = ArrayPool<byte>.Shared.Rent(chunk.StoredLength);
        var scratch = ArrayPool<byte>.Shared.Rent(SegmentFormat.MaxChunkSize);
        try
        {
            var untrusted = buffer.AsSpan(0, chunk.StoredLength);
            if (cache.TryRead(segment.Name, chunk.Offset, untrusted) && Authenticates(chunk, untrusted, scratch))
            {
                return true;
            }

            Forget(chunk);
            return false;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
            ArrayPool<byte>.Shared.Return(scratch);
        }
    }

    private bool Authenticates(ReleaseChunk chunk, ReadOnlySpan<byte> untrusted, byte[] scratch) => SegmentFormat.TryAuthenticate(
        Index.Segments[chunk.Segment].Key.Span, chunk.Ordinal, chunk.Compressed, chunk.Length, untrusted, scratch.AsSpan(0, untrusted.Length - SegmentFormat.TagSize));

    private void Forget(ReleaseChunk chunk)
    {
        if (present.TryRemove((chunk.Segment, chunk.Offset), out _))
        {
            Interlocked.Add(ref presentBytes, -chunk.StoredLength);
        }
    }

    /// <summary>A chunk whose tag's place holds anything but zeroes is presumed present; its tag decides when it is read.</summary>
    private void GuessWhatIsPresent()
    {
        Span<byte> tag = stackalloc byte[SegmentFormat.TagSize];
        foreach (var chunk in Unique)
        {
            var end = chunk.Offset + chunk.StoredLength;
            if (cache.TryRead(Index.Segments[chunk.Segment].Name, end - SegmentFormat.TagSize, tag) && tag.ContainsAnyExcept((byte)0))
            {
                present.TryAdd((chunk.Segment, chunk.Offset), 0);
                presentBytes += chunk.StoredLength;
            }
        }
    }

    private void Remember((int Segment, int Offset) key, byte[] plain)
    {
        lock (plainLock)
        {
            if (plains.ContainsKey(key))
            {
                return;
            }

            if (plains.Count >= PlainCacheChunks && recent.Last is { } oldest)
            {
                recent.RemoveLast();
                plains.Remove(oldest.Value);
            }

            plains[key] = (plain, recent.AddFirst(key));
        }
    }

    private VolumeException NotAuthentic(ReleaseChunk chunk) => new(
        VolumeErrorKind.NotAuthentic, $"segment {Index.Segments[chunk.Segment].Name}, bytes {chunk.Offset} to {chunk.Offset + chunk.StoredLength}");
}
