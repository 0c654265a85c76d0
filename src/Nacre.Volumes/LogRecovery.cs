using System.Buffers;
using System.Buffers.Binary;
using Nacre.Volumes.Storage;

namespace Nacre.Volumes;

/// <summary>Rebuilds the state of a volume from its files: the newest checkpoint, then every later slot (SPEC, "Recovery").</summary>
/// <remarks>Changes no segment and no checkpoint, so that doing it twice gives the same; what it removes are files that nothing needs.</remarks>
internal static class LogRecovery
{
    private const int SlotsPerRead = 64;

    /// <summary>Recovers the state. Takes ownership of <paramref name="keys"/>, also when it fails.</summary>
    public static VolumeLog Run(IVolumeStorage storage, VolumeKeys keys, VolumeHeader header, VolumeOptions options)
    {
        var (readOnly, tolerant) = (options.ReadOnly, options.Tolerant);
        var log = new VolumeLog(storage, keys, (uint)(header.Size / IBlockDevice.BlockSize));
        try
        {
            var names = storage.List();
            var checkpoints = VolumeFiles.Checkpoints(names);
            var segments = VolumeFiles.Segments(names);
            if (checkpoints.Count > 0)
            {
                CheckpointFile.Load(log, checkpoints.Max, writable: !readOnly, tolerant);
            }

            try
            {
                ReplayLaterSegments(log, segments, readOnly);
            }
            catch (VolumeException e) when (tolerant)
            {
                log.Damages.Add(e);
            }

            if (!readOnly)
            {
                RemoveLeftovers(log, names, checkpoints, segments);
            }

            return log;
        }
        catch
        {
            log.Dispose();
            throw;
        }
    }

    private static void ReplayLaterSegments(VolumeLog log, SortedSet<uint> present, bool readOnly)
    {
        var current = log.SegmentNumbered(log.Tail.Sequence);
        var last = Math.Max(log.Tail.Sequence, present.Max);
        for (var sequence = log.Tail.Sequence + 1; sequence <= last; sequence++)
        {
            if (!present.Contains(sequence))
            {
                throw new VolumeException(VolumeErrorKind.Corrupt, $"{VolumeFiles.Segment(sequence)} is missing from the log");
            }

            var next = Segment.Open(log.Storage, log.Keys, sequence, writable: !readOnly);
            log.Add(next);
            RequireSuccessor(log.Tail, next);
            if (current is { Damage: null })
            {
                Replay(log, current, next.Previous.Slots);
            }
            else if (next.Previous.Slots != log.Tail.Slots)
            {
                throw new VolumeException(VolumeErrorKind.Corrupt, $"{next.Name} does not continue where the checkpoint ends");
            }

            current = next;
            log.Tail = next.End;
        }

        if (current is { Damage: null })
        {
            Replay(log, current, required: null);
            log.Tail = current.End;
        }
    }

