using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace Nacre.Contracts;

// The bodies of the REST API, version 1. docs/architecture.md and /openapi/v1.json describe the paths.

/// <summary>A public key, P-256, as a JSON Web Key (RFC 7517).</summary>
/// <param name="Kty">Always <c>EC</c>.</param>
/// <param name="Crv">Always <c>P-256</c>.</param>
/// <param name="X">Coordinate, base64url.</param>
/// <param name="Y">Coordinate, base64url.</param>
public sealed record PublicKey(string Kty, string Crv, string X, string Y);

/// <summary>What the server says about itself; needs no credential.</summary>
/// <param name="Product">Always <c>nacre</c>.</param>
/// <param name="Version">The server's version.</param>
/// <param name="Organisation">The organisation's name.</param>
public sealed record ServerInfo(string Product, string Version, string Organisation);

/// <summary>Creates a user.</summary>
/// <param name="Name">Unique name; see <see cref="Names"/>.</param>
/// <param name="DisplayName">For people.</param>
public sealed record CreateUser(string Name, string? DisplayName);

/// <summary>A user.</summary>
/// <param name="Name">Unique name.</param>
/// <param name="DisplayName">For people.</param>
/// <param name="CreatedAt">When it was created.</param>
public sealed record User(string Name, string DisplayName, DateTimeOffset CreatedAt);

/// <summary>Makes a one-time code with which a device of this user enrols.</summary>
/// <param name="User">Whose device it will be.</param>
/// <param name="ValidForSeconds">1 to 2,592,000 (30 days); absent: a day.</param>
public sealed record CreateEnrolmentCode(string User, long? ValidForSeconds);

/// <summary>A fresh code, shown this once.</summary>
/// <param name="Code">The code with its secret part.</param>
/// <param name="ExpiresAt">When it stops working.</param>
public sealed record CreatedEnrolmentCode(string Code, DateTimeOffset ExpiresAt)
{
    /// <summary>Without the secret.</summary>
    public override string ToString() => $"{nameof(CreatedEnrolmentCode)} {{ Code = ***, ExpiresAt = {ExpiresAt:O} }}";
}

/// <summary>A device's request to be enrolled.</summary>
/// <param name="CodeId">The code's public part.</param>
/// <param name="DeviceName">For people, at most 64 characters.</param>
/// <param name="PublicKey">The device's key, made on the device.</param>
/// <param name="Proof"><see cref="EnrolmentCode.Prove"/> over purpose <c>request</c> and <see cref="Parts"/>.</param>
/// <param name="TlsKey">Another key of the device's, with which it shows itself in TLS; null: it does not.</param>
public sealed record EnrolDevice(string CodeId, string DeviceName, PublicKey PublicKey, string Proof, PublicKey? TlsKey = null)
{
    /// <summary>What the proof is over: CodeId, DeviceName, PublicKey.X, PublicKey.Y, and TlsKey.X, TlsKey.Y where there is one.</summary>
    [JsonIgnore]
    public string[] Parts => [CodeId, DeviceName, PublicKey.X, PublicKey.Y, .. TlsKey is null ? Array.Empty<string>() : [TlsKey.X, TlsKey.Y]];
}

/// <summary>The server's answer to <see cref="EnrolDevice"/>: all that the device will trust from now on.</summary>
/// <param name="DeviceId">The device's identity.</param>
/// <param name="User">Whose device it is.</param>
/// <param name="Organisation">The organisation's name.</param>
/// <param name="Root">The organisation's trust root, from which the device tells its releases: src/Nacre.Contracts/Trust/SPEC.md.</param>
/// <param name="LeaseKey">Signs leases; held by the server.</param>
/// <param name="Proof"><see cref="EnrolmentCode.Prove"/> over purpose <c>answer</c> and <see cref="PartsFor"/>.</param>
/// <param name="Authorities">Whose certificates the device believes the server from now on, PEM; null: those that its computer trusts.</param>
/// <param name="Certificate">The device's own certificate, DER in base64; null where TLS ends at a proxy.</param>
/// <param name="Waits">Whether it may ask for nothing until an administrator approves it.</param>
public sealed record EnrolledDevice(
    string DeviceId, string User, string Organisation, string Root, PublicKey LeaseKey, string Proof, string? Authorities = null, string? Certificate = null, bool Waits = false)
{
    /// <summary>What the proof is over: DeviceId, User, Organisation, Root, LeaseKey.X, LeaseKey.Y, Authorities, Certificate (empty where there is none), <c>waits</c> or
    /// <c>approved</c>, and the request's proof.</summary>
    /// <param name="requestProof">The proof of the request that is answered.</param>
    public string[] PartsFor(string requestProof) =>
        [DeviceId, User, Organisation, Root, LeaseKey.X, LeaseKey.Y, Authorities ?? "", Certificate ?? "", Waits ? "waits" : "approved", requestProof];
}

