using System.Security.Claims;
using System.Text.Encodings.Web;
using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authorization;
using Microsoft.Extensions.Options;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>Reads <c>Authorization: Bearer</c>: a text with dots is a device's signed token, any other a person's or the replicas'.</summary>
internal sealed class NacreAuthenticationHandler(
    IOptionsMonitor<AuthenticationSchemeOptions> options,
    ILoggerFactory logger,
    UrlEncoder encoder,
    AdministratorToken administrator,
    ReplicaToken replica,
    NacreDatabase database,
    Sessions sessions,
    DeviceAuthenticator devices) : AuthenticationHandler<AuthenticationSchemeOptions>(options, logger, encoder)
{
    public const string SchemeName = "nacre";
    private const int LongestHeader = 4096;
    private const string Prefix = "Bearer ";
    private Failure failure = new(ErrorCatalogue.Unauthenticated, "this needs a credential");

    protected override async Task<AuthenticateResult> HandleAuthenticateAsync()
    {
        if (Context.GetEndpoint()?.Metadata.GetMetadata<IAuthorizeData>() is null || Request.Headers.Authorization.Count == 0)
        {
            return AuthenticateResult.NoResult();
        }

        if (Request.Headers.Authorization is not [{ Length: <= LongestHeader } header] || !header.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase))
        {
            return Fail(new Failure(ErrorCatalogue.Unauthenticated, "the credential is not a bearer token"));
        }

        var untrustedToken = header[Prefix.Length..].Trim();
        if (untrustedToken.Contains('.', StringComparison.Ordinal))
        {
            var device = await devices.AuthenticateAsync(Request, untrustedToken, Context.RequestAborted);
            return device.Failure is { } reason ? Fail(reason) : Succeed(device.Value.Id, null, Roles.Device);
        }

        if (administrator.Matches(untrustedToken))
        {
            return Succeed(Roles.Administrator, null, Roles.First, Roles.Administrator);
        }

        if (await Administrators.FindAsync(database, untrustedToken, Context.RequestAborted) is { } named)
        {
            return Succeed(named.Name, null, [.. named.RoleList]);
        }

        if (await sessions.FindAsync(untrustedToken, Context.RequestAborted) is { } found)
        {
            return found.Failure is { } ended ? Fail(ended) : Succeed(found.Value.Session.Person, found.Value.Session.Id, [.. found.Value.Roles]);
        }

        return await replica.MatchesAsync(untrustedToken, Context.RequestAborted)
            ? Succeed(Roles.Replica, null, Roles.Replica)
            : Fail(new Failure(ErrorCatalogue.Unauthenticated, "the token is not one that the server knows"));
    }

    protected override Task HandleChallengeAsync(AuthenticationProperties properties)
    {
        if (failure.Kind.HttpStatus == StatusCodes.Status401Unauthorized)
        {
            Response.Headers.WWWAuthenticate = "Bearer realm=\"nacre\"";
        }

        return Problems.WriteAsync(Context, failure);
    }

    protected override Task HandleForbiddenAsync(AuthenticationProperties properties) =>
        Problems.WriteAsync(Context, Groups.RolesOf(Context.GetEndpoint()!) is [Roles.First] ? Administrators.OnlyTheFirst : new Failure(ErrorCatalogue.Forbidden, "this credential is valid but does not permit that"));

    private static AuthenticateResult Succeed(string name, string? session, params string[] roles)
    {
        var claims = roles.Select(role => new Claim(ClaimTypes.Role, role)).Prepend(new(ClaimTypes.NameIdentifier, name));
        var identity = new ClaimsIdentity(session is null ? claims : claims.Append(new(ClaimTypes.Sid, session)), SchemeName);
        return AuthenticateResult.Success(new AuthenticationTicket(new ClaimsPrincipal(identity), SchemeName));
    }

    private AuthenticateResult Fail(Failure reason)
    {
        failure = reason;
        return AuthenticateResult.Fail(reason.Detail);
    }
}
