using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Nacre.Contracts.Trust;

/// <summary>A file of trust metadata (TUF 1.0; SPEC.md beside this): who signed what. That it is read says nothing of its signatures: a
/// <see cref="TrustRole"/> does. Immutable.</summary>
public abstract class TrustMetadata
{
    /// <summary>What we write; any 1.x is read.</summary>
    public const string SpecificationVersion = "1.0.34";

    /// <summary>No file of a role is longer: bounds what a server can make a device take.</summary>
    public const int LongestFile = 1024 * 1024;

    private const int MostSignatures = 64, LongestSignature = 80;

    private protected TrustMetadata(ReadOnlyMemory<byte> untrusted, string type, string role)
    {
        if (untrusted.Length > LongestFile)
        {
            throw Wrong("trust metadata is too long");
        }

        Bytes = untrusted.ToArray();
        Role = role;
        var root = CanonicalJson.Parse(Bytes);
        Signed = root.Object("signed");
        SignedBytes = CanonicalJson.EncodeSigned(Signed);
        var signatures = new Dictionary<string, byte[]>(StringComparer.Ordinal);
        foreach (var signature in root.Items("signatures", MostSignatures))
        {
            var hex = signature.Text("sig");
            if (hex.Length > 2 * LongestSignature || hex.Length % 2 != 0 || hex.Any(character => !char.IsAsciiHexDigitLower(character))
                || !signatures.TryAdd(signature.Text("keyid"), Convert.FromHexString(hex)))
            {
                throw Wrong("trust metadata has a signature that is none, or two of one key");
            }
        }

        Signatures = signatures;
        if (Signed.Text("_type") != type)
        {
            throw Wrong($"what should be the role '{role}' is metadata of another kind");
        }

        var specification = Signed.Text("spec_version").Split('.');
        if (specification is not ["1", _, _])
        {
            throw new NacreException(ErrorCatalogue.Unsupported, "trust metadata is written by another specification than TUF 1");
        }

        Version = Signed.Number("version", 1);
        Expires = DateTimeOffset.TryParseExact(
            Signed.Text("expires"), "yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out var expires)
            ? expires : throw Wrong("trust metadata has no time at which it ends");
    }

    /// <summary>The file.</summary>
    public byte[] Bytes { get; }

    /// <summary>Which role it is of: <c>root</c>, <c>timestamp</c>, <c>snapshot</c>, <c>targets</c> or <c>image.NAME</c>.</summary>
    public string Role { get; }

    /// <summary>1, 2, 3, …</summary>
    public int Version { get; }

    /// <summary>After this it says nothing new.</summary>
    public DateTimeOffset Expires { get; }

    /// <summary>The signatures that the file has, by the name of their key; nothing of them is verified.</summary>
    public IReadOnlyDictionary<string, byte[]> Signatures { get; }

    /// <summary>What is signed.</summary>
    internal byte[] SignedBytes { get; }

    /// <summary>For messages.</summary>
    internal string Words => string.Create(CultureInfo.InvariantCulture, $"version {Version} of the trust role '{Role}'");

    /// <summary>The signed part, for the subclasses.</summary>
    private protected JsonElement Signed { get; }

    /// <summary>The file as text.</summary>
    public override string ToString() => Encoding.UTF8.GetString(Bytes);

    /// <summary>What the snapshot and the timestamp say of this file.</summary>
    public FileDescription Describe() => new(Version, Bytes.Length, Convert.ToHexStringLower(SHA256.HashData(Bytes)));

    /// <summary>Reads a file of whatever role.</summary>
    /// <param name="untrusted">The file.</param>
    /// <param name="role">The role; of targets that are named nowhere, the image is what they speak of.</param>
    /// <exception cref="NacreException">TrustNotAuthentic, Unsupported.</exception>
    public static TrustMetadata Parse(ReadOnlyMemory<byte> untrusted, string role = "")
    {
        if (untrusted.Length > LongestFile)
        {
            throw Wrong("trust metadata is too long");
        }

        var content = CanonicalJson.Parse(untrusted).Object("signed");
        return content.Text("_type") switch
        {
            "root" => new RootMetadata(untrusted),
            "timestamp" => new TimestampMetadata(untrusted),
            "snapshot" => new SnapshotMetadata(untrusted),
            "targets" when role.Length == 0 && content.Object("targets").EnumerateObject().Where(target => target.Name != TargetsMetadata.RecoveryTarget).Select(target => target.Name.Split('/')[0]).FirstOrDefault() is { } image =>
                new TargetsMetadata(untrusted, TargetsMetadata.RoleOf(image)),
            "targets" => new TargetsMetadata(untrusted, role.Length == 0 ? "targets" : role),
            _ => throw new NacreException(ErrorCatalogue.Unsupported, "trust metadata of a kind that is not known here"),
        };
    }

    /// <summary>The file with one more signature.</summary>
    public static byte[] Sign(ReadOnlyMemory<byte> file, params ReadOnlySpan<ECDsa> keys) => Sign(Parse(file), keys);

    private protected static byte[] Sign(TrustMetadata metadata, params ReadOnlySpan<ECDsa> keys)
    {
        var signatures = new SortedDictionary<string, string>(metadata.Signatures.ToDictionary(pair => pair.Key, pair => Convert.ToHexStringLower(pair.Value)), StringComparer.Ordinal);
        foreach (var key in keys)
        {
            signatures[TrustKey.From(key).Id] = Convert.ToHexStringLower(key.SignData(metadata.SignedBytes, HashAlgorithmName.SHA256, DSASignatureFormat.Rfc3279DerSequence));
        }

        return Write(metadata.Signed, signatures.Select(pair => new { keyid = pair.Key, sig = pair.Value }));
    }

    /// <summary>A file that nobody has signed.</summary>
    internal static byte[] Write<T>(T signed, IEnumerable<object>? signatures = null) => CanonicalJson.EncodeFile(new { signatures = signatures ?? [], signed });

    internal static string Time(DateTimeOffset time) => time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture);

