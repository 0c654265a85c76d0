using System.Net;
using System.Text.Json;
using System.Text.Json.Nodes;
using CsCheck;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Migrations;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Contracts;
using Nacre.Policies;
using Nacre.Testing;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>The schema, the levels, and that what is decided reaches a device signed and comes back acknowledged.</summary>
public class PolicyTests
{
    private static IEnumerable<string> Wrong =>
    [
        """{"snapshot.everyHours":-1}""", """{"snapshot.keep":0}""", """{"update.bandwidthKbps":79}""", """{"update.bandwidthKbps":-1}""", """{"snapshot.keepDays":3651}""", """{"rejuvenate.undoDays":-1}""",
        """{"update.healthMinutes":0}""", """{"update.healthMinutes":1.5}""", """{"update.healthMinutes":"15"}""", """{"rejuvenate.userAllowed":"all"}""", """{"rejuvenate.userAllowed":7}""", """{"layer.rules":["srv data"]}""",
        """{"layer.rules":["/srv attic"]}""", """{"layer.rules":["/srv data","/x\n/ data"]}""", """{"layer.rules":null}""", """{"layer.rules":"/srv data"}""", """{"update.healthUnits":["ssh"]}""",
        """{"update.healthUnits":["-x.service"]}""", """{"update.healthUnits":["a b.service"]}""", """{"update.apply":"Deadline"}""", """{"update.window":["18:00"]}""", """{"layer.app":1}""", """{"lease.hours":8761}""",
        """{"maxDevicesPerUser":0}""", """{"vm.autoFitMemory":91}""", """{"host.osMin":["Debian"]}""", """{"host.firewall":"on"}""", """{"host.clientMinVersion":"new"}""", """{"host.scripts":["exit 0"]}""",
        """{"rejuvenate.system":"never"}""", """{"layer.quotaUserGB":65}""", """{"layer.quotaAppsGB":-1}""", """{"disposable":"on"}""", """{"appVisibility":["gimp"]}""", """{"appVisibility":["../x press"]}""",
        """{"appVisibility":["gimp a\u0000"]}""", """{"appVisibility":["gimp press,design"]}""", """{"appVisibility":[" "]}""", """{"appVisibility":["Gimp press"]}""",
    ];

    public static TheoryData<string> WrongValues => [.. Wrong];

