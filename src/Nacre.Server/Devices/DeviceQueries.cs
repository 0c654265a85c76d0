using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>What devices ask all day, with the queries compiled once, where EF would look each one up by its expression every time. A compiled query belongs to one model: each organisation's
/// services have their own.</summary>
internal sealed class DeviceQueries
{
    private readonly Func<NacreDatabase, string, CancellationToken, Task<DeviceRow?>> device = EF.CompileAsyncQuery(
        (NacreDatabase database, string id, CancellationToken cancellationToken) => database.Devices.AsNoTracking().SingleOrDefault(row => row.Id == id));

    private readonly Func<NacreDatabase, string, string, CancellationToken, Task<News>> news = EF.CompileAsyncQuery(
        (NacreDatabase database, string deviceId, string livePc, CancellationToken cancellationToken) => database.Devices.Where(row => row.Id == deviceId).Select(device => new News(
            device.RevokedAt != null,
            database.Entitlements.Any(row => row.LivePc == livePc && row.User == device.User),
            database.Settings.Where(row => row.Name == Revision.Setting).Select(row => row.Value).First(),
            database.Rollouts.Any(row => row.State == RolloutState.Running),
            database.DeviceOrders.Any(row => row.DeviceId == deviceId),
            database.Orders.Any(row => row.DeviceId == deviceId && row.LivePc == livePc && row.State == OrderState.Waiting),
            database.Anchors.Where(row => row.DeviceId == device.Id && row.LivePc == livePc).ToList())).Single());

    /// <summary>A device as it is in the database now; null: there is none.</summary>
    public Task<DeviceRow?> FindAsync(NacreDatabase database, string id, CancellationToken cancellationToken) => device(database, id, cancellationToken);

    /// <summary>What may be news for a device that is there; the anchors are tracked.</summary>
    public Task<News> NewsAsync(NacreDatabase database, string deviceId, string livePc, CancellationToken cancellationToken) => news(database, deviceId, livePc, cancellationToken);
}
