using Nacre.Contracts;
using Nacre.Volumes;

namespace Nacre.Player.Anchors;

/// <summary>The newest states of a LivePC's user layers, as far as this device and the server know them. Decides, and does nothing else. Not thread-safe.</summary>
/// <remarks>A later epoch is newer, whatever its position: somebody put that state in the newest one's place on purpose. Within an epoch the higher position is.</remarks>
internal sealed class AnchorBook
{
    private readonly Dictionary<string, KeptAnchor> own;
    private Dictionary<string, LayerAnchor> told = [];
    private bool isToldNow;
    private NacreException? doubt;

    /// <param name="kept">What this device kept.</param>
    public AnchorBook(IReadOnlyList<KeptAnchor> kept) => own = kept.ToDictionary(layer => layer.Anchor.Layer, StringComparer.Ordinal);

    /// <summary>What this device has to keep.</summary>
    public IReadOnlyList<KeptAnchor> Kept => [.. own.Values];

    /// <summary>What this device states to the server. A layer that is known to be an older copy is not one of them: it may grow past what it lacks.</summary>
    public IReadOnlyList<StatedAnchor> Statements => [.. own.Values.Where(layer => layer.Missed is null).Select(layer => new StatedAnchor(layer.Anchor, layer.Replaces))];

    /// <summary>What the server told of while the layers were in use, in words; null where there is nothing.</summary>
    public string? Missed => own.Values.Where(layer => layer.Missed is not null).Select(layer => MissedWords(layer.Anchor.Layer, layer.Missed!)).FirstOrDefault();

    /// <summary>Takes a reason not to believe what this device kept: until it is accepted, no layer is known to be the newest.</summary>
    public void Doubt(NacreException why) => doubt = why;

    /// <summary>Takes what the lease says.</summary>
    /// <param name="anchors">The layers that the server knew of.</param>
    /// <param name="isNow">Whether the server said so just now, with this device's statements before it; else the lease was kept.</param>
    public void Hear(IReadOnlyList<LayerAnchor> anchors, bool isNow)
    {
        told = anchors.ToDictionary(anchor => anchor.Layer, StringComparer.Ordinal);
        isToldNow = isNow;
    }

    /// <summary>The newest known state of a layer; null where none is known.</summary>
    /// <exception cref="NacreException">VolumeOutdated: whatever is on this device, it is not the newest, or nobody can tell.</exception>
    public LayerAnchor? Newest(string layer)
    {
        var (mine, servers) = (own.GetValueOrDefault(layer), told.GetValueOrDefault(layer));
        if (doubt is not null)
        {
            throw doubt;
        }

        if (mine?.Missed is { } missed)
        {
            throw new NacreException(ErrorCatalogue.VolumeOutdated, MissedWords(layer, missed));
        }

        return isToldNow && mine?.Anchor.Epoch > servers?.Epoch
            ? throw new NacreException(ErrorCatalogue.VolumeOutdated, $"the layer '{layer}': the server knows {servers}, which is newer than what an older copy was accepted for")
            : Newer(mine?.Anchor, servers);
    }

    /// <summary>A layer was opened, and it is not older than <see cref="Newest"/>.</summary>
    public void Opened(string layer, VolumeAnchor at)
    {
        var (mine, servers) = (own.GetValueOrDefault(layer), told.GetValueOrDefault(layer));
        var epoch = Math.Max(mine?.Anchor.Epoch ?? 1, servers?.Epoch ?? 1);
        own[layer] = new KeptAnchor(new LayerAnchor(layer, at.VolumeId, epoch, at.Position), servers?.Epoch >= mine?.Anchor.Epoch ? null : mine?.Replaces);
    }

    /// <summary>A layer was opened as it is, because its user accepts that it may be older than the newest state.</summary>
    public void Accepted(string layer, VolumeAnchor at)
    {
        var (mine, servers) = (own.GetValueOrDefault(layer), told.GetValueOrDefault(layer));
        var replaced = isToldNow ? servers : mine?.Missed ?? mine?.Replaces ?? Newer(mine?.Anchor, servers);
        var epoch = Math.Max(Math.Max(mine?.Anchor.Epoch ?? 0, mine?.Missed?.Epoch ?? 0), servers?.Epoch ?? 0) + 1;
        own[layer] = new KeptAnchor(new LayerAnchor(layer, at.VolumeId, epoch, at.Position), replaced);
    }

    /// <summary>A layer in use has grown.</summary>
    public void Grown(string layer, VolumeAnchor at)
    {
        var mine = own[layer];
        own[layer] = mine with { Anchor = mine.Anchor with { Position = Math.Max(mine.Anchor.Position, at.Position) } };
    }

    /// <summary>The server answered a statement with what it knows.</summary>
    public void Answered(IReadOnlyList<StatedAnchor> stated, IReadOnlyList<LayerAnchor> known)
    {
        foreach (var servers in known)
        {
            if (stated.FirstOrDefault(one => one.Anchor.Layer == servers.Layer) is { } statement)
            {
                own[servers.Layer] = own[servers.Layer] with
                {
                    Replaces = null,
                    Missed = statement.Anchor.IsAtLeast(servers) ? null : servers,
                };
            }
        }
    }

    private static LayerAnchor? Newer(LayerAnchor? mine, LayerAnchor? servers) =>
        servers is null || (mine is not null && (mine.Epoch > servers.Epoch || mine.IsAtLeast(servers))) ? mine : servers;

    private static string MissedWords(string layer, LayerAnchor missed) =>
        $"the layer '{layer}' was an older copy when it was opened: the server knows {missed}, which is not in it";
}
