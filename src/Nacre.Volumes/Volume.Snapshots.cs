using System.Buffers.Binary;
using System.Text;
using Nacre.Volumes.Storage;

namespace Nacre.Volumes;

/// <content>Snapshots, rolling back, forking, growing. None of them copies a block; all happen wholly or not at all, whenever the power fails, and are durable on
/// return but for <see cref="MarkSnapshot"/>.</content>
public sealed partial class Volume
{
    /// <summary>The snapshots, oldest first.</summary>
    public IReadOnlyList<VolumeSnapshot> Snapshots => [.. _log.Snapshots.Select(snapshot => snapshot.Info)];

    /// <summary>Keeps the state of this moment under a name, everything answered before included. Durable on return; costs one slot and one
    /// fdatasync whatever the size.</summary>
    /// <param name="name">1 to 128 bytes of UTF-8 without control characters, new in this volume.</param>
    /// <exception cref="ArgumentException">The name is outside its bounds.</exception>
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.Snapshot"/> if the name is taken; <see cref="VolumeErrorKind.NoSpace"/>,
    /// also beyond 4096 snapshots; <see cref="VolumeErrorKind.ReadOnly"/>, <see cref="VolumeErrorKind.Faulted"/>.</exception>
    public VolumeSnapshot TakeSnapshot(string name)
    {
        var taken = MarkSnapshot(name);
        Flush();
        MaintainIfDue();
        return taken;
    }

    /// <summary>As <see cref="TakeSnapshot"/>, without waiting for the disk: for a guest that stands still meanwhile. Durable with the next flush; before that, a loss of power
    /// leaves the snapshot out, or keeps it whole.</summary>
    /// <exception cref="ArgumentException">As <see cref="TakeSnapshot"/>.</exception>
    /// <exception cref="VolumeException">As <see cref="TakeSnapshot"/>.</exception>
    public VolumeSnapshot MarkSnapshot(string name)
    {
        RequireName(name);
        RequireChange(0, 0);
        lock (_gate)
        {
            RequireNotFaulted();
            if (_log.Snapshots.Any(snapshot => snapshot.Info.Name == name))
            {
                throw new VolumeException(VolumeErrorKind.Snapshot, $"the volume has a snapshot named {name} already");
            }

            if (_log.Snapshots.Count >= CheckpointFile.MaximumSnapshots)
            {
                throw new VolumeException(VolumeErrorKind.NoSpace, $"the volume has {CheckpointFile.MaximumSnapshots} snapshots, the most it can keep");
            }

            var id = checked(_log.LastSnapshot + 1);
            var time = DateTimeOffset.FromUnixTimeMilliseconds(_options.Clock.GetUtcNow().ToUnixTimeMilliseconds());
            var record = new byte[BlockSize];
            SnapshotRecord.Write(record, id, name, time, _log.Map.Blocks);
            AppendSlot(SlotKind.Snapshot, 0, record);
            WriteBatch();
            _log.TakeSnapshot(id, name, time, _log.Map.Blocks);
            return _log.Snapshots[^1].Info;
        }
    }

    /// <summary>Makes the volume what the snapshot holds; what was written since is given up (take a snapshot first to keep it). The
    /// snapshots stay, and so does the size. Nobody may have the device in use: a file system that is mounted would be confused.</summary>
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.Snapshot"/> if there is none of that name; else as
    /// <see cref="TakeSnapshot"/>.</exception>
    public void RollBack(string name)
    {
        RequireChange(0, 0);
        ChangeHistory(name, SlotKind.RollBack, snapshot => _log.RollBack(snapshot));
    }

    /// <summary>Gives up a snapshot; the space that only it needed comes back in the background.</summary>
    /// <exception cref="VolumeException">As <see cref="RollBack"/>.</exception>
    public void DeleteSnapshot(string name)
    {
        RequireChange(0, 0);
        ChangeHistory(name, SlotKind.DeleteSnapshot, snapshot => _log.DeleteSnapshot(snapshot));
    }

