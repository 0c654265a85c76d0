using System.Security.Cryptography;
using CsCheck;
using Nacre.Testing;
using Nacre.Volumes.Releases;
using Xunit;
using static Nacre.Volumes.Tests.Releases.TestRelease;
using static Nacre.Volumes.Tests.TestVolume;

namespace Nacre.Volumes.Tests.Releases;

/// <summary>The writable fork of a release, against an array.</summary>
public sealed class ReleaseForkTests : IDisposable
{
    private const int Blocks = 48;

    private readonly TemporaryDirectory folder = new();
    private readonly MemoryOrigin origin = new();
    private readonly byte[] content = Content(Blocks * Block);
    private readonly SegmentCache cache;
    private readonly ReleaseReader reader;
    private readonly ReleaseVolume release;

    public ReleaseForkTests()
    {
        cache = new SegmentCache(folder.Path);
        reader = new ReleaseReader(Publish(new PublisherKeys(SHA256.HashData("an organisation"u8)), origin, content), cache, origin);
        release = new ReleaseVolume(reader, "system");
    }

    private static VolumeOptions Options { get; } = Small with { Size = ReleaseFork.VolumeSize(Blocks * Block), Volatile = true };

    public void Dispose()
    {
        reader.Dispose();
        cache.Dispose();
        folder.Dispose();
    }

    [Fact]
    [Spec("REL-050", "REL-051", "REL-052", "REL-053")]
    public async Task A_fork_behaves_like_an_array_that_begins_as_the_release()
    {
        // Present from here on, so that every call completes at once.
        await release.ReadAsync(0, new byte[release.Size], None);
        var operation = Gen.Select(Gen.Int[0, 9], Gen.Int[0, (Blocks * Block) - 1], Gen.Int[1, 6 * Block], Gen.Byte);
        operation.Array[1, 50].Sample(Run, iter: 800, seed: Environment.GetEnvironmentVariable("NACRE_CSCHECK_SEED"), threads: 1);
    }

    [Fact]
    [Spec("REL-051")]
    public async Task Nothing_of_the_release_comes_back_once_it_was_trimmed_or_overwritten_by_zeroes()
    {
        await using var changes = Volume.Create(new RecordingStorage { IsRecording = false }, Options, Key);
        await using var fork = new ReleaseFork(release, changes);
        await fork.TrimAsync(0, 10 * Block, None);
        await fork.WriteZeroesAsync(10 * Block, 10 * Block, keepAllocated: true, forceUnitAccess: false, None);
        await fork.WriteAsync(20 * Block, new byte[10 * Block], forceUnitAccess: false, None);
        foreach (var (start, length) in new[] { (30 * Block, 1000), ((30 * Block) + 1000, 2000), ((30 * Block) + 3000, 1096) })
        {
            await fork.WriteAsync(start, new byte[length], forceUnitAccess: false, None);
        }

        await fork.WriteAsync(5, Content(5, 1), forceUnitAccess: true);
        await fork.TrimAsync(5 * Block, Block, None);
        await using var again = new ReleaseFork(release, changes);
        var read = await ReadAllAsync(again);
        Assert.False(read.AsSpan(0, 31 * Block).ContainsAnyExcept((byte)0));
        Assert.Equal(content[(31 * Block)..], read[(31 * Block)..]);
        var extents = new BlockExtent[1];
        Assert.Equal(1, again.DescribeExtents(0, 31 * Block, extents));
        Assert.Equal(new BlockExtent(31 * Block, IsHole: true), extents[0]);
    }

    [Fact]
    public async Task Changes_of_parts_of_one_block_that_wait_for_the_release_all_arrive()
    {
        await using var changes = Volume.Create(new RecordingStorage { IsRecording = false }, Options, Key);
        await using var fork = new ReleaseFork(release, changes);
        var seed = Seed();
        for (var round = 0; round < 40; round++)
        {
            // Writers of a few bytes each, and one that writes the block's other half again and again, all while the release is on its way.
            var random = new Random(seed + round);
            var block = round;
            var expected = content.AsSpan(block * Block, Block).ToArray();
            var arrived = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            origin.Wait = arrived.Task;
            var writes = Enumerable.Range(0, 16).Select(i =>
            {
                var bytes = new byte[128];
                random.NextBytes(bytes);
                bytes.CopyTo(expected, i * 128);
                return Task.Run(async () => await fork.WriteAsync((block * Block) + (i * 128), bytes, forceUnitAccess: false, None), None);
            }).ToList();
            expected.AsSpan(2048, 2048).Clear();
            writes.Add(Task.Run(async () => await fork.WriteZeroesAsync((block * Block) + 2048, 2048, keepAllocated: false, forceUnitAccess: false, None), None));
            await Task.Yield();
            arrived.SetResult();
            await Task.WhenAll(writes);
            var read = new byte[Block];
            await fork.ReadAsync(block * Block, read, None);
            Assert.Equal(expected, read);
        }
    }

