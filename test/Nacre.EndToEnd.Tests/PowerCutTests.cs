using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using Nacre.Nbd;
using Nacre.Testing;
using Nacre.Volumes;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>The power is cut again and again under a guest that works with a database and files on a volume: nothing that it was told to be
/// durable may be missing afterwards, and its file system and database are whole.</summary>
public sealed class PowerCutTests
{
    /// <summary>Changes of the storage in one round, several times what a guest causes: more would fill the memory.</summary>
    private const int MaximumChanges = 50_000;

    private static readonly byte[] Key = [.. Enumerable.Range(1, 32).Select(i => (byte)i)];

    /// <summary>Small enough that segments are left, checkpoints taken and cleaning done all the time.</summary>
    private static readonly VolumeOptions Options = new() { Size = 128 << 20, SegmentSlots = 256, CheckpointInterval = 1 << 20 };

    /// <summary>(journal mode, synchronous): each makes a transaction durable before its commit returns.</summary>
    private static readonly (string Mode, string Synchronous)[] Journals = [("wal", "FULL"), ("persist", "FULL"), ("truncate", "FULL"), ("delete", "EXTRA")];

    private static readonly string Queries = Repository.Path("testdata", "tiny-guest", "power-cuts.sql");

    private readonly List<Kept> snapshots = [];
    private readonly PowerCutLedger ledger = new();
    private readonly Dictionary<string, int> moments = [];
    private VolumeStatistics sum;
    private int examined;

    /// <summary>What the power is cut at: the so-and-so-manieth of these events.</summary>
    private enum Event
    {
        Change,
        Transaction,
        File,
        Checked,
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public Task Four_power_cuts_of_a_working_guest_lose_nothing_that_was_durable() => CutAsync(4, 3);

    [Fact]
    [Trait("lane", "long")]
    public Task Fifty_power_cuts_of_a_working_guest_lose_nothing_that_was_durable() => CutAsync(50, 4);

    private async Task CutAsync(int cuts, int othersPerCut)
    {
        var seed = int.TryParse(Environment.GetEnvironmentVariable("NACRE_SEED"), CultureInfo.InvariantCulture, out var given) ? given : Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"NACRE_SEED={seed}");
        var random = new Random(seed);
        var guest = await TinyGuest.MakeAsync("power-cuts", Repository.Path("testdata", "tiny-guest", "power-cuts.sh"), Queries, "sqlite3", "mkfs.ext4", "e2fsck");
        using var examination = new PowerCutExamination(Queries);
        using var folder = new TemporaryDirectory();
        var elapsed = Stopwatch.StartNew();
        var storage = new RecordingStorage();
        for (var number = 0; number <= cuts; number++)
        {
            try
            {
                storage = await RoundAsync(guest, folder["disk"], storage, number, number == cuts, random, (examination, number == cuts ? 0 : othersPerCut));
            }
            catch (Exception e)
            {
                Assert.Fail($"NACRE_SEED={seed}, after {number} power cuts: {e}");
            }
        }

        Assert.True(sum is { Checkpoints: > 0, CopiedBytes: > 0, ReplayedSlots: > 0 }, $"the engine did not do what was to be interrupted: {sum}");
        Assert.True(ledger is { AcknowledgedTransactions: > 0, AcknowledgedFiles: > 0 }, "the guest did nothing");
        TestContext.Current.TestOutputHelper?.WriteLine(
            $"figure: {cuts} power cuts in {elapsed.Elapsed.TotalSeconds:F0} s: {string.Join(", ", moments.Where(pair => pair.Value > 0).Select(pair => $"{pair.Value} at {pair.Key}"))}; "
            + $"{examined} other moments examined on the host; "
            + $"{ledger.AcknowledgedTransactions} transactions, {ledger.AcknowledgedFiles} files and {ledger.AcknowledgedRemovals} removals acknowledged, "
            + $"{ledger.FoundFiles} files found and whole; file system clean after replay by {string.Join(", by ", ledger.Clean.Select(pair => $"{pair.Key} {pair.Value}"))}; "
            + $"{sum.WrittenBytes >> 20} MiB written, {sum.DataSyncs} syncs, {sum.Checkpoints} checkpoints, {sum.CopiedBytes >> 20} MiB copied by cleaning, {sum.ReplayedSlots} slots replayed");
    }