    internal static NacreException Wrong(string what) => new(ErrorCatalogue.TrustNotAuthentic, what);
}

/// <summary>What one file says of another.</summary>
/// <param name="Version">Its version.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Sha256">Of the bytes, hexadecimal.</param>
public sealed record FileDescription(int Version, long Length, string Sha256)
{
    /// <summary>Whether those are the bytes.</summary>
    public bool Is(ReadOnlySpan<byte> bytes) => bytes.Length == Length && Convert.ToHexStringLower(SHA256.HashData(bytes)) == Sha256;

    internal static FileDescription Parse(JsonElement untrusted) =>
        new(untrusted.Number("version", 1), untrusted.Number("length", 1), untrusted.Object("hashes").Sha256());

    internal object ToMetadata() => new { hashes = new { sha256 = Sha256 }, length = Length, version = Version };
}

/// <summary>The root: which keys sign for whom.</summary>
public sealed class RootMetadata : TrustMetadata
{
    /// <summary>Its name as a role.</summary>
    public const string Name = "root";

    private static readonly string[] Roles = [Name, "targets", "snapshot", "timestamp"];

    /// <summary>Reads it.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic, Unsupported.</exception>
    public RootMetadata(ReadOnlyMemory<byte> untrusted)
        : base(untrusted, Name, Name)
    {
        var keys = Signed.Keys();
        var roles = Signed.Object("roles");
        if (!Signed.TryGetProperty("consistent_snapshot", out var consistent) || consistent.ValueKind != JsonValueKind.True)
        {
            throw new NacreException(ErrorCatalogue.Unsupported, "the trust root is not one with consistent snapshots");
        }

        var read = Roles.Select(role => roles.Object(role).Role(keys)).ToArray();
        (Root, Targets, Snapshot, Timestamp) = (read[0], read[1], read[2], read[3]);
    }

