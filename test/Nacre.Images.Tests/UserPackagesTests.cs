using System.Diagnostics;
using System.Text.Json;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests;

/// <summary>
/// What the user installs, under corporate layers that change: the guest's own programs in roots of real Debian packages, with the layers
/// stacked as in a start (testdata/applications/session).
/// </summary>
public sealed class UserPackagesTests(UserPackagesFixture debian) : IClassFixture<UserPackagesFixture>
{
    private const string Sound = "dpkg --audit >&2; test -z \"$(dpkg --audit)\"; apt-get -qq check; ";

    [Fact]
    public async Task Real_packages_with_accounts_units_libraries_and_data_work_under_the_next_release()
    {
        using var device = debian.NewDevice();

        // The company's next release has a daemon whose account has the number that redis got.
        var second = await debian.ReleaseAsync(
            "second",
            Package("corporate-daemon", "1", script: "groupadd -r -g 900 corporate-daemon; useradd -r -u 900 -g 900 corporate-daemon"));
        await device.RunAsync(debian.First,
            "apt-get -y -q install cowsay redis-server tmux vim-tiny >/dev/null 2>&1; id -u redis | grep -x 900; apt-mark showauto | grep -x liblzf1;"
            + "mkdir -p /usr/local/lib/made; echo made > /usr/local/bin/made; " + RedisCounts(1));
        const string Works = Sound
            + "dpkg-query -W -f '${Package} ${db:Status-Abbrev}\\n' cowsay redis-server tmux vim-tiny | grep -c '^.* ii ' | grep -x 4;"
            + "/usr/games/cowsay kept >/dev/null; tmux -V >/dev/null; apt-mark showauto | grep -x liblzf1; apt-mark showmanual | grep -x redis-server;"
            + "test -L /etc/systemd/system/multi-user.target.wants/redis-server.service; ldconfig -p | grep -q liblzf;"
            + "test \"$(stat -c %U /etc/redis/redis.conf /var/lib/redis /var/log/redis | sort -u)\" = redis; readlink -f /usr/bin/vi | grep -x /usr/bin/vim.tiny;"
            + "test -s /usr/local/bin/made; dpkg --verify redis-server tmux cowsay | grep -vE '/share/(doc|man)' | grep . && exit 9;";
        await device.RunAsync(debian.First, Works + "id -u redis | grep -x 900;" + RedisCounts(2));
        await device.RunAsync(second, Works + "id -u redis | grep -vx 900; id -u corporate-daemon | grep -x 900; dpkg -l corporate-daemon | grep -q ^ii;" + RedisCounts(3));
        await device.RunAsync(second, Works + "apt-get -s install sl | grep -q '^Inst sl'; apt-get -y -q purge redis-server >/dev/null 2>&1; test -e /var/lib/redis/dump.rdb");
        await device.RunAsync(second, Sound + "dpkg -l redis-server | grep -q ^ii && exit 9; test ! -e /usr/bin/redis-server; test -e /var/lib/redis/dump.rdb; tmux -V");
        await device.RunAsync(debian.First, Sound + "dpkg -l corporate-daemon 2>/dev/null | grep ^ii && exit 9; tmux -V");
    }

