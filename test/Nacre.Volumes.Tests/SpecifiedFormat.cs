using System.Buffers.Binary;
using System.Security.Cryptography;

namespace Nacre.Volumes.Tests;

/// <summary>The format as SPEC.md says it, written a second time and without any code of the volume, to hold that code against.</summary>
internal static class SpecifiedFormat
{
    private static readonly byte[] HeaderNonceOfSegment = [.. Enumerable.Repeat((byte)0xFF, 12)];

    /// <summary>A header with one key slot.</summary>
    public static byte[] Header(
        byte[] volumeId, byte[] master, byte[] slotKey, byte[] slotNonce, byte[] nonce, long size, int segmentSlots, uint version = 2, uint features = 0)
    {
        var header = new byte[4096];
        "NACREVOL"u8.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(8), version);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(12), features);
        volumeId.CopyTo(header, 16);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(32), size);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(40), segmentSlots);
        header[64] = 1;
        slotNonce.CopyTo(header, 68);
        using (var wrapping = new AesGcm(Key(slotKey, volumeId, "nacre volume key slot v1"u8, []), 16))
        {
            wrapping.Encrypt(slotNonce, master, header.AsSpan(80, 32), header.AsSpan(112, 16), volumeId);
        }

        nonce.CopyTo(header, 4064);
        using var seal = new AesGcm(Key(master, volumeId, "nacre volume header v1"u8, volumeId), 16);
        seal.Encrypt(nonce, [], [], header.AsSpan(4080), header.AsSpan(0, 4080));
        return header;
    }

    /// <summary>A segment without slots.</summary>
    public static byte[] SegmentHeader(byte[] volumeId, byte[] master, byte[] segmentId, int slots, uint sequence, byte[] previousId, int previousSlots)
    {
        var header = new byte[4096];
        "NACRESEG"u8.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(8), 2);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(12), slots);
        segmentId.CopyTo(header, 16);
        volumeId.CopyTo(header, 32);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(48), sequence);
        previousId.CopyTo(header, 64);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(80), previousSlots);
        using var seal = new AesGcm(SegmentKey(volumeId, master, segmentId), 16);
        seal.Encrypt(HeaderNonceOfSegment, [], [], header.AsSpan(4080), header.AsSpan(0, 4080));
        return header;
    }

    /// <summary>A slot that is no copy.</summary>
    public static byte[] Slot(byte[] volumeId, byte[] master, byte[] segmentId, int ordinal, uint block, uint durable, byte kind, ReadOnlySpan<byte> content)
    {
        var plain = new byte[4112];
        BinaryPrimitives.WriteUInt32LittleEndian(plain, block);
        BinaryPrimitives.WriteUInt32LittleEndian(plain.AsSpan(4), durable);
        plain[8] = kind;
        content.CopyTo(plain.AsSpan(16));
        var nonce = new byte[12];
        BinaryPrimitives.WriteInt32LittleEndian(nonce, ordinal);
        var slot = new byte[4128];
        using var cipher = new AesGcm(SegmentKey(volumeId, master, segmentId), 16);
        cipher.Encrypt(nonce, plain, slot.AsSpan(0, 4112), slot.AsSpan(4112), volumeId);
        return slot;
    }

    /// <summary>The master key that a header's first key slot holds.</summary>
    public static byte[] Master(ReadOnlySpan<byte> header, byte[] slotKey)
    {
        var volumeId = header.Slice(16, 16).ToArray();
        var master = new byte[32];
        using var wrapping = new AesGcm(Key(slotKey, volumeId, "nacre volume key slot v1"u8, []), 16);
        wrapping.Decrypt(header.Slice(68, 12), header.Slice(80, 32), header.Slice(112, 16), master, volumeId);
        return master;
    }

    private static byte[] SegmentKey(byte[] volumeId, byte[] master, byte[] segmentId) => Key(master, segmentId, "nacre volume segment v1"u8, volumeId);

    private static byte[] Key(byte[] input, byte[] salt, ReadOnlySpan<byte> purpose, byte[] suffix) =>
        HKDF.DeriveKey(HashAlgorithmName.SHA256, input, 32, salt, [.. purpose, .. suffix]);
}
