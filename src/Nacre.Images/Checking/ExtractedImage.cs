using System.Runtime.Versioning;
using Nacre.Contracts;
using Nacre.Images.Building;

namespace Nacre.Images.Checking;

/// <summary>
/// An image's files, taken out into a folder that only this user may enter, and removed with this. They are untrusted: they have this user's
/// ownership and no special permissions, and no link among them is followed.
/// </summary>
[UnsupportedOSPlatform("windows")]
internal sealed class ExtractedImage : IDisposable
{
    private ExtractedImage(string folder) => Folder = folder;

    internal string Folder { get; }

    /// <exception cref="NacreException">ProgramMissing; NotAnImage: its file system can't be read.</exception>
    internal static async Task<ExtractedImage> OpenAsync(string fileSystem, string temporaryFolder, CancellationToken cancellationToken)
    {
        Programs.Require("fsck.erofs", "erofs-utils");
        var folder = Path.Combine(temporaryFolder, $"nacre-check-{Guid.NewGuid():n}");
        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        var image = new ExtractedImage(folder);
        try
        {
            var last = "";
            var code = await ProcessTree.RunAsync(
                "fsck.erofs", [$"--extract={Path.Combine(folder, "root")}", "--no-preserve", fileSystem], folder, Programs.Environment, line => last = line, cancellationToken).ConfigureAwait(false);
            return code == 0 ? image : throw new NacreException(ErrorCatalogue.NotAnImage, $"'{fileSystem}' can't be taken apart: {Programs.Printable(last)}");
        }
        catch
        {
            image.Dispose();
            throw;
        }
    }

    /// <summary>All regular files and their sizes; links and what is behind them are left out.</summary>
    internal IEnumerable<FileInfo> Files() => new DirectoryInfo(Folder).EnumerateFiles("*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.ReparsePoint, IgnoreInaccessible = false });

    /// <summary>A file's bytes; null where it is no file, goes through a link or is longer than <paramref name="longest"/>.</summary>
    internal byte[]? TryRead(string path, int longest)
    {
        var place = Path.Combine(Folder, "root");
        foreach (var part in path.Split('/'))
        {
            place = Path.Combine(place, part);
            if (new FileInfo(place).LinkTarget is not null)
            {
                return null;
            }
        }

        return new FileInfo(place) is { Exists: true } file && file.Length <= longest ? File.ReadAllBytes(place) : null;
    }

    public void Dispose()
    {
        // Folders that their owner may not write hold files that can't be deleted.
        foreach (var inner in new DirectoryInfo(Folder).EnumerateDirectories("*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.ReparsePoint, IgnoreInaccessible = true }))
        {
            inner.UnixFileMode |= UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        }

        Directory.Delete(Folder, recursive: true);
    }
}
