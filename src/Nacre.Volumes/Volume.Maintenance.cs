namespace Nacre.Volumes;

/// <content>Checkpoints, cleaning, and giving back the segments that hold nothing any more. Everything here runs under the maintenance
/// lock unless it says otherwise, and takes the gate only for moments, so that reads and writes go on.</content>
/// <remarks>The cleaner copies live slots of mostly dead segments to the end of the log; a copy names its source, and replay moves exactly
/// the map entries that still point there (SPEC, "Cleaning"). Choice of segments: cost and benefit, as Rosenblum and Ousterhout, "The
/// Design and Implementation of a Log-Structured File System", 1992.</remarks>
public sealed partial class Volume
{
    // Dead slots for a hundred live ones: where cleaning begins, and where writers wait for it.
    private const long CleaningShare = 27;
    private const long WaitingShare = 30;
    private const int SlotsPerCopy = 32;
    private const long CheckpointShare = 64;

    private readonly Stack<string> _spares = new();
    private long _bytesSinceCheckpoint;
    private long _checkpointBytes;

    // Union of what the maps need, as of the last pass, and how much the current map held then.
    private long _liveSlotsAtPass;
    private long _liveBlocksAtPass;
    private long _nextPassAt;
    private int _maintenanceQueued;
    private volatile bool _maintenanceDue;
    private volatile bool _closing;

    /// <summary>Writes the maps and the log's position, durable on return, and gives back segments that hold nothing live.</summary>
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.NoSpace"/>: nothing changed, call again later.
    /// <see cref="VolumeErrorKind.ReadOnly"/>, <see cref="VolumeErrorKind.Faulted"/>.</exception>
    public void Checkpoint()
    {
        RequireChange(0, 0);
        lock (_maintaining)
        {
            CheckpointWhileMaintaining();
        }
    }

    /// <summary>Cleans until no segment but the last holds anything dead: the folder shrinks to what the volume and its snapshots need.
    /// Reads and writes go on meanwhile.</summary>
    /// <param name="progress">Told the slots dealt with so far, and in all.</param>
    /// <param name="cancellationToken">Ends it after the segments in work; nothing is lost.</param>
    /// <exception cref="VolumeException">As <see cref="Checkpoint"/>.</exception>
    public void Compact(IProgress<VolumeProgress>? progress, CancellationToken cancellationToken)
    {
        RequireChange(0, 0);
        lock (_maintaining)
        lock (_gate)
        {
            RequireNotFaulted();
            if (_lastTakesSlots)
            {
                // The last segment is cleaned like the others, and what follows begins a new one.
                AbandonRestOf(_last!);
            }
        }

        long done = 0, total = 0;
        for (var last = uint.MaxValue; ;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            lock (_maintaining)
            {
                var usage = SegmentUsage.Of(MapsNow());
                var victims = Victims(usage, maximumLiveShare: 1, wanted: 4L * _header.SegmentSlots, newest: Math.Min(last, NewestFullSegment()));
                if (victims.Count == 0)
                {
                    CheckpointWhileMaintaining();
                    DeleteSpares();
                    break;
                }

                // What cleaning itself appends is dense: segments newer than the first pass saw need no second look.
                last = last == uint.MaxValue ? NewestFullSegment() : last;
                total = Math.Max(total, _log.StoredSlots);
                Clean(usage, victims, cancellationToken);
                done += victims.Sum(segment => (long)segment.Count);
                progress?.Report(new VolumeProgress(Math.Min(done, total) * BlockSize, total * BlockSize));
            }
        }

        progress?.Report(new VolumeProgress(total * BlockSize, total * BlockSize));
    }

    /// <summary>Called by whoever wrote, without the gate: starts maintenance that is due, and waits for it when cleaning is far behind.</summary>
    private void MaintainIfDue()
    {
        if (!_maintenanceDue)
        {
            return;
        }

        if (!_options.BackgroundMaintenance || IsCleaningFarBehind())
        {
            Maintain();
        }
        else if (Interlocked.Exchange(ref _maintenanceQueued, 1) == 0)
        {
            ThreadPool.UnsafeQueueUserWorkItem(static volume => volume.MaintainQueued(), this, preferLocal: false);
        }
    }

    private void MaintainQueued()
    {
        Volatile.Write(ref _maintenanceQueued, 0);
        while (_maintenanceDue && !_closing)
        {
            Maintain();
        }
    }

    /// <summary>One step of what is due. Failures fault the volume, which says so at the next change; a full disk only delays.</summary>
    private void Maintain()
    {
        lock (_maintaining)
        {
            if (!_maintenanceDue || _disposed || _fault is not null)
            {
                _maintenanceDue = false;
                return;
            }

            try
            {
                if (IsCheckpointDue())
                {
                    CheckpointWhileMaintaining();
                }

                if (IsCleaningDue())
                {
                    CleanSome();
                }
            }
            catch (VolumeException e) when (e.Kind is VolumeErrorKind.NoSpace or VolumeErrorKind.Faulted)
            {
                // Full: tried again once another segment was written. Faulted: kept for the next change.
                _bytesSinceCheckpoint = 0;
                _nextPassAt = _appendedSlots + _header.SegmentSlots;
            }

            lock (_gate)
            {
                NoteWhetherMaintenanceIsDue();
            }
        }
    }

