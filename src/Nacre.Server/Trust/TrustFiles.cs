using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Contracts.Trust;

namespace Nacre.Server;

internal static class TrustErrors
{
    public static Failure NoFile { get; } = new(ErrorCatalogue.NotFound, "there is no such trust file");

    public static Failure NoRole { get; } = new(ErrorCatalogue.RequestInvalid, "a trust file is put as 'root', 'targets' or 'image.NAME'");

    public static Failure RootIsTheAdministrators { get; } = new(ErrorCatalogue.Forbidden, "only an organisation administrator can put a root");

    public static Failure Refused(string detail) => new(ErrorCatalogue.TrustNotAuthentic, detail);
}

/// <summary>
/// The organisation's trust metadata. Root and targets are signed elsewhere and only checked here; timestamp and snapshot are signed here by the online key, anew at every
/// change and before they end. The newest file of each role is named by the setting <c>trust-versions</c>.
/// </summary>
internal sealed class TrustFiles(NacreDatabase database, AuditTrail audit, Caller caller, SecretBox secrets, TimeProvider time)
{
    /// <summary>A day: so long can a network withhold news. Made anew when an hour old, so that a device's clock may be off.</summary>
    private static readonly TimeSpan TimestampLife = TimeSpan.FromDays(1), TimestampAge = TimeSpan.FromHours(1);

    /// <summary>A week, made anew when half of it is over.</summary>
    private static readonly TimeSpan SnapshotLife = TimeSpan.FromDays(7);

    private const string Versions = "trust-versions", OnlineKey = "trust-online-key", NextOnlineKey = "trust-online-key-next", Prefix = "trust-file/";

    /// <summary>The newest root; null before there is one.</summary>
    public static async Task<string?> FindRootAsync(NacreDatabase database, CancellationToken cancellationToken)
    {
        var versions = await ReadVersionsAsync(database, cancellationToken);
        return versions.TryGetValue(RootMetadata.Name, out var version) ? await ReadAsync(database, Name(RootMetadata.Name, version), cancellationToken) : null;
    }

    /// <summary>Whether the newest targets let this key sign releases of the image.</summary>
    public static async Task<bool> IsDelegatedAsync(NacreDatabase database, PublicKey key, CancellationToken cancellationToken) =>
        await FindAsync(database, "targets", cancellationToken) is TargetsMetadata targets && TrustKey.From(key).Id is var id
        && targets.Images.Values.Any(role => role.Keys.Any(one => one.Id == id));

    /// <summary>A file by its name.</summary>
    public async Task<Result<byte[]>> GetAsync(string untrustedName, CancellationToken cancellationToken)
    {
        if (untrustedName.Length > 100 || await ReadAsync(database, untrustedName, cancellationToken) is not { } text)
        {
            return TrustErrors.NoFile;
        }

        if (untrustedName == "timestamp.json" && TrustMetadata.Parse(Encoding.UTF8.GetBytes(text), "timestamp").Expires - time.GetUtcNow() <= TimestampLife - TimestampAge)
        {
            await RenewAsync(cancellationToken);
            text = (await ReadAsync(database, untrustedName, cancellationToken))!;
        }

        return Encoding.UTF8.GetBytes(text);
    }

