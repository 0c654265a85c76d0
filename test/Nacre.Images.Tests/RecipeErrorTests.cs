using Nacre.Images.Recipes;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests;

public sealed class RecipeErrorTests
{
    private const string Head = "name: test\nbase:\n  suite: bookworm\n";

    public static TheoryData<string, int, int, string> BadRecipes => new()
    {
        { "", 1, 1, "" },
        { "- a\n", 1, 1, "" },
        { "name: test\n", 1, 1, "base" },
        { "name: Test Name\nbase: {suite: bookworm}\n", 1, 7, "name" },
        { "name: [a]\nbase: {suite: bookworm}\n", 1, 7, "name" },
        { "name:\nbase: {suite: bookworm}\n", 1, 6, "name" },
        { "name: test\nbase: bookworm\n", 2, 7, "base" },
        { "name: test\nbase: {suite: ../etc}\n", 2, 15, "base.suite" },
        { "name: test\nbase:\n  suite: bookworm\n  mirror: file:///etc\n", 4, 11, "base.mirror" },
        { "name: test\nbase:\n  suite: bookworm\n  sources: ['deb [trusted=yes] http://a/debian bookworm main']\n", 4, 13, "base.sources[0]" },
        { "name: test\nbase:\n  suite: bookworm\n  sources: ['deb [signed-by=/k.gpg allow-insecure=yes] http://a/debian bookworm main']\n", 4, 13, "base.sources[0]" },
        { "name: test\nbase:\n  suite: bookworm\n  unverifiedSources: ['deb [trusted=yes] http://a/debian bookworm main']\n", 4, 23, "base.unverifiedSources[0]" },
        { "name: test\nbase:\n  suite: bookworm\n  unverifiedSources: ['deb [signed-by=/k.gpg] http://a/debian bookworm main']\n", 4, 23, "base.unverifiedSources[0]" },
        { Head + "colour: red\n", 4, 1, "colour" },
        { Head + "name: again\n", 4, 1, "name" },
        { Head + "packages: bash\n", 4, 11, "packages" },
        { Head + "packages: [bash, '$(id)']\n", 4, 18, "packages[1]" },
        { Head + "packages: ['--option']\n", 4, 12, "packages[0]" },
        { Head + "packages: ['bash,evil']\n", 4, 12, "packages[0]" },
        { Head + "packages: [bash, bash]\n", 4, 18, "packages[1]" },
        { Head + "packages: [\"bash\\n\"]\n", 4, 12, "packages[0]" },
        { Head + "kernel: {package: bash}\n", 4, 19, "kernel.package" },
        { Head + "kernel: {package: linux-image-amd64, cmdline: 'a\"b'}\n", 4, 47, "kernel.cmdline" },
        { Head + "files:\n  - {path: etc/a, content: x}\n", 5, 12, "files[0].path" },
        { Head + "files:\n  - {path: /etc/../a, content: x}\n", 5, 12, "files[0].path" },
        { Head + "files:\n  - {path: /a, content: x, source: y}\n", 5, 36, "files[0].content" },
        { Head + "files:\n  - {path: /a}\n", 5, 5, "files[0].content" },
        { Head + "files:\n  - {path: /a, source: nothing-here}\n", 5, 24, "files[0].source" },
        { Head + "files:\n  - {path: /a, source: ../secret}\n", 5, 24, "files[0].source" },
        { Head + "files:\n  - {path: /a, source: /etc/passwd}\n", 5, 24, "files[0].source" },
        { Head + "files:\n  - {path: /a, content: x, mode: 999}\n", 5, 34, "files[0].mode" },
        { Head + "files:\n  - {path: /a, content: x, owner: 'a;b'}\n", 5, 35, "files[0].owner" },
        { Head + "users:\n  - {name: root}\n", 5, 12, "users[0].name" },
        { Head + "users:\n  - {name: 'x y'}\n", 5, 12, "users[0].name" },
        { Head + "users:\n  - {name: a, password: secret}\n", 5, 25, "users[0].password" },
        { Head + "users:\n  - {name: a, autologin: maybe}\n", 5, 26, "users[0].autologin" },
        { Head + "users:\n  - {name: a, shell: bash}\n", 5, 22, "users[0].shell" },
        { Head + "services: {enable: ['a b.service']}\n", 4, 21, "services.enable[0]" },
        { Head + "scripts:\n  - {name: x}\n", 5, 5, "scripts[0].run" },
        { Head + "hostname: a.b\n", 4, 11, "hostname" },
        { Head + "timezone: ../../etc\n", 4, 11, "timezone" },
        { Head + "description: &a x\n", 4, 14, "description" },
        { Head + "description: !!str x\n", 4, 14, "description" },
        { "name: a\n---\nname: b\n", 1, 1, "base" },
    };

