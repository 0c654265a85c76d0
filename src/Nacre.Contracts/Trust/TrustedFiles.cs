using System.Globalization;
using System.Text;

namespace Nacre.Contracts.Trust;

/// <summary>What a client trusts: files that were verified when they were taken. Whoever keeps them sees to it that nobody else writes them. Immutable.</summary>
/// <param name="Root">The newest root.</param>
/// <param name="Timestamp">The newest timestamp; null before the first, and after its keys were replaced.</param>
/// <param name="Snapshot">The newest snapshot; null as the timestamp is.</param>
/// <param name="Targets">The newest top targets; null before the first.</param>
/// <param name="Images">The newest role of each image that was asked for.</param>
public sealed record TrustedFiles(string Root, string? Timestamp = null, string? Snapshot = null, string? Targets = null, IReadOnlyDictionary<string, string>? Images = null)
{
    private const int LongestRoot = 64 * 1024, LongestTimestamp = 16 * 1024;

    /// <summary>So many roots are followed in one update: more is an endless chain.</summary>
    private const int MostRoots = 256;

    /// <summary>Fetches a file by its name, and takes no more bytes than are allowed; null where there is none.</summary>
    /// <param name="name">The file's name, as TUF's consistent snapshots have it.</param>
    /// <param name="longest">More bytes than this are refused.</param>
    /// <param name="cancellationToken">Stops.</param>
    public delegate Task<byte[]?> Fetch(string name, int longest, CancellationToken cancellationToken);

    /// <summary>What begins the trust: a root that was handed over in a way that is trusted.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic, Unsupported: it does not sign itself.</exception>
    public static TrustedFiles Begin(string root)
    {
        var parsed = RootMetadata.Parse(root);
        parsed.Root.Verify(parsed);
        return new TrustedFiles(root);
    }

    /// <summary>Whether a release's signed manifest is what the trusted files say it is.</summary>
    public bool Vouches(ReleaseName release, string manifest)
    {
        ArgumentNullException.ThrowIfNull(release);
        return Images is not null && Images.TryGetValue(release.Image, out var text)
            && Parse(text, TargetsMetadata.RoleOf(release.Image)).Releases.TryGetValue(release, out var target) && target == TrustTarget.Of(manifest);
    }

    /// <summary>Whether a key, as PEM, is the organisation's recovery key.</summary>
    public bool IsRecoveryKey(string pem) => Targets is not null && Parse(Targets, "targets").Recovery is { } recovery && recovery == TrustTarget.Of(pem);

    /// <summary>The roles that these files hold, for showing when they end.</summary>
    public IReadOnlyList<TrustMetadata> Roles() =>
    [
        RootMetadata.Parse(Root),
        .. Targets is null ? Array.Empty<TrustMetadata>() : [Parse(Targets, "targets")],
        .. (Images ?? new Dictionary<string, string>()).OrderBy(pair => pair.Key, StringComparer.Ordinal).Select(pair => Parse(pair.Value, TargetsMetadata.RoleOf(pair.Key))),
        .. Snapshot is null ? Array.Empty<TrustMetadata>() : [new SnapshotMetadata(Bytes(Snapshot))],
        .. Timestamp is null ? Array.Empty<TrustMetadata>() : [new TimestampMetadata(Bytes(Timestamp))],
    ];

    /// <summary>Whether news may be taken from these files now: nothing of them has ended. What is installed starts all the same.</summary>
    /// <exception cref="NacreException">TrustExpired: says what ended.</exception>
    public void CheckFresh(IEnumerable<string> images, DateTimeOffset now)
    {
        var wanted = images.Select(TargetsMetadata.RoleOf).ToHashSet(StringComparer.Ordinal);
        foreach (var role in Roles().Where(role => !role.Role.StartsWith(TargetsMetadata.RoleOf(""), StringComparison.Ordinal) || wanted.Contains(role.Role)))
        {
            CheckFresh(role, now);
        }

        if (Timestamp is null || Snapshot is null)
        {
            throw new NacreException(ErrorCatalogue.TrustExpired, "there is no timestamp of the trust metadata by the keys that count now");
        }
    }

