using System.Collections.Concurrent;
using System.Threading.Channels;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>
/// Wakes the devices that are connected to this server when there is an order for them. What other servers of the database queued is seen by looking, each second, at the
/// highest number, and at the rejuvenations that wait: two queries for a server, however many devices it has. Forgotten with the process; who connects is told what waits.
/// </summary>
internal sealed class DeviceBell(IServiceScopeFactory scopes, ServerOptions options, TimeProvider time, ILogger<DeviceBell> logger) : BackgroundService
{
    /// <summary>Connections of one device: a player for each LivePC and the watch. More than that end the oldest.</summary>
    private const int MostOfDevice = 8;

    private static readonly TimeSpan Look = TimeSpan.FromSeconds(1);
    private readonly ConcurrentDictionary<string, Listening[]> listeners = new(StringComparer.Ordinal);
    private int count;

    /// <summary>Devices' connections to this server.</summary>
    public int Count => Volatile.Read(ref count);

    /// <summary>Begins to hear of a device's orders, until disposed.</summary>
    public Listening Listen(string device)
    {
        var listening = new Listening(this, device);
        Listening? oldest = null;
        listeners.AddOrUpdate(device, _ => [listening], (_, before) =>
        {
            oldest = before.Length >= MostOfDevice ? before[0] : null;
            return [.. before.Skip(oldest is null ? 0 : 1), listening];
        });
        Interlocked.Increment(ref count);
        oldest?.Dispose();
        return listening;
    }

    /// <summary>There is something for a device.</summary>
    public void Ring(string device)
    {
        if (listeners.TryGetValue(device, out var all))
        {
            foreach (var listening in all)
            {
                listening.Ring();
            }
        }
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (options.Postgres is null)
        {
            return; // one server
        }

        long? seen = null;
        HashSet<string>? waiting = null; // rejuvenations, of which there are few
        using var timer = new PeriodicTimer(Look, time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            try
            {
                await using var scope = scopes.CreateAsyncScope();
                var database = scope.ServiceProvider.GetRequiredService<NacreDatabase>();
                var newest = await database.DeviceOrders.MaxAsync(row => (long?)row.Number, stoppingToken) ?? 0;
                if (seen is { } before && newest > before)
                {
                    foreach (var device in await database.DeviceOrders.Where(row => row.Number > before).Select(row => row.DeviceId).Distinct().ToListAsync(stoppingToken))
                    {
                        Ring(device);
                    }
                }

                seen = newest;
                var orders = await database.Orders.Where(row => row.State == OrderState.Waiting).Select(row => new { row.Id, row.DeviceId }).ToListAsync(stoppingToken);
                foreach (var order in orders.Where(order => waiting?.Contains(order.Id) == false))
                {
                    Ring(order.DeviceId);
                }

                waiting = [.. orders.Select(order => order.Id)];
            }
#pragma warning disable CA1031 // The next second is the next chance; a database that is away must not end the server.
            catch (Exception exception) when (exception is not OperationCanceledException)
#pragma warning restore CA1031
            {
                logger.OrdersNotSeen(exception);
            }
        }
    }

    private void Remove(Listening listening)
    {
        while (listeners.TryGetValue(listening.Device, out var before))
        {
            Listening[] after = [.. before.Where(one => one != listening)];
            if (after.Length == 0 ? listeners.TryRemove(new(listening.Device, before)) : listeners.TryUpdate(listening.Device, after, before))
            {
                break;
            }
        }

        Interlocked.Decrement(ref count);
    }

    /// <summary>One connection's ear.</summary>
    internal sealed class Listening(DeviceBell bell, string device) : IDisposable
    {
        // One that was not heard yet is enough.
        private readonly Channel<bool> rung = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
        private int isDisposed;

        public string Device => device;

        public void Ring() => rung.Writer.TryWrite(true);

        /// <summary>Waits for a ring.</summary>
        /// <returns>False where there will be none any more.</returns>
        public async Task<bool> WaitAsync(CancellationToken cancellationToken) => await rung.Reader.WaitToReadAsync(cancellationToken) && rung.Reader.TryRead(out _);

        public void Dispose()
        {
            if (Interlocked.Exchange(ref isDisposed, 1) == 0)
            {
                rung.Writer.TryComplete();
                bell.Remove(this);
            }
        }
    }
}
