namespace Nacre.Contracts;

/// <summary>What people may do, by their roles (docs/roles.md).</summary>
public static class PeopleRoles
{
    /// <summary>Organisation administrator.</summary>
    public const string Administrator = "administrator";

    /// <summary>Builds and publishes images.</summary>
    public const string Author = "author";

    /// <summary>Approves releases and gives them to devices.</summary>
    public const string Approver = "approver";

    /// <summary>Helps users: their accounts, devices, entitlements and LivePCs.</summary>
    public const string HelpDesk = "help-desk";

    /// <summary>Reads everything that is not secret, and changes nothing.</summary>
    public const string Auditor = "auditor";

    /// <summary>Has devices and LivePCs.</summary>
    public const string User = "user";

    /// <summary>Those that only the first administrator, or the OpenID provider by the first administrator's word, gives.</summary>
    public static IReadOnlyList<string> Staff { get; } = [Administrator, Author, Approver, HelpDesk, Auditor];
}

/// <summary>Sets an administrator's roles.</summary>
/// <param name="Roles">Of <see cref="PeopleRoles.Staff"/>, one at least.</param>
public sealed record PutRoles(IReadOnlyList<string> Roles);

/// <summary>Asks to sign in.</summary>
/// <param name="Name">Who.</param>
/// <param name="Password">Chosen by who it is.</param>
/// <param name="Code">What the authenticator shows, or a recovery code; null: none is asked for.</param>
public sealed record SignIn(string Name, string Password, string? Code)
{
    /// <summary>Without the secrets.</summary>
    public override string ToString() => $"{nameof(SignIn)} {{ Name = {Name} }}";
}

/// <summary>A session that has begun.</summary>
/// <param name="Name">Who.</param>
/// <param name="Roles">What it may do.</param>
/// <param name="Token">The bearer token of the session, shown this once.</param>
/// <param name="ExpiresAt">When the session ends, used or not.</param>
public sealed record SignedIn(string Name, IReadOnlyList<string> Roles, string Token, DateTimeOffset ExpiresAt)
{
    /// <summary>Without the secret.</summary>
    public override string ToString() => $"{nameof(SignedIn)} {{ Name = {Name}, Token = *** }}";
}

/// <summary>Asks for a one-time invitation with which a person chooses a password.</summary>
/// <param name="Seconds">How long it works; null: three days.</param>
/// <param name="RemovesSecondFactor">Whether it also removes an authenticator that was lost.</param>
public sealed record CreateInvitation(long? Seconds, bool RemovesSecondFactor = false);

/// <summary>An invitation, shown this once.</summary>
/// <param name="Name">Whose.</param>
/// <param name="Code">The code.</param>
/// <param name="ExpiresAt">Until when it works.</param>
public sealed record Invitation(string Name, string Code, DateTimeOffset ExpiresAt)
{
    /// <summary>Without the secret.</summary>
    public override string ToString() => $"{nameof(Invitation)} {{ Name = {Name}, Code = *** }}";
}

/// <summary>Uses an invitation.</summary>
/// <param name="Code">The code.</param>
/// <param name="Password">The password that is chosen.</param>
public sealed record AcceptInvitation(string Code, string Password)
{
    /// <summary>Without the secrets.</summary>
    public override string ToString() => nameof(AcceptInvitation);
}

/// <summary>Whose password it now is.</summary>
/// <param name="Name">The name to sign in with.</param>
public sealed record AcceptedInvitation(string Name);

/// <summary>Changes one's password.</summary>
/// <param name="Password">The one so far.</param>
/// <param name="NewPassword">The next one.</param>
public sealed record ChangePassword(string Password, string NewPassword)
{
    /// <summary>Without the secrets.</summary>
    public override string ToString() => nameof(ChangePassword);
}

/// <summary>Proves once more who it is, for what a stolen session must not do.</summary>
/// <param name="Password">The password.</param>
public sealed record ConfirmPassword(string Password)
{
    /// <summary>Without the secret.</summary>
    public override string ToString() => nameof(ConfirmPassword);
}

/// <summary>The secret of an authenticator, shown this once; it counts once a code of it was shown.</summary>
/// <param name="Secret">In base 32.</param>
/// <param name="Uri">The same for a QR code.</param>
public sealed record AuthenticatorSecret(string Secret, string Uri)
{
    /// <summary>Without the secret.</summary>
    public override string ToString() => nameof(AuthenticatorSecret);
}

/// <summary>Shows that the authenticator has the secret.</summary>
/// <param name="Code">What it shows now.</param>
public sealed record ConfirmAuthenticator(string Code)
{
    /// <summary>Without the secret.</summary>
    public override string ToString() => nameof(ConfirmAuthenticator);
}

