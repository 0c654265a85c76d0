using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using Nacre.Contracts;

namespace Nacre.Images.Importing;

/// <summary>Runs <c>qemu-img</c>, which knows the formats of other programs' disks, within limits: it reads what somebody else made.</summary>
public static class QemuImg
{
    private const int ByInterrupt = 128 + 2;
    private const int ByTermination = 128 + 15;
    private const int NotThere = 127;

    /// <summary>Bytes of address space; what it needs is a fraction.</summary>
    private const long MemoryLimit = 4L << 30;

    /// <summary>Runs it to its end and returns its standard output.</summary>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="mostBytes">The longest file that it may write.</param>
    /// <param name="report">Told the share that is done, 0 to 1, where the arguments ask for progress.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="NacreException">ProgramMissing; NoSpace; FileAccess with its own words.</exception>
    public static async Task<string> RunAsync(IEnumerable<string> arguments, long mostBytes, Action<double>? report, CancellationToken cancellationToken)
    {
        var (code, output, errors) = await TryAsync(arguments, mostBytes, report, cancellationToken).ConfigureAwait(false);
        return code switch
        {
            0 => output,
            _ when errors.Contains("No space left", StringComparison.Ordinal) => throw new NacreException(ErrorCatalogue.NoSpace, errors),
            _ => throw new NacreException(ErrorCatalogue.FileAccess, errors.Length > 0 ? errors : $"qemu-img failed with {code}"),
        };
    }

    /// <summary>Runs it to its end, whatever that is.</summary>
    internal static async Task<(int ExitCode, string Output, string Errors)> TryAsync(
        IEnumerable<string> arguments, long mostBytes, Action<double>? report, CancellationToken cancellationToken)
    {
        using var process = Start(arguments, mostBytes);
        process.StandardInput.Close();
        try
        {
            var errors = process.StandardError.ReadToEndAsync(cancellationToken);
            var output = await ReadAsync(process.StandardOutput, report, cancellationToken).ConfigureAwait(false);
            await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);

            var words = OneLine(await errors.ConfigureAwait(false));
            return process.ExitCode switch
            {
                // Ctrl-C in a terminal reaches it too, and perhaps first.
                ByInterrupt or ByTermination => throw new OperationCanceledException(),
                NotThere when words.StartsWith("prlimit:", StringComparison.Ordinal) =>
                    throw new NacreException(ErrorCatalogue.ProgramMissing, "qemu-img is not installed (Debian: qemu-utils)"),
                var code => (code, output, words),
            };
        }
        catch (OperationCanceledException)
        {
            process.Kill();
            await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
            throw;
        }
    }

    private static Process Start(IEnumerable<string> arguments, long mostBytes)
    {
        var limits = new[] { $"--as={MemoryLimit}", $"--fsize={mostBytes}", "--core=0", "--nofile=256", "qemu-img" };
        try
        {
            return Process.Start(new ProcessStartInfo("prlimit", limits.Concat(arguments))
            {
                RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false,
            })!;
        }
        catch (Win32Exception exception)
        {
            throw new NacreException(ErrorCatalogue.ProgramMissing, "prlimit is not installed (Debian: util-linux)", exception);
        }
    }

    private static string OneLine(string text) =>
        string.Join("; ", text.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)).TrimEnd('.');

    // qemu-img rewrites one line: "    (12.34/100%)" and a carriage return.
    private static async Task<string> ReadAsync(StreamReader reader, Action<double>? report, CancellationToken cancellationToken)
    {
        var output = new StringBuilder();
        var buffer = new char[4096];
        for (int count; (count = await reader.ReadAsync(buffer.AsMemory(), cancellationToken).ConfigureAwait(false)) > 0;)
        {
            output.Append(buffer, 0, count);
            if (report is null)
            {
                continue;
            }

            var text = output.ToString();
            var open = text.LastIndexOf('(');
            var slash = open < 0 ? -1 : text.IndexOf('/', open);
            if (slash > 0 && double.TryParse(text.AsSpan(open + 1, slash - open - 1), CultureInfo.InvariantCulture, out var percent))
            {
                report(percent / 100);
                output.Clear();
            }
        }

        return output.ToString();
    }
}
