using System.CommandLine;
using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Player.Keys;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre recovery</c>: the way back for who has forgotten a password. The private half of the recovery key stays offline.</summary>
internal static class RecoveryCommands
{
    private static readonly Argument<string> Device = new("DEVICE") { Description = "The device's number ('nacre device list')" };
    private static readonly Argument<string> LivePc = new("LIVEPC") { Description = "The LivePC" };
    private static readonly Option<string> Reason = new("--reason") { Description = "Why; it is written into the audit log", Required = true };
    private static readonly Option<string?> PassphraseFile = new("--passphrase-file") { Description = "A file with the key file's passphrase (default: it is asked for)" };

    public static Command Create() => new("recovery", "Help users who have forgotten their password, and read what a broken device has left") { CreateKey(), Set(), List(), Fetch(), Unlock(), Key() };

    private static Command CreateKey()
    {
        var file = new Argument<string>("FILE") { Description = "Where the private key goes, under a passphrase; FILE.pub is the public one" };
        var command = new Command("create-key", "Make a recovery key; keep FILE offline, and a copy of it: it opens every LivePC of the organisation") { file, PassphraseFile };
        command.SetAction(parsed =>
        {
            var key = TrustKeys.Create(parsed.GetValue(file)!, parsed.GetValue(PassphraseFile));
            Terminal.Result(new { key.Id }, () => Terminal.Line($"recovery key {key.Id[..12]}: {parsed.GetValue(file)}, public {parsed.GetValue(file)}.pub; 'nacre recovery set {parsed.GetValue(file)}.pub' gives it to devices"));
        });
        return command;
    }

