using Nacre.Contracts;

namespace Nacre.Client;

public sealed partial class NacreClient
{
    /// <summary>Begins a session with name and password.</summary>
    /// <exception cref="NacreException">SignInRefused, SecondFactorNeeded, TooManyTries.</exception>
    public Task<SignedIn> SignInAsync(SignIn signIn, CancellationToken cancellationToken = default) => transport.SendAsync<SignedIn>(HttpMethod.Post, "v1/sign-in", signIn, cancellationToken);

    /// <summary>Begins a sign-in by OpenID Connect, which a person finishes in a browser.</summary>
    public Task<DeviceSignIn> BeginDeviceSignInAsync(CancellationToken cancellationToken = default) => transport.SendAsync<DeviceSignIn>(HttpMethod.Post, "v1/sign-in/oidc/device", null, cancellationToken);

    /// <summary>Whether it is finished.</summary>
    public Task<SignInProgress> PollDeviceSignInAsync(string flow, CancellationToken cancellationToken = default) =>
        transport.SendAsync<SignInProgress>(HttpMethod.Post, "v1/sign-in/oidc/device/poll", new PollSignIn(flow), cancellationToken);

    /// <summary>Ends the session of this client.</summary>
    public Task SignOutAsync(CancellationToken cancellationToken = default) => transport.SendAsync(HttpMethod.Post, "v1/sign-out", cancellationToken);

    /// <summary>Chooses a password with an invitation.</summary>
    public Task<AcceptedInvitation> AcceptInvitationAsync(AcceptInvitation accept, CancellationToken cancellationToken = default) =>
        transport.SendAsync<AcceptedInvitation>(HttpMethod.Post, "v1/invitation", accept, cancellationToken);

    /// <summary>Who one is and what one may do.</summary>
    public Task<Account> GetAccountAsync(CancellationToken cancellationToken = default) => transport.GetAsync<Account>("v1/account", cancellationToken);

    /// <summary>Changes one's password; every session ends, and one begins.</summary>
    public Task<SignedIn> ChangePasswordAsync(ChangePassword change, CancellationToken cancellationToken = default) =>
        transport.SendAsync<SignedIn>(HttpMethod.Put, "v1/account/password", change, cancellationToken);

    /// <summary>Makes the secret of an authenticator.</summary>
    public Task<AuthenticatorSecret> BeginAuthenticatorAsync(string password, CancellationToken cancellationToken = default) =>
        transport.SendAsync<AuthenticatorSecret>(HttpMethod.Post, "v1/account/authenticator", new ConfirmPassword(password), cancellationToken);

    /// <summary>Shows its first code.</summary>
    public Task<RecoveryCodes> ConfirmAuthenticatorAsync(string code, CancellationToken cancellationToken = default) =>
        transport.SendAsync<RecoveryCodes>(HttpMethod.Put, "v1/account/authenticator", new ConfirmAuthenticator(code), cancellationToken);

    /// <summary>Has no code asked for any more.</summary>
    public Task DisableAuthenticatorAsync(string password, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Post, "v1/account/authenticator/disable", new ConfirmPassword(password), cancellationToken);

    /// <summary>Makes new recovery codes.</summary>
    public Task<RecoveryCodes> RenewRecoveryCodesAsync(string password, CancellationToken cancellationToken = default) =>
        transport.SendAsync<RecoveryCodes>(HttpMethod.Post, "v1/account/recovery-codes", new ConfirmPassword(password), cancellationToken);

    /// <summary>One's own sessions.</summary>
    public Task<IReadOnlyList<Session>> ListSessionsAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<Session>>("v1/account/sessions", cancellationToken);

    /// <summary>Ends one of them; null: all.</summary>
    public Task EndSessionAsync(string? id, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Delete, id is null ? "v1/account/sessions" : $"v1/account/sessions/{Escape(id)}", cancellationToken);

    /// <summary>One's own devices.</summary>
    public Task<IReadOnlyList<Device>> ListOwnDevicesAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<Device>>("v1/account/devices", cancellationToken);

    /// <summary>Takes the permission of one of them away.</summary>
    public Task<Device> RevokeOwnDeviceAsync(string id, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Device>(HttpMethod.Post, $"v1/account/devices/{Escape(id)}/revoke", null, cancellationToken);

    /// <summary>Makes a one-time code with which one enrols a device of one's own within 10 minutes.</summary>
    public Task<CreatedEnrolmentCode> CreateOwnEnrolmentCodeAsync(CancellationToken cancellationToken = default) =>
        transport.SendAsync<CreatedEnrolmentCode>(HttpMethod.Post, "v1/account/enrolment-codes", null, cancellationToken);

    /// <summary>Who can sign in.</summary>
    public Task<IReadOnlyList<Person>> ListPeopleAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<Person>>("v1/people", cancellationToken);

    /// <summary>Makes an invitation with which a person chooses a password.</summary>
    public Task<Invitation> InviteAsync(string name, CreateInvitation invitation, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Invitation>(HttpMethod.Post, $"v1/people/{Escape(name)}/invitation", invitation, cancellationToken);

    /// <summary>Takes the way to sign in from a person.</summary>
    public Task BlockPersonAsync(string name, CancellationToken cancellationToken = default) => transport.SendAsync(HttpMethod.Delete, $"v1/people/{Escape(name)}/account", cancellationToken);

    /// <summary>Sets an administrator's roles.</summary>
    public Task<Administrator> PutRolesAsync(string name, IReadOnlyList<string> roles, CancellationToken cancellationToken = default) =>
        transport.SendAsync<Administrator>(HttpMethod.Put, $"v1/administrators/{Escape(name)}/roles", new PutRoles(roles), cancellationToken);

    /// <summary>The OpenID provider, without its secret.</summary>
    public Task<OpenIdProvider> GetOpenIdProviderAsync(CancellationToken cancellationToken = default) => transport.GetAsync<OpenIdProvider>("v1/oidc", cancellationToken);

    /// <summary>Sets it.</summary>
    public Task<OpenIdProvider> PutOpenIdProviderAsync(OpenIdProvider provider, CancellationToken cancellationToken = default) =>
        transport.SendAsync<OpenIdProvider>(HttpMethod.Put, "v1/oidc", provider, cancellationToken);

    /// <summary>Removes it.</summary>
    public Task RemoveOpenIdProviderAsync(CancellationToken cancellationToken = default) => transport.SendAsync(HttpMethod.Delete, "v1/oidc", cancellationToken);
}
