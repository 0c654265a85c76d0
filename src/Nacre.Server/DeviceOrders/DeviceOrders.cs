using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Server;

/// <summary>
/// Revokes, kills and logs that are asked for, from the order to the receipt. Each change of a state and its audit line are one transaction. What is queued is withdrawn only until the
/// device was given it; what is confirmed stays so.
/// </summary>
internal sealed partial class DeviceOrders(NacreDatabase database, AuditTrail audit, Caller caller, LeaseSigner signer, Policies policies, DeviceBell bell, TimeProvider time)
{
    private const int MostDevices = 1000, LongestNonce = 64;
    private static readonly TimeSpan Day = TimeSpan.FromHours(24);

    /// <summary>Whether the LivePC was killed on the device, and nobody lets it have a new one.</summary>
    public static Task<bool> IsKilledAsync(NacreDatabase database, string device, string livePc, CancellationToken cancellationToken) => database.DeviceOrders.AnyAsync(
        row => row.DeviceId == device && row.Act == DeviceAct.Kill && (row.LivePc == null || row.LivePc == livePc) && row.LiftedAt == null
            && row.State != DeviceOrderState.Unapproved && row.State != DeviceOrderState.Withdrawn, cancellationToken);

    public async Task<Result<DeviceOrder[]>> KillAsync(OrderKill untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.Devices is not { Count: >= 1 and <= MostDevices } || untrusted.Devices.Any(device => device is null)
            || untrusted.Devices.Distinct(StringComparer.Ordinal).Count() != untrusted.Devices.Count || (untrusted.LivePc is not null && !Names.IsValid(untrusted.LivePc)))
        {
            return DeviceOrderErrors.Invalid;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (untrusted.LivePc is not null && !await database.LivePcs.AnyAsync(row => row.Name == untrusted.LivePc, cancellationToken))
        {
            return LivePcErrors.NoLivePc;
        }

        var since = time.Now() - Day;
        var lately = await database.DeviceOrders.Where(row => row.Act == DeviceAct.Kill && row.OrderedBy == caller.Name && row.OrderedAt > since && row.State != DeviceOrderState.Withdrawn)
            .Select(row => row.DeviceId).Distinct().ToListAsync(cancellationToken);
        var inDay = lately.Union(untrusted.Devices).Count();

        // All that is the same for all of them, or is asked of each, at once: a thousand devices hear of it within a second or two.
        var known = await database.Devices.AsNoTracking().Where(row => untrusted.Devices.Contains(row.Id)).ToDictionaryAsync(row => row.Id, StringComparer.Ordinal, cancellationToken);
        var resolve = await policies.LoadAsync(cancellationToken);
        var before = (await database.DeviceOrders.AsNoTracking().Where(row => untrusted.Devices.Contains(row.DeviceId)).ToListAsync(cancellationToken)).ToLookup(row => row.DeviceId, StringComparer.Ordinal);
        var waiting = (await database.Orders.Where(row => untrusted.Devices.Contains(row.DeviceId) && row.State == OrderState.Waiting).Select(row => row.DeviceId).ToListAsync(cancellationToken)).ToHashSet(StringComparer.Ordinal);
        var shared = untrusted.LivePc is null ? null
            : (await database.Shares.Where(row => row.LivePc == untrusted.LivePc && untrusted.Devices.Contains(row.DeviceId)).Select(row => row.DeviceId).ToListAsync(cancellationToken)).ToHashSet(StringComparer.Ordinal);
        var number = await NewestNumberAsync(cancellationToken);
        var answer = new List<DeviceOrder>();
        foreach (var id in untrusted.Devices)
        {
            if (!known.TryGetValue(id, out var device))
            {
                return DeviceErrors.NoDevice;
            }

            var policy = resolve(device.User, untrusted.LivePc, device.Id);
            if (WhyNot(device, untrusted.LivePc, policy, before[id], shared?.Contains(id) != false) is { } failure)
            {
                return failure;
            }

            database.Attach(device);
            var row = Make(DeviceAct.Kill, device, untrusted.LivePc, policy);
            database.DeviceOrders.Add(row);
            var needsSecond = policy.Get(Settings.KillRequireTwoAdmins) switch
            {
                SecondAdministrator.Never => false,
                SecondAdministrator.Always => true,
                SecondAdministrator.Above => inDay > policy.Get(Settings.KillTwoAdminsAbove),
                _ => throw new System.Diagnostics.UnreachableException(),
            };
            await audit.AddAsync(Roles.Administrator, "kill.order", row.Id, $"{row.Words}{(needsSecond ? "; waits for a second administrator" : "")}", AuditResult.Done, cancellationToken);
            if (!needsSecond)
            {
                await QueueAsync(row, device, ++number, before[id].Any() || waiting.Contains(id), cancellationToken);
            }

            answer.Add(row.ToContract(device));
        }

        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        answer.ForEach(order => bell.Ring(order.Device));
        return answer.ToArray();
    }

