using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.WebUtilities;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>A sign-in by OpenID Connect that has begun and not ended.</summary>
internal sealed class SignInFlowRow
{
    /// <summary>SHA-256 of the secret that only who began it has.</summary>
    public required string Id { get; init; }

    /// <summary>A <see cref="SignInFlow"/>, encrypted.</summary>
    public required byte[] Secrets { get; init; }

    public required DateTimeOffset ExpiresAt { get; init; }

    /// <summary>Before it the provider is not asked again.</summary>
    public required DateTimeOffset NextPollAt { get; set; }

    public required int Interval { get; set; }
}

/// <summary>What a sign-in must remember: of the web its state, nonce and verifier, of a device its code.</summary>
internal sealed record SignInFlow(string Issuer, string? State, string? Nonce, string? Verifier, string? DeviceCode);

/// <summary>Signing in by the organisation's OpenID provider: in a browser (authorisation code with PKCE), and for programs (device authorisation grant).</summary>
internal sealed class OpenId(NacreDatabase database, AuditTrail audit, OpenIdClient client, Sessions sessions, Throttle throttle, SecretBox secrets, Caller caller, TimeProvider time)
{
    public const string Cookie = "nacre-sign-in", Callback = "v1/sign-in/oidc/callback";
    private const string Setting = "openid-provider", DeviceGrant = "urn:ietf:params:oauth:grant-type:device_code";
    private const int MostFlows = 10_000, MostMappings = 500, LongestText = 500, ShortestInterval = 1, LongestInterval = 60;
    private static readonly TimeSpan WebFlowLife = TimeSpan.FromMinutes(10), LongestDeviceFlow = TimeSpan.FromMinutes(30);

    private static Failure Missing { get; } = new(ErrorCatalogue.ProviderMissing, "this organisation has no OpenID provider");

    private static Failure OtherFlow { get; } = new(ErrorCatalogue.SignInRefused, "this sign-in did not begin here, took too long or is done already");

    /// <summary>The provider, without its secret.</summary>
    public async Task<Result<OpenIdProvider>> GetAsync(CancellationToken cancellationToken) =>
        await FindAsync(cancellationToken) is { } provider ? provider with { ClientSecret = null } : new Failure(ErrorCatalogue.NotFound, Missing.Detail);