    private static Command Set()
    {
        var file = new Argument<string>("FILE.pub") { Description = "The public key" };
        var keys = new Option<string[]>("--key") { Description = "A file with a targets key, where this computer's signing key is none (repeatable)", DefaultValueFactory = _ => [] };
        var command = new Command("set", "Make a key the organisation's recovery key: devices hand over a recovery code at their next start with a network") { file, keys, PassphraseFile };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var key = TrustKeys.ReadPublic(parsed.GetValue(file)!);
            using var client = Administration.Connect();
            var desk = new TrustDesk(client, TimeProvider.System);
            var signers = new List<ECDsa> { Administration.SigningKey() };
            try
            {
                signers.AddRange(parsed.GetValue(keys)!.Select(one => TrustKeys.Open(one, parsed.GetValue(PassphraseFile))));
                await desk.EnsureAsync(cancellationToken);
                var drafts = await desk.DraftAsync(new TrustChange { Recovery = key }, signers, cancellationToken);
                if (drafts.FirstOrDefault(draft => draft.Missing > 0) is { } draft)
                {
                    throw new NacreException(ErrorCatalogue.TrustNotAuthentic, $"the trust role '{draft.Role}' lacks {draft.Missing} signatures: give the files of its keys with --key");
                }

                await client.PutRecoveryKeyAsync(new RecoveryKey(key.Pem), cancellationToken);
                await desk.SendAsync(drafts, cancellationToken);
            }
            finally
            {
                signers.ForEach(one => one.Dispose());
            }

            Terminal.Result(new { key.Id }, () => Terminal.Line($"recovery key {key.Id[..12]} is the organisation's"));
        });
        return command;
    }

    private static Command List()
    {
        var command = new Command("list", "Show which devices have handed over a recovery code");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var entries = await client.ListEscrowsAsync(cancellationToken);
            Terminal.Result(entries, () => Terminal.Table(["DEVICE", "LIVEPC", "CODE", "KEY", "SINCE (UTC)", "GIVEN OUT (UTC)"], entries.Select(entry => new[]
            {
                entry.Device, entry.LivePc, entry.Number.ToString(CultureInfo.InvariantCulture), entry.RecoveryKey[..12], At(entry.At), entry.ReleasedAt is { } released ? At(released) : "-",
            })));
        });
        return command;

        static string At(DateTimeOffset time) => time.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture);
    }

    private static Command Fetch()
    {
        var output = new Option<string>("--output", "-o") { Description = "Where to write it", Required = true };
        var command = new Command("fetch", "Fetch what a device has handed over into a file, for 'recovery unlock --escrow' on a computer without a network") { Device, LivePc, Reason, output };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var released = await client.ReleaseEscrowAsync(parsed.GetValue(Device)!, parsed.GetValue(LivePc)!, parsed.GetValue(Reason)!, cancellationToken);
            await File.WriteAllBytesAsync(parsed.GetValue(output)!, JsonSerializer.SerializeToUtf8Bytes(released, ContractJson.Options), cancellationToken);
            Terminal.Note($"code {released.Entry.Number} of {released.Entry.LivePc} on device {released.Entry.Device} for recovery key {released.Entry.RecoveryKey[..12]}: {parsed.GetValue(output)}");
        });
        return command;
    }

    private static Command Unlock()
    {
        var (device, livePc, reason, escrow, key) = Sources();
        var command = new Command("unlock", "Show the recovery code that the help desk reads to a user, who types it into 'nacre livepc password LIVEPC --recovery'") { device, livePc, reason, escrow, key, PassphraseFile };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var (entry, keys) = await OpenAsync(parsed, device, livePc, reason, escrow, key, cancellationToken);
            Terminal.Result(new { entry.Device, entry.LivePc, entry.Number, Code = TypedCode.Show(keys.Code) }, () =>
            {
                Terminal.Line(TypedCode.Show(keys.Code));
                Terminal.Note($"recovery code {entry.Number} of {entry.LivePc} on device {entry.Device}; it works once, on that device only");
            });
        });
        return command;
    }

    private static Command Key()
    {
        var (device, livePc, reason, escrow, key) = Sources();
        var output = new Option<string>("--output", "-o") { Description = "Where to write the key (mode 0600); 'nacre volume … --key FILE' opens copies of the LivePC's volumes with it", Required = true };
        var command = new Command("key", "Write the key of a LivePC's volumes to a file: for what is left of a device that is broken") { device, livePc, reason, escrow, key, output, PassphraseFile };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var (entry, keys) = await OpenAsync(parsed, device, livePc, reason, escrow, key, cancellationToken);
            await using (var file = new FileStream(parsed.GetValue(output)!, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite }))
            {
                await file.WriteAsync(Convert.FromBase64String(keys.Key), cancellationToken);
            }

            Terminal.Note($"the key of {entry.LivePc} on device {entry.Device}: {parsed.GetValue(output)}");
        });
        return command;
    }

    private static (Argument<string?> Device, Argument<string?> LivePc, Option<string?> Reason, Option<string?> Escrow, Option<string> Key) Sources() => (
        new("DEVICE") { Description = "The device's number; not with --escrow", Arity = ArgumentArity.ZeroOrOne },
        new("LIVEPC") { Description = "The LivePC; not with --escrow", Arity = ArgumentArity.ZeroOrOne },
        new("--reason") { Description = "Why; it is written into the audit log" },
        new("--escrow") { Description = "A file that 'recovery fetch' wrote: needs no network" },
        new("--key", "-k") { Description = "The file of the recovery key", Required = true });

    private static async Task<(EscrowEntry Entry, EscrowedKeys Keys)> OpenAsync(
        ParseResult parsed, Argument<string?> device, Argument<string?> livePc, Option<string?> reason, Option<string?> escrow, Option<string> key, CancellationToken cancellationToken)
    {
        ReleasedEscrow? released;
        if (parsed.GetValue(escrow) is { } path)
        {
            try
            {
                released = JsonSerializer.Deserialize<ReleasedEscrow>(await File.ReadAllBytesAsync(path, cancellationToken), ContractJson.Options);
            }
            catch (JsonException)
            {
                released = null;
            }
        }
        else if (parsed.GetValue(device) is { } deviceId && parsed.GetValue(livePc) is { } name && parsed.GetValue(reason) is { } why)
        {
            using var client = Administration.Connect();
            released = await client.ReleaseEscrowAsync(deviceId, name, why, cancellationToken);
        }
        else
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "give DEVICE, LIVEPC and --reason, or --escrow FILE");
        }

        if (released is not { Entry: { } entry, Keys: not null })
        {
            throw new NacreException(ErrorCatalogue.FileAccess, "the file is none that 'nacre recovery fetch' wrote");
        }

        using var recovery = TrustKeys.Open(parsed.GetValue(key)!, parsed.GetValue(PassphraseFile));
        if (Jwe.TryDecrypt(released.Keys, recovery) is not { } bytes)
        {
            throw new NacreException(ErrorCatalogue.VolumeKeyWrong, $"it is for recovery key {entry.RecoveryKey}, and this is {TrustKey.From(recovery).Id}, or it was changed");
        }

        // The device that wrote it says whose it is; the server can't put one device's in another's place.
        var keys = JsonSerializer.Deserialize<EscrowedKeys>(bytes, ContractJson.Options);
        CryptographicOperations.ZeroMemory(bytes);
        return keys is not null && keys.Device == entry.Device && keys.LivePc == entry.LivePc && keys.Number == entry.Number && TypedCode.TryRead(keys.Code, EscrowedKeys.CodeLength, out _)
            ? (entry, keys)
            : throw new NacreException(ErrorCatalogue.ServerNotAuthentic, "what was handed over is of another device, LivePC or number than the server says");
    }
}
