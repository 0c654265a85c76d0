using System.Security.Cryptography;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.LivePcs;
using Nacre.Player.Stacks;

namespace Nacre.Player.Leases;

/// <summary>A lease that was verified: permission to open one LivePC now, and the secrets that come with it.</summary>
internal sealed class OpenedLease
{
    /// <summary>The guest's machine has places for so many disks.</summary>
    private const int MostLayers = 16;

    private readonly LeaseKeys keys;
    private readonly IReadOnlyDictionary<ReleaseName, (ReleaseManifest Manifest, string Signed)> manifests;

    private OpenedLease(LeaseClaims claims, LeaseKeys keys, IReadOnlyDictionary<ReleaseName, (ReleaseManifest, string)> manifests, bool isNew, NacreException? offline)
    {
        Claims = claims;
        IsNew = isNew;
        this.keys = keys;
        this.manifests = manifests;
        OfflineBecause = offline;
    }

    public LeaseClaims Claims { get; }

    /// <summary>Where boot packs are, as the server said with this lease; nothing of it is signed.</summary>
    public IReadOnlyList<BootPack> UntrustedPacks { get; private init; } = [];

    /// <summary>The corporate layers that the server wants to start.</summary>
    public CorporateStack Offered => new([new ReleaseName(Claims.Image, Claims.Version), .. Claims.Layers ?? []]);

    /// <summary>What its LivePC's image is made of: the same for all of its releases.</summary>
    public ImageKind Kind => Release(Offered.System).Manifest.Kind;

    /// <summary>Whether the server granted it just now, as the answer to this device's request; else it was kept.</summary>
    public bool IsNew { get; }

    /// <summary>Why the kept lease was used instead of a new one; null where the server granted this one just now.</summary>
    public NacreException? OfflineBecause { get; }

    public DateTimeOffset Ends => DateTimeOffset.FromUnixTimeSeconds(Claims.Exp);

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
            using var client = identity.Connect();
            var request = new TakeLease(null, Nonce(), anchors, keep);
            var grant = await client.TakeLeaseAsync(folder.Name, request, cancellationToken).ConfigureAwait(false);
            if (grant.ReleaseKey is { } releaseKey)
            {
                identity.LearnReleaseKey(releaseKey);
            }

            var lease = Open(grant, identity, folder.Name, time, isNew: true, null);
            if (lease.Claims.Nonce != request.Nonce)
            {
                throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the lease answers another request: somebody put an older one in the answer's place");
            }

