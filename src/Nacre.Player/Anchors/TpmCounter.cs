using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using Nacre.Player.Tpm;

namespace Nacre.Player.Anchors;

/// <summary>A counter in the TPM that only grows, for one LivePC of one device, through the programs of tpm2-tools. A counter that is removed and made again
/// begins above every count that the TPM ever had.</summary>
internal sealed class TpmCounter
{
    /// <summary>The owner's range of NV indexes begins here and has 22 bits (TCG, Registry of Reserved TPM 2.0 Handles).</summary>
    private const uint FirstIndex = 0x01800000;

    private readonly string index;

    private TpmCounter(string deviceId, string livePc)
    {
        var digest = SHA256.HashData(Encoding.UTF8.GetBytes($"{deviceId} {livePc}"));
        index = string.Create(CultureInfo.InvariantCulture, $"0x{FirstIndex + (BinaryPrimitives.ReadUInt32BigEndian(digest) >> 10):x}");
    }

    /// <summary>The LivePC's counter; null where no TPM answers (<c>TPM2TOOLS_TCTI</c>, else <c>/dev/tpmrm0</c>), or tpm2-tools is not installed.</summary>
    public static async Task<TpmCounter?> FindAsync(string deviceId, string livePc, CancellationToken cancellationToken)
    {
        return await TpmTools.AnswersAsync(cancellationToken).ConfigureAwait(false) ? new TpmCounter(deviceId, livePc) : null;
    }

    /// <summary>The count; null where nothing was counted yet.</summary>
    /// <exception cref="NacreException">FileAccess: the TPM does not answer any more.</exception>
    public async Task<ulong?> ReadAsync(CancellationToken cancellationToken)
    {
        if (!await IsDefinedAsync(cancellationToken).ConfigureAwait(false))
        {
            return null;
        }

        try
        {
            var count = await TpmTools.RunAsync("tpm2_nvread", ["-C", index, index], cancellationToken).ConfigureAwait(false);
            return count.Length == sizeof(ulong) ? BinaryPrimitives.ReadUInt64BigEndian(count) : null;
        }
        catch (NacreException)
        {
            return null; // made, and never counted
        }
    }

    /// <summary>Counts one up; makes the counter where there is none.</summary>
    /// <returns>The new count.</returns>
    /// <exception cref="NacreException">FileAccess: the TPM refuses.</exception>
    public async Task<ulong> IncrementAsync(CancellationToken cancellationToken)
    {
        if (!await IsDefinedAsync(cancellationToken).ConfigureAwait(false))
        {
            // Without a password: who may use the TPM may count, which makes a start be refused and hides nothing.
            await TpmTools.RunAsync("tpm2_nvdefine", ["-C", "o", "-a", "nt=counter|authread|authwrite|no_da", index], cancellationToken).ConfigureAwait(false);
        }

        await TpmTools.RunAsync("tpm2_nvincrement", ["-C", index, index], cancellationToken).ConfigureAwait(false);
        return await ReadAsync(cancellationToken).ConfigureAwait(false) ?? throw TpmTools.Failed("tpm2_nvread", "it has no count", null);
    }

    private async Task<bool> IsDefinedAsync(CancellationToken cancellationToken)
    {
        var listed = await TpmTools.RunAsync("tpm2_getcap", ["handles-nv-index"], cancellationToken).ConfigureAwait(false);
        return Encoding.ASCII.GetString(listed).Split(['\n', ' ', '-'], StringSplitOptions.RemoveEmptyEntries)
            .Any(word => word.Equals(index, StringComparison.OrdinalIgnoreCase));
    }
}
