using System.Text.Json;
using System.Text.Json.Nodes;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Nbd;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Player.Moments;
using Nacre.Player.Orders;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>Moments of the user's layers, before the guest starts and while it runs, and the administrator's orders.</content>
public sealed partial class LivePcSession
{
    /// <summary>How long a start waits for a server that does not answer.</summary>
    private static readonly TimeSpan OrderLimit = TimeSpan.FromSeconds(20);

    /// <summary>From the warning in the guest to its end.</summary>
    private static readonly TimeSpan OrderWarning = TimeSpan.FromSeconds(30);

    private readonly SemaphoreSlim momentTurn = new(1, 1), orderBell = new(0);
    private MomentStore? moments;
    private OrderDesk? desk;
    private NbdServer? disks; // disposed by the scope that made it
    private IReadOnlyList<RejuvenationOrder> heard = [];
    private TaskCompletionSource beginAnew = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Brings moments and orders up to date while no guest has the layers.</summary>
    private async Task PrepareMomentsAsync(OpenVolumes volumes, OpenedLease lease, EnrolledIdentity identity, NacreClient client)
    {
        TakeUpMoments(volumes, identity, client);
        if (await moments!.FinishAsync().ConfigureAwait(false) is { } finished)
        {
            Change(now => now with { FinishedRejuvenation = finished.Id });
            await CleanSystemAsync().ConfigureAwait(false);
        }

        if (lease.OfflineBecause is null)
        {
            await HearAsync(stopping.Token).ConfigureAwait(false);
        }

        foreach (var order in heard)
        {
            await CarryOutAsync(order).ConfigureAwait(false);
        }

        if (heard.Count > 0)
        {
            // With the receipts.
            heard = [];
            await HearAsync(stopping.Token).ConfigureAwait(false);
        }

        // A layer that no start has succeeded with may be half formatted: nothing to keep. Nor is there of what is given up at the end.
        var stack = releases!.Stack;
        if (!isDisposable && UserLayers.Of(kind).All(layer => folder.IsInUse(layer.Layer)))
        {
            if (folder.Started is { } last && !last.Equals(stack))
            {
                NoteMoment(moments.Take(MomentKind.Update, MomentName.Shorten($"before {stack}")));
            }
            else if (IsMomentDue())
            {
                NoteMoment(moments.Take(MomentKind.Schedule, null));
            }
        }

        moments.Retain(policy);

        if (!policy.Get(Settings.LayerRetainUserApps) && kind != ImageKind.Disk)
        {
            await moments.BlankAsync("applications").ConfigureAwait(false);
        }

        if (!isDisposable && !stack.Equals(folder.Started))
        {
            folder.Started = stack;
        }
    }

    /// <summary>Takes up the moments of layers that may be in use.</summary>
    private void TakeUpMoments(OpenVolumes volumes, EnrolledIdentity identity, NacreClient client)
    {
        desk = new OrderDesk(folder, identity, client);
        moments = OpenLayers.MomentsOf(volumes, folder, time);
        moments.Repair();
    }

    /// <summary>Asks the server; what it can't be asked now is asked at the next contact.</summary>
    /// <returns>Whether it answered.</returns>
    private async Task<bool> HearAsync(CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(OrderLimit);
        try
        {
            heard = await desk!.ContactAsync(limit.Token).ConfigureAwait(false);
            return true;
        }
        catch (NacreException exception)
        {
            // A server that can't be reached is said elsewhere, and is nothing wrong.
            Change(now => now with { MomentProblem = exception.Kind == ErrorCatalogue.ServerUnreachable ? now.MomentProblem : $"the server can't be asked for orders: {exception.Message}" });
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // At the next contact.
        }

        return false;
    }

    private async Task CarryOutAsync(RejuvenationOrder order)
    {
        log.Write(EventLevel.Warning, "order.heard", $"an administrator ordered a rejuvenation of {order.Depth.ToString().ToLowerInvariant()} (order {order.Id})");
        Report(LivePcPhase.Volumes, $"carrying out the administrator's order: {order.Depth.ToString().ToLowerInvariant()} is put back");
        OrderReceipt Receipt(bool succeeded, string detail)
        {
            log.Write(EventLevel.Warning, succeeded ? "order.done" : "order.failed", $"order {order.Id}: {detail}");
            return new(order.Id, succeeded, time.GetUtcNow(), detail.Length <= 400 ? detail : detail[..400]);
        }

        var known = moments!.List();
        if (known.FirstOrDefault(moment => moment.Order == order.Id) is { } done)
        {
            desk!.Finish(Receipt(true, $"the layers before it are kept as moment {done.Id}"));
            return;
        }

        try
        {
            var plan = RejuvenationPlan.Of(
                new RejuvenationRequest(order.Depth, order.To, order.Before, Order: order.Id), known, moments.BytesNow, policy, time.GetUtcNow());
            var before = plan.Actions.Count == 0 ? null : await moments.RejuvenateAsync(MomentKind.Rejuvenation, plan.Actions, order.Id).ConfigureAwait(false);
            await CleanSystemAsync().ConfigureAwait(false);
            desk!.Finish(Receipt(true, before is null ? "the system layer is clean" : !policy.Get(Settings.RejuvenateSnapshotBefore) ? "the layers before it were given up" : $"the layers before it are kept as moment {before.Id}"));
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotFound || exception.Kind == ErrorCatalogue.UsageInvalid)
        {
            desk!.Finish(Receipt(false, exception.Message));
        }
    }

