using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Player.Devices;
using Nacre.Player.Keys;
using Nacre.Player.LivePcs;
using Nacre.Player.Stacks;
using Nacre.Player.Trust;
using Nacre.Policies;

namespace Nacre.Player.Leases;

/// <summary>A lease that was verified: permission to open one LivePC now, and the secrets that come with it.</summary>
internal sealed class OpenedLease
{
    /// <summary>The guest's machine has places for so many disks.</summary>
    private const int MostLayers = 16;

    private readonly LeaseKeys keys;
    private readonly IReadOnlyDictionary<ReleaseName, (ReleaseManifest Manifest, string Signed)> manifests;

    private OpenedLease(
        LeaseClaims claims, LeaseKeys keys, IReadOnlyDictionary<ReleaseName, (ReleaseManifest, string)> manifests, DeviceTrust trust, bool isNew, NacreException? offline)
    {
        Claims = claims;
        Policy = PolicyOf(claims);
        Trust = trust;
        IsNew = isNew;
        this.keys = keys;
        this.manifests = manifests;
        OfflineBecause = offline;
        Ends = LeaseExtender.EndOf(claims, null);
    }

    public LeaseClaims Claims { get; }

    /// <summary>What was decided for this LivePC on this device.</summary>
    public Policy Policy { get; }

    /// <summary>Where boot packs are, as the server said with this lease; nothing of it is signed.</summary>
    public IReadOnlyList<BootPack> UntrustedPacks { get; private init; } = [];

    /// <summary>What the server said that it was made of: see <see cref="StateAnchors"/>.</summary>
    public string? Revision { get; private init; }

    /// <summary>The organisation's recovery key, which its trust metadata vouches for; null: none.</summary>
    public TrustKey? RecoveryKey { get; private init; }

    /// <summary>The corporate layers that the server wants to start.</summary>
    public CorporateStack Offered => new([new ReleaseName(Claims.Image, Claims.Version), .. Claims.Layers ?? []]);

    /// <summary>What its LivePC's image is made of: the same for all of its releases.</summary>
    public ImageKind Kind => manifests.Values.Select(found => found.Manifest).FirstOrDefault(manifest => manifest.Image == Claims.Image)?.Kind ?? Release(Offered.System).Manifest.Kind;

    /// <summary>What told the organisation's releases from others.</summary>
    public DeviceTrust Trust { get; }

    /// <summary>Whether the server granted it just now, as the answer to this device's request; else it was kept.</summary>
    public bool IsNew { get; }

    /// <summary>Why the kept lease was used instead of a new one; null where the server granted this one just now.</summary>
    public NacreException? OfflineBecause { get; }

    /// <summary>When it ends, with what a code of the help desk added.</summary>
    public DateTimeOffset Ends { get; private init; }

    /// <summary>When the LivePC itself ends for its user; null: never.</summary>
    public DateTimeOffset? Expires => Claims.Expires is { } end ? DateTimeOffset.FromUnixTimeSeconds(end) : null;

    /// <summary>Takes a lease from the server; where that can't be reached, uses the one that was kept.</summary>
    /// <param name="identity">This device.</param>
    /// <param name="folder">The LivePC.</param>
    /// <param name="keep">The releases that it has and may go back to.</param>
    /// <param name="anchors">What this device states of its layers; null: nothing.</param>
    /// <param name="time">The clock.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="NacreException">LeaseExpired, LeaseNotAuthentic, ReleaseNotAuthentic, NotEntitled, DeviceRevoked, ServerUnreachable (no lease kept).</exception>
    public static async Task<OpenedLease> TakeAsync(
        EnrolledIdentity identity, LivePcFolder folder, IReadOnlyList<ReleaseName>? keep, IReadOnlyList<StatedAnchor>? anchors, TimeProvider time, CancellationToken cancellationToken)
    {
        NacreException offline;
        try
        {
            await identity.RenewCertificateAsync(time, cancellationToken).ConfigureAwait(false);
            using var client = identity.Connect();
            var known = folder.Grant?.Manifests ?? [];
            var request = new TakeLease(null, Nonce(), anchors, keep is null ? null : [.. keep.Take(TakeLease.MostKept)], [.. known.Take(TakeLease.MostKnown).Select(LeaseGrant.DigestOf)]);
            var grant = (await client.TakeLeaseAsync(folder.Name, request, cancellationToken).ConfigureAwait(false)).With(known);
            var trust = new DeviceTrust(identity, time);
            var claims = Verify(grant, identity, folder.Name, time.GetUtcNow(), null, null);
            await trust.UpdateAsync(client, ImagesOf(claims), cancellationToken).ConfigureAwait(false);
            await TellAsync(client, trust, claims, cancellationToken).ConfigureAwait(false);
            var lease = Open(grant, identity, folder.Name, trust, keep ?? [], time.GetUtcNow(), null, isNew: true, null);
            if (lease.Claims.Nonce != request.Nonce)
            {
                throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the lease answers another request: somebody put an older one in the answer's place");
            }

            folder.Create();
            using (await DurableFile.LockAsync(folder.CacheLock, time, cancellationToken).ConfigureAwait(false))
            {
                folder.Grant = grant;
            }

            new TrustedClock(identity, time).Hear(DateTimeOffset.FromUnixTimeSeconds(claims.Iat));
            return lease;
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.ServerUnreachable || exception.Kind == ErrorCatalogue.ServerNotAuthentic)
        {
            offline = exception;
        }

        return folder.Grant is { } kept ? OpenKept(kept, identity, folder, keep ?? [], time, offline) : throw offline;
    }

