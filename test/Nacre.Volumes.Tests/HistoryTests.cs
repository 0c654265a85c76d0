using Nacre.Testing;
using Xunit;
using static Nacre.Volumes.Tests.TestVolume;

namespace Nacre.Volumes.Tests;

/// <summary>Anchors, forks and cleaning on real folders.</summary>
public sealed class HistoryTests
{
    [Fact]
    [Spec("VOL-080")]
    public async Task Whole_folder_put_back_to_an_older_state_is_outdated_for_who_keeps_an_anchor()
    {
        var storage = new RecordingStorage { IsRecording = false };
        var volume = Volume.Create(storage, Small, Key);
        await volume.WriteAsync(1, Content(1, 1), forceUnitAccess: true);
        await volume.DisposeAsync();
        var old = storage.Content;
        volume = Volume.Open(storage, Key, Small);
        await volume.WriteAsync(1, Content(1, 2), forceUnitAccess: true);
        var anchor = volume.Anchor;
        await volume.DisposeAsync();

        await FailsAsync(VolumeErrorKind.Outdated, () => Task.Run(() => Volume.Open(RecordingStorage.Of(old), Key, Small with { Anchor = anchor })));
        await FailsAsync(
            VolumeErrorKind.Outdated,
            () => Task.Run(() => Volume.Open(storage, Key, Small with { Anchor = anchor with { VolumeId = Guid.NewGuid() } })));
        await using var newest = Volume.Open(RecordingStorage.Of(storage.Content), Key, Small with { Anchor = anchor });
        Assert.Equal(Content(1, 2), (await ReadAllAsync(newest))[Block..(2 * Block)]);
    }

    [Fact]
    [Spec("VOL-075", "VOL-034")]
    public async Task Fork_shares_files_and_neither_side_sees_what_the_other_writes()
    {
        using var folder = new TemporaryDirectory();
        await using var volume = Volume.Create(folder["v"], Small, Key);
        for (var block = 0; block < 64; block++)
        {
            await volume.WriteAsync(block, Content(block, 1));
        }

        byte[] other = [.. Key.Reverse()];
        volume.Fork(folder["f"], other, snapshot: null, progress: null, CancellationToken.None);
        await FailsAsync(VolumeErrorKind.WrongKey, () => Task.Run(() => Volume.Open(folder["f"], Key)));
        await using (var fork = Volume.Open(folder["f"], other, Small))
        {
            // Both rewrite everything several times and clean: a shared file that one wrote over would break the other.
            for (var version = 2; version < 8; version++)
            {
                for (var block = 0; block < 64; block += version % 2 + 1)
                {
                    await volume.WriteAsync(block, Content(block, version));
                    await fork.WriteAsync(block, Content(block, version + 100));
                }
            }

            fork.Compact(null, CancellationToken.None);
            volume.Compact(null, CancellationToken.None);
            for (var block = 0; block < 64; block++)
            {
                var version = block % 2 == 0 ? 7 : 6;
                Assert.Equal(Content(block, version), (await ReadAllAsync(volume))[(block * Block)..((block + 1) * Block)]);
                Assert.Equal(Content(block, version + 100), (await ReadAllAsync(fork))[(block * Block)..((block + 1) * Block)]);
            }
        }

        await using (var again = Volume.Open(folder["f"], other, Small))
        {
            Assert.Empty(again.Verify(null, CancellationToken.None).Damages);
        }

        await FailsAsync(VolumeErrorKind.Corrupt, () => Task.Run(() => volume.Fork(folder["f"], other)));
    }

    [Fact]
    public async Task Cleaning_in_the_background_bounds_the_space_while_several_write_and_read()
    {
        using var folder = new TemporaryDirectory();
        const int Blocks = 4096;
        var options = new VolumeOptions { Size = Blocks * Block, SegmentSlots = 256, CheckpointInterval = 1024 * Block };
        await using var volume = Volume.Create(folder["v"], options, Key);
        var seed = Seed();
        var versions = new long[Blocks];
        await Parallel.ForAsync(0, 4, None, async (writer, _) =>
        {
            var random = new Random(unchecked(seed + writer));
            var read = new byte[Block];
            for (var i = 0; i < 8000; i++)
            {
                var block = (random.Next(Blocks / 4) * 4) + writer;
                versions[block]++;
                await volume.WriteAsync(block, Content(block, versions[block]));
                block = (random.Next(Blocks / 4) * 4) + writer;
                await volume.ReadAsync((long)block * Block, read, None);
                Assert.True(read.AsSpan().SequenceEqual(Content(block, versions[block])));
            }
        });
        var statistics = volume.Statistics;
        Assert.True(statistics.CopiedBytes > 0, "nothing was cleaned");
        Assert.True(statistics.StoredBytes < 2 * statistics.LiveBlocks * Block, $"{statistics}");
        TestContext.Current.TestOutputHelper?.WriteLine(
            $"space {(double)statistics.StoredBytes / (statistics.LiveBlocks * Block):0.00}, written {(double)statistics.AppendedBytes / statistics.WrittenBytes:0.00}");
        Assert.Empty(volume.Verify(null, CancellationToken.None).Damages);
    }

