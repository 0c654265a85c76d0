using Microsoft.Win32.SafeHandles;
using Nacre.Volumes;

namespace Nacre.Player.BootTests;

/// <summary>A file of a built image as a disk that is only read; zeroes fill its last block.</summary>
internal sealed class ImageDevice(string path) : IBlockDevice
{
    private readonly SafeFileHandle file = File.OpenHandle(path);

    /// <inheritdoc/>
    public long Size { get; } = (new FileInfo(path).Length + IBlockDevice.BlockSize - 1) / IBlockDevice.BlockSize * IBlockDevice.BlockSize;

    /// <inheritdoc/>
    public bool IsReadOnly => true;

    /// <inheritdoc/>
    public async ValueTask ReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken)
    {
        Check(offset, destination.Length);
        while (destination.Length > 0)
        {
            var count = await RandomAccess.ReadAsync(file, destination, offset, cancellationToken).ConfigureAwait(false);
            if (count == 0)
            {
                destination.Span.Clear();
                return;
            }

            destination = destination[count..];
            offset += count;
        }
    }

    /// <inheritdoc/>
    public int DescribeExtents(long offset, long length, Span<BlockExtent> extents)
    {
        Check(offset, length);
        extents[0] = new BlockExtent(length, IsHole: false);
        return 1;
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
    public ValueTask DisposeAsync()
    {
        file.Dispose();
        return ValueTask.CompletedTask;
    }

    private static VolumeException ReadOnly() => new(VolumeErrorKind.ReadOnly, "a built image never changes");

    private void Check(long offset, long length)
    {
        if (offset < 0 || length < 0 || offset > Size - length)
        {
            throw new VolumeException(VolumeErrorKind.OutOfRange, $"bytes {offset} to {offset + length} of {Size}");
        }
    }
}
