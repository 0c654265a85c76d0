using System.Text.Json;
using Nacre.Contracts;
using Nacre.Images.Building;
using Nacre.Images.Importing;

namespace Nacre.Images;

/// <summary>One file of a built golden image.</summary>
/// <param name="Name"><c>system</c>, <c>kernel</c> or <c>initramfs</c>; of an image of kind disk: <c>disk</c>.</param>
/// <param name="Path">Where it is.</param>
/// <param name="Size">Bytes.</param>
public sealed record GoldenArtifact(string Name, string Path, long Size);

/// <summary>A golden image: the folder that <c>nacre image build</c> or <c>nacre image import</c> made.</summary>
/// <param name="Name">The image's name.</param>
/// <param name="Created">When its content is from, seconds since 1970.</param>
/// <param name="CommandLine">What the image wants on its kernel's command line.</param>
/// <param name="Artifacts">Its files, in the order in which a start reads them.</param>
/// <param name="Kind">What it is made of.</param>
public sealed record GoldenImage(string Name, long Created, string CommandLine, IReadOnlyList<GoldenArtifact> Artifacts, ImageKind Kind = ImageKind.Layered)
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
