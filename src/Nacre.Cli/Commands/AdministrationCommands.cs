using System.CommandLine;
using System.Globalization;
using Nacre.Contracts;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre login</c>: keeps the administrator's token.</summary>
internal static class LoginCommand
{
    internal static readonly Option<string?> Authorities = new Option<string?>("--ca") { Description = "Believe a server of these authorities (PEM, such as ca.pem in its data folder) and no other (default: NACRE_CA in the environment, else those that this computer trusts)" };

    public static Command Create()
    {
        var server = new Argument<string>("URL") { Description = "The server's address, such as https://nacre.example" };
        var file = new Option<string>("--token-file") { Description = "File with the token that the server made at its first start (admin-token in its data folder); - for standard input", Required = true };
        var command = new Command("login", "Log in to a server as an administrator") { server, file, Authorities };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var path = parsed.GetValue(file)!;
            var token = (path == "-" ? await Console.In.ReadToEndAsync(cancellationToken) : await File.ReadAllTextAsync(path, cancellationToken)).Trim();
            await Administration.LogInAsync(Address(parsed.GetValue(server)!), token, await Administration.ReadAuthoritiesAsync(parsed.GetValue(Authorities), cancellationToken), cancellationToken);
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
        return new Command("user", "The organisation's users, and how people sign in (administrators, help desk)") { add, list, Invite(), Block(), People() };
    }

    private static Command Invite()
    {
        var name = new Argument<string>("NAME") { Description = "A user, or (the first administrator only) an administrator" };
        var hours = new Option<double>("--hours") { Description = "How long the invitation works", DefaultValueFactory = _ => 72 };
        var remove = new Option<bool>("--remove-second-factor") { Description = "Also remove an authenticator that was lost, and its recovery codes" };
        var command = new Command("invite", "Make a one-time code with which a person chooses a password: the first one, or after it was lost") { name, hours, remove };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var invitation = await client.InviteAsync(parsed.GetValue(name)!, new CreateInvitation((long)(parsed.GetValue(hours) * 3600), parsed.GetValue(remove)), cancellationToken);
            Terminal.Result(invitation, () => Terminal.Line(invitation.Code));
            Terminal.Note(string.Create(CultureInfo.InvariantCulture, $"'nacre account accept {client.Server} CODE' takes it, once, until {invitation.ExpiresAt:yyyy-MM-dd HH:mm} UTC; it is not shown again"));
        });
        return command;
    }

    private static Command Block()
    {
        var name = new Argument<string>("NAME") { Description = "The person" };
        var command = new Command("block", "Take password, authenticator, invitation and every session from a person; devices stay as they are ('nacre device revoke')") { name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.BlockPersonAsync(parsed.GetValue(name)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(name)} can't sign in until the next invitation");
        });
        return command;
    }

    private static Command People()
    {
        var command = new Command("people", "List who can sign in and what they may do");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var people = await client.ListPeopleAsync(cancellationToken);
            Terminal.Result(people, () => Terminal.Table(["NAME", "ROLES", "SIGNS IN WITH", "SESSIONS"], people.Select(person => new[]
            {
                person.Name, string.Join(", ", person.Roles),
                string.Join(", ", new[] { person.HasPassword ? "password" : "", person.HasAuthenticator ? "authenticator" : "", person.IsFederated ? "OpenID Connect" : "", person.IsInvited ? "(invited)" : "" }.Where(word => word.Length > 0)),
                person.Sessions.ToString(CultureInfo.InvariantCulture),
            })));
        });
        return command;
    }
}

/// <summary><c>nacre device</c>.</summary>
internal static class DeviceCommands
{
    public static Command Create() => new("device", "Enrol this device, and administer devices") { Enrol(), Renew(), Code(), List(), Show(), Approve(), Reject(), Revoke(), Watch(), Reports(), LogCommands.Create() };

