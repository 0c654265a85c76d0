using System.Security.Cryptography;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.LivePcs;

namespace Nacre.Player.Orders;

/// <summary>What this device keeps of the administrator's orders for one LivePC.</summary>
/// <param name="Done">Those that were dealt with, oldest first, so that none is carried out twice.</param>
/// <param name="Receipts">What the server has not heard of yet.</param>
internal sealed record KeptOrders(IReadOnlyList<string> Done, IReadOnlyList<OrderReceipt> Receipts);

/// <summary>Fetches the administrator's orders for a LivePC, and takes the receipts back. Only an answer to this device's own question counts, so an order can't be
/// put before it a second time.</summary>
internal sealed class OrderDesk
{
    /// <summary>More than this are forgotten: the server has had the receipts, and gives what it has a receipt for to nobody.</summary>
    private const int MostDone = 256;

    /// <summary>The server takes no more at once.</summary>
    private const int MostReceipts = 100;

    private readonly AuthenticatedFile<KeptOrders> file;
    private readonly EnrolledIdentity identity;
    private readonly NacreClient client;
    private readonly string livePc;
    private KeptOrders kept;

    /// <param name="folder">The LivePC.</param>
    /// <param name="identity">This device; stays its owner's, as does <paramref name="client"/>.</param>
    /// <param name="client">A client with its credential.</param>
    public OrderDesk(LivePcFolder folder, EnrolledIdentity identity, NacreClient client)
    {
        this.identity = identity;
        this.client = client;
        livePc = folder.Name;
        file = new AuthenticatedFile<KeptOrders>(folder.Orders, identity, $"nacre orders of {identity.Record.DeviceId} {livePc}");

        // A file that somebody changed says nothing: what was carried out is in the layers' moments too.
        kept = file.TryRead(out var read) && read is not null ? read : new KeptOrders([], []);
    }

    /// <summary>Delivers the receipts and fetches what is ordered.</summary>
    /// <returns>The orders that this device has not dealt with, oldest first.</returns>
    /// <exception cref="NacreException">ServerUnreachable, LeaseNotAuthentic, NotEntitled, DeviceRevoked.</exception>
    public async Task<IReadOnlyList<RejuvenationOrder>> ContactAsync(CancellationToken cancellationToken)
    {
        OrderReceipt[] receipts = [.. kept.Receipts.Take(MostReceipts)];
        var question = new FetchOrders(RandomNumberGenerator.GetHexString(32, lowercase: true), receipts);
        var answer = await client.FetchOrdersAsync(livePc, question, cancellationToken).ConfigureAwait(false);
        var claims = Jws.VerifyClaims<OrderClaims>(answer.Orders, identity.Record.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, OrderClaims.Type);
        if (claims.Sub != identity.Record.DeviceId || claims.LivePc != livePc || claims.Nonce != question.Nonce || !claims.Orders.All(order => Names.IsOrderId(order.Id)))
        {
            throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the orders are the answer to another request");
        }

        if (receipts.Length > 0)
        {
            Keep(kept with { Receipts = [.. kept.Receipts.Except(receipts)] });
        }

        return [.. claims.Orders.Where(order => !kept.Done.Contains(order.Id))];
    }

    /// <summary>An order was dealt with. Durable on return; the receipt is kept until the server has it.</summary>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public void Finish(OrderReceipt receipt) =>
        Keep(new KeptOrders([.. kept.Done.Where(id => id != receipt.Id).TakeLast(MostDone - 1), receipt.Id], [.. kept.Receipts, receipt]));

    private void Keep(KeptOrders value)
    {
        file.Write(value);
        kept = value;
    }
}
