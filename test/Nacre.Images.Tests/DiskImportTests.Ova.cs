using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using Nacre.Images.Importing;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests;

/// <content>OVA: archives of virtual machines, real ones made with tar and qemu-img, and those that somebody made to do harm.</content>
public sealed partial class DiskImportTests
{
    private const string OneDisk = """<File ovf:id="file1" ovf:href="disk1.vmdk"/>|<Disk ovf:diskId="d1" ovf:fileRef="file1" ovf:capacity="67108864"/>""";
    private const string TwoDisks = """<File ovf:id="file1" ovf:href="disk1.vmdk"/><File ovf:id="file2" ovf:href="data.vmdk"/>|<Disk ovf:diskId="d2" ovf:fileRef="file2"/><Disk ovf:diskId="d1" ovf:fileRef="file1"/>""";

    [Theory]
    [InlineData("ustar", "SHA256", "streamOptimized")]
    [InlineData("gnu", "SHA1", "monolithicSparse")]
    [InlineData("posix", "SHA512", "streamOptimized")]
    [InlineData("ustar", null, "streamOptimized")]
    public async Task An_ova_gives_its_disk_bit_for_bit_without_being_unpacked(string tar, string? digests, string subformat)
    {
        var disk = await DiskOfApplianceAsync(subformat);
        await DescribeAsync(OneDisk);
        string[] files = ["machine.ovf", .. await ManifestAsync(digests, "machine.ovf", "disk1.vmdk"), "disk1.vmdk"];
        await File.WriteAllTextAsync(folder["machine.cert"], "not looked at", Token);
        await TarAsync("machine, with a comma.ova", [$"--format={tar}", .. files, "machine.cert"]);
        var phases = new List<string>();
        var image = await DiskImporter.ImportAsync(folder["machine, with a comma.ova"], null, null, "desktop", folder["image"], (_, words) => phases.Add(words), Token);
        Assert.Equal((DiskFormat.Ova, "disk1.vmdk", 64L * MiB), (image.From, image.Disk, image.DiskSize));
        Assert.Equal(digests is not null, phases.Contains("verifying disk1.vmdk"));
        Assert.Equal(digests is null, image.Notes.Contains("the archive has no digests of its files"));
        Assert.Contains("the archive's signature ('machine.cert') was not looked at", image.Notes);
        var imported = await File.ReadAllBytesAsync(Path.Combine(folder["image"], ImportedDisk.FileName), Token);
        Assert.True((await File.ReadAllBytesAsync(disk, Token)).AsSpan().SequenceEqual(imported));
        Assert.InRange(await StoredBytesAsync(Path.Combine(folder["image"], ImportedDisk.FileName)), 1, 4 * MiB);
        Assert.Equal(image.Disk, ImportedDisk.TryFromJson(await File.ReadAllBytesAsync(Path.Combine(folder["image"], "image.json"), Token))!.Disk);
    }

    [Fact]
    public async Task Of_several_disks_the_one_is_imported_that_is_named()
    {
        await DiskOfApplianceAsync("streamOptimized");
        await QemuAsync("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", Disk(2 * MiB), folder["data.vmdk"]);
        await DescribeAsync(TwoDisks);
        await TarAsync("two.ova", "machine.ovf", "disk1.vmdk", "data.vmdk");
        var asked = await Assert.ThrowsAsync<NacreException>(() => ImportAsync(folder["two.ova"]));
        Assert.Equal(ErrorCatalogue.UsageInvalid, asked.Kind);
        Assert.Contains("has 2 disks: 'data.vmdk', 'disk1.vmdk'; say with --disk", asked.Message, StringComparison.Ordinal);
        var none = await Assert.ThrowsAsync<NacreException>(() => ImportMemberAsync("two.ova", "machine.ovf"));
        Assert.Contains("has no disk 'machine.ovf'; it has 'data.vmdk', 'disk1.vmdk'", none.Message, StringComparison.Ordinal);
        Assert.Equal(("data.vmdk", 2L * MiB), await ImportMemberAsync("two.ova", "data.vmdk") is var image ? (image.Disk, image.DiskSize) : default);
        Directory.Delete(folder["image"], recursive: true);
        Assert.Equal(ErrorCatalogue.UsageInvalid, (await Assert.ThrowsAsync<NacreException>(() => ImportMemberAsync("data.vmdk", "disk1.vmdk"))).Kind);
    }

