using System.Buffers.Binary;

namespace Nacre.Volumes;

/// <content>The write path: appending slots, changing segments, flushing. Everything here runs under the gate unless it says otherwise.</content>
public sealed partial class Volume
{
    private const int SlotsPerWrite = 64;
    private const int PageSize = 4096;
    private const int WritebackSize = 2 << 20;

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

    /// <summary>Adds a write to the batch. The caller ends with <see cref="WriteBatch"/>.</summary>
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
                ReadBlock(block);
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
            WriteBatch();
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
            ReadBlock((uint)(offset / BlockSize));
            _block.AsSpan((int)(offset % BlockSize), (int)length).Clear();
            AppendBlocks((uint)(offset / BlockSize), _block);
        }
    }

    /// <summary>Reads what a block holds, the batch included.</summary>
    private void ReadBlock(uint block)
    {
        WriteBatch();
        Read(snapshot: null, (long)block * BlockSize, _block);
    }

    /// <summary>Makes whole blocks holes; nothing is written where they all are.</summary>
    private void AppendHole(uint block, uint count, SlotKind kind)
    {
        WriteBatch();
        if (_log.Map[block] != 0 || _log.Map.RunLength(block, count, out _) != count)
        {
            Span<byte> content = stackalloc byte[4];
            BinaryPrimitives.WriteUInt32LittleEndian(content, count);
            AppendSlot(kind, block, content, count);
        }
    }

    /// <summary>Adds whole blocks to the batch. Each becomes visible once the write that holds it succeeded; those of a failed write never
    /// do.</summary>
    private void AppendBlocks(uint block, ReadOnlySpan<byte> source)
    {
        while (!source.IsEmpty)
        {
            var blocks = LeadingZeroBlocks(source);
            if (blocks == 0)
            {
                blocks = 1;
                AppendSlot(SlotKind.Data, block, source[..BlockSize]);
            }
            else
            {
                AppendHole(block, blocks, SlotKind.Zero);
            }

            block += blocks;
            source = source[(int)(blocks * BlockSize)..];
        }
    }

    private static uint LeadingZeroBlocks(ReadOnlySpan<byte> source)
    {
        var first = source.IndexOfAnyExcept((byte)0);
        return (uint)((first < 0 ? source.Length : first) / BlockSize);
    }

    /// <summary>Encrypts a slot into the batch; a batch that is full, or fills its segment, is written first.</summary>
    private void AppendSlot(SlotKind kind, uint block, ReadOnlySpan<byte> content, uint count = 1, uint sourceEntry = 0, SlotPlace source = default)
    {
        var segment = SegmentWithRoom();
        _slots ??= GC.AllocateUninitializedArray<byte>((SlotsPerWrite * Segment.SlotSize) + PageSize, pinned: true);
        var slot = _slots.AsSpan(_batched * Segment.SlotSize, Segment.SlotSize);
        content.CopyTo(slot[SlotHeader.Size..]);
        slot[(SlotHeader.Size + content.Length)..].Clear();
        segment.Encrypt(segment.Count + _batched, new SlotHeader(block, (uint)segment.Flushed, kind, source), slot);
        _batch[_batched++] = new BatchedSlot(kind, block, count, sourceEntry);
    }

    /// <summary>Writes the batch, and makes what it holds visible.</summary>
    private void WriteBatch()
    {
        var slots = _batched;
        _batched = 0;
        if (slots == 0)
        {
            return;
        }

        var segment = _last!;
        try
        {
            // To the end of a page: the page cache need not read what a segment's file held before to complete it.
            var start = Segment.PositionOf(segment.Count);
            var end = Segment.PositionOf(segment.Count + slots);
            var padded = Math.Min((end + PageSize - 1) / PageSize * PageSize, Segment.PositionOf(segment.Capacity));
            _slots.AsSpan((int)(end - start), (int)(padded - end)).Clear();
            segment.File.Write(start, _slots.AsSpan(0, (int)(padded - start)));
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
        BeginWriteback(segment);
        _log.Tail = segment.End;
        _appendedSlots += slots;
        _log.StoredSlots += slots;
        _bytesSinceCheckpoint += (long)slots * Segment.SlotSize;
    }

    /// <summary>Spreads a segment's way to the disk over the time it takes to fill, so that leaving it does not hold up the writers.</summary>
    private static void BeginWriteback(Segment segment)
    {
        var written = Segment.PositionOf(segment.Count);
        if (written - segment.WritebackFrom >= WritebackSize)
        {
            // Not the page that the next slot still goes to.
            var end = written / PageSize * PageSize;
            segment.File.BeginWriteback(segment.WritebackFrom, end - segment.WritebackFrom);
            segment.WritebackFrom = end;
        }
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

    /// <summary>The segment that the next slot of the batch goes to.</summary>
    private Segment SegmentWithRoom()
    {
        if (_lastTakesSlots && _batched < SlotsPerWrite && _last!.Count + _batched < _last.Capacity)
        {
            return _last;
        }

        WriteBatch();
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
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.Faulted"/>.</exception>
    public void Flush()
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
