using System.Buffers;
using System.Diagnostics.CodeAnalysis;

namespace Nacre.Volumes;

/// <summary>A writable encrypted volume: a folder that holds a log of authenticated slots and a map from blocks to them.</summary>
/// <remarks>
/// <para>Purpose, formats and promises: SPEC.md beside this file. One process may have a volume open for writing, or several for reading.</para>
/// <para>All members may be called from several threads at once, except disposal, which must be the last call. Everything completes
/// synchronously. Buffers belong to the caller and are not kept.</para>
/// <para>A write is in the kernel when it is answered; it survives a power loss after the next flush. After a failed write or flush the
/// volume is <see cref="VolumeErrorKind.Faulted"/>: it serves reads, and refuses changes until it is opened anew. A full disk does not
/// fault it: that write fails with <see cref="VolumeErrorKind.NoSpace"/> and may be repeated.</para>
/// </remarks>
public sealed partial class Volume : IBlockDevice, IWriteTogether
{
    private const int BlockSize = IBlockDevice.BlockSize;

    // 256 KiB of blocks: one pread for what a guest reads ahead, and a buffer that the shared pool keeps per thread.
    private const int SlotsPerRead = 64;

    private readonly VolumeOptions _options;
    private readonly VolumeLog _log;
    private readonly IDisposable _lock;

    // Order of taking: _maintaining, _flushing, _gate, _segmentsInUse.
    private readonly Lock _maintaining = new();
    private readonly Lock _flushing = new();
    private readonly Lock _gate = new();

    // Held for reading while a segment's file is in use outside the gate, for writing to take a segment away.
    private readonly ReaderWriterLockSlim _segmentsInUse = new();

    private VolumeHeader _header;
    private VolumeException? _fault;
    private bool _disposed;
    private long _flushes;
    private long _dataSyncs;
    private long _checkpoints;

    /// <inheritdoc/>
    public long Size => _header.Size;

    /// <inheritdoc/>
    public bool IsReadOnly => _options.ReadOnly;

    /// <summary>Counts of the volume at this moment.</summary>
    public VolumeStatistics Statistics
    {
        get
        {
            lock (_gate)
            {
                return new VolumeStatistics(
                    _log.StoredSlots * Segment.SlotSize, _log.Map.LiveBlocks, _log.Segments.Count(), _log.Snapshots.Count, _writtenBytes,
                    _appendedSlots * Segment.SlotSize, _copiedSlots * Segment.SlotSize, _checkpointBytes, _flushes, _dataSyncs, _checkpoints,
                    _log.ReplayedSlots);
            }
        }
    }

    /// <summary>How far the volume is durable, to be kept outside and given to a later <see cref="VolumeOptions.Anchor"/>.</summary>
    public VolumeAnchor Anchor
    {
        get
        {
            lock (_gate)
            {
                var tail = _last is { } last && last.Sequence == _log.Tail.Sequence ? _log.Tail with { Slots = last.Flushed } : _log.Tail;
                return new VolumeAnchor(Identity, tail.Position);
            }
        }
    }

    private Guid Identity => new(_log.Keys.VolumeIdBytes);

