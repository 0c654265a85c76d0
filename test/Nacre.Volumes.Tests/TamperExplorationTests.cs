using Nacre.Testing;
using Xunit;
using static Nacre.Volumes.Tests.TestVolume;

namespace Nacre.Volumes.Tests;

/// <summary>Every file of a small volume changed, cut, swapped, removed or made older in every way that one step can: each is harmless or
/// named, and none gives wrong data. Who keeps an anchor outside is never shown an older state either.</summary>
public sealed class TamperExplorationTests
{
    private const int Blocks = 12;

    private static readonly VolumeOptions Tiny =
        new() { Size = Blocks * Block, SegmentSlots = 4, CheckpointInterval = 1 << 30, BackgroundMaintenance = false };

    /// <summary>What a moment of the volume's life looked like, from outside and from inside.</summary>
    private sealed record Moment(IReadOnlyDictionary<string, byte[]> Files, byte[] Content, Dictionary<string, byte[]> Snapshots);

    private sealed record Life(List<Moment> Moments, VolumeAnchor Anchor)
    {
        public Moment Last => Moments[^1];
    }

    private sealed class Outcomes
    {
        public int Harmless { get; set; }

        public int Older { get; set; }

        public Dictionary<VolumeErrorKind, int> Named { get; } = [];

        public override string ToString() =>
            $"{Harmless + Older + Named.Values.Sum()} changes: {Harmless} harmless, {Older} an older state (refused by anchor), "
            + string.Join(", ", Named.OrderBy(pair => pair.Key).Select(pair => $"{pair.Value} {pair.Key}"));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Every_byte_of_every_file_flipped_in_turn_is_harmless_or_named(bool closed)
    {
        var random = new Random(Seed());
        var life = await LiveAsync(closed);
        var outcomes = new Outcomes();
        foreach (var (name, bytes) in life.Last.Files)
        {
            var changed = (byte[])bytes.Clone();
            for (var at = 0; at < bytes.Length; at++)
            {
                changed[at] ^= (byte)(1 << random.Next(8));
                await RequireHarmlessOrNamedAsync(life, new(life.Last.Files) { [name] = changed }, outcomes, $"{name}: byte {at} changed");
                changed[at] = bytes[at];
            }
        }

        Assert.True(outcomes.Named.GetValueOrDefault(VolumeErrorKind.NotAuthentic) > outcomes.Harmless, $"{outcomes}");
        TestContext.Current.TestOutputHelper?.WriteLine($"closed {closed}: {outcomes}");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Every_file_cut_anywhere_removed_swapped_or_made_older_is_harmless_or_named(bool closed)
    {
        var random = new Random(Seed());
        var life = await LiveAsync(closed);
        var other = await LiveAsync(closed);
        var outcomes = new Outcomes();
        var files = life.Last.Files;
        foreach (var (name, bytes) in files)
        {
            var cuts = Enumerable.Range(0, bytes.Length).Where(length => length % 512 == 0 || random.Next(100) == 0);
            foreach (var length in cuts)
            {
                await RequireHarmlessOrNamedAsync(life, new(files) { [name] = bytes[..length] }, outcomes, $"{name} cut to {length}");
                var zeroed = (byte[])bytes.Clone();
                zeroed.AsSpan(length).Clear();
                await RequireHarmlessOrNamedAsync(life, new(files) { [name] = zeroed }, outcomes, $"{name} zero from {length} on");
            }

            await RequireHarmlessOrNamedAsync(life, new(files) { [name] = [.. bytes, .. bytes] }, outcomes, $"{name} twice as long");
            await RequireHarmlessOrNamedAsync(life, files.Where(file => file.Key != name).ToDictionary(), outcomes, $"{name} removed");
            await RequireHarmlessOrNamedAsync(life, new(files) { [name] = other.Last.Files.GetValueOrDefault(name, []) }, outcomes, $"{name} of another volume");
            foreach (var (second, others) in files)
            {
                await RequireHarmlessOrNamedAsync(life, new(files) { [name] = others, [second] = bytes }, outcomes, $"{name} and {second} swapped");
                await RequireHarmlessOrNamedAsync(life, new(files) { [name] = others }, outcomes, $"{name} replaced by {second}");
            }

            for (var moment = 0; moment < life.Moments.Count; moment++)
            {
                if (life.Moments[moment].Files.TryGetValue(name, out var older))
                {
                    await RequireHarmlessOrNamedAsync(life, new(files) { [name] = older }, outcomes, $"{name} as at moment {moment}");
                }
            }
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"closed {closed}: {outcomes}");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Any_mixture_of_the_files_of_two_moments_is_harmless_or_named(bool closed)
    {
        var random = new Random(Seed());
        var life = await LiveAsync(closed);
        var outcomes = new Outcomes();
        for (var moment = 0; moment < life.Moments.Count; moment++)
        {
            // The whole folder as it was, and then any of its files as they are now, and any of those now as they were.
            var older = life.Moments[moment].Files;
            await RequireHarmlessOrNamedAsync(life, new(older), outcomes, $"the folder as at moment {moment}");
            for (var i = 0; i < 60; i++)
            {
                var mixture = new Dictionary<string, byte[]>();
                foreach (var name in older.Keys.Union(life.Last.Files.Keys))
                {
                    var choice = random.Next(2) == 0 ? older : life.Last.Files;
                    if (choice.TryGetValue(name, out var bytes))
                    {
                        mixture[name] = bytes;
                    }
                }

                await RequireHarmlessOrNamedAsync(life, mixture, outcomes, $"a mixture of moment {moment} and the last");
            }
        }

        Assert.True(outcomes.Older > 0, "no older state was ever tried");
        TestContext.Current.TestOutputHelper?.WriteLine($"closed {closed}: {outcomes}");
    }

    [Fact]
    public async Task Verification_names_exactly_the_block_whose_slot_was_damaged()
    {
        var life = await LiveAsync(closed: true);
        var random = new Random(Seed());
        var named = 0;
        foreach (var (name, bytes) in life.Last.Files.Where(file => file.Key.StartsWith("segment-", StringComparison.Ordinal)))
        {
            for (var slot = 0; Segment.PositionOf(slot + 1) <= bytes.Length; slot++)
            {
                var changed = (byte[])bytes.Clone();
                changed[Segment.PositionOf(slot) + random.Next(Segment.SlotSize)] ^= 1;
                await using var volume = Volume.Open(
                    RecordingStorage.Of(new Dictionary<string, byte[]>(life.Last.Files) { [name] = changed }, isRecording: false), Key, Tiny with { Tolerant = true });
                var found = volume.Verify(null, None);
                Assert.Empty(found.LogDamages);
                foreach (var damage in found.Damages)
                {
                    named++;
                    Assert.Equal(VolumeErrorKind.NotAuthentic, damage.Cause.Kind);
                    Assert.Contains($"slot {slot} of {name}", damage.Cause.Message, StringComparison.Ordinal);
                    var device = damage.Snapshot is { } snapshot ? volume.OpenSnapshot(snapshot) : volume;
                    await FailsAsync(VolumeErrorKind.NotAuthentic, async () => await device.ReadAsync(damage.Offset, new byte[Block], None));
                }

                // What is not named reads as it was.
                for (var block = 0; block < Blocks; block++)
                {
                    if (!found.Damages.Any(damage => damage.Offset <= block * Block && damage.Offset + damage.Length > block * Block))
                    {
                        var content = new byte[Block];
                        await volume.ReadAsync(block * Block, content, None);
                        Assert.True(content.AsSpan().SequenceEqual(life.Last.Content.AsSpan(block * Block, Block)));
                    }
                }
            }
        }

        Assert.True(named >= Blocks / 2, "hardly any slot was live");
    }

    /// <summary>A volume with a checkpoint, a snapshot, holes, cleaning, a roll back, and segments after the checkpoint.</summary>
    private static async Task<Life> LiveAsync(bool closed)
    {
        var storage = new RecordingStorage { IsRecording = false };
        var volume = Volume.Create(storage, Tiny, Key);
        var moments = new List<Moment>();
        await NoteAsync();
        for (var block = 0; block < 7; block++)
        {
            await volume.WriteAsync(block, Content(block, 1));
            await volume.FlushAsync(None);
            await NoteAsync();
        }

        volume.TakeSnapshot("first");
        await NoteAsync();
        await volume.WriteAsync(2, [.. Content(2, 2), .. Content(3, 2), .. Content(4, 2)]);
        await volume.FlushAsync(None);
        await NoteAsync();
        volume.Checkpoint();
        await NoteAsync();
        await volume.TrimAsync(5 * Block, 2 * Block, None);
        await volume.FlushAsync(None);
        await NoteAsync();
        volume.RollBack("first");
        await NoteAsync();
        volume.Compact(null, None);
        await NoteAsync();
        foreach (var block in new[] { 9, 3, 10 })
        {
            await volume.WriteAsync(block, Content(block, 3));
            await volume.FlushAsync(None);
            await NoteAsync();
        }

        var anchor = volume.Anchor;
        if (closed)
        {
            await volume.DisposeAsync();
            moments.Add(moments[^1] with { Files = storage.Content });
        }

        return new Life(moments, anchor);

        async Task NoteAsync() => moments.Add(new Moment(storage.Content, await ReadAllAsync(volume), await SnapshotsAsync(volume)));
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

    private static async Task RequireHarmlessOrNamedAsync(Life life, Dictionary<string, byte[]> files, Outcomes outcomes, string what)
    {
        try
        {
            var seen = await OpenAsync(files, anchor: null);
            if (IsSame(seen, life.Last))
            {
                outcomes.Harmless++;
                return;
            }

            Assert.True(life.Moments.Any(moment => IsSame(seen, moment)), $"{what}: content that the volume never had was served");
            outcomes.Older++;
        }
        catch (VolumeException e)
        {
            RequireNamed(e, what);
            outcomes.Named[e.Kind] = outcomes.Named.GetValueOrDefault(e.Kind) + 1;
            return;
        }

        // An older state: the anchor tells it from the newest one.
        var refused = await Assert.ThrowsAsync<VolumeException>(() => OpenAsync(files, life.Anchor));
        Assert.Equal(VolumeErrorKind.Outdated, refused.Kind);
    }

    private static async Task<(byte[] Content, Dictionary<string, byte[]> Snapshots)> OpenAsync(Dictionary<string, byte[]> files, VolumeAnchor? anchor)
    {
        // Closing would clean up behind the tampering; the storage is thrown away instead.
        var volume = Volume.Open(RecordingStorage.Of(files, isRecording: false), Key, Tiny with { Anchor = anchor });
        return (await ReadAllAsync(volume), await SnapshotsAsync(volume));
    }

    private static bool IsSame((byte[] Content, Dictionary<string, byte[]> Snapshots) seen, Moment moment) =>
        seen.Content.AsSpan().SequenceEqual(moment.Content) && seen.Snapshots.Count == moment.Snapshots.Count
        && seen.Snapshots.All(snapshot => moment.Snapshots.TryGetValue(snapshot.Key, out var content) && content.AsSpan().SequenceEqual(snapshot.Value));

    private static void RequireNamed(VolumeException e, string what)
    {
        Assert.True(
            e.Kind is VolumeErrorKind.NotAuthentic or VolumeErrorKind.Corrupt or VolumeErrorKind.Truncated or VolumeErrorKind.WrongKey or VolumeErrorKind.Unsupported or VolumeErrorKind.Io,
            $"{what}: {e}");
        Assert.True(
            e.Message.Contains("segment-", StringComparison.Ordinal) || e.Message.Contains("checkpoint-", StringComparison.Ordinal)
            || e.Message.Contains("header", StringComparison.Ordinal) || e.Kind is VolumeErrorKind.WrongKey or VolumeErrorKind.Unsupported,
            $"{what}: {e.Message}");
    }
}
