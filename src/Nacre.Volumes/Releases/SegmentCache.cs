using System.Collections.Concurrent;
using Microsoft.Win32.SafeHandles;

namespace Nacre.Volumes.Releases;

/// <summary>Where segments come from: any place that can answer a byte range. Nothing it says is trusted.</summary>
public interface ISegmentOrigin
{
    /// <summary>Fills <paramref name="destination"/> with the segment's bytes from <paramref name="offset"/>, or throws: never partly.</summary>
    ValueTask ReadAsync(string segment, long offset, Memory<byte> destination, CancellationToken cancellationToken);
}

/// <summary>
/// The device's copy of segments, as the same ciphertext at the same offsets in sparse files. What is absent reads as zeroes, which never
/// authenticate: whether a chunk is present is decided by its tag, so a torn or damaged entry is fetched again and never served.
/// Thread-safe.
/// </summary>
public sealed class SegmentCache : IDisposable
{
    private readonly string directory;
    private readonly ConcurrentDictionary<string, SafeFileHandle> files = new(StringComparer.Ordinal);

    /// <summary>Opens the cache in a folder, which is made where it is missing.</summary>
    public SegmentCache(string directory)
    {
        this.directory = directory;
        Directory.CreateDirectory(directory);
    }

    /// <summary>Fills <paramref name="destination"/> from the local file; false where the file does not reach so far.</summary>
    public bool TryRead(string segment, long offset, Span<byte> destination)
    {
        if (!files.TryGetValue(segment, out var file))
        {
            var path = PathOf(segment);
            if (!File.Exists(path))
            {
                return false;
            }

            file = Opened(segment);
        }

        while (destination.Length > 0)
        {
            var read = RandomAccess.Read(file, destination, offset);
            if (read == 0)
            {
                return false;
            }

            destination = destination[read..];
            offset += read;
        }

        return true;
    }

    /// <summary>Keeps verified ciphertext.</summary>
    /// <exception cref="VolumeException">NoSpace, Io.</exception>
    public void Write(string segment, long offset, ReadOnlySpan<byte> verified)
    {
        try
        {
            RandomAccess.Write(Opened(segment), verified, offset);
        }
        catch (IOException exception)
        {
            throw Translate(exception, directory);
        }
    }

    /// <summary>Makes all that was written durable.</summary>
    public void Flush()
    {
        foreach (var file in files.Values)
        {
            RandomAccess.FlushToDisk(file);
        }
    }

    /// <summary>Closes the files.</summary>
    public void Dispose()
    {
        foreach (var file in files.Values)
        {
            file.Dispose();
        }

        files.Clear();
    }

    internal static VolumeException Translate(IOException exception, string where) =>
        new(IsDiskFull(exception) ? VolumeErrorKind.NoSpace : VolumeErrorKind.Io, $"{where}: {exception.Message}", exception);

    private static bool IsDiskFull(IOException exception) => (exception.HResult & 0xFFFF) is 28 or 122 or 0x70 or 0x27;

    private SafeFileHandle Opened(string segment)
    {
        if (files.TryGetValue(segment, out var file))
        {
            return file;
        }

        var opened = File.OpenHandle(PathOf(segment), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete);
        if (!files.TryAdd(segment, opened))
        {
            opened.Dispose();
        }

        return files[segment];
    }

    private string PathOf(string segment) => Path.Combine(directory, segment);
}
