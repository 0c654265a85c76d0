using System.IO.Compression;
using System.Security.Cryptography;
using System.Text;
using Nacre.Client;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>Reports, approvals, and the policy that channels obey.</summary>
public class ApprovalTests
{
    private static readonly CheckResult Passed = new(ReleaseChecks.Malware, CheckOutcome.Passed, "nothing found", [], 0);

    private static async Task<NacreClient> AdministratorAsync(World world, string name) =>
        new(world.Url, Credential.Administrator((await world.Admin.CreateAdministratorAsync(new CreateAdministrator(name))).Token), world.Time);

    private static async Task<ReleaseReport> ReportAsync(World world, int version = 1, params CheckResult[] checks)
    {
        var release = await world.Admin.GetReleaseAsync("debian", version);
        Assert.True(Jws.TryVerify(release.Manifest, PublicKeys.From(world.Publisher), null, out var payload));
        return new ReleaseReport(1, "debian", version, Convert.ToHexStringLower(SHA256.HashData(payload)), 1_700_000_000, checks.Length == 0 ? [Passed] : checks, null, null);
    }

    private static Task PutAsync(World world, ReleaseReport report, ECDsa? key = null, string? spdx = null, int? version = null) => world.Admin.PutReportAsync(
        "debian", version ?? report.Version, new PutReport(Jws.SignClaims(report, key ?? world.Publisher, ReleaseReport.Type), spdx));

