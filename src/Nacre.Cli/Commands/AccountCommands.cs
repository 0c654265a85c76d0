using System.CommandLine;
using System.Globalization;
using Nacre.Client;
using Nacre.Contracts;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre sign-in</c> and <c>nacre sign-out</c>.</summary>
internal static class SignInCommand
{
    public static Command Create()
    {
        var server = new Argument<string>("URL") { Description = "The server's address, such as https://nacre.example" };
        var name = new Option<string?>("--name") { Description = "Who signs in (default: this computer's user)" };
        var file = new Option<string?>("--password-file") { Description = "File with the password (default: it is asked for, or read from standard input)" };
        var code = new Option<string?>("--code") { Description = "What the authenticator shows, or a recovery code (default: asked for where it is needed)" };
        var oidc = new Option<bool>("--oidc") { Description = "Sign in by the organisation's OpenID provider, in a browser on this or any other computer" };
        var command = new Command("sign-in", "Sign in to a server: with name and password, or by OpenID Connect") { server, name, file, code, oidc, LoginCommand.Authorities };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var address = LoginCommand.Address(parsed.GetValue(server)!);
            var authorities = await Administration.ReadAuthoritiesAsync(parsed.GetValue(LoginCommand.Authorities), cancellationToken);
            var signedIn = await SignInAsync(address, authorities, parsed.GetValue(oidc) ? null : parsed.GetValue(name) ?? Environment.UserName, parsed.GetValue(file), parsed.GetValue(code), cancellationToken);
            Administration.Keep(address, signedIn.Token, authorities);
            Terminal.Result(new { signedIn.Name, signedIn.Roles, signedIn.ExpiresAt },
                () => Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"signed in as {signedIn.Name} ({string.Join(", ", signedIn.Roles)}) until {signedIn.ExpiresAt:yyyy-MM-dd HH:mm} UTC at the latest")));
        });
        return command;
    }

    /// <summary>Signs in as a user, makes a code for a device of one's own, and signs out.</summary>
    /// <param name="address">The server.</param>
    /// <param name="authorities">Whose certificates are believed, PEM; null: whom this computer believes.</param>
    /// <param name="name">Who signs in with a password; null: by OpenID Connect.</param>
    /// <param name="file">File with the password; null: it is asked for.</param>
    /// <param name="cancellationToken">Stops.</param>
    public static async Task<string> MakeOwnCodeAsync(Uri address, string? authorities, string? name, string? file, CancellationToken cancellationToken)
    {
        var signedIn = await SignInAsync(address, authorities, name, file, null, cancellationToken);
        using var person = new NacreClient(address, Credential.Person(signedIn.Token), trust: ServerTrust.Of(authorities));
        try
        {
            return (await person.CreateOwnEnrolmentCodeAsync(cancellationToken)).Code;
        }
        finally
        {
            await person.SignOutAsync(CancellationToken.None);
        }
    }

    /// <param name="address">The server.</param>
    /// <param name="authorities">Whose certificates are believed, PEM; null: whom this computer believes.</param>
    /// <param name="name">Who signs in with a password; null: by OpenID Connect.</param>
    /// <param name="file">File with the password; null: it is asked for.</param>
    /// <param name="code">The second factor; null: it is asked for.</param>
    /// <param name="cancellationToken">Stops.</param>
    private static async Task<SignedIn> SignInAsync(Uri address, string? authorities, string? name, string? file, string? code, CancellationToken cancellationToken)
    {
        using var client = new NacreClient(address, trust: ServerTrust.Of(authorities));
        return name is null ? await ByOpenIdAsync(client, cancellationToken) : await ByPasswordAsync(client, name, file, code, cancellationToken);
    }

    public static Command CreateSignOut()
    {
        var everywhere = new Option<bool>("--everywhere") { Description = "End all of one's sessions, on every computer" };
        var command = new Command("sign-out", "End the session, and forget its token here") { everywhere };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using (var client = Administration.Connect())
            {
                try
                {
                    await (parsed.GetValue(everywhere) ? client.EndSessionAsync(null, cancellationToken) : client.SignOutAsync(cancellationToken));
                }
                catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotFound || exception.Kind == ErrorCatalogue.Unauthenticated || exception.Kind == ErrorCatalogue.SessionEnded)
                {
                    // A token that is no session's, or one that has ended.
                }
            }

            Administration.Forget();
            Terminal.Note("signed out");
        });
        return command;
    }

    private static async Task<SignedIn> ByPasswordAsync(NacreClient client, string name, string? file, string? code, CancellationToken cancellationToken)
    {
        var password = file is null ? Terminal.Secret("password") : (await File.ReadAllTextAsync(file, cancellationToken)).TrimEnd('\r', '\n');
        try
        {
            return await client.SignInAsync(new SignIn(name, password, code), cancellationToken);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.SecondFactorNeeded && code is null && !Console.IsInputRedirected)
        {
            return await client.SignInAsync(new SignIn(name, password, Terminal.Secret("code")), cancellationToken);
        }
    }

    private static async Task<SignedIn> ByOpenIdAsync(NacreClient client, CancellationToken cancellationToken)
    {
        var begun = await client.BeginDeviceSignInAsync(cancellationToken);
        await Console.Error.WriteLineAsync($"open {Terminal.Printable(begun.VerificationUri)} in a browser and enter {Terminal.Printable(begun.UserCode)}");
        if (begun.VerificationUriComplete is { } complete)
        {
            await Console.Error.WriteLineAsync($"or open {Terminal.Printable(complete)}");
        }

        var interval = begun.Interval;
        while (TimeProvider.System.GetUtcNow() < begun.ExpiresAt)
        {
            await Task.Delay(TimeSpan.FromSeconds(Math.Clamp(interval, 1, 60)), cancellationToken);
            var progress = await client.PollDeviceSignInAsync(begun.Flow, cancellationToken);
            if (progress.SignedIn is { } signedIn)
            {
                return signedIn;
            }

            interval = progress.Interval;
        }

        throw new NacreException(ErrorCatalogue.TimedOut, "nobody finished the sign-in in a browser");
    }
}

