using System.Globalization;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Moments;
using Nacre.Player.Releases;
using Nacre.Player.Stacks;
using Nacre.Player.Updates;
using Nacre.Player.UserPackages;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>Corporate layers that are on offer, downloaded and taken by themselves as the policy says.</content>
public sealed partial class LivePcSession
{
    private static readonly TimeSpan UpdateTick = TimeSpan.FromMinutes(1);

    /// <summary>A lease is renewed once an eighth of it is over, or this; before, where there is news.</summary>
    private static readonly TimeSpan LongestYouth = TimeSpan.FromHours(12);

    /// <summary>From the warning in the guest to its end, where the deadline of an update has come.</summary>
    private static readonly TimeSpan DeadlineWarning = TimeSpan.FromMinutes(5);

    private readonly HostConditions host = new();
    private DateTimeOffset? warnedAt; // of the deadline

    /// <summary>Renews the lease, with the policy; looks for updates, and meets the deadline of one that is here.</summary>
    private async Task KeepUpToDateAsync(CancellationToken cancellationToken)
    {
        // Not all devices at once.
        var (contactAt, isToLook) = (time.GetUtcNow() + (Interval() * (0.2 + (0.8 * Random.Shared.NextDouble()))), true);
        using var timer = new PeriodicTimer(UpdateTick, time);
        try
        {
            await AcknowledgePolicyAsync(cancellationToken).ConfigureAwait(false);
            await CleanCacheAsync(cancellationToken).ConfigureAwait(false);
            do
            {
                if (time.GetUtcNow() >= contactAt)
                {
                    if (await IsWithoutNewsAsync(cancellationToken).ConfigureAwait(false))
                    {
                        await AcknowledgePolicyAsync(cancellationToken).ConfigureAwait(false); // where that failed before
                    }
                    else
                    {
                        await RenewLeaseAsync(cancellationToken).ConfigureAwait(false);
                        await CleanCacheAsync(cancellationToken).ConfigureAwait(false);
                        isToLook = true;
                    }

                    contactAt = time.GetUtcNow() + Interval();
                    if (isToLook && policy.Get(Settings.UpdateApply) != UpdateMode.Manual)
                    {
                        isToLook = !await LookForUpdateAsync(cancellationToken).ConfigureAwait(false);
                    }
                }

                await MeetDeadlineAsync(cancellationToken).ConfigureAwait(false);
            }
            while (await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false));
        }
        catch (OperationCanceledException)
        {
            // The guest ends.
        }
    }

    /// <summary>Tells the server how far the layers have grown, and hears whether a renewal of the lease would change anything: most often it would not, and is left out for
    /// as long as the lease is young.</summary>
    private async Task<bool> IsWithoutNewsAsync(CancellationToken cancellationToken)
    {
        AnchorClaims? answer = null;
        try
        {
            answer = keeper is null ? null : await keeper.CheckInAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (ObjectDisposedException)
        {
            // The connection ended in this moment.
        }

        if (answer?.HasOrders == true)
        {
            await AttendDeviceOrdersAsync(cancellationToken).ConfigureAwait(false);
        }

        var issued = DateTimeOffset.FromUnixTimeSeconds(claims!.Iat);
        var youth = (DateTimeOffset.FromUnixTimeSeconds(claims.Exp) - issued) / 8;
        return answer?.IsLeaseCurrent == true && time.GetUtcNow() + Interval() - issued < (youth < LongestYouth ? youth : LongestYouth);
    }

    private async Task CleanCacheAsync(CancellationToken cancellationToken)
    {
        using var identity = EnrolledIdentity.Open(paths);
        await new CacheKeeper(paths, identity, time).TryCleanAsync(cancellationToken).ConfigureAwait(false);
    }

    private TimeSpan Interval() => TimeSpan.FromMinutes(policy.Get(Settings.PolicyRefreshInterval));

    /// <summary>Downloads what is on offer, while the policy lets it.</summary>
    /// <returns>Whether there is nothing more to do about it until there is news.</returns>
    private async Task<bool> LookForUpdateAsync(CancellationToken cancellationToken)
    {
        if (await WhyNotNowAsync(cancellationToken).ConfigureAwait(false) is { } reason)
        {
            Change(now => now with { Update = reason });
            return false;
        }

        using var allowed = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var watching = WatchAsync(allowed, ended.Token);
        try
        {
            var player = new LivePcPlayer(paths, null, time);
            var found = await player.UpdateAsync(
                folder.Name, folder.UserPackages ?? UserPackageChoice.Postpone, planned => Change(now => now with { Update = $"downloading release {planned.To}" }), new Ignored(), Retake.Nothing,
                isToStart: policy.Get(Settings.UpdateApply) != UpdateMode.Download, from: null, allowed.Token).ConfigureAwait(false);
            Change(now => now with { Update = Say(book.Read(), found) });
            return true;
        }
        catch (NacreException exception)
        {
            log.Write(EventLevel.Warning, "update.failed", exception.Message);
            Change(now => now with { Update = exception.Kind == ErrorCatalogue.ServerUnreachable ? null : exception.Message });
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            Change(now => now with { Update = "the download goes on when the policy lets it" });
        }
        finally
        {
            await ended.CancelAsync().ConfigureAwait(false);
            await watching.ConfigureAwait(false);
        }

        return false;
    }

    /// <summary>Ends a download when the window closes, the battery takes over or the network becomes metered; what is here stays.</summary>
    private async Task WatchAsync(CancellationTokenSource allowed, CancellationToken cancellationToken)
    {
        try
        {
            using var timer = new PeriodicTimer(UpdateTick / 2, time);
            while (await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false))
            {
                if (await WhyNotNowAsync(cancellationToken).ConfigureAwait(false) is not null)
                {
                    await allowed.CancelAsync().ConfigureAwait(false);
                    return;
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The download ended.
        }
    }

    /// <summary>Why nothing is downloaded now; null where it may be.</summary>
    private async Task<string?> WhyNotNowAsync(CancellationToken cancellationToken)
    {
        var local = TimeZoneInfo.ConvertTime(time.GetUtcNow(), time.LocalTimeZone);
        return policy.Get(Settings.UpdateWindow).Count > 0 && !policy.Get(Settings.UpdateWindow).Any(window => UpdateWindow.TryParse(window)!.Contains(local)) ? $"updates wait for their time: {string.Join(", ", policy.Get(Settings.UpdateWindow))}"
            : !policy.Get(Settings.PrefetchOnBattery) && host.IsOnBattery() ? "updates wait until this computer is plugged in"
            : policy.Get(Settings.MeteredBehaviour) == MeteredBehaviour.Pause && await host.IsMeteredAsync(cancellationToken).ConfigureAwait(false) == true ? "updates wait for a network that is not metered"
            : null;
    }

    /// <summary>Warns the user and starts again where an update that is here has waited for longer than the policy lets it.</summary>
    private async Task MeetDeadlineAsync(CancellationToken cancellationToken)
    {
        var state = book.Read();
        if (DeadlineOf(state) is not { } deadline || state.Trial!.Equals(releases!.Stack))
        {
            warnedAt = null;
            return;
        }

        var now = time.GetUtcNow();
        if (now < deadline)
        {
            warnedAt = null;
        }
        else if (warnedAt is null)
        {
            warnedAt = now;
            var left = policy.Get(Settings.UpdatePostponeMax) - state.Postponed;
            Change(status => status with { Detail = $"an update has to start: the guest is shut down and started again in {DeadlineWarning.TotalMinutes:0} minutes" });
            await WarnAsync(
                $"An update has to start: this computer shuts down in {DeadlineWarning.TotalMinutes:0} minutes and starts again. Save your work now."
                + (left > 0 ? $" 'nacre livepc postpone {folder.Name}' outside puts it off by a day." : ""), cancellationToken).ConfigureAwait(false);
        }
        else if (now - warnedAt >= DeadlineWarning)
        {
            warnedAt = null;
            beginAnew.TrySetResult();
        }
    }

    /// <summary>Puts the deadline of an update that is here off by a day.</summary>
    /// <returns>The new one.</returns>
    /// <exception cref="NacreException">NotFound: there is none. Forbidden: it was put off as often as the policy lets it.</exception>
    private async Task<DateTimeOffset> PostponeAsync(CancellationToken cancellationToken)
    {
        var state = book.Read();
        if (DeadlineOf(state) is null || state.Trial!.Equals(releases?.Stack))
        {
            throw new NacreException(ErrorCatalogue.NotFound, $"no update of '{folder.Name}' has a deadline");
        }

        if (state.Postponed >= policy.Get(Settings.UpdatePostponeMax))
        {
            throw new NacreException(ErrorCatalogue.Forbidden, $"the update was put off {state.Postponed} times, which is all that your company allows");
        }

        // From the deadline on, or from now where that is past.
        state = await book.ChangeAsync(now => now.Postpone(time.GetUtcNow() - TimeSpan.FromDays(policy.Get(Settings.UpdateDeadlineDays))), cancellationToken).ConfigureAwait(false);
        warnedAt = null;
        Change(now => now with { Update = Say(state, null), Detail = isUp ? "running" : now.Detail });
        return DeadlineOf(state)!.Value;
    }

    /// <summary>When the stack on trial has to start at the latest; null where nothing waits or the policy has no deadline.</summary>
    private DateTimeOffset? DeadlineOf(StackState state) => policy.Get(Settings.UpdateApply) == UpdateMode.Deadline && state is { Trial: not null, OfferedAt: { } offered, Failures: 0 }
        ? offered + TimeSpan.FromDays(policy.Get(Settings.UpdateDeadlineDays))
        : null;

    private string? Say(StackState state, UpdateResult? found)
    {
        if (state.Trial is null || state.Trial.Equals(releases?.Stack))
        {
            return found is null ? null : $"release {found.To} is here: 'nacre livepc update {folder.Name}' takes it";
        }

        return $"{state.Trial} is here and starts at the next start" + (DeadlineOf(state) is not { } deadline ? "" : string.Create(
            CultureInfo.InvariantCulture, $"; on {deadline:yyyy-MM-dd HH:mm} UTC this LivePC starts again by itself (can be put off {policy.Get(Settings.UpdatePostponeMax) - state.Postponed} times)"));
    }

    /// <summary>Says something to the user in the guest. A guest that does not listen is not asked.</summary>
    private async Task WarnAsync(string words, CancellationToken cancellationToken)
    {
        try
        {
            RequireAgent();
            await agent!.ExecuteAsync("/bin/sh", ["-c", GuestScripts.Warn, "nacre", words], null, cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException)
        {
            // It does not listen.
        }
    }

    private sealed class Ignored : IProgress<long>
    {
        public void Report(long value)
        {
        }
    }
}
