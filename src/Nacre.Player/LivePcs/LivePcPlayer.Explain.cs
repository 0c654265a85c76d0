using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using Nacre.Contracts;
using Nacre.Images.FileSystems;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Player.Releases;
using Nacre.Policies;
using Nacre.Volumes.Releases;

namespace Nacre.Player.LivePcs;

public sealed partial class LivePcPlayer
{
    private const string FactoryRules = "/usr/share/nacre/layers";
    private const string PackageDatabase = "/var/lib/dpkg";
    private const int MaxRulesBytes = 1 << 20;
    private const int MaxDatabaseBytes = 64 << 20;

    /// <summary>Says on which layer a path of the guest is, which rule says so, what it survives and what it belongs to. The rules are read from the
    /// installed release and the lease; a guest that runs is asked what it really has.</summary>
    /// <param name="name">The LivePC.</param>
    /// <param name="path">An absolute path in its guest.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="NacreException">UsageInvalid: the path is not absolute; NotFound: no release is installed, or it has no layering rules; and what keeps
    /// a lease or the release from being opened.</exception>
    public async Task<LayerExplanation> ExplainAsync(string name, string path, CancellationToken cancellationToken)
    {
        var plain = Plain(path);
        var folder = new LivePcFolder(paths, name);
        using var identity = EnrolledIdentity.Open(paths);
        var installed = Next(folder)?.System
            ?? throw new NacreException(ErrorCatalogue.NotFound, $"no release of '{name}' is on this device yet: its first start fetches one");
        var lease = OpenedLease.TryOpenKept(identity, folder, time) is { } kept && kept.Covers(installed)
            ? kept
            : await OpenedLease.TakeAsync(identity, folder, [installed], null, time, cancellationToken).ConfigureAwait(false);
        using var client = identity.Connect();
        using var cache = new SegmentCache(paths.Segments);
        var opener = new ReleaseOpener(paths, cache, Delivery.Of(lease, client, null, time));
        var manifest = lease.Release(installed).Manifest;
        if (manifest.Kind == ImageKind.Disk)
        {
            throw new NacreException(ErrorCatalogue.NotFound, $"'{name}' is a whole disk and has no layering rules: its system disk is the release again at every start, the user's disk ('nacre-data') stays");
        }

        using var reader = await opener.OpenAsync(manifest, lease.ReleaseKey(installed), cancellationToken).ConfigureAwait(false);
        await using var system = new ReleaseVolume(reader, "system");
        var policy = lease.Policy;
        var factory = await ErofsFiles.ReadAsync(system, FactoryRules, MaxRulesBytes, cancellationToken).ConfigureAwait(false)
            ?? throw new NacreException(ErrorCatalogue.NotFound, $"release {manifest.Version} of '{manifest.Image}' has no layering rules that can be read ({FactoryRules})");
        var rules = LayeringRules.Parse(Encoding.UTF8.GetString(factory).Split('\n'), policy.Get(Settings.LayerRules));
        var notes = new List<string>();
        if (await AskGuestAsync(name, plain, notes, cancellationToken).ConfigureAwait(false) is { } guest)
        {
            var now = rules.RuleOf(guest.Path);
            if (now != guest.Rule)
            {
                notes.Add($"the guest was started with other rules: at its next start '{now.Pattern} {Lower(now.Layer)}' decides");
            }
            else if (guest.RuledLayer != guest.Layer && guest.Owner?.Kind != "user package")
            {
                notes.Add($"the rule says {Lower(guest.RuledLayer)}; it takes effect at the next start, where it can (what a rule keeps must be a folder)");
            }

            notes.AddRange(NotesOf(guest.Layer, policy));
            return new LayerExplanation(name, guest.Path, guest.Layer, guest.Rule, LayerSurvival.Of(guest.Layer), guest.Owner, AskedGuest: true, notes);
        }

        var rule = rules.RuleOf(plain);
        var layer = rule.Layer;
        if (layer == Layer.Applications && !policy.Get(Settings.LayerApp))
        {
            layer = Layer.Scratch;
            notes.Add("the administrator's policy has no layer for applications of the user's: what belongs to them is scratch");
        }

        var owner = await OwnerAsync(system, plain, cancellationToken).ConfigureAwait(false);
        if (layer == Layer.Scratch && owner is null)
        {
            notes.Add("a file that came with a package of the user's is kept with the user's applications; whether this is one, only the running guest knows");
        }

        notes.AddRange(NotesOf(layer, policy));
        return new LayerExplanation(name, plain, layer, rule, LayerSurvival.Of(layer), owner, AskedGuest: false, notes);
    }