    /// <summary>The lease that was kept, without asking the server; null where there is none that holds now.</summary>
    public static OpenedLease? TryOpenKept(EnrolledIdentity identity, LivePcFolder folder, TimeProvider time)
    {
        try
        {
            return folder.Grant is { } kept ? OpenKept(kept, identity, folder, new StackBook(folder, time).Read().Needed, time, null) : null;
        }
        catch (NacreException)
        {
            return null;
        }
    }

    /// <summary>Tells the server how far the layers have grown.</summary>
    /// <returns>What the server knows then, and whether there is news.</returns>
    /// <exception cref="NacreException">ServerUnreachable, LeaseNotAuthentic, NotEntitled, DeviceRevoked.</exception>
    public static async Task<AnchorClaims> StateAnchorsAsync(
        EnrolledIdentity identity, NacreClient client, string livePc, IReadOnlyList<StatedAnchor> anchors, string? revision, CancellationToken cancellationToken)
    {
        var statement = new StateAnchors(Nonce(), anchors, revision);
        var answer = await client.StateAnchorsAsync(livePc, statement, cancellationToken).ConfigureAwait(false);
        var claims = Jws.VerifyClaims<AnchorClaims>(answer.Anchors, identity.Record.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, AnchorClaims.Type);
        return claims.Sub == identity.Record.DeviceId && claims.LivePc == livePc && claims.Nonce == statement.Nonce
            ? claims
            : throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "what the server knows of the layers is the answer to another request");
    }

    /// <summary>Whether this lease lets the device start that release.</summary>
    public bool Covers(ReleaseName release) => manifests.ContainsKey(release);

    /// <summary>The verified manifest of a release that this lease covers.</summary>
    public (ReleaseManifest Manifest, string Signed) Release(ReleaseName release) => manifests.TryGetValue(release, out var found)
        ? found
        : throw Trust.Problem ?? new NacreException(ErrorCatalogue.NotFound, $"the lease does not cover release {release.Version} of '{release.Image}'");

    public byte[] ReleaseKey(ReleaseName release) => keys.ReleaseKeys.TryGetValue(LeaseKeys.KeyOf(release, Claims.Image), out var key)
        ? Convert.FromBase64String(key)
        : throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, $"the lease has no key for release {release.Version} of '{release.Image}'");

    /// <summary>What every key slot of this LivePC needs: it takes both this device's secret and the lease's share.</summary>
    public SecretBytes KeyPart(EnrolledIdentity identity)
    {
        var share = Convert.FromBase64String(keys.Share);
        var device = identity.ReadSecret();
        try
        {
            return SecretBytes.Take(HKDF.DeriveKey(HashAlgorithmName.SHA256, [.. device, .. share], 32, info: System.Text.Encoding.UTF8.GetBytes($"nacre volumes of {Claims.LivePc}")));
        }
        finally
        {
            CryptographicOperations.ZeroMemory(device);
            CryptographicOperations.ZeroMemory(share);
        }
    }

    private static string Words(ImageKind kind) => kind switch { ImageKind.System => "a system", ImageKind.Disk => "a whole disk", _ => "an application layer" };

    private static string Nonce() => RandomNumberGenerator.GetHexString(32, lowercase: true);

    private static OpenedLease OpenKept(
        LeaseGrant grant, EnrolledIdentity identity, LivePcFolder folder, IReadOnlyList<ReleaseName> keep, TimeProvider time, NacreException? offline)
    {
        var clock = new TrustedClock(identity, time);
        var signed = VerifySignature(grant, identity, folder.Name);
        var policy = PolicyOf(signed);
        if (!policy.Get(Settings.OfflineAllow))
        {
            throw new NacreException(ErrorCatalogue.OfflineDenied, $"the policy lets '{folder.Name}' start only with the server", offline);
        }

        clock.Look();
        if (clock.SetBack is { } behind && policy.Get(Settings.ClockTamperAction) == ClockTamperAction.Lock)
        {
            throw new NacreException(ErrorCatalogue.ClockSetBack, $"this computer's clock shows a time that had passed already: it was {clock.HighWater:yyyy-MM-dd HH:mm} UTC before, which is {Words(behind)} later", offline);
        }

        var trust = new DeviceTrust(identity, time);
        var extension = new LeaseExtender(identity, folder).Until;
        trust.Check(ImagesOf(Verify(grant, identity, folder.Name, clock.Now, extension, offline)));
        return Open(grant, identity, folder.Name, trust, keep, clock.Now, extension, isNew: false, offline);
    }

    private static string[] ImagesOf(LeaseClaims claims) => [.. NamedBy(claims).Select(release => release.Image).Distinct(StringComparer.Ordinal)];

    /// <summary>Tells the server why nothing new is taken from it; it answered just now, and what it does not take is said again at the next start.</summary>
    private static async Task TellAsync(NacreClient client, DeviceTrust trust, LeaseClaims claims, CancellationToken cancellationToken)
    {
        try
        {
            if (trust.Report([new ReleaseName(claims.Image, claims.Version), .. claims.Layers ?? []]) is { } report)
            {
                await client.SendReportAsync(claims.LivePc, report, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (NacreException)
        {
            // The user is told in any case.
        }
    }

    /// <summary>A setting that this player does not know, or can't read, is not ignored.</summary>
    private static Policy PolicyOf(LeaseClaims claims)
    {
        try
        {
            return claims.Policy is null ? Policy.Factory : Policy.Of("lease", PolicyDocument.Parse(JsonSerializer.SerializeToElement(claims.Policy)));
        }
        catch (PolicyException exception)
        {
            throw new NacreException(ErrorCatalogue.Unsupported, $"the lease has a policy that this player can't follow: {exception.Message}", exception);
        }
    }

    private static string Words(TimeSpan span) => span.TotalHours < 48 ? string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{span.TotalMinutes:0} minutes") : string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{span.TotalDays:0} days");

    /// <summary>The policy of the lease that is kept, whether or not it has ended; the factory's where there is none that can be read.</summary>
    public static Policy ReadKeptPolicy(LivePcFolder folder, PlayerPaths paths)
    {
        try
        {
            using var identity = EnrolledIdentity.Open(paths);
            return folder.Grant is { } grant ? ReadKept(grant, identity, folder.Name).Policy : Policy.Factory;
        }
        catch (NacreException)
        {
            return Policy.Factory;
        }
    }

    /// <summary>What the server said in a kept lease, whether or not it holds still.</summary>
    /// <exception cref="NacreException">LeaseNotAuthentic, Unsupported.</exception>
    public static (LeaseClaims Claims, Policy Policy) ReadKept(LeaseGrant untrustedGrant, EnrolledIdentity identity, string livePc)
    {
        var claims = VerifySignature(untrustedGrant, identity, livePc);
        return (claims, PolicyOf(claims));
    }

    private static LeaseClaims VerifySignature(LeaseGrant untrustedGrant, EnrolledIdentity identity, string livePc)
    {
        var claims = Jws.VerifyClaims<LeaseClaims>(untrustedGrant.Lease, identity.Record.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceToken.LeaseType);
        if (claims.Sub != identity.Record.DeviceId || claims.LivePc != livePc)
        {
            throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the lease is for another device or LivePC");
        }

        return claims;
    }

    private static LeaseClaims Verify(LeaseGrant untrustedGrant, EnrolledIdentity identity, string livePc, DateTimeOffset now, DateTimeOffset? extension, NacreException? offline)
    {
        var claims = VerifySignature(untrustedGrant, identity, livePc);
        var ends = LeaseExtender.EndOf(claims, extension);
        return now < ends ? claims : claims.Expires is { } end && now.ToUnixTimeSeconds() >= end
            ? throw new NacreException(ErrorCatalogue.LivePcExpired, $"'{livePc}' ended for its user on {DateTimeOffset.FromUnixTimeSeconds(end):yyyy-MM-dd HH:mm} UTC", offline) : throw new NacreException(ErrorCatalogue.LeaseExpired, $"the lease of '{livePc}' ended on {ends:yyyy-MM-dd HH:mm} UTC", offline);
    }

    private static OpenedLease Open(
        LeaseGrant untrustedGrant, EnrolledIdentity identity, string livePc, DeviceTrust trust, IReadOnlyList<ReleaseName> has, DateTimeOffset now, DateTimeOffset? extension, bool isNew,
        NacreException? offline)
    {
        var claims = Verify(untrustedGrant, identity, livePc, now, extension, offline);
        var keys = identity.Key.DecryptKeys(untrustedGrant.Keys);
        return new OpenedLease(claims, keys, VerifyManifests(claims, untrustedGrant.Manifests, trust, has), trust, isNew, offline)
        {
            UntrustedPacks = untrustedGrant.BootPacks ?? [], Revision = untrustedGrant.Revision, RecoveryKey = trust.RecoveryKey(untrustedGrant.RecoveryKey), Ends = LeaseExtender.EndOf(claims, extension),
        };
    }

    /// <summary>Verifies the manifests of a grant: each of a release that the lease names, that the organisation vouches for, and of the kind that it is named as. While the trust
    /// metadata can't be believed to be the newest, releases that the device does not have yet are left out.</summary>
    internal static IReadOnlyDictionary<ReleaseName, (ReleaseManifest Manifest, string Signed)> VerifyManifests(
        LeaseClaims claims, IReadOnlyList<string> untrustedManifests, DeviceTrust trust, IReadOnlyList<ReleaseName> has)
    {
        var named = NamedBy(claims);
        var manifests = new Dictionary<ReleaseName, (ReleaseManifest, string)>();
        foreach (var untrustedManifest in untrustedManifests)
        {
            var untrusted = ReadManifest(untrustedManifest);
            if (!named.Contains(untrusted.Name))
            {
                throw new NacreException(ErrorCatalogue.ReleaseNotAuthentic, $"the grant has release {untrusted.Version} of '{untrusted.Image}', which the lease does not name");
            }

            // What the device has, and nobody vouches for any more, it is not to go on with; that is no reason to refuse what is offered instead.
            var isOffered = untrusted.Name == new ReleaseName(claims.Image, claims.Version) || claims.Layers?.Contains(untrusted.Name) == true;
            if (trust.Problem is not null ? !has.Contains(untrusted.Name) : !isOffered && !trust.Vouches(untrusted.Name, untrustedManifest))
            {
                continue;
            }

            // Against a release in another's place: what is no system never starts as one, and a system is nobody's application layer.
            var kind = untrusted.Image != claims.Image ? ImageKind.Application : untrusted.Kind == ImageKind.Disk ? ImageKind.Disk : ImageKind.System;
            manifests[untrusted.Name] = (VerifyManifest(untrustedManifest, trust, kind), untrustedManifest);
        }

        return manifests;
    }

    /// <summary>The releases that a lease permits.</summary>
    private static HashSet<ReleaseName> NamedBy(LeaseClaims claims)
    {
        IReadOnlyList<ReleaseName> layers = claims.Layers ?? [];
        if (layers.Any(layer => layer is null || layer.Image == claims.Image) || layers.DistinctBy(layer => layer.Image).Count() != layers.Count
            || layers.Count > MostLayers || claims.Kept?.Any(kept => kept is null) == true)
        {
            throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the lease stacks a layer on itself, twice, or more of them than there can be");
        }

        return [
            new ReleaseName(claims.Image, claims.Version), .. layers, .. claims.Kept ?? [],
            .. claims.InstalledVersion is { } installed ? [new ReleaseName(claims.Image, installed)] : Array.Empty<ReleaseName>(),
        ];
    }

    /// <summary>Verifies that the organisation vouches for a manifest, byte for byte, as the release that it says it is, and that it is of that kind.</summary>
    internal static ReleaseManifest VerifyManifest(string untrustedManifest, DeviceTrust trust, ImageKind kind)
    {
        var manifest = ReadManifest(untrustedManifest);
        return !trust.Vouches(manifest.Name, untrustedManifest)
            ? throw trust.Problem ?? new NacreException(ErrorCatalogue.ReleaseNotAuthentic, $"nobody who may sign releases of '{manifest.Image}' vouches for this release {manifest.Version}")
            : manifest.Format != 1
            ? throw new NacreException(ErrorCatalogue.Unsupported, $"release {manifest.Version} has format {manifest.Format}")
            : manifest.Kind != kind
            ? throw new NacreException(
                ErrorCatalogue.ReleaseNotAuthentic, $"release {manifest.Version} of '{manifest.Image}' is {Words(manifest.Kind)}, and was given as {Words(kind)}")
            : manifest;
    }

    /// <summary>What a manifest says; nothing of it is verified.</summary>
    internal static ReleaseManifest ReadManifest(string untrustedManifest) =>
        Jws.TryReadPayload(untrustedManifest, ReleaseManifest.Type, out var payload) && Jws.TryRead<ReleaseManifest>(payload, out var manifest)
            ? manifest : throw new NacreException(ErrorCatalogue.ReleaseNotAuthentic, "a release's manifest is none");
}
