using Nacre.Contracts;
using Nacre.Player.Devices;

namespace Nacre.Player.Erasure;

/// <summary>Revokes and kills that this device carried out: what is ordered again is not done again, it is said again.</summary>
/// <param name="Done">Oldest first.</param>
internal sealed record KeptDeviceOrders(IReadOnlyList<KeptDeviceOrder> Done);

/// <summary>An order that was carried out.</summary>
/// <param name="Id">Its number.</param>
/// <param name="Receipt">What this device said.</param>
internal sealed record KeptDeviceOrder(string Id, DeliverReceipt Receipt);

/// <summary>The file of them.</summary>
internal sealed class DoneOrders
{
    /// <summary>More than this are forgotten: the server has had the receipts, and orders what it has a receipt for from nobody.</summary>
    private const int Most = 64;

    private readonly AuthenticatedFile<KeptDeviceOrders> file;
    private readonly KeptDeviceOrders kept;

    public DoneOrders(PlayerPaths paths, EnrolledIdentity identity)
    {
        file = new AuthenticatedFile<KeptDeviceOrders>(Path.Combine(paths.State, "device-orders"), identity, $"nacre device orders of {identity.Record.DeviceId}");

        // A file that somebody changed says nothing: the worst is that something is destroyed that was to be destroyed before.
        kept = file.TryRead(out var read) && read is { Done: not null } ? read : new KeptDeviceOrders([]);
    }

    /// <summary>What this device said of an order; null: it did not carry it out.</summary>
    public DeliverReceipt? Find(string id) => kept.Done.FirstOrDefault(done => done.Id == id)?.Receipt;

    /// <summary>Durable on return.</summary>
    public void Remember(string id, DeliverReceipt receipt) => file.Write(new KeptDeviceOrders([.. kept.Done.Where(done => done.Id != id).TakeLast(Most - 1), new KeptDeviceOrder(id, receipt)]));
}