    private static Command Enrol()
    {
        var server = new Argument<string>("URL") { Description = "The server's address, or the whole link (nacre://enrol?…) from the administrator" };
        var code = new Argument<string?>("CODE") { Description = "The one-time code from the administrator; a link has it", Arity = ArgumentArity.ZeroOrOne };
        var key = new Option<Player.Devices.DeviceKeyPlace>("--key") { Description = "Where this device's key is made: in the TPM (tpm), which it never leaves; in a file that only you can read (file); in the TPM where there is one that can be used, else in a file (auto)", DefaultValueFactory = _ => Player.Devices.DeviceKeyPlace.Auto };
        var name = new Option<string>("--name") { Description = "What people call this device", DefaultValueFactory = _ => Environment.MachineName };
        var oidc = new Option<bool>("--oidc") { Description = "Instead of a code: sign in by the organisation's OpenID provider, in a browser on this or any other computer, where the policy lets users enrol their own devices" };
        var user = new Option<string?>("--user") { Description = "The same with this name and its password" };
        var file = new Option<string?>("--password-file") { Description = "With --user: file with the password (default: it is asked for, or read from standard input)" };
        var command = new Command("enrol", "Enrol this device: with a one-time code, a link, or by signing in") { server, code, oidc, user, file, name, key, LoginCommand.Authorities };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var isBySelf = parsed.GetValue(oidc) || parsed.GetValue(user) is not null;
            if (isBySelf && (parsed.GetValue(code) is not null || (parsed.GetValue(oidc) && parsed.GetValue(user) is not null)))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "give a code, --oidc or --user");
            }

            var paths = Player.PlayerPaths.Open();
            Player.Devices.EnrolledIdentity.RequireNone(paths); // before anybody signs in for nothing
            var (address, typed) = isBySelf
                ? (LoginCommand.Address(parsed.GetValue(server)!), await SignInCommand.MakeOwnCodeAsync(
                    LoginCommand.Address(parsed.GetValue(server)!), await Administration.ReadAuthoritiesAsync(parsed.GetValue(LoginCommand.Authorities), cancellationToken), parsed.GetValue(user), parsed.GetValue(file), cancellationToken))
                : EnrolmentLink.Read(parsed.GetValue(server)!, parsed.GetValue(code));
            var (record, waits, isInTpm) = await Player.Devices.EnrolledIdentity.EnrolAsync(paths, address, typed, parsed.GetValue(name)!, parsed.GetValue(key), cancellationToken);
            Terminal.Result(new { record.DeviceId, record.User, record.Organisation, waits, isInTpm }, () => Terminal.Line($"enrolled with {record.Organisation} for {record.User}; this device's key is in {(isInTpm ? "its TPM" : "a file")}; "
                + (waits ? $"an administrator has to approve this device first: 'nacre device approve {record.DeviceId}'" : "'nacre livepc list' shows what you may start")));
        });
        return command;
    }

    private static Command Renew()
    {
        var command = new Command("renew", "Fetch a new certificate for this device from the server, which it also does by itself before the old one ends");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var identity = Player.Devices.EnrolledIdentity.Open(Player.PlayerPaths.Open());
            var ends = await identity.FetchCertificateAsync(TimeProvider.System, cancellationToken);
            Terminal.Result(new { certificateEndsAt = ends }, () => Terminal.Line($"the certificate lasts until {Time(ends)} UTC"));
        });
        return command;
    }

    private static Command Code()
    {
        var user = new Argument<string>("USER") { Description = "Whose device it will be" };
        var asLink = new Option<bool>("--link") { Description = "Print a link that has this server's address and the code, for 'nacre device enrol LINK'" };
        var hours = new Option<double>("--hours") { Description = "How long the code works", DefaultValueFactory = _ => 24 };
        var command = new Command("code", "Make a one-time enrolment code (administrators)") { user, hours, asLink };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await new TrustDesk(client, TimeProvider.System).EnsureAsync(cancellationToken);
            var created = await client.CreateEnrolmentCodeAsync(new CreateEnrolmentCode(parsed.GetValue(user)!, (long)(parsed.GetValue(hours) * 3600)), cancellationToken);
            var link = EnrolmentLink.Write(client.Server, created.Code);
            Terminal.Result(new { created.Code, created.ExpiresAt, link }, () => Terminal.Line(parsed.GetValue(asLink) ? link : created.Code));
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
            Terminal.Result(devices, () => Terminal.Table(["ID", "NAME", "USER", "ENROLLED", "LAST SEEN", "CERTIFICATE UNTIL", "STATE"], devices.Select(device => new[]
            {
                device.Id, device.Name, device.User, Time(device.EnrolledAt), device.LastSeenAt is { } seen ? Time(seen) : "-", device.CertificateEndsAt is { } ends ? Time(ends) : "-", State(device),
            })));
        });
        return command;
    }

    private static Command Show()
    {
        var id = new Argument<string>("ID") { Description = "The device, as 'nacre device list' names it" };
        var command = new Command("show", "Show one device with its certificate (administrators)") { id };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var device = await client.GetDeviceAsync(parsed.GetValue(id)!, cancellationToken);
            Terminal.Result(device, () =>
            {
                Terminal.Line($"{device.Id}  {device.Name} of {device.User}, {State(device)}");
                Terminal.Line($"enrolled:     {Time(device.EnrolledAt)}");
                Terminal.Line($"last seen:    {(device.LastSeenAt is { } seen ? Time(seen) : "-")}");
                Terminal.Line($"certificate:  {(device.CertificateSerial is { } serial ? $"{serial}, until {Time(device.CertificateEndsAt!.Value)}" : "none: TLS ends at a proxy")}");
            });
        });
        return command;
    }

    private static Command Approve()
    {
        var id = new Argument<string>("ID") { Description = "The device, as 'nacre device list' names it" };
        var command = new Command("approve", "Let a device in that waits for approval (administrators)") { id };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var device = await client.ApproveDeviceAsync(parsed.GetValue(id)!, cancellationToken);
            Terminal.Result(device, () => Terminal.Line($"{device.Name} of {device.User} is let in"));
        });
        return command;
    }

    private static Command Reject()
    {
        var id = new Argument<string>("ID") { Description = "The device, as 'nacre device list' names it" };
        var command = new Command("reject", "Turn a device away that waits for approval, for good (administrators)") { id };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var device = await client.RejectDeviceAsync(parsed.GetValue(id)!, cancellationToken);
            Terminal.Result(device, () => Terminal.Line($"{device.Name} of {device.User} is turned away"));
        });
        return command;
    }

    private static string State(Device device) => (device.Revoked, device.Waiting) switch
    {
        (true, true) => "rejected",
        (true, false) => "revoked",
        (false, true) => "waits for approval",
        _ => "enrolled",
    };

    private static Command Reports()
    {
        var id = new Argument<string?>("ID") { Description = "The device (default: all of them)", Arity = ArgumentArity.ZeroOrOne };
        var command = new Command("reports", "Show why corporate layers did not start on devices (administrators)") { id };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            LivePcAdministrationCommands.ShowReports(await client.ListReportsAsync(parsed.GetValue(id), null, cancellationToken));
        });
        return command;
    }

    internal static Command Revoke(string word = "revoke")
    {
        var id = new Argument<string>("ID") { Description = "The device, as 'nacre device list' names it" };
        var command = new Command(word, "Take a device's permission away: it gets no new lease, forgets those that it has at its next contact, and shuts down what runs (administrators)") { id };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.RevokeDeviceAsync(parsed.GetValue(id)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(id)} gets no new lease; 'nacre revoke list' shows when it has forgotten those that it had");
        });
        return command;
    }

    private static Command Watch()
    {
        var command = new Command("watch", "Stay connected to the server, so that a revoke or kill reaches this device at once; runs until it is stopped (docs/operations.md has a systemd unit)");
        command.SetAction(async (_, cancellationToken) =>
        {
            string? said = null;
            await LivePcCommands.Player().WatchAsync(problem =>
            {
                if (problem?.Message is { } words && words != said)
                {
                    Terminal.Note(words);
                }

                said = problem?.Message;
            }, cancellationToken);
            Terminal.Note("this device was killed: nothing of a LivePC is on it any more");
        });
        return command;
    }

    private static string Time(DateTimeOffset time) => time.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture);
}