    /// <summary>TUF's client workflow (5.3 to 5.6): the newest root, timestamp, snapshot, targets and the roles of these images. The order of the steps is the specification's.</summary>
    /// <param name="images">Images whose releases are to be looked up; those that nobody has delegated are left out.</param>
    /// <param name="fetch">Where files come from; untrusted.</param>
    /// <param name="now">The time.</param>
    /// <param name="keepRoot">Told each new root before anything else is asked for: a client that keeps it can't be sent back behind it.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <returns>The new files. On an error nothing but what <paramref name="keepRoot"/> was told has changed, and the update can be tried again.</returns>
    /// <exception cref="NacreException">TrustNotAuthentic, TrustExpired, Unsupported, and whatever <paramref name="fetch"/> throws.</exception>
    public async Task<TrustedFiles> UpdateAsync(
        IReadOnlyCollection<string> images, Fetch fetch, DateTimeOffset now, Action<TrustedFiles> keepRoot, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(images);
        ArgumentNullException.ThrowIfNull(fetch);
        ArgumentNullException.ThrowIfNull(keepRoot);
        var files = await FollowRootAsync(fetch, keepRoot, cancellationToken).ConfigureAwait(false);
        var root = RootMetadata.Parse(files.Root);
        CheckFresh(root, now); // freeze

        var timestamp = new TimestampMetadata(await fetch("timestamp.json", LongestTimestamp, cancellationToken).ConfigureAwait(false) ?? throw Missing("timestamp.json"));
        root.Timestamp.Verify(timestamp);
        if (files.Timestamp is not null && new TimestampMetadata(Bytes(files.Timestamp)) is var before)
        {
            if (timestamp.Version < before.Version || timestamp.Snapshot.Version < before.Snapshot.Version)
            {
                throw Rollback(timestamp, before);
            }

            timestamp = timestamp.Version == before.Version ? before : timestamp;
        }

        CheckFresh(timestamp, now); // freeze
        var snapshot = new SnapshotMetadata(await TakeAsync(fetch, "snapshot", files.Snapshot, timestamp.Snapshot, cancellationToken).ConfigureAwait(false));
        Verify(root.Snapshot, snapshot, timestamp.Snapshot);
        CheckNotBehind(snapshot, files.Snapshot);
        CheckFresh(snapshot, now);

        var described = snapshot.Files.GetValueOrDefault("targets.json") ?? throw Missing("targets.json");
        var targets = new TargetsMetadata(await TakeAsync(fetch, "targets", files.Targets, described, cancellationToken).ConfigureAwait(false));
        Verify(root.Targets, targets, described);
        CheckFresh(targets, now);

        var roles = new Dictionary<string, string>(files.Images ?? new Dictionary<string, string>(), StringComparer.Ordinal);
        foreach (var image in images.Distinct(StringComparer.Ordinal))
        {
            var name = TargetsMetadata.RoleOf(image);
            if (!targets.Images.TryGetValue(image, out var signers) || !snapshot.Files.TryGetValue(name + ".json", out var description))
            {
                roles.Remove(image); // not delegated (any more): nobody vouches for its releases
                continue;
            }

            var role = new TargetsMetadata(await TakeAsync(fetch, name, roles.GetValueOrDefault(image), description, cancellationToken).ConfigureAwait(false), name);
            Verify(signers, role, description);
            CheckFresh(role, now);
            roles[image] = role.ToString();
        }

        return new TrustedFiles(files.Root, timestamp.ToString(), snapshot.ToString(), targets.ToString(), roles);
    }

    private async Task<TrustedFiles> FollowRootAsync(Fetch fetch, Action<TrustedFiles> keepRoot, CancellationToken cancellationToken)
    {
        var files = this;
        var root = RootMetadata.Parse(Root);
        for (var followed = 0; ; followed++)
        {
            var name = string.Create(CultureInfo.InvariantCulture, $"{root.Version + 1L}.root.json");
            if (await fetch(name, LongestRoot, cancellationToken).ConfigureAwait(false) is not { } bytes)
            {
                return files;
            }

            if (followed == MostRoots)
            {
                throw TrustMetadata.Wrong($"the trust root changed more than {MostRoots} times: its chain does not end");
            }

            var next = new RootMetadata(bytes);
            root.Root.Verify(next);
            next.Root.Verify(next);
            if (next.Version != root.Version + 1)
            {
                throw TrustMetadata.Wrong($"{next.Words} was given as version {root.Version + 1}");
            }

            // What the old online key said counts for nothing any more: else one that was stolen could have used up the versions (fast-forward).
            var isSame = next.Timestamp.IsSameAs(root.Timestamp) && next.Snapshot.IsSameAs(root.Snapshot);
            files = files with { Root = next.ToString(), Timestamp = isSame ? files.Timestamp : null, Snapshot = isSame ? files.Snapshot : null };
            keepRoot(files);
            root = next;
        }
    }

