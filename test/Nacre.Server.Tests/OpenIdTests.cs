using System.Diagnostics;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging.Abstractions;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>Signing in by OpenID Connect: with a provider that nobody here wrote, and with one that lies.</summary>
public partial class OpenIdTests
{
    private static readonly OpenIdMapping[] Mappings = [new("*", "user", null), new("publishers", "author", null), new("desk", "help-desk", null), new("staff", null, "staff")];

    private static OpenIdProvider Settings(World world, string issuer, string? secret = RealProvider.Secret, params OpenIdMapping[] mappings) =>
        new(issuer, "nacre", secret, world.Url.AbsoluteUri, "preferred_username", "groups", ["profile"], mappings.Length == 0 ? Mappings : mappings);

    private static async Task<World> StartNowAsync()
    {
        var world = await StartAsync();
        world.Time.Advance(TimeProvider.System.GetUtcNow() - world.Time.GetUtcNow()); // the provider's clock is the computer's
        await world.Admin.CreateGroupAsync("staff");
        return world;
    }

    private static async Task<SignedIn> ReadAsync(HttpResponseMessage response)
    {
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        return JsonSerializer.Deserialize<SignedIn>(await response.Content.ReadAsStringAsync(), ContractJson.Options)!;
    }

    private static NacreClient As(World world, SignedIn session) => new(world.Url, Credential.Person(session.Token), world.Time);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_person_signs_in_with_a_browser_and_the_groups_say_what_it_may_do(bool claimsAreAtUserInfo)
    {
        await using var world = await StartNowAsync();
        await using var provider = await RealProvider.StartAsync(world, claimsAreAtUserInfo, new() { ["1-ann"] = ["publishers", "staff", "unknown"], ["2-bob"] = [] });
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.GetOpenIdProviderAsync());
        await world.Admin.PutOpenIdProviderAsync(Settings(world, provider.Issuer));
        Assert.Null((await world.Admin.GetOpenIdProviderAsync()).ClientSecret);
        using var browser = new Browser();
        var callback = await browser.SignInAsync(new Uri(world.Url, "v1/sign-in/oidc"), "1-ann", world.Url);
        Assert.Matches("code=.*state=", callback.Query);

        // Another browser, to which somebody sent the address, is not signed in by it; nor is one with another state.
        using (var other = new Browser())
        {
            await ProblemAsync(await other.GetAsync(callback), ErrorCatalogue.SignInRefused);
        }

        var session = await ReadAsync(await browser.GetAsync(callback));
        Assert.Equal("ann", session.Name);
        Assert.Equal(["author", "user"], session.Roles);
        using (var ann = As(world, session))
        {
            Assert.False((await ann.GetAccountAsync()).HasPassword);
            Assert.Equal("OpenID Connect", Assert.Single(await ann.ListSessionsAsync()).Method);
            Assert.Empty(await ann.ListImagesAsync());
            await FailsAsync(ErrorCatalogue.Forbidden, ann.GetAuditAsync());
            Assert.Equal(["ann"], Assert.Single(await world.Admin.ListGroupsAsync()).Users);

            // Once only.
            await ProblemAsync(await browser.GetAsync(callback), ErrorCatalogue.SignInRefused);

            // Other groups at the next sign-in: other rights at once, in the session of before too, which ends.
            provider.Groups["1-ann"] = ["desk"];
            await provider.RestartAsync();
            await world.Admin.PutOpenIdProviderAsync(Settings(world, provider.Issuer));
            await FailsAsync(ErrorCatalogue.Unauthenticated, ann.GetAccountAsync());
        }

