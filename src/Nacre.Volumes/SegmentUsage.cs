using System.Numerics;

namespace Nacre.Volumes;

/// <summary>Which slots the maps of a volume need, counted by one pass over their distinct pages.</summary>
/// <remarks>Exact for frozen maps. Over a map that is written to meanwhile it is a superset for every segment that was full before. The
/// caller holds the maintenance lock: pages carry the pass's marks.</remarks>
internal sealed class SegmentUsage
{
    private const int WordsPerSegment = Segment.MaximumSlots / 64;

    private readonly List<MapPage> _pages = [];
    private readonly List<uint> _firstBlocks = [];
    private ulong[]?[] _slots = new ulong[]?[16];

    private SegmentUsage()
    {
    }

    /// <summary>The distinct pages, in the order of their numbers.</summary>
    public IReadOnlyList<MapPage> Pages => _pages;

    public static SegmentUsage Of(IEnumerable<BlockMap> maps)
    {
        var usage = new SegmentUsage();
        foreach (var map in maps)
        {
            for (var i = 0; i < map.PageCount; i++)
            {
                if (map.Page(i) is { } page && page.Visit.Pass != usage)
                {
                    page.Visit = new PageVisit(usage, usage._pages.Count);
                    usage._pages.Add(page);
                    usage._firstBlocks.Add((uint)i * BlockMap.PageEntries);
                    usage.Mark(page);
                }
            }
        }

        return usage;
    }

    /// <summary>The number of a page that this pass saw.</summary>
    public int NumberOf(MapPage page) =>
        page.Visit.Pass == this ? page.Visit.Number : throw new InvalidOperationException("the page belongs to no map of this pass");

    public int LiveSlots(uint segmentIndex)
    {
        var live = 0;
        if (segmentIndex < _slots.Length && _slots[segmentIndex] is { } words)
        {
            foreach (var word in words)
            {
                live += BitOperations.PopCount(word);
            }
        }

        return live;
    }

    public long TotalLiveSlots() => Enumerable.Range(0, _slots.Length).Sum(index => (long)LiveSlots((uint)index));

    /// <summary>The entries that lie in one of <paramref name="segments"/>, in the order of their blocks, each once: maps that no longer
    /// share a page have most of its entries in common.</summary>
    public List<(uint Block, uint Entry)> EntriesIn(IReadOnlySet<uint> segments)
    {
        var wanted = new bool[_slots.Length];
        foreach (var index in segments.Where(index => index < wanted.Length))
        {
            wanted[index] = true;
        }

        var found = new List<(uint Block, uint Entry)>();
        for (var i = 0; i < _pages.Count; i++)
        {
            var entries = _pages[i].Entries;
            for (var at = 0; at < entries.Length; at++)
            {
                var entry = entries[at];
                var index = BlockMap.SegmentIndexOf(entry);
                if (index < wanted.Length && wanted[index])
                {
                    found.Add((_firstBlocks[i] + (uint)at, entry));
                }
            }
        }

        found.Sort();
        var distinct = 0;
        for (var i = 0; i < found.Count; i++)
        {
            if (i == 0 || found[i] != found[i - 1])
            {
                found[distinct++] = found[i];
            }
        }

        found.RemoveRange(distinct, found.Count - distinct);
        return found;
    }

    private void Mark(MapPage page)
    {
        foreach (var entry in page.Entries)
        {
            if (entry != 0)
            {
                var index = BlockMap.SegmentIndexOf(entry);
                if (index >= _slots.Length)
                {
                    Array.Resize(ref _slots, Math.Max(_slots.Length * 2, (int)index + 1));
                }

                var ordinal = BlockMap.OrdinalOf(entry);
                (_slots[index] ??= new ulong[WordsPerSegment])[ordinal / 64] |= 1UL << (ordinal % 64);
            }
        }
    }
}
