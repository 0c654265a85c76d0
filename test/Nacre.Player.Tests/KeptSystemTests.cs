using Nacre.Player.LivePcs;
using Nacre.Policies;
using Nacre.Testing;
using Nacre.Volumes;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>A system layer that the policy keeps: as the last guest left it where that shut down, and nothing below it changed; else blank.</summary>
public sealed class KeptSystemTests : IDisposable
{
    private const string Below = "00112233445566778899aabbccddeeff", OtherBelow = "ff112233445566778899aabbccddeeff";
    private static readonly byte[] Key = [.. Enumerable.Range(0, 32).Select(value => (byte)value)];

    private readonly TemporaryDirectory folder = new();
    private readonly SetTime time = new(new DateTimeOffset(2026, 11, 29, 12, 0, 0, TimeSpan.Zero));

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task It_is_kept_after_a_shutdown_only_over_the_same_layers_only()
    {
        Assert.Equal((false, 0L), await RunAsync(SystemCleaning.OnUpdate, Below));
        Assert.Equal((true, 1L), await RunAsync(SystemCleaning.OnUpdate, Below));
        Assert.Equal((true, 1L), await RunAsync(SystemCleaning.OnUpdate, Below, isShutDown: false));
        Assert.Equal((false, 0L), await RunAsync(SystemCleaning.OnUpdate, Below));
        Assert.Equal((false, 0L), await RunAsync(SystemCleaning.OnUpdate, OtherBelow));
        Assert.Equal((false, 0L), await RunAsync(SystemCleaning.OnUpdate, Below));
        Assert.Equal((false, 0L), await RunAsync(SystemCleaning.EveryStart, Below));
        Assert.Equal((true, 1L), await RunAsync(SystemCleaning.OnUpdate, Below));
    }

    [Fact]
    public async Task A_week_counts_from_when_it_was_clean_and_not_from_the_last_start()
    {
        Assert.Equal((false, 0L), await RunAsync(SystemCleaning.Weekly, Below));
        time.Now += TimeSpan.FromDays(4);
        Assert.Equal((true, 1L), await RunAsync(SystemCleaning.Weekly, Below));
        time.Now += TimeSpan.FromDays(4);
        Assert.Equal((false, 0L), await RunAsync(SystemCleaning.Weekly, Below));
        time.Now += TimeSpan.FromDays(6);
        Assert.Equal((true, 1L), await RunAsync(SystemCleaning.Weekly, Below));
        time.Now += TimeSpan.FromDays(60);
        Assert.Equal((true, 1L), await RunAsync(SystemCleaning.OnUpdate, Below));
    }

    [Fact]
    public async Task What_is_cleaned_before_its_guest_starts_is_as_old_as_that()
    {
        await RunAsync(SystemCleaning.Weekly, Below);
        time.Now += TimeSpan.FromDays(5);
        await using (var volume = Open())
        {
            var system = new KeptSystem(volume, time);
            Assert.True(await system.BeginAsync(SystemCleaning.Weekly, Below));
            await system.CleanAsync();
            Assert.Equal(0, volume.Statistics.LiveBlocks);
            system.End();
        }

        time.Now += TimeSpan.FromDays(5);
        await using var again = Open();
        Assert.True(await new KeptSystem(again, time).BeginAsync(SystemCleaning.Weekly, Below));
    }

    /// <summary>A start whose guest writes one block: whether the disk was kept, and the blocks that the guest found on it.</summary>
    private async Task<(bool IsKept, long Blocks)> RunAsync(SystemCleaning when, string below, bool isShutDown = true)
    {
        await using var volume = Open();
        var system = new KeptSystem(volume, time);
        var isKept = await system.BeginAsync(when, below);
        Assert.Empty(volume.Snapshots);
        var found = volume.Statistics.LiveBlocks;
        await volume.WriteAsync(4096, new byte[4096].Select(_ => (byte)7).ToArray(), forceUnitAccess: true, default);
        if (isShutDown)
        {
            system.End();
        }

        return (isKept, found);
    }

    private Volume Open() => Directory.Exists(folder["volume"]) ? Volume.Open(folder["volume"], Key) : Volume.Create(folder["volume"], new VolumeOptions { Size = 16 << 20 }, Key);
}
