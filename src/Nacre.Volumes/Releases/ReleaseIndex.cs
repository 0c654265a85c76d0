using System.Security.Cryptography;
using System.Text;
using ZstdSharp;

namespace Nacre.Volumes.Releases;

/// <summary>A run of a release's artifact: a hole, or a stored chunk.</summary>
/// <param name="Start">First byte in the artifact, a multiple of the block size.</param>
/// <param name="Length">Bytes, a multiple of the block size.</param>
/// <param name="Segment">Index into <see cref="ReleaseIndex.Segments"/>, or -1 for a hole.</param>
/// <param name="Ordinal">The chunk's place in its segment.</param>
/// <param name="Offset">First byte in the segment.</param>
/// <param name="StoredLength">Bytes in the segment.</param>
/// <param name="Compressed">Whether it is a zstd frame.</param>
public readonly record struct ReleaseChunk(long Start, int Length, int Segment, uint Ordinal, int Offset, int StoredLength, bool Compressed);

/// <summary>A segment that a release refers to.</summary>
/// <param name="Name">32 hexadecimal digits.</param>
/// <param name="Key">Opens its chunks; secret.</param>
/// <param name="Length">Bytes.</param>
public sealed record ReleaseSegment(string Name, ReadOnlyMemory<byte> Key, long Length)
{
    /// <summary>Without the key.</summary>
    public override string ToString() => Name;
}

/// <summary>One of the things that a release delivers: <c>system</c>, <c>kernel</c>, <c>initramfs</c>.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Size">Bytes; the chunks cover this rounded up to whole blocks.</param>
/// <param name="Chunks">In order, without gaps.</param>
public sealed record ReleaseArtifact(string Name, long Size, IReadOnlyList<ReleaseChunk> Chunks);

/// <summary>
/// A release's map: from each artifact's bytes to places in segments, with the segments' keys. Encrypted under the release's key
/// (SPEC.md, REL-1xx). An instance obeys every bound of the format.
/// </summary>
public sealed class ReleaseIndex
{
    private const int MaxEncodedSize = 256 * 1024 * 1024;
    private const int MaxArtifacts = 64;
    private const int MaxSegments = 1 << 20;
    private const long MaxArtifactSize = 1L << 44;

    /// <summary>Creates an index of what a publisher stored.</summary>
    /// <param name="segments">Every segment referred to.</param>
    /// <param name="artifacts">Every artifact.</param>
    public ReleaseIndex(IReadOnlyList<ReleaseSegment> segments, IReadOnlyList<ReleaseArtifact> artifacts)
    {
        Segments = segments;
        Artifacts = artifacts;
        Stored = [.. artifacts.SelectMany(artifact => artifact.Chunks).Where(chunk => chunk.Segment >= 0)
            .DistinctBy(chunk => (chunk.Segment, chunk.Offset)).OrderBy(chunk => chunk.Segment).ThenBy(chunk => chunk.Offset)];
    }

    /// <summary>The segments, in the order that chunks refer to.</summary>
    public IReadOnlyList<ReleaseSegment> Segments { get; }

    /// <summary>The artifacts.</summary>
    public IReadOnlyList<ReleaseArtifact> Artifacts { get; }

    /// <summary>Every stored chunk once, by segment and place in it. A delta refers to chunks by their number here.</summary>
    public IReadOnlyList<ReleaseChunk> Stored { get; }

    private static ReadOnlySpan<byte> Magic => "NACREIDX"u8;

    /// <summary>The artifact of that name.</summary>
    /// <exception cref="VolumeException">Corrupt: the release has none.</exception>
    public ReleaseArtifact this[string name] => Artifacts.FirstOrDefault(artifact => artifact.Name == name)
        ?? throw new VolumeException(VolumeErrorKind.Corrupt, $"the release has no artifact '{name}'");

    /// <summary>Encrypts the index under a new release key.</summary>
    /// <param name="releaseKey">32 random bytes, used for this index only.</param>
    public byte[] Seal(ReadOnlySpan<byte> releaseKey)
    {
        using var compressor = new Compressor(19);
        return SealedFile.Seal(Magic, Key(releaseKey), compressor.Wrap(Encode()));
    }

