using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Player.Clipboard;
using Nacre.Player.Machines;
using Nacre.Policies;
using Nacre.Volumes;

namespace Nacre.Player.LivePcs;

/// <content>With a running guest: waiting for it, staying with it, its pauses, and what is asked over the control socket.</content>
public sealed partial class LivePcSession
{
    private static readonly TimeSpan OutageLimit = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan PrefetchTick = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan ShutdownLimit = TimeSpan.FromSeconds(90);

    /// <summary>How long a guest that was up may take to answer the next player: its disks come back within 16 seconds at most (QEMU's pause
    /// between two attempts).</summary>
    private static readonly TimeSpan ReturnLimit = TimeSpan.FromSeconds(30);

    private Qmp? qmp;
    private GuestAgent? agent; // disposed by the scope that made it
    private volatile bool isUp;

    /// <summary>Stays with a QEMU that runs until the guest has ended, and sees to it that it has.</summary>
    private async Task ServeAsync(Qemu qemu, MachineRecord record)
    {
        using var guest = new GuestAgent(Qemu.AgentSocket(folder.Sockets));
        using var ending = new CancellationTokenSource();
        await using var screen = new ScreenDoor(folder.ScreenSocket, Qemu.ScreenSocket(folder.Sockets), idle.NoteActivity);
        var watching = Task.CompletedTask;
        (agent, machine) = (guest, qemu);
        try
        {
            if (qmp is null)
            {
                qmp = await ConnectQmpAsync(qemu).ConfigureAwait(false);
                qmp.EventRaised += pause.OnEvent;
                qmp.EventRaised += NoteShutdown;
            }

            watching = pause.RunAsync(qmp, ending.Token);
            if (isToLock)
            {
                await LockForPasswordAsync("it was locked before it started again", stopping.Token).ConfigureAwait(false);
            }
            else if (status.Adopted)
            {
                await guestLock.UnlockAsync(PasswordReason, stopping.Token).ConfigureAwait(false); // who went on with it gave the password
            }

            await guestLock.AttachAsync(screen).ConfigureAwait(false);
            await WaitForGuestAsync(qemu, record.IsUp).ConfigureAwait(false);
            record.Fresh.ToList().ForEach(folder.SetInUse);
            folder.UserPackages = null;
            folder.Machine = record with { IsUp = true };
            if (record.IsUp)
            {
                await RecoverMomentsAsync().ConfigureAwait(false);
            }

            await guestLock.AttachAsync(qmp, CancellationToken.None).ConfigureAwait(false);
            await using var channel = features.HasClipboard ? new ClipboardChannel(Qemu.ClipboardSocket(folder.Sockets), () => policy, time) : null;
            clipboard = channel;
            await EnforceDevicesAsync(record.IsUp, CancellationToken.None).ConfigureAwait(false);
            await StayAsync(qemu).ConfigureAwait(false);
        }
        finally
        {
            qemu.Kill();
            await qemu.Ended.ConfigureAwait(false);
            folder.Machine = null;
            clipboard = null;
            attached.Clear();
            guestLock.Forget();
            await ending.CancelAsync().ConfigureAwait(false);
            await watching.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            if (qmp is not null)
            {
                await qmp.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    /// <summary>A guest that shut down wrote everything down before.</summary>
    private void NoteShutdown(string name, JsonNode? data) => isShutDown |= name == "SHUTDOWN" && data?["reason"]?.GetValue<string>() == "guest-shutdown";

    /// <summary>Waits for the agent's first answer to this player.</summary>
    /// <param name="qemu">The machine.</param>
    /// <param name="wasUp">The agent answered an earlier player: then the guest is not ended for its silence now.</param>
    private async Task WaitForGuestAsync(Qemu qemu, bool wasUp)
    {
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(stopping.Token);
        var answered = agent!.WaitAsync(ending.Token);
        var (waited, outage) = (Stopwatch.StartNew(), Stopwatch.StartNew());
        var limit = wasUp ? ReturnLimit : options.StartLimit ?? TimeSpan.FromMinutes(policy.Get(Settings.UpdateHealthMinutes));
        var patience = kind != ImageKind.Disk ? Timeout.InfiniteTimeSpan
            : options.AgentLimit ?? GuestHealth.AgentLimit(status.Accelerator);
        bool HasNoAgent() => patience != Timeout.InfiniteTimeSpan && waited.Elapsed > patience && releases!.Failure is null && pause.IsSettled;
        while (!(answered.IsCompletedSuccessfully && pause.IsSettled) && !HasNoAgent() && !(wasUp && (waited.Elapsed > limit || stopping.IsCancellationRequested)))
        {
            var tick = Task.Delay(TimeSpan.FromMilliseconds(250), time, CancellationToken.None);
            await Task.WhenAny(answered.IsCompleted ? tick : answered, qemu.Ended, tick).ConfigureAwait(false);
            if (qemu.Ended.IsCompleted)
            {
                throw Ended(qemu, "the guest ended before its agent answered");
            }

            if (answered.IsFaulted)
            {
                await answered.ConfigureAwait(false);
            }

            if (!wasUp)
            {
                stopping.Token.ThrowIfCancellationRequested();
                RequireInTime(qemu, waited.Elapsed, limit);
                RequireRelease(outage);
            }

            // A paused guest can't answer; its pause is reported where it is seen. One that goes on may be paused again at once, by a disk that is
            // not connected again yet.
            if (pause.IsPaused)
            {
                waited.Stop();
            }
            else
            {
                waited.Start();
                Report(LivePcPhase.Booting, releases!.Failure is { } failure ? $"waiting for the server: {failure.Message}" : "waiting for the guest's agent");
            }
        }

        await ending.CancelAsync().ConfigureAwait(false);
        await answered.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        Change(now => now with { Agent = answered.IsCompletedSuccessfully ? AgentState.Answers : AgentState.None });

        // What runs in a guest whose inside nobody knows is nothing to ask for.
        if (wasUp || !status.OnTrial || kind == ImageKind.Disk || await AreUnitsActiveAsync(qemu, waited, limit).ConfigureAwait(false))
        {
            await ConfirmAsync().ConfigureAwait(false);
        }

        Refresh();
        Change(now => now with { SecondsToAgent = sinceCommand.Elapsed.TotalSeconds, BytesToAgent = now.FetchedBytes });
        log.Write(EventLevel.Information, "start.done", string.Create(CultureInfo.InvariantCulture, $"{releases!.Stack} is up after {status.SecondsToAgent:0.0} s, with {status.BytesToAgent} bytes fetched"));
        EndRecording(wasUp);
        isUp = true;
        Report(LivePcPhase.Running, "running");
    }

    private void RequireInTime(Qemu qemu, TimeSpan waited, TimeSpan limit)
    {
        if (waited > limit)
        {
            throw NotHealthy(ErrorCatalogue.TimedOut, $"the guest's agent did not answer within {limit.TotalMinutes:0} minutes", LastLines(qemu.ConsoleText));
        }
    }

    /// <summary>A guest that starts is ended where its release can't be read: it has nothing to lose yet.</summary>
    private void RequireRelease(Stopwatch outage)
    {
        if (releases!.Failure is not { } failure)
        {
            outage.Restart();
        }
        else if (failure.Kind != VolumeErrorKind.Io || outage.Elapsed > OutageLimit)
        {
            throw failure;
        }
    }

    private long FreeBytes()
    {
        try
        {
            return new DriveInfo(folder.Root).AvailableFreeSpace;
        }
        catch (IOException)
        {
            return 0;
        }
    }

    private void OnPause(string? why)
    {
        Change(now => now.Phase == LivePcPhase.Stopping ? now with { Problem = why is null ? null : $"the LivePC is paused: {why}" }
            : why is not null ? now with { Phase = LivePcPhase.Paused, Detail = why }
            : isUp ? now with { Phase = LivePcPhase.Running, Detail = "running" }
            : now with { Phase = LivePcPhase.Booting, Detail = "waiting for the guest's agent" });
        report(new PlayerReport(Refresh(), null, null));
    }

    /// <summary>Stays until the guest ends, or a stop is asked for.</summary>
    private async Task StayAsync(Qemu qemu)
    {
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(stopping.Token);
        var fetching = options.FetchRest ? FetchRestAsync(ending.Token) : Task.CompletedTask;
        var recording = SendRecordingAsync(ending.Token);
        var reporting = ReportAsync(ending.Token);
        var keeping = KeepMomentsAsync(ending.Token);
        var listening = ListenForOrdersAsync(ending.Token);
        var updating = KeepUpToDateAsync(ending.Token);
        var locking = WatchForLockAsync(ending.Token);
        var watchingHost = WatchHostAsync(ending.Token);
        var running = WatchLeaseAsync(ending.Token);
        var ordered = ListenForDeviceOrdersAsync(ending.Token);
        var late = status.Agent == AgentState.None ? ListenForAgentAsync(ending.Token) : Task.CompletedTask;
        var asked = Task.Delay(Timeout.Infinite, stopping.Token);
        await Task.WhenAny(qemu.Ended, asked, beginAnew.Task).ConfigureAwait(false);
        isToLock = guestLock.Has(PasswordReason);
        log.Write(EventLevel.Information, "guest.end", qemu.Ended.IsCompleted ? "the guest ended by itself" : "the guest is shut down");
        if (!qemu.Ended.IsCompleted && !isKilled)
        {
            Change(now => now with { Phase = LivePcPhase.Stopping, Detail = "shutting the guest down" });
            await ShutDownAsync(qemu).ConfigureAwait(false);
        }

        await ending.CancelAsync().ConfigureAwait(false);
        await Task.WhenAll(fetching, recording, reporting, keeping, listening, updating, locking, watchingHost, running, ordered, late).ConfigureAwait(false);
    }

    /// <summary>Fetches what is missing of the release, so that it starts without a network.</summary>
    private async Task FetchRestAsync(CancellationToken cancellationToken)
    {
        await filled.WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        while (true)
        {
            if (policy.Get(Settings.Prefetch) != Prefetch.Full)
            {
                if (!await WaitAsync(PrefetchTick, cancellationToken).ConfigureAwait(false))
                {
                    return;
                }

                continue; // the policy may be another one by then
            }

            try
            {
                await releases!.EnsureAllAsync(null, cancellationToken).ConfigureAwait(false);
                Change(now => now with { Presence = ReleasePresence.Complete, Problem = null });
                return;
            }
            catch (VolumeException exception)
            {
                Change(now => now with { Problem = VolumeErrors.OfRelease(exception).Message });
            }
            catch (OperationCanceledException)
            {
                return;
            }

            if (!await WaitAsync(TimeSpan.FromSeconds(15), cancellationToken).ConfigureAwait(false))
            {
                return;
            }
        }
    }

    private async Task<bool> WaitAsync(TimeSpan delay, CancellationToken cancellationToken)
    {
        try
        {
            await Task.Delay(delay, time, cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (OperationCanceledException)
        {
            return false; // the guest ends
        }
    }

    /// <summary>An agent that is installed later, or was slow.</summary>
    private async Task ListenForAgentAsync(CancellationToken cancellationToken)
    {
        try
        {
            await agent!.WaitAsync(cancellationToken).ConfigureAwait(false);
            Change(now => now with { Agent = AgentState.Answers });
        }
        catch (OperationCanceledException)
        {
            // The guest ends.
        }
    }

    private async Task ShutDownAsync(Qemu qemu)
    {
        using var limit = new CancellationTokenSource(ShutdownLimit);
        try
        {
            await guestLock.EndAsync(limit.Token).ConfigureAwait(false);
            if (status.Agent == AgentState.None)
            {
                // Its power button.
                await qmp!.ExecuteAsync("system_powerdown", null, limit.Token).ConfigureAwait(false);
            }
            else
            {
                await agent!.ShutDownAsync(limit.Token).ConfigureAwait(false);
            }

            await qemu.Ended.WaitAsync(limit.Token).ConfigureAwait(false);
        }
        catch (Exception exception) when (exception is OperationCanceledException or IOException or System.Net.Sockets.SocketException or JsonException or NacreException)
        {
            // A guest that does not shut down is switched off, as a computer would be; what it had flushed is kept.
            qemu.Kill();
        }
    }

    private async Task<Qmp> ConnectQmpAsync(Qemu qemu)
    {
        var path = Qemu.QmpSocket(folder.Sockets);
        var limit = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                return await Qmp.ConnectAsync(path, stopping.Token).ConfigureAwait(false);
            }
            catch (Exception exception) when (exception is System.Net.Sockets.SocketException or IOException or NacreException)
            {
                if (exception is NacreException || qemu.Ended.IsCompleted || limit.Elapsed > TimeSpan.FromSeconds(30))
                {
                    qemu.Kill();
                    await qemu.Ended.ConfigureAwait(false);
                    throw new NacreException(ErrorCatalogue.QemuFailed, $"QEMU did not start\n{LastLines(qemu.ErrorText)}", exception);
                }

                await Task.Delay(TimeSpan.FromMilliseconds(20), time, stopping.Token).ConfigureAwait(false);
            }
        }
    }

    private async Task<JsonNode?> HandleAsync(string command, JsonObject arguments, CancellationToken cancellationToken)
    {
        switch (command)
        {
            case "status":
                return JsonSerializer.SerializeToNode(Refresh(), ContractJson.Options);
            case "stop":
                await stopping.CancelAsync().ConfigureAwait(false);
                return null;
            case "execute":
                var words = arguments["words"]?.AsArray().Select(word => word!.GetValue<string>()).ToArray() ?? [];
                if (words.Length == 0)
                {
                    throw new NacreException(ErrorCatalogue.UsageInvalid, "no command was given");
                }

                var input = arguments["input"]?.GetValue<string>() is { } text ? Convert.FromBase64String(text) : null;
                var result = await ExecuteAsync(words, input, cancellationToken).ConfigureAwait(false);
                return JsonSerializer.SerializeToNode(result, ContractJson.Options);
            case "screen":
                RequireNotLocked();
                return null;
            case "screenshot":
                RequireNotLocked();
                var file = arguments["file"]?.GetValue<string>() ?? "";
                await Machine().ExecuteAsync("screendump", new JsonObject { ["filename"] = file, ["format"] = "png" }, cancellationToken).ConfigureAwait(false);
                return null;
            case "lock":
                await LockForPasswordAsync("locked by hand", cancellationToken).ConfigureAwait(false);
                return null;
            case "unlock":
                return await UnlockWithPasswordAsync(arguments, cancellationToken).ConfigureAwait(false);
            case "postpone":
                return JsonSerializer.SerializeToNode(await PostponeAsync(cancellationToken).ConfigureAwait(false), ContractJson.Options);
            default:
                return await HandleDeviceAsync(command, arguments, cancellationToken).ConfigureAwait(false);
        }
    }

    private async Task<GuestCommandResult> ExecuteAsync(string[] words, byte[]? input, CancellationToken cancellationToken)
    {
        RequireNotPaused(null);
        RequireNotLocked();
        if (status.Phase != LivePcPhase.Running || agent is null)
        {
            throw NotYet();
        }

        RequireAgent();
        idle.NoteActivity();
        try
        {
            return await agent.ExecuteAsync(words[0], words[1..], input, cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.GuestFailed)
        {
            log.Write(EventLevel.Warning, "guest.agent", exception.Message);
            RequireNotPaused(exception);
            throw;
        }
    }

    private void RequireAgent()
    {
        if (status.Agent == AgentState.None)
        {
            throw new NacreException(ErrorCatalogue.NoAgent, $"the guest of '{folder.Name}' has no agent that answers");
        }
    }

    private void RequireNotPaused(Exception? cause)
    {
        if (pause.IsPaused)
        {
            throw new NacreException(ErrorCatalogue.Paused, $"'{folder.Name}' is paused: {status.Detail}", cause);
        }
    }

    private Qmp Machine() => status.Phase is LivePcPhase.Running or LivePcPhase.Paused && qmp is { } connected ? connected : throw NotYet();

    private NacreException NotYet() => new(ErrorCatalogue.NotRunning, $"'{folder.Name}' does not run yet");

    private LivePcStatus Refresh()
    {
        if (releases is null)
        {
            return status;
        }

        var figures = releases.Statistics;
        return Change(now => now with
        {
            FetchedBytes = figures.FetchedBytes,
            FetchRequests = figures.Requests,
            PresentBytes = figures.PresentBytes,
            StoredBytes = figures.TotalBytes,
        });
    }

    private void Report(LivePcPhase phase, string detail)
    {
        NoteStep(phase, detail);
        Change(now => now with { Phase = phase, Detail = detail });
        report(new PlayerReport(Refresh(), null, null));
    }

    private LivePcStatus Change(Func<LivePcStatus, LivePcStatus> change)
    {
        LivePcStatus before, now;
        lock (gate)
        {
            before = status;
            now = status = change(before);
        }

        NoteChange(before, now);
        return now;
    }

    private static string LastLines(string text) => string.Concat(text.Split('\n', StringSplitOptions.RemoveEmptyEntries).TakeLast(12).Select(line => $"  {line.TrimEnd()}\n"));
}
