using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests.Guest;

/// <summary>How the guest stacks its layers, merges settings with a new stack, and moves what a changed rule misplaces.</summary>
public sealed class StackTests : IDisposable
{
    private readonly GuestStart guest = new();

    public void Dispose() => guest.Dispose();

    [Fact]
    public void The_root_shows_the_users_packages_over_the_application_layers_over_the_release()
    {
        guest.Write("system/usr/share/one", "release");
        guest.Write("system/usr/share/two", "release");
        guest.Write("app-00/usr/share/two", "office");
        guest.Write("app-00/usr/share/three", "office");
        guest.Write("applications/.nacre/root/usr/share/three", "user");
        var output = guest.Started("cat usr/share/one usr/share/two usr/share/three; echo; echo gone > usr/share/one; grep '^/ ' /run/nacre/layers; cat /run/nacre/stack /run/nacre/policy");
        Assert.Equal("releaseofficeuser\n/ scratch overlay\nbase 1\noffice 1\napplications keep\nconflicts postpone\ndoes quotas hidden\n", output);
        Assert.Equal("release\n", guest.Started("cat usr/share/one; echo"));
    }

    [Fact]
    public void What_application_layers_add_to_the_databases_is_there_as_long_as_they_are()
    {
        Directory.CreateDirectory(guest["app-00/usr/lib/nacre"]);
        File.Copy(Repository.At("guest", "files", "usr", "lib", "nacre", "corporate"), guest["app-00/usr/lib/nacre/corporate"]);
        guest.Write("app-00/usr/share/nacre/application-layers/office/accounts/passwd", "office:x:310:310::/:/bin/false\n");
        const string Show = "tail -n 1 etc/passwd; echo 'bob:x:1001:1001::/home/bob:/bin/sh' >> etc/passwd";
        Assert.Equal("office:x:310:310::/:/bin/false\n", guest.Started(Show));
        Assert.Equal("office:x:310:310::/:/bin/false\nbob:x:1001:1001::/home/bob:/bin/sh\n", guest.Started("tail -n 2 etc/passwd"));
        guest.Write("cfg/stack", "base 1\n");
        Assert.Equal("user:x:1000:1000::/home/user:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n", guest.Started("tail -n 2 etc/passwd"));
    }

    [Fact]
    public void A_home_that_is_made_anew_leaves_the_settings_that_were_kept()
    {
        guest.Write("system/home/user/.config/file", "skeleton\n");
        Assert.Equal("skeleton\n", guest.Started("cat home/user/.config/file; echo mine > home/user/.config/file").Split("/.config\n")[^1]);
        GuestStart.Shell($"rm -rf {guest["data"]}/* {guest["data"]}/.nacre");
        Assert.EndsWith("mine\nfile\n", guest.Started("cat home/user/.config/file; ls home/user/.config"), StringComparison.Ordinal);
    }

