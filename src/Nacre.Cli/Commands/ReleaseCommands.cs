using System.CommandLine;
using System.Globalization;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Images;
using Nacre.Images.Checking;
using Nacre.Policies;

namespace Nacre.Cli.Commands;

/// <summary>The part of <c>nacre image</c> that decides whether a release may be used: checks, approvals and the policy that wants them.</summary>
internal static class ReleaseCommands
{
    public static Command Check()
    {
        var folder = new Argument<string>("FOLDER") { Description = "The folder that 'nacre image build' or 'nacre image import' made" };
        var signatures = new Option<string?>("--malware-signatures") { Description = "Folder or file of ClamAV's signatures, such as /var/lib/clamav, kept up to date by freshclam" };
        var advisories = new Option<string[]>("--advisories") { Description = "Known vulnerabilities: OSV (*.json) or Debian's OVAL (*.xml), a file or folder; can be given again" };
        var stop = new Option<Severity>("--stop-at") { Description = "The least severity of a known vulnerability that stops the release; 'unknown' stops at any", DefaultValueFactory = _ => Severity.High };
        var temporary = new Option<string?>("--temporary") { Description = "Folder where the image's files are taken apart, as large as they are (default: TMPDIR, else /tmp)" };
        var noBoot = new Option<bool>("--no-boot") { Description = "Do not start it in a throw-away guest; the check is reported as not done" };
        var on = new Option<string?>("--on") { Description = "Of an application layer: the folder of the system that it was built on, to start it on" };
        var units = new Option<string[]>("--boot-unit") { Description = "A unit that must be active once it was started, such as display-manager.service; can be given again" };
        var minutes = new Option<double>("--boot-minutes") { Description = "How long the start may take until it is healthy", DefaultValueFactory = _ => Settings.UpdateHealthMinutes.FactoryValue };
        var release = new Option<int?>("--release") { Description = "Keep the report with this published release, in the place of the one it has" };
        var command = new Command("check", "Check a built image before it is published: package signatures, malware, list of software, known vulnerabilities, and a start in a throw-away guest without a network")
        {
            folder, signatures, advisories, stop, temporary, noBoot, on, units, minutes, release,
        };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var place = parsed.GetValue(folder)!;
            var options = new CheckOptions
            {
                MalwareSignatures = parsed.GetValue(signatures), Advisories = parsed.GetValue(advisories) ?? [], StopAt = parsed.GetValue(stop),
            };
            if (parsed.GetValue(temporary) is { } files)
            {
                options = options with { TemporaryFolder = Path.GetFullPath(files) };
            }

            if (OperatingSystem.IsWindows())
            {
                throw new NacreException(ErrorCatalogue.Unsupported, "images are checked on Linux");
            }

            if (!parsed.GetValue(noBoot))
            {
                options = options with
                {
                    Boot = await BootCheck.PrepareAsync(
                        GoldenImage.Open(place), parsed.GetValue(on), parsed.GetValue(units) ?? [], parsed.GetValue(minutes), options.TemporaryFolder, cancellationToken),
                };
            }

            var checks = await Terminal.ProgressAsync($"checking {place}", report => ImageChecker.CheckAsync(place, options, TimeProvider.System, report, cancellationToken));
            if (parsed.GetValue(release) is { } version)
            {
                await KeepAsync(place, version, checks, cancellationToken);
            }

            Terminal.Result(checks, () => Show(checks.Checks));
            if (checks.HasFailed)
            {
                throw new NacreException(ErrorCatalogue.CheckFailed, $"'{place}' failed: {string.Join(", ", checks.Checks.Where(check => check.Outcome == CheckOutcome.Failed).Select(check => check.Check))}");
            }
        });
        return command;
    }

    /// <summary>Gives the server the report of a release, signed with the publisher's key.</summary>
    public static async Task AttachAsync(NacreClient client, string folder, Release release, ImageChecks checks, CancellationToken cancellationToken)
    {
        using var key = Administration.SigningKey();
        await client.PutReportAsync(release.Image, release.Version, checks.Sign(folder, release, key), cancellationToken);
    }

    private static async Task KeepAsync(string folder, int version, ImageChecks checks, CancellationToken cancellationToken)
    {
        using var client = Administration.Connect();
        await AttachAsync(client, folder, await client.GetReleaseAsync(GoldenImage.Open(folder).Name, version, cancellationToken), checks, cancellationToken);
    }

    public static Command Show()
    {
        var (image, version) = Named();
        var sbom = new Option<string?>("--sbom") { Description = "Print the list of what is installed instead: spdx or cyclonedx" };
        sbom.AcceptOnlyFromAmong("spdx", "cyclonedx");
        var command = new Command("show", "Show a release: who published it, what its checks found, who approved it, and what it lacks before a channel can point at it") { image, version, sbom };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var (name, number) = (parsed.GetValue(image)!, parsed.GetValue(version));
            if (parsed.GetValue(sbom) is { } format)
            {
                var list = await client.GetSoftwareListAsync(name, number, format, cancellationToken);
                Terminal.Line(System.Text.Encoding.UTF8.GetString(LayerContents.TryExpand(Convert.FromBase64String(list.Document))
                    ?? throw new NacreException(ErrorCatalogue.ServerFailed, "the server's answer is no list of software")));
                return;
            }

            var standing = await client.GetStandingAsync(name, number, cancellationToken);
            var report = standing.Report is { } signed && await client.FindSigningKeyAsync(cancellationToken) is { } key
                ? Jws.VerifyClaims<ReleaseReport>(signed, key, ErrorCatalogue.ReleaseNotAuthentic, ReleaseReport.Type) : null;
            Terminal.Result(new { standing.Release, standing.PublishedBy, Report = report, standing.Decisions, standing.Lacks }, () => Show(standing, report));
        });
        return command;
    }

    public static Command Approve() => Decide("approve", "Approve a release, with the report that it has now; who published it can't", approved: true);

    public static Command Reject() => Decide("reject", "Reject a release: no channel can be pointed at it until the same administrator approves it; channels that point at it stay", approved: false);

    public static Command Policy()
    {
        var require = new Option<string?>("--require") { Description = $"The checks that must have passed, separated by commas: {string.Join(", ", ReleaseChecks.All)}; 'none' for none" };
        var approvals = new Option<int?>("--approvals") { Description = "How many administrators other than the one who published a release must approve it" };
        var command = new Command("policy", "Show, or set, what a release must have before a channel can point at it; only the first administrator can set it") { require, approvals };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var policy = await client.GetReleasePolicyAsync(cancellationToken);
            if (parsed.GetValue(require) is not null || parsed.GetValue(approvals) is not null)
            {
                var checks = parsed.GetValue(require) switch
                {
                    null => policy.RequiredChecks,
                    "none" => [],
                    var text => text.Split(',', StringSplitOptions.TrimEntries),
                };
                policy = await client.PutReleasePolicyAsync(new ReleasePolicy(checks, parsed.GetValue(approvals) ?? policy.Approvals), cancellationToken);
            }

            Terminal.Result(policy, () =>
            {
                Terminal.Line($"required checks: {(policy.RequiredChecks.Count == 0 ? "none" : string.Join(", ", policy.RequiredChecks))}");
                Terminal.Line($"approvals by others than the publisher: {policy.Approvals}");
            });
        });
        return command;
    }

    private static Command Decide(string verb, string description, bool approved)
    {
        var (image, version) = Named();
        var reason = new Option<string?>("--reason") { Description = "Why, for the others and the audit log", Required = !approved };
        var command = new Command(verb, description) { image, version, reason };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var (name, number) = (parsed.GetValue(image)!, parsed.GetValue(version));
            await client.DecideReleaseAsync(name, number, new DecideRelease(approved, parsed.GetValue(reason)), cancellationToken);
            var standing = await client.GetStandingAsync(name, number, cancellationToken);
            Terminal.Note($"{name} release {number}: {(approved ? "approved" : "rejected")}; {(standing.Lacks.Count == 0 ? "channels can point at it" : string.Join("; ", standing.Lacks))}");
        });
        return command;
    }

    private static (Argument<string> Image, Argument<int> Version) Named() =>
        (new Argument<string>("IMAGE") { Description = "The golden image" }, new Argument<int>("RELEASE") { Description = "The release" });

    private static void Show(ReleaseStanding standing, ReleaseReport? report)
    {
        var release = standing.Release;
        Terminal.Line($"{release.Image} release {release.Version}, published {Date(release.PublishedAt)} by {standing.PublishedBy}, {Terminal.Bytes(release.Size)}");
        Terminal.Line(report is null ? "not checked" : $"checked {Date(DateTimeOffset.FromUnixTimeSeconds(report.CheckedAt))}");
        Show(report?.Checks ?? []);
        foreach (var decision in standing.Decisions)
        {
            Terminal.Line($"{(decision.Approved ? "approved" : "rejected")} by {decision.Administrator} on {Date(decision.At)}{(decision.Reason.Length > 0 ? $": {decision.Reason}" : "")}{(decision.Counts ? "" : " (with another report: counts no more)")}");
        }

        Terminal.Line(standing.Lacks.Count == 0 ? $"channels can point at it{(release.Channels.Count > 0 ? $"; these do: {string.Join(", ", release.Channels)}" : "")}" : "no channel can point at it:");
        foreach (var lack in standing.Lacks)
        {
            Terminal.Line($"  {lack}");
        }
    }

    private static void Show(IReadOnlyList<CheckResult> checks)
    {
        const int Most = 20;
        foreach (var check in checks)
        {
            // Of a console the end says most.
            var named = check.Check == ReleaseChecks.Boot ? ReleaseChecks.MostFindings : Most;
            Terminal.Line($"{check.Check}: {check.Outcome switch { CheckOutcome.Passed => "passed", CheckOutcome.Failed => "FAILED", CheckOutcome.NotDone => "not done" }}, {Terminal.Printable(check.Summary)}");
            foreach (var finding in check.Findings.Take(named))
            {
                Terminal.Line($"  {Terminal.Printable(finding)}");
            }

            if (check.FindingsInAll > named)
            {
                Terminal.Line($"  and {check.FindingsInAll - Math.Min(named, check.Findings.Count)} more; --json names {check.Findings.Count}");
            }
        }
    }

    private static string Date(DateTimeOffset time) => time.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture);
}

