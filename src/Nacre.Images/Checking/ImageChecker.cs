using System.Runtime.Versioning;
using System.Text;
using Nacre.Contracts;
using Nacre.Images.Building;

namespace Nacre.Images.Checking;

/// <summary>What an image is checked with.</summary>
public sealed record CheckOptions
{
    /// <summary>A folder of ClamAV's signatures, or one file of them; null: no malware is looked for.</summary>
    public string? MalwareSignatures { get; init; }

    /// <summary>Advisories: OSV as JSON or Debian's OVAL as XML, files or folders; empty: no vulnerability is looked for.</summary>
    public IReadOnlyList<string> Advisories { get; init; } = [];

    /// <summary>The least severity that stops a release; those that an advisory does not say count as <see cref="Severity.Unknown"/>. Default: high.</summary>
    public Severity StopAt { get; init; } = Severity.High;

    /// <summary>Starts the image in a throw-away guest and says how that went, told the same as <see cref="ImageChecker.CheckAsync"/>'s report; null: it is not started.</summary>
    public Func<Action<double, string>, CancellationToken, Task<CheckResult>>? Boot { get; init; }

    /// <summary>Where the image's files are taken apart: it needs as much space as they have.</summary>
    public string TemporaryFolder { get; init; } = Path.GetTempPath();
}

/// <summary>Checks a built image, on the computer where it was built: the server never sees what is in it.</summary>
public static class ImageChecker
{
    private const int LargestStatus = 64 << 20;

    /// <summary>Makes every check that the options and the image allow, and leaves the results in its folder. Nothing of the image is run, but in the guest of <see cref="CheckOptions.Boot"/>.</summary>
    /// <param name="folder">The image's folder.</param>
    /// <param name="options">What it is checked with.</param>
    /// <param name="time">The clock.</param>
    /// <param name="report">Told the share that is done, 0 to 1 (NaN where it is not known), and what goes on.</param>
    /// <param name="cancellationToken">Stops; the results of before stay.</param>
    /// <exception cref="NacreException">NotAnImage; ProgramMissing; FileAccess: the signatures or advisories can't be read.</exception>
    [UnsupportedOSPlatform("windows")]
    public static async Task<ImageChecks> CheckAsync(string folder, CheckOptions options, TimeProvider time, Action<double, string> report, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(time);
        ArgumentNullException.ThrowIfNull(report);
        var image = GoldenImage.Open(folder);
        report(double.NaN, "reading the image");
        var digests = await ImageChecks.DigestsAsync(image, cancellationToken).ConfigureAwait(false);
        List<CheckResult> results;
        (byte[] Spdx, byte[] CycloneDx)? lists = null;
        if (image.Kind == ImageKind.Disk)
        {
            const string Closed = "a whole disk is not looked into";
            results = [.. ReleaseChecks.All.Where(check => check != ReleaseChecks.Boot).Select(check => ImageChecks.Result(check, CheckOutcome.NotDone, Closed, []))];
        }
        else
        {
            report(double.NaN, "taking the image apart");
            using var files = await ExtractedImage.OpenAsync(image.Artifacts[^1].Path, options.TemporaryFolder, cancellationToken).ConfigureAwait(false);
            var packages = image.Contents is { } contents ? DebianPackages.Of(LayerContents.FromJson(contents))
                : files.TryRead("var/lib/dpkg/status", LargestStatus) is { } status ? DebianPackages.Parse(status) : [];
            results = [Signatures(folder), await MalwareAsync(files, image, options, report, cancellationToken).ConfigureAwait(false)];
            report(double.NaN, "listing what is installed");
            if (packages.Count > 0)
            {
                lists = (SoftwareLists.Spdx(image, digests.FileSystem, packages), SoftwareLists.CycloneDx(image, digests.FileSystem, packages));
            }

            results.Add(ImageChecks.Result(
                ReleaseChecks.Sbom, packages.Count > 0 ? CheckOutcome.Passed : CheckOutcome.Failed,
                packages.Count > 0 ? $"{packages.Count} packages in SPDX 2.3 and CycloneDX 1.5" : "the image has no readable list of packages", []));
            report(double.NaN, "looking for known vulnerabilities");
            results.Add(LookUp(packages, VersionOf(files, packages), options, cancellationToken));
        }

        results.Add(options.Boot is { } boot
            ? await boot(report, cancellationToken).ConfigureAwait(false)
            : ImageChecks.Result(ReleaseChecks.Boot, CheckOutcome.NotDone, "skipped", []));
        var checks = new ImageChecks(digests.All, digests.FileSystem, time.GetUtcNow().ToUnixTimeSeconds(), results);
        Deliver(folder, lists, checks);
        return checks;
    }

