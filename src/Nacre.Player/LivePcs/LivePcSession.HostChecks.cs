using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.HostChecks;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>Checks of the computer around the LivePC: before the guest starts, and while it runs.</content>
public sealed partial class LivePcSession
{
    /// <summary>The lock's reason.</summary>
    internal const string HostReason = "host";

    /// <summary>How often the host of a LivePC that is locked because of it is looked at: its user is putting it right.</summary>
    private static readonly TimeSpan LockedInterval = TimeSpan.FromSeconds(20);

    private readonly SemaphoreSlim hostTurn = new(1, 1);
    private IReadOnlyList<HostCheckResult> hostChecks = [];

    /// <summary>Checks the host before a start.</summary>
    /// <exception cref="NacreException">HostCheckFailed: a check does not pass that has to.</exception>
    private async Task RequireHostAsync(EnrolledIdentity identity)
    {
        Report(LivePcPhase.Lease, "checking this computer");
        var results = await InspectAsync(identity, stopping.Token).ConfigureAwait(false);
        if (results.Where(result => result.Fails && result.Action >= CheckAction.Block).ToList() is [_, ..] failed)
        {
            await AcknowledgePolicyAsync(stopping.Token).ConfigureAwait(false);
            throw new NacreException(ErrorCatalogue.HostCheckFailed, $"this computer is not as your company wants it for '{folder.Name}'\n{string.Join('\n', failed.Select(result => $"  {result}"))}");
        }
    }

    /// <summary>Checks the host from time to time, and locks the guest while a check does not pass that has to.</summary>
    private async Task WatchHostAsync(CancellationToken cancellationToken)
    {
        try
        {
            // A player that went on with a guest has not looked yet.
            var due = status.Adopted ? time.GetUtcNow() : time.GetUtcNow() + Interval();
            using var timer = new PeriodicTimer(LockedInterval, time);
            var seen = policy.Version;
            do
            {
                if (policy.Version != seen || guestLock.IsHeld || time.GetUtcNow() >= due)
                {
                    seen = policy.Version;
                    await ObeyHostAsync(cancellationToken).ConfigureAwait(false);
                    due = time.GetUtcNow() + Interval();
                }
            }
            while (await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false));
        }
        catch (OperationCanceledException)
        {
            // The guest ends.
        }

        TimeSpan Interval() => policy.Get(Settings.HostCheckInterval) is > 0 and var minutes ? TimeSpan.FromMinutes(minutes) : TimeSpan.FromDays(36_500);
    }

    /// <summary>Checks the host of a guest that runs, and does what follows.</summary>
    private async Task<IReadOnlyList<HostCheckResult>> ObeyHostAsync(CancellationToken cancellationToken)
    {
        IReadOnlyList<HostCheckResult> results;
        using (var identity = EnrolledIdentity.Open(paths))
        {
            results = await InspectAsync(identity, cancellationToken).ConfigureAwait(false);
        }

        try
        {
            if (results.Where(result => result.Fails && result.Action == CheckAction.Lock).ToList() is [_, ..] failed)
            {
                await LockAsync(HostReason, string.Join("; ", failed), cancellationToken).ConfigureAwait(false);
            }
            else
            {
                await UnlockAsync(HostReason, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (NacreException exception)
        {
            // QEMU does not answer: tried again at the next look.
            Change(now => now with { HostProblems = [.. now.HostProblems, exception.Message] });
        }

        await AcknowledgePolicyAsync(cancellationToken).ConfigureAwait(false);
        return results;
    }

    private async Task<IReadOnlyList<HostCheckResult>> InspectAsync(EnrolledIdentity identity, CancellationToken cancellationToken)
    {
        await hostTurn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            var results = await new HostCheck(HostFacts.Real, paths, time).RunAsync(policy, identity, isForShow: false, cancellationToken).ConfigureAwait(false);
            foreach (var fresh in results.Where(result => result.Fails && !hostChecks.Any(before => before.Fails && before.Setting == result.Setting)))
            {
                log.Write(EventLevel.Warning, "host.check", $"{fresh}");
            }

            hostChecks = results;
            Change(now => now with { HostProblems = [.. results.Where(result => result.Fails).Select(result => $"{result}")] });
            return results;
        }
        finally
        {
            hostTurn.Release();
        }
    }
}