    [Fact]
    public void Edits_of_etc_stay_by_what_the_user_and_the_company_changed()
    {
        foreach (var name in new[] { "none", "mine", "theirs", "both", "same", "mode", "removed", "removed-both", "gone", "gone-edited", "sub/both" })
        {
            guest.Write($"app-00/etc/{name}", "one\n");
        }

        guest.Started("""
            cd etc
            for name in mine both gone-edited sub/both; do echo mine > $name; done
            touch none theirs gone
            echo two > same
            chmod 0600 mode
            rm removed removed-both
            echo own > own; ln -s /nowhere link; mkdir folder; echo x > folder/x; echo y > 'two
            lines'
            mkdir -p systemd/system/multi-user.target.wants
            echo '[Unit]' > systemd/system/mine.service
            ln -s ../mine.service systemd/system/multi-user.target.wants/mine.service
            """);
        guest.Stack("2");
        foreach (var name in new[] { "theirs", "both", "same", "mode", "removed-both", "sub/both" })
        {
            guest.Write($"app-00/etc/{name}", "two\n");
        }

        File.Delete(guest["app-00/etc/gone"]);
        File.Delete(guest["app-00/etc/gone-edited"]);
        var output = guest.Started("""
            cd etc
            echo $(cat none mine theirs both both.dpkg-dist same mode gone-edited sub/both sub/both.dpkg-dist own folder/x 'two
            lines' removed-both.dpkg-dist)
            stat -c %a mode; readlink link systemd/system/multi-user.target.wants/mine.service; cat systemd/system/mine.service
            ls removed removed-both gone 2>/dev/null || echo none of them
            """);
        Assert.EndsWith("one mine two mine two two two mine mine two own x y two\n600\n/nowhere\n../mine.service\n[Unit]\nnone of them\n", output, StringComparison.Ordinal);
        Assert.Contains("/etc/both stays as it was edited; the new version is beside it as both.dpkg-dist", output, StringComparison.Ordinal);
        Assert.DoesNotContain("theirs", output, StringComparison.Ordinal);

        // What is as the company has it is not kept, so it follows the company's next change too.
        Assert.All(["none", "theirs", "same", "gone"], name => Assert.False(File.Exists(guest[$"settings/etc/{name}"]), name));
        Assert.DoesNotContain("stays", guest.Started(), StringComparison.Ordinal);

        // And back: the same edits over the first stack.
        guest.Stack("1");
        guest.Write("app-00/etc/theirs", "one\n");
        Assert.EndsWith("one mine\n", guest.Started("cd etc; echo $(cat theirs both)"), StringComparison.Ordinal);
    }

    [Fact]
    public void An_edit_of_the_last_minute_before_the_power_went_has_its_base_too()
    {
        guest.Write("app-00/etc/file", "one\n");
        guest.Started();
        Assert.Equal(137, guest.Start("echo mine > etc/file; kill -KILL $$").ExitCode);
        guest.Stack("2");
        Assert.DoesNotContain("stays", guest.Started("cat etc/file"), StringComparison.Ordinal);
        guest.Stack("3");
        guest.Write("app-00/etc/file", "two\n");
        Assert.Contains("file.dpkg-dist\nmine\ntwo\n", guest.Started("cat etc/file etc/file.dpkg-dist"), StringComparison.Ordinal);
    }

    [Fact]
    public void What_starts_by_itself_or_is_generated_is_gone_at_the_next_start()
    {
        guest.Write("app-00/etc/cron.d/office", "office\n");
        guest.Write("app-00/etc/ld.so.cache", "cache\n");
        guest.Write("app-00/etc/alternatives/editor", "vi\n");
        guest.Started("cd etc; for file in cron.d/bad cron.d/office crontab ld.so.preload ld.so.cache alternatives/editor rc.local passwd- .pwd.lock; do echo bad > $file; done; mkdir cron.hourly; echo bad > cron.hourly/bad; echo mine > kept");
        var output = guest.Started("cd etc; ls cron.d; cat cron.d/office ld.so.cache alternatives/editor kept; ls -d crontab ld.so.preload rc.local passwd- .pwd.lock cron.hourly 2>/dev/null || echo gone");
        Assert.Equal("office\noffice\ncache\nvi\nmine\ngone\n", output);
        Assert.False(Path.Exists(guest["settings/etc/ld.so.preload"]));
    }