    /// <summary>A read-only view of a snapshot; it ends with this volume, and fails once the snapshot is deleted.</summary>
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.Snapshot"/> if there is none of that name.</exception>
    public IBlockDevice OpenSnapshot(string name)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        return new SnapshotDevice(this, Named(name));
    }

    /// <summary>Makes the volume larger; what is added reads as zeroes. Durable on return.</summary>
    /// <param name="size">Bytes: a multiple of <see cref="IBlockDevice.BlockSize"/>, at least the present size and at most
    /// <see cref="VolumeOptions.MaximumSize"/>.</param>
    /// <exception cref="ArgumentOutOfRangeException">The size is outside its bounds; a volume never shrinks.</exception>
    /// <exception cref="VolumeException">As <see cref="Checkpoint"/>.</exception>
    public void Resize(long size)
    {
        if (size < Size || size > VolumeOptions.MaximumSize || size % BlockSize != 0)
        {
            throw new ArgumentOutOfRangeException(
                nameof(size), size, $"the new size must be a multiple of {BlockSize}, from the present {Size} to {VolumeOptions.MaximumSize} bytes");
        }

        RequireChange(0, 0);
        lock (_gate)
        {
            RequireNotFaulted();
            var header = _header.Copy();
            header.Resize(size);
            WriteHeader(header);
            _log.Map.Grow((uint)(size / BlockSize));
            _header = header;
        }
    }

    /// <summary>Makes a new volume that begins as this one is now, or as a snapshot was, and goes its own way from there. On one file system
    /// the two share the segments so far; else those are copied. The new volume has a key of its own and no snapshots.</summary>
    /// <param name="directory">The new volume's folder; created if it is missing, must hold no volume.</param>
    /// <param name="slotKey">32 bytes that will open it; not kept.</param>
    /// <param name="snapshot">A snapshot's name, or null for the present state.</param>
    /// <param name="progress">Told the bytes of segments dealt with.</param>
    /// <param name="cancellationToken">Ends it; nothing is left behind.</param>
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.Snapshot"/>, <see cref="VolumeErrorKind.Corrupt"/> if the folder is not
    /// empty; else as <see cref="Create(string, VolumeOptions, ReadOnlySpan{byte})"/>.</exception>
    public void Fork(
        string directory, ReadOnlySpan<byte> slotKey, string? snapshot = null, IProgress<VolumeProgress>? progress = null,
        CancellationToken cancellationToken = default)
    {
        RequireKey(slotKey);
        Fork(DirectoryStorage.CreateFolder(directory), slotKey, snapshot, progress, cancellationToken);
    }

    /// <summary>Forks into <paramref name="target"/>, which it owns.</summary>
    internal void Fork(
        IVolumeStorage target, ReadOnlySpan<byte> slotKey, string? snapshot, IProgress<VolumeProgress>? progress,
        CancellationToken cancellationToken)
    {
        using (target)
        using (target.Lock(VolumeFiles.Lock, shared: false))
        {
            RequireEmpty(target);
            try
            {
                RequireChange(0, 0);
                lock (_maintaining)
                {
                    var (map, tail) = Forked(snapshot);
                    WriteFork(target, slotKey, map, tail, progress, cancellationToken);
                }
            }
            catch
            {
                foreach (var name in target.List())
                {
                    target.Delete(name);
                }

                throw;
            }
        }
    }

    /// <summary>What a fork begins as, and where the shared files end: they get no slot any more, from either side.</summary>
    private (BlockMap Map, LogTail Tail) Forked(string? snapshot)
    {
        lock (_gate)
        {
            RequireNotFaulted();
            var map = snapshot is null ? _log.Map.Freeze(_log.Map.Blocks) : Named(snapshot).Map;
            SealLast();
            _lastTakesSlots = false;
            return (map, _log.Tail);
        }
    }

    private void WriteFork(
        IVolumeStorage target, ReadOnlySpan<byte> slotKey, BlockMap map, LogTail tail, IProgress<VolumeProgress>? progress,
        CancellationToken cancellationToken)
    {
        var usage = SegmentUsage.Of([map]);
        var segments = _log.Segments.Where(segment => usage.LiveSlots(segment.Index) > 0).ToArray();
        var header = VolumeHeader.New((long)map.Blocks * BlockSize, _header.SegmentSlots);
        var master = VolumeKeys.NewKeyBuffer();
        System.Security.Cryptography.RandomNumberGenerator.Fill(master);
        using var fork = new VolumeLog(target, new VolumeKeys(header.VolumeId, master), map.Blocks);
        header.AddKeySlot(fork.Keys, slotKey);
        var total = segments.Sum(segment => segment.Count * (long)Segment.SlotSize);
        var done = 0L;
        foreach (var segment in segments)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (!_log.Storage.TryLink(segment.Name, target))
            {
                CopySegment(segment, target, cancellationToken);
            }

            var shared = Segment.Open(target, fork.Keys, segment.Sequence, writable: false, segment.ShareKey());
            shared.Count = segment.Count;
            fork.AddAt(segment.Index, shared);
            done += segment.Count * (long)Segment.SlotSize;
            progress?.Report(new VolumeProgress(done, total));
        }

        // The fork's own log begins with a segment that its checkpoint names as the end: nothing before it is ever replayed.
        var first = Segment.Create(target, fork.Keys, tail, _header.SegmentSlots);
        fork.Add(first);
        fork.Tail = first.End;
        var state = new LogState(fork.Tail, map, [], 0, [.. fork.Segments.Select(segment => (segment, segment.Count))]);
        CheckpointFile.Write(fork, 1, state, usage);
        header.Write(target, fork.Keys);
    }

    private static void CopySegment(Segment segment, IVolumeStorage target, CancellationToken cancellationToken)
    {
        using var copy = target.Create(segment.Name);
        var buffer = new byte[SlotsPerRead * Segment.SlotSize];
        for (long at = 0, end = Segment.PositionOf(segment.Count); at < end; at += buffer.Length)
        {
            cancellationToken.ThrowIfCancellationRequested();
            var part = buffer.AsSpan(0, (int)Math.Min(buffer.Length, end - at));
            if (segment.File.Read(at, part) < part.Length)
            {
                throw new VolumeException(VolumeErrorKind.Truncated, $"{segment.Name} ends before its {segment.Count} slots");
            }

            copy.Write(at, part);
        }

        copy.SyncData();
    }

    private void ChangeHistory(string name, SlotKind kind, Action<SnapshotState> apply)
    {
        lock (_gate)
        {
            RequireNotFaulted();
            var snapshot = Named(name);
            Span<byte> record = stackalloc byte[4];
            BinaryPrimitives.WriteUInt32LittleEndian(record, snapshot.Info.Id);
            AppendSlot(kind, 0, record);
            WriteBatch();
            apply(snapshot);
            _nextPassAt = 0;
            NoteWhetherMaintenanceIsDue();
        }

        Flush();
        MaintainIfDue();
    }

    private SnapshotState Named(string name) =>
        _log.Snapshots.FirstOrDefault(snapshot => snapshot.Info.Name == name)
        ?? throw new VolumeException(VolumeErrorKind.Snapshot, $"the volume has no snapshot named {name}");

    private static void RequireName(string name)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        if (Encoding.UTF8.GetByteCount(name) > CheckpointFile.MaximumNameBytes || name.Any(char.IsControl))
        {
            throw new ArgumentException($"a snapshot's name has 1 to {CheckpointFile.MaximumNameBytes} bytes and no control characters", nameof(name));
        }
    }

    /// <summary>A snapshot as a device.</summary>
    private sealed class SnapshotDevice(Volume volume, SnapshotState snapshot) : IBlockDevice
    {
        public long Size => snapshot.Info.Size;

        public bool IsReadOnly => true;

        public ValueTask ReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken)
        {
            try
            {
                cancellationToken.ThrowIfCancellationRequested();
                RequireRange(offset, destination.Length);
                volume.Read(snapshot, offset, destination.Span);
                return ValueTask.CompletedTask;
            }
            catch (Exception e) when (e is VolumeException or OperationCanceledException)
            {
                return ValueTask.FromException(e);
            }
        }

        public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> source, bool forceUnitAccess, CancellationToken cancellationToken) => Refused();

        public ValueTask FlushAsync(CancellationToken cancellationToken) => ValueTask.CompletedTask;

        public ValueTask TrimAsync(long offset, long length, CancellationToken cancellationToken) => Refused();

        public ValueTask WriteZeroesAsync(
            long offset, long length, bool keepAllocated, bool forceUnitAccess, CancellationToken cancellationToken) => Refused();

        public int DescribeExtents(long offset, long length, Span<BlockExtent> extents)
        {
            RequireRange(offset, length);
            return Volume.DescribeExtents(snapshot.Map, offset, length, extents);
        }

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;

        private static ValueTask Refused() =>
            ValueTask.FromException(new VolumeException(VolumeErrorKind.ReadOnly, "a snapshot does not change"));

        private void RequireRange(long offset, long length)
        {
            ObjectDisposedException.ThrowIf(volume._disposed, volume);
            if (offset < 0 || length < 0 || offset > Size || length > Size - offset)
            {
                throw new VolumeException(VolumeErrorKind.OutOfRange, $"{length} bytes from {offset} on lie outside the snapshot of {Size} bytes");
            }
        }
    }
}
