using Nacre.Client;
using Nacre.Contracts;
using Nacre.Policies;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>Which releases a device is offered where policy (<c>update.channel</c>) says what it follows.</summary>
public class UpdateChannelTests
{
    [Fact]
    public async Task Members_of_a_group_and_a_device_follow_the_channel_that_their_level_names_and_hear_of_it_at_the_next_contact()
    {
        await using var world = await ReadyAsync();
        var (device, _, client) = await world.EnrolAsync();
        var (bobs, _, bob) = await world.EnrolAsync("bob");
        await world.Admin.EntitleAsync("desk", "bob");
        await world.Admin.MoveChannelAsync("debian", "pilot", 2);
        await world.Admin.CreateGroupAsync("pilots");
        await DecideAsync(world, "group:pilots", "pilot");
        Assert.Equal((1, "stable"), await OfferedAsync(client, device));
        var revision = (await client.TakeLeaseAsync("desk", new TakeLease(null))).Revision;
        Assert.True(await IsCurrentAsync(client, device, revision));
        await world.Admin.PutMemberAsync("pilots", "ann", isMember: true);
        Assert.False(await IsCurrentAsync(client, device, revision));
        Assert.Equal((2, "pilot"), await OfferedAsync(client, device));
        Assert.Equal((1, "stable"), await OfferedAsync(bob, bobs));

        // What was stable is kept for the way back; put back, the newer one is not.
        var kept = new TakeLease(null, Kept: [new("debian", 1), new("debian", 2)]);
        Assert.Equal(kept.Kept, Claims(await client.TakeLeaseAsync("desk", kept), device).Kept);
        revision = (await client.TakeLeaseAsync("desk", new TakeLease(null))).Revision;
        await DecideAsync(world, $"device:{device.DeviceId}", "stable");
        Assert.False(await IsCurrentAsync(client, device, revision));
        Assert.Equal((1, "stable"), await OfferedAsync(client, device));
        Assert.Equal([new ReleaseName("debian", 1)], Claims(await client.TakeLeaseAsync("desk", kept), device).Kept);
        await DecideAsync(world, $"device:{bobs.DeviceId}", "pilot");
        Assert.Equal((2, "pilot"), await OfferedAsync(bob, bobs));
        Assert.Null(Claims(await bob.TakeLeaseAsync("desk", new TakeLease(null)), bobs).ChannelProblem);
    }

    [Fact]
    public async Task An_image_without_such_a_channel_follows_its_own_and_that_is_said_until_it_has_one()
    {
        await using var world = await ReadyAsync();
        var (device, _, client) = await world.EnrolAsync();
        await LayerTests.PublishLayerAsync(world, "editor", 1, LayerTests.Contents());
        await LayerTests.PublishLayerAsync(world, "tools", 1, LayerTests.Contents());
        await world.Admin.PutLayersAsync("desk", [new("editor", null), new("tools", null)]);
        await LayerTests.PublishLayerAsync(world, "tools", 2, LayerTests.Contents());
        await world.Admin.MoveChannelAsync("tools", "pilot", 2);
        await world.Admin.MoveChannelAsync("tools", "stable", 1);
        await DecideAsync(world, "livepc:desk", "pilot");

        const string Missing = "'debian' has no channel 'pilot' and follows 'stable'; 'editor' has no channel 'pilot' and follows 'stable'";
        var grant = await client.TakeLeaseAsync("desk", new TakeLease(null));
        var claims = Claims(grant, device);
        Assert.Equal((1, Missing), (claims.Version, claims.ChannelProblem));
        Assert.Equal([new ReleaseName("editor", 1), new("tools", 2)], claims.Layers);
        Assert.Equal("stable", Assert.Single(await client.ListEntitledLivePcsAsync()).Channel);
        Assert.Equal(Missing.Split("; ").Select(one => "update.channel: " + one), (await world.Admin.ExplainPolicyAsync("desk", device.DeviceId)).Problems);

        await world.Admin.MoveChannelAsync("debian", "pilot", 2);
        Assert.False(await IsCurrentAsync(client, device, grant.Revision));
        claims = Claims(await client.TakeLeaseAsync("desk", new TakeLease(null)), device);
        Assert.Equal((2, "'editor' has no channel 'pilot' and follows 'stable'"), (claims.Version, claims.ChannelProblem));
    }