    private static void Deliver(string folder, (byte[] Spdx, byte[] CycloneDx)? lists, ImageChecks checks)
    {
        File.Delete(Path.Combine(folder, ImageChecks.SpdxFile));
        File.Delete(Path.Combine(folder, ImageChecks.CycloneDxFile));
        if (lists is { } made)
        {
            File.WriteAllBytes(Path.Combine(folder, ImageChecks.SpdxFile), made.Spdx);
            File.WriteAllBytes(Path.Combine(folder, ImageChecks.CycloneDxFile), made.CycloneDx);
        }

        checks.Write(folder);
    }

    /// <summary>What the build wrote down: apt verified each archive's signature before a package was taken from it.</summary>
    private static CheckResult Signatures(string folder)
    {
        var archives = BuiltImage.FromJson(File.ReadAllBytes(Path.Combine(folder, "image.json"))).Archives;
        return archives.IsDefaultOrEmpty
            ? ImageChecks.Result(ReleaseChecks.Signatures, CheckOutcome.NotDone, "the build did not write down from which archives it took its packages", [])
            : Signatures(archives);
    }

    /// <summary>Failed where a signature is missing that apt should have insisted on; not done where the recipe takes packages of a source unverified.</summary>
    internal static CheckResult Signatures(IReadOnlyList<SignedArchive> archives)
    {
        var checkedOnes = archives.Where(archive => !archive.IsUnverified).ToList();
        var unverified = archives.Count - checkedOnes.Count;
        var signed = $"{checkedOnes.Count(archive => archive.SignedBy.Length > 0)} of {checkedOnes.Count} archives are signed by a key of their keyring";
        return ImageChecks.Result(
            ReleaseChecks.Signatures,
            checkedOnes.Any(archive => archive.SignedBy.Length == 0) ? CheckOutcome.Failed : unverified > 0 ? CheckOutcome.NotDone : CheckOutcome.Passed,
            unverified == 0 ? signed : $"packages of {unverified} sources were not verified, as the recipe says (base.unverifiedSources); {signed}",
            [
                .. archives.Select(archive => archive.IsUnverified ? $"{archive.Name}: its packages were not verified; list of packages sha256 {archive.Sha256}"
                    : $"{archive.Name}: {(archive.SignedBy.Length > 0 ? archive.SignedBy : "no good signature")}; index sha256 {archive.Sha256}"),
            ]);
    }

    [UnsupportedOSPlatform("windows")]
    private static async Task<CheckResult> MalwareAsync(ExtractedImage files, GoldenImage image, CheckOptions options, Action<double, string> report, CancellationToken cancellationToken) =>
        options.MalwareSignatures is { } signatures
            ? await MalwareScan.RunAsync(files, image.Artifacts.SkipLast(1).Select(artifact => artifact.Path), Path.GetFullPath(signatures), report, cancellationToken).ConfigureAwait(false)
            : ImageChecks.Result(ReleaseChecks.Malware, CheckOutcome.NotDone, "no malware signatures were named (--malware-signatures)", []);

    private static CheckResult LookUp(IReadOnlyList<DebianPackage> packages, string debianVersion, CheckOptions options, CancellationToken cancellationToken)
    {
        if (options.Advisories.Count == 0)
        {
            return ImageChecks.Result(ReleaseChecks.Vulnerabilities, CheckOutcome.NotDone, "no advisories were named (--advisories)", []);
        }

        var advisories = new Advisories(packages, debianVersion);
        foreach (var path in options.Advisories)
        {
            advisories.Read(path, cancellationToken);
        }

        var found = advisories.Found;
        var stops = found.Count(one => one.Severity >= options.StopAt);
        return ImageChecks.Result(
            ReleaseChecks.Vulnerabilities, stops > 0 ? CheckOutcome.Failed : CheckOutcome.Passed,
            $"{found.Count} known in {packages.Count} packages, {stops} of them {Word(options.StopAt)} or worse; {advisories.Count} advisories looked at",
            [.. found.Select(one => $"{one.Id} ({Word(one.Severity)}): {one.Package.Name} {one.Package.Version}, {(one.FixedIn is null ? "not repaired yet" : $"repaired in {one.FixedIn}")}")]);
    }

    private static string Word(Severity severity) => severity.ToString().ToLowerInvariant();

    /// <summary>The version of Debian, as advisories call it: of its os-release, or of what base-files says.</summary>
    [UnsupportedOSPlatform("windows")]
    private static string VersionOf(ExtractedImage files, IReadOnlyList<DebianPackage> packages)
    {
        const int LargestRelease = 1 << 16;
        var line = Encoding.UTF8.GetString(files.TryRead("usr/lib/os-release", LargestRelease) ?? []).Split('\n').FirstOrDefault(text => text.StartsWith("VERSION_ID=", StringComparison.Ordinal));
        return line?["VERSION_ID=".Length..].Trim().Trim('"') ?? packages.FirstOrDefault(package => package.Name == "base-files")?.Version.Split('.')[0] ?? "";
    }
}
