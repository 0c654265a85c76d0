namespace Nacre.Volumes;

/// <summary>Contents of slots on their way to the end of the log.</summary>
internal sealed class SlotCopies(int capacity)
{
    private readonly byte[] _contents = new byte[capacity * IBlockDevice.BlockSize];
    private readonly (uint Block, uint Source)[] _places = new (uint, uint)[capacity];
    private readonly byte[] _slot = new byte[Segment.SlotSize];

    public int Count { get; private set; }

    public (uint Block, uint Source, ReadOnlyMemory<byte> Content) this[int index] =>
        (_places[index].Block, _places[index].Source, _contents.AsMemory(index * IBlockDevice.BlockSize, IBlockDevice.BlockSize));

    /// <summary>Reads and authenticates a slot. One that is damaged is left where it is: false, and its segment stays.</summary>
    public bool TryAdd(Segment segment, uint block, uint entry)
    {
        var ordinal = BlockMap.OrdinalOf(entry);
        try
        {
            segment.ReadSlot(ordinal, block, _slot);
        }
        catch (VolumeException e)
        {
            segment.Damage = e;
            return false;
        }

        _slot.AsSpan(SlotHeader.Size, IBlockDevice.BlockSize).CopyTo(_contents.AsSpan(Count * IBlockDevice.BlockSize));
        _places[Count++] = (block, entry);
        return true;
    }

    public void Clear() => Count = 0;
}