    [Fact]
    public async Task What_packages_share_in_one_file_is_merged()
    {
        using var device = debian.NewDevice();
        var mine = debian.Build(Package("mine", "1", conffile: "mine=1\n", files: "/usr/bin/editor-mine /usr/share/mine/data",
            script: "update-alternatives --install /usr/bin/choice choice /usr/bin/editor-mine 50;"
                + "dpkg-divert --package mine --rename --divert /usr/bin/corporate.company /usr/bin/corporate; ln -sf editor-mine /usr/bin/corporate;"
                + "dpkg-statoverride --force-statoverride-add --update --add root mail 2750 /usr/share/mine/data; mkdir -p /var/lib/mine; echo made > /var/lib/mine/made; echo generated > /usr/share/mine/generated",
            triggers: "interest-noawait /usr/share/watched-by-mine"));
        var first = await debian.ReleaseAsync("shared-1", Package("corporate", "1", files: "/usr/bin/corporate /usr/bin/editor-corporate", script: "update-alternatives --install /usr/bin/choice choice /usr/bin/editor-corporate 20"));
        var second = await debian.ReleaseAsync(
            "shared-2",
            Package("corporate", "2", files: "/usr/bin/corporate /usr/bin/editor-corporate", content: "second", script: "update-alternatives --install /usr/bin/choice choice /usr/bin/editor-corporate 90"),
            Package("another", "1", files: "/usr/bin/another", script: "dpkg-divert --package another --rename --divert /usr/bin/tac.company /usr/bin/tac; dpkg-statoverride --force-statoverride-add --add root root 700 /usr/bin/another", triggers: "interest-noawait /usr/share/watched-by-another"));
        await device.RunAsync(first, "dpkg -i /run/packages/mine_1_all.deb; readlink /etc/alternatives/choice | grep -x /usr/bin/editor-mine; echo later > /var/lib/mine/later; echo 'mine=edited' > /etc/mine.conf", mine);
        const string Works = Sound + "dpkg -l mine | grep -q ^ii; grep -qx made /var/lib/mine/made; grep -qx later /var/lib/mine/later; grep -qx generated /usr/share/mine/generated;"
            + "dpkg-divert --list mine | grep -q corporate.company; readlink /usr/bin/corporate | grep -x editor-mine; dpkg-statoverride --list /usr/share/mine/data | grep -q mail;"
            + "stat -c '%a %G' /usr/share/mine/data | grep -x '2750 mail'; grep -q 'watched-by-mine mine' /var/lib/dpkg/triggers/File; update-alternatives --query choice | grep -c ^Alternative: | grep -x 2;";
        await device.RunAsync(first, Works + "grep -qx 1 /usr/bin/corporate.company; readlink /etc/alternatives/choice | grep -x /usr/bin/editor-mine");

        // Automatic: the company's is the better one now. Its new file is behind the diversion.
        await device.RunAsync(second, Works + "grep -qx second /usr/bin/corporate.company; readlink /etc/alternatives/choice | grep -x /usr/bin/editor-corporate;"
            + "dpkg-divert --list another | grep -q tac; dpkg-statoverride --list /usr/bin/another | grep -q 700; grep -q watched-by-another /var/lib/dpkg/triggers/File;"
            + "update-alternatives --set choice /usr/bin/editor-mine");

        // The user's own choice stands, and goes with what was chosen.
        await device.RunAsync(second, Works + "update-alternatives --query choice | grep -qx 'Status: manual'; readlink /usr/bin/choice | grep -x /etc/alternatives/choice; readlink /etc/alternatives/choice | grep -x /usr/bin/editor-mine;"
            + "apt-get -y -q purge mine >/dev/null 2>&1");
        await device.RunAsync(second, Sound + "readlink /etc/alternatives/choice | grep -x /usr/bin/editor-corporate; test -f /usr/bin/corporate; test ! -L /usr/bin/corporate; test ! -e /etc/mine.conf; test ! -e /usr/share/mine; test ! -e /var/lib/mine");
    }

    [Fact]
    public async Task Of_a_package_that_both_sides_have_the_higher_version_counts()
    {
        using var device = debian.NewDevice();
        var packages = debian.Build(Package("tool", "2", files: "/usr/bin/tool /usr/bin/tool-new"), Package("extra", "1", files: "/usr/bin/extra"));
        var old = await debian.ReleaseAsync("tool-1", Package("tool", "1", files: "/usr/bin/tool /usr/bin/tool-old"));
        var none = debian.First;
        var newer = await debian.ReleaseAsync("tool-3", Package("tool", "3", files: "/usr/bin/tool"), Package("extra", "1", files: "/usr/bin/extra"));
        await device.RunAsync(old, "dpkg -i /run/packages/tool_2_all.deb /run/packages/extra_1_all.deb", packages);
        const string Own = Sound + "grep -qx 2 /usr/bin/tool; test -e /usr/bin/tool-new; test ! -e /usr/bin/tool-old; dpkg-query -W -f '${Version}' tool | grep -x 2; dpkg -l extra | grep -q ^ii; test -e /usr/bin/extra";
        await device.RunAsync(old, Own);
        await device.RunAsync(newer, Sound + "grep -qx 3 /usr/bin/tool; test ! -e /usr/bin/tool-new; dpkg-query -W -f '${Version}' tool | grep -x 3; dpkg -l extra | grep -q ^ii");

        // The update was set aside: the previous release starts again, and what had dropped out is back.
        await device.RunAsync(old, Own);
        await device.RunAsync(none, Own);
    }

