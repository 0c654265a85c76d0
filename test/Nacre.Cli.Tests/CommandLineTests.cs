using System.Text.Json;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.Cli.Tests;

public sealed partial class CommandLineTests : IDisposable
{
    private readonly TemporaryDirectory folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("livepc", "start")]
    [InlineData("nonsense")]
    [InlineData("livepc", "start", "office", "--memory", "much")]
    [InlineData("device", "enrol", "ftp://x", "code")]
    public async Task A_wrong_command_line_ends_with_2_and_names_the_help(params string[] arguments)
    {
        var (code, output, error) = await RunAsync(arguments);
        Assert.Equal((int)ExitCode.Usage, code);
        Assert.Empty(output);
        Assert.StartsWith("nacre: error: ", error, StringComparison.Ordinal);
        Assert.Contains("nacre: hint: ", error, StringComparison.Ordinal);
        Assert.Contains("--help", error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task With_json_an_error_is_one_object_with_code_message_and_hint()
    {
        var (code, output, error) = await RunAsync("livepc", "list", "--json");
        Assert.Equal((int)ErrorCatalogue.NotEnrolled.ExitCode, code);
        Assert.Empty(output);
        var parsed = JsonDocument.Parse(error).RootElement;
        Assert.Equal(ErrorCatalogue.NotEnrolled.Code, parsed.GetProperty("code").GetString());
        Assert.NotEmpty(parsed.GetProperty("message").GetString()!);
        Assert.Equal(ErrorCatalogue.NotEnrolled.Hint, parsed.GetProperty("hint").GetString());
    }

    [Theory]
    [InlineData("livepc", "start", "Bad_Name")]
    [InlineData("livepc", "status", "../../etc")]
    public async Task A_bad_name_is_refused_before_anything_is_done(params string[] arguments)
    {
        var (code, _, error) = await RunAsync(arguments);
        Assert.Equal((int)ExitCode.Refused, code);
        Assert.Contains("can't be the name", error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_folder_that_is_no_image_and_a_bad_recipe_are_named()
    {
        var (code, _, error) = await RunAsync("image", "publish", folder["nothing"]);
        Assert.Equal((int)ExitCode.Refused, code);
        Assert.Contains("not a built golden image", error, StringComparison.Ordinal);
        await File.WriteAllTextAsync(folder["bad.yaml"], "name: x\npackages: [a]\ncolour: blue\n", TestContext.Current.CancellationToken);
        (code, _, error) = await RunAsync("image", "build", folder["bad.yaml"], "-o", folder["out"]);
        Assert.Equal((int)ErrorCatalogue.RecipeInvalid.ExitCode, code);
        Assert.Contains("bad.yaml:3:1: colour", error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(folder["out"]));
    }

    [Theory]
    [InlineData("image", "list")]
    [InlineData("user", "list")]
    [InlineData("device", "list")]
    public async Task Without_a_login_administration_says_how_to_log_in(params string[] arguments)
    {
        var (code, _, error) = await RunAsync(arguments);
        Assert.Equal((int)ErrorCatalogue.NotLoggedIn.ExitCode, code);
        Assert.Contains("nacre login", error, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_error_has_its_own_code_a_hint_and_a_line_in_the_documentation()
    {
        var documented = File.ReadAllText(Repository.At("docs", "cli.md"));
        Assert.True(ErrorCatalogue.All.Count > 30);
        Assert.All(ErrorCatalogue.All.Values, kind =>
        {
            Assert.Matches("^E_[A-Z_]+$", kind.Code);
            Assert.NotEmpty(kind.Hint);
            Assert.False(kind.Hint.EndsWith('.'), kind.Code);
            Assert.Contains($"`{kind.Code}` | {(int)kind.ExitCode} |", documented, StringComparison.Ordinal);
        });
        Assert.Equal(ErrorCatalogue.All.Count, CodeInTable().Count(documented));
    }

    [Fact]
    public void References_point_one_way()
    {
        var allowed = new Dictionary<string, string[]>
        {
            ["Policies"] = [],
            ["Contracts"] = ["Policies"],
            ["Volumes"] = [],
            ["Nbd"] = ["Volumes"],
            ["Client"] = ["Contracts"],
            ["Images"] = ["Contracts", "Volumes"],
            ["Server"] = ["Contracts"],
            ["Player"] = ["Client", "Contracts", "Images", "Nbd", "Volumes"],
            ["Cli"] = ["Client", "Contracts", "Images", "Player", "Server"],
        };
        var projects = Directory.GetFiles(Repository.At("src"), "*.csproj", SearchOption.AllDirectories);
        Assert.Equal(allowed.Keys.Order(), projects.Select(ShortName).Order());
        Assert.All(projects, project =>
        {
            var references = XDocument.Load(project).Descendants("ProjectReference").Select(reference => ShortName((string)reference.Attribute("Include")!)).Order();
            Assert.Equal(allowed[ShortName(project)].Order(), references);
        });
    }

    [Fact]
    public void No_library_of_the_product_that_is_not_in_the_list_of_dependencies()
    {
        var documented = File.ReadAllText(Repository.At("docs", "dependencies.md"));
        var used = Directory.GetFiles(Repository.At("src"), "*.csproj", SearchOption.AllDirectories)
            .SelectMany(project => XDocument.Load(project).Descendants("PackageReference")).Select(reference => (string)reference.Attribute("Include")!).Distinct();
        Assert.All(used, package => Assert.Contains(package, documented, StringComparison.Ordinal));
    }

    private static string ShortName(string project) => Path.GetFileNameWithoutExtension(project)["Nacre.".Length..];

    private Task<(int Code, string Output, string Error)> RunAsync(params string[] arguments) => NacreProgram.RunAsync(folder, arguments);

    [GeneratedRegex(@"^\| `E_", RegexOptions.Multiline)]
    private static partial Regex CodeInTable();
}
