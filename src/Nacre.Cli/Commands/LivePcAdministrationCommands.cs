using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Cli.Commands;

/// <summary>Of <c>nacre livepc</c>, what administrators do: how a LivePC is defined, whose it is, and what devices say of it.</summary>
internal static class LivePcAdministrationCommands
{
    public static Command Define()
    {
        var image = new Option<string>("--image") { Description = "The golden image", Required = true };
        var channel = new Option<string?>("--channel") { Description = "The channel that it follows (default: stable)" };
        var command = new Command("create", "Define a LivePC on the server (administrators)") { LivePcCommands.Name, image, channel };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var livePc = await client.CreateLivePcAsync(new CreateLivePc(parsed.GetValue(LivePcCommands.Name)!, parsed.GetValue(image)!, parsed.GetValue(channel)), cancellationToken);
            Terminal.Result(livePc, () => Terminal.Line($"{livePc.Name}: {livePc.Image}, channel {livePc.Channel}"));
        });
        return command;
    }

    public static Command Layers()
    {
        var layers = new Argument<string[]>("APP[:CHANNEL]") { Description = "The application layers, lowest first, each with its channel (default: stable); none of them: show", Arity = ArgumentArity.ZeroOrMore };
        var none = new Option<bool>("--none") { Description = "Take all application layers out" };
        var command = new Command("layers", "Set the application layers of a LivePC, in order, or show them (administrators); devices take them with their next update") { LivePcCommands.Name, layers, none };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var name = parsed.GetValue(LivePcCommands.Name)!;
            var wanted = parsed.GetValue(layers) ?? [];
            if (parsed.GetValue(none) && wanted.Length > 0)
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "give either application layers or --none");
            }

            var choices = wanted.Select(word => word.Split(':', 2)).Select(parts => new LayerChoice(parts[0], parts.Length == 2 ? parts[1] : null)).ToList();
            using var client = Administration.Connect();
            var stack = wanted.Length == 0 && !parsed.GetValue(none)
                ? await client.GetLayersAsync(name, cancellationToken)
                : await client.PutLayersAsync(name, choices, cancellationToken);
            Terminal.Result(stack, () =>
            {
                Terminal.Table(["POSITION", "IMAGE", "CHANNEL", "RELEASE"], stack.Layers.Prepend(new StackedLayer(stack.Image, stack.Channel, stack.Version))
                    .Select((layer, position) => new[] { position == 0 ? "system" : $"{position}", layer.Image, layer.Channel, layer.Version is { } version ? $"{version}" : "-" }));
                foreach (var conflict in stack.Conflicts)
                {
                    Terminal.Line($"conflict: {conflict.Path}: brought by {string.Join(", ", conflict.Layers)}; {conflict.Winner} wins");
                }

                foreach (var warning in stack.Warnings)
                {
                    Terminal.Line($"warning: {warning}");
                }
            });
        });
        return command;
    }

    public static Command Reports()
    {
        var command = new Command("reports", "Show what devices reported about a LivePC's corporate layers (administrators)") { LivePcCommands.Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            ShowReports(await client.ListReportsAsync(null, parsed.GetValue(LivePcCommands.Name)!, cancellationToken));
        });
        return command;
    }

    public static Command Starts()
    {
        var command = new Command("starts", "Show which releases really started on which devices, and which did not (administrators)") { LivePcCommands.Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var starts = await client.ListStartsAsync(parsed.GetValue(LivePcCommands.Name)!, cancellationToken);
            Terminal.Result(starts, () => Terminal.Table(["DEVICE", "RELEASE", "HEALTHY (UTC)", "FAILED (UTC)"], starts.Select(start => new[]
            {
                start.Device, start.Release.ToString(), At(start.HealthyAt), At(start.FailedAt),
            })));
            static string At(DateTimeOffset? time) => time?.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture) ?? "-";
        });
        return command;
    }

    /// <summary>Shows reports, the newest first.</summary>
    internal static void ShowReports(IReadOnlyList<DeviceReport> reports) => Terminal.Result(reports, () =>
    {
        foreach (var (device, livePc, _, report) in reports)
        {
            var kind = JsonSerializer.Serialize(report.Kind, ContractJson.Options).Trim('"');
            Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"{report.At:yyyy-MM-dd HH:mm} UTC, device {device}, {livePc}, {kind}: {string.Join(", ", report.Stack)}"));
            Terminal.Line($"  {report.Reason}");
            foreach (var line in report.Console.Split('\n', StringSplitOptions.RemoveEmptyEntries))
            {
                Terminal.Line($"    {line.Trim()}");
            }
        }
    });

    public static Command Entitle()
    {
        var user = new Argument<string>("USER") { Description = "Who may run it" };
        var command = new Command("entitle", "Let a user run a LivePC (administrators)") { LivePcCommands.Name, user };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.EntitleAsync(parsed.GetValue(LivePcCommands.Name)!, parsed.GetValue(user)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(user)} may run {parsed.GetValue(LivePcCommands.Name)}");
        });
        return command;
    }

    public static Command Withdraw()
    {
        var user = new Argument<string>("USER") { Description = "Who may no longer run it" };
        var command = new Command("withdraw", "Take a user's permission away; a lease that is out runs down (administrators)") { LivePcCommands.Name, user };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.RemoveEntitlementAsync(parsed.GetValue(LivePcCommands.Name)!, parsed.GetValue(user)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(user)} gets no new lease for {parsed.GetValue(LivePcCommands.Name)}");
        });
        return command;
    }
}
