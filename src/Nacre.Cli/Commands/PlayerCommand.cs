using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Player;
using Nacre.Player.Keys;
using Nacre.Player.LivePcs;
using Nacre.Player.UserPackages;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre player</c>: the process that <c>nacre livepc start</c> leaves behind. It reports on standard output until the guest is up.</summary>
internal static partial class PlayerCommand
{
    private static LivePcPhase? logged;

    public static Command Create()
    {
        var name = new Argument<string>("LIVEPC");
        var memory = new Option<int?>("--memory");
        var processors = new Option<int?>("--processors");
        var minutes = new Option<int?>("--timeout");
        var agent = new Option<int?>("--agent-wait");
        var noFetch = new Option<bool>("--no-fetch");
        var acceptOlder = new Option<bool>("--accept-older-state");
        var userPackages = new Option<UserPackageChoice?>("--user-packages");
        var command = new Command("player", "Run one LivePC in this process (used by 'nacre livepc start')") { name, memory, processors, minutes, agent, noFetch, acceptOlder, userPackages };
        command.Hidden = true;
        command.SetAction(async (parsed, cancellationToken) =>
        {
            // A session of its own: Ctrl-C in the terminal that started it, or its closing, does not end the LivePC.
            _ = SetSession();
            using var terminating = PosixSignalRegistration.Create(PosixSignal.SIGHUP, context => context.Cancel = true);
            var options = new SessionOptions
            {
                Memory = parsed.GetValue(memory),
                Processors = parsed.GetValue(processors),
                FetchRest = !parsed.GetValue(noFetch),
                AcceptOlderState = parsed.GetValue(acceptOlder),
                UserPackages = parsed.GetValue(userPackages),
            };
            if (parsed.GetValue(minutes) is { } limit)
            {
                options = options with { StartLimit = TimeSpan.FromMinutes(limit) };
            }

            if (parsed.GetValue(agent) is { } seconds)
            {
                options = options with { AgentLimit = TimeSpan.FromSeconds(seconds) };
            }

            try
            {
                SecretBytes.ForbidDumps();
                using var secrets = KeySecrets.Read(System.Console.OpenStandardInput());
                using var session = new LivePcSession(PlayerPaths.Open(), parsed.GetValue(name)!, options, secrets, Report, TimeProvider.System);
                SendErrorsTo(session.LogFile);
                await session.RunAsync(cancellationToken);
                return 0;
            }
            catch (NacreException exception)
            {
                Report(new PlayerReport(null, exception.Kind.Code, exception.Message));
                return (int)exception.Kind.ExitCode;
            }
            catch (Exception exception)
            {
                Report(new PlayerReport(null, ErrorCatalogue.Internal.Code, exception.ToString()));
                return (int)ExitCode.Failure;
            }
        });
        return command;
    }

    /// <summary>How to run this very program.</summary>
    public static IReadOnlyList<string> Self() => Path.GetFileNameWithoutExtension(Environment.ProcessPath) == "dotnet"
        ? [Environment.ProcessPath!, typeof(PlayerCommand).Assembly.Location]
        : [Environment.ProcessPath!];

    private static void Report(PlayerReport report)
    {
        Log(report);
        try
        {
            Console.Out.WriteLine(JsonSerializer.Serialize(report, ContractJson.Options));
        }
        catch (IOException)
        {
            // The command that started this player has ended.
        }
    }

    /// <summary>Each change of the LivePC's phase is a line of the log; the words for progress within one are not. Later lines of a message may be
    /// the guest's console, which is never written to a file.</summary>
    private static void Log(PlayerReport report)
    {
        var phase = report.Status?.Phase;
        if (report.Code is not null || phase != logged)
        {
            logged = phase;
            var line = string.Create(CultureInfo.InvariantCulture,
                $"{TimeProvider.System.GetUtcNow():yyyy-MM-dd HH:mm:ss}Z {report.Code ?? phase.ToString()}: {(report.Message ?? report.Status?.Detail ?? "").Split('\n')[0]}\n");

            try
            {
                // Not the console's writer, which may have been made before the error stream became the log.
                using var log = System.Console.OpenStandardError();
                log.Write(Encoding.UTF8.GetBytes(line));
            }
            catch (IOException)
            {
                // No room for the log, which is no reason to end anything.
            }
        }
    }

    /// <summary>Whoever started this player may wait until its error stream ends, so the player does not keep it.</summary>
    private static void SendErrorsTo(string file)
    {
        const int StandardError = 2;
        using var log = File.OpenHandle(file, FileMode.Create, FileAccess.Write, FileShare.ReadWrite);
        _ = Duplicate((int)log.DangerousGetHandle(), StandardError);
    }

    [LibraryImport("libc", EntryPoint = "dup2")]
    private static partial int Duplicate(int descriptor, int other);

    [LibraryImport("libc", EntryPoint = "setsid")]
    private static partial int SetSession();
}
