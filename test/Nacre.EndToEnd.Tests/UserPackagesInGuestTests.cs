using System.Diagnostics;
using System.Formats.Tar;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>What the user installs in a real guest, under a release that changes. The merging in its breadth is in Nacre.Images.Tests.</summary>
public sealed class UserPackagesInGuestTests
{
    private static readonly string[] Packages = ["redis-server", "redis-tools", "liblzf1", "libjemalloc2", "libatomic1"];

    /// <summary>Waits until the caches that a new release makes stale are made anew: until then dpkg says that triggers are pending, which is true.</summary>
    private const string RefreshedAudit = "while [ \"$(systemctl show -P SubState nacre-applications-refresh)\" = start ] || systemctl list-jobs --no-legend nacre-applications-refresh.service | grep -q .; do sleep 2; done; dpkg --audit; apt-get -qq check 2>&1";

    [Fact]
    public async Task A_daemon_that_the_user_installed_goes_on_with_its_data_under_the_next_release()
    {
        Require.Tool("dpkg-deb");
        await using var organisation = await Organisation.CreateAsync();
        var device = organisation.Device;
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        await device.RunAsync("livepc", "start", "office", "--memory", "1024");

        // The guest has no network: what apt would download comes through the agent. The second release has 'tree', which one package is against.
        await SendAsync(organisation, await DownloadAsync(organisation["debs"]));
        var installed = await device.RunAsync("livepc", "exec", "office", "--", "/bin/sh", "-c", "cd /tmp/debs && DEBIAN_FRONTEND=noninteractive dpkg -i *.deb >/tmp/dpkg.log 2>&1; tail -n 20 /tmp/dpkg.log; systemctl is-active redis-server");
        Assert.EndsWith("active", installed.Line, StringComparison.Ordinal);
        Assert.Equal("1", (await organisation.InGuestAsync("redis-cli incr canary")).TrimEnd());
        Assert.Contains(" /var/lib/redis ", await organisation.InGuestAsync("grep ' /var/lib/redis ' /proc/mounts"), StringComparison.Ordinal);
        await organisation.InGuestAsync("redis-cli save; sync");

        await organisation.Administrator.RunAsync("image", "publish", await GoldenImages.MinimalAsync(2), "--channel", "stable");
        var refused = await device.FailAsync(ErrorCatalogue.UserPackagesInTheWay, "livepc", "update", "office");
        Assert.Contains("against-tree 1: conflicts tree, and there is tree", refused.Error, StringComparison.Ordinal);
        await device.FailAsync(ErrorCatalogue.UserPackagesInTheWay, "livepc", "update", "office");
        var reports = (await organisation.Administrator.RunAsync("livepc", "reports", "office")).Output;
        Assert.Equal(1, reports.Split("against-tree 1: conflicts tree").Length - 1);
        Assert.Matches(@"office +debian-minimal +stable +1 +2 +running", (await device.RunAsync("livepc", "list")).Output);
        var updated = await device.RunAsync("livepc", "update", "office", "--user-packages", "remove", "--json");
        var finding = JsonDocument.Parse(updated.Output).RootElement.GetProperty("userPackages");
        Assert.Equal(["against-tree"], finding.GetProperty("conflicts").EnumerateArray().Select(item => item.GetProperty("package").GetString()));
        Assert.Contains("redis-server", finding.GetProperty("carried").EnumerateArray().Select(item => item.GetProperty("package").GetString()));

        // No clean end: the database's data was flushed, and that is all it takes.
        await organisation.KillPlayerAsync();
        await organisation.KillMachineAsync();
        var started = await device.RunAsync("livepc", "start", "office", "--memory", "1024", "--json");
        Assert.Equal(2, JsonDocument.Parse(started.Output).RootElement.GetProperty("version").GetInt32());
        Assert.Equal("", await organisation.InGuestAsync(RefreshedAudit));
        Assert.Equal("2", await CountAsync(organisation));
        Assert.Equal("ii redis-server|ii tree|", await organisation.InGuestAsync("dpkg-query -W -f '${db:Status-Abbrev}${Package}|' redis-server tree 2>/dev/null; dpkg-query -W against-tree 2>/dev/null || true"));
        Assert.Equal("redis redis", (await organisation.InGuestAsync("stat -c '%U %G' /var/lib/redis")).TrimEnd());
        Assert.Equal("against-tree 1 was taken out: it conflicts tree, and there is tree", (await organisation.InGuestAsync("cut -d' ' -f1-12 /var/lib/nacre/applications/notes")).TrimEnd());
    }