    /// <summary>All that is the newest.</summary>
    public async Task<TrustOverview> OverviewAsync(CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        using var key = await OpenKeyAsync(NextOnlineKey, makes: false, cancellationToken) ?? await OpenKeyAsync(OnlineKey, makes: true, cancellationToken);
        var overview = await OverviewAsync(PublicKeys.From(key!), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return overview;
    }

    /// <summary>Makes a new online key; it signs from the root on that names it.</summary>
    public async Task<PublicKey> RenewKeyAsync(CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        await database.Settings.Where(row => row.Name == NextOnlineKey).ExecuteDeleteAsync(cancellationToken);
        using var key = (await OpenKeyAsync(NextOnlineKey, makes: true, cancellationToken))!;
        var made = PublicKeys.From(key);
        await audit.AppendAsync(Roles.Administrator, "trust.online-key", made.X, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return made;
    }

    /// <summary>Takes the next version of a role that is signed elsewhere.</summary>
    public async Task<Result<TrustOverview>> PutAsync(string untrustedRole, PutTrustFile untrusted, CancellationToken cancellationToken)
    {
        var image = untrustedRole.StartsWith("image.", StringComparison.Ordinal) ? untrustedRole["image.".Length..] : null;
        if (untrustedRole is not ("root" or "targets") && !Names.IsValid(image))
        {
            return TrustErrors.NoRole;
        }

        if (untrustedRole == "root" && !caller.Has(Roles.Administrator))
        {
            return TrustErrors.RootIsTheAdministrators; // nobody signed the first one before
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        try
        {
            var bytes = Encoding.UTF8.GetBytes(untrusted.File);
            var file = untrustedRole == "root" ? new RootMetadata(bytes) : (TrustMetadata)new TargetsMetadata(bytes, untrustedRole);
            var versions = await ReadVersionsAsync(database, cancellationToken);
            var before = versions.GetValueOrDefault(untrustedRole);
            if (file.Version == before && await ReadAsync(database, Name(untrustedRole, before), cancellationToken) == untrusted.File)
            {
                return await OverviewAsync(transaction, cancellationToken); // sent again
            }

            if (file.Version != before + 1)
            {
                return TrustErrors.Refused(string.Create(CultureInfo.InvariantCulture, $"version {file.Version} of '{untrustedRole}' does not follow version {before}"));
            }

            if (file.Expires <= time.GetUtcNow())
            {
                return TrustErrors.Refused($"version {file.Version} of '{untrustedRole}' has ended already");
            }

            var refused = file switch
            {
                RootMetadata root => await CheckRootAsync(root, cancellationToken),
                TargetsMetadata targets => await CheckTargetsAsync(targets, image, cancellationToken),
                _ => TrustErrors.NoRole,
            };
            if (refused is not null)
            {
                return refused;
            }

            await KeepAsync(file, cancellationToken);
            await Revision.ChangeAsync(database, cancellationToken); // devices fetch it with their next lease
            await audit.AppendAsync(Roles.Administrator, "trust.put", untrustedRole, string.Create(CultureInfo.InvariantCulture, $"version {file.Version} sha256 {file.Describe().Sha256}"), cancellationToken);
            await SignAsync(always: true, cancellationToken);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.TrustNotAuthentic || exception.Kind == ErrorCatalogue.Unsupported)
        {
            return new Failure(exception.Kind, exception.Message);
        }

        return await OverviewAsync(transaction, cancellationToken);
    }

    private static string Name(string role, int version) => string.Create(CultureInfo.InvariantCulture, $"{version}.{role}.json");

    private async Task<TrustOverview> OverviewAsync(WriteTransaction transaction, CancellationToken cancellationToken)
    {
        using var key = (await OpenKeyAsync(OnlineKey, makes: true, cancellationToken))!;
        var overview = await OverviewAsync(PublicKeys.From(key), cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return overview;
    }

    private async Task<TrustOverview> OverviewAsync(PublicKey key, CancellationToken cancellationToken)
    {
        var files = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var (role, version) in await ReadVersionsAsync(database, cancellationToken))
        {
            files[role] = (await ReadAsync(database, role == "timestamp" ? "timestamp.json" : Name(role, version), cancellationToken))!;
        }

        return new TrustOverview(key, files);
    }

    private async Task<Failure?> CheckRootAsync(RootMetadata root, CancellationToken cancellationToken)
    {
        root.Root.Verify(root);
        if (await FindAsync(database, RootMetadata.Name, cancellationToken) is RootMetadata before)
        {
            before.Root.Verify(root);
        }

        // The key that the server can sign with is the one that the root must name.
        foreach (var name in (string[])[NextOnlineKey, OnlineKey])
        {
            using var key = await OpenKeyAsync(name, makes: name == OnlineKey, cancellationToken);
            if (key is not null && new TrustRole([TrustKey.From(key)], 1) is var online && root.Timestamp.IsSameAs(online) && root.Snapshot.IsSameAs(online))
            {
                if (name == NextOnlineKey)
                {
                    await database.Settings.Where(row => row.Name == OnlineKey || row.Name == NextOnlineKey).ExecuteDeleteAsync(cancellationToken);
                    var pkcs8 = key.ExportPkcs8PrivateKey();
                    await SetAsync(OnlineKey, Convert.ToBase64String(secrets.Protect(pkcs8, OnlineKey)), cancellationToken);
                    CryptographicOperations.ZeroMemory(pkcs8);
                }

                return null;
            }
        }

        return TrustErrors.Refused("the root does not name this server's online key for timestamp and snapshot");
    }

    private async Task<Failure?> CheckTargetsAsync(TargetsMetadata targets, string? image, CancellationToken cancellationToken)
    {
        if (await FindAsync(database, RootMetadata.Name, cancellationToken) is not RootMetadata root)
        {
            return new Failure(ErrorCatalogue.TrustMissing, "there is no trust root yet");
        }

        if (image is null)
        {
            root.Targets.Verify(targets);
            return null;
        }

        if (await FindAsync(database, "targets", cancellationToken) is not TargetsMetadata top || !top.Images.TryGetValue(image, out var signers))
        {
            return TrustErrors.Refused($"the targets delegate the releases of '{image}' to nobody");
        }

        signers.Verify(targets);
        foreach (var (release, target) in targets.Releases)
        {
            var manifest = await database.Releases.Where(row => row.Image == release.Image && row.Version == release.Version).Select(row => row.Manifest).SingleOrDefaultAsync(cancellationToken);
            if (manifest is null || TrustTarget.Of(manifest) != target)
            {
                return TrustErrors.Refused($"release {release.Version} of '{release.Image}' is not what the trust file says it is");
            }
        }

        return null;
    }

    /// <summary>Signs the timestamp anew where it is old.</summary>
    private async Task RenewAsync(CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await FindAsync(database, "timestamp", cancellationToken) is not { } timestamp || timestamp.Expires - time.GetUtcNow() > TimestampLife - TimestampAge)
        {
            return; // another request was faster
        }

        await SignAsync(always: false, cancellationToken);
        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
    }

    /// <summary>Signs a timestamp, and a snapshot where something changed or the last one is old. Nothing is signed before there are targets.</summary>
    private async Task SignAsync(bool always, CancellationToken cancellationToken)
    {
        var versions = await ReadVersionsAsync(database, cancellationToken);
        if (!versions.ContainsKey("targets"))
        {
            return;
        }

        using var key = (await OpenKeyAsync(OnlineKey, makes: true, cancellationToken))!;
        var now = DateTimeOffset.FromUnixTimeSeconds(time.GetUtcNow().ToUnixTimeSeconds());
        var snapshot = await FindAsync(database, "snapshot", cancellationToken);
        if (always || snapshot is null || snapshot.Expires - now < SnapshotLife / 2)
        {
            var files = new List<TrustMetadata>();
            foreach (var role in versions.Keys.Where(role => role == "targets" || role.StartsWith("image.", StringComparison.Ordinal)))
            {
                files.Add((await FindAsync(database, role, cancellationToken))!);
            }

            snapshot = new SnapshotMetadata(TrustMetadata.Sign(SnapshotMetadata.Write((snapshot?.Version ?? 0) + 1, now + SnapshotLife, files), key));
            await KeepAsync(snapshot, cancellationToken);
        }

        await KeepAsync(new TimestampMetadata(TrustMetadata.Sign(
            TimestampMetadata.Write(versions.GetValueOrDefault("timestamp") + 1, now + TimestampLife, snapshot.Describe()), key)), cancellationToken);
    }

    /// <summary>Makes a file the newest of its role. The one before stays for who is in the middle of an update; roots stay for ever.</summary>
    private async Task KeepAsync(TrustMetadata file, CancellationToken cancellationToken)
    {
        var name = file is TimestampMetadata ? "timestamp.json" : Name(file.Role, file.Version);
        await SetAsync(Prefix + name, file.ToString(), cancellationToken);
        var versions = await ReadVersionsAsync(database, cancellationToken);
        versions[file.Role] = file.Version;
        await SetAsync(Versions, JsonSerializer.Serialize(versions, ContractJson.Options), cancellationToken);
        if (file is not RootMetadata)
        {
            var old = Prefix + Name(file.Role, file.Version - 2);
            await database.Settings.Where(row => row.Name == old).ExecuteDeleteAsync(cancellationToken);
        }
    }

    private async Task SetAsync(string name, string value, CancellationToken cancellationToken)
    {
        if (await database.Settings.Where(row => row.Name == name).ExecuteUpdateAsync(update => update.SetProperty(row => row.Value, value), cancellationToken) == 0)
        {
            database.Settings.Add(new SettingRow { Name = name, Value = value });
            await database.SaveChangesAsync(cancellationToken);
        }
    }

    private async Task<ECDsa?> OpenKeyAsync(string setting, bool makes, CancellationToken cancellationToken)
    {
        var stored = await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == setting, cancellationToken);
        if (stored is null && !makes)
        {
            return null;
        }

        var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        byte[] pkcs8;
        if (stored is null)
        {
            pkcs8 = key.ExportPkcs8PrivateKey();
            await SetAsync(setting, Convert.ToBase64String(secrets.Protect(pkcs8, setting)), cancellationToken);
        }
        else
        {
            pkcs8 = secrets.Reveal(Convert.FromBase64String(stored.Value), setting);
            key.ImportPkcs8PrivateKey(pkcs8, out _);
        }

        CryptographicOperations.ZeroMemory(pkcs8);
        return key;
    }

    private static async Task<TrustMetadata?> FindAsync(NacreDatabase database, string role, CancellationToken cancellationToken) =>
        (await ReadVersionsAsync(database, cancellationToken)).TryGetValue(role, out var version)
        && await ReadAsync(database, role == "timestamp" ? "timestamp.json" : Name(role, version), cancellationToken) is { } text
            ? TrustMetadata.Parse(Encoding.UTF8.GetBytes(text), role) : null;

    private static async Task<SortedDictionary<string, int>> ReadVersionsAsync(NacreDatabase database, CancellationToken cancellationToken)
    {
        var setting = await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == Versions, cancellationToken);
        return setting is null ? new SortedDictionary<string, int>(StringComparer.Ordinal)
            : new SortedDictionary<string, int>(JsonSerializer.Deserialize<Dictionary<string, int>>(setting.Value, ContractJson.Options)!, StringComparer.Ordinal);
    }

