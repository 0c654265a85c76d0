using System.Text.Json.Serialization;

namespace Nacre.Contracts;

/// <summary>The checks of a release, by the names that policies, reports and the command line call them.</summary>
public static class ReleaseChecks
{
    /// <summary>Every package came from an archive whose signature was verified.</summary>
    public const string Signatures = "signatures";

    /// <summary>No file is known as malware.</summary>
    public const string Malware = "malware";

    /// <summary>What is installed is listed, in SPDX and CycloneDX.</summary>
    public const string Sbom = "sbom";

    /// <summary>No installed package has a known vulnerability that is too severe.</summary>
    public const string Vulnerabilities = "vulnerabilities";

    /// <summary>It was started in a throw-away guest, and came up healthy.</summary>
    public const string Boot = "boot";

    /// <summary>Most findings that a report names; it says how many there are in all.</summary>
    public const int MostFindings = 500;

    /// <summary>Most characters of a finding or a summary.</summary>
    public const int LongestText = 300;

    /// <summary>All of them, in the order in which they are shown.</summary>
    public static IReadOnlyList<string> All { get; } = [Signatures, Malware, Sbom, Vulnerabilities, Boot];
}

/// <summary>How a check ended.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<CheckOutcome>))]
public enum CheckOutcome
{
    /// <summary>It was made, and found nothing that stops a release.</summary>
    [JsonStringEnumMemberName("passed")]
    Passed,

    /// <summary>It found something that stops a release.</summary>
    [JsonStringEnumMemberName("failed")]
    Failed,

    /// <summary>It was not made: what it needs was not given, or is not in an image of this kind.</summary>
    [JsonStringEnumMemberName("not-done")]
    NotDone,
}

/// <summary>What one check found.</summary>
/// <param name="Check">Its name, one of <see cref="ReleaseChecks.All"/>.</param>
/// <param name="Outcome">How it ended.</param>
/// <param name="Summary">In one line, with what it was made with.</param>
/// <param name="Findings">The first <see cref="ReleaseChecks.MostFindings"/> findings, a line each.</param>
/// <param name="FindingsInAll">How many there are.</param>
public sealed record CheckResult(string Check, CheckOutcome Outcome, string Summary, IReadOnlyList<string> Findings, int FindingsInAll);

/// <summary>What the checks of a release found, as the publisher signs it.</summary>
/// <param name="Format">Always 1; a reader refuses others.</param>
/// <param name="Image">The golden image.</param>
/// <param name="Version">The release.</param>
/// <param name="ManifestSha256">SHA-256 of the release's manifest as signed, hexadecimal: a report is of one release only.</param>
/// <param name="CheckedAt">When, seconds since 1970, by the clock of the computer that checked.</param>
/// <param name="Checks">The results, each check at most once.</param>
/// <param name="Spdx">SHA-256 of the SPDX document, hexadecimal; null where there is none.</param>
/// <param name="CycloneDx">SHA-256 of the CycloneDX document, hexadecimal; null where there is none.</param>
public sealed record ReleaseReport(
    int Format, string Image, int Version, string ManifestSha256, long CheckedAt, IReadOnlyList<CheckResult> Checks, string? Spdx, string? CycloneDx)
{
    /// <summary>The <c>typ</c> of a signed report.</summary>
    public const string Type = "nacre-report+jws";

    /// <summary>Most characters of a signed report.</summary>
    public const int LongestSigned = 1024 * 1024;
}

/// <summary>Keeps a report with its release, in the place of the one before.</summary>
/// <param name="Report">A <see cref="ReleaseReport"/> as compact JWS (ES256) by the organisation's release signing key.</param>
/// <param name="Spdx">The SPDX document that the report names, gzip, base64; absent where it names none.</param>
/// <param name="CycloneDx">The CycloneDX document that the report names, gzip, base64; absent where it names none.</param>
public sealed record PutReport(string Report, string? Spdx = null, string? CycloneDx = null);

/// <summary>A list of what is installed.</summary>
/// <param name="Document">The JSON document, gzip, base64.</param>
public sealed record SoftwareList(string Document);

/// <summary>What a release must have before a channel can point at it.</summary>
/// <param name="RequiredChecks">Checks that must have passed.</param>
/// <param name="Approvals">How many administrators other than the one who published it must approve it, 0 to 16.</param>
public sealed record ReleasePolicy(IReadOnlyList<string> RequiredChecks, int Approvals);

/// <summary>Approves or rejects a release, with the report that it has now.</summary>
/// <param name="Approved">Whether it may be used.</param>
/// <param name="Reason">Why, in at most 300 characters; a rejection needs one.</param>
public sealed record DecideRelease(bool Approved, string? Reason);

/// <summary>What an administrator decided about a release.</summary>
/// <param name="Administrator">Who.</param>
/// <param name="Approved">Whether it may be used.</param>
/// <param name="Reason">Why.</param>
/// <param name="At">When.</param>
/// <param name="Counts">Whether it is about the report that the release has now; an approval of another one counts no more.</param>
public sealed record ReleaseDecision(string Administrator, bool Approved, string Reason, DateTimeOffset At, bool Counts);

/// <summary>How a release stands.</summary>
/// <param name="Release">The release.</param>
/// <param name="PublishedBy">The administrator who published it.</param>
/// <param name="Report">The signed report; null where there is none.</param>
/// <param name="Decisions">What administrators decided, the oldest first.</param>
/// <param name="Lacks">Why no channel can point at it, a line each; empty: one can.</param>
public sealed record ReleaseStanding(Release Release, string PublishedBy, string? Report, IReadOnlyList<ReleaseDecision> Decisions, IReadOnlyList<string> Lacks);

/// <summary>Names an administrator beside the first one.</summary>
/// <param name="Name">Unique name; see <see cref="Names"/>.</param>
/// <param name="Roles">What it may do, of <see cref="PeopleRoles.Staff"/>; null: <see cref="PeopleRoles.Administrator"/>.</param>
public sealed record CreateAdministrator(string Name, IReadOnlyList<string>? Roles = null);

/// <summary>An administrator.</summary>
/// <param name="Name">Unique name.</param>
/// <param name="CreatedAt">When it was named.</param>
/// <param name="Roles">What it may do.</param>
public sealed record Administrator(string Name, DateTimeOffset CreatedAt, IReadOnlyList<string> Roles);

/// <summary>A named administrator's token, shown this once.</summary>
/// <param name="Name">Whose.</param>
/// <param name="Token">What <c>nacre login</c> takes.</param>
public sealed record CreatedAdministrator(string Name, string Token)
{
    /// <summary>Without the secret.</summary>
    public override string ToString() => $"{nameof(CreatedAdministrator)} {{ Name = {Name}, Token = *** }}";
}
