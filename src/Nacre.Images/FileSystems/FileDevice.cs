using Microsoft.Win32.SafeHandles;
using Nacre.Volumes;

namespace Nacre.Images.FileSystems;

/// <summary>A file as a device that is only read; zeroes fill its last block.</summary>
public sealed class FileDevice : IBlockDevice
{
    private readonly SafeFileHandle file;
    private readonly long length;

    private FileDevice(SafeFileHandle file)
    {
        this.file = file;
        length = RandomAccess.GetLength(file);
        Size = (length + IBlockDevice.BlockSize - 1) / IBlockDevice.BlockSize * IBlockDevice.BlockSize;
    }

    /// <inheritdoc/>
    public long Size { get; }

    /// <inheritdoc/>
    public bool IsReadOnly => true;

    /// <summary>Opens a file, whose length must not change meanwhile.</summary>
    /// <exception cref="IOException">The file can't be opened.</exception>
    /// <exception cref="UnauthorizedAccessException">The file can't be opened.</exception>
    public static FileDevice Open(string path) => new(File.OpenHandle(path, options: FileOptions.Asynchronous));

    /// <inheritdoc/>
    public async ValueTask ReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken)
    {
        Check(offset, destination.Length);
        try
        {
            while (!destination.IsEmpty && offset < length)
            {
                var read = await RandomAccess.ReadAsync(file, destination[..(int)Math.Min(destination.Length, length - offset)], offset, cancellationToken).ConfigureAwait(false);
                if (read == 0)
                {
                    throw new VolumeException(VolumeErrorKind.Truncated, $"the file ends at {offset}");
                }

                destination = destination[read..];
                offset += read;
            }

            destination.Span.Clear();
        }
        catch (IOException exception)
        {
            throw new VolumeException(VolumeErrorKind.Io, exception.Message, exception);
        }
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> source, bool forceUnitAccess, CancellationToken cancellationToken) => throw ReadOnly();

    /// <inheritdoc/>
    public ValueTask FlushAsync(CancellationToken cancellationToken) => ValueTask.CompletedTask;

    /// <inheritdoc/>
    public ValueTask TrimAsync(long offset, long length, CancellationToken cancellationToken) => throw ReadOnly();

    /// <inheritdoc/>
    public ValueTask WriteZeroesAsync(long offset, long length, bool keepAllocated, bool forceUnitAccess, CancellationToken cancellationToken) => throw ReadOnly();

    /// <inheritdoc/>
    public int DescribeExtents(long offset, long length, Span<BlockExtent> extents)
    {
        Check(offset, length);
        extents[0] = new BlockExtent(length, IsHole: false);
        return 1;
    }

    /// <inheritdoc/>
    public ValueTask DisposeAsync()
    {
        file.Dispose();
        return ValueTask.CompletedTask;
    }

    private static VolumeException ReadOnly() => new(VolumeErrorKind.ReadOnly, "the file is only read");

    private void Check(long offset, long count)
    {
        if (offset < 0 || count < 0 || offset > Size - count)
        {
            throw new VolumeException(VolumeErrorKind.OutOfRange, $"{count} bytes from {offset} on lie outside the file of {Size} bytes");
        }
    }
}
