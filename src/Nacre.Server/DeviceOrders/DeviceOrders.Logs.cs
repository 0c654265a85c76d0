using System.Globalization;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Server;

/// <content>Logs: a device sends its own when it is ordered to, and only then.</content>
internal sealed partial class DeviceOrders
{
    /// <summary>After so long a log is deleted by itself.</summary>
    internal static readonly TimeSpan LogLife = TimeSpan.FromDays(30);

    /// <summary>Asks a device for its log.</summary>
    public async Task<Result<DeviceOrder>> OrderLogAsync(string untrustedDevice, OrderLog untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.LivePc is not null && !Names.IsValid(untrusted.LivePc))
        {
            return LivePcErrors.NoLivePc;
        }

        if (untrusted.Reason is not null && !Text.IsLabel(untrusted.Reason, OrderLog.LongestReason))
        {
            return DeviceOrderErrors.ReasonInvalid;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Devices.SingleOrDefaultAsync(row => row.Id == untrustedDevice, cancellationToken) is not { } device)
        {
            return DeviceErrors.NoDevice;
        }

        if (device.RevokedAt is not null)
        {
            return DeviceOrderErrors.Silent(device.Id);
        }

        var has = await database.Shares.Where(row => row.DeviceId == device.Id && (untrusted.LivePc == null || row.LivePc == untrusted.LivePc)).Select(row => row.LivePc).ToListAsync(cancellationToken);
        if (untrusted.LivePc is not null && has.Count == 0)
        {
            return DeviceOrderErrors.NeverThere(device.Id);
        }

        // Who asks for all of them asks for each.
        var resolve = await policies.LoadAsync(cancellationToken);
        var policy = resolve(device.User, untrusted.LivePc, device.Id);
        if (untrusted.Reason is null && has.Select(livePc => resolve(device.User, livePc, device.Id)).Append(policy).Any(one => one.Get(Settings.LogsAdminReasonRequired)))
        {
            return DeviceOrderErrors.ReasonMissing;
        }

        if (await Open(database, device.Id).FirstOrDefaultAsync(row => row.Act == DeviceAct.Logs && row.LivePc == untrusted.LivePc, cancellationToken) is { } before)
        {
            return DeviceOrderErrors.Again(before);
        }

        var order = Make(DeviceAct.Logs, device, untrusted.LivePc, policy, untrusted.Reason);
        database.DeviceOrders.Add(order);
        await audit.AppendAsync(Roles.Administrator, "logs.order", order.Id, order.Words, cancellationToken);
        await QueueAsync(order, device, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        bell.Ring(device.Id);
        return order.ToContract(device);
    }

    /// <summary>Takes the log that a device was ordered to send; again until there is its receipt.</summary>
    public async Task<Result<Done>> TakeLogAsync(string deviceId, string untrustedOrder, SendLog untrusted, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.DeviceOrders.SingleOrDefaultAsync(row => row.Id == untrustedOrder && row.DeviceId == deviceId && row.Act == DeviceAct.Logs, cancellationToken) is not { } order)
        {
            return DeviceOrderErrors.NoOrder;
        }

        if (order.State is not (DeviceOrderState.Delivered or DeviceOrderState.Failed))
        {
            return DeviceOrderErrors.Not(order, "answered");
        }

        if (untrusted.Lines is null || !untrusted.Lines.All(line => LogLine.IsValid(line) && (order.LivePc is null || line.LivePc == order.LivePc)))
        {
            return DeviceOrderErrors.LogInvalid;
        }

        var lines = JsonSerializer.Serialize(untrusted.Lines, ContractJson.Options);
        if (await database.DeviceLogs.SingleOrDefaultAsync(row => row.OrderId == order.Id, cancellationToken) is { } log)
        {
            (log.ReceivedAt, log.Lines) = (time.Now(), lines);
        }
        else
        {
            database.DeviceLogs.Add(new DeviceLogRow { OrderId = order.Id, ReceivedAt = time.Now(), Lines = lines });
        }

        await audit.AppendAsync("device:" + deviceId, "logs.send", order.Id, string.Create(CultureInfo.InvariantCulture, $"{order.Words}; {untrusted.Lines.Count} lines"), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    /// <summary>Shows a log, and writes down to whom.</summary>
    public async Task<Result<DeviceLog>> ReadLogAsync(string untrustedOrder, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await FindLogAsync(untrustedOrder, cancellationToken) is not { } found)
        {
            return DeviceOrderErrors.NoLog;
        }

        await audit.AppendAsync(Roles.Administrator, "logs.read", found.Order.Id, found.Order.Words, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new DeviceLog(found.Order.Id, found.Order.DeviceId, found.Log.ReceivedAt, JsonSerializer.Deserialize<IReadOnlyList<LogLine>>(found.Log.Lines, ContractJson.Options)!);
    }

    /// <summary>Deletes a log; where the device was not given the order yet, takes the order back.</summary>
    public async Task<Result<Done>> DeleteLogAsync(string untrustedOrder, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await FindLogAsync(untrustedOrder, cancellationToken) is { } found)
        {
            database.DeviceLogs.Remove(found.Log);
            await audit.AppendAsync(Roles.Administrator, "logs.delete", found.Order.Id, found.Order.Words, cancellationToken);
        }
        else if (await database.DeviceOrders.SingleOrDefaultAsync(row => row.Id == untrustedOrder && row.Act == DeviceAct.Logs && row.State == DeviceOrderState.Queued, cancellationToken) is { } order)
        {
            await WithdrawAsync(order, "", cancellationToken);
        }
        else
        {
            return DeviceOrderErrors.NoLog;
        }

        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    /// <summary>Deletes the logs whose time is over.</summary>
    public async Task DeleteOldLogsAsync(CancellationToken cancellationToken)
    {
        var end = time.Now() - LogLife;
        if (!await database.DeviceLogs.AnyAsync(row => row.ReceivedAt <= end, cancellationToken))
        {
            return;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        foreach (var id in await database.DeviceLogs.Where(row => row.ReceivedAt <= end).Select(row => row.OrderId).ToListAsync(cancellationToken))
        {
            await database.DeviceLogs.Where(row => row.OrderId == id).ExecuteDeleteAsync(cancellationToken);
            await audit.AppendAsync("server", "logs.delete", id, string.Create(CultureInfo.InvariantCulture, $"after {LogLife.TotalDays} days"), cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);
    }

    private async Task<(DeviceOrderRow Order, DeviceLogRow Log)?> FindLogAsync(string untrustedOrder, CancellationToken cancellationToken) =>
        await database.DeviceLogs.SingleOrDefaultAsync(row => row.OrderId == untrustedOrder, cancellationToken) is { } log
            ? (await database.DeviceOrders.SingleAsync(row => row.Id == log.OrderId, cancellationToken), log)
            : null;
}

/// <summary>Deletes logs whose time is over every hour, whether or not anybody calls.</summary>
internal sealed class LogSweeper(IServiceScopeFactory scopes, TimeProvider time, ILogger<LogSweeper> logger) : BackgroundService
{
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromHours(1), time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            try
            {
                await using var scope = scopes.CreateAsyncScope();
                await scope.ServiceProvider.GetRequiredService<DeviceOrders>().DeleteOldLogsAsync(stoppingToken);
            }
#pragma warning disable CA1031 // The next hour is the next chance; a full disk now must not end the server.
            catch (Exception exception) when (exception is not OperationCanceledException)
#pragma warning restore CA1031
            {
                logger.LogsNotDeleted(exception);
            }
        }
    }
}