    /// <summary>Orders a device to forget its leases, or that of one LivePC, inside the caller's transaction; ring the bell after it. Where that is ordered already, nothing changes.</summary>
    public async Task RevokeAsync(DeviceRow device, string? livePc, CancellationToken cancellationToken)
    {
        if (await database.DeviceOrders.AnyAsync(
            row => row.DeviceId == device.Id && (row.LivePc == null || row.LivePc == livePc) && row.LiftedAt == null && row.State != DeviceOrderState.Withdrawn && row.State != DeviceOrderState.Unapproved
                && (row.Act == DeviceAct.Kill || (row.Act == DeviceAct.Revoke && row.LivePc == livePc)), cancellationToken)
            || (livePc is not null && !await database.Shares.AnyAsync(row => row.DeviceId == device.Id && row.LivePc == livePc, cancellationToken)))
        {
            return;
        }

        var row = Make(DeviceAct.Revoke, device, livePc, await policies.ResolveAsync(device.User, livePc, device.Id, cancellationToken));
        database.DeviceOrders.Add(row);
        await audit.AppendAsync(Roles.Administrator, "revoke.order", row.Id, row.Words, cancellationToken);
        await QueueAsync(row, device, cancellationToken);
    }

    /// <summary>The user is entitled again: what revoked that is taken back, inside the caller's transaction.</summary>
    public async Task EntitledAsync(string user, string livePc, CancellationToken cancellationToken)
    {
        var rows = await database.DeviceOrders.Where(row => row.Act == DeviceAct.Revoke && row.LivePc == livePc && row.LiftedAt == null && row.State != DeviceOrderState.Withdrawn
            && database.Devices.Any(device => device.Id == row.DeviceId && device.User == user)).ToListAsync(cancellationToken);
        foreach (var row in rows)
        {
            if (row.State == DeviceOrderState.Queued)
            {
                await WithdrawAsync(row, "the user is entitled again", cancellationToken);
            }
            else
            {
                row.LiftedAt = time.Now();
                await audit.AppendAsync(Roles.Administrator, "revoke.lift", row.Id, row.Words, cancellationToken);
            }
        }
    }

    public async Task<IReadOnlyList<DeviceOrder>> ListAsync(CancellationToken cancellationToken)
    {
        var rows =
            from row in database.DeviceOrders
            join device in database.Devices on row.DeviceId equals device.Id
            orderby row.OrderedAt descending, row.Id
            select new { Row = row, Device = device };
        return (await rows.AsNoTracking().ToListAsync(cancellationToken)).ConvertAll(one => one.Row.ToContract(one.Device));
    }

    public async Task<Result<DeviceOrder>> GetAsync(string untrustedId, CancellationToken cancellationToken) =>
        await database.DeviceOrders.AsNoTracking().SingleOrDefaultAsync(row => row.Id == untrustedId, cancellationToken) is { } row
            ? row.ToContract(await DeviceOfAsync(row, cancellationToken)) : DeviceOrderErrors.NoOrder;

