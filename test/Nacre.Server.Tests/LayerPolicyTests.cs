using System.Net;
using System.Text;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

public class LayerPolicyTests
{
    [Fact]
    public void A_policy_says_what_it_leaves_out_by_the_defaults()
    {
        var policy = Parse("""{"rules":["# ours","/srv/work  data"],"userRejuvenation":"system","healthUnits":["ssh.service","getty@tty1.service"],"snapshotEveryHours":0}""");
        Assert.Equal(["# ours", "/srv/work  data"], policy.Rules);
        Assert.Equal(UserRejuvenation.System, policy.UserRejuvenation);
        Assert.Equal((true, 0, 30, 15), (policy.UserApplications, policy.SnapshotEveryHours, policy.KeepSnapshots, policy.HealthMinutes));
        Assert.Equal(LayerPolicy.Default, Parse("{}"), (one, other) => one!.ToString() == other!.ToString());
    }

    [Theory]
    [InlineData("""{"snapshotEveryHours":-1}""", "snapshotEveryHours")]
    [InlineData("""{"keepSnapshots":0}""", "keepSnapshots")]
    [InlineData("""{"downloadBytesPerSecond":9999}""", "downloadBytesPerSecond")]
    [InlineData("""{"downloadBytesPerSecond":-1}""", "downloadBytesPerSecond")]
    [InlineData("""{"keepDays":3651}""", "keepDays")]
    [InlineData("""{"undoDays":-1}""", "undoDays")]
    [InlineData("""{"healthMinutes":0}""", "healthMinutes")]
    [InlineData("""{"userRejuvenation":"all"}""", "userRejuvenation")]
    [InlineData("""{"userRejuvenation":7}""", "userRejuvenation")]
    [InlineData("""{"rules":["srv data"]}""", "rules")]
    [InlineData("""{"rules":["/srv attic"]}""", "rules")]
    [InlineData("""{"rules":["/srv data","/x\n/ data"]}""", "rules")]
    [InlineData("""{"rules":null}""", "rules")]
    [InlineData("""{"healthUnits":["ssh"]}""", "healthUnits")]
    [InlineData("""{"healthUnits":["-x.service"]}""", "healthUnits")]
    [InlineData("""{"healthUnits":["a b.service"]}""", "healthUnits")]
    [InlineData("""{"healthUnit":["ssh.service"]}""", "healthUnit")]
    [InlineData("null", "null")]
    [InlineData("[", "")]
    public void A_policy_out_of_its_bounds_is_none(string json, string named)
    {
        var exception = Assert.Throws<NacreException>(() => Parse(json));
        Assert.Equal(ErrorCatalogue.RequestInvalid, exception.Kind);
        Assert.Contains(named, exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_policy_of_a_LivePC_is_kept_audited_and_signed_into_its_leases()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (device, key, _) = await world.EnrolAsync();
        await world.EntitleAsync();
        Assert.True((await world.Admin.GetLayerPolicyAsync("desk")).UserApplications);
        var decided = LayerPolicy.Default with { UserApplications = false, HealthUnits = ["ssh.service"], KeepDays = 3 };
        await world.Admin.PutLayerPolicyAsync("desk", decided);
        await world.Admin.PutLayerPolicyAsync("desk", decided);
        await world.StartAgainAsync();
        Assert.Equal(["ssh.service"], (await world.Admin.GetLayerPolicyAsync("desk")).HealthUnits);
        using var again = world.As(device, key);
        var grant = await again.TakeLeaseAsync("desk", new TakeLease(null));
        var signed = Jws.VerifyClaims<LeaseClaims>(grant.Lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceToken.LeaseType).Policy!;
        Assert.Equal((false, 3, "ssh.service"), (signed.UserApplications, signed.KeepDays, Assert.Single(signed.HealthUnits)));
        var entry = Assert.Single((await world.Admin.GetAuditAsync()).Entries, one => one.Action == "livepc.policy");
        Assert.Equal("desk", entry.Subject);
        Assert.Contains("\"userApplications\":false", entry.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_policy_out_of_bounds_changes_nothing()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        await world.EntitleAsync(user: (await world.EnrolAsync()).Device.User);
        foreach (var body in new[] { """{"keepDays":0}""", """{"rules":["x"]}""", """{"kepDays":1}""" })
        {
            var answer = await world.SendAsync("PUT", "/v1/livepcs/desk/policy", world.Token, Json(body));
            Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
            await ProblemAsync(answer, ErrorCatalogue.RequestInvalid);
        }

        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.PutLayerPolicyAsync("none", LayerPolicy.Default));
        Assert.Equal(30, (await world.Admin.GetLayerPolicyAsync("desk")).KeepDays);
        Assert.DoesNotContain((await world.Admin.GetAuditAsync()).Entries, one => one.Action == "livepc.policy");
    }

    private static LayerPolicy Parse(string json) => LayerPolicy.Parse(Encoding.UTF8.GetBytes(json));
}
