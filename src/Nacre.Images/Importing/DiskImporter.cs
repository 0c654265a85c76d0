using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Images.Importing;

/// <summary>Makes a golden image of a whole disk that other programs made.</summary>
public static class DiskImporter
{
    /// <summary>Bytes of the largest disk that is imported.</summary>
    public const long MaximumSize = 2L << 40;

    // qemu-img check: 0 is well, 3 wastes space only, 63 is for a format that has no check.
    private const int LeaksOnly = 3;
    private const int NoCheck = 63;

    /// <summary>Imports a disk into a new folder. Its file is untrusted; nothing but it is read. A failure leaves nothing behind.</summary>
    /// <param name="file">The disk's file.</param>
    /// <param name="format">What it is; null: what its first bytes say.</param>
    /// <param name="member">Of an archive with several disks, the name of the one to import; null: the only one.</param>
    /// <param name="name">The golden image's name.</param>
    /// <param name="output">The folder to make.</param>
    /// <param name="report">Told the share that is done, 0 to 1 (NaN where it is not known), and what goes on.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="NacreException">NameInvalid; AlreadyExists; FileAccess; NotADisk; NoSpace; ProgramMissing; UsageInvalid: which disk of an archive is meant is not said, or is none of its disks.</exception>
    public static async Task<ImportedDisk> ImportAsync(
        string file, DiskFormat? format, string? member, string name, string output, Action<double, string>? report, CancellationToken cancellationToken)
    {
        _ = Names.Parse(name, "an image");
        if (Path.Exists(output))
        {
            throw new NacreException(ErrorCatalogue.AlreadyExists, $"'{output}' is there already");
        }

        var source = new FileInfo(Path.GetFullPath(file));
        if (!source.Exists)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"'{file}' is not there");
        }

        var work = $"{Path.GetFullPath(output).TrimEnd('/')}.{Guid.NewGuid():n}.part";
        try
        {
            var content = DiskSource.Of(file, source.FullName);
            var (found, driver) = DiskHeader.Recognise(content, format);
            var (inside, notes) = ((string?)null, Array.Empty<string>());
            if (found == DiskFormat.Ova)
            {
                (content, inside, notes) = ApplianceArchive.FindDisk(content, member, report, cancellationToken);
                (_, driver) = DiskHeader.Recognise(content, null);
            }
            else if (member is not null)
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{file}' is no archive with disks in it, so there is no disk '{member}'");
            }

            Directory.CreateDirectory(work);
            var disk = Path.Combine(work, ImportedDisk.FileName);
            await ConvertAsync(content, driver, disk, report, cancellationToken).ConfigureAwait(false);
            DiskHeader.RequirePartitions(file, disk);
            report?.Invoke(double.NaN, "recognising partitions");
            var partitions = await DiskPartitions.ReadAsync(disk, cancellationToken).ConfigureAwait(false);
            var image = new ImportedDisk
            {
                Name = name, Created = source.LastWriteTimeUtc, DiskSize = new FileInfo(disk).Length, From = found, Disk = inside, Notes = [.. notes], Partitions = partitions,
            };
            await File.WriteAllBytesAsync(Path.Combine(work, "image.json"), image.ToJson(), cancellationToken).ConfigureAwait(false);
            Directory.Move(work, output);
            return image;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, exception.Message.TrimEnd('.'), exception);
        }
        finally
        {
            if (Directory.Exists(work))
            {
                Directory.Delete(work, recursive: true);
            }
        }
    }

    private static async Task ConvertAsync(DiskSource source, string driver, string disk, Action<double, string>? report, CancellationToken cancellationToken)
    {
        // The driver is named, so nothing is guessed from the content; "backing=" means none, whatever the image says.
        var (file, image, name) = (source.Name, source.Options(driver), driver.Split(',')[0]);
        report?.Invoke(double.NaN, $"examining {name}");
        var size = SizeOf(file, await RunAsync(file, ["info", "--output=json", "--image-opts", image], 0, null, cancellationToken).ConfigureAwait(false));
        if (name != "raw")
        {
            var (code, _, errors) = await QemuImg.TryAsync(["check", "--output=json", "--image-opts", image], 0, null, cancellationToken).ConfigureAwait(false);
            if (code is not (0 or LeaksOnly or NoCheck))
            {
                throw DiskHeader.Refused(file, $"it is damaged or was cut off{(errors.Length == 0 ? "" : $": {errors}")}");
            }
        }

        // -S 4k: every block of zeroes becomes a hole, which costs nothing from here on.
        await RunAsync(
            file, ["convert", "-p", "-S", "4k", "--image-opts", "-O", "raw", image, disk], size, share => report?.Invoke(share, "converting"),
            cancellationToken).ConfigureAwait(false);
    }

    private static async Task<string> RunAsync(string file, string[] arguments, long mostBytes, Action<double>? report, CancellationToken cancellationToken)
    {
        try
        {
            return await QemuImg.RunAsync(arguments, mostBytes, report, cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.FileAccess)
        {
            throw DiskHeader.Refused(file, exception.Message);
        }
    }

    private static long SizeOf(string file, string untrustedInformation)
    {
        using var information = JsonDocument.Parse(untrustedInformation);
        if (information.RootElement.TryGetProperty("backing-filename", out _) || information.RootElement.TryGetProperty("encrypted", out _))
        {
            throw DiskHeader.Refused(file, "it is encrypted, or made of changes to another disk");
        }

        var size = information.RootElement.GetProperty("virtual-size").GetInt64();
        DiskHeader.RequireSize(file, (ulong)size);
        return size;
    }
}