    /// <summary>What the policy makes of a restart.</summary>
    private static IEnumerable<string> NotesOf(Layer layer, Policy policy) =>
        policy.Get(Settings.Disposable) ? [$"the administrator's policy keeps nothing ('{Settings.Disposable}'): it is gone at the LivePC's end"]
        : layer == Layer.Applications && !policy.Get(Settings.LayerRetainUserApps) ? [$"the administrator's policy makes the applications blank at every start ('{Settings.LayerRetainUserApps}')"]
        : layer == Layer.Scratch && policy.Get(Settings.RejuvenateSystem) is var when && when != SystemCleaning.EveryStart
            ? [$"the administrator's policy keeps the system layer ('{Settings.RejuvenateSystem}'): it survives restarts {(when == SystemCleaning.Weekly ? "for a week at most, and " : "")}until other corporate layers start"]
            : [];

    private static string Plain(string path)
    {
        var parts = path.Split('/', StringSplitOptions.RemoveEmptyEntries);
        return path is ['/', ..] && !path.Contains('\0', StringComparison.Ordinal) && !parts.Any(part => part is "." or "..")
            ? "/" + string.Join('/', parts)
            : throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{path}' is no absolute path without '.' and '..'");
    }

    /// <summary>What the guest says; null where it does not run, can't say, or has no such file.</summary>
    private async Task<GuestAnswer?> AskGuestAsync(string name, string path, List<string> notes, CancellationToken cancellationToken)
    {
        try
        {
            var result = await ExecuteAsync(name, ["/usr/bin/nacre-where", "--json", "--", path], null, cancellationToken).ConfigureAwait(false);
            if (result.ExitCode == 0 && JsonSerializer.Deserialize<GuestAnswer[]>(result.Output, ContractJson.Options) is [{ } answer])
            {
                return answer;
            }

            notes.Add(result.ExitCode == 3 ? "the running guest has no such file; this is where it would be" : "the running guest could not say where it is; this is what the rules say");
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotRunning)
        {
            // Then the rules alone say it.
        }
        catch (Exception exception) when (exception is JsonException || exception is NacreException { Kind: var kind } && kind == ErrorCatalogue.GuestFailed)
        {
            notes.Add("the running guest could not say where it is; this is what the rules say");
        }

        return null;
    }

    /// <summary>The release's package that has the file; null where none has, or its database can't be read now.</summary>
    private static async Task<PathOwner?> OwnerAsync(ReleaseVolume system, string path, CancellationToken cancellationToken)
    {
        if (await ErofsFiles.ReadAsync(system, $"{PackageDatabase}/status", MaxDatabaseBytes, cancellationToken).ConfigureAwait(false) is not { } status)
        {
            return null;
        }

        // With a merged /usr a package may have stated either name.
        string[] names = path.StartsWith("/usr/", StringComparison.Ordinal) ? [path, path[4..]] : [path, "/usr" + path];
        foreach (var stanza in Encoding.UTF8.GetString(status).Split("\n\n"))
        {
            var fields = stanza.Split('\n');
            if (Field(fields, "Package") is not { } package)
            {
                continue;
            }

            var list = Field(fields, "Multi-Arch") == "same" ? $"{package}:{Field(fields, "Architecture")}" : package;
            if (await ErofsFiles.ReadAsync(system, $"{PackageDatabase}/info/{list}.list", MaxDatabaseBytes, cancellationToken).ConfigureAwait(false) is { } files
                && Encoding.UTF8.GetString(files).Split('\n').Any(names.Contains))
            {
                return new PathOwner("release", package);
            }
        }

        return null;
    }

    private static string? Field(string[] stanza, string name) =>
        stanza.FirstOrDefault(line => line.StartsWith($"{name}: ", StringComparison.Ordinal))?[(name.Length + 2)..];

    private static string Lower(Layer layer) => layer.ToString().ToLowerInvariant();

    /// <summary>A line of <c>nacre-where --json</c>.</summary>
    private sealed record GuestAnswer(string Path, Layer Layer, Layer RuledLayer, [property: JsonPropertyName("rule")] GuestRule Said, PathOwner? Owner)
    {
        [JsonIgnore]
        public LayeringRule Rule => new(Said.Pattern, RuledLayer, Said.Source, Said.Line);
    }

    private sealed record GuestRule(string Pattern, string Source, int? Line);
}
