using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>Who may call what: every endpoint that there is, tried as everybody that there is.</summary>
public class RoleTests
{
    private const string A = Roles.Administrator, U = Roles.Author, P = Roles.Approver, H = Roles.HelpDesk, D = Roles.Auditor, Own = "user";
    private static readonly string[] Everybody = [.. Roles.People], Staff = [A, U, P, H, D];

    /// <summary>Written by hand, so that a rule that was changed by mistake is noticed. Null: anybody.</summary>
    private static readonly Dictionary<string, string[]?> Expected = new(StringComparer.Ordinal)
    {
        ["GetServer"] = null, ["GetHealth"] = null, ["EnrolDevice"] = null, ["GetSegment"] = null, ["GetTrustFile"] = null, ["SignIn"] = null, ["AcceptInvitation"] = null,
        ["BeginOpenIdSignIn"] = null, ["EndOpenIdSignIn"] = null, ["BeginDeviceSignIn"] = null, ["PollDeviceSignIn"] = null,

        ["CreateAdministrator"] = [Roles.First], ["PutRoles"] = [Roles.First], ["RemoveAdministrator"] = [Roles.First], ["PutReleasePolicy"] = [Roles.First], ["PutOpenIdProvider"] = [Roles.First], ["RemoveOpenIdProvider"] = [Roles.First],
        ["ListAdministrators"] = [A, P, D], ["GetOpenIdProvider"] = [A, D],

        ["GetAccount"] = Everybody, ["ChangePassword"] = Everybody, ["BeginAuthenticator"] = Everybody, ["ConfirmAuthenticator"] = Everybody, ["DisableAuthenticator"] = Everybody, ["RenewRecoveryCodes"] = Everybody,
        ["ListSessions"] = Everybody, ["EndSession"] = Everybody, ["EndSessions"] = Everybody, ["SignOut"] = Everybody, ["ListOwnDevices"] = [Own], ["RevokeOwnDevice"] = [Own], ["CreateOwnEnrolmentCode"] = [Own],
        ["ListPeople"] = [A, H, D], ["Invite"] = [A, H], ["BlockPerson"] = [A, H],

        ["CreateUser"] = [A, H], ["ListUsers"] = [A, P, H, D], ["CreateGroup"] = [A], ["ListGroups"] = [A, H, D], ["OrderGroups"] = [A], ["RemoveGroup"] = [A], ["AddMember"] = [A], ["RemoveMember"] = [A],
        ["CreateEnrolmentCode"] = [A, H], ["ListDevices"] = [A, H, D], ["RevokeDevice"] = [A, H], ["CreateOrder"] = [A, H], ["ListOrders"] = [A, H, D], ["WithdrawOrder"] = [A, H],
        ["CreateLivePc"] = [A], ["ListLivePcs"] = Staff, ["GetLayers"] = Staff, ["PutLayers"] = [A], ["Entitle"] = [A, H], ["RemoveEntitlement"] = [A, H], ["ListReports"] = Staff, ["ListStarts"] = Staff,
        ["GetPolicy"] = [A, H, D], ["PutPolicy"] = [A], ["PatchPolicy"] = [A], ["ExplainPolicy"] = [A, H, D], ["ListEnforcedPolicies"] = [A, H, D], ["GetAudit"] = [A, D],

        ["PutSigningKey"] = [A], ["GetSigningKey"] = [A, U, P, D], ["ListImages"] = Staff, ["PublishRelease"] = [A, U], ["ListReleases"] = Staff, ["GetRelease"] = Staff, ["MoveChannel"] = [A, P], ["ListRollouts"] = Staff,
        ["StartRollout"] = [A, P], ["ChangeRollout"] = [A, P], ["SetRetention"] = [A], ["GetBootSet"] = [A, U, P, D], ["TrustRecording"] = [A, U], ["PutReport"] = [A, U], ["GetStanding"] = [A, U, P, D],
        ["GetSoftwareList"] = [A, U, P, D], ["DecideRelease"] = [A, P], ["GetReleasePolicy"] = [A, U, P, D], ["FindMissingSegments"] = [A, U], ["PutSegment"] = [A, U],
        ["GetTrust"] = Staff, ["PutTrustFile"] = [A, U], ["RenewOnlineKey"] = [A], ["GetOrigins"] = [A, U, D], ["PutOrigins"] = [A], ["CleanStore"] = [A], ["CheckStore"] = [A], ["CreateReplicaToken"] = [A],

        ["GetRecoveryKey"] = [A, H, D], ["PutRecoveryKey"] = [A], ["ListEscrows"] = [A, H, D], ["ReleaseEscrow"] = [A, H], ["PutEscrow"] = [Roles.Device],

        ["GetDevice"] = [A, H, D], ["ApproveDevice"] = [A, H], ["RejectDevice"] = [A, H], ["RenewCertificate"] = [Roles.Device],

        ["OrderKill"] = [A], ["ListDeviceOrders"] = [A, H, D], ["GetDeviceOrder"] = [A, H, D], ["ApproveDeviceOrder"] = [A], ["WithdrawDeviceOrder"] = [A], ["LiftDeviceOrder"] = [A], ["DeliverReceipt"] = null,
        ["OrderLog"] = [A, H], ["GetLog"] = [A, H], ["DeleteLog"] = [A, H], ["SendLog"] = [Roles.Device],
        ["FetchDeviceOrders"] = [Roles.Device], ["ListenForOrders"] = [Roles.Device], ["ExtendLease"] = [A, H],

        ["GetReplicaPlan"] = [Roles.Replica],
        ["ListEntitledLivePcs"] = [Roles.Device], ["TakeLease"] = [Roles.Device], ["StateAnchors"] = [Roles.Device], ["FetchOrders"] = [Roles.Device], ["AcknowledgePolicy"] = [Roles.Device], ["SendRecording"] = [Roles.Device], ["SendReport"] = [Roles.Device],
    };

