using System.CommandLine;
using Nacre.Player.HostChecks;
using Nacre.Policies;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre host</c>: the computer that LivePCs run on.</summary>
internal static class HostCommands
{
    public static Command Create() => new("host", "Look at the computer that LivePCs run on") { Check() };

    private static Command Check()
    {
        var name = new Argument<string?>("LIVEPC") { Description = "The LivePC whose policy counts (default: none, and the checks are shown with the factory's limits)", Arity = ArgumentArity.ZeroOrOne };
        var command = new Command("check", "Check this computer as your company wants it, and say how to put right what is not; exit code 8 where a LivePC would not start") { name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var results = await LivePcCommands.Player().CheckHostAsync(parsed.GetValue(name), cancellationToken);
            Terminal.Result(results, () =>
            {
                Terminal.Table(["CHECK", "RESULT", "POLICY", "WHAT IS SO"], results.Select(result => new[]
                {
                    result.Setting, Outcome(result), result.Action.ToString().ToLowerInvariant(), result.Detail,
                }));
                foreach (var result in results.Where(result => result is { Outcome: not HostCheckOutcome.Passed, Fix: not null }))
                {
                    Terminal.Line($"{result.Setting}: {result.Fix}");
                }
            });
            return results.Any(result => result.Fails && result.Action >= CheckAction.Block) ? (int)Contracts.ExitCode.Denied : 0;
        });
        return command;
    }

    private static string Outcome(HostCheckResult result) => result.Outcome switch
    {
        HostCheckOutcome.Passed => "passed",
        HostCheckOutcome.Failed => "failed",
        _ => result.Fails ? "not known, counts as failed" : "not known",
    };
}
