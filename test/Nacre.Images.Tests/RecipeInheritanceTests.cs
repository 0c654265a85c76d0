using Nacre.Images.Recipes;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests;

/// <summary>Recipes that are from another recipe, and their variables.</summary>
public sealed class RecipeInheritanceTests : IDisposable
{
    private const string Base = """
        name: base
        description: the base
        variables: {SITE: paris, EMPTY: ''}
        base: {suite: bookworm}
        packages: [bash, vim]
        files:
          - {path: /etc/a, content: a, mode: 0600}
          - {path: /etc/b, content: b}
        services: {enable: [one.service]}
        scripts: [{name: first, run: 'true'}]

        """;

    private readonly TemporaryDirectory folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public void Lists_grow_keys_win_and_what_is_named_the_same_is_the_same()
    {
        Write("base.yaml", Base);
        File.WriteAllText(folder["content"], "from a file");
        var recipe = Parse("""
            from: base.yaml
            name: child
            packages: [vim, nano]
            files: [{path: /etc/a, source: content}, {path: /etc/c, content: c}]
            services: {enable: [two.service]}
            scripts: [{name: first, run: 'false'}, {name: second, run: 'true'}]
            """);
        Assert.Equal(("child", "the base", "bookworm"), (recipe.Name, recipe.Description, recipe.Base.Suite));
        Assert.Equal(["bash", "vim", "nano"], recipe.Packages);
        Assert.Equal(["/etc/a", "/etc/b", "/etc/c"], recipe.Files.Select(file => file.Path));
        Assert.Equal((0b110_000_000, "from a file"), (recipe.Files[0].Mode, System.Text.Encoding.UTF8.GetString([.. recipe.Files[0].Content])));
        Assert.Equal(["one.service", "two.service"], recipe.EnabledServices);
        Assert.Equal(["false", "true"], recipe.Scripts.Select(script => script.Run));
    }

    [Fact]
    public void A_value_replaces_the_default_once_and_is_never_structure()
    {
        Write("base.yaml", Base);
        const string Text = """
            from: base.yaml
            name: child
            hostname: ${SITE}
            files: [{path: '/etc/${SITE}', content: 'a ${SITE}${EMPTY} $${SITE} $SITE'}]
            """;
        Assert.Equal("a paris ${SITE} $SITE", System.Text.Encoding.UTF8.GetString([.. Parse(Text).Files[^1].Content]));
        var berlin = Parse(Text, ("SITE", "berlin"));
        Assert.Equal(("berlin", "/etc/berlin"), (berlin.HostName, berlin.Files[^1].Path));
        Assert.NotEqual(Parse(Text).Sha256, berlin.Sha256);

        // What looks like YAML, or like another use of a variable, is text that the key's own rule judges.
        Assert.Contains(Fail(Text, ("SITE", "x\nusers: [{name: evil}]")).Errors, error => error.Key == "hostname");
        Assert.Contains(Fail(Text, ("SITE", "${EMPTY}")).Errors, error => error.Key == "hostname");
        Assert.Contains(Fail(Text, ("SITE", "../../etc/passwd")).Errors, error => error.Key == "files[2].path");
    }

    [Theory]
    [InlineData("description: ${NONE}\n", 3, 14, "description")]
    [InlineData("description: ${}\n", 3, 14, "description")]
    [InlineData("description: '${NONE'\n", 3, 14, "description")]
    [InlineData("variables: {NEEDED: }\n", 3, 13, "variables.NEEDED")]
    [InlineData("variables: {'a b': c}\n", 3, 13, "variables")]
    [InlineData("variables: [A]\n", 3, 12, "variables")]
    [InlineData("secrets: ['../x']\n", 3, 11, "secrets[0]")]
    public void A_wrong_use_is_named_with_its_place(string line, int row, int column, string key)
    {
        var exception = Fail("name: child\nbase: {suite: bookworm}\n" + line);
        Assert.Contains(exception.Errors, error => (error.File, error.Line, error.Column, error.Key) == (folder["recipe.yaml"], row, column, key));
    }

    [Fact]
    public void An_error_in_the_recipe_below_names_that_file()
    {
        Write("base.yaml", Base + "colour: ${NONE}\n");
        var errors = Fail("from: base.yaml\nname: child\n").Errors;
        Assert.Contains(errors, error => error.Key == "colour" && error.File == folder["base.yaml"] && error.Line == 11);
    }

    [Fact]
    public void A_value_for_no_variable_is_refused() =>
        Assert.Contains("no variable is called so", Assert.Single(Fail("name: child\nbase: {suite: bookworm}\n", ("X", "1")).Errors).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("recipe.yaml", "in turn")]
    [InlineData("missing.yaml", "does not exist")]
    [InlineData("../base.yaml", "below the recipe's folder")]
    [InlineData("/etc/passwd", "below the recipe's folder")]
    [InlineData("link.yaml", "symbolic link")]
    public void A_recipe_is_from_a_file_beside_it_and_not_from_itself(string from, string expected)
    {
        File.CreateSymbolicLink(folder["link.yaml"], "/etc/passwd");
        Assert.Contains(Fail($"from: {from}\nname: child\n").Errors, error => error.Key == "from" && error.Message.Contains(expected, StringComparison.Ordinal));
    }

    [Fact]
    public void Circles_and_long_chains_end()
    {
        Write("a.yaml", "from: b.yaml\nname: a\n");
        Write("b.yaml", "from: a.yaml\nname: b\n");
        Assert.Contains(Fail("from: a.yaml\nname: child\n").Errors, error => error.Message.Contains("in turn", StringComparison.Ordinal));
        for (var index = 0; index < 20; index++)
        {
            Write($"{index}.yaml", $"from: {index + 1}.yaml\nname: a\n");
        }

        Assert.Contains(Fail("from: 0.yaml\nname: child\n").Errors, error => error.Message.Contains("more than 8 recipes", StringComparison.Ordinal));
    }

    [Fact]
    public void A_long_value_used_often_does_not_fill_memory()
    {
        var uses = string.Concat(Enumerable.Repeat("${X}", 100_000));
        Assert.Contains(Fail($"name: child\nbase: {{suite: bookworm}}\nvariables: {{X: a}}\ndescription: '{uses}'\n", ("X", new string('x', 10_000))).Errors, error => error.Message.Contains("characters", StringComparison.Ordinal));
    }

    private void Write(string name, string text) => File.WriteAllText(folder[name], text);

    private Recipe Parse(string text, params (string Name, string Value)[] variables)
    {
        Write("recipe.yaml", text);
        return RecipeParser.Parse(folder["recipe.yaml"], variables.ToDictionary(pair => pair.Name, pair => pair.Value));
    }

    private RecipeException Fail(string text, params (string Name, string Value)[] variables) => Assert.Throws<RecipeException>(() => Parse(text, variables));
}
