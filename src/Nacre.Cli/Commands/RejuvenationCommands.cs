using System.CommandLine;
using System.Globalization;
using Nacre.Contracts;
using Nacre.Player.LivePcs;
using Nacre.Player.Moments;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre livepc rejuvenate</c> and <c>nacre livepc undo</c>: say what is kept and what is lost, ask, and put layers back.</summary>
internal static class RejuvenationCommands
{
    private static readonly Option<bool> DryRun = new("--dry-run") { Description = "Only say what would be kept and lost" };

    /// <summary>The answer to what is asked before layers are put back.</summary>
    public static Option<bool> Yes { get; } = new("--yes", "-y") { Description = "Do not ask" };

    /// <summary>The depth, for the user and for the administrator.</summary>
    public static Option<RejuvenationDepth> Depth { get; } = new("--depth")
    {
        Description = "system (default), applications, settings (each all before it too: to blank, or with --to to a moment), data (applications and settings to blank, data to a moment), or moment (everything to a moment)",
    };

    /// <summary>The moment.</summary>
    public static Option<string?> To { get; } = new("--to") { Description = "The moment to go back to: as 'nacre livepc snapshot list' names it" };

    /// <summary>The time that the moment is from before.</summary>
    public static Option<DateTimeOffset?> Before { get; } = new("--before")
    {
        Description = "Or the newest moment from before this time, such as 2026-11-25T14:30 (this computer's time, unless it ends with Z or an offset)",
        CustomParser = result =>
        {
            if (DateTimeOffset.TryParse(result.Tokens[0].Value, CultureInfo.InvariantCulture, DateTimeStyles.AssumeLocal, out var time))
            {
                return time;
            }

            result.AddError($"'{result.Tokens[0].Value}' is not a time such as 2026-11-25T14:30");
            return null;
        },
    };

    public static Command Rejuvenate()
    {
        var command = new Command("rejuvenate", "Put layers back to a clean state: the system always; of the user's what is asked for. A moment is taken first, so it can be undone, unless the policy gives it up")
        {
            LivePcCommands.Name, Depth, To, Before, DryRun, Yes, LivePcCommands.Memory, LivePcCommands.Processors, LivePcCommands.Minutes, LivePcCommands.AgentWait, LivePcCommands.NoFetch,
        };
        command.SetAction((parsed, cancellationToken) => RunAsync(
            parsed, new RejuvenationRequest(parsed.GetValue(Depth), parsed.GetValue(To), parsed.GetValue(Before)), cancellationToken));
        return command;
    }

    public static Command Undo()
    {
        var command = new Command("undo", "Undo the last rejuvenation: the layers that it put back are again what they were before it; another undo takes that back")
        {
            LivePcCommands.Name, DryRun, Yes, LivePcCommands.Memory, LivePcCommands.Processors, LivePcCommands.Minutes, LivePcCommands.AgentWait, LivePcCommands.NoFetch,
        };
        command.SetAction((parsed, cancellationToken) => RunAsync(parsed, new RejuvenationRequest(RejuvenationDepth.Moment, IsUndo: true), cancellationToken));
        return command;
    }