/// <summary><c>nacre administrator</c>.</summary>
internal static class AdministratorCommands
{
    public static Command Create()
    {
        var name = new Argument<string>("NAME") { Description = "1 to 63 lower-case letters, digits and hyphens" };
        var role = new Option<string[]>("--role") { Description = $"What it may do: {string.Join(", ", PeopleRoles.Staff)}; may be given several times (default: administrator)" };
        var add = new Command("add", "Name an administrator; prints the token for 'nacre login', this once") { name, role };
        add.Aliases.Add("create");
        add.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var created = await client.CreateAdministratorAsync(new CreateAdministrator(parsed.GetValue(name)!, parsed.GetValue(role) is { Length: > 0 } roles ? roles : null), cancellationToken);
            Terminal.Result(created, () => Terminal.Line(created.Token));
        });
        var remove = new Command("remove", "Take an administrator's token, password and sessions away; approvals of that administrator count no more") { name };
        remove.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.RemoveAdministratorAsync(parsed.GetValue(name)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(name)} is no administrator any more");
        });
        var list = new Command("list", "List the administrators beside the first one");
        list.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var administrators = await client.ListAdministratorsAsync(cancellationToken);
            Terminal.Result(administrators, () => Terminal.Table(
                ["ADMINISTRATOR", "SINCE", "ROLES"], administrators.Select(one => new[] { one.Name, one.CreatedAt.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture), string.Join(", ", one.Roles) })));
        });
        var wanted = new Argument<string[]>("ROLE") { Description = string.Join(", ", PeopleRoles.Staff), Arity = ArgumentArity.OneOrMore };
        var roles = new Command("roles", "Set what an administrator may do, and end its sessions") { name, wanted };
        roles.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var administrator = await client.PutRolesAsync(parsed.GetValue(name)!, parsed.GetValue(wanted)!, cancellationToken);
            Terminal.Result(administrator, () => Terminal.Line(string.Join(", ", administrator.Roles)));
        });
        return new Command("administrator", "Administrators beside the first one, each with roles (docs/roles.md); only the first can add, change and remove them") { add, list, roles, remove };
    }
}
