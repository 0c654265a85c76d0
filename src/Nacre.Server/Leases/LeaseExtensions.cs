using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Server;

/// <summary>The codes that the help desk reads to a user whose device can't reach the server.</summary>
internal sealed class LeaseExtensions(NacreDatabase database, AuditTrail audit, SecretBox secrets, Policies policies, TimeProvider time)
{
    public async Task<Result<LeaseExtension>> MakeAsync(ExtendLease untrusted, CancellationToken cancellationToken)
    {
        if (!ExtensionCode.TryReadRequest(untrusted.Request, out var prefix, out var counter) || !Names.IsValid(untrusted.LivePc) || untrusted.Hours is < 1 or > ExtensionCode.MostHours)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"'request' is what the device shows, such as 1f0c92ab-0, 'livePc' a LivePC's name, and 'hours' 1 to {ExtensionCode.MostHours}");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var devices = await database.Devices.AsNoTracking().Where(row => row.Id.StartsWith(prefix)).Take(2).ToListAsync(cancellationToken);
        if (devices is not [var device])
        {
            return devices.Count == 0 ? DeviceErrors.NoDevice : new Failure(ErrorCatalogue.RequestInvalid, "several devices begin with these digits");
        }

        if (device.RevokedAt is not null || await DeviceOrders.IsKilledAsync(database, device.Id, untrusted.LivePc, cancellationToken))
        {
            return new Failure(ErrorCatalogue.ExtensionRefused, $"device {device.Id} is revoked, or the LivePC was killed on it");
        }

        if (!await database.Entitlements.AnyAsync(row => row.LivePc == untrusted.LivePc && row.User == device.User, cancellationToken))
        {
            return LeaseErrors.NotEntitled;
        }

        var policy = await policies.ResolveAsync(device.User, untrusted.LivePc, device.Id, cancellationToken);
        var most = policy.Get(Settings.OfflineAllow) ? policy.Get(Settings.LeaseOfflineExtensionHours) : 0;
        if (untrusted.Hours > most)
        {
            return new Failure(ErrorCatalogue.ExtensionRefused, most == 0 ? "the policy lets no code extend a lease" : $"the policy lets a code extend a lease by at most {most} hours ('{Settings.LeaseOfflineExtensionHours}')");
        }

        if (await database.Shares.AsNoTracking().SingleOrDefaultAsync(row => row.DeviceId == device.Id && row.LivePc == untrusted.LivePc, cancellationToken) is not { } share)
        {
            return new Failure(ErrorCatalogue.NotFound, "this device never had a lease of this LivePC");
        }

        var now = time.Now();
        var until = ExtensionCode.LatestEnd(now, untrusted.Hours);
        await audit.AppendAsync(
            Roles.Administrator, "lease.extend", untrusted.LivePc, $"{untrusted.Hours} hours for device {device.Id} of {device.User}, code {counter}, until {until:u} at the latest", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new LeaseExtension(device.Id, ExtensionCode.Make(secrets.Reveal(share.Secret, "share", device.Id, untrusted.LivePc), device.Id, untrusted.LivePc, counter, untrusted.Hours, now), until);
    }
}
