using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Anchors;
using Nacre.Player.Devices;
using Nacre.Player.Keys;
using Nacre.Player.Leases;
using Nacre.Player.Logs;
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
    public static async Task<OpenLayers> OpenAsync(PlayerPaths paths, string name, KeySecrets secrets, TimeProvider time, CancellationToken cancellationToken)
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
            await opened.OpenAsync(folder, secrets, time, cancellationToken).ConfigureAwait(false);
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
        LivePcFolder folder, EnrolledIdentity identity, Func<(NacreClient Client, string? Revision)> contact, Action<string> problem, TimeProvider time, CancellationToken cancellationToken)
    {
        var tpm = await TpmCounter.FindAsync(identity.Record.DeviceId, folder.Name, cancellationToken).ConfigureAwait(false);
        var anchors = new AnchorKeeper(
            new AnchorFile(folder, identity), tpm, StateAsync, problem, time);
        await anchors.LoadAsync(cancellationToken).ConfigureAwait(false);
        return anchors;

        Task<AnchorClaims> StateAsync(IReadOnlyList<StatedAnchor> statements, CancellationToken token)
        {
            var (client, revision) = contact();
            return OpenedLease.StateAnchorsAsync(identity, client, folder.Name, statements, revision, token);
        }
    }

    /// <summary>Opens the user's layers, which must not be older than their newest known state.</summary>
    public static async Task OpenUserLayersAsync(
        OpenVolumes volumes, LivePcFolder folder, OpenedLease lease, SecretBytes key, AnchorKeeper anchors, bool acceptOlder)
    {
        anchors.Hear(lease.Claims.Anchors ?? [], lease.IsNew);
        foreach (var (layer, size) in UserLayers.Of(lease.Kind))
        {
            await anchors.OpenAsync(layer, newest => volumes.Open(layer, folder.Volume(layer), size, key, newest), acceptOlder).ConfigureAwait(false);
        }
    }

    /// <summary>The key of the LivePC's volumes, and a recovery code for the organisation where it has none that holds; the server is told of it where it can be reached.</summary>
    /// <exception cref="NacreException">As <see cref="LivePcKeys.Open"/>.</exception>
    public static async Task<SecretBytes> OpenKeyAsync(
        LivePcFolder folder, OpenedLease lease, EnrolledIdentity identity, NacreClient client, KeySecrets secrets, TimeProvider time, CancellationToken cancellationToken)
    {
        var keys = new LivePcKeys(folder, identity, time);
        await using var single = (await keys.HoldAsync(cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
        using var part = lease.KeyPart(identity);
        SecretBytes key;
        try
        {
            key = keys.Open(part.Span, lease.Policy, secrets);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.PasswordWrong || exception.Kind == ErrorCatalogue.PasswordWait || exception.Kind == ErrorCatalogue.PasswordLocked)
        {
            new LivePcLog(folder, () => lease.Policy.Get(Settings.LogsEventLevel), time).Write(EventLevel.Warning, "password.wrong", exception.Message);
            throw;
        }

        try
        {
            keys.PrepareRecovery(key, part.Span, lease.RecoveryKey);
            if (lease.IsNew && keys.Undelivered is { } escrow)
            {
                await client.PutEscrowAsync(folder.Name, new PutEscrow(escrow.Number, escrow.RecoveryKey, escrow.Undelivered!), cancellationToken).ConfigureAwait(false);
                keys.Delivered(escrow.Number);
            }
        }
        catch (NacreException exception) when (exception.Kind != ErrorCatalogue.NoSpace && exception.Kind != ErrorCatalogue.FileAccess)
        {
            // The server did not take it: that keeps nobody from their work, and is tried again at the next start.
        }
        catch
        {
            key.Dispose();
            throw;
        }

        return key;
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

    private async Task OpenAsync(LivePcFolder folder, KeySecrets secrets, TimeProvider time, CancellationToken cancellationToken)
    {
        using (var leftOver = LeftOver.Find(folder))
        {
            if (leftOver is not null)
            {
                throw new NacreException(ErrorCatalogue.NotRunning, $"the player of '{folder.Name}' was killed; its guest waits for the next start");
            }
        }

        var anchors = await LoadAnchorsAsync(folder, identity, () => (client, null), problem => Problem = problem, time, cancellationToken).ConfigureAwait(false);
        var lease = await OpenedLease.TakeAsync(identity, folder, new StackBook(folder, time).Read().Needed, anchors.Statements, time, cancellationToken).ConfigureAwait(false);
        Policy = lease.Policy;
        using (var key = await OpenKeyAsync(folder, lease, identity, client, secrets, time, cancellationToken).ConfigureAwait(false))
        {
            await OpenUserLayersAsync(volumes, folder, lease, key, anchors, acceptOlder: false).ConfigureAwait(false);
        }

        keeping = await anchors.BeginAsync().ConfigureAwait(false);
        Moments = MomentsOf(volumes, folder, time);
        Moments.Repair();
        await Moments.FinishAsync().ConfigureAwait(false);
    }
}
