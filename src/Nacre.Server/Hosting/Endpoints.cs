using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.Http.Metadata;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>The kinds of callers with a credential.</summary>
internal static class Roles
{
    public const string Administrator = "administrator";
    public const string Device = "device";
    public const string Replica = "replica";
}

/// <summary>Where slices hang their endpoints: authorization is a property of the group.</summary>
internal sealed record Groups(RouteGroupBuilder Public, RouteGroupBuilder Administrator, RouteGroupBuilder Device, RouteGroupBuilder Replica)
{
    public static Groups On(WebApplication app) => new(
        app.MapGroup("/v1").AllowAnonymous(),
        app.MapGroup("/v1").RequireAuthorization(Roles.Administrator).Fails(ErrorCatalogue.Unauthenticated, ErrorCatalogue.Forbidden),
        app.MapGroup("/v1/device").RequireAuthorization(Roles.Device)
            .Fails(ErrorCatalogue.Unauthenticated, ErrorCatalogue.Forbidden, ErrorCatalogue.DeviceRevoked, ErrorCatalogue.ClockWrong),
        app.MapGroup("/v1/replica").RequireAuthorization(Roles.Replica).Fails(ErrorCatalogue.Unauthenticated, ErrorCatalogue.Forbidden));

    /// <summary>An endpoint that nobody decided about must not exist.</summary>
    public static void CheckComplete(IEnumerable<Endpoint> endpoints)
    {
        foreach (var endpoint in endpoints)
        {
            if (endpoint.Metadata.GetMetadata<IAuthorizeData>() is null && endpoint.Metadata.GetMetadata<IAllowAnonymous>() is null)
            {
                throw new InvalidOperationException($"'{endpoint.DisplayName}' has no authorization rule");
            }
        }
    }
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
