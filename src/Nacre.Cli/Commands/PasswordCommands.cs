using System.CommandLine;
using Nacre.Contracts;
using Nacre.Player.Keys;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre livepc password</c>.</summary>
internal static class PasswordCommands
{
    public static Command Create()
    {
        var recovery = new Option<bool>("--recovery") { Description = "You have forgotten it: the help desk reads you a recovery code, which opens the LivePC once, to choose a new password" };
        var code = new Option<string?>("--code") { Description = "With --recovery: the code (default: it is asked for)" };
        var remove = new Option<bool>("--remove") { Description = "Have no password any more, where your company's policy allows that" };
        var command = new Command("password", "Change a LivePC's password; works without a network while the lease lasts, and while it runs") { LivePcCommands.Name, recovery, code, remove };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var name = parsed.GetValue(LivePcCommands.Name)!;
            var passwords = new Passwords();
            var player = LivePcCommands.Player();
            if (parsed.GetValue(remove) && parsed.GetValue(recovery))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "give either --remove or --recovery");
            }

            var untrustedCode = parsed.GetValue(recovery) ? parsed.GetValue(code) ?? AskCode() : null;
            using var current = untrustedCode is null && player.HasPassword(name)
                ? passwords.Current(name, null) ?? throw new NacreException(ErrorCatalogue.PasswordNeeded, $"'{name}' opens with a password") : null;
            for (string? problem = null; ;)
            {
                using var fresh = parsed.GetValue(remove) ? null
                    : passwords.Choose(name, problem) ?? throw new NacreException(ErrorCatalogue.PasswordUnset, problem ?? "no new password was given");
                using var secrets = new KeySecrets { Password = current?.Copy(), New = fresh?.Copy(), UntrustedCode = untrustedCode, RemovesPassword = parsed.GetValue(remove) };
                try
                {
                    await Terminal.ProgressAsync($"changing the password of {name}", async report =>
                    {
                        report(double.NaN, "this takes some seconds, so that guessing takes as long");
                        await player.ChangePasswordAsync(name, secrets, cancellationToken);
                        return 0;
                    });
                    break;
                }
                catch (NacreException exception) when (exception.Kind == ErrorCatalogue.PasswordWeak && Passwords.IsAsked)
                {
                    problem = exception.Message;
                }
            }

            Terminal.Note(parsed.GetValue(remove) ? $"{name} has no password any more" : $"{name} has the new password");
        });
        return command;
    }

    private static string AskCode()
    {
        if (!Terminal.IsJson && !System.Console.IsInputRedirected)
        {
            System.Console.Error.Write("Recovery code: ");
        }

        return System.Console.In.ReadLine() is { Length: > 0 } line ? line : throw new NacreException(ErrorCatalogue.UsageInvalid, "no recovery code was given");
    }
}
