using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Player.HostChecks;
using Nacre.Player.Trust;
using Nacre.Policies;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>The administrator's own checks: only what the organisation signed runs, and what runs is bounded.</summary>
[Collection("NACRE_HOME")]
public sealed class HostScriptTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_signed_script_says_what_is_so_and_its_exit_code_decides()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        var passed = await RunAsync(organisation, Script("id >/dev/null && echo edition=pro && echo 'message=all is well' && echo 'not a fact'").SignedBy(organisation.TargetsKey));
        Assert.Equal((HostCheckOutcome.Passed, "all is well"), (passed.Outcome, passed.Detail));
        Assert.Equal("pro", Assert.Single(passed.Facts).Value);
        var failed = await RunAsync(organisation, Script("echo 'message=the agent is missing\u001b[31m'; echo 'fix=install the agent'; exit 3").SignedBy(organisation.TargetsKey));
        Assert.Equal((HostCheckOutcome.Failed, "the agent is missing[31m", "install the agent"), (failed.Outcome, failed.Detail, failed.Fix));
        Assert.Equal("host.scripts probe", failed.Setting);
    }

    [Fact]
    public async Task What_the_organisations_targets_keys_did_not_sign_does_not_run()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        var mark = Path.Combine(organisation.Office.Paths.State, "ran");
        var script = Script($"touch '{mark}'");
        using var stranger = TrustedOrganisation.NewKey();
        var signed = script.SignedBy(organisation.TargetsKey);
        foreach (var text in new[]
        {
            $"{script}", $"{script.SignedBy(stranger)}", $"{script.SignedBy(organisation.Online)}", $"{script.SignedBy(organisation.Publisher)}",
            $"{signed}".Replace("touch", "tOuch", StringComparison.Ordinal), $"{signed} ", $"{HostScript.Write("probe", $"touch '{mark}'", 5, true, 1, organisation.Time.GetUtcNow().AddSeconds(-1)).SignedBy(organisation.TargetsKey)}",
            $"{organisation.Root}", "{}", "",
        })
        {
            var result = await RunAsync(organisation, text);
            Assert.Equal(HostCheckOutcome.Failed, result.Outcome);
            Assert.Contains("was not run", result.Detail, StringComparison.Ordinal);
            Assert.False(File.Exists(mark), text);
        }

        Assert.Equal(HostCheckOutcome.Passed, (await RunAsync(organisation, $"{signed}")).Outcome);
        Assert.True(File.Exists(mark));
    }

    [Fact]
    public void A_script_is_taken_for_no_role_of_the_trust_metadata_and_no_role_for_a_script()
    {
        var script = Script("true");
        Assert.Equal(ErrorCatalogue.Unsupported, Assert.Throws<NacreException>(() => TrustMetadata.Parse(script.Bytes)).Kind);
        Assert.Equal(ErrorCatalogue.TrustNotAuthentic, Assert.Throws<NacreException>(() => new TargetsMetadata(script.Bytes)).Kind);
        var targets = TargetsMetadata.WriteReleases(1, DateTimeOffset.UnixEpoch, new Dictionary<ReleaseName, TrustTarget>());
        Assert.Equal(ErrorCatalogue.TrustNotAuthentic, Assert.Throws<NacreException>(() => new HostScript(targets)).Kind);
    }

    [Theory]
    [InlineData(false, HostCheckOutcome.Failed)]
    [InlineData(true, HostCheckOutcome.Unknown)]
    public async Task A_script_that_does_not_end_is_ended_with_what_it_started_and_counts_as_it_says(bool open, HostCheckOutcome outcome)
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        var mark = Path.Combine(organisation.Office.Paths.State, "late");
        var watch = Stopwatch.StartNew();
        var result = await RunAsync(organisation, HostScript.Write("probe", $"(sleep 6; touch '{mark}') & sleep 600", 1, open, 1, organisation.Time.GetUtcNow().AddDays(1)).SignedBy(organisation.TargetsKey));
        Assert.Equal(outcome, result.Outcome);
        Assert.InRange(watch.Elapsed, TimeSpan.FromSeconds(0.9), TimeSpan.FromSeconds(30));
        await Task.Delay(TimeSpan.FromSeconds(7), Token);
        Assert.False(File.Exists(mark));
    }

    [Fact]
    public async Task A_script_sees_nothing_of_the_players_environment_and_its_output_is_bounded()
    {
        Environment.SetEnvironmentVariable("NACRE_SECRET_OF_A_TEST", "hush");
        try
        {
            await using var organisation = await TrustedOrganisation.BeginAsync();
            var result = await RunAsync(organisation, Script("echo \"message=$(env | cut -d= -f1 | sort | tr '\\n' ' ')$(cat)\"; for i in 1 2 3 4 5 6 7 8 9; do echo k$i=$(head -c 300 /dev/zero | tr '\\0' x); done; head -c 3000000 /dev/zero | tr '\\0' y").SignedBy(organisation.TargetsKey));
            Assert.Equal(HostCheckOutcome.Passed, result.Outcome);
            Assert.Matches("^HOME LANG (OLDPWD )?PATH PWD( SHLVL _)?$", result.Detail);
            Assert.Equal(9, result.Facts.Count);
            Assert.All(result.Facts.Values, value => Assert.Equal(200, value.Length));
        }
        finally
        {
            Environment.SetEnvironmentVariable("NACRE_SECRET_OF_A_TEST", null);
        }
    }

    private static HostScript Script(string text) => HostScript.Write("probe", text, 20, false, 1, new DateTimeOffset(2100, 1, 1, 0, 0, 0, TimeSpan.Zero));

    private static Task<HostCheckResult> RunAsync(TrustedOrganisation organisation, HostScript script) => RunAsync(organisation, $"{script}");

    private static async Task<HostCheckResult> RunAsync(TrustedOrganisation organisation, string script)
    {
        // Past the setting, which only asks whether it can be a signed file: what the device does must not depend on it.
        var text = script.Contains("signatures", StringComparison.Ordinal) ? script : """{"signatures":[],"signed":{}}""";
        var policy = Policy.Of("lease", PolicyDocument.Empty.With(Settings.HostScripts, [text]).With(Settings.HostScriptsAction, CheckAction.Block));
        return Assert.Single(await new HostScriptRunner(new DeviceTrust(organisation.Identity, organisation.Time), TimeProvider.System).RunAsync(policy, Token));
    }
}