    private Task CleanSystemAsync() => system?.CleanAsync() ?? Task.CompletedTask;

    private bool IsMomentDue() => policy.Get(Settings.SnapshotEveryHours) > 0
        && !(moments!.List() is [.., var newest] && time.GetUtcNow() - newest.Taken < TimeSpan.FromHours(policy.Get(Settings.SnapshotEveryHours)));

    /// <summary>Takes moments on schedule while the guest runs, and gives up those that the policy does not keep.</summary>
    private async Task KeepMomentsAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMinutes(1), time);
        try
        {
            while (await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false))
            {
                if (!IsMomentDue() || pause.IsPaused || guestLock.IsHeld)
                {
                    continue;
                }

                try
                {
                    await TakeMomentAsync(MomentKind.Schedule, null, cancellationToken).ConfigureAwait(false);
                    Change(now => now with { MomentProblem = null });
                }
                catch (NacreException exception)
                {
                    Change(now => now with { MomentProblem = $"no moment could be taken on schedule: {exception.Message}" });
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The guest ends.
        }
    }

    /// <summary>Follows the orders to rejuvenate, whenever the server said that there are orders. Not where that is heard: a kill does not wait for this one's warning.</summary>
    private async Task ListenForOrdersAsync(CancellationToken cancellationToken)
    {
        try
        {
            while (true)
            {
                await orderBell.WaitAsync(cancellationToken).ConfigureAwait(false);
                await HearAsync(cancellationToken).ConfigureAwait(false);
                await ObeyAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException)
        {
            // The guest ends.
        }
    }

    private void RingForOrders()
    {
        if (orderBell.CurrentCount == 0)
        {
            orderBell.Release();
        }
    }

    /// <summary>Where there is an order, warns the user, and has the guest shut down and started again, which carries it out.</summary>
    private async Task ObeyAsync(CancellationToken cancellationToken)
    {
        if (heard.Count == 0)
        {
            return;
        }

        Change(now => now with { Detail = "the administrator ordered a rejuvenation: the guest is about to be shut down and started again" });
        await WarnAsync(OrderWords(heard[0]), cancellationToken).ConfigureAwait(false);
        await Task.Delay(OrderWarning, time, cancellationToken).ConfigureAwait(false);
        beginAnew.TrySetResult();
    }

    private static string OrderWords(RejuvenationOrder order) => "Your administrator ordered this computer to be rejuvenated (" + order.Depth switch
    {
        RejuvenationDepth.System => "the system",
        RejuvenationDepth.Applications => "the system and your applications",
        RejuvenationDepth.Settings => "the system, your applications and settings",
        RejuvenationDepth.Data => "the system, your applications, settings and files",
        RejuvenationDepth.Moment => "everything, to an earlier moment",
        _ => "the system",
    } + $"). It shuts down in {OrderWarning.TotalSeconds:0} seconds and starts again. Save your work now.";

    /// <summary>Whether the guest that ended is to start again; makes this session ready for it.</summary>
    private bool TryBeginAnew()
    {
        if (!beginAnew.Task.IsCompleted || stopping.IsCancellationRequested)
        {
            return false;
        }

        beginAnew = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Forget();
        sinceCommand.Restart();
        Change(now => new LivePcStatus { Name = now.Name, Phase = LivePcPhase.Lease });
        return true;
    }

    /// <summary>Forgets a machine that has ended, before another one is started.</summary>
    private void Forget()
    {
        pause.Reset();
        releases?.Dispose();
        (releases, qmp, agent, moments, desk, disks, isUp, unhealthy) = (null, null, null, null, null, null, false, null);
    }

    /// <summary>After a player was killed: a guest that it had frozen goes on, and what it had shown the guest of a moment goes.</summary>
    private async Task RecoverMomentsAsync()
    {
        using var limit = new CancellationTokenSource(ReturnLimit, time);
        try
        {
            if (status.Agent == AgentState.None)
            {
                return;
            }

            if (await agent!.IsFrozenAsync(limit.Token).ConfigureAwait(false))
            {
                await agent.ThawAsync(limit.Token).ConfigureAwait(false);
            }

            if (kind != ImageKind.Disk)
            {
                await Views().CleanAsync(limit.Token).ConfigureAwait(false);
            }
        }
        catch (Exception exception) when (exception is NacreException or OperationCanceledException)
        {
            Change(now => now with { MomentProblem = $"what an earlier player left in the guest could not be taken back: {exception.Message}" });
        }
    }

    /// <summary>Takes a moment of a running guest, whose file systems stand still meanwhile.</summary>
    /// <exception cref="NacreException">GuestFailed, Paused, NoSpace.</exception>
    private async Task<TakenMoment> TakeMomentAsync(MomentKind why, string? label, CancellationToken cancellationToken)
    {
        RequireRunning();
        await momentTurn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            // The disk is waited for once the guest goes on.
            Moment Mark() => moments!.Mark(why, label);
            var taken = kind == ImageKind.Disk
                ? await FrozenGuest.TakeWholeAsync(status.Agent == AgentState.Answers ? agent : null, Mark, cancellationToken).ConfigureAwait(false)
                : await FrozenGuest.TakeAsync(agent!, Mark, cancellationToken).ConfigureAwait(false);
            moments!.Settle(taken.Moment);
            NoteMoment(taken.Moment);
            moments.Retain(policy);
            return taken;
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.GuestFailed)
        {
            RequireNotPaused(exception);
            throw;
        }
        finally
        {
            momentTurn.Release();
        }
    }

    private void RequireRunning()
    {
        RequireNotPaused(null);
        RequireNotLocked();
        if (status.Phase != LivePcPhase.Running || agent is null || moments is null)
        {
            throw NotYet();
        }
    }

    private MomentViews Views() => new(qmp!, disks!, folder.NbdSocket, agent!, moments!);

    private async Task<JsonNode?> HandleMomentAsync(string command, JsonObject arguments, CancellationToken cancellationToken)
    {
        string Text(string name) => arguments[name]?.GetValue<string>() ?? throw new NacreException(ErrorCatalogue.RequestInvalid, $"'{name}' is missing");
        string? TextOrNull(string name) => arguments[name]?.GetValue<string>();
        switch (command)
        {
            case "moments":
                var known = moments ?? throw NotYet();
                return JsonSerializer.SerializeToNode(new MomentList(known.List(), known.BytesNow, policy.Decided), ContractJson.Options);
            case "moment-take":
                MomentStore.RequireUserMayTake(policy);
                var label = TextOrNull("label") is { } untrusted ? MomentName.ParseLabel(untrusted) : null;
                return JsonSerializer.SerializeToNode(await TakeMomentAsync(MomentKind.User, label, cancellationToken).ConfigureAwait(false), ContractJson.Options);
            case "contact":
                RequireRunning();
                if (!await HearAsync(cancellationToken).ConfigureAwait(false))
                {
                    throw new NacreException(ErrorCatalogue.ServerUnreachable, "the server did not say whether anything is ordered");
                }

                RingForOrders();
                return JsonValue.Create(heard.Count);
        }

        RequireRunning();
        if (kind == ImageKind.Disk && command is "moment-compare" or "moment-browse" or "moment-restore")
        {
            throw new NacreException(ErrorCatalogue.MomentUnreadable, $"'{folder.Name}' is a whole disk, whose files nobody but its guest knows: it can be put back to a moment as a whole");
        }

        await momentTurn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            object? result = command switch
            {
                "moment-delete" => Delete(Text("moment")),
                "moment-compare" => await Views().CompareAsync(Text("moment"), TextOrNull("with"), cancellationToken).ConfigureAwait(false),
                "moment-browse" => await Views().BrowseAsync(Text("moment"), Text("path"), cancellationToken).ConfigureAwait(false),
                "moment-restore" => await Views().RestoreAsync(Text("moment"), Text("path"), TextOrNull("to"), cancellationToken).ConfigureAwait(false),
                _ => throw new NacreException(ErrorCatalogue.RequestInvalid, $"the player has no command '{command}'"),
            };
            return JsonSerializer.SerializeToNode(result, ContractJson.Options);
        }
        finally
        {
            momentTurn.Release();
        }
    }

    private Moment Delete(string name)
    {
        var moment = moments!.Find(name);
        moments.Delete(moment);
        return moment;
    }
}
