using System.Buffers.Text;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using Nacre.Client;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

public class DeviceTokenTests
{
    private const string List = "/v1/device/livepcs";

    private static Task<HttpResponseMessage> GetAsync(World world, string token) => world.SendAsync("GET", List, token);

    [Fact]
    public async Task A_token_of_another_path_or_method_is_refused()
    {
        await using var world = await StartAsync();
        var (device, key, _) = await world.EnrolAsync();
        await ProblemAsync(await GetAsync(world, key.SignToken(device.DeviceId, "GET", "/v1/device/other", [], world.Time.GetUtcNow())), ErrorCatalogue.Unauthenticated);
        await ProblemAsync(await GetAsync(world, key.SignToken(device.DeviceId, "POST", List, [], world.Time.GetUtcNow())), ErrorCatalogue.Unauthenticated);
        await ProblemAsync(await world.SendAsync("GET", List + "?x=1", key.SignToken(device.DeviceId, "GET", List, [], world.Time.GetUtcNow())), ErrorCatalogue.Unauthenticated);
        Assert.Equal(HttpStatusCode.OK, (await GetAsync(world, key.SignToken(device.DeviceId, "GET", List, [], world.Time.GetUtcNow()))).StatusCode);
    }

    [Fact]
    public async Task A_token_of_another_body_is_refused()
    {
        await using var world = await StartAsync();
        var (device, key, _) = await world.EnrolAsync();
        const string Path = "/v1/device/livepcs/desk/lease";
        var token = key.SignToken(device.DeviceId, "POST", Path, "{}"u8, world.Time.GetUtcNow());
        await ProblemAsync(await world.SendAsync("POST", Path, token, Json("""{"installedVersion":1}""")), ErrorCatalogue.Unauthenticated);
        await ProblemAsync(await world.SendAsync("POST", Path, token, Json("{}")), ErrorCatalogue.NotEntitled);
    }