/// <summary>Asks for a certificate of the device's next key for TLS.</summary>
/// <param name="TlsKey">The key; the request's token vouches for it.</param>
public sealed record RenewCertificate(PublicKey TlsKey);

/// <summary>A device's certificate.</summary>
/// <param name="Certificate">DER, base64.</param>
public sealed record DeviceCertificate(string Certificate);

/// <summary>A device as the administrator sees it.</summary>
/// <param name="Id">Identity.</param>
/// <param name="Name">For people.</param>
/// <param name="User">Whose it is.</param>
/// <param name="EnrolledAt">When it enrolled.</param>
/// <param name="LastSeenAt">Its last authenticated request.</param>
/// <param name="Revoked">Whether its permission was taken away.</param>
/// <param name="Waiting">Whether it waits, or waited until it was turned away, for approval.</param>
/// <param name="CertificateSerial">The serial of its newest certificate, hexadecimal; null: it has none.</param>
/// <param name="CertificateEndsAt">When that ends; the device renews it before.</param>
public sealed record Device(
    string Id, string Name, string User, DateTimeOffset EnrolledAt, DateTimeOffset? LastSeenAt, bool Revoked, bool Waiting = false, string? CertificateSerial = null, DateTimeOffset? CertificateEndsAt = null);

/// <summary>Asks which segments the store lacks.</summary>
/// <param name="Names">At most 10,000 names.</param>
public sealed record FindMissingSegments(IReadOnlyList<string> Names);

/// <summary>The segments that the store lacks.</summary>
/// <param name="Names">A subset of those asked for.</param>
public sealed record MissingSegments(IReadOnlyList<string> Names);

/// <summary>Publishes a release: its segments must be in the store.</summary>
/// <param name="Manifest">A <see cref="ReleaseManifest"/> as compact JWS (ES256) by the organisation's release signing key.</param>
/// <param name="ReleaseKey">32 bytes, base64: opens the release's index. The server keeps it encrypted and gives it to entitled devices only.</param>
/// <param name="Contents">Of an application layer: its <see cref="LayerContents"/> as JSON, gzip, base64.</param>
public sealed record PublishRelease(string Manifest, string ReleaseKey, string? Contents = null)
{
    /// <summary>Without the secret.</summary>
    public override string ToString() => $"{nameof(PublishRelease)} {{ Manifest = {Manifest}, ReleaseKey = *** }}";
}

/// <summary>A published release.</summary>
/// <param name="Image">Its golden image.</param>
/// <param name="Version">1, 2, 3, … within the image.</param>
/// <param name="PublishedAt">When.</param>
/// <param name="Size">Bytes of all its artifacts, before chunking.</param>
/// <param name="StoredSize">Bytes of all the segments that it refers to.</param>
/// <param name="Channels">The channels that point at it.</param>
/// <param name="Manifest">The signed manifest.</param>
public sealed record Release(string Image, int Version, DateTimeOffset PublishedAt, long Size, long StoredSize, IReadOnlyList<string> Channels, string Manifest);

/// <summary>A golden image.</summary>
/// <param name="Name">Unique name.</param>
/// <param name="LatestVersion">The newest release's version, 0 before the first.</param>
/// <param name="Channels">Channel name to version.</param>
/// <param name="Kind">What it is.</param>
/// <param name="Keep">How many of its newest releases are kept; null: all.</param>
public sealed record Image(string Name, int LatestVersion, IReadOnlyDictionary<string, int> Channels, ImageKind Kind = ImageKind.System, int? Keep = null);

/// <summary>How many of an image's newest releases are kept. One on a channel, or that a device has, stays beyond that.</summary>
/// <param name="Keep">1 to 1000; null: all.</param>
public sealed record ImageRetention(int? Keep)
{
    /// <summary>The largest number.</summary>
    public const int Most = 1000;
}

/// <summary>Cleans the store.</summary>
/// <param name="DryRun">Whether it is only said what would go.</param>
public sealed record CleanStore(bool DryRun = false);

