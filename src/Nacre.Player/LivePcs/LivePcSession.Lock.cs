using Nacre.Contracts;

namespace Nacre.Player.LivePcs;

/// <content>The lock: while there is a reason, the guest stands still and its screen is shown to nobody.</content>
public sealed partial class LivePcSession
{
    private readonly GuestLock guestLock;

    /// <summary>Locks the guest for a reason, until <see cref="UnlockAsync"/> is told the same one. Locking twice for one reason is locking once.</summary>
    /// <param name="reason">The reason's name: who locks unlocks by it, also after this player was killed and another one went on.</param>
    /// <param name="words">For a person: why, and what to do; null: the reason's name.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <exception cref="NacreException">QemuFailed: QEMU does not answer; the reason is kept.</exception>
    internal Task LockAsync(string reason, string? words = null, CancellationToken cancellationToken = default) => guestLock.LockAsync(reason, words ?? reason, cancellationToken);

    /// <summary>Takes a reason away; with the last one the guest goes on. One that there is not is nothing to do.</summary>
    /// <exception cref="NacreException">QemuFailed.</exception>
    internal Task UnlockAsync(string reason, CancellationToken cancellationToken = default) => guestLock.UnlockAsync(reason, cancellationToken);

    private void RequireNotLocked()
    {
        if (guestLock.IsHeld)
        {
            throw new NacreException(ErrorCatalogue.Locked, $"'{folder.Name}' is locked: {string.Join("; ", status.Locked)}");
        }
    }
}