    [Fact]
    public async Task What_the_next_release_cannot_carry_is_found_before_the_switch_and_done_with_as_chosen()
    {
        using var device = debian.NewDevice();
        var packages = debian.Build(Package("needs-one", "1", files: "/usr/bin/needs-one", fields: "Depends: base-library (= 1)"), Package("needs-nothing", "1", files: "/usr/bin/needs-nothing"));
        var first = await debian.ReleaseAsync("needs-1", Package("base-library", "1", files: "/usr/share/base-library"));
        var second = await debian.ReleaseAsync("needs-2", Package("base-library", "2", files: "/usr/share/base-library"));
        await device.RunAsync(first, "dpkg -i /run/packages/*.deb", packages);

        // At the very next start too, before anything was ever merged.
        Assert.Equal(103, (await device.TryAsync(second, "true")).ExitCode);
        var status = Path.Combine(second, "var/lib/dpkg/status");
        var found = await device.TryAsync(first, "cp /run/packages/status /run/status; /usr/lib/nacre/applications check /run/status", Directory.GetParent(status)!.FullName);
        Assert.Equal(3, found.ExitCode);
        using (var answer = JsonDocument.Parse(found.Output))
        {
            var conflict = Assert.Single(answer.RootElement.GetProperty("conflicts").EnumerateArray().ToArray());
            Assert.Equal("needs-one", conflict.GetProperty("package").GetString());
            Assert.Equal("depends on base-library (= 1), and there is base-library 2", conflict.GetProperty("reason").GetString());
            Assert.Equal(["needs-nothing"], answer.RootElement.GetProperty("carried").EnumerateArray().Select(item => item.GetProperty("package").GetString()));
        }

        var own = await device.TryAsync(first, "/usr/lib/nacre/applications check /var/lib/dpkg/status");
        Assert.Equal(0, own.ExitCode);

        var postponed = await device.TryAsync(second, "true");
        Assert.Equal(103, postponed.ExitCode);
        Assert.Contains("needs-one 1 depends on base-library (= 1)", postponed.Error, StringComparison.Ordinal);
        await device.RunAsync(first, Sound + "test -e /usr/bin/needs-one; dpkg -l needs-one | grep -q ^ii");
        await device.RunAsync(second, Sound + "test ! -e /usr/bin/needs-one; test -e /usr/bin/needs-nothing; grep -q 'needs-one 1 was taken out' /var/lib/nacre/applications/notes", null, ("NACRE_CONFLICTS", "remove"));

        // Its way back, where that release is set aside; the choice to install it again is a list for the unit that does it.
        await device.RunAsync(first, Sound + "test -e /usr/bin/needs-one");
        await device.RunAsync(second, Sound + "grep -qx needs-one /var/lib/nacre/applications/reinstall", null, ("NACRE_CONFLICTS", "reinstall"));
    }

    [Fact]
    public async Task A_package_of_the_companys_that_the_user_removed_is_back_at_the_next_start_and_the_user_is_told()
    {
        using var device = debian.NewDevice();
        var first = await debian.ReleaseAsync("removed", Package("corporate-tool", "1", files: "/usr/bin/corporate-tool"));
        var said = await device.RunAsync(first, "dpkg -r corporate-tool; test ! -e /usr/bin/corporate-tool");
        Assert.Contains("belongs to the company's system, and is back at the next start: corporate-tool", said.Error, StringComparison.Ordinal);
        await device.RunAsync(first, Sound + "test -e /usr/bin/corporate-tool; dpkg -l corporate-tool | grep -q ^ii");
    }

