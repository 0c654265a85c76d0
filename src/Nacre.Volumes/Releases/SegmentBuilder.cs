using System.Buffers;
using System.Buffers.Binary;
using System.Security.Cryptography;

namespace Nacre.Volumes.Releases;

/// <summary>Where a chunk of a release is stored.</summary>
/// <param name="Segment">The segment's name, 32 hexadecimal digits.</param>
/// <param name="Ordinal">The chunk's place in the segment, from 0.</param>
/// <param name="Offset">First byte of the sealed chunk in the segment.</param>
/// <param name="StoredLength">Bytes of the sealed chunk, its tag included.</param>
/// <param name="PlainLength">Bytes of its content.</param>
/// <param name="Compressed">Whether the content is a zstd frame.</param>
public readonly record struct ChunkPlace(string Segment, uint Ordinal, int Offset, int StoredLength, int PlainLength, bool Compressed);

/// <summary>A finished segment.</summary>
/// <param name="Name">32 hexadecimal digits.</param>
/// <param name="Bytes">What is uploaded: ciphertext.</param>
/// <param name="Chunks">Each chunk's name and place.</param>
public sealed record BuiltSegment(string Name, byte[] Bytes, IReadOnlyList<(UInt128 Chunk, ChunkPlace Place)> Chunks);

/// <summary>Collects compressed chunks and seals them into one segment. Not thread-safe.</summary>
public sealed class SegmentBuilder
{
    private readonly PublisherKeys keys;
    private readonly ArrayBufferWriter<byte> content = new();
    private readonly List<(UInt128 Chunk, int Start, int Length, int PlainLength, bool Compressed)> chunks = [];

    /// <summary>Begins an empty segment.</summary>
    /// <param name="keys">The organisation's keys.</param>
    public SegmentBuilder(PublisherKeys keys) => this.keys = keys;

    /// <summary>Bytes that the segment would have now, roughly.</summary>
    public int Length => content.WrittenCount;

    /// <summary>How many chunks it holds.</summary>
    public int Count => chunks.Count;

    /// <summary>Adds a chunk.</summary>
    /// <param name="chunk">Its name.</param>
    /// <param name="stored">Its content as stored: a zstd frame or plain.</param>
    /// <param name="plainLength">Bytes of its plain content.</param>
    /// <param name="compressed">Which of the two <paramref name="stored"/> is.</param>
    public void Add(UInt128 chunk, ReadOnlySpan<byte> stored, int plainLength, bool compressed)
    {
        chunks.Add((chunk, content.WrittenCount, stored.Length, plainLength, compressed));
        content.Write(stored);
    }

    /// <summary>Seals what was added. The same chunks in the same order always give the same bytes.</summary>
    public BuiltSegment Seal()
    {
        var plain = content.WrittenSpan;
        var name = keys.NameSegment(Commitment(plain));
        var text = Convert.ToHexStringLower(name);
        var catalogueSize = chunks.Count * SegmentFormat.CatalogueEntrySize;
        var bytes = new byte[SegmentFormat.HeaderSize + plain.Length + (chunks.Count * SegmentFormat.TagSize)
            + catalogueSize + SegmentFormat.TagSize + SegmentFormat.TrailerSize];
        SegmentFormat.WriteHeader(bytes, name);
        var places = new List<(UInt128, ChunkPlace)>(chunks.Count);
        var catalogue = new byte[catalogueSize];
        var position = SegmentFormat.HeaderSize;
        Span<byte> nonce = stackalloc byte[12];
        Span<byte> associated = stackalloc byte[5];
        using (var gcm = new AesGcm(keys.SegmentKey(name), SegmentFormat.TagSize))
        {
            for (var i = 0; i < chunks.Count; i++)
            {
                var (chunk, start, length, plainLength, compressed) = chunks[i];
                SegmentFormat.Nonce(nonce, (uint)i);
                SegmentFormat.AssociatedData(associated, plainLength, compressed);
                gcm.Encrypt(nonce, plain.Slice(start, length), bytes.AsSpan(position, length), bytes.AsSpan(position + length, SegmentFormat.TagSize), associated);
                places.Add((chunk, new ChunkPlace(text, (uint)i, position, length + SegmentFormat.TagSize, plainLength, compressed)));
                WriteCatalogueEntry(catalogue.AsSpan(i * SegmentFormat.CatalogueEntrySize), chunk, length, plainLength, compressed);
                position += length + SegmentFormat.TagSize;
            }
        }

        SegmentFormat.Nonce(nonce, uint.MaxValue);
        using (var gcm = new AesGcm(keys.CatalogueKey(name), SegmentFormat.TagSize))
        {
            gcm.Encrypt(nonce, catalogue, bytes.AsSpan(position, catalogueSize), bytes.AsSpan(position + catalogueSize, SegmentFormat.TagSize));
        }

        var trailer = bytes.AsSpan(bytes.Length - SegmentFormat.TrailerSize);
        SegmentFormat.TrailerMagic.CopyTo(trailer);
        BinaryPrimitives.WriteInt32LittleEndian(trailer[8..], chunks.Count);
        return new BuiltSegment(text, bytes, places);
    }