    [Fact]
    public void Accounts_are_merged_by_entry_and_none_with_roots_number_comes_back()
    {
        guest.Started("""
            cd etc
            echo 'bob:x:1001:1001::/home/bob:/bin/sh' >> passwd; echo 'bob:$y$bob:1::::::' >> shadow; echo 'bob:x:1001:' >> group
            echo 'evil:x:0:0::/:/bin/sh' >> passwd; echo 'evil:$y$evil:1::::::' >> shadow; echo 'evil2:x:00:0::/:/bin/sh' >> passwd
            sed -i 's,^root:!:,root:$y$root:,; s,^user:!:,user:$y$user:,' shadow
            sed -i 's,^daemon:.*,daemon:x:0:0::/:/bin/sh,; s,^user:.*,user:x:0:0:Name:/home/user:/bin/zsh,' passwd
            sed -i 's,^user:x:1000:,user:x:1000:bob,; s,^root:x:0:,root:x:0:bob,' group
            """);
        const string Show = "cat etc/passwd etc/shadow etc/group; stat -c %a etc/shadow";
        const string Merged = """
            root:x:0:0:root:/root:/bin/sh
            daemon:x:1:1::/:/bin/false
            user:x:1000:1000:Name:/home/user:/bin/zsh
            bob:x:1001:1001::/home/bob:/bin/sh
            root:!:1::::::
            daemon:*:1::::::
            user:$y$user:1::::::
            bob:$y$bob:1::::::
            root:x:0:
            daemon:x:1:
            user:x:1000:bob
            bob:x:1001:
            640

            """;
        Assert.Equal(Merged, guest.Started(Show));

        // The company adds an account and closes another; the user's own stay.
        guest.Stack("2");
        guest.Write("app-00/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\nnew:x:400:400::/:/bin/false\n");
        guest.Write("app-00/etc/shadow", "root:!:1::::::\nuser:!:1::::::\nnew:!:1::::::\n");
        Assert.Equal(
            "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:Name:/home/user:/bin/zsh\nnew:x:400:400::/:/bin/false\nbob:x:1001:1001::/home/bob:/bin/sh\nroot:!:1::::::\nuser:$y$user:1::::::\nnew:!:1::::::\nbob:$y$bob:1::::::\n",
            guest.Started("cat etc/passwd etc/shadow"));
    }

