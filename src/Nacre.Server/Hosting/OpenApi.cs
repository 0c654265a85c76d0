using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.OpenApi;
using Microsoft.OpenApi;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>What the API document says beyond the endpoints' own types: who may call, and how each call fails.</summary>
internal static class OpenApi
{
    public static void Configure(OpenApiOptions options)
    {
        options.AddDocumentTransformer(DescribeAsync);
        options.AddOperationTransformer(DescribeAsync);
    }

    private static Task DescribeAsync(OpenApiDocument document, OpenApiDocumentTransformerContext context, CancellationToken cancellationToken)
    {
        document.Info = new OpenApiInfo
        {
            Title = "Nacre",
            Version = "v1",
            Description = "Ships, governs and leases LivePCs. Every failure is application/problem+json with a stable code and a hint.",
        };
        document.Components ??= new OpenApiComponents();
        document.Components.SecuritySchemes = new Dictionary<string, IOpenApiSecurityScheme>
        {
            [Roles.Administrator] = new OpenApiSecurityScheme
            {
                Type = SecuritySchemeType.Http,
                Scheme = "bearer",
                Description = "A person's: the token of a session (SignIn), of a named administrator, or the one that the server wrote to admin-token in its data directory at its first start. docs/roles.md has who may do what.",
            },
            [Roles.Device] = new OpenApiSecurityScheme
            {
                Type = SecuritySchemeType.Http,
                Scheme = "bearer",
                BearerFormat = "JWS ES256 by the device's key",
                Description = "Header: typ nacre-device+jwt, kid the device's id. Claims: aud 'nacre', iat, exp (at most 300 s later), htm the method, htu the path with query, bsha256 the base64url SHA-256 of the body.",
            },
            [Roles.Replica] = new OpenApiSecurityScheme { Type = SecuritySchemeType.Http, Scheme = "bearer", Description = "The token of the organisation's replicas." },
        };
        return Task.CompletedTask;
    }

    private static Task DescribeAsync(OpenApiOperation operation, OpenApiOperationTransformerContext context, CancellationToken cancellationToken)
    {
        var metadata = context.Description.ActionDescriptor.EndpointMetadata;
        foreach (var scheme in metadata.OfType<IAuthorizeData>().Select(rule => rule.Roles is Roles.Device or Roles.Replica ? rule.Roles : Roles.Administrator))
        {
            operation.Security ??= [];
            operation.Security.Add(new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference(scheme, context.Document)] = [] });
        }

        operation.Responses ??= [];
        var kinds = metadata.OfType<FailsWith>().SelectMany(fails => fails.Kinds).Append(ErrorCatalogue.Internal).Distinct();
        foreach (var group in kinds.GroupBy(kind => kind.HttpStatus))
        {
            operation.Responses[group.Key.ToString(System.Globalization.CultureInfo.InvariantCulture)] = new OpenApiResponse
            {
                Description = string.Join(", ", group.Select(kind => kind.Code).Order(StringComparer.Ordinal)),
                Content = new Dictionary<string, OpenApiMediaType> { [Problems.ContentType] = new() { Schema = ProblemSchema() } },
            };
        }

        return Task.CompletedTask;
    }

    private static readonly string[] ProblemTexts = ["type", "title", "detail", "code", "hint", "traceId"];

    private static OpenApiSchema ProblemSchema() => new()
    {
        Type = JsonSchemaType.Object,
        Properties = ProblemTexts
            .ToDictionary(name => name, _ => (IOpenApiSchema)new OpenApiSchema { Type = JsonSchemaType.String })
            .Append(new("status", new OpenApiSchema { Type = JsonSchemaType.Integer }))
            .ToDictionary(),
    };
}
