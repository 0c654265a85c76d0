using Nacre.Client;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>A release for a growing share of a channel's devices, and what ends that.</summary>
public class RolloutTests
{
    private const int Devices = 40;

    [Fact]
    public async Task A_growing_share_gets_the_release_and_nobody_loses_it_on_the_way()
    {
        await using var world = await ReadyAsync();
        var devices = await DevicesAsync(world);
        var rollout = await world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2, [20, 60]));
        Assert.Equal((1, 2, RolloutState.Running, 0), (rollout.From, rollout.Version, rollout.State, rollout.Step));
        Assert.Equal([20, 60, 100], rollout.Steps);

        var first = await OfferedAsync(devices);
        Assert.Equal(first, await OfferedAsync(devices));
        Assert.InRange(first.Count, 1, Devices / 2);
        Assert.Equal(1, (await world.Admin.ListImagesAsync())[0].Channels["stable"]);
        foreach (var client in devices)
        {
            var listed = Assert.Single(await client.ListLivePcsAsync()).Version;
            Assert.Equal(listed, await VersionAsync(client));
        }

        await world.StartAgainAsync();
        devices = [.. devices.Select(client => client.At(world))];
        Assert.Equal(1, (await world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Advance)).Step);
        var second = await OfferedAsync(devices);
        Assert.Subset(second, first);
        Assert.InRange(second.Count, first.Count + 1, Devices - 1);
        await world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Advance);
        Assert.Equal(Devices, (await OfferedAsync(devices)).Count);
        var over = await world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Advance);
        Assert.Equal((true, 1, 2), (over.IsOver, over.From, over.Version));
        Assert.Empty(await world.Admin.ListRolloutsAsync());
        Assert.Equal(2, (await world.Admin.ListImagesAsync())[0].Channels["stable"]);
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Pause));
        Assert.Equal(
            ["rollout.start", "rollout.advance", "rollout.advance", "channel.move"],
            (await world.Admin.GetAuditAsync()).Entries.Select(entry => entry.Action).Where(action => action.StartsWith("rollout", StringComparison.Ordinal) || action == "channel.move").TakeLast(4));
    }

    [Fact]
    public async Task It_stops_where_too_many_starts_fail_and_who_has_the_release_keeps_it()
    {
        await using var world = await ReadyAsync();
        var devices = await DevicesAsync(world);
        await world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2, [50], StopAtPercent: 40, StopAfter: 2));
        var share = (await OfferedAsync(devices)).ToList();
        Assert.True(share.Count >= 6, "the share of so many devices has at least six");
        await ReportAsync(devices[share[0]], ReportKind.Started);
        await ReportAsync(devices[share[1]], ReportKind.Started);
        await ReportAsync(devices[share[2]], ReportKind.SetAside);
        Assert.Equal((RolloutState.Running, 2, 1), await StateAsync(world));
        Assert.Equal(1, await VersionAsync(devices[share[2]]));
        Assert.Equal(2, await VersionAsync(devices[share[4]]));
        world.Time.Advance(TimeSpan.FromMinutes(1));
        await ReportAsync(devices[share[3]], ReportKind.Failed);
        Assert.Equal((RolloutState.Stopped, 2, 2), await StateAsync(world));
        Assert.Equal([share[0], share[1]], await OfferedAsync(devices));

        // The same report twice, or of a release that there is none of, is no second failure.
        await ReportAsync(devices[share[3]], ReportKind.Failed, 77);
        Assert.Equal((RolloutState.Stopped, 2, 2), await StateAsync(world));

        // Resumed: what failed before counts no more, and may try again.
        world.Time.Advance(TimeSpan.FromMinutes(1));
        await world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Resume);
        Assert.Equal(share, await OfferedAsync(devices));
        Assert.Equal((RolloutState.Running, 2, 0), await StateAsync(world));
        world.Time.Advance(TimeSpan.FromMinutes(1));
        await ReportAsync(devices[share[3]], ReportKind.Started);
        Assert.Equal((RolloutState.Running, 3, 0), await StateAsync(world));
        var starts = await world.Admin.ListStartsAsync("desk");
        Assert.Equal(4, starts.Count);
        Assert.Single(starts, start => start.HealthyAt is null && start.FailedAt is not null);

        await world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Pause);
        Assert.Equal(new[] { share[0], share[1], share[3] }.Order(), await OfferedAsync(devices));
        await world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Withdraw);
        Assert.Empty(await OfferedAsync(devices));
    }

    [Fact]
    public async Task Steps_follow_the_clock_where_somebody_started_it_and_the_channel_moves_at_the_end()
    {
        await using var world = await ReadyAsync();
        var devices = await DevicesAsync(world);
        await world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2, [50], StepHours: 24));
        var share = (await OfferedAsync(devices)).ToList();
        world.Time.Advance(TimeSpan.FromHours(25));
        Assert.Equal(share, await OfferedAsync(devices));
        await ReportAsync(devices[share[0]], ReportKind.Started);
        Assert.Equal(1, Assert.Single(await world.Admin.ListRolloutsAsync()).Step);
        Assert.Equal(Devices, (await OfferedAsync(devices)).Count);
        world.Time.Advance(TimeSpan.FromHours(25));
        Assert.Empty(await world.Admin.ListRolloutsAsync());
        Assert.Equal(2, (await world.Admin.ListImagesAsync())[0].Channels["stable"]);
        Assert.Contains((await world.Admin.GetAuditAsync()).Entries, entry => entry is { Action: "channel.move", Actor: "server" });
    }

    [Fact]
    public async Task A_channel_that_is_moved_by_hand_ends_it_for_all()
    {
        await using var world = await ReadyAsync();
        var devices = await DevicesAsync(world);
        await world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2, [100]));
        Assert.Equal(Devices, (await OfferedAsync(devices)).Count);
        await world.Admin.MoveChannelAsync("debian", "stable", 1);
        Assert.Empty(await OfferedAsync(devices));
        Assert.Empty(await world.Admin.ListRolloutsAsync());
    }

    [Fact]
    public async Task A_release_that_is_rolled_out_does_not_go_by_its_image_s_retention()
    {
        await using var world = await ReadyAsync();
        await world.PublishAsync(3, channel: null);
        await world.Admin.SetRetentionAsync("debian", 1);
        await world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2));
        Assert.Empty((await world.Admin.CleanStoreAsync(dryRun: false)).Releases);
        await world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Withdraw);
        Assert.Equal([new ReleaseName("debian", 2)], (await world.Admin.CleanStoreAsync(dryRun: false)).Releases);
    }

    [Fact]
    public async Task What_makes_no_sense_is_refused()
    {
        await using var world = await ReadyAsync();
        foreach (var steps in new int[][] { [], [0], [101], [5, 5], [50, 20], [.. Enumerable.Range(1, 21)] })
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2, steps)));
        }

        foreach (var wrong in new StartRollout[] { new(2, StepHours: -1), new(2, StepHours: 8761), new(2, StopAtPercent: 0), new(2, StopAtPercent: 101), new(2, StopAfter: 0), new(1) })
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.StartRolloutAsync("debian", "stable", wrong));
        }

        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(3)));
        await FailsAsync(ErrorCatalogue.ChannelEmpty, world.Admin.StartRolloutAsync("debian", "pilot", new StartRollout(2)));
        await FailsAsync(ErrorCatalogue.NameInvalid, world.Admin.StartRolloutAsync("Debian", "stable", new StartRollout(2)));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Pause));
        await world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2));
        await FailsAsync(ErrorCatalogue.AlreadyExists, world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2)));
    }

    private static async Task<World> ReadyAsync()
    {
        var world = await StartAsync();
        await world.PublishAsync();
        await world.PublishAsync(2, channel: null);
        await world.Admin.CreateUserAsync(new CreateUser("ann", null));
        await world.EntitleAsync();
        return world;
    }

    private static async Task<List<Client>> DevicesAsync(World world)
    {
        await world.AllowDevicesAsync(Devices);
        var devices = new List<Client>();
        for (var number = 0; number < Devices; number++)
        {
            var (device, key, client) = await world.EnrolAsync();
            devices.Add(new Client(device, key, client));
        }

        return devices;
    }

    private static async Task<int> VersionAsync(Client client) =>
        Jws.VerifyClaims<LeaseClaims>((await client.Server.TakeLeaseAsync("desk", new TakeLease(null))).Lease, client.Device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic).Version;

    /// <summary>The numbers of the devices that are offered release 2.</summary>
    private static async Task<SortedSet<int>> OfferedAsync(List<Client> devices)
    {
        var offered = new SortedSet<int>();
        for (var number = 0; number < devices.Count; number++)
        {
            if (await VersionAsync(devices[number]) == 2)
            {
                offered.Add(number);
            }
        }

        return offered;
    }

    private static Task ReportAsync(Client client, ReportKind kind, int version = 2) => client.Server.SendReportAsync(
        "desk", new SendReport(SegmentName(), DateTimeOffset.UnixEpoch, kind, [new ReleaseName("debian", version)], "because", ""));

    private static async Task<(RolloutState State, int Healthy, int Failed)> StateAsync(World world)
    {
        var rollout = Assert.Single(await world.Admin.ListRolloutsAsync());
        return (rollout.State, rollout.Healthy, rollout.Failed);
    }

    private sealed record Client(EnrolledDevice Device, DeviceKey Key, NacreClient Server)
    {
        public Client At(World world) => this with { Server = world.As(Device, Key) };

        public Task<IReadOnlyList<EntitledLivePc>> ListLivePcsAsync() => Server.ListEntitledLivePcsAsync();
    }
}