        Assert.Contains((await world.Admin.GetAuditAsync()).Entries, entry => entry is { Actor: "author:ann", Action: "sign-in", Detail: "OpenID Connect" });
        Assert.DoesNotContain(RealProvider.Secret, world.Log.Text + string.Join('\n', (await world.Admin.GetAuditAsync()).Entries), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_program_is_signed_in_by_a_person_in_a_browser()
    {
        await using var world = await StartNowAsync();
        await using var provider = await RealProvider.StartAsync(world, claimsAreAtUserInfo: false, new() { ["1-ann"] = ["desk"] });
        await FailsAsync(ErrorCatalogue.ProviderMissing, world.Nobody.BeginDeviceSignInAsync());
        await world.Admin.PutOpenIdProviderAsync(Settings(world, provider.Issuer));
        var begun = await world.Nobody.BeginDeviceSignInAsync();
        Assert.Null((await world.Nobody.PollDeviceSignInAsync(begun.Flow)).SignedIn);
        using var browser = new Browser();
        await browser.ConfirmDeviceAsync(new Uri(begun.VerificationUriComplete!), "1-ann");

        // Too soon: the provider is not even asked.
        Assert.Null((await world.Nobody.PollDeviceSignInAsync(begun.Flow)).SignedIn);
        world.Time.Advance(TimeSpan.FromSeconds(begun.Interval));
        await FailsAsync(ErrorCatalogue.SignInRefused, world.Nobody.PollDeviceSignInAsync(begun.UserCode));
        var answers = await Task.WhenAll(Enumerable.Range(0, 3).Select(async _ => (await world.SendAsync("POST", "v1/sign-in/oidc/device/poll", null, Json(new PollSignIn(begun.Flow)))).StatusCode));
        Assert.Contains(HttpStatusCode.OK, answers);
        await FailsAsync(ErrorCatalogue.SignInRefused, world.Nobody.PollDeviceSignInAsync(begun.Flow)); // once only
        var person = (await world.Admin.ListPeopleAsync()).Single();
        Assert.Equal(("ann", true, 1), (person.Name, person.IsFederated, person.Sessions));
        Assert.Equal(["help-desk", "user"], person.Roles);

        // An administrator's mapping counts at once; without a provider nobody stays.
        await world.Admin.RemoveOpenIdProviderAsync();
        Assert.Equal(0, (await world.Admin.ListPeopleAsync()).Single().Sessions);
        Assert.Equal(["user"], (await world.Admin.ListPeopleAsync()).Single().Roles);
        Assert.Equal(["openid.put", "openid.remove"], (await world.Admin.GetAuditAsync()).Entries.Where(entry => entry.Action.StartsWith("openid.", StringComparison.Ordinal)).Select(entry => entry.Action));
    }

    [Fact]
    public async Task A_name_belongs_to_whom_it_was_first_and_an_administrators_to_nobody()
    {
        await using var world = await StartNowAsync();
        await world.Admin.CreateAdministratorAsync(new CreateAdministrator("kim"));
        await using var provider = await RealProvider.StartAsync(world, claimsAreAtUserInfo: false, new());
        await world.Admin.PutOpenIdProviderAsync(Settings(world, provider.Issuer));
        async Task<HttpResponseMessage> SignInAsync(string who)
        {
            using var browser = new Browser();
            return await browser.GetAsync(await browser.SignInAsync(new Uri(world.Url, "v1/sign-in/oidc"), who, world.Url));
        }

        await ReadAsync(await SignInAsync("1-ann"));
        Assert.Contains("another person", (await ProblemAsync(await SignInAsync("2-ann"), ErrorCatalogue.SignInRefused)).Detail, StringComparison.Ordinal);
        Assert.Contains("is an administrator", (await ProblemAsync(await SignInAsync("3-kim"), ErrorCatalogue.SignInRefused)).Detail, StringComparison.Ordinal);
        await ProblemAsync(await SignInAsync("4-administrator"), ErrorCatalogue.SignInRefused);
        await ProblemAsync(await SignInAsync("5-Not A Name"), ErrorCatalogue.SignInRefused);
        await world.Admin.PutOpenIdProviderAsync(Settings(world, provider.Issuer, mappings: new OpenIdMapping("publishers", "author", null)));
        Assert.Contains("none of the person's groups", (await ProblemAsync(await SignInAsync("6-bob"), ErrorCatalogue.SignInRefused)).Detail, StringComparison.Ordinal);
    }

    public static TheoryData<string> Lies =>
    [
        "other issuer", "other audience", "no audience", "several audiences, another party", "expired", "no expiry", "not yet", "other nonce", "no nonce", "no subject", "no signature", "public key as secret", "key that is not the provider's",
        "changed", "cut", "not a token", "other person at userinfo",
    ];

    [Theory]
    [MemberData(nameof(Lies))]
    public async Task A_token_that_is_not_the_providers_for_this_server_now_lets_nobody_in(string lie)
    {
        using var key = RSA.Create(2048);
        using var foreign = RSA.Create(2048);
        var issuer = "";
        string[] publishers = ["publishers"];
        await using var peer = await HostilePeer.StartAsync(async context =>
        {
            var parameters = key.ExportParameters(false);
            await context.Response.WriteAsJsonAsync<object>(context.Request.Path.Value switch
            {
                "/.well-known/openid-configuration" => new { issuer, authorization_endpoint = issuer + "/auth", token_endpoint = issuer + "/token", jwks_uri = issuer + "/jwks", userinfo_endpoint = issuer + "/me" },
                "/jwks" => new { keys = new[] { new { kty = "RSA", use = "sig", kid = "1", n = Text.Url(parameters.Modulus), e = Text.Url(parameters.Exponent) } } },
                _ => new { sub = "somebody else", preferred_username = "eve", groups = publishers },
            });
        });
        issuer = peer.Url.AbsoluteUri.TrimEnd('/');
        var now = TimeProvider.System.GetUtcNow().ToUnixTimeSeconds();
        var claims = new Dictionary<string, object>
        {
            ["iss"] = issuer, ["aud"] = "nacre", ["sub"] = "1", ["iat"] = now, ["exp"] = now + 300, ["nonce"] = "n", ["preferred_username"] = "ann", ["groups"] = new[] { "staff" },
        };
        var settings = new OpenIdProvider(issuer, "nacre", null, "http://127.0.0.1:1/", "preferred_username", "groups", [], Mappings);
        using var client = new OpenIdClient(TimeProvider.System, NullLogger<OpenIdClient>.Instance);
        string Sign(RSA with) => Jose.JWT.Encode(claims, with, Jose.JwsAlgorithm.RS256, new Dictionary<string, object> { ["kid"] = "1" });

        // The same without a lie is taken.
        var right = await client.VerifyAsync(settings, new TokenAnswer(null, Sign(key), null), "n", default);
        Assert.Null(right.Failure);
        Assert.Equal(("1", "ann", "staff"), (right.Value.Subject, right.Value.Name, Assert.Single(right.Value.Groups)));
        switch (lie)
        {
            case "other issuer": claims["iss"] = issuer + "/other"; break;
            case "other audience": claims["aud"] = "another"; break;
            case "no audience": claims.Remove("aud"); break;
            case "several audiences, another party": claims["aud"] = new[] { "nacre", "another" }; claims["azp"] = "another"; break;
            case "expired": claims["exp"] = now - 120; claims["iat"] = now - 600; break;
            case "no expiry": claims.Remove("exp"); break;
            case "not yet": claims["nbf"] = now + 300; break;
            case "other nonce": claims["nonce"] = "m"; break;
            case "no nonce": claims.Remove("nonce"); break;
            case "no subject": claims.Remove("sub"); break;
            case "other person at userinfo": claims.Remove("groups"); break;
            default: break;
        }

        var token = lie switch
        {
            "no signature" => Jose.JWT.Encode(claims, null, Jose.JwsAlgorithm.none),
            "public key as secret" => Jose.JWT.Encode(claims, Encoding.ASCII.GetBytes(key.ExportSubjectPublicKeyInfoPem()), Jose.JwsAlgorithm.HS256, new Dictionary<string, object> { ["kid"] = "1" }),
            "key that is not the provider's" => Sign(foreign),
            "changed" => Replace(Sign(key)),
            "cut" => Sign(key)[..^20],
            "not a token" => "a.b.c",
            _ => Sign(key),
        };
        var failure = (await client.VerifyAsync(settings, new TokenAnswer(null, token, "access"), "n", default)).Failure;
        Assert.Equal(ErrorCatalogue.SignInRefused, failure?.Kind);

        string Replace(string signed)
        {
            claims["preferred_username"] = "eve";
            var parts = signed.Split('.');
            return $"{parts[0]}.{Text.Url(JsonSerializer.SerializeToUtf8Bytes(claims))}.{parts[2]}";
        }
    }

    [Theory]
    [InlineData("""{"issuer":"http://login.example"}""")]
    [InlineData("""{"issuer":"https://user@login.example"}""")]
    [InlineData("""{"address":"ftp://nacre.example"}""")]
    [InlineData("""{"mappings":[]}""")]
    [InlineData("""{"mappings":[null]}""")]
    [InlineData("""{"mappings":[{"group":"g","role":"first-administrator"}]}""")]
    [InlineData("""{"mappings":[{"group":"g","role":"device"}]}""")]
    [InlineData("""{"mappings":[{"group":"g","userGroup":"missing"}]}""")]
    [InlineData("""{"scopes":["two scopes"]}""")]
    [InlineData("""{"clientId":""}""")]
    public async Task A_provider_that_makes_no_sense_is_refused(string change)
    {
        await using var world = await StartAsync();
        var body = JsonSerializer.SerializeToNode(Settings(world, "https://login.example", null, new OpenIdMapping("g", "user", null)), ContractJson.Options)!.AsObject();
        foreach (var (name, value) in System.Text.Json.Nodes.JsonNode.Parse(change)!.AsObject())
        {
            body[name] = value?.DeepClone();
        }

        await ProblemAsync(await world.SendAsync("PUT", "v1/oidc", world.Token, Json(body.ToJsonString())), ErrorCatalogue.RequestInvalid);
    }

    [Fact]
    public async Task A_provider_that_is_another_or_none_is_refused()
    {
        await using var world = await StartNowAsync();
        await using var peer = await HostilePeer.StartAsync(context => context.Response.WriteAsJsonAsync(new
        {
            issuer = "https://login.example", authorization_endpoint = "https://login.example/a", token_endpoint = "https://login.example/t", jwks_uri = $"{context.Request.Scheme}://{context.Request.Host}/jwks", keys = Array.Empty<int>(),
        }));
        await FailsAsync(ErrorCatalogue.ProviderFailed, world.Admin.PutOpenIdProviderAsync(Settings(world, peer.Url.AbsoluteUri.TrimEnd('/'))));
        await using var silent = await HostilePeer.StartAsync(context => context.Response.WriteAsync("<html>"));
        await FailsAsync(ErrorCatalogue.ProviderFailed, world.Admin.PutOpenIdProviderAsync(Settings(world, silent.Url.AbsoluteUri.TrimEnd('/'))));
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.GetOpenIdProviderAsync());
    }

