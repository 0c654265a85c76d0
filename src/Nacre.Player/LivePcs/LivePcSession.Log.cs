using System.Globalization;
using Nacre.Contracts;
using Nacre.Player.Keys;
using Nacre.Player.Logs;
using Nacre.Player.Moments;
using Nacre.Player.Orders;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>The log: what became of the LivePC, in the words that its status has.</content>
public sealed partial class LivePcSession
{
    private readonly HashSet<string> toldOfLogs = []; // orders
    private LivePcPhase stage = LivePcPhase.Stopped;
    private string? step;
    private long stageBegan; // a timestamp
    private Task sending = Task.CompletedTask; // of logs that were asked for

    /// <summary>The stages of a start with how long each took, and each step.</summary>
    private void NoteStep(LivePcPhase phase, string detail)
    {
        if (phase != stage)
        {
            if (stage is not (LivePcPhase.Stopped or LivePcPhase.Running or LivePcPhase.Paused))
            {
                log.Write(EventLevel.Information, "start.stage", string.Create(CultureInfo.InvariantCulture, $"{stage.ToString().ToLowerInvariant()} took {time.GetElapsedTime(stageBegan).TotalSeconds:0.0} s"));
            }

            (stage, stageBegan) = (phase, time.GetTimestamp());
        }

        if (detail != step)
        {
            step = detail;
            log.Write(EventLevel.Debug, "start.step", detail);
        }
    }

    private void NoteChange(LivePcStatus before, LivePcStatus now)
    {
        foreach (var reason in now.Locked.Except(before.Locked))
        {
            log.Write(EventLevel.Information, "lock", reason);
        }

        foreach (var reason in before.Locked.Except(now.Locked))
        {
            log.Write(EventLevel.Information, "unlock", reason);
        }

        foreach (var words in now.Unenforceable.Except(before.Unenforceable))
        {
            log.Write(EventLevel.Information, "policy.unenforceable", words);
        }

        foreach (var (name, was, words) in new[]
        {
            ("update.set-aside", before.SetAside, now.SetAside), ("layers.problem", before.LayerProblem, now.LayerProblem), ("layers.age", before.FreshnessProblem, now.FreshnessProblem),
            ("moment.problem", before.MomentProblem, now.MomentProblem), ("trust.problem", before.TrustProblem, now.TrustProblem), ("release.problem", before.Problem, now.Problem),
        })
        {
            if (words is not null && words != was)
            {
                log.Write(EventLevel.Warning, name, words);
            }
        }

        // Their words count the time: once is enough.
        if (before.LeaseProblem is null && now.LeaseProblem is { } refused)
        {
            log.Write(EventLevel.Warning, "lease.problem", refused);
        }

        if (before.LeaseWarning is null && now.LeaseWarning is { } warning)
        {
            log.Write(EventLevel.Warning, "lease.warning", warning);
        }

        if (before.Agent is null && now.Agent == AgentState.None)
        {
            log.Write(EventLevel.Warning, "guest.agent", "the guest has no agent that answers");
        }

        if ((before.Phase == LivePcPhase.Paused) != (now.Phase == LivePcPhase.Paused))
        {
            log.Write(EventLevel.Warning, now.Phase == LivePcPhase.Paused ? "guest.paused" : "guest.resumed", now.Detail);
        }
    }

    private void NoteMoment(Moment moment) => log.Write(EventLevel.Information, "moment.taken", $"{moment.Id} ({moment.Kind.ToString().ToLowerInvariant()})");

    /// <summary>What ended the start, or the LivePC. That something was wrong with a password has a line already.</summary>
    private void NoteFailure(NacreException exception)
    {
        var matters = exception.Kind == ErrorCatalogue.Cancelled || exception.Kind == ErrorCatalogue.AlreadyRunning || LivePcKeys.IsAboutSecrets(exception.Kind) ? EventLevel.Information : EventLevel.Error;
        log.Write(matters, isUp ? "failed" : "start.failed", $"{exception.Kind.Code}: {exception.Message}");
    }

    /// <summary>Sends the log that an administrator asked for, and tells the user in the guest.</summary>
    private async Task SendLogsAsync(DeviceOrderDesk desk, Task before, CancellationToken cancellationToken)
    {
        await before.ConfigureAwait(false);
        try
        {
            await desk.SendLogsAsync(order => _ = TellOfLogAsync(order, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
        catch (Exception exception) when (exception is NacreException or OperationCanceledException or IOException)
        {
            // At the next contact.
        }
    }

    private async Task TellOfLogAsync(DeviceOrderClaims order, CancellationToken cancellationToken)
    {
        if (!isUp || (order.LivePc is not null && order.LivePc != folder.Name) || !toldOfLogs.Add(order.Id))
        {
            return;
        }

        try
        {
            await WarnAsync(LogLine.Of(time.GetUtcNow(), folder.Name, EventLevel.Warning, LivePcLog.Asked, LivePcLog.WordsOf(order)).Text, cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // The guest ends.
        }
    }
}
