using System.Buffers;
using System.Collections.Concurrent;
using System.Diagnostics;

namespace Nacre.Volumes.Releases;

/// <content>The boot set: which chunks a start reads, and taking them from an object that has copies of them in that order (SPEC.md, REL-07x).</content>
public sealed partial class ReleaseReader
{
    private const int LeastPiece = 128 * 1024, MostPiece = 2 * 1024 * 1024;

    /// <summary>Pieces under way at once. Each is on a connection of its own: where packets are lost, one alone would get a fraction of the link (at 80 ms and 1 %, about 1.4 Mbit/s).</summary>
    private const int PiecesAtOnce = 6;

    /// <summary>A piece should arrive within this time: what somebody waits for is not held up by much that is not.</summary>
    private static readonly TimeSpan PieceTime = TimeSpan.FromMilliseconds(300);

    /// <summary>Whoever needs a chunk that is on its way waits so long for it, and then asks for it alone.</summary>
    private static readonly TimeSpan Overtake = TimeSpan.FromSeconds(1);

    private readonly ConcurrentDictionary<(int Segment, int Offset), Coming> coming = new();
    private ConcurrentQueue<ReleaseChunk>? recorded = new();
    private ConcurrentDictionary<(int Segment, int Offset), byte>? seen = new();

    /// <summary>A chunk that a pack will bring.</summary>
    private sealed class Coming
    {
        private readonly TaskCompletionSource arrived = new(TaskCreationOptions.RunContinuationsAsynchronously);

        /// <summary>Whether it was asked for.</summary>
        public bool IsUnderWay { get; set; }

        /// <summary>Ends when the chunk is here, or won't come.</summary>
        public Task Arrived => arrived.Task;

        public void Settle() => arrived.TrySetResult();
    }

    /// <summary>The chunks that were read since this reader was opened, in the order of their first use; the recording ends.</summary>
    public IReadOnlyList<(string Segment, int Offset, int Length)> EndRecording()
    {
        var chunks = Interlocked.Exchange(ref recorded, null);
        seen = null;
        return [.. (chunks ?? []).Select(chunk => (Index.Segments[chunk.Segment].Name, chunk.Offset, chunk.StoredLength))];
    }

    /// <summary>
    /// Fetches chunks from copies that lie one behind the other in a stored object, each verified as one from its own segment would be. What is here, or is no
    /// chunk of this release, is left out. Readers go first: they wait only for what was asked for already. Ends at the first copy that is not authentic.
    /// </summary>
    /// <param name="name">The object's name at the origin.</param>
    /// <param name="start">Where the copies begin.</param>
    /// <param name="untrustedCopies">Which chunks they are, by their places in segments.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="VolumeException">Io, Truncated, NotAuthentic: the chunks that did not come are fetched from their segments, as without a pack.</exception>
    public async Task FillAsync(string name, long start, IReadOnlyList<(string Segment, int Offset, int Length)> untrustedCopies, CancellationToken cancellationToken)
    {
        var copies = Locate(start, untrustedCopies);
        foreach (var (chunk, _) in copies)
        {
            coming.TryAdd((chunk.Segment, chunk.Offset), new Coming());
        }

        try
        {
            await FillAsync(name, copies, cancellationToken).ConfigureAwait(false);
            if (CacheFailure is { } failure)
            {
                throw failure;
            }
        }
        finally
        {
            foreach (var (chunk, _) in copies)
            {
                Settle(chunk);
            }
        }
    }