/// <summary>What went, or would go.</summary>
/// <param name="Releases">Releases outside their image's retention.</param>
/// <param name="Segments">Segments that nothing refers to, and nobody needed during the grace period.</param>
/// <param name="Bytes">Bytes of those segments.</param>
public sealed record StoreCleaned(IReadOnlyList<ReleaseName> Releases, int Segments, long Bytes);

/// <summary>What is wrong with something in the store.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<StoreProblemKind>))]
public enum StoreProblemKind
{
    /// <summary>A segment is not there.</summary>
    [JsonStringEnumMemberName("missing")]
    Missing,

    /// <summary>A segment has another length or hash than it should.</summary>
    [JsonStringEnumMemberName("damaged")]
    Damaged,

    /// <summary>Bytes of which the server knows nothing: left by an upload that a crash ended, or by somebody else. Cleaning removes them after the grace period.</summary>
    [JsonStringEnumMemberName("orphan")]
    Orphan,
}

/// <summary>Something that a check found.</summary>
/// <param name="Segment">The segment's name.</param>
/// <param name="Kind">What is wrong.</param>
/// <param name="Sha256">What its bytes should have, hexadecimal; null of an orphan.</param>
/// <param name="Releases">The releases that need it.</param>
public sealed record StoreProblem(string Segment, StoreProblemKind Kind, string? Sha256, IReadOnlyList<ReleaseName> Releases);

/// <summary>A 256th of the store, checked: every segment whose name begins with two given digits was read and compared with its hash.</summary>
/// <param name="Segments">Segments that were checked.</param>
/// <param name="Bytes">Bytes that were read.</param>
/// <param name="Problems">What was found.</param>
public sealed record StoreCheck(int Segments, long Bytes, IReadOnlyList<StoreProblem> Problems)
{
    /// <summary>How many parts there are.</summary>
    public const int Parts = 256;
}

/// <summary>What a replica mirrors.</summary>
/// <param name="Releases">Which releases, and their segments.</param>
public sealed record ReplicaPlan(IReadOnlyList<ReplicaRelease> Releases);

/// <summary>A release as a replica knows it: nothing of it can be read with this.</summary>
/// <param name="Release">Which one.</param>
/// <param name="Channels">The channels that point at it.</param>
/// <param name="Segments">All its segments, the index among them.</param>
public sealed record ReplicaRelease(ReleaseName Release, IReadOnlyList<string> Channels, IReadOnlyList<SegmentReference> Segments);

/// <summary>A new token for replicas; the one before is worth nothing from now on.</summary>
/// <param name="Token">The token.</param>
public sealed record CreatedReplicaToken(string Token)
{
    /// <summary>Without the secret.</summary>
    public override string ToString() => $"{nameof(CreatedReplicaToken)} {{ Token = *** }}";
}

/// <summary>Points a channel at a release.</summary>
/// <param name="Version">The release's version.</param>
public sealed record MoveChannel(int Version);

/// <summary>Creates a LivePC.</summary>
/// <param name="Name">Unique name.</param>
/// <param name="Image">The golden image that it runs.</param>
/// <param name="Channel">The channel that it follows; absent: <c>stable</c>.</param>
public sealed record CreateLivePc(string Name, string Image, string? Channel);

/// <summary>A LivePC as the administrator sees it.</summary>
/// <param name="Name">Unique name.</param>
/// <param name="Image">Golden image.</param>
/// <param name="Channel">Channel.</param>
/// <param name="Users">Who is entitled.</param>
public sealed record LivePc(string Name, string Image, string Channel, IReadOnlyList<string> Users);

/// <summary>One application layer of a LivePC.</summary>
/// <param name="Image">The layer's image.</param>
/// <param name="Channel">The channel that it follows; absent: <c>stable</c>.</param>
public sealed record LayerChoice(string Image, string? Channel);

/// <summary>Sets the application layers of a LivePC.</summary>
/// <param name="Layers">Lowest first, at most 16, each image once.</param>
public sealed record PutLayers(IReadOnlyList<LayerChoice> Layers);

/// <summary>An application layer of a LivePC.</summary>
/// <param name="Image">The layer's image.</param>
/// <param name="Channel">The channel that it follows.</param>
/// <param name="Version">The release that the channel points at; null where there is none yet.</param>
public sealed record StackedLayer(string Image, string Channel, int? Version);

/// <summary>A path that several layers bring, with different contents.</summary>
/// <param name="Path">The path.</param>
/// <param name="Layers">Who brings it, lowest first; the system first where it does.</param>
/// <param name="Winner">Whose the guest sees.</param>
public sealed record LayerConflict(string Path, IReadOnlyList<string> Layers, string Winner);

