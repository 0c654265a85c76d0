using System.CommandLine;
using Nacre.Player.LivePcs;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre livepc terms</c>.</summary>
internal static class TermsCommand
{
    public static Command Create()
    {
        var accept = new Option<bool>("--accept") { Description = "Agree to them" };
        var command = new Command("terms", "Show a LivePC's terms of use, and agree to them") { LivePcCommands.Name, accept };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var name = parsed.GetValue(LivePcCommands.Name)!;
            var player = LivePcCommands.Player();
            var terms = await player.ReadTermsAsync(name, cancellationToken);
            if (parsed.GetValue(accept) && !terms.IsAccepted)
            {
                player.AcceptTerms(name, terms);
                terms = terms with { IsAccepted = true };
            }

            Terminal.Result(terms, () =>
            {
                if (terms.Text.Length == 0)
                {
                    Terminal.Line($"'{name}' has no terms of use");
                    return;
                }

                Show(terms);
                Terminal.Note(terms.IsAccepted ? "accepted on this device" : "not accepted on this device yet: --accept agrees to them");
            });
        });
        return command;
    }

    /// <summary>Shows them at a terminal, and asks.</summary>
    /// <returns>Whether the user agreed.</returns>
    public static async Task<bool> AskAsync(LivePcPlayer player, string name, CancellationToken cancellationToken)
    {
        if (!Passwords.IsAsked)
        {
            return false;
        }

        var terms = await player.ReadTermsAsync(name, cancellationToken);
        Terminal.Note($"the terms of use of {name}:");
        foreach (var line in Lines(terms))
        {
            Terminal.Note(line);
        }

        Console.Error.Write("Do you agree? [y/N] ");
        if (Console.ReadLine()?.Trim() is not ("y" or "Y" or "yes"))
        {
            return false;
        }

        player.AcceptTerms(name, terms);
        return true;
    }

    private static void Show(TermsOfUse terms)
    {
        foreach (var line in Lines(terms))
        {
            Terminal.Line(line);
        }
    }

    /// <summary>Without anything that could move the terminal's cursor: the text is the administrator's, who is not the terminal's.</summary>
    private static IEnumerable<string> Lines(TermsOfUse terms) => terms.Text.Split('\n').Select(line => string.Concat(line.Where(letter => letter == '\t' || !char.IsControl(letter))));
}
