using System.Diagnostics;
using Nacre.Client;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>Revokes and kills, from the order to the device's signed receipt.</summary>
public sealed class DeviceOrderTests : IAsyncLifetime
{
    private World world = null!;
    private EnrolledDevice device = null!;
    private DeviceKey key = null!;
    private NacreClient client = null!;

    public async ValueTask InitializeAsync()
    {
        world = await StartAsync();
        await world.PublishAsync();
        await world.AllowDevicesAsync(100);
        (device, key, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        await client.TakeLeaseAsync("desk", new TakeLease(null));
    }

    public ValueTask DisposeAsync() => world.DisposeAsync();

    [Fact]
    public async Task A_kill_is_queued_delivered_and_confirmed_by_the_devices_receipt()
    {
        var waiting = await world.Admin.CreateOrderAsync("desk", new CreateOrder(device.DeviceId, RejuvenationDepth.System));
        var order = await KillAsync("desk");
        Assert.Equal((DeviceOrderState.Queued, KillMode.Both, WipeScope.All, "administrator"), (order.State, order.Mode, order.Scope, order.OrderedBy));
        Assert.Equal(OrderState.Withdrawn, (await world.Admin.ListOrdersAsync()).Single(one => one.Id == waiting.Id).State);
        await FailsAsync(ErrorCatalogue.LivePcKilled, client.TakeLeaseAsync("desk", new TakeLease(null)));
        var claims = Assert.Single(await FetchAsync());
        Assert.Equal(new DeviceOrderClaims(device.DeviceId, order.Id, DeviceAct.Kill, "desk", KillMode.Both, WipeScope.All, 0, world.Time.GetUtcNow().ToUnixTimeSeconds()), claims.Claims);
        Assert.Equal(DeviceOrderState.Delivered, await StateAsync(order));

        // Given again until there is a receipt, over a restart of the server too.
        await world.StartAgainAsync();
        client = world.As(device, key);
        Assert.Equal(claims.Signed, Assert.Single(await FetchAsync()).Signed);
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.WithdrawDeviceOrderAsync(order.Id));
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.LiftDeviceOrderAsync(order.Id));
        await DeliverAsync(claims.Signed, key, false, "a file can't be deleted");
        Assert.Equal(DeviceOrderState.Failed, await StateAsync(order));
        Assert.Single(await FetchAsync());
        Assert.Equal(1L, Convert.ToInt64(await world.SqlAsync("SELECT COUNT(*) FROM \"Shares\""), null));
        var receipt = await DeliverAsync(claims.Signed, key, true, "5 files with keys");
        await world.Nobody.DeliverReceiptAsync(receipt);
        Assert.Empty(await FetchAsync());
        var confirmed = await world.Admin.GetDeviceOrderAsync(order.Id);
        Assert.Equal((DeviceOrderState.Confirmed, "5 files with keys", receipt.Receipt), (confirmed.State, confirmed.Detail, confirmed.Receipt));
        new DeliverReceipt(confirmed.SignedOrder!, confirmed.Receipt!).Verify(device.LeaseKey, id => id == confirmed.Device ? confirmed.DeviceKey : null);

