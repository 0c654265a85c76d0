namespace Nacre.Volumes.Releases;

/// <summary>One artifact of a release as a read-only block device, fetched as it is read.</summary>
public sealed class ReleaseVolume : IBlockDevice
{
    private readonly ReleaseReader reader;
    private readonly ReleaseChunk[] chunks;

    /// <summary>Opens an artifact; the reader outlives it.</summary>
    public ReleaseVolume(ReleaseReader reader, string artifact)
    {
        this.reader = reader;
        chunks = [.. reader.Index[artifact].Chunks];
        Size = chunks.Length == 0 ? 0 : chunks[^1].Start + chunks[^1].Length;
    }

    /// <inheritdoc/>
    public long Size { get; }

    /// <inheritdoc/>
    public bool IsReadOnly => true;

    /// <inheritdoc/>
    public async ValueTask ReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken)
    {
        Check(offset, destination.Length);
        for (var index = Find(offset); destination.Length > 0; index++)
        {
            var chunk = chunks[index];
            var skip = (int)(offset - chunk.Start);
            var count = Math.Min(destination.Length, chunk.Length - skip);
            if (chunk.Segment < 0)
            {
                destination.Span[..count].Clear();
            }
            else
            {
                var plain = await reader.ReadChunkAsync(chunk, cancellationToken).ConfigureAwait(false);
                plain.AsSpan(skip, count).CopyTo(destination.Span);
            }

            destination = destination[count..];
            offset += count;
        }
    }

    /// <inheritdoc/>
    public int DescribeExtents(long offset, long length, Span<BlockExtent> extents)
    {
        Check(offset, length);
        var count = 0;
        var end = offset + length;
        for (var index = Find(offset); offset < end && index < chunks.Length; index++)
        {
            var hole = chunks[index].Segment < 0;
            var part = Math.Min(end, chunks[index].Start + chunks[index].Length) - offset;
            if (count > 0 && extents[count - 1].IsHole == hole)
            {
                extents[count - 1] = new BlockExtent(extents[count - 1].Length + part, hole);
            }
            else if (count == extents.Length)
            {
                break;
            }
            else
            {
                extents[count++] = new BlockExtent(part, hole);
            }

            offset += part;
        }

        return count;
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> source, bool forceUnitAccess, CancellationToken cancellationToken) => throw ReadOnly();

    /// <inheritdoc/>
    public ValueTask TrimAsync(long offset, long length, CancellationToken cancellationToken) => throw ReadOnly();

    /// <inheritdoc/>
    public ValueTask WriteZeroesAsync(long offset, long length, bool keepAllocated, bool forceUnitAccess, CancellationToken cancellationToken) => throw ReadOnly();

    /// <inheritdoc/>
    public ValueTask FlushAsync(CancellationToken cancellationToken) => ValueTask.CompletedTask;

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private static VolumeException ReadOnly() => new(VolumeErrorKind.ReadOnly, "a release never changes");

    private void Check(long offset, long length)
    {
        if (offset < 0 || length < 0 || offset > Size - length)
        {
            throw new VolumeException(VolumeErrorKind.OutOfRange, $"bytes {offset} to {offset + length} of {Size}");
        }
    }

    private int Find(long offset)
    {
        var (low, high) = (0, chunks.Length - 1);
        while (low < high)
        {
            var middle = (low + high + 1) / 2;
            (low, high) = chunks[middle].Start <= offset ? (middle, high) : (low, middle - 1);
        }

        return low;
    }
}