    public async Task<Result<DeviceOrder>> ApproveAsync(string untrustedId, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.DeviceOrders.SingleOrDefaultAsync(one => one.Id == untrustedId, cancellationToken) is not { } row)
        {
            return DeviceOrderErrors.NoOrder;
        }

        if (row.State != DeviceOrderState.Unapproved)
        {
            return DeviceOrderErrors.Not(row, "approved");
        }

        if (row.OrderedBy == caller.Name)
        {
            return DeviceOrderErrors.SameAdministrator;
        }

        var device = await DeviceOfAsync(row, cancellationToken);
        row.ApprovedBy = caller.Name;
        await audit.AppendAsync(Roles.Administrator, "kill.approve", row.Id, $"{row.Words}, ordered by {row.OrderedBy}", cancellationToken);
        await QueueAsync(row, device, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        bell.Ring(row.DeviceId);
        return row.ToContract(device);
    }

    /// <summary>Takes back what the device was not given.</summary>
    public async Task<Result<DeviceOrder>> WithdrawAsync(string untrustedId, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.DeviceOrders.SingleOrDefaultAsync(one => one.Id == untrustedId, cancellationToken) is not { } row)
        {
            return DeviceOrderErrors.NoOrder;
        }

        if (row.State is not (DeviceOrderState.Unapproved or DeviceOrderState.Queued))
        {
            return DeviceOrderErrors.Not(row, "withdrawn");
        }

        if (row is { Act: DeviceAct.Revoke, LivePc: not null })
        {
            return new Failure(ErrorCatalogue.Immutable, $"order {row.Id} follows the user's entitlement: 'nacre livepc entitle' takes it back");
        }

        await WithdrawAsync(row, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return row.ToContract(await DeviceOfAsync(row, cancellationToken));
    }

    /// <summary>Gives a revoked permission back, or lets a device have a new, empty LivePC in the place of one that was killed.</summary>
    public async Task<Result<DeviceOrder>> LiftAsync(string untrustedId, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.DeviceOrders.SingleOrDefaultAsync(one => one.Id == untrustedId, cancellationToken) is not { } row)
        {
            return DeviceOrderErrors.NoOrder;
        }

        if (row is { Act: DeviceAct.Kill, LivePc: null })
        {
            return DeviceOrderErrors.Gone;
        }

        if (row is { Act: DeviceAct.Revoke, LivePc: not null })
        {
            return new Failure(ErrorCatalogue.Immutable, $"order {row.Id} follows the user's entitlement: 'nacre livepc entitle' gives it back");
        }

        if (row.LiftedAt is not null || row.Act == DeviceAct.Logs || (row.Act == DeviceAct.Kill ? row.State != DeviceOrderState.Confirmed : row.State is not (DeviceOrderState.Delivered or DeviceOrderState.Failed or DeviceOrderState.Confirmed)))
        {
            return DeviceOrderErrors.Not(row, "lifted");
        }

        var device = await DeviceOfAsync(row, cancellationToken);
        if (row.Act == DeviceAct.Revoke)
        {
            if (await database.DeviceOrders.AnyAsync(
                one => one.DeviceId == device.Id && one.Act == DeviceAct.Kill && one.LivePc == null && one.State != DeviceOrderState.Unapproved && one.State != DeviceOrderState.Withdrawn, cancellationToken))
            {
                return DeviceOrderErrors.Gone;
            }

            device.RevokedAt = null;
        }

        row.LiftedAt = time.Now();
        await audit.AppendAsync(Roles.Administrator, $"{row.Word}.lift", row.Id, row.Words, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return row.ToContract(device);
    }

    /// <summary>Whether the device has to fetch something.</summary>
    public static Task<bool> HasOpenAsync(NacreDatabase database, string deviceId, CancellationToken cancellationToken) => Open(database, deviceId).AnyAsync(cancellationToken);

