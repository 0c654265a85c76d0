using System.Diagnostics;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>A TPM in software (swtpm), which the programs of tpm2-tools use until it is disposed; its state stays in the folder.</summary>
internal sealed class SoftwareTpm : IAsyncDisposable
{
    private const string Setting = "TPM2TOOLS_TCTI";
    private readonly Process process;

    private SoftwareTpm(Process process) => this.process = process;

    public static bool IsRunning => Environment.GetEnvironmentVariable(Setting)?.StartsWith("swtpm:", StringComparison.Ordinal) == true;

    public static async Task<SoftwareTpm> StartAsync(string folder)
    {
        Require.Tool("tpm2_getcap");
        Directory.CreateDirectory(folder);
        var socket = Path.Combine(folder, "sock");
        File.Delete(socket);
        var process = Process.Start(new ProcessStartInfo(Require.Tool("swtpm"),
        [
            "socket", "--tpm2", "--tpmstate", $"dir={folder}", "--server", $"type=unixio,path={socket}", "--ctrl", $"type=unixio,path={socket}.ctrl",
            "--flags", "startup-clear,not-need-init",
        ])
        {
            RedirectStandardError = true,
        })!;
        _ = process.StandardError.ReadToEndAsync(CancellationToken.None);
        Environment.SetEnvironmentVariable(Setting, $"swtpm:path={socket}");
        for (var limit = Stopwatch.StartNew(); !File.Exists(socket); await Task.Delay(10))
        {
            Assert.False(process.HasExited || limit.Elapsed > TimeSpan.FromSeconds(30), "swtpm does not start");
        }

        return new SoftwareTpm(process);
    }

    /// <summary>The only NV index that there is.</summary>
    public static async Task<string> IndexAsync()
    {
        using var listed = Process.Start(new ProcessStartInfo("tpm2_getcap", ["handles-nv-index"]) { RedirectStandardOutput = true })!;
        var text = await listed.StandardOutput.ReadToEndAsync(CancellationToken.None);
        return text.Trim(' ', '-', '\n');
    }

    public async ValueTask DisposeAsync()
    {
        Environment.SetEnvironmentVariable(Setting, null);
        process.Kill();
        await process.WaitForExitAsync();
        process.Dispose();
    }
}
