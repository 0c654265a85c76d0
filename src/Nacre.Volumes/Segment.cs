using System.Buffers.Binary;
using System.Security.Cryptography;
using Nacre.Volumes.Storage;

namespace Nacre.Volumes;

/// <summary>What a slot holds.</summary>
internal enum SlotKind : byte
{
    /// <summary>One block of data.</summary>
    Data = 1,

    /// <summary>A range that was written as zeroes.</summary>
    Zero = 2,

    /// <summary>A range that was trimmed.</summary>
    Trim = 3,
}

/// <summary>The first 16 bytes inside a slot's encryption.</summary>
internal readonly record struct SlotHeader(uint Block, uint FlushedSlots, SlotKind Kind)
{
    public const int Size = 16;

    public void Format(Span<byte> bytes)
    {
        bytes[..Size].Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, Block);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[4..], FlushedSlots);
        bytes[8] = (byte)Kind;
    }

    public static SlotHeader Read(ReadOnlySpan<byte> bytes) => new(
        BinaryPrimitives.ReadUInt32LittleEndian(bytes), BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]), (SlotKind)bytes[8]);
}

/// <summary>The end of the log: the last segment and how many of its slots are valid.</summary>
internal readonly record struct LogTail(uint Sequence, UInt128 SegmentId, int Slots);

/// <summary>A segment file: a header, then slots that are each written once under the segment's own key (SPEC, "Segments").</summary>
/// <remarks>Encryption and decryption may run on several threads; the counters belong to the holder of the volume's gate.</remarks>
internal sealed class Segment : IDisposable
{
    public const int MaximumSlots = 8192;
    public const int HeaderSize = 4096;
    public const int SlotSize = SlotHeader.Size + IBlockDevice.BlockSize + VolumeKeys.TagSize;

    private const int TagOffset = HeaderSize - VolumeKeys.TagSize;

    private static ReadOnlySpan<byte> Magic => "NACRESEG"u8;

    private readonly VolumeKeys _keys;
    private readonly byte[] _key = VolumeKeys.NewKeyBuffer();
    private readonly AesGcm?[] _ciphers = new AesGcm?[4];

    private Segment(VolumeKeys keys, IStorageFile file, uint sequence, UInt128 id)
    {
        _keys = keys;
        File = file;
        Sequence = sequence;
        Id = id;
        keys.DeriveSegmentKey(id, _key);
    }

    public IStorageFile File { get; }

    public uint Sequence { get; }

    public UInt128 Id { get; }

    public int Capacity { get; private init; }

    /// <summary>The end of the log before this segment.</summary>
    public LogTail Previous { get; private init; }

    /// <summary>This segment's place in the table of segments, part of every map entry.</summary>
    public uint Index { get; set; }

    /// <summary>Slots that are part of the log.</summary>
    public int Count { get; set; }

    /// <summary>Slots known to be durable.</summary>
    public int Flushed { get; set; }

    /// <summary>Map entries that point here.</summary>
    public int Live { get; set; }

    public string Name => VolumeFiles.Segment(Sequence);

    public LogTail End => new(Sequence, Id, Count);

    public static long PositionOf(int slot) => HeaderSize + ((long)slot * SlotSize);

    /// <summary>Creates the next segment of the log, durable in content and name when this returns (ephemeral ones excepted).</summary>
    public static Segment Create(IVolumeStorage storage, VolumeKeys keys, LogTail previous, int capacity, bool durable)
    {
        var sequence = previous.Sequence + 1;
        var name = VolumeFiles.Segment(sequence);
        var temporary = name + VolumeFiles.TemporarySuffix;
        var file = storage.Create(temporary);
        Segment? segment = null;
        try
        {
            segment = new Segment(keys, file, sequence, VolumeKeys.NewId()) { Capacity = capacity, Previous = previous };
            file.Allocate(PositionOf(capacity));
            file.Write(0, segment.FormatHeader());
            if (durable)
            {
                file.SyncData();
            }
        }
        catch (VolumeException)
        {
            segment?.Dispose();
            file.Dispose();
            storage.Delete(temporary);
            throw;
        }

        try
        {
            storage.Rename(temporary, name);
            if (durable)
            {
                storage.SyncDirectory();
            }

            return segment;
        }
        catch
        {
            // The name may stand: a repetition replaces it, and recovery takes it for what it is, an empty successor.
            segment.Dispose();
            throw;
        }
    }