    /// <summary>What the device has to carry out; from now on it can't be withdrawn.</summary>
    public async Task<Result<SignedDeviceOrders>> FetchAsync(string deviceId, FetchDeviceOrders untrusted, CancellationToken cancellationToken)
    {
        if (!Text.IsLabel(untrusted.Nonce, LongestNonce))
        {
            return LeaseErrors.NonceInvalid;
        }

        var rows = await Open(database, deviceId).AsNoTracking().ToListAsync(cancellationToken);
        if (rows.Any(row => row.State == DeviceOrderState.Queued))
        {
            await using var transaction = await database.BeginWriteAsync(cancellationToken);
            rows = await Open(database, deviceId).ToListAsync(cancellationToken); // one may have been withdrawn since
            foreach (var row in rows.Where(row => row.State == DeviceOrderState.Queued))
            {
                (row.State, row.DeliveredAt) = (DeviceOrderState.Delivered, time.Now());
                await audit.AppendAsync("device:" + deviceId, $"{row.Word}.deliver", row.Id, row.Words, cancellationToken);
            }

            await transaction.CommitAsync(cancellationToken);
        }

        return new SignedDeviceOrders(signer.Sign(new DeviceOrdersClaims(
            deviceId, untrusted.Nonce, time.GetUtcNow().ToUnixTimeSeconds(), [.. rows.OrderByDescending(row => row.Act == DeviceAct.Kill).ThenBy(row => row.Act).ThenBy(row => row.Number).Select(row => row.SignedOrder!)])));
    }

    /// <summary>
    /// Takes a receipt. One that is sent again says nothing new. One of an order that this database does not know any more, because it was restored from a backup, brings it
    /// back: the server's signature is on it.
    /// </summary>
    public async Task<Result<Done>> DeliverAsync(DeliverReceipt untrusted, CancellationToken cancellationToken)
    {
        // Before a device is looked for: who has no order that this server signed costs it one signature check.
        Jws.TryReadKeyId(untrusted.Receipt is { Length: <= DeliverReceipt.Longest } ? untrusted.Receipt : null, out var untrustedDevice);
        if (untrusted.Order is not { Length: <= DeliverReceipt.Longest } || !Jws.TryVerify(untrusted.Order, signer.PublicKey, DeviceOrderClaims.Type, out _))
        {
            return new Failure(ErrorCatalogue.ReceiptNotAuthentic, "this server did not sign the order that the receipt is of");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var device = await database.Devices.SingleOrDefaultAsync(one => one.Id == untrustedDevice, cancellationToken);
        DeviceOrderClaims order;
        DeviceReceiptClaims receipt;
        try
        {
            (order, receipt) = untrusted.Verify(signer.PublicKey, id => id == device?.Id ? device.PublicKey : null);
        }
        catch (NacreException exception)
        {
            return DeviceOrderErrors.NotAuthentic(exception);
        }

        if (receipt.Detail is not { Length: <= DeviceReceiptClaims.LongestDetail } || !Text.IsPrintable(receipt.Detail) || receipt.At is < 0 or > 253_402_300_799)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"a receipt has at most {DeviceReceiptClaims.LongestDetail} printable characters, and a time");
        }

        caller.SignedBy = order.Sub;
        var row = await database.DeviceOrders.SingleOrDefaultAsync(one => one.Id == order.Id, cancellationToken);
        if (row is null)
        {
            row = Recover(order, untrusted.Order, device!);
            await audit.AppendAsync("device:" + order.Sub, $"{row.Word}.recover", row.Id, $"{row.Words}: this database did not know the order", cancellationToken);
        }

        if (row.DeviceId != order.Sub || row.State == DeviceOrderState.Confirmed || (!receipt.Succeeded && row.Receipt == untrusted.Receipt))
        {
            return default(Done);
        }