    [Fact]
    public async Task A_LivePC_is_held_at_a_release_and_not_at_another_where_there_is_none_of_that_number()
    {
        await using var world = await ReadyAsync();
        var (device, _, client) = await world.EnrolAsync();
        await LayerTests.PublishLayerAsync(world, "editor", 1, LayerTests.Contents());
        await world.Admin.PutLayersAsync("desk", [new("editor", null)]);
        await DecideAsync(world, "livepc:desk", "release 2");
        Assert.Equal((2, "release 2"), await OfferedAsync(client, device));
        var claims = Claims(await client.TakeLeaseAsync("desk", new TakeLease(null)), device);
        Assert.Equal([new ReleaseName("editor", 1)], claims.Layers);
        Assert.Null(claims.ChannelProblem);
        await world.PublishAsync(3);
        Assert.Equal((2, "release 2"), await OfferedAsync(client, device));

        // Retention does not take it away.
        await world.PublishAsync(4);
        await world.Admin.SetRetentionAsync("debian", 1);
        world.Time.Advance(TimeSpan.FromDays(30));
        await world.Admin.RevokeDeviceAsync(device.DeviceId);
        await world.Admin.CleanStoreAsync(dryRun: false);
        Assert.Equal([2, 4], (await world.Admin.ListReleasesAsync("debian")).Select(release => release.Version));

        // None of that number: refused where the LivePC is known, told where it is not.
        var refused = await FailsAsync(ErrorCatalogue.NotFound, DecideAsync(world, "livepc:desk", "release 9"));
        Assert.Contains("holds 'debian' at release 9, and there is none of that number", refused.Message, StringComparison.Ordinal);
        var (other, _, again) = await world.EnrolAsync();
        Assert.Equal((2, "release 2"), await OfferedAsync(again, other));
        var revision = (await again.TakeLeaseAsync("desk", new TakeLease(null))).Revision;
        await DecideAsync(world, $"device:{other.DeviceId}", "release 5");
        Assert.False(await IsCurrentAsync(again, other, revision));
        refused = await FailsAsync(ErrorCatalogue.NotFound, again.TakeLeaseAsync("desk", new TakeLease(null)));
        Assert.Contains("release 5", refused.Message, StringComparison.Ordinal);
        var listed = Assert.Single(await again.ListEntitledLivePcsAsync());
        Assert.Equal(("release 5", null), (listed.Channel, listed.Version));
        Assert.Contains("release 5", Assert.Single((await world.Admin.ExplainPolicyAsync("desk", other.DeviceId)).Problems), StringComparison.Ordinal);
        await world.PublishAsync(5, channel: null);
        Assert.Equal((5, "release 5"), await OfferedAsync(again, other));
    }

    [Fact]
    public async Task A_release_that_lacks_approvals_can_not_be_had_by_holding_a_device_at_it()
    {
        await using var world = await ReadyAsync();
        var (device, _, client) = await world.EnrolAsync();
        var (second, _, other) = await world.EnrolAsync();
        await DecideAsync(world, $"device:{device.DeviceId}", "release 2");
        Assert.Equal((2, "release 2"), await OfferedAsync(client, device));
        await world.Admin.PutReleasePolicyAsync(new ReleasePolicy([], 1));
        await FailsAsync(ErrorCatalogue.NotApproved, DecideAsync(world, "livepc:desk", "release 2"));
        await world.Admin.PutReleasePolicyAsync(new ReleasePolicy([], 0));
        await DecideAsync(world, "livepc:desk", "release 2");
        await world.Admin.PutReleasePolicyAsync(new ReleasePolicy([], 1));
        await world.Admin.PatchPolicyAsync("livepc:desk", new Dictionary<string, object?> { ["lease.hours"] = 24 });
        await FailsAsync(ErrorCatalogue.NotApproved, other.TakeLeaseAsync("desk", new TakeLease(null)));

        // Who was let have it stays with it, as channels stay.
        Assert.Equal((2, "release 2"), await OfferedAsync(client, device));
    }

