using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>Signing in, one's own account, and the accounts of others.</summary>
internal static class PeopleEndpoints
{
    private static readonly ErrorKind[] Confirms = [ErrorCatalogue.SignInRefused, ErrorCatalogue.TooManyTries, ErrorCatalogue.NoPassword];

    public static void Map(Groups groups)
    {
        groups.Public.MapPost("/sign-in", async (SignIn body, Accounts accounts, CancellationToken cancellationToken) => (await accounts.SignInAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("SignIn").WithSummary("Begins a session with name and password, and a code where the account has an authenticator.")
            .Produces<SignedIn>().Fails(ErrorCatalogue.SignInRefused, ErrorCatalogue.SecondFactorNeeded, ErrorCatalogue.TooManyTries);
        groups.Public.MapPost("/invitation", async (AcceptInvitation body, Accounts accounts, CancellationToken cancellationToken) => (await accounts.AcceptAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("AcceptInvitation").WithSummary("Chooses a password with a one-time invitation.")
            .Produces<AcceptedInvitation>().Fails(ErrorCatalogue.InvitationWrong, ErrorCatalogue.PasswordUnfit, ErrorCatalogue.TooManyTries);

        groups.Of(Roles.People).MapGet("/account", (Accounts accounts, CancellationToken cancellationToken) => accounts.GetAsync(cancellationToken))
            .WithName("GetAccount").WithSummary("Who one is and what one may do.");
        groups.Of(Roles.People).MapPut("/account/password", async (ChangePassword body, Accounts accounts, CancellationToken cancellationToken) => (await accounts.ChangePasswordAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("ChangePassword").WithSummary("Changes one's password, ends all of one's sessions and begins one.")
            .Produces<SignedIn>().Fails(Confirms).Fails(ErrorCatalogue.PasswordUnfit);
        groups.Of(Roles.People).MapPost("/account/authenticator", async (ConfirmPassword body, Accounts accounts, CancellationToken cancellationToken) => (await accounts.BeginAuthenticatorAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("BeginAuthenticator").WithSummary("Makes the secret of an authenticator (TOTP).")
            .Produces<AuthenticatorSecret>().Fails(Confirms).Fails(ErrorCatalogue.AlreadyExists);
        groups.Of(Roles.People).MapPut("/account/authenticator", async (ConfirmAuthenticator body, Accounts accounts, CancellationToken cancellationToken) => (await accounts.ConfirmAuthenticatorAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("ConfirmAuthenticator").WithSummary("Takes the first code of an authenticator, which is asked for from then on.")
            .Produces<RecoveryCodes>().Fails(ErrorCatalogue.SignInRefused, ErrorCatalogue.TooManyTries, ErrorCatalogue.NotFound, ErrorCatalogue.AlreadyExists);
        groups.Of(Roles.People).MapPost("/account/authenticator/disable", async (ConfirmPassword body, Accounts accounts, CancellationToken cancellationToken) => (await accounts.DisableAuthenticatorAsync(body, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("DisableAuthenticator").WithSummary("Asks for no code any more.")
            .Produces(StatusCodes.Status204NoContent).Fails(Confirms).Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.People).MapPost("/account/recovery-codes", async (ConfirmPassword body, Accounts accounts, CancellationToken cancellationToken) => (await accounts.RenewRecoveryCodesAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("RenewRecoveryCodes").WithSummary("Makes new recovery codes; those before are void.")
            .Produces<RecoveryCodes>().Fails(Confirms).Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.People).MapGet("/account/sessions", (Sessions sessions, CancellationToken cancellationToken) => sessions.ListAsync(cancellationToken))
            .WithName("ListSessions").WithSummary("One's own sessions.");
        groups.Of(Roles.People).MapDelete("/account/sessions/{id}", async (string id, Sessions sessions, CancellationToken cancellationToken) => (await sessions.EndAsync(id, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("EndSession").WithSummary("Ends a session of one's own.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.People).MapDelete("/account/sessions", async (Sessions sessions, CancellationToken cancellationToken) => (await sessions.EndAsync(null, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("EndSessions").WithSummary("Ends all of one's sessions, this one too.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.People).MapPost("/sign-out", async (Caller caller, Sessions sessions, CancellationToken cancellationToken) =>
                (await sessions.EndAsync(caller.Session ?? "", cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("SignOut").WithSummary("Ends the session that asks.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.User).MapGet("/account/devices", async (Caller caller, Devices devices, CancellationToken cancellationToken) =>
                (await devices.ListAsync(cancellationToken)).Where(device => device.User == caller.Name))
            .WithName("ListOwnDevices").WithSummary("The devices of the user who asks.").Produces<IReadOnlyList<Device>>();
        groups.Of(Roles.User).MapPost("/account/devices/{id}/revoke", async (string id, Caller caller, NacreDatabase database, Devices devices, CancellationToken cancellationToken) =>
                await database.Devices.AnyAsync(row => row.Id == id && row.User == caller.Name, cancellationToken)
                    ? (await devices.RevokeAsync(id, cancellationToken)).ToHttp(TypedResults.Ok) : new ProblemResult(DeviceErrors.NoDevice))
            .WithName("RevokeOwnDevice").WithSummary("Takes the permission of a device of the user who asks away: it is lost.")
            .Produces<Device>().Fails(ErrorCatalogue.NotFound);

        groups.Of(Roles.User).MapPost("/account/enrolment-codes", async (Caller caller, Enrolment enrolment, CancellationToken cancellationToken) =>
                (await enrolment.CreateOwnCodeAsync(caller.Name, cancellationToken)).ToHttp(code => TypedResults.Created((string?)null, code)))
            .WithName("CreateOwnEnrolmentCode").WithSummary("Makes a one-time code, for 10 minutes, with which a device of the user who asks enrols, where the policy lets users do that.")
            .Produces<CreatedEnrolmentCode>(StatusCodes.Status201Created).Fails(ErrorCatalogue.TrustMissing);

        groups.Of(Roles.Administrator, Roles.HelpDesk, Roles.Auditor).MapGet("/people", (Accounts accounts, CancellationToken cancellationToken) => accounts.ListAsync(cancellationToken))
            .WithName("ListPeople").WithSummary("Who can sign in, and what they may do.");
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapPost("/people/{name}/invitation", async (string name, CreateInvitation body, Accounts accounts, CancellationToken cancellationToken) =>
                (await accounts.InviteAsync(name, body, cancellationToken)).ToHttp(invitation => TypedResults.Created((string?)null, invitation)))
            .WithName("Invite").WithSummary("Makes a one-time invitation with which a person chooses a password; of others than users only the first administrator can.")
            .Produces<Invitation>(StatusCodes.Status201Created).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapDelete("/people/{name}/account", async (string name, Accounts accounts, CancellationToken cancellationToken) =>
                (await accounts.RemoveAsync(name, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("BlockPerson").WithSummary("Takes password, second factor, invitation and sessions from a person; of others than users only the first administrator can.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NotFound);
    }
}
