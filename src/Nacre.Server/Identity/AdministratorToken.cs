using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;

namespace Nacre.Server;

/// <summary>The administrator's token: made at the first start, written to a file that only the owner reads; the database knows its hash.</summary>
internal sealed class AdministratorToken(DataDirectory directory)
{
    private const string Setting = "administrator-token-sha256";
    private byte[]? expected;

    public async Task EnsureAsync(NacreDatabase database, AuditTrail audit, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var setting = await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken);
        if (setting is null)
        {
            // The file first: a crash in between makes a new token at the next start, never a server without one.
            var token = Text.Url(RandomNumberGenerator.GetBytes(32));
            await WriteAsync(token, cancellationToken);
            setting = new SettingRow { Name = Setting, Value = Text.Hex(Hash(token)) };
            database.Settings.Add(setting);
            await audit.AppendAsync("server", "server.create", "administrator-token", "", cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }

        expected = Convert.FromHexString(setting.Value);
    }

    public bool Matches(string untrustedToken) => expected is not null && CryptographicOperations.FixedTimeEquals(Hash(untrustedToken), expected);

    private static byte[] Hash(string token) => SHA256.HashData(Encoding.UTF8.GetBytes(token));

    private async Task WriteAsync(string token, CancellationToken cancellationToken)
    {
        File.Delete(directory.AdministratorToken);
        var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, Options = FileOptions.Asynchronous };
        if (!OperatingSystem.IsWindows())
        {
            options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        }

        await using var file = new FileStream(directory.AdministratorToken, options);
        await file.WriteAsync(Encoding.ASCII.GetBytes(token + "\n"), cancellationToken);
        file.Flush(flushToDisk: true);
    }
}