    [Fact]
    public async Task A_device_counts_in_the_roll_outs_of_the_channel_that_it_follows_and_in_no_other()
    {
        await using var world = await ReadyAsync();
        await world.AllowDevicesAsync(10);
        await world.Admin.MoveChannelAsync("debian", "pilot", 1);
        var (piloting, _, pilot) = await world.EnrolAsync();
        var (staying, _, stable) = await world.EnrolAsync();
        var (holding, _, held) = await world.EnrolAsync();
        await DecideAsync(world, $"device:{piloting.DeviceId}", "pilot");
        await DecideAsync(world, $"device:{holding.DeviceId}", "release 1");
        await world.Admin.StartRolloutAsync("debian", "pilot", new StartRollout(2, [100]));
        Assert.Equal((2, "pilot"), await OfferedAsync(pilot, piloting));
        Assert.Equal((1, "stable"), await OfferedAsync(stable, staying));
        Assert.Equal((1, "release 1"), await OfferedAsync(held, holding));
        foreach (var client in new[] { pilot, stable, held })
        {
            await ReportAsync(client, ReportKind.Started);
        }

        Assert.Equal([("pilot", 1, 0)], await CountsAsync(world));
        await world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2, [100], StopAfter: 100));
        Assert.Equal([("pilot", 1, 0), ("stable", 1, 0)], await CountsAsync(world));

        // Followers change: so do the counts, for a group as for a device.
        await world.Admin.PatchPolicyAsync($"device:{holding.DeviceId}", new Dictionary<string, object?> { ["update.channel"] = null });
        Assert.Equal([("pilot", 1, 0), ("stable", 2, 0)], await CountsAsync(world));
        await world.Admin.CreateGroupAsync("pilots");
        await DecideAsync(world, "group:pilots", "pilot");
        await world.Admin.PutMemberAsync("pilots", "ann", isMember: true);
        Assert.Equal([("pilot", 3, 0), ("stable", 0, 0)], await CountsAsync(world));

        // A failure stops the roll-out of its own channel alone.
        await DecideAsync(world, $"device:{staying.DeviceId}", "stable");
        world.Time.Advance(TimeSpan.FromMinutes(1));
        await ReportAsync(pilot, ReportKind.SetAside);
        Assert.Equal([("pilot", 1, 1), ("stable", 1, 0)], await CountsAsync(world));
        Assert.Equal([RolloutState.Stopped, RolloutState.Running], (await world.Admin.ListRolloutsAsync()).Select(one => one.State));
    }

    [Fact]
    public async Task A_step_waits_for_a_start_where_a_follower_was_given_the_release_and_goes_on_where_none_was()
    {
        await using var world = await ReadyAsync();
        var (piloting, _, pilot) = await world.EnrolAsync();
        var (staying, _, stable) = await world.EnrolAsync();
        await world.Admin.MoveChannelAsync("debian", "pilot", 1);
        await DecideAsync(world, $"device:{piloting.DeviceId}", "pilot");
        await world.Admin.StartRolloutAsync("debian", "pilot", new StartRollout(2, [100], StepHours: 24));
        await world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2, [100], StepHours: 24));
        Assert.Equal((2, "pilot"), await OfferedAsync(pilot, piloting));
        world.Time.Advance(TimeSpan.FromHours(25));
        Assert.Equal("pilot", Assert.Single(await world.Admin.ListRolloutsAsync()).Channel);
        Assert.Equal((2, "stable"), await OfferedAsync(stable, staying));
    }

    [Theory]
    [InlineData("Pilot")]
    [InlineData("release 0")]
    [InlineData("release 07")]
    [InlineData("release 7 ")]
    [InlineData("release  7")]
    [InlineData("release 9999999999")]
    [InlineData("pilot\n")]
    [InlineData("#7")]
    public void What_is_neither_a_channel_nor_a_release_is_refused(string text)
    {
        Assert.Contains("update.channel", Assert.Throws<PolicyException>(() => PolicyDocument.Empty.With(Settings.UpdateChannel, text)).Message, StringComparison.Ordinal);
        Assert.Null(Settings.TryReadRelease(text));
    }

    [Fact]
    public void A_release_is_told_from_a_channel() =>
        Assert.Equal((7, (int?)null, (int?)null), (Settings.TryReadRelease("release 7"), Settings.TryReadRelease("release-7"), Settings.TryReadRelease("")));

    /// <summary>Release 1 is stable, release 2 on no channel; ann may run desk.</summary>
    private static async Task<World> ReadyAsync()
    {
        var world = await StartAsync();
        await world.PublishAsync();
        await world.PublishAsync(2, channel: null);
        await world.Admin.CreateUserAsync(new CreateUser("ann", null));
        await world.EntitleAsync();
        return world;
    }

    private static Task<PolicyDocument> DecideAsync(World world, string level, string channel) => world.Admin.PatchPolicyAsync(level, new Dictionary<string, object?> { ["update.channel"] = channel });

    private static LeaseClaims Claims(LeaseGrant grant, EnrolledDevice device) =>
        Jws.VerifyClaims<LeaseClaims>(grant.Lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceToken.LeaseType);

    /// <summary>The release of the lease, which is the listed one too, and what is followed.</summary>
    private static async Task<(int Version, string Follows)> OfferedAsync(NacreClient client, EnrolledDevice device)
    {
        var listed = Assert.Single(await client.ListEntitledLivePcsAsync());
        var version = Claims(await client.TakeLeaseAsync("desk", new TakeLease(null)), device).Version;
        Assert.Equal(version, listed.Version);
        return (version, listed.Channel);
    }

    private static async Task<bool> IsCurrentAsync(NacreClient client, EnrolledDevice device, string? revision) => Jws.VerifyClaims<AnchorClaims>(
        (await client.StateAnchorsAsync("desk", new StateAnchors("n", [], revision))).Anchors, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, AnchorClaims.Type).IsLeaseCurrent;

    private static Task ReportAsync(NacreClient client, ReportKind kind) =>
        client.SendReportAsync("desk", new SendReport(SegmentName(), DateTimeOffset.UnixEpoch, kind, [new ReleaseName("debian", 2)], "because", ""));

    private static async Task<IEnumerable<(string Channel, int Healthy, int Failed)>> CountsAsync(World world) =>
        (await world.Admin.ListRolloutsAsync()).Select(one => (one.Channel, one.Healthy, one.Failed));
}
