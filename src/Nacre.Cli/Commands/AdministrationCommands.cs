using System.CommandLine;
using System.Globalization;
using Nacre.Contracts;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre login</c>: keeps the administrator's token.</summary>
internal static class LoginCommand
{
    public static Command Create()
    {
        var server = new Argument<string>("URL") { Description = "The server's address, such as https://nacre.example" };
        var file = new Option<string>("--token-file") { Description = "File with the token that the server made at its first start (admin-token in its data folder); - for standard input", Required = true };
        var command = new Command("login", "Log in to a server as an administrator") { server, file };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var path = parsed.GetValue(file)!;
            var token = (path == "-" ? await Console.In.ReadToEndAsync(cancellationToken) : await File.ReadAllTextAsync(path, cancellationToken)).Trim();
            await Administration.LogInAsync(Address(parsed.GetValue(server)!), token, cancellationToken);
            Terminal.Note($"logged in to {parsed.GetValue(server)}");
        });
        return command;
    }

    /// <summary>An address as typed.</summary>
    /// <exception cref="NacreException">UsageInvalid.</exception>
    public static Uri Address(string untrustedText) =>
        Uri.TryCreate(untrustedText, UriKind.Absolute, out var address) && address.Scheme is "http" or "https"
            ? address
            : throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{untrustedText}' is not an address such as https://nacre.example");
}

/// <summary><c>nacre user</c>.</summary>
internal static class UserCommands
{
    public static Command Create()
    {
        var name = new Argument<string>("USER") { Description = "1 to 63 lower-case letters, digits and hyphens" };
        var displayName = new Option<string?>("--display-name") { Description = "For people" };
        var add = new Command("add", "Add a user") { name, displayName };
        add.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var user = await client.CreateUserAsync(new CreateUser(parsed.GetValue(name)!, parsed.GetValue(displayName)), cancellationToken);
            Terminal.Result(user, () => Terminal.Line(user.Name));
        });
        var list = new Command("list", "List the users");
        list.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var users = await client.ListUsersAsync(cancellationToken);
            Terminal.Result(users, () => Terminal.Table(["NAME", "DISPLAY NAME", "SINCE"],
                users.Select(user => new[] { user.Name, user.DisplayName, user.CreatedAt.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture) })));
        });
        return new Command("user", "The organisation's users (administrators)") { add, list };
    }
}

/// <summary><c>nacre device</c>.</summary>
internal static class DeviceCommands
{
    public static Command Create() => new("device", "Enrol this device, and administer devices") { Enrol(), Code(), List(), Revoke(), Reports() };

    private static Command Enrol()
    {
        var server = new Argument<string>("URL") { Description = "The server's address" };
        var code = new Argument<string>("CODE") { Description = "The one-time code from the administrator" };
        var name = new Option<string>("--name") { Description = "What people call this device", DefaultValueFactory = _ => Environment.MachineName };
        var command = new Command("enrol", "Enrol this device with a one-time code") { server, code, name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var record = await Player.Devices.EnrolledIdentity.EnrolAsync(
                Player.PlayerPaths.Open(), LoginCommand.Address(parsed.GetValue(server)!), parsed.GetValue(code)!, parsed.GetValue(name)!, cancellationToken);
            Terminal.Result(new { record.DeviceId, record.User, record.Organisation },
                () => Terminal.Line($"enrolled with {record.Organisation} for {record.User}; 'nacre livepc list' shows what you may start"));
        });
        return command;
    }

    private static Command Code()
    {
        var user = new Argument<string>("USER") { Description = "Whose device it will be" };
        var hours = new Option<double>("--hours") { Description = "How long the code works", DefaultValueFactory = _ => 24 };
        var command = new Command("code", "Make a one-time enrolment code (administrators)") { user, hours };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await new TrustDesk(client, TimeProvider.System).EnsureAsync(cancellationToken);
            var created = await client.CreateEnrolmentCodeAsync(new CreateEnrolmentCode(parsed.GetValue(user)!, (long)(parsed.GetValue(hours) * 3600)), cancellationToken);
            Terminal.Result(created, () => Terminal.Line(created.Code));
            Terminal.Note(string.Create(CultureInfo.InvariantCulture, $"works once, until {created.ExpiresAt:yyyy-MM-dd HH:mm} UTC; it is not shown again"));
        });
        return command;
    }

    private static Command List()
    {
        var command = new Command("list", "List the organisation's devices (administrators)");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var devices = await client.ListDevicesAsync(cancellationToken);
            Terminal.Result(devices, () => Terminal.Table(["ID", "NAME", "USER", "ENROLLED", "LAST SEEN", "STATE"], devices.Select(device => new[]
            {
                device.Id, device.Name, device.User, Time(device.EnrolledAt), device.LastSeenAt is { } seen ? Time(seen) : "-", device.Revoked ? "revoked" : "enrolled",
            })));
        });
        return command;
    }

    private static Command Reports()
    {
        var id = new Argument<string?>("ID") { Description = "The device (default: all of them)", Arity = ArgumentArity.ZeroOrOne };
        var command = new Command("reports", "Show why corporate layers did not start on devices (administrators)") { id };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            LivePcCommands.ShowReports(await client.ListReportsAsync(parsed.GetValue(id), null, cancellationToken));
        });
        return command;
    }

    private static Command Revoke()
    {
        var id = new Argument<string>("ID") { Description = "The device, as 'nacre device list' names it" };
        var command = new Command("revoke", "Take a device's permission away: it gets no new lease, and the one that is out runs down (administrators)") { id };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.RevokeDeviceAsync(parsed.GetValue(id)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(id)} gets no new lease");
        });
        return command;
    }

    private static string Time(DateTimeOffset time) => time.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture);
}
