using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.Http.Metadata;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>Who calls: people by what they may do, and the kinds of machines.</summary>
internal static class Roles
{
    /// <summary>The token that the server made at its first start. It is an administrator too.</summary>
    public const string First = "first-administrator";
    public const string Administrator = PeopleRoles.Administrator;
    public const string Author = PeopleRoles.Author;
    public const string Approver = PeopleRoles.Approver;
    public const string HelpDesk = PeopleRoles.HelpDesk;
    public const string Auditor = PeopleRoles.Auditor;
    public const string User = PeopleRoles.User;
    public const string Device = "device";
    public const string Replica = "replica";

    /// <summary>Everybody with a name, the one with most rights first.</summary>
    public static IReadOnlyList<string> People { get; } = [.. PeopleRoles.Staff, User];

    /// <summary>All that a rule can name.</summary>
    public static IReadOnlyList<string> All { get; } = [First, .. People, Device, Replica];
}

/// <summary>Where slices hang their endpoints: who may call is a property of the group.</summary>
internal sealed class Groups(IEndpointRouteBuilder app)
{
    public RouteGroupBuilder Public { get; } = app.MapGroup("/v1").AllowAnonymous();

    /// <summary>Organisation administrators, and nobody else.</summary>
    public RouteGroupBuilder Administrator => Of(Roles.Administrator);

    public RouteGroupBuilder Device { get; } = app.MapGroup("/v1/device").RequireAuthorization(Rule(Roles.Device))
        .Fails(ErrorCatalogue.Unauthenticated, ErrorCatalogue.Forbidden, ErrorCatalogue.DeviceRevoked, ErrorCatalogue.DeviceWaiting, ErrorCatalogue.CertificateRefused, ErrorCatalogue.ClockWrong);

    public RouteGroupBuilder Replica { get; } = app.MapGroup("/v1/replica").RequireAuthorization(Rule(Roles.Replica)).Fails(ErrorCatalogue.Unauthenticated, ErrorCatalogue.Forbidden);

    /// <summary>People with one of these roles.</summary>
    public RouteGroupBuilder Of(params IEnumerable<string> roles) =>
        app.MapGroup("/v1").RequireAuthorization(Rule([.. roles])).Fails(ErrorCatalogue.Unauthenticated, ErrorCatalogue.SessionEnded, ErrorCatalogue.Forbidden);

    /// <summary>An endpoint that nobody decided about must not exist, nor one that two rules are about.</summary>
    public static void CheckComplete(IEnumerable<Endpoint> endpoints)
    {
        foreach (var endpoint in endpoints)
        {
            var isPublic = endpoint.Metadata.GetMetadata<IAllowAnonymous>() is not null;
            var rules = endpoint.Metadata.GetOrderedMetadata<IAuthorizeData>();
            if (rules.Count != (isPublic ? 0 : 1) || (!isPublic && (RolesOf(endpoint).Count == 0 || RolesOf(endpoint).Any(role => !Roles.All.Contains(role)))))
            {
                throw new InvalidOperationException($"'{endpoint.DisplayName}' has not exactly one authorization rule that names roles");
            }
        }
    }

    /// <summary>Who may call an endpoint; empty: everybody.</summary>
    public static IReadOnlyList<string> RolesOf(Endpoint endpoint) => endpoint.Metadata.GetMetadata<IAuthorizeData>()?.Roles?.Split(',') ?? [];

    private static AuthorizeAttribute Rule(params IReadOnlyList<string> roles) => new() { Roles = string.Join(',', roles) };
}

/// <summary>The failures that an endpoint answers with, for the API document.</summary>
internal sealed record FailsWith(IReadOnlyList<ErrorKind> Kinds);

/// <summary>How many bytes a request may have.</summary>
internal sealed record BodyLimit(long? MaxRequestBodySize) : IRequestSizeLimitMetadata;

internal static class EndpointConventions
{
    public static TBuilder Fails<TBuilder>(this TBuilder builder, params ErrorKind[] kinds)
        where TBuilder : IEndpointConventionBuilder => builder.WithMetadata(new FailsWith(kinds));
}
