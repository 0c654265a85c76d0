using Nacre.Client;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>An administrator's order reaches its device once, and its receipt comes back.</summary>
public sealed class OrderTests : IAsyncLifetime
{
    private World world = null!;
    private EnrolledDevice device = null!;
    private DeviceKey key = null!;
    private NacreClient client = null!;

    public async ValueTask InitializeAsync()
    {
        world = await StartAsync();
        await world.PublishAsync();
        (device, key, client) = await world.EnrolAsync();
        await world.EntitleAsync();
    }

    public ValueTask DisposeAsync() => world.DisposeAsync();

    [Fact]
    public async Task An_order_waits_until_its_receipt_is_there_and_both_are_written_down()
    {
        Assert.Empty(await FetchAsync());
        var before = world.Time.GetUtcNow().AddHours(-3);
        var first = await world.Admin.CreateOrderAsync("desk", new CreateOrder(device.DeviceId, RejuvenationDepth.Moment, Before: before));
        world.Time.Advance(TimeSpan.FromSeconds(1));
        var second = await world.Admin.CreateOrderAsync("desk", new CreateOrder(device.DeviceId, RejuvenationDepth.Applications, "20261125-120000"));
        Assert.Equal((OrderState.Waiting, "desk", device.DeviceId, before), (first.State, first.LivePc, first.Device, first.Before!.Value));
        RejuvenationOrder[] both = [new(first.Id, RejuvenationDepth.Moment, null, before), new(second.Id, RejuvenationDepth.Applications, "20261125-120000", null)];
        Assert.Equal(both, await FetchAsync());
        Assert.Equal(both, await FetchAsync());

        // Across a restart of the server, and delivered twice.
        await world.StartAgainAsync();
        client = world.As(device, key);
        var receipt = new OrderReceipt(first.Id, true, world.Time.GetUtcNow(), "the layers before it are kept as moment 20261125-130000");
        Assert.Equal(both[1..], await FetchAsync(receipt));
        Assert.Equal(both[1..], await FetchAsync(receipt with { Succeeded = false }));
        Assert.Empty(await FetchAsync(new OrderReceipt(second.Id, false, world.Time.GetUtcNow(), "there is no such moment")));
        var orders = await world.Admin.ListOrdersAsync();
        Assert.Equal([(second.Id, OrderState.Failed, "there is no such moment"), (first.Id, OrderState.Done, receipt.Detail)], orders.Select(order => (order.Id, order.State, order.Detail)));
        Assert.Equal(
            [("administrator", "order.create"), ("administrator", "order.create"), ($"device:{device.DeviceId}", "order.done"), ($"device:{device.DeviceId}", "order.fail")],
            await AuditAsync());
    }