    /// <summary>Starts a guest on what the last cut left, cuts the power, and returns what that leaves.</summary>
    private async Task<RecordingStorage> RoundAsync(
        string folder, string socket, RecordingStorage storage, int number, bool isLast, Random random, (PowerCutExamination By, int Count) others)
    {
        var isFresh = number == 0;
        var volume = isFresh ? Volume.Create(storage, Options, Key) : Volume.Open(storage, Key, Options);
        var created = storage.Changes;
        if (!isFresh)
        {
            Assert.Empty(volume.Verify(null, Token).Damages);
            await RequireSnapshotsAsync(volume, kept => kept.MustBeThere, kept => kept.MayBeThere);
            snapshots.RemoveAll(kept => volume.Snapshots.All(snapshot => snapshot.Name != kept.Name));
        }

        var (kind, count) = isLast ? (Event.Checked, 1) : (number % 4) switch
        {
            0 => (Event.Transaction, random.Next(1, 600)),

            // Soon after the start it interrupts the recovery: of the volume, of the file system, of the database.
            1 => (Event.Change, random.Next(1, 60)),
            2 => (Event.File, random.Next(1, 40)),
            _ => (Event.Change, random.Next(600, 6000)),
        };
        var round = new Round(storage, ledger, kind, count, random.Next(5, 150));
        var removing = ledger.Files.Order().Where((_, i) => i < ledger.Files.Count - 60 || random.Next(3) == 0).Take(100).ToList();
        var parameters = Parameters(isFresh, removing, random);
        var before = new PowerCutLedger(ledger);
        ledger.Begin(isFresh, removing);
        storage.Before = (_, _) => round.Count(Event.Change);
        int cut;
        await using (var server = NbdServer.Start(socket, new Dictionary<string, IBlockDevice> { ["disk"] = volume }))
        {
            await using var guest = TinyGuest.Start(folder, socket, parameters, round.Read);
            var history = Task.Run(() => KeepAsync(volume, storage, round, $"round {number}"), Token);
            try
            {
                cut = await round.Cut.WaitAsync(TimeSpan.FromMinutes(3), Token);
            }
            catch (Exception e)
            {
                throw new InvalidOperationException($"{string.Join(' ', parameters)}\n{await guest.WordsAsync()}", e);
            }

            await history;
        }

        var statistics = volume.Statistics;
        Note(statistics);
        await volume.DisposeAsync();
        Assert.True(cut >= created, "the guest was there before its disk");
        var moment = isLast ? "the end" : !ledger.IsChecked && !isFresh ? "recovery" : kind switch { Event.Change => "a change", Event.File => "a file", _ => "a transaction" };
        moments[moment] = moments.GetValueOrDefault(moment) + (isLast ? 0 : 1);
        TestContext.Current.TestOutputHelper?.WriteLine(
            $"{number}: cut at {moment} ({count}), {storage.Changes} changes; transaction {ledger.Newest}, {ledger.Files.Count} files; {string.Join(' ', parameters[..^1])}; {statistics}");
        for (var i = 0; i < others.Count; i++)
        {
            var first = isFresh ? round.Lines.First(line => line.Line == "CHECKED").Changes : created;
            await ExamineAsync(others.By, storage, round, before, removing, random.Next(first, cut + 1), cut, random);
            examined++;
        }

        foreach (var kept in snapshots)
        {
            kept.Settle(cut);
        }

        return RecordingStorage.Of(storage.AfterPowerLoss(cut, random));
    }

    private static string[] Parameters(bool isFresh, List<int> removing, Random random)
    {
        var (mode, synchronous) = Journals[random.Next(Journals.Length)];
        return
        [
            $"fresh={(isFresh ? "yes" : "no")}", $"replay={(random.Next(2) == 0 ? "kernel" : "e2fsck")}",
            $"options={(random.Next(2) == 0 ? "discard" : "nodiscard")}", $"journal={mode}", $"synchronous={synchronous}",
            $"delete={string.Concat(removing.Select(file => $"{file},"))}",
        ];
    }

    private void Note(VolumeStatistics statistics)
    {
        Assert.True(statistics.CopiedBytes < (8 * statistics.WrittenBytes) + (32 << 20), $"cleaning does not end: {statistics}");
        sum = sum with
        {
            WrittenBytes = sum.WrittenBytes + statistics.WrittenBytes,
            CopiedBytes = sum.CopiedBytes + statistics.CopiedBytes,
            Checkpoints = sum.Checkpoints + statistics.Checkpoints,
            DataSyncs = sum.DataSyncs + statistics.DataSyncs,
            ReplayedSlots = sum.ReplayedSlots + statistics.ReplayedSlots,
        };
    }

    /// <summary>Takes a snapshot when the guest is so far, and gives up the oldest of three.</summary>
    private async Task KeepAsync(Volume volume, RecordingStorage storage, Round round, string name)
    {
        if (await Task.WhenAny(round.Cut, round.SnapshotDue) == round.Cut)
        {
            return;
        }

        var kept = new Kept { Name = name, TakenBegun = storage.Changes };
        snapshots.Add(kept);
        volume.TakeSnapshot(name);
        kept.TakenDone = storage.Changes;
        kept.Hash = await HashAsync(volume.OpenSnapshot(name));
        if (snapshots.Count > 2)
        {
            var oldest = snapshots[0];
            oldest.DeletedBegun = storage.Changes;
            volume.DeleteSnapshot(oldest.Name);
            oldest.DeletedDone = storage.Changes;
        }
    }