    [Theory]
    [MemberData(nameof(WrongValues))]
    public void A_value_out_of_its_bounds_is_refused_with_the_setting_and_what_it_takes(string json)
    {
        var problem = Assert.Single(Assert.Throws<PolicyException>(() => PolicyDocument.Parse(json)).Problems);
        var setting = Settings.Find(JsonNode.Parse(json)!.AsObject().Single().Key)!;
        Assert.StartsWith($"'{setting.Name}' must be {setting.Range}", problem, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("null")]
    [InlineData("[]")]
    [InlineData("[")]
    [InlineData("")]
    [InlineData("""{"layer.app":true,"layer.app":false}""")]
    public void What_is_no_document_is_refused(string json) => Assert.Throws<PolicyException>(() => PolicyDocument.Parse(json));

    [Fact]
    public void All_that_is_wrong_is_said_at_once_with_the_name_that_was_probably_meant()
    {
        var problems = Assert.Throws<PolicyException>(() => PolicyDocument.Parse("""{"lease.hour":3,"lease.hours":0,"nonsense":1,"layer.app":true}""")).Problems;
        Assert.Equal(3, problems.Count);
        Assert.Contains("is 'lease.hours' meant?", problems[0], StringComparison.Ordinal);
        Assert.Contains("from 1 to 8760", problems[1], StringComparison.Ordinal);
        Assert.DoesNotContain("meant", problems[2], StringComparison.Ordinal);
    }

    [Fact]
    public void Whatever_JSON_comes_there_is_a_document_or_a_policy_exception_and_a_document_reads_itself_again() => Gen.Select(
            Gen.OneOf([.. Settings.All.Select(setting => Gen.Const(setting.Name)), Gen.String[0, 70]]).Array[0, 6],
            Gen.OneOf(Gen.Int.Select(number => number.ToString(System.Globalization.CultureInfo.InvariantCulture)), Gen.Int[0, 200].Select(number => number.ToString(System.Globalization.CultureInfo.InvariantCulture)),
                Gen.Const("true"), Gen.Const("null"), Gen.Const("[]"), Gen.Const("""["/srv data"]"""), Gen.Const("""["a.service"]"""), Gen.Const("\"system\""), Gen.Const("\"deadline\""), Gen.Const("{}"), Gen.Const("1e400")).Array[6])
        .Sample((names, values) =>
        {
            var json = $"{{{string.Join(',', names.Select((name, place) => $"{JsonSerializer.Serialize(name)}:{values[place]}"))}}}";
            try
            {
                var document = PolicyDocument.Parse(json);
                Assert.Equal(document, PolicyDocument.Parse(document.ToString()));
                Assert.Equal(document, Policy.Of("one", document).Decided);
            }
            catch (PolicyException exception)
            {
                Assert.NotEmpty(exception.Problems);
            }
        });

    [Fact]
    public void Every_setting_takes_its_own_factory_value_and_the_schema_says_the_same_as_the_code()
    {
        var schema = PolicySchema.ToJson()["properties"]!.AsObject();
        Assert.Equal(Settings.All.Select(setting => setting.Name), schema.Select(property => property.Key));
        foreach (var setting in Settings.All)
        {
            var json = new JsonObject { [setting.Name] = setting.Write(setting.Factory) };
            var read = PolicyDocument.Parse(json.ToJsonString());
            Assert.True(read.TryGet(setting, out var value) && setting.AreSame(value, setting.Factory), setting.Name);
            Assert.True(JsonNode.DeepEquals(schema[setting.Name]!["default"], setting.Write(setting.Factory)), setting.Name);

            // The bounds of a number are those that the code has.
            var number = (schema[setting.Name]!["anyOf"]?[1] ?? schema[setting.Name]!).AsObject();
            if ((string?)number["type"] == "integer")
            {
                Assert.True(Takes(setting, (int)number["minimum"]!) && Takes(setting, (int)number["maximum"]!), setting.Name);
                Assert.False(Takes(setting, (int)number["maximum"]! + 1) || (Takes(setting, (int)number["minimum"]! - 1) && (int)number["minimum"]! != 1), setting.Name);
            }

            foreach (var word in schema[setting.Name]!["enum"]?.AsArray() ?? [])
            {
                Assert.True(setting.TryReadTyped((string)word!, out _, out _), setting.Name);
            }
        }

        static bool Takes(Setting setting, int number) => setting.TryRead(JsonSerializer.SerializeToElement(number), out _, out _);
    }

    [Fact]
    public void The_page_of_documentation_is_the_schema() => Assert.Equal(PolicySchema.ToMarkdown(), File.ReadAllText(Repository.At("docs", "policies.md")));

    [Fact]
    public void The_last_level_that_speaks_wins_and_is_named()
    {
        var policy = Policy.Of(
        [
            ("organisation", PolicyDocument.Parse("""{"lease.hours":24,"snapshot.keep":5}""")), ("group:sales", PolicyDocument.Parse("""{"lease.hours":48}""")), ("livepc:desk", PolicyDocument.Empty),
            ("device:d", PolicyDocument.Parse("""{"layer.app":false}""")),
        ]);
        Assert.Equal((48, "group:sales"), (policy.Get(Settings.LeaseHours), policy.DecidedBy(Settings.LeaseHours)));
        Assert.Equal((5, "organisation"), (policy.Get(Settings.SnapshotKeep), policy.DecidedBy(Settings.SnapshotKeep)));
        Assert.Equal((false, "device:d"), (policy.Get(Settings.LayerApp), policy.DecidedBy(Settings.LayerApp)));
        Assert.Equal((30, "factory"), (policy.Get(Settings.SnapshotKeepDays), policy.DecidedBy(Settings.SnapshotKeepDays)));
        Assert.Equal(policy.Version, Policy.Of("lease", PolicyDocument.Parse(policy.Decided.ToString())).Version);
        Assert.NotEqual(policy.Version, Policy.Factory.Version);
    }

    [Theory]
    [InlineData("organisation", true)]
    [InlineData("livepc:desk", true)]
    [InlineData("device:Ab_-9", true)]
    [InlineData("", false)]
    [InlineData("Organisation", false)]
    [InlineData("organisation:x", false)]
    [InlineData("livepc:", false)]
    [InlineData("livepc:a/b", false)]
    [InlineData("livepc:a\n", false)]
    public void A_level_reads_itself_again(string text, bool isOne) => Assert.Equal(isOne ? text : null, PolicyLevel.TryParse(text)?.ToString());

    [Fact]
    public async Task What_the_levels_decide_is_kept_audited_explained_signed_into_leases_and_acknowledged()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (device, key, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        var admin = world.Admin;
        await admin.CreateGroupAsync("staff");
        await admin.CreateGroupAsync("sales");
        await admin.PutMemberAsync("staff", "ann", isMember: true);
        await admin.PutMemberAsync("sales", "ann", isMember: true);
        await admin.PutPolicyAsync("organisation", PolicyDocument.Parse("""{"lease.hours":24,"snapshot.keep":5,"layer.app":false}"""));
        await admin.PutPolicyAsync("group:staff", PolicyDocument.Parse("""{"snapshot.keep":6,"rejuvenate.undoDays":1}"""));
        await admin.PutPolicyAsync("group:sales", PolicyDocument.Parse("""{"snapshot.keep":7}"""));
        await admin.PutPolicyAsync("livepc:desk", PolicyDocument.Parse("""{"update.healthUnits":["ssh.service"]}"""));
        await admin.PatchPolicyAsync($"device:{device.DeviceId}", new Dictionary<string, object?> { ["layer.app"] = true });
        await admin.PatchPolicyAsync($"device:{device.DeviceId}", new Dictionary<string, object?> { ["layer.app"] = true });
        await world.StartAgainAsync();

        // A group's policy is the later one's of those that the user is in; another device's user is in none.
        var explained = await world.Admin.ExplainPolicyAsync("desk", device.DeviceId);
        Assert.Equal(Settings.All.Length, explained.Settings.Count);
        Assert.Equal([
            ("lease.hours", "24", "organisation"), ("update.healthUnits", "[\"ssh.service\"]", "livepc:desk"), ("layer.app", "true", $"device:{device.DeviceId}"), ("rejuvenate.undoDays", "1", "group:staff"),
            ("snapshot.keep", "7", "group:sales"),
        ], explained.Settings.Where(one => one.DecidedBy != "factory").Select(one => (one.Name, one.Value.ToJsonString(), one.DecidedBy)));
        Assert.Equal("organisation", (await world.Admin.ExplainPolicyAsync("desk", null)).Settings.Single(one => one.Name == "layer.app").DecidedBy);
        await world.Admin.OrderGroupsAsync(["sales", "staff"]);

        using var again = world.As(device, key);
        var claims = await LeaseAsync(again);
        var policy = Policy.Of("lease", PolicyDocument.Parse(claims.Policy!.ToJsonString()));
        Assert.Equal((6, true, 24 * 3600L), (policy.Get(Settings.SnapshotKeep), policy.Get(Settings.LayerApp), claims.Exp - claims.Iat));
        Assert.Equal((await world.Admin.ExplainPolicyAsync("desk", device.DeviceId)).Version, policy.Version);

        await again.AcknowledgePolicyAsync("desk", new AcknowledgePolicy(policy.Version, ["vm.autoFitCpu"], ["net.meteredBehaviour: it does not say"], [new StatedHostCheck("host.firewall", "failed", "it is off")]));
        var enforced = Assert.Single(await world.Admin.ListEnforcedPoliciesAsync());
        Assert.Equal((true, "vm.autoFitCpu", "net.meteredBehaviour: it does not say"), (enforced.IsCurrent, Assert.Single(enforced.FromNextStart), Assert.Single(enforced.Unenforceable)));
        Assert.Equal(new StatedHostCheck("host.firewall", "failed", "it is off"), Assert.Single(enforced.HostChecks));

        // Of the checks an audit line is what is news, not each word.
        await again.AcknowledgePolicyAsync("desk", new AcknowledgePolicy(policy.Version, HostChecks: [new StatedHostCheck("host.firewall", "failed", "it is still off")]));
        await again.AcknowledgePolicyAsync("desk", new AcknowledgePolicy(policy.Version, HostChecks: [new StatedHostCheck("host.firewall", "passed", "it is on")]));
        Assert.Equal(["host.firewall: failed", "all passed"], (await world.Admin.GetAuditAsync()).Entries.Where(entry => entry.Action == "host.check").Select(entry => entry.Detail));
        foreach (var wrong in new[] { new StatedHostCheck("host.firewall", "fine", "x"), new StatedHostCheck("", "passed", "x"), new StatedHostCheck("host.firewall", "passed", "a\u001b[31m"), null! })
        {
            Assert.Equal(ErrorCatalogue.RequestInvalid, (await Assert.ThrowsAsync<NacreException>(() => again.AcknowledgePolicyAsync("desk", new AcknowledgePolicy(policy.Version, HostChecks: [wrong])))).Kind);
        }

        await world.Admin.PatchPolicyAsync("group:staff", new Dictionary<string, object?> { ["snapshot.keep"] = null });
        Assert.False(Assert.Single(await world.Admin.ListEnforcedPoliciesAsync()).IsCurrent);

        // A group takes its policy with it.
        await world.Admin.RemoveGroupAsync("staff");
        await world.Admin.CreateGroupAsync("staff");
        Assert.Equal(PolicyDocument.Empty, await world.Admin.GetPolicyAsync("group:staff"));
        var entries = (await world.Admin.GetAuditAsync()).Entries;
        Assert.Equal(1, entries.Count(entry => entry.Action == "policy.change" && entry.Subject == $"device:{device.DeviceId}"));
        Assert.Contains(entries, entry => entry.Action == "policy.acknowledge" && entry.Actor == "device:" + device.DeviceId);
        client.Dispose();

        async Task<LeaseClaims> LeaseAsync(Client.NacreClient from) =>
            Jws.VerifyClaims<LeaseClaims>((await from.TakeLeaseAsync("desk", new TakeLease(null))).Lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceToken.LeaseType);
    }

    [Fact]
    public async Task What_was_decided_in_the_words_of_before_holds_after_the_servers_update()
    {
        using var folder = new TemporaryDirectory();
        var options = new DbContextOptionsBuilder<NacreDatabase>().UseSqlite($"Data Source={folder["old.db"]}").Options;
        await using var database = new NacreDatabase(options, new WriteGate());
        await database.GetService<IMigrator>().MigrateAsync("Approvals", TestContext.Current.CancellationToken);
        var old = """
            {"userApplications":false,"rules":["/srv data"],"userRejuvenation":"system","snapshotEveryHours":0,"keepSnapshots":7,"keepDays":30,"undoDays":1,"healthUnits":["ssh.service"],"healthMinutes":15,"updates":"deadline",
            "updateEveryMinutes":10080,"updateWindows":["18:00-06:00"],"updateOnMetered":true,"updateOnBattery":true,"updateDeadlineDays":2,"updatePostponements":0,"downloadBytesPerSecond":10000,"recordStarts":false}
            """;
        await database.Database.ExecuteSqlAsync(
            $"INSERT INTO Images (Name, LatestVersion, Kind) VALUES ('debian', 1, 0); INSERT INTO LivePcs (Name, Image, Channel, Policy) VALUES ('desk', 'debian', 'stable', {old}), ('bare', 'debian', 'stable', NULL)", TestContext.Current.CancellationToken);
        await database.Database.MigrateAsync(TestContext.Current.CancellationToken);
        var row = Assert.Single(await database.Policies.ToListAsync(TestContext.Current.CancellationToken));
        Assert.Equal("livepc:desk", row.Level);
        Assert.Equal(
            PolicyDocument.Parse("""
            {"layer.app":false,"layer.rules":["/srv data"],"rejuvenate.userAllowed":"system","snapshot.everyHours":0,"snapshot.keep":7,"rejuvenate.undoDays":1,"update.healthUnits":["ssh.service"],"update.apply":"deadline",
            "policyRefreshInterval":1440,"update.window":["18:00-06:00"],"net.meteredBehaviour":"go","prefetch.onBattery":true,"update.deadlineDays":2,"update.postponeMax":0,"update.bandwidthKbps":80,"telemetry.level":"off"}
            """), PolicyDocument.Parse(row.Document));
    }

    [Theory]
    [InlineData("false", "off")]
    [InlineData("true", "health")]
    public async Task Whether_starts_were_recorded_becomes_the_level_of_what_is_told(string before, string after)
    {
        await using var world = await StartAsync();
        await using var scope = world.App.Services.CreateAsyncScope();
        var database = scope.ServiceProvider.GetRequiredService<NacreDatabase>();
        await database.GetService<IMigrator>().MigrateAsync("PeopleDevicesKeysOrders", TestContext.Current.CancellationToken);
        var old = $$"""{"lease.hours":24,"telemetry.recordStarts":{{before}},"layer.rules":["/srv data"]}""";
        await world.SqlAsync($"INSERT INTO \"Policies\" (\"Level\", \"Document\") VALUES ('organisation', '{old}'), ('livepc:desk', '{{\"lease.hours\":25}}')");
        await database.Database.MigrateAsync(TestContext.Current.CancellationToken);
        Assert.Equal(PolicyDocument.Parse($$"""{"lease.hours":24,"layer.rules":["/srv data"],"telemetry.level":"{{after}}"}"""), await world.Admin.GetPolicyAsync("organisation"));
        Assert.Equal("""{"lease.hours":25}""", await world.SqlAsync("SELECT \"Document\" FROM \"Policies\" WHERE \"Level\" = 'livepc:desk'"));
    }

    [Fact]
    public async Task A_policy_that_is_wrong_or_at_a_level_that_there_is_not_changes_nothing()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (device, _, _) = await world.EnrolAsync();
        await world.EntitleAsync();
        foreach (var body in Wrong.Append("""{"kepDays":1}""").Append("[]").Append("""{"maxDevicesPerUser":2}"""))
        {
            foreach (var method in new[] { "PUT", "PATCH" })
            {
                var answer = await world.SendAsync(method, "/v1/policies/livepc:desk", world.Token, Json(body));
                if (method == "PATCH" && body.Contains("null", StringComparison.Ordinal))
                {
                    Assert.Equal(HttpStatusCode.OK, answer.StatusCode); // takes a decision back that nobody made
                    continue;
                }

                await ProblemAsync(answer, ErrorCatalogue.PolicyInvalid);
            }
        }

        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.PutPolicyAsync("livepc:none", PolicyDocument.Empty));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.PutPolicyAsync("group:none", PolicyDocument.Empty));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.PutPolicyAsync("device:none", PolicyDocument.Empty));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PutPolicyAsync("world", PolicyDocument.Empty));
        Assert.All((await world.Admin.ExplainPolicyAsync("desk", device.DeviceId)).Settings, one => Assert.Equal("factory", one.DecidedBy));
        Assert.DoesNotContain((await world.Admin.GetAuditAsync()).Entries, one => one.Action == "policy.change");
    }

    [Fact]
    public async Task A_device_acknowledges_only_for_LivePCs_that_its_user_is_entitled_to_and_in_bounds()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (_, _, client) = await world.EnrolAsync();
        await FailsAsync(ErrorCatalogue.NotEntitled, client.AcknowledgePolicyAsync("desk", new AcknowledgePolicy(Policy.Factory.Version)));
        await world.EntitleAsync();
        await FailsAsync(ErrorCatalogue.RequestInvalid, client.AcknowledgePolicyAsync("desk", new AcknowledgePolicy("x")));
        await FailsAsync(ErrorCatalogue.RequestInvalid, client.AcknowledgePolicyAsync("desk", new AcknowledgePolicy(Policy.Factory.Version, [.. Enumerable.Repeat("a", 101)])));
        await FailsAsync(ErrorCatalogue.RequestInvalid, client.AcknowledgePolicyAsync("desk", new AcknowledgePolicy(Policy.Factory.Version, null, ["a\nb"])));
        await FailsAsync(ErrorCatalogue.RequestInvalid, client.AcknowledgePolicyAsync("desk", new AcknowledgePolicy(Policy.Factory.Version, AcceptedTerms: "yes")));
        Assert.Empty(await world.Admin.ListEnforcedPoliciesAsync());
        await client.AcknowledgePolicyAsync("desk", new AcknowledgePolicy(Policy.Factory.Version));
        Assert.True(Assert.Single(await world.Admin.ListEnforcedPoliciesAsync()).IsCurrent);

        // Which terms of use were accepted: each once in the audit log, and known until others are.
        foreach (var terms in new[] { "0123456789abcdef", "0123456789abcdef", null, "fedcba9876543210" })
        {
            await client.AcknowledgePolicyAsync("desk", new AcknowledgePolicy(Policy.Factory.Version, AcceptedTerms: terms));
            Assert.Equal(terms ?? "0123456789abcdef", Assert.Single(await world.Admin.ListEnforcedPoliciesAsync()).AcceptedTerms);
        }

        Assert.Equal(["0123456789abcdef", "fedcba9876543210"], (await world.Admin.GetAuditAsync()).Entries.Where(entry => entry.Action == "terms.accept").Select(entry => entry.Detail));
        client.Dispose();
    }

    [Fact]
    public async Task A_user_has_as_many_devices_as_the_policy_says_and_a_revoked_one_makes_room()
    {
        await using var world = await StartAsync();
        var (first, _, _) = await world.EnrolAsync();
        await world.Admin.PutPolicyAsync("organisation", PolicyDocument.Empty.With(Settings.MaxDevicesPerUser, 2));
        await world.EnrolAsync();
        await FailsAsync(ErrorCatalogue.TooManyDevices, world.EnrolAsync());
        await world.EnrolAsync("bob");
        await world.Admin.RevokeDeviceAsync(first.DeviceId);
        await world.EnrolAsync();
        await FailsAsync(ErrorCatalogue.TooManyDevices, world.EnrolAsync());

        // A group's word counts for its users.
        await world.Admin.CreateGroupAsync("two-desks");
        await world.Admin.PutMemberAsync("two-desks", "ann", isMember: true);
        await world.Admin.PutPolicyAsync("group:two-desks", PolicyDocument.Empty.With(Settings.MaxDevicesPerUser, 3));
        await world.EnrolAsync();
    }

    [Fact]
    public async Task A_lease_says_which_of_the_groups_that_decide_about_applications_the_user_is_in_and_no_other()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (device, _, client) = await world.EnrolAsync();
        await world.EntitleAsync();
        foreach (var group in new[] { "press", "design", "chess" })
        {
            await world.Admin.CreateGroupAsync(group);
        }

        await world.Admin.PutMemberAsync("press", "ann", isMember: true);
        await world.Admin.PutMemberAsync("chess", "ann", isMember: true);
        Assert.Null((await ClaimsAsync()).Groups);
        await FailsAsync(ErrorCatalogue.PolicyInvalid, world.Admin.PutPolicyAsync("organisation", PolicyDocument.Empty.With(Settings.AppVisibility, ["gimp pres"])));
        await world.Admin.PutPolicyAsync("organisation", PolicyDocument.Empty.With(Settings.AppVisibility, ["gimp press design", "nginx -", "jq design", "vlc design", "vlc press"]));
        var claims = await ClaimsAsync();
        Assert.Equal(["press"], claims.Groups);
        var policy = Policy.Of("lease", PolicyDocument.Parse(claims.Policy!.ToJsonString()));
        Assert.Equal(["jq", "nginx"], AppVisibility.Hidden(policy, claims.Groups!));
        await world.Admin.PutMemberAsync("press", "ann", isMember: false);
        Assert.Equal(["gimp", "jq", "nginx", "vlc"], AppVisibility.Hidden(policy, (await ClaimsAsync()).Groups!));

        async Task<LeaseClaims> ClaimsAsync() =>
            Jws.VerifyClaims<LeaseClaims>((await client.TakeLeaseAsync("desk", new TakeLease(null))).Lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceToken.LeaseType);
    }

    [Fact]
    public async Task Groups_are_named_once_hold_users_and_are_ordered_whole()
    {
        await using var world = await StartAsync();
        await world.EnrolAsync();
        await FailsAsync(ErrorCatalogue.NameInvalid, world.Admin.CreateGroupAsync("No name"));
        await world.Admin.CreateGroupAsync("a");
        await world.Admin.CreateGroupAsync("b");
        await FailsAsync(ErrorCatalogue.AlreadyExists, world.Admin.CreateGroupAsync("a"));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.PutMemberAsync("c", "ann", isMember: true));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.PutMemberAsync("a", "nobody", isMember: true));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.RemoveGroupAsync("c"));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.OrderGroupsAsync(["b"]));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.OrderGroupsAsync(["b", "b"]));
        await world.Admin.PutMemberAsync("a", "ann", isMember: true);
        await world.Admin.PutMemberAsync("a", "ann", isMember: true);
        Assert.Equal(["b", "a"], (await world.Admin.OrderGroupsAsync(["b", "a"])).Select(group => group.Name));
        Assert.Equal(["ann"], (await world.Admin.ListGroupsAsync())[1].Users);
        await world.Admin.PutMemberAsync("a", "ann", isMember: false);
        await world.Admin.PutMemberAsync("a", "ann", isMember: false);
        Assert.Empty((await world.Admin.ListGroupsAsync())[1].Users);
    }
}
