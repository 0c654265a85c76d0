using System.Collections.Immutable;
using System.Globalization;
using System.Runtime.Versioning;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using Nacre.Images.Recipes;

namespace Nacre.Images.Building;

/// <summary>One step of a build.</summary>
/// <param name="Number">Its number, as the guest's build scripts count: 0 packages, 1 what the recipe says beyond them, 2 and on its scripts.</param>
/// <param name="Name">What messages call it.</param>
/// <param name="Key">A digest of all that it is made of; null where it is never kept.</param>
internal sealed record BuildStep(int Number, string Name, string? Key);

/// <summary>The steps of one build, what is taken of them from earlier builds, and what is kept of them for later ones.</summary>
[UnsupportedOSPlatform("windows")]
internal sealed class BuildSteps
{
    private readonly ImmutableArray<BuildStep> steps;
    private readonly BuildStep image;
    private readonly BuildWork work;
    private readonly StepCache? cache;

    private BuildSteps(ImmutableArray<BuildStep> steps, BuildStep image, BuildWork work, StepCache? cache) => (this.steps, this.image, this.work, this.cache) = (steps, image, work, cache);

    /// <summary>Names the steps and works out their keys.</summary>
    /// <param name="recipe">The recipe.</param>
    /// <param name="work">The build's folder, with the guest's files and the recipe's.</param>
    /// <param name="cache">Where steps are kept; null: nowhere.</param>
    /// <param name="programs">The programs of this machine that take part.</param>
    /// <param name="packages">What the packages are made of, but for the builder: arguments, sources, what the archives offer, the system below a layer.</param>
    /// <param name="image">What the image is made of beyond its steps.</param>
    internal static BuildSteps Of(Recipe recipe, BuildWork work, StepCache? cache, IEnumerable<string> programs, IEnumerable<string> packages, IEnumerable<string> image)
    {
        var key = KeyOf([BuilderKey(work, programs), .. packages]);
        var steps = ImmutableArray.CreateBuilder<BuildStep>();
        if (recipe.Kind == ImageKind.System || !recipe.Packages.IsEmpty)
        {
            steps.Add(new BuildStep(0, "packages", key));
        }

        key = KeyOf([key, .. FilesOf(Path.Combine(work.Folder, "recipe"), name => !name.StartsWith("script-", StringComparison.Ordinal))]);
        steps.Add(new BuildStep(1, "files, users and services", key));
        var readsSecrets = !recipe.Secrets.IsEmpty && !recipe.Scripts.IsEmpty;
        for (var index = 0; index < recipe.Scripts.Length; index++)
        {
            key = KeyOf([key, .. FilesOf(Path.Combine(work.Folder, "recipe"), name => name == $"script-{index}" || name == $"script-{index}.sh")]);
            steps.Add(new BuildStep(index + 2, $"script {recipe.Scripts[index].Name}", readsSecrets ? null : key));
        }

        return new BuildSteps(steps.ToImmutable(), new BuildStep(-1, "image", readsSecrets ? null : KeyOf([key, "image", .. image])), work, cache);
    }

    /// <summary>Takes the finished image, or as many of the first steps as there are, from the cache.</summary>
    /// <returns>Whether the image is there: nothing is to be built.</returns>
    /// <exception cref="ImageBuildException">StepFailed: the image can't be unpacked.</exception>
    internal async Task<bool> TakeAsync(BuildLog log, CancellationToken cancellationToken)
    {
        if (cache is null)
        {
            return false;
        }

        var kept = Path.Combine(work.Folder, "image.tar.zst");
        if (image.Key is not null && await cache.TryTakeAsync(image.Key, kept, cancellationToken).ConfigureAwait(false))
        {
            foreach (var step in steps)
            {
                cache.Touch(step.Key!);
            }

            log.AddCached("all steps");
            return await TarAsync(["--extract", "--file", kept, "--use-compress-program", "zstd"], cancellationToken).ConfigureAwait(false)
                ? true
                : throw new ImageBuildException(ImageBuildFailure.StepFailed, $"the image of an earlier build can't be unpacked in '{work.Folder}': {log.LastLines}");
        }

        foreach (var step in steps)
        {
            if (step.Key is null || !await cache.TryTakeAsync(step.Key, work.KeptStep(step.Number), cancellationToken).ConfigureAwait(false))
            {
                break;
            }

            log.AddCached(step.Name);
        }

        foreach (var step in steps.Where(step => step.Key is not null && !File.Exists(work.KeptStep(step.Number))))
        {
            work.ExpectStep(step.Number);
        }

        return false;
    }

    /// <summary>Keeps the steps that came to their end, whatever became of the build.</summary>
    internal async Task KeepAsync()
    {
        if (cache is null)
        {
            return;
        }

        foreach (var step in steps.Where(step => step.Key is not null && work.IsStepMade(step.Number)))
        {
            await cache.KeepAsync(step.Key!, work.MadeStep(step.Number), CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>Keeps the finished image's files, before they are delivered.</summary>
    internal async Task KeepImageAsync(IEnumerable<string> names, CancellationToken cancellationToken)
    {
        var made = Path.Combine(work.Folder, "image.tar.zst");
        if (cache is not null && image.Key is not null
            && await TarAsync(["--create", "--file", made, "--use-compress-program", "zstd -q -1 -T0", "--sparse", "--", .. names], cancellationToken).ConfigureAwait(false))
        {
            await cache.KeepAsync(image.Key, made, cancellationToken).ConfigureAwait(false);
        }
    }

    private async Task<bool> TarAsync(string[] arguments, CancellationToken cancellationToken) => await ProcessTree.RunAsync(
        "tar", ["--directory", Path.Combine(work.Folder, "out"), .. arguments], work.Folder,
        new Dictionary<string, string> { ["PATH"] = "/usr/bin:/bin", ["LC_ALL"] = "C.UTF-8" }, _ => { }, cancellationToken).ConfigureAwait(false) == 0;

    /// <summary>The builder: this code, the guest's files, and the programs.</summary>
    private static string BuilderKey(BuildWork work, IEnumerable<string> programs) => KeyOf(
    [
        typeof(BuildSteps).Module.ModuleVersionId.ToString(),
        .. FilesOf(Path.Combine(work.Folder, "guest"), _ => true),
        .. programs.Order(StringComparer.Ordinal).Select(DigestOf),
    ]);

    private static IEnumerable<string> FilesOf(string folder, Func<string, bool> isWanted) =>
        Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Select(file => Path.GetRelativePath(folder, file)).Where(isWanted).Order(StringComparer.Ordinal)
            .Select(name => $"{name} {Convert.ToString((int)File.GetUnixFileMode(Path.Combine(folder, name)), 8)} {DigestOf(Path.Combine(folder, name))}");

    private static string DigestOf(string file)
    {
        using var stream = File.OpenRead(file);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }

    /// <summary>A digest of texts, each with its length before it, so that no two lists are one.</summary>
    private static string KeyOf(IEnumerable<string> parts) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(
        string.Concat(parts.Select(part => string.Create(CultureInfo.InvariantCulture, $"{part.Length}:{part}"))))));
}