        (row.State, row.EndedAt, row.Detail, row.Receipt) =
            (receipt.Succeeded ? DeviceOrderState.Confirmed : DeviceOrderState.Failed, DateTimeOffset.FromUnixTimeSeconds(receipt.At), receipt.Detail, untrusted.Receipt);
        await audit.AppendAsync(
            "device:" + order.Sub, receipt.Succeeded ? $"{row.Word}.confirm" : $"{row.Word}.fail", row.Id, $"{row.Words}: {receipt.Detail}", receipt.Succeeded ? AuditResult.Done : AuditResult.Failed, cancellationToken);
        if (receipt.Succeeded && row.Act == DeviceAct.Kill)
        {
            await ForgetAsync(row, cancellationToken);
        }

        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    private static IQueryable<DeviceOrderRow> Open(NacreDatabase database, string deviceId) => database.DeviceOrders.Where(row => row.DeviceId == deviceId && row.LiftedAt == null
        && (row.State == DeviceOrderState.Queued || row.State == DeviceOrderState.Delivered || row.State == DeviceOrderState.Failed));

    private Task<DeviceRow> DeviceOfAsync(DeviceOrderRow row, CancellationToken cancellationToken) => database.Devices.SingleAsync(device => device.Id == row.DeviceId, cancellationToken);

    private static Failure? WhyNot(DeviceRow device, string? livePc, Policy policy, IEnumerable<DeviceOrderRow> before, bool hasShare)
    {
        if (device.RevokedAt is not null && !policy.Get(Settings.KillQueueWhenLocked))
        {
            return DeviceOrderErrors.Locked(device.Id);
        }

        var again = before.FirstOrDefault(row => row.Act == DeviceAct.Kill && (row.LivePc == null || row.LivePc == livePc) && row.LiftedAt == null && row.State != DeviceOrderState.Withdrawn);
        return again is not null ? DeviceOrderErrors.Again(again) : hasShare ? null : DeviceOrderErrors.NeverThere(device.Id);
    }

    private async Task<long> NewestNumberAsync(CancellationToken cancellationToken) => await database.DeviceOrders.MaxAsync(row => (long?)row.Number, cancellationToken) ?? 0;

    private DeviceOrderRow Make(DeviceAct act, DeviceRow device, string? livePc, Policy policy, string? reason = null) => new()
    {
        Id = RandomNumberGenerator.GetHexString(16, lowercase: true),
        Act = act,
        DeviceId = device.Id,
        LivePc = livePc,
        Mode = policy.Get(Settings.KillMode) == KillErasure.Keys ? KillMode.CryptoErase : KillMode.Both,
        Scope = policy.Get(Settings.WipeScope) == KillScope.All ? WipeScope.All : WipeScope.WorkData,
        GraceMinutes = act == DeviceAct.Revoke ? policy.Get(Settings.RevokeGraceMinutes) : 0,
        OrderedBy = caller.Name,
        OrderedAt = time.Now(),
        State = DeviceOrderState.Unapproved,
        Reason = reason,
    };

    /// <summary>From here on the device may hear of it.</summary>
    private async Task QueueAsync(DeviceOrderRow row, DeviceRow device, CancellationToken cancellationToken)
    {
        await QueueAsync(row, device, await NewestNumberAsync(cancellationToken) + 1, hasOthers: true, cancellationToken);
        await database.SaveChangesAsync(cancellationToken);
    }

    private async Task QueueAsync(DeviceOrderRow row, DeviceRow device, long number, bool hasOthers, CancellationToken cancellationToken)
    {
        row.Number = number;
        row.State = DeviceOrderState.Queued;
        row.SignedOrder = signer.Sign(new DeviceOrderClaims(row.DeviceId, row.Id, row.Act, row.LivePc, row.Mode, row.Scope, row.GraceMinutes, time.GetUtcNow().ToUnixTimeSeconds(), row.Act == DeviceAct.Logs ? row.OrderedBy : null, row.Reason));
        if (row.Act != DeviceAct.Logs && row.LivePc is null && device.RevokedAt is null)
        {
            (device.RevokedAt, row.Revoked) = (time.Now(), true);
            await audit.AddAsync(Roles.Administrator, "device.revoke", device.Id, $"{device.Name} of {device.User}", AuditResult.Done, cancellationToken);
        }

        if (row.Act == DeviceAct.Kill && hasOthers)
        {
            await CancelOthersAsync(row, cancellationToken);
        }
    }

