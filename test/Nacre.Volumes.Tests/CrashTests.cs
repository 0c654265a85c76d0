using Nacre.Testing;
using Xunit;
using static Nacre.Volumes.Tests.TestVolume;

namespace Nacre.Volumes.Tests;

/// <summary>Power losses at any moment: of a run with every operation, of the recovery after it, and of the cleaning after that.</summary>
public sealed class CrashTests
{
    private const int Blocks = 64;
    private const int CutsPerRun = 100;

    /// <summary>After how many recorded changes a block may hold what: the flushed version, or one answered or begun since.</summary>
    private sealed record Version(int Begun, long Number);

    /// <summary>A snapshot: the versions it holds, and when its taking and deleting began and ended, in recorded changes.</summary>
    private sealed class Kept
    {
        public required string Name { get; init; }

        public required long[] Versions { get; init; }

        public int TakenBegun { get; init; }

        public int TakenDone { get; set; } = int.MaxValue;

        public int DeletedBegun { get; set; } = int.MaxValue;

        public int DeletedDone { get; set; } = int.MaxValue;
    }

    private sealed class History
    {
        public int Created { get; set; }

        public List<Version>[] Versions { get; } = [.. Enumerable.Range(0, Blocks).Select(_ => new List<Version> { new(0, 0) })];

        /// <summary>Completed flushes: what had been begun before the flush began is durable from <c>Done</c> changes on.</summary>
        public List<(int Begun, int Done)> Flushes { get; } = [];

        public List<Kept> Snapshots { get; } = [];
    }

    [Fact]
    [Spec("VOL-031", "VOL-040", "VOL-042", "VOL-050", "VOL-052", "VOL-070", "VOL-071", "VOL-072")]
    public Task Power_loss_at_any_of_10_000_moments_keeps_what_was_flushed_and_tears_nothing() => ExploreAsync(10_000);

    [Fact]
    [Trait("lane", "long")]
    public Task Power_loss_at_any_of_a_million_moments_keeps_what_was_flushed_and_tears_nothing() => ExploreAsync(1_000_000);

    private static async Task ExploreAsync(int wanted)
    {
        var seed = Seed();
        var (copied, snapshots) = (0L, 0);
        await Parallel.ForAsync(0, wanted / CutsPerRun, None, async (run, _) =>
        {
            var random = new Random(unchecked(seed + run));
            var storage = new RecordingStorage();
            var (history, statistics) = await RunAsync(storage, random);
            Interlocked.Add(ref copied, statistics.CopiedBytes);
            Interlocked.Add(ref snapshots, history.Snapshots.Count);
            for (var i = 0; i < CutsPerRun; i++)
            {
                var cut = random.Next(history.Created, storage.Changes + 1);
                try
                {
                    await RequireConsistentAsync(storage.AfterPowerLoss(cut, random), history, cut, random);
                }
                catch (Exception e)
                {
                    Assert.Fail($"NACRE_SEED={seed} run {run} cut {cut} of {storage.Changes}: {e}");
                }
            }
        });
        Assert.True(copied > 0 && snapshots > 0, "the runs never cleaned or kept anything: they prove nothing about it");
        TestContext.Current.TestOutputHelper?.WriteLine($"{wanted} cut points, {copied / Segment.SlotSize} slots copied by cleaning, {snapshots} snapshots");
    }

