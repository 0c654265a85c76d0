using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using Nacre.Volumes;

namespace Nacre.Images.Publishing;

/// <summary>Where a file has data: the holes of a large sparse disk cost no reading.</summary>
internal static partial class SparseFile
{
    private const int SeekData = 3;
    private const int SeekHole = 4;
    private const int NoMoreData = 6; // ENXIO

    /// <summary>The ranges outside of which the file reads as zeroes, in order, on the grid of blocks; the last may end at the file's end.</summary>
    /// <param name="file">The file; its position is moved.</param>
    /// <param name="length">Its length.</param>
    /// <param name="leastHole">Shorter holes count as data.</param>
    public static IEnumerable<(long Start, long End)> DataRanges(SafeFileHandle file, long length, long leastHole)
    {
        for (var data = Find(file, 0, length, SeekData); data < length;)
        {
            var start = data / IBlockDevice.BlockSize * IBlockDevice.BlockSize;
            long end;
            do
            {
                var hole = Math.Max(data + 1, Find(file, data, length, SeekHole));
                end = Math.Min(length, (hole + IBlockDevice.BlockSize - 1) / IBlockDevice.BlockSize * IBlockDevice.BlockSize);
                data = Find(file, end, length, SeekData);
            }
            while (data < length && data - end < leastHole);

            yield return (start, end);
        }
    }

    /// <summary>The next data or hole from an offset on; a file system that can't tell has data everywhere.</summary>
    private static long Find(SafeFileHandle file, long offset, long length, int what)
    {
        if (offset >= length)
        {
            return length;
        }

        var found = Seek(file, offset, what);
        return found >= 0 ? found
            : what == SeekData && Marshal.GetLastPInvokeError() != NoMoreData ? offset
            : length;
    }

    [LibraryImport("libc", EntryPoint = "lseek", SetLastError = true)]
    private static partial long Seek(SafeFileHandle file, long offset, int whence);
}