        // The server's share of the key is gone too, and nothing comes back until an administrator says so.
        Assert.Equal(0L, Convert.ToInt64(await world.SqlAsync("SELECT COUNT(*) FROM \"Shares\""), null));
        await FailsAsync(ErrorCatalogue.LivePcKilled, client.TakeLeaseAsync("desk", new TakeLease(null)));
        await DeliverAsync(claims.Signed, key, false, "no");
        Assert.Equal(DeviceOrderState.Confirmed, await StateAsync(order));
        await world.Admin.LiftDeviceOrderAsync(order.Id);
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.LiftDeviceOrderAsync(order.Id));
        await client.TakeLeaseAsync("desk", new TakeLease(null));
        Assert.Equal(
            ["administrator kill.order", $"device:{device.DeviceId} kill.deliver", $"device:{device.DeviceId} kill.fail", $"device:{device.DeviceId} kill.confirm", "administrator kill.lift"],
            await AuditAsync("kill."));
    }

    [Fact]
    public async Task A_kill_can_be_withdrawn_until_the_device_was_given_it()
    {
        var order = await KillAsync(null);
        await FailsAsync(ErrorCatalogue.DeviceRevoked, client.TakeLeaseAsync("desk", new TakeLease(null)));
        Assert.Equal(DeviceOrderState.Withdrawn, (await world.Admin.WithdrawDeviceOrderAsync(order.Id)).State);
        Assert.Empty(await FetchAsync());
        await client.TakeLeaseAsync("desk", new TakeLease(null));
        Assert.Equal(["administrator kill.order", "administrator kill.withdraw"], await AuditAsync("kill."));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.WithdrawDeviceOrderAsync("0123456789abcdef"));
    }

    [Fact]
    public async Task A_revoked_device_fetches_its_kill_and_delivers_its_receipt_and_may_do_nothing_else()
    {
        await world.Admin.RevokeDeviceAsync(device.DeviceId);
        var revoke = Assert.Single(await FetchAsync());
        await DeliverAsync(revoke.Signed, key, true, "");
        var order = await KillAsync(null);
        await FailsAsync(ErrorCatalogue.DeviceRevoked, client.ListEntitledLivePcsAsync());
        await FailsAsync(ErrorCatalogue.DeviceRevoked, client.FetchOrdersAsync("desk", new FetchOrders("n", [])));

        // After months, too: the receipt is the device's however late it comes.
        world.Time.Advance(TimeSpan.FromDays(200));
        client = world.As(device, key);
        var kill = Assert.Single(await FetchAsync());
        Assert.Equal((DeviceAct.Kill, null), (kill.Claims.Act, kill.Claims.LivePc));
        await DeliverAsync(kill.Signed, key, true, "");
        Assert.Equal(DeviceOrderState.Confirmed, await StateAsync(order));
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.LiftDeviceOrderAsync(order.Id));
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.LiftDeviceOrderAsync(revoke.Claims.Id));
        Assert.True((await world.Admin.ListDevicesAsync()).Single().Revoked);
    }

    [Fact]
    public async Task A_revoke_can_be_given_back_and_a_kill_overtakes_it()
    {
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["revoke.graceMinutes"] = 7, ["kill.mode"] = "crypto-erase", ["wipe.scope"] = "work-data" });
        await world.Admin.RevokeDeviceAsync(device.DeviceId);
        var revoke = Assert.Single(await FetchAsync());
        Assert.Equal((DeviceAct.Revoke, 7), (revoke.Claims.Act, revoke.Claims.GraceMinutes));
        await world.Admin.LiftDeviceOrderAsync(revoke.Claims.Id);
        Assert.Empty(await FetchAsync());
        await client.TakeLeaseAsync("desk", new TakeLease(null));

        await world.Admin.RevokeDeviceAsync(device.DeviceId);
        var kill = await KillAsync(null);
        Assert.Equal(kill.Id, Assert.Single(await FetchAsync()).Claims.Id);
        Assert.Equal((KillMode.CryptoErase, WipeScope.WorkData), (kill.Mode, kill.Scope));
        await FailsAsync(ErrorCatalogue.AlreadyExists, KillAsync(null));
        await FailsAsync(ErrorCatalogue.AlreadyExists, KillAsync("desk"));
    }

    [Fact]
    public async Task A_user_who_leaves_takes_the_LivePC_from_that_users_devices_and_gets_it_back_when_entitled_again()
    {
        await world.EntitleAsync("lab");
        await world.Admin.RemoveEntitlementAsync("lab", "ann"); // never leased: there is nothing to forget
        await world.Admin.RemoveEntitlementAsync("desk", "ann");
        var revoke = Assert.Single(await FetchAsync());
        Assert.Equal((DeviceAct.Revoke, "desk"), (revoke.Claims.Act, revoke.Claims.LivePc));
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.LiftDeviceOrderAsync(revoke.Claims.Id));
        await DeliverAsync(revoke.Signed, key, true, "");
        await world.Admin.EntitleAsync("desk", "ann");
        Assert.NotNull((await world.Admin.GetDeviceOrderAsync(revoke.Claims.Id)).LiftedAt);
        await client.TakeLeaseAsync("desk", new TakeLease(null));

        // And one that no device has heard of is withdrawn.
        await world.Admin.RemoveEntitlementAsync("desk", "ann");
        await world.Admin.EntitleAsync("desk", "ann");
        Assert.Empty(await FetchAsync());
    }

    [Fact]
    public async Task A_second_administrator_approves_where_the_policy_says()
    {
        using var bob = new NacreClient(world.Url, Credential.Administrator((await world.Admin.CreateAdministratorAsync(new CreateAdministrator("bob"))).Token), world.Time);
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["kill.requireTwoAdmins"] = "always" });
        var order = await KillAsync("desk");
        Assert.Equal(DeviceOrderState.Unapproved, order.State);
        Assert.Empty(await FetchAsync());
        await client.TakeLeaseAsync("desk", new TakeLease(null)); // nothing happened yet
        await FailsAsync(ErrorCatalogue.Forbidden, world.Admin.ApproveDeviceOrderAsync(order.Id));
        var approved = await bob.ApproveDeviceOrderAsync(order.Id);
        Assert.Equal((DeviceOrderState.Queued, "bob"), (approved.State, approved.ApprovedBy));
        await FailsAsync(ErrorCatalogue.Immutable, bob.ApproveDeviceOrderAsync(order.Id));
        Assert.Single(await FetchAsync());
        Assert.Equal(["administrator kill.order", "administrator:bob kill.approve", $"device:{device.DeviceId} kill.deliver"], await AuditAsync("kill."));

        // Above two devices in a day, also one by one.
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["kill.requireTwoAdmins"] = "above", ["kill.twoAdminsAbove"] = 2 });
        List<string> devices = [];
        for (var i = 0; i < 3; i++)
        {
            devices.Add((await world.EnrolAsync()).Device.DeviceId);
        }

        Assert.All(await bob.OrderKillAsync(new OrderKill(devices)), one => Assert.Equal(DeviceOrderState.Unapproved, one.State));
        foreach (var one in await world.Admin.ListDeviceOrdersAsync())
        {
            if (one.State == DeviceOrderState.Unapproved)
            {
                await bob.WithdrawDeviceOrderAsync(one.Id);
            }
        }

        Assert.Equal(DeviceOrderState.Queued, (await bob.OrderKillAsync(new OrderKill(devices[..1]))).Single().State);
        Assert.Equal(DeviceOrderState.Queued, (await bob.OrderKillAsync(new OrderKill(devices[1..2]))).Single().State);
        Assert.Equal(DeviceOrderState.Unapproved, (await bob.OrderKillAsync(new OrderKill(devices[2..]))).Single().State);
        await bob.WithdrawDeviceOrderAsync((await world.Admin.ListDeviceOrdersAsync()).Single(one => one.State == DeviceOrderState.Unapproved).Id);
        world.Time.Advance(TimeSpan.FromHours(25));
        Assert.Equal(DeviceOrderState.Queued, (await bob.OrderKillAsync(new OrderKill(devices[2..]))).Single().State);
    }

    [Fact]
    public async Task Receipts_that_are_not_the_devices_or_of_another_order_are_refused_and_change_nothing()
    {
        var (other, otherKey, otherClient) = await world.EnrolAsync();
        await otherClient.TakeLeaseAsync("desk", new TakeLease(null));
        var order = await KillAsync("desk");
        var others = (await world.Admin.OrderKillAsync(new OrderKill([other.DeviceId], "desk"))).Single();
        var mine = Assert.Single(await FetchAsync());
        var good = Receipt(mine.Signed, key, true, "");
        using var stranger = DeviceKey.Create();
        DeliverReceipt[] wrong =
        [
            Receipt(mine.Signed, otherKey, true, ""), // signed by another device
            Receipt(mine.Signed, stranger, true, ""),
            good with { Order = others.SignedOrder! }, // replayed for another device's order
            good with { Order = (await world.Admin.GetDeviceOrderAsync(order.Id)).SignedOrder![..^8] + "AAAAAAAA" },
            good with { Receipt = good.Receipt[..^8] + "AAAAAAAA" },
            good with { Receipt = mine.Signed },
            good with { Order = "" }, good with { Receipt = new string('a', 5000) },
            new(Forge(stranger, other.DeviceId), good.Receipt),
        ];
        foreach (var one in wrong)
        {
            await FailsAsync(ErrorCatalogue.ReceiptNotAuthentic, world.Nobody.DeliverReceiptAsync(one));
        }

        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Nobody.DeliverReceiptAsync(Receipt(mine.Signed, key, true, "\u001b[2J")));
        Assert.Equal((DeviceOrderState.Delivered, DeviceOrderState.Queued), (await StateAsync(order), await StateAsync(others)));

        // Of an earlier order for the same LivePC.
        await world.Nobody.DeliverReceiptAsync(good);
        await world.Admin.LiftDeviceOrderAsync(order.Id);
        await client.TakeLeaseAsync("desk", new TakeLease(null));
        var second = await KillAsync("desk");
        await FailsAsync(ErrorCatalogue.ReceiptNotAuthentic, world.Nobody.DeliverReceiptAsync(good with { Order = second.SignedOrder! }));
        await world.Nobody.DeliverReceiptAsync(good);
        Assert.Equal(DeviceOrderState.Queued, await StateAsync(second));
    }

    [Fact]
    public async Task A_server_that_was_restored_from_an_older_backup_learns_of_a_kill_from_its_receipt()
    {
        var order = await KillAsync("desk");
        var signed = Assert.Single(await FetchAsync()).Signed;
        await world.SqlAsync("DELETE FROM \"DeviceOrders\""); // the backup was made before it
        await client.TakeLeaseAsync("desk", new TakeLease(null));
        await DeliverAsync(signed, key, true, "done");
        Assert.Equal(DeviceOrderState.Confirmed, await StateAsync(order));
        await FailsAsync(ErrorCatalogue.LivePcKilled, client.TakeLeaseAsync("desk", new TakeLease(null)));
        Assert.Contains($"device:{device.DeviceId} kill.recover", await AuditAsync("kill."));
    }

    [Fact]
    public async Task What_is_no_kill_is_refused_and_nothing_of_it_is_queued()
    {
        var id = device.DeviceId;
        foreach (var kill in new OrderKill[] { new([]), new([id, id]), new([id], "NO"), new([.. Enumerable.Range(0, 1001).Select(i => $"{i}")]) })
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.OrderKillAsync(kill));
        }

        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.OrderKillAsync(new OrderKill([id], "none")));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.OrderKillAsync(new OrderKill([id, "none"])));
        await world.EntitleAsync("lab");
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.OrderKillAsync(new OrderKill([id], "lab")));
        Assert.Empty(await world.Admin.ListDeviceOrdersAsync());
        Assert.Empty(await AuditAsync("kill."));
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["kill.queueWhenLocked"] = false });
        await world.Admin.RevokeDeviceAsync(id);
        await FailsAsync(ErrorCatalogue.Forbidden, KillAsync(null));
        Assert.Empty(await AuditAsync("kill."));
    }

    [Fact]
    public async Task A_connected_device_hears_within_two_seconds_and_another_does_not()
    {
        var (_, _, other) = await world.EnrolAsync("bob");
        using var ending = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        var (heard, others) = (new TaskCompletionSource<TimeSpan>(TaskCreationOptions.RunContinuationsAsynchronously), 0);
        var since = Stopwatch.StartNew();
        var listening = client.ListenForOrdersAsync(_ => Task.FromResult(heard.TrySetResult(since.Elapsed)), ending.Token);
        var elsewhere = other.ListenForOrdersAsync(_ => Task.FromResult(Interlocked.Increment(ref others)), ending.Token);
        await ConnectedAsync(world, 2);
        var before = since.Elapsed;
        await KillAsync("desk");
        Assert.InRange(await heard.Task.WaitAsync(TimeSpan.FromSeconds(30)) - before, TimeSpan.Zero, TimeSpan.FromSeconds(2));
        Assert.Equal(0, others);

        // Who connects later is told at once; a server that stops lets everybody go.
        var late = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var later = client.ListenForOrdersAsync(_ => Task.FromResult(late.TrySetResult()), ending.Token);
        await late.Task.WaitAsync(TimeSpan.FromSeconds(30));
        var stopping = Stopwatch.StartNew();
        await world.StartAgainAsync();
        Assert.InRange(stopping.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(20));
        await Task.WhenAll(listening, elsewhere, later).WaitAsync(TimeSpan.FromSeconds(30)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
        Assert.All([listening, elsewhere, later], task => Assert.True(task.IsCompleted));
    }

    internal static async Task ConnectedAsync(World world, int count)
    {
        var bell = (DeviceBell)world.App.Services.GetService(typeof(DeviceBell))!;
        for (var i = 0; i < 600 && bell.Count < count; i++)
        {
            await Task.Delay(50);
        }

        Assert.Equal(count, bell.Count);
    }

    private static DeliverReceipt Receipt(string order, DeviceKey by, bool succeeded, string detail)
    {
        Assert.True(Jws.TryReadPayload(order, DeviceOrderClaims.Type, out var payload) && Jws.TryRead<DeviceOrderClaims>(payload, out _));
        Jws.TryRead<DeviceOrderClaims>(payload, out var claims);
        return new DeliverReceipt(order, by.SignReceipt(new DeviceReceiptClaims(claims!.Sub, claims.Id, DeviceReceiptClaims.DigestOf(order), succeeded, 1_800_000_000, detail)));
    }

    /// <summary>An order that is not the server's.</summary>
    private static string Forge(DeviceKey by, string device)
    {
        using var key = System.Security.Cryptography.ECDsa.Create();
        key.ImportPkcs8PrivateKey(by.ExportPkcs8(), out _);
        return Jws.SignClaims(new DeviceOrderClaims(device, "0123456789abcdef", DeviceAct.Kill, null, KillMode.Both, WipeScope.All, 0, 0), key, DeviceOrderClaims.Type);
    }

    private async Task<DeliverReceipt> DeliverAsync(string order, DeviceKey by, bool succeeded, string detail)
    {
        var receipt = Receipt(order, by, succeeded, detail);
        await world.Nobody.DeliverReceiptAsync(receipt);
        return receipt;
    }

    private async Task<DeviceOrder> KillAsync(string? livePc) => (await world.Admin.OrderKillAsync(new OrderKill([device.DeviceId], livePc))).Single();

    private async Task<DeviceOrderState> StateAsync(DeviceOrder order) => (await world.Admin.GetDeviceOrderAsync(order.Id)).State;

    private async Task<IReadOnlyList<(string Signed, DeviceOrderClaims Claims)>> FetchAsync()
    {
        var answer = await client.FetchDeviceOrdersAsync(new FetchDeviceOrders("mine"));
        var claims = Jws.VerifyClaims<DeviceOrdersClaims>(answer.Orders, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceOrdersClaims.Type);
        Assert.Equal((device.DeviceId, "mine"), (claims.Sub, claims.Nonce));
        return [.. claims.Orders.Select(order => (order, Jws.VerifyClaims<DeviceOrderClaims>(order, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceOrderClaims.Type)))];
    }

    private async Task<IReadOnlyList<string>> AuditAsync(string prefix) => [.. (await world.Admin.GetAuditAsync()).Entries
        .Where(entry => entry.Action.StartsWith(prefix, StringComparison.Ordinal) && entry.Result != AuditResult.Refused).Select(entry => $"{entry.Actor} {entry.Action}")];
}
