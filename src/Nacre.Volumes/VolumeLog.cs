using Nacre.Volumes.Storage;

namespace Nacre.Volumes;

/// <summary>The state that the log's files describe: the map, the snapshots, the segments they point to, and where the log ends.</summary>
/// <remarks>Belongs to the holder of the volume's gate; <see cref="SegmentOf"/> and the maps may be read beside it.</remarks>
internal sealed class VolumeLog(IVolumeStorage storage, VolumeKeys keys, uint blocks) : IDisposable
{
    private Segment?[] _segments = new Segment?[16];
    private readonly Dictionary<uint, Segment> _bySequence = [];
    private BlockMap _map = new(blocks);

    public IVolumeStorage Storage => storage;

    public VolumeKeys Keys => keys;

    /// <summary>What the volume holds now.</summary>
    public BlockMap Map
    {
        get => Volatile.Read(ref _map);
        set => Volatile.Write(ref _map, value);
    }

    /// <summary>The snapshots in the order in which they were taken. Replaced, never changed.</summary>
    public IReadOnlyList<SnapshotState> Snapshots { get; set; } = [];

    /// <summary>The number of the newest snapshot ever taken.</summary>
    public uint LastSnapshot { get; set; }

    public LogTail Tail { get; set; }

    /// <summary>The number of the newest checkpoint; zero before the first.</summary>
    public uint Checkpoint { get; set; }

    /// <summary>Where the log ended when the newest checkpoint was taken.</summary>
    public LogTail CheckpointTail { get; set; }

    public long CheckpointBytes { get; set; }

    /// <summary>Slots of all segments, dead ones included.</summary>
    public long StoredSlots { get; set; }

    public long ReplayedSlots { get; set; }

    /// <summary>What could not be loaded, where the opener asked to go on all the same.</summary>
    public List<VolumeException> Damages { get; } = [];

    public IEnumerable<Segment> Segments => _segments.OfType<Segment>();

    /// <summary>The current map and those of the snapshots.</summary>
    public IEnumerable<BlockMap> Maps => Snapshots.Select(snapshot => snapshot.Map).Prepend(Map);

    public Segment SegmentOf(uint entry) => Volatile.Read(ref _segments)[BlockMap.SegmentIndexOf(entry)]!;

    public Segment? SegmentNumbered(uint sequence) => _bySequence.GetValueOrDefault(sequence);

    public Segment? SegmentAt(uint index) => index < _segments.Length ? _segments[index] : null;

    /// <summary>Gives the segment the lowest free index; zero stays unused so that no entry of a segment equals a hole.</summary>
    public void Add(Segment segment)
    {
        var index = 1;
        while (index < _segments.Length && _segments[index] is not null)
        {
            index++;
        }

        AddAt((uint)index, segment);
    }

    public void AddAt(uint index, Segment segment)
    {
        var segments = _segments;
        if (index >= segments.Length)
        {
            Array.Resize(ref segments, Math.Max(segments.Length * 2, (int)index + 1));
        }

        segment.Index = index;
        segments[index] = segment;
        _bySequence[segment.Sequence] = segment;
        Volatile.Write(ref _segments, segments);
    }

    public void Remove(Segment segment)
    {
        _segments[segment.Index] = null;
        _bySequence.Remove(segment.Sequence);
        StoredSlots -= segment.Count;
    }

    /// <summary>Points a block at a slot.</summary>
    public void Place(uint block, Segment segment, int ordinal) => _map.Set(block, BlockMap.Entry(segment.Index, ordinal));

    /// <summary>Makes blocks holes.</summary>
    public void Punch(uint block, uint count)
    {
        if (block == 0 && count == _map.Blocks)
        {
            _map.Clear();
            return;
        }

        for (var end = block + count; block < end;)
        {
            var run = _map.RunLength(block, end - block, out var isHole);
            for (var last = block + run; !isHole && block < last; block++)
            {
                _map.Set(block, 0);
            }

            block += isHole ? run : 0;
        }
    }

    /// <summary>Points every map that has <paramref name="source"/> for the block at its copy; false if none has.</summary>
    public bool Move(uint block, uint source, uint target)
    {
        var moved = _map.TryMove(block, source, target);
        foreach (var snapshot in Snapshots)
        {
            moved |= snapshot.Map.TryMove(block, source, target);
        }

        return moved;
    }

    /// <summary>Whether any map has <paramref name="source"/> for the block.</summary>
    public bool IsLive(uint block, uint source)
    {
        if (block < _map.Blocks && _map[block] == source)
        {
            return true;
        }

        foreach (var snapshot in Snapshots)
        {
            if (block < snapshot.Map.Blocks && snapshot.Map[block] == source)
            {
                return true;
            }
        }

        return false;
    }

    public void TakeSnapshot(uint id, string name, DateTimeOffset taken, uint mapBlocks)
    {
        var map = _map.Freeze(mapBlocks);
        var size = (long)map.Blocks * IBlockDevice.BlockSize;
        Snapshots = [.. Snapshots, new SnapshotState(new VolumeSnapshot(id, name, taken, size, map.LiveBlocks), map)];
        LastSnapshot = id;
    }

    public void RollBack(SnapshotState snapshot) => Map = snapshot.Map.Thaw(_map.Blocks);

    public void DeleteSnapshot(SnapshotState snapshot) => Snapshots = [.. Snapshots.Where(other => other != snapshot)];

    public void Dispose()
    {
        foreach (var segment in Segments)
        {
            segment.Dispose();
        }

        keys.Dispose();
    }
}

/// <summary>A snapshot and its frozen map.</summary>
internal sealed record SnapshotState(VolumeSnapshot Info, BlockMap Map);
