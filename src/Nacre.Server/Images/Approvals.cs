using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>The report that a release has.</summary>
internal sealed class CheckReportRow
{
    public required string Image { get; init; }

    public required int Version { get; init; }

    /// <summary>A <see cref="ReleaseReport"/>, signed.</summary>
    public required string Report { get; set; }

    /// <summary>SHA-256 of what was signed.</summary>
    public required byte[] ReportHash { get; set; }

    /// <summary>The SPDX document, compressed.</summary>
    public required byte[]? Spdx { get; set; }

    /// <summary>The CycloneDX document, compressed.</summary>
    public required byte[]? CycloneDx { get; set; }
}

/// <summary>What an administrator decided about a release; the last word of each is kept here, all of them in the audit log.</summary>
internal sealed class DecisionRow
{
    public required string Image { get; init; }

    public required int Version { get; init; }

    public required string Administrator { get; init; }

    public required bool Approved { get; set; }

    public required string Reason { get; set; }

    public required DateTimeOffset At { get; set; }

    /// <summary>The <see cref="CheckReportRow.ReportHash"/> that it is about; empty where there was no report.</summary>
    public required byte[] ReportHash { get; set; }
}

internal static class ApprovalErrors
{
    public static Failure ReportInvalid(string detail) => new(ErrorCatalogue.RequestInvalid, "the report can't be right: " + detail);

    public static Failure NotAuthentic { get; } = new(ErrorCatalogue.ReleaseNotAuthentic, "the report is not signed by the registered release signing key");

    public static Failure OtherRelease { get; } = new(ErrorCatalogue.ReleaseNotAuthentic, "the report is that of another release");

    public static Failure ListWrong(string name) => new(ErrorCatalogue.RequestInvalid, $"'{name}' must be the document that the report names, and absent where it names none");

    public static Failure PolicyInvalid { get; } = new(
        ErrorCatalogue.RequestInvalid, $"'requiredChecks' must be some of {string.Join(", ", ReleaseChecks.All)}, each once, and 'approvals' 0 to 16");

    public static Failure ReasonInvalid { get; } = new(ErrorCatalogue.RequestInvalid, "'reason' must have 1 to 300 printable characters; only an approval can do without");

    public static Failure OwnRelease { get; } = new(ErrorCatalogue.Forbidden, "who published a release can't approve it: another administrator must");

    public static Failure NotApproved(string release, IReadOnlyList<string> lacks) => new(ErrorCatalogue.NotApproved, $"no channel can point at {release}: {string.Join("; ", lacks)}");
}

/// <summary>Reports of checks, decisions of administrators, and what a release must have of both.</summary>
internal sealed class Approvals(NacreDatabase database, AuditTrail audit, Caller caller, TimeProvider time)
{
    public const int MostApprovals = 16;
    private const string Setting = "release-policy";
    private const int LargestList = 16 * 1024 * 1024;

    public async Task<Result<Done>> PutReportAsync(string untrustedImage, int version, PutReport untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.Report is not { Length: <= ReleaseReport.LongestSigned })
        {
            return ApprovalErrors.ReportInvalid($"it has more than {ReleaseReport.LongestSigned} characters");
        }

        if (await SigningKey.FindAsync(database, cancellationToken) is not { } key || !Jws.TryVerify(untrusted.Report, key, ReleaseReport.Type, out var payload))
        {
            return ApprovalErrors.NotAuthentic;
        }

        if (!Jws.TryRead<ReleaseReport>(payload, out var report) )
        {
            return ApprovalErrors.ReportInvalid("it is not the JSON of a report");
        }

        if (Wrong(report) is { } wrong)
        {
            return ApprovalErrors.ReportInvalid(wrong);
        }

        if (!TryReadList(untrusted.Spdx, report.Spdx, out var spdx))
        {
            return ApprovalErrors.ListWrong("spdx");
        }

        if (!TryReadList(untrusted.CycloneDx, report.CycloneDx, out var cycloneDx))
        {
            return ApprovalErrors.ListWrong("cycloneDx");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await FindAsync(untrustedImage, version, cancellationToken) is not { } release)
        {
            return ImageErrors.NoRelease(Names.IsValid(untrustedImage) ? untrustedImage : "?", version);
        }