    private static async Task<(History History, VolumeStatistics Statistics)> RunAsync(RecordingStorage storage, Random random)
    {
        var history = new History();
        var volume = Volume.Create(storage, Small, Key);
        history.Created = storage.Changes;
        var (version, copied) = (0L, 0L);
        var now = new long[Blocks];
        for (var step = 0; step < 140; step++)
        {
            var live = history.Snapshots.Where(kept => kept.DeletedBegun == int.MaxValue).ToList();
            switch (random.Next(20))
            {
                case < 10:
                    var first = random.Next(Blocks);
                    var count = Math.Min(random.Next(1, 9), Blocks - first);
                    version++;
                    Begin(first, count, version);
                    var content = Enumerable.Range(first, count).SelectMany(block => Content(block, version)).ToArray();
                    if (step % 3 > 0)
                    {
                        await volume.WriteAsync(first, content);
                        break;
                    }

                    // Several writes as one batch, the last of them over the first.
                    version++;
                    Begin(first, 1, version);
                    volume.WriteTogether([new BlockWrite(first * Block, content), new BlockWrite(first * Block, Content(first, version))]);
                    break;
                case 10:
                    first = random.Next(Blocks);
                    count = Math.Min(random.Next(1, 20), Blocks - first);
                    Begin(first, count, 0);
                    await volume.TrimAsync(first * Block, count * Block, None);
                    break;
                case 11:
                    first = random.Next(Blocks);
                    Begin(first, 1, 0);
                    await volume.WriteZeroesAsync(first * Block, Block, false, false, None);
                    break;
                case 12 or 13:
                    await FlushAsync(() => volume.FlushAsync(None));
                    break;
                case 14:
                    await FlushAsync(() => Run(volume.Checkpoint));
                    break;
                case 15 when live.Count < 3:
                    var kept = new Kept { Name = $"{step}", Versions = (long[])now.Clone(), TakenBegun = storage.Changes };
                    history.Snapshots.Add(kept);
                    if (random.Next(2) == 0)
                    {
                        volume.MarkSnapshot(kept.Name);
                        break;
                    }

                    await FlushAsync(() => Run(() => volume.TakeSnapshot(kept.Name)));
                    break;
                case 16 when live.Count > 0:
                    kept = live[random.Next(live.Count)];
                    for (var block = 0; block < Blocks; block++)
                    {
                        Begin(block, 1, kept.Versions[block]);
                    }

                    await FlushAsync(() => Run(() => volume.RollBack(kept.Name)), including: true);
                    break;
                case 17 when live.Count > 0:
                    kept = live[random.Next(live.Count)];
                    kept.DeletedBegun = storage.Changes;
                    await FlushAsync(() => Run(() => volume.DeleteSnapshot(kept.Name)));
                    kept.DeletedDone = storage.Changes;
                    break;
                case 18:
                    await FlushAsync(() => Run(() => volume.Compact(null, None)));
                    break;
                case 19:
                    copied += volume.Statistics.CopiedBytes;
                    await FlushAsync(volume.DisposeAsync);
                    volume = Volume.Open(storage, Key, Small);
                    break;
            }
        }

        return (history, volume.Statistics with { CopiedBytes = volume.Statistics.CopiedBytes + copied });

        void Begin(int first, int count, long number)
        {
            for (var block = first; block < first + count; block++)
            {
                history.Versions[block].Add(new Version(storage.Changes, number));
                now[block] = number;
            }
        }

        async Task FlushAsync(Func<ValueTask> flush, bool including = false)
        {
            var begun = storage.Changes + (including ? 1 : 0);
            await flush();
            history.Flushes.Add((begun, storage.Changes));
            history.Snapshots.FindAll(kept => kept.TakenDone == int.MaxValue).ForEach(kept => kept.TakenDone = storage.Changes);
        }

        static ValueTask Run(Action action)
        {
            action();
            return ValueTask.CompletedTask;
        }
    }

