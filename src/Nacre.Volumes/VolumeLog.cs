using Nacre.Volumes.Storage;

namespace Nacre.Volumes;

/// <summary>The state that the log's files describe: the map, the segments it points to, and where the log ends.</summary>
/// <remarks>Belongs to the holder of the volume's gate; <see cref="SegmentOf"/> and the map may be read beside it.</remarks>
internal sealed class VolumeLog(IVolumeStorage storage, VolumeKeys keys, uint blocks) : IDisposable
{
    private Segment?[] _segments = new Segment?[16];

    public IVolumeStorage Storage => storage;

    public VolumeKeys Keys => keys;

    public BlockMap Map { get; } = new(blocks);

    public LogTail Tail { get; set; }

    /// <summary>The number of the newest checkpoint; zero before the first.</summary>
    public uint Checkpoint { get; set; }

    /// <summary>Where the log ended when the newest checkpoint was taken.</summary>
    public LogTail CheckpointTail { get; set; }

    public long CheckpointBytes { get; set; }

    public long LiveBlocks { get; private set; }

    public long ReplayedSlots { get; set; }

    public IEnumerable<Segment> Segments => _segments.OfType<Segment>();

    public Segment SegmentOf(uint entry) => Volatile.Read(ref _segments)[BlockMap.SegmentIndexOf(entry)]!;

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
        Volatile.Write(ref _segments, segments);
    }

    public void Remove(Segment segment) => _segments[segment.Index] = null;

    /// <summary>Points a block at a slot.</summary>
    public void Place(uint block, Segment segment, int ordinal)
    {
        Replace(block, BlockMap.Entry(segment.Index, ordinal));
        segment.Live++;
        LiveBlocks++;
    }

    /// <summary>Makes blocks holes.</summary>
    public void Punch(uint block, uint count)
    {
        for (var end = block + count; block < end;)
        {
            var run = Map.RunLength(block, end - block, out var isHole);
            for (var last = block + run; !isHole && block < last; block++)
            {
                Replace(block, 0);
            }

            block += isHole ? run : 0;
        }
    }

    public void Dispose()
    {
        foreach (var segment in Segments)
        {
            segment.Dispose();
        }

        keys.Dispose();
    }

    private void Replace(uint block, uint entry)
    {
        var old = Map.Exchange(block, entry);
        if (old != 0)
        {
            SegmentOf(old).Live--;
            LiveBlocks--;
        }
    }
}
