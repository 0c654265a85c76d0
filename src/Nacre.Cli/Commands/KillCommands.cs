using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre kill</c>: destroys keys on devices, for good.</summary>
internal static class KillCommands
{
    private static readonly Argument<string> Id = new("ORDER") { Description = "The order, as 'nacre kill list' and 'nacre revoke list' name it" };

    public static Command Create() => new("kill", "Destroy the keys of LivePCs on devices, for good (administrators)")
    {
        Device(), LivePc(), List(DeviceAct.Kill), Show(), Verify(), Approve(), Withdraw(), Lift("Let a device have a new, empty LivePC in the place of one that was killed"),
    };

    internal static Command List(DeviceAct act)
    {
        var command = new Command("list", act == DeviceAct.Kill ? "List the kills and where they are, newest first" : "List the revokes and where they are, newest first");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var orders = (await client.ListDeviceOrdersAsync(cancellationToken)).Where(order => order.Act == act).ToList();
            Terminal.Result(orders, () => Terminal.Table(["ORDER", "DEVICE", "LIVEPC", "ORDERED (UTC)", "BY", "STATE", "DETAIL"], orders.Select(order => new[]
            {
                order.Id, order.Device, order.LivePc ?? "(all)", Time(order.OrderedAt), order.OrderedBy, State(order), order.Detail,
            })));
        });
        return command;
    }

    internal static Command Withdraw() => Act("withdraw", "Take an order back that the device was not given", (client, id, cancellationToken) => client.WithdrawDeviceOrderAsync(id, cancellationToken));

    internal static Command Lift(string help) => Act("lift", help, (client, id, cancellationToken) => client.LiftDeviceOrderAsync(id, cancellationToken));

    internal static Command Show()
    {
        var file = new Option<string?>("--receipt") { Description = "Write the order and its receipt, as they were signed, into this file" };
        var command = new Command("show", "Show an order and what the device said") { Id, file };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var order = await client.GetDeviceOrderAsync(parsed.GetValue(Id)!, cancellationToken);
            if (parsed.GetValue(file) is { } path)
            {
                if (order is not { SignedOrder: { } signed, Receipt: { } receipt })
                {
                    throw new NacreException(ErrorCatalogue.NotFound, $"order {order.Id} has no receipt yet: it is {State(order)}");
                }

                await File.WriteAllBytesAsync(path, JsonSerializer.SerializeToUtf8Bytes(new KeptReceipt(order.DeviceKey, signed, receipt), ContractJson.Options), cancellationToken);
                Terminal.Note($"'nacre kill verify {path}' verifies it without a server; its device key is {order.DeviceKey.X}");
            }

            Terminal.Result(order, () =>
            {
                Terminal.Line($"{order.Id}: {order.Act.ToString().ToLowerInvariant()} {order.LivePc ?? "everything"} on device {order.Device}: {State(order)}");
                Terminal.Line($"ordered by {order.OrderedBy} on {Time(order.OrderedAt)} UTC{(order.ApprovedBy is { } second ? $", approved by {second}" : "")}{(order.DeliveredAt is { } delivered ? $", delivered on {Time(delivered)} UTC" : "")}");
                if (order.EndedAt is { } ended)
                {
                    Terminal.Line($"ended on {Time(ended)} UTC{(order.Detail.Length > 0 ? $": {order.Detail}" : "")}");
                }
            });
        });
        return command;
    }

    private static Command Device()
    {
        var ids = new Argument<string[]>("DEVICE") { Description = "The devices, as 'nacre device list' names them", Arity = ArgumentArity.OneOrMore };
        var command = new Command("device", "Destroy all LivePCs of devices, and the devices' identity") { ids };
        command.SetAction((parsed, cancellationToken) => OrderAsync(new OrderKill(parsed.GetValue(ids)!), cancellationToken));
        return command;
    }

    private static Command LivePc()
    {
        var ids = new Argument<string[]>("DEVICE") { Description = "The devices, as 'nacre device list' names them", Arity = ArgumentArity.OneOrMore };
        var command = new Command("livepc", "Destroy one LivePC on devices; the device gets no new one until an administrator lifts the kill") { LivePcCommands.Name, ids };
        command.SetAction((parsed, cancellationToken) => OrderAsync(new OrderKill(parsed.GetValue(ids)!, parsed.GetValue(LivePcCommands.Name)!), cancellationToken));
        return command;
    }

    private static async Task OrderAsync(OrderKill kill, CancellationToken cancellationToken)
    {
        using var client = Administration.Connect();
        var orders = await client.OrderKillAsync(kill, cancellationToken);
        Terminal.Result(orders, () =>
        {
            foreach (var order in orders)
            {
                Terminal.Line($"{order.Id} {order.Device} {State(order)}");
            }
        });
        Terminal.Note(orders.Any(order => order.State == DeviceOrderState.Unapproved)
            ? "the policy wants a second administrator: 'nacre kill approve ORDER'"
            : "a connected device carries it out at once, any other at its next contact; 'nacre kill show ORDER' has its signed receipt then");
    }

    private static Command Verify()
    {
        var file = new Argument<string>("FILE") { Description = "What 'nacre kill show --receipt' wrote" };
        var noted = new Option<string?>("--device-key") { Description = "The X coordinate of the device's key, as it was noted elsewhere (default: the file's is believed)" };
        var command = new Command("verify", "Verify a device's receipt without a server") { file, noted };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var path = parsed.GetValue(file)!;
            if (!Jws.TryRead<KeptReceipt>(await File.ReadAllBytesAsync(path, cancellationToken), out var kept) || kept is not { DeviceKey: not null, Receipt: not null, Order: not null }
                || (parsed.GetValue(noted) is { } wanted && wanted != kept.DeviceKey.X)
                || !Jws.TryVerify(kept.Receipt, kept.DeviceKey, DeviceReceiptClaims.Type, out var bytes) || !Jws.TryRead<DeviceReceiptClaims>(bytes, out var receipt)
                || receipt.OrderSha256 != DeviceReceiptClaims.DigestOf(kept.Order))
            {
                throw new NacreException(ErrorCatalogue.ReceiptNotAuthentic, $"'{path}' is not a receipt that the device signed for this order");
            }

            Terminal.Result(receipt, () => Terminal.Line(string.Create(
                CultureInfo.InvariantCulture,
                $"device {receipt.Sub} (key {kept.DeviceKey.X}) signed on {DateTimeOffset.FromUnixTimeSeconds(receipt.At):yyyy-MM-dd HH:mm:ss} UTC by its clock: order {receipt.Id} {(receipt.Succeeded ? "was carried out" : "failed")}: {receipt.Detail}")));
        });
        return command;
    }

    private static Command Approve() => Act("approve", "Approve a kill that another administrator ordered", (client, id, cancellationToken) => client.ApproveDeviceOrderAsync(id, cancellationToken));

    private static Command Act(string word, string help, Func<Client.NacreClient, string, CancellationToken, Task<DeviceOrder>> act)
    {
        var command = new Command(word, help) { Id };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var order = await act(client, parsed.GetValue(Id)!, cancellationToken);
            Terminal.Result(order, () => Terminal.Line($"{order.Id}: {State(order)}"));
        });
        return command;
    }

    private static string State(DeviceOrder order) => order.State.ToString().ToLowerInvariant() + (order.LiftedAt is null ? "" : ", lifted");

    private static string Time(DateTimeOffset time) => time.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture);

    /// <summary>What verifies without a server.</summary>
    private sealed record KeptReceipt(PublicKey DeviceKey, string Order, string Receipt);
}

