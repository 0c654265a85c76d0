using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>The lease of a LivePC that runs, renewed with the policy that came with it.</content>
public sealed partial class LivePcSession
{
    private AcknowledgePolicy? acknowledged;

    /// <summary>Takes a lease anew: the policy of it holds at once. Where the server can't be reached, or grants none, the one that there is goes on.</summary>
    private async Task RenewLeaseAsync(CancellationToken cancellationToken)
    {
        try
        {
            using var identity = EnrolledIdentity.Open(paths);
            var taken = await OpenedLease.TakeAsync(identity, folder, book.Read().Needed, null, time, cancellationToken).ConfigureAwait(false);
            if (!taken.IsNew)
            {
                return;
            }

            policy = taken.Policy;
            Change(now => now with { LeaseEnds = taken.Ends });
            await AcknowledgePolicyAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException exception)
        {
            Change(now => now with { LeaseProblem = exception.Message });
        }
    }

    /// <summary>Tells the server which policy holds here, where that is news. What the server does not hear now it hears at the next contact.</summary>
    private async Task AcknowledgePolicyAsync(CancellationToken cancellationToken)
    {
        var unenforceable = policy.Get(Settings.MeteredBehaviour) == MeteredBehaviour.Pause && await host.IsMeteredAsync(cancellationToken).ConfigureAwait(false) is null
            ? [$"{Settings.MeteredBehaviour}: this computer does not say whether its network is metered"]
            : Array.Empty<string>();
        var waiting = Settings.All.Where(setting => setting.IsForNextStart && !setting.AreSame(policy.Get(setting), atStart.Get(setting))).Select(setting => setting.Name).ToList();
        Change(now => now with { PolicyVersion = policy.Version, PolicyFromNextStart = waiting, Unenforceable = unenforceable, LeaseProblem = null });
        var statement = new AcknowledgePolicy(policy.Version, waiting, unenforceable);
        if (acknowledged is { } before && before.Version == statement.Version && before.FromNextStart!.SequenceEqual(waiting) && before.Unenforceable!.SequenceEqual(unenforceable))
        {
            return;
        }

        try
        {
            using var identity = EnrolledIdentity.Open(paths);
            using var client = identity.Connect();
            await client.AcknowledgePolicyAsync(folder.Name, statement, cancellationToken).ConfigureAwait(false);
            acknowledged = statement;
        }
        catch (NacreException)
        {
            // The next contact says it.
        }
    }
}
