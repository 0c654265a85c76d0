using System.Diagnostics;
using System.Globalization;
using Nacre.Contracts;
using Nacre.Player.Machines;

namespace Nacre.Player.Moments;

/// <summary>A moment, and how long the guest's writers waited for it.</summary>
/// <param name="Moment">The moment.</param>
/// <param name="StoodStillMilliseconds">From asking the guest to stand still to its answer that it goes on: the most that a writer in it waited. 0 where no guest runs.</param>
public sealed record TakenMoment(Moment Moment, double StoodStillMilliseconds);

/// <summary>Takes moments of a running guest, whose file systems stand still meanwhile.</summary>
internal static class FrozenGuest
{
    /// <summary>Where the guest has the user's layers mounted.</summary>
    public static readonly IReadOnlyList<string> MountPoints = [.. MomentStore.Layers.Select(layer => $"{GuestScripts.Volumes}/{layer}")];

    /// <summary>Seconds after which the guest goes on by itself, whatever became of the player.</summary>
    private const int GuardSeconds = 30;

    /// <summary>How long the guest may take to stand still: less than the guard waits, so that a moment is never taken of one that goes on already.</summary>
    private static readonly TimeSpan FreezeLimit = TimeSpan.FromSeconds(20);

    /// <summary>How long a guest that does not answer is asked to go on.</summary>
    private static readonly TimeSpan ThawLimit = TimeSpan.FromSeconds(60);

    /// <summary>Takes a moment.</summary>
    /// <param name="agent">The guest's agent.</param>
    /// <param name="take">Takes it.</param>
    /// <param name="cancellationToken">Stops before the guest stands still.</param>
    /// <exception cref="NacreException">GuestFailed: the guest does not stand still; what <paramref name="take"/> throws. The guest goes on, whatever happened.</exception>
    public static async Task<TakenMoment> TakeAsync(GuestAgent agent, Func<Moment> take, CancellationToken cancellationToken)
    {
        // Written down before, so that little is left to be written while the writers wait.
        await agent.ExecuteAsync("/bin/sh", ["-c", GuestScripts.Flush, "nacre", .. MountPoints], null, cancellationToken).ConfigureAwait(false);
        var guard = await agent.StartAsync(
            "/bin/sh", ["-c", GuestScripts.Guard, "nacre", GuardSeconds.ToString(CultureInfo.InvariantCulture), .. MountPoints], cancellationToken).ConfigureAwait(false);
        cancellationToken.ThrowIfCancellationRequested();
        var still = Stopwatch.StartNew();
        try
        {
            var moment = await agent.WhileFrozenAsync(MountPoints, take, FreezeLimit, ThawLimit).ConfigureAwait(false);
            return new TakenMoment(moment, still.Elapsed.TotalMilliseconds);
        }
        finally
        {
            await UnguardAsync(agent, guard).ConfigureAwait(false);
        }
    }

    /// <summary>Takes a moment of a guest whose inside nobody knows. Where its agent can, its file systems stand still; else the moment is what a loss of power
    /// would have left, which every file system copes with.</summary>
    /// <param name="agent">Its agent; null where it has none.</param>
    /// <param name="take">Takes it.</param>
    /// <param name="cancellationToken">Stops before the guest stands still.</param>
    public static async Task<TakenMoment> TakeWholeAsync(GuestAgent? agent, Func<Moment> take, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (agent is not null)
        {
            var still = Stopwatch.StartNew();
            try
            {
                var moment = await agent.WhileFrozenAsync(null, take, FreezeLimit, ThawLimit).ConfigureAwait(false);
                return new TakenMoment(moment, still.Elapsed.TotalMilliseconds);
            }
            catch (NacreException exception) when (exception.Kind == ErrorCatalogue.GuestFailed)
            {
                // An agent that does not know how.
            }
        }

        return new TakenMoment(take(), 0);
    }

    private static async Task UnguardAsync(GuestAgent agent, long guard)
    {
        try
        {
            await agent.ExecuteAsync("/bin/sh", ["-c", GuestScripts.Unguard, "nacre", guard.ToString(CultureInfo.InvariantCulture)], null, CancellationToken.None).ConfigureAwait(false);
        }
        catch (NacreException)
        {
            // It ends by itself.
        }
    }
}
