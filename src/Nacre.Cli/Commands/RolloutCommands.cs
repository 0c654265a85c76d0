using System.CommandLine;
using System.Globalization;
using Nacre.Contracts;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre rollout</c>: give a release to a channel's devices in growing shares.</summary>
internal static class RolloutCommands
{
    private static readonly Argument<string> Image = new("IMAGE") { Description = "The golden image" };
    private static readonly Argument<string> Channel = new("CHANNEL") { Description = "The channel, such as pilot or stable" };

    public static Command Create() => new("rollout", "Give a release to a channel's devices in growing shares (administrators)")
    {
        Start(), List(),
        Change("pause", "Halt a roll-out: devices that started the release keep it, no others get it", RolloutAction.Pause),
        Change("resume", "Go on with a roll-out that was paused or stopped; what failed before counts no more", RolloutAction.Resume),
        Change("advance", "Begin the next step; after the last one the channel moves, and the roll-out is over", RolloutAction.Advance),
        Change("withdraw", "End a roll-out: the channel stays where it is, and devices that have the release go back at their next start online", RolloutAction.Withdraw),
    };

    private static Command Start()
    {
        var version = new Argument<int>("RELEASE") { Description = "The release" };
        var steps = new Option<int[]>("--steps") { Description = "The shares in percent, growing (default: 5 25 100)", AllowMultipleArgumentsPerToken = true };
        var hours = new Option<int>("--step-hours") { Description = "Hours after which the next step begins by itself; 0: when you say 'advance'" };
        var percent = new Option<int>("--stop-at") { Description = "Stop where the release failed on this share of the devices that tried it, in percent", DefaultValueFactory = _ => 10 };
        var after = new Option<int>("--stop-after") { Description = "… and on at least so many devices", DefaultValueFactory = _ => 1 };
        var command = new Command("start", "Begin a roll-out") { Image, Channel, version, steps, hours, percent, after };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var shares = parsed.GetValue(steps);
            var rollout = await client.StartRolloutAsync(
                parsed.GetValue(Image)!, parsed.GetValue(Channel)!,
                new StartRollout(parsed.GetValue(version), shares is { Length: > 0 } ? shares : null, parsed.GetValue(hours), parsed.GetValue(percent), parsed.GetValue(after)), cancellationToken);
            Terminal.Result(rollout, () => Terminal.Line(Words(rollout)));
            Terminal.Note("'nacre rollout list' shows how it does");
        });
        return command;
    }

    private static Command List()
    {
        var command = new Command("list", "List the roll-outs that are under way");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var rollouts = await client.ListRolloutsAsync(cancellationToken);
            Terminal.Result(rollouts, () => Terminal.Table(["IMAGE", "CHANNEL", "FROM", "TO", "STATE", "SHARE", "NEXT", "HEALTHY", "FAILED"], rollouts.Select(rollout => new[]
            {
                rollout.Image, rollout.Channel, Text(rollout.From), Text(rollout.Version), rollout.State.ToString().ToLowerInvariant(), $"{rollout.Steps[rollout.Step]} %", Next(rollout),
                Text(rollout.Healthy), Text(rollout.Failed),
            })));
        });
        return command;
    }

    private static Command Change(string name, string description, RolloutAction action)
    {
        var command = new Command(name, description) { Image, Channel };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var rollout = await client.ChangeRolloutAsync(parsed.GetValue(Image)!, parsed.GetValue(Channel)!, action, cancellationToken);
            Terminal.Result(rollout, () => Terminal.Line(action == RolloutAction.Withdraw
                ? $"{rollout.Image}: the roll-out of release {rollout.Version} is withdrawn; channel {rollout.Channel} stays at release {rollout.From}"
                : rollout.IsOver
                    ? $"{rollout.Image}: the roll-out is done; channel {rollout.Channel} points at release {rollout.Version}"
                    : Words(rollout)));
        });
        return command;
    }

    private static string Words(Rollout rollout) =>
        $"{rollout.Image}: release {rollout.Version} in channel {rollout.Channel} is {rollout.State.ToString().ToLowerInvariant()} at {rollout.Steps[rollout.Step]} % of the devices; next: {Next(rollout)}";

    private static string Next(Rollout rollout)
    {
        var what = rollout.Step + 1 < rollout.Steps.Count ? $"{rollout.Steps[rollout.Step + 1]} %" : "channel moves";
        return rollout.State != RolloutState.Running ? "-" : rollout.StepHours == 0
            ? $"{what} by 'advance'"
            : string.Create(CultureInfo.InvariantCulture, $"{what} from {rollout.StepSince.UtcDateTime.AddHours(rollout.StepHours):yyyy-MM-dd HH:mm} UTC");
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}