    [Fact]
    public async Task Digests_of_an_ova_that_do_not_hold_are_refused()
    {
        await DiskOfApplianceAsync("streamOptimized");
        await DescribeAsync(OneDisk);
        await ManifestAsync("SHA256", "machine.ovf", "disk1.vmdk");
        await File.AppendAllTextAsync(folder["machine.ovf"], "<!-- changed -->", Token);
        await TarAsync("description.ova", "machine.ovf", "machine.mf", "disk1.vmdk");
        await RefusedAsync("description.ova", "'machine.ovf' in it is not what its manifest says");

        await ManifestAsync("SHA1", "machine.ovf", "disk1.vmdk");
        await File.AppendAllBytesAsync(folder["disk1.vmdk"], new byte[512], Token);
        await TarAsync("disk.ova", "machine.ovf", "machine.mf", "disk1.vmdk");
        await RefusedAsync("disk.ova", "'disk1.vmdk' in it is not what its manifest says");

        await ManifestAsync("SHA256", "machine.ovf");
        await TarAsync("part.ova", "machine.ovf", "machine.mf", "disk1.vmdk");
        await RefusedAsync("part.ova", "no digest of 'disk1.vmdk'");

        await File.AppendAllTextAsync(folder["machine.mf"], "SHA256(../../etc/passwd)= 00\n", Token);
        await TarAsync("other.ova", "machine.ovf", "machine.mf", "disk1.vmdk");
        await RefusedAsync("other.ova", "'../../etc/passwd', which is not in it");

        await File.WriteAllTextAsync(folder["machine.mf"], "MD5(machine.ovf)= 00\n", Token);
        await TarAsync("weak.ova", "machine.ovf", "machine.mf", "disk1.vmdk");
        await RefusedAsync("weak.ova", "a line that is no digest");
    }

    [Fact]
    public async Task A_description_that_leads_elsewhere_or_is_a_bomb_is_refused()
    {
        await File.WriteAllTextAsync(folder["secret"], Canary, Token);
        await DiskOfApplianceAsync("streamOptimized");
        await RefuseDescriptionAsync("<!DOCTYPE lolz [<!ENTITY a \"lol\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\">]><Envelope>&b;</Envelope>", "can't be read");
        await RefuseDescriptionAsync($"<!DOCTYPE x [<!ENTITY file SYSTEM \"{folder["secret"]}\">]><Envelope>&file;</Envelope>", "can't be read");
        await RefuseDescriptionAsync("<Envelope><Refer", "can't be read");
        await RefuseDescriptionAsync(new string(' ', 5 * MiB), "such a file has at most");
        await RefuseDescriptionAsync(string.Concat(Enumerable.Repeat("<a>", 200_000)) + string.Concat(Enumerable.Repeat("</a>", 200_000)), "nested more than 64 deep");
        await RefuseDescriptionAsync(Description("""<File ovf:id="file1" ovf:href="../secret"/>|<Disk ovf:fileRef="file1"/>"""), "'../secret', which is not in it");
        await RefuseDescriptionAsync(Description("""<File ovf:id="file1" ovf:href="https://example.org/disk.vmdk"/>|<Disk ovf:fileRef="file1"/>"""), "nothing is fetched");
        await RefuseDescriptionAsync(Description("""<File ovf:id="file1" ovf:href="gone.vmdk"/>|<Disk ovf:fileRef="file1"/>"""), "'gone.vmdk' is not in it");
        await RefuseDescriptionAsync(Description("""<File ovf:id="file1" ovf:href="disk1.vmdk" ovf:compression="gzip"/>|<Disk ovf:fileRef="file1"/>"""), "compressed (gzip)");
        await RefuseDescriptionAsync(Description("""<File ovf:id="file1" ovf:href="disk1.vmdk" ovf:chunkSize="100"/>|<Disk ovf:fileRef="file1"/>"""), "cut into parts");
        await RefuseDescriptionAsync(Description("""<File ovf:id="file1" ovf:href="disk1.vmdk"/>|<Disk ovf:fileRef="file1" ovf:parentRef="d0"/>"""), "changes to another one");
        await RefuseDescriptionAsync(Description("""<File ovf:id="file1" ovf:href="disk1.vmdk"/>|<Disk ovf:fileRef="file9"/>"""), "a disk without a file");
        await RefuseDescriptionAsync(Description("""<File ovf:id="file1" ovf:href="machine.ovf"/>|<Disk ovf:fileRef="file1"/>"""), "no known format");
    }