    /// <summary>Signs the root, which is this.</summary>
    public TrustRole Root { get; }

    /// <summary>Says who signs for which image.</summary>
    public TrustRole Targets { get; }

    /// <summary>Says which versions belong together.</summary>
    public TrustRole Snapshot { get; }

    /// <summary>Says which snapshot is the newest.</summary>
    public TrustRole Timestamp { get; }

    /// <summary>Reads text.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic, Unsupported.</exception>
    public static RootMetadata Parse(string untrusted) => new(Encoding.UTF8.GetBytes(untrusted));

    /// <summary>A root that nobody has signed.</summary>
    public static byte[] Write(int version, DateTimeOffset expires, TrustRole root, TrustRole targets, TrustRole online)
    {
        ArgumentNullException.ThrowIfNull(root);
        ArgumentNullException.ThrowIfNull(targets);
        ArgumentNullException.ThrowIfNull(online);
        return Write(new
        {
            _type = Name,
            spec_version = SpecificationVersion,
            version,
            expires = Time(expires),
            consistent_snapshot = true,
            keys = new[] { root, targets, online }.SelectMany(role => role.Keys).DistinctBy(key => key.Id).ToDictionary(key => key.Id, key => key.ToMetadata()),
            roles = Roles.Zip([root, targets, online, online]).ToDictionary(pair => pair.First, pair => TrustJson.Role(pair.Second)),
        });
    }
}

/// <summary>The timestamp: which snapshot is the newest. Lives for a short time, so that nobody can withhold news for long.</summary>
public sealed class TimestampMetadata : TrustMetadata
{
    /// <summary>Reads it.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic, Unsupported.</exception>
    public TimestampMetadata(ReadOnlyMemory<byte> untrusted)
        : base(untrusted, "timestamp", "timestamp") => Snapshot = FileDescription.Parse(Signed.Object("meta").Object("snapshot.json"));

    /// <summary>The newest snapshot.</summary>
    public FileDescription Snapshot { get; }

    /// <summary>A timestamp that nobody has signed.</summary>
    public static byte[] Write(int version, DateTimeOffset expires, FileDescription snapshot)
    {
        ArgumentNullException.ThrowIfNull(snapshot);
        return Write(new
        {
            _type = "timestamp",
            spec_version = SpecificationVersion,
            version,
            expires = Time(expires),
            meta = new Dictionary<string, object> { ["snapshot.json"] = snapshot.ToMetadata() },
        });
    }
}

/// <summary>The snapshot: which versions of the targets files belong together.</summary>
public sealed class SnapshotMetadata : TrustMetadata
{
    /// <summary>Reads it.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic, Unsupported.</exception>
    public SnapshotMetadata(ReadOnlyMemory<byte> untrusted)
        : base(untrusted, "snapshot", "snapshot") => Files = Signed.Object("meta").EnumerateObject()
            .ToDictionary(file => file.Name, file => FileDescription.Parse(file.Value), StringComparer.Ordinal);

    /// <summary>By name: <c>targets.json</c>, <c>image.NAME.json</c>.</summary>
    public IReadOnlyDictionary<string, FileDescription> Files { get; }

    /// <summary>A snapshot that nobody has signed.</summary>
    public static byte[] Write(int version, DateTimeOffset expires, IEnumerable<TrustMetadata> files) => Write(new
    {
        _type = "snapshot",
        spec_version = SpecificationVersion,
        version,
        expires = Time(expires),
        meta = files.ToDictionary(file => file.Role + ".json", file => file.Describe().ToMetadata()),
    });
}

