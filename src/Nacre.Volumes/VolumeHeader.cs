using System.Buffers.Binary;
using System.Security.Cryptography;
using Nacre.Volumes.Storage;

namespace Nacre.Volumes;

/// <summary>The file <c>header</c>: what the volume is, and its master key wrapped under up to eight slot keys (SPEC, "Header").</summary>
internal sealed class VolumeHeader
{
    public const string FileName = "header";
    public const int KeySlots = 8;
    public const uint FormatVersion = 2;
    public const uint KnownIncompatibleFeatures = 0;

    private const int Length = 4096;
    private const int KeySlotsOffset = 64;
    private const int KeySlotLength = 64;
    private const int NonceOffset = 4064;
    private const int TagOffset = 4080;

    private static ReadOnlySpan<byte> Magic => "NACREVOL"u8;

    private readonly byte[] _bytes;

    private VolumeHeader(byte[] bytes) => _bytes = bytes;

    public UInt128 VolumeId => BinaryPrimitives.ReadUInt128LittleEndian(_bytes.AsSpan(16));

    public long Size => BinaryPrimitives.ReadInt64LittleEndian(_bytes.AsSpan(32));

    public int SegmentSlots => BinaryPrimitives.ReadInt32LittleEndian(_bytes.AsSpan(40));

