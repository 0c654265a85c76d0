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
/// <param name="Kind">What the image is made of; the same for all of an image's releases. Where it is left out: layered.</param>
public sealed record ReleaseManifest(
    int Format,
    string Image,
    int Version,
    long Created,
    string CommandLine,
    long Size,
    SegmentReference Index,
    IReadOnlyList<SegmentReference> Segments,
    ImageKind Kind = ImageKind.Layered)
{
    /// <summary>The <c>typ</c> of a signed manifest.</summary>
    public const string Type = "nacre-release+jws";
}

/// <summary>A stored segment: ciphertext under a name.</summary>
/// <param name="Name">32 hexadecimal digits.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Sha256">Of the ciphertext, hexadecimal.</param>
public sealed record SegmentReference(string Name, long Length, string Sha256);