    [Fact]
    public async Task Where_the_policy_forbids_applications_an_installation_works_until_the_next_start_and_says_so()
    {
        using var device = debian.NewDevice();
        var packages = debian.Build(Package("mine", "1", files: "/usr/bin/mine"));
        var said = await device.RunAsync(debian.First, "dpkg -i /run/packages/mine_1_all.deb; test -e /usr/bin/mine; echo x > /usr/local/bin/x", packages, ("APPLICATIONS", "discard"));
        Assert.Contains("what you install is gone at the next start", said.Error, StringComparison.Ordinal);
        await device.RunAsync(debian.First, Sound + "test ! -e /usr/bin/mine; test ! -e /usr/local/bin/x; if dpkg -l mine 2>/dev/null | grep ^ii; then exit 9; fi", null, ("APPLICATIONS", "discard"));
    }

    [Fact]
    public async Task Killed_at_any_step_capturing_and_merging_leave_the_old_or_the_new()
    {
        using var device = debian.NewDevice();
        var packages = debian.Build(
            Package("mine", "1", conffile: "one\n", files: "/usr/bin/mine /usr/share/mine/a /usr/share/mine/b", script: "id mine >/dev/null 2>&1 || useradd -r -U mine; mkdir -p /var/lib/mine; echo 1 > /var/lib/mine/state; chown -R mine /var/lib/mine"),
            Package("mine", "2", conffile: "two\n", files: "/usr/bin/mine /usr/share/mine/b /usr/share/mine/c", script: "echo 2 > /var/lib/mine/state"));
        var taken = await debian.ReleaseAsync("killed", Package("other", "1", script: "groupadd -r -g 999 other; useradd -r -u 999 -g 999 other"));
        const string Whole = Sound + "case \"$(dpkg-query -W -f '${Version}' mine 2>/dev/null)\" in"
            + " '') test ! -e /usr/bin/mine ;;"
            + " 1) grep -qx 1 /usr/bin/mine; test -e /usr/share/mine/a; test ! -e /usr/share/mine/c ;;"
            + " 2) grep -qx 2 /usr/bin/mine; test ! -e /usr/share/mine/a; test -e /usr/share/mine/c ;;"
            + " esac; test ! -e /usr/bin/mine || { id mine; test \"$(stat -c %U /var/lib/mine)\" = mine; test -s /var/lib/mine/state; }; dpkg-query -W -f '${Version}' mine 2>/dev/null || true";
        var seen = new HashSet<string>();
        foreach (var version in new[] { "1", "2" })
        {
            for (var fault = 1; fault <= 8; fault++)
            {
                await device.RunAsync(debian.First, $"NACRE_FAULT={fault} dpkg -i --force-confnew /run/packages/mine_{version}_all.deb", packages, ("CRASH", "1"));
                seen.Add((await device.RunAsync(debian.First, Whole, null, ("CRASH", "1"))).Output.Split('\n')[^1]);
            }
        }

        Assert.Contains("1", seen);
        Assert.Contains("2", seen);
        await device.RunAsync(debian.First, "dpkg -i --force-confnew /run/packages/mine_2_all.deb", packages);

        // Merging: under a release whose account takes the number, and back. Every step, each followed by what the next start finds.
        var killed = 0;
        for (var (fault, release) = (1, taken); ; fault++)
        {
            var result = await device.TryAsync(release, Whole, null, ("MERGE_FAULT", $"{fault}"), ("CRASH", "1"));
            if (result.ExitCode == 0)
            {
                if (release == debian.First)
                {
                    break;
                }

                (fault, release) = (0, debian.First);
                continue;
            }

            Assert.Equal(137, result.ExitCode);
            killed++;
            var other = killed % 2 == 0 ? debian.First : taken;
            Assert.EndsWith("2", (await device.RunAsync(other, Whole, null, ("CRASH", "1"))).Output, StringComparison.Ordinal);
            if (other == release)
            {
                await device.RunAsync(release == taken ? debian.First : taken, Whole, null, ("CRASH", "1"));
            }
        }

        Assert.InRange(killed, 20, 1000);
    }

