using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Player.Leases;
using Nacre.Player.LivePcs;
using Nacre.Player.Machines;
using Nacre.Testing;
using Nacre.Volumes;
using Xunit;

namespace Nacre.Player.Tests;

[Collection("NACRE_HOME")]
public sealed class TrustTests
{
    private static readonly ReleaseManifest Manifest = new(1, "desk", 3, 0, "", 10, new SegmentReference(new string('a', 32), 10, ""), []);

    [Fact]
    public async Task A_release_is_taken_only_as_what_the_organisation_vouches_for_and_in_a_known_format()
    {
        await using var organisation = await TrustedOrganisation.BeginAsync();
        using var anybody = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var (known, newer) = (Jws.SignClaims(Manifest, anybody, ReleaseManifest.Type), Jws.SignClaims(Manifest with { Version = 4, Format = 2 }, anybody, ReleaseManifest.Type));
        var other = Jws.SignClaims(Manifest with { Version = 5 }, anybody, DeviceToken.LeaseType);
        organisation.Vouch(5, manifest: version => version switch { 3 => known, 4 => newer, 5 => other, _ => TrustedOrganisation.Manifest(version) });
        var trust = await organisation.UpdateAsync();
        ErrorKind Refusal(string manifest) => Assert.Throws<NacreException>(() => OpenedLease.VerifyManifest(manifest, trust, ImageKind.System)).Kind;
        Assert.Equal(3, OpenedLease.VerifyManifest(known, trust, ImageKind.System).Version);
        Assert.Equal(ErrorCatalogue.ReleaseNotAuthentic, Refusal(Jws.SignClaims(Manifest, anybody, ReleaseManifest.Type))); // the same, signed again
        Assert.Equal(ErrorCatalogue.ReleaseNotAuthentic, Refusal(Jws.SignClaims(Manifest with { Image = "other" }, anybody, ReleaseManifest.Type)));
        Assert.Equal(ErrorCatalogue.Unsupported, Refusal(newer));
        Assert.Equal(ErrorCatalogue.ReleaseNotAuthentic, Refusal(other));
    }

    [Fact]
    public void Every_error_of_a_volume_has_a_meaning_for_people()
    {
        foreach (var kind in Enum.GetValues<VolumeErrorKind>())
        {
            Assert.Contains("data", VolumeErrors.OfVolume(new VolumeException(kind, "x"), "data").Message, StringComparison.Ordinal);
            Assert.NotEmpty(VolumeErrors.OfRelease(new VolumeException(kind, "x")).Kind.Hint);
        }
    }

    [Fact]
    public void QEMU_is_confined_has_no_network_and_knows_only_the_disks_it_is_given()
    {
        var arguments = string.Join(' ', Qemu.Arguments(new MachineOptions
        {
            Name = "x",
            Accelerator = "tcg",
            Kernel = "/k",
            Initramfs = "/i",
            CommandLine = "quiet",
            NbdSocket = "/n",
            Disks = [new GuestDisk("nacre-system", "system", true), new GuestDisk("nacre-data", "data", false)],
            Parameters = [("stack", "/p,q")],
            Memory = 512,
            Processors = 1,
            Sockets = "/s,t",
        }));
        Assert.Contains("-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", arguments, StringComparison.Ordinal);
        Assert.Contains("-nodefaults -no-user-config", arguments, StringComparison.Ordinal);
        Assert.DoesNotContain("-netdev", arguments, StringComparison.Ordinal);
        Assert.DoesNotContain("-nic", arguments, StringComparison.Ordinal);
        Assert.DoesNotContain("virtio-net", arguments, StringComparison.Ordinal);
        Assert.Contains("path=/s,,t/", arguments, StringComparison.Ordinal);
        Assert.Contains("-fw_cfg name=opt/nacre/stack,file=/p,,q", arguments, StringComparison.Ordinal);
        Assert.Contains("\"read-only\":true", arguments, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_renewed_layer_is_blank_and_what_it_held_is_deleted()
    {
        using var folder = new TemporaryDirectory();
        using var memory = new TemporaryDirectory();
        var key = new ScratchKey(memory.Path, "office");
        var directory = folder["scratch"];
        var content = new byte[4096];
        content.AsSpan().Fill(7);
        await using (var volumes = new OpenVolumes())
        {
            volumes.Renew("scratch", directory, 1 << 30, key);
            await volumes.Exports["scratch"].WriteAsync(0, content, true, TestContext.Current.CancellationToken);
        }

        Assert.Empty(Directory.GetFileSystemEntries(folder.Path));
        Directory.CreateDirectory(directory);
        await File.WriteAllBytesAsync(Path.Combine(directory, "left-by-a-killed-player"), content, TestContext.Current.CancellationToken);
        await using (var volumes = new OpenVolumes())
        {
            volumes.Renew("scratch", directory, 1 << 30, key);
            var read = new byte[4096];
            await volumes.Exports["scratch"].ReadAsync(0, read, TestContext.Current.CancellationToken);
            Assert.All(read, value => Assert.Equal(0, value));
        }

        Assert.Empty(Directory.GetFileSystemEntries(folder.Path));
    }

    [Theory]
    [InlineData("")]
    [InlineData("../up")]
    [InlineData("a/b")]
    [InlineData("UPPER")]
    [InlineData("a\0b")]
    public void A_name_can_not_leave_the_players_folder(string name)
    {
        using var folder = new TemporaryDirectory();
        Environment.SetEnvironmentVariable("NACRE_HOME", folder.Path);
        Assert.Equal(ErrorCatalogue.NameInvalid, Assert.Throws<NacreException>(() => new LivePcFolder(PlayerPaths.Open(), name)).Kind);
    }
}
