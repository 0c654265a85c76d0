using Nacre.Contracts;

namespace Nacre.Client;

/// <content>Revokes, kills and logs that are asked for.</content>
public sealed partial class NacreClient
{
    /// <summary>Orders devices to destroy keys; all of it or nothing.</summary>
    public Task<IReadOnlyList<DeviceOrder>> OrderKillAsync(OrderKill kill, CancellationToken cancellationToken = default) =>
        transport.SendAsync<IReadOnlyList<DeviceOrder>>(HttpMethod.Post, "v1/kills", kill, cancellationToken);

    /// <summary>All revokes, kills and logs that were asked for, newest first.</summary>
    public Task<IReadOnlyList<DeviceOrder>> ListDeviceOrdersAsync(CancellationToken cancellationToken = default) => transport.GetAsync<IReadOnlyList<DeviceOrder>>("v1/device-orders", cancellationToken);

    /// <summary>An order, with its receipt.</summary>
    public Task<DeviceOrder> GetDeviceOrderAsync(string id, CancellationToken cancellationToken = default) => transport.GetAsync<DeviceOrder>($"v1/device-orders/{Escape(id)}", cancellationToken);

    /// <summary>Approves a kill that another administrator ordered.</summary>
    public Task<DeviceOrder> ApproveDeviceOrderAsync(string id, CancellationToken cancellationToken = default) =>
        transport.SendAsync<DeviceOrder>(HttpMethod.Post, $"v1/device-orders/{Escape(id)}/approve", null, cancellationToken);

    /// <summary>Takes back what the device was not given.</summary>
    public Task<DeviceOrder> WithdrawDeviceOrderAsync(string id, CancellationToken cancellationToken = default) =>
        transport.SendAsync<DeviceOrder>(HttpMethod.Post, $"v1/device-orders/{Escape(id)}/withdraw", null, cancellationToken);

    /// <summary>Gives a revoked permission back, or lets a device have a new LivePC in the place of a killed one.</summary>
    public Task<DeviceOrder> LiftDeviceOrderAsync(string id, CancellationToken cancellationToken = default) =>
        transport.SendAsync<DeviceOrder>(HttpMethod.Post, $"v1/device-orders/{Escape(id)}/lift", null, cancellationToken);

    /// <summary>Asks a device for its log.</summary>
    public Task<DeviceOrder> OrderLogAsync(string device, OrderLog order, CancellationToken cancellationToken = default) =>
        transport.SendAsync<DeviceOrder>(HttpMethod.Post, $"v1/devices/{Escape(device)}/log", order, cancellationToken);

    /// <summary>The log that a device sent for an order.</summary>
    public Task<DeviceLog> GetLogAsync(string order, CancellationToken cancellationToken = default) => transport.GetAsync<DeviceLog>($"v1/device-orders/{Escape(order)}/log", cancellationToken);

    /// <summary>Deletes it, or takes the order back that the device was not given.</summary>
    public Task DeleteLogAsync(string order, CancellationToken cancellationToken = default) => transport.SendAsync(HttpMethod.Delete, $"v1/device-orders/{Escape(order)}/log", cancellationToken);

    /// <summary>Of a device: sends its log, which an order asked for.</summary>
    public Task SendLogAsync(string order, SendLog log, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Put, $"v1/device/orders/{Escape(order)}/log", log, cancellationToken);

    /// <summary>The code with which a user puts off the end of a lease without a network.</summary>
    public Task<LeaseExtension> ExtendLeaseAsync(ExtendLease request, CancellationToken cancellationToken = default) =>
        transport.SendAsync<LeaseExtension>(HttpMethod.Post, "v1/lease-extensions", request, cancellationToken);

    /// <summary>Of a device, a revoked one too: what it has to carry out.</summary>
    public Task<SignedDeviceOrders> FetchDeviceOrdersAsync(FetchDeviceOrders question, CancellationToken cancellationToken = default) =>
        transport.SendAsync<SignedDeviceOrders>(HttpMethod.Post, "v1/device/orders", question, cancellationToken);

    /// <summary>Delivers a receipt; needs no credential.</summary>
    public Task DeliverReceiptAsync(DeliverReceipt receipt, CancellationToken cancellationToken = default) =>
        transport.SendAsync(HttpMethod.Post, "v1/device-orders/receipts", receipt, cancellationToken);

    /// <summary>Of a device, a revoked one too: stays connected, and says when there are orders. Returns when the server ends the connection.</summary>
    /// <param name="heard">Told each time; the connection waits for it.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="NacreException">ServerUnreachable (also after a long silence), Unauthenticated, ClockWrong.</exception>
    public Task ListenForOrdersAsync(Func<CancellationToken, Task> heard, CancellationToken cancellationToken = default) =>
        transport.ListenAsync("v1/device/events", line => line == $"event: {DeviceEvents.Orders}", heard, DeviceEvents.LongestSilence, cancellationToken);
}
