namespace Nacre.Volumes;

/// <summary>Counts of an open volume, taken at one moment. Counters that grow start at zero when the volume is opened.</summary>
/// <param name="StoredBytes">Bytes of slots in the log's segments, dead ones included.</param>
/// <param name="LiveBlocks">Blocks of <see cref="IBlockDevice.BlockSize"/> bytes that hold data now; snapshots not counted.</param>
/// <param name="Segments">Segment files.</param>
/// <param name="Snapshots">Snapshots kept.</param>
/// <param name="WrittenBytes">Bytes of data that callers wrote.</param>
/// <param name="AppendedBytes">Bytes appended to the log, for them and for cleaning.</param>
/// <param name="CopiedBytes">The part of <paramref name="AppendedBytes"/> that cleaning moved.</param>
/// <param name="CheckpointBytes">Bytes of checkpoints written.</param>
/// <param name="Flushes">Flushes asked for, those of writes with force-unit-access included.</param>
/// <param name="DataSyncs">fdatasync calls made for flushes.</param>
/// <param name="Checkpoints">Checkpoints written.</param>
/// <param name="ReplayedSlots">Slots that the opening replayed: zero after a clean close.</param>
public readonly record struct VolumeStatistics(
    long StoredBytes, long LiveBlocks, int Segments, int Snapshots, long WrittenBytes, long AppendedBytes, long CopiedBytes, long CheckpointBytes,
    long Flushes, long DataSyncs, long Checkpoints, long ReplayedSlots);
