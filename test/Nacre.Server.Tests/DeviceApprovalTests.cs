using Nacre.Client;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

public class DeviceApprovalTests
{
    private static async Task RequireAsync(World world, string level = "organisation") => await world.Admin.PatchPolicyAsync(level, new Dictionary<string, object?> { ["enrolmentApproval"] = "manual" });

    [Fact]
    public async Task A_device_that_waits_can_ask_for_nothing_until_it_is_approved()
    {
        await using var world = await StartAsync();
        await RequireAsync(world);
        var (device, _, client) = await world.EnrolAsync();
        Assert.True(device.Waits);
        Assert.Contains("waits for approval by an administrator", (await FailsAsync(ErrorCatalogue.DeviceWaiting, client.ListEntitledLivePcsAsync())).Message, StringComparison.Ordinal);
        await FailsAsync(ErrorCatalogue.DeviceWaiting, client.TakeLeaseAsync("desk", new TakeLease(null)));
        await FailsAsync(ErrorCatalogue.DeviceWaiting, client.RenewCertificateAsync(device.LeaseKey));
        Assert.True((await world.Admin.GetDeviceAsync(device.DeviceId)).Waiting);
        Assert.False((await world.Admin.ApproveDeviceAsync(device.DeviceId)).Waiting);
        Assert.Empty(await client.ListEntitledLivePcsAsync());
        await FailsAsync(ErrorCatalogue.DeviceNotWaiting, world.Admin.ApproveDeviceAsync(device.DeviceId));
        await FailsAsync(ErrorCatalogue.DeviceNotWaiting, world.Admin.RejectDeviceAsync(device.DeviceId));
        Assert.Equal("device.approve", (await world.Admin.GetAuditAsync()).Entries.Last(entry => entry.Subject == device.DeviceId && entry.Result == AuditResult.Done).Action);
    }

    [Fact]
    public async Task A_device_that_is_turned_away_stays_out()
    {
        await using var world = await StartAsync();
        await RequireAsync(world);
        var (device, _, client) = await world.EnrolAsync();
        var rejected = await world.Admin.RejectDeviceAsync(device.DeviceId);
        Assert.Equal((true, true), (rejected.Revoked, rejected.Waiting));
        await FailsAsync(ErrorCatalogue.DeviceRevoked, client.ListEntitledLivePcsAsync());
        await FailsAsync(ErrorCatalogue.DeviceNotWaiting, world.Admin.ApproveDeviceAsync(device.DeviceId));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.ApproveDeviceAsync("nobody"));
    }

    [Fact]
    public async Task The_policy_of_the_users_group_decides()
    {
        await using var world = await StartAsync();
        var (first, _, _) = await world.EnrolAsync();
        Assert.False(first.Waits);
        await world.Admin.CreateGroupAsync("guests");
        await world.Admin.PutMemberAsync("guests", "ann", isMember: true);
        await RequireAsync(world, "group:guests");
        Assert.True((await world.EnrolAsync()).Device.Waits);
        Assert.False((await world.EnrolAsync("bob")).Device.Waits);
    }

    /// <summary>Devices that wait count: nobody fills the list with them.</summary>
    [Fact]
    public async Task Devices_that_wait_are_counted()
    {
        await using var world = await StartAsync();
        await RequireAsync(world);
        for (var i = 0; i < 3; i++)
        {
            await world.EnrolAsync();
        }

        using var key = DeviceKey.Create();
        await FailsAsync(ErrorCatalogue.TooManyDevices, world.Nobody.EnrolAsync(await world.CodeAsync(), "laptop", key));
    }
}