/// <summary><c>nacre account</c>.</summary>
internal static class AccountCommands
{
    private static readonly Option<string?> PasswordFile = new("--password-file") { Description = "File with the password (default: it is asked for, or read from standard input)" };

    public static Command Create() => new("account", "Your own account: password, authenticator, sessions, devices") { Show(), Accept(), Password(), Authenticator(), RecoveryCodes(), Sessions(), Devices() };

    private static Command Show()
    {
        var command = new Command("show", "Show who you are and what you may do");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var account = await client.GetAccountAsync(cancellationToken);
            Terminal.Result(account, () =>
            {
                Terminal.Line($"{account.Name} at {client.Server}");
                Terminal.Line($"roles: {string.Join(", ", account.Roles)}");
                Terminal.Line(account switch
                {
                    { HasPassword: false } => "no password at this server (a token, or OpenID Connect)",
                    { HasAuthenticator: false } => "password, no authenticator: 'nacre account authenticator enable' adds one",
                    _ => string.Create(CultureInfo.InvariantCulture, $"password and authenticator, {account.RecoveryCodesLeft} recovery codes left"),
                });
            });
        });
        return command;
    }

    private static Command Accept()
    {
        var server = new Argument<string>("URL") { Description = "The server's address" };
        var code = new Argument<string>("CODE") { Description = "The invitation from the administrator or the help desk" };
        var command = new Command("accept", "Choose a password with an invitation") { server, code, PasswordFile, LoginCommand.Authorities };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var address = LoginCommand.Address(parsed.GetValue(server)!);
            using var client = new NacreClient(address, trust: ServerTrust.Of(await Administration.ReadAuthoritiesAsync(parsed.GetValue(LoginCommand.Authorities), cancellationToken)));
            var accepted = await client.AcceptInvitationAsync(new AcceptInvitation(parsed.GetValue(code)!, await ChooseAsync(parsed.GetValue(PasswordFile), cancellationToken)), cancellationToken);
            Terminal.Result(accepted, () => Terminal.Line($"'nacre sign-in {address} --name {accepted.Name}' signs you in"));
        });
        return command;
    }

    private static Command Password()
    {
        var next = new Option<string?>("--new-password-file") { Description = "File with the new password" };
        var command = new Command("password", "Change your password; ends all of your sessions and begins one here") { PasswordFile, next };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var before = await ReadAsync(parsed.GetValue(PasswordFile), cancellationToken);
            var session = await client.ChangePasswordAsync(new ChangePassword(before, await ChooseAsync(parsed.GetValue(next), cancellationToken)), cancellationToken);
            Administration.Renew(session.Token);
            Terminal.Note("the password is changed; every other session has ended");
        });
        return command;
    }

    private static Command Authenticator()
    {
        var code = new Option<string?>("--code") { Description = "What the authenticator shows (default: asked for)" };
        var enable = new Command("enable", "Have a code of an authenticator (TOTP) asked for at each sign-in; prints recovery codes, this once") { PasswordFile, code };
        enable.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var secret = await client.BeginAuthenticatorAsync(await ReadAsync(parsed.GetValue(PasswordFile), cancellationToken), cancellationToken);
            await Console.Error.WriteLineAsync($"enter this secret in the authenticator: {Terminal.Printable(secret.Secret)}");
            await Console.Error.WriteLineAsync($"or make a QR code of: {Terminal.Printable(secret.Uri)}");
            var codes = await client.ConfirmAuthenticatorAsync(parsed.GetValue(code) ?? Terminal.Secret("code that it shows now"), cancellationToken);
            Print(codes);
        });
        var disable = new Command("disable", "Have no code asked for any more") { PasswordFile };
        disable.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.DisableAuthenticatorAsync(await ReadAsync(parsed.GetValue(PasswordFile), cancellationToken), cancellationToken);
            Terminal.Note("only the password is asked for now");
        });
        return new Command("authenticator", "The second factor of your account") { enable, disable };
    }

    private static Command RecoveryCodes()
    {
        var command = new Command("recovery-codes", "Make new recovery codes; those before are void") { PasswordFile };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            Print(await client.RenewRecoveryCodesAsync(await ReadAsync(parsed.GetValue(PasswordFile), cancellationToken), cancellationToken));
        });
        return command;
    }

    private static Command Sessions()
    {
        var list = new Command("list", "List where you are signed in");
        list.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var sessions = await client.ListSessionsAsync(cancellationToken);
            Terminal.Result(sessions, () => Terminal.Table(["ID", "FROM", "WITH", "SINCE", "LAST USED", "ENDS"], sessions.Select(session => new[]
            {
                session.Id, (session.Source ?? "-") + (session.IsThis ? " (this one)" : ""), session.Method, Time(session.CreatedAt), Time(session.LastUsedAt), Time(session.ExpiresAt),
            })));
        });
        var id = new Argument<string>("ID") { Description = "As 'nacre account sessions list' names it" };
        var end = new Command("end", "End one of your sessions ('nacre sign-out --everywhere' ends all)") { id };
        end.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.EndSessionAsync(parsed.GetValue(id)!, cancellationToken);
            Terminal.Note("the session has ended");
        });
        return new Command("sessions", "Where you are signed in") { list, end };
    }

    private static Command Devices()
    {
        var list = new Command("list", "List your devices");
        list.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var devices = await client.ListOwnDevicesAsync(cancellationToken);
            Terminal.Result(devices, () => Terminal.Table(["ID", "NAME", "ENROLLED", "LAST SEEN", "STATE"], devices.Select(device => new[]
            {
                device.Id, device.Name, Time(device.EnrolledAt), device.LastSeenAt is { } seen ? Time(seen) : "-", device.Revoked ? "revoked" : "enrolled",
            })));
        });
        var id = new Argument<string>("ID") { Description = "As 'nacre account devices list' names it" };
        var revoke = new Command("revoke", "Take the permission of a device of yours away, which was lost: it gets no new lease") { id };
        revoke.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.RevokeOwnDeviceAsync(parsed.GetValue(id)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(id)} gets no new lease");
        });
        return new Command("devices", "Your devices") { list, revoke };
    }

    private static void Print(RecoveryCodes codes) => Terminal.Result(codes, () =>
    {
        foreach (var code in codes.Codes)
        {
            Terminal.Line(code);
        }

        Terminal.Note("each signs you in once in the place of the authenticator; keep them where you find them without it, they are not shown again");
    });

    private static async Task<string> ReadAsync(string? file, CancellationToken cancellationToken) =>
        file is null ? Terminal.Secret("password") : (await File.ReadAllTextAsync(file, cancellationToken)).TrimEnd('\r', '\n');

    /// <summary>A new password, typed twice where it is typed.</summary>
    private static async Task<string> ChooseAsync(string? file, CancellationToken cancellationToken)
    {
        if (file is not null)
        {
            return (await File.ReadAllTextAsync(file, cancellationToken)).TrimEnd('\r', '\n');
        }

        var password = Terminal.Secret("new password");
        return Console.IsInputRedirected || Terminal.Secret("once more") == password ? password : throw new NacreException(ErrorCatalogue.UsageInvalid, "the two passwords are not the same");
    }

    private static string Time(DateTimeOffset time) => time.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture);
}

