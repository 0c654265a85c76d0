namespace Nacre.Volumes;

/// <summary>How a volume is created or opened. Immutable; checked once by the call that takes it.</summary>
public sealed record VolumeOptions
{
    /// <summary>The largest size of a volume in bytes (8 TiB): what the map's 32-bit places can address with room for dead slots.</summary>
    public const long MaximumSize = 8L << 40;

    /// <summary>The device's size in bytes, a positive multiple of <see cref="IBlockDevice.BlockSize"/> and at most
    /// <see cref="MaximumSize"/>. Used by creation only: an existing volume knows its size.</summary>
    public long Size { get; init; }

    /// <summary>Opens without changing any file; changes are refused. Several read-only openers may share a volume. Default false.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Flushes and checkpoints are not made durable: what was written survives a kill of the process, not a loss of power, after
    /// which the volume may not open. For content that is thrown away then anyway. Given at creation and at each opening. Default false.</summary>
    public bool Volatile { get; init; }

    /// <summary>Slots of 4128 bytes in a segment file, 1 to 8192. Used by creation only. Default 8192, about 32 MiB: large enough that
    /// creating a segment costs nothing beside writing it, small enough to clean.</summary>
    public int SegmentSlots { get; init; } = Segment.MaximumSlots;

    /// <summary>Bytes written between automatic checkpoints: bounds the replay after a crash. Default 256 MiB; a larger one is used while
    /// the map itself is so large that its copies would outweigh the data (a sixty-fourth).</summary>
    public long CheckpointInterval { get; init; } = 256L << 20;
}

/// <summary>Counts of an open volume, taken at one moment. Counters that grow start at zero when the volume is opened.</summary>
/// <param name="StoredBytes">Bytes of slots in the log's segments, dead ones included.</param>
/// <param name="LiveBlocks">Blocks of <see cref="IBlockDevice.BlockSize"/> bytes that hold data.</param>
/// <param name="Segments">Segment files.</param>
/// <param name="WrittenBytes">Bytes of data that callers wrote.</param>
/// <param name="AppendedBytes">Bytes appended to the log for them.</param>
/// <param name="Flushes">Flushes asked for, those of writes with force-unit-access included.</param>
/// <param name="DataSyncs">fdatasync calls made for flushes.</param>
/// <param name="Checkpoints">Checkpoints written.</param>
/// <param name="ReplayedSlots">Slots that the opening replayed: zero after a clean close.</param>
public readonly record struct VolumeStatistics(
    long StoredBytes, long LiveBlocks, int Segments, long WrittenBytes, long AppendedBytes, long Flushes, long DataSyncs, long Checkpoints,
    long ReplayedSlots);
