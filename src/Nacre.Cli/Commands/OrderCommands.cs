using System.CommandLine;
using System.Globalization;
using Nacre.Contracts;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre livepc order</c> and <c>nacre livepc orders</c>: what an administrator has a device do.</summary>
internal static class OrderCommands
{
    public static Command Order() => new("order", "Order a device to rejuvenate a LivePC, and take an order back (administrators)") { Rejuvenate(), Withdraw() };

    public static Command List()
    {
        var command = new Command("orders", "List the orders and where they are, newest first (administrators)");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var orders = await client.ListOrdersAsync(cancellationToken);
            Terminal.Result(orders, () => Terminal.Table(["ORDER", "LIVEPC", "DEVICE", "DEPTH", "ORDERED (UTC)", "STATE", "DETAIL"], orders.Select(order => new[]
            {
                order.Id, order.LivePc, order.Device, Words(order), order.OrderedAt.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture),
                order.State.ToString().ToLowerInvariant(), order.Detail,
            })));
        });
        return command;
    }

    private static Command Rejuvenate()
    {
        var device = new Option<string>("--device") { Description = "The device, as 'nacre device list' names it", Required = true };
        var command = new Command("rejuvenate", "Order a device to rejuvenate a LivePC: done at its next contact, at once where it runs and is connected, after a warning in the guest")
        {
            LivePcCommands.Name, device, RejuvenationCommands.Depth, RejuvenationCommands.To, RejuvenationCommands.Before,
        };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var order = await client.CreateOrderAsync(
                parsed.GetValue(LivePcCommands.Name)!,
                new CreateOrder(parsed.GetValue(device)!, parsed.GetValue(RejuvenationCommands.Depth), parsed.GetValue(RejuvenationCommands.To), parsed.GetValue(RejuvenationCommands.Before)),
                cancellationToken);
            Terminal.Result(order, () => Terminal.Line(order.Id));
            Terminal.Note("'nacre livepc orders' shows when the device has carried it out");
        });
        return command;
    }

    private static Command Withdraw()
    {
        var id = new Argument<string>("ORDER") { Description = "The order, as 'nacre livepc orders' names it" };
        var command = new Command("withdraw", "Take an order back that the device has not carried out") { id };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var order = await client.WithdrawOrderAsync(parsed.GetValue(id)!, cancellationToken);
            Terminal.Result(order, () => Terminal.Line($"{order.Id}: withdrawn"));
        });
        return command;
    }

    private static string Words(Order order) => order.Depth.ToString().ToLowerInvariant() + (order.To is { } to ? $" to {to}" : "")
        + (order.Before is { } before ? $" before {before.UtcDateTime.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture)}" : "");
}
