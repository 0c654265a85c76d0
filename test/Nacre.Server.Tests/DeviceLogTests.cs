using Microsoft.Extensions.DependencyInjection;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Policies;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>The log of a device, from the question to its end: nobody gets it who may not, and nobody without a trace.</summary>
public sealed class DeviceLogTests : IAsyncLifetime
{
    private const string Reason = "it does not start, says Ann";
    private World world = null!;
    private EnrolledDevice device = null!;
    private DeviceKey key = null!;
    private NacreClient client = null!;
    private NacreClient kim = null!;

    public async ValueTask InitializeAsync()
    {
        world = await StartAsync();
        await world.PublishAsync();
        await world.AllowDevicesAsync(9);
        (device, key, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        await client.TakeLeaseAsync("desk", new TakeLease(null));
        kim = new NacreClient(world.Url, Credential.Administrator((await world.Admin.CreateAdministratorAsync(new CreateAdministrator("kim", [PeopleRoles.HelpDesk]))).Token), world.Time);
    }

    public async ValueTask DisposeAsync()
    {
        kim.Dispose();
        client.Dispose();
        key.Dispose();
        await world.DisposeAsync();
    }

    [Fact]
    public async Task A_log_is_asked_for_with_a_reason_sent_once_read_and_deleted_and_each_of_that_has_a_line()
    {
        var order = await kim.OrderLogAsync(device.DeviceId, new OrderLog("desk", Reason));
        Assert.Equal((DeviceAct.Logs, DeviceOrderState.Queued, "kim", Reason), (order.Act, order.State, order.OrderedBy, order.Reason));
        await FailsAsync(ErrorCatalogue.AlreadyExists, world.Admin.OrderLogAsync(device.DeviceId, new OrderLog("desk", Reason)));
        await FailsAsync(ErrorCatalogue.Immutable, client.SendLogAsync(order.Id, new SendLog([Line("early")]))); // it has not heard of it
        var (signed, claims) = Assert.Single(await FetchAsync());
        Assert.Equal((DeviceAct.Logs, "desk", "kim", Reason), (claims.Act, claims.LivePc, claims.OrderedBy, claims.Reason));
        await client.TakeLeaseAsync("desk", new TakeLease(null)); // nothing was taken away from it
        await FailsAsync(ErrorCatalogue.NotFound, kim.GetLogAsync(order.Id));

        // Again until there is the receipt, and not after it.
        await client.SendLogAsync(order.Id, new SendLog([Line("first")]));
        await client.SendLogAsync(order.Id, new SendLog([Line("first"), Line("Grüezi")]));
        await world.Nobody.DeliverReceiptAsync(Receipt(signed, true, "2 lines"));
        Assert.Empty(await FetchAsync());
        await FailsAsync(ErrorCatalogue.Immutable, client.SendLogAsync(order.Id, new SendLog([Line("late")])));
        Assert.Equal((DeviceOrderState.Confirmed, "2 lines"), ((await kim.GetDeviceOrderAsync(order.Id)).State, (await kim.GetDeviceOrderAsync(order.Id)).Detail));
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.LiftDeviceOrderAsync(order.Id));
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.WithdrawDeviceOrderAsync(order.Id));

