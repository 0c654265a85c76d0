namespace Nacre.Volumes;

/// <content>Closing.</content>
public sealed partial class Volume
{
    private bool _removeAtClose;

    /// <summary>Flushes, takes a checkpoint, cuts the unused rest off the last segment and releases the lock. Waits for maintenance in
    /// progress.</summary>
    /// <exception cref="VolumeException">The flush failed and written data may be lost. Everything is released all the same. A volume that
    /// was faulted before, and said so, closes silently.</exception>
    public ValueTask DisposeAsync()
    {
        _closing = true;
        lock (_maintaining)
        lock (_flushing)
        lock (_gate)
        {
            if (_disposed)
            {
                return ValueTask.CompletedTask;
            }

            _disposed = true;
            try
            {
                if (_removeAtClose)
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

    private void RemoveFiles()
    {
        foreach (var name in _log.Storage.List())
        {
            _log.Storage.Delete(name);
        }
    }

    private void CloseCleanly()
    {
        while (_spares.TryPop(out var spare))
        {
            _log.Storage.Delete(spare);
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

        if (_log.Tail == _log.CheckpointTail)
        {
            return;
        }

        _lastTakesSlots = false;
        SealLast();
        try
        {
            CheckpointWhileMaintaining();
        }
        catch (VolumeException e) when (e.Kind == VolumeErrorKind.NoSpace)
        {
            // The checkpoint only bounds the replay: the log is complete without it.
        }
    }
}