/// <summary>What a LivePC is stacked of.</summary>
/// <param name="Image">The system's image.</param>
/// <param name="Channel">The system's channel.</param>
/// <param name="Version">The system's release; null where there is none yet.</param>
/// <param name="Layers">The application layers, lowest first.</param>
/// <param name="Conflicts">Paths that several of them bring.</param>
/// <param name="Warnings">What else may not go together, for a person.</param>
public sealed record LivePcLayers(
    string Image, string Channel, int? Version, IReadOnlyList<StackedLayer> Layers, IReadOnlyList<LayerConflict> Conflicts, IReadOnlyList<string> Warnings);

/// <summary>What a device reports.</summary>
/// <param name="Id">32 hexadecimal digits, made by the device: the same report sent again is the same report.</param>
/// <param name="At">When it happened.</param>
/// <param name="Kind">What happened.</param>
/// <param name="Stack">The corporate layers that it is about, lowest first.</param>
/// <param name="Reason">Why, in at most 1000 characters.</param>
/// <param name="Console">The guest's last words, in at most 8000 characters.</param>
public sealed record SendReport(string Id, DateTimeOffset At, ReportKind Kind, IReadOnlyList<ReleaseName> Stack, string Reason, string Console);

/// <summary>What a device reports about a LivePC's corporate layers.</summary>
[System.Text.Json.Serialization.JsonConverter(typeof(System.Text.Json.Serialization.JsonStringEnumConverter<ReportKind>))]
public enum ReportKind
{
    /// <summary>They did not reach a healthy start, and the previous ones start again.</summary>
    [System.Text.Json.Serialization.JsonStringEnumMemberName("set-aside")]
    SetAside,

    /// <summary>They can't carry a package that the user installed; the previous ones start until the user decides.</summary>
    [System.Text.Json.Serialization.JsonStringEnumMemberName("user-packages")]
    UserPackages,

    /// <summary>They did not reach a healthy start, and there is nothing to go back to.</summary>
    [System.Text.Json.Serialization.JsonStringEnumMemberName("failed")]
    Failed,

    /// <summary>They reached a healthy start.</summary>
    [System.Text.Json.Serialization.JsonStringEnumMemberName("started")]
    Started,

    /// <summary>The server's trust metadata was refused, so no new release was taken.</summary>
    [System.Text.Json.Serialization.JsonStringEnumMemberName("trust")]
    Trust,

    /// <summary>They start, but the packages of an application layer lack something of this system.</summary>
    [System.Text.Json.Serialization.JsonStringEnumMemberName("dependencies")]
    Dependencies,

    /// <summary>Their user went back to the ones before.</summary>
    [System.Text.Json.Serialization.JsonStringEnumMemberName("rolled-back")]
    RolledBack,
}

/// <summary>A report as the administrator sees it.</summary>
/// <param name="Device">The device.</param>
/// <param name="LivePc">The LivePC.</param>
/// <param name="ReceivedAt">When the server got it.</param>
/// <param name="Report">What the device said.</param>
public sealed record DeviceReport(string Device, string LivePc, DateTimeOffset ReceivedAt, SendReport Report);

/// <summary>A LivePC as an entitled device sees it.</summary>
/// <param name="Name">Unique name.</param>
/// <param name="Image">Golden image.</param>
/// <param name="Channel">The channel that it follows on this device, or <c>release N</c> where the policy holds it there.</param>
/// <param name="Version">The release on offer; null where there is none.</param>
public sealed record EntitledLivePc(string Name, string Image, string Channel, int? Version);

/// <summary>Asks for a lease.</summary>
/// <param name="InstalledVersion">The release that the device has and may go on starting; null on an empty device.</param>
/// <param name="Nonce">At most 64 characters that the lease repeats, so that an older one can't be put in the answer's place.</param>
/// <param name="Anchors">What the device knows of its user layers; null where it states nothing.</param>
/// <param name="Kept">At most <see cref="MostKept"/> releases that the device has and may go back to. The lease covers those that the LivePC still has and no channel was moved back behind.</param>
/// <param name="KnownManifests">At most <see cref="MostKnown"/> signed manifests that the device has, each by its <see cref="LeaseGrant.DigestOf"/>: the answer leaves them out.</param>
public sealed record TakeLease(
    int? InstalledVersion, string? Nonce = null, IReadOnlyList<StatedAnchor>? Anchors = null, IReadOnlyList<ReleaseName>? Kept = null, IReadOnlyList<string>? KnownManifests = null)
{
    /// <summary>A lease covers less.</summary>
    public const int MostKnown = 100;

    /// <summary>Two stacks, and what most of them had before.</summary>
    public const int MostKept = 64;
}

