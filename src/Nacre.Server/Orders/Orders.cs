using System.Globalization;
using System.Security.Claims;
using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>An administrator's order that a device rejuvenates a LivePC.</summary>
internal sealed class OrderRow
{
    public required string Id { get; init; }

    public required string DeviceId { get; init; }

    public required string LivePc { get; init; }

    public required RejuvenationDepth Depth { get; init; }

    public required string? To { get; init; }

    public required DateTimeOffset? Before { get; init; }

    public required DateTimeOffset OrderedAt { get; init; }

    public required OrderState State { get; set; }

    public DateTimeOffset? EndedAt { get; set; }

    public required string Detail { get; set; }

    public Order ToContract() => new(Id, LivePc, DeviceId, Depth, To, Before, OrderedAt, State, EndedAt, Detail);
}

internal static class OrderErrors
{
    public static Failure NoOrder { get; } = new(ErrorCatalogue.NotFound, "there is no such order");

    public static Failure Ended(Order order) => new(
        ErrorCatalogue.Immutable, $"order {order.Id} can't be withdrawn: it is {order.State.ToString().ToLowerInvariant()} since {order.EndedAt:yyyy-MM-dd HH:mm} UTC");

    public static Failure TooMany(int most) => new(ErrorCatalogue.TooLarge, string.Create(CultureInfo.InvariantCulture, $"{most} orders wait for this device and LivePC already"));
}

internal sealed class Orders(NacreDatabase database, AuditTrail audit, LeaseSigner signer, DeviceBell bell, TimeProvider time)
{
    /// <summary>Orders that wait for one device and LivePC: each restarts its guest.</summary>
    private const int MostWaiting = 10;

    private const int MostReceipts = 100;
    private const int LongestNonce = 64;
    private const int LongestDetail = 400;

    /// <summary>Whether the device has to fetch something.</summary>
    public static Task<bool> HasWaitingAsync(NacreDatabase database, string deviceId, CancellationToken cancellationToken) =>
        database.Orders.AnyAsync(row => row.DeviceId == deviceId && row.State == OrderState.Waiting, cancellationToken);

