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
    private static readonly string[] Redis = ["redis-server:amd64", "redis-tools:amd64", "liblzf1:amd64", "libjemalloc2:amd64", "libatomic1:amd64"];

    /// <summary>Waits until the caches that a new release makes stale are made anew: until then dpkg says that triggers are pending, which is true.</summary>
    private const string RefreshedAudit = "while [ \"$(systemctl show -P SubState nacre-applications-refresh)\" = start ] || systemctl list-jobs --no-legend nacre-applications-refresh.service | grep -q .; do sleep 2; done; dpkg --audit; apt-get -qq check 2>&1";

    [Fact]
    public async Task A_daemon_that_the_user_installed_goes_on_with_its_data_under_the_next_release()
    {
        Require.Tool("dpkg-deb");
        await using var organisation = await Organisation.CreateAsync();
        var device = organisation.Device;
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.Administrator.RunAsync("policy", "set", "organisation", "telemetry.level=usage"); // names of what the user installed, too
        await organisation.EnrolAsync();
        await device.RunAsync("livepc", "start", "office", "--memory", "1024");

        // The guest has no network: what apt would download comes through the agent. The second release has 'tree', which one package is against.
        await DownloadAsync(organisation["debs"], Redis);
        await PackAsync(organisation["debs"], "against-tree", "Conflicts: tree\n");
        await SendAsync(organisation, organisation["debs"]);
        var installed = await device.RunAsync("livepc", "exec", "office", "--", "/bin/sh", "-c", "cd /tmp/debs && DEBIAN_FRONTEND=noninteractive dpkg -i *.deb >/tmp/dpkg.log 2>&1; tail -n 20 /tmp/dpkg.log; for i in $(seq 60); do systemctl is-active --quiet redis-server && break; sleep 2; done; systemctl is-active redis-server");
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

    /// <summary>All that a user brings: packages of Debian and of his own, what make and pip install, a flatpak, a certificate, an account, edited files, a unit, documents.</summary>
    private const string Bring = """
        set -e
        exec 2>&1
        cd /tmp/debs
        DEBIAN_FRONTEND=noninteractive dpkg -i *.deb >/tmp/dpkg.log || { cat /tmp/dpkg.log; exit 1; }
        mkdir /tmp/made; cd /tmp/made
        printf '#!/bin/sh\necho "made here"\n' >made
        printf 'install:\n\tinstall -D -m 755 made $(DESTDIR)/usr/local/bin/made\n' >Makefile
        make -s install
        python3 - <<'end'
        import zipfile
        with zipfile.ZipFile('/tmp/own_wheel-1.0-py3-none-any.whl', 'w') as wheel:
            wheel.writestr('own_wheel.py', 'def main(): print("from a wheel")\n')
            about = 'own_wheel-1.0.dist-info/'
            wheel.writestr(about + 'METADATA', 'Metadata-Version: 2.1\nName: own-wheel\nVersion: 1.0\n')
            wheel.writestr(about + 'WHEEL', 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
            wheel.writestr(about + 'entry_points.txt', '[console_scripts]\nown-wheel = own_wheel:main\n')
            wheel.writestr(about + 'RECORD', '')
        end
        chmod 644 /tmp/*.whl
        pip install -q --root-user-action=ignore --break-system-packages --no-index /tmp/*.whl
        su - user -c 'pip install -q --user --ignore-installed --break-system-packages --no-index --no-warn-script-location /tmp/*.whl'
        mkdir -p /tmp/flat/runtime/files/bin /tmp/flat/runtime/files/lib/x86_64-linux-gnu /tmp/flat/runtime/files/lib64 /tmp/flat/app/files/bin /tmp/flat/app/export
        cd /tmp/flat
        cp /bin/dash runtime/files/bin/sh
        cp -L /lib/x86_64-linux-gnu/libc.so.6 runtime/files/lib/x86_64-linux-gnu/
        cp -L /lib64/ld-linux-x86-64.so.2 runtime/files/lib64/
        printf '[Runtime]\nname=org.example.Platform\nruntime=org.example.Platform/x86_64/1\nsdk=org.example.Platform/x86_64/1\n' >runtime/metadata
        printf '[Application]\nname=org.example.Hello\nruntime=org.example.Platform/x86_64/1\nsdk=org.example.Platform/x86_64/1\ncommand=hello\n' >app/metadata
        printf '#!/usr/bin/sh\necho "from a flatpak"\n' >app/files/bin/hello
        chmod 755 app/files/bin/hello
        flatpak build-export --disable-fsync --runtime --files=files repository runtime 1 >/dev/null
        flatpak build-export --disable-fsync repository app 1 >/dev/null
        flatpak remote-add --system --no-gpg-verify own /tmp/flat/repository
        flatpak install --system --noninteractive own org.example.Hello//1 >/dev/null
        mkdir -p /usr/local/share/ca-certificates
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=mine -days 3650 -out /usr/local/share/ca-certificates/mine.crt 2>/dev/null
        update-ca-certificates >/dev/null
        cp /usr/local/share/ca-certificates/mine.crt /home/user/
        useradd -m -s /bin/sh friend
        su friend -c 'echo "a friend" >/home/friend/name'
        echo mine >/etc/issue
        echo '# mine' >>/etc/bash.bashrc
        printf '[Service]\nExecStart=/bin/sh -c "made >/run/mine; exec sleep infinity"\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/mine.service
        systemctl enable --now mine
        mkdir /home/user/Documents
        echo data >/home/user/Documents/note
        chown -R user: /home/user
        redis-cli save
        sync
        """;

    /// <summary>Uses all of it.</summary>
    private const string Use = RefreshedAudit + """

        dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' fonts-inconsolata own-package redis-server
        made
        su - friend -c 'cat name; id -un'
        stat -c %U /home/friend/name
        own-package
        fc-list | grep -c Inconsolata
        grep own-package /usr/share/mime/globs2
        grep own-package /usr/share/applications/mimeinfo.cache
        grep -a -o own-package /usr/share/icons/hicolor/icon-theme.cache
        flatpak run --system org.example.Hello 2>&1
        openssl verify -CAfile /etc/ssl/certs/ca-certificates.crt /home/user/mine.crt
        cat /etc/issue /home/user/Documents/note
        tail -n 1 /etc/bash.bashrc
        systemctl is-active rsyslog
        for i in $(seq 100); do systemctl is-active --quiet mine && break; sleep 2; done
        cat /run/mine
        """;

    private const string Used = """
        ii fonts-inconsolata
        ii own-package
        ii redis-server
        made here
        a friend
        friend
        friend
        own-package here
        1
        50:application/x-own-package:*.own
        application/x-own-package=own-package.desktop;
        own-package
        from a flatpak
        /home/user/mine.crt: OK
        mine
        data
        # mine
        active
        made here

        """;

    /// <summary>What is said to the user reaches the desktop's notifications, through the session's bus.</summary>
    private const string Notice = """
        loginctl enable-linger user
        for i in $(seq 60); do test -S /run/user/1000/bus && break; sleep 1; done
        timeout 60 runuser -u user -- dbus-monitor --address unix:path=/run/user/1000/bus "member='Notify'" >/tmp/notices 2>&1 &
        sleep 5
        echo 'it was <gone> & is back' >/run/nacre/notes
        /usr/lib/nacre/applications refresh 2>/dev/null
        rm /run/nacre/notes
        for i in $(seq 30); do grep 'It was' /tmp/notices && break; sleep 1; done
        """;

    private const string UseWheels = "own-wheel; su - user -c .local/bin/own-wheel";

    [Fact]
    [Trait("lane", "long")]
    public async Task All_that_a_user_brings_stays_usable_under_many_updates_and_application_layers_that_come_and_go()
    {
        await using var organisation = await Organisation.CreateAsync();
        var (administrator, device) = (organisation.Administrator, organisation.Device);
        await BringAsync(organisation);
        var before = await PackagesAsync(organisation);

        // Debian's own updates of many packages, the kernel's among them.
        await administrator.RunAsync("image", "publish", await GoldenImages.EverydayAsync(2), "--channel", "stable");
        await device.RunAsync("livepc", "update", "office");
        await RestartAsync(organisation, "2", "Everyday, second release");
        var updated = (await PackagesAsync(organisation)).Count(package => before.TryGetValue(package.Key, out var version) && version != package.Value);
        TestContext.Current.SendDiagnosticMessage($"figure: an update of {updated} of {before.Count} packages under a user's");
        Assert.True(updated >= 30, $"{updated} packages were updated");

        // An application layer comes, is upgraded, and goes.
        await PublishAsync("tools-1");
        await administrator.RunAsync("livepc", "layers", "office", "tools");
        await device.RunAsync("livepc", "update", "office");
        await RestartAsync(organisation, "3", "Tools");
        Assert.Equal("tools 1 active", (await organisation.InGuestAsync("echo $(cat /etc/tools-release; systemctl is-active nginx)")).TrimEnd());
        await PublishAsync("tools-2");
        await device.RunAsync("livepc", "update", "office");
        await RestartAsync(organisation, "4", "Everyday, second release");
        Assert.Equal("tools 2 gone", (await organisation.InGuestAsync("echo $(cat /etc/tools-release; command -v nginx || echo gone)")).TrimEnd());
        await administrator.RunAsync("livepc", "layers", "office", "--none");
        await RestartAsync(organisation, "5", "Everyday, second release");
        Assert.Equal("gone", (await organisation.InGuestAsync("cat /etc/tools-release 2>/dev/null || echo gone")).TrimEnd());

        async Task PublishAsync(string recipe) =>
            await administrator.RunAsync("image", "publish", await GoldenImages.ApplicationAsync(recipe, await GoldenImages.EverydayAsync(2), "everyday"), "--channel", "stable");
    }

    [Fact]
    [Trait("lane", "long")]
    public async Task All_that_a_user_brings_stays_usable_under_the_next_Debian_and_on_the_way_back()
    {
        await using var organisation = await Organisation.CreateAsync();
        await BringAsync(organisation);
        await organisation.Administrator.RunAsync("image", "publish", await GoldenImages.EverydayAsync(3), "--channel", "stable");
        await organisation.Device.RunAsync("livepc", "update", "office");

        // What pip installed is for one version of Python, there as everywhere.
        await RestartAsync(organisation, "2", "Everyday, third release", hasWheels: false);
        Assert.StartsWith("13", await organisation.InGuestAsync("cat /etc/debian_version"), StringComparison.Ordinal);
        Assert.Equal("beside", (await organisation.InGuestAsync("test -s /etc/bash.bashrc.dpkg-dist && echo beside")).TrimEnd());
        await organisation.Administrator.RunAsync("image", "channel", "everyday", "stable", "1");
        await RestartAsync(organisation, "3", "Everyday, first release");
        Assert.StartsWith("12", await organisation.InGuestAsync("cat /etc/debian_version"), StringComparison.Ordinal);
    }

    /// <summary>Starts the first release, and has the user bring all of it.</summary>
    private static async Task BringAsync(Organisation organisation)
    {
        Require.Tool("dpkg-deb");
        await organisation.OfferAsync(await GoldenImages.EverydayAsync(1), "everyday");
        await organisation.EnrolAsync();
        await organisation.Device.RunAsync("livepc", "start", "office", "--memory", "1024");
        await DownloadAsync(organisation["debs"], [.. Redis, "fonts-inconsolata"]);
        await PackAsync(
            organisation["debs"], "own-package", "",
            ("usr/bin/own-package", "#!/bin/sh\necho own-package here\n"),
            ("usr/share/applications/own-package.desktop", "[Desktop Entry]\nType=Application\nName=Own\nExec=own-package\nIcon=own-package\nMimeType=application/x-own-package;\n"),
            ("usr/share/icons/hicolor/scalable/apps/own-package.svg", "<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>\n"),
            ("usr/share/mime/packages/own-package.xml", "<mime-info xmlns='http://www.freedesktop.org/standards/shared-mime-info'><mime-type type='application/x-own-package'><glob pattern='*.own'/></mime-type></mime-info>\n"));
        await SendAsync(organisation, organisation["debs"]);
        await organisation.InGuestAsync(Bring);
        Assert.Contains("It was &lt;gone&gt; &amp; is back", await organisation.InGuestAsync(Notice), StringComparison.Ordinal);
        await RequireAllAsync(organisation, "1", hasWheels: true);
    }

    /// <summary>Starts what is next, and uses all that the user brought.</summary>
    private static async Task RestartAsync(Organisation organisation, string count, string issue, bool hasWheels = true)
    {
        await organisation.Device.RunAsync("livepc", "stop", "office");
        var started = await organisation.Device.RunAsync("livepc", "start", "office", "--memory", "1024", "--json");
        Assert.Equal(JsonValueKind.Null, JsonDocument.Parse(started.Output).RootElement.GetProperty("setAside").ValueKind);
        await RequireAllAsync(organisation, count, hasWheels);
        Assert.Equal(issue, (await organisation.InGuestAsync("cat /etc/issue.dpkg-dist")).TrimEnd());
    }

    private static async Task RequireAllAsync(Organisation organisation, string count, bool hasWheels)
    {
        var found = await organisation.InGuestAsync(Use);
        Assert.True(found == Used, found);
        Assert.Equal(count, await CountAsync(organisation));
        Assert.Equal(hasWheels ? "from a wheel\nfrom a wheel\n" : "", await organisation.InGuestAsync(hasWheels ? UseWheels : "true"));
    }

    private static async Task<Dictionary<string, string>> PackagesAsync(Organisation organisation) =>
        (await organisation.InGuestAsync("dpkg-query -W -f '${Package}:${Architecture} ${Version}\n'")).Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => line.Split(' ')).ToDictionary(words => words[0], words => words[1]);

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

    /// <summary>Downloads packages of this computer's Debian into a folder.</summary>
    private static async Task<string> DownloadAsync(string folder, params string[] packages)
    {
        Directory.CreateDirectory(folder);
        await RunAsync(folder, "apt-get", ["-q", "-o", "APT::Sandbox::User=root", "download", .. packages]);
        return folder;
    }

    /// <summary>Makes a package in a folder.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="name">Its name.</param>
    /// <param name="fields">More fields of its control file, each with a line end.</param>
    /// <param name="files">Its files.</param>
    private static async Task PackAsync(string folder, string name, string fields, params (string Path, string Content)[] files)
    {
        foreach (var (path, content) in files.Append(("DEBIAN/control", $"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: Test <test@example.com>\n{fields}Description: made for a test\n")))
        {
            var file = Path.Combine(folder, name, path);
            Directory.CreateDirectory(Path.GetDirectoryName(file)!);
            await File.WriteAllTextAsync(file, content, TestContext.Current.CancellationToken);
            File.SetUnixFileMode(file, (UnixFileMode)Convert.ToInt32(path.StartsWith("usr/bin/", StringComparison.Ordinal) ? "755" : "644", 8));
        }

        await RunAsync(folder, "dpkg-deb", ["--root-owner-group", "--build", name, $"{name}_1_all.deb"]);
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
