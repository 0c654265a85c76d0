using System.Buffers.Binary;

namespace Nacre.Volumes;

/// <content>The write path: appending slots, changing segments, flushing. Everything here runs under the gate unless it says otherwise.</content>
public sealed partial class Volume
{
    private const int SlotsPerWrite = 64;

    private readonly byte[] _slots = GC.AllocateArray<byte>(SlotsPerWrite * Segment.SlotSize, pinned: true);
    private readonly (uint Block, uint Count, bool IsData)[] _batch = new (uint, uint, bool)[SlotsPerWrite];
    private readonly byte[] _block = new byte[BlockSize];

    // The segment that the log ends in. It takes slots only if this process created it.
    private Segment? _last;
    private bool _lastTakesSlots;
    private int _batched;
    private long _writtenBytes;
    private long _appendedSlots;
    private long _bytesSinceCheckpoint;

    private void AppendBytes(long offset, ReadOnlySpan<byte> source)
    {
        while (!source.IsEmpty)
        {
            var block = (uint)(offset / BlockSize);
            var within = (int)(offset % BlockSize);
            var taken = source.Length - (source.Length % BlockSize);
            if (within == 0 && taken > 0)
            {
                AppendBlocks(block, source[..taken]);
            }
            else
            {
                taken = Math.Min(BlockSize - within, source.Length);
                Read((long)block * BlockSize, _block);
                source[..taken].CopyTo(_block.AsSpan(within));
                AppendBlocks(block, _block);
            }

            source = source[taken..];
            offset += taken;
        }
    }

    private void AppendZeroes(long offset, long length)
    {
        var end = offset + length;
        var first = (offset + BlockSize - 1) / BlockSize;
        var last = end / BlockSize;
        if (first > last)
        {
            ZeroPart(offset, length);
            return;
        }

        ZeroPart(offset, (first * BlockSize) - offset);
        if (first < last)
        {
            AppendHole((uint)first, (uint)(last - first), SlotKind.Zero);
        }

        ZeroPart(last * BlockSize, end - (last * BlockSize));
    }

    private void ZeroPart(long offset, long length)
    {
        if (length > 0)
        {
            Read(offset - (offset % BlockSize), _block);
            _block.AsSpan((int)(offset % BlockSize), (int)length).Clear();
            AppendBlocks((uint)(offset / BlockSize), _block);
        }
    }

    /// <summary>Makes whole blocks holes; nothing is written where they all are.</summary>
    private void AppendHole(uint block, uint count, SlotKind kind)
    {
        if (_log.Map.RunLength(block, count, out var isHole) == count && isHole)
        {
            return;
        }

        var segment = SegmentWithRoom();
        AddHoleSlot(segment, block, count, kind);
        WriteBatch(segment);
    }

    /// <summary>Appends whole blocks. Each becomes visible once the write that holds it succeeded; those of a failed write never do.</summary>
    private void AppendBlocks(uint block, ReadOnlySpan<byte> source)
    {
        while (!source.IsEmpty)
        {
            var segment = SegmentWithRoom();
            var room = Math.Min(SlotsPerWrite, segment.Capacity - segment.Count);
            while (!source.IsEmpty && _batched < room)
            {
                var blocks = LeadingZeroBlocks(source);
                if (blocks == 0)
                {
                    blocks = 1;
                    AddDataSlot(segment, block, source[..BlockSize]);
                }
                else if (_log.Map.RunLength(block, blocks, out var isHole) != blocks || !isHole)
                {
                    AddHoleSlot(segment, block, blocks, SlotKind.Zero);
                }

                block += blocks;
                source = source[(int)(blocks * BlockSize)..];
            }

            WriteBatch(segment);
        }
    }

    private static uint LeadingZeroBlocks(ReadOnlySpan<byte> source)
    {
        var first = source.IndexOfAnyExcept((byte)0);
        return (uint)((first < 0 ? source.Length : first) / BlockSize);
    }

    private Span<byte> NextSlot() => _slots.AsSpan(_batched * Segment.SlotSize, Segment.SlotSize);

    private void AddDataSlot(Segment segment, uint block, ReadOnlySpan<byte> content)
    {
        var slot = NextSlot();
        content.CopyTo(slot[SlotHeader.Size..]);
        segment.Encrypt(segment.Count + _batched, new SlotHeader(block, (uint)segment.Flushed, SlotKind.Data), slot);
        _batch[_batched++] = (block, 1, true);
    }

