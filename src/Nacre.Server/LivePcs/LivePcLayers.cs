using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>An application layer of a LivePC; the lowest has position 0.</summary>
internal sealed class LivePcLayerRow
{
    public required string LivePc { get; init; }

    public required int Position { get; init; }

    public required string Image { get; init; }

    public required string Channel { get; init; }
}

internal static class LayerErrors
{
    public static Failure Invalid { get; } =
        new(ErrorCatalogue.RequestInvalid, $"'layers' must have at most {Layers.Most} application layers, each with an image that is there once");

    public static Failure NotALayer(string image) => new(ErrorCatalogue.RequestInvalid, $"'{image}' is no application layer");

    public static Failure WholeDisk(string image) => new(ErrorCatalogue.RequestInvalid, $"'{image}' is a whole disk: no application layers go on top of it");

    public static Failure Incompatible(string why) => new(ErrorCatalogue.LayersIncompatible, why);
}

/// <summary>The application layers of LivePCs, and whether they go together.</summary>
internal sealed class Layers(NacreDatabase database, AuditTrail audit)
{
    /// <summary>Each is a disk, and the guest's machine has places for so many.</summary>
    public const int Most = 16;

    /// <summary>Conflicts that an answer names.</summary>
    private const int MostConflicts = 1000;

    public async Task<Result<LivePcLayers>> GetAsync(string untrustedName, CancellationToken cancellationToken) =>
        await database.LivePcs.AsNoTracking().SingleOrDefaultAsync(row => row.Name == untrustedName, cancellationToken) is { } livePc
            ? (await ExamineAsync(livePc, await ListAsync(livePc.Name, cancellationToken), cancellationToken)).Answer
            : LivePcErrors.NoLivePc;

    public async Task<Result<LivePcLayers>> PutAsync(string untrustedName, PutLayers untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.Layers is null || untrusted.Layers.Count > Most || untrusted.Layers.Any(layer => layer is null || !Names.IsValid(layer.Image) || !Names.IsValid(layer.Channel ?? "stable"))
            || untrusted.Layers.DistinctBy(layer => layer.Image).Count() != untrusted.Layers.Count)
        {
            return LayerErrors.Invalid;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.LivePcs.AsNoTracking().SingleOrDefaultAsync(row => row.Name == untrustedName, cancellationToken) is not { } livePc)
        {
            return LivePcErrors.NoLivePc;
        }

        if (untrusted.Layers.Count > 0 && await database.Images.AsNoTracking().AnyAsync(row => row.Name == livePc.Image && row.Kind == ImageKind.Disk, cancellationToken))
        {
            return LayerErrors.WholeDisk(livePc.Image);
        }

        List<LivePcLayerRow> wanted = [.. untrusted.Layers.Select((layer, position) =>
            new LivePcLayerRow { LivePc = livePc.Name, Position = position, Image = layer.Image, Channel = layer.Channel ?? "stable" })];
        foreach (var layer in wanted)
        {
            var image = await database.Images.AsNoTracking().SingleOrDefaultAsync(row => row.Name == layer.Image, cancellationToken);
            if (image is null)
            {
                return ImageErrors.NoImage(layer.Image);
            }

            if (image.Kind != ImageKind.Application)
            {
                return LayerErrors.NotALayer(layer.Image);
            }
        }

        var (answer, incompatible) = await ExamineAsync(livePc, wanted, cancellationToken);
        if (answer.Layers.FirstOrDefault(layer => layer.Version is null) is { } empty)
        {
            return LeaseErrors.ChannelEmpty(empty.Image, empty.Channel);
        }

        if (incompatible is not null)
        {
            return LayerErrors.Incompatible(incompatible);
        }

        var before = await database.LivePcLayers.Where(row => row.LivePc == livePc.Name).OrderBy(row => row.Position).ToListAsync(cancellationToken);
        if (!before.Select(row => (row.Image, row.Channel)).SequenceEqual(wanted.Select(row => (row.Image, row.Channel))))
        {
            database.LivePcLayers.RemoveRange(before);
            await database.SaveChangesAsync(cancellationToken);
            database.LivePcLayers.AddRange(wanted);
            await audit.AppendAsync(
                Roles.Administrator, "livepc.layers", livePc.Name, wanted.Count == 0 ? "none" : string.Join(", ", wanted.Select(row => $"{row.Image}/{row.Channel}")), cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }

        return answer;
    }

    /// <summary>The layers of a LivePC, lowest first.</summary>
    public Task<List<LivePcLayerRow>> ListAsync(string livePc, CancellationToken cancellationToken) =>
        database.LivePcLayers.AsNoTracking().Where(row => row.LivePc == livePc).OrderBy(row => row.Position).ToListAsync(cancellationToken);

