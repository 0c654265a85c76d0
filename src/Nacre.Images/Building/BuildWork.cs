using System.Runtime.Versioning;
using Nacre.Contracts;
using Nacre.Images.Recipes;

namespace Nacre.Images.Building;

/// <summary>
/// The folder of one build, removed when disposed. Hooks that run in a user namespace are nobody here: they read what is open to all, and write
/// into files made for them beforehand. The folder above is entered only by who knows the random name below it.
/// </summary>
[UnsupportedOSPlatform("windows")]
internal sealed class BuildWork : IDisposable
{
    private const UnixFileMode Enter = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute
        | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;

    private const UnixFileMode Read = Enter | UnixFileMode.GroupRead | UnixFileMode.OtherRead;
    private const UnixFileMode Write = Read | UnixFileMode.GroupWrite | UnixFileMode.OtherWrite;

    private readonly string outer;

    private BuildWork(string outer)
    {
        this.outer = outer;
        Folder = Path.Combine(outer, Guid.NewGuid().ToString("n"));
    }

    internal string Folder { get; }

    private string Cached => Path.Combine(Folder, "debs");

    private string Fresh => Path.Combine(Folder, "out", "debs");

    public void Dispose()
    {
        if (Directory.Exists(outer))
        {
            Directory.Delete(outer, recursive: true);
        }
    }

    internal static BuildWork Create(string temporaryFolder, string guest, Recipe recipe)
    {
        Directory.CreateDirectory(temporaryFolder);
        var outer = Path.Combine(temporaryFolder, $"nacre-build-{Guid.NewGuid():n}");
        Directory.CreateDirectory(outer, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        var work = new BuildWork(outer);
        try
        {
            Copy(new DirectoryInfo(guest), Directory.CreateDirectory(Path.Combine(work.Folder, "guest")).FullName);
            var steps = Directory.CreateDirectory(Path.Combine(work.Folder, "recipe")).FullName;
            RecipeSteps.Write(recipe, steps);
            Directory.CreateDirectory(Path.Combine(work.Folder, "steps"));
            Directory.CreateDirectory(work.Cached);
            Open(work.Folder);
            Directory.CreateDirectory(work.Fresh);
            File.SetUnixFileMode(work.Fresh, Write);
            File.SetUnixFileMode(Path.GetDirectoryName(work.Fresh)!, Read);
            foreach (var name in recipe.Kind == ImageKind.System ? new[] { "system.erofs", "kernel", "initramfs", "packages", "epoch", "kept" } : ["layer.erofs", "packages", "epoch", "contents", "kept"])
            {
                work.Expect(name);
            }

            File.SetUnixFileMode(outer, Enter);
            return work;
        }
        catch
        {
            work.Dispose();
            throw;
        }
    }

    internal string Result(string name) => Path.Combine(Folder, "out", name);

    /// <summary>The file of a step that an earlier build kept.</summary>
    internal string KeptStep(int number) => Path.Combine(Folder, "steps", $"{number}");

    /// <summary>The file of a step that this build keeps.</summary>
    internal string MadeStep(int number) => Result($"step-{number}");

    /// <summary>Has a step kept.</summary>
    internal void ExpectStep(int number) => Expect($"step-{number}");

    /// <summary>Whether a step came to its end and was kept.</summary>
    internal bool IsStepMade(int number) => File.ReadLines(Result("kept")).Contains($"{number}");

    /// <summary>The folder of apt's indexes.</summary>
    internal string AptFolder => Path.Combine(Folder, "apt");

    /// <summary>Lets hooks that are nobody here read the indexes.</summary>
    internal void OpenAptFolder() => Open(AptFolder);

    /// <summary>Gives the build the packages of the cache: as links where that is possible, so that nothing is copied.</summary>
    internal async Task TakeCachedPackagesAsync(string cache, CancellationToken cancellationToken)
    {
        Directory.CreateDirectory(cache);
        var debs = Directory.EnumerateFiles(cache, "*.deb").Select(file => Path.GetFullPath(file)).ToList();
        if (debs.Count == 0)
        {
            return;
        }

        var environment = new Dictionary<string, string> { ["PATH"] = "/usr/bin:/bin", ["LC_ALL"] = "C.UTF-8" };
        foreach (var batch in debs.Chunk(500))
        {
            var linked = await ProcessTree.RunAsync(
                "cp", ["--link", "--force", "--target-directory", Cached, "--", .. batch], Folder, environment, _ => { }, cancellationToken).ConfigureAwait(false);
            if (linked != 0)
            {
                foreach (var file in batch)
                {
                    File.Copy(file, Path.Combine(Cached, Path.GetFileName(file)), overwrite: true);
                }
            }
        }
    }

    /// <summary>Adds what the build downloaded to the cache, whole files only.</summary>
    internal void KeepNewPackages(string cache)
    {
        Directory.CreateDirectory(cache);
        foreach (var file in Directory.EnumerateFiles(Fresh, "*.deb"))
        {
            var target = Path.Combine(cache, Path.GetFileName(file));
            var half = target + $".{Guid.NewGuid():n}";
            File.Copy(file, half);
            File.SetUnixFileMode(half, Read & ~(UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute));
            File.Move(half, target, overwrite: true);
        }
    }

    private void Expect(string name)
    {
        File.WriteAllBytes(Result(name), []);
        File.SetUnixFileMode(Result(name), Write & ~(UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute));
    }

    private static void Copy(DirectoryInfo from, string to)
    {
        foreach (var entry in from.EnumerateFileSystemInfos())
        {
            var target = Path.Combine(to, entry.Name);
            if (entry is DirectoryInfo folder)
            {
                Copy(folder, Directory.CreateDirectory(target).FullName);
            }
            else
            {
                File.Copy(entry.FullName, target);
            }
        }
    }

    private static void Open(string folder)
    {
        File.SetUnixFileMode(folder, Read);
        foreach (var file in Directory.EnumerateFiles(folder))
        {
            var executable = File.GetUnixFileMode(file).HasFlag(UnixFileMode.UserExecute);
            File.SetUnixFileMode(file, executable ? Read : Read & ~(UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute));
        }

        foreach (var inner in Directory.EnumerateDirectories(folder))
        {
            Open(inner);
        }
    }
}