    /// <summary>Sets the provider, and ends the sessions that came by the one before.</summary>
    public async Task<Result<OpenIdProvider>> PutAsync(OpenIdProvider untrusted, CancellationToken cancellationToken)
    {
        if (await WrongAsync(untrusted, cancellationToken) is { } wrong)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, wrong);
        }

        var discovered = await client.DiscoverAsync(untrusted.Issuer, cancellationToken);
        if (discovered.Failure is { } failed)
        {
            return failed;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var before = await FindAsync(cancellationToken);

        // A secret is kept for the provider that it was given for, and sent to no other.
        var provider = untrusted with { ClientSecret = untrusted.ClientSecret ?? (before?.Issuer == untrusted.Issuer && before.ClientId == untrusted.ClientId ? before.ClientSecret : null) };
        var value = Convert.ToBase64String(secrets.Protect(JsonSerializer.SerializeToUtf8Bytes(provider, ContractJson.Options), Setting));
        var setting = await database.Settings.SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken);
        if (setting is null)
        {
            database.Settings.Add(new SettingRow { Name = Setting, Value = value });
        }
        else
        {
            setting.Value = value;
        }

        await EndAsync(forgets: before?.Issuer != provider.Issuer, cancellationToken);
        await audit.AppendAsync(
            Roles.Administrator, "openid.put", "openid-provider",
            $"issuer {provider.Issuer}, client {provider.ClientId}; {string.Join(", ", provider.Mappings.Select(one => $"{one.Group} is {one.Role ?? "no role"}{(one.UserGroup is null ? "" : $" and in {one.UserGroup}")}"))}", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return provider with { ClientSecret = null };
    }

    public async Task<Result<Done>> RemoveAsync(CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Settings.Where(row => row.Name == Setting).ExecuteDeleteAsync(cancellationToken) == 0)
        {
            return new Failure(ErrorCatalogue.NotFound, Missing.Detail);
        }

        await EndAsync(forgets: true, cancellationToken);
        await audit.AppendAsync(Roles.Administrator, "openid.remove", "openid-provider", "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    /// <summary>Begins a sign-in in a browser.</summary>
    /// <returns>Where the browser goes, the secret that it keeps, and whether it reaches this server by https.</returns>
    public async Task<Result<(string Address, string Flow, bool IsSecure)>> BeginWebAsync(CancellationToken cancellationToken)
    {
        var begun = await BeginAsync(cancellationToken);
        if (begun.Failure is { } failure)
        {
            return failure;
        }

        var (provider, discovered) = begun.Value;
        var flow = new SignInFlow(provider.Issuer, Random(), Random(), Random(), null);
        var secret = await KeepAsync(flow, time.Now() + WebFlowLife, 0, cancellationToken);
        if (secret.Failure is { } tooMany)
        {
            return tooMany;
        }

        var address = QueryHelpers.AddQueryString(discovered.AuthorizationEndpoint, new Dictionary<string, string?>
        {
            ["response_type"] = "code", ["client_id"] = provider.ClientId, ["redirect_uri"] = RedirectionOf(provider), ["scope"] = ScopesOf(provider), ["state"] = flow.State, ["nonce"] = flow.Nonce,
            ["code_challenge"] = Text.Url(SHA256.HashData(Encoding.ASCII.GetBytes(flow.Verifier!))), ["code_challenge_method"] = "S256",
        });
        return (address, secret.Value, provider.Address.StartsWith("https:", StringComparison.Ordinal));
    }

    /// <summary>Ends a sign-in in a browser: in the one that began it, once, and with the answer to what it asked.</summary>
    public async Task<Result<SignedIn>> EndWebAsync(string? untrustedFlow, string? untrustedState, string? untrustedIssuer, string? untrustedCode, string? untrustedError, CancellationToken cancellationToken)
    {
        if (await TakeAsync(untrustedFlow, cancellationToken) is not { State: { } state } flow || !CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(state), Encoding.UTF8.GetBytes(untrustedState ?? "")))
        {
            return OtherFlow;
        }

        if (await FindAsync(cancellationToken) is not { } provider || provider.Issuer != flow.Issuer || (untrustedIssuer is not null && untrustedIssuer != flow.Issuer))
        {
            return OtherFlow;
        }

        if (untrustedError is not null || untrustedCode is not { Length: > 0 and <= 2048 })
        {
            return OpenIdClient.Refused($"it says '{Text.Printable(untrustedError ?? "no code", 60)}'");
        }

        var discovered = await client.DiscoverAsync(provider.Issuer, cancellationToken);
        if (discovered.Failure is { } failed)
        {
            return failed;
        }

        var answer = await client.AskAsync(provider, discovered.Value.TokenEndpoint, new Dictionary<string, string>
        {
            ["grant_type"] = "authorization_code", ["code"] = untrustedCode, ["redirect_uri"] = RedirectionOf(provider), ["code_verifier"] = flow.Verifier!,
        }, cancellationToken);
        return answer.Failure is { } failure ? failure
            : answer.Value.Error is { } error ? OpenIdClient.Refused($"it says '{Text.Printable(error, 60)}'")
            : await SignInAsync(provider, answer.Value, flow.Nonce, cancellationToken);
    }

    /// <summary>Begins a sign-in of a program, which a person finishes in a browser.</summary>
    public async Task<Result<DeviceSignIn>> BeginDeviceAsync(CancellationToken cancellationToken)
    {
        var begun = await BeginAsync(cancellationToken);
        if (begun.Failure is { } failure)
        {
            return failure;
        }

        var (provider, discovered) = begun.Value;
        if (!OpenIdClient.IsSafe(discovered.DeviceAuthorizationEndpoint))
        {
            return OpenIdClient.Failed("it does not offer the device authorisation grant (RFC 8628)");
        }

        var answer = await client.PostAsync(provider, discovered.DeviceAuthorizationEndpoint, new Dictionary<string, string> { ["client_id"] = provider.ClientId, ["scope"] = ScopesOf(provider) }, cancellationToken);
        if (answer.Failure is { } failed)
        {
            return failed;
        }

        var json = answer.Value;
        var (complete, now) = (OpenIdClient.Read(json, "verification_uri_complete"), time.Now());
        if (OpenIdClient.Read(json, "device_code") is not { Length: <= 4096 } code || OpenIdClient.Read(json, "user_code") is not { } user || !Text.IsLabel(user, 40)
            || OpenIdClient.Read(json, "verification_uri") is not { } uri || !OpenIdClient.IsSafe(uri) || (complete is not null && !OpenIdClient.IsSafe(complete)))
        {
            return OpenIdClient.Failed($"it begins no sign-in of a program: '{Text.Printable(OpenIdClient.Read(json, "error") ?? "no code", 60)}'");
        }

        var interval = Math.Clamp(Number(json, "interval") ?? 5, ShortestInterval, LongestInterval);
        var expires = now + TimeSpan.FromSeconds(Math.Clamp(Number(json, "expires_in") ?? 600, 1, (int)LongestDeviceFlow.TotalSeconds));
        var secret = await KeepAsync(new SignInFlow(provider.Issuer, null, null, null, code), expires, interval, cancellationToken);
        return secret.Failure is { } tooMany ? tooMany : new DeviceSignIn(secret.Value, user, uri, complete, expires, interval);
    }

    /// <summary>Asks the provider how the sign-in of a program stands, not more often than it wants.</summary>
    public async Task<Result<SignInProgress>> PollAsync(PollSignIn untrusted, CancellationToken cancellationToken)
    {
        var (id, now) = (IdOf(untrusted.Flow), time.Now());
        if (await database.SignInFlows.AsNoTracking().SingleOrDefaultAsync(row => row.Id == id, cancellationToken) is not { } row || row.ExpiresAt <= now || Reveal(row) is not { DeviceCode: { } code } flow
            || await FindAsync(cancellationToken) is not { } provider || provider.Issuer != flow.Issuer)
        {
            return OtherFlow;
        }

        // Of several that ask at once one gets through.
        var next = now + TimeSpan.FromSeconds(row.Interval);
        if (await database.SignInFlows.Where(one => one.Id == id && one.NextPollAt <= now).ExecuteUpdateAsync(update => update.SetProperty(one => one.NextPollAt, next), cancellationToken) == 0)
        {
            return new SignInProgress(null, row.Interval);
        }

        var discovered = await client.DiscoverAsync(provider.Issuer, cancellationToken);
        if (discovered.Failure is { } failed)
        {
            return failed;
        }

        var answer = await client.AskAsync(provider, discovered.Value.TokenEndpoint, new Dictionary<string, string> { ["grant_type"] = DeviceGrant, ["device_code"] = code, ["client_id"] = provider.ClientId }, cancellationToken);
        if (answer.Failure is { } failure)
        {
            return failure;
        }

        if (answer.Value.Error is "authorization_pending" or "slow_down")
        {
            var interval = answer.Value.Error == "slow_down" ? Math.Min(row.Interval + 5, LongestInterval) : row.Interval;
            await database.SignInFlows.Where(one => one.Id == id).ExecuteUpdateAsync(update => update.SetProperty(one => one.Interval, interval), cancellationToken);
            return new SignInProgress(null, interval);
        }

        if (await TakeAsync(untrusted.Flow, cancellationToken) is null)
        {
            return OtherFlow;
        }

        if (answer.Value.Error is { } error)
        {
            return OpenIdClient.Refused($"it says '{Text.Printable(error, 60)}'");
        }

        var session = await SignInAsync(provider, answer.Value, nonce: null, cancellationToken);
        return session.Failure is { } refused ? refused : new SignInProgress(session.Value, row.Interval);
    }

    public Task SweepAsync(CancellationToken cancellationToken)
    {
        var now = time.Now();
        return database.SignInFlows.Where(row => row.ExpiresAt <= now).ExecuteDeleteAsync(cancellationToken);
    }

    /// <summary>Lets in whom the provider vouches for, with what the groups mean here.</summary>
    private async Task<Result<SignedIn>> SignInAsync(OpenIdProvider provider, TokenAnswer answer, string? nonce, CancellationToken cancellationToken)
    {
        var verified = await client.VerifyAsync(provider, answer, nonce, cancellationToken);
        if (verified.Failure is { } refused)
        {
            return refused;
        }

        var person = verified.Value;
        if (!Names.IsValid(person.Name) || person.Name == Roles.Administrator)
        {
            return OpenIdClient.Refused($"its claim '{provider.NameClaim}' is not a name that a person can have here");
        }

        var name = person.Name!;
        caller.Named = name;
        var mappings = provider.Mappings.Where(one => one.Group == "*" || person.Groups.Contains(one.Group, StringComparer.Ordinal)).ToList();
        string[] roles = [.. Roles.People.Where(role => mappings.Any(one => one.Role == role))];
        if (roles.Length == 0)
        {
            return OpenIdClient.Refused("none of the person's groups has a role here");
        }

        var subject = Text.Hex(SHA256.HashData(JsonSerializer.SerializeToUtf8Bytes(new[] { provider.Issuer, person.Subject })));
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (JsonSerializer.Serialize(await FindAsync(cancellationToken)) != JsonSerializer.Serialize(provider))
        {
            return OtherFlow; // another provider, or other mappings, since
        }

        if (await database.Administrators.AnyAsync(row => row.Name == name, cancellationToken))
        {
            return OpenIdClient.Refused($"'{name}' is an administrator who signs in with a password or a token");
        }

        var link = await database.Federated.SingleOrDefaultAsync(row => row.Subject == subject || row.Name == name, cancellationToken);
        if (link is null)
        {
            link = new FederatedRow { Subject = subject, Name = name, Roles = "" };
            database.Federated.Add(link);
            await audit.AppendAsync($"person:{name}", "person.link", name, $"issuer {provider.Issuer}", cancellationToken);
        }
        else if (link.Subject != subject || link.Name != name)
        {
            return OpenIdClient.Refused("the name belongs to another person of the provider's, or the person to another name");
        }

        if (link.Roles != string.Join(',', roles))
        {
            await Sessions.EndAllAsync(database, name, cancellationToken);
            await audit.AppendAsync($"person:{name}", "person.roles", name, $"from {(link.Roles.Length == 0 ? "none" : link.Roles)} to {string.Join(',', roles)}", cancellationToken);
            link.Roles = string.Join(',', roles);
        }

        if (roles.Contains(Roles.User))
        {
            await PutUserAsync(name, cancellationToken);
            await PutGroupsAsync(provider, name, [.. mappings.Select(one => one.UserGroup).OfType<string>()], cancellationToken);
        }

        var session = await sessions.BeginAsync(name, roles, "OpenID Connect", isFederated: true, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return session;
    }

    private async Task PutUserAsync(string name, CancellationToken cancellationToken)
    {
        if (!await database.Users.AnyAsync(row => row.Name == name, cancellationToken))
        {
            database.Users.Add(new UserRow { Name = name, DisplayName = name, CreatedAt = time.Now() });
            await audit.AppendAsync($"person:{name}", "user.create", name, "by OpenID Connect", cancellationToken);
        }
    }

    /// <summary>Puts a user into the groups that the provider's mean, and out of the others that mappings name.</summary>
    private async Task PutGroupsAsync(OpenIdProvider provider, string name, IReadOnlyList<string> wanted, CancellationToken cancellationToken)
    {
        var members = await database.GroupMembers.Where(row => row.User == name).ToListAsync(cancellationToken);
        foreach (var group in provider.Mappings.Select(one => one.UserGroup).OfType<string>().Distinct(StringComparer.Ordinal))
        {
            var member = members.SingleOrDefault(row => row.Group == group);
            if (wanted.Contains(group) && member is null && await database.Groups.AnyAsync(row => row.Name == group, cancellationToken))
            {
                database.GroupMembers.Add(new GroupMemberRow { Group = group, User = name });
                await audit.AppendAsync($"person:{name}", "group.add", group, name, cancellationToken);
            }
            else if (!wanted.Contains(group) && member is not null)
            {
                database.GroupMembers.Remove(member);
                await audit.AppendAsync($"person:{name}", "group.drop", group, name, cancellationToken);
            }
        }
    }

    private async Task<Result<(OpenIdProvider Provider, Microsoft.IdentityModel.Protocols.OpenIdConnect.OpenIdConnectConfiguration Discovered)>> BeginAsync(CancellationToken cancellationToken)
    {
        if (await FindAsync(cancellationToken) is not { } provider)
        {
            return Missing;
        }

        if (await throttle.TakeOfSourceAsync("openid", cancellationToken) is { } tooMany)
        {
            return tooMany;
        }

        var discovered = await client.DiscoverAsync(provider.Issuer, cancellationToken);
        return discovered.Failure is { } failed ? failed : (provider, discovered.Value);
    }

    private async Task<Result<string>> KeepAsync(SignInFlow flow, DateTimeOffset expires, int interval, CancellationToken cancellationToken)
    {
        var secret = Random();
        var id = IdOf(secret);
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        await SweepAsync(cancellationToken);
        if (await database.SignInFlows.CountAsync(cancellationToken) >= MostFlows)
        {
            return new Failure(ErrorCatalogue.TooManyTries, "too many sign-ins have begun that did not end; try again in some minutes");
        }

        database.SignInFlows.Add(new SignInFlowRow
        {
            Id = id, Secrets = secrets.Protect(JsonSerializer.SerializeToUtf8Bytes(flow), "sign-in-flow", id), ExpiresAt = expires, NextPollAt = time.Now(), Interval = interval,
        });
        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return secret;
    }

    /// <summary>Takes a sign-in out: nobody gets it twice.</summary>
    private async Task<SignInFlow?> TakeAsync(string? untrustedSecret, CancellationToken cancellationToken)
    {
        var (id, now) = (IdOf(untrustedSecret), time.Now());
        return await database.SignInFlows.AsNoTracking().SingleOrDefaultAsync(row => row.Id == id, cancellationToken) is { } row
            && await database.SignInFlows.Where(one => one.Id == id).ExecuteDeleteAsync(cancellationToken) == 1 && row.ExpiresAt > now ? Reveal(row) : null;
    }

    private SignInFlow Reveal(SignInFlowRow row) => JsonSerializer.Deserialize<SignInFlow>(secrets.Reveal(row.Secrets, "sign-in-flow", row.Id))!;

    private async Task<OpenIdProvider?> FindAsync(CancellationToken cancellationToken) => await database.Settings.AsNoTracking().SingleOrDefaultAsync(row => row.Name == Setting, cancellationToken) is { } setting
        ? JsonSerializer.Deserialize<OpenIdProvider>(secrets.Reveal(Convert.FromBase64String(setting.Value), Setting), ContractJson.Options) : null;

    /// <summary>Ends what came by the provider: who comes again gets what the mappings say now; the names are free again where the provider is another one.</summary>
    private async Task EndAsync(bool forgets, CancellationToken cancellationToken)
    {
        await database.Sessions.Where(row => row.IsFederated).ExecuteDeleteAsync(cancellationToken);
        await database.SignInFlows.ExecuteDeleteAsync(cancellationToken);
        await (forgets ? database.Federated.ExecuteDeleteAsync(cancellationToken) : database.Federated.ExecuteUpdateAsync(update => update.SetProperty(row => row.Roles, ""), cancellationToken));
    }

    private async Task<string?> WrongAsync(OpenIdProvider untrusted, CancellationToken cancellationToken)
    {
        if (!OpenIdClient.IsSafe(untrusted.Issuer) || new Uri(untrusted.Issuer).Query.Length > 0 || !OpenIdClient.IsSafe(untrusted.Address) || new Uri(untrusted.Address).Query.Length > 0)
        {
            return "'issuer' and 'address' must be https (or http on this computer), without query";
        }

        if (!Text.IsLabel(untrusted.ClientId, LongestText) || (untrusted.ClientSecret is not null && !Text.IsLabel(untrusted.ClientSecret, LongestText)) || !Text.IsLabel(untrusted.NameClaim, LongestText) || !Text.IsLabel(untrusted.GroupsClaim, LongestText))
        {
            return $"'clientId', 'clientSecret', 'nameClaim' and 'groupsClaim' must have 1 to {LongestText} printable characters";
        }

        if (untrusted.Scopes is not { Count: <= 20 } scopes || scopes.Any(scope => !Text.IsLabel(scope, 100) || scope.Contains(' ', StringComparison.Ordinal)))
        {
            return "'scopes' must be at most 20, each without spaces";
        }

        if (untrusted.Mappings is not { Count: > 0 and <= MostMappings } mappings || mappings.Any(one => one is null || !Text.IsLabel(one.Group, LongestText) || (one.Role is null && one.UserGroup is null) || (one.Role is not null && !Roles.People.Contains(one.Role))))
        {
            return $"'mappings' must be 1 to {MostMappings}, each with a group and a role of {string.Join(", ", Roles.People)} or a group of users";
        }

        foreach (var group in mappings.Select(one => one.UserGroup).OfType<string>())
        {
            if (!await database.Groups.AnyAsync(row => row.Name == group, cancellationToken))
            {
                return $"there is no group of users '{(Names.IsValid(group) ? group : "?")}'";
            }
        }

        return null;
    }

    private static string RedirectionOf(OpenIdProvider provider) => provider.Address.TrimEnd('/') + "/" + Callback;

    private static string ScopesOf(OpenIdProvider provider) => string.Join(' ', provider.Scopes.Prepend("openid").Distinct(StringComparer.Ordinal));

    private static string Random() => Text.Url(RandomNumberGenerator.GetBytes(32));

    private static string IdOf(string? secret) => Text.Hex(SHA256.HashData(Encoding.UTF8.GetBytes(secret ?? "")));

    private static int? Number(JsonElement json, string name) => json.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var number) ? number : null;
}

