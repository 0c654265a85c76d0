using System.CommandLine;
using System.Globalization;
using Nacre.Contracts;
using Nacre.Player;
using Nacre.Player.LivePcs;
using Nacre.Player.Moments;
using Nacre.Player.UserPackages;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre livepc</c>: what a person does with a LivePC on this device; <see cref="LivePcAdministrationCommands"/> has what administrators do.</summary>
internal static class LivePcCommands
{
    internal static readonly Argument<string> Name = new("LIVEPC") { Description = "The LivePC's name" };
    internal static readonly Option<int?> Memory = new("--memory") { Description = "The guest's memory in MiB (default: half of the host's, 1024 to 4096)" };
    internal static readonly Option<int?> Processors = new("--processors") { Description = "The guest's processors (default: the host's, at most 4)" };
    internal static readonly Option<int?> Minutes = new("--timeout") { Description = "Minutes that the guest may take to start (default: as the policy says)" };
    internal static readonly Option<int?> AgentWait = new("--agent-wait")
    {
        Description = "Seconds after which a guest whose image is a whole disk counts as one without an agent (default: 120, 360 where it is emulated)",
    };
    internal static readonly Option<bool> NoFetch = new("--no-fetch") { Description = "Do not fetch the rest of the release once the guest is up" };
    private static readonly Option<bool> AcceptOlder = new("--accept-older-state")
    {
        Description = "Start although a layer of the user's is older than its newest known state (E_VOLUME_OUTDATED): what was written since is lost, and the server notes it",
    };

    private static readonly Option<UserPackageChoice?> UserPackages = new("--user-packages")
    {
        Description = "What to do with a package of the user's that new corporate layers can't carry: postpone (the previous layers start; the default), remove or reinstall",
    };

    public static Command Create() => new("livepc", "Run LivePCs on this device, and define them on the server")
    {
        Passwords.File, Passwords.NewFile, PasswordCommands.Create(), Lock(), Unlock(), Forget(),
        List(), Start(), Stop(), Status(), LogCommands.Show(), Extend(), Update(), Rollback(), Postpone(), TermsCommand.Create(), RejuvenationCommands.Rejuvenate(), RejuvenationCommands.Undo(), SnapshotCommands.Create(), Contact(),
        Console(), Screenshot(), Execute(), DeviceAccessCommands.Usb(), DeviceAccessCommands.Clipboard(),
        LivePcAdministrationCommands.Define(), LivePcAdministrationCommands.Entitle(), LivePcAdministrationCommands.Withdraw(), LivePcAdministrationCommands.Layers(),
        LivePcAdministrationCommands.Reports(), LivePcAdministrationCommands.Starts(), OrderCommands.Order(), OrderCommands.List(),
    };

    internal static LivePcPlayer Player() => new(PlayerPaths.Open(), new Passwords(), TimeProvider.System);

