using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;

namespace Nacre.Volumes;

/// <summary>What a checkpoint states: the maps, frozen, and where the log ended then.</summary>
internal sealed record LogState(
    LogTail Tail, BlockMap Map, IReadOnlyList<SnapshotState> Snapshots, uint LastSnapshot, IReadOnlyList<(Segment Segment, int Slots)> Segments)
{
    public IEnumerable<BlockMap> Maps => Snapshots.Select(snapshot => snapshot.Map).Prepend(Map);
}

/// <summary>The files <c>checkpoint-…</c>: all maps and the log's position (SPEC, "Checkpoints").</summary>
internal static class CheckpointFile
{
    public const int MaximumNameBytes = 128;
    public const int MaximumSnapshots = 4096;

    private const int HeadSize = CheckpointSeal.MinimumBody;
    private const int SegmentSize = 32;
    private const int SharedKeySize = 56;
    private const int PageSize = BlockMap.PageEntries * 4;
    private const int MapSize = 160;
    private const int PlacementSize = 8;

    /// <summary>Writes a checkpoint, durable on return. The caller made all slots before the tail durable.</summary>
    /// <param name="log">Whose storage and keys.</param>
    /// <param name="number">The checkpoint's number.</param>
    /// <param name="state">What to write; its segments are those that it names.</param>
    /// <param name="usage">A pass over the state's maps.</param>
    /// <returns>The body's length in bytes.</returns>
    public static long Write(VolumeLog log, uint number, LogState state, SegmentUsage usage)
    {
        var placements = state.Maps.ToDictionary(map => map, PlacementsOf);
        var shared = state.Segments.Where(segment => segment.Segment.IsShared).ToArray();
        var body = HeadSize + ((long)state.Segments.Count * SegmentSize) + ((long)shared.Length * SharedKeySize) + ((long)usage.Pages.Count * PageSize)
            + placements.Values.Sum(pages => MapSize + ((long)pages.Count * PlacementSize));
        var name = VolumeFiles.Checkpoint(number);
        var temporary = name + VolumeFiles.TemporarySuffix;
        using var file = log.Storage.Create(temporary);
        try
        {
            using var writer = new CheckpointWriter(log.Keys, file, number, body);
            WriteHead(writer, state, shared.Length, usage.Pages.Count);
            WriteSegments(writer, state.Segments, shared);
            foreach (var page in usage.Pages)
            {
                writer.Write(MemoryMarshal.AsBytes(page.Entries));
            }

            WriteMap(writer, new VolumeSnapshot(0, "", default, 0, 0), state.Map, placements[state.Map], usage);
            foreach (var snapshot in state.Snapshots)
            {
                WriteMap(writer, snapshot.Info, snapshot.Map, placements[snapshot.Map], usage);
            }

            writer.Complete();
            file.SyncData();
        }
        catch (VolumeException)
        {
            log.Storage.Delete(temporary);
            throw;
        }

        log.Storage.Rename(temporary, name);
        log.Storage.SyncDirectory();
        return body;
    }

    /// <summary>Loads a checkpoint into an empty state, opening the segments that it names.</summary>
    /// <param name="log">The state.</param>
    /// <param name="number">The checkpoint's number.</param>
    /// <param name="writable">Whether the last segment is opened for writing.</param>
    /// <param name="tolerant">Whether to go on past segments that cannot be used, noting them in <see cref="VolumeLog.Damages"/>.</param>
    public static void Load(VolumeLog log, uint number, bool writable, bool tolerant)
    {
        var name = VolumeFiles.Checkpoint(number);
        using var file = log.Storage.Open(name, writable: false);
        using var reader = new CheckpointReader(log.Keys, file, number);
        Span<byte> head = stackalloc byte[HeadSize];
        reader.Read(head);
        var blocks = BinaryPrimitives.ReadUInt32LittleEndian(head);
        var tailSlots = BinaryPrimitives.ReadInt32LittleEndian(head[28..]);
        log.Tail = new LogTail(BinaryPrimitives.ReadUInt32LittleEndian(head[24..]), BinaryPrimitives.ReadUInt128LittleEndian(head[8..]), tailSlots);
        var (segments, pages) = (BinaryPrimitives.ReadInt32LittleEndian(head[32..]), BinaryPrimitives.ReadInt32LittleEndian(head[36..]));
        var (keys, snapshots) = (BinaryPrimitives.ReadInt32LittleEndian(head[40..]), BinaryPrimitives.ReadInt32LittleEndian(head[44..]));
        log.LastSnapshot = BinaryPrimitives.ReadUInt32LittleEndian(head[48..]);
        Require(
            blocks <= log.Map.Blocks && segments >= 0 && pages >= 0 && keys >= 0 && keys <= segments && snapshots is >= 0 and <= MaximumSnapshots
            && tailSlots is >= 0 and <= Segment.MaximumSlots
            && reader.BodyLength >= HeadSize + ((long)segments * SegmentSize) + ((long)keys * SharedKeySize) + ((long)pages * PageSize)
                + ((1L + snapshots) * MapSize),
            name);
        LoadSegments(log, reader, segments, keys, writable, tolerant, name);
        Require(log.SegmentNumbered(log.Tail.Sequence) is not { } last || last.Count == tailSlots, name);
        var loaded = new (MapPage Page, int Live)[pages];
        for (var i = 0; i < pages; i++)
        {
            loaded[i] = LoadPage(log, reader, name);
        }

        log.Map = LoadMap(log, reader, loaded, name, out _).Thaw(log.Map.Blocks);
        for (var i = 0; i < snapshots; i++)
        {
            var map = LoadMap(log, reader, loaded, name, out var info);
            Require(info.Id > 0 && info.Id <= log.LastSnapshot, name);
            log.Snapshots = [.. log.Snapshots, new SnapshotState(info, map)];
        }

        log.Checkpoint = number;
        log.CheckpointTail = log.Tail;
        log.CheckpointBytes = reader.BodyLength;
    }

