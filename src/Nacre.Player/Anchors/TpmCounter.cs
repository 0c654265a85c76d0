using System.Buffers.Binary;
using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;

namespace Nacre.Player.Anchors;

/// <summary>A counter in the TPM that only grows, for one LivePC of one device, through the programs of tpm2-tools. A counter that is removed and made again
/// begins above every count that the TPM ever had.</summary>
internal sealed class TpmCounter
{
    private const string Device = "/dev/tpmrm0";
    private const string Setting = "TPM2TOOLS_TCTI";

    /// <summary>The owner's range of NV indexes begins here and has 22 bits (TCG, Registry of Reserved TPM 2.0 Handles).</summary>
    private const uint FirstIndex = 0x01800000;

    /// <summary>A TPM answers within a second or two; one that hangs must not hold a start up.</summary>
    private static readonly TimeSpan AnswerLimit = TimeSpan.FromSeconds(15);

    private readonly string index;

    private TpmCounter(string deviceId, string livePc)
    {
        var digest = SHA256.HashData(Encoding.UTF8.GetBytes($"{deviceId} {livePc}"));
        index = string.Create(CultureInfo.InvariantCulture, $"0x{FirstIndex + (BinaryPrimitives.ReadUInt32BigEndian(digest) >> 10):x}");
    }

    /// <summary>The LivePC's counter; null where no TPM answers (<c>TPM2TOOLS_TCTI</c>, else <c>/dev/tpmrm0</c>), or tpm2-tools is not installed.</summary>
    public static async Task<TpmCounter?> FindAsync(string deviceId, string livePc, CancellationToken cancellationToken)
    {
        if (Environment.GetEnvironmentVariable(Setting) is null or "" && !File.Exists(Device))
        {
            return null;
        }

        try
        {
            await RunAsync("tpm2_getcap", ["handles-nv-index"], cancellationToken).ConfigureAwait(false);
            return new TpmCounter(deviceId, livePc);
        }
        catch (NacreException)
        {
            return null;
        }
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
            var count = await RunAsync("tpm2_nvread", ["-C", index, index], cancellationToken).ConfigureAwait(false);
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
            await RunAsync("tpm2_nvdefine", ["-C", "o", "-a", "nt=counter|authread|authwrite|no_da", index], cancellationToken).ConfigureAwait(false);
        }

        await RunAsync("tpm2_nvincrement", ["-C", index, index], cancellationToken).ConfigureAwait(false);
        return await ReadAsync(cancellationToken).ConfigureAwait(false) ?? throw Failed("tpm2_nvread", "it has no count", null);
    }

    private async Task<bool> IsDefinedAsync(CancellationToken cancellationToken)
    {
        var listed = await RunAsync("tpm2_getcap", ["handles-nv-index"], cancellationToken).ConfigureAwait(false);
        return Encoding.ASCII.GetString(listed).Split(['\n', ' ', '-'], StringSplitOptions.RemoveEmptyEntries)
            .Any(word => word.Equals(index, StringComparison.OrdinalIgnoreCase));
    }

    private static async Task<byte[]> RunAsync(string program, IReadOnlyList<string> arguments, CancellationToken cancellationToken)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        if (Environment.GetEnvironmentVariable(Setting) is null or "")
        {
            start.Environment[Setting] = $"device:{Device}";
        }

        using var process = new Process { StartInfo = start };
        try
        {
            process.Start();
        }
        catch (Win32Exception exception)
        {
            throw Failed(program, exception.Message, exception);
        }

        process.StandardInput.Close();
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(AnswerLimit);
        using var output = new MemoryStream();
        try
        {
            var errors = process.StandardError.ReadToEndAsync(limit.Token);
            await process.StandardOutput.BaseStream.CopyToAsync(output, limit.Token).ConfigureAwait(false);
            var words = await errors.ConfigureAwait(false);
            await process.WaitForExitAsync(limit.Token).ConfigureAwait(false);
            return process.ExitCode == 0 ? output.ToArray() : throw Failed(program, words.Split('\n', StringSplitOptions.RemoveEmptyEntries).LastOrDefault() ?? "no reason given", null);
        }
        catch (OperationCanceledException exception)
        {
            process.Kill();
            cancellationToken.ThrowIfCancellationRequested();
            throw Failed(program, "it does not answer", exception);
        }
    }

    private static NacreException Failed(string program, string why, Exception? cause) => new(ErrorCatalogue.FileAccess, $"the TPM can't be used ({program}): {why}", cause);
}
