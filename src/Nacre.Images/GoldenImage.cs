namespace Nacre.Images;

/// <summary>One file of a built golden image.</summary>
/// <param name="Name"><c>system</c>, <c>kernel</c> or <c>initramfs</c>.</param>
/// <param name="Path">Where it is.</param>
/// <param name="Size">Bytes.</param>
public sealed record GoldenArtifact(string Name, string Path, long Size);

/// <summary>A built golden image: the folder that <c>nacre image build</c> made.</summary>
/// <param name="Name">The image's name.</param>
/// <param name="Created">When its content is from, seconds since 1970.</param>
/// <param name="CommandLine">What the image wants on its kernel's command line.</param>
/// <param name="Artifacts">Its files, in the order in which a start reads them.</param>
public sealed record GoldenImage(string Name, long Created, string CommandLine, IReadOnlyList<GoldenArtifact> Artifacts);