    private static List<int> PlacementsOf(BlockMap map) =>
        [.. Enumerable.Range(0, map.PageCount).Where(index => map.Page(index) is not null)];

    private static void WriteHead(CheckpointWriter writer, LogState state, int sharedKeys, int pages)
    {
        Span<byte> head = stackalloc byte[HeadSize];
        head.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(head, state.Map.Blocks);
        BinaryPrimitives.WriteUInt128LittleEndian(head[8..], state.Tail.SegmentId);
        BinaryPrimitives.WriteUInt32LittleEndian(head[24..], state.Tail.Sequence);
        BinaryPrimitives.WriteInt32LittleEndian(head[28..], state.Tail.Slots);
        BinaryPrimitives.WriteInt32LittleEndian(head[32..], state.Segments.Count);
        BinaryPrimitives.WriteInt32LittleEndian(head[36..], pages);
        BinaryPrimitives.WriteInt32LittleEndian(head[40..], sharedKeys);
        BinaryPrimitives.WriteInt32LittleEndian(head[44..], state.Snapshots.Count);
        BinaryPrimitives.WriteUInt32LittleEndian(head[48..], state.LastSnapshot);
        writer.Write(head);
    }

    private static void WriteSegments(CheckpointWriter writer, IReadOnlyList<(Segment Segment, int Slots)> segments, (Segment Segment, int Slots)[] shared)
    {
        Span<byte> entry = stackalloc byte[SegmentSize];
        foreach (var (segment, slots) in segments)
        {
            entry.Clear();
            BinaryPrimitives.WriteUInt128LittleEndian(entry, segment.Id);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[16..], segment.Sequence);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[20..], segment.Index);
            BinaryPrimitives.WriteInt32LittleEndian(entry[24..], slots);
            writer.Write(entry);
        }

        Span<byte> key = stackalloc byte[SharedKeySize];
        foreach (var (segment, _) in shared)
        {
            var (volumeId, bytes) = segment.ShareKey();
            key.Clear();
            BinaryPrimitives.WriteUInt32LittleEndian(key, segment.Sequence);
            BinaryPrimitives.WriteUInt128LittleEndian(key[8..], volumeId);
            bytes.CopyTo(key[24..]);
            writer.Write(key);
        }
    }

    private static void WriteMap(CheckpointWriter writer, VolumeSnapshot info, BlockMap map, List<int> placements, SegmentUsage usage)
    {
        Span<byte> head = stackalloc byte[MapSize];
        head.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(head, info.Id);
        BinaryPrimitives.WriteUInt32LittleEndian(head[4..], map.Blocks);
        BinaryPrimitives.WriteInt64LittleEndian(head[8..], info.Taken.ToUnixTimeMilliseconds());
        BinaryPrimitives.WriteInt32LittleEndian(head[16..], placements.Count);
        BinaryPrimitives.WriteInt32LittleEndian(head[20..], Encoding.UTF8.GetBytes(info.Name, head[32..]));
        writer.Write(head);
        Span<byte> placement = stackalloc byte[PlacementSize];
        foreach (var index in placements)
        {
            BinaryPrimitives.WriteInt32LittleEndian(placement, index);
            BinaryPrimitives.WriteInt32LittleEndian(placement[4..], usage.NumberOf(map.Page(index)!));
            writer.Write(placement);
        }
    }

    private static void LoadSegments(VolumeLog log, CheckpointReader reader, int segments, int keys, bool writable, bool tolerant, string name)
    {
        var entries = new byte[segments * SegmentSize];
        reader.Read(entries);
        var shared = new Dictionary<uint, SharedSegmentKey>();
        Span<byte> key = stackalloc byte[SharedKeySize];
        for (var i = 0; i < keys; i++)
        {
            reader.Read(key);
            var sequence = BinaryPrimitives.ReadUInt32LittleEndian(key);
            Require(shared.TryAdd(sequence, new SharedSegmentKey(BinaryPrimitives.ReadUInt128LittleEndian(key[8..]), key[24..].ToArray())), name);
        }

        var present = VolumeFiles.Segments(log.Storage.List());
        for (var i = 0; i < segments; i++)
        {
            var entry = entries.AsSpan(i * SegmentSize, SegmentSize);
            var sequence = BinaryPrimitives.ReadUInt32LittleEndian(entry[16..]);
            var index = BinaryPrimitives.ReadUInt32LittleEndian(entry[20..]);
            var slots = BinaryPrimitives.ReadInt32LittleEndian(entry[24..]);
            Require(
                index is > 0 and < 1 << 19 && log.SegmentAt(index) is null && slots is >= 0 and <= Segment.MaximumSlots
                && sequence <= log.Tail.Sequence,
                name);
            Segment segment;
            try
            {
                segment = OpenSegment(log, present, entry, shared.GetValueOrDefault(sequence), writable && sequence == log.Tail.Sequence, name);
            }
            catch (VolumeException e) when (tolerant)
            {
                log.Damages.Add(e);
                segment = Segment.Unusable(log.Keys, sequence, slots, e);
            }

            segment.Count = slots;
            segment.Flushed = slots;
            log.AddAt(index, segment);
            log.StoredSlots += slots;
        }
    }

    private static Segment OpenSegment(
        VolumeLog log, SortedSet<uint> present, ReadOnlySpan<byte> entry, SharedSegmentKey? shared, bool writable, string name)
    {
        var sequence = BinaryPrimitives.ReadUInt32LittleEndian(entry[16..]);
        var slots = BinaryPrimitives.ReadInt32LittleEndian(entry[24..]);
        if (!present.Contains(sequence))
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, $"{VolumeFiles.Segment(sequence)} is missing, and {name} needs it");
        }

        var segment = Segment.Open(log.Storage, log.Keys, sequence, writable, shared);
        var damage = segment.Id != BinaryPrimitives.ReadUInt128LittleEndian(entry)
            ? new VolumeException(VolumeErrorKind.NotAuthentic, $"{segment.Name} is not the segment that {name} names")
            : segment.File.Length < Segment.PositionOf(slots)
            ? new VolumeException(VolumeErrorKind.Truncated, $"{segment.Name} ends before the {slots} slots that {name} names")
            : null;
        if (damage is null)
        {
            return segment;
        }

        segment.Dispose();
        throw damage;
    }

    private static (MapPage Page, int Live) LoadPage(VolumeLog log, CheckpointReader reader, string name)
    {
        var page = new MapPage(source: null, owner: null);
        reader.Read(MemoryMarshal.AsBytes(page.Entries));
        var live = 0;
        foreach (var entry in page.Entries)
        {
            if (entry != 0)
            {
                var segment = log.SegmentAt(BlockMap.SegmentIndexOf(entry));
                Require(segment is not null && BlockMap.OrdinalOf(entry) < segment.Count, name);
                live++;
            }
        }

        return (page, live);
    }

    private static BlockMap LoadMap(VolumeLog log, CheckpointReader reader, (MapPage Page, int Live)[] pages, string name, out VolumeSnapshot info)
    {
        Span<byte> head = stackalloc byte[MapSize];
        reader.Read(head);
        var blocks = BinaryPrimitives.ReadUInt32LittleEndian(head[4..]);
        var placements = BinaryPrimitives.ReadInt32LittleEndian(head[16..]);
        var nameBytes = BinaryPrimitives.ReadInt32LittleEndian(head[20..]);
        Require(blocks > 0 && blocks <= log.Map.Blocks && nameBytes is >= 0 and <= MaximumNameBytes, name);
        var taken = BinaryPrimitives.ReadInt64LittleEndian(head[8..]);
        Require(taken >= DateTimeOffset.MinValue.ToUnixTimeMilliseconds() && taken <= DateTimeOffset.MaxValue.ToUnixTimeMilliseconds(), name);
        var map = new BlockMap(blocks);
        Require(placements >= 0 && placements <= map.PageCount, name);
        Span<byte> placement = stackalloc byte[PlacementSize];
        for (var i = 0; i < placements; i++)
        {
            reader.Read(placement);
            var index = BinaryPrimitives.ReadInt32LittleEndian(placement);
            var number = BinaryPrimitives.ReadInt32LittleEndian(placement[4..]);
            Require(index >= 0 && index < map.PageCount && map.Page(index) is null && number >= 0 && number < pages.Length, name);
            var beyond = ((index + 1L) * BlockMap.PageEntries) - blocks;
            Require(beyond <= 0 || !pages[number].Page.Entries[(int)(BlockMap.PageEntries - beyond)..].ContainsAnyExcept(0u), name);
            map.Share(index, pages[number].Page, pages[number].Live);
        }

        info = new VolumeSnapshot(
            BinaryPrimitives.ReadUInt32LittleEndian(head), Encoding.UTF8.GetString(head.Slice(32, nameBytes)), DateTimeOffset.FromUnixTimeMilliseconds(taken),
            (long)blocks * IBlockDevice.BlockSize, map.LiveBlocks);
        return map;
    }

    private static void Require(bool condition, string name)
    {
        if (!condition)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, $"{name} contradicts itself");
        }
    }
}
