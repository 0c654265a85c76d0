using System.Buffers.Binary;
using Nacre.Volumes;

namespace Nacre.Images.FileSystems;

/// <summary>The superblock of an EROFS file system, and reading from its device.</summary>
internal sealed class ErofsReader
{
    private const int SuperblockOffset = 1024;
    private const int SuperblockSize = 128;
    private const uint Magic = 0xE0F5E1E2;
    private const int NodeSize = 32;

    // Padding, compression's settings, chunks or devices, second algorithm, packed tails, fragments or deduplication, prefixes of attributes.
    private const uint KnownFeatures = 0x7F;
    private const uint SharedBlocksFeature = 0x20;

    private readonly IBlockDevice _device;
    private readonly byte[] _cached = new byte[IBlockDevice.BlockSize];
    private long _cachedAt = -1;

    private ErofsReader(IBlockDevice device, ReadOnlySpan<byte> superblock)
    {
        _device = device;
        BlockSize = 1 << superblock[12];
        RootNode = BinaryPrimitives.ReadUInt16LittleEndian(superblock[14..]);
        HasSharedBlocks = (BinaryPrimitives.ReadUInt32LittleEndian(superblock[80..]) & SharedBlocksFeature) != 0;
        MetadataOffset = BinaryPrimitives.ReadUInt32LittleEndian(superblock[40..]) * (long)BlockSize;
    }

    public int BlockSize { get; }

    public ulong RootNode { get; }

    /// <summary>Whether compressed files may have blocks, or parts, in common.</summary>
    public bool HasSharedBlocks { get; }

    public long Size => _device.Size;

    private long MetadataOffset { get; }

    /// <summary>Reads the superblock; null if there is none, or one of a newer format.</summary>
    public static async Task<ErofsReader?> TryOpenAsync(IBlockDevice device, CancellationToken cancellationToken)
    {
        var untrustedBytes = new byte[SuperblockSize];
        if (device.Size < SuperblockOffset + SuperblockSize || !await TryReadAsync(device, SuperblockOffset, untrustedBytes, cancellationToken).ConfigureAwait(false))
        {
            return null;
        }

        return BinaryPrimitives.ReadUInt32LittleEndian(untrustedBytes) == Magic && untrustedBytes[12] is >= 9 and <= 16 && untrustedBytes[90] == 0
            && (BinaryPrimitives.ReadUInt32LittleEndian(untrustedBytes.AsSpan(80)) & ~KnownFeatures) == 0
            ? new ErofsReader(device, untrustedBytes)
            : null;
    }

    /// <summary>Where a node's inode begins; false if that is outside of the device.</summary>
    public bool TryPositionOf(ulong untrustedNode, out long position)
    {
        position = 0;
        if (untrustedNode > (ulong)Size / NodeSize || MetadataOffset + ((long)untrustedNode * NodeSize) > Size - NodeSize)
        {
            return false;
        }

        position = MetadataOffset + ((long)untrustedNode * NodeSize);
        return true;
    }

    /// <summary>Reads through one block that is kept: inodes lie close to each other. False if it can't be read, or lies outside.</summary>
    public async Task<bool> TryReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken)
    {
        if (offset < 0 || offset > Size - destination.Length)
        {
            return false;
        }

        while (!destination.IsEmpty)
        {
            var within = (int)(offset % IBlockDevice.BlockSize);
            var start = offset - within;
            if (start != _cachedAt)
            {
                _cachedAt = -1;
                if (!await TryReadAsync(_device, start, _cached.AsMemory(0, (int)Math.Min(_cached.Length, Size - start)), cancellationToken).ConfigureAwait(false))
                {
                    return false;
                }

                _cachedAt = start;
            }

            var part = Math.Min(destination.Length, _cached.Length - within);
            _cached.AsMemory(within, part).CopyTo(destination);
            destination = destination[part..];
            offset += part;
        }

        return true;
    }

    private static async Task<bool> TryReadAsync(IBlockDevice device, long offset, Memory<byte> destination, CancellationToken cancellationToken)
    {
        try
        {
            await device.ReadAsync(offset, destination, cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (VolumeException)
        {
            return false;
        }
    }
}