    [Fact]
    public async Task Names_links_and_sparse_files_in_an_ova_lead_nowhere()
    {
        await DiskOfApplianceAsync("streamOptimized");
        await DescribeAsync(OneDisk);
        await File.WriteAllTextAsync(folder["secret"], Canary, Token);
        File.CreateSymbolicLink(folder["link.vmdk"], folder["secret"]);
        Directory.CreateDirectory(folder["sub"]);
        await TarAsync("folder.ova", "machine.ovf", "disk1.vmdk", "--no-recursion", "sub");
        Directory.Delete(folder["sub"]);
        await RefusedAsync("folder.ova", "is no plain file name");
        await TarAsync("above.ova", "-P", "--transform=s,^secret,../secret,", "machine.ovf", "disk1.vmdk", "secret");
        await RefusedAsync("above.ova", "'../secret' in it is no plain file name");
        await TarAsync("absolute.ova", "-P", "machine.ovf", "disk1.vmdk", folder["secret"]);
        await RefusedAsync("absolute.ova", "is no plain file name");
        await TarAsync("link.ova", "machine.ovf", "--transform=s,^link,disk1,", "link.vmdk");
        await RefusedAsync("link.ova", "'disk1.vmdk' in it is no ordinary file");
        await TarAsync("sparse.ova", "--format=gnu", "--sparse", "machine.ovf", $"disk-{64 * MiB}.raw");
        await RefusedAsync("sparse.ova", "is no ordinary file");
        await TarAsync("sparse.ova", "--format=posix", "--sparse", "machine.ovf", $"disk-{64 * MiB}.raw");
        await RefusedAsync("sparse.ova", "no");
        await TarAsync("twice.ova", "machine.ovf", "disk1.vmdk", "disk1.vmdk", "--hard-dereference");
        await RefusedAsync("twice.ova", "'disk1.vmdk' twice");
        await TarAsync("long.ova", "--transform=s,^secret," + new string('n', 200) + ",", "machine.ovf", "disk1.vmdk", "secret");
        await RefusedAsync("long.ova", "is no plain file name");
        await TarAsync("no-machine.ova", "disk1.vmdk");
        await RefusedAsync("no-machine.ova", "without a description");
        await TarAsync("inner.tar", "machine.ovf", "disk1.vmdk");
        File.Move(folder["inner.tar"], folder["disk1.vmdk"], overwrite: true);
        await TarAsync("nested.ova", "machine.ovf", "disk1.vmdk");
        await RefusedAsync("nested.ova", "an archive in an archive");
    }