    /// <summary>Opens a segment and authenticates its header; its slots are not read.</summary>
    public static Segment Open(IVolumeStorage storage, VolumeKeys keys, uint sequence, bool writable)
    {
        var name = VolumeFiles.Segment(sequence);
        var file = storage.Open(name, writable);
        try
        {
            return ReadHeader(keys, file, name, sequence);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Encrypts a slot in place: the block's content is already at its position inside <paramref name="slot"/>.</summary>
    public void Encrypt(int ordinal, SlotHeader header, Span<byte> slot)
    {
        header.Format(slot);
        Span<byte> nonce = stackalloc byte[VolumeKeys.NonceSize];
        NonceOf(ordinal, nonce);
        var text = slot[..(SlotHeader.Size + IBlockDevice.BlockSize)];
        var cipher = RentCipher();
        cipher.Encrypt(nonce, text, text, slot[text.Length..], _keys.VolumeIdBytes);
        ReturnCipher(cipher);
    }

    /// <summary>Decrypts a slot in place; false if it is not the one that was written there.</summary>
    public bool TryDecrypt(int ordinal, Span<byte> slot, out SlotHeader header)
    {
        Span<byte> nonce = stackalloc byte[VolumeKeys.NonceSize];
        NonceOf(ordinal, nonce);
        var text = slot[..(SlotHeader.Size + IBlockDevice.BlockSize)];
        var cipher = RentCipher();
        try
        {
            cipher.Decrypt(nonce, text, slot[text.Length..], text, _keys.VolumeIdBytes);
        }
        catch (AuthenticationTagMismatchException)
        {
            header = default;
            return false;
        }
        finally
        {
            ReturnCipher(cipher);
        }

        header = SlotHeader.Read(slot);
        return true;
    }

    public void Dispose()
    {
        CryptographicOperations.ZeroMemory(_key);
        foreach (ref var cipher in _ciphers.AsSpan())
        {
            Interlocked.Exchange(ref cipher, null)?.Dispose();
        }

        File.Dispose();
    }

    private static Segment ReadHeader(VolumeKeys keys, IStorageFile file, string name, uint sequence)
    {
        Span<byte> untrustedHeader = stackalloc byte[HeaderSize];
        if (file.Read(0, untrustedHeader) < HeaderSize)
        {
            throw new VolumeException(VolumeErrorKind.Truncated, $"{name} is cut short in its header");
        }

        var header = (ReadOnlySpan<byte>)untrustedHeader;
        var segment = new Segment(keys, file, sequence, BinaryPrimitives.ReadUInt128LittleEndian(header[16..]))
        {
            Capacity = BinaryPrimitives.ReadInt32LittleEndian(header[12..]),
            Previous = new LogTail(
                unchecked(sequence - 1), BinaryPrimitives.ReadUInt128LittleEndian(header[64..]), BinaryPrimitives.ReadInt32LittleEndian(header[80..])),
        };
        if (!segment.IsAuthentic(header) || BinaryPrimitives.ReadUInt32LittleEndian(header[48..]) != sequence)
        {
            segment.Dispose();
            throw new VolumeException(VolumeErrorKind.NotAuthentic, $"the header of {name} is not the one that was written there");
        }

        if (!header[..8].SequenceEqual(Magic) || BinaryPrimitives.ReadUInt32LittleEndian(header[8..]) != VolumeHeader.FormatVersion
            || segment.Capacity is <= 0 or > MaximumSlots || segment.Previous.Slots is < 0 or > MaximumSlots)
        {
            segment.Dispose();
            throw new VolumeException(VolumeErrorKind.Corrupt, $"the header of {name} contradicts itself");
        }

        return segment;
    }

    private static void NonceOf(int ordinal, Span<byte> nonce)
    {
        nonce.Clear();
        BinaryPrimitives.WriteInt32LittleEndian(nonce, ordinal);
    }

    private byte[] FormatHeader()
    {
        var header = new byte[HeaderSize];
        Magic.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(8), VolumeHeader.FormatVersion);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(12), Capacity);
        BinaryPrimitives.WriteUInt128LittleEndian(header.AsSpan(16), Id);
        BinaryPrimitives.WriteUInt128LittleEndian(header.AsSpan(32), _keys.VolumeId);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(48), Sequence);
        BinaryPrimitives.WriteUInt128LittleEndian(header.AsSpan(64), Previous.SegmentId);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(80), Previous.Slots);
        Span<byte> nonce = stackalloc byte[VolumeKeys.NonceSize];
        nonce.Fill(0xFF);
        var cipher = RentCipher();
        cipher.Encrypt(nonce, [], [], header.AsSpan(TagOffset), header.AsSpan(0, TagOffset));
        ReturnCipher(cipher);
        return header;
    }

    private bool IsAuthentic(ReadOnlySpan<byte> header)
    {
        // No slot has this nonce: ordinals end at 8191.
        Span<byte> nonce = stackalloc byte[VolumeKeys.NonceSize];
        nonce.Fill(0xFF);
        var cipher = RentCipher();
        try
        {
            cipher.Decrypt(nonce, [], header[TagOffset..], [], header[..TagOffset]);
            return BinaryPrimitives.ReadUInt128LittleEndian(header[32..]) == _keys.VolumeId;
        }
        catch (AuthenticationTagMismatchException)
        {
            return false;
        }
        finally
        {
            ReturnCipher(cipher);
        }
    }

    // An AesGcm must not be used by two threads at once, and making one costs more than using it.
    private AesGcm RentCipher()
    {
        foreach (ref var place in _ciphers.AsSpan())
        {
            if (Interlocked.Exchange(ref place, null) is { } cipher)
            {
                return cipher;
            }
        }

        return new AesGcm(_key, VolumeKeys.TagSize);
    }

    private void ReturnCipher(AesGcm cipher)
    {
        foreach (ref var place in _ciphers.AsSpan())
        {
            if (Interlocked.CompareExchange(ref place, cipher, null) is null)
            {
                return;
            }
        }

        cipher.Dispose();
    }
}
