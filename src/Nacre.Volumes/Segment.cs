using System.Buffers.Binary;
using System.Security.Cryptography;
using Nacre.Volumes.Storage;
#if NACRE_ENCRYPTION_ONLY
using SlotCipher = Nacre.Volumes.UnauthenticatedCipher;
#else
using SlotCipher = System.Security.Cryptography.AesGcm;
#endif

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

    /// <summary>The content of an older slot, moved by the cleaner.</summary>
    Copy = 4,

    /// <summary>The state so far is kept under a name.</summary>
    Snapshot = 5,

    /// <summary>The volume becomes what a snapshot holds.</summary>
    RollBack = 6,

    /// <summary>A snapshot is no longer kept.</summary>
    DeleteSnapshot = 7,
}

/// <summary>The place of a slot: its segment's sequence number, and its ordinal there.</summary>
internal readonly record struct SlotPlace(uint Sequence, int Ordinal);

/// <summary>The first 16 bytes inside a slot's encryption. <paramref name="Source"/> is set in a copy only.</summary>
internal readonly record struct SlotHeader(uint Block, uint FlushedSlots, SlotKind Kind, SlotPlace Source = default)
{
    public const int Size = 16;

    /// <summary>Whether the slot holds a block's content.</summary>
    public bool IsContent => Kind is SlotKind.Data or SlotKind.Copy;

    public void Format(Span<byte> bytes)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, Block);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[4..], FlushedSlots);
        bytes[8] = (byte)Kind;
        bytes[9] = 0;
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[10..], (ushort)Source.Ordinal);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[12..], Source.Sequence);
    }

    public static SlotHeader Read(ReadOnlySpan<byte> bytes) => new(
        BinaryPrimitives.ReadUInt32LittleEndian(bytes), BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]), (SlotKind)bytes[8],
        new SlotPlace(BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]), BinaryPrimitives.ReadUInt16LittleEndian(bytes[10..])));
}

/// <summary>The end of the log: the last segment and how many of its slots are valid.</summary>
internal readonly record struct LogTail(uint Sequence, UInt128 SegmentId, int Slots)
{
    /// <summary>How much was ever appended, as a number that only grows: what an anchor keeps.</summary>
    public long Position => ((long)Sequence * Segment.MaximumSlots) + Slots;
}

/// <summary>The key of a segment that a fork shares with the volume it came from, and that volume's id.</summary>
internal sealed record SharedSegmentKey(UInt128 VolumeId, byte[] Key);

/// <summary>A segment file: a header, then slots that are each written once under the segment's own key (SPEC, "Segments").</summary>
/// <remarks>Encryption and decryption may run on several threads; the counters belong to the holder of the volume's gate.</remarks>
internal sealed class Segment : IDisposable
{
    public const int MaximumSlots = 8192;
    public const int HeaderSize = 4096;
    public const int SlotSize = SlotHeader.Size + IBlockDevice.BlockSize + VolumeKeys.TagSize;

    private const int TagOffset = HeaderSize - VolumeKeys.TagSize;

    private static ReadOnlySpan<byte> Magic => "NACRESEG"u8;

    private readonly byte[] _volumeId = new byte[16];
    private readonly byte[] _key = VolumeKeys.NewKeyBuffer();
    private readonly SlotCipher?[] _ciphers = new SlotCipher?[4];

