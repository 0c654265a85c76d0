using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre livepc log</c> and <c>nacre device logs</c>: what happened to LivePCs, on this device and, where it is asked for, on another.</summary>
internal static class LogCommands
{
    private static readonly TimeSpan Look = TimeSpan.FromSeconds(1);
    private static readonly Argument<string> Order = new("ORDER") { Description = "The order, as 'nacre device logs list' names it" };
    private static readonly Option<string?> Output = new("--out") { Description = "The file to write, a line of JSON for each event, that only you can read (default: print them)" };

    public static Command Show()
    {
        var lines = new Option<int?>("--lines") { Description = "Only so many of the newest events" };
        lines.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<int?>() is < 1)
            {
                result.AddError("'--lines' is 1 or more");
            }
        });
        var command = new Command("log", "Show what happened to a LivePC on this device, as far as the policy has it written down (logs.eventLevel)") { LivePcCommands.Name, lines };
        command.SetAction(parsed => Print(LivePcCommands.Player().ReadLog(parsed.GetValue(LivePcCommands.Name)!).TakeLast(parsed.GetValue(lines) ?? int.MaxValue)));
        return command;
    }

    public static Command Create()
    {
        var id = new Argument<string>("DEVICE") { Description = "The device, as 'nacre device list' names it" };
        var livePc = new Option<string?>("--livepc") { Description = "Only the log of this LivePC (default: of all that the device has)" };
        var reason = new Option<string?>("--reason") { Description = "Why, which the device's user and the audit log are told; the policy may want one (logs.adminReasonRequired)" };
        var noWait = new Option<bool>("--no-wait") { Description = "Ask for it, and do not wait until it comes" };
        var command = new Command("logs", "Ask a device for its log, and fetch it; its user is told who asks, and why (administrators, help desk)") { id, livePc, reason, Output, noWait, List(), Fetch(), Delete() };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var file = parsed.GetValue(Output);
            RequireFolder(file);
            using var client = Administration.Connect();
            var order = await client.OrderLogAsync(parsed.GetValue(id)!, new OrderLog(parsed.GetValue(livePc), parsed.GetValue(reason)), cancellationToken);
            Terminal.Note($"order {order.Id}: a connected device sends its log at once, any other at its next contact; 'nacre device logs fetch {order.Id}' has it then, 'nacre device logs delete {order.Id}' takes the order back");
            if (parsed.GetValue(noWait))
            {
                Terminal.Result(order, () => Terminal.Line(order.Id));
                return;
            }

            await Terminal.ProgressAsync($"waiting for the log of {order.Device}", async report =>
            {
                while (order.State != DeviceOrderState.Confirmed)
                {
                    report(double.NaN, order.State switch
                    {
                        DeviceOrderState.Queued => "the device has not heard of it",
                        DeviceOrderState.Withdrawn => throw new NacreException(ErrorCatalogue.NotFound, $"order {order.Id} was taken back: {order.Detail}"),
                        DeviceOrderState.Failed => $"the device tries again: {Terminal.Printable(order.Detail)}",
                        _ => "the device has heard of it",
                    });
                    await Task.Delay(Look, cancellationToken);
                    order = await client.GetDeviceOrderAsync(order.Id, cancellationToken);
                }

                return order;
            });
            await GiveAsync(client, order.Id, file, cancellationToken);
        });
        return command;
    }

    private static Command List()
    {
        var command = new Command("list", "List the logs that were asked for and where they are, newest first");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var orders = (await client.ListDeviceOrdersAsync(cancellationToken)).Where(order => order.Act == DeviceAct.Logs).ToList();
            Terminal.Result(orders, () => Terminal.Table(["ORDER", "DEVICE", "LIVEPC", "ASKED (UTC)", "BY", "STATE", "REASON", "DETAIL"], orders.Select(order => new[]
            {
                order.Id, order.Device, order.LivePc ?? "(all)", order.OrderedAt.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture), order.OrderedBy, order.State.ToString().ToLowerInvariant(), order.Reason ?? "-", order.Detail,
            })));
        });
        return command;
    }

    private static Command Fetch()
    {
        var command = new Command("fetch", "Fetch a log that a device sent; the audit log says who did") { Order, Output };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            RequireFolder(parsed.GetValue(Output));
            using var client = Administration.Connect();
            await GiveAsync(client, parsed.GetValue(Order)!, parsed.GetValue(Output), cancellationToken);
        });
        return command;
    }

    private static Command Delete()
    {
        var command = new Command("delete", "Delete a log from the server, which does so by itself after 30 days, or take the order back that the device was not given") { Order };
        command.Aliases.Add("withdraw");
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.DeleteLogAsync(parsed.GetValue(Order)!, cancellationToken);
            Terminal.Note($"the server has no log of order {parsed.GetValue(Order)}, and gets none");
        });
        return command;
    }

    private static async Task GiveAsync(NacreClient client, string order, string? file, CancellationToken cancellationToken)
    {
        var log = await client.GetLogAsync(order, cancellationToken);
        if (file is null)
        {
            Print(log.Lines);
            return;
        }

        await using (var stream = new FileStream(file, new FileStreamOptions { Mode = FileMode.Create, Access = FileAccess.Write, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite, Options = FileOptions.Asynchronous }))
        {
            await stream.WriteAsync(log.Lines.SelectMany(line => JsonSerializer.SerializeToUtf8Bytes(line, ContractJson.Options).Append((byte)'\n')).ToArray(), cancellationToken);
        }

        Terminal.Result(new { log.Order, log.Device, log.ReceivedAt, lines = log.Lines.Count, file }, () => Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"{file}: {log.Lines.Count} events of device {log.Device}")));
    }

    private static void RequireFolder(string? file)
    {
        if (file is not null && !Directory.Exists(Path.GetDirectoryName(Path.GetFullPath(file))))
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"'{file}': there is no such folder");
        }
    }

    private static void Print(IEnumerable<LogLine> lines)
    {
        LogLine[] all = [.. lines];
        Terminal.Result(all, () =>
        {
            foreach (var line in all)
            {
                Terminal.Line(string.Create(
                    CultureInfo.InvariantCulture, $"{line.Time:yyyy-MM-dd HH:mm:ss}Z {line.LivePc} {(line.Level is EventLevel.Error or EventLevel.Warning ? line.Level.ToString().ToLowerInvariant() + " " : "")}{line.Event}: {Terminal.Printable(line.Text)}"));
            }
        });
    }
}