/// <summary><c>nacre revoke</c>: takes permission away, which can be given back.</summary>
internal static class RevokeCommands
{
    public static Command Create() => new("revoke", "Take permission away from devices and users; it can be given back (administrators)")
    {
        DeviceCommands.Revoke("device"), User(), KillCommands.List(DeviceAct.Revoke), KillCommands.Show(), KillCommands.Withdraw(), KillCommands.Lift("Give a revoked device its permission back"),
    };

    private static Command User()
    {
        var user = new Argument<string>("USER") { Description = "The user" };
        var command = new Command("user", "Take a LivePC from a user: the entitlement, and the leases on all of that user's devices; 'nacre livepc entitle' gives it back") { LivePcCommands.Name, user };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.RemoveEntitlementAsync(parsed.GetValue(LivePcCommands.Name)!, parsed.GetValue(user)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(user)} is not entitled to {parsed.GetValue(LivePcCommands.Name)} any more; 'nacre revoke list' shows which devices have forgotten it");
        });
        return command;
    }
}

/// <summary><c>nacre lease</c>.</summary>
internal static class LeaseCommands
{
    public static Command Create()
    {
        var request = new Argument<string>("REQUEST") { Description = "What the user reads out, such as 1f0c92ab-0" };
        var hours = new Option<int>("--hours") { Description = "For how long", DefaultValueFactory = _ => 24 };
        var extend = new Command("extend", "Make the code with which a user puts off the end of a lease without a network, to be read over the phone") { request, LivePcCommands.Name, hours };
        extend.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var extension = await client.ExtendLeaseAsync(new ExtendLease(parsed.GetValue(request)!, parsed.GetValue(LivePcCommands.Name)!, parsed.GetValue(hours)), cancellationToken);
            Terminal.Result(extension, () => Terminal.Line(extension.Code));
            Terminal.Note(string.Create(CultureInfo.InvariantCulture, $"works once, on device {extension.Device}, until {extension.Until:yyyy-MM-dd HH:mm} UTC at the latest; make sure that you speak to its user"));
        });
        return new Command("lease", "What the help desk does about leases (administrators)") { extend };
    }
}