    private static Command List()
    {
        var all = new Option<bool>("--all") { Description = "All of the organisation's LivePCs, as the administrator sees them" };
        var command = new Command("list", "List the LivePCs of this device") { all };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            if (parsed.GetValue(all))
            {
                using var client = Administration.Connect();
                var defined = await client.ListLivePcsAsync(cancellationToken);
                Terminal.Result(defined, () => Terminal.Table(["NAME", "IMAGE", "CHANNEL", "USERS"],
                    defined.Select(livePc => new[] { livePc.Name, livePc.Image, livePc.Channel, string.Join(", ", livePc.Users) })));
                return;
            }

            var (livePcs, offline) = await Player().ListAsync(cancellationToken);
            if (offline is not null)
            {
                Terminal.Note($"offline: {offline.Message}");
            }

            Terminal.Result(livePcs, () => Terminal.Table(["NAME", "IMAGE", "CHANNEL", "INSTALLED", "OFFERED", "STATE"], livePcs.Select(livePc => new[]
            {
                livePc.Name, livePc.Image, livePc.Channel ?? "?", livePc.Installed is { } installed ? $"{installed}" : "-",
                livePc.Offered is { } offered ? $"{offered}" : "-", Lower(livePc.Phase),
            })));
        });
        return command;
    }

    private static Command Start()
    {
        var command = new Command("start", "Start a LivePC: it streams in at the first start, and works offline once it is complete") { Name, Memory, Processors, Minutes, AgentWait, NoFetch, AcceptOlder, UserPackages };
        command.SetAction((parsed, cancellationToken) => StartAsync(Player(), parsed, cancellationToken));
        return command;
    }

    internal static async Task StartAsync(LivePcPlayer player, ParseResult parsed, CancellationToken cancellationToken, RejuvenationResult? rejuvenation = null)
    {
        var name = parsed.GetValue(Name)!;
        List<string> command = [.. PlayerCommand.Self(), "player", name];
        foreach (var (option, value) in new[] { ("--memory", parsed.GetValue(Memory)), ("--processors", parsed.GetValue(Processors)), ("--timeout", parsed.GetValue(Minutes)), ("--agent-wait", parsed.GetValue(AgentWait)) })
        {
            if (value is { } number)
            {
                command.AddRange([option, number.ToString(CultureInfo.InvariantCulture)]);
            }
        }

        if (parsed.GetValue(NoFetch))
        {
            command.Add("--no-fetch");
        }

        if (parsed.GetValue(AcceptOlder))
        {
            command.Add("--accept-older-state");
        }

        if (parsed.GetValue(UserPackages) is { } conflicts)
        {
            command.AddRange(["--user-packages", Lower(conflicts)]);
        }

        LivePcStatus status;
        try
        {
            status = await BeginAsync();
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.TermsNotAccepted)
        {
            if (!await TermsCommand.AskAsync(player, name, cancellationToken))
            {
                throw;
            }

            status = await BeginAsync();
        }

        Terminal.Result<object>(rejuvenation is null ? status : new { Rejuvenation = rejuvenation, Status = status }, () =>
        {
            foreach (var older in status.AcceptedOlder)
            {
                Terminal.Line($"accepted as the newest state from now on: {older}");
            }

            if (status.LeaseWarning is { } warning)
            {
                Terminal.Line(warning);
            }

            if (status.Notice is { } notice)
            {
                Terminal.Line(notice);
            }

            if (status.SetAside is { } aside)
            {
                Terminal.Line($"{aside}; what ran before was started, and the server is told");
            }

            if (status.FinishedRejuvenation is { } moment)
            {
                Terminal.Line($"a rejuvenation that had been interrupted was finished; the layers before it are kept as moment {moment}");
            }

            if (status.Adopted)
            {
                Terminal.Line(string.Create(CultureInfo.InvariantCulture,
                    $"{name} goes on with release {status.Version} of {status.Image}: its player had been killed, its guest ran on; served again after {status.SecondsToAgent:0.0} s"));
                Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"accelerator {status.Accelerator}; lease until {status.LeaseEnds:yyyy-MM-dd HH:mm} UTC{(status.Offline ? "; offline" : "")}"));
                return;
            }

            Terminal.Line(string.Create(CultureInfo.InvariantCulture,
                $"{name} runs release {status.Version} of {status.Image}{With(status.Layers)}: usable after {status.SecondsToAgent:0.0} s and {Terminal.Bytes(status.BytesToAgent ?? 0)} of {Terminal.Bytes(status.ImageBytes)} fetched ({Share(status.BytesToAgent ?? 0, status.ImageBytes)})"));
            Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"{(status.RejuvenationMilliseconds is { } clean ? string.Create(CultureInfo.InvariantCulture, $"system layer put back to clean in {clean:0.0} ms") : "system layer kept as it was, as the policy says")}; accelerator {status.Accelerator}; lease until {status.LeaseEnds:yyyy-MM-dd HH:mm} UTC{(status.Offline ? "; offline" : "")}"));
            NoteAgent(status);
            foreach (var problem in status.HostProblems)
            {
                Terminal.Line($"this computer: {problem}");
            }
        });

        Task<LivePcStatus> BeginAsync() => player.WithPasswordAsync(name, secrets => Terminal.ProgressAsync($"starting {name}", report =>
            player.StartAsync(name, command, secrets, new Reporter<LivePcStatus>(status => report(double.NaN, Words(status))), cancellationToken)));
    }

    private static void NoteAgent(LivePcStatus status)
    {
        if (status.Agent == AgentState.None)
        {
            Terminal.Line("agent: none; its screen works ('nacre livepc console'), commands inside it do not, and its power button shuts it down");
        }
    }

    private static Command Stop()
    {
        var command = new Command("stop", "Shut a LivePC down") { Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var name = parsed.GetValue(Name)!;
            await Terminal.ProgressAsync($"stopping {name}", async report =>
            {
                report(double.NaN, "shutting the guest down");
                await Player().StopAsync(name, cancellationToken);
                return 0;
            });
        });
        return command;
    }

    private static Command Lock()
    {
        var command = new Command("lock", "Lock a running LivePC: it works on unseen until its password is given") { Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            await Player().LockAsync(parsed.GetValue(Name)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(Name)} is locked");
        });
        return command;
    }

    private static Command Unlock()
    {
        var command = new Command("unlock", "Unlock a running LivePC with its password") { Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            await Player().UnlockAsync(parsed.GetValue(Name)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(Name)} is unlocked");
        });
        return command;
    }

    private static Command Forget()
    {
        var yes = new Option<bool>("--yes") { Description = "Do it: what its user has in it and nowhere else is lost" };
        var command = new Command("forget", "Remove a LivePC from this computer: its keys, then its volumes; a next start begins anew") { Name, yes };
        command.SetAction(parsed =>
        {
            var name = parsed.GetValue(Name)!;
            if (!parsed.GetValue(yes))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, $"all that the user of '{name}' has in it is lost then: say --yes if that is meant");
            }

            Player().Forget(name);
            Terminal.Note($"{name} is not on this computer any more");
        });
        return command;
    }

    private static Command Postpone()
    {
        var command = new Command("postpone", "Put off by a day that an update starts by itself, as often as your company allows") { Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var name = parsed.GetValue(Name)!;
            var deadline = await Player().PostponeUpdateAsync(name, cancellationToken);
            Terminal.Result(new { deadline }, () => Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"{name} starts again by itself on {deadline:yyyy-MM-dd HH:mm} UTC; any start before that takes the update too")));
        });
        return command;
    }

    private static Command Extend()
    {
        var code = new Argument<string?>("CODE") { Description = "The code that the help desk reads out", Arity = ArgumentArity.ZeroOrOne };
        var command = new Command("extend", "Put off the end of a lease without a network: shows what to read to the help desk, and takes the code that it answers") { Name, code };
        command.SetAction(parsed =>
        {
            var name = parsed.GetValue(Name)!;
            if (parsed.GetValue(code) is not { } typed)
            {
                var request = Player().ExtensionRequest(name);
                Terminal.Result(new { request }, () => Terminal.Line(request));
                Terminal.Note($"read this and the name '{name}' to the help desk, then 'nacre livepc extend {name} CODE' with the code that you hear");
                return;
            }

            var ends = Player().Extend(name, typed);
            Terminal.Result(new { ends }, () => Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"the lease of {name} ends on {ends:yyyy-MM-dd HH:mm} UTC")));
        });
        return command;
    }

    private static Command Status()
    {
        var command = new Command("status", "Say what a LivePC does, and whether it would start without a network") { Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var status = await Player().StatusAsync(parsed.GetValue(Name)!, cancellationToken);
            Terminal.Result(status, () =>
            {
                Terminal.Line($"{status.Name}: {Lower(status.Phase)}{(status.Version is { } version ? $", release {version} of {status.Image}{With(status.Layers)}{(status.OnTrial ? ", on trial" : "")}" : "")}");
                if (status.LeaseWarning is { } warning)
                {
                    Terminal.Line(warning);
                }

                if (status.SetAside is { } aside)
                {
                    Terminal.Line(aside);
                }

                foreach (var reason in status.Locked)
                {
                    Terminal.Line($"locked: {reason}");
                }

                if (status.Phase == LivePcPhase.Paused)
                {
                    Terminal.Line($"paused: {status.Detail}");
                }
                else if (status.Phase == LivePcPhase.Abandoned)
                {
                    Terminal.Line($"its player was killed: 'nacre livepc start {status.Name}' goes on with its guest");
                }

                NoteAgent(status);
                if (status.StoredBytes > 0)
                {
                    var here = $"{Terminal.Bytes(status.PresentBytes)} of {Terminal.Bytes(status.StoredBytes)} here ({Share(status.PresentBytes, status.StoredBytes)})";
                    Terminal.Line(status.Presence switch
                    {
                        ReleasePresence.Streaming => $"streaming: {here}",
                        ReleasePresence.Usable => $"usable: what a start reads is here, the rest follows; {here}",
                        ReleasePresence.Complete => $"complete: starts without a network ({Terminal.Bytes(status.StoredBytes)} stored for {Terminal.Bytes(status.ImageBytes)})",
                    });
                }

                if (status.LeaseEnds is { } ends)
                {
                    Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"lease until {ends:yyyy-MM-dd HH:mm} UTC{(status.Offline ? ", taken offline" : "")}"));
                }

                if (status.PolicyFromNextStart.Count > 0)
                {
                    Terminal.Line($"policy: from the next start on {string.Join(", ", status.PolicyFromNextStart)}");
                }

                if (status.SupportContact is { } contact)
                {
                    Terminal.Line($"help: {contact}");
                }

                if (status.LogAsked is { } asked)
                {
                    Terminal.Line($"log: {asked}");
                }

                if (status.Update is { } update)
                {
                    Terminal.Line($"update: {update}");
                }

                foreach (var problem in new[] { status.Problem, status.LayerProblem, status.FreshnessProblem, status.MomentProblem, status.TrustProblem, status.LeaseProblem }.OfType<string>().Concat(status.TrustWarnings).Concat(status.Unenforceable).Concat(status.HostProblems))
                {
                    Terminal.Line($"problem: {problem}");
                }
            });
        });
        return command;
    }

    private static Command Update()
    {
        var retry = new Option<bool>("--retry") { Description = "Take corporate layers again that were set aside (E_SET_ASIDE)" };
        var from = new Option<string?>("--from") { Description = "A folder that 'nacre replica sync' made, such as one on a USB stick: what it has is not downloaded, and the server need not be reached for what the lease covers already" };
        var command = new Command("update", "Download the release and the application layers on offer; they start at the next start, under the user's layers, on trial") { Name, retry, from, UserPackages };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var name = parsed.GetValue(Name)!;
            var total = 0L;
            var result = await Terminal.ProgressAsync($"updating {name}", report => Player().UpdateAsync(
                name,
                parsed.GetValue(UserPackages) ?? UserPackageChoice.Postpone,
                planned =>
                {
                    total = planned.Bytes;
                    NoteDownload(name, planned);
                    foreach (var layer in planned.Layers)
                    {
                        Terminal.Note($"{name}: {Words(layer)}");
                    }
                },
                new Reporter<long>(fetched => report(total == 0 ? 1 : (double)fetched / total, $"{Terminal.Bytes(fetched)} of {Terminal.Bytes(total)}")),
                parsed.GetValue(retry) ? Retake.All : Retake.Left,
                isToStart: true,
                Folder(parsed.GetValue(from)),
                cancellationToken));
            if (result?.DeltaFailure is { } failure)
            {
                Terminal.Note($"{name}: whole chunks came in the place of a delta, which could not be used ({failure})");
            }

            Terminal.Result(result, () =>
            {
                Terminal.Line(result is null
                    ? $"{name} is up to date"
                    : $"{name}: release {result.To}{string.Concat(result.Layers.Where(layer => layer.To is not null).Select(layer => $" with {layer.Image} {layer.To}"))} is here ({Terminal.Bytes(result.Bytes)} downloaded) and starts at the next start");
                foreach (var conflict in result?.UserPackages?.Conflicts ?? [])
                {
                    Terminal.Line($"{conflict.Package} {conflict.Version} is taken out then{(parsed.GetValue(UserPackages) == UserPackageChoice.Reinstall ? " and installed again" : "")}: {conflict.Reason}");
                }

                if (result?.UserPackages?.Replaced is [_, ..] replaced)
                {
                    Terminal.Line($"the release has itself what you installed: {string.Join(", ", replaced)}");
                }
            });
        });
        return command;
    }

    private static void NoteDownload(string name, UpdateResult planned) => Terminal.Note(
        $"{name}: release {planned.From?.ToString(CultureInfo.InvariantCulture) ?? "-"} to {planned.To}: {Terminal.Bytes(planned.Bytes)} to download of {Terminal.Bytes(planned.ReleaseBytes)}"
        + (planned.SavedBytes > 0 ? $"; deltas save {Terminal.Bytes(planned.SavedBytes)}" : ""));

    private static Command Rollback()
    {
        var command = new Command("rollback", "Go back to the corporate layers from before the last update, as far as your company lets you; what is the user's stays") { Name, RejuvenationCommands.Yes, UserPackages };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var name = parsed.GetValue(Name)!;
            var player = Player();
            var plan = await Terminal.ProgressAsync($"looking what {name} can go back to", _ => player.PlanRollbackAsync(name, cancellationToken));
            Terminal.Note($"{name}: {plan.From} is left, and {plan.To} starts at the next start");
            Terminal.Note("  kept: the user's applications, settings and data, as they are then; a moment of them is taken before that start");
            Terminal.Note($"  it stays so until newer corporate layers are on offer, or 'nacre livepc update {name}' takes those that are left again");
            RejuvenationCommands.Confirm(parsed, "this goes back to earlier corporate layers");
            var total = 0L;
            var done = await Terminal.ProgressAsync($"going back on {name}", report => player.RollBackAsync(
                name,
                parsed.GetValue(UserPackages) ?? UserPackageChoice.Postpone,
                planned =>
                {
                    total = planned.Bytes;
                    NoteDownload(name, planned);
                },
                new Reporter<long>(fetched => report(total == 0 ? 1 : (double)fetched / total, $"{Terminal.Bytes(fetched)} of {Terminal.Bytes(total)}")),
                cancellationToken));
            Terminal.Result(done, () => Terminal.Line($"{name}: {done.To} is here and starts at the next start; {done.From} was left"));
        });
        return command;
    }

    private static string? Folder(string? name) => name is null || Directory.Exists(name)
        ? name is null ? null : Path.GetFullPath(name)
        : throw new NacreException(ErrorCatalogue.FileAccess, $"there is no folder '{name}'");

    private static Command Contact()
    {
        var command = new Command("contact", "Have a LivePC that runs ask the server for the administrator's orders now, instead of at its next contact") { Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var name = parsed.GetValue(Name)!;
            var orders = await Terminal.ProgressAsync($"asking for {name}", _ => Player().ContactAsync(name, cancellationToken));
            Terminal.Result(new { Orders = orders }, () => Terminal.Line(orders == 0
                ? $"{name}: nothing is ordered"
                : $"{name}: {(orders == 1 ? "an order is" : $"{orders} orders are")} carried out: its guest is warned, shut down in half a minute, and started again"));
        });
        return command;
    }

    private static Command Console()
    {
        var command = new Command("console", "Show how to see a LivePC's screen, and open it where a viewer is installed") { Name };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var socket = await Player().ScreenSocketAsync(parsed.GetValue(Name)!, cancellationToken);
            Terminal.Result(new { vnc = socket }, () =>
            {
                Terminal.Line($"screen (VNC): {socket}");
                Terminal.Line($"  TigerVNC:      vncviewer {socket}");
                Terminal.Line($"  any viewer:    socat TCP-LISTEN:5900,bind=127.0.0.1,fork UNIX-CONNECT:{socket}, then vncviewer 127.0.0.1:5900");
                Terminal.Line("                 (while socat runs, every user of this computer can see the screen)");
            });
            if (!System.Console.IsOutputRedirected && Environment.GetEnvironmentVariable("DISPLAY") is { Length: > 0 } && Viewer() is { } viewer)
            {
                using var process = System.Diagnostics.Process.Start(viewer, [socket]);
                await process.WaitForExitAsync(cancellationToken);
            }
        });
        return command;
    }

    private static Command Screenshot()
    {
        var file = new Argument<string>("FILE.png") { Description = "Where to save the picture" };
        var command = new Command("screenshot", "Save a LivePC's screen as a PNG file") { Name, file };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            await Player().ScreenshotAsync(parsed.GetValue(Name)!, parsed.GetValue(file)!, cancellationToken);
            Terminal.Note($"saved {parsed.GetValue(file)}");
        });
        return command;
    }

    private static Command Execute()
    {
        var words = new Argument<string[]>("COMMAND") { Description = "The program and its arguments, after --", Arity = ArgumentArity.OneOrMore };
        var command = new Command("exec", "Run a command as root inside a running LivePC through its guest agent, with this command's input and its exit code") { Name, words };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            byte[]? input = null;
            if (System.Console.IsInputRedirected)
            {
                using var buffer = new MemoryStream();
                await System.Console.OpenStandardInput().CopyToAsync(buffer, cancellationToken);
                input = buffer.ToArray();
            }

            var result = await Player().ExecuteAsync(parsed.GetValue(Name)!, parsed.GetValue(words)!, input, cancellationToken);
            await System.Console.OpenStandardOutput().WriteAsync(result.Output, cancellationToken);
            await System.Console.OpenStandardError().WriteAsync(result.Error, cancellationToken);
            return result.ExitCode;
        });
        return command;
    }

    private static string With(IReadOnlyList<string> layers) => layers.Count == 0 ? "" : $" with {string.Join(", ", layers)}";

    private static string Words(LayerChange layer) => layer.From is null ? $"application layer {layer.Image} {layer.To} is added"
        : layer.To is null ? $"application layer {layer.Image} is removed"
        : $"application layer {layer.Image}: release {layer.From} to {layer.To}";

    private static string? Viewer() => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':')
        .Select(folder => Path.Combine(folder, "vncviewer")).FirstOrDefault(File.Exists);

    private static string Words(LivePcStatus status) => status.Phase == LivePcPhase.Paused ? $"paused: {status.Detail}" : status.FetchedBytes > 0
        ? $"{status.Detail}, {Terminal.Bytes(status.FetchedBytes)} fetched"
        : status.Detail;

    private static string Lower(Enum value) => value.ToString().ToLowerInvariant();

    private static string Share(long part, long whole) => whole == 0 ? "-" : string.Create(CultureInfo.InvariantCulture, $"{100.0 * part / whole:0.0} %");
}

/// <summary>Reports at once, on the thread that has the news.</summary>
internal sealed class Reporter<T>(Action<T> report) : IProgress<T>
{
    public void Report(T value) => report(value);
}
