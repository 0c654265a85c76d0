using System.Buffers.Binary;

namespace Nacre.Volumes;

/// <content>The write path: appending slots, changing segments, flushing. Everything here runs under the gate unless it says otherwise.</content>
public sealed partial class Volume
{
    private const int SlotsPerWrite = 64;

    private byte[]? _slots;
    private readonly BatchedSlot[] _batch = new BatchedSlot[SlotsPerWrite];
    private readonly byte[] _block = new byte[BlockSize];

    // The segment that the log ends in. It takes slots only if this process created it.
    private Segment? _last;
    private bool _lastTakesSlots;
    private int _batched;
    private long _writtenBytes;
    private long _appendedSlots;
    private long _copiedSlots;

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
                Read(snapshot: null, (long)block * BlockSize, _block);
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

    private void AppendTrim(long offset, long length)
    {
        var first = (offset + BlockSize - 1) / BlockSize;
        var end = (offset + length) / BlockSize;
        if (first < end)
        {
            var before = _log.Map.LiveBlocks;
            AppendHole((uint)first, (uint)(end - first), SlotKind.Trim);
            if (before - _log.Map.LiveBlocks >= _header.SegmentSlots)
            {
                // Worth a pass of the cleaner, although little may be written from here on.
                _nextPassAt = 0;
            }

            NoteWhetherMaintenanceIsDue();
        }
    }

    private void ZeroPart(long offset, long length)
    {
        if (length > 0)
        {
            Read(snapshot: null, offset - (offset % BlockSize), _block);
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

    private Span<byte> NextSlot() => (_slots ??= GC.AllocateUninitializedArray<byte>(SlotsPerWrite * Segment.SlotSize, pinned: true)).AsSpan(_batched * Segment.SlotSize, Segment.SlotSize);

    private void AddDataSlot(Segment segment, uint block, ReadOnlySpan<byte> content)
    {
        var slot = NextSlot();
        content.CopyTo(slot[SlotHeader.Size..]);
        segment.Encrypt(segment.Count + _batched, new SlotHeader(block, (uint)segment.Flushed, SlotKind.Data), slot);
        _batch[_batched++] = new BatchedSlot(SlotKind.Data, block);
    }

    private void AddHoleSlot(Segment segment, uint block, uint count, SlotKind kind)
    {
        var slot = NextSlot();
        slot.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(slot[SlotHeader.Size..], count);
        segment.Encrypt(segment.Count + _batched, new SlotHeader(block, (uint)segment.Flushed, kind), slot);
        _batch[_batched++] = new BatchedSlot(kind, block, Count: count);
    }

    /// <summary>Appends a slot that concerns the whole volume; the caller changes the state once this returns.</summary>
    private void AppendRecord(SlotKind kind, ReadOnlySpan<byte> content)
    {
        var segment = SegmentWithRoom();
        var slot = NextSlot();
        slot.Clear();
        content.CopyTo(slot[SlotHeader.Size..]);
        segment.Encrypt(segment.Count + _batched, new SlotHeader(0, (uint)segment.Flushed, kind), slot);
        _batch[_batched++] = new BatchedSlot(kind, 0);
        WriteBatch(segment);
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
            var slot = _batch[i];
            switch (slot.Kind)
            {
                case SlotKind.Data:
                    _log.Place(slot.Block, segment, segment.Count + i);
                    break;
                case SlotKind.Zero or SlotKind.Trim:
                    _log.Punch(slot.Block, slot.Count);
                    break;
                case SlotKind.Copy:
                    _log.Move(slot.Block, slot.Source, BlockMap.Entry(segment.Index, segment.Count + i));
                    break;
            }
        }

        segment.Count += slots;
        _log.Tail = segment.End;
        _appendedSlots += slots;
        _log.StoredSlots += slots;
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
        NoteWhetherMaintenanceIsDue();
        try
        {
            _spares.TryPop(out var spare);
            var segment = Segment.Create(_log.Storage, _log.Keys, _log.Tail, _header.SegmentSlots, spare);
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
        try
        {
            segment.File.SyncData();
        }
        catch (VolumeException e)
        {
            throw Fault(e);
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
                _dataSyncs += _options.Volatile ? 0 : 1;

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

                // Changing segments syncs beside this: if that failed, this success says nothing.
                RequireNotFaulted();
                segment.Flushed = Math.Max(segment.Flushed, count);
            }
        }
    }

    /// <summary>A slot that waits for its write: what it does to the maps when that succeeded.</summary>
    private readonly record struct BatchedSlot(SlotKind Kind, uint Block, uint Count = 1, uint Source = 0);
}
