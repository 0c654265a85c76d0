using System.Net;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

public class EnrolmentTests
{
    private static EnrolDevice Request(EnrolmentCode code, DeviceKey key, string? proof = null) => new(
        code.Id, "laptop", key.PublicKey, proof ?? code.Prove("request", code.Id, "laptop", key.PublicKey.X, key.PublicKey.Y));

    private static Task<HttpResponseMessage> PostAsync(World world, EnrolDevice request) => world.SendAsync("POST", "v1/devices", null, Json(request));

    [Fact]
    public async Task A_device_enrols_and_is_listed()
    {
        await using var world = await StartAsync();
        var (device, _, client) = await world.EnrolAsync();
        Assert.Equal("ann", device.User);
        Assert.Equal("Müller & Co", device.Organisation);
        Assert.Equal(PublicKeys.From(world.Publisher), Assert.Single(RootMetadata.Parse(device.Root).Root.Keys).PublicKey);
        Assert.Empty(await client.ListEntitledLivePcsAsync());
        var listed = Assert.Single(await world.Admin.ListDevicesAsync());
        Assert.Equal(device.DeviceId, listed.Id);
        await WaitAsync(() => world.Admin.ListDevicesAsync().GetAwaiter().GetResult()[0].LastSeenAt is not null); // within seconds
        Assert.Equal(world.Time.GetUtcNow(), (await world.Admin.ListDevicesAsync())[0].LastSeenAt);
        Assert.False(listed.Revoked);
    }

    [Fact]
    public async Task A_wrong_proof_and_a_wrong_code_get_the_same_answer()
    {
        await using var world = await StartAsync();
        var code = await world.CodeAsync();
        using var key = DeviceKey.Create();
        var wrongProof = await ProblemAsync(await PostAsync(world, Request(code, key, "AAAA")), ErrorCatalogue.EnrolmentCodeWrong);
        var wrongCode = await ProblemAsync(await PostAsync(world, Request(EnrolmentCode.Create(), key)), ErrorCatalogue.EnrolmentCodeWrong);
        Assert.Equal(wrongProof with { TraceId = "" }, wrongCode with { TraceId = "" });
        Assert.Empty(await world.Admin.ListDevicesAsync());
        Assert.Contains((await world.Admin.GetAuditAsync()).Entries, entry => entry.Action == "enrolment-code.wrong-proof");
    }

