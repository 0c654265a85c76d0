using System.Diagnostics;
using System.Net;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Client;
using Nacre.Contracts;
using OtpNet;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>People who sign in: passwords, authenticators, recovery codes, invitations, sessions, and those who try to be somebody else.</summary>
public class AccountTests
{
    private const string Password = "correct horse battery staple", Other = "another password altogether";

    private static NacreClient As(World world, SignedIn session) => new(world.Url, Credential.Person(session.Token), world.Time);

    private static async Task<SignedIn> SignInAsync(World world, string name = "ann", string password = Password, string? code = null) => await world.Nobody.SignInAsync(new SignIn(name, password, code));

    private static Task<NacreException> RefusedAsync(World world, string name = "ann", string password = Other, string? code = null) => FailsAsync(ErrorCatalogue.SignInRefused, SignInAsync(world, name, password, code));

    /// <summary>Less work for each password; <see cref="A_user_chooses_a_password_by_invitation_signs_in_and_sees_what_is_its_own"/> has the real amount.</summary>
    private static Task<World> StartQuicklyAsync(PostgresCluster? cluster = null) => StartAsync(builder => builder.Services.AddSingleton(new Passwords(1024, 1)), cluster);

    private static async Task<World> StartWithAnnAsync()
    {
        var world = await StartQuicklyAsync();
        await world.Admin.CreateUserAsync(new CreateUser("ann", null));
        await AcceptAsync(world, "ann");
        return world;
    }

    private static async Task AcceptAsync(World world, string name, string password = Password, NacreClient? by = null, bool removesSecondFactor = false) =>
        await world.Nobody.AcceptInvitationAsync(new AcceptInvitation((await (by ?? world.Admin).InviteAsync(name, new CreateInvitation(null, removesSecondFactor))).Code, password));

    private static async Task<(Totp Authenticator, IReadOnlyList<string> Codes)> EnableAsync(World world, NacreClient client)
    {
        var authenticator = new Totp(Base32Encoding.ToBytes((await client.BeginAuthenticatorAsync(Password)).Secret));
        return (authenticator, (await client.ConfirmAuthenticatorAsync(Now(world, authenticator))).Codes);
    }

    private static string Now(World world, Totp authenticator) => authenticator.ComputeTotp(world.Time.GetUtcNow().UtcDateTime);

