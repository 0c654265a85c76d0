namespace Nacre.Volumes;

/// <summary>Where each block is: a page table of 32-bit entries, pages allocated when first written. Entry 0 is a hole.</summary>
/// <remarks>Reads may run beside one writer; the writer holds the volume's gate.</remarks>
internal sealed class BlockMap(uint blocks)
{
    public const int PageEntries = 1024;

    private const int OrdinalBits = 13;

    private readonly uint[]?[] _pages = new uint[]?[(blocks + PageEntries - 1) / PageEntries];

    public uint Blocks => blocks;

    public int PageCount => _pages.Length;

    /// <summary>How many pages hold an entry or once did.</summary>
    public int AllocatedPages { get; private set; }

    public static uint Entry(uint segmentIndex, int ordinal) => (segmentIndex << OrdinalBits) | (uint)ordinal;

    public static uint SegmentIndexOf(uint entry) => entry >> OrdinalBits;

    public static int OrdinalOf(uint entry) => (int)(entry & ((1 << OrdinalBits) - 1));

    public uint this[uint block] =>
        Volatile.Read(ref _pages[block / PageEntries]) is { } page ? Volatile.Read(ref page[block % PageEntries]) : 0;

    public uint[]? Page(int index) => _pages[index];

    /// <summary>Sets an entry and returns the one it replaces.</summary>
    public uint Exchange(uint block, uint entry)
    {
        ref var page = ref _pages[block / PageEntries];
        if (page is null)
        {
            if (entry == 0)
            {
                return 0;
            }

            Volatile.Write(ref page, new uint[PageEntries]);
            AllocatedPages++;
        }

        ref var place = ref page[block % PageEntries];
        var old = place;
        Volatile.Write(ref place, entry);
        return old;
    }

    /// <summary>How many blocks from <paramref name="block"/> on, at most <paramref name="limit"/>, are alike in being holes or not.</summary>
    public uint RunLength(uint block, uint limit, out bool isHole)
    {
        isHole = this[block] == 0;
        var length = 1u;
        while (length < limit)
        {
            var next = block + length;
            if (next % PageEntries == 0 && Volatile.Read(ref _pages[next / PageEntries]) is null)
            {
                if (!isHole)
                {
                    break;
                }

                length += Math.Min(PageEntries, limit - length);
            }
            else if (this[next] == 0 == isHole)
            {
                length++;
            }
            else
            {
                break;
            }
        }

        return length;
    }
}
