using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.LivePcs;

namespace Nacre.Player.Anchors;

/// <summary>What this device keeps of one of the user's layers.</summary>
/// <param name="Anchor">Its newest state.</param>
/// <param name="Replaces">See <see cref="StatedAnchor.Replaces"/>.</param>
/// <param name="Missed">A newer state, of which the server told while the layer was in use: what had been opened is an older copy.</param>
internal sealed record KeptAnchor(LayerAnchor Anchor, LayerAnchor? Replaces = null, LayerAnchor? Missed = null);

/// <summary>What this device keeps of a LivePC's layers.</summary>
/// <param name="Layers">One for each layer that was ever opened.</param>
/// <param name="Count">The TPM's count when this was the newest; null where no TPM counts.</param>
internal sealed record KeptAnchors(IReadOnlyList<KeptAnchor> Layers, ulong? Count);

/// <summary>The file <c>anchors</c> beside the lease. An older copy of the whole file is told by the lease and by the TPM only.</summary>
internal sealed class AnchorFile
{
    private readonly AuthenticatedFile<KeptAnchors> file;
    private readonly string livePc;

    public AnchorFile(LivePcFolder folder, EnrolledIdentity identity)
    {
        livePc = folder.Name;
        file = new AuthenticatedFile<KeptAnchors>(folder.Anchors, identity, $"nacre anchors of {identity.Record.DeviceId} {livePc}");
    }

    /// <summary>What is kept; null where there is no file.</summary>
    /// <exception cref="NacreException">VolumeOutdated: this device did not write it.</exception>
    public KeptAnchors? Read() => file.TryRead(out var kept)
        ? kept
        : throw new NacreException(ErrorCatalogue.VolumeOutdated, $"what this device knows of the newest layers of '{livePc}' was changed ('{file.Path}'), so nobody can tell whether they are older copies");

    /// <summary>Keeps it, durably.</summary>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public void Write(KeptAnchors kept) => file.Write(kept);
}
