using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;

namespace Nacre.Server;

/// <summary>The token of the organisation's replicas: it lets them learn which segments there are, and nothing else. The database knows its hash.</summary>
internal sealed class ReplicaToken(NacreDatabase database, AuditTrail audit)
{
    private const string Setting = "replica-token-sha256";

    /// <summary>Asks the database each time: another server may have made a new one.</summary>
    public async Task<bool> MatchesAsync(string untrustedToken, CancellationToken cancellationToken) =>
        await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken) is { } setting
        && CryptographicOperations.FixedTimeEquals(Hash(untrustedToken), Convert.FromHexString(setting.Value));

    /// <summary>Makes a new one; the one before is void.</summary>
    public async Task<string> RenewAsync(CancellationToken cancellationToken)
    {
        var token = Text.Url(RandomNumberGenerator.GetBytes(32));
        var hash = Hash(token);
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var setting = await database.Settings.SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken);
        if (setting is null)
        {
            database.Settings.Add(new SettingRow { Name = Setting, Value = Text.Hex(hash) });
        }
        else
        {
            setting.Value = Text.Hex(hash);
        }

        await audit.AppendAsync(Roles.Administrator, "replica.token", "replica-token", "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return token;
    }

    private static byte[] Hash(string token) => SHA256.HashData(Encoding.UTF8.GetBytes(token));
}