    private static async Task<string?> ReadAsync(NacreDatabase database, string name, CancellationToken cancellationToken)
    {
        var key = Prefix + name;
        return (await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == key, cancellationToken))?.Value;
    }
}

internal static class TrustEndpoints
{
    /// <summary>A file of the largest size, with its quotation marks escaped.</summary>
    private const long LargestPut = 4L * TrustMetadata.LongestFile;

    public static void Map(Groups groups)
    {
        groups.Public.MapGet("/trust/{file}", async (string file, TrustFiles trust, CancellationToken cancellationToken) =>
                (await trust.GetAsync(file, cancellationToken)).ToHttp(bytes => TypedResults.Bytes(bytes, "application/json")))
            .WithName("GetTrustFile").WithSummary("A file of the trust metadata, as TUF names it: timestamp.json, N.root.json, N.snapshot.json, N.targets.json, N.image.NAME.json.")
            .Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.HelpDesk, Roles.Auditor).MapGet("/trust", (TrustFiles trust, CancellationToken cancellationToken) => trust.OverviewAsync(cancellationToken))
            .WithName("GetTrust").WithSummary("The newest trust metadata of each role, and the server's online key.");
        groups.Of(Roles.Administrator, Roles.Author).MapPut("/trust/{role}", async (string role, PutTrustFile body, TrustFiles trust, CancellationToken cancellationToken) =>
                (await trust.PutAsync(role, body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("PutTrustFile").WithSummary("Takes the next signed version of root, targets or image.NAME.")
            .WithMetadata(new BodyLimit(LargestPut))
            .Produces<TrustOverview>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.TrustNotAuthentic, ErrorCatalogue.TrustMissing, ErrorCatalogue.Unsupported);
        groups.Administrator.MapPost("/trust-key", (TrustFiles trust, CancellationToken cancellationToken) => trust.RenewKeyAsync(cancellationToken))
            .WithName("RenewOnlineKey").WithSummary("Makes a new online key, which signs from the root on that names it.");
    }
}