    private static List<(string Name, string Method, string Pattern, RouteEndpoint Endpoint)> Endpoints(World world) =>
        [.. from endpoint in world.App.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            where !endpoint.RoutePattern.RawText!.Contains("openapi", StringComparison.Ordinal)
            select (endpoint.Metadata.GetMetadata<IEndpointNameMetadata>()!.EndpointName, endpoint.Metadata.GetMetadata<IHttpMethodMetadata>()!.HttpMethods[0], "/" + endpoint.RoutePattern.RawText!.TrimStart('/'), endpoint)];

    private static string Path(string pattern) => pattern.Replace(":int}", "}", StringComparison.Ordinal).Replace("{version}", "1", StringComparison.Ordinal).Replace("{part}", "1", StringComparison.Ordinal)
        .Replace("{", "", StringComparison.Ordinal).Replace("}", "", StringComparison.Ordinal);

    /// <summary>A new session of somebody with these roles.</summary>
    private static async Task<string> SessionAsync(World world, string person, bool isFederated = false)
    {
        await using var scope = world.App.Services.CreateAsyncScope();
        var database = scope.ServiceProvider.GetRequiredService<NacreDatabase>();
        await using var transaction = await database.BeginWriteAsync(default);
        var session = await scope.ServiceProvider.GetRequiredService<Sessions>().BeginAsync(person, Roles.People, "test", isFederated, default);
        await transaction.CommitAsync(default);
        return session.Token;
    }