/// <summary>What a release's signed manifest, or the recovery key, is: its length and hash.</summary>
/// <param name="Length">Bytes.</param>
/// <param name="Sha256">Hexadecimal.</param>
public sealed record TrustTarget(long Length, string Sha256)
{
    /// <summary>The target that a signed manifest, or a key's PEM text, is.</summary>
    public static TrustTarget Of(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var bytes = Encoding.UTF8.GetBytes(text);
        return new TrustTarget(bytes.Length, Convert.ToHexStringLower(SHA256.HashData(bytes)));
    }
}

/// <summary>Targets: of the top role, who signs for which image; of an image's role, its releases.</summary>
public sealed class TargetsMetadata : TrustMetadata
{
    private const int MostEntries = 10_000;

    /// <summary>Reads it.</summary>
    /// <exception cref="NacreException">TrustNotAuthentic, Unsupported.</exception>
    public TargetsMetadata(ReadOnlyMemory<byte> untrusted, string role = "targets")
        : base(untrusted, "targets", role)
    {
        var releases = new Dictionary<ReleaseName, TrustTarget>();
        foreach (var target in Signed.Object("targets").EnumerateObject())
        {
            if (role == "targets" && target.Name == RecoveryTarget)
            {
                Recovery = new TrustTarget(target.Value.Number("length", 1), target.Value.Object("hashes").Sha256());
                continue;
            }

            if (releases.Count >= MostEntries || !TryReadPath(target.Name, out var release))
            {
                throw Wrong("a target of the trust metadata is no release, or there are too many");
            }

            releases.Add(release, new TrustTarget(target.Value.Number("length", 1), target.Value.Object("hashes").Sha256()));
        }

        var images = new Dictionary<string, TrustRole>(StringComparer.Ordinal);
        if (Signed.TryGetProperty("delegations", out var delegations))
        {
            var keys = delegations.Keys();
            foreach (var delegation in delegations.Items("roles", MostEntries))
            {
                var name = delegation.Text("name");
                var image = name.StartsWith(ImagePrefix, StringComparison.Ordinal) ? name[ImagePrefix.Length..] : "";
                if (!Names.IsValid(image) || !images.TryAdd(image, delegation.Role(keys))
                    || delegation.Items("paths", 1) is not [{ ValueKind: JsonValueKind.String } path] || path.GetString() != image + "/*")
                {
                    throw new NacreException(ErrorCatalogue.Unsupported, "the trust metadata delegates something else than an image's releases");
                }
            }
        }

        if (role == "targets" ? releases.Count > 0 : images.Count > 0 || releases.Keys.Any(release => RoleOf(release.Image) != role))
        {
            throw Wrong($"{Words} speaks of what is another's: an image's releases are its own role's");
        }

        (Releases, Images) = (releases, images);
    }

    /// <summary>An image's releases.</summary>
    public IReadOnlyDictionary<ReleaseName, TrustTarget> Releases { get; }

    /// <summary>Who signs for which image.</summary>
    public IReadOnlyDictionary<string, TrustRole> Images { get; }

    /// <summary>Of the top role: what the organisation's recovery key is, as PEM; null: it has none.</summary>
    public TrustTarget? Recovery { get; }

    /// <summary>The role of an image.</summary>
    public static string RoleOf(string image) => ImagePrefix + image;

    /// <summary>The top role that nobody has signed.</summary>
    public static byte[] WriteImages(int version, DateTimeOffset expires, IReadOnlyDictionary<string, TrustRole> images, TrustTarget? recovery = null) => Write(new
    {
        _type = "targets",
        spec_version = SpecificationVersion,
        version,
        expires = Time(expires),
        targets = recovery is null ? new Dictionary<string, object>() : new() { [RecoveryTarget] = new { hashes = new { sha256 = recovery.Sha256 }, length = recovery.Length } },
        delegations = new
        {
            keys = images.Values.SelectMany(role => role.Keys).DistinctBy(key => key.Id).ToDictionary(key => key.Id, key => key.ToMetadata()),
            roles = images.OrderBy(pair => pair.Key, StringComparer.Ordinal).Select(pair => new
            {
                name = RoleOf(pair.Key),
                keyids = pair.Value.Keys.Select(key => key.Id),
                threshold = pair.Value.Threshold,
                terminating = true,
                paths = new[] { pair.Key + "/*" },
            }),
        },
    });