    [Fact]
    public async Task A_whole_block_that_is_written_or_trimmed_while_the_release_is_on_its_way_is_not_undone_by_it()
    {
        await using var changes = Volume.Create(new RecordingStorage { IsRecording = false }, Options, Key);
        await using var fork = new ReleaseFork(release, changes);
        foreach (var (block, isTrim) in new[] { (9, false), (21, true) })
        {
            var arrived = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            origin.Wait = arrived.Task;
            var part = fork.WriteAsync((block * Block) + 100, new byte[] { 1, 2, 3 }, forceUnitAccess: false, None).AsTask();
            Assert.False(part.IsCompleted);
            var expected = isTrim ? new byte[Block] : Content(block, 7);
            await (isTrim ? fork.TrimAsync(block * Block, Block, None) : fork.WriteAsync(block, expected));
            arrived.SetResult();
            await part;
            new byte[] { 1, 2, 3 }.CopyTo(expected, 100);
            var read = new byte[Block];
            await fork.ReadAsync(block * Block, read, None);
            Assert.Equal(expected, read);
        }
    }

    [Fact]
    public async Task A_release_that_can_not_be_read_fails_the_change_of_a_part_and_changes_nothing()
    {
        await using var changes = Volume.Create(new RecordingStorage { IsRecording = false }, Options, Key);
        await using var fork = new ReleaseFork(release, changes);
        using var cancelled = new CancellationTokenSource();
        var arrived = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        origin.Wait = arrived.Task;
        var part = fork.WriteAsync(100, new byte[] { 1, 2, 3 }, forceUnitAccess: false, cancelled.Token).AsTask();
        await cancelled.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => part);
        arrived.SetResult();
        Assert.Equal(content, await ReadAllAsync(fork));
    }

    [Fact]
    [Spec("REL-050")]
    public async Task A_volume_of_another_size_is_refused_and_requests_outside_too()
    {
        await using var other = Volume.Create(new RecordingStorage { IsRecording = false }, Small, Key);
        Assert.Equal(VolumeErrorKind.Corrupt, Assert.Throws<VolumeException>(() => new ReleaseFork(release, other)).Kind);
        await using var changes = Volume.Create(new RecordingStorage { IsRecording = false }, Options, Key);
        await using var fork = new ReleaseFork(release, changes);
        await FailsAsync(VolumeErrorKind.OutOfRange, async () => await fork.WriteAsync(Blocks, Content(0, 1)));
        await FailsAsync(VolumeErrorKind.OutOfRange, async () => await fork.TrimAsync(Block, long.MaxValue, None));
        await FailsAsync(VolumeErrorKind.OutOfRange, async () => await fork.ReadAsync(-1, new byte[1], None));
    }

    private void Run((int Kind, int Offset, int Length, byte Value)[] operations)
    {
        var storage = new RecordingStorage { IsRecording = false };
        var changes = Volume.Create(storage, Options, Key);
        var fork = new ReleaseFork(release, changes);
        var model = (byte[])content.Clone();
        foreach (var (kind, offset, wanted, value) in operations)
        {
            var length = Math.Min(wanted, model.Length - offset);
            switch (kind)
            {
                case < 4:
                    // Half of the writes end in zeroes, some are nothing else.
                    var bytes = new byte[length];
                    bytes.AsSpan(0, value % 2 == 0 ? length / 2 : length).Fill((byte)(value % 5 == 0 ? 0 : value));
                    Done(fork.WriteAsync(offset, bytes, value % 7 == 0, default));
                    bytes.CopyTo(model, offset);
                    break;
                case 4 or 5:
                    Done(fork.TrimAsync(offset, length, default));
                    var first = (offset + Block - 1) / Block * Block;
                    model.AsSpan(first, Math.Max(0, ((offset + length) / Block * Block) - first)).Clear();
                    break;
                case 6:
                    Done(fork.WriteZeroesAsync(offset, length, true, value % 2 == 0, default));
                    model.AsSpan(offset, length).Clear();
                    break;
                case 7:
                    Done(fork.DisposeAsync());
                    Done(changes.DisposeAsync());
                    changes = Volume.Open(storage, Key, Options);
                    fork = new ReleaseFork(release, changes);
                    break;
                case 8:
                    // Killed: what was answered is there.
                    storage = RecordingStorage.Of(storage.Content, isRecording: false);
                    changes = Volume.Open(storage, Key, Options);
                    fork = new ReleaseFork(release, changes);
                    break;
                default:
                    changes.Compact(null, default);
                    break;
            }

            var read = new byte[length];
            Done(fork.ReadAsync(offset, read, default));
            Assert.True(read.AsSpan().SequenceEqual(model.AsSpan(offset, length)));
        }

        var all = new byte[model.Length];
        Done(fork.ReadAsync(0, all, default));
        Assert.True(all.AsSpan().SequenceEqual(model));
        var extents = new BlockExtent[2 * Blocks];
        var at = 0L;
        bool? previous = null;
        foreach (var extent in extents.AsSpan(0, fork.DescribeExtents(0, fork.Size, extents)))
        {
            Assert.True(!extent.IsHole || !model.AsSpan((int)at, (int)extent.Length).ContainsAnyExcept((byte)0));
            Assert.NotEqual(previous, extent.IsHole);
            previous = extent.IsHole;
            at += extent.Length;
        }

        Assert.Equal(fork.Size, at);
    }
}
