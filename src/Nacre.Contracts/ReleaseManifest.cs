namespace Nacre.Contracts;

/// <summary>
/// What a publisher signs: one release of a golden image. The manifest names every stored segment and, through the index's
/// hash, every byte of the release.
/// </summary>
/// <param name="Format">Always 1; a reader refuses others.</param>
/// <param name="Image">The golden image.</param>
/// <param name="Version">1, 2, 3, … within the image.</param>
/// <param name="Created">When the image was built, seconds since 1970: an input of the build, not a clock.</param>
/// <param name="CommandLine">Kernel command line that the image wants in addition to the player's.</param>
/// <param name="Size">Bytes of all artifacts.</param>
/// <param name="Index">Where the encrypted index is.</param>
/// <param name="Segments">Every segment that the index refers to.</param>
/// <param name="Kind">What the image is: a release of one kind is never used as another.</param>
/// <param name="Digest">SHA-256 of the file system, hexadecimal; null of a whole disk, and from a publisher of before.</param>
/// <param name="BuiltOn">Of an application layer: the <paramref name="Digest"/> of the system that it was built on.</param>
/// <param name="Contents">Of an application layer: SHA-256 of its <see cref="LayerContents"/> as JSON, hexadecimal.</param>
/// <param name="Deltas">For devices that have an earlier release; null of a release without any.</param>
public sealed record ReleaseManifest(
    int Format,
    string Image,
    int Version,
    long Created,
    string CommandLine,
    long Size,
    SegmentReference Index,
    IReadOnlyList<SegmentReference> Segments,
    ImageKind Kind = ImageKind.System,
    string? Digest = null,
    string? BuiltOn = null,
    string? Contents = null,
    IReadOnlyList<ReleaseDelta>? Deltas = null)
{
    /// <summary>The <c>typ</c> of a signed manifest.</summary>
    public const string Type = "nacre-release+jws";

    /// <summary>Which release it is.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public ReleaseName Name => new(Image, Version);

    /// <summary>All that the store holds for this release: index, segments, deltas.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public IEnumerable<SegmentReference> Stored => Segments.Append(Index).Concat((Deltas ?? []).SelectMany(delta => delta.Parts.Append(delta.Plan)));
}

/// <summary>What changed since an earlier release of the image, compressed against the content that it replaces.</summary>
/// <param name="From">That release.</param>
/// <param name="Plan">The encrypted list of what the parts hold.</param>
/// <param name="Parts">The encrypted content, in the plan's order.</param>
public sealed record ReleaseDelta(int From, SegmentReference Plan, IReadOnlyList<SegmentReference> Parts);

/// <summary>A stored segment: ciphertext under a name.</summary>
/// <param name="Name">32 hexadecimal digits.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Sha256">Of the ciphertext, hexadecimal.</param>
public sealed record SegmentReference(string Name, long Length, string Sha256);
