using System.Diagnostics;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>What a command printed and how it ended.</summary>
internal sealed record CommandResult(int ExitCode, string Output, string Error)
{
    /// <summary>The output without the end of its last line.</summary>
    public string Line => Output.TrimEnd();
}

/// <summary>Runs the real command line, as one user of one computer with an environment of its own.</summary>
internal sealed class Shell
{
    private readonly Dictionary<string, string> environment;

    public Shell(params (string Name, string Value)[] environment) =>
        this.environment = environment.ToDictionary(variable => variable.Name, variable => variable.Value);

    /// <summary>What every user of the tests chooses as the password of a LivePC, where a test says no other.</summary>
    public const string Password = "correct horse battery";

    /// <summary>The program under test, as built beside the tests.</summary>
    public static string Program { get; } = Path.Combine(AppContext.BaseDirectory, "nacre");

    /// <summary>Runs <c>nacre</c> and returns what it did.</summary>
    public async Task<CommandResult> TryAsync(string? input, params string[] arguments)
    {
        using var process = Start(arguments);
        var output = process.StandardOutput.ReadToEndAsync();
        var error = process.StandardError.ReadToEndAsync();
        if (input is not null)
        {
            await process.StandardInput.WriteAsync(input);
        }

        process.StandardInput.Close();
        using var limit = new CancellationTokenSource(TimeSpan.FromMinutes(20));
        try
        {
            await process.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw new TimeoutException($"nacre {string.Join(' ', arguments)}");
        }

        return new CommandResult(process.ExitCode, await output, await error);
    }

    /// <summary>Runs <c>nacre</c>, which must succeed.</summary>
    public async Task<CommandResult> RunAsync(params string[] arguments)
    {
        var result = await TryAsync(null, arguments);
        Assert.True(result.ExitCode == 0, $"nacre {string.Join(' ', arguments)} ended with {result.ExitCode}\n{result.Output}{result.Error}");
        return result;
    }

    /// <summary>Runs <c>nacre</c>, which must fail with this error and say what to do.</summary>
    public async Task<CommandResult> FailAsync(Contracts.ErrorKind expected, params string[] arguments)
    {
        var result = await TryAsync(null, arguments);
        Assert.True(result.ExitCode == (int)expected.ExitCode, $"nacre {string.Join(' ', arguments)} ended with {result.ExitCode}, not {(int)expected.ExitCode}\n{result.Output}{result.Error}");
        Assert.Contains("nacre: error: ", result.Error, StringComparison.Ordinal);
        Assert.Contains($"nacre: hint: {expected.Hint}", result.Error, StringComparison.Ordinal);
        return result;
    }

    /// <summary>Starts <c>nacre</c> and leaves it running.</summary>
    public Process Start(params string[] arguments)
    {
        var start = new ProcessStartInfo(Program, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["NACRE_PASSWORD"] = Password;
        foreach (var (name, value) in environment)
        {
            start.Environment[name] = value;
        }

        return Process.Start(start)!;
    }
}
