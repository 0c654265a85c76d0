namespace Nacre.Volumes;

/// <content>Checkpoints, reclaiming dead segments, and closing.</content>
public sealed partial class Volume
{
    /// <summary>Writes the map and the log's position, durable on return, and gives back segments that hold nothing live.</summary>
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.NoSpace"/>: nothing changed, call again later.
    /// <see cref="VolumeErrorKind.ReadOnly"/>, <see cref="VolumeErrorKind.Faulted"/>.</exception>
    public void Checkpoint()
    {
        RequireChange(0, 0);
        lock (_gate)
        {
            RequireNotFaulted();
            CheckpointUnderGate();
        }
    }

    /// <summary>Flushes, takes a checkpoint, cuts the unused rest off the last segment and releases the lock. An ephemeral volume's files
    /// are removed instead: nobody could read them.</summary>
    /// <exception cref="VolumeException">The flush failed and written data may be lost. Everything is released all the same. A volume that
    /// was faulted before, and said so, closes silently.</exception>
    public ValueTask DisposeAsync()
    {
        lock (_gate)
        {
            if (_disposed)
            {
                return ValueTask.CompletedTask;
            }

            _disposed = true;
            try
            {
                if (_ephemeral)
                {
                    RemoveFiles();
                }
                else if (!IsReadOnly && _fault is null)
                {
                    CloseCleanly();
                }
            }
            catch (VolumeException e)
            {
                return ValueTask.FromException(e);
            }
            finally
            {
                _log.Dispose();
                _lock.Dispose();
                _log.Storage.Dispose();
                _segmentsInUse.Dispose();
            }
        }

        return ValueTask.CompletedTask;
    }

    private void CloseCleanly()
    {
        if (_log.Tail == _log.CheckpointTail)
        {
            return;
        }

        if (_last is { } last && last.File.Length > Segment.PositionOf(last.Count))
        {
            try
            {
                last.File.Truncate(Segment.PositionOf(last.Count));
            }
            catch (VolumeException e)
            {
                throw Fault(e);
            }

            SyncUnderGate(last);
            last.Flushed = last.Count;
        }

        _lastTakesSlots = false;
        SealLast();
        TryCheckpointUnderGate();
    }

    private void RemoveFiles()
    {
        foreach (var name in _log.Storage.List())
        {
            _log.Storage.Delete(name);
        }
    }

    /// <summary>A checkpoint that only bounds the replay: on a full disk the log is complete without it.</summary>
    private void TryCheckpointUnderGate()
    {
        try
        {
            CheckpointUnderGate();
        }
        catch (VolumeException e) when (e.Kind == VolumeErrorKind.NoSpace)
        {
            _bytesSinceCheckpoint = 0;
        }
    }

    private void CheckpointUnderGate()
    {
        if (_ephemeral)
        {
            // Nobody recovers it, so what is dead is free at once.
            Reclaim();
            return;
        }

        SealLast();
        try
        {
            var previous = _log.Checkpoint;
            _log.CheckpointBytes = CheckpointFile.Write(_log, IsNeeded);
            _log.Checkpoint++;
            _log.CheckpointTail = _log.Tail;
            _bytesSinceCheckpoint = 0;
            _checkpoints++;
            if (previous != 0)
            {
                _log.Storage.Delete(VolumeFiles.Checkpoint(previous));
            }

            Reclaim();
        }
        catch (VolumeException e) when (e.Kind != VolumeErrorKind.NoSpace)
        {
            throw Fault(e);
        }
    }

    private bool IsNeeded(Segment segment) => segment.Live > 0 || (segment == _last && _lastTakesSlots);

    /// <summary>Deletes the segments that the durable checkpoint does not name.</summary>
    private void Reclaim()
    {
        foreach (var segment in _log.Segments.Where(segment => !IsNeeded(segment)).ToArray())
        {
            _segmentsInUse.EnterWriteLock();
            try
            {
                _log.Remove(segment);
            }
            finally
            {
                _segmentsInUse.ExitWriteLock();
            }

            _last = _last == segment ? null : _last;
            _log.Storage.Delete(segment.Name);
            segment.Dispose();
        }
    }
}
