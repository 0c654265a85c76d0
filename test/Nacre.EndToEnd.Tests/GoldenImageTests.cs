using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

public sealed class GoldenImageTests
{
    private static readonly string[] Files = ["kernel", "initramfs", "system.erofs", "image.json"];

    [Fact]
    public async Task The_same_recipe_built_again_elsewhere_gives_the_same_bytes_with_a_cache_and_without()
    {
        var first = await GoldenImages.MinimalAsync(1);
        using var folder = new TemporaryDirectory();
        var (shell, steps) = (new Shell(("XDG_CACHE_HOME", folder["cache"])), folder["cache/nacre/steps"]);
        Assert.Empty(await BuildAsync(shell, "debian-minimal.yaml", folder["again"]));
        await RequireSameAsync(first, folder["again"]);

        // Of what was kept only the packages: all the rest is done again behind them.
        var packages = new DirectoryInfo(steps).EnumerateFiles().OrderBy(file => file.LastWriteTimeUtc).First();
        foreach (var other in new DirectoryInfo(steps).EnumerateFiles().Where(file => file.Name != packages.Name))
        {
            other.Delete();
        }

        Assert.Equal(["packages"], await BuildAsync(shell, "debian-minimal.yaml", folder["behind"]));
        await RequireSameAsync(first, folder["behind"]);
        Assert.Equal(["all steps"], await BuildAsync(shell, "debian-minimal.yaml", folder["nothing"]));
        await RequireSameAsync(first, folder["nothing"]);
    }

    [Fact]
    public async Task A_dry_run_of_a_system_says_what_its_build_changes()
    {
        var (first, second) = (await GoldenImages.MinimalAsync(1), await GoldenImages.MinimalAsync(2));
        var done = await new Shell().RunAsync("image", "build", Repository.Path("testdata", "recipes", "debian-minimal-2.yaml"), "--dry-run", "--against", first, "--json");
        using var plan = JsonDocument.Parse(done.Output);
        using var was = JsonDocument.Parse(await File.ReadAllBytesAsync(Path.Combine(first, "image.json"), TestContext.Current.CancellationToken));
        using var now = JsonDocument.Parse(await File.ReadAllBytesAsync(Path.Combine(second, "image.json"), TestContext.Current.CancellationToken));
        Assert.NotEmpty(RecipeBuildTests.Planned(plan, "packages").Concat(RecipeBuildTests.Planned(plan, "files")));
        Assert.Equal(RecipeBuildTests.Changed(was, now, "packages", "name", "version"), RecipeBuildTests.Planned(plan, "packages"));
        Assert.Equal(RecipeBuildTests.Changed(was, now, "files", "path", "sha256"), RecipeBuildTests.Planned(plan, "files"));
    }

    [Fact]
    [Trait("lane", "long")]
    public async Task A_system_with_another_script_is_built_behind_its_kept_steps_with_the_bytes_of_one_without_a_cache()
    {
        using var folder = new TemporaryDirectory();
        var shell = new Shell(("XDG_CACHE_HOME", folder["cache"]));
        await File.WriteAllTextAsync(folder["debian-minimal.yaml"], await File.ReadAllTextAsync(Repository.Path("recipes", "debian-minimal.yaml"), TestContext.Current.CancellationToken), TestContext.Current.CancellationToken);
        const string First = "from: debian-minimal.yaml\nname: scripted\nscripts:\n  - name: first\n    run: 'ln /usr/bin/env /usr/local/bin/; setcap cap_net_raw+ep /usr/bin/env || :; rm -r /usr/share/bash-completion; mkfifo /opt/pipe; chmod 2750 /opt'\n";
        foreach (var (name, more) in new[] { ("one", ""), ("two", "  - {name: second, run: 'rm /usr/local/bin/env; mkdir /usr/share/bash-completion; mv /opt /opt2; ln -s opt2 /opt'}\n") })
        {
            await File.WriteAllTextAsync(folder[$"{name}.yaml"], First + more, TestContext.Current.CancellationToken);
            Assert.Equal(name == "one" ? [] : ["packages", "files, users and services", "script first"], await BuildAsync(shell, folder[$"{name}.yaml"], folder[name]));
        }

        Assert.Empty(await BuildAsync(shell, folder["two.yaml"], folder["anew"], "--no-cache"));
        await RequireSameAsync(folder["two"], folder["anew"]);
    }

    [Fact]
    [Trait("lane", "long")]
    public async Task A_secret_that_a_system_only_uses_is_in_none_of_its_bytes_and_one_in_its_initramfs_fails_the_build()
    {
        using var folder = new TemporaryDirectory();
        var shell = new Shell();
        const string Secret = "s3cret-of-the-test-8f1c";
        const string Reads = "from: debian-minimal.yaml\nname: secretive\nsecrets: [TOKEN]\nscripts:\n  - name: reads\n    run: |\n";
        File.Copy(Repository.Path("recipes", "debian-minimal.yaml"), folder["debian-minimal.yaml"]);
        await File.WriteAllTextAsync(folder["token"], Secret, TestContext.Current.CancellationToken);
        await File.WriteAllTextAsync(folder["uses.yaml"], Reads + "      sha256sum </run/secrets/TOKEN >/opt/digest\n", TestContext.Current.CancellationToken);
        await BuildAsync(shell, folder["uses.yaml"], folder["uses"], "--secret", $"TOKEN={folder["token"]}");
        Assert.Equal(-1, (await File.ReadAllBytesAsync(Path.Combine(folder["uses"], "system.erofs"), TestContext.Current.CancellationToken)).AsSpan().IndexOf("s3cret-of-the-test"u8));

        // Encoded on the disk, in the clear in the initramfs alone.
        await File.WriteAllTextAsync(
            folder["leaks.yaml"],
            Reads + """
                  printf '#!/bin/sh\n[ "$1" != prereqs ] || exit 0\necho %s | base64 -d >"$DESTDIR/leaked"\n' "$(base64 -w0 </run/secrets/TOKEN)" >/etc/initramfs-tools/hooks/leak
                  chmod 755 /etc/initramfs-tools/hooks/leak

            """,
            TestContext.Current.CancellationToken);
        var failed = await shell.FailAsync(ErrorCatalogue.BuildFailed, "image", "build", folder["leaks.yaml"], "--output", folder["leaks"], "--secret", $"TOKEN={folder["token"]}");
        Assert.Matches("the secret TOKEN is in the image: .*/unpacked/.*leaked", failed.Error);
        Assert.DoesNotContain(Secret, failed.Error, StringComparison.Ordinal);
        Assert.False(Path.Exists(folder["leaks"]));
    }

    /// <summary>Builds and returns the steps that came from the cache.</summary>
    private static async Task<string[]> BuildAsync(Shell shell, string recipe, string output, params string[] more)
    {
        var debs = Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache", "nacre", "debs");
        var done = await shell.RunAsync(["image", "build", Repository.Path("recipes", recipe), "--output", output, "--package-cache", debs, .. more]);
        return [.. done.Error.Split('\n').Where(line => line.StartsWith("from the cache: ", StringComparison.Ordinal)).Select(line => line["from the cache: ".Length..])];
    }

    private static async Task RequireSameAsync(string one, string other)
    {
        foreach (var name in Files)
        {
            Assert.Equal(await HashAsync(Path.Combine(one, name)), await HashAsync(Path.Combine(other, name)));
        }
    }

    private static async Task<string> HashAsync(string path)
    {
        await using var stream = File.OpenRead(path);
        return $"{Path.GetFileName(path)} {Convert.ToHexStringLower(await SHA256.HashDataAsync(stream, TestContext.Current.CancellationToken))}";
    }
}
