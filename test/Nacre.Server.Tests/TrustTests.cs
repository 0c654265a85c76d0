using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Testing;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>The trust metadata's format, and the server that keeps it. What devices do with it is attacked in Nacre.Player.Tests.</summary>
public sealed class TrustTests
{
    private static readonly DateTimeOffset Ends = new(2027, 1, 1, 0, 0, 0, TimeSpan.Zero);

    private static TrustRole Role(int threshold, params ECDsa[] keys) => new(keys.Select(TrustKey.From), threshold);

    private static ECDsa NewKey() => ECDsa.Create(ECCurve.NamedCurves.nistP256);

    private static byte[] Root(ECDsa key, int version = 1) => TrustMetadata.Sign(RootMetadata.Write(version, Ends, Role(1, key), Role(1, key), Role(1, key)), key);

    private static void Refused(ErrorKind kind, string file) => Assert.Equal(kind, Assert.Throws<NacreException>(() => RootMetadata.Parse(file)).Kind);

    private static string Text(byte[] file) => Encoding.UTF8.GetString(file);

    [Fact]
    [Spec("TRUST-001")]
    public void A_file_that_is_not_spelled_canonically_is_refused()
    {
        using var key = NewKey();
        var file = Text(Root(key));
        Assert.Equal(1, RootMetadata.Parse(file).Version);
        string[] spellings =
        [
            " " + file, file + "\n", file.Replace("\"version\":1", "\"version\": 1", StringComparison.Ordinal), file.Replace("\"version\":1", "\"version\":1.0", StringComparison.Ordinal),
            file.Replace("\"version\":1", "\"version\":1e0", StringComparison.Ordinal), file.Replace("\"version\":1", "\"version\":1,\"version\":1", StringComparison.Ordinal),
            file.Replace("\"root\"", "\"\\u0072oot\"", StringComparison.Ordinal), file.Replace("\"_type\":\"root\",\"consistent_snapshot\":true", "\"consistent_snapshot\":true,\"_type\":\"root\"", StringComparison.Ordinal),
            file[..^1], "", "[]", "null", new string('[', 100_000),
        ];
        Assert.All(spellings, spelling => Refused(ErrorCatalogue.TrustNotAuthentic, spelling));
    }

    [Theory]
    [Spec("TRUST-002")]
    [InlineData("\"1.0.34\"", "\"2.0.0\"")]
    [InlineData("\"1.0.34\"", "\"1\"")]
    [InlineData("\"consistent_snapshot\":true", "\"consistent_snapshot\":false")]
    [InlineData("ecdsa-sha2-nistp256", "rsassa-pss-sha256")]
    public void What_another_specification_says_is_not_guessed(string ours, string theirs)
    {
        using var key = NewKey();
        Refused(ErrorCatalogue.Unsupported, Text(Root(key)).Replace(ours, theirs, StringComparison.Ordinal));
    }

    [Theory]
    [Spec("TRUST-003")]
    [InlineData("\"version\":1}", "\"version\":0}")]
    [InlineData("\"version\":1}", "\"version\":2147483648}")]
    [InlineData("\"version\":1}", "\"version\":\"1\"}")]
    [InlineData("\"threshold\":1", "\"threshold\":0")]
    [InlineData("\"threshold\":1", "\"threshold\":2")]
    [InlineData("2027-01-01T00:00:00Z", "2027-01-01")]
    [InlineData("\"_type\":\"root\"", "\"_type\":\"targets\"")]
    public void A_field_that_is_out_of_range_is_refused(string ours, string theirs)
    {
        using var key = NewKey();
        var file = Text(Root(key));
        Assert.Contains(ours, file, StringComparison.Ordinal);
        Refused(ErrorCatalogue.TrustNotAuthentic, file.Replace(ours, theirs, StringComparison.Ordinal));
    }

