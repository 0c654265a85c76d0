using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Policies;

namespace Nacre.Player.Stacks;

/// <summary>Reports on their way to the server. What the guest said last is in them and is the guest's, so they lie on the disk encrypted (AES-256-GCM) under a key that takes
/// this device's secret. What the policy does not let go is taken out when they are sent.</summary>
internal sealed class ReportBox(EnrolledIdentity identity, string livePc, StackBook book, Func<Policy> policy)
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
    /// <param name="client">The server.</param>
    /// <param name="last">A report that is not kept, sent after those that are; may be null.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>Whether nothing is left.</returns>
    public async Task<bool> DeliverAsync(NacreClient client, SendReport? last, CancellationToken cancellationToken)
    {
        foreach (var kept in book.Read().Reports)
        {
            if (TryOpen(kept) is { } report && !await SendAsync(client, report, cancellationToken).ConfigureAwait(false))
            {
                return false;
            }

            await book.ChangeAsync(state => state.Delivered(kept), cancellationToken).ConfigureAwait(false);
        }

        return last is null || await SendAsync(client, last, cancellationToken).ConfigureAwait(false);
    }

    /// <returns>Whether the server had it: taken, or refused for good.</returns>
    private async Task<bool> SendAsync(NacreClient client, SendReport report, CancellationToken cancellationToken)
    {
        try
        {
            await client.SendReportAsync(livePc, Reduce(report, policy().Get(Settings.Telemetry)), cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (NacreException exception)
        {
            return exception.Kind == ErrorCatalogue.NotEntitled || exception.Kind == ErrorCatalogue.RequestInvalid;
        }
    }

    /// <summary>What is told of a report. Which releases started and which did not is told always: roll-outs stop by it. So is what is wrong with the trust metadata.</summary>
    internal static SendReport Reduce(SendReport report, TelemetryLevel level) => report.Kind switch
    {
        ReportKind.Started or ReportKind.Trust => report,
        _ when level == TelemetryLevel.Off => report with { Reason = "not told: 'telemetry.level' is off", Console = "" },
        ReportKind.UserPackages when level < TelemetryLevel.Usage => report with { Reason = "packages of the user's are in the way; 'telemetry.level' usage tells which", Console = "" },
        _ => report,
    };

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
