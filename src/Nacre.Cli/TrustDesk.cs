using System.Security.Cryptography;
using System.Text;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;

namespace Nacre.Cli;

/// <summary>What a rotation shall change; null: as it is.</summary>
internal sealed record TrustChange
{
    public IReadOnlyList<TrustKey>? Root { get; init; }

    public int? Threshold { get; init; }

    public IReadOnlyList<TrustKey>? Targets { get; init; }

    public int? TargetsThreshold { get; init; }

    public bool RenewsOnlineKey { get; init; }

    /// <summary>The key that signs releases from now on.</summary>
    public TrustKey? Publisher { get; init; }

    /// <summary>The images that <see cref="Publisher"/> is for; empty: all that there are.</summary>
    public IReadOnlyList<string> Images { get; init; } = [];

    /// <summary>The organisation's recovery key from now on.</summary>
    public TrustKey? Recovery { get; init; }

    /// <summary>Releases that nobody vouches for any more.</summary>
    public IReadOnlyList<ReleaseName> Without { get; init; } = [];

    public TimeSpan Life { get; init; } = TimeSpan.FromDays(365);

    /// <summary>Whether a root has to be made: those who hold its keys have to sign then.</summary>
    public bool ConcernsRoot => Root is not null || Threshold is not null || Targets is not null || TargetsThreshold is not null || RenewsOnlineKey;

    /// <summary>Whether it changes nothing, so that it only puts off the end of each role.</summary>
    public bool IsRenewal => !ConcernsRoot && Publisher is null && Recovery is null && Without.Count == 0;
}

/// <summary>A file of a role that was made here, and how many signatures it lacks.</summary>
internal sealed record TrustDraft(string Role, byte[] File, int Missing);

/// <summary>The administrator's side of the trust metadata: what this computer trusts of it, and making the next versions.</summary>
internal sealed class TrustDesk(NacreClient client, TimeProvider time)
{
    /// <summary>Begins the trust with this computer's release signing key in every role, where the organisation has none yet.</summary>
    public async Task EnsureAsync(CancellationToken cancellationToken)
    {
        if ((await client.GetTrustAsync(cancellationToken)).Files.Count == 0)
        {
            using var key = Administration.SigningKey();
            var only = new[] { TrustKey.From(key) };
            await SendAsync(await DraftAsync(new TrustChange { Root = only, Targets = only }, [key], cancellationToken), cancellationToken);
            await AdoptAsync(key, cancellationToken);
        }
    }

    /// <summary>Vouches for what this key signed before there was trust metadata, so that devices of then go on.</summary>
    private async Task AdoptAsync(ECDsa key, CancellationToken cancellationToken)
    {
        foreach (var image in await client.ListImagesAsync(cancellationToken))
        {
            var releases = (await client.ListReleasesAsync(image.Name, cancellationToken)).Where(release => Jws.TryVerify(release.Manifest, PublicKeys.From(key), ReleaseManifest.Type, out var payload)
                && Jws.TryRead<ReleaseManifest>(payload, out var manifest) && manifest.Name == new ReleaseName(image.Name, release.Version)).ToArray();
            if (releases.Length > 0)
            {
                await DelegateAsync(image.Name, key, cancellationToken);
                await VouchAsync(image.Name, releases, key, cancellationToken);
            }
        }
    }

    /// <summary>Sees to it that the organisation's targets let the key sign this image's releases.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic: somebody else has to say so.</exception>
    public async Task DelegateAsync(string image, ECDsa key, CancellationToken cancellationToken)
    {
        var (files, root) = await ReadAsync(cancellationToken);
        var targets = Targets(files, root);
        var id = TrustKey.From(key).Id;
        if (targets is not null && targets.Images.TryGetValue(image, out var role) && role.Threshold == 1 && role.Keys.Any(one => one.Id == id))
        {
            return;
        }

        if (targets?.Images.ContainsKey(image) == true || root.Targets.Threshold != 1 || root.Targets.Keys.All(one => one.Id != id))
        {
            throw new NacreException(
                ErrorCatalogue.TrustNotAuthentic, $"the trust metadata does not let this computer's release signing key sign releases of '{image}'; who has the targets key says so: 'nacre trust rotate --publisher FILE.pub --image {image}'");
        }

        var images = new Dictionary<string, TrustRole>(targets?.Images ?? new Dictionary<string, TrustRole>(), StringComparer.Ordinal) { [image] = new TrustRole([TrustKey.From(key)], 1) };
        await SendAsync([Draft("targets", TargetsMetadata.WriteImages(1 + (targets?.Version ?? 0), Ends(TimeSpan.FromDays(365)), images, targets?.Recovery), root.Targets, [key])], cancellationToken);
    }

