using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>The public half of the organisation's release signing key, with which manifests must be signed to be taken. Another takes its place only where the trust
/// metadata delegates to it: what devices believe is there, not here.</summary>
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
            if (existing == untrusted)
            {
                return existing;
            }

            if (!await TrustFiles.IsDelegatedAsync(database, untrusted, cancellationToken))
            {
                return new Failure(ErrorCatalogue.Immutable, "another release signing key is registered, and the trust metadata does not delegate to this one");
            }

            await database.Settings.Where(row => row.Name == Setting).ExecuteDeleteAsync(cancellationToken);
        }

        database.Settings.Add(new SettingRow { Name = Setting, Value = JsonSerializer.Serialize(untrusted, ContractJson.Options) });
        await audit.AppendAsync(Roles.Administrator, "signing-key.register", untrusted.X, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return untrusted;
    }
}
