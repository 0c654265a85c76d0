using System.Buffers.Binary;
using System.Security.Cryptography;

namespace Nacre.Volumes;

/// <summary>The master key of a volume and the keys derived from it. Every key is HKDF-SHA-256 (SPEC VOL-010).</summary>
/// <remarks>Derivation may run on several threads. Disposing overwrites the master key.</remarks>
internal sealed class VolumeKeys : IDisposable
{
    public const int KeySize = 32;
    public const int NonceSize = 12;
    public const int TagSize = 16;

    private readonly byte[] _master;
    private readonly byte[] _volumeId = new byte[16];

    /// <summary>Takes ownership of <paramref name="master"/>.</summary>
    public VolumeKeys(UInt128 volumeId, byte[] master)
    {
        _master = master;
        VolumeId = volumeId;
        BinaryPrimitives.WriteUInt128LittleEndian(_volumeId, volumeId);
    }

    public UInt128 VolumeId { get; }

    /// <summary>The volume id as the additional data that binds every slot to its volume.</summary>
    public ReadOnlySpan<byte> VolumeIdBytes => _volumeId;

    public ReadOnlySpan<byte> Master => _master;

    /// <summary>A key buffer that the garbage collector never copies, so that overwriting it leaves nothing behind.</summary>
    public static byte[] NewKeyBuffer() => GC.AllocateArray<byte>(KeySize, pinned: true);

    public static UInt128 NewId()
    {
        Span<byte> id = stackalloc byte[16];
        RandomNumberGenerator.Fill(id);
        return BinaryPrimitives.ReadUInt128LittleEndian(id);
    }

    public void DeriveSegmentKey(UInt128 segmentId, Span<byte> key) => Derive("nacre volume segment v1"u8, segmentId, key);

    public void DeriveCheckpointKey(UInt128 checkpointId, Span<byte> key) => Derive("nacre volume checkpoint v1"u8, checkpointId, key);

    public void DeriveHeaderKey(Span<byte> key) => Derive("nacre volume header v1"u8, VolumeId, key);

    public static void DeriveWrappingKey(ReadOnlySpan<byte> slotKey, UInt128 volumeId, Span<byte> key)
    {
        Span<byte> salt = stackalloc byte[16];
        BinaryPrimitives.WriteUInt128LittleEndian(salt, volumeId);
        HKDF.DeriveKey(HashAlgorithmName.SHA256, slotKey, key, salt, "nacre volume key slot v1"u8);
    }

    public void Dispose() => CryptographicOperations.ZeroMemory(_master);

    private void Derive(ReadOnlySpan<byte> purpose, UInt128 id, Span<byte> key)
    {
        Span<byte> salt = stackalloc byte[16];
        BinaryPrimitives.WriteUInt128LittleEndian(salt, id);
        Span<byte> info = stackalloc byte[purpose.Length + 16];
        purpose.CopyTo(info);
        _volumeId.CopyTo(info[purpose.Length..]);
        HKDF.DeriveKey(HashAlgorithmName.SHA256, _master, key, salt, info);
    }
}