    /// <summary>The file that was described: the one at hand where it is that, else fetched, and never longer than described.</summary>
    private static async Task<byte[]> TakeAsync(Fetch fetch, string role, string? kept, FileDescription described, CancellationToken cancellationToken)
    {
        if (described.Length > TrustMetadata.LongestFile)
        {
            throw TrustMetadata.Wrong($"the trust role '{role}' is longer than it may be");
        }

        if (kept is not null && Bytes(kept) is var bytes && described.Is(bytes))
        {
            return bytes;
        }

        var name = string.Create(CultureInfo.InvariantCulture, $"{described.Version}.{role}.json");
        // A little more than it may have: one that is another, and not an endless one, is told as that.
        var fetched = await fetch(name, (int)described.Length + 256, cancellationToken).ConfigureAwait(false) ?? throw Missing(name);
        return described.Is(fetched) ? fetched : throw TrustMetadata.Wrong($"the trust file '{name}' is not the one that belongs with the others");
    }

    private static void Verify(TrustRole signers, TrustMetadata untrusted, FileDescription described)
    {
        signers.Verify(untrusted);
        if (untrusted.Version != described.Version)
        {
            throw TrustMetadata.Wrong($"{untrusted.Words} was described as version {described.Version}");
        }
    }

    private static void CheckNotBehind(SnapshotMetadata snapshot, string? kept)
    {
        if (kept is null)
        {
            return;
        }

        var before = new SnapshotMetadata(Bytes(kept));
        if (snapshot.Version < before.Version
            || before.Files.Any(file => !snapshot.Files.TryGetValue(file.Key, out var now) || now.Version < file.Value.Version))
        {
            throw Rollback(snapshot, before);
        }
    }

    private static void CheckFresh(TrustMetadata role, DateTimeOffset now)
    {
        if (now >= role.Expires)
        {
            throw new NacreException(
                ErrorCatalogue.TrustExpired,
                string.Create(CultureInfo.InvariantCulture, $"{role.Words} ended on {role.Expires:yyyy-MM-dd HH:mm} UTC and this computer's clock says {now.UtcDateTime:yyyy-MM-dd HH:mm} UTC: no new release is taken"));
        }
    }

    private static TargetsMetadata Parse(string text, string role) => new(Bytes(text), role);

    private static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);

    private static NacreException Missing(string name) => TrustMetadata.Wrong($"the server has no trust file '{name}'");

    private static NacreException Rollback(TrustMetadata offered, TrustMetadata before) =>
        TrustMetadata.Wrong($"{offered.Words}, or what it names, is older than what was trusted ({before.Words}): somebody puts an older state before this computer");
}

/// <summary>A role that ends soon.</summary>
/// <param name="Role">Which.</param>
/// <param name="Expires">When.</param>
/// <param name="Days">Whole days until then; below 0 where it has ended.</param>
public sealed record TrustWarning(string Role, DateTimeOffset Expires, int Days)
{
    /// <summary>Warnings begin so many days before the end, and become more pressing at each.</summary>
    public static IReadOnlyList<int> Steps { get; } = [60, 14, 3];

    /// <summary>For a person.</summary>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture, $"{(Days < 0 ? "ended" : Days < Steps[2] ? "urgent" : Days < Steps[1] ? "soon" : "notice")}: the trust role '{Role}' ends on {Expires:yyyy-MM-dd}")
        + (Days < 0 ? ": no new release is taken until an administrator runs 'nacre trust rotate'" : $", in {Days} days: an administrator runs 'nacre trust rotate' before");

    /// <summary>The warnings of these roles. Timestamp and snapshot are the server's to renew: they live for days anyway.</summary>
    public static IReadOnlyList<TrustWarning> Of(IEnumerable<TrustMetadata> roles, DateTimeOffset now) =>
    [
        .. roles.Where(role => role is RootMetadata or TargetsMetadata).Select(role => new TrustWarning(role.Role, role.Expires, (int)Math.Floor((role.Expires - now).TotalDays)))
            .Where(warning => warning.Days < Steps[0]),
    ];
}