    [Fact]
    public async Task Without_a_policy_a_channel_moves_as_before()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var standing = await world.Admin.GetStandingAsync("debian", 1);
        Assert.Equal(("administrator", null, 0), (standing.PublishedBy, standing.Report, standing.Lacks.Count));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.GetStandingAsync("debian", 2));
    }

    [Fact]
    public async Task A_release_without_the_required_check_or_approval_reaches_no_channel()
    {
        await using var world = await StartAsync();
        var ben = await AdministratorAsync(world, "ben");
        await world.Admin.PutReleasePolicyAsync(new ReleasePolicy([ReleaseChecks.Malware], 1));
        await world.PublishAsync(channel: null);
        Assert.Equal(2, (await world.Admin.GetStandingAsync("debian", 1)).Lacks.Count);
        await FailsAsync(ErrorCatalogue.NotApproved, world.Admin.MoveChannelAsync("debian", "stable", 1));
        Assert.Empty(Assert.Single(await world.Admin.ListImagesAsync()).Channels);
        await PutAsync(world, await ReportAsync(world));

        // Who published can't approve; somebody else can.
        await FailsAsync(ErrorCatalogue.Forbidden, world.Admin.DecideReleaseAsync("debian", 1, new DecideRelease(true, null)));
        await FailsAsync(ErrorCatalogue.NotApproved, world.Admin.MoveChannelAsync("debian", "stable", 1));
        await ben.DecideReleaseAsync("debian", 1, new DecideRelease(true, "looks good"));
        Assert.Empty((await ben.GetStandingAsync("debian", 1)).Lacks);
        await ben.MoveChannelAsync("debian", "stable", 1);
        var entries = (await world.Admin.GetAuditAsync()).Entries;
        Assert.Contains(entries, entry => entry is { Actor: "administrator:ben", Action: "release.approve", Subject: "debian/1" });
        Assert.Contains(entries, entry => entry is { Actor: "administrator:ben", Action: "channel.move" });
        Assert.Contains(entries, entry => entry is { Actor: "administrator", Action: "release.publish" });
    }

    [Fact]
    public async Task A_failed_check_or_a_rejection_stops_a_release_whatever_the_policy()
    {
        await using var world = await StartAsync();
        await world.PublishAsync(channel: null);
        await PutAsync(world, await ReportAsync(world, 1, Passed with { Outcome = CheckOutcome.Failed, Findings = ["/eicar.com: Eicar"], FindingsInAll = 1 }));
        await FailsAsync(ErrorCatalogue.NotApproved, world.Admin.MoveChannelAsync("debian", "stable", 1));
        await PutAsync(world, await ReportAsync(world));
        await world.Admin.MoveChannelAsync("debian", "stable", 1);

        var ben = await AdministratorAsync(world, "ben");
        await FailsAsync(ErrorCatalogue.RequestInvalid, ben.DecideReleaseAsync("debian", 1, new DecideRelease(false, null)));
        await ben.DecideReleaseAsync("debian", 1, new DecideRelease(false, "wrong logo"));
        var exception = await FailsAsync(ErrorCatalogue.NotApproved, world.Admin.MoveChannelAsync("debian", "pilot", 1));
        Assert.Contains("wrong logo", exception.Message, StringComparison.Ordinal);
        await ben.DecideReleaseAsync("debian", 1, new DecideRelease(true, null));
        await world.Admin.MoveChannelAsync("debian", "pilot", 1);
    }

    [Fact]
    public async Task Another_report_an_approver_who_left_and_oneself_twice_do_not_count()
    {
        await using var world = await StartAsync();
        await world.Admin.PutReleasePolicyAsync(new ReleasePolicy([], 2));
        var (ben, eve) = (await AdministratorAsync(world, "ben"), await AdministratorAsync(world, "eve"));
        await world.PublishAsync(channel: null);
        await PutAsync(world, await ReportAsync(world));
        await ben.DecideReleaseAsync("debian", 1, new DecideRelease(true, null));
        await ben.DecideReleaseAsync("debian", 1, new DecideRelease(true, "again"));
        await FailsAsync(ErrorCatalogue.NotApproved, world.Admin.MoveChannelAsync("debian", "stable", 1));
        await eve.DecideReleaseAsync("debian", 1, new DecideRelease(true, null));
        Assert.Empty((await world.Admin.GetStandingAsync("debian", 1)).Lacks);
        await PutAsync(world, await ReportAsync(world, 1, Passed with { Summary = "another" }));
        Assert.All((await world.Admin.GetStandingAsync("debian", 1)).Decisions, decision => Assert.False(decision.Counts));
        await FailsAsync(ErrorCatalogue.NotApproved, world.Admin.MoveChannelAsync("debian", "stable", 1));
        await ben.DecideReleaseAsync("debian", 1, new DecideRelease(true, null));
        await eve.DecideReleaseAsync("debian", 1, new DecideRelease(true, null));
        await world.Admin.RemoveAdministratorAsync("eve");
        await FailsAsync(ErrorCatalogue.Unauthenticated, eve.ListUsersAsync());
        await FailsAsync(ErrorCatalogue.NotApproved, world.Admin.MoveChannelAsync("debian", "stable", 1));
    }

    [Fact]
    public async Task A_report_must_be_signed_of_this_release_and_bounded()
    {
        await using var world = await StartAsync();
        await world.PublishAsync(channel: null);
        await world.PublishAsync(2, channel: null);
        var good = await ReportAsync(world);
        using var other = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        await FailsAsync(ErrorCatalogue.ReleaseNotAuthentic, PutAsync(world, good, other));
        await FailsAsync(ErrorCatalogue.ReleaseNotAuthentic, PutAsync(world, good, version: 2));
        await FailsAsync(ErrorCatalogue.ReleaseNotAuthentic, PutAsync(world, good with { Version = 2 }));
        await FailsAsync(ErrorCatalogue.ReleaseNotAuthentic, world.Admin.PutReportAsync("debian", 1, new PutReport(Jws.SignClaims(good, world.Publisher))));
        await FailsAsync(ErrorCatalogue.NotFound, PutAsync(world, good with { Version = 3 }));
        ReleaseReport[] wrong =
        [
            good with { Format = 2 }, good with { Checks = [] }, good with { Checks = [Passed, Passed] }, good with { Checks = [Passed with { Check = "horoscope" }] },
            good with { Checks = [Passed with { Summary = "a\u001b[2J" }] }, good with { Checks = [Passed with { Findings = ["two\nlines"], FindingsInAll = 1 }] },
            good with { Checks = [Passed with { Findings = [.. Enumerable.Repeat("x", 501)], FindingsInAll = 501 }] }, good with { Checks = [Passed with { Findings = ["x"], FindingsInAll = 0 }] },
            good with { Checks = [Passed with { Summary = new string('x', 301) }] }, good with { Spdx = new string('a', 64) },
        ];
        foreach (var report in wrong)
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, PutAsync(world, report));
        }

        await FailsAsync(ErrorCatalogue.RequestInvalid, PutAsync(world, good, spdx: "AAAA"));
        Assert.Null((await world.Admin.GetStandingAsync("debian", 1)).Report);
        Assert.DoesNotContain((await world.Admin.GetAuditAsync()).Entries, entry => entry.Action == "release.check");
    }

    [Fact]
    public async Task A_list_of_software_is_kept_where_the_report_names_its_digest()
    {
        await using var world = await StartAsync();
        await world.PublishAsync(channel: null);
        var json = Encoding.UTF8.GetBytes("""{"spdxVersion":"SPDX-2.3"}""");
        using var buffer = new MemoryStream();
        using (var gzip = new GZipStream(buffer, CompressionLevel.Fastest))
        {
            gzip.Write(json);
        }

        var report = await ReportAsync(world) with { Spdx = Convert.ToHexStringLower(SHA256.HashData(json)) };
        await PutAsync(world, report, spdx: Convert.ToBase64String(buffer.ToArray()));
        Assert.Equal(json, LayerContents.TryExpand(Convert.FromBase64String((await world.Admin.GetSoftwareListAsync("debian", 1, "spdx")).Document)));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.GetSoftwareListAsync("debian", 1, "cyclonedx"));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.GetSoftwareListAsync("debian", 1, "other"));
    }

    [Fact]
    public async Task Only_the_first_administrator_names_others_and_sets_the_policy()
    {
        await using var world = await StartAsync();
        var ben = await AdministratorAsync(world, "ben");
        Assert.Equal(["ben"], (await ben.ListAdministratorsAsync()).Select(one => one.Name));
        await FailsAsync(ErrorCatalogue.Forbidden, ben.CreateAdministratorAsync(new CreateAdministrator("eve")));
        await FailsAsync(ErrorCatalogue.Forbidden, ben.RemoveAdministratorAsync("ben"));
        await FailsAsync(ErrorCatalogue.Forbidden, ben.PutReleasePolicyAsync(new ReleasePolicy([], 0)));
        await FailsAsync(ErrorCatalogue.AlreadyExists, world.Admin.CreateAdministratorAsync(new CreateAdministrator("ben")));
        await FailsAsync(ErrorCatalogue.AlreadyExists, world.Admin.CreateAdministratorAsync(new CreateAdministrator("administrator")));
        await FailsAsync(ErrorCatalogue.NameInvalid, world.Admin.CreateAdministratorAsync(new CreateAdministrator("Ben")));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PutReleasePolicyAsync(new ReleasePolicy(["horoscope"], 0)));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PutReleasePolicyAsync(new ReleasePolicy([], 17)));
        Assert.Equal(0, (await ben.GetReleasePolicyAsync()).Approvals);
        await world.StartAgainAsync();
        Assert.Single(await world.Admin.ListAdministratorsAsync());
    }
}
