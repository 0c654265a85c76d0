using System.Globalization;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>What a manifest must be even when it is signed: a publisher can err, and its key can be stolen.</summary>
internal static class ManifestRules
{
    /// <summary>2 TiB in segments of 32 MiB; bounds the look-ups of one publication.</summary>
    public const int MostSegments = 65_536;
    private const long LargestSize = 1L << 46, LatestTime = 253_402_300_799;
    private const int LongestCommandLine = 2048;
    private const int MostDeltas = 64;

    public static Failure? Check(ReleaseManifest manifest, string image, long maxSegmentBytes)
    {
        if (manifest.Format != 1)
        {
            return new Failure(ErrorCatalogue.Unsupported, string.Create(CultureInfo.InvariantCulture, $"manifests of format {manifest.Format} are not known here"));
        }

        var reason = manifest switch
        {
            { Image: var other } when other != image => "it is for another image",
            { Version: < 1 } => "versions begin with 1",
            { Created: < 0 or > LatestTime } => "'created' is out of range",
            { Size: < 0 or > LargestSize } => "'size' is out of range",
            { CommandLine: null or { Length: > LongestCommandLine } } => "'commandLine' is missing or too long",
            _ when !Text.IsPrintable(manifest.CommandLine) => "'commandLine' has control characters",
            _ when !Enum.IsDefined(manifest.Kind) => "'kind' is none",
            { Digest: { } digest } when !Text.IsSha256(digest) => "'digest' is none",
            { Kind: not ImageKind.Application, BuiltOn: not null } or { Kind: not ImageKind.Application, Contents: not null } => "a system or a disk has no 'builtOn' and no 'contents'",
            { Kind: ImageKind.Application } when !Text.IsSha256(manifest.Digest) || !Text.IsSha256(manifest.BuiltOn) || !Text.IsSha256(manifest.Contents) =>
                "an application layer has 'digest', 'builtOn' and 'contents'",
            { Segments: null or { Count: > MostSegments } } => "'segments' is missing or has too many",
            _ when !IsSane(manifest.Index, maxSegmentBytes) => "'index' is not a segment",
            _ when !manifest.Segments.All(segment => IsSane(segment, maxSegmentBytes)) => "one of 'segments' is not a segment",
            { Deltas.Count: > MostDeltas } => "'deltas' has too many",
            _ when manifest.Deltas?.All(delta => IsSane(delta, manifest.Version, maxSegmentBytes)) == false => "one of 'deltas' is none",
            _ when manifest.Deltas?.DistinctBy(delta => delta.From).Count() != manifest.Deltas?.Count => "a release has two deltas",
            _ when manifest.Stored.Count() > MostSegments => "it names too many stored files",
            _ when manifest.Segments.DistinctBy(segment => segment.Name).Count() != manifest.Segments.Count => "a segment is named twice",
            _ when manifest.Stored.Distinct().DistinctBy(stored => stored.Name).Count() != manifest.Stored.Distinct().Count() => "what is stored under a name is given twice, differently",
            _ => null,
        };
        return reason is null ? null : ImageErrors.ManifestInvalid(reason);
    }

    private static bool IsSane(ReleaseDelta? delta, int version, long maxSegmentBytes) => delta is { From: >= 1, Parts: not null } && delta.From < version
        && IsSane(delta.Plan, maxSegmentBytes) && delta.Parts.All(part => IsSane(part, maxSegmentBytes));

    private static bool IsSane(SegmentReference? segment, long maxSegmentBytes) => segment is not null
        && Names.IsSegmentName(segment.Name) && segment.Length >= 1 && segment.Length <= maxSegmentBytes && Text.IsSha256(segment.Sha256);
}