    private static void WriteCatalogueEntry(Span<byte> entry, UInt128 chunk, int length, int plainLength, bool compressed)
    {
        BinaryPrimitives.WriteUInt128LittleEndian(entry, chunk);
        BinaryPrimitives.WriteUInt32LittleEndian(entry[16..], ((uint)length << 1) | (compressed ? 1u : 0u));
        BinaryPrimitives.WriteInt32LittleEndian(entry[20..], plainLength);
    }

    private byte[] Commitment(ReadOnlySpan<byte> plain)
    {
        // Covers what each AEAD call will see: every chunk's bytes, length, plain length and form, and the catalogue's chunk names.
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Span<byte> entry = stackalloc byte[SegmentFormat.CatalogueEntrySize];
        foreach (var (chunk, start, length, plainLength, compressed) in chunks)
        {
            WriteCatalogueEntry(entry, chunk, length, plainLength, compressed);
            hash.AppendData(entry);
            hash.AppendData(plain.Slice(start, length));
        }

        return hash.GetHashAndReset();
    }
}

/// <summary>Reads a segment's catalogue: which chunks it holds. Only a publisher has the key.</summary>
public static class SegmentCatalogue
{
    /// <summary>Bytes to read from the end of a segment of <paramref name="segmentLength"/> bytes so that <see cref="Parse"/> has all it needs,
    /// given the segment's last bytes.</summary>
    public static int TailLength(ReadOnlySpan<byte> untrustedTrailer, long segmentLength)
    {
        if (untrustedTrailer.Length != SegmentFormat.TrailerSize || !untrustedTrailer.StartsWith(SegmentFormat.TrailerMagic))
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, "a segment of the store ends without a catalogue");
        }

        var count = BinaryPrimitives.ReadInt32LittleEndian(untrustedTrailer[8..]);
        var length = (count * (long)SegmentFormat.CatalogueEntrySize) + SegmentFormat.TagSize + SegmentFormat.TrailerSize;
        return count >= 0 && length <= segmentLength && length <= SegmentFormat.MaxSegmentSize
            ? (int)length
            : throw new VolumeException(VolumeErrorKind.Corrupt, "a segment's catalogue is longer than the segment");
    }

    /// <summary>Bytes of the trailer, the very end of a segment.</summary>
    public static int TrailerLength => SegmentFormat.TrailerSize;

    /// <summary>Opens the catalogue.</summary>
    /// <param name="keys">The organisation's keys.</param>
    /// <param name="segment">The segment's name.</param>
    /// <param name="untrustedTail">The segment's last <see cref="TailLength"/> bytes.</param>
    /// <exception cref="VolumeException">NotAuthentic: made by another organisation, or changed.</exception>
    public static IReadOnlyList<(UInt128 Chunk, ChunkPlace Place)> Parse(PublisherKeys keys, string segment, ReadOnlySpan<byte> untrustedTail)
    {
        var name = Convert.FromHexString(segment);
        var sealedCatalogue = untrustedTail[..^SegmentFormat.TrailerSize];
        var catalogue = new byte[sealedCatalogue.Length - SegmentFormat.TagSize];
        Span<byte> nonce = stackalloc byte[12];
        SegmentFormat.Nonce(nonce, uint.MaxValue);
        using var gcm = new AesGcm(keys.CatalogueKey(name), SegmentFormat.TagSize);
        try
        {
            gcm.Decrypt(nonce, sealedCatalogue[..^SegmentFormat.TagSize], sealedCatalogue[^SegmentFormat.TagSize..], catalogue);
        }
        catch (AuthenticationTagMismatchException exception)
        {
            throw new VolumeException(VolumeErrorKind.NotAuthentic, $"the catalogue of segment {segment}", exception);
        }

        var places = new List<(UInt128, ChunkPlace)>();
        var position = SegmentFormat.HeaderSize;
        for (var i = 0; i < catalogue.Length / SegmentFormat.CatalogueEntrySize; i++)
        {
            var entry = catalogue.AsSpan(i * SegmentFormat.CatalogueEntrySize, SegmentFormat.CatalogueEntrySize);
            var packed = BinaryPrimitives.ReadUInt32LittleEndian(entry[16..]);
            var stored = (int)(packed >> 1) + SegmentFormat.TagSize;
            places.Add((
                BinaryPrimitives.ReadUInt128LittleEndian(entry),
                new ChunkPlace(segment, (uint)i, position, stored, BinaryPrimitives.ReadInt32LittleEndian(entry[20..]), (packed & 1) == 1)));
            position += stored;
        }

        return places;
    }
}
