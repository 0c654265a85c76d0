using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace Nacre.Images.FileSystems;

/// <summary>An inode, and where its content lies.</summary>
internal sealed class ErofsInode
{
    public const int CompactSize = 32;

    private const int ExtendedSize = 64;

    // A directory with more is none that a person made: a million of its entries. Bounds what one inode makes the search read.
    private const long MaximumDirectory = 64 << 20;

    // Chunks or compressed clusters of a file: 4 GiB in blocks of 4 KiB. Bounds what one inode makes the search read.
    private const long MaximumIndexes = 1 << 20;

    private const int IndexesPerRead = 512;

    // What a compressed file's header says of its list of clusters.
    private const int WithLargePacks = 1;
    private const int WithLargeClusters = 2;
    private const int WithPackedTail = 8;
    private const uint NoBlock = uint.MaxValue;

    private readonly Layout _layout;
    private readonly bool _hasContent;
    private readonly bool _isFile;
    private readonly uint _place;

    private ErofsInode(long position, ReadOnlySpan<byte> bytes)
    {
        var format = BinaryPrimitives.ReadUInt16LittleEndian(bytes);
        var isExtended = (format & 1) != 0;
        _layout = (Layout)((format >> 1) & 7);
        _place = BinaryPrimitives.ReadUInt32LittleEndian(bytes[16..]);
        var attributes = BinaryPrimitives.ReadUInt16LittleEndian(bytes[2..]);
        Size = isExtended ? BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]) : BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]);
        var type = BinaryPrimitives.ReadUInt16LittleEndian(bytes[4..]) >> 12;
        _hasContent = Size > 0 && type is 4 or 8 or 10;
        _isFile = type == 8;
        Metadata = new ByteRange(position, (isExtended ? ExtendedSize : CompactSize) + (attributes == 0 ? 0 : 12 + (4 * (attributes - 1))));
    }

    private enum Layout
    {
        Plain = 0,
        CompressedFull = 1,
        Inline = 2,
        CompressedCompact = 3,
        Chunks = 4,
    }

    /// <summary>The inode with its attributes.</summary>
    public ByteRange Metadata { get; }

    private ulong Size { get; }

    /// <summary>Reads the inode at a position inside of the device; null if it can't be read.</summary>
    public static async Task<ErofsInode?> TryReadAsync(ErofsReader reader, long position, CancellationToken cancellationToken)
    {
        var untrustedBytes = new byte[ExtendedSize];
        if (!await reader.TryReadAsync(position, untrustedBytes.AsMemory(0, CompactSize), cancellationToken).ConfigureAwait(false))
        {
            return null;
        }

        return (untrustedBytes[0] & 1) == 0
            || await reader.TryReadAsync(position + CompactSize, untrustedBytes.AsMemory(CompactSize), cancellationToken).ConfigureAwait(false)
            ? new ErofsInode(position, untrustedBytes)
            : null;
    }

    /// <summary>Where a directory's blocks lie, in their order, each at most a block long; false if it is none, or its content makes no sense.</summary>
    public bool TryLocateDirectory(ErofsReader reader, out IEnumerable<ByteRange> blocks)
    {
        blocks = [];
        if (!_hasContent || Size > MaximumDirectory || _layout is not (Layout.Plain or Layout.Inline))
        {
            return false;
        }

        blocks = Flat(reader).SelectMany(place => Cut(place, reader.BlockSize));
        return true;

        static IEnumerable<ByteRange> Cut(ByteRange place, int size)
        {
            for (var offset = place.Offset; offset < place.End; offset += size)
            {
                yield return new ByteRange(offset, Math.Min(size, place.End - offset));
            }
        }
    }

    /// <summary>Where a regular file's content lies, in its order; false if it is none, is larger than <paramref name="maximum"/> bytes, or its blocks
    /// are not all in one place (compressed, in chunks).</summary>
    public bool TryLocateFile(ErofsReader reader, long maximum, out IEnumerable<ByteRange> places)
    {
        places = [];
        if (!_isFile || Size > (ulong)maximum || (Size > 0 && _layout is not (Layout.Plain or Layout.Inline)))
        {
            return false;
        }

        places = Size == 0 ? [] : Flat(reader);
        return true;
    }

    /// <summary>Where the content lies, and what says so; null for the rest where that makes no sense or can't be read.</summary>
    public async IAsyncEnumerable<ByteRange?> ContentAsync(ErofsReader reader, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        if (!_hasContent)
        {
            yield break;
        }

        switch (_layout)
        {
            case Layout.Plain or Layout.Inline when Size <= (ulong)reader.Size:
                foreach (var place in Flat(reader))
                {
                    yield return place;
                }

                break;
            case Layout.Chunks:
                await foreach (var place in ChunksAsync(reader, cancellationToken).ConfigureAwait(false))
                {
                    yield return place;
                }

                break;
            case Layout.CompressedFull or Layout.CompressedCompact:
                await foreach (var place in CompressedAsync(reader, cancellationToken).ConfigureAwait(false))
                {
                    yield return place;
                }

                break;
            default:
                yield return null;
                break;
        }
    }

    /// <summary>Whole blocks at one place; of an inline layout the last, partial one behind the inode.</summary>
    private IEnumerable<ByteRange> Flat(ErofsReader reader)
    {
        var size = (long)Size;
        var elsewhere = _layout == Layout.Inline ? (size - 1) / reader.BlockSize * reader.BlockSize : size;
        if (elsewhere > 0)
        {
            yield return new ByteRange(_place * (long)reader.BlockSize, elsewhere);
        }

        if (size > elsewhere)
        {
            yield return new ByteRange(Metadata.End, size - elsewhere);
        }
    }

    /// <summary>Chunks of one size; behind the inode a list of their first blocks.</summary>
    private async IAsyncEnumerable<ByteRange?> ChunksAsync(ErofsReader reader, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        const uint WithDevices = 0x20, BitsMask = 0x1F;
        var bits = System.Numerics.BitOperations.Log2((uint)reader.BlockSize) + (int)(_place & BitsMask);
        var chunks = (Size - 1) >> bits;
        if (chunks >= MaximumIndexes || Size > long.MaxValue)
        {
            yield return null;
            yield break;
        }

        var entrySize = (_place & WithDevices) != 0 ? 8 : 4;
        var list = new ByteRange(Align(Metadata.End, entrySize), ((long)chunks + 1) * entrySize);
        yield return list;
        var buffer = new byte[IndexesPerRead * entrySize];
        for (var done = 0L; done < list.Length; done += buffer.Length)
        {
            var part = buffer.AsMemory(0, (int)Math.Min(buffer.Length, list.Length - done));
            if (!await reader.TryReadAsync(list.Offset + done, part, cancellationToken).ConfigureAwait(false))
            {
                yield return null;
                yield break;
            }

            for (var at = 0; at < part.Length; at += entrySize)
            {
                var block = BinaryPrimitives.ReadUInt32LittleEndian(part.Span[(at + entrySize - 4)..]);
                var isElsewhere = entrySize == 8 && BinaryPrimitives.ReadUInt16LittleEndian(part.Span[(at + 2)..]) != 0;
                if (block != NoBlock && !isElsewhere)
                {
                    var before = (done + at) / entrySize << bits;
                    yield return new ByteRange(block * (long)reader.BlockSize, Math.Min(1L << bits, (long)Size - before));
                }
            }
        }
    }

    /// <summary>A list of clusters behind the inode, and the compressed blocks, which lie behind each other from the first one's on.</summary>
    private async IAsyncEnumerable<ByteRange?> CompressedAsync(ErofsReader reader, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        const int HeaderSize = 8, FullIndexSize = 8, FullPadding = 8;
        var untrustedHeader = new byte[HeaderSize];
        var header = new ByteRange(Align(Metadata.End, HeaderSize), HeaderSize);
        if (!await reader.TryReadAsync(header.Offset, untrustedHeader, cancellationToken).ConfigureAwait(false))
        {
            yield return null;
            yield break;
        }

        yield return header;
        var clusterBits = System.Numerics.BitOperations.Log2((uint)reader.BlockSize) + (untrustedHeader[7] & 7);
        var clusters = Size > long.MaxValue ? MaximumIndexes : (long)((Size - 1) >> clusterBits) + 1;
        if (clusters >= MaximumIndexes || reader.HasSharedBlocks || _place > reader.Size / reader.BlockSize)
        {
            yield return null;
            yield break;
        }

        var advice = BinaryPrimitives.ReadUInt16LittleEndian(untrustedHeader.AsSpan(4));
        ByteRange list;
        long firstBlockAt;
        var before = 0u;
        if (_layout == Layout.CompressedFull)
        {
            list = new ByteRange(header.End + FullPadding, clusters * FullIndexSize);
            firstBlockAt = list.Offset + 4;
        }
        else
        {
            list = Compacted(header.End, clusters, advice, out firstBlockAt, out before);
        }

        // The last cluster's content may lie behind the list.
        var packed = (advice & WithPackedTail) != 0 ? BinaryPrimitives.ReadUInt16LittleEndian(untrustedHeader.AsSpan(2)) : 0;
        yield return list with { Length = list.Length + packed };
        var untrustedBlock = new byte[4];
        if (!await reader.TryReadAsync(firstBlockAt, untrustedBlock, cancellationToken).ConfigureAwait(false))
        {
            yield return null;
            yield break;
        }

        if (_place > 0)
        {
            var first = (long)BinaryPrimitives.ReadUInt32LittleEndian(untrustedBlock) + before;
            yield return new ByteRange(first * reader.BlockSize, (long)_place * reader.BlockSize);
        }
    }

    /// <summary>The list of clusters in packs: of 2 clusters in 8 bytes, or of 16 in 32 bytes where these are aligned. A pack ends with a
    /// block number, from which those of its clusters are counted: the first is that one, or (no large clusters) the next.</summary>
    private static ByteRange Compacted(long start, long clusters, ushort advice, out long firstBlockAt, out uint before)
    {
        const int SmallPack = 8, LargePack = 32;
        var small = clusters;
        var large = 0L;
        var leading = (LargePack - (start % LargePack)) % LargePack / 4;
        if ((advice & WithLargePacks) != 0 && leading < clusters)
        {
            large = (clusters - leading) / 16;
            small = clusters - (large * 16);
        }

        firstBlockAt = start + (large > 0 && leading == 0 ? LargePack : SmallPack) - 4;
        before = (advice & WithLargeClusters) != 0 ? 0u : 1u;
        return new ByteRange(start, (large * LargePack) + ((small + 1) / 2 * SmallPack));
    }

    private static long Align(long offset, long size) => (offset + size - 1) / size * size;
}
