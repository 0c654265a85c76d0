using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;

namespace Nacre.Player.Stacks;

/// <summary>Reports on their way to the server. What the guest said last is in them and is the guest's, so they lie on the disk encrypted (AES-256-GCM) under a key that takes
/// this device's secret.</summary>
internal sealed class ReportBox(EnrolledIdentity identity, string livePc, StackBook book)
{
    private const int NonceLength = 12, TagLength = 16;

    public string DeviceId => identity.Record.DeviceId;

    public string Seal(SendReport report)
    {
        var plain = JsonSerializer.SerializeToUtf8Bytes(report, ContractJson.Options);
        var box = new byte[NonceLength + TagLength + plain.Length];
        RandomNumberGenerator.Fill(box.AsSpan(0, NonceLength));
        using var cipher = Cipher();
        cipher.Encrypt(box.AsSpan(0, NonceLength), plain, box.AsSpan(NonceLength + TagLength), box.AsSpan(NonceLength, TagLength));
        return Convert.ToBase64String(box);
    }

    /// <summary>The report; null where it is damaged.</summary>
    public SendReport? TryOpen(string untrusted)
    {
        try
        {
            var box = Convert.FromBase64String(untrusted).AsSpan();
            var plain = new byte[Math.Max(0, box.Length - NonceLength - TagLength)];
            using var cipher = Cipher();
            cipher.Decrypt(box[..NonceLength], box[(NonceLength + TagLength)..], box.Slice(NonceLength, TagLength), plain);
            return JsonSerializer.Deserialize<SendReport>(plain, ContractJson.Options);
        }
        catch (Exception exception) when (exception is FormatException or CryptographicException or ArgumentException or JsonException)
        {
            return null;
        }
    }

    /// <summary>Sends what the server has not had yet; what it refuses for good is dropped.</summary>
    /// <returns>Whether nothing is left.</returns>
    public async Task<bool> DeliverAsync(NacreClient client, CancellationToken cancellationToken)
    {
        foreach (var kept in book.Read().Reports)
        {
            try
            {
                if (TryOpen(kept) is { } report)
                {
                    await client.SendReportAsync(livePc, report, cancellationToken).ConfigureAwait(false);
                }
            }
            catch (NacreException exception) when (exception.Kind != ErrorCatalogue.NotEntitled && exception.Kind != ErrorCatalogue.RequestInvalid)
            {
                return false;
            }

            await book.ChangeAsync(state => state.Delivered(kept), cancellationToken).ConfigureAwait(false);
        }

        return true;
    }

    private AesGcm Cipher()
    {
        var secret = identity.ReadSecret();
        var key = HKDF.DeriveKey(HashAlgorithmName.SHA256, secret, 32, info: System.Text.Encoding.UTF8.GetBytes($"nacre reports of {livePc}"));
        CryptographicOperations.ZeroMemory(secret);
        try
        {
            return new AesGcm(key, TagLength);
        }
        finally
        {
            CryptographicOperations.ZeroMemory(key);
        }
    }
}
