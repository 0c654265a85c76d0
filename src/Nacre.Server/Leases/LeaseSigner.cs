using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>The server's key for leases, and for what it says of anchors: made at the first start, encrypted in the database.</summary>
internal sealed class LeaseSigner(SecretBox secrets) : IDisposable
{
    private const string Setting = "lease-key";
    private readonly Lock gate = new();
    private ECDsa? key;

    public PublicKey PublicKey { get; private set; } = new("", "", "", "");

    public async Task EnsureAsync(NacreDatabase database, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var setting = await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken);
        key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        if (setting is null)
        {
            var fresh = key.ExportPkcs8PrivateKey();
            database.Settings.Add(new SettingRow { Name = Setting, Value = Convert.ToBase64String(secrets.Protect(fresh, Setting)) });
            CryptographicOperations.ZeroMemory(fresh);
            await database.SaveChangesAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        else
        {
            var pkcs8 = secrets.Reveal(Convert.FromBase64String(setting.Value), Setting);
            key.ImportPkcs8PrivateKey(pkcs8, out _);
            CryptographicOperations.ZeroMemory(pkcs8);
        }

        PublicKey = PublicKeys.From(key);
    }

    public string Sign(LeaseClaims claims) => Sign(claims, DeviceToken.LeaseType);

    public string Sign(AnchorClaims claims) => Sign(claims, AnchorClaims.Type);

    public string Sign(OrderClaims claims) => Sign(claims, OrderClaims.Type);

    public string Sign(DeviceOrderClaims claims) => Sign(claims, DeviceOrderClaims.Type);

    public string Sign(DeviceOrdersClaims claims) => Sign(claims, DeviceOrdersClaims.Type);

    public void Dispose() => key?.Dispose();

    private string Sign<T>(T claims, string type)
        where T : class
    {
        lock (gate) // the framework's keys are not for several threads at once
        {
            return Jws.SignClaims(claims, key ?? throw new InvalidOperationException("the server has not started"), type);
        }
    }
}
