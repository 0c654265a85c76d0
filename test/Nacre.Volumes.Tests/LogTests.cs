using Nacre.Testing;
using Xunit;
using static Nacre.Volumes.Tests.TestVolume;

namespace Nacre.Volumes.Tests;

/// <summary>What the log promises, one sentence of SPEC.md at a time.</summary>
public sealed class LogTests
{
    [Fact]
    [Spec("VOL-001")]
    public async Task Unfinished_files_are_removed_by_a_writer_and_ignored_by_a_reader()
    {
        var files = await FilesAsync(blocks: 20);
        foreach (var name in new[] { "header.new", "segment-00000003.new", "segment-00000001.new", "checkpoint-00000009.new", "spare-00000001.new" })
        {
            files[name] = [1, 2, 3];
        }

        var storage = RecordingStorage.Of(files);
        var reader = Volume.Open(storage, Key, new VolumeOptions { ReadOnly = true });
        Assert.Equal(Content(19, 1), (await ReadAllAsync(reader))[(19 * Block)..(20 * Block)]);
        await reader.DisposeAsync();
        Assert.Equal(files.Keys.Order(), storage.Content.Keys.Order());
        await using var writer = Volume.Open(storage, Key, Small);
        Assert.DoesNotContain(storage.Content.Keys, name => name.EndsWith(".new", StringComparison.Ordinal));
        Assert.Equal(Content(19, 1), (await ReadAllAsync(writer))[(19 * Block)..(20 * Block)]);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Spec("VOL-012")]
    public async Task Each_opening_writes_to_a_segment_and_a_checkpoint_of_its_own(bool closed)
    {
        var files = await FilesAsync(blocks: 3, closed);
        var before = Only(files, "segment-");
        var storage = RecordingStorage.Of(files);
        var volume = Volume.Open(storage, Key, Small);
        Assert.Equal(before.Keys, Only(storage.Content, "segment-").Keys);
        await volume.WriteAsync(5, Content(5, 2));
        var after = Only(storage.Content, "segment-");
        Assert.Equal(before.Count + 1, after.Count);
        Assert.All(before, file => Assert.Equal(file.Value, after[file.Key]));
        Assert.Equal(after.Count, after.Values.Select(bytes => Convert.ToHexString(bytes.AsSpan(16, 16))).Distinct().Count());
        volume.Checkpoint();
        await volume.WriteAsync(6, Content(6, 2));
        volume.Checkpoint();
        var checkpoints = Only(files, "checkpoint-").Concat(Only(storage.Content, "checkpoint-"));
        Assert.Equal(checkpoints.Count(), checkpoints.Select(file => Convert.ToHexString(file.Value.AsSpan(16, 16))).Distinct().Count());
    }

