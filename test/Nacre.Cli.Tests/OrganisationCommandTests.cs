using System.Net.Http.Json;
using System.Net.Sockets;
using Nacre.Contracts;
using Nacre.Server;
using Nacre.Testing;
using Xunit;

namespace Nacre.Cli.Tests;

/// <summary><c>nacre server organisation</c> beside a server that runs.</summary>
public sealed class OrganisationCommandTests : IDisposable
{
    private readonly TemporaryDirectory folder = new();

    private string Data => folder["server"];

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task An_organisation_is_added_listed_used_and_removed_while_the_server_runs()
    {
        await using var server = NacreServer.Create(new ServerOptions { DataDirectory = Data, Listen = "http://127.0.0.1:0" });
        await NacreServer.StartAsync(server, TestContext.Current.CancellationToken);
        Assert.Equal(0, (await OrganisationAsync("list", "--json")).Json().GetArrayLength());
        Assert.Contains("acme.example", (await OrganisationAsync("add", "acme", "--host", "ACME.example", "--host", "localhost", "--title", "Acme & Sons")).Output, StringComparison.Ordinal);
        var listed = Assert.Single((await OrganisationAsync("list", "--json")).Json().EnumerateArray());
        Assert.Equal(("acme", "Acme & Sons", "acme.example"), (listed.GetProperty("name").GetString(), listed.GetProperty("title").GetString(), listed.GetProperty("hosts")[0].GetString()));
        Assert.Contains("acme.example, localhost", (await OrganisationAsync("list")).Output, StringComparison.Ordinal);

        // By its name it is another organisation, whose administrator is not the server's.
        var url = new UriBuilder(server.Urls.First()) { Host = "localhost" }.Uri;
        var token = Path.Combine(listed.GetProperty("data").GetString()!, "admin-token");
        await UntilAsync(async () => File.Exists(token) && await NameAsync(url) == "Acme & Sons");
        Assert.Equal(0, (await NacreProgram.RunAsync(folder, "login", url.ToString(), "--token-file", token)).Code);
        Assert.Equal(0, (await NacreProgram.RunAsync(folder, "user", "add", "ann")).Code);
        Assert.NotEqual(0, (await NacreProgram.RunAsync(folder, "login", server.Urls.First(), "--token-file", token)).Code);

        // What can't be is refused.
        await RefusedAsync(ErrorCatalogue.AlreadyExists, "add", "acme", "--host", "b.example");
        await RefusedAsync(ErrorCatalogue.AlreadyExists, "add", "other", "--host", "acme.example");
        await RefusedAsync(ErrorCatalogue.NameInvalid, "add", "../x", "--host", "b.example");
        await RefusedAsync(ErrorCatalogue.UsageInvalid, "add", "other", "--host", "10.0.0.1");
        await RefusedAsync(ErrorCatalogue.UsageInvalid, "add", "other", "--host", "b.example", "--certificate", "x.pem");
        await RefusedAsync(ErrorCatalogue.UsageInvalid, "remove", "acme");
        await RefusedAsync(ErrorCatalogue.NotFound, "remove", "other", "--yes");
        Assert.Equal((int)ErrorCatalogue.NotFound.ExitCode, (await NacreProgram.RunAsync(folder, "server", "organisation", "list", "--data", folder["nothing"])).Code);

        var removed = (await OrganisationAsync("remove", "acme", "--yes", "--json")).Json().GetProperty("data").GetString()!;
        Assert.True(File.Exists(Path.Combine(removed, "nacre.db")));
        await UntilAsync(async () => await NameAsync(url) == "Nacre");
        Assert.Equal(0, (await OrganisationAsync("list", "--json")).Json().GetArrayLength());
    }

    private static async Task<string?> NameAsync(Uri url)
    {
        try
        {
            using var http = new HttpClient { BaseAddress = url };
            using var answer = await http.GetAsync(new Uri("v1/server", UriKind.Relative), TestContext.Current.CancellationToken);
            return answer.IsSuccessStatusCode ? (await answer.Content.ReadFromJsonAsync<ServerInfo>(ContractJson.Options, TestContext.Current.CancellationToken))!.Organisation : null;
        }
        catch (HttpRequestException exception) when (exception.InnerException is SocketException)
        {
            return null;
        }
    }

    private static async Task UntilAsync(Func<Task<bool>> isDone)
    {
        for (var limit = System.Diagnostics.Stopwatch.StartNew(); !await isDone(); await Task.Delay(100, TestContext.Current.CancellationToken))
        {
            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(1), "it did not come");
        }
    }

    private async Task<Done> OrganisationAsync(params string[] arguments)
    {
        var (code, output, error) = await NacreProgram.RunAsync(folder, ["server", "organisation", .. arguments, "--data", Data]);
        Assert.True(code == 0, error);
        return new Done(output);
    }

    private async Task RefusedAsync(ErrorKind kind, params string[] arguments)
    {
        var (code, _, error) = await NacreProgram.RunAsync(folder, ["server", "organisation", .. arguments, "--data", Data]);
        Assert.Equal((int)kind.ExitCode, code);
        Assert.Contains($"nacre: hint: {kind.Hint}", error, StringComparison.Ordinal);
    }

    private sealed record Done(string Output)
    {
        public System.Text.Json.JsonElement Json()
        {
            using var document = System.Text.Json.JsonDocument.Parse(Output);
            return document.RootElement.Clone();
        }
    }
}
