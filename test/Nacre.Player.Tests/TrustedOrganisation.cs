using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Player.Devices;
using Nacre.Player.Trust;

namespace Nacre.Player.Tests;

/// <summary>An organisation's keys and trust metadata, a server that serves them or what an attacker makes of them, and a device that enrolled there.
/// Its tests are in the collection NACRE_HOME.</summary>
internal sealed class TrustedOrganisation : IAsyncDisposable
{
    private readonly WebApplication app;
    private readonly DeviceKey deviceKey = DeviceKey.Create();
    private int timestampVersion, snapshotVersion;

    private TrustedOrganisation()
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.Limits.MinResponseDataRate = null).UseUrls("http://127.0.0.1:0");
        builder.Services.AddRouting();
        app = builder.Build();
        app.Run(AnswerAsync);
    }

    public Office Office { get; } = new();

    public Clock Time { get; } = new();

    /// <summary>What the server serves, by name.</summary>
    public Dictionary<string, byte[]> Files { get; private set; } = new(StringComparer.Ordinal);

    /// <summary>Answers instead of the server where it returns true.</summary>
    public Func<string, HttpContext, Task<bool>>? Attack { get; set; }

    public List<string> Asked { get; } = [];

    public ECDsa[] RootKeys { get; set; } = [NewKey(), NewKey(), NewKey()];

    public int Threshold { get; set; } = 2;

    public ECDsa TargetsKey { get; set; } = NewKey();

    public ECDsa Online { get; set; } = NewKey();

    public ECDsa Publisher { get; set; } = NewKey();

    public ECDsa LeaseKey { get; } = NewKey();

    public RootMetadata? Root { get; private set; }

    public TargetsMetadata? Targets { get; set; }

    public Dictionary<string, TargetsMetadata> Images { get; } = new(StringComparer.Ordinal);

    public EnrolledIdentity Identity { get; private set; } = null!;

    public static ECDsa NewKey() => ECDsa.Create(ECCurve.NamedCurves.nistP256);

    public static TrustRole Role(int threshold, params ECDsa[] keys) => new(keys.Select(TrustKey.From), threshold);

    /// <summary>Has published release 1 of desk; the device knows the root only.</summary>
    public static async Task<TrustedOrganisation> BeginAsync()
    {
        var organisation = new TrustedOrganisation();
        await organisation.app.StartAsync();
        organisation.Rotate();
        organisation.Delegate();
        organisation.Vouch(1);
        var state = organisation.Office.Paths.State;
        DurableFile.Write(Path.Combine(state, "device.secret"), RandomNumberGenerator.GetBytes(32));
        DurableFile.Write(Path.Combine(state, "device.key"), organisation.deviceKey.ExportPkcs8());
        DurableFile.WriteJson(
            Path.Combine(state, "device.json"), new DeviceRecord(new Uri(organisation.app.Urls.Single()), "device-1", "ann", "o", null, PublicKeys.From(organisation.LeaseKey)));
        organisation.Identity = EnrolledIdentity.Open(organisation.Office.Paths);
        DeviceTrust.Begin(organisation.Identity, $"{organisation.Root}", organisation.Time);
        return organisation;
    }

    /// <summary>What the device trusts, as a start of the player finds it.</summary>
    public DeviceTrust Device() => new(Identity, Time);

    /// <summary>The device asks for news.</summary>
    public async Task<DeviceTrust> UpdateAsync(string image = "desk", TimeSpan? grace = null)
    {
        var trust = Device();
        using var client = new NacreClient(new Uri(app.Urls.Single())) { TrustGrace = grace ?? TimeSpan.FromSeconds(15) };
        await trust.UpdateAsync(client, [image], CancellationToken.None);
        return trust;
    }

    /// <summary>A release's manifest; the same text for the same version.</summary>
    public static string Manifest(int version, string image = "desk", ImageKind kind = ImageKind.System) =>
        Manifest(new ReleaseManifest(1, image, version, 0, "", 10, new SegmentReference(new string('a', 32), 10, ""), [], kind));

    /// <summary>A manifest in the form in which it is published.</summary>
    public static string Manifest(ReleaseManifest manifest)
    {
        var payload = System.Text.Json.JsonSerializer.SerializeToUtf8Bytes(manifest, ContractJson.Options);
        var header = Encoding.ASCII.GetBytes($$"""{"alg":"ES256","typ":"{{ReleaseManifest.Type}}"}""");
        return string.Join('.', new[] { header, payload, new byte[64] }.Select(part => System.Buffers.Text.Base64Url.EncodeToString(part)));
    }

    /// <summary>The next root, with the keys as they are now, signed by those before and these.</summary>
    public void Rotate(int? days = null, IEnumerable<ECDsa>? signers = null)
    {
        var file = RootMetadata.Write(1 + (Root?.Version ?? 0), Time.GetUtcNow().AddDays(days ?? 365), Role(Threshold, RootKeys), Role(1, TargetsKey), Role(1, Online));
        Root = new RootMetadata(TrustMetadata.Sign(file, [.. signers ?? RootKeys]));
        Files[$"{Root.Version}.root.json"] = Root.Bytes;
    }

    /// <summary>The recovery key that the next targets vouch for.</summary>
    public TrustTarget? Recovery { get; set; }

    /// <summary>The next targets: the publisher signs for these images.</summary>
    public void Delegate(params string[] images)
    {
        var roles = (images.Length == 0 ? ["desk"] : images).ToDictionary(image => image, _ => Role(1, Publisher));
        Targets = new TargetsMetadata(TrustMetadata.Sign(TargetsMetadata.WriteImages(1 + (Targets?.Version ?? 0), Time.GetUtcNow().AddDays(365), roles, Recovery), TargetsKey));
        Files[$"{Targets.Version}.targets.json"] = Targets.Bytes;
        Stamp();
    }

    /// <summary>The next role of an image, with releases 1 to this one.</summary>
    public void Vouch(int newest, string image = "desk", ECDsa? signer = null, Func<int, string>? manifest = null, bool stamps = true)
    {
        var role = TargetsMetadata.RoleOf(image);
        var releases = Enumerable.Range(1, newest).ToDictionary(version => new ReleaseName(image, version), version => TrustTarget.Of(manifest?.Invoke(version) ?? Manifest(version, image)));
        Images[image] = new TargetsMetadata(
            TrustMetadata.Sign(TargetsMetadata.WriteReleases(1 + (Images.GetValueOrDefault(image)?.Version ?? 0), Time.GetUtcNow().AddDays(365), releases), signer ?? Publisher), role);
        Files[$"{Images[image].Version}.{role}.json"] = Images[image].Bytes;
        if (stamps)
        {
            Stamp();
        }
    }

    /// <summary>A new snapshot and a timestamp of a day.</summary>
    public void Stamp(int? snapshot = null, int? timestamp = null)
    {
        snapshotVersion = snapshot ?? snapshotVersion + 1;
        timestampVersion = timestamp ?? timestampVersion + 1;
        var snapshotFile = new SnapshotMetadata(TrustMetadata.Sign(SnapshotMetadata.Write(snapshotVersion, Time.GetUtcNow().AddDays(7), [Targets!, .. Images.Values]), Online));
        Files[$"{snapshotVersion}.snapshot.json"] = snapshotFile.Bytes;
        Files["timestamp.json"] = TrustMetadata.Sign(TimestampMetadata.Write(timestampVersion, Time.GetUtcNow().AddDays(1), snapshotFile.Describe()), Online);
    }

    /// <summary>All that is served now, to be served again later.</summary>
    public Dictionary<string, byte[]> Record() => new(Files, StringComparer.Ordinal);

    public void Replay(Dictionary<string, byte[]> recorded) => Files = new(recorded, StringComparer.Ordinal);

    public async ValueTask DisposeAsync()
    {
        await app.DisposeAsync();
        Identity.Dispose();
        deviceKey.Dispose();
        foreach (var key in RootKeys.Concat([TargetsKey, Online, Publisher, LeaseKey]))
        {
            key.Dispose();
        }

        Office.Dispose();
    }

    private async Task AnswerAsync(HttpContext context)
    {
        var name = context.Request.Path.Value!.Split('/')[^1];
        lock (Asked)
        {
            Asked.Add(name);
        }

        if (Attack is { } attack && await attack(name, context))
        {
            return;
        }

        if (Files.TryGetValue(name, out var file))
        {
            context.Response.ContentType = "application/json";
            await context.Response.Body.WriteAsync(file);
            return;
        }

        context.Response.StatusCode = 404;
        var kind = ErrorCatalogue.NotFound;
        await context.Response.WriteAsJsonAsync(
            new Problem("about:blank", "not found", 404, "no such file", kind.Code, kind.Hint, "1"), ContractJson.Options, "application/problem+json");
    }

    internal sealed class Clock : TimeProvider
    {
        private DateTimeOffset now = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);

        public override DateTimeOffset GetUtcNow() => now;

        public void Advance(double days) => now += TimeSpan.FromDays(days);
    }
}
