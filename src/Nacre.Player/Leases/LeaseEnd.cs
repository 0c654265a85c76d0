using System.Globalization;
using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Erasure;
using Nacre.Player.LivePcs;
using Nacre.Policies;

namespace Nacre.Player.Leases;

/// <summary>What becomes of a LivePC whose lease runs down: warnings, and in the end the destruction of its keys.</summary>
internal sealed class LeaseEnd
{
    private readonly PlayerPaths paths;
    private readonly TimeProvider time;

    public LeaseEnd(PlayerPaths paths, TimeProvider time)
    {
        this.paths = paths;
        this.time = time;
    }

    /// <summary>When the keys are destroyed: at the end of the LivePC itself where the policy says so, or some days after that of the lease; null: never.</summary>
    public static DateTimeOffset? DestructionOf(LeaseClaims claims, Policy policy, DateTimeOffset? extension)
    {
        DateTimeOffset? expiry = claims.Expires is { } end && policy.Get(Settings.ExpirationAction) == ExpirationAction.Delete ? DateTimeOffset.FromUnixTimeSeconds(end) : null;
        DateTimeOffset? days = policy.Get(Settings.LeaseDeleteAfterDays) is > 0 and var after ? LeaseExtender.EndOf(claims, extension).AddDays(after) : null;
        return expiry < days || days is null ? expiry : days;
    }

    /// <summary>The time left at which a warning is due; null: none is. A lease that is not longer than that is not warned of by it.</summary>
    public static TimeSpan? WarningOf(LeaseClaims claims, Policy policy, TimeSpan left) => policy.Get(Settings.LeaseWarnAt).Select(line => Settings.ReadSpan(line)!.Value)
        .Where(span => span >= left && span < TimeSpan.FromSeconds(claims.Exp - claims.Iat)).Order().Select(span => (TimeSpan?)span).FirstOrDefault();

    /// <summary>What the user is told of a lease now; null: nothing.</summary>
    public static string? WordsOf(LeaseClaims claims, Policy policy, DateTimeOffset? extension, DateTimeOffset now)
    {
        var (end, expires) = (LeaseExtender.EndOf(claims, extension), claims.Expires is { } seconds ? DateTimeOffset.FromUnixTimeSeconds(seconds) : (DateTimeOffset?)null);
        var destroyed = DestructionOf(claims, policy, extension) is { } due ? $"; its data is destroyed on {At(due)}" : "";
        return now >= end ? $"{(expires <= now ? "this LivePC ended" : "the lease ended")} on {At(end)}{destroyed}"
            : WarningOf(claims, policy, end - now) is not null ? $"the lease ends in {Span(end - now)}, on {At(end)}, unless this computer reaches the server before"
            : expires is { } last && last - now < TimeSpan.FromDays(policy.Get(Settings.ExpirationWarnDays)) ? $"this LivePC ends for you on {At(last)}{(policy.Get(Settings.ExpirationAction) == ExpirationAction.Delete ? ", with all that is in it" : "")}"
            : null;
    }

    /// <summary>For people.</summary>
    public static string Span(TimeSpan span) => span switch
    {
        { TotalHours: >= 48 } => string.Create(CultureInfo.InvariantCulture, $"{span.TotalDays:0} days"),
        { TotalMinutes: >= 100 } => string.Create(CultureInfo.InvariantCulture, $"{span.TotalHours:0} hours"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{Math.Max(1, Math.Ceiling(span.TotalMinutes)):0} minutes"),
    };

    /// <summary>What the user is told of the kept lease of a LivePC; null: nothing, or there is none.</summary>
    public static (DateTimeOffset? Ends, string? Warning) Read(EnrolledIdentity identity, LivePcFolder folder, TimeProvider time)
    {
        try
        {
            if (folder.Grant is { } grant)
            {
                var (claims, policy) = OpenedLease.ReadKept(grant, identity, folder.Name);
                var until = new LeaseExtender(identity, folder).Until;
                return (LeaseExtender.EndOf(claims, until), WordsOf(claims, policy, until, new TrustedClock(identity, time).Now));
            }
        }
        catch (NacreException)
        {
            // A start says why.
        }

        return (null, null);
    }

    /// <summary>Destroys what is due, where a last attempt to renew the lease fails. LivePCs that run are left to their players.</summary>
    /// <returns>Their names.</returns>
    /// <exception cref="NacreException">NotEnrolled, FileAccess.</exception>
    public async Task<IReadOnlyList<string>> EnforceAsync(CancellationToken cancellationToken)
    {
        var destroyed = new List<string>();
        using var identity = EnrolledIdentity.Open(paths);
        foreach (var name in Directory.Exists(paths.LivePcs) ? Directory.GetDirectories(paths.LivePcs).Select(folder => Path.GetFileName(folder)!).Where(Names.IsValid) : [])
        {
            var folder = new LivePcFolder(paths, name);
            if (LivePcPlayer.IsHeld(folder) || !IsDue(identity, folder, out var policy) || await IsRenewedAsync(identity, folder, cancellationToken).ConfigureAwait(false))
            {
                continue;
            }

            var eraser = new Eraser(paths, time);
            eraser.Begin(new ErasureEntry(
                RandomNumberGenerator.GetHexString(16, lowercase: true), name, policy.Get(Settings.KillMode) == KillErasure.Keys ? KillMode.CryptoErase : KillMode.Both,
                policy.Get(Settings.WipeScope) == KillScope.All ? WipeScope.All : WipeScope.WorkData, null, $"the lease of '{name}' ended too long ago"));
            await eraser.GoOnAsync(cancellationToken).ConfigureAwait(false);
            destroyed.Add(name);
        }

        return destroyed;
    }

    private bool IsDue(EnrolledIdentity identity, LivePcFolder folder, out Policy policy)
    {
        policy = Policy.Factory;
        try
        {
            if (folder.Grant is not { } grant)
            {
                return false;
            }

            (var claims, policy) = OpenedLease.ReadKept(grant, identity, folder.Name);
            return DestructionOf(claims, policy, new LeaseExtender(identity, folder).Until) is { } due && new TrustedClock(identity, time).IsPast(folder.Name, due, out _);
        }
        catch (NacreException)
        {
            return false; // what nobody signed decides nothing; a full disk is no reason to destroy, or to stop the command
        }
    }

    private async Task<bool> IsRenewedAsync(EnrolledIdentity identity, LivePcFolder folder, CancellationToken cancellationToken)
    {
        try
        {
            return (await OpenedLease.TakeAsync(identity, folder, null, null, time, cancellationToken).ConfigureAwait(false)).IsNew;
        }
        catch (NacreException)
        {
            return false;
        }
    }

    private static string At(DateTimeOffset when) => string.Create(CultureInfo.InvariantCulture, $"{when:yyyy-MM-dd HH:mm} UTC");
}