    private static async Task RunAsync(ParseResult parsed, RejuvenationRequest request, CancellationToken cancellationToken)
    {
        var name = parsed.GetValue(LivePcCommands.Name)!;
        var player = LivePcCommands.Player();
        var status = await player.StatusAsync(name, cancellationToken);
        if (status.Phase == LivePcPhase.Abandoned && !parsed.GetValue(DryRun))
        {
            // Its guest is shut down properly first, which takes a player.
            await LivePcCommands.StartAsync(player, parsed, cancellationToken);
            status = await player.StatusAsync(name, cancellationToken);
        }

        var isOnlySystem = !request.IsUndo && request is { Depth: RejuvenationDepth.System, To: null, Before: null };
        RejuvenationPlan? plan = null;
        if (!isOnlySystem || parsed.GetValue(DryRun))
        {
            plan = await player.PlanRejuvenationAsync(name, request, cancellationToken);
            Say(name, plan);
            if (parsed.GetValue(DryRun))
            {
                Terminal.Result(plan, () => Terminal.Line("nothing was changed (--dry-run)"));
                return;
            }

            Confirm(parsed, "this puts layers of the user's back");
        }
        else
        {
            await player.RequireUserMayAsync(name, request.Depth, cancellationToken);
            player.CleanSystem(name);
            Terminal.Note($"{name}: kept: the user's applications, settings and data; put back: everything else");
        }

        var wasRunning = status.Phase != LivePcPhase.Stopped;
        if (wasRunning)
        {
            await Terminal.ProgressAsync($"stopping {name}", async _ =>
            {
                await player.StopAsync(name, cancellationToken);
                return 0;
            });
        }
        else if (plan is null)
        {
            Terminal.Note($"{name} does not run; its next start begins with a clean system layer");
            return;
        }

        RejuvenationResult? result = null;
        if (plan is not null)
        {
            result = await player.RejuvenateAsync(name, request, cancellationToken);
            if (!Terminal.IsJson || !wasRunning)
            {
                Terminal.Result(result, () =>
                {
                    if (result.Before is not { } before)
                    {
                        Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"{name}: put back in {result.Milliseconds:0.0} ms; what was there is given up, as your company's policy says"));
                        return;
                    }

                    Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"{name}: put back in {result.Milliseconds:0.0} ms; the layers before it are kept as moment {before.Id}"));
                    Terminal.Line($"'nacre livepc undo {name}' brings them back");
                });
            }
        }

        if (wasRunning)
        {
            await LivePcCommands.StartAsync(player, parsed, cancellationToken, result);
        }
    }

    /// <summary>What is kept and what is lost, layer by layer.</summary>
    private static void Say(string name, RejuvenationPlan plan)
    {
        Terminal.Note($"{name}: what is kept and what is lost");
        Terminal.Note("  system        put back to the release: what is in none of the layers below is lost");
        foreach (var layer in plan.Layers)
        {
            Terminal.Note($"  {layer.Layer,-12}  {Words(layer)}");
        }
    }

    private static string Words(LayerPlan layer) => layer.Fate switch
    {
        LayerFate.Blank => $"blank: all of it is lost ({Terminal.Bytes(layer.BytesNow)})",
        LayerFate.Moment => $"as at moment {layer.Moment}: what was changed in the last {Span(TimeProvider.System.GetUtcNow() - layer.Since!.Value)} is lost ({Terminal.Bytes(layer.BytesNow)} now, {Terminal.Bytes(layer.BytesThen)} then)",
        _ => $"kept as it is ({Terminal.Bytes(layer.BytesNow)})",
    };

    private static string Span(TimeSpan span) => span switch
    {
        { TotalMinutes: < 2 } => string.Create(CultureInfo.InvariantCulture, $"{Math.Max(0, span.TotalSeconds):0} seconds"),
        { TotalHours: < 2 } => string.Create(CultureInfo.InvariantCulture, $"{span.TotalMinutes:0} minutes"),
        { TotalDays: < 2 } => string.Create(CultureInfo.InvariantCulture, $"{span.TotalHours:0} hours"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{span.TotalDays:0} days"),
    };

    /// <summary>Asks whether to go on, unless that was said already.</summary>
    internal static void Confirm(ParseResult parsed, string what)
    {
        if (parsed.GetValue(Yes))
        {
            return;
        }

        if (Terminal.IsJson || Console.IsInputRedirected || Console.IsErrorRedirected)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"{what}, and there is nobody to ask: add --yes");
        }

        Console.Error.Write("Go on? [y/N] ");
        if (Console.ReadLine()?.Trim() is not ("y" or "Y" or "yes"))
        {
            throw new NacreException(ErrorCatalogue.Cancelled, "nothing was changed");
        }
    }
}