    /// <summary>Opens a sealed index.</summary>
    /// <exception cref="VolumeException">Unsupported, Truncated, NotAuthentic (wrong key or changed), Corrupt.</exception>
    public static ReleaseIndex Open(ReadOnlySpan<byte> untrustedBytes, ReadOnlySpan<byte> releaseKey)
    {
        var content = SealedFile.Open(Magic, Key(releaseKey), untrustedBytes, "the release's index");
        try
        {
            using var decompressor = new Decompressor();
            return Decode(decompressor.Unwrap(content, MaxEncodedSize));
        }
        catch (Exception exception) when (exception is ZstdException or OverflowException or ArgumentException or IndexOutOfRangeException)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, "the release's index", exception);
        }
    }

    private static byte[] Key(ReadOnlySpan<byte> releaseKey) =>
        HKDF.DeriveKey(HashAlgorithmName.SHA256, releaseKey.ToArray(), SegmentFormat.KeySize, info: "nacre release index"u8.ToArray());

    private byte[] Encode()
    {
        var stream = new MemoryStream();
        using var writer = new BinaryWriter(stream, Encoding.ASCII);
        writer.Write7BitEncodedInt(Segments.Count);
        foreach (var segment in Segments)
        {
            writer.Write(Convert.FromHexString(segment.Name));
            writer.Write(segment.Key.Span);
            writer.Write7BitEncodedInt64(segment.Length);
        }

        writer.Write7BitEncodedInt(Artifacts.Count);
        foreach (var artifact in Artifacts)
        {
            writer.Write(artifact.Name);
            writer.Write7BitEncodedInt64(artifact.Size);
            writer.Write7BitEncodedInt(artifact.Chunks.Count);
            var previous = default(ReleaseChunk) with { Ordinal = uint.MaxValue, Offset = SegmentFormat.HeaderSize };
            foreach (var chunk in artifact.Chunks)
            {
                var blocks = chunk.Length / IBlockDevice.BlockSize;
                writer.Write7BitEncodedInt64(((long)blocks << 1) | (chunk.Segment < 0 ? 1L : 0L));
                if (chunk.Segment < 0)
                {
                    continue;
                }

                // Chunks that follow each other in a segment cost next to nothing: all three differences are zero.
                writer.Write7BitEncodedInt64(ZigZag((long)chunk.Segment - previous.Segment));
                writer.Write7BitEncodedInt64(ZigZag((long)chunk.Ordinal - unchecked(previous.Ordinal + 1)));
                writer.Write7BitEncodedInt64(ZigZag((long)chunk.Offset - (previous.Offset + previous.StoredLength)));
                writer.Write7BitEncodedInt64(((long)chunk.StoredLength << 1) | (chunk.Compressed ? 1L : 0L));
                previous = chunk;
            }
        }

        writer.Flush();
        return stream.ToArray();
    }

    private static ReleaseIndex Decode(Span<byte> authenticBytes)
    {
        using var reader = new BinaryReader(new MemoryStream(authenticBytes.ToArray()), Encoding.ASCII);
        try
        {
            var segments = new List<ReleaseSegment>();
            for (var count = Bounded(reader.Read7BitEncodedInt(), MaxSegments, "segments"); count > 0; count--)
            {
                var name = Convert.ToHexStringLower(Exactly(reader, SegmentFormat.NameSize));
                var key = Exactly(reader, SegmentFormat.KeySize);
                segments.Add(new ReleaseSegment(name, key, Bounded(reader.Read7BitEncodedInt64(), SegmentFormat.MaxSegmentSize, "a segment's length")));
            }

            var artifacts = new List<ReleaseArtifact>();
            for (var count = Bounded(reader.Read7BitEncodedInt(), MaxArtifacts, "artifacts"); count > 0; count--)
            {
                artifacts.Add(DecodeArtifact(reader, segments));
            }

            return reader.BaseStream.Position == reader.BaseStream.Length
                ? new ReleaseIndex(segments, artifacts)
                : throw new VolumeException(VolumeErrorKind.Corrupt, "the release's index goes on after its end");
        }
        catch (EndOfStreamException exception)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, "the release's index ends too early", exception);
        }
    }

    private static ReleaseArtifact DecodeArtifact(BinaryReader reader, List<ReleaseSegment> segments)
    {
        var name = reader.ReadString();
        var size = Bounded(reader.Read7BitEncodedInt64(), MaxArtifactSize, "an artifact's size");
        var blocks = (size + IBlockDevice.BlockSize - 1) / IBlockDevice.BlockSize;
        var count = Bounded(reader.Read7BitEncodedInt(), (int)Math.Min(blocks, MaxEncodedSize), "chunks");
        var chunks = new List<ReleaseChunk>(count);
        var start = 0L;
        var previous = default(ReleaseChunk) with { Ordinal = uint.MaxValue, Offset = SegmentFormat.HeaderSize };
        for (; count > 0; count--)
        {
            var packed = reader.Read7BitEncodedInt64();
            var hole = (packed & 1) == 1;
            var length = Bounded(packed >> 1, hole ? blocks : SegmentFormat.MaxChunkBlocks, "a chunk's length") * IBlockDevice.BlockSize;
            if (length == 0)
            {
                throw new VolumeException(VolumeErrorKind.Corrupt, "the release's index has an empty chunk");
            }

            // A long hole is cut so that a chunk's length always fits.
            for (var rest = hole ? length : 0; rest > 0;)
            {
                var part = (int)Math.Min(rest, 1 << 30);
                chunks.Add(new ReleaseChunk(start, part, -1, 0, 0, 0, false));
                start += part;
                rest -= part;
            }

            if (hole)
            {
                continue;
            }

            var segment = (int)Bounded(previous.Segment + UnZigZag(reader.Read7BitEncodedInt64()), segments.Count - 1, "a chunk's segment");
            var ordinal = (uint)Bounded(unchecked(previous.Ordinal + 1) + UnZigZag(reader.Read7BitEncodedInt64()), int.MaxValue, "a chunk's ordinal");
            var offset = (int)Bounded(previous.Offset + previous.StoredLength + UnZigZag(reader.Read7BitEncodedInt64()), SegmentFormat.MaxSegmentSize, "a chunk's offset");
            packed = reader.Read7BitEncodedInt64();
            var stored = (int)Bounded(packed >> 1, SegmentFormat.MaxChunkSize + SegmentFormat.TagSize, "a chunk's stored length");
            var compressed = (packed & 1) == 1;
            if (stored <= SegmentFormat.TagSize || offset < SegmentFormat.HeaderSize || offset + (long)stored > segments[segment].Length
                || (!compressed && stored != length + SegmentFormat.TagSize))
            {
                throw new VolumeException(VolumeErrorKind.Corrupt, "the release's index has a chunk outside its segment");
            }

            previous = new ReleaseChunk(start, (int)length, segment, ordinal, offset, stored, compressed);
            chunks.Add(previous);
            start += length;
        }

        return start == blocks * IBlockDevice.BlockSize
            ? new ReleaseArtifact(name, size, chunks)
            : throw new VolumeException(VolumeErrorKind.Corrupt, $"the chunks of artifact '{name}' do not add up to its size");
    }

    private static byte[] Exactly(BinaryReader reader, int count)
    {
        var bytes = reader.ReadBytes(count);
        return bytes.Length == count ? bytes : throw new EndOfStreamException();
    }

    private static int Bounded(int value, int most, string what) => (int)Bounded((long)value, most, what);

    private static long Bounded(long value, long most, string what) => value >= 0 && value <= most
        ? value
        : throw new VolumeException(VolumeErrorKind.Corrupt, $"the release's index is out of bounds: {what}");

    private static long ZigZag(long value) => (value << 1) ^ (value >> 63);

    private static long UnZigZag(long value) => (long)((ulong)value >> 1) ^ -(value & 1);
}