    [Fact]
    public void Files_follow_a_changed_rule_and_come_back_with_the_old_one()
    {
        guest.Started("""
            mkdir -p opt/tool/empty home/user/Projects home/user/.config; echo tool > opt/tool/file; ln -s file opt/tool/link; mkfifo opt/tool/pipe; chmod 0640 opt/tool/file
            echo project > "home/user/Projects/two
            lines"; echo config > home/user/.config/file; chown 1000 home/user/.config/file
            """);
        guest.Rules("/opt data", "/home/*/Projects settings", "/home/*/.config data", "/usr data");
        var output = guest.Started("cat opt/tool/file home/user/Projects/* home/user/.config/file; stat -c '%a %u' opt/tool/file home/user/.config/file; readlink opt/tool/link; test -p opt/tool/pipe; test -d opt/tool/empty");
        Assert.EndsWith("tool\nproject\nconfig\n640 0\n644 1000\nfile\n", output, StringComparison.Ordinal);
        Assert.Contains("moved from applications to data: /opt", output, StringComparison.Ordinal);
        Assert.Contains("line 4 is left out: of /usr only /usr/local can be kept", output, StringComparison.Ordinal);
        Assert.True(File.Exists(guest["data/opt/tool/file"]) && File.Exists(guest["data/home/user/.config/file"]) && !Path.Exists(guest["applications/opt/tool"]));

        // The rules are taken back; meanwhile both layers came to have the same name.
        guest.Rules();
        guest.Write("applications/opt/tool/file", "other\n");
        output = guest.Started("cat opt/tool/file opt/tool/file.displaced home/user/Projects/* home/user/.config/file");
        Assert.EndsWith("other\ntool\nproject\nconfig\n", output, StringComparison.Ordinal);
        Assert.False(Path.Exists(guest["data/opt"]));
        Assert.DoesNotContain("moved", guest.Started(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_new_home_is_split_at_the_next_start()
    {
        guest.Started("mkdir -p home/bob/.config; echo config > home/bob/.config/file");
        Assert.Contains("moved from data to settings: /home/bob/.config\nconfig\n", guest.Started("cat home/bob/.config/file"), StringComparison.Ordinal);
        Assert.True(File.Exists(guest["settings/home/bob/.config/file"]));
    }

    [Fact]
    public void What_a_rule_makes_scratch_is_put_aside()
    {
        guest.Started("mkdir opt/tool; echo tool > opt/tool/file; echo mine > etc/file");
        guest.Rules("/opt/tool scratch", "/etc/file scratch");
        var output = guest.Started("ls opt/tool etc/file 2>/dev/null || echo gone; mkdir -p opt/tool; echo later > opt/tool/later");
        Assert.EndsWith("gone\n", output, StringComparison.Ordinal);
        Assert.Contains("/opt/tool is scratch now; what was kept of it is in /.nacre/retired/", output, StringComparison.Ordinal);
        var retired = Assert.Single(Directory.GetDirectories(guest["applications/.nacre/retired"]));
        Assert.Equal("tool\n", File.ReadAllText(Path.Combine(retired, "opt/tool/file")));
        Assert.Equal("mine\n", File.ReadAllText(Path.Combine(guest[$"settings/.nacre/retired/{Path.GetFileName(retired)}"], "etc/file")));
        Assert.DoesNotContain("later", guest.Started("ls -R opt"), StringComparison.Ordinal);
    }

    [Fact]
    public void A_disk_without_room_ends_the_start_before_anything_is_changed()
    {
        guest.Started("mkdir opt/tool; head -c 9000000 /dev/urandom > opt/tool/file; mkdir home/user/Projects; echo p > home/user/Projects/p");
        guest.Rules("/opt data", "/home/*/Projects settings");
        var before = guest.Fingerprint();
        var result = guest.Start(before: "cp -a /run/nacre/volumes/data /run/data; mount -t tmpfs -o size=8m none /run/nacre/volumes/data; cp -a /run/data/. /run/nacre/volumes/data");
        Assert.Equal(9, result.ExitCode);
        Assert.Matches("failed: moving between layers: the changed rules move 9 MiB to the layer data, whose disk has [78] MiB free; nothing was changed", result.Output);
        Assert.Equal(before, guest.Fingerprint());
        guest.Started("test -s opt/tool/file; cat home/user/Projects/p");
    }

    [Fact]
    public void A_merge_of_settings_that_is_killed_at_any_point_ends_as_one_that_was_not()
    {
        foreach (var name in new[] { "a", "b", "sub/c", "d" })
        {
            guest.Write($"app-00/etc/{name}", "one\n");
        }

        guest.Started("cd etc; for name in a sub/c; do echo mine > $name; done; touch b; rm d; echo 'bob:x:1001:1001::/home/bob:/bin/sh' >> passwd");
        guest.Stack("2");
        foreach (var name in new[] { "a", "b", "sub/c", "d" })
        {
            guest.Write($"app-00/etc/{name}", "two\n");
        }

        AtEachPoint("settings: ");
    }

    [Fact]
    public void A_move_between_layers_that_is_killed_at_any_point_ends_as_one_that_was_not()
    {
        guest.Started("mkdir -p opt/tool home/user/Projects; echo tool > opt/tool/file; echo two > opt/second; echo p > home/user/Projects/p; echo mine > etc/file");
        guest.Write("data/opt/second", "other\n");
        guest.Rules("/opt data", "/home/*/Projects settings", "/etc/file scratch");
        AtEachPoint("moving between layers: ");
    }

    [Fact]
    public void Hostile_content_of_the_users_layers_reaches_nothing_else()
    {
        guest.Write("app-00/etc/ssl/openssl.cnf", "one\n");
        guest.Write("app-00/etc/cron.d/office", "office\n");
        guest.Started("mkdir home/user/Documents; echo document > home/user/Documents/one");
        GuestStart.Shell($"""
            cd {guest[""]}
            # Links in the place of folders that are cleared, merged, moved and mounted.
            mkdir -p settings/etc settings/.nacre
            ln -s ../data/home/user/Documents settings/etc/cron.weekly
            ln -s {guest["data/home/user/Documents"]} settings/etc/cron.monthly
            ln -s {guest["data/home/user"]} settings/etc/ssl
            ln -s {guest["data/home/user/Documents/one"]} settings/etc/passwd
            ln -s {guest["data/home/user/Documents"]} settings/etc/shadow
            rm -rf settings/home/user/.config && ln -s {guest["data/home/user/Documents"]} settings/home/user/.config
            mkdir -p data/home/user/.config && echo moved > data/home/user/.config/moved
            rm -rf applications/opt && ln -s {guest["data/home/user"]} applications/usr-local-link
            # Nodes, pipes, names, and a file of a terabyte.
            mknod settings/etc/disk b 7 0; mknod settings/etc/null c 1 3; mkfifo settings/etc/pipe settings/etc/group
            echo x > "settings/etc/$(printf 'two\nlines\033[31m')"; truncate -s 1T settings/etc/huge
            head -c 240 /dev/zero | tr '\0' x | xargs -I NAME mkdir -p settings/etc/NAME/NAME/NAME
            # A decision that nobody made, aimed at the data.
            mkdir -p settings/.nacre/pending/files; echo bad > settings/.nacre/pending/files/1
            printf 'clear\0/../../data/home/user/Documents\0\0place\0/ssl/bad\0001\0place\0/x\0../../../stack\0' > settings/.nacre/pending/operations
            rm -rf data/.nacre && ln -s {guest["settings"]} data/.nacre
            """);
        guest.Stack("2");
        guest.Rules("/etc/huge scratch", "/home/*/Documents/*/deep settings");
        var output = guest.Started("cat home/user/Documents/one; ls home/user/Documents; grep -c . etc/passwd");
        Assert.EndsWith("document\none\n3\n", output, StringComparison.Ordinal);
        Assert.DoesNotContain('\u001b', output);
        Assert.False(Path.Exists(guest["data/home/user/bad"]));
    }

    [Fact]
    public void Nacre_where_says_what_is_mounted_and_what_the_rules_say()
    {
        guest.Rules("/home/*/Projects settings");
        var output = guest.Started("""
            mkdir -p home/bob/.config home/user/.config; echo x > home/bob/.config/file; echo x > "home/user/.config/t
            w\"o"; ln -s /home/user home/user/.config/link; echo x > etc/file; : > etc/ld.so.preload
            mount --rbind /run run
            for path in /etc/file /etc/ld.so.preload /usr/bin/perl /home/bob/.config/file /home/user/.config/link/Projects; do
                chroot . /usr/bin/perl /usr/bin/nacre-where "$path"
            done
            chroot . /usr/bin/perl /usr/bin/nacre-where --json "/home/user/.config/t
            w\"o"
            chroot . /usr/bin/perl /usr/bin/nacre-where /nowhere/file || echo "ended with $?"
            """);
        Assert.Equal("""
            /etc/file
              layer     the user's settings
              survives  system: yes, applications: yes, settings: no, data: no, moment: as in the snapshot
              rule      /etc settings (/usr/share/nacre/layers, line 33)
            /etc/ld.so.preload
              layer     scratch: what is changed here is gone at the next start
              survives  system: no, applications: no, settings: no, data: no, moment: no
              rule      /etc/ld.so.preload scratch (/usr/share/nacre/layers, line 40)
            /usr/bin/perl
              layer     scratch: what is changed here is gone at the next start
              survives  system: no, applications: no, settings: no, data: no, moment: no
              rule      / scratch (/usr/share/nacre/layers, line 6)
            /home/bob/.config/file
              layer     the user's data
              survives  system: yes, applications: yes, settings: yes, data: as in the snapshot, moment: as in the snapshot
              rule      /home/*/.config settings (/usr/share/nacre/layers, line 20)
              note      the rule says settings; it takes effect at the next start, where it can
            /home/user/Projects
              layer     the user's settings
              survives  system: yes, applications: yes, settings: no, data: no, moment: as in the snapshot
              rule      /home/*/Projects settings (the administrator's rules, line 1)
            [{"path":"/home/user/.config/t\u000aw\u0022o","layer":"settings","ruledLayer":"settings","rule":{"pattern":"/home/*/.config","source":"factory","line":20},"survives":{"system":"yes","applications":"yes","settings":"no","data":"no","moment":"snapshot"},"owner":null}]
            nacre-where: /nowhere/file: no such file or folder
            ended with 3

            """, output);
    }

    [Fact]
    public void Applications_that_the_user_has_not_are_not_there_and_nothing_else_is_touched()
    {
        foreach (var file in new[] { "usr/bin/paint", "usr/games/paint-game", "usr/share/applications/paint.desktop", "usr/share/paint/brush", "usr/bin/write", "etc/paint" })
        {
            guest.Write($"system/{file}", "content\n");
        }

        guest.Write("system/var/lib/dpkg/info/paint.list", "/.\n/usr\n/usr/bin\n/usr/bin/paint\n/usr/games/paint-game\n/usr/share/applications/paint.desktop\n/usr/share/paint/brush\n/etc/paint\n/usr/bin/../../etc/passwd\n/usr/bin/gone\n");
        guest.Write("system/var/lib/dpkg/info/write:amd64.list", "/usr/bin/write\n");
        guest.Write("cfg/hidden", "paint\n../../x\nunknown\n");
        const string Look = "for file in usr/bin/paint usr/games/paint-game usr/share/applications/paint.desktop usr/share/paint/brush etc/paint usr/bin/write etc/passwd; do [ ! -e $file ] || echo $file; done";
        Assert.Equal("usr/share/paint/brush\netc/paint\nusr/bin/write\netc/passwd\n", guest.Started(Look));
        guest.Write("cfg/hidden", "write\n");
        Assert.Equal("usr/bin/paint\nusr/games/paint-game\nusr/share/applications/paint.desktop\nusr/share/paint/brush\netc/paint\netc/passwd\n", guest.Started(Look));
    }

    [Fact]
    public void Without_the_users_applications_their_layer_is_left_alone()
    {
        guest.Started("mkdir opt/tool; echo tool > opt/tool/file");
        guest.Write("cfg/applications", "discard\n");
        var before = guest.Fingerprint();

        // As the script does where the policy says so: the disk is not mounted.
        var result = guest.Start("ls opt; echo new > opt/new; cat /run/nacre/policy", before: "umount /run/nacre/volumes/applications; rmdir /run/nacre/volumes/applications");
        Assert.Equal((0, "applications discard\nconflicts postpone\ndoes quotas hidden\n"), (result.ExitCode, result.Output));
        Assert.Equal(before, guest.Fingerprint());
        guest.Write("cfg/applications", "keep\n");
        Assert.Equal("tool\n", guest.Started("cat opt/tool/file; ls opt | grep new || :"));
    }

    private void AtEachPoint(string heading)
    {
        using var whole = guest.Copy();
        whole.Started();
        var expected = whole.Fingerprint();
        for (var point = 1; ; point++)
        {
            using var one = guest.Copy();
            var result = one.Start(fault: point);
            if (result.ExitCode == 0)
            {
                Assert.True(point > 6, $"only {point} points");
                Assert.Equal(expected, one.Fingerprint());
                return;
            }

            Assert.Contains("failed: " + heading, result.Output, StringComparison.Ordinal);
            // Killed once more, in what the next start does.
            _ = one.Start(fault: 1 + (point % 3));
            one.Started();
            Assert.True(expected == one.Fingerprint(), $"killed at point {point}:\n{one.Fingerprint()}\nand not\n{expected}");
        }
    }
}