    // Under the gate.
    private void NoteWhetherMaintenanceIsDue() => _maintenanceDue = IsCheckpointDue() || IsCleaningDue();

    private bool IsCheckpointDue() =>
        _bytesSinceCheckpoint >= Math.Max(_options.CheckpointInterval, Math.Max(_log.CheckpointBytes, 0) * CheckpointShare);

    private bool IsCleaningDue()
    {
        var live = LiveSlotsEstimate();
        return _appendedSlots >= _nextPassAt && _log.StoredSlots - live > Math.Max(live * CleaningShare / 100, 2L * _header.SegmentSlots);
    }

    private bool IsCleaningFarBehind()
    {
        var live = LiveSlotsEstimate();
        return _appendedSlots >= _nextPassAt && _log.StoredSlots - live > Math.Max(live * WaitingShare / 100, 4L * _header.SegmentSlots);
    }

    /// <summary>At most what the maps need: snapshots may have come to need slots alone since the last pass.</summary>
    private long LiveSlotsEstimate() => _liveSlotsAtPass + _log.Map.LiveBlocks - _liveBlocksAtPass;

    private List<BlockMap> MapsNow()
    {
        lock (_gate)
        {
            return [.. _log.Maps];
        }
    }

    private void CleanSome()
    {
        var usage = SegmentUsage.Of(MapsNow());
        NotePass(usage);
        if (!IsCleaningDue())
        {
            // Snapshots need more than was estimated: no new pass before enough was written to make a difference.
            _nextPassAt = _appendedSlots + Math.Max(2L * _header.SegmentSlots, _log.StoredSlots / 32);
            return;
        }

        // Each round ends in a checkpoint, which costs a part of what is live; it must pay.
        var wanted = Math.Max(2L * _header.SegmentSlots, _log.StoredSlots / 50);
        var victims = Victims(usage, maximumLiveShare: 0.95, wanted, NewestFullSegment());
        if (victims.Count == 0)
        {
            _nextPassAt = _appendedSlots + (2L * _header.SegmentSlots);
            return;
        }

        Clean(usage, victims, CancellationToken.None);
    }

    private void NotePass(SegmentUsage usage)
    {
        _liveSlotsAtPass = usage.TotalLiveSlots();
        _liveBlocksAtPass = _log.Map.LiveBlocks;
    }

    private uint NewestFullSegment()
    {
        lock (_gate)
        {
            return _lastTakesSlots ? _log.Tail.Sequence - 1 : _log.Tail.Sequence;
        }
    }

    /// <summary>The segments whose cleaning gives most space back for what is copied, until <paramref name="wanted"/> dead slots.</summary>
    private List<Segment> Victims(SegmentUsage usage, double maximumLiveShare, long wanted, uint newest)
    {
        List<Segment> segments;
        lock (_gate)
        {
            segments = [.. _log.Segments.Where(segment => segment.Sequence <= newest && segment.Damage is null)];
        }

        var victims = new List<Segment>();
        var candidates = segments
            .Select(segment => (Segment: segment, Live: usage.LiveSlots(segment.Index)))
            .Where(candidate => candidate.Live < candidate.Segment.Count && candidate.Live <= maximumLiveShare * candidate.Segment.Capacity)
            .OrderByDescending(candidate =>
            {
                var live = (double)candidate.Live / candidate.Segment.Capacity;
                return (1 - live) / (1 + live) * (newest - candidate.Segment.Sequence + 1);
            });
        foreach (var (segment, live) in candidates)
        {
            if (wanted <= 0)
            {
                break;
            }

            victims.Add(segment);
            wanted -= segment.Count - live;
        }

        return victims;
    }

    /// <summary>Copies what is live out of the victims, in the order of blocks, and ends with the checkpoint that gives them back.</summary>
    private void Clean(SegmentUsage usage, List<Segment> victims, CancellationToken cancellationToken)
    {
        var copies = new SlotCopies(SlotsPerCopy);
        foreach (var (block, entry) in usage.EntriesIn(victims.Select(segment => segment.Index).ToHashSet()))
        {
            var segment = _log.SegmentOf(entry);
            if (segment.Damage is not null || !copies.TryAdd(segment, block, entry))
            {
                continue;
            }

            if (copies.Count == SlotsPerCopy)
            {
                AppendCopies(copies);
                if (cancellationToken.IsCancellationRequested || _closing)
                {
                    break;
                }
            }
        }

        AppendCopies(copies);
        CheckpointWhileMaintaining();
    }