    /// <summary>What this computer trusts of these images; the same checks as a device's, kept beside the administrator's other files.</summary>
    public async Task<TrustedFiles> UpdateAsync(CancellationToken cancellationToken)
    {
        var (files, root) = await ReadAsync(cancellationToken);
        var images = Targets(files, root)?.Images.Keys.ToArray() ?? [];
        var updated = await (await TrustedAsync(cancellationToken)).UpdateAsync(images, client.FetchTrustFileAsync, time.GetUtcNow(), Administration.KeepTrusted, cancellationToken);
        Administration.KeepTrusted(updated);
        return updated;
    }

    /// <summary>Vouches for releases of an image, in addition to those before.</summary>
    public async Task VouchAsync(string image, IReadOnlyList<Release> more, ECDsa key, CancellationToken cancellationToken)
    {
        var trusted = await UpdateAsync(cancellationToken);
        var role = TargetsMetadata.RoleOf(image);
        var before = trusted.Images?.GetValueOrDefault(image) is { } text ? new TargetsMetadata(Encoding.UTF8.GetBytes(text), role) : null;
        var (files, _) = await ReadAsync(cancellationToken);
        var version = files.TryGetValue(role, out var there) ? new TargetsMetadata(Encoding.UTF8.GetBytes(there), role).Version : 0;
        var releases = new Dictionary<ReleaseName, TrustTarget>(before?.Releases ?? new Dictionary<ReleaseName, TrustTarget>());
        foreach (var release in more)
        {
            releases[new ReleaseName(image, release.Version)] = TrustTarget.Of(release.Manifest);
        }

        await SendAsync(
            [Draft(role, TargetsMetadata.WriteReleases(version + 1, Ends(TimeSpan.FromDays(365)), releases), new TrustRole([TrustKey.From(key)], 1), [key])], cancellationToken);
    }

    /// <summary>Makes the next versions of the roles that a change concerns, signed by the keys at hand.</summary>
    public async Task<IReadOnlyList<TrustDraft>> DraftAsync(TrustChange change, IReadOnlyList<ECDsa> keys, CancellationToken cancellationToken)
    {
        var overview = await client.GetTrustAsync(cancellationToken);
        var before = overview.Files.Count == 0 ? null : (await ReadAsync(cancellationToken)).Root;
        var drafts = new List<TrustDraft>();
        var root = before;
        if (before is null || change.ConcernsRoot || change.IsRenewal)
        {
            var rootKeys = change.Root ?? before?.Root.Keys ?? throw new NacreException(ErrorCatalogue.UsageInvalid, "a first root needs keys: --root FILE.pub");
            var targetsKeys = change.Targets ?? before?.Targets.Keys ?? rootKeys;
            var online = change.RenewsOnlineKey ? await client.RenewOnlineKeyAsync(cancellationToken) : overview.OnlineKey;
            var file = RootMetadata.Write(
                1 + (before?.Version ?? 0), Ends(change.Life),
                new TrustRole(rootKeys, change.Threshold ?? (change.Root is null ? before?.Root.Threshold ?? 1 : 1)),
                new TrustRole(targetsKeys, change.TargetsThreshold ?? (change.Targets is null ? before?.Targets.Threshold ?? 1 : 1)),
                new TrustRole([TrustKey.From(online)], 1));
            file = TrustMetadata.Sign(file, [.. keys]);
            root = new RootMetadata(file);
            drafts.Add(new TrustDraft(RootMetadata.Name, file, Math.Max(Missing(root.Root, root), before is null ? 0 : Missing(before.Root, root))));
        }

        var targets = before is null ? null : Targets(overview.Files, before);
        var images = new Dictionary<string, TrustRole>(targets?.Images ?? new Dictionary<string, TrustRole>(), StringComparer.Ordinal);
        if (change.Publisher is { } publisher)
        {
            foreach (var image in change.Images.Count == 0 ? [.. images.Keys] : change.Images)
            {
                images[Names.Parse(image, "an image")] = new TrustRole([publisher], 1);
            }
        }

        if (targets is null || change.Publisher is not null || change.Recovery is not null || change.IsRenewal || !root!.Targets.IsSameAs(before!.Targets))
        {
            drafts.Add(Draft("targets", TargetsMetadata.WriteImages(1 + (targets?.Version ?? 0), Ends(change.Life), images, change.Recovery is { } recovery ? TrustTarget.Of(recovery.Pem) : targets?.Recovery), root!.Targets, keys));
        }

        // Only what the roles said before, by the keys that counted then, is vouched for again.
        foreach (var (image, signers) in images)
        {
            var role = TargetsMetadata.RoleOf(image);
            if (overview.Files.TryGetValue(role, out var text) && new TargetsMetadata(Encoding.UTF8.GetBytes(text), role) is var old
                && (change.IsRenewal || change.Without.Any(release => release.Image == image) || !signers.IsSameAs(targets!.Images[image])))
            {
                targets!.Images[image].Verify(old);
                var kept = old.Releases.Where(pair => !change.Without.Contains(pair.Key)).ToDictionary();
                drafts.Add(Draft(role, TargetsMetadata.WriteReleases(old.Version + 1, Ends(change.Life), kept), signers, keys));
            }
        }

        return drafts;
    }

