using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Keys;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>The lock that the password opens: by hand, and by itself as policy says. The guest works on, unseen.</content>
public sealed partial class LivePcSession
{
    private const string PasswordReason = "password";
    private static readonly TimeSpan LockTick = TimeSpan.FromSeconds(15);
    private readonly IdleWatch idle;
    private bool isToLock; // the guest was locked when this player began to start it again

    /// <summary>Locks where nobody has used the LivePC for long, and for the other reasons that policy has.</summary>
    private async Task WatchForLockAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(LockTick, time);
        idle.NoteActivity();
        try
        {
            do
            {
                if (!LivePcKeys.HasPassword(folder))
                {
                    continue; // nothing could be asked for
                }

                var isHostLocked = policy.Get(Settings.LockOnHostLock) ? await host.IsScreenLockedAsync(cancellationToken).ConfigureAwait(false) : null;
                if (idle.Due(policy, isHostLocked) is { } reason)
                {
                    await TryLockAsync(reason, cancellationToken).ConfigureAwait(false);
                }
            }
            while (await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false));
        }
        catch (OperationCanceledException)
        {
            // The guest ends.
        }
    }

    private async Task TryLockAsync(string reason, CancellationToken cancellationToken)
    {
        try
        {
            if (!guestLock.Has(PasswordReason))
            {
                await LockForPasswordAsync(reason, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (NacreException)
        {
            // The disk is full, or the machine is ending: the reason is there at the next tick too.
        }
    }

    private Task LockForPasswordAsync(string reason, CancellationToken cancellationToken) =>
        guestLock.LockAsync(PasswordReason, $"{reason}: 'nacre livepc unlock {folder.Name}' asks for its password", standsStill: false, cancellationToken);

    /// <summary>Opens the lock, if what was given opens the LivePC's keys.</summary>
    private async Task<JsonNode?> UnlockWithPasswordAsync(JsonObject arguments, CancellationToken cancellationToken)
    {
        using var identity = EnrolledIdentity.Open(paths);
        using var client = identity.Connect();
        using var given = arguments["password"]?.GetValue<string>() is { } text ? SecretBytes.Take(Convert.FromBase64String(text)) : null;
        using var unlocking = new KeySecrets { Password = given };
        (await OpenLayers.OpenKeyAsync(folder, lease!, identity, client, unlocking, time, cancellationToken).ConfigureAwait(false)).Dispose();
        idle.NotePassword();
        await guestLock.UnlockAsync(PasswordReason, cancellationToken).ConfigureAwait(false);
        return null;
    }
}