    private async Task FillAsync(string name, List<(ReleaseChunk Chunk, long Place)> copies, CancellationToken cancellationToken)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, closing.Token);
        var under = new Queue<Task<TimeSpan>>();
        var size = LeastPiece;
        try
        {
            for (var next = 0; next < copies.Count || under.Count > 0;)
            {
                var piece = TakePiece(copies, ref next, size);
                if (piece.Count > 0)
                {
                    under.Enqueue(FetchPieceAsync(name, piece, stop.Token));
                }

                if ((under.Count == PiecesAtOnce || next == copies.Count) && under.TryDequeue(out var first))
                {
                    var took = await first.ConfigureAwait(false);
                    size = Math.Clamp(took > PieceTime ? size / 2 : took < PieceTime / 2 ? size * 2 : size, LeastPiece, MostPiece);
                }
            }
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            foreach (var task in under)
            {
                await ((Task)task).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
    }

    /// <summary>The next copies that are adjacent and not here yet.</summary>
    private List<(ReleaseChunk Chunk, long Place)> TakePiece(List<(ReleaseChunk Chunk, long Place)> copies, ref int next, int size)
    {
        var piece = new List<(ReleaseChunk Chunk, long Place)>();
        for (; next < copies.Count; next++)
        {
            var (chunk, place) = copies[next];
            var key = (chunk.Segment, chunk.Offset);
            if (present.ContainsKey(key) || loading.ContainsKey(key))
            {
                Settle(chunk);
                if (piece.Count > 0)
                {
                    next++;
                    break;
                }

                continue;
            }

            if (piece.Count > 0 && (piece[^1].Place + piece[^1].Chunk.StoredLength != place || place + chunk.StoredLength - piece[0].Place > size))
            {
                break;
            }

            if (coming.TryGetValue(key, out var one))
            {
                one.IsUnderWay = true;
            }

            piece.Add((chunk, place));
        }

        return piece;
    }

    /// <summary>Fetches one piece of the object, verifies each chunk, and keeps it.</summary>
    private async Task<TimeSpan> FetchPieceAsync(string name, List<(ReleaseChunk Chunk, long Place)> piece, CancellationToken cancellationToken)
    {
        var since = Stopwatch.StartNew();
        var start = piece[0].Place;
        var length = (int)(piece[^1].Place + piece[^1].Chunk.StoredLength - start);
        var buffer = ArrayPool<byte>.Shared.Rent(length);
        var scratch = ArrayPool<byte>.Shared.Rent(SegmentFormat.MaxChunkSize);
        try
        {
            var next = 0;
            Interlocked.Increment(ref requests);
            await origin.ReadAsync(new SegmentRange(name, start, buffer.AsMemory(0, length), Verify, isUrgent: true), cancellationToken).ConfigureAwait(false);
            return next == piece.Count ? since.Elapsed : throw new VolumeException(VolumeErrorKind.Truncated, $"the boot pack {name} ended before byte {start + length}");

            int Verify(int arrived)
            {
                for (; next < piece.Count && piece[next].Place + piece[next].Chunk.StoredLength - start <= arrived; next++)
                {
                    var (chunk, place) = piece[next];
                    var untrusted = buffer.AsSpan((int)(place - start), chunk.StoredLength);
                    if (!Authenticates(chunk, untrusted, scratch))
                    {
                        throw new VolumeException(VolumeErrorKind.NotAuthentic, $"the boot pack {name}, bytes {place} to {place + chunk.StoredLength}");
                    }

                    Interlocked.Add(ref fetchedBytes, chunk.StoredLength);
                    Keep(chunk, Form.Segment, untrusted);
                    Settle(chunk);
                }

                return next == 0 ? 0 : (int)(piece[next - 1].Place + piece[next - 1].Chunk.StoredLength - start);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
            ArrayPool<byte>.Shared.Return(scratch);
        }
    }

    /// <summary>The copies that are chunks of this release, with their places in the object.</summary>
    private List<(ReleaseChunk Chunk, long Place)> Locate(long start, IReadOnlyList<(string Segment, int Offset, int Length)> untrustedCopies)
    {
        var chunks = Index.Stored.ToDictionary(chunk => (Index.Segments[chunk.Segment].Name, chunk.Offset, chunk.StoredLength));
        var copies = new List<(ReleaseChunk, long)>();
        foreach (var copy in untrustedCopies)
        {
            if (chunks.Remove(copy, out var chunk))
            {
                copies.Add((chunk, start));
            }

            start += copy.Length;
        }

        return copies;
    }

    private void Settle(ReleaseChunk chunk)
    {
        if (coming.TryRemove((chunk.Segment, chunk.Offset), out var one))
        {
            one.Settle();
        }
    }

    private void Record(ReleaseChunk chunk)
    {
        if (seen is { } known && recorded is { } chunks && known.TryAdd((chunk.Segment, chunk.Offset), 0))
        {
            chunks.Enqueue(chunk);
        }
    }

    /// <summary>Waits for a chunk that a pack brings right now.</summary>
    private async Task AwaitComingAsync(ReleaseChunk chunk)
    {
        if (coming.TryGetValue((chunk.Segment, chunk.Offset), out var one) && one.IsUnderWay)
        {
            try
            {
                await one.Arrived.WaitAsync(Overtake, closing.Token).ConfigureAwait(false);
            }
            catch (TimeoutException)
            {
                // The caller asks for it alone.
            }
        }
    }

    /// <summary>Waits until a pack has brought what it brings of these chunks.</summary>
    private async Task AwaitComingAsync(IEnumerable<ReleaseChunk> chunks, CancellationToken cancellationToken)
    {
        foreach (var chunk in chunks)
        {
            if (coming.TryGetValue((chunk.Segment, chunk.Offset), out var one))
            {
                await one.Arrived.WaitAsync(cancellationToken).ConfigureAwait(false);
            }
        }
    }
}