    public static VolumeHeader New(long size, int segmentSlots)
    {
        var bytes = new byte[Length];
        Magic.CopyTo(bytes);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(8), FormatVersion);
        BinaryPrimitives.WriteUInt128LittleEndian(bytes.AsSpan(16), VolumeKeys.NewId());
        BinaryPrimitives.WriteInt64LittleEndian(bytes.AsSpan(32), size);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(40), segmentSlots);
        return new VolumeHeader(bytes);
    }

    /// <summary>Reads the file and refuses what this version cannot open. Nothing in it is trusted before <see cref="Unlock"/>.</summary>
    public static VolumeHeader Read(IVolumeStorage storage)
    {
        var untrustedBytes = new byte[Length];
        using var file = storage.Open(FileName, writable: false);
        if (file.Read(0, untrustedBytes) < Length)
        {
            throw new VolumeException(VolumeErrorKind.Truncated, "the volume's header is cut short");
        }

        if (!untrustedBytes.AsSpan(0, 8).SequenceEqual(Magic))
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, "the volume's header has another format");
        }

        var version = BinaryPrimitives.ReadUInt32LittleEndian(untrustedBytes.AsSpan(8));
        var features = BinaryPrimitives.ReadUInt32LittleEndian(untrustedBytes.AsSpan(12));
        if (version != FormatVersion || (features & ~KnownIncompatibleFeatures) != 0)
        {
            throw new VolumeException(VolumeErrorKind.Unsupported, $"the volume has format {version} with features {features:x8}");
        }

        return new VolumeHeader(untrustedBytes);
    }

    /// <summary>Finds the key slot that <paramref name="slotKey"/> opens and authenticates the whole header.</summary>
    public VolumeKeys Unlock(ReadOnlySpan<byte> slotKey)
    {
        var master = VolumeKeys.NewKeyBuffer();
        for (var slot = 0; slot < KeySlots; slot++)
        {
            if (TryUnwrap(slot, slotKey, master))
            {
                var keys = new VolumeKeys(VolumeId, master);
                if (TryAuthenticate(keys))
                {
                    return keys;
                }

                keys.Dispose();
                throw new VolumeException(VolumeErrorKind.NotAuthentic, "the volume's header was changed");
            }
        }

        throw new VolumeException(VolumeErrorKind.WrongKey, "the key opens no key slot of the volume");
    }

    /// <summary>Wraps the master key under one more slot key.</summary>
    public void AddKeySlot(VolumeKeys keys, ReadOnlySpan<byte> slotKey)
    {
        for (var slot = 0; slot < KeySlots; slot++)
        {
            var bytes = KeySlot(slot);
            if (bytes[0] == 0)
            {
                bytes[0] = 1;
                var nonce = bytes.Slice(4, VolumeKeys.NonceSize);
                RandomNumberGenerator.Fill(nonce);
                using var cipher = WrappingCipher(slotKey);
                cipher.Encrypt(nonce, keys.Master, bytes.Slice(16, 32), bytes.Slice(48, 16), keys.VolumeIdBytes);
                return;
            }
        }

        throw new VolumeException(VolumeErrorKind.NoSpace, "all key slots of the volume are used");
    }

    /// <summary>Empties every slot that <paramref name="slotKey"/> opens; returns how many slots remain in use.</summary>
    public int RemoveKeySlot(ReadOnlySpan<byte> slotKey)
    {
        Span<byte> master = stackalloc byte[VolumeKeys.KeySize];
        var (removed, remaining) = (0, 0);
        for (var slot = 0; slot < KeySlots; slot++)
        {
            if (TryUnwrap(slot, slotKey, master))
            {
                CryptographicOperations.ZeroMemory(master);
                KeySlot(slot).Clear();
                removed++;
            }
            else if (KeySlot(slot)[0] != 0)
            {
                remaining++;
            }
        }

        return removed > 0 ? remaining : throw new VolumeException(VolumeErrorKind.WrongKey, "the key opens no key slot of the volume");
    }

    /// <summary>States another size; the caller writes the header.</summary>
    public void Resize(long size) => BinaryPrimitives.WriteInt64LittleEndian(_bytes.AsSpan(32), size);

    public VolumeHeader Copy() => new((byte[])_bytes.Clone());

    /// <summary>Seals the header and replaces the file in one step that is durable on return.</summary>
    public void Write(IVolumeStorage storage, VolumeKeys keys)
    {
        RandomNumberGenerator.Fill(_bytes.AsSpan(NonceOffset, VolumeKeys.NonceSize));
        using (var cipher = HeaderCipher(keys))
        {
            cipher.Encrypt(_bytes.AsSpan(NonceOffset, VolumeKeys.NonceSize), [], [], _bytes.AsSpan(TagOffset), _bytes.AsSpan(0, TagOffset));
        }

        const string Temporary = FileName + VolumeFiles.TemporarySuffix;
        using (var file = storage.Create(Temporary))
        {
            file.Write(0, _bytes);
            file.SyncData();
        }

        storage.Rename(Temporary, FileName);
        storage.SyncDirectory();
    }

    private static AesGcm HeaderCipher(VolumeKeys keys)
    {
        Span<byte> key = stackalloc byte[VolumeKeys.KeySize];
        keys.DeriveHeaderKey(key);
        var cipher = new AesGcm(key, VolumeKeys.TagSize);
        CryptographicOperations.ZeroMemory(key);
        return cipher;
    }

    private AesGcm WrappingCipher(ReadOnlySpan<byte> slotKey)
    {
        Span<byte> key = stackalloc byte[VolumeKeys.KeySize];
        VolumeKeys.DeriveWrappingKey(slotKey, VolumeId, key);
        var cipher = new AesGcm(key, VolumeKeys.TagSize);
        CryptographicOperations.ZeroMemory(key);
        return cipher;
    }

    private bool TryUnwrap(int slot, ReadOnlySpan<byte> slotKey, Span<byte> master)
    {
        var bytes = KeySlot(slot);
        if (bytes[0] == 0)
        {
            return false;
        }

        Span<byte> volumeId = stackalloc byte[16];
        BinaryPrimitives.WriteUInt128LittleEndian(volumeId, VolumeId);
        using var cipher = WrappingCipher(slotKey);
        try
        {
            cipher.Decrypt(bytes.Slice(4, VolumeKeys.NonceSize), bytes.Slice(16, 32), bytes.Slice(48, 16), master, volumeId);
            return true;
        }
        catch (AuthenticationTagMismatchException)
        {
            return false;
        }
    }

    private bool TryAuthenticate(VolumeKeys keys)
    {
        using var cipher = HeaderCipher(keys);
        try
        {
            cipher.Decrypt(_bytes.AsSpan(NonceOffset, VolumeKeys.NonceSize), [], _bytes.AsSpan(TagOffset), [], _bytes.AsSpan(0, TagOffset));
        }
        catch (AuthenticationTagMismatchException)
        {
            return false;
        }

        return Size is > 0 and <= VolumeOptions.MaximumSize && Size % IBlockDevice.BlockSize == 0
            && SegmentSlots is > 0 and <= Segment.MaximumSlots
            ? true
            : throw new VolumeException(VolumeErrorKind.Corrupt, "the volume's header states an impossible size");
    }

    private Span<byte> KeySlot(int slot) => _bytes.AsSpan(KeySlotsOffset + (slot * KeySlotLength), KeySlotLength);
}
