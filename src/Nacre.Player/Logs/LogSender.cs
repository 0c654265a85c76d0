using System.Text.Json;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Erasure;
using Nacre.Player.LivePcs;

namespace Nacre.Player.Logs;

/// <summary>Sends the logs that the server ordered. Who asked, and why, is written into them first, so the user can read it wherever that ends.</summary>
internal sealed class LogSender(PlayerPaths paths, TimeProvider time)
{
    /// <summary>A network that takes longer is tried again at the next contact.</summary>
    private static readonly TimeSpan Longest = TimeSpan.FromMinutes(1);

    /// <summary>Sends the log of an order, and the receipt. What the server can't take now is sent at the next contact.</summary>
    public async Task SendAsync(string signed, DeviceOrderClaims order, CancellationToken cancellationToken)
    {
        FileStream single;
        try
        {
            single = new FileStream(Path.Combine(paths.State, "logs.lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException)
        {
            return; // another process is at it
        }

        await using (single.ConfigureAwait(false))
        {
            using var identity = EnrolledIdentity.Open(paths);
            if (new DoneOrders(paths, identity).Find(order.Id) is not null)
            {
                return;
            }

            LivePcLog[] logs = [.. LivePcFolder.All(paths, order.LivePc).Select(folder => new LivePcLog(folder, () => LivePcLog.KeptLevel(paths, folder), time))];
            foreach (var log in logs)
            {
                log.WriteAsked(order);
            }

            using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            limit.CancelAfter(Longest);
            try
            {
                var lines = Newest([.. logs.SelectMany(log => log.Read()).OrderBy(line => line.Time)]);
                using var client = identity.Connect();
                await client.SendLogAsync(order.Id, new SendLog(lines), limit.Token).ConfigureAwait(false);
                new DoneOrders(paths, identity).Remember(order.Id, new ReceiptBox(paths).Sign(identity, order.Id, signed, true, $"{lines.Count} lines", time.GetUtcNow()));
            }
            catch (NacreException exception) when (exception.Kind == ErrorCatalogue.RequestInvalid || exception.Kind == ErrorCatalogue.TooLarge || exception.Kind == ErrorCatalogue.NotFound || exception.Kind == ErrorCatalogue.Immutable)
            {
                new ReceiptBox(paths).Sign(identity, order.Id, signed, false, exception.Message, time.GetUtcNow());
            }
            catch (Exception exception) when (exception is NacreException || (exception is OperationCanceledException && !cancellationToken.IsCancellationRequested))
            {
                return;
            }

            await new ReceiptBox(paths).DeliverAsync(limit.Token).ConfigureAwait(false);
        }
    }

    /// <summary>As many of the newest lines as one answer has room for.</summary>
    internal static IReadOnlyList<LogLine> Newest(IReadOnlyList<LogLine> lines)
    {
        var (first, room) = (lines.Count, SendLog.LongestLines);
        while (first > 0 && (room -= JsonSerializer.SerializeToUtf8Bytes(lines[first - 1], ContractJson.Options).Length + 1) >= 0)
        {
            first--;
        }

        return [.. lines.Skip(first)];
    }
}