    [Fact]
    [Spec("VOL-071")]
    public async Task Cleaning_copies_a_slot_that_several_snapshots_need_only_once()
    {
        await using var volume = Volume.Create(new RecordingStorage { IsRecording = false }, Small with { CheckpointInterval = 1 << 30 }, Key);
        for (var block = 0; block < 64; block++)
        {
            await volume.WriteAsync(block, Content(block, 1));
            await volume.WriteAsync(block, Content(block, 2));
        }

        // Three maps, no two of which share the page, and 66 slots that one or more of them need.
        volume.TakeSnapshot("a");
        await volume.WriteAsync(0, Content(0, 3));
        volume.TakeSnapshot("b");
        await volume.WriteAsync(1, Content(1, 3));
        var copied = volume.Statistics.CopiedBytes;
        volume.Compact(null, None);
        Assert.InRange(volume.Statistics.CopiedBytes - copied, 1, 66 * Segment.SlotSize);
        Assert.InRange(volume.Statistics.StoredBytes, 66 * Segment.SlotSize, 68 * Segment.SlotSize);
    }

    [Fact]
    public async Task Fork_of_a_snapshot_that_is_not_there_leaves_nothing()
    {
        await using var volume = Volume.Create(new RecordingStorage(), Small, Key);
        var target = new RecordingStorage();
        await FailsAsync(VolumeErrorKind.Snapshot, () => Task.Run(() => volume.Fork(target, Key, "none", null, None)));
        Assert.Empty(target.List());
    }

    [Fact]
    public async Task Names_of_snapshots_are_checked_and_told_apart()
    {
        using var folder = new TemporaryDirectory();
        await using var volume = Volume.Create(folder["v"], Small, Key);
        volume.TakeSnapshot("a");
        await FailsAsync(VolumeErrorKind.Snapshot, () => Task.Run(() => volume.TakeSnapshot("a")));
        await FailsAsync(VolumeErrorKind.Snapshot, () => Task.Run(() => volume.RollBack("b")));
        await FailsAsync(VolumeErrorKind.Snapshot, () => Task.Run(() => volume.DeleteSnapshot("b")));
        Assert.Throws<ArgumentException>(() => volume.TakeSnapshot("a\nb"));
        Assert.Throws<ArgumentException>(() => volume.TakeSnapshot(new string('x', 129)));
        Assert.Throws<ArgumentOutOfRangeException>(() => volume.Resize(volume.Size - Block));
        var device = volume.OpenSnapshot("a");
        volume.DeleteSnapshot("a");
        await FailsAsync(VolumeErrorKind.Snapshot, () => device.ReadAsync(0, new byte[Block], None).AsTask());
        Assert.Empty(volume.Snapshots);
    }

    [Fact]
    public async Task Trim_of_the_whole_volume_is_one_slot_and_leaves_snapshots_as_they_were()
    {
        var storage = new RecordingStorage { IsRecording = false };
        var volume = Volume.Create(storage, Small, Key);
        for (var block = 0; block < 64; block++)
        {
            await volume.WriteAsync(block, Content(block, 1));
        }

        volume.TakeSnapshot("full");
        var before = volume.Statistics.AppendedBytes - volume.Statistics.CopiedBytes;
        await volume.TrimAsync(0, volume.Size, None);
        Assert.Equal(before + Segment.SlotSize, volume.Statistics.AppendedBytes - volume.Statistics.CopiedBytes);
        await volume.WriteAsync(5, Content(5, 2), forceUnitAccess: true);
        for (var pass = 0; pass < 2; pass++)
        {
            Assert.Equal(1, volume.Statistics.LiveBlocks);
            var now = await ReadAllAsync(volume);
            Assert.True(now.AsSpan(5 * Block, Block).SequenceEqual(Content(5, 2)));
            Assert.Equal(-1, now.AsSpan(0, 5 * Block).IndexOfAnyExcept((byte)0));
            Assert.Equal(-1, now.AsSpan(6 * Block).IndexOfAnyExcept((byte)0));
            volume.Compact(null, None);
            Assert.True((await ReadAllAsync(volume.OpenSnapshot("full"))).AsSpan(63 * Block).SequenceEqual(Content(63, 1)));

            // Replayed from the log as it is after a kill.
            await volume.FlushAsync(None);
            var replayed = Volume.Open(RecordingStorage.Of(storage.Content), Key, Small);
            await volume.DisposeAsync();
            volume = replayed;
        }

        volume.RollBack("full");
        Assert.Equal(64, volume.Statistics.LiveBlocks);
        Assert.True((await ReadAllAsync(volume)).AsSpan(5 * Block, Block).SequenceEqual(Content(5, 1)));
        await volume.DisposeAsync();
    }
}
