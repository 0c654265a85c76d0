using System.Buffers;
using System.Collections.Concurrent;
using System.Security.Cryptography;

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

    /// <summary>Requests under way at once, where the whole release is fetched: enough that the next answer is on its way while one is verified.</summary>
    private const int RequestsAtOnce = 4;
    private readonly SegmentCache cache;
    private readonly ISegmentOrigin origin;
    private readonly ConcurrentDictionary<(int Segment, int Offset), Form> present = new();
    private readonly ConcurrentDictionary<(int Segment, int Offset), Lazy<Task<byte[]>>> loading = new();
    private readonly LinkedList<(int Segment, int Offset)> recent = new();
    private readonly Dictionary<(int Segment, int Offset), (byte[] Plain, LinkedListNode<(int Segment, int Offset)> Node)> plains = [];
    private readonly Lock plainLock = new();
    private readonly CancellationTokenSource closing = new();
    private long fetchedBytes;
    private long requests;
    private long presentBytes;

    /// <summary>How a chunk lies in the cache: as it is in its segment, or as a delta left it, sealed without compression.</summary>
    private enum Form
    {
        Segment,
        Plain,
    }

    /// <summary>Opens a release over a cache and an origin.</summary>
    public ReleaseReader(ReleaseIndex index, SegmentCache cache, ISegmentOrigin origin)
    {
        Index = index;
        this.cache = cache;
        this.origin = origin;
        TotalBytes = index.Stored.Sum(chunk => (long)chunk.StoredLength);
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
        await EnsureAsync(chunks, isUrgent: true, null, cancellationToken).ConfigureAwait(false);
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
    /// <param name="cancellationToken">Stops; what arrived and was verified stays.</param>
    public async Task EnsureAllAsync(IProgress<ReleaseStatistics>? progress, CancellationToken cancellationToken)
    {
        await EnsureAsync(Index.Stored, isUrgent: false, progress, cancellationToken).ConfigureAwait(false);
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
                await FetchRunAsync([chunk], plain, isUrgent: true, closing.Token).ConfigureAwait(false);
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

    /// <summary>Makes these chunks present and verified: fetches what is missing, in a few requests at a time. Stops where a chunk can't be kept: the rest would not fit either.</summary>
    internal async Task EnsureAsync(IEnumerable<ReleaseChunk> chunks, bool isUrgent, IProgress<ReleaseStatistics>? progress, CancellationToken cancellationToken)
    {
        await Parallel.ForEachAsync(
            MissingRuns(chunks, cancellationToken),
            new ParallelOptions { MaxDegreeOfParallelism = RequestsAtOnce, CancellationToken = cancellationToken },
            async (run, token) =>
            {
                await FetchRunAsync(run, null, isUrgent, token).ConfigureAwait(false);
                progress?.Report(Statistics);
                if (CacheFailure is { } failure)
                {
                    throw failure;
                }
            }).ConfigureAwait(false);
        progress?.Report(Statistics);
    }

    /// <summary>What is not here, as runs of adjacent chunks of one segment.</summary>
    private IEnumerable<List<ReleaseChunk>> MissingRuns(IEnumerable<ReleaseChunk> chunks, CancellationToken cancellationToken)
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
                yield return run;
                run = [];
            }

            run.Add(chunk);
        }

        if (run.Count > 0)
        {
            yield return run;
        }
    }

    /// <summary>Fetches adjacent chunks of one segment in one request; each is verified and kept as it arrives.</summary>
    /// <param name="run">The chunks.</param>
    /// <param name="plain">Where the content of a run of one chunk goes; null where only the ciphertext is wanted.</param>
    /// <param name="isUrgent">Whether somebody waits for it.</param>
    /// <param name="cancellationToken">Stops the request.</param>
    private async Task FetchRunAsync(List<ReleaseChunk> run, byte[]? plain, bool isUrgent, CancellationToken cancellationToken)
    {
        var start = run[0].Offset;
        var length = run[^1].Offset + run[^1].StoredLength - start;
        var segment = Index.Segments[run[0].Segment];
        var buffer = ArrayPool<byte>.Shared.Rent(length);
        var scratch = ArrayPool<byte>.Shared.Rent(SegmentFormat.MaxChunkSize);
        try
        {
            var next = 0;
            var range = new SegmentRange(segment.Name, start, buffer.AsMemory(0, length), Verify, isUrgent);
            Interlocked.Increment(ref requests);
            await origin.ReadAsync(range, cancellationToken).ConfigureAwait(false);
            if (next < run.Count)
            {
                throw new VolumeException(VolumeErrorKind.Truncated, $"segment {segment.Name} ended before byte {start + length}");
            }

            int Verify(int arrived)
            {
                for (; next < run.Count && run[next].Offset + run[next].StoredLength - start <= arrived; next++)
                {
                    var chunk = run[next];
                    var untrusted = buffer.AsSpan(chunk.Offset - start, chunk.StoredLength);
                    var authentic = plain is not null
                        ? SegmentFormat.TryOpenChunk(segment.Key.Span, chunk.Ordinal, chunk.Compressed, untrusted, plain, scratch)
                        : Authenticates(chunk, untrusted, scratch);
                    if (!authentic)
                    {
                        throw NotAuthentic(chunk);
                    }

                    Interlocked.Add(ref fetchedBytes, chunk.StoredLength);
                    Keep(chunk, Form.Segment, untrusted);
                }

                return next == 0 ? 0 : run[next - 1].Offset + run[next - 1].StoredLength - start;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
            ArrayPool<byte>.Shared.Return(scratch);
        }
    }

    /// <summary>Whether the chunk is presumed to be in the cache; its tag decides when it is read.</summary>
    internal bool IsPresumedPresent(ReleaseChunk chunk) => present.ContainsKey((chunk.Segment, chunk.Offset));

    /// <summary>Counts what a delta brought.</summary>
    internal void CountFetched(long bytes)
    {
        Interlocked.Increment(ref requests);
        Interlocked.Add(ref fetchedBytes, bytes);
    }

    /// <summary>Keeps a chunk that was put together from a delta, if it is the release's.</summary>
    /// <param name="chunk">The chunk.</param>
    /// <param name="untrustedPlain">What it is said to be, of its length.</param>
    /// <param name="tag">The tag that it has when it is sealed without compression, by the delta's plan.</param>
    /// <returns>False where it is something else: nothing is kept then.</returns>
    internal bool TryKeepPlain(ReleaseChunk chunk, ReadOnlySpan<byte> untrustedPlain, ReadOnlySpan<byte> tag)
    {
        var buffer = ArrayPool<byte>.Shared.Rent(chunk.Length + SegmentFormat.TagSize);
        try
        {
            var bytes = buffer.AsSpan(0, chunk.Length + SegmentFormat.TagSize);
            SegmentFormat.SealPlain(Index.Segments[chunk.Segment].Key.Span, chunk.Ordinal, untrustedPlain, bytes);
            if (!CryptographicOperations.FixedTimeEquals(bytes[^SegmentFormat.TagSize..], tag))
            {
                return false;
            }

            Keep(chunk, Form.Plain, bytes);
            return true;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>Reads a chunk's content from the cache into <paramref name="plain"/>, whose length is the chunk's; false where it is not there, or not authentic.</summary>
    internal bool TryReadLocal(ReleaseChunk chunk, Span<byte> plain)
    {
        if (!present.TryGetValue((chunk.Segment, chunk.Offset), out var form))
        {
            form = Form.Segment;
        }

        var buffer = ArrayPool<byte>.Shared.Rent(chunk.Length + SegmentFormat.MaxChunkSize + SegmentFormat.TagSize);
        var scratch = ArrayPool<byte>.Shared.Rent(SegmentFormat.MaxChunkSize);
        try
        {
            if (ReadSealed(chunk, form, buffer) is var untrusted && !untrusted.IsEmpty && Open(chunk, form, untrusted, plain, scratch))
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

    private byte[]? TryReadLocal(ReleaseChunk chunk)
    {
        var plain = new byte[chunk.Length];
        return TryReadLocal(chunk, plain) ? plain : null;
    }

    private bool Open(ReleaseChunk chunk, Form form, ReadOnlySpan<byte> untrusted, Span<byte> plain, byte[] scratch)
    {
        var key = Index.Segments[chunk.Segment].Key.Span;
        return form == Form.Plain
            ? SegmentFormat.TryOpenPlain(key, chunk.Ordinal, untrusted, plain)
            : SegmentFormat.TryOpenChunk(key, chunk.Ordinal, chunk.Compressed, untrusted, plain, scratch);
    }

    private void Keep(ReleaseChunk chunk, Form form, ReadOnlySpan<byte> verified)
    {
        var key = (chunk.Segment, chunk.Offset);
        try
        {
            cache.Write(Index.Segments[chunk.Segment].Name, PlaceOf(chunk, form), verified);
            if (present.TryAdd(key, form))
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

    private bool IsVerifiedLocally(ReleaseChunk chunk)
    {
        if (!present.TryGetValue((chunk.Segment, chunk.Offset), out var form))
        {
            return false;
        }

        var buffer = ArrayPool<byte>.Shared.Rent(SegmentFormat.MaxChunkSize + SegmentFormat.TagSize);
        var scratch = ArrayPool<byte>.Shared.Rent(SegmentFormat.MaxChunkSize);
        try
        {
            var untrusted = ReadSealed(chunk, form, buffer);
            if (!untrusted.IsEmpty && (form == Form.Plain ? Open(chunk, form, untrusted, scratch.AsSpan(0, chunk.Length), scratch) : Authenticates(chunk, untrusted, scratch)))
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

    private static long PlaceOf(ReleaseChunk chunk, Form form) => form == Form.Plain ? SegmentFormat.PlainPlace(chunk.Ordinal) : chunk.Offset;

    private static int SealedLength(ReleaseChunk chunk, Form form) => form == Form.Plain ? chunk.Length + SegmentFormat.TagSize : chunk.StoredLength;

    /// <summary>The bytes at the chunk's place in the cache; none where its file does not reach so far.</summary>
    private ReadOnlySpan<byte> ReadSealed(ReleaseChunk chunk, Form form, byte[] buffer)
    {
        var bytes = buffer.AsSpan(0, SealedLength(chunk, form));
        return cache.TryRead(Index.Segments[chunk.Segment].Name, PlaceOf(chunk, form), bytes) ? bytes : [];
    }

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
        foreach (var chunk in Index.Stored)
        {
            foreach (var form in new[] { Form.Segment, Form.Plain }.Where(form => HasTag(chunk, form)).Take(1))
            {
                present.TryAdd((chunk.Segment, chunk.Offset), form);
                presentBytes += chunk.StoredLength;
            }
        }
    }

    private bool HasTag(ReleaseChunk chunk, Form form)
    {
        Span<byte> tag = stackalloc byte[SegmentFormat.TagSize];
        return cache.TryRead(Index.Segments[chunk.Segment].Name, PlaceOf(chunk, form) + SealedLength(chunk, form) - SegmentFormat.TagSize, tag) && tag.ContainsAnyExcept((byte)0);
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