    /// <summary>oidc-provider, in a process of its own.</summary>
    private sealed class RealProvider : IAsyncDisposable
    {
        public const string Secret = "a+secret/with:signs%canary";
        private static readonly SemaphoreSlim Installing = new(1);
        private readonly World world;
        private readonly bool claimsAreAtUserInfo;
        private Process? process;

        private RealProvider(World world, bool claimsAreAtUserInfo, Dictionary<string, string[]> groups) => (this.world, this.claimsAreAtUserInfo, Groups) = (world, claimsAreAtUserInfo, groups);

        public string Issuer { get; private set; } = "";

        public Dictionary<string, string[]> Groups { get; }

        public static async Task<RealProvider> StartAsync(World world, bool claimsAreAtUserInfo, Dictionary<string, string[]> groups)
        {
            var provider = new RealProvider(world, claimsAreAtUserInfo, groups);
            await provider.RestartAsync();
            return provider;
        }

        public async Task RestartAsync()
        {
            await DisposeAsync();
            var start = new ProcessStartInfo("node", ["provider.mjs"]) { WorkingDirectory = await InstallAsync(), RedirectStandardOutput = true, RedirectStandardInput = true };
            start.Environment["GROUPS"] = JsonSerializer.Serialize(Groups);
            start.Environment["SECRET"] = Secret;
            start.Environment["REDIRECTION"] = new Uri(world.Url, OpenId.Callback).AbsoluteUri;
            start.Environment["USERINFO"] = claimsAreAtUserInfo ? "1" : "0";
            process = Process.Start(start)!;
            Issuer = await process.StandardOutput.ReadLineAsync().WaitAsync(TimeSpan.FromMinutes(2)) ?? throw new InvalidOperationException("the provider did not start; its words are above");
        }

