using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Images.Building;
using Nacre.Images.Recipes;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests;

/// <summary>Application layers: their recipes, and the databases that several corporate layers share (<c>guest/files/usr/lib/nacre/corporate</c>).</summary>
public sealed class CorporateLayersTests : IDisposable
{
    private readonly TemporaryDirectory root = new();
    private readonly TemporaryDirectory result = new();

    public void Dispose()
    {
        root.Dispose();
        result.Dispose();
    }

    [Fact]
    public void Packages_of_all_layers_are_in_one_status_and_a_later_layer_wins()
    {
        Write("var/lib/dpkg/status", "Package: base\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n");
        Part("one", "status", "Package: liba\nArchitecture: amd64\nVersion: 1\n\nPackage: only\nArchitecture: all\nVersion: 5\n\n");
        Part("two", "status", "Package: liba\nArchitecture: amd64\nVersion: 2\n\n");
        Compose("one", "two");
        Assert.Equal(
            "Package: base\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\nPackage: liba\nArchitecture: amd64\nVersion: 2\n\nPackage: only\nArchitecture: all\nVersion: 5\n\n",
            Read("var/lib/dpkg/status"));
        Compose("two", "one");
        Assert.Contains("Package: liba\nArchitecture: amd64\nVersion: 1\n", Read("var/lib/dpkg/status"), StringComparison.Ordinal);
    }

    [Fact]
    public void Accounts_are_united_by_name_and_the_systems_own_stand()
    {
        Write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n");
        Write("etc/group", "root:x:0:\nvideo:x:44:user\n");
        Part("one", "accounts/passwd", "web:x:300:300::/:/usr/sbin/nologin\nroot:x:0:0:evil:/root:/bin/sh\n");
        Part("one", "accounts/group", "web:x:300:\nvideo:x:44:user,web\n");
        Part("two", "accounts/group", "video:x:44:other\n");
        Compose("one", "two");
        Assert.Equal("root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\nweb:x:300:300::/:/usr/sbin/nologin\n", Read("etc/passwd"));
        Assert.Equal("root:x:0:\nvideo:x:44:user,web,other\nweb:x:300:\n", Read("etc/group"));
        Assert.False(File.Exists(result["etc/shadow"]));
    }

    [Fact]
    public void Alternatives_of_all_layers_compete_and_those_that_are_gone_do_not()
    {
        foreach (var program in new[] { "vi", "nano", "emacs", "emacs.1" })
        {
            Write("usr/bin/" + program, "");
        }

        Write("var/lib/dpkg/alternatives/editor", "auto\n/usr/bin/editor\neditor.1\n/usr/share/man/editor.1\n\n/usr/bin/vi\n30\n\n\n");
        Part("one", "alternatives/editor", "auto\n/usr/bin/editor\neditor.1\n/usr/share/man/editor.1\n\n/usr/bin/gone\n90\n\n/usr/bin/vi\n30\n\n/usr/bin/nano\n40\n\n\n");
        Part("two", "alternatives/editor", "auto\n/usr/bin/editor\neditor.1\n/usr/share/man/editor.1\n\n/usr/bin/emacs\n50\n/usr/bin/emacs.1\n\n");
        Compose("one", "two");
        Assert.Equal(
            "auto\n/usr/bin/editor\neditor.1\n/usr/share/man/editor.1\n\n/usr/bin/emacs\n50\n/usr/bin/emacs.1\n/usr/bin/nano\n40\n\n/usr/bin/vi\n30\n\n\n",
            Read("var/lib/dpkg/alternatives/editor"));
        Assert.Equal("/usr/bin/emacs", new FileInfo(result["etc/alternatives/editor"]).LinkTarget);
        Assert.Equal("/usr/bin/emacs.1", new FileInfo(result["etc/alternatives/editor.1"]).LinkTarget);
        Assert.Equal("/etc/alternatives/editor", new FileInfo(result["usr/bin/editor"]).LinkTarget);
        Compose("one");
        Assert.Equal("/usr/bin/nano", new FileInfo(result["etc/alternatives/editor"]).LinkTarget);
    }

    [Fact]
    public void Diversions_triggers_overrides_shells_and_answers_are_united()
    {
        Write("var/lib/dpkg/diversions", "/bin/sh\n/bin/sh.distrib\ndash\n");
        Write("etc/shells", "/bin/sh\n");
        Write("var/cache/debconf/config.dat", "Name: a/b\nValue: 1\n\n");
        Part("one", "diversions", "/usr/bin/x\n/usr/bin/x.real\nfoo\n");
        Part("one", "triggers/File", "/usr/share/foo foo\n");
        Part("two", "triggers/File", "/usr/share/foo foo\n/usr/share/bar bar\n");
        Part("one", "shells", "/bin/zsh\n");
        Part("one", "statoverride", "root web 2755 /usr/bin/y\n");
        Part("two", "statoverride", "root root 4755 /usr/bin/y\n");
        Part("two", "debconf/config.dat", "Name: a/b\nValue: 2\n\nName: c/d\n\n");
        Compose("one", "two");
        Assert.Equal("/bin/sh\n/bin/sh.distrib\ndash\n/usr/bin/x\n/usr/bin/x.real\nfoo\n", Read("var/lib/dpkg/diversions"));
        Assert.Equal("/usr/share/foo foo\n/usr/share/bar bar\n", Read("var/lib/dpkg/triggers/File"));
        Assert.Equal("/bin/sh\n/bin/zsh\n", Read("etc/shells"));
        Assert.Equal("root root 4755 /usr/bin/y\n", Read("var/lib/dpkg/statoverride"));
        Assert.Equal("Name: a/b\nValue: 2\n\nName: c/d\n\n", Read("var/cache/debconf/config.dat"));
    }

