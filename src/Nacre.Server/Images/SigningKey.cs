using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>The public half of the organisation's release signing key. Registered once: devices trust it from their enrolment on.</summary>
internal sealed class SigningKey(NacreDatabase database, AuditTrail audit)
{
    private const string Setting = "release-signing-key";

    public static async Task<PublicKey?> FindAsync(NacreDatabase database, CancellationToken cancellationToken)
    {
        var setting = await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken);
        return setting is null ? null : JsonSerializer.Deserialize<PublicKey>(setting.Value, ContractJson.Options);
    }

    public async Task<Result<PublicKey>> GetAsync(CancellationToken cancellationToken) =>
        await FindAsync(database, cancellationToken) is { } key ? key : new Failure(ErrorCatalogue.NotFound, "no release signing key is registered yet");

    public async Task<Result<PublicKey>> PutAsync(PublicKey untrusted, CancellationToken cancellationToken)
    {
        if (!PublicKeys.TryRead(untrusted, out _))
        {
            return new Failure(ErrorCatalogue.RequestInvalid, "the body is not a P-256 public key");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await FindAsync(database, cancellationToken) is { } existing)
        {
            return existing == untrusted ? existing : new Failure(ErrorCatalogue.Immutable, "another release signing key is registered, and devices trust it");
        }

        database.Settings.Add(new SettingRow { Name = Setting, Value = JsonSerializer.Serialize(untrusted, ContractJson.Options) });
        await audit.AppendAsync(Roles.Administrator, "signing-key.register", untrusted.X, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return untrusted;
    }
}
