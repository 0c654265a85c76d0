using System.IO.Compression;
using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Images.Checking;

/// <summary>What the checks of a built image found: <c>checks.json</c> in its folder, and beside it the lists of what is installed.</summary>
/// <param name="Digest">SHA-256 of the image's files together, hexadecimal: what is published must be what was checked.</param>
/// <param name="FileSystem">SHA-256 of its file system, as the manifest of its release has it.</param>
/// <param name="CheckedAt">When, seconds since 1970.</param>
/// <param name="Checks">The results.</param>
public sealed record ImageChecks(string Digest, string FileSystem, long CheckedAt, IReadOnlyList<CheckResult> Checks)
{
    /// <summary>The SPDX document's name in the folder.</summary>
    public const string SpdxFile = "sbom.spdx.json";

    /// <summary>The CycloneDX document's name in the folder.</summary>
    public const string CycloneDxFile = "sbom.cyclonedx.json";

    private const string ChecksFile = "checks.json";

    /// <summary>Whether a check found something that stops a release.</summary>
    public bool HasFailed => Checks.Any(check => check.Outcome == CheckOutcome.Failed);

    /// <summary>Reads what <see cref="ImageChecker.CheckAsync"/> left in the folder; null where the image was not checked.</summary>
    /// <exception cref="NacreException">NotAnImage: it is unreadable. CheckFailed: the image is another one than was checked.</exception>
    public static async Task<ImageChecks?> OpenAsync(string folder, GoldenImage image, CancellationToken cancellationToken)
    {
        var path = Path.Combine(folder, ChecksFile);
        if (!File.Exists(path))
        {
            return null;
        }

        ImageChecks checks;
        try
        {
            checks = JsonSerializer.Deserialize<ImageChecks>(await File.ReadAllBytesAsync(path, cancellationToken).ConfigureAwait(false), ContractJson.Options) ?? throw new JsonException("it is null");
        }
        catch (JsonException exception)
        {
            throw new NacreException(ErrorCatalogue.NotAnImage, $"'{path}' can't be read: {exception.Message}", exception);
        }

        return (await DigestsAsync(image, cancellationToken).ConfigureAwait(false)).All == checks.Digest
            ? checks
            : throw new NacreException(ErrorCatalogue.CheckFailed, $"'{folder}' is another image than was checked: check it again");
    }

    /// <summary>The report of a release made of this image, signed, with its lists.</summary>
    /// <param name="folder">The image's folder.</param>
    /// <param name="release">The release.</param>
    /// <param name="key">The organisation's release signing key.</param>
    /// <exception cref="NacreException">ReleaseNotAuthentic: the release is of another image, or not signed by the key.</exception>
    public PutReport Sign(string folder, Release release, ECDsa key)
    {
        ArgumentNullException.ThrowIfNull(release);
        var payload = Jws.Verify(release.Manifest, PublicKeys.From(key), ErrorCatalogue.ReleaseNotAuthentic);
        if (!Jws.TryRead<ReleaseManifest>(payload, out var manifest) || manifest.Image != release.Image || manifest.Version != release.Version
            || (manifest.Kind != ImageKind.Disk && manifest.Digest != FileSystem))
        {
            throw new NacreException(ErrorCatalogue.ReleaseNotAuthentic, $"release {release.Version} of '{release.Image}' is of another image than '{folder}'");
        }

        var (spdx, cycloneDx) = (TryRead(folder, SpdxFile), TryRead(folder, CycloneDxFile));
        var report = new ReleaseReport(1, release.Image, release.Version, Convert.ToHexStringLower(SHA256.HashData(payload)), CheckedAt, Checks, DigestOf(spdx), DigestOf(cycloneDx));
        return new PutReport(Jws.SignClaims(report, key, ReleaseReport.Type), Compress(spdx), Compress(cycloneDx));
    }

    internal void Write(string folder) => File.WriteAllBytes(Path.Combine(folder, ChecksFile), [.. JsonSerializer.SerializeToUtf8Bytes(this, ContractJson.Options), (byte)'\n']);

    /// <summary>A result within the bounds of a report.</summary>
    public static CheckResult Result(string check, CheckOutcome outcome, string summary, IReadOnlyCollection<string> untrustedFindings) => new(
        check, outcome, Programs.Printable(summary), [.. untrustedFindings.Take(ReleaseChecks.MostFindings).Select(Programs.Printable)], untrustedFindings.Count);

    /// <summary>The digest of the file system, and one of all of the image's files.</summary>
    internal static async Task<(string All, string FileSystem)> DigestsAsync(GoldenImage image, CancellationToken cancellationToken)
    {
        using var all = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] digest = [];
        foreach (var artifact in image.Artifacts)
        {
            var file = File.OpenRead(artifact.Path);
            await using var _ = file.ConfigureAwait(false);
            digest = await SHA256.HashDataAsync(file, cancellationToken).ConfigureAwait(false);
            all.AppendData(digest);
        }

        return (Convert.ToHexStringLower(all.GetHashAndReset()), Convert.ToHexStringLower(digest));
    }

    private static byte[]? TryRead(string folder, string name) => File.Exists(Path.Combine(folder, name)) ? File.ReadAllBytes(Path.Combine(folder, name)) : null;

    private static string? DigestOf(byte[]? document) => document is null ? null : Convert.ToHexStringLower(SHA256.HashData(document));

    private static string? Compress(byte[]? document)
    {
        if (document is null)
        {
            return null;
        }

        using var buffer = new MemoryStream();
        using (var gzip = new GZipStream(buffer, CompressionLevel.SmallestSize))
        {
            gzip.Write(document);
        }

        return Convert.ToBase64String(buffer.ToArray());
    }
}
