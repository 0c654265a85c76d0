using System.IO.Hashing;
using Nacre.Volumes;

namespace Nacre.Images.Publishing;

/// <summary>
/// Cuts a disk into chunks by content, on the grid of its blocks: 4 to 64 blocks, 16 on average (64 KiB). Where a block is inserted or
/// removed, cuts move with the content, so what did not change keeps its chunks. Runs of zero blocks are holes.
/// </summary>
internal sealed class Chunker
{
    private const int MinBlocks = 4;
    private const int MaxBlocks = 64;

    /// <summary>A longer hole is several: a batch of the publisher always holds at least one whole chunk.</summary>
    private const int MaxHoleBlocks = 1024;

    /// <summary>A cut follows a block whose hash is a multiple of this: after the least length, 12 more blocks on average.</summary>
    private const ulong Divisor = 12;

    private readonly long seed;
    private int blocks;
    private bool hole;

    public Chunker(long seed) => this.seed = seed;

    /// <summary>A chunk that ends.</summary>
    /// <param name="Blocks">Its length.</param>
    /// <param name="IsHole">Whether all of it is zero.</param>
    public readonly record struct Cut(int Blocks, bool IsHole);

    /// <summary>Takes the next block.</summary>
    /// <param name="block">Exactly one block.</param>
    /// <param name="cuts">Receives the chunks that end: before this block, at it, or none.</param>
    public void Add(ReadOnlySpan<byte> block, List<Cut> cuts)
    {
        var zero = !block.ContainsAnyExcept((byte)0);
        if (blocks > 0 && (zero != hole || blocks == (hole ? MaxHoleBlocks : MaxBlocks)))
        {
            Finish(cuts);
        }

        hole = zero;
        blocks++;
        if (!zero && blocks >= MinBlocks && XxHash64.HashToUInt64(block, seed) % Divisor == 0)
        {
            Finish(cuts);
        }
    }

    /// <summary>Ends the last chunk.</summary>
    public void Finish(List<Cut> cuts)
    {
        if (blocks > 0)
        {
            cuts.Add(new Cut(blocks, hole));
            blocks = 0;
        }
    }

    /// <summary>Bytes in <paramref name="blocks"/> blocks.</summary>
    public static int Bytes(int blocks) => blocks * IBlockDevice.BlockSize;
}
