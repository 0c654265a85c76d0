using Nacre.Images.FileSystems;
using Nacre.Volumes;

namespace Nacre.Cli;

/// <summary>A damaged device as far as it can be read: blocks that can't be are zeroes, and remembered. Read-only.</summary>
internal sealed class RescuedDevice(IBlockDevice inner) : IBlockDevice
{
    private readonly Lock gate = new();
    private readonly SortedSet<long> lost = [];

    /// <summary>What was asked for and could not be read, by whole blocks.</summary>
    public IReadOnlyList<ByteRange> Lost
    {
        get
        {
            lock (gate)
            {
                var ranges = new List<ByteRange>();
                foreach (var block in lost)
                {
                    if (ranges.Count > 0 && ranges[^1].Offset + ranges[^1].Length == block)
                    {
                        ranges[^1] = ranges[^1] with { Length = ranges[^1].Length + IBlockDevice.BlockSize };
                    }
                    else
                    {
                        ranges.Add(new ByteRange(block, IBlockDevice.BlockSize));
                    }
                }

                return ranges;
            }
        }
    }

    public long Size => inner.Size;

    public bool IsReadOnly => true;

    public async ValueTask ReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken)
    {
        try
        {
            await inner.ReadAsync(offset, destination, cancellationToken).ConfigureAwait(false);
            return;
        }
        catch (VolumeException exception) when (IsDamage(exception))
        {
            // Block by block then.
        }

        for (var done = 0; done < destination.Length;)
        {
            var at = offset + done;
            var part = destination.Slice(done, (int)Math.Min(destination.Length - done, IBlockDevice.BlockSize - (at % IBlockDevice.BlockSize)));
            try
            {
                await inner.ReadAsync(at, part, cancellationToken).ConfigureAwait(false);
            }
            catch (VolumeException exception) when (IsDamage(exception))
            {
                part.Span.Clear();
                lock (gate)
                {
                    lost.Add(at - (at % IBlockDevice.BlockSize));
                }
            }

            done += part.Length;
        }
    }

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> source, bool forceUnitAccess, CancellationToken cancellationToken) => Refused();

    public ValueTask FlushAsync(CancellationToken cancellationToken) => ValueTask.CompletedTask;

    public ValueTask TrimAsync(long offset, long length, CancellationToken cancellationToken) => Refused();

    public ValueTask WriteZeroesAsync(long offset, long length, bool keepAllocated, bool forceUnitAccess, CancellationToken cancellationToken) => Refused();

    public int DescribeExtents(long offset, long length, Span<BlockExtent> extents) => inner.DescribeExtents(offset, length, extents);

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private static bool IsDamage(VolumeException exception) =>
        exception.Kind is VolumeErrorKind.NotAuthentic or VolumeErrorKind.Truncated or VolumeErrorKind.Corrupt or VolumeErrorKind.Io;

    private static ValueTask Refused() => ValueTask.FromException(new VolumeException(VolumeErrorKind.ReadOnly, "a rescued volume does not change"));
}