    private Segment(VolumeKeys keys, IStorageFile file, uint sequence, UInt128 id, SharedSegmentKey? shared)
    {
        File = file;
        Sequence = sequence;
        Id = id;
        IsShared = shared is not null;
        BinaryPrimitives.WriteUInt128LittleEndian(_volumeId, shared?.VolumeId ?? keys.VolumeId);
        if (shared is null)
        {
            keys.DeriveSegmentKey(id, _key);
        }
        else
        {
            shared.Key.CopyTo(_key, 0);
        }
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

    /// <summary>Up to where the disk was told to begin with what was written.</summary>
    public long WritebackFrom { get; set; }

    /// <summary>Whether a fork shares the segment with the volume it came from: its key is not derived from this volume's.</summary>
    public bool IsShared { get; }

    /// <summary>Why the file cannot be used, where the opener asked to go on all the same.</summary>
    public VolumeException? Damage { get; set; }

    /// <summary>What lets another volume read the segment.</summary>
    public SharedSegmentKey ShareKey() => new(BinaryPrimitives.ReadUInt128LittleEndian(_volumeId), (byte[])_key.Clone());

    public string Name => VolumeFiles.Segment(Sequence);

    public LogTail End => new(Sequence, Id, Count);

    public static long PositionOf(int slot) => HeaderSize + ((long)slot * SlotSize);

    /// <summary>Creates the next segment of the log, durable in content and name when this returns.</summary>
    /// <param name="storage">Where.</param>
    /// <param name="keys">The volume's keys.</param>
    /// <param name="previous">Where the log ends so far.</param>
    /// <param name="capacity">Slots to make room for.</param>
    /// <param name="spare">The name of a file of a dead segment of this capacity to write over, or null for a new file.</param>
    public static Segment Create(IVolumeStorage storage, VolumeKeys keys, LogTail previous, int capacity, string? spare = null)
    {
        var sequence = checked(previous.Sequence + 1);
        var name = VolumeFiles.Segment(sequence);
        var temporary = spare ?? name + VolumeFiles.TemporarySuffix;
        var file = spare is null ? storage.Create(temporary) : storage.Open(temporary, writable: true);
        Segment? segment = null;
        try
        {
            segment = new Segment(keys, file, sequence, VolumeKeys.NewId(), shared: null) { Capacity = capacity, Previous = previous };
            if (spare is null)
            {
                file.Allocate(PositionOf(capacity));
            }

            file.Write(0, segment.FormatHeader());
            file.SyncData();
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
            storage.SyncDirectory();
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
    public static Segment Open(IVolumeStorage storage, VolumeKeys keys, uint sequence, bool writable, SharedSegmentKey? shared = null)
    {
        var name = VolumeFiles.Segment(sequence);
        var file = storage.Open(name, writable);
        try
        {
            return ReadHeader(keys, file, name, sequence, shared);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Stands for a segment whose file cannot be used; reading it fails with <paramref name="damage"/>.</summary>
    public static Segment Unusable(VolumeKeys keys, uint sequence, int count, VolumeException damage) =>
        new(keys, new UnusableFile(damage), sequence, id: 0, shared: null) { Capacity = MaximumSlots, Count = count, Damage = damage };

    /// <summary>Encrypts a slot in place: the block's content is already at its position inside <paramref name="slot"/>.</summary>
    public void Encrypt(int ordinal, SlotHeader header, Span<byte> slot)
    {
        header.Format(slot);
        Span<byte> nonce = stackalloc byte[VolumeKeys.NonceSize];
        NonceOf(ordinal, nonce);
        var text = slot[..(SlotHeader.Size + IBlockDevice.BlockSize)];
        var cipher = RentCipher();
        cipher.Encrypt(nonce, text, text, slot[text.Length..], _volumeId);
        ReturnCipher(cipher);
    }

    /// <summary>Decrypts a slot in place; false if it is not the one that was written there.</summary>
    public bool TryDecrypt(int ordinal, Span<byte> slot, out SlotHeader header) =>
        TryDecrypt(ordinal, slot, slot[..(SlotHeader.Size + IBlockDevice.BlockSize)], out header);

    /// <summary>Decrypts a slot's header and content into <paramref name="text"/>: the slot's own beginning, or elsewhere altogether.</summary>
    public bool TryDecrypt(int ordinal, ReadOnlySpan<byte> slot, Span<byte> text, out SlotHeader header)
    {
        Span<byte> nonce = stackalloc byte[VolumeKeys.NonceSize];
        NonceOf(ordinal, nonce);
        var cipher = RentCipher();
        try
        {
            cipher.Decrypt(nonce, slot[..text.Length], slot[text.Length..], text, _volumeId);
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

        header = SlotHeader.Read(text);
        return true;
    }

    /// <summary>Reads one slot and fails unless it is the authentic content of <paramref name="block"/>.</summary>
    public void ReadSlot(int ordinal, uint block, Span<byte> slot)
    {
        if (File.Read(PositionOf(ordinal), slot[..SlotSize]) < SlotSize)
        {
            throw new VolumeException(VolumeErrorKind.Truncated, $"{Name} ends before slot {ordinal}");
        }

        DecryptContent(ordinal, block, slot[..SlotSize], slot[..(SlotHeader.Size + IBlockDevice.BlockSize)]);
    }

    /// <summary>Decrypts a slot's header and content into <paramref name="text"/>, and fails unless it is the authentic content of
    /// <paramref name="block"/>; then the caller clears what it holds.</summary>
    public void DecryptContent(int ordinal, uint block, ReadOnlySpan<byte> slot, Span<byte> text)
    {
        if (!TryDecrypt(ordinal, slot, text, out var header) || header.Block != block || !header.IsContent)
        {
            throw new VolumeException(VolumeErrorKind.NotAuthentic, $"slot {ordinal} of {Name} is not the one that was written there");
        }
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

    private static Segment ReadHeader(VolumeKeys keys, IStorageFile file, string name, uint sequence, SharedSegmentKey? shared)
    {
        Span<byte> untrustedHeader = stackalloc byte[HeaderSize];
        if (file.Read(0, untrustedHeader) < HeaderSize)
        {
            throw new VolumeException(VolumeErrorKind.Truncated, $"{name} is cut short in its header");
        }

        var header = (ReadOnlySpan<byte>)untrustedHeader;
        var segment = new Segment(keys, file, sequence, BinaryPrimitives.ReadUInt128LittleEndian(header[16..]), shared)
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
        _volumeId.CopyTo(header.AsSpan(32));
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
            return header.Slice(32, 16).SequenceEqual(_volumeId);
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
    private SlotCipher RentCipher()
    {
        foreach (ref var place in _ciphers.AsSpan())
        {
            if (Interlocked.Exchange(ref place, null) is { } cipher)
            {
                return cipher;
            }
        }

        return new SlotCipher(_key, VolumeKeys.TagSize);
    }

    private void ReturnCipher(SlotCipher cipher)
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

    private sealed class UnusableFile(VolumeException damage) : IStorageFile
    {
        public long Length => 0;

        public int Read(long offset, Span<byte> destination) => throw new VolumeException(damage.Kind, damage.Message, damage);

        public void Write(long offset, ReadOnlySpan<byte> source) => throw new VolumeException(damage.Kind, damage.Message, damage);

        public void SyncData()
        {
        }

        public void Allocate(long length) => throw new VolumeException(damage.Kind, damage.Message, damage);

        public void Truncate(long length) => throw new VolumeException(damage.Kind, damage.Message, damage);

        public void Dispose()
        {
        }
    }
}
