using System.Globalization;
using System.Security.Claims;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Contracts.Trust;

namespace Nacre.Server;

/// <summary>The newest recovery code of a LivePC on a device, with the LivePC's key: encrypted to a key that the server does not have.</summary>
internal sealed class EscrowRow
{
    public required string DeviceId { get; init; }

    public required string LivePc { get; init; }

    public required int Number { get; set; }

    public required string RecoveryKey { get; set; }

    public required string Keys { get; set; }

    public required DateTimeOffset At { get; set; }

    public DateTimeOffset? ReleasedAt { get; set; }

    public EscrowEntry ToContract() => new(DeviceId, LivePc, Number, RecoveryKey, At, ReleasedAt);
}

/// <summary>What devices hand over for who has forgotten a password. The server can't read it.</summary>
internal sealed class Recovery(NacreDatabase database, AuditTrail audit, TimeProvider time)
{
    public const string Setting = "recovery-key";
    private const int LongestKeys = 8 * 1024, LongestReason = 200;

    /// <summary>The organisation's recovery key as PEM; null: it has none.</summary>
    public async Task<string?> FindKeyAsync(CancellationToken cancellationToken) =>
        (await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken))?.Value;

    public async Task<Result<RecoveryKey>> PutKeyAsync(RecoveryKey untrusted, CancellationToken cancellationToken)
    {
        TrustKey key;
        try
        {
            key = TrustKey.Parse(untrusted.Pem ?? "");
        }
        catch (NacreException)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, "'pem' must be a P-256 public key as 'nacre recovery create-key' writes it");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Settings.SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken) is { } setting)
        {
            setting.Value = key.Pem;
        }
        else
        {
            database.Settings.Add(new SettingRow { Name = Setting, Value = key.Pem });
        }

        await audit.AppendAsync(Roles.Administrator, "recovery.key", key.Id, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new RecoveryKey(key.Pem);
    }

    public async Task<IReadOnlyList<EscrowEntry>> ListAsync(CancellationToken cancellationToken) =>
        (await database.Escrows.AsNoTracking().OrderBy(row => row.LivePc).ThenBy(row => row.DeviceId).Take(10_000).ToListAsync(cancellationToken)).ConvertAll(row => row.ToContract());

    /// <summary>Takes what a device hands over. The same again changes nothing; an older one is refused.</summary>
    public async Task<Result<Done>> PutAsync(string deviceId, string untrustedLivePc, PutEscrow untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.Number < 1 || untrusted.RecoveryKey is not { Length: 64 } || !untrusted.RecoveryKey.All(char.IsAsciiHexDigitLower)
            || untrusted.Keys is not { Length: > 0 and <= LongestKeys } || untrusted.Keys.Count(character => character == '.') != 4 || !untrusted.Keys.All(character => char.IsAsciiLetterOrDigit(character) || character is '.' or '-' or '_'))
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"an escrow has a 'number' of 1 or more, a 'recoveryKey' of 64 hexadecimal digits, and 'keys' as compact JWE of at most {LongestKeys} characters");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var device = await database.Devices.AsNoTracking().SingleAsync(row => row.Id == deviceId, cancellationToken);
        if (!await database.Entitlements.AnyAsync(row => row.LivePc == untrustedLivePc && row.User == device.User, cancellationToken))
        {
            return LeaseErrors.NotEntitled;
        }

        var row = await database.Escrows.SingleOrDefaultAsync(one => one.DeviceId == deviceId && one.LivePc == untrustedLivePc, cancellationToken);
        if (row is not null && row.Number >= untrusted.Number)
        {
            return row.Keys == untrusted.Keys
                ? default(Done)
                : new Failure(ErrorCatalogue.Immutable, string.Create(CultureInfo.InvariantCulture, $"there is recovery code {row.Number} of this device and LivePC already"));
        }

        if (row is null)
        {
            database.Escrows.Add(new EscrowRow { DeviceId = deviceId, LivePc = untrustedLivePc, Number = untrusted.Number, RecoveryKey = untrusted.RecoveryKey, Keys = untrusted.Keys, At = time.Now() });
        }
        else
        {
            (row.Number, row.RecoveryKey, row.Keys, row.At, row.ReleasedAt) = (untrusted.Number, untrusted.RecoveryKey, untrusted.Keys, time.Now(), null);
        }

        await audit.AppendAsync("device:" + deviceId, "recovery.escrow", untrustedLivePc, string.Create(CultureInfo.InvariantCulture, $"code {untrusted.Number} for key {untrusted.RecoveryKey[..12]}"), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    /// <summary>Gives out what a device handed over, to whoever has the recovery key, and writes down who asked and why.</summary>
    public async Task<Result<ReleasedEscrow>> ReleaseAsync(string untrustedDevice, string untrustedLivePc, ReleaseEscrow untrusted, CancellationToken cancellationToken)
    {
        if (!Text.IsLabel(untrusted.Reason, LongestReason))
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"'reason' must have 1 to {LongestReason} printable characters");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Escrows.SingleOrDefaultAsync(row => row.DeviceId == untrustedDevice && row.LivePc == untrustedLivePc, cancellationToken) is not { } row)
        {
            return new Failure(ErrorCatalogue.NoRecovery, "no device of that number has handed over a recovery code for that LivePC");
        }

        row.ReleasedAt = time.Now();
        await audit.AppendAsync(Roles.Administrator, "recovery.release", row.LivePc, string.Create(CultureInfo.InvariantCulture, $"code {row.Number} of device {row.DeviceId}: {untrusted.Reason}"), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new ReleasedEscrow(row.ToContract(), row.Keys);
    }
}

