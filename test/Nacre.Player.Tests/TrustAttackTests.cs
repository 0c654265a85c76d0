using System.Diagnostics;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Connections.Features;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Player.Trust;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>The attacks that TUF names, each on the device's real code through a real server that an attacker has.</summary>
[Collection("NACRE_HOME")]
public sealed class TrustAttackTests
{
    private static readonly ReleaseName[] Nothing = [];

    private static LeaseClaims Lease(int version, params ReleaseName[] kept) => new("device-1", "ann", "office", "desk", version, null, 0, 0, null, [], null, [], kept);

    private static ReleaseName Desk(int version) => new("desk", version);

    private static bool Vouches(DeviceTrust trust, int version) => trust.Vouches(Desk(version), TrustedOrganisation.Manifest(version));

    private static void Refused(DeviceTrust trust, ErrorKind kind, string words)
    {
        Assert.Equal(kind, trust.Problem?.Kind);
        Assert.Contains(words, trust.Problem!.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Releases_are_found_through_root_timestamp_snapshot_targets_and_the_images_role()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        var trust = await organisation.UpdateAsync();
        Assert.Null(trust.Problem);
        Assert.True(Vouches(trust, 1));
        Assert.False(Vouches(trust, 2));
        Assert.Equal(["2.root.json", "timestamp.json", "2.snapshot.json", "1.targets.json", "1.image.desk.json"], organisation.Asked);

        // Again: only what may be new is asked for; and a start of the player finds what is kept.
        organisation.Asked.Clear();
        Assert.True(Vouches(organisation.Device(), 1));
        organisation.Vouch(2);
        trust = await organisation.UpdateAsync();
        Assert.True(Vouches(trust, 2));
        Assert.Equal(["2.root.json", "timestamp.json", "3.snapshot.json", "2.image.desk.json"], organisation.Asked);
    }

    [Fact]
    [Spec("TRUST-060")]
    public async Task Arbitrary_software_that_the_server_makes_up_is_refused()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        var trust = await organisation.UpdateAsync();
        var theirs = TrustedOrganisation.Manifest(2);
        Assert.Equal(ErrorCatalogue.ReleaseNotAuthentic, Assert.Throws<NacreException>(() => OpenedLease.VerifyManifests(Lease(2), [theirs], trust, Nothing)).Kind);

        // Other bytes for a release that there is.
        var changed = TrustedOrganisation.Manifest(1, kind: ImageKind.Disk);
        Assert.Equal(ErrorCatalogue.ReleaseNotAuthentic, Assert.Throws<NacreException>(() => OpenedLease.VerifyManifests(Lease(1), [changed], trust, Nothing)).Kind);
        Assert.Single(OpenedLease.VerifyManifests(Lease(1), [TrustedOrganisation.Manifest(1)], trust, Nothing));

        // A role of the image that the attacker signs, with the online key at hand.
        using var attacker = TrustedOrganisation.NewKey();
        organisation.Vouch(2, signer: attacker);
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "0 of the 1 signatures");
        Assert.False(Vouches(organisation.Device(), 2));
        Assert.True(Vouches(organisation.Device(), 1));
    }

    [Fact]
    [Spec("TRUST-061")]
    public async Task Wrong_software_one_images_release_in_another_ones_place_is_refused()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        organisation.Delegate("desk", "tools");
        organisation.Vouch(1, "tools");
        var trust = await organisation.UpdateAsync("tools");
        trust = await organisation.UpdateAsync();
        var tools = TrustedOrganisation.Manifest(1, "tools");
        Assert.True(trust.Vouches(new ReleaseName("tools", 1), tools));
        Assert.False(trust.Vouches(Desk(1), tools));
        Assert.Equal(ErrorCatalogue.ReleaseNotAuthentic, Assert.Throws<NacreException>(() => OpenedLease.VerifyManifests(Lease(1), [tools], trust, Nothing)).Kind);

        // The publisher of one image vouches for another's releases.
        var file = TargetsMetadata.WriteReleases(9, organisation.Time.GetUtcNow().AddDays(1), new Dictionary<ReleaseName, TrustTarget> { [Desk(2)] = new(1, new string('a', 64)) });
        var refused = Assert.Throws<NacreException>(() => new TargetsMetadata(TrustMetadata.Sign(file, organisation.Publisher), "image.tools"));
        Assert.Equal(ErrorCatalogue.TrustNotAuthentic, refused.Kind);
    }

    [Fact]
    [Spec("TRUST-031")]
    public async Task Rollback_to_what_was_served_before_is_refused()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        await organisation.UpdateAsync();
        var old = organisation.Record();
        organisation.Vouch(2);
        await organisation.UpdateAsync();
        organisation.Replay(old);
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "older than what was trusted");
        Assert.True(Vouches(organisation.Device(), 2));

        // A newer timestamp and snapshot (a stolen online key) that name an older role of the image.
        organisation.Vouch(3);
        await organisation.UpdateAsync();
        organisation.Images["desk"] = new TargetsMetadata(organisation.Files["1.image.desk.json"], "image.desk");
        organisation.Stamp(50, 50);
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "older than what was trusted");

        // Or that leave it out.
        organisation.Images.Clear();
        organisation.Stamp(51, 51);
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "older than what was trusted");
        Assert.True(Vouches(organisation.Device(), 3));
    }

    [Fact]
    [Spec("TRUST-032")]
    public async Task Freeze_takes_nothing_new_tells_and_lets_what_is_installed_start()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        organisation.Vouch(2);
        await organisation.UpdateAsync();
        organisation.Time.Advance(days: 2); // the timestamp of then is served for ever
        var trust = await organisation.UpdateAsync();
        Refused(trust, ErrorCatalogue.TrustExpired, "'timestamp' ended");
        var report = trust.Report([Desk(2)])!;
        Assert.Equal((ReportKind.Trust, report.Id), (report.Kind, trust.Report([Desk(2)])!.Id));

        // The lease offers 2, the device has 1: it starts 1, and says why not 2. Installed, 2 starts.
        var manifests = new[] { TrustedOrganisation.Manifest(2), TrustedOrganisation.Manifest(1) };
        Assert.Equal([Desk(1)], OpenedLease.VerifyManifests(Lease(2, Desk(1)), manifests, trust, [Desk(1)]).Keys);
        Assert.Equal([Desk(2)], OpenedLease.VerifyManifests(Lease(2, Desk(1)), manifests, trust, [Desk(2)]).Keys);
        organisation.Stamp();
        trust = await organisation.UpdateAsync();
        Assert.Null(trust.Problem);
        Assert.Equal(2, OpenedLease.VerifyManifests(Lease(2, Desk(1)), manifests, trust, [Desk(1)]).Count);
    }

    [Fact]
    [Spec("TRUST-032")]
    public async Task Freeze_by_a_root_that_ended_takes_nothing_new()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        await organisation.UpdateAsync();
        organisation.Time.Advance(days: 366);
        organisation.Vouch(2);
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustExpired, "'root' ended");
        Assert.True(Vouches(organisation.Device(), 1));
        organisation.Rotate();
        organisation.Delegate();
        Assert.Null((await organisation.UpdateAsync()).Problem);
        Assert.True(Vouches(organisation.Device(), 2));
    }

    [Theory]
    [Spec("TRUST-072")]
    [InlineData(61, null)]
    [InlineData(59, "notice")]
    [InlineData(13, "soon")]
    [InlineData(2, "urgent")]
    [InlineData(-1, "ended")]
    public async Task An_end_is_announced_60_14_and_3_days_before(int left, string? word)
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        await organisation.UpdateAsync();
        organisation.Time.Advance(365 - left);
        var warnings = organisation.Device().Warnings;
        Assert.Equal(word is null ? [] : ["root", "targets", "image.desk"], warnings.Select(warning => warning.Role));
        Assert.All(warnings, warning => Assert.StartsWith(word!, $"{warning}", StringComparison.Ordinal));
    }

    [Fact]
    [Spec("TRUST-033")]
    public async Task Mix_and_match_of_files_of_different_times_is_refused()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        var old = organisation.Record();
        organisation.Vouch(2);

        // The image's role of then under the name of now.
        organisation.Files["2.image.desk.json"] = old["1.image.desk.json"];
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "not the one that belongs with the others");
        Assert.False(Vouches(organisation.Device(), 1)); // nothing of an update that failed is kept
        organisation.Files["2.image.desk.json"] = organisation.Images["desk"].Bytes;

        // The snapshot of then, under the timestamp of now.
        organisation.Files["3.snapshot.json"] = old["2.snapshot.json"];
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "not the one that belongs with the others");
        Assert.False(Vouches(organisation.Device(), 1));
    }

    [Fact]
    [Spec("TRUST-034")]
    public async Task Fast_forward_of_the_versions_is_undone_by_a_new_online_key()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        organisation.Stamp(int.MaxValue, int.MaxValue); // who stole the online key uses the versions up
        Assert.Null((await organisation.UpdateAsync()).Problem);
        organisation.Vouch(2, stamps: false);
        organisation.Stamp(10, 10);
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "older than what was trusted");
        organisation.Online.Dispose();
        organisation.Online = TrustedOrganisation.NewKey();
        organisation.Rotate();
        organisation.Stamp(11, 11);
        Assert.Null((await organisation.UpdateAsync()).Problem);
        Assert.True(Vouches(organisation.Device(), 2));
    }

    /// <summary>Bytes of this connection that the other side has acknowledged (tcp(7), TCP_INFO, tcpi_bytes_acked); null: it is closed.</summary>
    private static long? Acknowledged(Socket socket)
    {
        const int Tcp = 6, Info = 11, BytesAcknowledged = 120;
        var info = new byte[BytesAcknowledged + sizeof(long)];
        try
        {
            return socket.GetRawSocketOption(Tcp, Info, info) == info.Length ? BitConverter.ToInt64(info, BytesAcknowledged) : null;
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
        {
            return null;
        }
    }

    [Theory]
    [Spec("TRUST-040")]
    [InlineData("2.root.json")]
    [InlineData("timestamp.json")]
    [InlineData("2.snapshot.json")]
    [InlineData("1.targets.json")]
    [InlineData("1.image.desk.json")]
    public async Task Endless_data_in_the_place_of_any_file_ends(string file)
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        var sent = 0L;
        organisation.Attack = async (name, context) =>
        {
            if (name == file)
            {
                // What was sent is what the other side's kernel has acknowledged: Kestrel takes and drops what is written to a connection that is gone, until the word of that comes.
                var socket = context.Features.Get<IConnectionSocketFeature>()!.Socket;
                var before = Acknowledged(socket) ?? 0;
                var block = new byte[64 * 1024];
                for (var written = 0L; written < 1L << 32 && !(await context.Response.BodyWriter.WriteAsync(block, context.RequestAborted)).IsCompleted; written += block.Length)
                {
                    sent = Acknowledged(socket) - before ?? sent;
                }
            }

            return name == file;
        };
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TooLarge, file);
        Assert.True(sent < 32 * 1024 * 1024, $"{sent} bytes");
        organisation.Attack = null;
        Assert.Null((await organisation.UpdateAsync()).Problem);
    }

    [Fact]
    [Spec("TRUST-040")]
    public async Task Endless_data_as_a_chain_of_roots_that_does_not_end_ends()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        organisation.Threshold = 1;
        organisation.Rotate();
        var signer = organisation.RootKeys[0];
        for (var root = 0; root < 300; root++)
        {
            organisation.Rotate(signers: [signer]);
        }

        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "does not end");
        Assert.Null((await organisation.UpdateAsync()).Problem); // the organisation's own roots, however many: what was followed is kept
    }

    [Fact]
    [Spec("TRUST-041")]
    public async Task Slow_retrieval_is_given_up_and_what_is_trusted_stays()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        await organisation.UpdateAsync();
        organisation.Vouch(2);
        organisation.Attack = async (name, context) =>
        {
            if (name == "timestamp.json")
            {
                for (var end = false; !end; end = context.RequestAborted.IsCancellationRequested)
                {
                    await context.Response.Body.WriteAsync("x"u8.ToArray(), context.RequestAborted);
                    await context.Response.Body.FlushAsync(context.RequestAborted);
                    await Task.Delay(50, context.RequestAborted);
                }
            }

            return name == "timestamp.json";
        };
        var taken = Stopwatch.StartNew();
        var trust = await organisation.UpdateAsync(grace: TimeSpan.FromSeconds(1));
        Assert.InRange(taken.Elapsed, TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(30));
        Assert.Null(trust.Problem); // as without a network: what is trusted has not ended
        Assert.Equal((true, false), (Vouches(trust, 1), Vouches(trust, 2)));
    }

    [Fact]
    [Spec("TRUST-020")]
    public async Task Key_compromise_below_the_threshold_changes_nothing()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        await organisation.UpdateAsync();
        using var attacker = TrustedOrganisation.NewKey();
        var ours = organisation.RootKeys;

        // One of three root keys, where two must sign: alone, with the attacker's own, and twice under one name.
        organisation.RootKeys = [ours[0], attacker, TrustedOrganisation.NewKey()];
        organisation.Rotate(signers: [ours[0], attacker]);
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "1 of the 2 signatures");
        var twice = Encoding.UTF8.GetString(organisation.Files["2.root.json"]);
        var first = twice[(twice.IndexOf('[', StringComparison.Ordinal) + 1)..(twice.IndexOf('}', StringComparison.Ordinal) + 1)];
        organisation.Files["2.root.json"] = Encoding.UTF8.GetBytes(twice.Replace("\"signatures\":[", $"\"signatures\":[{first},", StringComparison.Ordinal));
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "two of one key");
        organisation.RootKeys[2].Dispose();
        organisation.RootKeys = ours;
    }

    [Fact]
    [Spec("TRUST-035")]
    public async Task Key_compromise_of_a_publisher_is_recovered_from_by_another_key()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        organisation.Vouch(2, manifest: version => TrustedOrganisation.Manifest(version, kind: version == 2 ? ImageKind.Disk : ImageKind.System)); // by the thief
        var theirs = TrustedOrganisation.Manifest(2, kind: ImageKind.Disk);
        Assert.True((await organisation.UpdateAsync()).Vouches(Desk(2), theirs));
        var stolen = organisation.Publisher;
        organisation.Publisher = TrustedOrganisation.NewKey();
        organisation.Delegate();
        organisation.Vouch(1);
        var trust = await organisation.UpdateAsync();
        Assert.Null(trust.Problem);
        Assert.False(trust.Vouches(Desk(2), theirs));

        // What the device has of it does not start any more; what is offered instead does.
        Assert.Equal([Desk(1)], OpenedLease.VerifyManifests(Lease(1, Desk(2)), [TrustedOrganisation.Manifest(1), theirs], trust, [Desk(2)]).Keys);

        // The key of before signs for nobody.
        organisation.Vouch(3, signer: stolen);
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "0 of the 1 signatures");
        stolen.Dispose();
    }

    [Fact]
    [Spec("TRUST-030")]
    public async Task Rotation_of_every_key_is_followed_root_by_root()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        await organisation.UpdateAsync();
        for (var round = 0; round < 3; round++)
        {
            var before = organisation.RootKeys;
            organisation.RootKeys = [TrustedOrganisation.NewKey(), TrustedOrganisation.NewKey(), TrustedOrganisation.NewKey()];
            organisation.TargetsKey = TrustedOrganisation.NewKey();
            organisation.Rotate(signers: before.Concat(organisation.RootKeys));
        }

        organisation.Delegate();
        organisation.Vouch(2);
        Assert.Null((await organisation.UpdateAsync()).Problem);
        Assert.True(Vouches(organisation.Device(), 2));

        // A root that skips one, or that those before did not sign, is no successor.
        var newest = organisation.Root!;
        organisation.Rotate();
        organisation.Files[$"{newest.Version + 1}.root.json"] = new RootMetadata(TrustMetadata.Sign(RootMetadata.Write(
            newest.Version + 2, newest.Expires, newest.Root, newest.Targets, newest.Timestamp), organisation.RootKeys)).Bytes;
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "was given as version");
        Assert.True(Vouches(organisation.Device(), 2));
    }

    [Fact]
    [Spec("TRUST-030")]
    public async Task Revocation_of_the_targets_key_ends_what_it_said()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        await organisation.UpdateAsync();
        using var revoked = organisation.TargetsKey;
        organisation.TargetsKey = TrustedOrganisation.NewKey();
        organisation.Rotate();
        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustNotAuthentic, "0 of the 1 signatures");
        Assert.True(Vouches(organisation.Device(), 1)); // until the new key has spoken, what was verified starts
        organisation.Delegate("other");
        Assert.Null((await organisation.UpdateAsync()).Problem);
        Assert.False(Vouches(organisation.Device(), 1));
    }

    [Fact]
    [Spec("TRUST-073")]
    public async Task What_the_device_trusts_can_not_be_changed_on_its_disk()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        await organisation.UpdateAsync();
        var path = organisation.Identity.TrustPath;
        var content = await File.ReadAllBytesAsync(path, TestContext.Current.CancellationToken);
        content[^2] ^= 1;
        await File.WriteAllBytesAsync(path, content, TestContext.Current.CancellationToken);
        Assert.Equal(ErrorCatalogue.TrustNotAuthentic, Assert.Throws<NacreException>(organisation.Device).Kind);
    }

    [Fact]
    [Spec("TRUST-071")]
    public async Task A_device_of_before_takes_the_root_that_its_release_signing_key_signed_and_no_other()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        File.Delete(organisation.Identity.TrustPath);
        async Task<DeviceTrust> UpdateWithAsync(ECDsa known)
        {
            var record = organisation.Identity.Record with { ReleaseKey = PublicKeys.From(known) };
            DurableFile.WriteJson(Path.Combine(organisation.Office.Paths.State, "device.json"), record);
            using var identity = EnrolledIdentity.Open(organisation.Office.Paths);
            var trust = new DeviceTrust(identity, organisation.Time);
            using var client = new NacreClient(record.Server);
            await trust.UpdateAsync(client, ["desk"], TestContext.Current.CancellationToken);
            return trust;
        }

        Refused(await organisation.UpdateAsync(), ErrorCatalogue.TrustMissing, "no trust root");
        Refused(await UpdateWithAsync(organisation.Publisher), ErrorCatalogue.TrustNotAuthentic, "not signed by the release signing key");
        var trust = await UpdateWithAsync(organisation.RootKeys[1]);
        Assert.Null(trust.Problem);
        Assert.True(Vouches(trust, 1));
    }
}