/// <summary>A lease with what it opens.</summary>
/// <param name="Lease">A <see cref="LeaseClaims"/> as compact JWS (ES256) by the server's lease key.</param>
/// <param name="Manifests">Signed manifests of every release that the lease covers, without those that the device said it has.</param>
/// <param name="Keys"><see cref="LeaseKeys"/> as compact JWE (ECDH-ES+A256KW, A256GCM) to the device's key.</param>
/// <param name="BootPacks">Where the boot packs of those releases are; a hint, nothing of it is signed.</param>
/// <param name="RecoveryKey">The organisation's recovery key as PEM; it counts if the trust metadata vouches for it.</param>
/// <param name="KnownManifests">Those that were left out, by their <see cref="DigestOf"/>; null: none.</param>
/// <param name="Revision">A word of the server's for what this was made of: see <see cref="StateAnchors"/>.</param>
public sealed record LeaseGrant(
    string Lease, IReadOnlyList<string> Manifests, string Keys, IReadOnlyList<BootPack>? BootPacks = null, string? RecoveryKey = null, IReadOnlyList<string>? KnownManifests = null,
    string? Revision = null)
{
    /// <summary>What tells one signed manifest from another: the SHA-256 of its text, base64url.</summary>
    public static string DigestOf(string manifest) => System.Buffers.Text.Base64Url.EncodeToString(System.Security.Cryptography.SHA256.HashData(System.Text.Encoding.ASCII.GetBytes(manifest)));

    /// <summary>The same with the manifests that were left out.</summary>
    /// <param name="manifests">What the device has.</param>
    /// <exception cref="NacreException">LeaseNotAuthentic: one was left out that the device does not have.</exception>
    public LeaseGrant With(IReadOnlyList<string> manifests)
    {
        var known = manifests.DistinctBy(DigestOf).ToDictionary(DigestOf, StringComparer.Ordinal);
        return this with
        {
            Manifests = [.. Manifests, .. (KnownManifests ?? []).Select(digest => known.GetValueOrDefault(digest)
                ?? throw new NacreException(ErrorCatalogue.LeaseNotAuthentic, "the lease leaves out a manifest that this device does not have"))],
            KnownManifests = null,
        };
    }
}

/// <summary>What the server says with a lease. Times are seconds since 1970 (RFC 7519).</summary>
/// <param name="Sub">The device.</param>
/// <param name="User">The user.</param>
/// <param name="LivePc">The LivePC.</param>
/// <param name="Image">Its golden image.</param>
/// <param name="Version">The release that the channel points at.</param>
/// <param name="InstalledVersion">The older release that the device may go on starting, where it asked for one.</param>
/// <param name="Iat">Issued at.</param>
/// <param name="Exp">Ends at.</param>
/// <param name="Nonce">The request's.</param>
/// <param name="Anchors">The newest states of this device's user layers that the server knows of.</param>
/// <param name="Policy">All that was decided for this LivePC, on this device, for this user: a policy document (docs/policies.md); null: nothing.</param>
/// <param name="Layers">The application layers that belong on top of the system, lowest first.</param>
/// <param name="Kept">The releases that the device asked to keep and may go on starting.</param>
/// <param name="Origins">Base URLs of origins of segments, see <see cref="StoreOrigins"/>; null: only the server.</param>
/// <param name="Expires">When the LivePC itself ends for this user; null: never.</param>
/// <param name="Groups">The user's groups, as far as the policy depends on them on the device (<c>appVisibility</c>); null: none.</param>
/// <param name="ChannelProblem">For a person: which of its images lack the channel that the policy names, and what they follow; null: none.</param>
public sealed record LeaseClaims(
    string Sub, string User, string LivePc, string Image, int Version, int? InstalledVersion, long Iat, long Exp,
    string? Nonce = null, IReadOnlyList<LayerAnchor>? Anchors = null, JsonObject? Policy = null,
    IReadOnlyList<ReleaseName>? Layers = null, IReadOnlyList<ReleaseName>? Kept = null, IReadOnlyList<string>? Origins = null, long? Expires = null,
    IReadOnlyList<string>? Groups = null, string? ChannelProblem = null);

