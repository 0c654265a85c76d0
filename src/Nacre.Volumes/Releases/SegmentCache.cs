using System.Collections.Concurrent;
using Microsoft.Win32.SafeHandles;

namespace Nacre.Volumes.Releases;

/// <summary>Where segments come from: any place that can answer a byte range. Nothing it says is trusted. Called from several threads.</summary>
public interface ISegmentOrigin
{
    /// <summary>Fills the range, from where it stands, or throws.</summary>
    /// <exception cref="VolumeException">Io: it can't be reached; Truncated; NotAuthentic, as <see cref="SegmentRange.Advance"/> says.</exception>
    ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken);
}

/// <summary>Bytes that a reader wants of a segment. They are verified as they arrive: what was verified is kept by the reader, however the rest ends. Not thread-safe.</summary>
public sealed class SegmentRange
{
    private readonly long start;
    private readonly Memory<byte> buffer;
    private readonly Func<int, int> verify;
    private int filled;
    private int verified;

    /// <summary>Describes what is wanted.</summary>
    /// <param name="segment">The segment's name.</param>
    /// <param name="start">The first byte.</param>
    /// <param name="buffer">Where the bytes go.</param>
    /// <param name="verify">Told how many bytes of the buffer have arrived; answers how many of them are verified, and throws NotAuthentic where one is wrong.</param>
    /// <param name="isUrgent">Whether somebody waits for these bytes now.</param>
    public SegmentRange(string segment, long start, Memory<byte> buffer, Func<int, int> verify, bool isUrgent)
    {
        Segment = segment;
        IsUrgent = isUrgent;
        this.start = start;
        this.buffer = buffer;
        this.verify = verify;
    }

    /// <summary>The segment's name.</summary>
    public string Segment { get; }

    /// <summary>Whether somebody waits for these bytes now.</summary>
    public bool IsUrgent { get; }

    /// <summary>Where in the segment the missing bytes begin.</summary>
    public long Offset => start + filled;

    /// <summary>Where the missing bytes go.</summary>
    public Memory<byte> Missing => buffer[filled..];

    /// <summary>Takes what arrived.</summary>
    /// <param name="count">So many of <see cref="Missing"/>, from its beginning.</param>
    /// <exception cref="VolumeException">NotAuthentic: it is not the release's.</exception>
    public void Advance(int count)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, buffer.Length - filled);
        filled += count;
        verified = verify(filled);
    }

    /// <summary>Goes back to what is verified, so that another place can be asked for the rest.</summary>
    public void GoBack() => filled = verified;
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