    /// <inheritdoc/>
    public ValueTask ReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken)
    {
        try
        {
            cancellationToken.ThrowIfCancellationRequested();
            RequireRange(offset, destination.Length);
            Read(snapshot: null, offset, destination.Span);
            return ValueTask.CompletedTask;
        }
        catch (Exception e) when (e is VolumeException or OperationCanceledException)
        {
            return ValueTask.FromException(e);
        }
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> source, bool forceUnitAccess, CancellationToken cancellationToken) =>
        ChangeAsync(SlotKind.Data, offset, source.Length, [new BlockWrite(offset, source)], forceUnitAccess, cancellationToken);

    /// <inheritdoc/>
    public ValueTask FlushAsync(CancellationToken cancellationToken)
    {
        try
        {
            cancellationToken.ThrowIfCancellationRequested();
            ObjectDisposedException.ThrowIf(_disposed, this);
            Flush();
            return ValueTask.CompletedTask;
        }
        catch (Exception e) when (e is VolumeException or OperationCanceledException)
        {
            return ValueTask.FromException(e);
        }
    }

    /// <inheritdoc/>
    public ValueTask TrimAsync(long offset, long length, CancellationToken cancellationToken) =>
        ChangeAsync(SlotKind.Trim, offset, length, writes: [], forceUnitAccess: false, cancellationToken);

    /// <inheritdoc/>
    /// <remarks>Zeroes are holes here whatever <paramref name="keepAllocated"/> says: every later write allocates anyway.</remarks>
    public ValueTask WriteZeroesAsync(long offset, long length, bool keepAllocated, bool forceUnitAccess, CancellationToken cancellationToken) =>
        ChangeAsync(SlotKind.Zero, offset, length, writes: [], forceUnitAccess, cancellationToken);

    /// <inheritdoc/>
    public int DescribeExtents(long offset, long length, Span<BlockExtent> extents)
    {
        RequireRange(offset, length);
        return DescribeExtents(_log.Map, offset, length, extents);
    }

    private static int DescribeExtents(BlockMap map, long offset, long length, Span<BlockExtent> extents)
    {
        var count = 0;
        for (var end = offset + length; offset < end && count < extents.Length; count++)
        {
            var block = (uint)(offset / BlockSize);
            var blocks = (uint)(((end - 1) / BlockSize) - block + 1);
            var run = map.RunLength(block, blocks, out var isHole);
            var next = Math.Min(end, ((long)block + run) * BlockSize);
            if (count > 0 && extents[count - 1].IsHole == isHole)
            {
                // A write changed the map between two runs; keep the extents alternating.
                extents[count - 1] = new BlockExtent(extents[count - 1].Length + next - offset, isHole);
                count--;
            }
            else
            {
                extents[count] = new BlockExtent(next - offset, isHole);
            }

            offset = next;
        }

        return count;
    }

    /// <inheritdoc/>
    public void WriteTogether(ReadOnlySpan<BlockWrite> writes)
    {
        var length = 0L;
        foreach (var write in writes)
        {
            RequireChange(write.Offset, write.Source.Length);
            length += write.Source.Length;
        }

        Change(SlotKind.Data, 0, length, writes);
    }

    private ValueTask ChangeAsync(SlotKind kind, long offset, long length, ReadOnlySpan<BlockWrite> writes, bool forceUnitAccess, CancellationToken cancellationToken)
    {
        try
        {
            cancellationToken.ThrowIfCancellationRequested();
            RequireChange(offset, length);
            Change(kind, offset, length, writes);
            if (forceUnitAccess)
            {
                Flush();
            }

            return ValueTask.CompletedTask;
        }
        catch (Exception e) when (e is VolumeException or OperationCanceledException)
        {
            return ValueTask.FromException(e);
        }
    }

    /// <summary>Makes a change that lies inside the volume. For writes, offset is not looked at and length is the bytes of all.</summary>
    internal void Change(SlotKind kind, long offset, long length, ReadOnlySpan<BlockWrite> writes)
    {
        for (var madeRoom = false; !TryChange(kind, offset, length, writes, out var full); madeRoom = true)
        {
            if (madeRoom)
            {
                throw full;
            }

            MakeRoom(full);
        }

        MaintainIfDue();
    }

    /// <summary>Makes a change; false if the disk is full.</summary>
    private bool TryChange(SlotKind kind, long offset, long length, ReadOnlySpan<BlockWrite> writes, [NotNullWhen(false)] out VolumeException? full)
    {
        lock (_gate)
        {
            RequireNotFaulted();
            try
            {
                switch (kind)
                {
                    case SlotKind.Data:
                        foreach (ref readonly var write in writes)
                        {
                            AppendBytes(write.Offset, write.Source.Span);
                        }

                        _writtenBytes += length;
                        break;
                    case SlotKind.Zero:
                        AppendZeroes(offset, length);
                        _writtenBytes += length;
                        break;
                    default:
                        AppendTrim(offset, length);
                        break;
                }

                WriteBatch();
            }
            catch (VolumeException e) when (e.Kind == VolumeErrorKind.NoSpace)
            {
                full = e;
                return false;
            }
        }

        full = null;
        return true;
    }

    /// <summary>Reads from the volume as it is, or as it was when <paramref name="snapshot"/> was taken.</summary>
    internal void Read(SnapshotState? snapshot, long offset, Span<byte> destination)
    {
        while (!destination.IsEmpty)
        {
            var block = (uint)(offset / BlockSize);
            var within = (int)(offset % BlockSize);
            var blocks = (within + destination.Length + BlockSize - 1L) / BlockSize;
            int taken;
            _segmentsInUse.EnterReadLock();
            try
            {
                // While this lock is held no segment goes that a map points to now.
                if (snapshot is not null && !_log.Snapshots.Contains(snapshot))
                {
                    throw new VolumeException(VolumeErrorKind.Snapshot, $"the snapshot {snapshot.Info.Name} was deleted");
                }

                taken = ReadRun(snapshot?.Map ?? _log.Map, block, within, (int)Math.Min(blocks, SlotsPerRead), destination);
            }
            finally
            {
                _segmentsInUse.ExitReadLock();
            }

            destination = destination[taken..];
            offset += taken;
        }
    }

    /// <summary>Reads the longest run from <paramref name="block"/> on that is a hole, or lies in consecutive slots.</summary>
    private int ReadRun(BlockMap map, uint block, int within, int limit, Span<byte> destination)
    {
        var entry = map[block];
        if (entry != 0)
        {
            // The entry after a segment's last slot is the first one of the segment that has the next index.
            limit = Math.Min(limit, Segment.MaximumSlots - BlockMap.OrdinalOf(entry));
        }

        var run = 1;
        for (; run < limit && map[block + (uint)run] == (entry == 0 ? 0 : entry + (uint)run); run++)
        {
        }

        var taken = (int)Math.Min(((long)run * BlockSize) - within, destination.Length);
        if (entry == 0)
        {
            destination[..taken].Clear();
            return taken;
        }

        var segment = _log.SegmentOf(entry);
        var ordinal = BlockMap.OrdinalOf(entry);
        var buffer = ArrayPool<byte>.Shared.Rent(run * Segment.SlotSize);
        try
        {
            var slots = buffer.AsSpan(0, run * Segment.SlotSize);
            if (segment.File.Read(Segment.PositionOf(ordinal), slots) < slots.Length)
            {
                throw new VolumeException(VolumeErrorKind.Truncated, $"{segment.Name} ends before slot {ordinal + run - 1}");
            }

            // From the last to the first: a slot's header lands on the end of the block before it, which comes next.
            for (var i = run - 1; i >= 0; i--)
            {
                var slot = slots.Slice(i * Segment.SlotSize, Segment.SlotSize);
                var at = (i * BlockSize) - within;
                if (at >= SlotHeader.Size && at + BlockSize <= taken)
                {
                    segment.DecryptContent(ordinal + i, block + (uint)i, slot, destination.Slice(at - SlotHeader.Size, SlotHeader.Size + BlockSize));
                    continue;
                }

                // No room before it, or only a part of it wanted.
                segment.DecryptContent(ordinal + i, block + (uint)i, slot, slot[..(SlotHeader.Size + BlockSize)]);
                var start = i == 0 ? within : 0;
                slot.Slice(SlotHeader.Size + start, Math.Min(BlockSize - start, taken - at - start)).CopyTo(destination[(at + start)..]);
            }

            return taken;
        }
        catch (VolumeException)
        {
            destination[..taken].Clear();
            throw;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private void RequireRange(long offset, long length)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (offset < 0 || length < 0 || offset > Size || length > Size - offset)
        {
            throw new VolumeException(VolumeErrorKind.OutOfRange, $"{length} bytes from {offset} on lie outside the volume of {Size} bytes");
        }
    }

    private void RequireChange(long offset, long length)
    {
        RequireRange(offset, length);
        if (IsReadOnly)
        {
            throw new VolumeException(VolumeErrorKind.ReadOnly, "the volume was opened for reading only");
        }
    }

    private void RequireNotFaulted()
    {
        if (_fault is { } fault)
        {
            throw new VolumeException(VolumeErrorKind.Faulted, "an earlier write or flush failed; open the volume anew", fault);
        }
    }

    /// <summary>Keeps the first failure of a change and gives the exception that reports it.</summary>
    private VolumeException Fault(VolumeException cause)
    {
        _fault ??= cause;
        return new VolumeException(VolumeErrorKind.Faulted, "a write or flush failed; open the volume anew", _fault);
    }
}
