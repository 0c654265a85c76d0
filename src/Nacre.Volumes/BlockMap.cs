using System.Runtime.CompilerServices;

namespace Nacre.Volumes;

/// <summary>Where each block is: a page table of 32-bit entries, pages allocated when first written. Entry 0 is a hole.</summary>
/// <remarks>Maps share pages: a frozen map keeps the ones it had, and its successor copies a page before its first change. Reads may run
/// beside one writer; the writer holds the volume's gate.</remarks>
internal sealed class BlockMap
{
    public const int PageEntries = 1024;

    private const int OrdinalBits = 13;

    private MapPage?[] _pages;

    // Pages of this owner belong to this map alone; a page of another owner is copied before it is changed. Null: frozen.
    private object? _owner = new();

    public BlockMap(uint blocks)
        : this(blocks, new MapPage?[PagesOf(blocks)], 0)
    {
    }

    private BlockMap(uint blocks, MapPage?[] pages, long liveBlocks)
    {
        Blocks = blocks;
        _pages = pages;
        LiveBlocks = liveBlocks;
    }

    public uint Blocks { get; private set; }

    /// <summary>Blocks that are not holes.</summary>
    public long LiveBlocks { get; private set; }

    public int PageCount => _pages.Length;

    public static uint Entry(uint segmentIndex, int ordinal) => (segmentIndex << OrdinalBits) | (uint)ordinal;

    public static uint SegmentIndexOf(uint entry) => entry >> OrdinalBits;

    public static int OrdinalOf(uint entry) => (int)(entry & ((1 << OrdinalBits) - 1));

    public uint this[uint block] =>
        Volatile.Read(ref Volatile.Read(ref _pages)[block / PageEntries]) is { } page ? Volatile.Read(ref page.At(block)) : 0;

    public MapPage? Page(int index) => Volatile.Read(ref _pages[index]);

    /// <summary>Puts a page of a checkpoint in its place, shared with other maps, and counts what it holds.</summary>
    public void Share(int index, MapPage page, int liveBlocks)
    {
        _pages[index] = page;
        LiveBlocks += liveBlocks;
    }

    /// <summary>Sets an entry.</summary>
    public void Set(uint block, uint entry)
    {
        ref var place = ref _pages[block / PageEntries];
        var page = place;
        if (page is null || page.Owner != _owner)
        {
            if (page is null && entry == 0)
            {
                return;
            }

            page = new MapPage(page, _owner ?? throw new InvalidOperationException("the map is frozen"));
            Volatile.Write(ref place, page);
        }

        ref var old = ref page.At(block);
        LiveBlocks += (entry == 0 ? 0 : 1) - (old == 0 ? 0 : 1);
        Volatile.Write(ref old, entry);
    }

    /// <summary>Makes every block a hole: the pages that other maps share stay theirs, and nothing is copied.</summary>
    public void Clear()
    {
        Volatile.Write(ref _pages, new MapPage?[_pages.Length]);
        LiveBlocks = 0;
    }

    /// <summary>Points a block at another slot with the same content, in every map that shares the page; false if it points elsewhere.</summary>
    public bool TryMove(uint block, uint source, uint target)
    {
        if (block >= Blocks || this[block] != source)
        {
            return false;
        }

        Volatile.Write(ref _pages[block / PageEntries]!.At(block), target);
        return true;
    }

    /// <summary>The map as it is now, for ever; this one goes on and copies what it changes.</summary>
    /// <param name="blocks">The size to keep: no block beyond it was ever written.</param>
    public BlockMap Freeze(uint blocks)
    {
        _owner = new object();
        return new BlockMap(blocks, _pages[..PagesOf(blocks)], LiveBlocks) { _owner = null };
    }

    /// <summary>A map that begins as this one, at least <paramref name="blocks"/> large, and may be changed.</summary>
    public BlockMap Thaw(uint blocks)
    {
        var map = new BlockMap(Blocks, (MapPage?[])_pages.Clone(), LiveBlocks);
        map.Grow(Math.Max(blocks, Blocks));
        return map;
    }

    public void Grow(uint blocks)
    {
        var pages = _pages;
        Array.Resize(ref pages, PagesOf(blocks));
        Volatile.Write(ref _pages, pages);
        Blocks = blocks;
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

    private static int PagesOf(uint blocks) => (int)((blocks + (PageEntries - 1L)) / PageEntries);
}

/// <summary>The entries of 1024 consecutive blocks, 4 MiB of the volume.</summary>
internal sealed class MapPage
{
    private EntryArray _entries;

    public MapPage(MapPage? source, object? owner)
    {
        Owner = owner;
        if (source is not null)
        {
            _entries = source._entries;
        }
    }

    /// <summary>The state of the one map that may change the page; null where none may.</summary>
    public object? Owner { get; }

    /// <summary>A mark of the pass that last visited the page; belongs to the holder of the maintenance lock.</summary>
    public PageVisit Visit { get; set; }

    public Span<uint> Entries => _entries;

    public ref uint At(uint block) => ref _entries[(int)(block % BlockMap.PageEntries)];

    [InlineArray(BlockMap.PageEntries)]
    private struct EntryArray
    {
        private uint _first;
    }
}

/// <summary>Which pass saw a page, and as which number.</summary>
internal readonly record struct PageVisit(object? Pass, int Number);