    [Fact]
    [Spec("TRUST-003")]
    public void An_oversized_file_or_field_is_refused()
    {
        using var key = NewKey();
        var file = Text(Root(key));
        Refused(ErrorCatalogue.TrustNotAuthentic, file + new string(' ', TrustMetadata.LongestFile));
        Refused(ErrorCatalogue.TrustNotAuthentic, file.Replace("\"1.0.34\"", $"\"1.0.{new string('3', 10_000)}\"", StringComparison.Ordinal));
        var id = TrustKey.From(key).Id;
        Refused(ErrorCatalogue.TrustNotAuthentic, file.Replace($"[\"{id}\"]", $"[{string.Join(',', Enumerable.Repeat($"\"{id}\"", 5000))}]", StringComparison.Ordinal));
    }

    [Fact]
    [Spec("TRUST-020", "TRUST-021")]
    public void A_threshold_counts_each_key_once_whatever_it_is_called()
    {
        using var key = NewKey();
        using var other = NewKey();
        Assert.Equal(ErrorCatalogue.TrustNotAuthentic, Assert.Throws<NacreException>(() => Role(2, key, key)).Kind);
        var file = Text(TrustMetadata.Sign(RootMetadata.Write(1, Ends, Role(2, key, other), Role(1, key), Role(1, key)), key));
        var root = RootMetadata.Parse(file);
        Assert.Equal(1, root.Root.Count(root));

        // The second key is the first, spelled otherwise or under another name; the role names it twice.
        var (id, second) = (TrustKey.From(key).Id, TrustKey.From(other).Id);
        var (pem, otherPem) = (TrustKey.From(key).Pem.Replace("\n", "\\u000a", StringComparison.Ordinal), TrustKey.From(other).Pem.Replace("\n", "\\u000a", StringComparison.Ordinal));
        Refused(ErrorCatalogue.TrustNotAuthentic, file.Replace(otherPem, pem, StringComparison.Ordinal));
        Refused(ErrorCatalogue.TrustNotAuthentic, file.Replace(otherPem, pem + "\\u000a", StringComparison.Ordinal));
        Refused(ErrorCatalogue.TrustNotAuthentic, file.Replace($"\"{second}\"]", $"\"{id}\"]", StringComparison.Ordinal).Replace($"[\"{second}\"", $"[\"{id}\"", StringComparison.Ordinal));
        Assert.Equal(ErrorCatalogue.TrustNotAuthentic, Assert.Throws<NacreException>(() => root.Root.Verify(root)).Kind);
        var both = RootMetadata.Parse(Text(TrustMetadata.Sign(Encoding.UTF8.GetBytes(file), other)));
        both.Root.Verify(both);
    }

    [Fact]
    public void A_changed_byte_in_a_file_is_refused_wherever_it_is()
    {
        using var key = NewKey();
        var file = Root(key);
        for (var place = 0; place < file.Length; place += 7) // among them 497, which makes the key one on a curve that is not known
        {
            var changed = file.ToArray();
            changed[place] ^= 1;
            var refused = Record.Exception(() => TrustedFiles.Begin(Text(changed)));
            Assert.True(refused is NacreException, string.Create(CultureInfo.InvariantCulture, $"byte {place}: {refused}"));
        }
    }

    [Fact]
    public async Task The_server_takes_what_the_right_keys_signed_in_order_and_nothing_else()
    {
        await using var world = await StartAsync();
        Assert.Null(await world.Nobody.FetchTrustFileAsync("1.root.json", 1000));
        await world.Admin.CreateUserAsync(new CreateUser("ann", null));
        await FailsAsync(ErrorCatalogue.TrustMissing, world.Admin.CreateEnrolmentCodeAsync(new CreateEnrolmentCode("ann", null)));
        using var stranger = NewKey();
        await FailsAsync(ErrorCatalogue.TrustNotAuthentic, world.Admin.PutTrustFileAsync("root", Text(Root(world.Publisher)))); // names another online key
        await world.TrustAsync();
        var overview = await world.Admin.GetTrustAsync();
        Assert.Equal(["root", "snapshot", "targets", "timestamp"], overview.Files.Keys.Order(StringComparer.Ordinal));
        var online = new TrustRole([TrustKey.From(overview.OnlineKey)], 1);
        byte[] Next(int version, params ECDsa[] signers) =>
            TrustMetadata.Sign(RootMetadata.Write(version, world.Time.GetUtcNow().AddDays(9), Role(1, stranger), Role(1, stranger), online), signers);
        await FailsAsync(ErrorCatalogue.TrustNotAuthentic, world.Admin.PutTrustFileAsync("root", Text(Next(2, stranger))));
        await FailsAsync(ErrorCatalogue.TrustNotAuthentic, world.Admin.PutTrustFileAsync("root", Text(Next(2, world.Publisher))));
        await FailsAsync(ErrorCatalogue.TrustNotAuthentic, world.Admin.PutTrustFileAsync("root", Text(Next(3, world.Publisher, stranger))));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PutTrustFileAsync("timestamp", Text(Next(2, world.Publisher, stranger))));
        Assert.Equal(overview.Files["root"], (await world.Admin.GetTrustAsync()).Files["root"]);
        var second = Text(Next(2, world.Publisher, stranger));
        await world.Admin.PutTrustFileAsync("root", second);
        await world.Admin.PutTrustFileAsync("root", second); // sent again
        Assert.Equal(second, Text((await world.Nobody.FetchTrustFileAsync("2.root.json", 100_000))!));
        Assert.Equal(overview.Files["root"], Text((await world.Nobody.FetchTrustFileAsync("1.root.json", 100_000))!));
    }

    [Fact]
    public async Task A_client_of_the_real_server_finds_a_release_and_the_timestamp_stays_young()
    {
        await using var world = await StartAsync();
        await world.TrustAsync();
        await world.PublishAsync();
        var manifest = (await world.Admin.GetReleaseAsync("debian", 1)).Manifest;
        byte[] Vouch(int version, string text) => TrustMetadata.Sign(
            TargetsMetadata.WriteReleases(version, Ends, new Dictionary<ReleaseName, TrustTarget> { [new("debian", 1)] = TrustTarget.Of(text) }), world.Publisher);
        await FailsAsync(ErrorCatalogue.TrustNotAuthentic, world.Admin.PutTrustFileAsync("image.debian", Text(Vouch(1, "another manifest"))));
        await FailsAsync(ErrorCatalogue.TrustNotAuthentic, world.Admin.PutTrustFileAsync("image.other", Text(Vouch(1, manifest))));
        await world.Admin.PutTrustFileAsync("image.debian", Text(Vouch(1, manifest)));
        var trusted = TrustedFiles.Begin((await world.Admin.GetTrustAsync()).Files["root"]);
        Task<TrustedFiles> UpdateAsync() => trusted.UpdateAsync(["debian"], world.Nobody.FetchTrustFileAsync, world.Time.GetUtcNow(), _ => { }, CancellationToken.None);
        trusted = await UpdateAsync();
        Assert.True(trusted.Vouches(new("debian", 1), manifest));

        // A month without a change: who asks gets a timestamp and a snapshot of now.
        for (var day = 0; day < 30; day++)
        {
            world.Time.Advance(TimeSpan.FromDays(1));
            trusted = await UpdateAsync();
        }

        var before = trusted.Timestamp;
        Assert.Equal(before, (await UpdateAsync()).Timestamp); // and the same one within the hour
        await world.StartAgainAsync();
        Assert.Equal(before, (await UpdateAsync()).Timestamp);
    }

    [Fact]
    [Spec("TRUST-034")]
    public async Task A_new_online_key_signs_from_the_root_on_that_names_it()
    {
        await using var world = await StartAsync();
        await world.TrustAsync();
        var trusted = TrustedFiles.Begin((await world.Admin.GetTrustAsync()).Files["root"]);
        Task<TrustedFiles> UpdateAsync() => trusted.UpdateAsync([], world.Nobody.FetchTrustFileAsync, world.Time.GetUtcNow(), _ => { }, CancellationToken.None);
        trusted = await UpdateAsync();
        var fresh = await world.Admin.RenewOnlineKeyAsync();
        trusted = await UpdateAsync(); // signed by the old one until then
        var publisher = Role(1, world.Publisher);
        await world.Admin.PutTrustFileAsync("root", Text(TrustMetadata.Sign(
            RootMetadata.Write(2, world.Time.GetUtcNow().AddDays(365), publisher, publisher, new TrustRole([TrustKey.From(fresh)], 1)), world.Publisher)));
        trusted = await UpdateAsync();
        Assert.Equal(fresh, Assert.Single(RootMetadata.Parse(trusted.Root).Timestamp.Keys).PublicKey);
        Assert.Equal(fresh, (await world.Admin.GetTrustAsync()).OnlineKey);
    }

    [Fact]
    public async Task Another_release_signing_key_is_taken_once_the_targets_delegate_to_it()
    {
        await using var world = await StartAsync();
        await world.TrustAsync();
        await world.PublishAsync();
        using var other = NewKey();
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.PutSigningKeyAsync(PublicKeys.From(other)));
        var targets = TargetsMetadata.WriteImages(2, world.Time.GetUtcNow().AddDays(9), new Dictionary<string, TrustRole> { ["debian"] = Role(1, other) });
        await world.Admin.PutTrustFileAsync("targets", Text(TrustMetadata.Sign(targets, world.Publisher)));
        Assert.Equal(PublicKeys.From(other), await world.Admin.PutSigningKeyAsync(PublicKeys.From(other)));
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.PutSigningKeyAsync(PublicKeys.From(world.Publisher))); // revoked
    }
}
