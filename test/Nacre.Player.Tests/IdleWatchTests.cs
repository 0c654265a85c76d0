using System.Text.Json;
using Nacre.Player.LivePcs;
using Nacre.Player.Machines;
using Nacre.Player.Updates;
using Nacre.Policies;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>When a running LivePC asks for its password again.</summary>
public sealed class IdleWatchTests
{
    private readonly ManualTime time = new();
    private TimeSpan slept;

    private TimeSpan SinceBoot => TimeSpan.FromTicks(time.GetTimestamp()) + slept;

    [Fact]
    public void It_locks_after_minutes_of_nobody_and_after_hours_whoever_works()
    {
        var watch = new IdleWatch(time, () => SinceBoot);
        var policy = PolicyOf("""{"lock.idleMinutes":5,"reauthPeriodHours":1}""");
        time.Advance(TimeSpan.FromMinutes(4.9));
        Assert.Null(watch.Due(policy, isHostLocked: false));
        time.Advance(TimeSpan.FromMinutes(0.2));
        Assert.Equal("nobody used it for 5 minutes", watch.Due(policy, isHostLocked: false));
        watch.NoteActivity();
        Assert.Null(watch.Due(policy, isHostLocked: false));
        for (var i = 0; i < 13; i++)
        {
            time.Advance(TimeSpan.FromMinutes(4.5));
            watch.NoteActivity();
        }

        Assert.Equal("its password was given 1 hours ago", watch.Due(policy, isHostLocked: false));
        watch.NotePassword();
        Assert.Null(watch.Due(policy, isHostLocked: false));
        time.Advance(TimeSpan.FromDays(30));
        Assert.Null(watch.Due(PolicyOf("""{"lock.idleMinutes":0,"reauthPeriodHours":0}"""), isHostLocked: false));
    }

    [Fact]
    public void It_locks_when_the_host_slept_or_locked_its_screen_and_not_for_what_policy_does_not_want()
    {
        var watch = new IdleWatch(time, () => SinceBoot);
        Assert.Null(watch.Due(Policy.Factory, isHostLocked: null));
        Assert.Equal("this computer's screen was locked", watch.Due(Policy.Factory, isHostLocked: true));
        Assert.Null(watch.Due(PolicyOf("""{"lock.onHostLock":false}"""), isHostLocked: true));
        slept = TimeSpan.FromSeconds(30);
        Assert.Equal("this computer slept", watch.Due(Policy.Factory, isHostLocked: false));
        Assert.Null(watch.Due(PolicyOf("""{"lock.onSleep":false}"""), isHostLocked: false));
        watch.NoteActivity();
        Assert.NotNull(watch.Due(Policy.Factory, isHostLocked: false));
        watch.NotePassword();
        Assert.Null(watch.Due(Policy.Factory, isHostLocked: false));
        Assert.True(IdleWatch.ReadSinceBoot() > TimeSpan.Zero);
    }

    /// <summary>logind's answers, by a program in the place of busctl: this machine has no logind.</summary>
    [Theory]
    [InlineData("b true", 0, true)]
    [InlineData("b false", 0, false)]
    [InlineData("b maybe", 0, null)]
    [InlineData("b true", 1, null)]
    public async Task The_hosts_lock_is_what_logind_says(string answer, int exit, bool? expected)
    {
        using var folder = new TemporaryDirectory();
        var bus = folder["bus"];
        await File.WriteAllTextAsync(bus, $"#!/bin/sh\n[ \"$6\" = LockedHint ] || exit 9\necho '{answer}'\nexit {exit}\n", TestContext.Current.CancellationToken);
        File.SetUnixFileMode(bus, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        Assert.Equal(expected, await new HostConditions(Bus: bus).IsScreenLockedAsync(TestContext.Current.CancellationToken));
        Assert.Null(await new HostConditions(Bus: folder["nothing"]).IsScreenLockedAsync(TestContext.Current.CancellationToken));
    }

    private static readonly byte[] Hello = [.. "RFB 003.008\n"u8, 1, 1];

    [Fact]
    public void Keys_and_pointer_are_somebody_and_asking_for_the_screen_is_nobody()
    {
        byte[] pixels = [0, .. new byte[19]], encodings = [2, 0, 0, 2, .. new byte[8]], asks = [3, .. new byte[9]], key = [4, 1, 0, 0, 0, 0, 0, 65], pointer = [5, 0, 0, 1, 0, 1];
        byte[] paste = [6, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3], code = [255, 0, .. new byte[10]], sound = [255, 1, 0, 2, .. new byte[6]], size = [251, 0, 0, 9, 0, 9, 1, 0, .. new byte[16]];
        foreach (var whole in new[] { true, false })
        {
            var input = new ScreenInput();
            Assert.False(Take(input, [.. Hello, .. pixels, .. encodings, .. asks, .. sound, .. size, .. asks], whole));
            foreach (var somebody in new[] { key, pointer, paste, code })
            {
                Assert.True(Take(input, somebody, whole));
                Assert.False(Take(input, [.. asks, .. asks], whole));
            }
        }

        Assert.False(new ScreenInput().Take([.. "RFB 003.003\n"u8, 1, .. asks]));
    }

    [Fact]
    public void What_can_not_be_followed_counts_as_somebody()
    {
        Assert.True(new ScreenInput().Take("GET / HTTP/1.1\r\n\r\n"u8));
        var input = new ScreenInput();
        Assert.True(input.Take([.. Hello, 99]));
        Assert.True(input.Take([3]));
        var random = new Random(1);
        for (var i = 0; i < 2000; i++)
        {
            var noise = new byte[random.Next(1, 200)];
            random.NextBytes(noise);
            new ScreenInput().Take([.. Hello, .. noise]); // never throws, never hangs
        }
    }

    private static bool Take(ScreenInput input, byte[] bytes, bool whole) => whole ? input.Take(bytes) : bytes.Select(one => input.Take([one])).ToList().Contains(true);

    private static Policy PolicyOf(string document) => Policy.Of("organisation", PolicyDocument.Parse(JsonDocument.Parse(document).RootElement));
}
