using System.Buffers.Binary;
using System.Security.Cryptography;
using ZstdSharp;

namespace Nacre.Volumes.Releases;

/// <summary>
/// The bytes of a published segment (SPEC.md, REL-0xx): a header, chunks each sealed on its own, and a catalogue that only publishers can
/// open. A chunk is at most <see cref="MaxChunkBlocks"/> blocks of a release, compressed where that is smaller.
/// </summary>
internal static class SegmentFormat
{
    public const int NameSize = 16;
    public const int KeySize = 32;
    public const int TagSize = 16;
    public const int HeaderSize = 32;
    public const int TrailerSize = 16;
    public const int CatalogueEntrySize = 24;
    public const int MaxChunkBlocks = 64;
    public const int MaxChunkSize = MaxChunkBlocks * IBlockDevice.BlockSize;
    private const int PlainSlotSize = MaxChunkSize + IBlockDevice.BlockSize;

    /// <summary>Prevents a hostile length from asking for memory: no segment that a publisher makes is larger.</summary>
    public const int MaxSegmentSize = 32 * 1024 * 1024;

    public static ReadOnlySpan<byte> HeaderMagic => "NACRESEG"u8;

    public static ReadOnlySpan<byte> TrailerMagic => "NACRECAT"u8;

    public static void WriteHeader(Span<byte> header, ReadOnlySpan<byte> name)
    {
        header[..HeaderSize].Clear();
        HeaderMagic.CopyTo(header);
        header[8] = 1;
        name.CopyTo(header[16..]);
    }

    public static void Nonce(Span<byte> nonce, uint ordinal)
    {
        nonce.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(nonce, ordinal);
    }

    /// <summary>What a chunk's tag covers besides its content: its plain length and whether it is compressed.</summary>
    public static void AssociatedData(Span<byte> data, int plainLength, bool compressed)
    {
        BinaryPrimitives.WriteInt32LittleEndian(data, plainLength);
        data[4] = compressed ? (byte)1 : (byte)0;
    }

    /// <summary>Opens one sealed chunk into <paramref name="plain"/>, whose length is the chunk's.</summary>
    /// <returns>False where the bytes are not the authentic ones (a hole in the cache, damage, tampering).</returns>
    public static bool TryOpenChunk(
        ReadOnlySpan<byte> segmentKey, uint ordinal, bool compressed, ReadOnlySpan<byte> untrustedSealed, Span<byte> plain, Span<byte> scratch)
    {
        var content = compressed ? scratch[..(untrustedSealed.Length - TagSize)] : plain;
        if (!TryAuthenticate(segmentKey, ordinal, compressed, plain.Length, untrustedSealed, content))
        {
            return false;
        }

        if (compressed)
        {
            // Authentic, so written by the publisher: a wrong length here is a defect of the publisher, not an attack.
            using var decompressor = new Decompressor();
            if (decompressor.Unwrap(content, plain) != plain.Length)
            {
                throw new VolumeException(VolumeErrorKind.Corrupt, "a chunk of the release is shorter than its index says");
            }
        }

        return true;
    }

    /// <summary>Checks one sealed chunk and decrypts it into <paramref name="content"/> without decompressing.</summary>
    public static bool TryAuthenticate(
        ReadOnlySpan<byte> segmentKey, uint ordinal, bool compressed, int plainLength, ReadOnlySpan<byte> untrustedSealed, Span<byte> content)
    {
        Span<byte> nonce = stackalloc byte[12];
        Span<byte> associated = stackalloc byte[5];
        Nonce(nonce, ordinal);
        AssociatedData(associated, plainLength, compressed);
        using var gcm = new AesGcm(segmentKey, TagSize);
        try
        {
            gcm.Decrypt(nonce, untrustedSealed[..^TagSize], untrustedSealed[^TagSize..], content, associated);
            return true;
        }
        catch (AuthenticationTagMismatchException)
        {
            return false;
        }
    }

    /// <summary>Where in the cache's file of a segment a chunk lies that a delta brought: behind all that a segment can have, each in a place of its own.</summary>
    public static long PlainPlace(uint ordinal) => MaxSegmentSize + (ordinal * (long)PlainSlotSize);

    /// <summary>Seals a chunk without compression, under a key of its own for that form: the content follows from segment and ordinal, so a nonce is used for one text.</summary>
    /// <param name="segmentKey">The segment's key.</param>
    /// <param name="ordinal">The chunk's place in the segment.</param>
    /// <param name="plain">Its content.</param>
    /// <param name="destination">Receives the ciphertext and its tag.</param>
    public static void SealPlain(ReadOnlySpan<byte> segmentKey, uint ordinal, ReadOnlySpan<byte> plain, Span<byte> destination)
    {
        Span<byte> nonce = stackalloc byte[12];
        Nonce(nonce, ordinal);
        using var gcm = new AesGcm(PlainKey(segmentKey), TagSize);
        gcm.Encrypt(nonce, plain, destination[..^TagSize], destination[^TagSize..]);
    }

    /// <summary>Opens what <see cref="SealPlain"/> made; false where the bytes are not the authentic ones.</summary>
    public static bool TryOpenPlain(ReadOnlySpan<byte> segmentKey, uint ordinal, ReadOnlySpan<byte> untrustedSealed, Span<byte> plain)
    {
        Span<byte> nonce = stackalloc byte[12];
        Nonce(nonce, ordinal);
        using var gcm = new AesGcm(PlainKey(segmentKey), TagSize);
        try
        {
            gcm.Decrypt(nonce, untrustedSealed[..^TagSize], untrustedSealed[^TagSize..], plain);
            return true;
        }
        catch (AuthenticationTagMismatchException)
        {
            return false;
        }
    }

    private static byte[] PlainKey(ReadOnlySpan<byte> segmentKey) =>
        HKDF.DeriveKey(HashAlgorithmName.SHA256, segmentKey.ToArray(), KeySize, info: "nacre plain chunks"u8.ToArray());
}
