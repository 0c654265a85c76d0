using System.Security.Cryptography;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Anchors;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Player.Moments;
using Nacre.Player.Stacks;
using Nacre.Policies;
using Nacre.Volumes;

namespace Nacre.Player.LivePcs;

/// <summary>The user's layers of a LivePC that does not run, opened under its lease and its lock; closing them says how far they have grown. What an interrupted
/// rejuvenation left to do is done by then.</summary>
internal sealed class OpenLayers : IAsyncDisposable
{
    private readonly FileStream held;
    private readonly EnrolledIdentity identity;
    private readonly NacreClient client;
    private readonly OpenVolumes volumes = new();
    private IAsyncDisposable? keeping;

    private OpenLayers(FileStream held, EnrolledIdentity identity)
    {
        this.held = held;
        this.identity = identity;
        client = identity.Connect();
    }

    public MomentStore Moments { get; private set; } = null!;

    /// <summary>What the administrator decides.</summary>
    public Policy Policy { get; private set; } = Policy.Factory;

    /// <summary>What is wrong with the layers' age, for a person.</summary>
    public string? Problem { get; private set; }

    /// <summary>Opens them.</summary>
    /// <exception cref="NacreException">AlreadyRunning; NotRunning: its guest runs without a player; and what keeps a lease or a layer from being opened.</exception>
    public static async Task<OpenLayers> OpenAsync(PlayerPaths paths, string name, TimeProvider time, CancellationToken cancellationToken)
    {
        var folder = new LivePcFolder(paths, name);
        var identity = EnrolledIdentity.Open(paths);
        OpenLayers opened;
        try
        {
            folder.Create();
            opened = new OpenLayers(folder.Hold(), identity);
        }
        catch
        {
            identity.Dispose();
            throw;
        }

        try
        {
            await opened.OpenAsync(folder, time, cancellationToken).ConfigureAwait(false);
            return opened;
        }
        catch
        {
            await opened.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Reads what is known of the newest layers.</summary>
    public static async Task<AnchorKeeper> LoadAnchorsAsync(
        LivePcFolder folder, EnrolledIdentity identity, NacreClient client, Action<string> problem, TimeProvider time, CancellationToken cancellationToken)
    {
        var tpm = await TpmCounter.FindAsync(identity.Record.DeviceId, folder.Name, cancellationToken).ConfigureAwait(false);
        var anchors = new AnchorKeeper(
            new AnchorFile(folder, identity), tpm, (statements, token) => OpenedLease.StateAnchorsAsync(identity, client, folder.Name, statements, token), problem, time);
        await anchors.LoadAsync(cancellationToken).ConfigureAwait(false);
        return anchors;
    }

    /// <summary>Opens the user's layers, which must not be older than their newest known state.</summary>
    public static async Task OpenUserLayersAsync(
        OpenVolumes volumes, LivePcFolder folder, OpenedLease lease, EnrolledIdentity identity, AnchorKeeper anchors, bool acceptOlder)
    {
        anchors.Hear(lease.Claims.Anchors ?? [], lease.IsNew);
        var slotKey = lease.SlotKey(identity);
        try
        {
            foreach (var (layer, size) in UserLayers.Of(lease.Kind))
            {
                await anchors.OpenAsync(layer, newest => volumes.Open(layer, folder.Volume(layer), size, slotKey, newest), acceptOlder).ConfigureAwait(false);
            }
        }
        finally
        {
            CryptographicOperations.ZeroMemory(slotKey);
        }
    }

    /// <summary>The moments of layers that are open.</summary>
    public static MomentStore MomentsOf(OpenVolumes volumes, LivePcFolder folder, TimeProvider time) =>
        new(MomentStore.Layers.Where(volumes.Exports.ContainsKey).ToDictionary(layer => layer, layer => (Volume)volumes.Exports[layer]), folder, time);

    public async ValueTask DisposeAsync()
    {
        try
        {
            if (keeping is not null)
            {
                await keeping.DisposeAsync().ConfigureAwait(false);
            }
        }
        finally
        {
            try
            {
                await volumes.DisposeAsync().ConfigureAwait(false);
            }
            finally
            {
                client.Dispose();
                identity.Dispose();
                await held.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private async Task OpenAsync(LivePcFolder folder, TimeProvider time, CancellationToken cancellationToken)
    {
        using (var leftOver = LeftOver.Find(folder))
        {
            if (leftOver is not null)
            {
                throw new NacreException(ErrorCatalogue.NotRunning, $"the player of '{folder.Name}' was killed; its guest waits for the next start");
            }
        }

        var anchors = await LoadAnchorsAsync(folder, identity, client, problem => Problem = problem, time, cancellationToken).ConfigureAwait(false);
        var lease = await OpenedLease.TakeAsync(identity, folder, new StackBook(folder, time).Read().Needed, anchors.Statements, time, cancellationToken).ConfigureAwait(false);
        Policy = lease.Policy;
        await OpenUserLayersAsync(volumes, folder, lease, identity, anchors, acceptOlder: false).ConfigureAwait(false);
        keeping = await anchors.BeginAsync().ConfigureAwait(false);
        Moments = MomentsOf(volumes, folder, time);
        Moments.Repair();
        await Moments.FinishAsync().ConfigureAwait(false);
    }
}