/// <summary><c>nacre oidc</c>.</summary>
internal static class OpenIdCommands
{
    public static Command Create()
    {
        var issuer = new Option<string>("--issuer") { Description = "The provider's issuer, such as https://login.example", Required = true };
        var client = new Option<string>("--client-id") { Description = "The server's name at the provider", Required = true };
        var secret = new Option<string?>("--client-secret-file") { Description = "File with the server's secret at the provider (default: none, or the one that is set)" };
        var address = new Option<string?>("--address") { Description = "The server's address as browsers reach it (default: the one that you are logged in to)" };
        var name = new Option<string>("--name-claim") { Description = "The claim that is a person's name here; people must not be able to change it themselves", DefaultValueFactory = _ => "preferred_username" };
        var groups = new Option<string>("--groups-claim") { Description = "The claim that lists a person's groups", DefaultValueFactory = _ => "groups" };
        var scopes = new Option<string[]>("--scope") { Description = "What is asked for beside openid; may be given several times", DefaultValueFactory = _ => ["profile"] };
        var map = new Option<string[]>("--map") { Description = "What a group means: GROUP=ROLE (administrator, author, approver, help-desk, auditor, user) or GROUP=group:NAME; '*' is everybody; may be given several times", Required = true };
        var set = new Command("set", "Let people in by an OpenID provider, with the roles and groups that theirs mean; ends the sessions that came by it") { issuer, client, secret, address, name, groups, scopes, map };
        set.SetAction(async (parsed, cancellationToken) =>
        {
            using var server = Administration.Connect();
            var provider = await server.PutOpenIdProviderAsync(new OpenIdProvider(
                parsed.GetValue(issuer)!, parsed.GetValue(client)!, parsed.GetValue(secret) is { } file ? (await File.ReadAllTextAsync(file, cancellationToken)).Trim() : null,
                parsed.GetValue(address) ?? server.Server.AbsoluteUri, parsed.GetValue(name)!, parsed.GetValue(groups)!, parsed.GetValue(scopes)!, [.. parsed.GetValue(map)!.Select(Read)]), cancellationToken);
            Print(provider);
        });
        var show = new Command("show", "Show the provider, and what its groups mean");
        show.SetAction(async (_, cancellationToken) =>
        {
            using var server = Administration.Connect();
            Print(await server.GetOpenIdProviderAsync(cancellationToken));
        });
        var remove = new Command("remove", "Let nobody in by OpenID Connect any more, and end the sessions that came so");
        remove.SetAction(async (_, cancellationToken) =>
        {
            using var server = Administration.Connect();
            await server.RemoveOpenIdProviderAsync(cancellationToken);
            Terminal.Note("there is no OpenID provider any more");
        });
        return new Command("oidc", "The organisation's OpenID provider; only the first administrator can set it") { set, show, remove };
    }

    private static OpenIdMapping Read(string untrusted) => untrusted.LastIndexOf('=') is > 0 and var at && untrusted[(at + 1)..] is { Length: > 0 } meaning
        ? meaning.StartsWith("group:", StringComparison.Ordinal) ? new OpenIdMapping(untrusted[..at], null, meaning["group:".Length..]) : new OpenIdMapping(untrusted[..at], meaning, null)
        : throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{untrusted}' must look like GROUP=ROLE or GROUP=group:NAME");

    private static void Print(OpenIdProvider provider) => Terminal.Result(provider, () =>
    {
        Terminal.Line($"{provider.Issuer} as {provider.ClientId}");
        Terminal.Line($"redirection: {provider.Address.TrimEnd('/')}/v1/sign-in/oidc/callback");
        Terminal.Table(["GROUP", "ROLE", "GROUP OF USERS"], provider.Mappings.Select(one => new[] { one.Group, one.Role ?? "-", one.UserGroup ?? "-" }));
    });
}
