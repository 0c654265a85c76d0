using Nacre.Images.Building;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests;

/// <summary>What the steps of builds made, kept for the next ones.</summary>
public sealed class StepCacheTests : IDisposable
{
    private const int Size = 1000;

    private readonly TemporaryDirectory folder = new();
    private readonly Clock clock = new();
    private int made;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string Kept => folder["steps"];

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task An_entry_is_taken_as_it_was_kept_and_only_by_its_key()
    {
        var cache = new StepCache(Kept, 10 * Size, clock);
        Assert.False(await cache.TryTakeAsync("a", folder["taken"], Token));
        await KeepAsync(cache, "a", 1);
        Assert.False(await cache.TryTakeAsync("b", folder["taken"], Token));
        Assert.True(await cache.TryTakeAsync("a", folder["taken"], Token));
        Assert.Equal(Content(1), await File.ReadAllBytesAsync(folder["taken"], Token));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, File.GetUnixFileMode(Kept));
    }

    [Theory]
    [InlineData(0, 7)]
    [InlineData(Size - 1, 7)]
    [InlineData(Size, 7)]
    [InlineData(500, -1)]
    [InlineData(0, -1)]
    public async Task A_damaged_entry_is_noticed_and_goes(int at, int value)
    {
        var cache = new StepCache(Kept, 10 * Size, clock);
        await KeepAsync(cache, "a", 1);
        var entry = Assert.Single(Directory.GetFiles(Kept));
        await using (var file = File.OpenWrite(entry))
        {
            if (value < 0)
            {
                file.SetLength(at);
            }
            else
            {
                file.Position = at;
                file.WriteByte((byte)value);
            }
        }

        Assert.False(await cache.TryTakeAsync("a", folder["taken"], Token));
        Assert.False(File.Exists(folder["taken"]));
        Assert.Empty(Directory.GetFiles(Kept));
        await KeepAsync(cache, "a", 2);
        Assert.True(await cache.TryTakeAsync("a", folder["taken"], Token));
    }

    [Fact]
    public async Task What_was_not_used_for_longest_goes_first()
    {
        var cache = new StepCache(Kept, 3 * Size, clock);
        foreach (var key in new[] { "a", "b", "c" })
        {
            await KeepAsync(cache, key, 1);
        }

        Assert.True(await cache.TryTakeAsync("a", folder["a"], Token));
        await KeepAsync(cache, "d", 1);
        Assert.Equal(["a", "c", "d"], Directory.GetFiles(Kept).Select(file => Path.GetFileName(file).Split('.')[0]).Order());
        await KeepAsync(cache, "e", 1, 4 * Size);
        Assert.Empty(Directory.GetFiles(Kept));
    }

    [Fact]
    public async Task What_a_killed_build_left_is_no_entry_and_goes_after_a_day()
    {
        Directory.CreateDirectory(Kept);
        var left = Path.Combine(Kept, "left.half");
        await File.WriteAllBytesAsync(left, new byte[Size], Token);
        File.SetLastWriteTimeUtc(left, clock.GetUtcNow().UtcDateTime);
        var cache = new StepCache(Kept, 2 * Size, clock);
        await KeepAsync(cache, "a", 1);
        Assert.True(File.Exists(left));
        clock.Now += TimeSpan.FromHours(25);
        await KeepAsync(cache, "b", 1);
        Assert.False(File.Exists(left));
        Assert.Equal(2, Directory.GetFiles(Kept).Length);
    }

    [Fact]
    public async Task Builds_at_the_same_time_disturb_each_other_in_nothing()
    {
        var whole = Enumerable.Range(0, 4).Select(Content).ToList();
        await Task.WhenAll(Enumerable.Range(0, 4).Select(build => Task.Run(async () =>
        {
            var cache = new StepCache(Kept, 3 * Size, clock);
            for (var i = 0; i < 10; i++)
            {
                var target = folder[$"taken-{build}-{i}"];
                if (await cache.TryTakeAsync($"key{i % 4}", target, Token))
                {
                    Assert.Contains(whole, content => content.AsSpan().SequenceEqual(File.ReadAllBytes(target)));
                }

                await KeepAsync(cache, $"key{i % 4}", build);
            }
        })));
        Assert.InRange(Directory.GetFiles(Kept).Length, 1, 4);
        Assert.Empty(Directory.GetFiles(Kept, "*.half"));
    }

    [Fact]
    public async Task A_folder_that_can_not_be_written_costs_only_the_cache()
    {
        await File.WriteAllTextAsync(Kept, "no folder", Token);
        var cache = new StepCache(Kept, 3 * Size, clock);
        await KeepAsync(cache, "a", 1);
        Assert.False(await cache.TryTakeAsync("a", folder["taken"], Token));
    }

    private static byte[] Content(int number)
    {
        var content = new byte[Size];
        new Random(number).NextBytes(content);
        return content;
    }

    private async Task KeepAsync(StepCache cache, string key, int number, int size = Size)
    {
        var file = folder[$"made-{Interlocked.Increment(ref made)}"];
        await File.WriteAllBytesAsync(file, size == Size ? Content(number) : new byte[size], Token);
        lock (clock)
        {
            clock.Now += TimeSpan.FromSeconds(1);
        }

        await cache.KeepAsync(key, file, Token);
    }

    private sealed class Clock : TimeProvider
    {
        public DateTimeOffset Now { get; set; } = DateTimeOffset.UnixEpoch.AddYears(50);

        public override DateTimeOffset GetUtcNow() => Now;
    }
}