    [Fact]
    public async Task Nothing_in_a_hostile_applications_volume_is_followed_outside_of_it()
    {
        using var device = debian.NewDevice();
        var packages = debian.Build(Package("mine", "1", files: "/usr/bin/mine"), Package("evil", "1", files: "/usr/bin/evil"));
        await device.RunAsync(debian.First, "dpkg -i /run/packages/mine_1_all.deb", packages);
        var victim = device["victim"];
        Directory.CreateDirectory(victim);
        await File.WriteAllTextAsync(Path.Combine(victim, "passwd"), "untouched", TestContext.Current.CancellationToken);
        var kept = device["applications/.nacre"];
        await UserPackagesFixture.ShellAsync($$"""
            cd {{kept}}/captured/0*; chmod -R u+w .
            ln -s {{victim}} files/etc2; mkdir -p files/usr/share; ln -s {{victim}} files/usr/share/mine
            mknod files/usr/bin/disk b 253 0; mkfifo files/usr/bin/pipe
            printf '%s\n' /usr/bin/disk /usr/bin/pipe /usr/share/mine/passwd /../../../../etc/up /etc/shadow /etc/ld.so.preload /root/.ssh /usr/lib/nacre/applications-evil /var/lib/nacre/applications/stack '/var/lib/mine2' >> files/var/lib/dpkg/info/mine.list
            echo 'toor:x:0:0::/root:/bin/sh' >> db/passwd; printf 'root2:x:00:0::/:/bin/sh\nold:x:998:998::/:/bin/sh\n' >> db/passwd; echo 'old:$6$abc:1:0:9:7:::' >> db/shadow; echo 'old:x:998:' >> db/group; printf 'sudo:old2\nroot:toor\n' >> db/members
            printf '/usr/bin/passwd\n{{victim}}/x\nmine\n' > db/diversions; echo 'root root 4777 /usr/bin/mine' > db/statoverride
            printf '/etc/cron.d/evil\t-\t*\n/etc/ld.so.preload\t-\t*\n/etc/systemd/system/evil.service\t-\t*\n' >> generated
            mkdir -p files/etc/cron.d files/etc/systemd/system; echo x > files/etc/cron.d/evil; echo x > files/etc/ld.so.preload; echo x > files/etc/systemd/system/evil.service
            printf 'Package: ../../up\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n' >> status
            printf '/etc mine\n/../victim mine\n/var/lib/../../etc mine\n/var/lib/link mine\n' > ../../state.list
            mkdir -p ../../state; ln -s {{victim}} '../../state/var%2Flib%2Flink'
            ln -s {{victim}} ../../root.new
            """);
        var result = await device.RunAsync(debian.First, Sound + "cat /etc/passwd; stat -c '%F' /usr/bin/disk /usr/bin/pipe /etc/cron.d/evil /etc/ld.so.preload 2>&1 | grep -v 'No such' || true; grep -n victim /proc/mounts || true; test ! -e /root/.ssh");
        Assert.Equal(["passwd"], Directory.GetFileSystemEntries(victim).Select(Path.GetFileName));
        Assert.Equal("untouched", await File.ReadAllTextAsync(Path.Combine(victim, "passwd"), TestContext.Current.CancellationToken));
        Assert.DoesNotContain("toor", result.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("root2", result.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("special file", result.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("fifo", result.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("victim", result.Output, StringComparison.Ordinal);
        await device.RunAsync(debian.First, "grep '^old:[!*]' /etc/shadow");

        // Links where the folders of the programs themselves should be: refused, or replaced, never entered.
        foreach (var name in new[] { "captured", "root", "" })
        {
            var place = Path.Combine(kept, name).TrimEnd('/');
            await UserPackagesFixture.ShellAsync($"rm -rf '{place}.away'; mv '{place}' '{place}.away' 2>/dev/null; ln -s {victim} '{place}'");
            await device.TryAsync(debian.First, "dpkg -i /run/packages/evil_1_all.deb", packages);
            Assert.Equal(["passwd"], Directory.GetFileSystemEntries(victim).Select(Path.GetFileName));
            await UserPackagesFixture.ShellAsync($"rm -f '{place}' 2>/dev/null || rm -rf '{place}'; mv '{place}.away' '{place}' 2>/dev/null || true");
        }
    }

    [Theory]
    [InlineData("1.0", "lt", "1.0-1")]
    [InlineData("1.0~rc1", "lt", "1.0")]
    [InlineData("2:0.1", "gt", "1:99")]
    [InlineData("1.0-1+b2", "gt", "1.0-1")]
    [InlineData("1.10", "gt", "1.9")]
    [InlineData("09", "eq", "9")]
    [InlineData("1.0a", "lt", "1.0.")]
    [InlineData("1:1.2-3~bpo12+1", "lt", "1:1.2-3")]
    [InlineData("1.2.3-4-5", "lt", "1.2.3-4-6")]
    public void Versions_are_compared_as_dpkg_does(string one, string relation, string other)
    {
        var start = new ProcessStartInfo("perl", ["-I" + Repository.At("guest", "files", "usr", "lib", "nacre", "perl"), "-MNacre::Dpkg", "-e", "print compare_versions(@ARGV) <=> 0", one, other]) { RedirectStandardOutput = true };
        using var perl = Process.Start(start)!;
        Assert.Equal(relation switch { "lt" => "-1", "gt" => "1", _ => "0" }, perl.StandardOutput.ReadToEnd());
        using var dpkg = Process.Start("dpkg", ["--compare-versions", one, relation, other]);
        dpkg.WaitForExit();
        Assert.Equal(0, dpkg.ExitCode);
    }

    [Fact]
    [Trait("lane", "long")]
    public async Task Real_packages_survive_point_updates_and_the_next_debian_release()
    {
        using var device = debian.NewDevice();
        var updates = await debian.RootAsync("bookworm", withUpdates: true);
        var next = await debian.RootAsync("trixie", withUpdates: false);
        await device.RunAsync(debian.First, "apt-get -y -q install cowsay redis-server tmux vim-tiny nginx-light postgresql >/dev/null 2>&1; " + RedisCounts(1)
            + "su postgres -c '/usr/lib/postgresql/15/bin/pg_ctl -w -D /var/lib/postgresql/15/main -o \"-c config_file=/etc/postgresql/15/main/postgresql.conf -c listen_addresses=127.0.0.1\" start >/dev/null && createdb kept && /usr/lib/postgresql/15/bin/pg_ctl -w -D /var/lib/postgresql/15/main stop'");
        const string Postgres = "install -d -o postgres /run/postgresql; su postgres -c '/usr/lib/postgresql/15/bin/pg_ctl -w -D /var/lib/postgresql/15/main -o \"-c config_file=/etc/postgresql/15/main/postgresql.conf -c listen_addresses=127.0.0.1\" start >/dev/null && psql -lqt | grep -q kept && /usr/lib/postgresql/15/bin/pg_ctl -w -D /var/lib/postgresql/15/main stop';";
        await device.RunAsync(debian.First, Sound + Postgres + "nginx -t 2>&1; " + RedisCounts(2));
        await device.RunAsync(updates, Sound + Postgres + "nginx -t 2>&1; tmux -V; " + RedisCounts(3));

        // The next Debian has other libraries: what was built for this one is found out, and installed again from the next one.
        var postponed = await device.TryAsync(next, "true");
        Assert.Equal(103, postponed.ExitCode);
        await device.RunAsync(next, "apt-get -q update >/dev/null; /usr/lib/nacre/applications refresh >/dev/null 2>&1; " + Sound + "tmux -V | grep -x 'tmux 3.5a'; /usr/games/cowsay kept >/dev/null; " + RedisCounts(4), null, ("NACRE_CONFLICTS", "reinstall"));
        await device.RunAsync(next, Sound + "tmux -V | grep -x 'tmux 3.5a'; " + RedisCounts(5));
    }

    private static TestPackage Package(string name, string version, string files = "", string? conffile = null, string? content = null, string script = "", string fields = "", string triggers = "") =>
        new(name, version, files.Split(' ', StringSplitOptions.RemoveEmptyEntries), conffile, content ?? version, script, fields, triggers);

    /// <summary>Starts redis with its own data, counts one up, and expects <paramref name="number"/>.</summary>
    private static string RedisCounts(int number) =>
        "setpriv --reuid redis --regid redis --init-groups redis-server --port 0 --unixsocket /tmp/redis.sock --dir /var/lib/redis --daemonize yes >/dev/null;"
        + "for i in 1 2 3 4 5 6 7 8 9 10; do test -S /tmp/redis.sock && redis-cli -s /tmp/redis.sock ping >/dev/null && break; sleep 0.5; done;"
        + $"redis-cli -s /tmp/redis.sock incr canary | grep -x {number}; redis-cli -s /tmp/redis.sock shutdown save; rm -f /tmp/redis.sock;";
}
