using System.CommandLine;
using System.Globalization;
using Nacre.Player.Moments;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre livepc snapshot</c>: the moments of a LivePC's user layers.</summary>
internal static class SnapshotCommands
{
    private static readonly Argument<string> Moment = new("MOMENT") { Description = "The moment: its identity or its name, as 'list' shows them" };

    public static Command Create() => new("snapshot", "Moments: states of the user's layers that are kept, to look into, to take files back from, and to go back to")
    {
        Take(), List(), Delete(), Compare(), Browse(), Restore(),
    };

    private static Command Take()
    {
        var label = new Option<string?>("--name") { Description = "What to call it" };
        var command = new Command("take", "Keep the state of this moment; a running guest stands still for an instant") { LivePcCommands.Name, label };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var name = parsed.GetValue(LivePcCommands.Name)!;
            var taken = await Terminal.ProgressAsync($"taking a moment of {name}", _ => LivePcCommands.Player().TakeMomentAsync(name, parsed.GetValue(label), cancellationToken));
            Terminal.Result(taken, () => Terminal.Line(taken.StoodStillMilliseconds == 0
                ? $"moment {taken.Moment.Id}: kept"
                : string.Create(CultureInfo.InvariantCulture, $"moment {taken.Moment.Id}: kept; the guest stood still for at most {taken.StoodStillMilliseconds:0} ms")));
        });
        return command;
    }

    private static Command List()
    {
        var command = new Command("list", "List the moments, oldest first") { LivePcCommands.Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var list = await LivePcCommands.Player().ListMomentsAsync(parsed.GetValue(LivePcCommands.Name)!, cancellationToken);
            Terminal.Result(list.Moments, () => Terminal.Table(["MOMENT", "KIND", "TAKEN (UTC)", "APPLICATIONS", "SETTINGS", "DATA", "NAME"], list.Moments.Select(moment => new[]
            {
                moment.Id, moment.Kind.ToString().ToLowerInvariant(), moment.Taken.ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture),
                Stored(moment, "applications"), Stored(moment, "settings"), Stored(moment, "data"), Words(moment),
            })));
        });
        return command;
    }

    private static string Stored(Moment moment, string layer) => moment.Bytes.TryGetValue(layer, out var bytes) ? Terminal.Bytes(bytes) : "-";

    private static Command Delete()
    {
        var command = new Command("delete", "Give a moment up, with the space that only it needs") { LivePcCommands.Name, Moment };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var deleted = await LivePcCommands.Player().DeleteMomentAsync(parsed.GetValue(LivePcCommands.Name)!, parsed.GetValue(Moment)!, cancellationToken);
            Terminal.Result(deleted, () => Terminal.Line($"moment {deleted.Id}: given up"));
        });
        return command;
    }

    private static Command Compare()
    {
        var second = new Argument<string?>("OTHER") { Description = "Another moment, or 'now' (default)", Arity = ArgumentArity.ZeroOrOne };
        var command = new Command("compare", "Say which files were added, changed or removed between a moment and another one, or now; the LivePC must run") { LivePcCommands.Name, Moment, second };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var name = parsed.GetValue(LivePcCommands.Name)!;
            var difference = await Terminal.ProgressAsync($"comparing moments of {name}", report =>
            {
                report(double.NaN, "the guest reads them");
                return LivePcCommands.Player().CompareMomentsAsync(name, parsed.GetValue(Moment)!, parsed.GetValue(second), cancellationToken);
            });
            Terminal.Result(difference, () =>
            {
                foreach (var file in difference.Files)
                {
                    Terminal.Line($"{file.Change.ToString().ToLowerInvariant(),-8} {file.Layer,-12} {Terminal.Bytes(file.Bytes),10}  {Terminal.Printable(file.Path)}");
                }

                Terminal.Note(difference.IsCut ? "there are more than are shown" : $"{difference.Files.Count} differences between {difference.From} and {difference.To}");
            });
        });
        return command;
    }

    private static Command Browse()
    {
        var path = new Argument<string>("PATH") { Description = "A folder or file, as the guest's user sees it (default: the folders that are kept)", Arity = ArgumentArity.ZeroOrOne, DefaultValueFactory = _ => "/" };
        var command = new Command("browse", "List a folder as it was at a moment; the LivePC must run") { LivePcCommands.Name, Moment, path };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var files = await LivePcCommands.Player().BrowseMomentAsync(
                parsed.GetValue(LivePcCommands.Name)!, parsed.GetValue(Moment)!, parsed.GetValue(path)!, cancellationToken);
            Terminal.Result(files, () => Terminal.Table(["KIND", "MODE", "OWNER", "SIZE", "CHANGED (UTC)", "NAME"], files.Select(file => new[]
            {
                file.Kind, file.Mode, Terminal.Printable(file.Owner), file.Kind == "f" ? Terminal.Bytes(file.Bytes) : "-",
                file.Modified.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture), Terminal.Printable(file.Name + (file.Target.Length > 0 ? $" -> {file.Target}" : "")),
            })));
        });
        return command;
    }

    private static Command Restore()
    {
        var path = new Argument<string>("PATH") { Description = "A file or folder, as the guest's user sees it" };
        var to = new Option<string?>("--to") { Description = "Where to put it (default: its own place); its folder must exist" };
        var command = new Command("restore", "Take a file or a folder back from a moment, and nothing else; what is in its place is put aside as NAME.displaced. The LivePC must run") { LivePcCommands.Name, Moment, path, to };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var restored = await Terminal.ProgressAsync($"taking {parsed.GetValue(path)} back", report =>
            {
                report(double.NaN, "the guest copies it");
                return LivePcCommands.Player().RestoreFilesAsync(
                    parsed.GetValue(LivePcCommands.Name)!, parsed.GetValue(Moment)!, parsed.GetValue(path)!, parsed.GetValue(to), cancellationToken);
            });
            Terminal.Result(restored, () =>
            {
                Terminal.Line($"{restored.Path}: taken back ({restored.Files} files, {Terminal.Bytes(restored.Bytes)})");
                if (restored.Displaced is { } displaced)
                {
                    Terminal.Line($"what was there is {Terminal.Printable(displaced)} now");
                }
            });
        });
        return command;
    }

    private static string Words(Moment moment) => moment.Label is { } label ? label : moment.Actions.Count == 0 ? "" : "before " + string.Join(", ", moment.Actions.Select(
        action => $"{action.Layer} {(action.To is null ? "to blank" : $"to {action.To}")}"));
}