    private static async Task RequireConsistentAsync(Dictionary<string, byte[]> files, History history, int cut, Random random)
    {
        var storage = RecordingStorage.Of(files);
        var recoveryBegins = storage.Changes;
        var volume = Volume.Open(storage, Key, Small);
        var content = await ReadAllAsync(volume);
        RequireAllowed(content, history, cut);
        var snapshots = await SnapshotsAsync(volume);
        RequireSnapshots(snapshots, history, cut);

        switch (random.Next(4))
        {
            case 0:
                // The process is killed and opens it again; the same once more from the files as they were.
                await RequireSameAsync(storage.Content, content, snapshots);
                await RequireSameAsync(files, content, snapshots);
                return;
            case 1:
                // Cleaning changes nothing that anybody sees, and the power may fail in it, or failed in the recovery before it.
                volume.Compact(null, None);
                RequireSame(content, await ReadAllAsync(volume));
                for (var i = 0; i < 3; i++)
                {
                    await RequireSameAsync(storage.AfterPowerLoss(random.Next(recoveryBegins, storage.Changes + 1), random), content, snapshots);
                }

                return;
            case 2:
                // What follows the recovery is as safe: a block is rewritten and flushed, and the power fails again.
                var next = new byte[Block];
                random.NextBytes(next);
                await volume.WriteAsync(3, next);
                await volume.FlushAsync(None);
                next.CopyTo(content.AsSpan(3 * Block));
                await RequireSameAsync(storage.AfterPowerLoss(storage.Changes, random), content, snapshots);
                return;
            default:
                await volume.DisposeAsync();
                await RequireSameAsync(storage.AfterPowerLoss(storage.Changes, random), content, snapshots);
                await using (var closed = Volume.Open(RecordingStorage.Of(storage.Content), Key, Small))
                {
                    Assert.Equal(0, closed.Statistics.ReplayedSlots);
                }

                return;
        }
    }

    private static void RequireAllowed(byte[] content, History history, int cut)
    {
        var flushed = history.Flushes.Where(flush => flush.Done <= cut).Select(flush => flush.Begun).DefaultIfEmpty(0).Max();
        for (var block = 0; block < Blocks; block++)
        {
            var begun = history.Versions[block].Where(version => version.Begun < cut || version.Begun == 0).ToList();
            var oldest = begun.FindLastIndex(version => version.Begun < flushed || version.Begun == 0);
            var actual = content.AsSpan(block * Block, Block).ToArray();
            var allowed = begun.Skip(Math.Max(oldest, 0)).Select(version => version.Number).ToList();
            Assert.True(
                allowed.Any(version => actual.AsSpan().SequenceEqual(Content(block, version))),
                $"block {block} holds {BitConverter.ToInt64(actual, 0)} version {BitConverter.ToInt64(actual, 8)}, allowed are {string.Join(", ", allowed)}");
        }
    }

    private static void RequireSnapshots(Dictionary<string, byte[]> snapshots, History history, int cut)
    {
        foreach (var kept in history.Snapshots)
        {
            if (snapshots.Remove(kept.Name, out var content))
            {
                Assert.True(kept.TakenBegun < cut && kept.DeletedDone > cut, $"snapshot {kept.Name} should not be there");
                snapshots.Add(kept.Name, content);
                for (var block = 0; block < Blocks; block++)
                {
                    Assert.True(
                        content.AsSpan(block * Block, Block).SequenceEqual(Content(block, kept.Versions[block])),
                        $"block {block} of snapshot {kept.Name} is not what it was");
                }
            }
            else
            {
                Assert.True(kept.TakenDone > cut || kept.DeletedBegun < cut, $"snapshot {kept.Name} is lost");
            }
        }

        Assert.True(snapshots.Keys.All(name => history.Snapshots.Any(kept => kept.Name == name)));
    }

    private static async Task<Dictionary<string, byte[]>> SnapshotsAsync(Volume volume)
    {
        var contents = new Dictionary<string, byte[]>();
        foreach (var snapshot in volume.Snapshots)
        {
            contents.Add(snapshot.Name, await ReadAllAsync(volume.OpenSnapshot(snapshot.Name)));
        }

        return contents;
    }

    private static async Task RequireSameAsync(
        IReadOnlyDictionary<string, byte[]> files, byte[] content, Dictionary<string, byte[]> snapshots)
    {
        var volume = Volume.Open(RecordingStorage.Of(files, isRecording: false), Key, Small);
        RequireSame(content, await ReadAllAsync(volume));
        var others = await SnapshotsAsync(volume);
        Assert.Equal(snapshots.Keys, others.Keys);
        foreach (var (name, kept) in snapshots)
        {
            RequireSame(kept, others[name]);
        }
    }

    // Assert.Equal compares byte by byte by reflection: nine tenths of the exploration's time.
    private static void RequireSame(byte[] expected, byte[] actual) =>
        Assert.True(expected.AsSpan().SequenceEqual(actual), "the content changed");
}
