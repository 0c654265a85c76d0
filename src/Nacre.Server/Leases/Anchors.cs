using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>The newest state that is known of one user layer of one device.</summary>
internal sealed class AnchorRow
{
    public required string DeviceId { get; init; }

    public required string LivePc { get; init; }

    public required string Layer { get; init; }

    public required Guid Volume { get; set; }

    public required int Epoch { get; set; }

    public required long Position { get; set; }

    public LayerAnchor ToContract() => new(Layer, Volume, Epoch, Position);
}

/// <summary>Keeps how far each device's user layers have grown. What is known never goes back, but for what the device's user accepted on purpose, and that is
/// written down.</summary>
internal sealed class Anchors(NacreDatabase database, AuditTrail audit)
{
    /// <summary>Layers of one LivePC on one device: bounds what a hostile device can make the server keep.</summary>
    private const int MostLayers = 16;

    private static readonly Failure Invalid = new(
        ErrorCatalogue.RequestInvalid,
        $"'anchors' must have at most {MostLayers} layers, each once, with a layer's name, an epoch of 1 or more and a position that is not negative; what one replaces must be of the same layer and an earlier epoch");

    /// <summary>Takes what a device says of its layers, inside the caller's transaction, and returns what is known then.</summary>
    /// <param name="deviceId">The device.</param>
    /// <param name="livePc">Its LivePC.</param>
    /// <param name="untrusted">What it says.</param>
    /// <param name="known">All that is known of them, read in the same transaction.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public async Task<Result<IReadOnlyList<LayerAnchor>>> StateAsync(
        string deviceId, string livePc, IReadOnlyList<StatedAnchor>? untrusted, IEnumerable<AnchorRow> known, CancellationToken cancellationToken)
    {
        untrusted ??= [];
        var rows = known.ToDictionary(row => row.Layer, StringComparer.Ordinal);
        if (untrusted.Count > MostLayers || !untrusted.All(IsValid) || untrusted.DistinctBy(one => one.Anchor.Layer).Count() != untrusted.Count
            || untrusted.Select(one => one.Anchor.Layer).Union(rows.Keys).Count() > MostLayers)
        {
            return Invalid;
        }

        foreach (var stated in untrusted)
        {
            var anchor = stated.Anchor;
            if (!rows.TryGetValue(anchor.Layer, out var row))
            {
                row = new AnchorRow
                {
                    DeviceId = deviceId, LivePc = livePc, Layer = anchor.Layer, Volume = anchor.Volume, Epoch = anchor.Epoch, Position = anchor.Position,
                };
                database.Anchors.Add(row);
                rows.Add(anchor.Layer, row);
            }
            else
            {
                await CompareAndSwapAsync(row, stated, cancellationToken);
            }
        }

        await database.SaveChangesAsync(cancellationToken);
        return rows.Values.Select(row => row.ToContract()).OrderBy(anchor => anchor.Layer, StringComparer.Ordinal).ToList();
    }

    private async Task CompareAndSwapAsync(AnchorRow row, StatedAnchor stated, CancellationToken cancellationToken)
    {
        var (known, anchor) = (row.ToContract(), stated.Anchor);
        var grown = anchor.IsAtLeast(known);

        // Who accepted a state in another one's place must have known all that is known here: an acceptance that was recorded and is sent again once more was
        // written since has no effect.
        var accepted = !grown && stated.Replaces is { } replaced && anchor.Epoch > known.Epoch && replaced.IsAtLeast(known);
        if (!grown)
        {
            await audit.AppendAsync(
                "device:" + row.DeviceId, accepted ? "anchor.replace" : "anchor.refuse", row.LivePc,
                $"layer {row.Layer}: {anchor} {(accepted ? "accepted in place of" : "stated, but known is")} {known}", accepted ? AuditResult.Done : AuditResult.Refused, cancellationToken);
        }

        if (grown || accepted)
        {
            (row.Volume, row.Epoch, row.Position) = (anchor.Volume, anchor.Epoch, anchor.Position);
        }
    }

    private static bool IsValid(StatedAnchor? untrusted) => untrusted is { Anchor: var anchor } && IsValid(anchor)
        && (untrusted.Replaces is not { } replaced || (IsValid(replaced) && replaced.Layer == anchor.Layer && replaced.Epoch < anchor.Epoch));

    private static bool IsValid(LayerAnchor? untrusted) =>
        untrusted is { Epoch: >= 1, Position: >= 0 } && Names.IsValid(untrusted.Layer);
}