            folder.Create();
            folder.Grant = grant;
            return lease;
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.ServerUnreachable)
        {
            offline = exception;
        }

        return folder.Grant is { } kept ? Open(kept, identity, folder.Name, time, isNew: false, offline) : throw offline;
    }

    /// <summary>The lease that was kept, without asking the server; null where there is none that holds now.</summary>
    public static OpenedLease? TryOpenKept(EnrolledIdentity identity, LivePcFolder folder, TimeProvider time)
    {
        try
        {
            return folder.Grant is { } kept ? Open(kept, identity, folder.Name, time, isNew: false, null) : null;
        }
        catch (NacreException)
        {
            return null;
        }
    }

    /// <summary>Tells the server how far the layers have grown.</summary>
    /// <returns>What the server knows then.</returns>
    /// <exception cref="NacreException">ServerUnreachable, LeaseNotAuthentic, NotEntitled, DeviceRevoked.</exception>
    public static async Task<IReadOnlyList<LayerAnchor>> StateAnchorsAsync(
        EnrolledIdentity identity, NacreClient client, string livePc, IReadOnlyList<StatedAnchor> anchors, CancellationToken cancellationToken)
    {
        var statement = new StateAnchors(Nonce(), anchors);
        var answer = await client.StateAnchorsAsync(livePc, statement, cancellationToken).ConfigureAwait(false);
        var claims = Jws.VerifyClaims<AnchorClaims>(answer.Anchors, identity.Record.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, AnchorClaims.Type);
        return claims.Sub == identity.Record.DeviceId && claims.LivePc == livePc && claims.Nonce == statement.Nonce
            ? claims.Anchors
            : throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "what the server knows of the layers is the answer to another request");
    }

    /// <summary>Whether this lease lets the device start that release.</summary>
    public bool Covers(ReleaseName release) => manifests.ContainsKey(release);

    /// <summary>The verified manifest of a release that this lease covers.</summary>
    public (ReleaseManifest Manifest, string Signed) Release(ReleaseName release) => manifests.TryGetValue(release, out var found)
        ? found
        : throw new NacreException(ErrorCatalogue.NotFound, $"the lease does not cover release {release.Version} of '{release.Image}'");

    public byte[] ReleaseKey(ReleaseName release) => keys.ReleaseKeys.TryGetValue(LeaseKeys.KeyOf(release, Claims.Image), out var key)
        ? Convert.FromBase64String(key)
        : throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, $"the lease has no key for release {release.Version} of '{release.Image}'");

    /// <summary>The key that opens the key slots of this LivePC's volumes: it takes both this device's key and the lease's share.</summary>
    public byte[] SlotKey(EnrolledIdentity identity)
    {
        var share = Convert.FromBase64String(keys.Share);
        var device = identity.ReadSecret();
        try
        {
            return HKDF.DeriveKey(HashAlgorithmName.SHA256, [.. device, .. share], 32, info: System.Text.Encoding.UTF8.GetBytes($"nacre volumes of {Claims.LivePc}"));
        }
        finally
        {
            CryptographicOperations.ZeroMemory(device);
            CryptographicOperations.ZeroMemory(share);
        }
    }

    private static string Words(ImageKind kind) => kind switch { ImageKind.System => "a system", ImageKind.Disk => "a whole disk", _ => "an application layer" };

    private static string Nonce() => RandomNumberGenerator.GetHexString(32, lowercase: true);

    private static OpenedLease Open(LeaseGrant untrustedGrant, EnrolledIdentity identity, string livePc, TimeProvider time, bool isNew, NacreException? offline)
    {
        var claims = Jws.VerifyClaims<LeaseClaims>(untrustedGrant.Lease, identity.Record.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceToken.LeaseType);
        if (claims.Sub != identity.Record.DeviceId || claims.LivePc != livePc)
        {
            throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the lease is for another device or LivePC");
        }

        var ends = DateTimeOffset.FromUnixTimeSeconds(claims.Exp);
        if (time.GetUtcNow() >= ends)
        {
            throw new NacreException(ErrorCatalogue.LeaseExpired, $"the lease of '{livePc}' ended on {ends:yyyy-MM-dd HH:mm} UTC", offline);
        }

        var keys = identity.Key.DecryptKeys(untrustedGrant.Keys);
        var trusted = identity.Record.ReleaseKey
            ?? throw new NacreException(ErrorCatalogue.ReleaseNotAuthentic, "the organisation has no release signing key");
        return new OpenedLease(claims, keys, VerifyManifests(claims, untrustedGrant.Manifests, trusted), isNew, offline) { UntrustedPacks = untrustedGrant.BootPacks ?? [] };
    }

    /// <summary>Verifies the manifests of a grant: each of a release that the lease names, and of the kind that it is named as.</summary>
    internal static IReadOnlyDictionary<ReleaseName, (ReleaseManifest Manifest, string Signed)> VerifyManifests(
        LeaseClaims claims, IReadOnlyList<string> untrustedManifests, PublicKey trusted)
    {
        var named = NamedBy(claims);
        var manifests = new Dictionary<ReleaseName, (ReleaseManifest, string)>();
        foreach (var untrustedManifest in untrustedManifests)
        {
            var manifest = VerifyManifest(untrustedManifest, trusted, null, null);
            if (!named.Contains(manifest.Name))
            {
                throw new NacreException(ErrorCatalogue.ReleaseNotAuthentic, $"the grant has release {manifest.Version} of '{manifest.Image}', which the lease does not name");
            }

            // Against a release in another's place: what is no system never starts as one, and a system is nobody's application layer.
            var kind = manifest.Image != claims.Image ? ImageKind.Application : manifest.Kind == ImageKind.Disk ? ImageKind.Disk : ImageKind.System;
            manifests[manifest.Name] = (VerifyManifest(untrustedManifest, trusted, manifest.Image, kind), untrustedManifest);
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

    /// <summary>Verifies a manifest against the organisation's key, and that it is of that image and kind where those are given.</summary>
    internal static ReleaseManifest VerifyManifest(string untrustedManifest, PublicKey trusted, string? image, ImageKind? kind)
    {
        var manifest = Jws.VerifyClaims<ReleaseManifest>(untrustedManifest, trusted, ErrorCatalogue.ReleaseNotAuthentic, ReleaseManifest.Type);
        return manifest.Format != 1
            ? throw new NacreException(ErrorCatalogue.Unsupported, $"release {manifest.Version} has format {manifest.Format}")
            : image is not null && manifest.Image != image
            ? throw new NacreException(ErrorCatalogue.ReleaseNotAuthentic, $"the release is one of '{manifest.Image}', not of '{image}'")
            : kind is not null && manifest.Kind != kind
            ? throw new NacreException(
                ErrorCatalogue.ReleaseNotAuthentic, $"release {manifest.Version} of '{manifest.Image}' is {Words(manifest.Kind)}, and was given as {Words(kind.Value)}")
            : manifest;
    }
}