    /// <summary>Examines on the host what a cut at other moments of the round would have left, each against what had been acknowledged by then.</summary>
    private async Task ExamineAsync(PowerCutExamination examination, RecordingStorage storage, Round round, PowerCutLedger before, List<int> removing, int other, int cut, Random random)
    {
        // Before it had checked, the guest had done nothing.
        var expected = new PowerCutLedger(before);
        if (round.Lines.Any(line => line.Line == "CHECKED" && line.Changes <= other))
        {
            expected.Begin(isFresh: true, removing);
            foreach (var (_, line) in round.Lines.TakeWhile(line => line.Changes <= other))
            {
                expected.Read(line);
            }
        }

        try
        {
            var volume = Volume.Open(RecordingStorage.Of(storage.AfterPowerLoss(other, random), isRecording: false), Key, Options with { ReadOnly = true });
            await RequireSnapshotsAsync(volume, kept => kept.MustBeThereAfter(other), kept => kept.MayBeThereAfter(other));
            expected.Begin(isFresh: false, []);
            await examination.ReadAsync(volume, expected.Read, Token);
            Assert.True(expected.IsChecked);
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"cut at change {other} of {cut}", e);
        }
    }

    private async Task RequireSnapshotsAsync(Volume volume, Func<Kept, bool> must, Func<Kept, bool> may)
    {
        foreach (var kept in snapshots)
        {
            var isThere = volume.Snapshots.Any(snapshot => snapshot.Name == kept.Name);
            Assert.True(isThere ? may(kept) : !must(kept), $"the snapshot of {kept.Name} is {(isThere ? "" : "not ")}there");
            if (isThere)
            {
                Assert.Equal(kept.Hash, await HashAsync(volume.OpenSnapshot(kept.Name)));
            }
        }

        Assert.True(volume.Snapshots.All(snapshot => snapshots.Any(kept => kept.Name == snapshot.Name)), "a snapshot that nobody took");
    }

    private static async Task<string> HashAsync(IBlockDevice device)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = new byte[1 << 20];
        for (var offset = 0L; offset < device.Size; offset += buffer.Length)
        {
            await device.ReadAsync(offset, buffer, Token);
            hash.AppendData(buffer);
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>A snapshot, and when its taking and deleting began and ended, in changes of the storage.</summary>
    private sealed class Kept
    {
        public required string Name { get; init; }

        public string? Hash { get; set; }

        public int TakenBegun { get; set; }

        public int TakenDone { get; set; } = int.MaxValue;

        public int DeletedBegun { get; set; } = int.MaxValue;

        public int DeletedDone { get; set; } = int.MaxValue;

        public bool MustBeThere { get; private set; }

        public bool MayBeThere { get; private set; }

        /// <summary>The power was cut then; the storage that follows counts anew.</summary>
        public void Settle(int cut)
        {
            (MustBeThere, MayBeThere) = (MustBeThereAfter(cut), MayBeThereAfter(cut));
            (TakenBegun, TakenDone, DeletedBegun, DeletedDone) = (-1, -1, int.MaxValue, int.MaxValue);
        }

        public bool MustBeThereAfter(int cut) => TakenDone <= cut && DeletedBegun >= cut;

        public bool MayBeThereAfter(int cut) => TakenBegun < cut && DeletedDone > cut;
    }

    /// <summary>Watches one guest until the moment of the cut, and fixes what counts as acknowledged before it.</summary>
    private sealed class Round(RecordingStorage storage, PowerCutLedger ledger, Event kind, int count, int snapshotAfter)
    {
        private readonly Lock gate = new();
        private readonly TaskCompletionSource<int> cut = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly TaskCompletionSource snapshotDue = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private int toGo = count;
        private int changes;
        private int toSnapshot = snapshotAfter;

        /// <summary>What the guest said, each line with the number of changes that the storage had seen by then.</summary>
        public List<(int Changes, string Line)> Lines { get; } = [];

        /// <summary>How many changes the storage had seen when the power failed.</summary>
        public Task<int> Cut => cut.Task;

        public Task SnapshotDue => snapshotDue.Task;

        public void Read(string line)
        {
            lock (gate)
            {
                // What the guest says after the cut was never said.
                if (cut.Task.IsCompleted)
                {
                    return;
                }

                Lines.Add((storage.Changes, line));
                try
                {
                    ledger.Read(line);
                }
                catch (Exception e)
                {
                    cut.TrySetException(e);
                    return;
                }
            }

            switch (line.Split(' ')[0])
            {
                case "CHECKED":
                    Count(Event.Checked);
                    break;
                case "F":
                    Count(Event.File);
                    break;
                case "T":
                    Count(Event.Transaction);
                    if (--toSnapshot == 0)
                    {
                        snapshotDue.TrySetResult();
                    }

                    break;
            }
        }

        /// <summary>One more of these events. Also called by whoever changes the storage, before the change.</summary>
        public void Count(Event happened)
        {
            lock (gate)
            {
                if (happened == kind && --toGo == 0)
                {
                    cut.TrySetResult(storage.Changes);
                }
                else if (happened == Event.Change && ++changes == MaximumChanges)
                {
                    cut.TrySetException(new InvalidOperationException("the volume writes without end"));
                }
            }
        }
    }
}