    [Theory]
    [InlineData(-901)]
    [InlineData(301)]
    public async Task A_token_of_another_time_is_refused_with_the_servers_time(int seconds)
    {
        await using var world = await StartAsync();
        var (device, key, _) = await world.EnrolAsync();
        var problem = await ProblemAsync(
            await GetAsync(world, key.SignToken(device.DeviceId, "GET", List, [], world.Time.GetUtcNow().AddSeconds(seconds))), ErrorCatalogue.ClockWrong);
        Assert.Contains("2026-03-01 12:00:00Z", problem.Detail, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(-600)]
    [InlineData(300)]
    public async Task A_clock_that_is_a_little_off_is_accepted(int seconds)
    {
        await using var world = await StartAsync();
        var (device, key, _) = await world.EnrolAsync();
        Assert.Equal(HttpStatusCode.OK, (await GetAsync(world, key.SignToken(device.DeviceId, "GET", List, [], world.Time.GetUtcNow().AddSeconds(seconds)))).StatusCode);
    }

    [Fact]
    public async Task A_token_that_lives_longer_than_it_may_is_refused()
    {
        await using var world = await StartAsync();
        var (device, key, _) = await world.EnrolAsync();
        using var ecdsa = ECDsa.Create();
        ecdsa.ImportPkcs8PrivateKey(key.ExportPkcs8(), out _);
        var now = world.Time.GetUtcNow().ToUnixTimeSeconds();
        string Signed(long life, string audience = "nacre", string? type = DeviceToken.Type) =>
            Jws.SignClaims(new DeviceToken(audience, now, now + life, "GET", List, DeviceToken.Digest([])), ecdsa, type, device.DeviceId);
        await ProblemAsync(await GetAsync(world, Signed(301)), ErrorCatalogue.Unauthenticated);
        await ProblemAsync(await GetAsync(world, Signed(0)), ErrorCatalogue.Unauthenticated);
        var everlasting = new DeviceToken("nacre", long.MinValue, long.MaxValue, "GET", List, DeviceToken.Digest([]));
        await ProblemAsync(await GetAsync(world, Jws.SignClaims(everlasting, ecdsa, DeviceToken.Type, device.DeviceId)), ErrorCatalogue.Unauthenticated);
        await ProblemAsync(await GetAsync(world, Signed(300, "other")), ErrorCatalogue.Unauthenticated);
        await ProblemAsync(await GetAsync(world, Signed(300, type: "JWT")), ErrorCatalogue.Unauthenticated);
        Assert.Equal(HttpStatusCode.OK, (await GetAsync(world, Signed(300))).StatusCode);
    }

    [Fact]
    public async Task Another_key_and_an_unknown_device_are_refused_alike()
    {
        await using var world = await StartAsync();
        var (device, key, _) = await world.EnrolAsync();
        using var other = DeviceKey.Create();
        var wrongKey = await ProblemAsync(await GetAsync(world, other.SignToken(device.DeviceId, "GET", List, [], world.Time.GetUtcNow())), ErrorCatalogue.Unauthenticated);
        var unknown = await ProblemAsync(await GetAsync(world, key.SignToken("0123", "GET", List, [], world.Time.GetUtcNow())), ErrorCatalogue.Unauthenticated);
        Assert.Equal(wrongKey with { TraceId = "" }, unknown with { TraceId = "" });
    }

    [Theory]
    [InlineData("none")]
    [InlineData("HS256")]
    public async Task A_token_of_another_algorithm_is_refused(string algorithm)
    {
        await using var world = await StartAsync();
        var (device, key, _) = await world.EnrolAsync();
        var parts = key.SignToken(device.DeviceId, "GET", List, [], world.Time.GetUtcNow()).Split('.');
        var header = Base64Url.EncodeToString(Encoding.ASCII.GetBytes($$"""{"alg":"{{algorithm}}","typ":"nacre-device+jwt","kid":"{{device.DeviceId}}"}"""));
        var secret = Base64Url.DecodeFromChars(key.PublicKey.X);
        var signature = algorithm == "none" ? "" : Base64Url.EncodeToString(HMACSHA256.HashData(secret, Encoding.ASCII.GetBytes(header + "." + parts[1])));
        await ProblemAsync(await GetAsync(world, $"{header}.{parts[1]}.{signature}"), ErrorCatalogue.Unauthenticated);
        await ProblemAsync(await GetAsync(world, $"{header}.{parts[1]}.{parts[2]}"), ErrorCatalogue.Unauthenticated);
    }

    [Fact]
    public async Task A_revoked_device_is_told_so_at_once_and_revoking_again_changes_nothing()
    {
        await using var world = await StartAsync();
        var (device, _, client) = await world.EnrolAsync();
        var revoked = await world.Admin.RevokeDeviceAsync(device.DeviceId);
        Assert.True(revoked.Revoked);
        await FailsAsync(ErrorCatalogue.DeviceRevoked, client.ListEntitledLivePcsAsync());
        await FailsAsync(ErrorCatalogue.DeviceRevoked, client.TakeLeaseAsync("desk", new TakeLease(null)));
        var lines = (await world.Admin.GetAuditAsync()).Entries.Count;
        await world.Admin.RevokeDeviceAsync(device.DeviceId);
        Assert.Equal(lines, (await world.Admin.GetAuditAsync()).Entries.Count);
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.RevokeDeviceAsync("nobody"));
    }

    [Theory]
    [InlineData("Basic", "YTpi")]
    [InlineData("Bearer", "..")]
    [InlineData("Bearer", "a.b.c")]
    [InlineData("Bearer", "wrong")]
    public async Task Other_credentials_are_refused(string scheme, string value)
    {
        await using var world = await StartAsync();
        using var request = new HttpRequestMessage(HttpMethod.Get, "v1/users");
        request.Headers.Authorization = new AuthenticationHeaderValue(scheme, value);
        var response = await world.Http.SendAsync(request);
        Assert.Equal(HttpStatusCode.Unauthorized, response.StatusCode);
        Assert.NotEmpty(response.Headers.WwwAuthenticate);
        await ProblemAsync(response, ErrorCatalogue.Unauthenticated);
    }
}
