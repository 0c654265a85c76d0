using System.Diagnostics;
using Xunit;

namespace Nacre.Volumes.Tests;

public sealed class CrashTests
{
    private const int Blocks = 64;

    /// <summary>After how many recorded changes a block may hold what: the flushed version, or one answered or begun since.</summary>
    private sealed record Version(int Begun, long Number);

    [Fact]
    public async Task Power_loss_at_any_moment_keeps_what_was_flushed_and_tears_nothing()
    {
        var seed = TestVolume.Seed();
        var deadline = Stopwatch.StartNew();
        var cuts = 0;
        for (var round = 0; round < 40 && deadline.Elapsed < TimeSpan.FromSeconds(40); round++)
        {
            var random = new Random(unchecked(seed + round));
            var storage = new RecordingStorage();
            var history = await RunAsync(storage, random);
            for (var i = 0; i < 80; i++, cuts++)
            {
                var cut = random.Next(history.Created, storage.Changes + 1);
                var files = storage.AfterPowerLoss(cut, random);
                try
                {
                    await RequireConsistentAsync(files, history, cut, random, depth: 0);
                }
                catch (Exception e)
                {
                    Assert.Fail($"NACRE_SEED={seed} round {round} cut {cut} of {storage.Changes}: {e}");
                }
            }
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{cuts} cut points");
        Assert.True(cuts >= 1000, $"only {cuts} cut points in the time");
    }

    private sealed class History
    {
        public int Created { get; set; }

        public List<Version>[] Versions { get; } = [.. Enumerable.Range(0, Blocks).Select(_ => new List<Version> { new(0, 0) })];

        /// <summary>Completed flushes: what had been begun before the flush began is durable from <c>Done</c> changes on.</summary>
        public List<(int Begun, int Done)> Flushes { get; } = [];
    }

    private static async Task<History> RunAsync(RecordingStorage storage, Random random)
    {
        var history = new History();
        var volume = Volume.Create(storage, TestVolume.Small, TestVolume.Key);
        history.Created = storage.Changes;
        var version = 0L;
        for (var step = 0; step < 120; step++)
        {
            switch (random.Next(14))
            {
                case < 7:
                    var first = random.Next(Blocks);
                    var count = Math.Min(random.Next(1, 9), Blocks - first);
                    version++;
                    Begin(first, count, version);
                    await volume.WriteAsync(first, [.. Enumerable.Range(first, count).SelectMany(block => TestVolume.Content(block, version))]);
                    break;
                case 7:
                    first = random.Next(Blocks);
                    count = Math.Min(random.Next(1, 20), Blocks - first);
                    Begin(first, count, 0);
                    await volume.TrimAsync(first * TestVolume.Block, count * TestVolume.Block, TestVolume.None);
                    break;
                case 8:
                    first = random.Next(Blocks);
                    Begin(first, 1, 0);
                    await volume.WriteZeroesAsync(first * TestVolume.Block, TestVolume.Block, false, false, TestVolume.None);
                    break;
                case < 12:
                    await FlushAsync(() => volume.FlushAsync(TestVolume.None));
                    break;
                case 12:
                    await FlushAsync(() =>
                    {
                        volume.Checkpoint();
                        return ValueTask.CompletedTask;
                    });
                    break;
                default:
                    await FlushAsync(volume.DisposeAsync);
                    volume = Volume.Open(storage, TestVolume.Key, new VolumeOptions { CheckpointInterval = 40 * TestVolume.Block });
                    break;
            }
        }

        return history;

        void Begin(int first, int count, long number)
        {
            for (var block = first; block < first + count; block++)
            {
                history.Versions[block].Add(new Version(storage.Changes, number));
            }
        }

        async Task FlushAsync(Func<ValueTask> flush)
        {
            var begun = storage.Changes;
            await flush();
            history.Flushes.Add((begun, storage.Changes));
        }
    }

    private static async Task RequireConsistentAsync(
        Dictionary<string, byte[]> files, History history, int cut, Random random, int depth)
    {
        var storage = RecordingStorage.Of(files);
        var volume = Volume.Open(storage, TestVolume.Key, new VolumeOptions { CheckpointInterval = 40 * TestVolume.Block });
        var content = await TestVolume.ReadAllAsync(volume);
        var flushed = history.Flushes.Where(flush => flush.Done <= cut).Select(flush => flush.Begun).DefaultIfEmpty(0).Max();
        for (var block = 0; block < Blocks; block++)
        {
            var begun = history.Versions[block].Where(version => version.Begun < cut || version.Begun == 0).ToList();
            var oldest = begun.FindLastIndex(version => version.Begun < flushed || version.Begun == 0);
            var allowed = begun.Skip(Math.Max(oldest, 0)).ToList();
            var actual = content.AsSpan(block * TestVolume.Block, TestVolume.Block).ToArray();
            Assert.True(
                allowed.Any(version => actual.AsSpan().SequenceEqual(TestVolume.Content(block, version.Number))),
                $"block {block} holds {BitConverter.ToInt64(actual, 0)} version {BitConverter.ToInt64(actual, 8)}, allowed are "
                + string.Join(", ", allowed.Select(version => version.Number)));
        }

        if (depth > 0)
        {
            return;
        }

        // The process is killed and opens it again; the same once more from the files as they were; then it is closed in order.
        Assert.Equal(content, await TestVolume.ReadAllAsync(Volume.Open(RecordingStorage.Of(storage.Content), TestVolume.Key, null)));
        Assert.Equal(content, await TestVolume.ReadAllAsync(Volume.Open(RecordingStorage.Of(files), TestVolume.Key, null)));

        // What follows the recovery is as safe: everything is rewritten and flushed in part, and the power fails again.
        var next = new byte[TestVolume.Block];
        random.NextBytes(next);
        await volume.WriteAsync(3, next);
        await volume.FlushAsync(TestVolume.None);
        next.CopyTo(content.AsSpan(3 * TestVolume.Block));
        Assert.Equal(content, await TestVolume.ReadAllAsync(Volume.Open(RecordingStorage.Of(storage.Content), TestVolume.Key, null)));
        await volume.DisposeAsync();
        await using var closed = Volume.Open(RecordingStorage.Of(storage.Content), TestVolume.Key, null);
        Assert.Equal(0, closed.Statistics.ReplayedSlots);
        Assert.Equal(content, await TestVolume.ReadAllAsync(closed));
    }
}
