using System.Globalization;
using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

internal sealed class ImageRow
{
    public required string Name { get; init; }

    public required int LatestVersion { get; set; }

    public required ImageKind Kind { get; init; }

    /// <summary>How many of its newest releases are kept; null: all.</summary>
    public int? Keep { get; set; }
}

internal sealed class ReleaseRow
{
    public required string Image { get; init; }

    public required int Version { get; init; }

    public required DateTimeOffset PublishedAt { get; init; }

    /// <summary>The administrator who published it.</summary>
    public required string PublishedBy { get; init; }

    public required long Size { get; init; }

    public required long StoredSize { get; init; }

    public required string Manifest { get; init; }

    /// <summary>SHA-256 of what was signed.</summary>
    public required byte[] ManifestHash { get; init; }

    public required byte[] Key { get; init; }

    /// <summary>SHA-256 of the file system, hexadecimal.</summary>
    public required string? Digest { get; init; }

    /// <summary>Of an application layer: the digest of the system that it was built on.</summary>
    public required string? BuiltOn { get; init; }

    public static byte[] ProtectKey(SecretBox secrets, byte[] key, string image, int version) => secrets.Protect(key, Whose(image, version));

    public byte[] RevealKey(SecretBox secrets) => secrets.Reveal(Key, Whose(Image, Version));

    public Release ToContract(IEnumerable<ChannelRow> channels) => new(
        Image, Version, PublishedAt, Size, StoredSize,
        [.. channels.Where(row => row.Image == Image && row.Version == Version).Select(row => row.Name).Order(StringComparer.Ordinal)], Manifest);

    private static string[] Whose(string image, int version) => ["release-key", image, version.ToString(CultureInfo.InvariantCulture)];
}

/// <summary>What a release of an application layer holds.</summary>
internal sealed class ContentsRow
{
    public required string Image { get; init; }

    public required int Version { get; init; }

    /// <summary>A <see cref="LayerContents"/>, compressed.</summary>
    public required byte[] Contents { get; init; }
}

internal sealed class ChannelRow
{
    public required string Image { get; init; }

    public required string Name { get; init; }

    public required int Version { get; set; }
}

internal static class ImageErrors
{
    public static Failure NoImage(string name) => new(ErrorCatalogue.NotFound, $"there is no image '{name}'");

    public static Failure NoRelease(string image, int version) => new(ErrorCatalogue.NotFound, string.Create(CultureInfo.InvariantCulture, $"there is no release {version} of '{image}'"));

    public static Failure ManifestInvalid(string detail) => new(ErrorCatalogue.RequestInvalid, "the manifest can't be right: " + detail);

    public static Failure VersionSkipped(int next) => new(ErrorCatalogue.RequestInvalid, string.Create(CultureInfo.InvariantCulture, $"the next release must be version {next}"));

    public static Failure VersionTaken(int version) => new(ErrorCatalogue.Immutable, string.Create(CultureInfo.InvariantCulture, $"version {version} is published already, with other contents"));

    public static Failure NotAuthentic(string detail) => new(ErrorCatalogue.ReleaseNotAuthentic, detail);

    public static Failure OtherKind(string image, ImageKind kind) =>
        new(ErrorCatalogue.Immutable, $"the releases of '{image}' are {kind switch { ImageKind.System => "systems", ImageKind.Application => "application layers", _ => "whole disks" }}, and this is none: publish it under another name");

    public static Failure ContentsWrong { get; } = new(ErrorCatalogue.RequestInvalid, "'contents' must be the contents that the manifest of an application layer names, and absent for a system");

    public static Failure SegmentsMissing(int count, string first) =>
        new(ErrorCatalogue.SegmentsMissing, string.Create(CultureInfo.InvariantCulture, $"the store lacks {count} of the release's segments or has others under their names, for one {first}"));
}