    [Fact]
    [Spec("VOL-030")]
    public async Task After_a_full_disk_the_failed_slots_are_cut_off_durably_and_the_segment_takes_no_more()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        await volume.WriteAsync(1, Content(1, 1));
        var operations = new List<string>();
        storage.Before = (operation, name) =>
        {
            operations.Add($"{operation} {name}");
            if (operation == "write")
            {
                throw new VolumeException(VolumeErrorKind.NoSpace, "injected");
            }
        };
        await FailsAsync(VolumeErrorKind.NoSpace, async () => await volume.WriteAsync(2, Content(2, 1)));
        storage.Before = null;
        const string Made = "segment-00000001.new";
        Assert.Equal([$"truncate {Made}", $"sync {Made}"], operations.SkipWhile(operation => operation != $"truncate {Made}").Take(2));
        var cut = storage.Content["segment-00000001"];
        Assert.Equal(Segment.PositionOf(1), cut.Length);
        await volume.WriteAsync(2, Content(2, 2));
        Assert.Equal(cut, storage.Content["segment-00000001"]);
        Assert.Contains("segment-00000002", storage.Content.Keys);
        var content = await ReadAllAsync(Volume.Open(RecordingStorage.Of(storage.Content), Key, Small));
        Assert.Equal(Content(1, 1), content[Block..(2 * Block)]);
        Assert.Equal(Content(2, 2), content[(2 * Block)..(3 * Block)]);
    }

    [Fact]
    [Spec("VOL-031")]
    public async Task A_segment_is_durable_before_its_successor_is_made()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small with { CheckpointInterval = 1 << 30 }, Key);
        var pending = new HashSet<string>();
        storage.Before = (operation, name) =>
        {
            if (operation == "write" && name.StartsWith("segment-", StringComparison.Ordinal))
            {
                pending.Add(name);
            }
            else if (operation == "sync")
            {
                pending.Remove(name);
            }
            else if (operation == "rename" && name.StartsWith("segment-", StringComparison.Ordinal))
            {
                Assert.Empty(pending);
            }
        };
        for (var block = 0; block < 60; block++)
        {
            await volume.WriteAsync(block, Content(block, 1));
        }

        Assert.Contains("segment-00000004", storage.Content.Keys);
    }

    [Theory]
    [InlineData(15, true, VolumeErrorKind.NotAuthentic)]
    [InlineData(0, true, VolumeErrorKind.NotAuthentic)]
    [InlineData(15, false, VolumeErrorKind.Truncated)]
    [Spec("VOL-031", "VOL-002")]
    public async Task With_a_successor_every_slot_that_it_states_must_be_valid(int slot, bool flipped, VolumeErrorKind kind)
    {
        var files = await FilesAsync(blocks: 20, closed: false);
        var at = Segment.PositionOf(slot);
        var bytes = (byte[])files["segment-00000001"].Clone();
        bytes[at] ^= 1;
        files["segment-00000001"] = flipped ? bytes : bytes[..(int)(at + 1)];
        var error = await FailsAsync(kind, () => Task.Run(() => Volume.Open(RecordingStorage.Of(files), Key, Small)));
        Assert.Contains("segment-00000001", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    [Spec("VOL-031")]
    public async Task What_lies_beyond_the_slots_that_a_successor_states_is_ignored()
    {
        // Killed after three blocks, opened again: the successor states three slots. A fourth, authentic one behind them means nothing.
        var first = await FilesAsync(blocks: 4, closed: false);
        var files = new Dictionary<string, byte[]>(first);
        var three = (byte[])first["segment-00000001"].Clone();
        three.AsSpan((int)Segment.PositionOf(3)).Clear();
        files["segment-00000001"] = three;
        var storage = RecordingStorage.Of(files);
        var volume = Volume.Open(storage, Key, Small);
        await volume.WriteAsync(9, Content(9, 1), forceUnitAccess: true);
        files = new(storage.Content) { ["segment-00000001"] = first["segment-00000001"] };
        var content = await ReadAllAsync(Volume.Open(RecordingStorage.Of(files), Key, Small));
        Assert.False(content.AsSpan(3 * Block, Block).ContainsAnyExcept((byte)0));
        Assert.Equal(Content(2, 1), content[(2 * Block)..(3 * Block)]);
        Assert.Equal(Content(9, 1), content[(9 * Block)..(10 * Block)]);
    }

    [Fact]
    [Spec("VOL-034")]
    public async Task File_of_a_dead_segment_is_written_over_under_a_new_id_and_its_old_slots_mean_nothing()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        var (made, named) = (0, 0);
        storage.Before = (operation, name) =>
        {
            made += operation == "create" && name.StartsWith("segment-", StringComparison.Ordinal) ? 1 : 0;
            named += operation == "rename" && name.StartsWith("segment-", StringComparison.Ordinal) ? 1 : 0;
        };
        var ids = new HashSet<string>();
        for (var version = 1; version <= 40; version++)
        {
            for (var block = 0; block < 10; block++)
            {
                await volume.WriteAsync(block, Content(block, version));
            }

            foreach (var (name, bytes) in Only(storage.Content, "segment-"))
            {
                ids.Add($"{name} {Convert.ToHexString(bytes.AsSpan(16, 16))}");
            }

            // Killed at any of these moments, nothing older comes back.
            var content = await ReadAllAsync(Volume.Open(RecordingStorage.Of(storage.Content), Key, Small));
            Assert.All(Enumerable.Range(0, 10), block => Assert.Equal(Content(block, version), content[(block * Block)..((block + 1) * Block)]));
        }

        Assert.True(named > made, $"{named} segments in {made} files: none was written over");
        Assert.Equal(ids.Count, ids.Select(id => id.Split(' ')[1]).Distinct().Count());
    }

    [Fact]
    [Spec("VOL-032")]
    public async Task Buffer_of_a_read_that_fails_holds_nothing_of_the_slot()
    {
        var files = await FilesAsync(blocks: 8);
        var bytes = (byte[])files["segment-00000001"].Clone();
        bytes[Segment.PositionOf(3) + 2000] ^= 1;
        files["segment-00000001"] = bytes;
        await using var volume = Volume.Open(RecordingStorage.Of(files), Key, Small);
        foreach (var (offset, length) in new[] { (0, 8 * Block), (3 * Block, Block), ((3 * Block) + 100, 50), ((2 * Block) + 100, 2 * Block) })
        {
            var buffer = Enumerable.Repeat((byte)0xEE, length).ToArray();
            var error = await FailsAsync(VolumeErrorKind.NotAuthentic, async () => await volume.ReadAsync(offset, buffer, None));
            Assert.Contains("slot 3 of segment-00000001", error.Message, StringComparison.Ordinal);
            var start = Math.Max(0, (3 * Block) - offset);
            Assert.False(buffer.AsSpan(start, Math.Min(Block, length - start)).ContainsAnyExcept((byte)0), $"from {offset}");
        }
    }

    [Fact]
    [Spec("VOL-033")]
    public async Task Zeroes_are_holes_and_writing_them_to_holes_writes_nothing()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        await volume.WriteAsync(0, new byte[8 * Block], false, None);
        await volume.WriteZeroesAsync(0, 8 * Block, true, false, None);
        await volume.TrimAsync(0, 8 * Block, None);
        Assert.Equal((0, 0), (volume.Statistics.AppendedBytes, volume.Statistics.LiveBlocks));
        await volume.WriteAsync(2, Content(2, 1));
        await volume.WriteAsync(0, new byte[8 * Block], false, None);
        Assert.Equal((2 * Segment.SlotSize, 0), (volume.Statistics.AppendedBytes, volume.Statistics.LiveBlocks));
    }

    [Fact]
    [Spec("VOL-041")]
    public async Task Checkpoints_are_taken_on_demand_after_so_many_bytes_and_at_closing()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small with { CheckpointInterval = 33 * Segment.SlotSize }, Key);
        Assert.Empty(Only(storage.Content, "checkpoint-"));
        for (var block = 0; block < 48; block++)
        {
            await volume.WriteAsync(block, Content(block, 1));
            Assert.Equal(0, volume.Statistics.Checkpoints);
        }

        // 33 slots are passed in the third segment: due when it is left.
        await volume.WriteAsync(48, Content(48, 1));
        Assert.Equal(1, volume.Statistics.Checkpoints);
        volume.Checkpoint();
        Assert.Equal(2, volume.Statistics.Checkpoints);
        await volume.WriteAsync(50, Content(50, 1));
        await volume.DisposeAsync();
        var closed = Volume.Open(storage, Key, Small);
        Assert.Equal(0, closed.Statistics.ReplayedSlots);
        Assert.Equal("checkpoint-00000003", Assert.Single(Only(storage.Content, "checkpoint-")).Key);
    }

    [Fact]
    [Spec("VOL-042", "VOL-052", "VOL-072")]
    public async Task Segments_go_only_after_a_durable_checkpoint_that_does_not_name_them()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        for (var block = 0; block < 16; block++)
        {
            await volume.WriteAsync(block, Content(block, 1));
        }

        await volume.TrimAsync(0, 16 * Block, None);
        await volume.WriteAsync(20, Content(20, 1));
        volume.Checkpoint();
        var first = Assert.Single(Only(storage.Content, "checkpoint-")).Key;
        var operations = new List<string>();
        storage.Before = (operation, name) => operations.Add($"{operation} {name}".TrimEnd());
        await volume.TrimAsync(20 * Block, Block, None);
        await volume.WriteAsync(21, Content(21, 1));
        volume.Checkpoint();
        storage.Before = null;
        var second = Assert.Single(Only(storage.Content, "checkpoint-")).Key;
        var durable = operations.IndexOf($"rename {second}") + 1;
        Assert.Equal("syncfolder", operations[durable]);
        Assert.All(operations.Select((operation, i) => (operation, i)).Where(each => each.operation.StartsWith("delete", StringComparison.Ordinal) || each.operation.Contains("spare", StringComparison.Ordinal)),
            each => Assert.True(each.i > durable, $"{each.operation} before the checkpoint was durable"));
        Assert.Contains($"delete {first}", operations);

        // The hole records went with their segment, and the holes stay.
        Assert.DoesNotContain("segment-00000001", storage.Content.Keys);
        var content = await ReadAllAsync(Volume.Open(RecordingStorage.Of(storage.Content), Key, Small));
        Assert.False(content.AsSpan(0, 21 * Block).ContainsAnyExcept((byte)0));
    }

    [Fact]
    [Spec("VOL-051")]
    public async Task What_was_replayed_is_made_durable_by_the_first_flush()
    {
        var storage = RecordingStorage.Of(await FilesAsync(blocks: 3, closed: false));
        await using var volume = Volume.Open(storage, Key, Small);
        var before = storage.DataSyncs;
        await volume.FlushAsync(None);
        Assert.Equal(before + 1, storage.DataSyncs);
        await volume.FlushAsync(None);
        Assert.Equal(before + 1, storage.DataSyncs);
    }

    [Fact]
    [Spec("VOL-070")]
    public async Task Taking_rolling_back_to_and_deleting_a_snapshot_is_one_slot_and_one_sync()
    {
        var storage = new RecordingStorage();
        await using var volume = Volume.Create(storage, new VolumeOptions { Size = 64 << 20, SegmentSlots = 8192, BackgroundMaintenance = false }, Key);
        var content = new byte[16 << 20];
        new Random(1).NextBytes(content);
        await volume.WriteAsync(0, content, true, None);
        foreach (var action in new Action[] { () => volume.TakeSnapshot("a"), () => volume.RollBack("a") })
        {
            var (slots, syncs) = (volume.Statistics.AppendedBytes, storage.DataSyncs);
            action();
            Assert.Equal((slots + Segment.SlotSize, syncs + 1), (volume.Statistics.AppendedBytes, storage.DataSyncs));
        }

        var before = volume.Statistics.AppendedBytes;
        volume.DeleteSnapshot("a");
        Assert.Equal(before + Segment.SlotSize, volume.Statistics.AppendedBytes);
    }

    [Fact]
    [Spec("VOL-073")]
    public async Task Cleaning_copies_no_slot_that_is_damaged_and_its_block_goes_on_failing_by_name()
    {
        var files = await FilesAsync(blocks: 16);
        var bytes = (byte[])files["segment-00000001"].Clone();
        bytes[Segment.PositionOf(5) + 10] ^= 1;
        files["segment-00000001"] = bytes;
        var storage = RecordingStorage.Of(files);
        var volume = Volume.Open(storage, Key, Small);
        for (var block = 8; block < 16; block++)
        {
            await volume.WriteAsync(block, Content(block, 2));
        }

        volume.Compact(null, None);
        Assert.Contains("segment-00000001", storage.Content.Keys);
        await volume.DisposeAsync();
        await using var opened = Volume.Open(storage, Key, Small);
        var error = await FailsAsync(VolumeErrorKind.NotAuthentic, async () => await opened.ReadAsync(5 * Block, new byte[Block], None));
        Assert.Contains("slot 5 of segment-00000001", error.Message, StringComparison.Ordinal);
        var content = new byte[Block];
        await opened.ReadAsync(4 * Block, content, None);
        Assert.Equal(Content(4, 1), content);
    }

    [Fact]
    [Spec("VOL-074")]
    public async Task A_volume_that_grew_reads_zeroes_there_and_its_snapshots_keep_their_size()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        await volume.WriteAsync(63, Content(63, 1));
        volume.TakeSnapshot("small");
        volume.Checkpoint();
        volume.Resize(100 * Block);

        // Killed right after: the checkpoint and the snapshot have fewer blocks than the header.
        foreach (var state in new[] { RecordingStorage.Of(storage.Content), storage })
        {
            if (state == storage)
            {
                await volume.WriteAsync(99, Content(99, 1));
                await volume.DisposeAsync();
            }

            await using var opened = Volume.Open(state, Key, Small);
            var content = await ReadAllAsync(opened);
            Assert.Equal(100 * Block, content.Length);
            Assert.Equal(Content(63, 1), content[(63 * Block)..(64 * Block)]);
            Assert.False(content.AsSpan(64 * Block, 35 * Block).ContainsAnyExcept((byte)0));
            Assert.Equal(64 * Block, opened.OpenSnapshot("small").Size);
            Assert.Equal(state == storage, content.AsSpan(99 * Block).SequenceEqual(Content(99, 1)));
        }
    }

    [Fact]
    [Spec("VOL-061")]
    public async Task A_closed_volume_that_was_faulted_writes_nothing_and_keeps_what_was_flushed()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        await volume.WriteAsync(1, Content(1, 1), forceUnitAccess: true);
        await volume.WriteAsync(1, Content(1, 2));
        storage.Before = (operation, _) =>
        {
            if (operation == "sync")
            {
                throw new VolumeException(VolumeErrorKind.Io, "injected");
            }
        };
        await FailsAsync(VolumeErrorKind.Faulted, async () => await volume.FlushAsync(None));
        storage.Before = null;
        var files = storage.Content;
        await volume.DisposeAsync();
        Assert.Equal(files, storage.Content);
        var random = new Random(1);
        for (var i = 0; i < 20; i++)
        {
            var content = await ReadAllAsync(Volume.Open(RecordingStorage.Of(storage.AfterPowerLoss(storage.Changes, random)), Key, Small));
            Assert.True(content.AsSpan(Block, Block).SequenceEqual(Content(1, 1)) || content.AsSpan(Block, Block).SequenceEqual(Content(1, 2)));
        }
    }

    private static async Task<Dictionary<string, byte[]>> FilesAsync(int blocks, bool closed = true)
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small with { CheckpointInterval = 1 << 30 }, Key);
        for (var block = 0; block < blocks; block++)
        {
            await volume.WriteAsync(block, Content(block, 1));
        }

        if (closed)
        {
            await volume.DisposeAsync();
        }

        return new(storage.Content);
    }

    private static SortedDictionary<string, byte[]> Only(IReadOnlyDictionary<string, byte[]> files, string prefix) =>
        new(files.Where(file => file.Key.StartsWith(prefix, StringComparison.Ordinal) && !file.Key.EndsWith(".new", StringComparison.Ordinal)).ToDictionary());
}