        public async ValueTask DisposeAsync()
        {
            if (process is not null)
            {
                process.Kill(entireProcessTree: true);
                await process.WaitForExitAsync();
                process.Dispose();
                process = null;
            }
        }

        /// <summary>Once for a version of the lock file, from the npm registry.</summary>
        private static async Task<string> InstallAsync()
        {
            var source = Repository.At("test", "Nacre.Server.Tests", "Provider");
            var folder = Repository.At("artifacts", "openid-provider");
            await Installing.WaitAsync();
            try
            {
                Directory.CreateDirectory(folder);
                var isNew = !File.Exists(Path.Combine(folder, "installed")) || await File.ReadAllTextAsync(Path.Combine(folder, "installed")) != await File.ReadAllTextAsync(Path.Combine(source, "package-lock.json"));
                foreach (var file in new[] { "package.json", "package-lock.json", "provider.mjs" })
                {
                    File.Copy(Path.Combine(source, file), Path.Combine(folder, file), overwrite: true);
                }

                if (isNew)
                {
                    using var npm = Process.Start(new ProcessStartInfo("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]) { WorkingDirectory = folder })!;
                    await npm.WaitForExitAsync().WaitAsync(TimeSpan.FromMinutes(5));
                    Assert.Equal(0, npm.ExitCode);
                    File.Copy(Path.Combine(source, "package-lock.json"), Path.Combine(folder, "installed"), overwrite: true);
                }

                return folder;
            }
            finally
            {
                Installing.Release();
            }
        }
    }

    /// <summary>Follows redirections, keeps cookies and fills in the provider's forms.</summary>
    private sealed partial class Browser : IDisposable
    {
        private readonly HttpClient http = new(new SocketsHttpHandler { AllowAutoRedirect = false, CookieContainer = new CookieContainer() });

        public Task<HttpResponseMessage> GetAsync(Uri address) => http.GetAsync(address);

        /// <summary>Signs in at the provider.</summary>
        /// <returns>The address at the server that the provider sends the browser to, not yet followed.</returns>
        public async Task<Uri> SignInAsync(Uri begin, string who, Uri server)
        {
            var response = await http.GetAsync(begin);
            Assert.Equal(HttpStatusCode.Redirect, response.StatusCode);
            Assert.Contains("code_challenge_method=S256", response.Headers.Location!.Query, StringComparison.Ordinal);
            return (await FollowAsync(response, begin, who, server)).Next!;
        }

        /// <summary>Enters a program's code, and signs in.</summary>
        public async Task ConfirmDeviceAsync(Uri address, string who) => await FollowAsync(await http.GetAsync(address), address, who, null);

        public void Dispose() => http.Dispose();

        private async Task<(Uri? Next, string Page)> FollowAsync(HttpResponseMessage response, Uri at, string who, Uri? server)
        {
            for (var step = 0; step < 20; step++)
            {
                if (response.Headers.Location is { } location)
                {
                    at = new Uri(at, location);
                    if (server is not null && at.Authority == server.Authority)
                    {
                        return (at, "");
                    }

                    response = await http.GetAsync(at);
                    continue;
                }

                var page = await response.Content.ReadAsStringAsync();
                Assert.True(response.IsSuccessStatusCode, page);
                if (Form().Match(page) is not { Success: true } form)
                {
                    return (null, page);
                }

                var fields = Hidden().Matches(page).ToDictionary(match => match.Groups[1].Value, match => WebUtility.HtmlDecode(match.Groups[2].Value));
                if (page.Contains("name=\"login\"", StringComparison.Ordinal))
                {
                    fields["login"] = who;
                    fields["password"] = "anything";
                }

                at = new Uri(at, WebUtility.HtmlDecode(form.Groups[1].Value));
                response = await http.PostAsync(at, new FormUrlEncodedContent(fields));
            }

            throw new InvalidOperationException("the provider sends the browser on without end");
        }

        [GeneratedRegex("<form[^>]* action=\"([^\"]+)\"")]
        private static partial Regex Form();

        [GeneratedRegex("<input type=\"hidden\" name=\"([^\"]+)\" value=\"([^\"]*)\"")]
        private static partial Regex Hidden();
    }
}
