using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.HostChecks;
using Nacre.Player.Leases;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>Checks of this computer.</content>
public sealed partial class LivePcPlayer
{
    /// <summary>Checks this computer as the policy of a LivePC wants it; one that runs is locked or goes on as its player finds.</summary>
    /// <param name="name">The LivePC, whose newest kept lease counts; null: none, and every check that Nacre knows is shown with the factory's limits.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="NacreException">NotEnrolled; NotFound: the device has no lease of it that holds.</exception>
    public async Task<IReadOnlyList<HostCheckResult>> CheckHostAsync(string? name, CancellationToken cancellationToken)
    {
        var check = new HostCheck(HostFacts.Real, paths, time);
        if (name is null)
        {
            return await check.RunAsync(Policy.Factory, null, isForShow: true, cancellationToken).ConfigureAwait(false);
        }

        var folder = new LivePcFolder(paths, name);
        using var identity = EnrolledIdentity.Open(paths);
        try
        {
            await ControlSocket.RequestAsync(folder.ControlSocket, "host-check", null, cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotRunning)
        {
            // Nothing to lock.
        }

        var lease = OpenedLease.TryOpenKept(identity, folder, time) ?? throw new NacreException(ErrorCatalogue.NotFound, $"this device has no lease of '{name}' that holds; 'nacre livepc start {name}' takes one");
        return await check.RunAsync(lease.Policy, identity, isForShow: true, cancellationToken).ConfigureAwait(false);
    }
}