    [Fact]
    public async Task A_network_that_puts_its_own_device_key_in_the_request_is_refused()
    {
        await using var world = await StartAsync();
        var code = await world.CodeAsync();
        using var mine = DeviceKey.Create();
        using var theirs = DeviceKey.Create();
        await ProblemAsync(await PostAsync(world, Request(code, mine) with { PublicKey = theirs.PublicKey }), ErrorCatalogue.EnrolmentCodeWrong);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_network_that_puts_its_own_keys_in_the_answer_is_noticed(bool putsRoot)
    {
        await using var world = await StartAsync();
        var code = await world.CodeAsync();
        using var key = DeviceKey.Create();
        using var theirs = DeviceKey.Create();
        await using var middle = await HostilePeer.StartAsync(async context =>
        {
            using var forwarded = await PostAsync(world, (await context.Request.ReadFromJsonAsync<EnrolDevice>(ContractJson.Options))!);
            var answer = JsonSerializer.Deserialize<EnrolledDevice>(await forwarded.Content.ReadAsStringAsync(), ContractJson.Options)!;
            await context.Response.WriteAsJsonAsync(
                putsRoot ? answer with { Root = answer.Root.Replace("\"version\":1", "\"version\":2", StringComparison.Ordinal) } : answer with { LeaseKey = theirs.PublicKey }, ContractJson.Options);
        });
        using var client = new NacreClient(middle.Url);
        await FailsAsync(ErrorCatalogue.ServerNotAuthentic, client.EnrolAsync(code, "laptop", key));
    }

    [Fact]
    public async Task The_tenth_wrong_proof_burns_the_code()
    {
        await using var world = await StartAsync();
        var code = await world.CodeAsync();
        using var key = DeviceKey.Create();
        for (var i = 0; i < 10; i++)
        {
            await ProblemAsync(await PostAsync(world, Request(code, key, "wrong")), ErrorCatalogue.EnrolmentCodeWrong);
        }

        await FailsAsync(ErrorCatalogue.EnrolmentCodeWrong, world.Nobody.EnrolAsync(code, "laptop", key));
        Assert.Contains((await world.Admin.GetAuditAsync()).Entries, entry => entry.Action == "enrolment-code.burn");
    }

    [Fact]
    public async Task The_ninth_wrong_proof_does_not_burn_the_code()
    {
        await using var world = await StartAsync();
        var code = await world.CodeAsync();
        using var key = DeviceKey.Create();
        for (var i = 0; i < 9; i++)
        {
            await ProblemAsync(await PostAsync(world, Request(code, key, "wrong")), ErrorCatalogue.EnrolmentCodeWrong);
        }

        await world.Nobody.EnrolAsync(code, "laptop", key);
    }

    [Fact]
    public async Task An_expired_code_is_refused_and_its_secret_is_gone()
    {
        await using var world = await StartAsync();
        var code = await world.CodeAsync(seconds: 60);
        using var key = DeviceKey.Create();
        world.Time.Advance(TimeSpan.FromSeconds(60));
        await FailsAsync(ErrorCatalogue.EnrolmentCodeExpired, world.Nobody.EnrolAsync(code, "laptop", key));
        await FailsAsync(ErrorCatalogue.EnrolmentCodeExpired, world.Nobody.EnrolAsync(code, "laptop", key));
        Assert.Equal(0L, await world.SqlAsync("SELECT COUNT(*) FROM \"EnrolmentCodes\" WHERE \"Secret\" IS NOT NULL"));
    }

    [Fact]
    public async Task A_request_sent_again_gets_the_same_answer_and_makes_no_second_device()
    {
        await using var world = await StartAsync();
        var code = await world.CodeAsync();
        using var key = DeviceKey.Create();
        var first = await (await PostAsync(world, Request(code, key))).Content.ReadAsStringAsync();
        await world.StartAgainAsync();
        var response = await PostAsync(world, Request(code, key));
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.Equal(first, await response.Content.ReadAsStringAsync());
        Assert.Single(await world.Admin.ListDevicesAsync());
        Assert.Equal(0L, await world.SqlAsync("SELECT COUNT(*) FROM \"EnrolmentCodes\" WHERE \"Secret\" IS NOT NULL"));
    }

    [Fact]
    public async Task A_used_code_enrols_no_other_device()
    {
        await using var world = await StartAsync();
        var code = await world.CodeAsync();
        using var key = DeviceKey.Create();
        using var other = DeviceKey.Create();
        await world.Nobody.EnrolAsync(code, "laptop", key);
        await FailsAsync(ErrorCatalogue.EnrolmentCodeUsed, world.Nobody.EnrolAsync(code, "laptop", other));
    }

    [Fact]
    public async Task A_key_enrols_once()
    {
        await using var world = await StartAsync();
        var (_, key, _) = await world.EnrolAsync();
        await FailsAsync(ErrorCatalogue.AlreadyEnrolled, world.Nobody.EnrolAsync(await world.CodeAsync(), "laptop", key));
    }

    [Fact]
    public async Task Two_devices_with_one_code_at_once_make_one_device()
    {
        await using var world = await StartAsync();
        var code = await world.CodeAsync();
        var outcomes = await Task.WhenAll(Enumerable.Range(0, 8).Select(async _ =>
        {
            using var key = DeviceKey.Create();
            using var response = await PostAsync(world, Request(code, key));
            return response.StatusCode;
        }));
        Assert.Single(outcomes, HttpStatusCode.OK);
        Assert.Single(await world.Admin.ListDevicesAsync());
    }

    [Theory]
    [InlineData("""{"codeId":"x","deviceName":"a","publicKey":null,"proof":"p"}""")]
    [InlineData("""{}""")]
    [InlineData("""[]""")]
    [InlineData("""{"codeId":""")]
    [InlineData("""{"codeId":"ABCDEFGH","codeId":"ABCDEFGH"}""")]
    [InlineData("""{"codeId":"ABCDEFGH","deviceName":"a","publicKey":{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"},"proof":"p"}""")]
    public async Task What_is_no_request_is_refused(string body)
    {
        await using var world = await StartAsync();
        var response = await world.SendAsync("POST", "v1/devices", null, Json(body));
        Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
        await ProblemAsync(response, ErrorCatalogue.RequestInvalid);
    }

    [Theory]
    [InlineData(0L)]
    [InlineData(-1L)]
    [InlineData(2_592_001L)]
    public async Task A_code_lives_at_most_thirty_days(long seconds)
    {
        await using var world = await StartAsync();
        await world.Admin.CreateUserAsync(new CreateUser("ann", null));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.CreateEnrolmentCodeAsync(new CreateEnrolmentCode("ann", seconds)));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.CreateEnrolmentCodeAsync(new CreateEnrolmentCode("bob", null)));
    }
}
