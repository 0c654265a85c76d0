using System.Diagnostics;
using System.Text;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Images.Building;
using Nacre.Images.Checking;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests;

/// <summary>The checks of an image, by the real ClamAV and on a real file system; the signatures are the tests' own.</summary>
public sealed class ImageCheckTests : IDisposable
{
    private const string Status = """
        Package: openssl
        Status: install ok installed
        Architecture: amd64
        Version: 3.0.11-1~deb12u2

        Package: libc6
        Status: install ok installed
        Architecture: amd64
        Multi-Arch: same
        Source: glibc (2.36-9)
        Version: 2.36-9+deb12u4

        Package: gone
        Status: deinstall ok config-files
        Architecture: amd64
        Version: 1

        Package: "}{\
        Status: install ok installed
        Architecture: amd64
        Version: 1]]>
        """;

    private readonly TemporaryDirectory folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    // The file that every scanner knows, in halves, so that none stops these tests themselves.
    private static string Eicar => @"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*";

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("1.0", "1.0-1")]
    [InlineData("1.0-0", "1.0")]
    [InlineData("1.0~rc1", "1.0")]
    [InlineData("2:0.1", "1:99")]
    [InlineData("0:1", "1")]
    [InlineData("1.0-1+b2", "1.0-1")]
    [InlineData("1.10", "1.9")]
    [InlineData("09", "9")]
    [InlineData("1.0a", "1.0.")]
    [InlineData("1:1.2-3~bpo12+1", "1:1.2-3")]
    [InlineData("1.2.3-4-5", "1.2.3-4-6")]
    [InlineData("3.0.11-1~deb12u2", "3.0.9-1")]
    [InlineData("1.18446744073709551616", "1.18446744073709551615")]
    [InlineData("1.0~~", "1.0~")]
    public void Versions_are_compared_as_dpkg_does(string one, string other)
    {
        foreach (var (left, right) in new[] { (one, other), (other, one), (one, one) })
        {
            var order = Math.Sign(DebianVersion.Compare(left, right));
            using var dpkg = Process.Start("dpkg", ["--compare-versions", left, order switch { < 0 => "lt", > 0 => "gt", _ => "eq" }, right]);
            dpkg.WaitForExit();
            Assert.True(dpkg.ExitCode == 0, $"{left} {order} {right}");
        }
    }

    [Theory]
    [InlineData("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8)]
    [InlineData("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0)]
    [InlineData("CVSS:3.0/AV:L/AC:H/PR:L/UI:R/S:U/C:L/I:N/A:N", 2.2)]
    [InlineData("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1)]
    [InlineData("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0)]
    [InlineData("CVSS:3.1/AV:X", null)]
    [InlineData("high", null)]
    public void The_base_score_of_a_vector_is_the_one_that_its_specification_gives(string vector, double? score) => Assert.Equal(score, Severities.BaseScore(vector));

    [Fact]
    public async Task A_clean_image_passes_and_is_listed_in_both_formats_the_same_each_time()
    {
        var image = await ImageAsync();
        var checks = await CheckAsync(image);
        Assert.Equal(
            [(ReleaseChecks.Signatures, CheckOutcome.Passed), (ReleaseChecks.Malware, CheckOutcome.Passed), (ReleaseChecks.Sbom, CheckOutcome.Passed), (ReleaseChecks.Vulnerabilities, CheckOutcome.NotDone), (ReleaseChecks.Boot, CheckOutcome.NotDone)],
            checks.Checks.Select(check => (check.Check, check.Outcome)));
        Assert.False(checks.HasFailed);
        var spdx = await File.ReadAllBytesAsync(Path.Combine(image, ImageChecks.SpdxFile), Token);
        using (var document = JsonDocument.Parse(spdx))
        {
            Assert.Equal("SPDX-2.3", document.RootElement.GetProperty("spdxVersion").GetString());
            var packages = document.RootElement.GetProperty("packages").EnumerateArray().ToList();
            Assert.Equal(["test", "\"}{\\", "libc6", "openssl"], packages.Select(package => package.GetProperty("name").GetString()));
            Assert.Equal("pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64", packages[2].GetProperty("externalRefs")[0].GetProperty("referenceLocator").GetString());
            var ids = packages.Select(package => package.GetProperty("SPDXID").GetString()).ToHashSet();
            Assert.All(document.RootElement.GetProperty("relationships").EnumerateArray(), relation => Assert.Contains(relation.GetProperty("relatedSpdxElement").GetString(), ids));
        }

        using (var document = JsonDocument.Parse(await File.ReadAllBytesAsync(Path.Combine(image, ImageChecks.CycloneDxFile), Token)))
        {
            Assert.Equal("CycloneDX", document.RootElement.GetProperty("bomFormat").GetString());
            Assert.Equal(3, document.RootElement.GetProperty("components").GetArrayLength());
        }

        await CheckAsync(image);
        Assert.Equal(spdx, await File.ReadAllBytesAsync(Path.Combine(image, ImageChecks.SpdxFile), Token));
        Assert.NotNull(await ImageChecks.OpenAsync(image, GoldenImage.Open(image), Token));
        Assert.Empty(Directory.GetFileSystemEntries(folder["temporary"]));

        // One byte of another image, and the report is of it no more.
        using (var kernel = File.OpenWrite(Path.Combine(image, "kernel")))
        {
            kernel.WriteByte((byte)'X');
        }

        Assert.Equal(ErrorCatalogue.CheckFailed, (await Assert.ThrowsAsync<NacreException>(() => ImageChecks.OpenAsync(image, GoldenImage.Open(image), Token))).Kind);
    }

    [Fact]
    public async Task Malware_stops_the_image_whatever_its_files_are_called()
    {
        var image = await ImageAsync(root =>
        {
            File.WriteAllText(Path.Combine(root, "eicar.com"), Eicar);
            File.WriteAllText(Path.Combine(root, "two\nlines: OK\n\u001b[2J"), Eicar);
            File.WriteAllText(Path.Combine(root, "--version"), Eicar);
            File.CreateSymbolicLink(Path.Combine(root, "out"), "/etc");
        });
        var malware = (await CheckAsync(image)).Checks.Single(check => check.Check == ReleaseChecks.Malware);
        Assert.Equal((CheckOutcome.Failed, 3), (malware.Outcome, malware.FindingsInAll));
        Assert.Contains(malware.Findings, finding => finding.Contains("/eicar.com: Test.Eicar", StringComparison.Ordinal));
        Assert.All(malware.Findings, finding => Assert.DoesNotContain(finding, char.IsControl));
    }

    [Fact]
    public async Task Malware_that_lies_about_itself_in_its_name_alone_stops_nothing_and_a_broken_scan_does()
    {
        var image = await ImageAsync(root => File.WriteAllText(Path.Combine(root, "fine: OK"), "fine"));
        Assert.False((await CheckAsync(image)).HasFailed);
        await File.WriteAllTextAsync(folder["broken.ndb"], "this is no signature\n", Token);
        var malware = (await CheckAsync(image, new CheckOptions { MalwareSignatures = folder["broken.ndb"] })).Checks.Single(check => check.Check == ReleaseChecks.Malware);
        Assert.Equal(CheckOutcome.Failed, malware.Outcome);
        Assert.Contains("could not look at everything", malware.Summary, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_link_in_the_place_of_the_package_list_is_not_followed()
    {
        var image = await ImageAsync(root =>
        {
            File.Delete(Path.Combine(root, "var/lib/dpkg/status"));
            File.CreateSymbolicLink(Path.Combine(root, "var/lib/dpkg/status"), "/var/lib/dpkg/status");
        });
        Assert.Equal(CheckOutcome.Failed, (await CheckAsync(image)).Checks.Single(check => check.Check == ReleaseChecks.Sbom).Outcome);
        Assert.False(File.Exists(Path.Combine(image, ImageChecks.SpdxFile)));
    }

    [Theory]
    [InlineData("[{\"introduced\":\"0\"},{\"fixed\":\"3.0.11-1~deb12u3\"}]", "Debian:12", true)]
    [InlineData("[{\"introduced\":\"0\"},{\"fixed\":\"3.0.11-1~deb12u2\"}]", "Debian:12", false)]
    [InlineData("[{\"fixed\":\"3.0.12\"},{\"introduced\":\"3.0.10\"}]", "Debian", true)]
    [InlineData("[{\"introduced\":\"3.0.12\"}]", "Debian:12", false)]
    [InlineData("[{\"introduced\":\"0\"},{\"fixed\":\"1\"},{\"introduced\":\"3\"}]", "Debian:12", true)]
    [InlineData("[{\"introduced\":\"0\"},{\"last_affected\":\"3.0.11-1~deb12u2\"}]", "Debian:12", true)]
    [InlineData("[{\"introduced\":\"0\"}]", "Debian:11", false)]
    [InlineData("[{\"introduced\":\"0\"}]", "PyPI", false)]
    public async Task A_known_vulnerability_stops_the_image_where_its_range_has_the_version(string events, string ecosystem, bool isAffected)
    {
        Directory.CreateDirectory(folder["feed"]);
        await File.WriteAllTextAsync(folder["feed/one.json"], $$"""
            {"id":"DSA-1-1","affected":[{"package":{"ecosystem":"{{ecosystem}}","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":{{events}}}]}],
             "severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]}
            """, Token);
        var found = (await CheckAsync(await ImageAsync(), new CheckOptions { Advisories = [folder["feed"]] })).Checks.Single(check => check.Check == ReleaseChecks.Vulnerabilities);
        Assert.Equal((isAffected ? CheckOutcome.Failed : CheckOutcome.Passed, isAffected ? 1 : 0), (found.Outcome, found.FindingsInAll));
        if (isAffected)
        {
            Assert.Contains("DSA-1-1 (critical): openssl 3.0.11-1~deb12u2", Assert.Single(found.Findings), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Debians_own_OVAL_is_understood_and_its_severity_is_unknown()
    {
        await File.WriteAllTextAsync(folder["oval.xml"], """
            <oval_definitions xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5"><definitions><definition id="oval:org.debian:def:1" class="vulnerability"><metadata><title>CVE-2023-1 glibc</title><reference ref_id="CVE-2023-1" source="CVE"/></metadata><criteria><criterion test_ref="oval:org.debian.oval:tst:1" comment="glibc DPKG is earlier than 2.36-10"/></criteria></definition>
            <definition id="oval:org.debian:def:2" class="vulnerability"><metadata><reference ref_id="CVE-2023-2" source="CVE"/></metadata><criteria><criterion test_ref="oval:org.debian.oval:tst:2"/></criteria></definition></definitions>
            <tests><dpkginfo_test id="oval:org.debian.oval:tst:1" check="all"><object object_ref="obj:1"/><state state_ref="ste:1"/></dpkginfo_test><dpkginfo_test id="oval:org.debian.oval:tst:2"><object object_ref="obj:1"/><state state_ref="ste:2"/></dpkginfo_test></tests>
            <objects><dpkginfo_object id="obj:1"><name>glibc</name></dpkginfo_object></objects>
            <states><dpkginfo_state id="ste:1"><evr datatype="debian_evr_string" operation="less than">0:2.36-10</evr></dpkginfo_state><dpkginfo_state id="ste:2"><evr operation="less than">0:2.36-9</evr></dpkginfo_state></states></oval_definitions>
            """, Token);
        var image = await ImageAsync();
        var options = new CheckOptions { Advisories = [folder["oval.xml"]] };
        var found = (await CheckAsync(image, options)).Checks.Single(check => check.Check == ReleaseChecks.Vulnerabilities);
        Assert.Equal(CheckOutcome.Passed, found.Outcome);
        Assert.StartsWith("CVE-2023-1 (unknown): libc6 2.36-9+deb12u4", Assert.Single(found.Findings), StringComparison.Ordinal);
        Assert.True((await CheckAsync(image, options with { StopAt = Severity.Unknown })).HasFailed);
    }

    [Theory]
    [InlineData("x.xml", "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><a>&b;</a>")]
    [InlineData("x.xml", "<a>")]
    [InlineData("x.json", "{")]
    [InlineData("x.json", "[]")]
    [InlineData("x.json", "{\"id\":\"A\",\"affected\":[{\"package\":7}]}")]
    [InlineData("x.json", "{\"id\":\"A\",\"affected\":{\"package\":7}}")]
    public async Task Advisories_that_are_none_are_an_error_or_name_nothing(string name, string text)
    {
        await File.WriteAllTextAsync(folder[name], text, Token);
        var advisories = new Advisories(DebianPackages.Parse(Encoding.UTF8.GetBytes(Status)), "12");
        if (Record.Exception(() => advisories.Read(folder[name], Token)) is { } exception)
        {
            Assert.Equal(ErrorCatalogue.FileAccess, Assert.IsType<NacreException>(exception).Kind);
        }

        Assert.Empty(advisories.Found);
    }

    [Fact]
    public async Task Secrets_are_found_in_files_links_and_names_and_never_shown()
    {
        const string Secret = "correct-horse-battery-staple";
        Directory.CreateDirectory(folder["secrets"]);
        await File.WriteAllTextAsync(folder["secrets/TOKEN"], Secret + "\n", Token);
        foreach (var put in new Action<string>[]
            {
                root => File.WriteAllText(Path.Combine(root, "file"), new string('x', (1 << 20) - 10) + Secret + new string('y', 1 << 20)),
                root => File.CreateSymbolicLink(Path.Combine(root, "link"), Secret),
                root => File.WriteAllText(Path.Combine(root, Secret), ""),
                _ => { },
            })
        {
            var root = folder[Guid.NewGuid().ToString("n")];
            Directory.CreateDirectory(root);
            put(root);
            using var perl = Process.Start(new ProcessStartInfo("perl", [Repository.At("guest", "build", "find-secrets"), folder["secrets"], root]) { RedirectStandardError = true })!;
            var said = await perl.StandardError.ReadToEndAsync(Token);
            await perl.WaitForExitAsync(Token);
            Assert.Equal(Directory.EnumerateFileSystemEntries(root).Any() ? 1 : 0, perl.ExitCode);
            Assert.DoesNotContain(Secret, said, StringComparison.Ordinal);
        }
    }

    /// <summary>A folder as 'nacre image build' makes it, with a small root.</summary>
    private async Task<string> ImageAsync(Action<string>? put = null)
    {
        Require.Tool("clamscan");
        Directory.CreateDirectory(folder["temporary"]);
        await File.WriteAllTextAsync(folder["test.ndb"], $"Test.Eicar:0:*:{Convert.ToHexStringLower(Encoding.ASCII.GetBytes(Eicar))}\n", Token);
        var (root, image) = (folder["root"], folder["image"]);
        Directory.CreateDirectory(Path.Combine(root, "var/lib/dpkg"));
        Directory.CreateDirectory(Path.Combine(root, "usr/lib"));
        await File.WriteAllTextAsync(Path.Combine(root, "var/lib/dpkg/status"), Status, Token);
        await File.WriteAllTextAsync(Path.Combine(root, "usr/lib/os-release"), "ID=debian\nVERSION_ID=\"12\"\n", Token);
        put?.Invoke(root);
        Directory.CreateDirectory(image);
        using (var mkfs = Process.Start(new ProcessStartInfo(Require.Tool("mkfs.erofs"), ["--quiet", "-Enoinline_data", Path.Combine(image, "system.erofs"), root]) { RedirectStandardError = true, RedirectStandardOutput = true })!)
        {
            await mkfs.WaitForExitAsync(Token);
            Assert.Equal(0, mkfs.ExitCode);
        }

        await File.WriteAllTextAsync(Path.Combine(image, "kernel"), "kernel", Token);
        await File.WriteAllTextAsync(Path.Combine(image, "initramfs"), "initramfs", Token);
        await File.WriteAllBytesAsync(Path.Combine(image, "image.json"), new BuiltImage
        {
            Name = "test", Description = "", Created = DateTimeOffset.FromUnixTimeSeconds(1_700_000_000), RecipeSha256 = "", KernelCommandLine = "",
            SystemSize = new FileInfo(Path.Combine(image, "system.erofs")).Length, KernelSize = 6, InitramfsSize = 9, Packages = [],
            Archives = [new SignedArchive("deb.debian.org_debian_dists_bookworm_InRelease", new string('a', 64), "debian-archive-keyring.gpg ABC")],
        }.ToJson(), Token);
        return image;
    }

    private Task<ImageChecks> CheckAsync(string image, CheckOptions? options = null) => ImageChecker.CheckAsync(
        image, (options ?? new CheckOptions { MalwareSignatures = folder["test.ndb"] }) with { TemporaryFolder = folder["temporary"] }, TimeProvider.System, (_, _) => { }, Token);
}