/// <summary>The secrets of a lease.</summary>
/// <param name="Share">32 bytes, base64: the server's part of the key that opens the user's volumes; always the same for one device and LivePC.</param>
/// <param name="ReleaseKeys">Release to its key, 32 bytes, base64: of the system the version as text, of an application layer <c>IMAGE/VERSION</c>.</param>
public sealed record LeaseKeys(string Share, IReadOnlyDictionary<string, string> ReleaseKeys)
{
    /// <summary>What a release's key is found by.</summary>
    public static string KeyOf(ReleaseName release, string system)
    {
        ArgumentNullException.ThrowIfNull(release);
        var version = release.Version.ToString(System.Globalization.CultureInfo.InvariantCulture);
        return release.Image == system ? version : $"{release.Image}/{version}";
    }

    /// <summary>Without the secret.</summary>
    public override string ToString() => $"{nameof(LeaseKeys)} {{ Share = ***, ReleaseKeys = *** }}";
}

/// <summary>How far one of a device's user layers had durably grown: kept outside the device, it tells an older copy from the newest state.</summary>
/// <param name="Layer">The layer's name.</param>
/// <param name="Volume">Its volume's identity.</param>
/// <param name="Epoch">1, and more each time that another state was put in the newest one's place on purpose.</param>
/// <param name="Position">Grows with every change of the volume.</param>
public sealed record LayerAnchor(string Layer, Guid Volume, int Epoch, long Position)
{
    /// <summary>Whether this is <paramref name="other"/>, or a state that grew out of it.</summary>
    public bool IsAtLeast(LayerAnchor other)
    {
        ArgumentNullException.ThrowIfNull(other);
        return Layer == other.Layer && Volume == other.Volume && Epoch == other.Epoch && Position >= other.Position;
    }

    /// <summary>For messages.</summary>
    public override string ToString() => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"position {Position} of volume {Volume} (epoch {Epoch})");
}

/// <summary>What a device says of one of its user layers.</summary>
/// <param name="Anchor">Its newest state.</param>
/// <param name="Replaces">The newest state that the device knew of when its user accepted another one in its place; null once the server has heard of it, and
/// where there was no such thing.</param>
public sealed record StatedAnchor(LayerAnchor Anchor, LayerAnchor? Replaces);

/// <summary>Tells the server how far the user layers of a LivePC have grown; the answer says too whether there is news for it.</summary>
/// <param name="Nonce">At most 64 characters that the answer repeats.</param>
/// <param name="Anchors">At most 16, one a layer.</param>
/// <param name="Revision">The <see cref="LeaseGrant.Revision"/> of the lease that the device has; null: it has none.</param>
public sealed record StateAnchors(string Nonce, IReadOnlyList<StatedAnchor> Anchors, string? Revision = null);

/// <summary>The answer to <see cref="StateAnchors"/>.</summary>
/// <param name="Anchors">An <see cref="AnchorClaims"/> as compact JWS (ES256) by the server's lease key.</param>
public sealed record SignedAnchors(string Anchors);

/// <summary>What the server knows of a device's user layers, whatever the device stated.</summary>
/// <param name="Sub">The device.</param>
/// <param name="LivePc">The LivePC.</param>
/// <param name="Nonce">The request's.</param>
/// <param name="Anchors">The newest states.</param>
/// <param name="IsLeaseCurrent">Whether a renewal would give what the device has: the same releases, policy and origins of segments.</param>
/// <param name="HasOrders">Whether orders wait for the device: to be fetched.</param>
public sealed record AnchorClaims(string Sub, string LivePc, string Nonce, IReadOnlyList<LayerAnchor> Anchors, bool IsLeaseCurrent = false, bool HasOrders = false)
{
    /// <summary>The <c>typ</c> of the signed claims.</summary>
    public const string Type = "nacre-anchors+jwt";
}

/// <summary>The organisation's trust metadata as the server has it, and the key with which the server signs timestamps and snapshots.</summary>
/// <param name="OnlineKey">The server's key: a root names it for <c>timestamp</c> and <c>snapshot</c>.</param>
/// <param name="Files">The newest file of each role, by the role's name; empty before there is a root.</param>
public sealed record TrustOverview(PublicKey OnlineKey, IReadOnlyDictionary<string, string> Files);

/// <summary>A file of trust metadata, signed.</summary>
/// <param name="File">The file.</param>
public sealed record PutTrustFile(string File);