    [Fact]
    [Trait("lane", "long")]
    public async Task Applications_settings_units_and_data_stay_under_the_next_Debian_and_on_the_way_back()
    {
        await using var organisation = await Organisation.CreateAsync();
        var device = organisation.Device;
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        await device.RunAsync("livepc", "start", "office", "--memory", "1024");
        await SendAsync(organisation, await DownloadAsync(organisation["debs"]));
        await organisation.InGuestAsync("cd /tmp/debs && DEBIAN_FRONTEND=noninteractive dpkg -i *.deb >/tmp/dpkg.log 2>&1");
        Assert.Equal("1", await CountAsync(organisation));
        await organisation.InGuestAsync("redis-cli save");
        await organisation.InGuestAsync("echo mine >/etc/issue; echo data >/home/user/note; printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' >/etc/systemd/system/mine.service; systemctl enable mine; sync");

        await organisation.Administrator.RunAsync("image", "publish", await GoldenImages.MinimalAsync(3), "--channel", "stable");
        await device.RunAsync("livepc", "update", "office");
        await device.RunAsync("livepc", "stop", "office");
        await device.RunAsync("livepc", "start", "office", "--memory", "1024");
        Assert.StartsWith("13", await organisation.InGuestAsync("cat /etc/debian_version"), StringComparison.Ordinal);
        await AssertAllIsThereAsync(organisation, "2");
        Assert.Equal("Debian 13, third release\n", await organisation.InGuestAsync("cat /etc/issue.dpkg-dist"));

        await organisation.Administrator.RunAsync("image", "channel", "debian-minimal", "stable", "1");
        await device.RunAsync("livepc", "stop", "office");
        await device.RunAsync("livepc", "start", "office", "--memory", "1024");
        Assert.StartsWith("12", await organisation.InGuestAsync("cat /etc/debian_version"), StringComparison.Ordinal);
        await AssertAllIsThereAsync(organisation, "3");
    }

    private static async Task AssertAllIsThereAsync(Organisation organisation, string count)
    {
        Assert.Equal(count, await CountAsync(organisation));
        Assert.Equal("", await organisation.InGuestAsync(RefreshedAudit));
        Assert.Equal("mine data", (await organisation.InGuestAsync("echo $(cat /etc/issue /home/user/note)")).TrimEnd());
        Assert.Equal("active", (await organisation.InGuestAsync("for i in $(seq 100); do systemctl is-active --quiet mine && break; sleep 2; done; systemctl is-active mine")).TrimEnd());
    }

    private static async Task<string> CountAsync(Organisation organisation)
    {
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(1000, TestContext.Current.CancellationToken))
        {
            var result = await organisation.Device.TryAsync(null, "livepc", "exec", "office", "--", "/bin/sh", "-c", "systemctl is-active redis-server && redis-cli incr canary");
            if (result.ExitCode == 0)
            {
                return result.Line.Split('\n')[^1];
            }

            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(4), result.Output + await organisation.InGuestAsync("systemctl status redis-server; journalctl -n 30 -u redis-server -u nacre-applications"));
        }
    }

    private static async Task<string> DownloadAsync(string folder)
    {
        Directory.CreateDirectory(folder);
        await RunAsync(folder, "apt-get", ["-q", "-o", "APT::Sandbox::User=root", "download", .. Packages.Select(package => package + ":amd64")]);
        Directory.CreateDirectory(Path.Combine(folder, "root", "DEBIAN"));
        await File.WriteAllTextAsync(
            Path.Combine(folder, "root", "DEBIAN", "control"),
            "Package: against-tree\nVersion: 1\nArchitecture: all\nMaintainer: Test <test@example.com>\nConflicts: tree\nDescription: made for a test\n", TestContext.Current.CancellationToken);
        await RunAsync(folder, "dpkg-deb", ["--root-owner-group", "--build", "root", "against-tree_1_all.deb"]);
        return folder;
    }

    private static async Task SendAsync(Organisation organisation, string folder)
    {
        using var buffer = new MemoryStream();
        await using (var archive = new TarWriter(buffer, leaveOpen: true))
        {
            foreach (var file in Directory.GetFiles(folder, "*.deb"))
            {
                await archive.WriteEntryAsync(file, Path.GetFileName(file), TestContext.Current.CancellationToken);
            }
        }

        using var process = organisation.Device.Start("livepc", "exec", "office", "--", "/bin/sh", "-c", "mkdir -p /tmp/debs && tar -C /tmp/debs -xf -");
        buffer.Position = 0;
        await buffer.CopyToAsync(process.StandardInput.BaseStream, TestContext.Current.CancellationToken);
        process.StandardInput.Close();
        var error = await process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.True(process.ExitCode == 0, error);
    }

    private static async Task RunAsync(string folder, string program, string[] words)
    {
        using var process = Process.Start(new ProcessStartInfo(program, words) { WorkingDirectory = folder, RedirectStandardOutput = true, RedirectStandardError = true })!;
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var error = await process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.True(process.ExitCode == 0, await output + error);
    }
}
