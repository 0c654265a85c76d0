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

    /// <summary>Whether checkpoints and cleaning run by themselves, on a thread of the pool beside reads and writes. Default true; tests
    /// that repeat an order of events turn it off, and everything then runs inside the write that made it due.</summary>
    public bool BackgroundMaintenance { get; init; } = true;

    /// <summary>The clock that dates snapshots. Default the system's.</summary>
    public TimeProvider Clock { get; init; } = TimeProvider.System;

    /// <summary>The newest state that somebody outside knows of: opening anything older fails with <see cref="VolumeErrorKind.Outdated"/>.
    /// Default none.</summary>
    public VolumeAnchor? Anchor { get; init; }

    /// <summary>Opens for reading although segments are damaged or missing, so that what is left can be copied; reading what is lost fails.
    /// Implies <see cref="ReadOnly"/>. Default false.</summary>
    public bool Tolerant { get; init; }
}

/// <summary>How far a volume's log had durably grown: kept outside the volume (by a server, a TPM), it tells an older copy from the newest
/// state.</summary>
/// <param name="VolumeId">Which volume.</param>
/// <param name="Position">A number that grows with every change, without unit.</param>
public readonly record struct VolumeAnchor(Guid VolumeId, long Position);