    [Fact]
    public void Without_a_layer_nothing_is_written_and_a_name_that_is_none_is_refused()
    {
        Write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
        Assert.Equal(0, Run().ExitCode);
        Assert.Empty(Directory.GetFileSystemEntries(result.Path));
        var refused = Run("../etc");
        Assert.Equal((1, "corporate: '../etc' is no layer's name"), (refused.ExitCode, refused.Error.Trim()));
        Assert.Empty(Directory.GetFileSystemEntries(result.Path));
    }

    [Theory]
    [InlineData("name: a\nkind: application\n", "on")]
    [InlineData("name: a\nkind: application\non: b\nkernel: {package: linux-image-amd64}\n", "kernel")]
    [InlineData("name: a\nkind: application\non: b\nusers: [{name: x}]\n", "users")]
    [InlineData("name: a\nkind: application\non: b\nhostname: x\n", "hostname")]
    [InlineData("name: a\nkind: layer\non: b\n", "kind")]
    [InlineData("name: a\non: b\nbase: {suite: bookworm}\n", "on")]
    public void A_recipe_says_only_what_its_kind_can_have(string text, string key) => Assert.Contains(Parse(text, out _)!.Errors, error => error.Key == key);

    [Fact]
    public void An_application_needs_no_base_and_gets_the_same_numbers_for_its_accounts()
    {
        Assert.Null(Parse("name: tools\nkind: application\non: debian-minimal\npackages: [tree]\n", out var recipe));
        Assert.Equal((ImageKind.Application, "debian-minimal"), (recipe!.Kind, recipe.On));
        var (first, last) = ImageBuilder.AccountNumbersOf("tools");
        Assert.Equal((first, last), ImageBuilder.AccountNumbersOf("tools"));
        Assert.Equal(19, last - first);
        Assert.All(Enumerable.Range(0, 200), number => Assert.InRange(ImageBuilder.AccountNumbersOf($"layer-{number}").First, 300, 880));
    }

    [Fact]
    public async Task A_layer_is_built_only_on_the_system_that_it_is_for()
    {
        Require.Tool("mkfs.erofs");
        Require.Tool("mmdebstrap");
        Parse("name: tools\nkind: application\non: debian-minimal\n", out var recipe);
        var progress = new Progress<BuildProgress>();
        var absent = await Assert.ThrowsAsync<ImageBuildException>(() => ImageBuilder.BuildApplicationAsync(
            recipe!, root["nothing"], result["out"], new BuildOptions(), progress, TestContext.Current.CancellationToken));
        Assert.Equal(ImageBuildFailure.OtherSystem, absent.Failure);
        var alone = await Assert.ThrowsAsync<ImageBuildException>(() => ImageBuilder.BuildAsync(
            recipe!, result["out"], new BuildOptions(), progress, TestContext.Current.CancellationToken));
        Assert.Equal(ImageBuildFailure.OtherSystem, alone.Failure);
        Assert.False(Path.Exists(result["out"]));
    }

    private static RecipeException? Parse(string text, out Recipe? recipe)
    {
        using var folder = new TemporaryDirectory();
        File.WriteAllText(folder["recipe.yaml"], text);
        recipe = null;
        try
        {
            recipe = RecipeParser.Parse(folder["recipe.yaml"]);
            return null;
        }
        catch (RecipeException exception)
        {
            return exception;
        }
    }

    private void Write(string path, string text)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(root[path])!);
        File.WriteAllText(root[path], text);
    }

    private void Part(string layer, string part, string text) => Write($"usr/share/nacre/application-layers/{layer}/{part}", text);

    private string Read(string path) => File.ReadAllText(result[path]);

    private void Compose(params string[] layers)
    {
        var ended = Run(layers);
        Assert.Equal((0, ""), (ended.ExitCode, ended.Error));
    }

    private (int ExitCode, string Error) Run(params string[] layers)
    {
        var start = new ProcessStartInfo(Require.Tool("perl"), [Repository.At("guest", "files", "usr", "lib", "nacre", "corporate"), root.Path, result.Path, .. layers]) { RedirectStandardError = true };
        using var process = Process.Start(start)!;
        var error = process.StandardError.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, error);
    }
}