        var log = await kim.GetLogAsync(order.Id);
        Assert.Equal((order.Id, device.DeviceId, world.Time.GetUtcNow()), (log.Order, log.Device, log.ReceivedAt));
        Assert.Equal([Line("first"), Line("Grüezi")], log.Lines);
        await kim.DeleteLogAsync(order.Id);
        await FailsAsync(ErrorCatalogue.NotFound, kim.GetLogAsync(order.Id));
        await FailsAsync(ErrorCatalogue.NotFound, kim.DeleteLogAsync(order.Id));
        Assert.Equal(0L, Convert.ToInt64(await world.SqlAsync("SELECT COUNT(*) FROM \"DeviceLogs\""), null));
        Assert.Equal(
            [
                "help-desk:kim logs.order", $"device:{device.DeviceId} logs.deliver", $"device:{device.DeviceId} logs.send", $"device:{device.DeviceId} logs.send", $"device:{device.DeviceId} logs.confirm",
                "help-desk:kim logs.read", "help-desk:kim logs.delete",
            ],
            (await LinesAsync()).Select(entry => $"{entry.Actor} {entry.Action}"));
        Assert.All(await LinesAsync(), entry => Assert.True(entry.Subject == order.Id && entry.Detail.Contains(device.DeviceId, StringComparison.Ordinal) && entry.Detail.Contains(Reason, StringComparison.Ordinal), $"{entry}"));
    }

    [Fact]
    public async Task Without_a_reason_it_is_refused_where_the_policy_wants_one_of_any_LivePC_that_is_asked_for()
    {
        await FailsAsync(ErrorCatalogue.RequestInvalid, kim.OrderLogAsync(device.DeviceId, new OrderLog("desk")));
        foreach (var wrong in new[] { "", "  ", "\u001b[2J", new string('r', 201) })
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, kim.OrderLogAsync(device.DeviceId, new OrderLog("desk", wrong)));
        }

        await world.EntitleAsync("lab");
        await client.TakeLeaseAsync("lab", new TakeLease(null));
        await world.Admin.PutPolicyAsync("livepc:desk", PolicyDocument.Empty.With(Settings.LogsAdminReasonRequired, false));
        await FailsAsync(ErrorCatalogue.RequestInvalid, kim.OrderLogAsync(device.DeviceId, new OrderLog("lab")));
        await FailsAsync(ErrorCatalogue.RequestInvalid, kim.OrderLogAsync(device.DeviceId, new OrderLog()));
        Assert.Empty(await LinesAsync());
        Assert.Empty(await world.Admin.ListDeviceOrdersAsync());
        var order = await kim.OrderLogAsync(device.DeviceId, new OrderLog("desk"));
        Assert.Equal(("kim", null), (Assert.Single(await FetchAsync()).Claims.OrderedBy, order.Reason));
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["logs.adminReasonRequired"] = false });
        await kim.OrderLogAsync(device.DeviceId, new OrderLog());
    }

    [Fact]
    public async Task A_log_is_of_the_device_and_the_LivePC_that_it_was_ordered_of_and_what_is_none_is_refused()
    {
        var (_, otherKey, other) = await world.EnrolAsync();
        var order = await kim.OrderLogAsync(device.DeviceId, new OrderLog("desk", Reason));
        await FetchAsync();
        await FailsAsync(ErrorCatalogue.NotFound, other.SendLogAsync(order.Id, new SendLog([Line("another device's")])));
        await FailsAsync(ErrorCatalogue.NotFound, client.SendLogAsync("0123456789abcdef", new SendLog([Line("never asked for")])));
        LogLine good = Line("x");
        foreach (var wrong in new LogLine[]
        {
            good with { LivePc = "lab" }, good with { LivePc = "../x" }, good with { Text = "" }, good with { Text = "a\nb" }, good with { Text = "\u001b]0;x" }, good with { Text = "\u202egnp.exe" },
            good with { Text = new string('x', 1001) }, good with { Event = "No Event" }, good with { Event = new string('e', 41) }, good with { Event = "" }, good with { Level = EventLevel.None },
        })
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, client.SendLogAsync(order.Id, new SendLog([good, wrong])));
        }

        using var level = await SendAsync(order.Id, """{"lines":[{"time":"2026-03-01T12:00:00+00:00","livePc":"desk","level":"fatal","event":"x","text":"x"}]}""");
        await ProblemAsync(level, ErrorCatalogue.RequestInvalid);
        using var none = await SendAsync(order.Id, "{}");
        await ProblemAsync(none, ErrorCatalogue.RequestInvalid);
        await FailsAsync(ErrorCatalogue.NotFound, kim.GetLogAsync(order.Id));

        // As much as a device may send, and no more.
        var many = Enumerable.Repeat(good with { Text = new string('x', 1000) }, 460).ToList();
        await client.SendLogAsync(order.Id, new SendLog(many));
        Assert.Equal(many.Count, (await kim.GetLogAsync(order.Id)).Lines.Count);
        await Assert.ThrowsAsync<NacreException>(() => client.SendLogAsync(order.Id, new SendLog([.. many, .. many])));
        Assert.Equal(many.Count, (await kim.GetLogAsync(order.Id)).Lines.Count);
        otherKey.Dispose();
        other.Dispose();
    }

    [Fact]
    public async Task What_can_not_be_asked_for_is_refused()
    {
        await FailsAsync(ErrorCatalogue.NotFound, kim.OrderLogAsync("none", new OrderLog(null, Reason)));
        await FailsAsync(ErrorCatalogue.NotFound, kim.OrderLogAsync(device.DeviceId, new OrderLog("none", Reason)));
        await FailsAsync(ErrorCatalogue.NotFound, kim.OrderLogAsync(device.DeviceId, new OrderLog("../x", Reason)));
        var (other, _, _) = await world.EnrolAsync();
        await FailsAsync(ErrorCatalogue.NotFound, kim.OrderLogAsync(other.DeviceId, new OrderLog("desk", Reason))); // it never had a lease of it
        await world.Admin.RevokeDeviceAsync(other.DeviceId);
        await FailsAsync(ErrorCatalogue.Forbidden, kim.OrderLogAsync(other.DeviceId, new OrderLog(null, Reason)));
        Assert.Empty(await LinesAsync());
    }

    [Fact]
    public async Task What_the_device_was_not_given_is_taken_back_and_a_kill_overtakes_it_and_comes_first()
    {
        var order = await kim.OrderLogAsync(device.DeviceId, new OrderLog(null, Reason));
        Assert.False((await world.Admin.GetDeviceAsync(device.DeviceId)).Revoked);
        await kim.DeleteLogAsync(order.Id);
        Assert.Equal(DeviceOrderState.Withdrawn, (await kim.GetDeviceOrderAsync(order.Id)).State);
        Assert.Empty(await FetchAsync());

        order = await kim.OrderLogAsync(device.DeviceId, new OrderLog("desk", Reason));
        await FailsAsync(ErrorCatalogue.Forbidden, kim.WithdrawDeviceOrderAsync(order.Id)); // revokes and kills are the administrators'
        await FetchAsync();
        await FailsAsync(ErrorCatalogue.NotFound, kim.DeleteLogAsync(order.Id)); // too late to take it back
        var whole = await kim.OrderLogAsync(device.DeviceId, new OrderLog(null, Reason));
        await world.Admin.RemoveEntitlementAsync("desk", "ann"); // a revoke, which no order for a log stands in for
        Assert.Equal([DeviceAct.Revoke, DeviceAct.Logs, DeviceAct.Logs], (await FetchAsync()).Select(one => one.Claims.Act));
        await world.Admin.OrderKillAsync(new OrderKill([device.DeviceId]));
        Assert.Equal(DeviceAct.Kill, (await FetchAsync())[0].Claims.Act);
        await FailsAsync(ErrorCatalogue.DeviceRevoked, client.SendLogAsync(whole.Id, new SendLog([Line("x")])));
    }

    [Fact]
    public async Task A_log_is_gone_after_thirty_days()
    {
        var order = await kim.OrderLogAsync(device.DeviceId, new OrderLog("desk", Reason));
        await FetchAsync();
        await client.SendLogAsync(order.Id, new SendLog([Line("canary")]));
        world.Time.Advance(TimeSpan.FromDays(30) - TimeSpan.FromMinutes(1));
        await SweepAsync();
        Assert.Single((await kim.GetLogAsync(order.Id)).Lines);
        world.Time.Advance(TimeSpan.FromMinutes(1));
        await SweepAsync();
        await FailsAsync(ErrorCatalogue.NotFound, kim.GetLogAsync(order.Id));
        var line = (await LinesAsync())[^1];
        Assert.Equal(("server", "logs.delete", order.Id), (line.Actor, line.Action, line.Subject));
        await SweepAsync();
        Assert.Equal(line, (await LinesAsync())[^1]);
    }

    [Fact]
    public async Task Another_organisation_has_nothing_of_it()
    {
        var order = await kim.OrderLogAsync(device.DeviceId, new OrderLog("desk", Reason));
        await FetchAsync();
        await client.SendLogAsync(order.Id, new SendLog([Line("canary")]));
        await using var elsewhere = await StartInsideAsync(world);
        await FailsAsync(ErrorCatalogue.NotFound, elsewhere.Admin.GetLogAsync(order.Id));
        await FailsAsync(ErrorCatalogue.NotFound, elsewhere.Admin.DeleteLogAsync(order.Id));
        await FailsAsync(ErrorCatalogue.NotFound, elsewhere.Admin.OrderLogAsync(device.DeviceId, new OrderLog(null, Reason)));
        Assert.Empty(await elsewhere.Admin.ListDeviceOrdersAsync());
        using var stranger = new NacreClient(elsewhere.Url, Credential.Administrator(world.Token));
        await FailsAsync(ErrorCatalogue.Unauthenticated, stranger.GetLogAsync(order.Id));
        Assert.Single((await kim.GetLogAsync(order.Id)).Lines);
    }

    private LogLine Line(string text) => new(world.Time.GetUtcNow(), "desk", EventLevel.Warning, "lease.problem", text);

    private async Task SweepAsync()
    {
        await using var scope = world.App.Services.CreateAsyncScope();
        await scope.ServiceProvider.GetRequiredService<DeviceOrders>().DeleteOldLogsAsync(default);
    }

    private Task<HttpResponseMessage> SendAsync(string order, string json)
    {
        var path = $"/v1/device/orders/{order}/log";
        return world.SendAsync("PUT", path, key.SignToken(device.DeviceId, "PUT", path, System.Text.Encoding.UTF8.GetBytes(json), world.Time.GetUtcNow()), Json(json));
    }

    private DeliverReceipt Receipt(string order, bool succeeded, string detail)
    {
        Assert.True(Jws.TryReadPayload(order, DeviceOrderClaims.Type, out var payload) && Jws.TryRead<DeviceOrderClaims>(payload, out _));
        Jws.TryRead<DeviceOrderClaims>(payload, out var claims);
        return new DeliverReceipt(order, key.SignReceipt(new DeviceReceiptClaims(claims!.Sub, claims.Id, DeviceReceiptClaims.DigestOf(order), succeeded, 1_800_000_000, detail)));
    }

    private async Task<IReadOnlyList<(string Signed, DeviceOrderClaims Claims)>> FetchAsync()
    {
        var answer = await client.FetchDeviceOrdersAsync(new FetchDeviceOrders("mine"));
        var claims = Jws.VerifyClaims<DeviceOrdersClaims>(answer.Orders, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceOrdersClaims.Type);
        return [.. claims.Orders.Select(order => (order, Jws.VerifyClaims<DeviceOrderClaims>(order, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceOrderClaims.Type)))];
    }

    private async Task<IReadOnlyList<AuditEntry>> LinesAsync() => [.. (await world.Admin.GetAuditAsync()).Entries.Where(entry => entry.Action.StartsWith("logs.", StringComparison.Ordinal) && entry.Result == AuditResult.Done)];
}
