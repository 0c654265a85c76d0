using System.ComponentModel;
using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Player.Machines;
using Nacre.Player.Trust;
using Nacre.Policies;

namespace Nacre.Player.HostChecks;

/// <summary>Runs the administrator's own checks: only what the organisation's targets keys signed, as this user, with nothing of this process's environment, for so long as they say.</summary>
/// <param name="trust">Tells what the organisation signed.</param>
/// <param name="time">The clock.</param>
internal sealed class HostScriptRunner(DeviceTrust trust, TimeProvider time)
{
    private const string Shell = "/bin/sh";
    private const int LongestOutput = 16 * 1024, LongestValue = 200, MostFacts = 32;

    /// <summary>How long the output of one that has ended may be held open by what it left behind.</summary>
    private static readonly TimeSpan OutputLimit = TimeSpan.FromSeconds(1);

    /// <summary>All of a policy's, one after the other.</summary>
    public async Task<IReadOnlyList<HostCheckResult>> RunAsync(Policy policy, CancellationToken cancellationToken)
    {
        var results = new List<HostCheckResult>();
        foreach (var (number, untrusted) in policy.Get(Settings.HostScripts).Index())
        {
            var result = await RunAsync(untrusted, $"{Settings.HostScripts}[{number}]", cancellationToken).ConfigureAwait(false);
            results.Add(result with { Action = policy.Get(Settings.HostScriptsAction) });
        }

        return results;
    }

    private async Task<HostCheckResult> RunAsync(string untrusted, string place, CancellationToken cancellationToken)
    {
        HostScript script;
        try
        {
            script = HostScript.Parse(untrusted);
            trust.Verify(script);
        }
        catch (NacreException exception)
        {
            return HostCheckResult.Failed(place, $"a check that is not signed by your company was not run: {exception.Message}", "tell your help desk");
        }

        return await RunAsync(script, $"{Settings.HostScripts} {script.Name}", cancellationToken).ConfigureAwait(false);
    }

    private async Task<HostCheckResult> RunAsync(HostScript script, string name, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        using var timer = time.CreateTimer(_ => limit.Cancel(), null, TimeSpan.FromSeconds(script.Seconds), Timeout.InfiniteTimeSpan);
        try
        {
            using var process = Start(script);
            try
            {
                process.StandardInput.Close();
                using var reading = CancellationTokenSource.CreateLinkedTokenSource(limit.Token);
                var errors = BoundedText.ReadAsync(process.StandardError.BaseStream, 0, reading.Token);
                var output = BoundedText.ReadAsync(process.StandardOutput.BaseStream, LongestOutput, reading.Token);
                await process.WaitForExitAsync(limit.Token).ConfigureAwait(false);
                reading.CancelAfter(OutputLimit);
                await ((Task)errors).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                return Judge(name, process.ExitCode, await output.ConfigureAwait(false));
            }
            finally
            {
                if (!process.HasExited)
                {
                    process.Kill(entireProcessTree: true);
                }
            }
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return Silent(script, name, $"your company's check '{script.Name}' did not end within {script.Seconds} seconds");
        }
        catch (Exception exception) when (exception is Win32Exception or IOException)
        {
            return Silent(script, name, $"your company's check '{script.Name}' can't be run: {exception.Message}");
        }
    }

    private static HostCheckResult Silent(HostScript script, string name, string why) =>
        script.FailsOpen ? HostCheckResult.Unknown(name, why) : HostCheckResult.Failed(name, why, "try again; where it stays so, tell your help desk");

    private static Process Start(HostScript script)
    {
        var start = new ProcessStartInfo(Shell, ["-c", script.Script, script.Name]) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true, WorkingDirectory = "/" };
        start.Environment.Clear();
        start.Environment["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin";
        start.Environment["LANG"] = "C.UTF-8";
        start.Environment["HOME"] = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        return Process.Start(start)!;
    }

    /// <summary>The exit code decides; the lines <c>key=value</c> of the output are what it found.</summary>
    private static HostCheckResult Judge(string name, int exitCode, string untrustedOutput)
    {
        var facts = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var line in untrustedOutput.Split('\n'))
        {
            var equals = line.IndexOf('=', StringComparison.Ordinal);
            if (equals is > 0 and <= 40 && line[..equals].All(character => char.IsAsciiLetterOrDigit(character) || character is '_' or '-' or '.') && facts.Count < MostFacts)
            {
                facts[line[..equals]] = GuestText.Line(line[(equals + 1)..], LongestValue);
            }
        }

        facts.Remove("message", out var message);
        facts.Remove("fix", out var fix);
        var result = exitCode == 0 ? HostCheckResult.Passed(name, message ?? "passed") : HostCheckResult.Failed(name, message ?? $"it ended with {exitCode}", fix ?? "tell your help desk");
        return result with { Facts = facts };
    }
}
