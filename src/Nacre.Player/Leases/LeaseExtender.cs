using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.LivePcs;
using Nacre.Policies;

namespace Nacre.Player.Leases;

/// <summary>What this device keeps of the help desk's codes for one LivePC.</summary>
/// <param name="Counter">How many it took.</param>
/// <param name="Until">When the lease ends with the newest, seconds since 1970; 0: none.</param>
/// <param name="Wrong">How many wrong ones were typed since.</param>
/// <param name="WrongAt">When the last of them was, seconds since 1970.</param>
internal sealed record KeptExtension(int Counter, long Until, int Wrong, long WrongAt);

/// <summary>Puts off the end of a kept lease by a code that the help desk reads over the phone. Each code works once; wrong ones are slowed down, over restarts too.</summary>
internal sealed class LeaseExtender
{
    private const int FreeTries = 3;
    private static readonly TimeSpan FirstWait = TimeSpan.FromMinutes(1), LongestWait = TimeSpan.FromHours(1);
    private readonly AuthenticatedFile<KeptExtension> file;
    private readonly EnrolledIdentity identity;
    private readonly LivePcFolder folder;
    private KeptExtension kept;

    public LeaseExtender(EnrolledIdentity identity, LivePcFolder folder)
    {
        this.identity = identity;
        this.folder = folder;
        file = new AuthenticatedFile<KeptExtension>(folder.Extension, identity, $"nacre lease extension of {identity.Record.DeviceId} {folder.Name}");
        kept = file.TryRead(out var read) && read is not null ? read : new KeptExtension(0, 0, 0, 0);
    }

    /// <summary>When the lease ends with the newest code; null: none was taken.</summary>
    public DateTimeOffset? Until => kept.Until > 0 ? DateTimeOffset.FromUnixTimeSeconds(kept.Until) : null;

    /// <summary>What the user reads to the help desk.</summary>
    public string Request => ExtensionCode.Request(identity.Record.DeviceId, kept.Counter);

    /// <summary>When a lease ends: later with a code, and never after its LivePC.</summary>
    public static DateTimeOffset EndOf(LeaseClaims claims, DateTimeOffset? extension)
    {
        var end = DateTimeOffset.FromUnixTimeSeconds(claims.Exp);
        end = extension > end ? extension.Value : end;
        return claims.Expires is { } last && DateTimeOffset.FromUnixTimeSeconds(last) < end ? DateTimeOffset.FromUnixTimeSeconds(last) : end;
    }

    /// <summary>Takes a code.</summary>
    /// <returns>When the lease ends now.</returns>
    /// <exception cref="NacreException">ExtensionRefused, NotFound, ClockSetBack, LeaseNotAuthentic.</exception>
    public DateTimeOffset Take(string untrustedCode, TimeProvider time)
    {
        if (folder.Grant is not { } grant)
        {
            throw new NacreException(ErrorCatalogue.NotFound, $"there is no lease of '{folder.Name}' that could be extended");
        }

        var (claims, policy) = OpenedLease.ReadKept(grant, identity, folder.Name);
        var clock = new TrustedClock(identity, time);
        clock.Look();
        if (clock.SetBack is not null && policy.Get(Settings.ClockTamperAction) == ClockTamperAction.Lock)
        {
            throw new NacreException(ErrorCatalogue.ClockSetBack, $"this computer's clock shows a time before {clock.HighWater:yyyy-MM-dd HH:mm} UTC, which has passed");
        }

        var most = policy.Get(Settings.OfflineAllow) ? policy.Get(Settings.LeaseOfflineExtensionHours) : 0;
        if (most == 0)
        {
            throw new NacreException(ErrorCatalogue.ExtensionRefused, "the policy lets no code extend a lease");
        }

        var wait = kept.Wrong < FreeTries ? TimeSpan.Zero : new[] { FirstWait * Math.Pow(2, Math.Min(kept.Wrong - FreeTries, 10)), LongestWait }.Min();
        var again = DateTimeOffset.FromUnixTimeSeconds(kept.WrongAt) + wait;
        if (clock.Now < again)
        {
            throw new NacreException(ErrorCatalogue.ExtensionRefused, $"{kept.Wrong} wrong codes were typed: the next try is at {again:HH:mm} UTC");
        }

        var share = Convert.FromBase64String(identity.Key.DecryptKeys(grant.Keys).Share);
        try
        {
            if (!ExtensionCode.TryVerify(untrustedCode, share, identity.Record.DeviceId, folder.Name, kept.Counter, clock.Now, out var end) || end > ExtensionCode.LatestEnd(clock.Now.AddDays(1), most) || end <= clock.Now)
            {
                Keep(kept with { Wrong = kept.Wrong + 1, WrongAt = clock.Now.ToUnixTimeSeconds() });
                throw new NacreException(ErrorCatalogue.ExtensionRefused, $"this is not the code for {Request}");
            }

            Keep(new KeptExtension(kept.Counter + 1, Math.Max(kept.Until, end.ToUnixTimeSeconds()), 0, 0));
            return EndOf(claims, Until);
        }
        finally
        {
            CryptographicOperations.ZeroMemory(share);
        }
    }

    private void Keep(KeptExtension value)
    {
        file.Write(value);
        kept = value;
    }
}
