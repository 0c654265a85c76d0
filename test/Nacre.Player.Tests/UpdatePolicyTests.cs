using System.Globalization;
using Nacre.Contracts;
using Nacre.Player.Stacks;
using Nacre.Player.Updates;
using Nacre.Policies;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>When an update is downloaded by itself, and when it has to start.</summary>
public sealed class UpdatePolicyTests
{
    [Theory]
    [InlineData("18:00-06:00", "2026-11-25T18:00:00", true)]
    [InlineData("18:00-06:00", "2026-11-25T05:59:59", true)]
    [InlineData("18:00-06:00", "2026-11-25T06:00:00", false)]
    [InlineData("18:00-06:00", "2026-11-25T17:59:59", false)]
    [InlineData("12:00-13:30", "2026-11-25T13:29:00", true)]
    [InlineData("12:00-13:30", "2026-11-25T13:30:00", false)]
    [InlineData("mon-fri 18:00-06:00", "2026-11-28T03:00:00", true)] // Saturday's night is Friday's
    [InlineData("mon-fri 18:00-06:00", "2026-11-28T19:00:00", false)]
    [InlineData("mon-fri 18:00-06:00", "2026-11-30T03:00:00", false)] // Monday's early morning is Sunday's
    [InlineData("sat-mon 00:00-12:00", "2026-11-30T11:00:00", true)]
    [InlineData("sat-mon 00:00-12:00", "2026-12-01T11:00:00", false)]
    [InlineData("wed 00:00-00:00", "2026-11-25T11:00:00", true)]
    public void A_window_is_a_part_of_the_week(string window, string time, bool isInside) =>
        Assert.Equal(isInside, UpdateWindow.TryParse(window)!.Contains(DateTimeOffset.Parse(time, CultureInfo.InvariantCulture)));

    [Theory]
    [InlineData("")]
    [InlineData("18:00")]
    [InlineData("24:00-06:00")]
    [InlineData("18:60-06:00")]
    [InlineData("Mon 18:00-06:00")]
    [InlineData("mon-feb 18:00-06:00")]
    [InlineData("mon-fri  18:00-06:00")]
    [InlineData("18:00-06:00\n")]
    public void What_is_no_window_is_refused_with_the_policy(string text)
    {
        Assert.Null(UpdateWindow.TryParse(text));
        Assert.Contains("update.window", Assert.Throws<PolicyException>(() => PolicyDocument.Empty.With(Settings.UpdateWindow, [text])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_battery_that_discharges_without_mains_is_what_the_computer_runs_on()
    {
        using var folder = new TemporaryDirectory();
        var host = new HostConditions(folder["supplies"]);
        Assert.False(host.IsOnBattery());
        Supply("BAT0", ("type", "Battery"), ("status", "Discharging"));
        Assert.True(host.IsOnBattery());
        Supply("AC", ("type", "Mains"), ("online", "1"));
        Assert.False(host.IsOnBattery());
        Supply("AC", ("type", "Mains"), ("online", "0"));
        Assert.True(host.IsOnBattery());
        Supply("BAT0", ("type", "Battery"), ("status", "Full"));
        Assert.False(host.IsOnBattery());

        // A mouse's battery is not the computer's.
        Supply("hid", ("type", "Battery"), ("status", "Discharging"), ("scope", "Device"));
        Assert.False(host.IsOnBattery());

        void Supply(string name, params (string File, string Text)[] files)
        {
            Directory.CreateDirectory(folder[$"supplies/{name}"]);
            foreach (var (file, text) in files)
            {
                File.WriteAllText(folder[$"supplies/{name}/{file}"], text + "\n");
            }
        }
    }

    [Theory]
    [InlineData("echo u 1", true)]
    [InlineData("echo u 3", true)]
    [InlineData("echo u 4", false)]
    [InlineData("echo u 2", false)]
    [InlineData("echo u 0", null)]
    [InlineData("echo u 1; exit 1", null)]
    [InlineData("exec sleep 60", null)]
    public async Task A_network_is_metered_where_NetworkManager_says_so(string answer, bool? isMetered)
    {
        using var folder = new TemporaryDirectory();
        await File.WriteAllTextAsync(folder["bus"], $"#!/bin/sh\n{answer}\n", TestContext.Current.CancellationToken);
        File.SetUnixFileMode(folder["bus"], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        Assert.Equal(isMetered, await new HostConditions(Bus: folder["bus"]).IsMeteredAsync(TestContext.Current.CancellationToken));
        Assert.Null(await new HostConditions(Bus: folder["none"]).IsMeteredAsync(TestContext.Current.CancellationToken));
    }

    [Fact]
    public void A_deadline_is_put_off_by_a_day_from_where_it_is_or_from_now()
    {
        var (first, second) = (new CorporateStack([new ReleaseName("debian", 1)]), new CorporateStack([new ReleaseName("debian", 2)]));
        var at = new DateTimeOffset(2026, 11, 25, 12, 0, 0, TimeSpan.Zero);
        var state = new StackState { Good = first }.Offer(second, at);
        Assert.Equal((at, 0), (state.OfferedAt, state.Postponed));
        Assert.Equal((at.AddDays(1), 1), (state.Postpone(at.AddDays(-7)).OfferedAt, state.Postpone(at.AddDays(-7)).Postponed));
        Assert.Equal(at.AddDays(4), state.Postpone(at.AddDays(3)).OfferedAt);
        Assert.Equal((null, 0), (state.Offer(first).OfferedAt, state.Postpone(at).Offer(first).Postponed));

        // What starts at once never waits.
        Assert.Null(new StackState { Good = first }.Offer(second).OfferedAt);
    }
}
