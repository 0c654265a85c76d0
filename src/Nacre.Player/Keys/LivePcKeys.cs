using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Player.Devices;
using Nacre.Player.LivePcs;
using Nacre.Policies;

namespace Nacre.Player.Keys;

/// <summary>The key of a LivePC's volumes, in the file <c>keys.json</c> (SPEC.md beside this): random, and in slots of which each needs this device's secret and the lease's
/// share, and the user's password or a recovery code. Every change of it is one durable replacement of the file.</summary>
internal sealed class LivePcKeys
{
    private const int MostFormer = 23;
    private static readonly TimeSpan LongestWait = TimeSpan.FromMinutes(1);
    private readonly LivePcFolder folder;
    private readonly EnrolledIdentity identity;
    private readonly TimeProvider time;
    private readonly Attempts attempts;
    private readonly (int, int)? cost;

    /// <param name="folder">The LivePC.</param>
    /// <param name="identity">This device.</param>
    /// <param name="time">The clock.</param>
    /// <param name="cost">Of Argon2id; null: <see cref="KeySlots.Cost"/>.</param>
    /// <param name="boot">See <see cref="Attempts"/>.</param>
    public LivePcKeys(LivePcFolder folder, EnrolledIdentity identity, TimeProvider time, (int MemoryKiB, int Passes)? cost = null, string? boot = null)
    {
        this.folder = folder;
        this.identity = identity;
        this.time = time;
        this.cost = cost;
        attempts = new Attempts(folder, identity, time, boot);
    }

    /// <summary>Whether a password opens the LivePC, as far as the file says.</summary>
    public static bool HasPassword(LivePcFolder folder) => Read(folder)?.Find(KeySlotKind.Password) is not null;

    /// <summary>Whether an error is about what a person gave or has to give, and another try may be better.</summary>
    public static bool IsAboutSecrets(ErrorKind kind) => kind == ErrorCatalogue.PasswordNeeded || kind == ErrorCatalogue.PasswordWrong || kind == ErrorCatalogue.PasswordUnset
        || kind == ErrorCatalogue.PasswordWeak || kind == ErrorCatalogue.PasswordWait || kind == ErrorCatalogue.PasswordLocked || kind == ErrorCatalogue.NoRecovery;