    [Fact]
    public async Task An_order_can_be_withdrawn_until_it_is_carried_out()
    {
        var order = await world.Admin.CreateOrderAsync("desk", new CreateOrder(device.DeviceId, RejuvenationDepth.Settings));
        Assert.Equal(OrderState.Withdrawn, (await world.Admin.WithdrawOrderAsync(order.Id)).State);
        Assert.Equal(OrderState.Withdrawn, (await world.Admin.WithdrawOrderAsync(order.Id)).State);
        Assert.Empty(await FetchAsync());

        // The device had heard of it and carried it out all the same: that is the truth.
        await FetchAsync(new OrderReceipt(order.Id, true, world.Time.GetUtcNow(), ""));
        Assert.Equal(OrderState.Done, (await world.Admin.ListOrdersAsync()).Single().State);
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.WithdrawOrderAsync(order.Id));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.WithdrawOrderAsync("0123456789abcdef"));
        Assert.Equal(["order.create", "order.withdraw", "order.done"], (await AuditAsync()).Select(entry => entry.Action));
    }

    [Fact]
    public async Task Each_device_and_LivePC_has_orders_of_its_own_and_says_nothing_of_others()
    {
        await world.EntitleAsync("lab");
        var (_, _, other) = await world.EnrolAsync();
        var order = await world.Admin.CreateOrderAsync("desk", new CreateOrder(device.DeviceId, RejuvenationDepth.System));
        Assert.Empty(await FetchAsync(other));
        Assert.Empty(await FetchAsync(client, "lab"));
        await FetchAsync(other, "desk", new OrderReceipt(order.Id, true, world.Time.GetUtcNow(), ""));
        await FetchAsync(client, "lab", new OrderReceipt(order.Id, true, world.Time.GetUtcNow(), ""));
        Assert.Equal(OrderState.Waiting, (await world.Admin.ListOrdersAsync()).Single().State);
        var (_, _, stranger) = await world.EnrolAsync("bob");
        await FailsAsync(ErrorCatalogue.NotEntitled, stranger.FetchOrdersAsync("desk", new FetchOrders("n", [])));
        await world.Admin.RevokeDeviceAsync(device.DeviceId);
        await FailsAsync(ErrorCatalogue.DeviceRevoked, client.FetchOrdersAsync("desk", new FetchOrders("n", [])));
    }

    [Fact]
    public async Task The_answer_is_signed_for_the_device_and_its_question()
    {
        var answer = await client.FetchOrdersAsync("desk", new FetchOrders("mine", []));
        var claims = Jws.VerifyClaims<OrderClaims>(answer.Orders, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, OrderClaims.Type);
        Assert.Equal((device.DeviceId, "desk", "mine"), (claims.Sub, claims.LivePc, claims.Nonce));
        Assert.False(Jws.TryVerify(answer.Orders, device.LeaseKey, DeviceToken.LeaseType, out _));
        Assert.False(Jws.TryVerify(answer.Orders, device.LeaseKey, AnchorClaims.Type, out _));
    }

    [Fact]
    public async Task Orders_and_receipts_that_are_none_are_refused_and_change_nothing()
    {
        CreateOrder[] invalid =
        [
            new(device.DeviceId, RejuvenationDepth.Data), new(device.DeviceId, RejuvenationDepth.Moment), new(device.DeviceId, RejuvenationDepth.System, "20261125-120000"),
            new(device.DeviceId, RejuvenationDepth.Moment, "20261125-120000", world.Time.GetUtcNow()), new(device.DeviceId, RejuvenationDepth.Moment, "a\nb"),
        ];
        foreach (var order in invalid)
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.CreateOrderAsync("desk", order));
        }

        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.CreateOrderAsync("none", new CreateOrder(device.DeviceId, RejuvenationDepth.System)));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.CreateOrderAsync("desk", new CreateOrder("none", RejuvenationDepth.System)));
        OrderReceipt[] receipts = [new("../x", true, world.Time.GetUtcNow(), ""), new("0123456789abcdef", true, world.Time.GetUtcNow(), new string('x', 401)), new("0123456789abcdef", true, world.Time.GetUtcNow(), "\u001b[2J")];
        foreach (var receipt in receipts)
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, client.FetchOrdersAsync("desk", new FetchOrders("n", [receipt])));
        }

        await FailsAsync(ErrorCatalogue.RequestInvalid, client.FetchOrdersAsync("desk", new FetchOrders("", [])));
        Assert.Empty(await world.Admin.ListOrdersAsync());
        for (var i = 0; i < 10; i++)
        {
            await world.Admin.CreateOrderAsync("desk", new CreateOrder(device.DeviceId, RejuvenationDepth.System));
        }

        await FailsAsync(ErrorCatalogue.TooLarge, world.Admin.CreateOrderAsync("desk", new CreateOrder(device.DeviceId, RejuvenationDepth.System)));
        Assert.Equal(10, (await AuditAsync()).Count);
    }

    private Task<IReadOnlyList<RejuvenationOrder>> FetchAsync(params OrderReceipt[] receipts) => FetchAsync(client, "desk", receipts);

    private async Task<IReadOnlyList<RejuvenationOrder>> FetchAsync(NacreClient from, string livePc = "desk", params OrderReceipt[] receipts)
    {
        var answer = await from.FetchOrdersAsync(livePc, new FetchOrders("nonce", receipts));
        return Jws.VerifyClaims<OrderClaims>(answer.Orders, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, OrderClaims.Type).Orders;
    }

    private async Task<List<(string Actor, string Action)>> AuditAsync() =>
        [.. (await world.Admin.GetAuditAsync()).Entries.Where(entry => entry.Action.StartsWith("order.", StringComparison.Ordinal)).Select(entry => (entry.Actor, entry.Action))];
}