internal static class OpenIdEndpoints
{
    public static void Map(Groups groups)
    {
        groups.Of(Roles.Administrator, Roles.Auditor).MapGet("/oidc", async (OpenId openId, CancellationToken cancellationToken) => (await openId.GetAsync(cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("GetOpenIdProvider").WithSummary("The OpenID provider, without its secret.")
            .Produces<OpenIdProvider>().Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.First).MapPut("/oidc", async (OpenIdProvider body, OpenId openId, CancellationToken cancellationToken) => (await openId.PutAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("PutOpenIdProvider").WithSummary("Sets the OpenID provider and what its groups mean here, and ends the sessions that came by it.")
            .Produces<OpenIdProvider>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.ProviderFailed);
        groups.Of(Roles.First).MapDelete("/oidc", async (OpenId openId, CancellationToken cancellationToken) => (await openId.RemoveAsync(cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("RemoveOpenIdProvider").WithSummary("Lets nobody in by OpenID Connect any more, and ends the sessions that came so.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NotFound);

        groups.Public.MapGet("/sign-in/oidc", async (HttpContext context, OpenId openId, CancellationToken cancellationToken) => (await openId.BeginWebAsync(cancellationToken)).ToHttp(begun =>
            {
                // Lax: it must come with the provider's redirection, and with nothing that another site posts.
                context.Response.Cookies.Append(OpenId.Cookie, begun.Flow, new CookieOptions { HttpOnly = true, SameSite = SameSiteMode.Lax, Secure = begun.IsSecure, Path = context.Request.PathBase + "/v1/sign-in/oidc", MaxAge = TimeSpan.FromMinutes(10) });
                return TypedResults.Redirect(begun.Address);
            }))
            .WithName("BeginOpenIdSignIn").WithSummary("Sends a browser to the OpenID provider.")
            .Produces(StatusCodes.Status302Found).Fails(ErrorCatalogue.ProviderMissing, ErrorCatalogue.ProviderFailed, ErrorCatalogue.TooManyTries);
        groups.Public.MapGet("/sign-in/oidc/callback", async (HttpContext context, string? state, string? iss, string? code, string? error, OpenId openId, CancellationToken cancellationToken) =>
            {
                var flow = context.Request.Cookies[OpenId.Cookie];
                context.Response.Cookies.Delete(OpenId.Cookie, new CookieOptions { Path = context.Request.PathBase + "/v1/sign-in/oidc" });
                return (await openId.EndWebAsync(flow, state, iss, code, error, cancellationToken)).ToHttp(TypedResults.Ok);
            })
            .WithName("EndOpenIdSignIn").WithSummary("Where the OpenID provider sends the browser back to; begins a session.")
            .Produces<SignedIn>().Fails(ErrorCatalogue.SignInRefused, ErrorCatalogue.ProviderFailed);
        groups.Public.MapPost("/sign-in/oidc/device", async (OpenId openId, CancellationToken cancellationToken) => (await openId.BeginDeviceAsync(cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("BeginDeviceSignIn").WithSummary("Begins a sign-in of a program, which a person finishes in a browser (RFC 8628).")
            .Produces<DeviceSignIn>().Fails(ErrorCatalogue.ProviderMissing, ErrorCatalogue.ProviderFailed, ErrorCatalogue.TooManyTries);
        groups.Public.MapPost("/sign-in/oidc/device/poll", async (PollSignIn body, OpenId openId, CancellationToken cancellationToken) => (await openId.PollAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("PollDeviceSignIn").WithSummary("Whether the person has finished it; then the session, once.")
            .Produces<SignInProgress>().Fails(ErrorCatalogue.SignInRefused, ErrorCatalogue.ProviderFailed);
    }
}
