using System.Text.Json;
using Nacre.Cli.Commands;
using Nacre.Contracts;
using Nacre.Images.Building;
using Nacre.Images.Recipes;

namespace Nacre.Cli;

/// <summary><c>nacre image build --dry-run</c>: what a build would change against the last release.</summary>
internal static class BuildPlans
{
    /// <summary>The last release: its packages, and its recipe's files where they are known.</summary>
    private sealed record Earlier(string Name, Dictionary<string, string> Packages, Dictionary<string, string>? Files);

    private sealed record Change(string Name, string? From, string? To);

    public static async Task ShowAsync(Recipe recipe, string? system, BuildOptions options, string? against, string output, CancellationToken cancellationToken)
    {
        if (OperatingSystem.IsWindows())
        {
            throw new NacreException(ErrorCatalogue.Unsupported, "images are built on Linux");
        }

        var earlier = against is not null || File.Exists(Path.Combine(output, "image.json")) ? Built(against ?? output) : await PublishedAsync(recipe.Name, cancellationToken);
        var plan = await Terminal.ProgressAsync($"planning {recipe.Name}", report => ImageCommands.ExplainAsync(() => BuildPlan.MakeAsync(
            recipe, system, options, new Reporter<BuildProgress>(progress => report(double.NaN, progress.Message)), cancellationToken)));
        var packages = Changes(earlier?.Packages ?? [], plan.Packages.ToDictionary(package => package.Name, package => package.Version));
        var files = earlier is { Files: null } ? null : Changes(earlier?.Files ?? [], plan.Files.ToDictionary(file => file.Path, file => file.Sha256));
        var fresh = packages.Where(change => change.To is not null).Select(change => change.Name).ToHashSet(StringComparer.Ordinal);
        var installed = plan.Packages.Sum(package => package.InstalledBytes);
        var changed = plan.Packages.Where(package => fresh.Contains(package.Name)).ToList();
        var result = new
        {
            against = earlier?.Name,
            packages,
            files,
            covers = plan.Covers,
            changedPackages = plan.ChangedPackages,
            installedBytes = installed,
            changedInstalledBytes = changed.Sum(package => package.InstalledBytes),
            downloadBytes = changed.Sum(package => package.DownloadBytes),
        };
        Terminal.Result(result, () =>
        {
            Terminal.Line(earlier is null ? "there is no earlier release to compare with" : $"against {earlier.Name}:");
            Show("package", packages, versions: true);
            if (files is null)
            {
                Terminal.Line("which files of the recipe are others is not known of that release");
            }

            Show("file", files ?? [], versions: false);
            foreach (var path in plan.Covers)
            {
                Terminal.Line(ImageCommands.Conflict(path));
            }

            foreach (var package in plan.ChangedPackages)
            {
                Terminal.Line($"conflict: package {package} of the system would be changed, and a build fails: build and publish a new release of the system first");
            }

            Terminal.Line($"size: about {Terminal.Bytes(installed)} installed, of which {Terminal.Bytes(changed.Sum(package => package.InstalledBytes))} are in packages that are new or others ({Terminal.Bytes(changed.Sum(package => package.DownloadBytes))} packed)");
        });
    }

    private static void Show(string what, IReadOnlyList<Change> changes, bool versions)
    {
        foreach (var change in changes)
        {
            Terminal.Line(change switch
            {
                { From: null } => $"+ {what} {change.Name}{(versions ? $" {change.To}" : "")}",
                { To: null } => $"- {what} {change.Name}{(versions ? $" {change.From}" : "")}",
                _ => $"~ {what} {change.Name}{(versions ? $" {change.From} -> {change.To}" : "")}",
            });
        }

        if (changes.Count == 0)
        {
            Terminal.Line($"no {what} changes");
        }
    }

    private static List<Change> Changes(Dictionary<string, string> before, Dictionary<string, string> after) =>
        [.. before.Keys.Union(after.Keys, StringComparer.Ordinal).Order(StringComparer.Ordinal)
            .Select(name => new Change(name, before.GetValueOrDefault(name), after.GetValueOrDefault(name))).Where(change => change.From != change.To)];

    private static Earlier Built(string folder)
    {
        try
        {
            var image = BuiltImage.FromJson(File.ReadAllBytes(Path.Combine(folder, "image.json")));
            return new Earlier($"the image in '{folder}'", image.Packages.DistinctBy(package => package.Name.Split(':')[0]).ToDictionary(package => package.Name.Split(':')[0], package => package.Version),
                image.Archives.IsDefaultOrEmpty ? null : image.Files.ToDictionary(file => file.Path, file => file.Sha256));
        }
        catch (Exception exception) when (exception is IOException or JsonException or UnauthorizedAccessException)
        {
            throw new NacreException(ErrorCatalogue.NotAnImage, $"'{folder}' is not a built golden image: {exception.Message}", exception);
        }
    }

    /// <summary>The server's last release, by the list of software that its check made; null where there is none, or this user is not logged in.</summary>
    private static async Task<Earlier?> PublishedAsync(string image, CancellationToken cancellationToken)
    {
        try
        {
            using var client = Administration.Connect();
            var release = (await client.ListReleasesAsync(image, cancellationToken))[^1];
            var list = await client.GetSoftwareListAsync(image, release.Version, "cyclonedx", cancellationToken);
            using var document = JsonDocument.Parse(LayerContents.TryExpand(Convert.FromBase64String(list.Document)) ?? []);
            var packages = document.RootElement.GetProperty("components").EnumerateArray()
                .Select(component => (Name: component.GetProperty("name").GetString()!, Version: component.GetProperty("version").GetString()!))
                .DistinctBy(component => component.Name).ToDictionary(component => component.Name, component => component.Version);
            return new Earlier($"release {release.Version} of {image}", packages, null);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotLoggedIn || exception.Kind == ErrorCatalogue.NotFound)
        {
            return null;
        }
    }
}
