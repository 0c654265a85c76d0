using System.Collections.Concurrent;
using Nacre.Volumes.Releases;
using ZstdSharp;

namespace Nacre.Volumes.Tests.Releases;

/// <summary>Small releases, published into memory.</summary>
internal static class TestRelease
{
    /// <summary>Compressible blocks, random blocks, and a hole.</summary>
    public static byte[] Content(int length)
    {
        var content = new byte[length];
        var random = new Random(length);
        for (var block = 0; block < length / 4096; block++)
        {
            var span = content.AsSpan(block * 4096, 4096);
            if (block % 3 == 0)
            {
                random.NextBytes(span);
            }
            else if (block % 20 != 7)
            {
                span.Fill((byte)block);
            }
        }

        return content;
    }

    /// <summary>Publishes in chunks of four blocks.</summary>
    public static ReleaseIndex Publish(PublisherKeys keys, MemoryOrigin origin, byte[] content) => Publish(keys, origin, content, []);

    /// <summary>Publishes in chunks of four blocks, without those that are known already.</summary>
    public static ReleaseIndex Publish(PublisherKeys keys, MemoryOrigin origin, byte[] content, Dictionary<UInt128, ChunkPlace> known)
    {
        using var compressor = new Compressor(3);
        var builder = new SegmentBuilder(keys);
        var names = new List<UInt128?>();
        for (var start = 0; start < content.Length; start += 4 * 4096)
        {
            var plain = content.AsSpan(start, Math.Min(4 * 4096, content.Length - start));
            if (!plain.ContainsAnyExcept((byte)0))
            {
                names.Add(null);
                continue;
            }

            var name = keys.NameChunk(plain);
            if (!names.Contains(name) && !known.ContainsKey(name))
            {
                var frame = compressor.Wrap(plain);
                var compressed = frame.Length < plain.Length;
                builder.Add(name, compressed ? frame : plain, plain.Length, compressed);
            }

            names.Add(name);
        }

        if (builder.Count > 0)
        {
            var built = builder.Seal();
            origin.Segments[built.Name] = built.Bytes;
            foreach (var (chunk, place) in built.Chunks)
            {
                known.Add(chunk, place);
            }
        }

        var segments = names.Where(name => name is not null).Select(name => known[name!.Value].Segment).Distinct().ToList();
        var chunks = names.Select((name, i) =>
        {
            var length = Math.Min(4 * 4096, content.Length - (i * 4 * 4096));
            return name is { } one && known[one] is var place
                ? new ReleaseChunk(i * 4 * 4096, length, segments.IndexOf(place.Segment), place.Ordinal, place.Offset, place.StoredLength, place.Compressed)
                : new ReleaseChunk(i * 4 * 4096, length, -1, 0, 0, 0, false);
        }).ToArray();
        return new ReleaseIndex(
            [.. segments.Select(segment => new ReleaseSegment(segment, keys.SegmentKey(Convert.FromHexString(segment)), origin.Segments[segment].Length))],
            [new ReleaseArtifact("system", content.Length, chunks)]);
    }
}

/// <summary>An origin that holds what was published, and may be slow.</summary>
internal sealed class MemoryOrigin : ISegmentOrigin
{
    private int requests;

    public ConcurrentDictionary<string, byte[]> Segments { get; } = new();

    public int Requests => requests;

    public int FailuresLeft { get; set; }

    /// <summary>What each request waits for; null: answered at once.</summary>
    public Task? Wait { get; set; }

    public async ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken)
    {
        Interlocked.Increment(ref requests);
        if (FailuresLeft > 0)
        {
            FailuresLeft--;
            throw new VolumeException(VolumeErrorKind.Io, "the origin is away");
        }

        if (Wait is { } wait)
        {
            await wait.WaitAsync(cancellationToken);
        }

        Segments[range.Segment].AsSpan((int)range.Offset, range.Missing.Length).CopyTo(range.Missing.Span);
        range.Advance(range.Missing.Length);
    }
}
