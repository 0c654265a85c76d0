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
/// <param name="Packages">The packages, by name.</param>
/// <param name="Files">The recipe's own files.</param>
public sealed record BuildPlan(ImmutableArray<PlannedPackage> Packages, ImmutableArray<BuiltFile> Files)
{
    /// <summary>Asks apt what it would install for a system's recipe, with the signed indexes of today and in a folder of its own: this computer's packages play no part.</summary>
    /// <exception cref="ImageBuildException">NoSource; MissingProgram; OtherSystem for an application layer; StepFailed with apt's own words.</exception>
    [UnsupportedOSPlatform("windows")]
    public static async Task<BuildPlan> MakeAsync(Recipe recipe, BuildOptions options, IProgress<BuildProgress> progress, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(progress);
        if (recipe.Kind == ImageKind.Application)
        {
            throw new ImageBuildException(ImageBuildFailure.OtherSystem, $"'{recipe.Name}' is an application layer, and only a system can be planned without building");
        }

        var folder = Path.Combine(options.TemporaryFolder, $"nacre-plan-{Guid.NewGuid():n}");
        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        try
        {
            foreach (var inner in new[] { "lists/partial", "archives/partial" })
            {
                Directory.CreateDirectory(Path.Combine(folder, inner));
            }

            await File.WriteAllLinesAsync(Path.Combine(folder, "sources.list"), ImageBuilder.SourcesOf(recipe), cancellationToken).ConfigureAwait(false);
            await File.WriteAllTextAsync(Path.Combine(folder, "apt.conf"), $"""
                Dir::State "{folder}";
                Dir::State::status "/dev/null";
                Dir::State::lists "{folder}/lists";
                Dir::Cache "{folder}";
                Dir::Cache::archives "{folder}/archives";
                Dir::Etc::sourcelist "{folder}/sources.list";
                Dir::Etc::sourceparts "/dev/null";
                Dir::Etc::preferences "/dev/null";
                Dir::Etc::preferencesparts "/dev/null";
                Apt::Install-Recommends "false";
                Acquire::Languages "none";
                Acquire::Retries "3";
                APT::Sandbox::User "root";

                """, cancellationToken).ConfigureAwait(false);
            progress.Report(new BuildProgress(BuildPhase.Prepare, null, "reading the archives' indexes"));
            await AptAsync(folder, ["apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any"], cancellationToken).ConfigureAwait(false);
            progress.Report(new BuildProgress(BuildPhase.Prepare, null, "resolving the packages"));
            var chosen = (await AptAsync(folder, ["apt-get", "-s", "-q", "install", "?essential", "apt", .. ImageBuilder.PackagesOf(recipe)], cancellationToken).ConfigureAwait(false))
                .Select(line => line.Split(' ')).Where(words => words is ["Inst", _, ['(', ..], ..]).Select(words => (Name: words[1], Version: words[2].TrimStart('(')))
                .DistinctBy(package => package.Name).ToDictionary(package => package.Name, package => package.Version, StringComparer.Ordinal);
            var sizes = new Dictionary<(string, string), (long Installed, long Download)>();
            foreach (var batch in chosen.Chunk(300))
            {
                AddSizes(await AptAsync(folder, ["apt-cache", "show", .. batch.Select(package => $"{package.Key}={package.Value}")], cancellationToken).ConfigureAwait(false), sizes);
            }

            return new BuildPlan(
                [.. chosen.OrderBy(package => package.Key, StringComparer.Ordinal).Select(package => (package, size: sizes.GetValueOrDefault((package.Key.Split(':')[0], package.Value))))
                    .Select(one => new PlannedPackage(one.package.Key.Split(':')[0], one.package.Value, one.size.Installed, one.size.Download))],
                ImageBuilder.FilesOf(recipe));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
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

    private static async Task<List<string>> AptAsync(string folder, string[] command, CancellationToken cancellationToken)
    {
        var environment = new Dictionary<string, string> { ["PATH"] = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", ["LC_ALL"] = "C.UTF-8", ["APT_CONFIG"] = Path.Combine(folder, "apt.conf") };
        foreach (var name in new[] { "http_proxy", "https_proxy", "no_proxy" })
        {
            if (Environment.GetEnvironmentVariable(name) is { } proxy)
            {
                environment[name] = proxy;
            }
        }

        var lines = new List<string>();
        var code = await ProcessTree.RunAsync(command[0], command[1..], folder, environment, lines.Add, cancellationToken).ConfigureAwait(false);
        return code == 0 ? lines : throw new ImageBuildException(
            ImageBuildFailure.StepFailed, $"{command[0]} ended with {code}:{Environment.NewLine}{string.Join(Environment.NewLine, lines.Where(line => line.StartsWith("E:", StringComparison.Ordinal)).Take(20))}");
    }
}
