using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;

namespace Nacre.Server;

/// <summary>The token of the organisation's replicas: it lets them learn which segments there are, and nothing else. The database knows its hash.</summary>
internal sealed class ReplicaToken
{
    private const string Setting = "replica-token-sha256";
    private byte[]? expected;

    public async Task LoadAsync(NacreDatabase database, CancellationToken cancellationToken)
    {
        var setting = await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken);
        expected = setting is null ? null : Convert.FromHexString(setting.Value);
    }

    public bool Matches(string untrustedToken) => expected is { } hash && CryptographicOperations.FixedTimeEquals(Hash(untrustedToken), hash);

    /// <summary>Makes a new one; the one before is void.</summary>
    public async Task<string> RenewAsync(NacreDatabase database, AuditTrail audit, CancellationToken cancellationToken)
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
        expected = hash;
        return token;
    }

    private static byte[] Hash(string token) => SHA256.HashData(Encoding.UTF8.GetBytes(token));
}