    /// <summary>Gives files to the server, in this order.</summary>
    public async Task SendAsync(IEnumerable<TrustDraft> drafts, CancellationToken cancellationToken)
    {
        foreach (var draft in drafts)
        {
            await client.PutTrustFileAsync(draft.Role, Encoding.UTF8.GetString(draft.File), cancellationToken);
            if (draft.Role == RootMetadata.Name && new RootMetadata(draft.File).Version == 1)
            {
                Administration.KeepTrusted(TrustedFiles.Begin(Encoding.UTF8.GetString(draft.File)));
            }
        }
    }

    /// <summary>The server's newest files, and the root of them that this computer trusts, whether or not it has ended.</summary>
    public async Task<(IReadOnlyDictionary<string, string> Files, RootMetadata Root)> ReadAsync(CancellationToken cancellationToken)
    {
        var trusted = await TrustedAsync(cancellationToken);
        try
        {
            await trusted.UpdateAsync([], client.FetchTrustFileAsync, time.GetUtcNow(), root => Administration.KeepTrusted(trusted = root), cancellationToken);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.TrustExpired || exception.Kind == ErrorCatalogue.TrustNotAuthentic)
        {
            // What has ended is renewed from here, and targets that a new root's keys have not signed yet are made here.
        }

        return ((await client.GetTrustAsync(cancellationToken)).Files, RootMetadata.Parse(trusted.Root));
    }

    private async Task<TrustedFiles> TrustedAsync(CancellationToken cancellationToken)
    {
        if (Administration.ReadTrusted() is { } kept)
        {
            return kept;
        }

        // Another administrator's computer began it: this one believes the server that its user logged in to, once.
        var first = await client.FetchTrustFileAsync("1.root.json", TrustMetadata.LongestFile, cancellationToken)
            ?? throw new NacreException(ErrorCatalogue.TrustMissing, "the organisation has no trust root yet");
        var begun = TrustedFiles.Begin(Encoding.UTF8.GetString(first));
        Administration.KeepTrusted(begun);
        return begun;
    }

    private static TargetsMetadata? Targets(IReadOnlyDictionary<string, string> files, RootMetadata root)
    {
        if (!files.TryGetValue("targets", out var text))
        {
            return null;
        }

        var targets = new TargetsMetadata(Encoding.UTF8.GetBytes(text));
        root.Targets.Verify(targets);
        return targets;
    }

    private static TrustDraft Draft(string role, byte[] file, TrustRole signers, IReadOnlyList<ECDsa> keys)
    {
        var signed = TrustMetadata.Sign(file, [.. keys.Where(key => signers.Keys.Any(one => one.Id == TrustKey.From(key).Id))]);
        return new TrustDraft(role, signed, Missing(signers, TrustMetadata.Parse(signed, role)));
    }

    private static int Missing(TrustRole signers, TrustMetadata file) => Math.Max(0, signers.Threshold - signers.Count(file));

    private DateTimeOffset Ends(TimeSpan life) => time.GetUtcNow() + life;
}