    private void AppendCopies(SlotCopies copies)
    {
        try
        {
            lock (_gate)
            {
                RequireNotFaulted();
                for (var i = 0; i < copies.Count; i++)
                {
                    var (block, source, content) = copies[i];
                    if (_log.IsLive(block, source))
                    {
                        var place = new SlotPlace(_log.SegmentOf(source).Sequence, BlockMap.OrdinalOf(source));
                        AppendSlot(SlotKind.Copy, block, content.Span, sourceEntry: source, source: place);
                        _copiedSlots++;
                    }
                }

                WriteBatch();
            }
        }
        finally
        {
            copies.Clear();
        }
    }

    /// <summary>Freezes the maps for a moment, then writes them while changes go on.</summary>
    private void CheckpointWhileMaintaining()
    {
        LogState state;
        Segment? last;
        int lastCount;
        long bytesBefore;
        bool lastTakesSlots;
        lock (_gate)
        {
            RequireNotFaulted();
            (last, lastCount, lastTakesSlots, bytesBefore) = (_last, _last?.Count ?? 0, _lastTakesSlots, _bytesSinceCheckpoint);
            state = new LogState(
                _log.Tail, _log.Map.Freeze(_log.Map.Blocks), _log.Snapshots, _log.LastSnapshot, [.. _log.Segments.Select(segment => (segment, segment.Count))]);
        }

        var usage = SegmentUsage.Of(state.Maps);
        NotePass(usage);
        var needed = state.Segments.Where(segment => usage.LiveSlots(segment.Segment.Index) > 0 || (segment.Segment == last && lastTakesSlots)).ToArray();
        try
        {
            // A file tells a failed sync to one caller only, so a flush must not sync the same file meanwhile.
            lock (_flushing)
            {
                if (last is not null && last.Flushed < lastCount)
                {
                    last.File.SyncData();
                    last.Flushed = Math.Max(last.Flushed, lastCount);
                }
            }

            var bytes = CheckpointFile.Write(_log, _log.Checkpoint + 1, state with { Segments = needed }, usage);
            var previous = _log.Checkpoint;
            lock (_gate)
            {
                _log.CheckpointBytes = bytes;
                _log.Checkpoint++;
                _log.CheckpointTail = state.Tail;
                _bytesSinceCheckpoint -= bytesBefore;
                _checkpointBytes += bytes;
                _checkpoints++;
            }

            if (previous != 0)
            {
                _log.Storage.Delete(VolumeFiles.Checkpoint(previous));
            }

            GiveBack([.. state.Segments.Except(needed).Select(segment => segment.Segment)]);
        }
        catch (VolumeException e) when (e.Kind is not VolumeErrorKind.NoSpace and not VolumeErrorKind.Faulted)
        {
            lock (_gate)
            {
                throw Fault(e);
            }
        }
    }

    /// <summary>Takes away segments that the durable checkpoint does not name. A few files are kept to be written over: that spares the
    /// file system the reservation, and a flush the commit of its journal.</summary>
    private void GiveBack(Segment[] dead)
    {
        foreach (var segment in dead)
        {
            lock (_gate)
            {
                _segmentsInUse.EnterWriteLock();
                try
                {
                    _log.Remove(segment);
                    _last = _last == segment ? null : _last;
                }
                finally
                {
                    _segmentsInUse.ExitWriteLock();
                }
            }

            var reusable = segment.Damage is null && _spares.Count < Math.Max(2, _log.StoredSlots / _header.SegmentSlots / 32)
                && segment.Capacity == _header.SegmentSlots && segment.File.Length == Segment.PositionOf(segment.Capacity)
                && !segment.File.IsLinked && !_closing;
            segment.Dispose();
            if (!reusable)
            {
                _log.Storage.Delete(segment.Name);
                continue;
            }

            var spare = VolumeFiles.Spare(segment.Sequence);
            _log.Storage.Rename(segment.Name, spare);
            lock (_gate)
            {
                _spares.Push(spare);
            }
        }
    }

    private void DeleteSpares()
    {
        lock (_gate)
        {
            while (_spares.TryPop(out var spare))
            {
                _log.Storage.Delete(spare);
            }
        }
    }

    /// <summary>After a full disk: gives back what is dead, or fails with what the disk said.</summary>
    private void MakeRoom(VolumeException cause)
    {
        lock (_maintaining)
        {
            if (_log.StoredSlots - LiveSlotsEstimate() < _header.SegmentSlots)
            {
                throw cause;
            }

            CheckpointWhileMaintaining();
        }
    }
}

/// <summary>How far a long operation is.</summary>
/// <param name="Done">Bytes dealt with.</param>
/// <param name="Total">Bytes in all.</param>
public readonly record struct VolumeProgress(long Done, long Total);
