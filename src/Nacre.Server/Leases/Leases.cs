using System.Security.Claims;
using System.Security.Cryptography;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Server;

/// <summary>The server's part of the key of one device's user volumes of one LivePC; never changes.</summary>
internal sealed class ShareRow
{
    public required string DeviceId { get; init; }

    public required string LivePc { get; init; }

    public required byte[] Secret { get; init; }
}

/// <summary>A lease that was given.</summary>
internal sealed class LeaseRow
{
    public required string Id { get; init; }

    public required string DeviceId { get; init; }

    public required string LivePc { get; init; }

    public required int Version { get; init; }

    public required int? InstalledVersion { get; init; }

    public required DateTimeOffset IssuedAt { get; init; }

    public required DateTimeOffset ExpiresAt { get; init; }
}

/// <summary>A release that a lease covers: the device has it, or is about to.</summary>
internal sealed class LeasedReleaseRow
{
    public required string LeaseId { get; init; }

    public required string Image { get; init; }

    public required int Version { get; init; }
}

/// <summary>What may be news for a device, all that it asks each hour; <c>WasOrdered</c>: whether there ever was a revoke or kill for it; <c>Anchors</c>: what is known of its
/// layers.</summary>
internal sealed record News(bool IsRevoked, bool IsEntitled, string Revision, bool IsRollingOut, bool WasOrdered, bool IsToRejuvenate, List<AnchorRow> Anchors);

internal static class LeaseErrors
{
    /// <summary>The same for a LivePC that is not there: names are not for everyone.</summary>
    public static Failure NotEntitled { get; } = new(ErrorCatalogue.NotEntitled, "this device's user is not entitled to such a LivePC");

    public static Failure ChannelEmpty(string image, string channel) => new(ErrorCatalogue.ChannelEmpty, $"channel '{channel}' of '{image}' has no release yet");

    public static Failure Killed { get; } = new(ErrorCatalogue.LivePcKilled, "the LivePC was killed on this device");

    public static Failure Expired(DateTimeOffset end) => new(ErrorCatalogue.LivePcExpired, string.Create(System.Globalization.CultureInfo.InvariantCulture, $"this LivePC ended for its user on {end:yyyy-MM-dd HH:mm} UTC"));

    public static Failure NotYet(DateOnly first) => new(ErrorCatalogue.LivePcExpired, string.Create(System.Globalization.CultureInfo.InvariantCulture, $"this LivePC begins for its user on {first:yyyy-MM-dd} (UTC)"));

    public static Failure NonceInvalid { get; } = new(ErrorCatalogue.RequestInvalid, "'nonce' must have 1 to 64 printable characters");

    public static Failure NoInstalledVersion { get; } = new(ErrorCatalogue.NotFound, "there is no release of the installed version");
}

