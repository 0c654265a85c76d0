using System.ComponentModel;
using System.Diagnostics;
using Nacre.Contracts;

namespace Nacre.Player.Tpm;

/// <summary>The TPM through the programs of tpm2-tools: the one that <c>TPM2TOOLS_TCTI</c> names, else <c>/dev/tpmrm0</c>.</summary>
internal static class TpmTools
{
    private const string Device = "/dev/tpmrm0";
    private const string Setting = "TPM2TOOLS_TCTI";

    /// <summary>A TPM answers within a second or two; one that hangs must not hold a start up.</summary>
    private static readonly TimeSpan AnswerLimit = TimeSpan.FromSeconds(15);

    /// <summary>Whether there seems to be a TPM.</summary>
    public static bool IsThere => Environment.GetEnvironmentVariable(Setting) is not (null or "") || File.Exists(Device);

    /// <summary>Whether there is a TPM, and tpm2-tools are installed.</summary>
    public static async Task<bool> AnswersAsync(CancellationToken cancellationToken)
    {
        if (!IsThere)
        {
            return false;
        }

        try
        {
            await RunAsync("tpm2_getcap", ["handles-nv-index"], cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (NacreException)
        {
            return false;
        }
    }

    /// <summary>Runs a program.</summary>
    /// <param name="program">Its name.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <param name="input">Its standard input; null: nothing.</param>
    /// <returns>Its standard output.</returns>
    /// <exception cref="NacreException">FileAccess: the TPM refuses, or does not answer.</exception>
    public static async Task<byte[]> RunAsync(string program, IReadOnlyList<string> arguments, CancellationToken cancellationToken, byte[]? input = null)
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

        try
        {
            await process.StandardInput.BaseStream.WriteAsync(input, cancellationToken).ConfigureAwait(false);
            process.StandardInput.Close();
        }
        catch (IOException)
        {
            // It ended before it read: it says why.
        }

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

    /// <summary>What is thrown where the TPM is of no use.</summary>
    public static NacreException Failed(string program, string why, Exception? cause) => new(ErrorCatalogue.FileAccess, $"the TPM can't be used ({program}): {why}", cause);
}