    /// <summary>The release that a channel points at; null where there is none.</summary>
    public async Task<ReleaseName?> FindReleaseAsync(string image, string channel, CancellationToken cancellationToken) =>
        await database.Channels.AsNoTracking().SingleOrDefaultAsync(row => row.Image == image && row.Name == channel, cancellationToken) is { } found
            ? new ReleaseName(image, found.Version)
            : null;

    private async Task<(LivePcLayers Answer, string? Incompatible)> ExamineAsync(LivePcRow livePc, List<LivePcLayerRow> layers, CancellationToken cancellationToken)
    {
        var system = await FindReleaseAsync(livePc.Image, livePc.Channel, cancellationToken);
        var systemDigest = system is null ? null : await database.Releases.AsNoTracking()
            .Where(row => row.Image == system.Image && row.Version == system.Version).Select(row => row.Digest).SingleAsync(cancellationToken);
        var stacked = new List<StackedLayer>();
        var contents = new List<(string Image, LayerContents Contents)>();
        var warnings = new List<string>();
        foreach (var layer in layers)
        {
            var name = await FindReleaseAsync(layer.Image, layer.Channel, cancellationToken);
            stacked.Add(new StackedLayer(layer.Image, layer.Channel, name?.Version));
            if (name is null)
            {
                continue;
            }

            var row = await database.Contents.AsNoTracking().SingleAsync(row => row.Image == name.Image && row.Version == name.Version, cancellationToken);
            contents.Add((layer.Image, LayerContents.FromJson(LayerContents.TryExpand(row.Contents))));
            var builtOn = await database.Releases.AsNoTracking()
                .Where(row => row.Image == name.Image && row.Version == name.Version).Select(row => row.BuiltOn).SingleAsync(cancellationToken);
            if (system is not null && builtOn != systemDigest)
            {
                warnings.Add($"{name} was built on another release than {system}: that its packages find what they need there is known only after a start");
            }
        }

        var (conflicts, incompatible) = Compare(contents, warnings);
        return (new LivePcLayers(livePc.Image, livePc.Channel, system?.Version, stacked, conflicts, incompatible is null ? warnings : [incompatible, .. warnings]), incompatible);
    }

    /// <summary>What the layers bring several times; a later one wins.</summary>
    private static (List<LayerConflict> Conflicts, string? Incompatible) Compare(List<(string Image, LayerContents Contents)> layers, List<string> warnings)
    {
        const string System = "system";
        var paths = new Dictionary<string, List<(string Layer, string Content)>>(StringComparer.Ordinal);
        var packages = new Dictionary<(string Name, string Architecture), (string Layer, string Version)>();
        var numbers = new Dictionary<(string Table, long Number), (string Layer, string Name)>();
        string? incompatible = null;
        foreach (var (image, contents) in layers)
        {
            foreach (var covered in contents.Covers)
            {
                // Its content is not known; that it is another is.
                paths.TryAdd(covered.Path, [(System, "")]);
            }

            foreach (var file in contents.Files.Where(file => file.Content != "folder"))
            {
                if (!paths.TryGetValue(file.Path, out var brought))
                {
                    paths.Add(file.Path, brought = []);
                }

                brought.Add((image, file.Content));
            }

            foreach (var package in contents.Packages)
            {
                if (packages.TryGetValue((package.Name, package.Architecture), out var other) && other.Version != package.Version)
                {
                    warnings.Add($"{other.Layer} has {package.Name} {other.Version} and {image} has {package.Name} {package.Version}: the latter is used");
                }

                packages[(package.Name, package.Architecture)] = (image, package.Version);
            }

            foreach (var account in contents.Accounts)
            {
                if (numbers.TryGetValue((account.Table, account.Number), out var other) && other.Name != account.Name)
                {
                    incompatible ??= $"{other.Layer} and {image} give the number {account.Number} to '{other.Name}' and '{account.Name}' ({account.Table})";
                }

                numbers[(account.Table, account.Number)] = (image, account.Name);
            }
        }

        var conflicts = paths.Where(one => one.Value.DistinctBy(brought => brought.Content).Skip(1).Any()).OrderBy(one => one.Key, StringComparer.Ordinal)
            .Select(one => new LayerConflict(one.Key, [.. one.Value.Select(brought => brought.Layer)], one.Value[^1].Layer)).ToList();
        if (conflicts.Count > MostConflicts)
        {
            warnings.Add($"{conflicts.Count} paths are brought by several layers; the first {MostConflicts} are named");
        }

        return ([.. conflicts.Take(MostConflicts)], incompatible);
    }
}
