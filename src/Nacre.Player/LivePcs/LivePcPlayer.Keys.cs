using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Keys;
using Nacre.Player.Leases;
using Nacre.Player.Stacks;

namespace Nacre.Player.LivePcs;

/// <content>The password of a LivePC.</content>
public sealed partial class LivePcPlayer
{
    private const int MostQuestions = 5;

    /// <summary>Does something that needs the LivePC's password, and asks for it: again where it was wrong, and for a new one where policy wants one.</summary>
    /// <exception cref="NacreException">What <paramref name="work"/> throws, where nothing else was given.</exception>
    public async Task<T> WithPasswordAsync<T>(string name, Func<KeySecrets, Task<T>> work)
    {
        ArgumentNullException.ThrowIfNull(work);
        SecretBytes? current = null, fresh = null;
        try
        {
            if (LivePcKeys.HasPassword(new LivePcFolder(paths, name)))
            {
                current = passwords?.Current(name, null);
            }

            for (var asked = 0; ; asked++)
            {
                try
                {
                    using var secrets = new KeySecrets { Password = current?.Copy(), New = fresh?.Copy() };
                    return await work(secrets).ConfigureAwait(false);
                }
                catch (NacreException exception) when (asked < MostQuestions && (exception.Kind == ErrorCatalogue.PasswordWrong || exception.Kind == ErrorCatalogue.PasswordNeeded))
                {
                    var again = passwords?.Current(name, exception.Message);
                    current?.Dispose();
                    if ((current = again) is null)
                    {
                        throw;
                    }
                }
                catch (NacreException exception) when (asked < MostQuestions && (exception.Kind == ErrorCatalogue.PasswordUnset || exception.Kind == ErrorCatalogue.PasswordWeak))
                {
                    var again = passwords?.Choose(name, exception.Message);
                    fresh?.Dispose();
                    if ((fresh = again) is null)
                    {
                        throw;
                    }
                }
            }
        }
        finally
        {
            current?.Dispose();
            fresh?.Dispose();
        }
    }

    /// <summary>Locks a LivePC that runs: it works on unseen until its password is given.</summary>
    /// <exception cref="NacreException">NotRunning.</exception>
    public Task LockAsync(string name, CancellationToken cancellationToken) => ControlSocket.RequestAsync(new LivePcFolder(paths, name).ControlSocket, "lock", null, cancellationToken);

    /// <summary>Opens that lock.</summary>
    /// <exception cref="NacreException">NotRunning; as <see cref="LivePcKeys.Open"/>.</exception>
    public Task UnlockAsync(string name, CancellationToken cancellationToken) => WithPasswordAsync(name, async secrets =>
    {
        var arguments = secrets.Password is null ? null : new JsonObject { ["password"] = Convert.ToBase64String(secrets.Password.Span) };
        return await ControlSocket.RequestAsync(new LivePcFolder(paths, name).ControlSocket, "unlock", arguments, cancellationToken).ConfigureAwait(false);
    });

    /// <summary>Removes a LivePC from this device: its keys first, so that what is left after an interruption is noise.</summary>
    /// <exception cref="NacreException">NotFound; AlreadyRunning; NotRunning: its guest runs without a player.</exception>
    public void Forget(string name)
    {
        var folder = new LivePcFolder(paths, name);
        if (!Directory.Exists(folder.Root))
        {
            throw new NacreException(ErrorCatalogue.NotFound, $"'{name}' is not on this device");
        }

        folder.Create();
        using (folder.Hold())
        {
            if (IsAbandoned(folder))
            {
                throw new NacreException(ErrorCatalogue.NotRunning, $"the player of '{name}' was killed; its guest waits for the next start, and can be stopped then");
            }

            LivePcKeys.Destroy(folder);
            Directory.Delete(folder.Root, recursive: true);
        }
    }

    /// <summary>Whether a password opens the LivePC.</summary>
    public bool HasPassword(string name) => LivePcKeys.HasPassword(new LivePcFolder(paths, name));

    /// <summary>Chooses another password, or removes it; works without a network while the lease lasts, and while the LivePC runs.</summary>
    /// <param name="name">The LivePC.</param>
    /// <param name="secrets">The current password or a recovery code, and the new password.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="NacreException">As <see cref="LivePcKeys.Open"/>; NotFound: it has not started here yet.</exception>
    public async Task ChangePasswordAsync(string name, KeySecrets secrets, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(secrets);
        var folder = new LivePcFolder(paths, name);
        using var identity = EnrolledIdentity.Open(paths);
        if (!File.Exists(folder.Keys))
        {
            throw new NacreException(ErrorCatalogue.NotFound, $"'{name}' has not started on this device yet: its first start asks for a password");
        }

        using var client = identity.Connect();
        var lease = await OpenedLease.TakeAsync(identity, folder, new StackBook(folder, time).Read().Needed, null, time, cancellationToken).ConfigureAwait(false);
        (await OpenLayers.OpenKeyAsync(folder, lease, identity, client, secrets, time, cancellationToken).ConfigureAwait(false)).Dispose();
    }
}