    private void AddHoleSlot(Segment segment, uint block, uint count, SlotKind kind)
    {
        var slot = NextSlot();
        slot.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(slot[SlotHeader.Size..], count);
        segment.Encrypt(segment.Count + _batched, new SlotHeader(block, (uint)segment.Flushed, kind), slot);
        _batch[_batched++] = (block, count, false);
    }

    private void WriteBatch(Segment segment)
    {
        var slots = _batched;
        _batched = 0;
        if (slots == 0)
        {
            return;
        }

        try
        {
            segment.File.Write(Segment.PositionOf(segment.Count), _slots.AsSpan(0, slots * Segment.SlotSize));
        }
        catch (VolumeException e) when (e.Kind == VolumeErrorKind.NoSpace)
        {
            AbandonRestOf(segment);
            throw;
        }
        catch (VolumeException e)
        {
            throw Fault(e);
        }

        for (var i = 0; i < slots; i++)
        {
            var (block, count, isData) = _batch[i];
            if (isData)
            {
                _log.Place(block, segment, segment.Count + i);
            }
            else
            {
                _log.Punch(block, count);
            }
        }

        segment.Count += slots;
        _log.Tail = segment.End;
        _appendedSlots += slots;
        _bytesSinceCheckpoint += (long)slots * Segment.SlotSize;
    }

    /// <summary>After a full disk: what the failed write left behind is cut off, and no position of this segment is used again, since a
    /// nonce must never meet a second plaintext.</summary>
    private void AbandonRestOf(Segment segment)
    {
        _lastTakesSlots = false;
        try
        {
            segment.File.Truncate(Segment.PositionOf(segment.Count));
        }
        catch (VolumeException e)
        {
            throw Fault(e);
        }

        SyncUnderGate(segment);
        segment.Flushed = segment.Count;
    }

    private Segment SegmentWithRoom()
    {
        if (_lastTakesSlots && _last!.Count < _last.Capacity)
        {
            return _last;
        }

        SealLast();
        if (_bytesSinceCheckpoint >= Math.Max(_options.CheckpointInterval, _log.CheckpointBytes * 64))
        {
            TryCheckpointUnderGate();
        }

        try
        {
            return StartSegment();
        }
        catch (VolumeException e) when (e.Kind == VolumeErrorKind.NoSpace && _log.Segments.Any(segment => segment.Live == 0))
        {
            // The disk is full and some segments only hold what was overwritten since: give those back and try once more.
            TryCheckpointUnderGate();
            return StartSegment();
        }
    }

    private Segment StartSegment()
    {
        try
        {
            var segment = Segment.Create(_log.Storage, _log.Keys, _log.Tail, _header.SegmentSlots, durable: !_ephemeral);
            _log.Add(segment);
            _log.Tail = segment.End;
            _last = segment;
            _lastTakesSlots = true;
            return segment;
        }
        catch (VolumeException e) when (e.Kind != VolumeErrorKind.NoSpace)
        {
            throw Fault(e);
        }
    }

    /// <summary>Makes the last segment durable before its successor, or a checkpoint, states how many slots it has.</summary>
    private void SealLast()
    {
        if (_last is { } last && last.Flushed < last.Count)
        {
            SyncUnderGate(last);
            last.Flushed = last.Count;
        }
    }

    private void SyncUnderGate(Segment segment)
    {
        if (_ephemeral)
        {
            return;
        }

        try
        {
            segment.File.SyncData();
        }
        catch (VolumeException e)
        {
            throw Fault(e);
        }
    }

    private void FlushIf(bool forceUnitAccess)
    {
        if (forceUnitAccess)
        {
            Flush();
        }
    }

    /// <summary>Makes everything appended before durable. Runs without the gate, so that writes go on beside the disk's work.</summary>
    private void Flush()
    {
        lock (_flushing)
        {
            Segment segment;
            int count;
            lock (_gate)
            {
                RequireNotFaulted();
                _flushes++;
                if (IsReadOnly || _last is null || _last.Flushed >= _last.Count)
                {
                    return;
                }

                (segment, count) = (_last, _last.Count);
                if (_ephemeral)
                {
                    segment.Flushed = count;
                    return;
                }

                _dataSyncs++;

                // Taken under the gate: until it is left, no checkpoint can remove the segment.
                _segmentsInUse.EnterReadLock();
            }

            VolumeException? failure = null;
            try
            {
                segment.File.SyncData();
            }
            catch (VolumeException e)
            {
                failure = e;
            }
            finally
            {
                _segmentsInUse.ExitReadLock();
            }

            lock (_gate)
            {
                if (failure is not null)
                {
                    throw Fault(failure);
                }

                segment.Flushed = Math.Max(segment.Flushed, count);
            }
        }
    }
}
