using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Server;

internal sealed class EnrolmentCodeRow
{
    public required string Id { get; init; }

    public required string User { get; init; }

    public required DateTimeOffset ExpiresAt { get; init; }

    /// <summary>Encrypted; gone once the code is used, expired or burned.</summary>
    public byte[]? Secret { get; set; }

    public int WrongProofs { get; set; }

    public DateTimeOffset? UsedAt { get; set; }

    /// <summary>SHA-256 of the request that used the code, and what was answered: for a device that lost the answer.</summary>
    public byte[]? Request { get; set; }

    public string? Answer { get; set; }
}

internal sealed class Enrolment(
    NacreDatabase database, AuditTrail audit, SecretBox secrets, LeaseSigner leaseSigner, ServerCertificates servers, DeviceCertificates certificates, Policies policies, ServerOptions options, TimeProvider time)
{
    private const int WrongProofsThatBurn = 10;
    private const long DefaultLife = 24 * 3600, LongestLife = 30 * 24 * 3600, OwnLife = 600;

    public async Task<Result<CreatedEnrolmentCode>> CreateCodeAsync(CreateEnrolmentCode untrusted, CancellationToken cancellationToken)
    {
        var life = untrusted.ValidForSeconds ?? DefaultLife;
        if (life is < 1 or > LongestLife)
        {
            return DeviceErrors.RequestInvalid("'validForSeconds' must be 1 to 2592000");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (!Names.IsValid(untrusted.User) || !await database.Users.AnyAsync(row => row.Name == untrusted.User, cancellationToken))
        {
            return new Failure(ErrorCatalogue.NotFound, "there is no such user");
        }

        if (await TrustFiles.FindRootAsync(database, cancellationToken) is null)
        {
            return DeviceErrors.NoRoot; // a device that has no root to begin with would have to take what it is told
        }

        EnrolmentCode code;
        do
        {
            code = EnrolmentCode.Create();
        }
        while (await database.EnrolmentCodes.AnyAsync(row => row.Id == code.Id, cancellationToken));

        var expires = time.Now().AddSeconds(life);
        database.EnrolmentCodes.Add(new EnrolmentCodeRow
        {
            Id = code.Id,
            User = untrusted.User,
            ExpiresAt = expires,
            Secret = secrets.Protect(Encoding.ASCII.GetBytes(code.Secret), "enrolment-code", code.Id),
        });
        await audit.AppendAsync(Roles.Administrator, "enrolment-code.create", code.Id, "for " + untrusted.User, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new CreatedEnrolmentCode(code.Reveal(), expires);
    }

    /// <summary>Makes a code for a device of the user who asks, where the policy lets users enrol their own.</summary>
    public async Task<Result<CreatedEnrolmentCode>> CreateOwnCodeAsync(string user, CancellationToken cancellationToken) =>
        (await policies.ResolveAsync(user, null, null, cancellationToken)).Get(Settings.EnrolmentBySelf)
            ? await CreateCodeAsync(new CreateEnrolmentCode(user, OwnLife), cancellationToken)
            : new Failure(ErrorCatalogue.Forbidden, $"your organisation hands out the codes for devices itself ('{Settings.EnrolmentBySelf}' is off): ask your administrator for one");

    public async Task<Result<EnrolledDevice>> EnrolAsync(EnrolDevice untrusted, CancellationToken cancellationToken)
    {
        if (!IsWellFormed(untrusted, out var reason))
        {
            return DeviceErrors.RequestInvalid(reason);
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var row = await database.EnrolmentCodes.SingleOrDefaultAsync(code => code.Id == untrusted.CodeId, cancellationToken);
        if (row is null)
        {
            EnrolmentCode.Create().Verify(untrusted.Proof, "request"); // as much work as for a code that exists
            return DeviceErrors.CodeWrong;
        }

        if (row.UsedAt is not null)
        {
            return CryptographicOperations.FixedTimeEquals(row.Request!, Digest(untrusted))
                ? JsonSerializer.Deserialize<EnrolledDevice>(row.Answer!, ContractJson.Options)!
                : DeviceErrors.CodeUsed;
        }

        if (row.WrongProofs >= WrongProofsThatBurn)
        {
            return DeviceErrors.CodeWrong;
        }

        if (row.Secret is null || time.Now() >= row.ExpiresAt)
        {
            row.Secret = null;
            await database.SaveChangesAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
            return DeviceErrors.CodeExpired;
        }

        var code = EnrolmentCode.FromParts(row.Id, Encoding.ASCII.GetString(secrets.Reveal(row.Secret, "enrolment-code", row.Id)));
        var key = untrusted.PublicKey;
        if (!code.Verify(untrusted.Proof, "request", untrusted.Parts))
        {
            await CountWrongProofAsync(row, cancellationToken);
            await transaction.CommitAsync(cancellationToken);
            return DeviceErrors.CodeWrong;
        }

        if (await database.Devices.AnyAsync(device => device.KeyX == key.X && device.KeyY == key.Y, cancellationToken))
        {
            return DeviceErrors.KeyEnrolled;
        }

        var policy = await policies.ResolveAsync(row.User, null, null, cancellationToken);
        var most = policy.Get(Settings.MaxDevicesPerUser);
        if (await database.Devices.CountAsync(device => device.User == row.User && device.RevokedAt == null, cancellationToken) >= most)
        {
            return DeviceErrors.TooMany(row.User, most);
        }

        var answer = await AcceptAsync(row, code, untrusted, policy.Get(Settings.EnrolmentApproval) == EnrolmentApproval.Manual, cancellationToken);
        if (answer.Failure is null)
        {
            await transaction.CommitAsync(cancellationToken);
        }

        return answer;
    }

    /// <summary>Removes the secrets of codes whose time is over.</summary>
    public Task ForgetExpiredAsync(CancellationToken cancellationToken)
    {
        var now = time.Now();
        return database.EnrolmentCodes.Where(row => row.Secret != null && row.ExpiresAt <= now)
            .ExecuteUpdateAsync(update => update.SetProperty(row => row.Secret, (byte[]?)null), cancellationToken);
    }

    private async Task<Result<EnrolledDevice>> AcceptAsync(EnrolmentCodeRow row, EnrolmentCode code, EnrolDevice request, bool waits, CancellationToken cancellationToken)
    {
        var now = time.Now();
        var device = new DeviceRow
        {
            Id = Text.RandomId(),
            Name = request.DeviceName,
            User = row.User,
            KeyX = request.PublicKey.X,
            KeyY = request.PublicKey.Y,
            EnrolledAt = now,
            IsWaiting = waits,
        };
        var root = await TrustFiles.FindRootAsync(database, cancellationToken);
        if (root is null)
        {
            return DeviceErrors.NoRoot;
        }

        var leaseKey = leaseSigner.PublicKey;
        var certificate = request.TlsKey is null ? null : certificates.Issue(device, request.TlsKey, null);
        var answer = new EnrolledDevice(device.Id, device.User, options.OrganisationName, root, leaseKey, "", servers.Authorities, certificate, waits);
        answer = answer with { Proof = code.Prove("answer", answer.PartsFor(request.Proof)) };
        database.Devices.Add(device);
        row.Secret = null;
        row.UsedAt = now;
        row.Request = Digest(request);
        row.Answer = JsonSerializer.Serialize(answer, ContractJson.Options);
        await audit.AppendAsync("code:" + row.Id, "device.enrol", device.Id, $"{device.Name} of {device.User}{(waits ? ", waits for approval" : "")}{(certificate is null ? "" : $", certificate {device.CertificateSerial}")}", cancellationToken);
        return answer;
    }

    private async Task CountWrongProofAsync(EnrolmentCodeRow row, CancellationToken cancellationToken)
    {
        row.WrongProofs++;
        var burned = row.WrongProofs >= WrongProofsThatBurn;
        if (burned)
        {
            row.Secret = null;
        }

        await audit.AppendAsync("code:" + row.Id, burned ? "enrolment-code.burn" : "enrolment-code.wrong-proof", row.Id, "for " + row.User, AuditResult.Refused, cancellationToken);
    }

    private static bool IsWellFormed(EnrolDevice untrusted, out string reason)
    {
        reason = untrusted switch
        {
            { CodeId: not { Length: 8 } } => "'codeId' must have 8 characters",
            { Proof: not { Length: > 0 and <= 100 } } => "'proof' is missing or too long",
            _ when !Text.IsLabel(untrusted.DeviceName, 64) => "'deviceName' must have 1 to 64 printable characters",
            _ when !PublicKeys.TryRead(untrusted.PublicKey, out _) => "'publicKey' is not a P-256 key",
            _ when untrusted.TlsKey is not null && !PublicKeys.TryRead(untrusted.TlsKey, out _) => "'tlsKey' is not a P-256 key",
            _ => "",
        };
        return reason.Length == 0;
    }

    private static byte[] Digest(EnrolDevice request) => SHA256.HashData(JsonSerializer.SerializeToUtf8Bytes(request, ContractJson.Options));
}
