using System.Runtime.Versioning;
using System.Security.Cryptography;

namespace Nacre.Images.Building;

/// <summary>
/// What the steps of earlier builds made, by the steps' keys. Any number of builds may use one folder: an entry appears whole or not at all, is told
/// whole from damaged by the digest in its name, and may go at any moment.
/// </summary>
/// <param name="folder">The folder.</param>
/// <param name="maximumBytes">What all entries take at most; those that were not used for longest go.</param>
/// <param name="time">The clock that says when an entry was used.</param>
[UnsupportedOSPlatform("windows")]
internal sealed class StepCache(string folder, long maximumBytes, TimeProvider time)
{
    private const string Extension = ".tar.zst";
    private const string Half = ".half";

    /// <summary>No build keeps an entry for as long as this before it has its name.</summary>
    private static readonly TimeSpan Abandoned = TimeSpan.FromHours(24);

    /// <summary>Puts an entry into a build's folder. A damaged one is removed.</summary>
    /// <param name="key">The step's key.</param>
    /// <param name="target">The file to make.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <returns>Whether there was a whole one.</returns>
    internal async Task<bool> TryTakeAsync(string key, string target, CancellationToken cancellationToken)
    {
        foreach (var entry in EntriesOf(key))
        {
            // A link stays when the entry goes, and it is looked at after it was made.
            if (await ProcessTree.RunAsync("cp", ["--link", "--", entry, target], "/", Environment, _ => { }, cancellationToken).ConfigureAwait(false) != 0)
            {
                try
                {
                    File.Copy(entry, target, overwrite: true);
                }
                catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
                {
                    // It went meanwhile, or there is no room for it: the step is done anew.
                    File.Delete(target);
                    continue;
                }
            }

            if (await DigestAsync(target, cancellationToken).ConfigureAwait(false) == DigestIn(entry))
            {
                Touch(key);
                return true;
            }

            File.Delete(target);
            File.Delete(entry);
        }

        return false;
    }

    /// <summary>Makes an entry, if there is one, the newest used.</summary>
    internal void Touch(string key)
    {
        foreach (var entry in EntriesOf(key))
        {
            try
            {
                File.SetLastWriteTimeUtc(entry, time.GetUtcNow().UtcDateTime);
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                // It went meanwhile, or is only read: what it holds is as good.
            }
        }
    }

    /// <summary>Keeps what a step made, unless it is kept already, and lets the oldest entries go. What can't be kept is no error: the next build makes it again.</summary>
    /// <param name="key">The step's key.</param>
    /// <param name="made">The file, which is taken away.</param>
    /// <param name="cancellationToken">Stops.</param>
    internal async Task KeepAsync(string key, string made, CancellationToken cancellationToken)
    {
        var half = Path.Combine(folder, $"{Guid.NewGuid():n}{Half}");
        try
        {
            Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            if (EntriesOf(key).Count > 0)
            {
                return;
            }

            var digest = await DigestAsync(made, cancellationToken).ConfigureAwait(false);
            File.Move(made, half);
            File.SetUnixFileMode(half, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead);
            File.SetLastWriteTimeUtc(half, time.GetUtcNow().UtcDateTime);
            File.Move(half, Path.Combine(folder, $"{key}.{digest}{Extension}"), overwrite: true);
            Prune();
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            if (File.Exists(half))
            {
                File.Delete(half);
            }
        }
    }

    private static IReadOnlyDictionary<string, string> Environment { get; } = new Dictionary<string, string> { ["PATH"] = "/usr/bin:/bin", ["LC_ALL"] = "C.UTF-8" };

    private static string DigestIn(string entry) => Path.GetFileName(entry).Split('.')[1];

    private static async Task<string> DigestAsync(string path, CancellationToken cancellationToken)
    {
        var stream = File.OpenRead(path);
        await using var _ = stream.ConfigureAwait(false);
        return Convert.ToHexStringLower(await SHA256.HashDataAsync(stream, cancellationToken).ConfigureAwait(false));
    }

    private List<string> EntriesOf(string key) => Directory.Exists(folder) ? [.. Directory.EnumerateFiles(folder, $"{key}.*{Extension}").Order(StringComparer.Ordinal)] : [];

    private void Prune()
    {
        var now = time.GetUtcNow();
        long kept = 0;
        foreach (var file in new DirectoryInfo(folder).EnumerateFiles().Where(file => file.Exists).OrderByDescending(file => file.LastWriteTimeUtc).ToList())
        {
            var isHalf = file.Name.EndsWith(Half, StringComparison.Ordinal);
            kept += isHalf ? 0 : file.Length;
            if (isHalf ? now - file.LastWriteTimeUtc > Abandoned : kept > maximumBytes)
            {
                file.Delete();
            }
        }
    }
}