    [Fact]
    public async Task Every_endpoint_lets_in_whom_its_rule_names_and_nobody_else()
    {
        await using var world = await StartAsync();
        await using var elsewhere = await StartInsideAsync(world);
        foreach (var role in PeopleRoles.Staff)
        {
            await world.Admin.CreateAdministratorAsync(new CreateAdministrator("the-" + role, [role]));
        }

        var (device, key, _) = await world.EnrolAsync("ann");
        await world.AllowDevicesAsync(9);
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["enrolment.bySelf"] = true });
        var (revoked, revokedKey, _) = await world.EnrolAsync("ann");
        await world.Admin.RevokeDeviceAsync(revoked.DeviceId);
        var (foreign, foreignKey, _) = await elsewhere.EnrolAsync("ann");
        var removed = await world.Admin.CreateAdministratorAsync(new CreateAdministrator("the-removed"));
        await world.Admin.RemoveAdministratorAsync("the-removed");
        await world.Admin.CreateUserAsync(new CreateUser("bob", null));
        var outdated = await SessionAsync(world, "bob");
        world.Time.Advance(Sessions.Life);
        var ended = await SessionAsync(world, "ann");
        Assert.Equal(HttpStatusCode.NoContent, (await world.SendAsync("POST", "v1/sign-out", ended)).StatusCode);

        // Each makes its credential anew: what it may do ends some of them.
        string Sign(EnrolledDevice who, DeviceKey with, string method, string path, string? body) => with.SignToken(who.DeviceId, method, path, Encoding.UTF8.GetBytes(body ?? ""), world.Time.GetUtcNow());
        var callers = new Dictionary<string, (string[] Roles, Func<string, string, string?, Task<string?>> Token)>(StringComparer.Ordinal)
        {
            ["first administrator"] = ([Roles.First, A], (_, _, _) => Task.FromResult<string?>(world.Token)),
            ["user"] = (["user"], async (_, _, _) => await SessionAsync(world, "ann")),
            ["device"] = ([Roles.Device], (method, path, body) => Task.FromResult<string?>(Sign(device, key, method, path, body))),
            ["replica"] = ([Roles.Replica], async (_, _, _) => (await world.Admin.CreateReplicaTokenAsync()).Token),
            ["nobody"] = ([], (_, _, _) => Task.FromResult<string?>(null)),
            ["nonsense"] = ([], (_, _, _) => Task.FromResult<string?>("nonsense")),
            ["revoked device"] = ([], (method, path, body) => Task.FromResult<string?>(Sign(revoked, revokedKey, method, path, body))),
            ["removed administrator"] = ([], (_, _, _) => Task.FromResult<string?>(removed.Token)),
            ["session of yesterday"] = ([], (_, _, _) => Task.FromResult<string?>(outdated)),
            ["session that was ended"] = ([], (_, _, _) => Task.FromResult<string?>(ended)),
            ["first administrator of another organisation"] = ([], (_, _, _) => Task.FromResult<string?>(elsewhere.Token)),
            ["user of another organisation"] = ([], async (_, _, _) => await SessionAsync(elsewhere, "ann")),
            ["device of another organisation"] = ([], (method, path, body) => Task.FromResult<string?>(Sign(foreign, foreignKey, method, path, body))),
        };
        foreach (var role in PeopleRoles.Staff)
        {
            callers[role] = ([role], async (_, _, _) => await SessionAsync(world, "the-" + role));
        }

        var wrong = new List<string>();
        foreach (var (name, method, pattern, _) in Endpoints(world))
        {
            var (path, body) = (Path(pattern), method is "GET" or "HEAD" or "DELETE" ? null : "{}");
            foreach (var (caller, (roles, token)) in callers)
            {
                var content = body is null ? null : new StringContent(body, new MediaTypeHeaderValue(name == "PutSegment" ? "application/octet-stream" : "application/json"));
                var bearer = await token(method, path, body);
                using var response = await world.SendAsync(method, path, bearer, content);
                var code = response.Content.Headers.ContentType?.MediaType == "application/problem+json" ? JsonSerializer.Deserialize<Problem>(await response.Content.ReadAsStringAsync(), ContractJson.Options)!.Code : "";
                var isAllowed = Expected[name] is not { } rule || rule.Any(roles.Contains) || (caller == "revoked device" && (name is "FetchDeviceOrders" or "ListenForOrders")); // it comes for its last orders
                var refused = roles.Length > 0 ? ErrorCatalogue.Forbidden.Code
                    : caller.StartsWith("session", StringComparison.Ordinal) && caller.EndsWith("yesterday", StringComparison.Ordinal) ? ErrorCatalogue.SessionEnded.Code
                    : caller == "revoked device" ? ErrorCatalogue.DeviceRevoked.Code : ErrorCatalogue.Unauthenticated.Code;
                if (isAllowed ? code == ErrorCatalogue.Forbidden.Code || code == ErrorCatalogue.Unauthenticated.Code || code == ErrorCatalogue.SessionEnded.Code || code == ErrorCatalogue.DeviceRevoked.Code || (int)response.StatusCode >= 500 : code != refused)
                {
                    wrong.Add($"{name} as {caller}: {(int)response.StatusCode} {code}");
                }
            }
        }

        Assert.Empty(wrong);
    }

    [Fact]
    public async Task Every_rule_is_the_one_that_is_expected()
    {
        await using var world = await StartAsync();
        var endpoints = Endpoints(world);
        Assert.Equal(Expected.Keys.Order(StringComparer.Ordinal), endpoints.Select(one => one.Name).Order(StringComparer.Ordinal));
        Assert.All(endpoints, one => Assert.Equal((one.Name, string.Join(' ', (Expected[one.Name] ?? []).Order(StringComparer.Ordinal))), (one.Name, string.Join(' ', Groups.RolesOf(one.Endpoint).Order(StringComparer.Ordinal)))));
    }

    [Theory]
    [InlineData("")]
    [InlineData("somebody")]
    [InlineData("administrator,somebody")]
    [InlineData("administrator", "user")]
    public void An_endpoint_whose_rule_is_none_stops_the_server(params string[] rules)
    {
        var endpoint = new Endpoint(null, new EndpointMetadataCollection(rules.Select(rule => new Microsoft.AspNetCore.Authorization.AuthorizeAttribute { Roles = rule })), "wrong");
        Assert.Throws<InvalidOperationException>(() => Groups.CheckComplete([endpoint]));
    }

    [Fact]
    public async Task The_table_of_roles_is_the_one_that_the_server_has()
    {
        await using var world = await StartAsync();
        string[] columns = [Roles.First, .. PeopleRoles.Staff, Roles.User, Roles.Device, Roles.Replica];
        var table = new StringBuilder("| endpoint | what it does | " + string.Join(" | ", columns) + " |\n|---|---|" + string.Concat(columns.Select(_ => "---|")) + "\n");
        foreach (var (_, method, pattern, endpoint) in Endpoints(world).OrderBy(one => one.Pattern, StringComparer.Ordinal).ThenBy(one => one.Method, StringComparer.Ordinal))
        {
            var roles = Groups.RolesOf(endpoint);
            var cells = columns.Select(column => roles.Count == 0 || roles.Contains(column) || (column == Roles.First && roles.Contains(A)) ? "x" : "");
            var summary = endpoint.Metadata.GetMetadata<Microsoft.AspNetCore.Http.Metadata.IEndpointSummaryMetadata>()!.Summary;
            table.Append(System.Globalization.CultureInfo.InvariantCulture, $"| `{method} {pattern}` | {summary}{(roles.Count == 0 ? " (anybody)" : "")} | {string.Join(" | ", cells)} |\n");
        }

        var file = Repository.At("docs", "roles.md");
        var text = (await File.ReadAllTextAsync(file)).ReplaceLineEndings("\n");
        var begin = text.IndexOf("| endpoint |", StringComparison.Ordinal);
        var written = text[..begin] + table;
        if (Environment.GetEnvironmentVariable("NACRE_WRITE_DOCS") == "1")
        {
            await File.WriteAllTextAsync(file, written);
        }

        Assert.True(written == text || Environment.GetEnvironmentVariable("NACRE_WRITE_DOCS") == "1", "docs/roles.md is not what the server has: run this test with NACRE_WRITE_DOCS=1, and read the difference");
    }

    [Fact]
    public async Task An_author_publishes_and_an_approver_approves_and_neither_does_both()
    {
        await using var world = await StartAsync();
        await world.TrustAsync();
        NacreClient As(CreatedAdministrator who) => new(world.Url, Credential.Person(who.Token), world.Time);
        using var author = As(await world.Admin.CreateAdministratorAsync(new CreateAdministrator("kim", [U])));
        using var approver = As(await world.Admin.CreateAdministratorAsync(new CreateAdministrator("lee", [P])));
        using var both = As(await world.Admin.CreateAdministratorAsync(new CreateAdministrator("max", [U, P])));
        await world.Admin.PutReleasePolicyAsync(new ReleasePolicy([], 1));
        await world.Admin.PutSigningKeyAsync(PublicKeys.From(world.Publisher));
        async Task PublishAsync(NacreClient client, int version) =>
            await client.PublishReleaseAsync("debian", new PublishRelease(Jws.SignClaims(await world.ManifestAsync(version), world.Publisher), Convert.ToBase64String(new byte[32])));
        await PublishAsync(author, 1);
        await FailsAsync(ErrorCatalogue.Forbidden, author.DecideReleaseAsync("debian", 1, new DecideRelease(true, null)));
        await FailsAsync(ErrorCatalogue.Forbidden, author.MoveChannelAsync("debian", "stable", 1));
        await FailsAsync(ErrorCatalogue.NotApproved, approver.MoveChannelAsync("debian", "stable", 1));
        await FailsAsync(ErrorCatalogue.Forbidden, PublishAsync(approver, 2));
        await approver.DecideReleaseAsync("debian", 1, new DecideRelease(true, null));
        await approver.MoveChannelAsync("debian", "stable", 1);
        await PublishAsync(both, 2);
        await FailsAsync(ErrorCatalogue.Forbidden, both.DecideReleaseAsync("debian", 2, new DecideRelease(true, null)));

        // Who is no approver any more has approved nothing, and an author puts no root.
        await approver.DecideReleaseAsync("debian", 2, new DecideRelease(true, null));
        Assert.Empty((await world.Admin.GetStandingAsync("debian", 2)).Lacks);
        await world.Admin.PutRolesAsync("lee", [D]);
        await FailsAsync(ErrorCatalogue.NotApproved, both.MoveChannelAsync("debian", "stable", 2));
        Assert.Equal("only an organisation administrator can put a root", (await FailsAsync(ErrorCatalogue.Forbidden, author.PutTrustFileAsync("root", "{}"))).Message);
        Assert.Contains((await world.Admin.GetAuditAsync()).Entries, entry => entry is { Actor: "approver:lee", Action: "release.approve", Subject: "debian/1" });
        Assert.Contains((await world.Admin.GetAuditAsync()).Entries, entry => entry is { Actor: "author:kim", Action: "release.publish" });
    }

    [Fact]
    public async Task A_user_whose_name_is_that_of_the_first_administrator_is_nobody_special()
    {
        await using var world = await StartAsync();
        await world.Admin.CreateUserAsync(new CreateUser("administrator", null));
        var session = await SessionAsync(world, "administrator");
        await ProblemAsync(await world.SendAsync("PUT", "v1/release-policy", session, Json(new ReleasePolicy([], 0))), ErrorCatalogue.Forbidden);
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.InviteAsync("administrator", new CreateInvitation(null)));
    }

    [Theory]
    [InlineData("[]")]
    [InlineData("[\"user\"]")]
    [InlineData("[\"first-administrator\"]")]
    [InlineData("[\"author\",\"author\"]")]
    [InlineData("[\"author\",null]")]
    [InlineData("[\"author,administrator\"]")]
    public async Task Only_roles_of_staff_are_given(string roles)
    {
        await using var world = await StartAsync();
        await ProblemAsync(await world.SendAsync("POST", "v1/administrators", world.Token, Json("{\"name\":\"kim\",\"roles\":" + roles + "}")), ErrorCatalogue.RequestInvalid);
        await world.Admin.CreateAdministratorAsync(new CreateAdministrator("kim"));
        await ProblemAsync(await world.SendAsync("PUT", "v1/administrators/kim/roles", world.Token, Json("{\"roles\":" + roles + "}")), ErrorCatalogue.RequestInvalid);
    }
}
