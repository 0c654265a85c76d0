using System.Runtime.Versioning;
using Nacre.Images.Recipes;

namespace Nacre.Images.Building;

/// <summary>The secrets of one build, as files in memory; gone when disposed. As the folder of the build it is entered only by who knows the random name below it.</summary>
[UnsupportedOSPlatform("windows")]
internal sealed class BuildSecrets : IDisposable
{
    private const string Memory = "/dev/shm";

    /// <summary>Below this, other bytes of an image are the same by chance.</summary>
    private const int Shortest = 8;
    private const int Longest = 64 * 1024;

    private readonly string outer;

    private BuildSecrets(string outer, string folder) => (this.outer, Folder) = (outer, folder);

    /// <summary>Where they are; empty where the recipe has none.</summary>
    internal string Folder { get; }

    /// <exception cref="ImageBuildException">Secret.</exception>
    internal static BuildSecrets Create(Recipe recipe, IReadOnlyDictionary<string, string> given)
    {
        if (recipe.Secrets.FirstOrDefault(name => !given.ContainsKey(name)) is { } missing)
        {
            throw Wrong($"the recipe needs the secret '{missing}': give its file with --secret {missing}=FILE");
        }

        if (given.Keys.FirstOrDefault(name => !recipe.Secrets.Contains(name)) is { } unknown)
        {
            throw Wrong($"the recipe has no secret '{unknown}'; its secrets: {(recipe.Secrets.IsEmpty ? "none" : string.Join(", ", recipe.Secrets))}");
        }

        if (recipe.Secrets.IsEmpty)
        {
            return new BuildSecrets("", "");
        }

        if (!Directory.Exists(Memory) || new DriveInfo(Memory).DriveFormat != "tmpfs")
        {
            throw Wrong($"'{Memory}' is no file system in memory, and secrets are put on no other");
        }

        var outer = Path.Combine(Memory, $"nacre-secrets-{Guid.NewGuid():n}");
        var secrets = new BuildSecrets(outer, Path.Combine(outer, Guid.NewGuid().ToString("n")));
        try
        {
            Directory.CreateDirectory(outer, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            Directory.CreateDirectory(secrets.Folder);
            foreach (var name in recipe.Secrets)
            {
                File.WriteAllBytes(Path.Combine(secrets.Folder, name), Read(name, given[name]));
            }

            // In a user namespace the hooks are nobody here.
            File.SetUnixFileMode(outer, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute);
            return secrets;
        }
        catch
        {
            secrets.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        if (outer.Length > 0 && Directory.Exists(outer))
        {
            Directory.Delete(outer, recursive: true);
        }
    }

    private static byte[] Read(string name, string path)
    {
        try
        {
            using var file = File.OpenRead(path);
            var bytes = new byte[Longest + 1];
            var length = file.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            return length is >= Shortest and <= Longest && bytes.AsSpan(0, length).Trim(" \t\r\n"u8).Length >= Shortest
                ? bytes[..length]
                : throw Wrong($"the secret '{name}' must have {Shortest} to {Longest} bytes, so that it is found where it should not be");
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new ImageBuildException(ImageBuildFailure.Secret, $"the secret '{name}' can't be read: {exception.Message}", null, exception);
        }
    }

    private static ImageBuildException Wrong(string message) => new(ImageBuildFailure.Secret, message);
}
