using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Routing;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Migrations;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Policies;
using Nacre.Testing;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>Who did what, from where, with what result: all of it, nothing secret, and nothing that can be changed unnoticed.</summary>
public class AuditTests
{
    /// <summary>Endpoints that change nothing that matters, or what other lines tell.</summary>
    private static readonly Dictionary<string, string> WithoutLine = new()
    {
        ["CheckStore"] = "reads the store",
        ["FindMissingSegments"] = "asks; only puts off the cleaning of what is asked for",
        ["BeginDeviceSignIn"] = "anybody may begin one; who ends it has a line",
        ["PollDeviceSignIn"] = "asks; the session that it may give has a line, which OpenIdTests see",
        ["PutOpenIdProvider"] = "needs a provider: OpenIdTests see its line",
        ["RemoveOpenIdProvider"] = "the same",
        ["PutSegment"] = "ciphertext that nothing refers to before a release does, which has a line",
    };

    [Fact]
    public async Task The_audit_log_says_who_did_what_in_pages()
    {
        await using var world = await StartAsync();
        await world.Admin.CreateUserAsync(new CreateUser("ann", null));
        await world.Admin.CreateUserAsync(new CreateUser("bob", null));
        var log = await world.Admin.GetAuditAsync();
        Assert.True(log.Verified);
        Assert.Equal(["server.create", "user.create", "user.create"], log.Entries.Select(entry => entry.Action));
        Assert.Equal([1, 2, 3], log.Entries.Select(entry => entry.Sequence));
        Assert.Equal("bob", Assert.Single((await world.Admin.GetAuditAsync(after: 2)).Entries).Subject);
        Assert.Equal("ann", Assert.Single((await world.Admin.GetAuditAsync(after: 1, limit: 1)).Entries).Subject);
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.GetAuditAsync(limit: 1001));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.GetAuditAsync(after: -1));
    }

    [Theory]
    [InlineData("UPDATE \"Audit\" SET \"Subject\" = 'eve' WHERE \"Sequence\" = 2", 2)]
    [InlineData("UPDATE \"Audit\" SET \"At\" = \"At\" + 1 WHERE \"Sequence\" = 3", 3)]
    [InlineData("DELETE FROM \"Audit\" WHERE \"Sequence\" = 2", 2)]
    [InlineData("UPDATE \"Audit\" SET \"Action\" = 'user.creat', \"Subject\" = 'e' || \"Subject\" WHERE \"Sequence\" = 2", 2)]
    public async Task A_changed_audit_line_is_noticed(string sql, long first)
    {
        await using var world = await StartAsync();
        await world.Admin.CreateUserAsync(new CreateUser("ann", null));
        await world.Admin.CreateUserAsync(new CreateUser("bob", null));
        var refused = await Assert.ThrowsAnyAsync<System.Data.Common.DbException>(() => world.SqlAsync(sql));
        Assert.Contains("append-only", refused.Message, StringComparison.Ordinal);
        Assert.True((await world.Admin.GetAuditAsync()).Verified);
        var on = world.Cluster is null ? "" : " ON \"Audit\"";
        await world.SqlAsync($"DROP TRIGGER \"AuditIsNotChanged\"{on}; DROP TRIGGER \"AuditIsNotRemoved\"{on}; {sql}");
        var log = await world.Admin.GetAuditAsync();
        Assert.False(log.Verified);
        Assert.Equal(first, log.FirstWrongSequence);
    }

    [Fact]
    public async Task A_line_says_from_where_and_with_what_result()
    {
        await using var world = await StartAsync();
        await world.Admin.CreateUserAsync(new CreateUser("ann", null));
        var lines = (await world.Admin.GetAuditAsync()).Entries;
        Assert.Equal((2, null, AuditResult.Done), (lines[0].Format, lines[0].Source, lines[0].Result)); // the server itself, at its first start
        Assert.Equal((2, "127.0.0.1", AuditResult.Done), (lines[1].Format, lines[1].Source, lines[1].Result));
    }

    [Theory]
    [InlineData(null, "127.0.0.1")]
    [InlineData("192.0.2.0/24", "127.0.0.1")]
    [InlineData("127.0.0.0/8", "198.51.100.7")]
    public async Task Only_a_proxy_that_is_trusted_says_from_where(string? trusted, string expected)
    {
        using var directory = new TemporaryDirectory();
        await using var server = NacreServer.Create(new ServerOptions { DataDirectory = directory["data"], Listen = "http://127.0.0.1:0", TrustedProxies = trusted is null ? [] : [IPNetwork.Parse(trusted)] });
        await NacreServer.StartAsync(server);
        using var http = new HttpClient { BaseAddress = new Uri(server.Urls.Single()) };
        http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", (await File.ReadAllTextAsync(Path.Combine(directory["data"], "admin-token"))).Trim());

        // What stands before the last one that is not a proxy was said by anybody.
        http.DefaultRequestHeaders.Add("X-Forwarded-For", "203.0.113.9, 198.51.100.7");
        using var response = await http.PostAsync(new Uri("v1/users", UriKind.Relative), Json("""{"name":"ann"}"""));
        Assert.Equal(HttpStatusCode.Created, response.StatusCode);
        using var admin = new NacreClient(http.BaseAddress, Credential.Administrator(http.DefaultRequestHeaders.Authorization.Parameter!));
        Assert.Equal(expected, Assert.Single((await admin.GetAuditAsync(action: "user.create")).Entries).Source);
    }

    [Fact]
    public async Task What_was_refused_is_written_with_who_tried()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (device, _, client) = await world.EnrolAsync();
        using var bob = new NacreClient(world.Url, Credential.Administrator((await world.Admin.CreateAdministratorAsync(new CreateAdministrator("bob"))).Token));
        await FailsAsync(ErrorCatalogue.NotEntitled, client.TakeLeaseAsync("desk", new TakeLease(null)));
        await FailsAsync(ErrorCatalogue.Forbidden, bob.CreateAdministratorAsync(new CreateAdministrator("eve")));
        await ProblemAsync(await world.SendAsync("GET", "v1/users", "wrong-token-canary"), ErrorCatalogue.Unauthenticated);
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.RevokeDeviceAsync("Secret-In-The-Wrong-Place"));
        await world.Admin.RevokeDeviceAsync(device.DeviceId);
        await FailsAsync(ErrorCatalogue.DeviceRevoked, client.ListEntitledLivePcsAsync());
        var refused = (await world.Admin.GetAuditAsync()).Entries.Where(entry => entry.Result == AuditResult.Refused).ToList();
        Assert.Equal(
            [
                ($"device:{device.DeviceId}", "request", "TakeLease desk"), ("administrator:bob", "request", "CreateAdministrator"), ("nobody", "sign-in", "ListUsers"),
                ("administrator", "request", "RevokeDevice ?"), ($"device:{device.DeviceId}", "sign-in", "ListEntitledLivePcs"),
            ],
            refused.Select(entry => (entry.Actor, entry.Action, entry.Subject)));
        Assert.StartsWith("E_NOT_ENTITLED: ", refused[0].Detail, StringComparison.Ordinal);
        Assert.All(refused, entry => Assert.Equal("127.0.0.1", entry.Source));
        Assert.DoesNotContain("canary", string.Join('\n', refused), StringComparison.Ordinal);
        Assert.True((await world.Admin.GetAuditAsync()).Verified);
    }

    [Theory]
    [InlineData("""{"a\u0000canary": 1}""")]
    [InlineData("""{"name": "ann", "canary\n2 forged": 1}""")]
    [InlineData("""{"name": "Canary\ud83d\ude00"}""")]
    public async Task What_a_caller_wrote_is_not_in_the_line_of_its_refusal(string body)
    {
        await using var world = await StartAsync();
        await world.SendAsync("POST", "v1/users", world.Token, Json(body));
        var line = (await world.Admin.GetAuditAsync()).Entries[^1];
        Assert.Equal(("request", "CreateUser", AuditResult.Refused), (line.Action, line.Subject, line.Result));
        Assert.DoesNotContain("canary", line.ToString(), StringComparison.OrdinalIgnoreCase);
        Assert.DoesNotContain("could not be written", world.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Who_asks_for_what_is_refused_fills_no_disk_and_hides_no_insider()
    {
        await using var world = await StartAsync();
        using var bob = new NacreClient(world.Url, Credential.Administrator((await world.Admin.CreateAdministratorAsync(new CreateAdministrator("bob"))).Token));
        for (var i = 0; i < Refusals.MostOfSource + 7; i++)
        {
            await world.SendAsync("GET", "v1/users");
        }

        await FailsAsync(ErrorCatalogue.Forbidden, bob.CreateAdministratorAsync(new CreateAdministrator("eve")));
        Assert.Equal(Refusals.MostOfSource, (await world.Admin.GetAuditAsync(action: "sign-in")).Entries.Count);
        Assert.Single((await world.Admin.GetAuditAsync(actor: "administrator:bob")).Entries);
        var refusals = world.App.Services.GetRequiredService<Refusals>();
        await refusals.WriteLeftOutAsync(all: false, default);
        Assert.Empty((await world.Admin.GetAuditAsync(action: "audit.left-out")).Entries);
        world.Time.Advance(TimeSpan.FromHours(1));
        await refusals.WriteLeftOutAsync(all: false, default);
        await refusals.WriteLeftOutAsync(all: false, default);
        var line = Assert.Single((await world.Admin.GetAuditAsync(action: "audit.left-out")).Entries);
        Assert.Equal(("server", null, "strangers"), (line.Actor, line.Source, line.Subject));
        Assert.StartsWith("7 refusals since 2026-03-01 12:00:00Z are not written, of 1 sources: 127.0.0.1 7", line.Detail, StringComparison.Ordinal);

        // The next hour is another one, and the server's end tells what is left.
        for (var i = 0; i < Refusals.MostOfSource + 2; i++)
        {
            await world.SendAsync("GET", "v1/users");
        }

        await world.StartAgainAsync();
        Assert.StartsWith("2 refusals", (await world.Admin.GetAuditAsync(action: "audit.left-out")).Entries[^1].Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Lines_can_be_asked_for_by_actor_action_and_time()
    {
        await using var world = await StartAsync();
        await world.Admin.CreateUserAsync(new CreateUser("ann", null));
        world.Time.Advance(TimeSpan.FromMinutes(1));
        var later = world.Time.GetUtcNow();
        await world.Admin.CreateUserAsync(new CreateUser("bob", null));
        await world.Admin.PutOriginsAsync(new StoreOrigins(["https://cdn.example.com/"]));
        Assert.Equal(["ann", "bob"], (await world.Admin.GetAuditAsync(action: "user.create")).Entries.Select(entry => entry.Subject));
        Assert.Equal(["bob", "origins"], (await world.Admin.GetAuditAsync(since: later)).Entries.Select(entry => entry.Subject));
        Assert.Equal("server.create", Assert.Single((await world.Admin.GetAuditAsync(actor: "server")).Entries).Action);
        Assert.Empty((await world.Admin.GetAuditAsync(actor: "administrator' OR 1=1 --")).Entries);

        // What is shown of a part is verified as it is of the whole.
        var on = world.Cluster is null ? "" : " ON \"Audit\"";
        await world.SqlAsync($"DROP TRIGGER \"AuditIsNotChanged\"{on}; UPDATE \"Audit\" SET \"Source\" = '192.0.2.1' WHERE \"Sequence\" = 3");
        var found = await world.Admin.GetAuditAsync(action: "user.create");
        Assert.Equal((false, 3L), (found.Verified, found.FirstWrongSequence));
        Assert.True((await world.Admin.GetAuditAsync(actor: "server")).Verified);
    }

    [Fact]
    public async Task Lines_of_before_there_was_a_source_stay_valid_and_are_followed_by_new_ones()
    {
        using var directory = new TemporaryDirectory();
        Directory.CreateDirectory(directory["data"]);
        var options = new DbContextOptionsBuilder<NacreDatabase>().UseSqlite($"Data Source={directory["data/nacre.db"]};Pooling=False").Options;
        await using (var before = new NacreDatabase(options, new WriteGate()))
        {
            await before.GetService<IMigrator>().MigrateAsync("Approvals");
            var hash = new byte[32];
            for (var sequence = 1; sequence <= 2; sequence++)
            {
                var at = DateTimeOffset.FromUnixTimeMilliseconds(1_700_000_000_123 + sequence);
                hash = AuditChain.HashOf(new AuditEntry(1, sequence, at, "administrator", null, "user.create", "zoë", null, "x", ""), hash)!;
                await before.Database.ExecuteSqlAsync($"INSERT INTO Audit (Sequence, At, Actor, Action, Subject, Detail, Hash) VALUES ({sequence}, {at.ToUnixTimeMilliseconds()}, 'administrator', 'user.create', 'zoë', 'x', {hash})");
            }
        }

        // What version 0.1.0 wrote for these lines.
        await using var server = NacreServer.Create(new ServerOptions { DataDirectory = directory["data"], Listen = "http://127.0.0.1:0" });
        await NacreServer.StartAsync(server);
        using var admin = new NacreClient(new Uri(server.Urls.Single()), Credential.Administrator((await File.ReadAllTextAsync(directory["data/admin-token"])).Trim()));
        var log = await admin.GetAuditAsync();
        Assert.True(log.Verified);
        Assert.Equal([(1, null), (1, null), (2, AuditResult.Done)], log.Entries.Select(entry => (entry.Format, entry.Result)));
        Assert.Equal(V1Hash(log.Entries[0], new byte[32]), log.Entries[0].Hash);
    }

    [Fact]
    public void What_no_format_has_has_no_hash()
    {
        var entry = new AuditEntry(2, 1, DateTimeOffset.UnixEpoch, "a", null, "b", "c", AuditResult.Done, "d", "");
        Assert.NotNull(AuditChain.HashOf(entry, new byte[32]));
        Assert.Null(AuditChain.HashOf(entry with { Format = 3 }, new byte[32]));
        Assert.Null(AuditChain.HashOf(entry with { Result = null }, new byte[32]));
        Assert.Null(AuditChain.HashOf(entry with { Source = "" }, new byte[32]));
        Assert.Null(AuditChain.HashOf(entry with { Format = 1 }, new byte[32]));
    }

    /// <summary>Everything that can be done at a server, once: each endpoint that changes something has a line, and no line (nor the log) has a secret.</summary>
    [Fact]
    public async Task Every_endpoint_that_changes_something_writes_a_line_and_none_has_a_secret()
    {
        await using var world = await StartAsync();
        var lines = new Dictionary<string, string[]>(StringComparer.Ordinal);
        var secrets = new List<string> { world.Token };
        async Task<T> DoAsync<T>(string endpoint, Func<Task<T>> act)
        {
            var last = (await world.Admin.GetAuditAsync()).Entries[^1].Sequence;
            var answer = await act();
            lines[endpoint] = [.. (await world.Admin.GetAuditAsync(last)).Entries.Where(entry => entry.Result == AuditResult.Done).Select(entry => entry.Action)];
            return answer;
        }

        static async Task<int> Nothing(Task act)
        {
            await act;
            return 0;
        }

        await DoAsync("CreateUser", () => world.Admin.CreateUserAsync(new CreateUser("ann", null)));
        await DoAsync("PutTrustFile", () => Nothing(world.TrustAsync()));
        await DoAsync("PutSigningKey", () => world.Admin.PutSigningKeyAsync(PublicKeys.From(world.Publisher)));
        secrets.Add(Convert.ToBase64String(await DoAsync("PublishRelease", () => world.PublishAsync(channel: null))));
        await DoAsync("MoveChannel", () => world.Admin.MoveChannelAsync("debian", "stable", 1));
        secrets.Add(Convert.ToBase64String(await world.PublishAsync(2, channel: null)));
        await LayerTests.PublishLayerAsync(world, "editor", 1, LayerTests.Contents());
        await DoAsync("CreateLivePc", () => world.Admin.CreateLivePcAsync(new CreateLivePc("desk", "debian", null)));
        await DoAsync("Entitle", () => Nothing(world.Admin.EntitleAsync("desk", "ann")));
        await DoAsync("PutLayers", () => world.Admin.PutLayersAsync("desk", [new("editor", null)]));
        await DoAsync("CreateGroup", () => world.Admin.CreateGroupAsync("staff"));
        await DoAsync("AddMember", () => Nothing(world.Admin.PutMemberAsync("staff", "ann", isMember: true)));
        await DoAsync("OrderGroups", () => world.Admin.OrderGroupsAsync(["staff"]));
        await DoAsync("PutPolicy", () => world.Admin.PutPolicyAsync("group:staff", PolicyDocument.Empty.With(Settings.SnapshotKeepDays, 3)));
        await DoAsync("PatchPolicy", () => world.Admin.PatchPolicyAsync("livepc:desk", new Dictionary<string, object?> { ["snapshot.keepDays"] = 4 }));
        var code = await DoAsync("CreateEnrolmentCode", () => world.Admin.CreateEnrolmentCodeAsync(new CreateEnrolmentCode("ann", null)));
        Assert.True(EnrolmentCode.TryParse(code.Code, out var parsed));
        secrets.AddRange(code.Code, parsed.Secret);
        using var key = DeviceKey.Create();
        var device = await DoAsync("EnrolDevice", () => world.Nobody.EnrolAsync(parsed, "laptop", key));
        await world.AllowDevicesAsync(5);
        using var spareKey = DeviceKey.Create();
        var spare = await world.Nobody.EnrolAsync(await world.CodeAsync(), "spare", spareKey);
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["enrolmentApproval"] = "manual" });
        var (waiting, _, _) = await world.EnrolAsync();
        await DoAsync("ApproveDevice", () => world.Admin.ApproveDeviceAsync(waiting.DeviceId));
        (waiting, _, _) = await world.EnrolAsync();
        await DoAsync("RejectDevice", () => world.Admin.RejectDeviceAsync(waiting.DeviceId));
        using var client = world.As(device, key);
        var grant = await DoAsync("TakeLease", () => client.TakeLeaseAsync("desk", new TakeLease(null, Anchors: [new StatedAnchor(new LayerAnchor("data", Guid.NewGuid(), 1, 9), null)])));
        var keys = key.DecryptKeys(grant.Keys);
        secrets.AddRange([keys.Share, .. keys.ReleaseKeys.Values, grant.Lease, grant.Keys]);
        await DoAsync("StateAnchors", () => client.StateAnchorsAsync("desk", new StateAnchors("n", [new StatedAnchor(new LayerAnchor("data", Guid.NewGuid(), 1, 1), null)])));
        secrets.Add((await DoAsync("ExtendLease", () => world.Admin.ExtendLeaseAsync(new ExtendLease(ExtensionCode.Request(device.DeviceId, 0), "desk", 24)))).Code);
        await DoAsync("AcknowledgePolicy", () => Nothing(client.AcknowledgePolicyAsync("desk", new AcknowledgePolicy(Policy.Factory.Version))));
        using (var recovery = ECDsa.Create(ECCurve.NamedCurves.nistP256))
        {
            await DoAsync("PutRecoveryKey", () => world.Admin.PutRecoveryKeyAsync(new RecoveryKey(Nacre.Contracts.Trust.TrustKey.From(recovery).Pem)));
            var escrow = new PutEscrow(1, Nacre.Contracts.Trust.TrustKey.From(recovery).Id, Jwe.Encrypt([1, 2, 3], PublicKeys.From(recovery)));
            secrets.Add(escrow.Keys);
            await DoAsync("PutEscrow", () => Nothing(client.PutEscrowAsync("desk", escrow)));
            await DoAsync("ReleaseEscrow", () => world.Admin.ReleaseEscrowAsync(device.DeviceId, "desk", "forgotten"));
        }

        var order = await DoAsync("CreateOrder", () => world.Admin.CreateOrderAsync("desk", new CreateOrder(device.DeviceId, RejuvenationDepth.Settings)));
        await DoAsync("FetchOrders", () => client.FetchOrdersAsync("desk", new FetchOrders("n", [new OrderReceipt(order.Id, true, world.Time.GetUtcNow(), "done")])));
        var other = await world.Admin.CreateOrderAsync("desk", new CreateOrder(device.DeviceId, RejuvenationDepth.Settings));
        await DoAsync("WithdrawOrder", () => world.Admin.WithdrawOrderAsync(other.Id));
        await DoAsync("SendReport", () => Nothing(client.SendReportAsync("desk", new SendReport(SegmentName(), world.Time.GetUtcNow(), ReportKind.SetAside, [new ReleaseName("debian", 1)], "it did not start", ""))));
        Assert.True(Jws.TryRead<ReleaseManifest>(System.Buffers.Text.Base64Url.DecodeFromChars((await world.Admin.GetReleaseAsync("debian", 1)).Manifest.Split('.')[1]), out var manifest));
        await DoAsync("SendRecording", () => Nothing(client.SendRecordingAsync("desk", new SendRecording(manifest.Name, Convert.ToBase64String(BootSet.Encode([new StoredRange(manifest.Segments[0].Name, 32, 100)]))))));
        await DoAsync("TrustRecording", () => world.Admin.TrustRecordingAsync("debian", 1, device.DeviceId));
        await DoAsync("StartRollout", () => world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2, [50])));
        await DoAsync("ChangeRollout", () => world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Pause));
        await world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Withdraw);
        var asked = await DoAsync("OrderLog", () => world.Admin.OrderLogAsync(device.DeviceId, new OrderLog("desk", "it does not start")));
        await client.FetchDeviceOrdersAsync(new FetchDeviceOrders("n"));
        await DoAsync("SendLog", () => Nothing(client.SendLogAsync(asked.Id, new SendLog([LogLine.Of(world.Time.GetUtcNow(), "desk", EventLevel.Error, "start.failed", "no lease")]))));
        await DoAsync("DeleteLog", () => Nothing(world.Admin.DeleteLogAsync(asked.Id)));
        var report = new ReleaseReport(1, "debian", 1, Convert.ToHexStringLower(SHA256.HashData(System.Buffers.Text.Base64Url.DecodeFromChars((await world.Admin.GetReleaseAsync("debian", 1)).Manifest.Split('.')[1]))), 1, [new CheckResult(ReleaseChecks.Malware, CheckOutcome.Passed, "nothing found", [], 0)], null, null);
        await DoAsync("PutReport", () => Nothing(world.Admin.PutReportAsync("debian", 1, new PutReport(Jws.SignClaims(report, world.Publisher, ReleaseReport.Type)))));
        var bob = await DoAsync("CreateAdministrator", () => world.Admin.CreateAdministratorAsync(new CreateAdministrator("bob")));
        secrets.Add(bob.Token);
        using (var asBob = new NacreClient(world.Url, Credential.Administrator(bob.Token)))
        {
            await DoAsync("DecideRelease", () => Nothing(asBob.DecideReleaseAsync("debian", 1, new DecideRelease(true, null))));
            await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["kill.requireTwoAdmins"] = "always" });
            var kill = (await DoAsync("OrderKill", () => world.Admin.OrderKillAsync(new OrderKill([device.DeviceId])))).Single();
            await DoAsync("ApproveDeviceOrder", () => asBob.ApproveDeviceOrderAsync(kill.Id));
            await DoAsync("WithdrawDeviceOrder", () => world.Admin.WithdrawDeviceOrderAsync(kill.Id));
        }

        await DoAsync("PutRoles", () => world.Admin.PutRolesAsync("bob", [PeopleRoles.Auditor]));
        var invitation = await DoAsync("Invite", () => world.Admin.InviteAsync("ann", new CreateInvitation(null)));
        const string Password = "correct horse battery canary", NextPassword = "incorrect mule battery canary";
        await DoAsync("AcceptInvitation", () => world.Nobody.AcceptInvitationAsync(new AcceptInvitation(invitation.Code, Password)));
        var signedIn = await DoAsync("SignIn", () => world.Nobody.SignInAsync(new SignIn("ann", Password, null)));
        secrets.AddRange(invitation.Code, Password, NextPassword, signedIn.Token);
        using (var ann = new NacreClient(world.Url, Credential.Person(signedIn.Token)))
        {
            signedIn = await DoAsync("ChangePassword", () => ann.ChangePasswordAsync(new ChangePassword(Password, NextPassword)));
            secrets.Add(signedIn.Token);
        }

        using (var ann = new NacreClient(world.Url, Credential.Person(signedIn.Token)))
        {
            var authenticator = await DoAsync("BeginAuthenticator", () => ann.BeginAuthenticatorAsync(NextPassword));
            var codes = await DoAsync("ConfirmAuthenticator", () => ann.ConfirmAuthenticatorAsync(new OtpNet.Totp(OtpNet.Base32Encoding.ToBytes(authenticator.Secret)).ComputeTotp(world.Time.GetUtcNow().UtcDateTime)));
            secrets.AddRange([authenticator.Secret, authenticator.Uri, .. codes.Codes, .. (await DoAsync("RenewRecoveryCodes", () => ann.RenewRecoveryCodesAsync(NextPassword))).Codes]);
            await DoAsync("DisableAuthenticator", () => Nothing(ann.DisableAuthenticatorAsync(NextPassword)));
            await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["enrolment.bySelf"] = true });
            secrets.Add((await DoAsync("CreateOwnEnrolmentCode", () => ann.CreateOwnEnrolmentCodeAsync())).Code);
            await DoAsync("RevokeOwnDevice", () => ann.RevokeOwnDeviceAsync(spare.DeviceId));
            var second = await ann.SignInAsync(new SignIn("ann", NextPassword, null));
            secrets.Add(second.Token);
            await DoAsync("EndSession", async () => await Nothing(ann.EndSessionAsync((await ann.ListSessionsAsync()).Single(one => !one.IsThis).Id)));
            second = await ann.SignInAsync(new SignIn("ann", NextPassword, null));
            using var again = new NacreClient(world.Url, Credential.Person(second.Token));
            await DoAsync("SignOut", () => Nothing(again.SignOutAsync()));
            await DoAsync("EndSessions", () => Nothing(ann.EndSessionAsync(null)));
        }

        await DoAsync("BlockPerson", () => Nothing(world.Admin.BlockPersonAsync("ann")));
        await DoAsync("RemoveAdministrator", () => Nothing(world.Admin.RemoveAdministratorAsync("bob")));
        await DoAsync("PutReleasePolicy", () => world.Admin.PutReleasePolicyAsync(new ReleasePolicy([], 0)));
        await DoAsync("PutOrigins", () => world.Admin.PutOriginsAsync(new StoreOrigins(["https://cdn.example.com/"])));
        secrets.Add((await DoAsync("CreateReplicaToken", () => world.Admin.CreateReplicaTokenAsync())).Token);
        await DoAsync("SetRetention", () => world.Admin.SetRetentionAsync("debian", 5));
        await world.UploadAsync();
        world.Time.Advance(TimeSpan.FromDays(3));
        await DoAsync("CleanStore", () => world.Admin.CleanStoreAsync(dryRun: false));
        await DoAsync("RemoveMember", () => Nothing(world.Admin.PutMemberAsync("staff", "ann", isMember: false)));
        await DoAsync("RemoveGroup", () => Nothing(world.Admin.RemoveGroupAsync("staff")));
        await DoAsync("RemoveEntitlement", () => Nothing(world.Admin.RemoveEntitlementAsync("desk", "ann")));
        await DoAsync("RevokeDevice", () => world.Admin.RevokeDeviceAsync(device.DeviceId));
        var revoke = (await world.Admin.ListDeviceOrdersAsync()).First(one => one is { Act: DeviceAct.Revoke, LivePc: null });
        await DoAsync("FetchDeviceOrders", () => client.FetchDeviceOrdersAsync(new FetchDeviceOrders("n")));
        await DoAsync("DeliverReceipt", () => Nothing(world.Nobody.DeliverReceiptAsync(new DeliverReceipt(
            revoke.SignedOrder!, key.SignReceipt(new DeviceReceiptClaims(device.DeviceId, revoke.Id, DeviceReceiptClaims.DigestOf(revoke.SignedOrder!), true, 1_800_000_000, "done"))))));
        await DoAsync("LiftDeviceOrder", () => world.Admin.LiftDeviceOrderAsync(revoke.Id));
        await DoAsync("RenewOnlineKey", () => Nothing(world.SendAsync("POST", "v1/trust-key", world.Token)));

        Assert.All(secrets, secret => Assert.DoesNotContain(secret, world.Log.Text, StringComparison.Ordinal));

        // Secrets where they do not belong, and what is refused.
        foreach (var secret in secrets.ToList())
        {
            await world.SendAsync("POST", $"v1/devices/{Uri.EscapeDataString(secret)}/revoke", world.Token);
            await world.SendAsync("GET", $"v1/users?token={Uri.EscapeDataString(secret)}", secret.Length > 1000 ? "x" : secret + "x");
            await world.SendAsync("POST", "v1/users", world.Token, Json(new CreateUser(secret, null)));
            await world.SendAsync("PATCH", "v1/policies/organisation", world.Token, Json(new Dictionary<string, object> { [secret.Length > 60 ? secret[..60] : secret] = 1, ["update.healthUnits"] = new[] { secret } }));
            await world.SendAsync("POST", "v1/sign-in", null, Json(new SignIn(secret, secret, secret)));
            await world.SendAsync("POST", "v1/devices", null, Json(new { codeId = secret, deviceName = secret, proof = secret }));
        }

        var expected = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["ChangeRollout"] = "rollout.pause", ["CleanStore"] = "store.clean", ["CreateAdministrator"] = "administrator.create", ["CreateEnrolmentCode"] = "enrolment-code.create", ["CreateLivePc"] = "livepc.create",
            ["CreateOrder"] = "order.create", ["CreateReplicaToken"] = "replica.token", ["CreateUser"] = "user.create", ["DecideRelease"] = "release.approve", ["EnrolDevice"] = "device.enrol", ["Entitle"] = "livepc.entitle",
            ["FetchOrders"] = "order.done", ["MoveChannel"] = "channel.move", ["PublishRelease"] = "release.publish", ["PutPolicy"] = "policy.change", ["PatchPolicy"] = "policy.change", ["AcknowledgePolicy"] = "policy.acknowledge", ["CreateGroup"] = "group.create", ["AddMember"] = "group.add", ["ApproveDevice"] = "device.approve", ["RejectDevice"] = "device.reject", ["OrderGroups"] = "group.order",
            ["RemoveMember"] = "group.drop", ["RemoveGroup"] = "group.remove", ["PutLayers"] = "livepc.layers", ["PutOrigins"] = "store.origins",
            ["PutReleasePolicy"] = "release-policy.put", ["PutReport"] = "release.check", ["PutSigningKey"] = "signing-key.register", ["PutTrustFile"] = "trust.put", ["RemoveAdministrator"] = "administrator.remove",
            ["RemoveEntitlement"] = "livepc.disentitle", ["RenewOnlineKey"] = "trust.online-key", ["RevokeDevice"] = "device.revoke", ["SendRecording"] = "boot-set.record", ["SendReport"] = "device.report",
            ["PutRoles"] = "administrator.roles", ["Invite"] = "person.invite", ["AcceptInvitation"] = "account.password", ["SignIn"] = "sign-in", ["ChangePassword"] = "account.password", ["BeginAuthenticator"] = "account.authenticator",
            ["ConfirmAuthenticator"] = "account.authenticator", ["RenewRecoveryCodes"] = "account.recovery-codes", ["DisableAuthenticator"] = "account.authenticator", ["RevokeOwnDevice"] = "device.revoke", ["CreateOwnEnrolmentCode"] = "enrolment-code.create", ["EndSession"] = "sign-out",
            ["SignOut"] = "sign-out", ["EndSessions"] = "sign-out.everywhere", ["BlockPerson"] = "person.block", ["SetRetention"] = "image.retention", ["StartRollout"] = "rollout.start", ["TakeLease"] = "lease.grant", ["TrustRecording"] = "boot-set.trust", ["WithdrawOrder"] = "order.withdraw",
            ["PutRecoveryKey"] = "recovery.key", ["PutEscrow"] = "recovery.escrow", ["ReleaseEscrow"] = "recovery.release",
            ["OrderKill"] = "kill.order", ["ApproveDeviceOrder"] = "kill.approve", ["WithdrawDeviceOrder"] = "kill.withdraw", ["LiftDeviceOrder"] = "revoke.lift", ["FetchDeviceOrders"] = "revoke.deliver",
            ["OrderLog"] = "logs.order", ["SendLog"] = "logs.send", ["DeleteLog"] = "logs.delete", ["DeliverReceipt"] = "revoke.confirm", ["ExtendLease"] = "lease.extend",
        };
        foreach (var (endpoint, action) in expected)
        {
            Assert.True(lines[endpoint].Contains(action), $"{endpoint} wrote {string.Join(", ", lines[endpoint])}, not {action}");
        }

        // What StateAnchors refuses is what it has a line for.
        Assert.Contains((await world.Admin.GetAuditAsync(action: "anchor.refuse")).Entries, entry => entry.Result == AuditResult.Refused);
        var changing = world.App.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .Where(endpoint => endpoint.Metadata.GetMetadata<IHttpMethodMetadata>()!.HttpMethods.Any(method => method is not ("GET" or "HEAD")))
            .Select(endpoint => endpoint.Metadata.GetMetadata<Microsoft.AspNetCore.Routing.IEndpointNameMetadata>()!.EndpointName).ToList();
        Assert.Equal(expected.Keys.Append("StateAnchors").Append("RenewCertificate") // which TlsTests does, and looks for its line
            .Concat(WithoutLine.Keys).Order(StringComparer.Ordinal), changing.Order(StringComparer.Ordinal));

        var log = await world.Admin.GetAuditAsync();
        Assert.True(log.Verified);
        Assert.InRange(log.Entries.Count, 40, 999);
        var said = string.Join('\n', log.Entries);
        Assert.All(secrets, secret => Assert.DoesNotContain(secret, said, StringComparison.Ordinal));
    }

    /// <summary>The first format, made by hand.</summary>
    private static string V1Hash(AuditEntry entry, byte[] previous)
    {
        static byte[] Number(long value) => BitConverter.IsLittleEndian ? [.. BitConverter.GetBytes(value).Reverse()] : BitConverter.GetBytes(value);
        IEnumerable<byte> bytes = [.. "nacre-audit-1"u8, .. previous, .. Number(entry.Sequence), .. Number(entry.At.ToUnixTimeMilliseconds())];
        foreach (var text in new[] { entry.Actor, entry.Action, entry.Subject, entry.Detail })
        {
            var utf8 = Encoding.UTF8.GetBytes(text);
            bytes = [.. bytes, .. Number(utf8.Length), .. utf8];
        }

        return Convert.ToHexStringLower(SHA256.HashData([.. bytes]));
    }
}
