namespace Nacre.Volumes;

/// <summary>
/// A block device: a fixed number of bytes, read and written at byte offsets.
/// </summary>
/// <remarks>
/// <para>Every member may be called from several threads at once. Overlapping requests in flight at the same time have no order.</para>
/// <para>Offsets and lengths are bytes and need no alignment; whole aligned blocks of <see cref="BlockSize"/> are fast.</para>
/// <para>A request that lies outside [0, <see cref="Size"/>) fails with <see cref="VolumeErrorKind.OutOfRange"/>; a change to a
/// read-only device with <see cref="VolumeErrorKind.ReadOnly"/>. All errors are <see cref="VolumeException"/>.</para>
/// <para>Calls that can be answered from memory or the local disk complete synchronously: a caller may test
/// <see cref="ValueTask.IsCompletedSuccessfully"/> and stay on its own thread.</para>
/// </remarks>
public interface IBlockDevice : IAsyncDisposable
{
    /// <summary>Bytes in a block: the unit of atomicity and the preferred size and alignment of requests.</summary>
    public const int BlockSize = 4096;

    /// <summary>The device's size in bytes, a multiple of <see cref="BlockSize"/>.</summary>
    long Size { get; }

    /// <summary>Whether changes are refused.</summary>
    bool IsReadOnly { get; }

    /// <summary>Fills <paramref name="destination"/> from <paramref name="offset"/>. Nothing unverified is ever returned: what cannot be
    /// fetched or authenticated fails, and never reads as zeroes.</summary>
    ValueTask ReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken);

    /// <summary>Writes <paramref name="source"/>. On return the bytes are in the kernel (a killed process loses nothing); they survive a
    /// power loss after <see cref="FlushAsync"/>, or on return where <paramref name="forceUnitAccess"/> is set.</summary>
    ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> source, bool forceUnitAccess, CancellationToken cancellationToken);

    /// <summary>Makes every write answered before this call durable.</summary>
    ValueTask FlushAsync(CancellationToken cancellationToken);

    /// <summary>Says that the range's content is no longer needed. Whole blocks inside it read as zeroes afterwards.</summary>
    ValueTask TrimAsync(long offset, long length, CancellationToken cancellationToken);

    /// <summary>Makes the range read as zeroes, with the durability of a write.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="keepAllocated">The space must stay allocated (NBD's no-hole). A device that allocates on every write may ignore it.</param>
    /// <param name="forceUnitAccess">Durable on return.</param>
    /// <param name="cancellationToken">Cancels the wait.</param>
    ValueTask WriteZeroesAsync(long offset, long length, bool keepAllocated, bool forceUnitAccess, CancellationToken cancellationToken);

    /// <summary>Describes a range as alternating extents, the first starting at <paramref name="offset"/>, together covering at least one
    /// byte and at most <paramref name="length"/>; at most as many as <paramref name="extents"/> holds.</summary>
    /// <returns>How many extents were written.</returns>
    int DescribeExtents(long offset, long length, Span<BlockExtent> extents);
}

/// <summary>A device to which several writes cost less together than one by one.</summary>
public interface IWriteTogether
{
    /// <summary>Makes the writes in their order, as <see cref="IBlockDevice.WriteAsync"/> does each, without force-unit-access.</summary>
    /// <exception cref="VolumeException">Any part of them may have been made.</exception>
    void WriteTogether(ReadOnlySpan<BlockWrite> writes);
}

/// <summary>A write: at which byte of the device, and what.</summary>
public readonly record struct BlockWrite(long Offset, ReadOnlyMemory<byte> Source);

/// <summary>A run of bytes that is either data, or a hole that reads as zeroes.</summary>
/// <param name="Length">Bytes in the run, positive.</param>
/// <param name="IsHole">True where nothing is stored and the run reads as zeroes.</param>
public readonly record struct BlockExtent(long Length, bool IsHole);
