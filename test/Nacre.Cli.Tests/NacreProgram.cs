using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text.Json;
using Nacre.Testing;
using Xunit;

namespace Nacre.Cli.Tests;

/// <summary>The real program, with homes of its own.</summary>
internal static partial class NacreProgram
{
    public const int Interrupt = 2;
    public const int Terminate = 15;

    public static Process Start(TemporaryDirectory folder, params string[] arguments) => StartOther(folder, Path.Combine(AppContext.BaseDirectory, "nacre"), arguments);

    /// <summary>Starts it as the leader of a process group, as a shell does.</summary>
    public static Process StartGroup(TemporaryDirectory folder, params string[] arguments) =>
        StartOther(folder, Require.Tool("setsid"), [Path.Combine(AppContext.BaseDirectory, "nacre"), .. arguments]);

    public static Task<(int Code, string Output, string Error)> RunAsync(TemporaryDirectory folder, params string[] arguments) => RunAsync(folder, input: "", arguments);

    public static async Task<(int Code, string Output, string Error)> RunAsync(TemporaryDirectory folder, string input, string[] arguments)
    {
        using var process = Start(folder, arguments);
        await process.StandardInput.WriteAsync(input);
        process.StandardInput.Close();
        return await EndAsync(process);
    }

    /// <summary>Waits for the end of a process.</summary>
    public static async Task<(int Code, string Output, string Error)> EndAsync(Process process)
    {
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var error = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        return (process.ExitCode, await output, await error);
    }

    /// <summary>The JSON of a run that succeeded and said nothing else.</summary>
    public static async Task<JsonElement> JsonAsync(TemporaryDirectory folder, params string[] arguments)
    {
        var (code, output, error) = await RunAsync(folder, [.. arguments, "--json"]);
        Assert.True(code == 0, $"{string.Join(' ', arguments)} ended with {code}: {error}");
        Assert.Empty(error);
        using var document = JsonDocument.Parse(output);
        return document.RootElement.Clone();
    }

    /// <summary>Sends a signal to a process, or to the group of which it is the leader.</summary>
    public static void Signal(Process process, int signal, bool group = false) => Assert.Equal(0, Kill(group ? -process.Id : process.Id, signal));

    private static Process StartOther(TemporaryDirectory folder, string program, params string[] arguments) => Process.Start(new ProcessStartInfo(program, arguments)
    {
        RedirectStandardInput = true,
        RedirectStandardOutput = true,
        RedirectStandardError = true,
        Environment = { ["NACRE_HOME"] = folder["device"], ["NACRE_ADMIN_HOME"] = folder["admin"] },
    })!;

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int process, int signal);
}