        if (report.Image != release.Image || report.Version != release.Version || report.ManifestSha256 != Text.Hex(release.ManifestHash))
        {
            return ApprovalErrors.OtherRelease;
        }

        var hash = SHA256.HashData(payload);
        var row = await database.CheckReports.SingleOrDefaultAsync(one => one.Image == release.Image && one.Version == version, cancellationToken);
        if (row is not null && row.ReportHash.AsSpan().SequenceEqual(hash))
        {
            return default(Done);
        }

        if (row is null)
        {
            database.CheckReports.Add(new CheckReportRow { Image = release.Image, Version = version, Report = untrusted.Report, ReportHash = hash, Spdx = spdx, CycloneDx = cycloneDx });
        }
        else
        {
            (row.Report, row.ReportHash, row.Spdx, row.CycloneDx) = (untrusted.Report, hash, spdx, cycloneDx);
        }

        await audit.AppendAsync(
            Roles.Administrator, "release.check", NameOf(release), string.Join(", ", report.Checks.Select(check => $"{check.Check} {Word(check.Outcome)}")) + "; report sha256 " + Text.Hex(hash), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    public async Task<Result<ReleaseStanding>> GetAsync(string untrustedImage, int version, CancellationToken cancellationToken)
    {
        if (await FindAsync(untrustedImage, version, cancellationToken) is not { } release)
        {
            return ImageErrors.NoRelease(Names.IsValid(untrustedImage) ? untrustedImage : "?", version);
        }

        var channels = await database.Channels.AsNoTracking().Where(row => row.Image == release.Image).ToListAsync(cancellationToken);
        var report = await ReportAsync(release, cancellationToken);
        var decisions = await DecisionsAsync(release, cancellationToken);
        return new ReleaseStanding(
            release.ToContract(channels), release.PublishedBy, report?.Report,
            decisions.ConvertAll(row => new ReleaseDecision(row.Administrator, row.Approved, row.Reason, row.At, Counts(row, report))),
            await LacksAsync(release, cancellationToken));
    }

    public async Task<Result<SoftwareList>> GetListAsync(string untrustedImage, int version, string untrustedFormat, CancellationToken cancellationToken)
    {
        var row = await database.CheckReports.AsNoTracking().SingleOrDefaultAsync(one => one.Image == untrustedImage && one.Version == version, cancellationToken);
        return untrustedFormat switch { "spdx" => row?.Spdx, "cyclonedx" => row?.CycloneDx, _ => null } is { } document
            ? new SoftwareList(Convert.ToBase64String(document))
            : new Failure(ErrorCatalogue.NotFound, "there is no such list of this release: 'nacre image check' makes spdx and cyclonedx");
    }

    public async Task<Result<Done>> DecideAsync(string untrustedImage, int version, DecideRelease untrusted, CancellationToken cancellationToken)
    {
        var reason = untrusted.Reason ?? "";
        if ((reason.Length == 0 && !untrusted.Approved) || (reason.Length > 0 && !Text.IsLabel(reason, ReleaseChecks.LongestText)))
        {
            return ApprovalErrors.ReasonInvalid;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await FindAsync(untrustedImage, version, cancellationToken) is not { } release)
        {
            return ImageErrors.NoRelease(Names.IsValid(untrustedImage) ? untrustedImage : "?", version);
        }

        if (untrusted.Approved && release.PublishedBy == caller.Name)
        {
            return ApprovalErrors.OwnRelease;
        }

        var hash = (await ReportAsync(release, cancellationToken))?.ReportHash ?? [];
        var row = await database.Decisions.SingleOrDefaultAsync(one => one.Image == release.Image && one.Version == version && one.Administrator == caller.Name, cancellationToken);
        if (row is null)
        {
            row = new DecisionRow { Image = release.Image, Version = version, Administrator = caller.Name, Approved = untrusted.Approved, Reason = reason, At = time.Now(), ReportHash = hash };
            database.Decisions.Add(row);
        }
        else
        {
            (row.Approved, row.Reason, row.At, row.ReportHash) = (untrusted.Approved, reason, time.Now(), hash);
        }

        await audit.AppendAsync(
            Roles.Administrator, untrusted.Approved ? "release.approve" : "release.reject", NameOf(release), $"{reason} (report sha256 {(hash.Length == 0 ? "none" : Text.Hex(hash))})".TrimStart(), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    public async Task<ReleasePolicy> GetPolicyAsync(CancellationToken cancellationToken)
    {
        var setting = await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken);
        return setting is null ? new ReleasePolicy([], 0) : JsonSerializer.Deserialize<ReleasePolicy>(setting.Value, ContractJson.Options)!;
    }

    public async Task<Result<ReleasePolicy>> PutPolicyAsync(ReleasePolicy untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.RequiredChecks is not { } checks || untrusted.Approvals is < 0 or > MostApprovals
            || checks.Except(ReleaseChecks.All, StringComparer.Ordinal).Any() || checks.Distinct(StringComparer.Ordinal).Count() != checks.Count)
        {
            return ApprovalErrors.PolicyInvalid;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var value = JsonSerializer.Serialize(untrusted, ContractJson.Options);
        var setting = await database.Settings.SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken);
        if (setting is null)
        {
            database.Settings.Add(new SettingRow { Name = Setting, Value = value });
        }
        else
        {
            setting.Value = value;
        }

        await audit.AppendAsync(
            Roles.Administrator, "release-policy.put", "release-policy",
            string.Create(CultureInfo.InvariantCulture, $"checks {(checks.Count == 0 ? "none" : string.Join(", ", checks))}; approvals {untrusted.Approvals}"), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return untrusted;
    }

    /// <summary>Why no channel can point at a release; empty: one can.</summary>
    public async Task<IReadOnlyList<string>> LacksAsync(ReleaseRow release, CancellationToken cancellationToken)
    {
        var policy = await GetPolicyAsync(cancellationToken);
        var row = await ReportAsync(release, cancellationToken);
        var results = row is null ? [] : Read(row).Checks;
        var lacks = new List<string>();
        lacks.AddRange(results.Where(result => result.Outcome == CheckOutcome.Failed).Select(result => $"the check '{result.Check}' failed"));
        lacks.AddRange(policy.RequiredChecks.Where(name => results.All(result => result.Check != name || result.Outcome == CheckOutcome.NotDone)).Select(name => $"the check '{name}' is required and was not made"));
        var decisions = await DecisionsAsync(release, cancellationToken);
        lacks.AddRange(decisions.Where(decision => !decision.Approved).Select(decision => $"'{decision.Administrator}' rejected it: {decision.Reason}"));
        var approvers = await Sessions.NamesWithAsync(database, [Roles.Administrator, Roles.Approver], cancellationToken);
        var approvals = decisions.Count(decision => decision.Approved && Counts(decision, row) && decision.Administrator != release.PublishedBy
            && (decision.Administrator == Roles.Administrator || approvers.Contains(decision.Administrator)));
        if (approvals < policy.Approvals)
        {
            lacks.Add(string.Create(CultureInfo.InvariantCulture, $"it has {approvals} of {policy.Approvals} approvals by administrators other than '{release.PublishedBy}'"));
        }

        return lacks;
    }

    private Task<ReleaseRow?> FindAsync(string untrustedImage, int version, CancellationToken cancellationToken) =>
        database.Releases.AsNoTracking().SingleOrDefaultAsync(row => row.Image == untrustedImage && row.Version == version, cancellationToken);

    private Task<CheckReportRow?> ReportAsync(ReleaseRow release, CancellationToken cancellationToken) =>
        database.CheckReports.AsNoTracking().SingleOrDefaultAsync(row => row.Image == release.Image && row.Version == release.Version, cancellationToken);

    private Task<List<DecisionRow>> DecisionsAsync(ReleaseRow release, CancellationToken cancellationToken) =>
        database.Decisions.AsNoTracking().Where(row => row.Image == release.Image && row.Version == release.Version).OrderBy(row => row.At).ThenBy(row => row.Administrator).ToListAsync(cancellationToken);

    /// <summary>A rejection stands until its author takes it back; an approval is of one report.</summary>
    private static bool Counts(DecisionRow decision, CheckReportRow? report) => !decision.Approved || decision.ReportHash.AsSpan().SequenceEqual(report?.ReportHash ?? []);

    private static ReleaseReport Read(CheckReportRow row) =>
        JsonSerializer.Deserialize<ReleaseReport>(System.Buffers.Text.Base64Url.DecodeFromChars(row.Report.Split('.')[1]), ContractJson.Options)!;

    private static string NameOf(ReleaseRow release) => string.Create(CultureInfo.InvariantCulture, $"{release.Image}/{release.Version}");

    private static string Word(CheckOutcome outcome) => outcome switch { CheckOutcome.Passed => "passed", CheckOutcome.Failed => "failed", CheckOutcome.NotDone => "not done" };

    /// <summary>What of a report makes no sense; null: nothing.</summary>
    private static string? Wrong(ReleaseReport report)
    {
        if (report.Format != 1)
        {
            return "its format is not 1";
        }

        if (report.Checks is not { Count: > 0 } checks || checks.Any(check => check is null || !ReleaseChecks.All.Contains(check.Check))
            || checks.Select(check => check.Check).Distinct(StringComparer.Ordinal).Count() != checks.Count || checks.Any(check => !Enum.IsDefined(check.Outcome)))
        {
            return $"it must have some of the checks {string.Join(", ", ReleaseChecks.All)}, each once";
        }

        return checks.Any(check => !Text.IsLabel(check.Summary, ReleaseChecks.LongestText) || check.Findings is not { Count: <= ReleaseChecks.MostFindings }
            || check.Findings.Any(finding => !Text.IsLabel(finding, ReleaseChecks.LongestText)) || check.FindingsInAll < check.Findings.Count)
            ? "a summary or a finding is too long, or has characters that can't be shown"
            : null;
    }

    /// <summary>A document that the report names by its digest.</summary>
    private static bool TryReadList(string? untrusted, string? digest, out byte[]? document)
    {
        document = null;
        if (untrusted is null || digest is null)
        {
            return untrusted is null && digest is null;
        }

        var bytes = new byte[untrusted.Length * 3 / 4];
        if (untrusted.Length > LargestList || !Convert.TryFromBase64String(untrusted, bytes, out var length) || LayerContents.TryExpand(bytes[..length]) is not { } json
            || Text.Hex(SHA256.HashData(json)) != digest)
        {
            return false;
        }

        document = bytes[..length];
        return true;
    }
}

internal static class ApprovalEndpoints
{
    /// <summary>A report and two lists of what is installed.</summary>
    private const long LargestReport = 36 * 1024 * 1024;

    public static void Map(Groups groups)
    {
        groups.Of(Roles.Administrator, Roles.Author).MapPut("/images/{image}/releases/{version:int}/report", async (string image, int version, PutReport body, Approvals approvals, CancellationToken cancellationToken) =>
                (await approvals.PutReportAsync(image, version, body, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("PutReport").WithSummary("Keeps the signed report of a release's checks.").WithMetadata(new BodyLimit(LargestReport))
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.ReleaseNotAuthentic, ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.Auditor).MapGet("/images/{image}/releases/{version:int}/standing", async (string image, int version, Approvals approvals, CancellationToken cancellationToken) =>
                (await approvals.GetAsync(image, version, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("GetStanding").WithSummary("A release's report and decisions, and what it lacks.")
            .Produces<ReleaseStanding>().Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.Auditor).MapGet("/images/{image}/releases/{version:int}/sbom/{format}", async (string image, int version, string format, Approvals approvals, CancellationToken cancellationToken) =>
                (await approvals.GetListAsync(image, version, format, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("GetSoftwareList").WithSummary("What is installed in a release, as spdx or cyclonedx.")
            .Produces<SoftwareList>().Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.Approver).MapPut("/images/{image}/releases/{version:int}/decision", async (string image, int version, DecideRelease body, Approvals approvals, CancellationToken cancellationToken) =>
                (await approvals.DecideAsync(image, version, body, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("DecideRelease").WithSummary("Approves or rejects a release.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.Auditor).MapGet("/release-policy", (Approvals approvals, CancellationToken cancellationToken) => approvals.GetPolicyAsync(cancellationToken))
            .WithName("GetReleasePolicy").WithSummary("What a release must have before a channel can point at it.");
        groups.Of(Roles.First).MapPut("/release-policy", async (ReleasePolicy body, Approvals approvals, CancellationToken cancellationToken) =>
                (await approvals.PutPolicyAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("PutReleasePolicy").WithSummary("Sets what a release must have before a channel can point at it.")
            .Produces<ReleasePolicy>().Fails(ErrorCatalogue.RequestInvalid);
    }
}
