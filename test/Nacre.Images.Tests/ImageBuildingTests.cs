using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Images.Building;
using Nacre.Images.Checking;
using Nacre.Images.Recipes;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests;

public sealed class ImageBuildingTests
{
    private const string Hostile = "x'; touch /tmp/nacre-injected; $(id) `id` \"\\ \n#";

    [Theory]
    [InlineData("debian-minimal")]
    [InlineData("debian-desktop")]
    public void The_shipped_recipes_are_valid(string name) =>
        Assert.Equal(name, RecipeParser.Parse(Repository.At("recipes", name + ".yaml")).Name);

    [Theory]
    [InlineData("")]
    [InlineData("plain")]
    [InlineData("it's")]
    [InlineData(Hostile)]
    public async Task A_quoted_value_is_one_word_with_the_same_bytes(string value)
    {
        var start = new ProcessStartInfo("/bin/sh", ["-c", $"printf '%s.' {RecipeSteps.Quote(value)}"]) { RedirectStandardOutput = true };
        using var shell = Process.Start(start)!;
        Assert.Equal(value + ".", await shell.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task Nothing_of_a_recipe_reaches_a_shell_unquoted()
    {
        using var folder = new TemporaryDirectory();
        var recipe = new Recipe
        {
            Name = "a",
            HostName = Hostile,
            Locale = Hostile,
            TimeZone = Hostile,
            Users = [new RecipeUser { Name = Hostile, FullName = Hostile, Shell = Hostile, Groups = [Hostile], PasswordHash = Hostile, Autologin = true }],
            Files = [new RecipeFile { Path = "/" + Hostile, Owner = Hostile, Content = [1] }],
            EnabledServices = [Hostile],
            DisabledServices = [Hostile],
            Scripts = [new RecipeScript { Name = Hostile, Run = "true" }],
        };
        RecipeSteps.Write(recipe, folder.Path);

        // Outside quotes nothing of the hostile value is left: take the quoted words out and look.
        var script = await File.ReadAllTextAsync(folder["recipe.sh"], TestContext.Current.CancellationToken);
        var bare = script.Replace(RecipeSteps.Quote(Hostile), "W", StringComparison.Ordinal).Replace(RecipeSteps.Quote("/" + Hostile), "W", StringComparison.Ordinal);
        Assert.DoesNotContain("nacre-injected", bare, StringComparison.Ordinal);
    }

    [Fact]
    public void Hooks_are_the_same_text_for_every_recipe()
    {
        static IEnumerable<string> Hooks(Recipe recipe) =>
            ImageBuilder.ArgumentsOf(recipe, []).Where(argument => argument.Contains("hook=", StringComparison.Ordinal));
        var hostile = new Recipe { Name = Hostile, HostName = Hostile, Base = new RecipeBase { Suite = Hostile } };
        Assert.Equal(Hooks(new Recipe()), Hooks(hostile));
    }

    [Fact]
    public void The_builders_own_apt_state_is_out_of_a_builds_reach()
    {
        // Once, finish emptied /tmp in the root and with it mmdebstrap's apt configuration; its clean-up then emptied the lists of the host.
        var finish = File.ReadAllText(Repository.At("guest", "build", "finish"));
        Assert.DoesNotContain(" /tmp/", finish, StringComparison.Ordinal);
        Assert.Contains(ImageBuilder.ArgumentsOf(new Recipe(), []), argument =>
            argument.StartsWith("--skip=", StringComparison.Ordinal) && argument.Contains("cleanup/apt", StringComparison.Ordinal));
    }

    [Fact]
    public void Only_debian_archives_of_the_suite_are_taken_from_the_machine()
    {
        using var apt = new TemporaryDirectory();
        Directory.CreateDirectory(apt["sources.list.d"]);
        File.WriteAllText(apt["sources.list"], "# deb http://no/debian bookworm main\ndeb [arch=amd64 signed-by=/k.gpg] http://one/debian bookworm main contrib\ndeb http://one/debian trixie main\n");
        File.WriteAllText(apt["sources.list.d/a.sources"], "Types: deb deb-src\nURIs: http://two/debian\nSuites: bookworm\n bookworm-updates\nSigned-By: /k.gpg\n\nEnabled: no\nTypes: deb\nURIs: http://three/debian\nSuites: bookworm\n");
        File.WriteAllText(apt["sources.list.d/b.list"], "deb https://packages.vendor.example/apt bookworm main\n");
        Assert.Equal(
            [
                "deb [signed-by=/k.gpg] http://one/debian bookworm main",
                "deb [signed-by=/k.gpg] http://two/debian bookworm main",
                "deb [signed-by=/k.gpg] http://two/debian bookworm-updates main",
            ],
            AptSources.ForSuite(apt.Path, "bookworm", ["main"]));
    }

    [Fact]
    public void A_source_of_the_machine_is_never_taken_without_a_signature()
    {
        using var apt = new TemporaryDirectory();
        Directory.CreateDirectory(apt["sources.list.d"]);
        File.WriteAllText(apt["sources.list"], "deb [trusted=yes signed-by=/k.gpg] http://one/debian bookworm main\n");
        File.WriteAllText(apt["sources.list.d/a.sources"], "Types: deb\nURIs: http://two/debian\nSuites: bookworm\nTrusted: yes\nSigned-By: /k.gpg\n");
        Assert.Equal(
            ["deb [signed-by=/k.gpg] http://one/debian bookworm main", "deb [signed-by=/k.gpg] http://two/debian bookworm main"],
            AptSources.ForSuite(apt.Path, "bookworm", ["main"]));
    }

    [Fact]
    public void An_unverified_source_is_taken_by_a_key_of_its_own_and_the_check_says_that_nobody_looked()
    {
        using var folder = new TemporaryDirectory();
        File.WriteAllText(
            folder["recipe.yaml"],
            "name: a\nbase:\n  suite: bookworm\n  sources: ['deb http://a/debian bookworm main']\n  unverifiedSources: ['deb http://b/debian test main', 'deb [arch=amd64] http://c/debian test main']\n");
        Assert.Equal(
            ["deb http://a/debian bookworm main", "deb [trusted=yes] http://b/debian test main", "deb [trusted=yes arch=amd64] http://c/debian test main"],
            ImageBuilder.SourcesOf(RecipeParser.Parse(folder["recipe.yaml"])));

        SignedArchive signed = new("a", "00", "key"), unsigned = new("b", "00", ""), unverified = new("c", "00", "", IsUnverified: true);
        Assert.Equal(CheckOutcome.Passed, ImageChecker.Signatures([signed]).Outcome);
        Assert.Equal(CheckOutcome.Failed, ImageChecker.Signatures([signed, unsigned, unverified]).Outcome);
        var check = ImageChecker.Signatures([signed, unverified]);
        Assert.Equal(CheckOutcome.NotDone, check.Outcome);
        Assert.Equal("packages of 1 sources were not verified, as the recipe says (base.unverifiedSources); 1 of 1 archives are signed by a key of their keyring", check.Summary);
    }

    [Fact]
    public void A_missing_program_is_named_with_its_package()
    {
        var exception = Assert.Throws<ImageBuildException>(() => ImageBuilder.RequirePrograms("", []));
        Assert.Equal(ImageBuildFailure.MissingProgram, exception.Failure);
        Assert.Contains("erofs-utils", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_failed_step_shows_the_log_and_leaves_no_output()
    {
        Require.Tool("mmdebstrap");
        Require.Tool("mkfs.erofs");
        using var folder = new TemporaryDirectory();
        var path = folder["recipe.yaml"];
        await File.WriteAllTextAsync(path, "name: a\nbase: {suite: bookworm, mirror: 'http://127.0.0.1:1/debian'}\n", TestContext.Current.CancellationToken);
        var exception = await Assert.ThrowsAsync<ImageBuildException>(() => BuildAsync(path, folder["out"], folder["debs"]));
        Assert.Equal(ImageBuildFailure.StepFailed, exception.Failure);
        Assert.Contains(exception.LogFile!, exception.Message, StringComparison.Ordinal);
        Assert.False(Path.Exists(folder["out"]));
        Assert.True(File.Exists(exception.LogFile));
    }

    private static Task<BuiltImage> BuildAsync(string recipe, string output, string cache) => ImageBuilder.BuildAsync(
        RecipeParser.Parse(recipe), output, new BuildOptions { PackageCache = cache }, new Progress<BuildProgress>(), TestContext.Current.CancellationToken);
}