internal sealed class Images(
    NacreDatabase database, Segments segments, Rollouts rollouts, Approvals approvals, Caller caller, AuditTrail audit, SecretBox secrets, ServerOptions options, TimeProvider time)
{
    public async Task<Result<Stored<Release>>> PublishAsync(string untrustedImage, PublishRelease untrusted, CancellationToken cancellationToken)
    {
        if (!Names.IsValid(untrustedImage))
        {
            return IdentityErrors.NameInvalid("an image");
        }

        if (!Text.TryReadKey(untrusted.ReleaseKey, out var releaseKey))
        {
            return new Failure(ErrorCatalogue.RequestInvalid, "'releaseKey' must be 32 bytes in base64");
        }

        if (await SigningKey.FindAsync(database, cancellationToken) is not { } signingKey)
        {
            return ImageErrors.NotAuthentic("no release signing key is registered yet");
        }

        if (!Jws.TryVerify(untrusted.Manifest, signingKey, type: null, out var payload))
        {
            return ImageErrors.NotAuthentic("the manifest is not signed by the registered release signing key");
        }

        if (!Jws.TryRead<ReleaseManifest>(payload, out var manifest))
        {
            return ImageErrors.ManifestInvalid("it is not the JSON of a manifest");
        }

        if (ManifestRules.Check(manifest, untrustedImage, options.MaxSegmentBytes) is { } wrong)
        {
            return wrong;
        }

        if (!TryReadContents(manifest, untrusted.Contents, out var contents))
        {
            return ImageErrors.ContentsWrong;
        }

        return await PublishAsync(manifest, SHA256.HashData(payload), untrusted.Manifest, releaseKey, contents, cancellationToken);
    }

    public async Task<IReadOnlyList<Image>> ListAsync(CancellationToken cancellationToken)
    {
        var channels = (await database.Channels.AsNoTracking().OrderBy(row => row.Name).ToListAsync(cancellationToken)).ToLookup(row => row.Image);
        return (await database.Images.AsNoTracking().OrderBy(row => row.Name).ToListAsync(cancellationToken))
            .ConvertAll(row => ToContract(row, channels[row.Name]));
    }

    public async Task<Result<IReadOnlyList<Release>>> ListReleasesAsync(string untrustedImage, CancellationToken cancellationToken)
    {
        if (!await database.Images.AnyAsync(row => row.Name == untrustedImage, cancellationToken))
        {
            return ImageErrors.NoImage(Named(untrustedImage));
        }

        var channels = await database.Channels.AsNoTracking().Where(row => row.Image == untrustedImage).ToListAsync(cancellationToken);
        return (await database.Releases.AsNoTracking().Where(row => row.Image == untrustedImage).OrderBy(row => row.Version).ToListAsync(cancellationToken))
            .ConvertAll(row => row.ToContract(channels));
    }

    public async Task<Result<Release>> GetReleaseAsync(string untrustedImage, int version, CancellationToken cancellationToken)
    {
        var release = await database.Releases.AsNoTracking().SingleOrDefaultAsync(row => row.Image == untrustedImage && row.Version == version, cancellationToken);
        return release is null
            ? ImageErrors.NoRelease(Named(untrustedImage), version)
            : release.ToContract(await database.Channels.AsNoTracking().Where(row => row.Image == untrustedImage).ToListAsync(cancellationToken));
    }

    public async Task<Result<Image>> MoveChannelAsync(string untrustedImage, string untrustedChannel, MoveChannel untrusted, CancellationToken cancellationToken)
    {
        if (!Names.IsValid(untrustedChannel))
        {
            return IdentityErrors.NameInvalid("a channel");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var image = await database.Images.SingleOrDefaultAsync(row => row.Name == untrustedImage, cancellationToken);
        if (image is null)
        {
            return ImageErrors.NoImage(Named(untrustedImage));
        }

        if (await database.Releases.AsNoTracking().SingleOrDefaultAsync(row => row.Image == image.Name && row.Version == untrusted.Version, cancellationToken) is not { } release)
        {
            return ImageErrors.NoRelease(image.Name, untrusted.Version);
        }

        if (await approvals.LacksAsync(release, cancellationToken) is { Count: > 0 } lacks)
        {
            return ApprovalErrors.NotApproved(string.Create(CultureInfo.InvariantCulture, $"release {release.Version} of '{release.Image}'"), lacks);
        }

        // Moved by hand, to go on or back for all: that is what holds now.
        await rollouts.EndAsync(image.Name, untrustedChannel, cancellationToken);
        var channel = await database.Channels.SingleOrDefaultAsync(row => row.Image == image.Name && row.Name == untrustedChannel, cancellationToken);
        if (channel?.Version != untrusted.Version)
        {
            var from = channel is null ? "nothing" : channel.Version.ToString(CultureInfo.InvariantCulture);
            if (channel is null)
            {
                database.Channels.Add(new ChannelRow { Image = image.Name, Name = untrustedChannel, Version = untrusted.Version });
            }
            else
            {
                channel.Version = untrusted.Version;
            }

            await audit.AppendAsync(
                Roles.Administrator, "channel.move", $"{image.Name}/{untrustedChannel}", string.Create(CultureInfo.InvariantCulture, $"from {from} to {untrusted.Version}"), cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);

        return ToContract(image, await database.Channels.AsNoTracking().Where(row => row.Image == image.Name).ToListAsync(cancellationToken));
    }

    /// <summary>Says how many of an image's newest releases are kept. What that means is done by <see cref="StoreKeeper"/>, at its next pass.</summary>
    public async Task<Result<Image>> SetRetentionAsync(string untrustedImage, ImageRetention untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.Keep is < 1 or > ImageRetention.Most)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"'keep' must be 1 to {ImageRetention.Most}, or absent to keep all");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Images.SingleOrDefaultAsync(row => row.Name == untrustedImage, cancellationToken) is not { } image)
        {
            return ImageErrors.NoImage(Named(untrustedImage));
        }

        if (image.Keep != untrusted.Keep)
        {
            image.Keep = untrusted.Keep;
            await audit.AppendAsync(Roles.Administrator, "image.retention", image.Name, image.Keep is { } keep ? string.Create(CultureInfo.InvariantCulture, $"the newest {keep}") : "all", cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }

        return ToContract(image, await database.Channels.AsNoTracking().Where(row => row.Image == image.Name).ToListAsync(cancellationToken));
    }

    private async Task<Result<Stored<Release>>> PublishAsync(
        ReleaseManifest manifest, byte[] hash, string compact, byte[] releaseKey, byte[]? contents, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var image = await database.Images.SingleOrDefaultAsync(row => row.Name == manifest.Image, cancellationToken);
        var latest = image?.LatestVersion ?? 0;
        if (image is not null && image.Kind != manifest.Kind)
        {
            return ImageErrors.OtherKind(image.Name, image.Kind);
        }

        if (manifest.Version <= latest)
        {
            return await CompareAsync(manifest, hash, releaseKey, cancellationToken);
        }

        if (manifest.Version != latest + 1)
        {
            return ImageErrors.VersionSkipped(latest + 1);
        }

        var references = manifest.Stored.DistinctBy(segment => segment.Name).ToList();
        var present = await segments.FindAsync(references.Select(segment => segment.Name), cancellationToken);
        var missing = references.FindAll(wanted => !present.TryGetValue(wanted.Name, out var have) || have.Length != wanted.Length || have.Sha256 != wanted.Sha256);
        if (missing.Count > 0)
        {
            return ImageErrors.SegmentsMissing(missing.Count, missing[0].Name);
        }

        if (image is null)
        {
            image = new ImageRow { Name = manifest.Image, LatestVersion = 0, Kind = manifest.Kind };
            database.Images.Add(image);
        }

        image.LatestVersion = manifest.Version;
        var release = new ReleaseRow
        {
            Image = manifest.Image,
            Version = manifest.Version,
            PublishedAt = time.Now(),
            PublishedBy = caller.Name,
            Size = manifest.Size,
            StoredSize = manifest.Segments.Append(manifest.Index).Sum(segment => segment.Length),
            Manifest = compact,
            ManifestHash = hash,
            Key = ReleaseRow.ProtectKey(secrets, releaseKey, manifest.Image, manifest.Version),
            Digest = manifest.Digest,
            BuiltOn = manifest.BuiltOn,
        };
        database.Releases.Add(release);
        database.SegmentUses.AddRange(references.Select(reference => new SegmentUseRow { Image = manifest.Image, Version = manifest.Version, Segment = reference.Name }));
        if (contents is not null)
        {
            database.Contents.Add(new ContentsRow { Image = manifest.Image, Version = manifest.Version, Contents = contents });
        }

        await audit.AppendAsync(
            Roles.Administrator, "release.publish", string.Create(CultureInfo.InvariantCulture, $"{manifest.Image}/{manifest.Version}"), "manifest sha256 " + Text.Hex(hash), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new Stored<Release>(release.ToContract([]), IsNew: true);
    }

    /// <summary>A release that is there already: fine where it is the same (a signature made again differs, what it signs must not).</summary>
    private async Task<Result<Stored<Release>>> CompareAsync(ReleaseManifest manifest, byte[] hash, byte[] releaseKey, CancellationToken cancellationToken)
    {
        var existing = await database.Releases.AsNoTracking().SingleOrDefaultAsync(row => row.Image == manifest.Image && row.Version == manifest.Version, cancellationToken);
        if (existing is null || !existing.ManifestHash.AsSpan().SequenceEqual(hash) || !CryptographicOperations.FixedTimeEquals(existing.RevealKey(secrets), releaseKey))
        {
            return ImageErrors.VersionTaken(manifest.Version);
        }

        var channels = await database.Channels.AsNoTracking().Where(row => row.Image == manifest.Image).ToListAsync(cancellationToken);
        return new Stored<Release>(existing.ToContract(channels), IsNew: false);
    }

    /// <summary>An application layer says what it holds, and the manifest signs it.</summary>
    private static bool TryReadContents(ReleaseManifest manifest, string? untrusted, out byte[]? contents)
    {
        contents = null;
        if (manifest.Kind != ImageKind.Application)
        {
            return untrusted is null;
        }

        var bytes = new byte[(untrusted?.Length ?? 0) * 3 / 4];
        if (untrusted is null || !Convert.TryFromBase64String(untrusted, bytes, out var length) || LayerContents.TryExpand(bytes[..length]) is not { } json
            || LayerContents.DigestOf(json) != manifest.Contents)
        {
            return false;
        }

        try
        {
            LayerContents.FromJson(json);
        }
        catch (System.Text.Json.JsonException)
        {
            return false;
        }

        contents = bytes[..length];
        return true;
    }

    private static Image ToContract(ImageRow image, IEnumerable<ChannelRow> channels) =>
        new(image.Name, image.LatestVersion, channels.OrderBy(row => row.Name, StringComparer.Ordinal).ToDictionary(row => row.Name, row => row.Version), image.Kind, image.Keep);

    private static string Named(string untrusted) => Names.IsValid(untrusted) ? untrusted : "?";
}