internal static class RecoveryEndpoints
{
    public static void Map(Groups groups)
    {
        groups.Of(Roles.Administrator, Roles.HelpDesk, Roles.Auditor).MapGet("/recovery/key", async (Recovery recovery, CancellationToken cancellationToken) =>
                (await recovery.FindKeyAsync(cancellationToken) is { } pem ? (Result<RecoveryKey>)new RecoveryKey(pem) : new Failure(ErrorCatalogue.NotFound, "the organisation has no recovery key")).ToHttp(TypedResults.Ok))
            .WithName("GetRecoveryKey").WithSummary("The organisation's recovery key.").Produces<RecoveryKey>().Fails(ErrorCatalogue.NotFound);
        groups.Administrator.MapPut("/recovery/key", async (RecoveryKey body, Recovery recovery, CancellationToken cancellationToken) =>
                (await recovery.PutKeyAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("PutRecoveryKey").WithSummary("Sets the organisation's recovery key; devices use it once the trust metadata vouches for it.")
            .Produces<RecoveryKey>().Fails(ErrorCatalogue.RequestInvalid);
        groups.Of(Roles.Administrator, Roles.HelpDesk, Roles.Auditor).MapGet("/recovery", (Recovery recovery, CancellationToken cancellationToken) => recovery.ListAsync(cancellationToken))
            .WithName("ListEscrows").WithSummary("Which devices have handed over a recovery code.");
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapPost("/devices/{device}/livepcs/{name}/recovery", async (string device, string name, ReleaseEscrow body, Recovery recovery, CancellationToken cancellationToken) =>
                (await recovery.ReleaseAsync(device, name, body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("ReleaseEscrow").WithSummary("Gives out a recovery code and a LivePC's key, which only the recovery key opens; the audit log says who asked and why.")
            .Produces<ReleasedEscrow>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NoRecovery);
        groups.Device.MapPut("/livepcs/{name}/escrow", async (string name, PutEscrow body, ClaimsPrincipal caller, Recovery recovery, CancellationToken cancellationToken) =>
                (await recovery.PutAsync(caller.FindFirstValue(ClaimTypes.NameIdentifier)!, name, body, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("PutEscrow").WithSummary("Hands over a recovery code and the LivePC's key, encrypted to the organisation's recovery key.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotEntitled, ErrorCatalogue.Immutable);
    }
}
