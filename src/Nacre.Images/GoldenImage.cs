using System.Text.Json;
using Nacre.Contracts;
using Nacre.Images.Building;
using Nacre.Images.Importing;

namespace Nacre.Images;

/// <summary>One file of a built golden image.</summary>
/// <param name="Name"><c>system</c>, <c>kernel</c> or <c>initramfs</c>; of an application layer <c>layer</c>, of a whole disk <c>disk</c>.</param>
/// <param name="Path">Where it is.</param>
/// <param name="Size">Bytes.</param>
public sealed record GoldenArtifact(string Name, string Path, long Size);

/// <summary>A golden image: the folder that <c>nacre image build</c> or <c>nacre image import</c> made.</summary>
/// <param name="Name">The image's name.</param>
/// <param name="Created">When its content is from, seconds since 1970.</param>
/// <param name="CommandLine">What the image wants on its kernel's command line.</param>
/// <param name="Artifacts">Its files, in the order in which a start reads them; the last one is its file system.</param>
/// <param name="Kind">What it is.</param>
/// <param name="BuiltOn">Of an application layer: SHA-256 of the system that it was built on.</param>
/// <param name="Contents">Of an application layer: its <see cref="LayerContents"/> as JSON.</param>
public sealed record GoldenImage(
    string Name, long Created, string CommandLine, IReadOnlyList<GoldenArtifact> Artifacts, ImageKind Kind = ImageKind.System, string? BuiltOn = null, byte[]? Contents = null)
{
    /// <summary>Opens the folder.</summary>
    /// <exception cref="NacreException">NotAnImage.</exception>
    public static GoldenImage Open(string folder)
    {
        try
        {
            var json = File.ReadAllBytes(Path.Combine(folder, "image.json"));
            if (ImportedDisk.TryFromJson(json) is { } disk)
            {
                return new GoldenImage(
                    Names.Parse(disk.Name, "an image"), disk.Created.ToUnixTimeSeconds(), "", [Artifact(folder, "disk", ImportedDisk.FileName, disk.DiskSize)], ImageKind.Disk);
            }

            var built = BuiltImage.FromJson(json);
            if (built is { Kind: ImageKind.Application, On: { } on })
            {
                var contents = File.ReadAllBytes(Path.Combine(folder, "contents.json"));
                LayerContents.FromJson(contents);
                return new GoldenImage(
                    Names.Parse(built.Name, "an image"), built.Created.ToUnixTimeSeconds(), "", [Artifact(folder, "layer", "layer.erofs", built.SystemSize)],
                    ImageKind.Application, on.Sha256, contents);
            }

            return new GoldenImage(
                Names.Parse(built.Name, "an image"), built.Created.ToUnixTimeSeconds(), built.KernelCommandLine,
                [Artifact(folder, "kernel", "kernel", built.KernelSize), Artifact(folder, "initramfs", "initramfs", built.InitramfsSize), Artifact(folder, "system", "system.erofs", built.SystemSize)]);
        }
        catch (Exception exception) when (exception is IOException or JsonException or UnauthorizedAccessException)
        {
            throw new NacreException(ErrorCatalogue.NotAnImage, $"'{folder}' is not a built golden image: {exception.Message}", exception);
        }
    }

    private static GoldenArtifact Artifact(string folder, string name, string file, long expectedSize)
    {
        var path = Path.Combine(folder, file);
        var size = new FileInfo(path).Length;
        return size == expectedSize
            ? new GoldenArtifact(name, path, size)
            : throw new NacreException(ErrorCatalogue.NotAnImage, $"'{path}' has {size} bytes, and image.json says {expectedSize}");
    }
}