    private static void RequireSuccessor(LogTail tail, Segment next)
    {
        if (next.Previous.SegmentId != tail.SegmentId)
        {
            throw new VolumeException(VolumeErrorKind.NotAuthentic, $"{next.Name} does not continue {VolumeFiles.Segment(tail.Sequence)}");
        }

        if (next.Previous.Slots < tail.Slots)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, $"{next.Name} continues before the end of {VolumeFiles.Segment(tail.Sequence)}");
        }
    }

    /// <summary>Applies a segment's slots from its count on. With a successor, exactly <paramref name="required"/> slots must be valid:
    /// the successor was made only after they were durable. The last segment ends at its first invalid slot.</summary>
    private static void Replay(VolumeLog log, Segment segment, int? required)
    {
        var buffer = ArrayPool<byte>.Shared.Rent(SlotsPerRead * Segment.SlotSize);
        try
        {
            Replay(log, segment, required, buffer);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private static void Replay(VolumeLog log, Segment segment, int? required, byte[] buffer)
    {
        var end = required ?? segment.Capacity;
        var first = segment.Count;
        int? invalid = null;
        for (var ordinal = first; ordinal < end; ordinal += SlotsPerRead)
        {
            var wanted = Math.Min(SlotsPerRead, end - ordinal);
            var read = segment.File.Read(Segment.PositionOf(ordinal), buffer.AsSpan(0, wanted * Segment.SlotSize)) / Segment.SlotSize;
            for (var i = 0; i < read; i++)
            {
                var slot = buffer.AsSpan(i * Segment.SlotSize, Segment.SlotSize);
                if (!slot.ContainsAnyExcept((byte)0) || !segment.TryDecrypt(ordinal + i, slot, out var header))
                {
                    invalid ??= ordinal + i;
                }
                else if (invalid is null)
                {
                    Apply(log, segment, ordinal + i, header, slot[SlotHeader.Size..]);
                    segment.Count = ordinal + i + 1;
                    log.ReplayedSlots++;
                    log.StoredSlots++;
                }
                else if (header.FlushedSlots > invalid)
                {
                    // A later slot proves that the invalid one had been flushed: it was damaged, not lost with the power.
                    throw NotAuthentic(segment, invalid.Value);
                }
            }

            if (read < wanted)
            {
                break;
            }
        }

        if (segment.Count < required)
        {
            throw invalid is { } at
                ? NotAuthentic(segment, at)
                : new VolumeException(VolumeErrorKind.Truncated, $"{segment.Name} ends before the {required} slots that its successor names");
        }

        if (required is not null)
        {
            segment.Flushed = segment.Count;
        }
    }

    private static void Apply(VolumeLog log, Segment segment, int ordinal, SlotHeader header, ReadOnlySpan<byte> content)
    {
        if (!TryApply(log, segment, ordinal, header, content))
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, $"slot {ordinal} of {segment.Name} contradicts itself");
        }
    }

    private static bool TryApply(VolumeLog log, Segment segment, int ordinal, SlotHeader header, ReadOnlySpan<byte> content)
    {
        switch (header.Kind)
        {
            case SlotKind.Data when header.Block < log.Map.Blocks:
                log.Place(header.Block, segment, ordinal);
                return true;
            case SlotKind.Zero or SlotKind.Trim:
                var count = BinaryPrimitives.ReadUInt32LittleEndian(content);
                if (count == 0 || (ulong)header.Block + count > log.Map.Blocks)
                {
                    return false;
                }

                log.Punch(header.Block, count);
                return true;
            case SlotKind.Copy:
                // Where no map has the source any more, the copy was overtaken by a newer write.
                if (log.SegmentNumbered(header.Source.Sequence) is { } source)
                {
                    log.Move(header.Block, BlockMap.Entry(source.Index, header.Source.Ordinal), BlockMap.Entry(segment.Index, ordinal));
                }

                return true;
            case SlotKind.Snapshot:
                if (!SnapshotRecord.TryRead(content, out var id, out var name, out var taken, out var blocks)
                    || id <= log.LastSnapshot || blocks > log.Map.Blocks)
                {
                    return false;
                }

                log.TakeSnapshot(id, name, taken, blocks);
                return true;
            case SlotKind.RollBack or SlotKind.DeleteSnapshot:
                id = BinaryPrimitives.ReadUInt32LittleEndian(content);
                if (log.Snapshots.FirstOrDefault(snapshot => snapshot.Info.Id == id) is not { } named)
                {
                    return false;
                }

                if (header.Kind == SlotKind.RollBack)
                {
                    log.RollBack(named);
                }
                else
                {
                    log.DeleteSnapshot(named);
                }

                return true;
            default:
                return false;
        }
    }

    private static VolumeException NotAuthentic(Segment segment, int ordinal) =>
        new(VolumeErrorKind.NotAuthentic, $"slot {ordinal} of {segment.Name} is not the one that was written there");

    private static void RemoveLeftovers(VolumeLog log, string[] names, SortedSet<uint> checkpoints, SortedSet<uint> segments)
    {
        var needed = log.Segments.Select(segment => segment.Sequence).ToHashSet();
        var leftovers = names.Where(name => name.EndsWith(VolumeFiles.TemporarySuffix, StringComparison.Ordinal))
            .Concat(checkpoints.Where(number => number != log.Checkpoint).Select(VolumeFiles.Checkpoint))
            .Concat(segments.Where(sequence => !needed.Contains(sequence)).Select(VolumeFiles.Segment));
        foreach (var name in leftovers)
        {
            log.Storage.Delete(name);
        }
    }
}