    [Theory]
    [MemberData(nameof(BadRecipes))]
    public void An_error_names_its_line_column_and_key(string text, int line, int column, string key)
    {
        using var folder = new TemporaryDirectory();
        var path = folder["recipe.yaml"];
        File.WriteAllText(path, text);
        var exception = Assert.Throws<RecipeException>(() => RecipeParser.Parse(path));
        Assert.Contains(exception.Errors, error => (error.File, error.Line, error.Column, error.Key) == (path, line, column, key));
    }

    [Fact]
    public void All_errors_are_reported_at_once()
    {
        var exception = Fail("name: BAD\nbase: {suite: bookworm}\npackages: ['a b']\ncolour: red\n");
        Assert.Equal(["name", "packages[0]", "colour"], exception.Errors.Select(error => error.Key));
    }

    [Fact]
    public void Aliases_are_refused_before_they_expand()
    {
        var text = Head + "description: &a x\nhostname: *a\n";
        Assert.Contains(Fail(text).Errors, error => error.Message.Contains("aliases", StringComparison.Ordinal));
    }

    [Fact]
    public void Deep_nesting_is_refused() =>
        Assert.Contains(Fail(Head + "packages: " + new string('[', 500) + new string(']', 500)).Errors, error => error.Message.Contains("nested", StringComparison.Ordinal));

    [Fact]
    public void An_oversize_recipe_is_refused_unparsed() =>
        Assert.Contains("larger than", Assert.Single(Fail(Head + "#" + new string('x', 2 << 20)).Errors).Message, StringComparison.Ordinal);

    [Fact]
    public void Text_that_is_not_yaml_is_refused_with_its_place() => Assert.Equal(2, Assert.Single(Fail("name: a\nb: ]c\n").Errors, error => error.Message.StartsWith("not YAML", StringComparison.Ordinal)).Line);

    [Fact]
    public void A_source_through_a_symbolic_link_is_refused()
    {
        using var folder = new TemporaryDirectory();
        File.CreateSymbolicLink(folder["link"], "/etc/passwd");
        File.WriteAllText(folder["recipe.yaml"], Head + "files: [{path: /a, source: link}]\n");
        var exception = Assert.Throws<RecipeException>(() => RecipeParser.Parse(folder["recipe.yaml"]));
        Assert.Contains("symbolic link", Assert.Single(exception.Errors).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_hash_changes_with_a_source()
    {
        using var folder = new TemporaryDirectory();
        File.WriteAllText(folder["recipe.yaml"], Head + "files: [{path: /a, source: a}]\n");
        File.WriteAllText(folder["a"], "1");
        var first = RecipeParser.Parse(folder["recipe.yaml"]);
        File.WriteAllText(folder["a"], "2");
        Assert.NotEqual(first.Sha256, RecipeParser.Parse(folder["recipe.yaml"]).Sha256);
    }

    private static RecipeException Fail(string text)
    {
        using var folder = new TemporaryDirectory();
        File.WriteAllText(folder["recipe.yaml"], text);
        return Assert.Throws<RecipeException>(() => RecipeParser.Parse(folder["recipe.yaml"]));
    }
}