    /// <summary>Keeps other commands from the keys: tries that are made at once are counted one by one. Whoever disposes the answer lets them in.</summary>
    /// <exception cref="NacreException">TimedOut.</exception>
    public async Task<IAsyncDisposable> HoldAsync(CancellationToken cancellationToken)
    {
        for (var began = time.GetTimestamp(); ;)
        {
            try
            {
                return new FileStream(folder.Keys + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException exception) when (time.GetElapsedTime(began) > LongestWait)
            {
                throw new NacreException(ErrorCatalogue.TimedOut, $"another command has been busy with the keys of '{folder.Name}' for {LongestWait.TotalSeconds:0} s", exception);
            }
            catch (IOException)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(50), time, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>The LivePC's key; made at the first start. While it is held.</summary>
    /// <param name="part">The device's and the lease's part.</param>
    /// <param name="policy">The lease's.</param>
    /// <param name="secrets">What its user gave.</param>
    /// <returns>The key, 32 bytes.</returns>
    /// <exception cref="NacreException">PasswordNeeded, PasswordWrong, PasswordUnset, PasswordWeak, PasswordWait, PasswordLocked; KeysDestroyed; VolumeDamaged.</exception>
    public SecretBytes Open(ReadOnlySpan<byte> part, Policy policy, KeySecrets secrets)
    {
        if (Read(folder) is not { } file)
        {
            if (Directory.Exists(Path.Combine(folder.Root, "volumes")) && UserLayers.Of(ImageKind.System).Any(layer => Directory.Exists(folder.Volume(layer.Layer))))
            {
                throw new NacreException(ErrorCatalogue.KeysDestroyed, $"the keys of '{folder.Name}' were destroyed");
            }

            return Create(part, policy, secrets);
        }

        var key = OpenSlot(file, part, policy, secrets);
        try
        {
            Change(file, key, part, policy, secrets);
            return key;
        }
        catch
        {
            key.Dispose();
            throw;
        }
    }

    /// <summary>Makes sure that the organisation can be given a recovery code: where it has none that holds, a new one is made. To be told to the server with
    /// <see cref="Undelivered"/>.</summary>
    /// <param name="key">The LivePC's key.</param>
    /// <param name="part">The device's and the lease's part.</param>
    /// <param name="recovery">The organisation's recovery key, which it vouches for; null: it has none.</param>
    public void PrepareRecovery(SecretBytes key, ReadOnlySpan<byte> part, TrustKey? recovery)
    {
        var file = Read(folder)!;
        if (recovery is null || (file.Escrow?.RecoveryKey == recovery.Id && file.Find(KeySlotKind.Recovery)?.Number == file.Escrow.Number))
        {
            return;
        }

        var number = (file.Escrow?.Number ?? 0) + 1;
        var code = TypedCode.Create(EscrowedKeys.CodeLength);
        var keys = new EscrowedKeys(identity.Record.DeviceId, folder.Name, number, code, Convert.ToBase64String(key.Span));
        var bytes = JsonSerializer.SerializeToUtf8Bytes(keys, ContractJson.Options);
        var sealedKeys = Jwe.Encrypt(bytes, recovery.PublicKey);
        CryptographicOperations.ZeroMemory(bytes);
        Write(file.With(KeySlots.Make(KeySlotKind.Recovery, file.Id, key.Span, part, Encoding.ASCII.GetBytes(code), number)) with
        {
            Escrow = new Escrow(recovery.Id, number, sealedKeys),
        });
    }

    /// <summary>What the server has not been told; null: nothing.</summary>
    public Escrow? Undelivered => Read(folder)?.Escrow is { Undelivered: not null } escrow ? escrow : null;

    /// <summary>The server has it.</summary>
    public void Delivered(int number)
    {
        if (Read(folder) is { Escrow: { } escrow } file && escrow.Number == number)
        {
            Write(file with { Escrow = escrow with { Undelivered = null } });
        }
    }

    /// <summary>Destroys the LivePC's keys: nothing opens its volumes any more but what the organisation was given. The file is overwritten before it is removed, which an SSD may
    /// not obey; without the lease's share, and with a key in the TPM, what it keeps is of no use.</summary>
    public static void Destroy(LivePcFolder folder)
    {
        if (new FileInfo(folder.Keys) is { Exists: true, LinkTarget: null } file)
        {
            using (var stream = new FileStream(folder.Keys, FileMode.Open, FileAccess.Write))
            {
                stream.Write(RandomNumberGenerator.GetBytes((int)file.Length));
                stream.Flush(flushToDisk: true);
            }
        }

        DurableFile.Delete(folder.Keys);
    }

    private SecretBytes Create(ReadOnlySpan<byte> part, Policy policy, KeySecrets secrets)
    {
        if (policy.Get(Settings.PasswordRequired) && secrets.New is null)
        {
            throw new NacreException(ErrorCatalogue.PasswordUnset, $"'{folder.Name}' has no password yet; it must have {PasswordRules.Words(policy)}");
        }

        using var fresh = new SecretBytes(KeySlots.KeySize);
        RandomNumberGenerator.Fill(fresh.Span);
        var file = new KeyFile(1, Guid.NewGuid(), [], null, [], null);
        Write(secrets.New is null ? file.With(KeySlots.Make(KeySlotKind.Device, file.Id, fresh.Span, part, [])) : WithPassword(file, fresh, part, policy, secrets.New));
        return fresh.Copy();
    }

    private SecretBytes OpenSlot(KeyFile file, ReadOnlySpan<byte> part, Policy policy, KeySecrets secrets)
    {
        if (file.Format != 1)
        {
            throw new NacreException(ErrorCatalogue.Unsupported, $"the keys of '{folder.Name}' have format {file.Format}");
        }

        if (secrets.UntrustedCode is not null)
        {
            return file.Find(KeySlotKind.Recovery) is not { } recovery
                ? throw new NacreException(ErrorCatalogue.NoRecovery, $"there is no recovery code of '{folder.Name}' that was not used: the last one was, or the organisation had no recovery key at the last start with a network")
                : !TypedCode.TryRead(secrets.UntrustedCode, EscrowedKeys.CodeLength, out var code)
                ? throw new NacreException(ErrorCatalogue.PasswordWrong, $"a recovery code has {EscrowedKeys.CodeLength} letters and digits")
                : policy.Get(Settings.PasswordRequired) && secrets.New is null
                ? throw Unset("a recovery code opens a LivePC once, to choose a new password", policy)
                : Try(file, recovery, part, policy, Encoding.ASCII.GetBytes(code), $"recovery code {recovery.Number} of '{folder.Name}' is another one");
        }

        if (file.Find(KeySlotKind.Password) is { } slot)
        {
            return secrets.Password is null
                ? throw new NacreException(ErrorCatalogue.PasswordNeeded, $"'{folder.Name}' opens with a password")
                : Try(file, slot, part, policy, secrets.Password.Span, $"that is not the password of '{folder.Name}'");
        }

        return (file.Find(KeySlotKind.Device) is { } device ? KeySlots.TryOpen(device, file.Id, part, []) : null)
            ?? throw new NacreException(ErrorCatalogue.VolumeDamaged, $"the keys of '{folder.Name}' do not open on this device: they are another's, or damaged");
    }

    private SecretBytes Try(KeyFile file, KeySlot slot, ReadOnlySpan<byte> part, Policy policy, ReadOnlySpan<byte> secret, string wrong)
    {
        var isRecovery = slot.Kind == KeySlotKind.Recovery;
        attempts.Begin(policy, file.Find(KeySlotKind.Recovery) is not null, isRecovery);
        if (KeySlots.TryOpen(slot, file.Id, part, secret) is { } key)
        {
            attempts.Succeed();
            return key;
        }

        if (policy.Get(Settings.MaxAttemptsAction) == AttemptsAction.Wipe && attempts.Failures(policy) >= policy.Get(Settings.MaxAttempts))
        {
            Destroy(folder);
            throw new NacreException(ErrorCatalogue.KeysDestroyed, $"{wrong}, and it was the last try: the keys of '{folder.Name}' were destroyed, as the organisation's policy says");
        }

        throw new NacreException(ErrorCatalogue.PasswordWrong, wrong + attempts.Words(policy));
    }

    /// <summary>Takes the new password, and a used code away; asks for a new one where policy wants it.</summary>
    private void Change(KeyFile file, SecretBytes key, ReadOnlySpan<byte> part, Policy policy, KeySecrets secrets)
    {
        var changed = secrets.UntrustedCode is null ? file : file.Without(KeySlotKind.Recovery);
        var required = policy.Get(Settings.PasswordRequired);
        if (secrets.New is { } fresh)
        {
            changed = WithPassword(changed, key, part, policy, fresh);
        }
        else if (secrets.RemovesPassword || (secrets.UntrustedCode is not null && !required))
        {
            if (required)
            {
                throw new NacreException(ErrorCatalogue.Forbidden, $"the organisation's policy wants a password for '{folder.Name}'");
            }

            changed = changed.Without(KeySlotKind.Password).With(KeySlots.Make(KeySlotKind.Device, file.Id, key.Span, part, [])) with { PasswordSince = null };
        }
        else if (required && file.Find(KeySlotKind.Password) is null)
        {
            throw Unset($"the organisation's policy wants a password for '{folder.Name}'", policy);
        }
        else if (required && policy.Get(Settings.PasswordMaxAgeDays) is > 0 and var days && file.PasswordSince is { } since && time.GetUtcNow() - since > TimeSpan.FromDays(days))
        {
            throw Unset($"the password of '{folder.Name}' is older than {days} days", policy);
        }

        if (changed != file)
        {
            Write(changed);
        }
    }

    private KeyFile WithPassword(KeyFile file, SecretBytes key, ReadOnlySpan<byte> part, Policy policy, SecretBytes password)
    {
        PasswordRules.Require(password.Span, policy);
        foreach (var former in file.Former.TakeLast(policy.Get(Settings.PasswordHistory)))
        {
            using var opened = KeySlots.TryOpen(former, file.Id, part, password.Span);
            if (opened is not null)
            {
                throw PasswordRules.Weak("was used before", policy);
            }
        }

        var (slot, mark) = KeySlots.MakePassword(file.Id, key.Span, part, password.Span, cost);
        return file.Without(KeySlotKind.Device).With(slot) with { PasswordSince = time.GetUtcNow(), Former = [.. file.Former.TakeLast(MostFormer), mark] };
    }

    private static NacreException Unset(string why, Policy policy) => new(ErrorCatalogue.PasswordUnset, $"{why}; it must have {PasswordRules.Words(policy)}");

    private static KeyFile? Read(LivePcFolder folder)
    {
        if (!File.Exists(folder.Keys))
        {
            return null;
        }

        return DurableFile.ReadJson<KeyFile>(folder.Keys) is { Slots: not null, Former: not null } file && file.Slots.Concat(file.Former).All(slot => slot is { Salt: not null, Nonce: not null, Wrapped: not null })
            ? file
            : throw new NacreException(ErrorCatalogue.VolumeDamaged, $"'{folder.Keys}' is damaged: without it nothing opens the volumes of '{folder.Name}', but the organisation's recovery key may ('nacre recovery key')");
    }

    private void Write(KeyFile file) => DurableFile.WriteJson(folder.Keys, file);
}
