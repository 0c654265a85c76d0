using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Testing;
using Xunit;
using static Nacre.Volumes.Tests.TestVolume;

namespace Nacre.Volumes.Tests;

/// <summary>Volumes that earlier builds made and that lie in <c>testdata/volumes</c>: what was written once opens for ever, or is refused as
/// Unsupported. They are never made again: a format that changes gets a folder of its own.</summary>
public sealed class FixtureTests
{
    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };

    private static readonly VolumeOptions Options =
        new() { Size = 48 * Block, SegmentSlots = 4, CheckpointInterval = 1 << 30, BackgroundMaintenance = false, Clock = new FixedClock() };

    /// <summary>What a fixture holds; the present content is the view without a name.</summary>
    private sealed record Expected(string Key, long Size, Dictionary<string, string> Views, Dictionary<string, DateTimeOffset> Taken, List<long[]> Data, Dictionary<string, string> Files);

    [Fact]
    [Spec("VOL-050")]
    public async Task A_volume_of_format_2_that_was_made_once_opens_with_what_it_held()
    {
        var expected = JsonSerializer.Deserialize<Expected>(await File.ReadAllTextAsync(Repository.At("testdata", "volumes", "format-2", "expected.json"), None))!;
        using var folder = new TemporaryDirectory();
        var key = Copy("format-2", folder["v"], expected);
        await using (var volume = Volume.Open(folder["v"], key))
        {
            await RequireAsync(volume, expected);
            Assert.True(volume.Statistics.ReplayedSlots > 0, "the fixture has no tail after its checkpoint");
            Assert.Empty(volume.Verify(null, None).Damages);
            await volume.WriteAsync(20, Content(20, 9));
            volume.RollBack("monday");
        }

        await using var rolledBack = Volume.Open(folder["v"], key);
        Assert.Equal(expected.Views["monday"], Hash(await ReadAllAsync(rolledBack)));
    }

    [Fact]
    public async Task A_volume_of_format_2_is_read_and_compacted_as_it_was()
    {
        var expected = JsonSerializer.Deserialize<Expected>(await File.ReadAllTextAsync(Repository.At("testdata", "volumes", "format-2", "expected.json"), None))!;
        using var folder = new TemporaryDirectory();
        var key = Copy("format-2", folder["v"], expected);
        await using (var reader = Volume.Open(folder["v"], key, new VolumeOptions { ReadOnly = true }))
        {
            await RequireAsync(reader, expected);
        }

        Assert.Equal(expected.Files, Files(folder["v"]));
        await using (var volume = Volume.Open(folder["v"], key))
        {
            volume.Compact(null, None);
            await RequireAsync(volume, expected);
        }

        await using var compacted = Volume.Open(folder["v"], key);
        await RequireAsync(compacted, expected);
    }

    [Theory]
    [InlineData("format-1")]
    [InlineData("unknown-feature")]
    [Spec("VOL-021", "VOL-022")]
    public async Task A_header_of_another_version_or_with_an_unknown_feature_is_refused_as_unsupported_and_stays_as_it_was(string name)
    {
        var original = await File.ReadAllBytesAsync(Repository.At("testdata", "volumes", name, "header"), None);
        using var folder = new TemporaryDirectory();
        await File.WriteAllBytesAsync(folder["header"], original, None);
        foreach (var options in new[] { new VolumeOptions(), new VolumeOptions { ReadOnly = true }, new VolumeOptions { Tolerant = true } })
        {
            await FailsAsync(VolumeErrorKind.Unsupported, () => Task.Run(() => Volume.Open(folder.Path, Key, options)));
        }

        Assert.Equal(original, await File.ReadAllBytesAsync(folder["header"], None));
    }

    /// <summary>Makes the fixtures where there are none: <c>Nacre.Volumes.Tests -explicit only -method '*.Make_the_fixtures'</c>.</summary>
    [Fact(Explicit = true)]
    public async Task Make_the_fixtures()
    {
        Directory.CreateDirectory(Repository.At("testdata", "volumes"));
        var folder = Repository.At("testdata", "volumes", "format-2");
        if (!Directory.Exists(folder))
        {
            await MakeFormat2Async(folder);
        }

        byte[] Header(uint version, uint features) => SpecifiedFormat.Header(
            RandomNumberGenerator.GetBytes(16), RandomNumberGenerator.GetBytes(32), Key, RandomNumberGenerator.GetBytes(12), RandomNumberGenerator.GetBytes(12),
            Options.Size, Options.SegmentSlots, version, features);
        foreach (var (name, header) in new[] { ("format-1", Header(1, 0)), ("unknown-feature", Header(2, 1)) })
        {
            folder = Repository.At("testdata", "volumes", name);
            if (!Directory.Exists(folder))
            {
                Directory.CreateDirectory(folder);
                await File.WriteAllBytesAsync(Path.Combine(folder, "header"), header, None);
            }
        }
    }

    private static async Task MakeFormat2Async(string folder)
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, Options, Key);
        for (var block = 0; block < 10; block++)
        {
            await volume.WriteAsync(block, Content(block, 1));
        }

        await volume.WriteZeroesAsync(2 * Block, 2 * Block, false, false, None);
        volume.TakeSnapshot("monday");
        for (var block = 4; block < 7; block++)
        {
            await volume.WriteAsync(block, Content(block, 2));
        }

        await volume.TrimAsync(8 * Block, 2 * Block, None);
        volume.TakeSnapshot("tuesday");
        await volume.WriteAsync(0, Content(0, 3));

        // Copies, then a checkpoint; what follows is the tail of a process that was killed.
        volume.Compact(null, None);
        await volume.WriteAsync(10, Content(10, 4));
        await volume.TrimAsync(5 * Block, Block, None);
        volume.TakeSnapshot("wednesday");
        volume.DeleteSnapshot("tuesday");
        await volume.WriteAsync(47, Content(47, 4));
        Assert.True(volume.Statistics.CopiedBytes > 0, "the fixture has no copy");
        var views = new Dictionary<string, string> { [""] = Hash(await ReadAllAsync(volume)) };
        foreach (var snapshot in volume.Snapshots)
        {
            views[snapshot.Name] = Hash(await ReadAllAsync(volume.OpenSnapshot(snapshot.Name)));
        }

        Directory.CreateDirectory(folder);
        foreach (var (name, bytes) in storage.Content)
        {
            await File.WriteAllBytesAsync(Path.Combine(folder, name), bytes, None);
        }

        var expected = new Expected(
            Convert.ToHexStringLower(Key), volume.Size, views, volume.Snapshots.ToDictionary(snapshot => snapshot.Name, snapshot => snapshot.Taken), Data(volume), Files(folder));
        await File.WriteAllTextAsync(Path.Combine(folder, "expected.json"), JsonSerializer.Serialize(expected, Indented) + "\n", None);
    }

    /// <summary>Copies a fixture whose files are still those that were made; returns its key.</summary>
    private static byte[] Copy(string name, string target, Expected expected)
    {
        Directory.CreateDirectory(target);
        foreach (var file in Directory.GetFiles(Repository.At("testdata", "volumes", name)).Where(file => Path.GetFileName(file) != "expected.json"))
        {
            File.Copy(file, Path.Combine(target, Path.GetFileName(file)));
        }

        Assert.Equal(expected.Files, Files(target));
        return Convert.FromHexString(expected.Key);
    }

    private static async Task RequireAsync(Volume volume, Expected expected)
    {
        Assert.Equal(expected.Size, volume.Size);
        Assert.Equal(expected.Views[""], Hash(await ReadAllAsync(volume)));
        Assert.Equal(expected.Views.Keys.Where(name => name.Length > 0).Order(), volume.Snapshots.Select(snapshot => snapshot.Name).Order());
        Assert.Equal(expected.Data, Data(volume));
        foreach (var snapshot in volume.Snapshots)
        {
            Assert.Equal(expected.Taken[snapshot.Name], snapshot.Taken);
            Assert.Equal(expected.Views[snapshot.Name], Hash(await ReadAllAsync(volume.OpenSnapshot(snapshot.Name))));
        }
    }

    /// <summary>Offset and length of what is no hole.</summary>
    private static List<long[]> Data(Volume volume)
    {
        var extents = new BlockExtent[64];
        var data = new List<long[]>();
        var at = 0L;
        foreach (var extent in extents[..volume.DescribeExtents(0, volume.Size, extents)])
        {
            if (!extent.IsHole)
            {
                data.Add([at, extent.Length]);
            }

            at += extent.Length;
        }

        return data;
    }

    private static Dictionary<string, string> Files(string folder) => new DirectoryInfo(folder).GetFiles().Where(file => file.Name is not ("expected.json" or "lock")).OrderBy(file => file.Name, StringComparer.Ordinal)
        .ToDictionary(file => file.Name, file => Hash(File.ReadAllBytes(file.FullName)));

    private static string Hash(byte[] bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));

    private sealed class FixedClock : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => DateTimeOffset.Parse("2026-11-25T12:00:00Z", CultureInfo.InvariantCulture);
    }
}