    public async Task<Result<Order>> CreateAsync(string untrustedName, CreateOrder untrusted, CancellationToken cancellationToken)
    {
        if (Invalid(untrusted) is { } invalid)
        {
            return invalid;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (!await database.LivePcs.AnyAsync(row => row.Name == untrustedName, cancellationToken))
        {
            return LivePcErrors.NoLivePc;
        }

        if (await database.Devices.AsNoTracking().SingleOrDefaultAsync(row => row.Id == untrusted.Device, cancellationToken) is not { } device)
        {
            return DeviceErrors.NoDevice;
        }

        if (await database.Orders.CountAsync(row => row.DeviceId == device.Id && row.LivePc == untrustedName && row.State == OrderState.Waiting, cancellationToken) >= MostWaiting)
        {
            return OrderErrors.TooMany(MostWaiting);
        }

        var order = new OrderRow
        {
            Id = RandomNumberGenerator.GetHexString(16, lowercase: true),
            DeviceId = device.Id,
            LivePc = untrustedName,
            Depth = untrusted.Depth,
            To = untrusted.To,
            Before = untrusted.Before?.ToUniversalTime(),
            OrderedAt = time.Now(),
            State = OrderState.Waiting,
            Detail = "",
        };
        database.Orders.Add(order);
        await audit.AppendAsync(Roles.Administrator, "order.create", order.Id, Words(order), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        bell.Ring(order.DeviceId);
        return order.ToContract();
    }

    public async Task<IReadOnlyList<Order>> ListAsync(CancellationToken cancellationToken) =>
        (await database.Orders.AsNoTracking().OrderByDescending(row => row.OrderedAt).ThenBy(row => row.Id).ToListAsync(cancellationToken)).ConvertAll(row => row.ToContract());

    /// <summary>Takes an order back. A device that has heard of it and is about to carry it out does so all the same; its receipt says so then.</summary>
    public async Task<Result<Order>> WithdrawAsync(string untrustedId, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Orders.SingleOrDefaultAsync(row => row.Id == untrustedId, cancellationToken) is not { } order)
        {
            return OrderErrors.NoOrder;
        }

        if (order.State == OrderState.Withdrawn)
        {
            return order.ToContract();
        }

        if (order.State != OrderState.Waiting)
        {
            return OrderErrors.Ended(order.ToContract());
        }

        (order.State, order.EndedAt) = (OrderState.Withdrawn, time.Now());
        await audit.AppendAsync(Roles.Administrator, "order.withdraw", order.Id, Words(order), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return order.ToContract();
    }

    /// <summary>Takes a device's receipts, and answers with what waits for it.</summary>
    public async Task<Result<SignedOrders>> FetchAsync(string deviceId, string untrustedName, FetchOrders untrusted, CancellationToken cancellationToken)
    {
        if (!Text.IsLabel(untrusted.Nonce, LongestNonce))
        {
            return LeaseErrors.NonceInvalid;
        }

        if (untrusted.Receipts.Count > MostReceipts || untrusted.Receipts.Any(receipt => receipt is null || !Names.IsOrderId(receipt.Id) || receipt.Detail.Length > LongestDetail || !Text.IsPrintable(receipt.Detail)))
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"'receipts' must have at most {MostReceipts}, each with an order's number and at most {LongestDetail} printable characters");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var device = await database.Devices.AsNoTracking().SingleAsync(row => row.Id == deviceId, cancellationToken);
        if (device.RevokedAt is not null)
        {
            return DeviceErrors.Revoked;
        }

        if (!await database.Entitlements.AnyAsync(row => row.LivePc == untrustedName && row.User == device.User, cancellationToken))
        {
            return LeaseErrors.NotEntitled;
        }

        var orders = await database.Orders.Where(row => row.DeviceId == deviceId && row.LivePc == untrustedName).ToListAsync(cancellationToken);
        foreach (var receipt in untrusted.Receipts)
        {
            // A receipt that is sent again says nothing new; one of an order that was withdrawn on the way says what really happened.
            if (orders.Find(order => order.Id == receipt.Id) is { State: OrderState.Waiting or OrderState.Withdrawn } order)
            {
                (order.State, order.EndedAt, order.Detail) = (receipt.Succeeded ? OrderState.Done : OrderState.Failed, receipt.At.ToUniversalTime(), receipt.Detail);
                await audit.AppendAsync("device:" + deviceId, receipt.Succeeded ? "order.done" : "order.fail", order.Id, $"{Words(order)}: {receipt.Detail}", receipt.Succeeded ? AuditResult.Done : AuditResult.Failed, cancellationToken);
            }
        }

        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        var waiting = orders.Where(order => order.State == OrderState.Waiting).OrderBy(order => order.OrderedAt).ThenBy(order => order.Id, StringComparer.Ordinal)
            .Select(order => new RejuvenationOrder(order.Id, order.Depth, order.To, order.Before)).ToList();
        return new SignedOrders(signer.Sign(new OrderClaims(deviceId, untrustedName, untrusted.Nonce, waiting)));
    }

    private static Failure? Invalid(CreateOrder untrusted)
    {
        var needs = untrusted.Depth is RejuvenationDepth.Data or RejuvenationDepth.Moment;
        var hasTarget = untrusted.To is not null || untrusted.Before is not null;
        return !Enum.IsDefined(untrusted.Depth) || (untrusted.To is not null && (untrusted.Before is not null || !Text.IsLabel(untrusted.To, 80)))
            || (needs && !hasTarget) || (untrusted.Depth == RejuvenationDepth.System && hasTarget)
            ? new Failure(ErrorCatalogue.RequestInvalid, "an order has a depth, and 'to' (a moment) or 'before' (a time): one of them with the depths data and moment, none with system")
            : null;
    }

    private static string Words(OrderRow order) => string.Create(
        CultureInfo.InvariantCulture, $"rejuvenate {order.LivePc} on device {order.DeviceId}: {order.Depth.ToString().ToLowerInvariant()}{(order.To is null ? "" : $" to {order.To}")}{(order.Before is null ? "" : $" before {order.Before:u}")}");
}

internal static class OrderEndpoints
{
    public static void Map(Groups groups)
    {
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapPost("/livepcs/{name}/orders", async (string name, CreateOrder body, Orders orders, CancellationToken cancellationToken) =>
                (await orders.CreateAsync(name, body, cancellationToken)).ToHttp(order => TypedResults.Created((string?)null, order)))
            .WithName("CreateOrder").WithSummary("Orders a device to rejuvenate a LivePC at its next contact.")
            .Produces<Order>(StatusCodes.Status201Created).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.TooLarge);
        groups.Of(Roles.Administrator, Roles.HelpDesk, Roles.Auditor).MapGet("/orders", (Orders orders, CancellationToken cancellationToken) => orders.ListAsync(cancellationToken))
            .WithName("ListOrders").WithSummary("All orders and where they are, newest first.");
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapPost("/orders/{id}/withdraw", async (string id, Orders orders, CancellationToken cancellationToken) =>
                (await orders.WithdrawAsync(id, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("WithdrawOrder").WithSummary("Takes an order back that the device has not carried out.")
            .Produces<Order>().Fails(ErrorCatalogue.NotFound, ErrorCatalogue.Immutable);
        groups.Device.MapPost("/livepcs/{name}/orders", async (string name, FetchOrders body, ClaimsPrincipal caller, Orders orders, CancellationToken cancellationToken) =>
                (await orders.FetchAsync(caller.FindFirstValue(ClaimTypes.NameIdentifier)!, name, body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("FetchOrders").WithSummary("Takes the device's receipts; the answer is what waits for it.")
            .Produces<SignedOrders>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotEntitled);
    }
}
