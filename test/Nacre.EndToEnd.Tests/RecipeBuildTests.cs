using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>Whole builds of application layers: what is kept of their steps, what a dry run says, and secrets. All of it is the same code as of a system, in seconds.</summary>
public sealed class RecipeBuildTests : IAsyncLifetime
{
    private readonly TemporaryDirectory folder = new();
    private readonly TestArchive archive = new();
    private string system = "";
    private int builds;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "as an ordinary user it takes minutes: the system is unpacked for each build");
        system = await GoldenImages.MinimalAsync(1);
        archive.Offer("tool", "1");
    }

    public async ValueTask DisposeAsync()
    {
        await archive.DisposeAsync();
        folder.Dispose();
    }

    [Fact]
    public async Task A_build_begins_behind_the_steps_that_are_the_same_and_gives_the_bytes_of_one_without_a_cache()
    {
        var counted = "scripts:\n  - {name: first, run: 'date +%s%N >/opt/first; ln /opt/first /opt/linked; rm -r /usr/share/bash-completion; mkdir /usr/share/bash-completion; chmod 700 /usr/share/tool; echo kept >/tmp/note'}\n"
            + "  - {name: second, run: 'cat /tmp/note >/opt/WORD; rm -rf /opt/linked'}\n";
        var one = await BuildAsync(Recipe(counted.Replace("WORD", "one", StringComparison.Ordinal)));
        Assert.Empty(one.Cached);

        // Nothing changed: nothing is done, not even the first script, which never writes the same twice.
        var same = await BuildAsync(Recipe(counted.Replace("WORD", "one", StringComparison.Ordinal)));
        Assert.Equal(["all steps"], same.Cached);
        Assert.Equal(await BytesAsync(one.Folder), await BytesAsync(same.Folder));

        // A later script changed.
        var other = await BuildAsync(Recipe(counted.Replace("WORD", "two", StringComparison.Ordinal)));
        Assert.Equal(["packages", "files, users and services", "script first"], other.Cached);
        Assert.Equal(FileIn(one.Folder, "/opt/first"), FileIn(other.Folder, "/opt/first"));
        Assert.Null(FileIn(other.Folder, "/opt/one"));
        Assert.Null(FileIn(other.Folder, "/opt/linked"));

        // The first step only, then none: the same bytes as far as they do not come from the clock.
        const string Plain = "scripts:\n  - {name: first, run: 'ln /usr/share/tool /opt/linked; rm -r /usr/share/bash-completion; ln -s /opt /usr/share/bash-completion; chmod 700 /usr/share/tool'}\n";
        var kept = await BuildAsync(Recipe(Plain));
        Assert.Equal(["packages", "files, users and services"], kept.Cached);
        var added = await BuildAsync(Recipe(Plain + "  - {name: second, run: 'rm /usr/share/bash-completion; mkdir /usr/share/bash-completion'}\n"));
        Assert.Equal(["packages", "files, users and services", "script first"], added.Cached);
        foreach (var (built, more) in new[] { (kept, ""), (added, "  - {name: second, run: 'rm /usr/share/bash-completion; mkdir /usr/share/bash-completion'}\n") })
        {
            var anew = await BuildAsync(Recipe(Plain + more), "--no-cache");
            Assert.Empty(anew.Cached);
            Assert.Equal(await BytesAsync(anew.Folder), await BytesAsync(built.Folder));
        }
    }

    [Fact]
    public async Task A_newer_package_in_the_archive_and_a_damaged_entry_are_noticed()
    {
        Assert.Empty((await BuildAsync(Recipe())).Cached);
        Assert.Equal(["all steps"], (await BuildAsync(Recipe())).Cached);

        archive.Offer("tool", "2");
        var newer = await BuildAsync(Recipe());
        Assert.Empty(newer.Cached);
        Assert.Contains("\"2\"", await File.ReadAllTextAsync(Path.Combine(newer.Folder, "image.json"), Token), StringComparison.Ordinal);

        foreach (var entry in Directory.GetFiles(folder["cache/nacre/steps"]))
        {
            await using var file = File.OpenWrite(entry);
            file.Seek(-5, SeekOrigin.End);
            await file.WriteAsync("wrong"u8.ToArray(), Token);
        }

        var anew = await BuildAsync(Recipe());
        Assert.Empty(anew.Cached);
        Assert.Equal(await BytesAsync(newer.Folder), await BytesAsync(anew.Folder));
        Assert.Equal(["all steps"], (await BuildAsync(Recipe())).Cached);
    }

    [Fact]
    public async Task A_dry_run_says_what_a_build_then_changes()
    {
        archive.Offer("more", "1");
        var before = await BuildAsync(Recipe());
        archive.Offer("tool", "2");
        const string Changes = "files:\n  - {path: /etc/issue, content: \"ours\\n\"}\n  - {path: /etc/tool, content: \"tool\\n\"}\n";
        var recipe = Recipe(Changes, "tool, more");
        using var plan = JsonDocument.Parse((await RunAsync("image", "build", recipe, "--on", system, "--dry-run", "--against", before.Folder, "--json")).Output);
        var after = await BuildAsync(recipe);
        using var was = JsonDocument.Parse(await File.ReadAllBytesAsync(Path.Combine(before.Folder, "image.json"), Token));
        using var now = JsonDocument.Parse(await File.ReadAllBytesAsync(Path.Combine(after.Folder, "image.json"), Token));
        Assert.Equal(Changed(was, now, "packages", "name", "version"), Planned(plan, "packages"));
        Assert.Equal(["more  1", "tool 1 2"], Planned(plan, "packages"));
        Assert.Equal(Changed(was, now, "files", "path", "sha256"), Planned(plan, "files"));
        using var contents = JsonDocument.Parse(await File.ReadAllBytesAsync(Path.Combine(after.Folder, "contents.json"), Token));
        Assert.Equal(
            contents.RootElement.GetProperty("covers").EnumerateArray().Select(path => $"{path.GetProperty("path")} {path.GetProperty("owner")}"),
            plan.RootElement.GetProperty("covers").EnumerateArray().Select(path => $"{path.GetProperty("path")} {path.GetProperty("owner")}"));
        Assert.Equal("/etc/issue base-files", plan.RootElement.GetProperty("covers").EnumerateArray().Select(path => $"{path.GetProperty("path")} {path.GetProperty("owner")}").Single());
        Assert.Equal(2 * 3 * 1024, plan.RootElement.GetProperty("installedBytes").GetInt64());

        // What would end a build is foreseen, in words that name it.
        archive.Offer("tzdata", "9999");
        archive.Offer("needs", "1", "Depends: tzdata (>= 9999)\n");
        var refused = await RunAsync("image", "build", Recipe("", "needs"), "--on", system, "--dry-run");
        Assert.Matches(@"conflict: package tzdata \(\S+ to 9999\) of the system would be changed, and a build fails", refused.Output);
        var failed = await Shell().FailAsync(ErrorCatalogue.BuildFailed, "image", "build", Recipe("", "needs"), "--on", system, "-o", folder["refused"], "--package-cache", folder["debs"]);
        Assert.Matches(@"the layer would change packages of the system: tzdata:all \(\S+ to 9999\)", failed.Error);
    }

    [Fact]
    public async Task A_secret_that_gets_into_the_image_fails_the_build_and_one_that_is_used_is_in_none_of_its_bytes()
    {
        const string Secret = "s3cret-of-the-test-8f1c";
        await File.WriteAllTextAsync(folder["token"], Secret + "\n", Token);
        const string Uses = "secrets: [TOKEN]\nscripts:\n  - {name: use, run: 'test \"$(cat /run/secrets/TOKEN)\" = s3cret-of-\"the\"-test-8f1c; sha256sum </run/secrets/TOKEN >/opt/digest'}\n";
        var used = await BuildAsync(Recipe(Uses), "--secret", $"TOKEN={folder["token"]}");
        Assert.Equal(-1, (await File.ReadAllBytesAsync(Path.Combine(used.Folder, "layer.erofs"), Token)).AsSpan().IndexOf("s3cret-of-the-test"u8));
        Assert.Contains("/opt/digest", await File.ReadAllTextAsync(Path.Combine(used.Folder, "contents.json"), Token), StringComparison.Ordinal);

        // Neither the script that reads it nor what comes after is kept.
        Assert.Equal(["packages", "files, users and services"], (await BuildAsync(Recipe(Uses), "--secret", $"TOKEN={folder["token"]}")).Cached);

        var leaks = Recipe("secrets: [TOKEN]\nscripts:\n  - {name: leak, run: 'mkdir -p /opt/app; cp /run/secrets/TOKEN /opt/app/config'}\n");
        var failed = await Shell().FailAsync(
            ErrorCatalogue.BuildFailed, "image", "build", leaks, "--on", system, "-o", folder["leaked"], "--package-cache", folder["debs"], "--secret", $"TOKEN={folder["token"]}");
        Assert.Matches("the secret TOKEN is in the image: .*/opt/app/config", failed.Error);
        Assert.DoesNotContain(Secret, failed.Error, StringComparison.Ordinal);
        Assert.False(Path.Exists(folder["leaked"]));
        foreach (var entry in Directory.GetFiles(folder["cache/nacre/steps"]))
        {
            Assert.DoesNotContain(Secret, await ExpandedAsync(entry), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Packages_that_nobody_signed_are_taken_only_where_the_recipe_says_so_and_the_check_says_it_too()
    {
        var built = await BuildAsync(Recipe());
        await RunAsync("image", "check", built.Folder);
        var checks = await File.ReadAllTextAsync(Path.Combine(built.Folder, "checks.json"), Token);
        Assert.Contains("packages of 1 sources were not verified, as the recipe says", checks, StringComparison.Ordinal);
        Assert.Matches("_debian_dists_test_main_binary-amd64_Packages[.a-z0-9]*: its packages were not verified", checks);

        var unsaid = Recipe();
        await File.WriteAllTextAsync(unsaid, (await File.ReadAllTextAsync(unsaid, Token)).Replace("unverifiedSources", "sources", StringComparison.Ordinal), Token);
        var failed = await Shell().FailAsync(ErrorCatalogue.BuildFailed, "image", "build", unsaid, "--on", system, "-o", folder["unsaid"]);
        Assert.Contains("is not signed", failed.Error, StringComparison.Ordinal);
        Assert.False(Path.Exists(folder["unsaid"]));
    }

    /// <summary>The changes that a dry run foresees, as name, from and to.</summary>
    internal static IEnumerable<string> Planned(JsonDocument plan, string key) =>
        plan.RootElement.GetProperty(key).EnumerateArray().Select(change => $"{change.GetProperty("name")} {change.GetProperty("from")} {change.GetProperty("to")}");

    /// <summary>The changes between two builds' image.json, in the same form.</summary>
    internal static IEnumerable<string> Changed(JsonDocument was, JsonDocument now, string key, string name, string value)
    {
        // A dry run names packages without their architecture.
        Dictionary<string, string> Of(JsonDocument image) => image.RootElement.GetProperty(key).EnumerateArray()
            .ToDictionary(one => one.GetProperty(name).GetString()!.Split(':')[0], one => one.GetProperty(value).GetString()!);
        var (before, after) = (Of(was), Of(now));
        return before.Keys.Union(after.Keys).Order(StringComparer.Ordinal).Where(one => before.GetValueOrDefault(one) != after.GetValueOrDefault(one))
            .Select(one => $"{one} {before.GetValueOrDefault(one)} {after.GetValueOrDefault(one)}");
    }

    private static async Task<string> BytesAsync(string image)
    {
        var digests = "";
        foreach (var name in new[] { "layer.erofs", "contents.json", "image.json" })
        {
            digests += $"{name} {Convert.ToHexStringLower(SHA256.HashData(await File.ReadAllBytesAsync(Path.Combine(image, name), Token)))}\n";
        }

        return digests;
    }

    private static string? FileIn(string image, string path)
    {
        var contents = LayerContents.FromJson(File.ReadAllBytes(Path.Combine(image, "contents.json")));
        return contents.Files.FirstOrDefault(file => file.Path == path)?.Content;
    }

    private static async Task<string> ExpandedAsync(string entry)
    {
        using var zstd = System.Diagnostics.Process.Start(new System.Diagnostics.ProcessStartInfo("zstd", ["-q", "-d", "-c", entry]) { RedirectStandardOutput = true })!;
        return await zstd.StandardOutput.ReadToEndAsync(Token);
    }

    private Shell Shell() => new(("XDG_CACHE_HOME", folder["cache"]));

    private Task<CommandResult> RunAsync(params string[] words) => Shell().RunAsync(words);

    private string Recipe(string more = "", string packages = "tool")
    {
        var path = folder[$"recipe-{builds++}.yaml"];
        File.WriteAllText(path, $"name: layer\nkind: application\non: debian-minimal\nbase: {{suite: bookworm, unverifiedSources: ['{archive.Source}']}}\npackages: [{packages}]\n{more}");
        return path;
    }

    private async Task<(string Folder, string[] Cached)> BuildAsync(string recipe, params string[] more)
    {
        var output = folder[$"built-{builds++}"];
        var done = await RunAsync(["image", "build", recipe, "--on", system, "-o", output, "--package-cache", folder["debs"], .. more]);
        return (output, [.. done.Error.Split('\n').Where(line => line.StartsWith("from the cache: ", StringComparison.Ordinal)).Select(line => line["from the cache: ".Length..])]);
    }
}