internal sealed class Leases(
    NacreDatabase database, AuditTrail audit, Anchors anchors, Layers layers, Following following, Rollouts rollouts, Origins origins, SecretBox secrets, LeaseSigner signer, Policies policies,
    BootSets bootSets, Recovery recovery, DeviceQueries queries, TimeProvider time)
{
    private const int LongestNonce = 64;

    public async Task<IReadOnlyList<EntitledLivePc>> ListAsync(string deviceId, CancellationToken cancellationToken)
    {
        var rows =
            from device in database.Devices
            where device.Id == deviceId
            join entitlement in database.Entitlements on device.User equals entitlement.User
            join livePc in database.LivePcs on entitlement.LivePc equals livePc.Name
            orderby livePc.Name
            select new { LivePc = livePc, device.User };
        var answer = new List<EntitledLivePc>();
        foreach (var row in await rows.AsNoTracking().ToListAsync(cancellationToken))
        {
            var followed = await following.OfSystemAsync(row.LivePc, await policies.ResolveAsync(row.User, row.LivePc.Name, deviceId, cancellationToken), deviceId, cancellationToken);
            var offered = await OfferAsync(row.LivePc.Image, followed, deviceId, cancellationToken);
            answer.Add(new EntitledLivePc(row.LivePc.Name, row.LivePc.Image, followed.Name, offered.Failure is null ? offered.Value.Version : null));
        }

        return answer;
    }

    public async Task<Result<LeaseGrant>> TakeAsync(string deviceId, string untrustedName, TakeLease untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.InstalledVersion is < 1)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, "'installedVersion' must be 1 or more");
        }

        if (untrusted.Nonce is { } nonce && !Text.IsLabel(nonce, LongestNonce))
        {
            return LeaseErrors.NonceInvalid;
        }

        var kept = untrusted.Kept ?? [];
        if (kept.Count > TakeLease.MostKept || kept.Any(release => release is null))
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"'kept' must have at most {TakeLease.MostKept} releases");
        }

        var has = untrusted.KnownManifests ?? [];
        if (has.Count > TakeLease.MostKnown || has.Any(digest => digest is null))
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"'knownManifests' must have at most {TakeLease.MostKnown} digests");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var device = (await queries.FindAsync(database, deviceId, cancellationToken))!;
        if (device.RevokedAt is not null)
        {
            return DeviceErrors.Revoked; // revoked since the token was checked
        }

        var livePc = await FindAsync(untrustedName, device.User, cancellationToken);
        if (livePc is null)
        {
            return LeaseErrors.NotEntitled;
        }

        if (await DeviceOrders.IsKilledAsync(database, device.Id, livePc.Name, cancellationToken))
        {
            return LeaseErrors.Killed;
        }

        var policy = await policies.ResolveAsync(device.User, livePc.Name, device.Id, cancellationToken);
        var followed = new List<Followed> { await following.OfSystemAsync(livePc, policy, device.Id, cancellationToken) };
        var system = await OfferAsync(livePc.Image, followed[0], device.Id, cancellationToken);
        if (system.Failure is { } none)
        {
            return none;
        }

        // A channel that was moved back was moved for a reason: a newer installed release is not leased.
        var offered = system.Value;
        var installed = untrusted.InstalledVersion < offered.Version ? untrusted.InstalledVersion : null;
        var releases = await database.Releases.AsNoTracking()
            .Where(row => row.Image == livePc.Image && (row.Version == offered.Version || row.Version == untrusted.InstalledVersion))
            .OrderByDescending(row => row.Version).ToListAsync(cancellationToken);
        if (untrusted.InstalledVersion is { } wanted && releases.All(row => row.Version != wanted))
        {
            return LeaseErrors.NoInstalledVersion;
        }

        releases.RemoveAll(row => row.Version != offered.Version && row.Version != installed);
        var stacked = await CoverLayersAsync(livePc, device.Id, policy, offered, kept, releases, followed, cancellationToken);
        if (stacked.Failure is { } missing)
        {
            return missing;
        }

        var before = await database.Anchors.Where(row => row.DeviceId == device.Id && row.LivePc == livePc.Name).ToListAsync(cancellationToken);
        var known = await anchors.StateAsync(device.Id, livePc.Name, untrusted.Anchors, before, cancellationToken);
        if (known.Failure is { } failure)
        {
            return failure;
        }

        var now = DateTimeOffset.FromUnixTimeSeconds(time.GetUtcNow().ToUnixTimeSeconds());
        var expires = await ExpiresAsync(device.User, livePc.Name, policy, now, cancellationToken);
        if (expires.Failure is { } over)
        {
            return over;
        }

        var ends = policy.Get(Settings.OfflineAllow) ? now.AddHours(policy.Get(Settings.LeaseHours)) : now.AddMinutes(2 * policy.Get(Settings.PolicyRefreshInterval));
        ends = expires.Value.End is { } end && end < ends ? end : ends;
        var claims = new LeaseClaims(
            device.Id, device.User, livePc.Name, livePc.Image, offered.Version, installed, now.ToUnixTimeSeconds(), ends.ToUnixTimeSeconds(),
            untrusted.Nonce, known.Value, policy.Decided.ToJson(), stacked.Value.Layers, stacked.Value.Kept, await origins.ListAsync(cancellationToken), expires.Value.End?.ToUnixTimeSeconds(),
            await GroupsAsync(device.User, policy, cancellationToken),
            followed.Any(one => one.Problem is not null) ? string.Join("; ", followed.Select(one => one.Problem).OfType<string>()) : null);
        var grant = await GrantAsync(device, claims, releases, has, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return grant;
    }

    /// <summary>Those of the user's groups that the policy depends on at the device.</summary>
    private async Task<IReadOnlyList<string>?> GroupsAsync(string user, Policy policy, CancellationToken cancellationToken)
    {
        var named = AppVisibility.Groups(policy);
        return named.Count == 0 ? null : await database.GroupMembers.Where(row => row.User == user && named.Contains(row.Group)).Select(row => row.Group).Order().ToListAsync(cancellationToken);
    }

    /// <summary>The release that a device is offered of what an image follows there.</summary>
    private async Task<Result<ReleaseName>> OfferAsync(string image, Followed followed, string deviceId, CancellationToken cancellationToken)
    {
        if (followed.Failure is not null)
        {
            return followed.Failure;
        }

        return (followed.Held ?? await rollouts.OfferAsync(image, followed.Name, deviceId, cancellationToken)) is { } found ? found : LeaseErrors.ChannelEmpty(image, followed.Name);
    }

    /// <summary>When the LivePC itself ends for the user, as the policy says.</summary>
    private async Task<Result<Lifetime>> ExpiresAsync(string user, string livePc, Policy policy, DateTimeOffset now, CancellationToken cancellationToken)
    {
        DateTimeOffset? end = null;
        if (policy.Get(Settings.ExpirationMode) == ExpirationMode.DaysAfterFirstUse)
        {
            var first = await (
                from lease in database.Leases
                join device in database.Devices on lease.DeviceId equals device.Id
                where lease.LivePc == livePc && device.User == user
                select (DateTimeOffset?)lease.IssuedAt).MinAsync(cancellationToken);
            end = (first ?? now).AddDays(policy.Get(Settings.ExpirationDays));
        }
        else if (policy.Get(Settings.ExpirationMode) == ExpirationMode.Date && policy.Get(Settings.ExpirationDate) is [.., var last] days)
        {
            end = Midnight(Settings.TryReadDay(last)!.Value.AddDays(1));
            if (days.Count == 2 && Settings.TryReadDay(days[0])!.Value is var begin && now < Midnight(begin))
            {
                return LeaseErrors.NotYet(begin);
            }
        }

        return end <= now ? LeaseErrors.Expired(end.Value) : new Lifetime(end);
    }

    private static DateTimeOffset Midnight(DateOnly day) => new(day.ToDateTime(TimeOnly.MinValue), TimeSpan.Zero);

    /// <summary>Until when a LivePC may be used; null: always.</summary>
    private readonly record struct Lifetime(DateTimeOffset? End);

    /// <summary>Adds the releases of the application layers, and those that the device may go back to: what the LivePC has no more is not given, nor what a
    /// channel was moved back behind. Adds what the layers follow, too.</summary>
    private async Task<Result<(IReadOnlyList<ReleaseName> Layers, IReadOnlyList<ReleaseName> Kept)>> CoverLayersAsync(
        LivePcRow livePc, string deviceId, Policy policy, ReleaseName system, IReadOnlyList<ReleaseName> untrustedKept, List<ReleaseRow> releases, List<Followed> followed,
        CancellationToken cancellationToken)
    {
        var stack = new List<ReleaseName> { system };
        foreach (var layer in await layers.ListAsync(livePc.Name, cancellationToken))
        {
            followed.Add(await following.OfLayerAsync(layer, policy, cancellationToken));
            var found = await OfferAsync(layer.Image, followed[^1], deviceId, cancellationToken);
            if (found.Failure is { } none)
            {
                return none;
            }

            stack.Add(found.Value);
        }

        var kept = untrustedKept.Distinct().Where(one => one.Version >= 1 && stack.Any(offered => offered.Image == one.Image && offered.Version >= one.Version)).ToList();
        foreach (var name in stack.Concat(kept).Where(name => releases.All(row => row.Image != name.Image || row.Version != name.Version)).Distinct().ToList())
        {
            if (await database.Releases.AsNoTracking().SingleOrDefaultAsync(row => row.Image == name.Image && row.Version == name.Version, cancellationToken) is { } release)
            {
                releases.Add(release);
            }
            else
            {
                kept.Remove(name);
            }
        }

        return ((IReadOnlyList<ReleaseName>)stack[1..], (IReadOnlyList<ReleaseName>)kept);
    }

    /// <summary>Takes what the device says of its layers, and answers with what is known of them.</summary>
    public async Task<Result<SignedAnchors>> StateAnchorsAsync(string deviceId, string untrustedName, StateAnchors untrusted, CancellationToken cancellationToken)
    {
        if (!Text.IsLabel(untrusted.Nonce, LongestNonce))
        {
            return LeaseErrors.NonceInvalid;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var found = await queries.NewsAsync(database, deviceId, untrustedName, cancellationToken);
        if (found.IsRevoked)
        {
            return DeviceErrors.Revoked;
        }

        if (!found.IsEntitled)
        {
            return LeaseErrors.NotEntitled;
        }

        var known = await anchors.StateAsync(deviceId, untrustedName, untrusted.Anchors, found.Anchors, cancellationToken);
        if (known.Failure is { } failure)
        {
            return failure;
        }

        await transaction.CommitAsync(cancellationToken);

        // Which devices a roll-out has come to is the clock's doing.
        var isKilled = found.WasOrdered && await DeviceOrders.IsKilledAsync(database, deviceId, untrustedName, cancellationToken);
        var isCurrent = untrusted.Revision == found.Revision && !found.IsRollingOut && !isKilled;
        var hasOrders = found.IsToRejuvenate || (found.WasOrdered && await DeviceOrders.HasOpenAsync(database, deviceId, cancellationToken));
        return new SignedAnchors(signer.Sign(new AnchorClaims(deviceId, untrustedName, untrusted.Nonce, known.Value, isCurrent, hasOrders)));
    }

    private Task<LivePcRow?> FindAsync(string untrustedName, string user, CancellationToken cancellationToken) => database.LivePcs.AsNoTracking().SingleOrDefaultAsync(
        row => row.Name == untrustedName && database.Entitlements.Any(one => one.LivePc == row.Name && one.User == user), cancellationToken);

    private async Task<LeaseGrant> GrantAsync(DeviceRow device, LeaseClaims claims, List<ReleaseRow> releases, IReadOnlyList<string> untrustedHas, CancellationToken cancellationToken)
    {
        var expires = DateTimeOffset.FromUnixTimeSeconds(claims.Exp);
        var share = await ShareAsync(device.Id, claims.LivePc, cancellationToken);
        var keys = new LeaseKeys(Convert.ToBase64String(share), releases.ToDictionary(
            row => LeaseKeys.KeyOf(new ReleaseName(row.Image, row.Version), claims.Image), row => Convert.ToBase64String(row.RevealKey(secrets))));
        var id = Text.RandomId();
        database.LeasedReleases.AddRange(releases.Select(row => new LeasedReleaseRow { LeaseId = id, Image = row.Image, Version = row.Version }));
        database.Leases.Add(new LeaseRow
        {
            Id = id,
            DeviceId = device.Id,
            LivePc = claims.LivePc,
            Version = claims.Version,
            InstalledVersion = claims.InstalledVersion,
            IssuedAt = DateTimeOffset.FromUnixTimeSeconds(claims.Iat),
            ExpiresAt = expires,
        });
        await audit.AppendAsync("device:" + device.Id, "lease.grant", claims.LivePc, $"version {claims.Version}{string.Concat((claims.Layers ?? []).Select(layer => $" with {layer}"))} until {expires:u}", cancellationToken);
        var manifests = releases.ToLookup(row => untrustedHas.Contains(LeaseGrant.DigestOf(row.Manifest)), row => row.Manifest);
        return new LeaseGrant(
            signer.Sign(claims), [.. manifests[false]], Jwe.Encrypt(JsonSerializer.SerializeToUtf8Bytes(keys, ContractJson.Options), device.PublicKey), await bootSets.FindAsync(releases, cancellationToken),
            await recovery.FindKeyAsync(cancellationToken), manifests[true].Any() ? [.. manifests[true].Select(LeaseGrant.DigestOf)] : null,
            await Revision.ReadAsync(database, cancellationToken));
    }

    private async Task<byte[]> ShareAsync(string deviceId, string livePc, CancellationToken cancellationToken)
    {
        var row = await database.Shares.AsNoTracking().SingleOrDefaultAsync(share => share.DeviceId == deviceId && share.LivePc == livePc, cancellationToken);
        if (row is not null)
        {
            return secrets.Reveal(row.Secret, "share", deviceId, livePc);
        }

        var fresh = RandomNumberGenerator.GetBytes(32);
        database.Shares.Add(new ShareRow { DeviceId = deviceId, LivePc = livePc, Secret = secrets.Protect(fresh, "share", deviceId, livePc) });
        return fresh;
    }
}

