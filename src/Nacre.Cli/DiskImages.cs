using System.Text.Json;
using Nacre.Contracts;
using Nacre.Images.Importing;

namespace Nacre.Cli;

/// <summary>Disk images of other programs, through <c>qemu-img</c>, which knows their formats.</summary>
internal static class DiskImages
{
    /// <summary>The size in bytes of the disk that an image holds.</summary>
    /// <param name="file">The image.</param>
    /// <param name="format">Its format; null: as <c>qemu-img</c> recognises it.</param>
    /// <param name="withOthers">Whether it may name other files.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="NacreException">FileAccess; NotADisk: the image names another file, so that a part of the disk would be whatever its maker chose of this computer.</exception>
    public static async Task<long> SizeAsync(string file, string? format, bool withOthers, CancellationToken cancellationToken)
    {
        if (!File.Exists(file))
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"{file} does not exist");
        }

        var output = await RunAsync(["info", "--output=json", .. Format("-f", format), file], null, cancellationToken);
        using var json = JsonDocument.Parse(output);
        return !withOthers && NamesAnother(json.RootElement) is { } other
            ? throw new NacreException(ErrorCatalogue.NotADisk, $"{file} holds only a part of its disk; the rest is in '{other}'. If you made it yourself, '--chain' reads that too")
            : json.RootElement.GetProperty("virtual-size").GetInt64();
    }

    /// <summary>Copies an image onto the device at <paramref name="uri"/>.</summary>
    public static async Task<bool> ImportAsync(string file, string? format, string uri, Action<double, string> report, CancellationToken cancellationToken)
    {
        await RunAsync(["convert", "-p", "-n", .. Format("-f", format), "-O", "raw", "--target-is-zero", file, uri], report, cancellationToken);
        return true;
    }

    /// <summary>Copies the device at <paramref name="uri"/> into a new image that only its owner may read; a failure leaves none.</summary>
    public static async Task<bool> ExportAsync(string uri, string file, string format, Action<double, string> report, CancellationToken cancellationToken)
    {
        var part = file + ".part";
        File.Delete(part);
        await using (new FileStream(part, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite }))
        {
        }

        try
        {
            // Otherwise a VHD would be larger: as many sectors as whole cylinders have.
            string[] exact = format == "vpc" ? ["-o", "force_size=on"] : [];
            await RunAsync(["convert", "-p", "-f", "raw", "-O", format, .. exact, uri, part], report, cancellationToken);
            File.Move(part, file);
            return true;
        }
        finally
        {
            File.Delete(part);
        }
    }

    private static string? NamesAnother(JsonElement image)
    {
        if (image.TryGetProperty("backing-filename", out var backing))
        {
            return backing.GetString();
        }

        if (!image.TryGetProperty("format-specific", out var specific) || !specific.TryGetProperty("data", out var data))
        {
            return null;
        }

        return data.TryGetProperty("data-file", out var file) ? file.GetString()
            : data.TryGetProperty("extents", out var extents) && extents.GetArrayLength() > 1 ? extents[1].GetProperty("filename").GetString()
            : null;
    }

    private static string[] Format(string option, string? format) => format is null ? [] : [option, format];

    private static Task<string> RunAsync(string[] arguments, Action<double, string>? report, CancellationToken cancellationToken) =>
        QemuImg.RunAsync(arguments, long.MaxValue, report is null ? null : share => report(share, ""), cancellationToken);
}
