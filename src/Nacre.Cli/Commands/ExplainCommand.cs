using System.CommandLine;
using Nacre.Player.LivePcs;
using Nacre.Policies;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre explain</c>: where a file of a LivePC lives, and what it survives.</summary>
internal static class ExplainCommand
{
    public static Command Create()
    {
        var name = new Argument<string>("LIVEPC") { Description = "The LivePC's name" };
        var path = new Argument<string>("PATH") { Description = "An absolute path in its guest" };
        var command = new Command("explain", "Say on which layer of a LivePC a file is, what that survives, and which rule says so") { name, path };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var player = LivePcCommands.Player();
            var explained = await Terminal.ProgressAsync("reading the rules", _ => player.ExplainAsync(parsed.GetValue(name)!, parsed.GetValue(path)!, cancellationToken));
            Terminal.Result(explained, () =>
            {
                Terminal.Line(Terminal.Printable(explained.Path));
                Terminal.Line($"  layer     {Words(explained.Layer)}");
                var survives = explained.Survives;
                Terminal.Line($"  survives  system: {Words(survives.System)}, applications: {Words(survives.Applications)}, settings: {Words(survives.Settings)}, data: {Words(survives.Data)}, moment: {Words(survives.Moment)}");
                Terminal.Line($"  rule      {explained.Rule.Pattern} {Name(explained.Rule.Layer)} ({Source(explained.Rule)})");
                if (explained.Owner is { } owner)
                {
                    Terminal.Line($"  owner     package {owner.Name} {(owner.Kind == "release" ? "of the release" : owner.Kind == "application layer" ? $"of the application layer {owner.Layer}" : "that the user installed")}");
                }

                foreach (var note in explained.Notes)
                {
                    Terminal.Line($"  note      {note}");
                }
            });
        });
        return command;
    }

    private static string Words(Layer layer) => layer switch
    {
        Layer.Scratch => "scratch: what is changed here is gone at the next start",
        _ => $"the user's {Name(layer)}",
    };

    private static string Words(Survival survival) => survival == Survival.Snapshot ? "as in the snapshot" : survival.ToString().ToLowerInvariant();

    private static string Name(Layer layer) => layer.ToString().ToLowerInvariant();

    private static string Source(LayeringRule rule) => rule.Source switch
    {
        "factory" => $"/usr/share/nacre/layers, line {rule.Line}",
        "administrator" => $"the administrator's rules, line {rule.Line}",
        _ => "no rule covers it",
    };
}