    /// <summary>A kill overtakes what else the device had to do to what it kills.</summary>
    private async Task CancelOthersAsync(DeviceOrderRow kill, CancellationToken cancellationToken)
    {
        var others = await database.DeviceOrders.Where(row => row.DeviceId == kill.DeviceId && row.Id != kill.Id && (kill.LivePc == null || row.LivePc == kill.LivePc)
            && (row.State == DeviceOrderState.Queued || row.State == DeviceOrderState.Unapproved)).ToListAsync(cancellationToken);
        foreach (var row in others)
        {
            // The permission that went with it stays away.
            kill.Revoked |= row.Revoked && kill.LivePc is null;
            row.Revoked = false;
            await WithdrawAsync(row, $"overtaken by kill {kill.Id}", cancellationToken);
        }

        var waiting = await database.Orders.Where(row => row.DeviceId == kill.DeviceId && (kill.LivePc == null || row.LivePc == kill.LivePc) && row.State == OrderState.Waiting).ToListAsync(cancellationToken);
        foreach (var order in waiting)
        {
            (order.State, order.EndedAt, order.Detail) = (OrderState.Withdrawn, time.Now(), $"overtaken by kill {kill.Id}");
            await audit.AppendAsync(Roles.Administrator, "order.withdraw", order.Id, order.Detail, cancellationToken);
        }
    }

    private async Task WithdrawAsync(DeviceOrderRow row, string why, CancellationToken cancellationToken)
    {
        (row.State, row.EndedAt, row.Detail) = (DeviceOrderState.Withdrawn, time.Now(), why);
        if (row.Revoked)
        {
            (await DeviceOfAsync(row, cancellationToken)).RevokedAt = null;
        }

        await audit.AppendAsync(Roles.Administrator, $"{row.Word}.withdraw", row.Id, $"{row.Words}{(why.Length > 0 ? $": {why}" : "")}", cancellationToken);
    }

    private DeviceOrderRow Recover(DeviceOrderClaims order, string signed, DeviceRow device)
    {
        var row = new DeviceOrderRow
        {
            Id = order.Id,
            Act = order.Act,
            DeviceId = order.Sub,
            LivePc = order.LivePc,
            Mode = order.Mode,
            Scope = order.Scope,
            GraceMinutes = order.GraceMinutes,
            OrderedBy = order.OrderedBy ?? "",
            OrderedAt = DateTimeOffset.FromUnixTimeSeconds(order.Iat),
            State = DeviceOrderState.Delivered,
            SignedOrder = signed,
            Reason = order.Reason,
        };
        if (order.Act != DeviceAct.Logs && order.LivePc is null)
        {
            device.RevokedAt ??= time.Now();
        }

        database.DeviceOrders.Add(row);
        return row;
    }

    /// <summary>The server's shares of keys that are destroyed are noise too, and so is how far their layers had grown; what was handed over for recovery would open a copy.</summary>
    private async Task ForgetAsync(DeviceOrderRow kill, CancellationToken cancellationToken)
    {
        await database.Shares.Where(row => row.DeviceId == kill.DeviceId && (kill.LivePc == null || row.LivePc == kill.LivePc)).ExecuteDeleteAsync(cancellationToken);
        await database.Escrows.Where(row => row.DeviceId == kill.DeviceId && (kill.LivePc == null || row.LivePc == kill.LivePc)).ExecuteDeleteAsync(cancellationToken);
        await database.Anchors.Where(row => row.DeviceId == kill.DeviceId && (kill.LivePc == null || row.LivePc == kill.LivePc)).ExecuteDeleteAsync(cancellationToken);
    }
}
