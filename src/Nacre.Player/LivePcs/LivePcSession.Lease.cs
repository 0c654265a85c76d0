using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>The lease of a LivePC that runs, run down: warnings, and the guest's end with all that it saved.</content>
public sealed partial class LivePcSession
{
    private static readonly TimeSpan LeaseTick = TimeSpan.FromSeconds(15);
    private readonly Stopwatch sinceLease = new();
    private DateTimeOffset leaseTakenAt; // by the clock then; what passed since is counted, whatever the clock shows
    private LeaseClaims? claims; // the newest lease's
    private TimeSpan? leaseWarned;
    private bool isSetBack, isOver; // and the server was asked

    private void NoteLease(OpenedLease taken)
    {
        (claims, leaseTakenAt, leaseWarned, isOver) = (taken.Claims, taken.IsNew ? DateTimeOffset.FromUnixTimeSeconds(taken.Claims.Iat) : time.GetUtcNow(), null, false);
        revision = taken.Revision;
        log.Write(
            taken.OfflineBecause is null ? EventLevel.Information : EventLevel.Warning, taken.IsNew ? "lease.renewed" : "lease.kept",
            $"the lease lasts until {taken.Ends:yyyy-MM-dd HH:mm} UTC{(taken.OfflineBecause is { } offline ? $"; the one that was kept is used: {offline.Message}" : "")}");
        sinceLease.Restart();
        Change(now => now with { SupportContact = Words(taken.Policy, Settings.SupportContact), Notice = Words(taken.Policy, Settings.MessagesStart) });
    }

    private async Task WatchLeaseAsync(CancellationToken cancellationToken)
    {
        try
        {
            using var timer = new PeriodicTimer(LeaseTick, time);
            do
            {
                await LookAtLeaseAsync(cancellationToken).ConfigureAwait(false);
            }
            while (await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false));
        }
        catch (OperationCanceledException)
        {
            // The guest ends.
        }
    }

    private async Task LookAtLeaseAsync(CancellationToken cancellationToken)
    {
        try
        {
            using var identity = EnrolledIdentity.Open(paths);
            var clock = new TrustedClock(identity, time);
            clock.Look();
            if (clock.SetBack is null)
            {
                isSetBack = false;
            }
            else if (!isSetBack)
            {
                // The server is asked once; then at the policy's interval, as always.
                isSetBack = true;
                await RenewLeaseAsync(cancellationToken).ConfigureAwait(false);
                clock = new TrustedClock(identity, time);
            }

            if (clock.SetBack is { } behind)
            {
                var words = $"this computer's clock was set back by {LeaseEnd.Span(behind)}";
                Change(now => now with { LeaseProblem = words });
                if (policy.Get(Settings.ClockTamperAction) == ClockTamperAction.Lock)
                {
                    await EndForAsync(words, cancellationToken).ConfigureAwait(false);
                    return;
                }
            }

            var left = Left(identity, clock);
            if (left <= TimeSpan.Zero && !isOver)
            {
                isOver = true;
                await RenewLeaseAsync(cancellationToken).ConfigureAwait(false);
                left = Left(identity, clock);
            }

            var until = new LeaseExtender(identity, folder).Until;
            var warning = LeaseEnd.WordsOf(claims!, policy, until, LeaseExtender.EndOf(claims!, until) - left);
            Change(now => now with { LeaseEnds = LeaseExtender.EndOf(claims!, until), LeaseWarning = warning });
            if (left > TimeSpan.Zero)
            {
                await WarnOfLeaseAsync(left, warning, cancellationToken).ConfigureAwait(false);
            }
            else if (claims!.Expires != claims.Exp || policy.Get(Settings.ExpirationRunningSession) == RunningSession.Stop)
            {
                await EndForAsync(warning ?? "the lease ended", cancellationToken).ConfigureAwait(false);
            }
        }
        catch (NacreException exception)
        {
            Change(now => now with { LeaseProblem = exception.Message }); // a full disk: the next look may do better
        }
    }

    private TimeSpan Left(EnrolledIdentity identity, TrustedClock clock)
    {
        var counted = leaseTakenAt + sinceLease.Elapsed;
        return LeaseExtender.EndOf(claims!, new LeaseExtender(identity, folder).Until) - (counted > clock.Now ? counted : clock.Now);
    }

    /// <summary>Warns once at each time that the policy names, where the lease could not be renewed.</summary>
    private async Task WarnOfLeaseAsync(TimeSpan left, string? words, CancellationToken cancellationToken)
    {
        var due = LeaseEnd.WarningOf(claims!, policy, left);
        if (due is not null && (leaseWarned is null || due < leaseWarned))
        {
            leaseWarned = due;
            await WarnAsync($"Without contact to your company's server {words}. Then this computer shuts down.", cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Shuts the guest down, with all that it saved.</summary>
    private async Task EndForAsync(string why, CancellationToken cancellationToken)
    {
        log.Write(EventLevel.Warning, "guest.shut-down", why);
        Change(now => now with { Detail = $"{why}: the guest is shut down" });
        await WarnAsync($"This computer shuts down now: {why}.", cancellationToken).ConfigureAwait(false);
        await stopping.CancelAsync().ConfigureAwait(false);
    }
}
