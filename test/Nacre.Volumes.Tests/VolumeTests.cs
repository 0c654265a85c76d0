using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using Nacre.Testing;
using Nacre.Volumes.Storage;
using Xunit;
using static Nacre.Volumes.Tests.TestVolume;

namespace Nacre.Volumes.Tests;

public sealed class VolumeTests
{
    [Fact]
    public async Task Sequential_blocks_across_full_size_segments_read_back()
    {
        // Found by fio: the map entry after a segment's last slot equals the first of the segment with the next index.
        using var folder = new TemporaryDirectory();
        await using var volume = Volume.Create(folder["v"], new VolumeOptions { Size = 40 << 20 }, Key);
        var content = new byte[40 << 20];
        new Random(1).NextBytes(content);
        await volume.WriteAsync(0, content, false, None);
        var read = await ReadAllAsync(volume);
        Assert.True(content.AsSpan().SequenceEqual(read));
        Assert.Equal(2, volume.Statistics.Segments);
    }

    [Fact]
    [Spec("VOL-060")]
    public async Task Flush_costs_one_sync_if_something_is_pending_and_none_otherwise()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        await volume.WriteAsync(1, Content(1, 1));
        var before = storage.DataSyncs;
        await volume.FlushAsync(None);
        Assert.Equal(before + 1, storage.DataSyncs);
        await volume.FlushAsync(None);
        Assert.Equal(before + 1, storage.DataSyncs);
        await volume.WriteAsync(1, Content(1, 2), forceUnitAccess: true);
        Assert.Equal(before + 2, storage.DataSyncs);
        Assert.Equal(2, volume.Statistics.DataSyncs);
    }

    [Theory]
    [InlineData("sync")]
    [InlineData("write")]
    [Spec("VOL-061")]
    public async Task Failed_write_or_sync_faults_the_volume_for_good_and_keeps_the_cause(string operation)
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        await volume.WriteAsync(1, Content(1, 1));
        await volume.FlushAsync(None);
        var cause = new VolumeException(VolumeErrorKind.Io, "injected");
        storage.Before = (op, _) =>
        {
            if (op == operation)
            {
                throw cause;
            }
        };
        await FailsAsync(VolumeErrorKind.Faulted, async () =>
        {
            await volume.WriteAsync(1, Content(1, 2));
            await volume.FlushAsync(None);
        });
        storage.Before = null;
        var changes = storage.Changes;
        foreach (var attempt in new Func<Task>[]
        {
            async () => await volume.FlushAsync(None), async () => await volume.WriteAsync(2, Content(2, 1)),
            async () => await volume.TrimAsync(0, Block * 4, None), () => Task.Run(volume.Checkpoint, None),
        })
        {
            Assert.Same(cause, (await FailsAsync(VolumeErrorKind.Faulted, attempt)).InnerException);
        }

        Assert.Equal(Content(1, operation == "sync" ? 2 : 1), (await ReadAllAsync(volume))[Block..(2 * Block)]);
        await volume.DisposeAsync();
        Assert.Equal(changes, storage.Changes);
    }

    [Theory]
    [InlineData("allocate")]
    [InlineData("create")]
    [InlineData("write")]
    [Spec("VOL-030")]
    public async Task Full_disk_fails_the_write_and_a_later_one_succeeds(string operation)
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        for (var block = 0; block < 20; block++)
        {
            await volume.WriteAsync(block, Content(block, 1));
        }

        await volume.FlushAsync(None);
        storage.Before = (op, name) =>
        {
            if (op == operation && name.StartsWith("segment", StringComparison.Ordinal))
            {
                throw new VolumeException(VolumeErrorKind.NoSpace, "injected");
            }
        };
        await FailsAsync(VolumeErrorKind.NoSpace, async () =>
        {
            for (var block = 0; block < 20; block++)
            {
                await volume.WriteAsync(block, Content(block, 2));
            }
        });
        var between = await ReadAllAsync(volume);
        Assert.Equal(between, await ReadAllAsync(Volume.Open(RecordingStorage.Of(storage.Content), Key, Small)));
        storage.Before = null;
        for (var block = 0; block < 20; block++)
        {
            await volume.WriteAsync(block, Content(block, 3));
        }

        await volume.FlushAsync(None);
        var content = await ReadAllAsync(volume);
        Assert.Equal(Content(7, 3), content[(7 * Block)..(8 * Block)]);
        Assert.Equal(content, await ReadAllAsync(Volume.Open(RecordingStorage.Of(storage.Content), Key, Small)));
        await volume.DisposeAsync();
        Assert.Equal(content, await ReadAllAsync(Volume.Open(RecordingStorage.Of(storage.Content), Key, Small)));
    }

    [Fact]
    public async Task Requests_outside_the_volume_are_refused_and_change_nothing()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        var changes = storage.Changes;
        foreach (var (offset, length) in new (long, int)[] { (-1, 1), (volume.Size, 1), (volume.Size - 1, 2), (long.MaxValue, 1), (long.MinValue, 1) })
        {
            await FailsAsync(VolumeErrorKind.OutOfRange, async () => await volume.ReadAsync(offset, new byte[length], None));
            await FailsAsync(VolumeErrorKind.OutOfRange, async () => await volume.WriteAsync(offset, new byte[length], false, None));
            await FailsAsync(VolumeErrorKind.OutOfRange, async () => await volume.TrimAsync(offset, length, None));
            await FailsAsync(VolumeErrorKind.OutOfRange, async () => await volume.WriteZeroesAsync(offset, length, false, false, None));
        }

        await FailsAsync(VolumeErrorKind.OutOfRange, async () => await volume.TrimAsync(0, -1, None));
        await FailsAsync(VolumeErrorKind.OutOfRange, async () => await volume.TrimAsync(1, long.MaxValue, None));
        Assert.Equal(changes, storage.Changes);
    }

    [Fact]
    [Spec("VOL-003")]
    public async Task Second_opener_is_locked_out_until_the_first_closes()
    {
        using var folder = new TemporaryDirectory();
        var volume = Volume.Create(folder["v"], Small, Key);
        await FailsAsync(VolumeErrorKind.Locked, () => Task.Run(() => Volume.Open(folder["v"], Key)));
        await FailsAsync(VolumeErrorKind.Locked, () => Task.Run(() => Volume.Open(folder["v"], Key, new VolumeOptions { ReadOnly = true })));
        await FailsAsync(VolumeErrorKind.Corrupt, async () =>
        {
            await volume.DisposeAsync();
            Volume.Create(folder["v"], Small, Key);
        });
        await using var first = Volume.Open(folder["v"], Key, new VolumeOptions { ReadOnly = true });
        await using var second = Volume.Open(folder["v"], Key, new VolumeOptions { ReadOnly = true });
        await FailsAsync(VolumeErrorKind.ReadOnly, async () => await second.WriteAsync(0, Content(0, 1)));
        await FailsAsync(VolumeErrorKind.Locked, () => Task.Run(() => Volume.Open(folder["v"], Key)));
    }

    [Fact]
    [Spec("VOL-020")]
    public async Task Key_slots_are_added_and_removed()
    {
        var storage = new RecordingStorage();
        byte[] second = [.. Enumerable.Repeat((byte)9, 32)];
        var volume = Volume.Create(storage, Small, Key);
        await volume.WriteAsync(1, Content(1, 1));
        volume.AddKeySlot(second);
        volume.RemoveKeySlot(Key);
        Assert.Throws<InvalidOperationException>(() => volume.RemoveKeySlot(second));
        await FailsAsync(VolumeErrorKind.WrongKey, () => Task.Run(() => volume.RemoveKeySlot(Key)));
        await volume.DisposeAsync();
        await FailsAsync(VolumeErrorKind.WrongKey, () => Task.Run(() => Volume.Open(RecordingStorage.Of(storage.Content), Key, Small)));
        await using var opened = Volume.Open(storage, second, null);
        Assert.Equal(Content(1, 1), (await ReadAllAsync(opened))[Block..(2 * Block)]);
        for (var i = 1; i < VolumeHeader.KeySlots; i++)
        {
            opened.AddKeySlot([.. Enumerable.Repeat((byte)(i + 20), 32)]);
        }

        await FailsAsync(VolumeErrorKind.NoSpace, () => Task.Run(() => opened.AddKeySlot(Key)));
    }

    [Fact]
    [Spec("VOL-013")]
    public async Task Ephemeral_volume_leaves_nothing_and_never_syncs()
    {
        using var folder = new TemporaryDirectory();
        var volume = Volume.CreateEphemeral(folder["v"], 64 * Block);
        await volume.WriteAsync(1, Content(1, 1), forceUnitAccess: true);
        Assert.Equal(Content(1, 1), (await ReadAllAsync(volume))[Block..(2 * Block)]);
        Assert.Equal(0, volume.Statistics.DataSyncs);
        await FailsAsync(VolumeErrorKind.Locked, () => Task.Run(() => Volume.Open(folder["v"], Key)));
        await volume.DisposeAsync();
        Assert.Empty(Directory.GetFiles(folder["v"]));
    }

    [Fact]
    [Spec("VOL-062")]
    public async Task A_volatile_volume_never_syncs_and_survives_the_death_of_its_process()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(new VolatileStorage(storage), Small, Key);
        for (var version = 1; version <= 20; version++)
        {
            for (var block = 0; block < 10; block++)
            {
                await volume.WriteAsync(block, Content(block, version), forceUnitAccess: block == 9);
            }
        }

        volume.Checkpoint();
        await volume.WriteAsync(3, Content(3, 21));
        Assert.Equal(0, storage.DataSyncs);

        // What another process finds: everything that was answered.
        await using var opened = Volume.Open(RecordingStorage.Of(storage.Content), Key, new VolumeOptions { Volatile = true });
        var content = await ReadAllAsync(opened);
        for (var block = 0; block < 10; block++)
        {
            Assert.Equal(Content(block, block == 3 ? 21 : 20), content[(block * Block)..((block + 1) * Block)]);
        }

        await volume.DisposeAsync();
        Assert.Equal(0, storage.DataSyncs);
    }

    [Fact]
    public async Task A_volatile_volume_in_a_folder_opens_again_like_any_other()
    {
        using var folder = new TemporaryDirectory();
        await using (var volume = Volume.Create(folder["v"], Small with { Volatile = true }, Key))
        {
            await volume.WriteAsync(1, Content(1, 1), forceUnitAccess: true);
        }

        await using var opened = Volume.Open(folder["v"], Key, new VolumeOptions { Volatile = true });
        Assert.Equal(Content(1, 1), (await ReadAllAsync(opened))[Block..(2 * Block)]);
    }

    [Fact]
    [Spec("VOL-042", "VOL-072")]
    public async Task Overwritten_segments_are_given_back()
    {
        using var folder = new TemporaryDirectory();
        await using var volume = Volume.Create(folder["v"], Small, Key);
        for (var version = 1; version <= 100; version++)
        {
            for (var block = 0; block < 10; block++)
            {
                await volume.WriteAsync(block, Content(block, version));
            }
        }

        volume.Checkpoint();
        Assert.InRange(volume.Statistics.Segments, 1, 3);
        Assert.InRange(Directory.GetFiles(folder["v"]).Length, 4, 7);
        Assert.Equal(10, volume.Statistics.LiveBlocks);
    }

    [Fact]
    public async Task Steady_reads_and_writes_allocate_nothing()
    {
        using var folder = new TemporaryDirectory();
        await using var volume = Volume.Create(folder["v"], new VolumeOptions { Size = 8 << 20 }, Key);
        var buffer = Content(1, 1);
        for (var i = 0; i < 200; i++)
        {
            await volume.WriteAsync(i, buffer);
            await volume.ReadAsync(i * Block, buffer, None);
        }

        var (none, large) = (None, new byte[64 * Block]);
        Run(100);
        var before = GC.GetAllocatedBytesForCurrentThread();
        Run(400);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);

        void Run(int times)
        {
            for (var i = 0; i < times; i++)
            {
                var at = (long)(i % 200) * Block;
                Done(volume.WriteAsync(at, buffer, false, none));
                Done(volume.ReadAsync(at, buffer, none));
                volume.WriteTogether([new BlockWrite(at, buffer), new BlockWrite(at + 100, buffer.AsMemory(0, 3000))]);
                Done(volume.WriteZeroesAsync(at, Block, false, false, none));
                Done(volume.TrimAsync(at, 4 * Block, none));
                Done(volume.ReadAsync(0, large, none));
                if (i % 10 == 0)
                {
                    Done(volume.WriteAsync(at, buffer, true, none));
                    Done(volume.FlushAsync(none));
                }
            }
        }
    }

    [Fact]
    public async Task Readers_beside_a_writer_see_whole_blocks()
    {
        using var folder = new TemporaryDirectory();
        await using var volume = Volume.Create(folder["v"], Small, Key);
        using var stop = new CancellationTokenSource();
        var readers = Enumerable.Range(0, 2).Select(_ => Task.Run(async () =>
        {
            var buffer = new byte[8 * Block];
            while (!stop.IsCancellationRequested)
            {
                await volume.ReadAsync(0, buffer, default);
                for (var block = 0; block < 8; block++)
                {
                    var bytes = buffer.AsSpan(block * Block, Block);
                    Assert.True(bytes.SequenceEqual(Content(block, BinaryPrimitives.ReadInt64LittleEndian(bytes[8..]))));
                }
            }
        })).ToArray();
        for (var version = 1; version <= 1500; version++)
        {
            await volume.WriteAsync(version % 8, Content(version % 8, version));
            if (version % 50 == 0)
            {
                volume.Checkpoint();
            }
        }

        await stop.CancelAsync();
        await Task.WhenAll(readers);
    }

    [Fact]
    public Task A_writer_killed_8_times_loses_nothing_that_was_answered() => KillAsync(8);

    [Fact]
    [Trait("lane", "long")]
    public Task A_writer_killed_300_times_loses_nothing_that_was_answered() => KillAsync(300);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Closing_gives_back_the_space_that_the_last_segment_reserved(bool checkpointed)
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Small, Key);
        await volume.WriteAsync(1, Content(1, 1));
        if (checkpointed)
        {
            volume.Checkpoint();
        }

        await volume.DisposeAsync();
        Assert.Equal(Segment.PositionOf(1), storage.Content["segment-00000001"].Length);
        await using var again = Volume.Open(storage, Key, Small);
        Assert.True((await ReadAllAsync(again)).AsSpan(Block, Block).SequenceEqual(Content(1, 1)));
    }

    [Fact]
    [Spec("VOL-035")]
    public async Task A_write_over_a_dead_segment_ends_with_zeroes_up_to_the_end_of_the_page()
    {
        var storage = new RecordingStorage { IsRecording = false };
        await using var volume = Volume.Create(storage, Small, Key);
        var overwritten = 0;
        for (var version = 1; version <= 300; version++)
        {
            await volume.WriteAsync(1, Content(1, version), forceUnitAccess: true);
            var file = storage.Content[storage.List().Last(name => name.StartsWith("segment-", StringComparison.Ordinal))].AsSpan();
            var end = (int)Segment.PositionOf((int)(volume.Anchor.Position % Segment.MaximumSlots));
            var pageEnd = Math.Min((end + 4095) / 4096 * 4096, file.Length);
            Assert.False(file[end..pageEnd].ContainsAnyExcept((byte)0), $"version {version}");
            overwritten += file[pageEnd..].ContainsAnyExcept((byte)0) ? 1 : 0;
        }

        Assert.True(overwritten > 100, "hardly any write went over a dead segment");
    }

    private static async Task KillAsync(int times)
    {
        using var folder = new TemporaryDirectory();
        var random = new Random(Seed());
        var answered = 0;
        for (var kill = 0; kill < times; kill++)
        {
            var start = new ProcessStartInfo(Environment.ProcessPath!)
            {
                RedirectStandardOutput = true,
                Environment = { ["NACRE_CRASH_VOLUME"] = folder["v"], ["NACRE_CRASH_VERSION"] = answered.ToString(CultureInfo.InvariantCulture) },
            };
            using var process = Process.Start(start)!;
            string? last = null;
            for (var line = random.Next(1, 3000); line > 0; line--)
            {
                last = await process.StandardOutput.ReadLineAsync(None);
                Assert.NotNull(last);
            }

            process.Kill();
            last = (await process.StandardOutput.ReadToEndAsync(None)).Split('\n') is [.., var whole, _] ? whole : last;
            await process.WaitForExitAsync(None);
            answered = int.Parse(last!, CultureInfo.InvariantCulture);
            answered = Math.Max(answered, await RequireAnsweredAsync(folder["v"], answered));
        }
    }

    /// <summary>Requires what the writer wrote up to <paramref name="answered"/>; returns the newest version found.</summary>
    private static async Task<int> RequireAnsweredAsync(string folder, int answered)
    {
        await using var volume = Volume.Open(folder, Key);
        var (content, newest) = (await ReadAllAsync(volume), 0);
        for (var block = 0; block < 64; block++)
        {
            var version = BinaryPrimitives.ReadInt64LittleEndian(content.AsSpan((block * Block) + 8));
            var lastAnswered = answered < block ? 0 : answered - ((answered - block) % 64);
            Assert.InRange(version, lastAnswered, lastAnswered + 64);
            Assert.True(content.AsSpan(block * Block, Block).SequenceEqual(Content(block, version)), $"block {block} is torn");
            newest = Math.Max(newest, (int)version);
        }

        Assert.Empty(volume.Verify(null, None).Damages);
        return newest;
    }
}
