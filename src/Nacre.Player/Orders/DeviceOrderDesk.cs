using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Erasure;
using Nacre.Player.Leases;
using Nacre.Player.LivePcs;
using Nacre.Player.Logs;

namespace Nacre.Player.Orders;

/// <summary>
/// Fetches this device's revokes, kills and orders for its log, and carries them out. Only an answer to this device's own question counts, and in it only what the server's lease key
/// signed for this device: a forged or replayed order does nothing. One that was carried out is not carried out again, whatever the server remembers.
/// </summary>
internal sealed class DeviceOrderDesk
{
    private const int MostOrders = 1000;
    private readonly List<(string Signed, DeviceOrderClaims Order)> logs = []; // that were asked for
    private readonly PlayerPaths paths;
    private readonly TimeProvider time;

    public DeviceOrderDesk(PlayerPaths paths, TimeProvider time)
    {
        this.paths = paths;
        this.time = time;
    }

    /// <summary>Goes on with what was interrupted, delivers receipts, fetches and carries out what is ordered, and delivers the receipts of that.</summary>
    /// <param name="own">The LivePC that this very process runs, which it has to end itself before the rest can be done; null: none.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <returns>The orders that concern <paramref name="own"/>: its keys are destroyed already where it is a kill.</returns>
    /// <exception cref="NacreException">NotEnrolled, ServerUnreachable, LeaseNotAuthentic, FileAccess.</exception>
    public async Task<IReadOnlyList<DeviceOrderClaims>> AttendAsync(string? own, CancellationToken cancellationToken)
    {
        var eraser = new Eraser(paths, time);
        await eraser.GoOnAsync(cancellationToken).ConfigureAwait(false);
        await new ReceiptBox(paths).DeliverAsync(cancellationToken).ConfigureAwait(false);
        var concern = new List<DeviceOrderClaims>();
        using (var identity = EnrolledIdentity.Open(paths))
        {
            foreach (var (signed, order) in await FetchAsync(identity, cancellationToken).ConfigureAwait(false))
            {
                var isOwn = own is not null && (order.LivePc is null || order.LivePc == own);
                if (order.Act == DeviceAct.Kill)
                {
                    var entry = new ErasureEntry(order.Id, order.LivePc, order.Mode, order.Scope, signed, $"killed by order {order.Id}");
                    eraser.Begin(entry);
                    if (isOwn)
                    {
                        eraser.EraseKeys(entry);
                        concern.Add(order);
                        return concern;
                    }
                }
                else if (order.Act == DeviceAct.Logs)
                {
                    logs.Add((signed, order));
                }
                else
                {
                    ForgetLeases(order.LivePc);
                    if (isOwn)
                    {
                        concern.Add(order);
                    }
                    else if (!LivePcFolder.All(paths, order.LivePc).Any(LivePcPlayer.IsHeld))
                    {
                        var receipt = new ReceiptBox(paths).Sign(identity, order.Id, signed, true, "the leases were forgotten, and nothing runs", time.GetUtcNow());
                        new DoneOrders(paths, identity).Remember(order.Id, receipt);
                    }
                }
            }
        }

        await eraser.GoOnAsync(cancellationToken).ConfigureAwait(false);
        await new ReceiptBox(paths).DeliverAsync(cancellationToken).ConfigureAwait(false);
        return concern;
    }

    /// <summary>Sends the logs that <see cref="AttendAsync"/> heard of: by itself, because a kill must not wait for a slow network.</summary>
    /// <param name="asked">Told each order before its log is sent.</param>
    /// <param name="cancellationToken">Stops; they are sent at the next contact.</param>
    /// <exception cref="NacreException">NotEnrolled, FileAccess, NoSpace.</exception>
    public async Task SendLogsAsync(Action<DeviceOrderClaims>? asked, CancellationToken cancellationToken)
    {
        foreach (var (signed, order) in logs)
        {
            asked?.Invoke(order);
            await new LogSender(paths, time).SendAsync(signed, order, cancellationToken).ConfigureAwait(false);
        }
    }

    private async Task<IReadOnlyList<(string Signed, DeviceOrderClaims Order)>> FetchAsync(EnrolledIdentity identity, CancellationToken cancellationToken)
    {
        using var client = identity.Connect();
        var question = new FetchDeviceOrders(RandomNumberGenerator.GetHexString(32, lowercase: true));
        var answer = await client.FetchDeviceOrdersAsync(question, cancellationToken).ConfigureAwait(false);
        var key = identity.Record.LeaseKey;
        var claims = Jws.VerifyClaims<DeviceOrdersClaims>(answer.Orders, key, ErrorCatalogue.LeaseNotAuthentic, DeviceOrdersClaims.Type);
        if (claims.Sub != identity.Record.DeviceId || claims.Nonce != question.Nonce || claims.Orders is not { Count: <= MostOrders })
        {
            throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the orders are the answer to another request");
        }

        new TrustedClock(identity, time).Hear(DateTimeOffset.FromUnixTimeSeconds(claims.Iat));
        var kept = new DoneOrders(paths, identity);
        var fresh = new List<(string, DeviceOrderClaims)>();
        foreach (var signed in claims.Orders)
        {
            var order = Jws.VerifyClaims<DeviceOrderClaims>(signed, key, ErrorCatalogue.LeaseNotAuthentic, DeviceOrderClaims.Type);
            if (order.Sub != identity.Record.DeviceId || !Names.IsOrderId(order.Id) || (order.LivePc is not null && !Names.IsValid(order.LivePc)) || !Enum.IsDefined(order.Act) || !Enum.IsDefined(order.Mode) || !Enum.IsDefined(order.Scope))
            {
                throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "an order is for another device, or says what no order says");
            }

            if (kept.Find(order.Id) is { } said)
            {
                new ReceiptBox(paths).Put(identity.Record, order.Id, said, true);
            }
            else
            {
                fresh.Add((signed, order));
            }
        }

        return fresh;
    }

    private void ForgetLeases(string? livePc)
    {
        foreach (var folder in LivePcFolder.All(paths, livePc))
        {
            ErasedFiles.Overwrite(folder.GrantPath);
        }
    }
}
