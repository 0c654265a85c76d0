using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Cli;

/// <summary>Disk images of other programs, through <c>qemu-img</c>, which knows their formats.</summary>
internal static class DiskImages
{
    private const int ByInterrupt = 128 + 2;
    private const int ByTermination = 128 + 15;

    /// <summary>The size in bytes of the disk that an image holds.</summary>
    public static async Task<long> SizeAsync(string file, string? format, CancellationToken cancellationToken)
    {
        if (!File.Exists(file))
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"{file} does not exist");
        }

        var output = await RunAsync(["info", "--output=json", .. Format("-f", format), file], null, cancellationToken);
        using var json = JsonDocument.Parse(output);
        return json.RootElement.GetProperty("virtual-size").GetInt64();
    }

    /// <summary>Copies an image onto the device at <paramref name="uri"/>.</summary>
    public static async Task<bool> ImportAsync(string file, string? format, string uri, Action<double, string> report, CancellationToken cancellationToken)
    {
        await RunAsync(["convert", "-p", "-n", .. Format("-f", format), "-O", "raw", "--target-is-zero", file, uri], report, cancellationToken);
        return true;
    }

    /// <summary>Copies the device at <paramref name="uri"/> into a new image that only its owner may read; a failure leaves none.</summary>
    public static async Task<bool> ExportAsync(string uri, string file, string format, Action<double, string> report, CancellationToken cancellationToken)
    {
        var part = file + ".part";
        File.Delete(part);
        await using (new FileStream(part, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite }))
        {
        }

        try
        {
            await RunAsync(["convert", "-p", "-f", "raw", "-O", format, uri, part], report, cancellationToken);
            File.Move(part, file);
            return true;
        }
        finally
        {
            File.Delete(part);
        }
    }

    private static string OneLine(string text) =>
        string.Join("; ", text.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)).TrimEnd('.');

    private static string[] Format(string option, string? format) => format is null ? [] : [option, format];

    private static async Task<string> RunAsync(string[] arguments, Action<double, string>? report, CancellationToken cancellationToken)
    {
        Process process;
        try
        {
            process = Process.Start(new ProcessStartInfo("qemu-img", arguments)
            {
                RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false,
            })!;
        }
        catch (Win32Exception exception)
        {
            throw new NacreException(ErrorCatalogue.ProgramMissing, "qemu-img is not installed (Debian: qemu-utils)", exception);
        }

        using (process)
        {
            process.StandardInput.Close();
            try
            {
                var errors = process.StandardError.ReadToEndAsync(cancellationToken);
                var output = await ReadAsync(process.StandardOutput, report, cancellationToken);
                await process.WaitForExitAsync(cancellationToken);
                return process.ExitCode switch
                {
                    0 => output,

                    // Ctrl-C in a terminal reaches it too, and perhaps first.
                    ByInterrupt or ByTermination => throw new OperationCanceledException(),
                    var code => throw new NacreException(ErrorCatalogue.FileAccess, OneLine(await errors) is { Length: > 0 } words ? words : $"qemu-img failed with {code}"),
                };
            }
            catch (OperationCanceledException)
            {
                process.Kill();
                await process.WaitForExitAsync(CancellationToken.None);
                throw;
            }
        }
    }

    // qemu-img rewrites one line: "    (12.34/100%)" and a carriage return.
    private static async Task<string> ReadAsync(StreamReader reader, Action<double, string>? report, CancellationToken cancellationToken)
    {
        var output = new System.Text.StringBuilder();
        var buffer = new char[4096];
        for (int count; (count = await reader.ReadAsync(buffer.AsMemory(), cancellationToken)) > 0;)
        {
            output.Append(buffer, 0, count);
            var text = output.ToString();
            var open = text.LastIndexOf('(');
            var slash = open < 0 ? -1 : text.IndexOf('/', open);
            if (report is not null && slash > 0 && double.TryParse(text.AsSpan(open + 1, slash - open - 1), CultureInfo.InvariantCulture, out var percent))
            {
                report(percent / 100, "");
                output.Clear();
            }
        }

        return output.ToString();
    }
}