internal static class LeaseEndpoints
{
    public static void Map(Groups groups)
    {
        groups.Device.MapGet("/livepcs", (ClaimsPrincipal caller, Leases leases, CancellationToken cancellationToken) => leases.ListAsync(Id(caller), cancellationToken))
            .WithName("ListEntitledLivePcs").WithSummary("The LivePCs that the device's user is entitled to.");
        groups.Device.MapPost("/livepcs/{name}/lease", async (string name, TakeLease body, ClaimsPrincipal caller, Leases leases, CancellationToken cancellationToken) =>
                (await leases.TakeAsync(Id(caller), name, body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("TakeLease").WithSummary("The permission to open a LivePC for some days, with the keys that open it.")
            .Produces<LeaseGrant>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotEntitled, ErrorCatalogue.LivePcKilled, ErrorCatalogue.LivePcExpired, ErrorCatalogue.ChannelEmpty, ErrorCatalogue.NotFound, ErrorCatalogue.NotApproved);
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapPost("/lease-extensions", async (ExtendLease body, LeaseExtensions extensions, CancellationToken cancellationToken) =>
                (await extensions.MakeAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("ExtendLease").WithSummary("The code with which a user puts off the end of a lease without a network.")
            .Produces<LeaseExtension>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.NotEntitled, ErrorCatalogue.ExtensionRefused);
        groups.Device.MapPost("/livepcs/{name}/anchors", async (string name, StateAnchors body, ClaimsPrincipal caller, Leases leases, CancellationToken cancellationToken) =>
                (await leases.StateAnchorsAsync(Id(caller), name, body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("StateAnchors").WithSummary("How far the device's user layers have grown; the answer is what the server knows of them.")
            .Produces<SignedAnchors>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotEntitled);
    }

    private static string Id(ClaimsPrincipal caller) => caller.FindFirstValue(ClaimTypes.NameIdentifier)!;
}
