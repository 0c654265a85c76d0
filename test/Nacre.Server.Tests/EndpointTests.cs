using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

public class EndpointTests
{
    private static readonly string[] Public =
        ["GET /v1/server", "POST /v1/devices", "GET /v1/segments/{name}", "HEAD /v1/segments/{name}", "GET /openapi/{documentName}.json", "GET /healthz", "GET /v1/trust/{file}",
         "POST /v1/sign-in", "POST /v1/invitation", "GET /v1/sign-in/oidc", "GET /v1/sign-in/oidc/callback", "POST /v1/sign-in/oidc/device", "POST /v1/sign-in/oidc/device/poll", "POST /v1/device-orders/receipts"];

    private static IEnumerable<(string Method, string Pattern, RouteEndpoint Endpoint)> Endpoints(World world) =>
        from endpoint in world.App.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
        from method in endpoint.Metadata.GetMetadata<IHttpMethodMetadata>()!.HttpMethods
        select (method, "/" + endpoint.RoutePattern.RawText!.TrimStart('/'), endpoint);

    private static string Path(string pattern) => pattern.Replace("{version:int}", "1", StringComparison.Ordinal).Replace("{part:int}", "1", StringComparison.Ordinal)
        .Replace("{documentName}", "v1", StringComparison.Ordinal).Replace("{", "", StringComparison.Ordinal).Replace("}", "", StringComparison.Ordinal);

    private static StringContent? Body(string method, string pattern) => method is "GET" or "DELETE" ? null
        : new StringContent("{}", new MediaTypeHeaderValue(pattern == "/v1/segments/{name}" ? "application/octet-stream" : "application/json"));

    [Fact]
    public async Task Every_endpoint_has_one_rule_or_is_on_the_public_list()
    {
        await using var world = await StartAsync();
        var endpoints = Endpoints(world).ToList();
        Assert.Equal(124, endpoints.Count);
        foreach (var (method, pattern, endpoint) in endpoints)
        {
            var isPublic = Public.Contains($"{method} {pattern}");
            Assert.Equal(isPublic, endpoint.Metadata.GetMetadata<IAllowAnonymous>() is not null);
            var rules = endpoint.Metadata.GetOrderedMetadata<IAuthorizeData>();
            Assert.Equal(isPublic ? 0 : 1, rules.Count);
            string[] machine = pattern.StartsWith("/v1/device/", StringComparison.Ordinal) ? [Roles.Device] : pattern.StartsWith("/v1/replica/", StringComparison.Ordinal) ? [Roles.Replica] : [];
            Assert.Equal(machine, Groups.RolesOf(endpoint).Where(role => role is Roles.Device or Roles.Replica)); // people and machines share none; RoleTests has the rest
        }

        Assert.Equal(Public.Length, endpoints.Count(endpoint => Public.Contains($"{endpoint.Method} {endpoint.Pattern}")));
    }

    [Fact]
    public async Task Every_guarded_endpoint_refuses_nobody_and_the_other_role()
    {
        await using var world = await StartAsync();
        var (device, key, _) = await world.EnrolAsync();
        var replica = (await world.Admin.CreateReplicaTokenAsync()).Token;
        var before = (await world.Admin.GetAuditAsync()).Entries.Count(entry => entry.Result == AuditResult.Done);
        var guarded = Endpoints(world).Where(one => !Public.Contains($"{one.Method} {one.Pattern}")).ToList();
        Assert.NotEmpty(guarded);
        foreach (var (method, pattern, _) in guarded)
        {
            var path = Path(pattern);
            var anonymous = await world.SendAsync(method, path, null, Body(method, pattern));
            Assert.Equal(HttpStatusCode.Unauthorized, anonymous.StatusCode);
            await ProblemAsync(anonymous, ErrorCatalogue.Unauthenticated);
            var token = pattern.StartsWith("/v1/device/", StringComparison.Ordinal)
                ? world.Token : key.SignToken(device.DeviceId, method, path, method is "GET" or "DELETE" ? [] : "{}"u8, world.Time.GetUtcNow());
            var other = await world.SendAsync(method, path, token, Body(method, pattern));
            Assert.True(other.StatusCode == HttpStatusCode.Forbidden, $"{method} {path}: {other.StatusCode}");
            await ProblemAsync(other, ErrorCatalogue.Forbidden);
            if (!pattern.StartsWith("/v1/replica/", StringComparison.Ordinal))
            {
                await ProblemAsync(await world.SendAsync(method, path, replica, Body(method, pattern)), ErrorCatalogue.Forbidden);
            }
        }

        Assert.Equal(before, (await world.Admin.GetAuditAsync()).Entries.Count(entry => entry.Result == AuditResult.Done));
    }