    [Fact]
    public async Task An_ova_with_sizes_that_lie_or_that_was_cut_off_or_damaged_is_refused()
    {
        await DiskOfApplianceAsync("streamOptimized");
        await DescribeAsync(OneDisk);
        await TarAsync("machine.ova", "--format=ustar", "machine.ovf", "disk1.vmdk");
        var whole = await File.ReadAllBytesAsync(folder["machine.ova"], Token);
        var secondAt = 512 + ((int)(new FileInfo(folder["machine.ovf"]).Length + 511) / 512 * 512);
        async Task RefuseSizeAsync(byte[] size, string why)
        {
            var changed = (byte[])whole.Clone();
            size.CopyTo(changed, secondAt + 124);
            await WriteAsync(changed, secondAt);
            await RefusedAsync("lie.ova", why);
        }

        await RefuseSizeAsync(Encoding.ASCII.GetBytes("77777777777\0"), "it was cut off");
        await RefuseSizeAsync([0x80, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "it was cut off");
        await RefuseSizeAsync([0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "a size that is no number");
        await RefuseSizeAsync(Encoding.ASCII.GetBytes("00000008ABC\0"), "a size that is no number");
        await RefuseSizeAsync(Encoding.ASCII.GetBytes("00000000777\0"), "damaged at byte");
        await File.WriteAllBytesAsync(folder["cut.ova"], whole[..(whole.Length - 20_000)], Token);
        await RefusedAsync("cut.ova", "it was cut off");
        await File.WriteAllBytesAsync(folder["cut.ova"], whole[..secondAt], Token);
        await RefusedAsync("cut.ova", "is not in it: it was cut off");

        var seed = int.TryParse(Environment.GetEnvironmentVariable("NACRE_SEED"), out var given) ? given : Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"NACRE_SEED={seed}");
        var random = new Random(seed);
        for (var round = 0; round < 40; round++)
        {
            var changed = (byte[])whole.Clone();
            changed[random.Next(512)] = (byte)random.Next(256);
            changed[random.Next(secondAt + 512)] = (byte)random.Next(256);
            changed[secondAt + random.Next(4096)] = (byte)random.Next(256);
            await WriteAsync(changed, round % 2 == 0 ? 0 : secondAt);
            if (await Record.ExceptionAsync(() => ImportAsync(folder["lie.ova"])) is { } exception)
            {
                Assert.Contains(Assert.IsType<NacreException>(exception).Kind, new[] { ErrorCatalogue.NotADisk, ErrorCatalogue.NoSpace });
            }
            else
            {
                Directory.Delete(folder["image"], recursive: true);
            }
        }

        async Task WriteAsync(byte[] archive, int headerAt)
        {
            Encoding.ASCII.GetBytes("        ").CopyTo(archive, headerAt + 148);
            Encoding.ASCII.GetBytes(Convert.ToString(archive.AsSpan(headerAt, 512).ToArray().Sum(value => value), 8).PadLeft(6, '0') + "\0 ").CopyTo(archive, headerAt + 148);
            await File.WriteAllBytesAsync(folder["lie.ova"], archive, Token);
        }
    }

    [Fact]
    public async Task An_import_of_an_ova_that_is_cancelled_while_it_is_verified_leaves_nothing()
    {
        await DiskOfApplianceAsync("streamOptimized");
        await DescribeAsync(OneDisk);
        await ManifestAsync("SHA256", "machine.ovf", "disk1.vmdk");
        await TarAsync("machine.ova", "machine.ovf", "machine.mf", "disk1.vmdk");
        using var cancelled = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => DiskImporter.ImportAsync(
            folder["machine.ova"], null, null, "desktop", folder["image"], (_, _) => cancelled.Cancel(), cancelled.Token));
        Assert.Empty(Directory.GetDirectories(folder.Path));
    }

    private Task<ImportedDisk> ImportMemberAsync(string file, string member) => DiskImporter.ImportAsync(folder[file], null, member, "desktop", folder["image"], null, Token);

    private async Task<string> DiskOfApplianceAsync(string subformat)
    {
        var disk = Disk(64 * MiB);
        await QemuAsync("convert", "-f", "raw", "-O", "vmdk", "-o", $"subformat={subformat}", disk, folder["disk1.vmdk"]);
        return disk;
    }

    private static string Description(string filesAndDisks)
    {
        var parts = filesAndDisks.Split('|');
        return $"""
            <?xml version="1.0"?>
            <Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
              <References>{parts[0]}</References>
              <DiskSection><Info>Disks</Info>{parts[1]}<Disk ovf:diskId="empty" ovf:capacity="1"/></DiskSection>
              <VirtualSystem ovf:id="machine"><Info>A machine</Info></VirtualSystem>
            </Envelope>
            """;
    }

    private Task DescribeAsync(string filesAndDisks) => File.WriteAllTextAsync(folder["machine.ovf"], Description(filesAndDisks), Token);

    private async Task RefuseDescriptionAsync(string text, string why)
    {
        await File.WriteAllTextAsync(folder["machine.ovf"], text, Token);
        await TarAsync("machine.ova", "machine.ovf", "disk1.vmdk");
        await RefusedAsync("machine.ova", why);
    }

    private async Task<string[]> ManifestAsync(string? algorithm, params string[] files)
    {
        if (algorithm is null)
        {
            return [];
        }

        var lines = "";
        foreach (var file in files)
        {
            lines += $"{algorithm}({file})= {Convert.ToHexStringLower(CryptographicOperations.HashData(new HashAlgorithmName(algorithm), await File.ReadAllBytesAsync(folder[file], Token)))}\n";
        }

        await File.WriteAllTextAsync(folder["machine.mf"], lines, Token);
        return ["machine.mf"];
    }

    private async Task TarAsync(string archive, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(Require.Tool("tar"), ["-C", folder.Path, "-cf", folder[archive], .. arguments]) { RedirectStandardError = true })!;
        var errors = await process.StandardError.ReadToEndAsync(Token);
        await process.WaitForExitAsync(Token);
        Assert.True(process.ExitCode == 0, errors);
    }
}
