using System.Collections.Immutable;
using System.Globalization;
using System.Runtime.Versioning;
using Nacre.Contracts;
using Nacre.Images.Recipes;

namespace Nacre.Images.Building;

/// <summary>A package that a build would install.</summary>
/// <param name="Name">The package.</param>
/// <param name="Version">Its version.</param>
/// <param name="InstalledBytes">What it takes when installed, as its maintainer says.</param>
/// <param name="DownloadBytes">What it takes to download.</param>
public sealed record PlannedPackage(string Name, string Version, long InstalledBytes, long DownloadBytes);

/// <summary>What a build would install, found out without building.</summary>
/// <param name="Packages">The packages, by name; of an application layer those that it adds.</param>
/// <param name="Files">The recipe's own files.</param>
/// <param name="Covers">Of an application layer: files of the system that the recipe's own replace.</param>
/// <param name="ChangedPackages">Of an application layer: packages of the system that would be changed, and how. With one of them a build fails.</param>
public sealed record BuildPlan(ImmutableArray<PlannedPackage> Packages, ImmutableArray<BuiltFile> Files, ImmutableArray<CoveredPath> Covers, ImmutableArray<string> ChangedPackages)
{
    /// <summary>Asks apt what it would install for a recipe, with the signed indexes of today and in a folder of its own: this computer's packages play no part.</summary>
    /// <param name="recipe">The recipe.</param>
    /// <param name="systemFolder">For an application layer: the folder of the system image that the recipe names.</param>
    /// <param name="options">How it would be built.</param>
    /// <param name="progress">Told each step.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="ImageBuildException">NoSource; MissingProgram; OtherSystem as for a build; StepFailed with apt's own words.</exception>
    [UnsupportedOSPlatform("windows")]
    public static async Task<BuildPlan> MakeAsync(Recipe recipe, string? systemFolder, BuildOptions options, IProgress<BuildProgress> progress, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(progress);
        var folder = Path.Combine(options.TemporaryFolder, $"nacre-plan-{Guid.NewGuid():n}");
        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        try
        {
            if (recipe.Kind == ImageKind.System)
            {
                var (packages, _) = await ResolveAsync(
                    folder, ImageBuilder.SourcesOf(recipe), installed: null, ["?essential", "apt", .. ImageBuilder.PackagesOf(recipe)], progress, cancellationToken).ConfigureAwait(false);
                return new BuildPlan(packages, ImageBuilder.FilesOf(recipe), [], []);
            }

            var (_, system) = await ImageBuilder.ReadSystemAsync(recipe, systemFolder ?? "", cancellationToken).ConfigureAwait(false);
            var below = SystemBelow.Open(system);
            await using var _ = below.ConfigureAwait(false);
            ImmutableArray<PlannedPackage> added = [];
            ImmutableArray<string> changed = [];
            if (!recipe.Packages.IsEmpty)
            {
                var status = Path.Combine(folder, "status");
                await File.WriteAllBytesAsync(status, await below.ReadAsync("var/lib/dpkg/status", cancellationToken).ConfigureAwait(false) ?? [], cancellationToken).ConfigureAwait(false);
                var sources = await ImageBuilder.SourcesOfAsync(recipe, system, cancellationToken).ConfigureAwait(false);
                (added, changed) = await ResolveAsync(folder, sources, status, [.. recipe.Packages], progress, cancellationToken).ConfigureAwait(false);
            }

            return new BuildPlan(added, ImageBuilder.FilesOf(recipe), await below.CoveredByAsync(recipe.Files, cancellationToken).ConfigureAwait(false), changed);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>What apt would install, and which installed packages it would change.</summary>
    [UnsupportedOSPlatform("windows")]
    private static async Task<(ImmutableArray<PlannedPackage> Added, ImmutableArray<string> Changed)> ResolveAsync(
        string folder, ImmutableArray<string> sources, string? installed, string[] packages, IProgress<BuildProgress> progress, CancellationToken cancellationToken)
    {
        progress.Report(new BuildProgress(BuildPhase.Prepare, null, "reading the archives' indexes"));
        var apt = await AptIndexes.FetchAsync(folder, sources, installed, _ => { }, cancellationToken).ConfigureAwait(false);
        progress.Report(new BuildProgress(BuildPhase.Prepare, null, "resolving the packages"));
        var lines = (await apt.RunAsync(["apt-get", "-s", "-q", "-o", "APT::Get::Upgrade=true", "install", "--", .. packages], cancellationToken).ConfigureAwait(false))
            .Select(line => line.Split(' ')).ToList();

        // "Inst NAME (VERSION …" is new, "Inst NAME [OLD] (VERSION …" and "Remv NAME [OLD]" change what is there.
        var chosen = lines.Where(words => words is ["Inst", _, ['(', ..], ..]).Select(words => (Name: words[1], Version: words[2].TrimStart('(')))
            .DistinctBy(package => package.Name).ToDictionary(package => package.Name, package => package.Version, StringComparer.Ordinal);
        var changed = lines.Where(words => words is ["Inst" or "Remv", _, ['[', ..], ..])
            .Select(words => words[0] == "Remv" || words.Length < 4 ? $"{words[1]} (removed)" : $"{words[1]} ({words[2].Trim('[', ']')} to {words[3].TrimStart('(')})");
        var sizes = new Dictionary<(string, string), (long Installed, long Download)>();
        foreach (var batch in chosen.Chunk(300))
        {
            AddSizes(await apt.RunAsync(["apt-cache", "show", .. batch.Select(package => $"{package.Key}={package.Value}")], cancellationToken).ConfigureAwait(false), sizes);
        }

        return (
            [
                .. chosen.OrderBy(package => package.Key, StringComparer.Ordinal).Select(package => (package, size: sizes.GetValueOrDefault((package.Key.Split(':')[0], package.Value))))
                    .Select(one => new PlannedPackage(one.package.Key.Split(':')[0], one.package.Value, one.size.Installed, one.size.Download)),
            ],
            [.. changed.Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)]);
    }

    private static void AddSizes(IEnumerable<string> stanzas, Dictionary<(string, string), (long Installed, long Download)> sizes)
    {
        var fields = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var line in stanzas.Append(""))
        {
            if (line.Length == 0 && fields.TryGetValue("Package", out var name) && fields.TryGetValue("Version", out var version))
            {
                long Number(string field) => long.TryParse(fields.GetValueOrDefault(field), NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number : 0;
                sizes[(name, version)] = (Number("Installed-Size") * 1024, Number("Size"));
            }

            if (line.Length == 0)
            {
                fields.Clear();
            }
            else if (line.IndexOf(": ", StringComparison.Ordinal) is > 0 and var colon)
            {
                fields.TryAdd(line[..colon], line[(colon + 2)..]);
            }
        }
    }
}
