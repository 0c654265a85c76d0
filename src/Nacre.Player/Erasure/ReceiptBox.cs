using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;

namespace Nacre.Player.Erasure;

/// <summary>Receipts that the server does not have yet. They outlive the identity that signed them: a device that was killed says so still.</summary>
internal sealed class ReceiptBox
{
    private readonly string folder;

    public ReceiptBox(PlayerPaths paths) => folder = FolderOf(paths);

    /// <summary>Whether there is a receipt of an order.</summary>
    public static bool Has(PlayerPaths paths, string order, bool succeeded) => DurableFile.ReadJson<Kept>(Path.Combine(FolderOf(paths), order + ".json"))?.Succeeded == succeeded;

    /// <summary>The receipt of an order that is here still; null: none.</summary>
    public static DeliverReceipt? Find(PlayerPaths paths, string order) => DurableFile.ReadJson<Kept>(Path.Combine(FolderOf(paths), order + ".json"))?.Receipt;

    /// <summary>Whether there is any.</summary>
    public static bool IsEmpty(PlayerPaths paths) => !Directory.Exists(FolderOf(paths)) || !Directory.EnumerateFiles(FolderOf(paths), "*.json").Any();

    /// <summary>Signs what came of an order and keeps it, durably.</summary>
    public DeliverReceipt Sign(EnrolledIdentity identity, string id, string order, bool succeeded, string detail, DateTimeOffset now)
    {
        var words = new string([.. detail.Where(character => !char.IsControl(character)).Take(DeviceReceiptClaims.LongestDetail)]);
        var receipt = new DeliverReceipt(
            order, identity.Key.SignReceipt(new DeviceReceiptClaims(identity.Record.DeviceId, id, DeviceReceiptClaims.DigestOf(order), succeeded, now.ToUnixTimeSeconds(), words)));
        Put(identity.Record, id, receipt, succeeded);
        return receipt;
    }

    /// <summary>Keeps a receipt to be delivered (again).</summary>
    public void Put(DeviceRecord device, string id, DeliverReceipt receipt, bool succeeded)
    {
        PlayerPaths.MakePrivate(folder);
        DurableFile.WriteJson(Path.Combine(folder, id + ".json"), new Kept(device.Server, device.Authorities, receipt, succeeded));
    }

    /// <summary>Delivers what there is. What the server refuses for good is dropped; what it can't take now stays.</summary>
    /// <returns>Whether all is delivered.</returns>
    public async Task<bool> DeliverAsync(CancellationToken cancellationToken)
    {
        var all = true;
        foreach (var file in Directory.Exists(folder) ? Directory.GetFiles(folder, "*.json").Order(StringComparer.Ordinal) : Enumerable.Empty<string>())
        {
            if (DurableFile.ReadJson<Kept>(file) is not { Server: not null, Receipt: not null } kept)
            {
                DurableFile.Delete(file);
                continue;
            }

            try
            {
                using var client = new NacreClient(kept.Server, trust: ServerTrust.Of(kept.Authorities));
                await client.DeliverReceiptAsync(kept.Receipt, cancellationToken).ConfigureAwait(false);
                DurableFile.Delete(file);
            }
            catch (NacreException exception) when (exception.Kind == ErrorCatalogue.RequestInvalid)
            {
                DurableFile.Delete(file);
            }
            catch (NacreException)
            {
                // Also a server that does not know this device or order: it may have been restored, and may know more later.
                all = false;
            }
        }

        return all;
    }

    private static string FolderOf(PlayerPaths paths) => Path.Combine(paths.State, "receipts");

    private sealed record Kept(Uri Server, string? Authorities, DeliverReceipt Receipt, bool Succeeded);
}