    [Fact]
    public void An_endpoint_without_a_rule_stops_the_server()
    {
        var endpoint = new Microsoft.AspNetCore.Http.Endpoint(null, null, "forgotten");
        Assert.Throws<InvalidOperationException>(() => Groups.CheckComplete([endpoint]));
    }

    [Fact]
    public async Task The_api_document_lists_every_endpoint_with_its_rule_and_failures()
    {
        await using var world = await StartAsync();
        using var document = JsonDocument.Parse(await world.Http.GetStringAsync("openapi/v1.json"));
        var paths = document.RootElement.GetProperty("paths");
        Assert.True(document.RootElement.GetProperty("components").GetProperty("securitySchemes").TryGetProperty("device", out _));
        foreach (var (method, pattern, _) in Endpoints(world).Where(one => !one.Pattern.StartsWith("/openapi", StringComparison.Ordinal)))
        {
            var path = pattern.Replace(":int", "", StringComparison.Ordinal);
            var operation = paths.GetProperty(path).GetProperty(method.ToLowerInvariant());
            Assert.NotEmpty(operation.GetProperty("summary").GetString()!);
            Assert.True(operation.GetProperty("responses").TryGetProperty("500", out _));
            if (!Public.Contains($"{method} {pattern}"))
            {
                Assert.True(operation.GetProperty("security").GetArrayLength() == 1, $"{method} {path}");
                Assert.True(operation.GetProperty("responses").TryGetProperty("401", out _));
            }
        }
    }

    [Fact]
    public async Task What_is_not_there_is_a_problem_too()
    {
        await using var world = await StartAsync();
        var missing = await world.SendAsync("GET", "v1/nothing");
        Assert.Equal(HttpStatusCode.NotFound, missing.StatusCode);
        await ProblemAsync(missing, ErrorCatalogue.NotFound);
        var method = await world.SendAsync("DELETE", "v1/server");
        Assert.Equal(HttpStatusCode.MethodNotAllowed, method.StatusCode);
        await ProblemAsync(method, ErrorCatalogue.RequestInvalid);
        var type = await world.SendAsync("POST", "v1/users", world.Token, new StringContent("name=ann"));
        Assert.Equal(HttpStatusCode.UnsupportedMediaType, type.StatusCode);
        await ProblemAsync(type, ErrorCatalogue.RequestInvalid);
        var large = await world.SendAsync("POST", "v1/users", world.Token, Json(new string(' ', 1_050_000)));
        Assert.Equal(HttpStatusCode.RequestEntityTooLarge, large.StatusCode);
        await ProblemAsync(large, ErrorCatalogue.TooLarge);
        await ProblemAsync(await world.SendAsync("POST", "v1/users", world.Token, Json("""{"name":"ann","admin":true}""")), ErrorCatalogue.RequestInvalid);
    }

    [Fact]
    public async Task Public_things_are_public()
    {
        await using var world = await StartAsync();
        var info = await world.Nobody.GetServerAsync();
        Assert.Equal(("nacre", "Müller & Co"), (info.Product, info.Organisation));
        Assert.NotEmpty(info.Version);
        Assert.Equal("ok", await world.Http.GetStringAsync("healthz"));
        var response = await world.Http.GetAsync("v1/server");
        Assert.True(response.Headers.CacheControl!.NoStore);
        Assert.False(response.Headers.Contains("Server"));
    }
}