    [Fact]
    public async Task A_user_chooses_a_password_by_invitation_signs_in_and_sees_what_is_its_own()
    {
        await using var world = await StartAsync();
        var (device, _, _) = await world.EnrolAsync("ann");
        var (bobs, _, _) = await world.EnrolAsync("bob");
        await RefusedAsync(world, password: Password);
        await AcceptAsync(world, "ann");
        var session = await SignInAsync(world);
        Assert.Equal("ann", session.Name);
        Assert.Equal(["user"], session.Roles);
        using var ann = As(world, session);
        Assert.Equal(new Account("ann", [], true, false, 0), await ann.GetAccountAsync() with { Roles = [] });
        Assert.Equal(device.DeviceId, Assert.Single(await ann.ListOwnDevicesAsync()).Id);
        await FailsAsync(ErrorCatalogue.NotFound, ann.RevokeOwnDeviceAsync(bobs.DeviceId));
        Assert.True((await ann.RevokeOwnDeviceAsync(device.DeviceId)).Revoked);

        // A device of one's own without an administrator's code, where the policy lets users do that, and one for oneself alone.
        await FailsAsync(ErrorCatalogue.Forbidden, ann.CreateOwnEnrolmentCodeAsync());
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["enrolment.bySelf"] = true });
        var code = await ann.CreateOwnEnrolmentCodeAsync();
        Assert.Equal(world.Time.GetUtcNow().AddMinutes(10), code.ExpiresAt);
        Assert.True(EnrolmentCode.TryParse(code.Code, out var typed));
        using (var key = DeviceKey.Create())
        {
            Assert.Equal("ann", (await world.Nobody.EnrolAsync(typed, "tablet", key)).User);
        }

        Assert.Contains((await world.Admin.GetAuditAsync(action: "enrolment-code.create")).Entries, entry => entry.Actor == "user:ann" && entry.Detail == "for ann");
        await FailsAsync(ErrorCatalogue.Forbidden, ann.ListDevicesAsync());
        var shown = Assert.Single(await ann.ListSessionsAsync());
        Assert.Equal((true, "password", "127.0.0.1"), (shown.IsThis, shown.Method, shown.Source));
        var person = (await world.Admin.ListPeopleAsync()).Single(one => one.Name == "ann");
        Assert.Equal((true, false, false, 1), (person.HasPassword, person.HasAuthenticator, person.IsInvited, person.Sessions));

        // What the database has opens nothing.
        var stored = (string)(await world.SqlAsync("SELECT \"Password\" FROM \"Accounts\""))!;
        Assert.StartsWith("$argon2id$v=19$m=65536,t=2,p=1$", stored, StringComparison.Ordinal);

        // One that was made with less is made anew at the next sign-in.
        var weak = new Passwords(1024, 1);
        await world.SqlAsync($"UPDATE \"Accounts\" SET \"Password\" = '{(await weak.HashAsync(Password, default)).Value}'");
        await SignInAsync(world);
        Assert.StartsWith("$argon2id$v=19$m=65536,t=2,p=1$", (string)(await world.SqlAsync("SELECT \"Password\" FROM \"Accounts\""))!, StringComparison.Ordinal);
        Assert.Contains((await world.Admin.GetAuditAsync()).Entries, entry => entry is { Actor: "user:ann", Action: "sign-in", Detail: "password" });
    }

    [Fact]
    public async Task A_restarted_server_knows_its_sessions_and_another_server_of_the_database_too()
    {
        await using var world = await StartWithAnnAsync();
        var session = await SignInAsync(world);
        await world.StartAgainAsync();
        using var ann = As(world, session);
        Assert.Equal("ann", (await ann.GetAccountAsync()).Name);
        await ann.SignOutAsync();
        await FailsAsync(ErrorCatalogue.Unauthenticated, ann.GetAccountAsync());
    }

    [Fact]
    public async Task Sessions_end_by_time_by_rest_and_by_their_owner()
    {
        await using var world = await StartWithAnnAsync();
        using var ann = As(world, await SignInAsync(world));
        world.Time.Advance(Sessions.IdleLife - TimeSpan.FromSeconds(1));
        await ann.GetAccountAsync();
        world.Time.Advance(Sessions.IdleLife - TimeSpan.FromSeconds(1));
        await ann.GetAccountAsync();
        world.Time.Advance(Sessions.IdleLife);
        await FailsAsync(ErrorCatalogue.SessionEnded, ann.GetAccountAsync());
        using var again = As(world, await SignInAsync(world));
        for (var i = 0; i < 12; i++)
        {
            await again.GetAccountAsync();
            world.Time.Advance(TimeSpan.FromHours(1));
        }

        await FailsAsync(ErrorCatalogue.SessionEnded, again.GetAccountAsync());
        using var third = As(world, await SignInAsync(world));
        using var fourth = As(world, await SignInAsync(world));
        await third.EndSessionAsync((await third.ListSessionsAsync()).Single(one => !one.IsThis).Id);
        await FailsAsync(ErrorCatalogue.Unauthenticated, fourth.GetAccountAsync());
        await world.Admin.CreateUserAsync(new CreateUser("bob", null));
        await AcceptAsync(world, "bob");
        using var bob = As(world, await SignInAsync(world, "bob"));
        await FailsAsync(ErrorCatalogue.NotFound, bob.EndSessionAsync((await third.ListSessionsAsync()).Single().Id));
        await third.EndSessionAsync(null);
        await FailsAsync(ErrorCatalogue.Unauthenticated, third.GetAccountAsync());
        await bob.GetAccountAsync();
    }

    [Fact]
    public async Task A_new_password_other_roles_and_removal_end_every_session()
    {
        await using var world = await StartWithAnnAsync();
        using var first = As(world, await SignInAsync(world));
        using var second = As(world, await SignInAsync(world));
        await FailsAsync(ErrorCatalogue.SignInRefused, second.ChangePasswordAsync(new ChangePassword(Other, "yet another password")));
        using var third = As(world, await second.ChangePasswordAsync(new ChangePassword(Password, Other)));
        await FailsAsync(ErrorCatalogue.Unauthenticated, first.GetAccountAsync());
        await FailsAsync(ErrorCatalogue.Unauthenticated, second.GetAccountAsync());
        await third.GetAccountAsync();
        await RefusedAsync(world, password: Password);

        // An invitation that is used does the same.
        await AcceptAsync(world, "ann");
        await FailsAsync(ErrorCatalogue.Unauthenticated, third.GetAccountAsync());

        // Who becomes an administrator begins anew: what a help desk could do to a user's account reaches no administrator's.
        using var fourth = As(world, await SignInAsync(world));
        var before = await world.Admin.InviteAsync("ann", new CreateInvitation(null));
        await world.Admin.CreateAdministratorAsync(new CreateAdministrator("ann", [PeopleRoles.HelpDesk]));
        await FailsAsync(ErrorCatalogue.Unauthenticated, fourth.GetAccountAsync());
        await FailsAsync(ErrorCatalogue.InvitationWrong, world.Nobody.AcceptInvitationAsync(new AcceptInvitation(before.Code, Password)));
        await RefusedAsync(world, password: Password);
        await AcceptAsync(world, "ann");
        using var fifth = As(world, await SignInAsync(world));
        Assert.Equal([PeopleRoles.HelpDesk, PeopleRoles.User], (await fifth.GetAccountAsync()).Roles);
        await world.Admin.PutRolesAsync("ann", [PeopleRoles.Auditor]);
        await FailsAsync(ErrorCatalogue.Unauthenticated, fifth.GetAccountAsync());
        using var sixth = As(world, await SignInAsync(world));
        await sixth.GetAuditAsync();
        await world.Admin.RemoveAdministratorAsync("ann");
        await FailsAsync(ErrorCatalogue.Unauthenticated, sixth.GetAccountAsync());
        await RefusedAsync(world, password: Password);
    }

    [Fact]
    public async Task A_help_desk_invites_users_and_nobody_who_has_more_rights()
    {
        await using var world = await StartWithAnnAsync();
        await world.Admin.CreateAdministratorAsync(new CreateAdministrator("kim", [PeopleRoles.HelpDesk]));
        await world.Admin.CreateAdministratorAsync(new CreateAdministrator("lee", [PeopleRoles.Administrator]));
        await AcceptAsync(world, "kim");
        await AcceptAsync(world, "lee");
        using var kim = As(world, await SignInAsync(world, "kim"));
        using var lee = As(world, await SignInAsync(world, "lee"));
        await AcceptAsync(world, "ann", Other, kim);
        await SignInAsync(world, password: Other);
        foreach (var client in new[] { kim, lee })
        {
            await FailsAsync(ErrorCatalogue.Forbidden, client.InviteAsync("lee", new CreateInvitation(null)));
            await FailsAsync(ErrorCatalogue.Forbidden, client.InviteAsync("kim", new CreateInvitation(null)));
            await FailsAsync(ErrorCatalogue.Forbidden, client.BlockPersonAsync("lee"));
            await FailsAsync(ErrorCatalogue.Forbidden, client.PutRolesAsync("kim", [PeopleRoles.Administrator]));
            await FailsAsync(ErrorCatalogue.NotFound, client.InviteAsync("nobody", new CreateInvitation(null)));
        }

        await kim.BlockPersonAsync("ann");
        await RefusedAsync(world, password: Other);
    }

    [Fact]
    public async Task An_invitation_works_once_until_it_expires_and_the_next_replaces_it()
    {
        await using var world = await StartWithAnnAsync();
        var first = await world.Admin.InviteAsync("ann", new CreateInvitation(3600));
        var second = await world.Admin.InviteAsync("ann", new CreateInvitation(3600));
        await FailsAsync(ErrorCatalogue.InvitationWrong, world.Nobody.AcceptInvitationAsync(new AcceptInvitation(first.Code, Other)));
        await FailsAsync(ErrorCatalogue.InvitationWrong, world.Nobody.AcceptInvitationAsync(new AcceptInvitation("", Other)));
        foreach (var unfit in new[] { "short", "ann ann ann ann", "aaaaaaaaaaaaaaaaaaa", new string('x', 300) })
        {
            await FailsAsync(ErrorCatalogue.PasswordUnfit, world.Nobody.AcceptInvitationAsync(new AcceptInvitation(second.Code, unfit)));
        }

        await world.Nobody.AcceptInvitationAsync(new AcceptInvitation(second.Code.ToUpperInvariant(), Other));
        await FailsAsync(ErrorCatalogue.InvitationWrong, world.Nobody.AcceptInvitationAsync(new AcceptInvitation(second.Code, Password)));
        await SignInAsync(world, password: Other);
        var third = await world.Admin.InviteAsync("ann", new CreateInvitation(3600));
        world.Time.Advance(TimeSpan.FromHours(1));
        await FailsAsync(ErrorCatalogue.InvitationWrong, world.Nobody.AcceptInvitationAsync(new AcceptInvitation(third.Code, Password)));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.InviteAsync("ann", new CreateInvitation(long.MaxValue)));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.InviteAsync("ann", new CreateInvitation(-1)));
    }

    [Fact]
    public async Task A_code_of_the_authenticator_is_asked_for_and_works_once()
    {
        await using var world = await StartWithAnnAsync();
        using var ann = As(world, await SignInAsync(world));
        await FailsAsync(ErrorCatalogue.SignInRefused, ann.BeginAuthenticatorAsync(Other));
        await ann.BeginAuthenticatorAsync(Password);
        await SignInAsync(world); // not confirmed: not asked for
        await FailsAsync(ErrorCatalogue.SignInRefused, ann.ConfirmAuthenticatorAsync("000000"));
        var (authenticator, codes) = await EnableAsync(world, ann);
        Assert.Equal(10, codes.Distinct().Count());
        await FailsAsync(ErrorCatalogue.SecondFactorNeeded, SignInAsync(world));
        await RefusedAsync(world, password: Other); // not told that a code is needed
        await RefusedAsync(world, password: Password, code: Now(world, authenticator)); // was used to confirm
        world.Time.Advance(TimeSpan.FromSeconds(30));
        var code = Now(world, authenticator);
        await SignInAsync(world, code: code);
        await RefusedAsync(world, password: Password, code: code);
        world.Time.Advance(TimeSpan.FromSeconds(30));
        await RefusedAsync(world, password: Password, code: code);
        world.Time.Advance(TimeSpan.FromMinutes(5));
        await RefusedAsync(world, password: Password, code: authenticator.ComputeTotp(world.Time.GetUtcNow().UtcDateTime - TimeSpan.FromSeconds(90)));
        await SignInAsync(world, code: authenticator.ComputeTotp(world.Time.GetUtcNow().UtcDateTime - TimeSpan.FromSeconds(30)));
        await FailsAsync(ErrorCatalogue.AlreadyExists, ann.BeginAuthenticatorAsync(Password));
    }

    [Fact]
    public async Task One_code_at_once_from_several_places_lets_in_one()
    {
        await using var world = await StartWithAnnAsync();
        using var ann = As(world, await SignInAsync(world));
        var (authenticator, codes) = await EnableAsync(world, ann);
        world.Time.Advance(TimeSpan.FromMinutes(1));
        foreach (var code in new[] { Now(world, authenticator), codes[3] })
        {
            var tries = await Task.WhenAll(Enumerable.Range(0, 4).Select(async _ =>
            {
                using var response = await world.SendAsync("POST", "v1/sign-in", null, Json(new SignIn("ann", Password, code)));
                return response.StatusCode;
            }));
            Assert.Single(tries, HttpStatusCode.OK);
        }
    }

    [Fact]
    public async Task A_recovery_code_signs_in_once_and_new_ones_void_those_before()
    {
        await using var world = await StartWithAnnAsync();
        using var ann = As(world, await SignInAsync(world));
        var (_, codes) = await EnableAsync(world, ann);
        using var recovered = As(world, await SignInAsync(world, code: codes[0].ToUpperInvariant()));
        Assert.Equal(9, (await recovered.GetAccountAsync()).RecoveryCodesLeft);
        await RefusedAsync(world, password: Password, code: codes[0]);
        var renewed = await recovered.RenewRecoveryCodesAsync(Password);
        await RefusedAsync(world, password: Password, code: codes[1]);
        await SignInAsync(world, code: renewed.Codes[1]);
        await recovered.DisableAuthenticatorAsync(Password);
        await SignInAsync(world);
        await RefusedAsync(world, password: Other, code: renewed.Codes[2]);
    }

    [Fact]
    public async Task Who_lost_the_authenticator_is_let_in_by_an_invitation_that_says_so()
    {
        await using var world = await StartWithAnnAsync();
        using (var ann = As(world, await SignInAsync(world)))
        {
            await EnableAsync(world, ann);
        }

        await AcceptAsync(world, "ann", Other);
        await FailsAsync(ErrorCatalogue.SecondFactorNeeded, SignInAsync(world, password: Other));
        await AcceptAsync(world, "ann", Other, removesSecondFactor: true);
        await SignInAsync(world, password: Other);
    }

    [Fact]
    public async Task Guesses_of_a_password_cost_time_which_a_restart_does_not_give_back()
    {
        await using var world = await StartWithAnnAsync();
        for (var i = 0; i < Throttle.FreeTries; i++)
        {
            await RefusedAsync(world);
        }

        await FailsAsync(ErrorCatalogue.TooManyTries, SignInAsync(world)); // though it is the right one
        await world.StartAgainAsync();
        Assert.Contains("in 30 seconds", (await FailsAsync(ErrorCatalogue.TooManyTries, SignInAsync(world))).Message, StringComparison.Ordinal);
        world.Time.Advance(Throttle.FirstWait);
        await RefusedAsync(world);
        world.Time.Advance(Throttle.FirstWait);
        await FailsAsync(ErrorCatalogue.TooManyTries, SignInAsync(world));
        world.Time.Advance(Throttle.FirstWait);
        await SignInAsync(world);

        // It was right: nothing is owed.
        for (var i = 0; i < Throttle.FreeTries; i++)
        {
            await RefusedAsync(world);
        }

        world.Time.Advance(Throttle.LongestWait);
        await SignInAsync(world);
    }

    [Fact]
    public async Task Guesses_at_once_are_counted_as_guesses_one_after_another()
    {
        await using var world = await StartWithAnnAsync();
        var answers = await Task.WhenAll(Enumerable.Range(0, 20).Select(async _ =>
        {
            using var response = await world.SendAsync("POST", "v1/sign-in", null, Json(new SignIn("ann", Other, null)));
            return response.StatusCode;
        }));
        Assert.Equal(Throttle.FreeTries, answers.Count(answer => answer == HttpStatusCode.Unauthorized));
        Assert.Equal(20 - Throttle.FreeTries, answers.Count(answer => answer == HttpStatusCode.TooManyRequests));
    }

    [Fact]
    public async Task A_source_that_guesses_at_many_names_is_held_up_and_a_stolen_session_guesses_no_better()
    {
        await using var world = await StartWithAnnAsync();
        using var ann = As(world, await SignInAsync(world));
        for (var i = 0; i < Throttle.FreeTries; i++)
        {
            await FailsAsync(ErrorCatalogue.SignInRefused, ann.BeginAuthenticatorAsync(Other));
        }

        await FailsAsync(ErrorCatalogue.TooManyTries, ann.ChangePasswordAsync(new ChangePassword(Password, Other)));
        await world.SqlAsync($"UPDATE \"Throttles\" SET \"Tries\" = {Throttle.MostOfSource - 1} WHERE \"Key\" LIKE 'sign-in:%'");
        await RefusedAsync(world, "eve");
        await FailsAsync(ErrorCatalogue.TooManyTries, SignInAsync(world, "bob"));
        world.Time.Advance(Throttle.SourceSpan);
        await RefusedAsync(world, "bob");
    }

    [Fact]
    public async Task A_name_that_there_is_not_looks_and_lasts_like_one_that_there_is()
    {
        await using var world = await StartAsync();
        await world.Admin.CreateUserAsync(new CreateUser("ann", null));
        await AcceptAsync(world, "ann");
        await world.Admin.CreateUserAsync(new CreateUser("bob", null)); // has no password
        var problems = new List<(string, string)>();
        var times = new List<TimeSpan>();
        foreach (var name in new[] { "ann", "bob", "eve", "", "Not A Name", new string('x', 500), "administrator" })
        {
            var begun = Stopwatch.GetTimestamp();
            var failure = await RefusedAsync(world, name);
            times.Add(Stopwatch.GetElapsedTime(begun));
            problems.Add((failure.Kind.Code, failure.Message));
        }

        Assert.Single(problems.Distinct());

        // Each verified a password: nothing is answered in a tenth of the time of another.
        Assert.True(times.Min() > times.Max() / 10, string.Join(' ', times));
        for (var i = 0; i < Throttle.FreeTries - 1; i++)
        {
            await RefusedAsync(world, "eve");
            await RefusedAsync(world);
        }

        Assert.Equal((await FailsAsync(ErrorCatalogue.TooManyTries, SignInAsync(world))).Message, (await FailsAsync(ErrorCatalogue.TooManyTries, SignInAsync(world, "eve"))).Message);
    }

    [Fact]
    public async Task A_token_has_no_password_to_change()
    {
        await using var world = await StartAsync();
        using var kim = new NacreClient(world.Url, Credential.Person((await world.Admin.CreateAdministratorAsync(new CreateAdministrator("kim"))).Token));
        await AcceptAsync(world, "kim");
        foreach (var client in new[] { world.Admin, kim })
        {
            await FailsAsync(ErrorCatalogue.NoPassword, client.ChangePasswordAsync(new ChangePassword(Password, Other)));
            await FailsAsync(ErrorCatalogue.NoPassword, client.BeginAuthenticatorAsync(Password));
            Assert.False((await client.GetAccountAsync()).HasPassword);
        }
    }

    [Fact]
    public async Task Guesses_at_two_servers_of_one_database_are_counted_together()
    {
        await using var world = await StartQuicklyAsync(await PostgresCluster.GetAsync());
        await using var beside = await StartBesideAsync(world);
        await world.Admin.CreateUserAsync(new CreateUser("ann", null));
        await AcceptAsync(world, "ann");
        var answers = await Task.WhenAll(Enumerable.Range(0, 16).Select(async i =>
        {
            using var response = await (i % 2 == 0 ? world : beside).SendAsync("POST", "v1/sign-in", null, Json(new SignIn("ann", Other, null)));
            return response.StatusCode;
        }));
        Assert.Equal(Throttle.FreeTries, answers.Count(answer => answer == HttpStatusCode.Unauthorized));
        using var ann = As(beside, await SignInAfterAsync(world));
        await ann.SignOutAsync();

        static async Task<SignedIn> SignInAfterAsync(World world)
        {
            world.Time.Advance(Throttle.FirstWait);
            return await SignInAsync(world);
        }
    }
}
