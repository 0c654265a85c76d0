using Microsoft.Win32.SafeHandles;
using Nacre.Volumes;

namespace Nacre.Images.FileSystems;

/// <summary>A file as a device that is only read.</summary>
internal sealed class FileDevice : IBlockDevice
{
    private readonly SafeFileHandle file;

    private FileDevice(SafeFileHandle file)
    {
        this.file = file;
        Size = RandomAccess.GetLength(file) / IBlockDevice.BlockSize * IBlockDevice.BlockSize;
    }

    public long Size { get; }

    public bool IsReadOnly => true;

    /// <exception cref="IOException">The file can't be opened.</exception>
    /// <exception cref="UnauthorizedAccessException">The file can't be opened.</exception>
    public static FileDevice Open(string path) => new(File.OpenHandle(path, options: FileOptions.Asynchronous));

    public async ValueTask ReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken)
    {
        if (offset < 0 || offset > Size - destination.Length)
        {
            throw new VolumeException(VolumeErrorKind.OutOfRange, $"{destination.Length} bytes from {offset} on lie outside the file of {Size} bytes");
        }

        try
        {
            while (!destination.IsEmpty)
            {
                var read = await RandomAccess.ReadAsync(file, destination, offset, cancellationToken).ConfigureAwait(false);
                if (read == 0)
                {
                    throw new VolumeException(VolumeErrorKind.Truncated, $"the file ends at {offset}");
                }

                destination = destination[read..];
                offset += read;
            }
        }
        catch (IOException exception)
        {
            throw new VolumeException(VolumeErrorKind.Io, exception.Message, exception);
        }
    }

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> source, bool forceUnitAccess, CancellationToken cancellationToken) => throw ReadOnly();

    public ValueTask FlushAsync(CancellationToken cancellationToken) => ValueTask.CompletedTask;

    public ValueTask TrimAsync(long offset, long length, CancellationToken cancellationToken) => throw ReadOnly();

    public ValueTask WriteZeroesAsync(long offset, long length, bool keepAllocated, bool forceUnitAccess, CancellationToken cancellationToken) => throw ReadOnly();

    public int DescribeExtents(long offset, long length, Span<BlockExtent> extents)
    {
        extents[0] = new BlockExtent(length, IsHole: false);
        return 1;
    }

    public ValueTask DisposeAsync()
    {
        file.Dispose();
        return ValueTask.CompletedTask;
    }

    private static VolumeException ReadOnly() => new(VolumeErrorKind.ReadOnly, "the file is only read");
}