/// <summary>Codes of which each signs in once in the place of the authenticator, shown this once.</summary>
/// <param name="Codes">The codes.</param>
public sealed record RecoveryCodes(IReadOnlyList<string> Codes)
{
    /// <summary>Without the secrets.</summary>
    public override string ToString() => nameof(RecoveryCodes);
}

/// <summary>Who one is.</summary>
/// <param name="Name">The name.</param>
/// <param name="Roles">What one may do.</param>
/// <param name="HasPassword">Whether one signs in with a password here.</param>
/// <param name="HasAuthenticator">Whether a code is asked for too.</param>
/// <param name="RecoveryCodesLeft">How many recovery codes were not used.</param>
public sealed record Account(string Name, IReadOnlyList<string> Roles, bool HasPassword, bool HasAuthenticator, int RecoveryCodesLeft);

/// <summary>A session of one's own.</summary>
/// <param name="Id">Its number.</param>
/// <param name="Method">How it began.</param>
/// <param name="Source">From where.</param>
/// <param name="CreatedAt">When.</param>
/// <param name="LastUsedAt">When it was last used, to the minute.</param>
/// <param name="ExpiresAt">When it ends at the latest.</param>
/// <param name="IsThis">Whether it is the one that asks.</param>
public sealed record Session(string Id, string Method, string? Source, DateTimeOffset CreatedAt, DateTimeOffset LastUsedAt, DateTimeOffset ExpiresAt, bool IsThis);

/// <summary>Somebody who can sign in, or could with an invitation.</summary>
/// <param name="Name">The name.</param>
/// <param name="Roles">What they may do.</param>
/// <param name="HasPassword">Whether they sign in with a password.</param>
/// <param name="HasAuthenticator">Whether a code is asked for too.</param>
/// <param name="IsInvited">Whether an invitation waits to be used.</param>
/// <param name="IsFederated">Whether they signed in by OpenID Connect.</param>
/// <param name="Sessions">How many sessions they have.</param>
public sealed record Person(string Name, IReadOnlyList<string> Roles, bool HasPassword, bool HasAuthenticator, bool IsInvited, bool IsFederated, int Sessions);

/// <summary>The organisation's OpenID provider, and what its groups mean here.</summary>
/// <param name="Issuer">The provider's issuer, https.</param>
/// <param name="ClientId">The server's name there.</param>
/// <param name="ClientSecret">The server's secret there; never shown; null: none, or the one that is set.</param>
/// <param name="Address">The server's own address as browsers reach it; <c>v1/sign-in/oidc/callback</c> below it is the redirection that the provider must know.</param>
/// <param name="NameClaim">The claim whose value is the person's name here: one that people can't change themselves.</param>
/// <param name="GroupsClaim">The claim that lists the person's groups.</param>
/// <param name="Scopes">What is asked for beside <c>openid</c>.</param>
/// <param name="Mappings">What each group means; who is in none of them is not let in.</param>
public sealed record OpenIdProvider(
    string Issuer, string ClientId, string? ClientSecret, string Address, string NameClaim, string GroupsClaim, IReadOnlyList<string> Scopes, IReadOnlyList<OpenIdMapping> Mappings)
{
    /// <summary>Without the secret.</summary>
    public override string ToString() => $"{nameof(OpenIdProvider)} {{ Issuer = {Issuer}, ClientId = {ClientId} }}";
}

/// <summary>What a group of the provider's means here.</summary>
/// <param name="Group">The group's name in the claim; <c>*</c>: everybody whom the provider knows.</param>
/// <param name="Role">The role that it gives; null: none.</param>
/// <param name="UserGroup">The group of users that it is; null: none.</param>
public sealed record OpenIdMapping(string Group, string? Role, string? UserGroup);

/// <summary>A sign-in that a person finishes in a browser, on whatever computer.</summary>
/// <param name="Flow">The secret with which its result is asked for.</param>
/// <param name="UserCode">What the person enters there.</param>
/// <param name="VerificationUri">Where.</param>
/// <param name="VerificationUriComplete">Where, with the code; null: the provider has none.</param>
/// <param name="ExpiresAt">Until when.</param>
/// <param name="Interval">How many seconds to wait between two questions.</param>
public sealed record DeviceSignIn(string Flow, string UserCode, string VerificationUri, string? VerificationUriComplete, DateTimeOffset ExpiresAt, int Interval)
{
    /// <summary>Without the secrets.</summary>
    public override string ToString() => nameof(DeviceSignIn);
}

/// <summary>Asks how a sign-in stands.</summary>
/// <param name="Flow">Its secret.</param>
public sealed record PollSignIn(string Flow)
{
    /// <summary>Without the secret.</summary>
    public override string ToString() => nameof(PollSignIn);
}

/// <summary>How a sign-in stands.</summary>
/// <param name="SignedIn">The session; null: the person has not finished.</param>
/// <param name="Interval">How many seconds to wait before the next question.</param>
public sealed record SignInProgress(SignedIn? SignedIn, int Interval);
