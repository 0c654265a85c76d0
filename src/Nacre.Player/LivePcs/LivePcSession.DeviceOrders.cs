using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Erasure;
using Nacre.Player.Leases;
using Nacre.Player.Machines;
using Nacre.Player.Orders;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>Revokes, kills and orders for the log, heard at once while the LivePC runs.</content>
public sealed partial class LivePcSession
{
    private readonly HashSet<string> heardDeviceOrders = []; // of revokes that this session follows
    private readonly SemaphoreSlim attending = new(1, 1);
    private Qemu? machine; // that runs
    private volatile bool isKilled;
    private volatile NacreClient? online; // while orders are listened for

    private async Task ListenForDeviceOrdersAsync(CancellationToken cancellationToken)
    {
        try
        {
            await DeviceWatch.RunAsync(
                paths, AttendDeviceOrdersAsync, () => TimeSpan.FromMinutes(policy.Get(Settings.PolicyRefreshInterval)), time, _ => { }, client => online = client, cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // The guest ends.
        }
    }

    /// <summary>Fetches what is ordered, and follows it: a kill ends the guest now, its keys being gone; a revoke after the time in which the user may save.</summary>
    private async Task AttendDeviceOrdersAsync(CancellationToken cancellationToken)
    {
        await attending.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            var attended = new DeviceOrderDesk(paths, time);
            var orders = await attended.AttendAsync(folder.Name, cancellationToken).ConfigureAwait(false);
            sending = SendLogsAsync(attended, sending, cancellationToken);
            foreach (var order in orders)
            {
                if (order.Act == DeviceAct.Kill)
                {
                    isKilled = true;
                    machine?.Kill();
                    await stopping.CancelAsync().ConfigureAwait(false);
                }
                else if (heardDeviceOrders.Add(order.Id))
                {
                    _ = FollowRevokeAsync(order.GraceMinutes, cancellationToken);
                }
            }
        }
        catch (NacreException exception)
        {
            Change(now => now with { LeaseProblem = exception.Message });
        }
        finally
        {
            attending.Release();
        }

        RingForOrders();
    }

    private async Task FollowRevokeAsync(int minutes, CancellationToken cancellationToken)
    {
        try
        {
            log.Write(EventLevel.Warning, "order.heard", "an administrator took the permission to use this LivePC away");
            Change(now => now with { LeaseWarning = $"your permission to use this LivePC was taken away: it is shut down {(minutes == 0 ? "now" : $"in {minutes} minutes")}" });
            if (minutes > 0)
            {
                await WarnAsync($"Your permission to use this computer was taken away. It shuts down in {minutes} minutes. Save your work now.", cancellationToken).ConfigureAwait(false);
                await Task.Delay(TimeSpan.FromMinutes(minutes), time, cancellationToken).ConfigureAwait(false);
            }

            await EndForAsync("your permission to use it was taken away", cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // It ends already.
        }
    }

    /// <summary>Before the LivePC is opened: what was ordered while it did not run. A server that does not answer is found out by the lease.</summary>
    private async Task AttendBeforeStartAsync()
    {
        IReadOnlyList<DeviceOrderClaims> orders;
        try
        {
            var attended = new DeviceOrderDesk(paths, time);
            orders = await attended.AttendAsync(folder.Name, stopping.Token).ConfigureAwait(false);
            sending = SendLogsAsync(attended, sending, stopping.Token);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.ServerUnreachable || exception.Kind == ErrorCatalogue.NotFound)
        {
            return; // also one of before there were such orders
        }

        if (orders is [var order, ..])
        {
            heardDeviceOrders.Add(order.Id);
            isKilled = order.Act == DeviceAct.Kill;
            throw isKilled ? new NacreException(ErrorCatalogue.LivePcKilled, $"'{folder.Name}' was killed on this device")
                : new NacreException(ErrorCatalogue.DeviceRevoked, $"the permission to use '{folder.Name}' on this device was taken away");
        }
    }

    /// <summary>Once nothing of the LivePC is open here any more: destroys what is to be destroyed, and says so.</summary>
    private async Task FinishDeviceOrdersAsync(bool isEnded)
    {
        if (!isKilled && !isEnded && heardDeviceOrders.Count == 0 && !Eraser.IsUnderWay(paths))
        {
            return;
        }

        try
        {
            using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(30));
            if (isEnded)
            {
                await new LeaseEnd(paths, time).EnforceAsync(limit.Token).ConfigureAwait(false);
            }

            await new Eraser(paths, time).GoOnAsync(CancellationToken.None).ConfigureAwait(false);
            await new DeviceOrderDesk(paths, time).AttendAsync(null, limit.Token).ConfigureAwait(false);
        }
        catch (Exception exception) when (exception is NacreException or OperationCanceledException)
        {
            // The receipt is kept, and the next command or the watch delivers it.
        }
    }
}