    /// <summary>An image's role that nobody has signed.</summary>
    public static byte[] WriteReleases(int version, DateTimeOffset expires, IReadOnlyDictionary<ReleaseName, TrustTarget> releases) => Write(new
    {
        _type = "targets",
        spec_version = SpecificationVersion,
        version,
        expires = Time(expires),
        targets = releases.ToDictionary(
            pair => string.Create(CultureInfo.InvariantCulture, $"{pair.Key.Image}/{pair.Key.Version}"),
            pair => new { hashes = new { sha256 = pair.Value.Sha256 }, length = pair.Value.Length }),
    });

    internal const string RecoveryTarget = "recovery.pub";
    private const string ImagePrefix = "image.";

    private static bool TryReadPath(string untrusted, out ReleaseName release)
    {
        release = new ReleaseName("", 0);
        var slash = untrusted.IndexOf('/', StringComparison.Ordinal);
        if (slash < 0 || !Names.IsValid(untrusted[..slash]) || !int.TryParse(untrusted.AsSpan(slash + 1), NumberStyles.None, CultureInfo.InvariantCulture, out var version)
            || version < 1 || untrusted[(slash + 1)..] != version.ToString(CultureInfo.InvariantCulture))
        {
            return false;
        }

        release = new ReleaseName(untrusted[..slash], version);
        return true;
    }
}

/// <summary>Reads untrusted fields; whatever is not as it must be is not authentic.</summary>
internal static class TrustJson
{
    private const int LongestText = 4096, MostKeys = 1024, LargestNumber = int.MaxValue;

    public static JsonElement Object(this JsonElement untrusted, string name) => untrusted.ValueKind == JsonValueKind.Object
        && untrusted.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.Object ? value : throw Missing(name);

    public static string Text(this JsonElement untrusted, string name) => untrusted.ValueKind == JsonValueKind.Object
        && untrusted.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String && value.GetString() is { Length: <= LongestText } text ? text : throw Missing(name);

    public static int Number(this JsonElement untrusted, string name, int least) => untrusted.ValueKind == JsonValueKind.Object
        && untrusted.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out var number)
        && number >= least && number <= LargestNumber ? (int)number : throw Missing(name);

    public static JsonElement[] Items(this JsonElement untrusted, string name, int most) => untrusted.ValueKind == JsonValueKind.Object
        && untrusted.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.Array && value.GetArrayLength() <= most ? [.. value.EnumerateArray()] : throw Missing(name);

    public static string Sha256(this JsonElement untrusted) => untrusted.Text("sha256") is { Length: 64 } hex && hex.All(char.IsAsciiHexDigitLower) ? hex : throw Missing("sha256");

    public static Dictionary<string, TrustKey> Keys(this JsonElement untrusted)
    {
        var keys = untrusted.Object("keys");
        return keys.GetPropertyCount() <= MostKeys
            ? keys.EnumerateObject().ToDictionary(key => key.Name, key => TrustKey.Parse(key.Name, key.Value), StringComparer.Ordinal)
            : throw Missing("keys");
    }

    public static TrustRole Role(this JsonElement untrusted, Dictionary<string, TrustKey> keys) => new(
        untrusted.Items("keyids", MostKeys).Select(id => id.ValueKind == JsonValueKind.String && keys.TryGetValue(id.GetString()!, out var key) ? key : throw Missing("keyids")),
        untrusted.Number("threshold", 1));

    public static object Role(TrustRole role) => new { keyids = role.Keys.Select(key => key.Id), threshold = role.Threshold };

    private static NacreException Missing(string name) => TrustMetadata.Wrong($"the trust metadata's field '{name}' is missing, too long or out of range");
}
