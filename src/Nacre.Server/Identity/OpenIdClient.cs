using System.Collections.Concurrent;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Microsoft.IdentityModel.JsonWebTokens;
using Microsoft.IdentityModel.Protocols;
using Microsoft.IdentityModel.Protocols.OpenIdConnect;
using Microsoft.IdentityModel.Tokens;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>Whom the provider vouches for.</summary>
internal sealed record OpenIdPerson(string Subject, string? Name, IReadOnlyList<string> Groups);

/// <summary>What the provider answered at its token endpoint.</summary>
/// <param name="Error">In the words of OAuth; null: there is an <paramref name="IdToken"/>.</param>
/// <param name="IdToken">Who it is, signed.</param>
/// <param name="AccessToken">For the provider's own questions about the person.</param>
internal sealed record TokenAnswer(string? Error, string? IdToken, string? AccessToken);

/// <summary>Speaks with the OpenID provider. What it answers is not trusted before its signature, issuer, audience and time were verified.</summary>
internal sealed class OpenIdClient : IDisposable
{
    /// <summary>None that uses a key that both sides have, and not "none": the public key must never be taken for a secret.</summary>
    private static readonly string[] Algorithms =
    [
        SecurityAlgorithms.RsaSha256, SecurityAlgorithms.RsaSha384, SecurityAlgorithms.RsaSha512, SecurityAlgorithms.RsaSsaPssSha256, SecurityAlgorithms.RsaSsaPssSha384, SecurityAlgorithms.RsaSsaPssSha512,
        SecurityAlgorithms.EcdsaSha256, SecurityAlgorithms.EcdsaSha384, SecurityAlgorithms.EcdsaSha512,
    ];

    private const int LargestAnswer = 1024 * 1024, MostGroups = 1000;
    private static readonly TimeSpan Skew = TimeSpan.FromMinutes(1);
    private readonly ConcurrentDictionary<string, ConfigurationManager<OpenIdConnectConfiguration>> providers = new(StringComparer.Ordinal);
    private readonly HttpClient http = new(new SocketsHttpHandler { AllowAutoRedirect = false, UseCookies = false, ConnectTimeout = TimeSpan.FromSeconds(5), PooledConnectionLifetime = TimeSpan.FromMinutes(5) })
    {
        Timeout = TimeSpan.FromSeconds(10),
        MaxResponseContentBufferSize = LargestAnswer,
    };

    private readonly JsonWebTokenHandler tokens = new() { MapInboundClaims = false, MaximumTokenSizeInBytes = 256 * 1024 };
    private readonly TimeProvider time;
    private readonly ILogger<OpenIdClient> logger;

    public OpenIdClient(TimeProvider time, ILogger<OpenIdClient> logger) => (this.time, this.logger) = (time, logger);

    /// <summary>Whether an address is one that secrets may be sent to: https, or this computer.</summary>
    public static bool IsSafe(string? untrusted) => Uri.TryCreate(untrusted, UriKind.Absolute, out var uri) && (uri.Scheme == "https" || (uri.Scheme == "http" && uri.IsLoopback)) && uri.UserInfo.Length == 0 && uri.Fragment.Length == 0;

    /// <summary>What the provider says of itself.</summary>
    public async Task<Result<OpenIdConnectConfiguration>> DiscoverAsync(string issuer, CancellationToken cancellationToken)
    {
        var manager = providers.GetOrAdd(issuer, _ => new ConfigurationManager<OpenIdConnectConfiguration>(
            issuer.TrimEnd('/') + "/.well-known/openid-configuration", new OpenIdConnectConfigurationRetriever(), new HttpDocumentRetriever(http) { RequireHttps = !new Uri(issuer).IsLoopback }));
        try
        {
            var found = await manager.GetConfigurationAsync(cancellationToken);
            string?[] needed = [found.AuthorizationEndpoint, found.TokenEndpoint, found.JwksUri];
            return found.Issuer != issuer ? Failed($"it says that its issuer is '{Text.Printable(found.Issuer ?? "", 100)}'")
                : needed.Any(address => !IsSafe(address)) || found.SigningKeys.Count == 0 ? Failed("it names no safe addresses, or no keys")
                : found;
        }
        catch (Exception exception) when (exception is InvalidOperationException or HttpRequestException or IOException or TaskCanceledException or JsonException && !cancellationToken.IsCancellationRequested)
        {
            logger.ProviderRefused(exception.Message);
            return Failed("its description can't be read");
        }
    }

    /// <summary>Asks the token endpoint.</summary>
    public async Task<Result<TokenAnswer>> AskAsync(OpenIdProvider provider, string address, Dictionary<string, string> form, CancellationToken cancellationToken)
    {
        var answer = await PostAsync(provider, address, form, cancellationToken);
        if (answer.Failure is { } failure)
        {
            return failure;
        }

        var json = answer.Value;
        return Read(json, "error") is { } error ? new TokenAnswer(error, null, null)
            : Read(json, "id_token") is { } token ? new TokenAnswer(null, token, Read(json, "access_token")) : Failed("it gave no id_token");
    }

    /// <summary>Posts a form as the client that the provider knows.</summary>
    public async Task<Result<JsonElement>> PostAsync(OpenIdProvider provider, string address, Dictionary<string, string> form, CancellationToken cancellationToken)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, address);
        if (provider.ClientSecret is { } secret)
        {
            // RFC 6749, 2.3.1: both as in a form, then joined.
            request.Headers.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes($"{Uri.EscapeDataString(provider.ClientId)}:{Uri.EscapeDataString(secret)}")));
        }
        else
        {
            form["client_id"] = provider.ClientId;
        }

        request.Content = new FormUrlEncodedContent(form);
        return await SendAsync(request, cancellationToken);
    }

    /// <summary>Verifies an id_token, and reads who it is about.</summary>
    /// <param name="provider">By whom.</param>
    /// <param name="answer">The tokens.</param>
    /// <param name="nonce">What it must repeat; null: nothing was asked to be repeated.</param>
    /// <param name="cancellationToken">Stops.</param>
    public async Task<Result<OpenIdPerson>> VerifyAsync(OpenIdProvider provider, TokenAnswer answer, string? nonce, CancellationToken cancellationToken)
    {
        var discovered = await DiscoverAsync(provider.Issuer, cancellationToken);
        if (discovered.Failure is { } failure)
        {
            return failure;
        }

        var validated = await tokens.ValidateTokenAsync(answer.IdToken, new TokenValidationParameters
        {
            ValidIssuer = provider.Issuer,
            ValidAudience = provider.ClientId,
            IssuerSigningKeys = discovered.Value.SigningKeys,
            ValidAlgorithms = Algorithms,
            RequireSignedTokens = true,
            RequireExpirationTime = true,
            LifetimeValidator = (notBefore, expires, _, _) => expires is { } end && time.GetUtcNow().UtcDateTime < end + Skew && !(time.GetUtcNow().UtcDateTime + Skew < notBefore),
        });
        if (!validated.IsValid || validated.SecurityToken is not JsonWebToken token)
        {
            if (validated.Exception is SecurityTokenSignatureKeyNotFoundException)
            {
                providers.TryRemove(provider.Issuer, out _); // its keys may have changed: the next sign-in reads them again
            }

            logger.ProviderRefused(validated.Exception?.GetType().Name ?? "not a token");
            return Refused("its token is not valid for this server");
        }

        if (nonce is not null && !(token.TryGetPayloadValue<string>("nonce", out var repeated) && repeated == nonce))
        {
            return Refused("its token belongs to another sign-in");
        }

        if (token.Audiences.Count() > 1 && token.Azp != provider.ClientId)
        {
            return Refused("its token was made for another party");
        }

        if (string.IsNullOrEmpty(token.Subject) || token.Subject.Length > 255)
        {
            return Refused("its token is about nobody");
        }

        var claims = JsonDocument.Parse(Base64UrlEncoder.Decode(token.EncodedPayload)).RootElement;
        if ((!claims.TryGetProperty(provider.NameClaim, out _) || !claims.TryGetProperty(provider.GroupsClaim, out _)) && answer.AccessToken is { } access && IsSafe(discovered.Value.UserInfoEndpoint))
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, discovered.Value.UserInfoEndpoint);
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", access);
            var information = await SendAsync(request, cancellationToken);
            if (information.Failure is not null || Read(information.Value, "sub") != token.Subject)
            {
                return Refused("what it says of the person is about another one");
            }

            claims = information.Value;
        }

        var groups = claims.TryGetProperty(provider.GroupsClaim, out var listed) && listed.ValueKind == JsonValueKind.Array
            ? listed.EnumerateArray().Where(one => one.ValueKind == JsonValueKind.String).Take(MostGroups).Select(one => one.GetString()!).ToArray() : [];
        return new OpenIdPerson(token.Subject, Read(claims, provider.NameClaim), groups);
    }

    public void Dispose() => http.Dispose();

    public static Failure Failed(string detail) => new(ErrorCatalogue.ProviderFailed, "the OpenID provider can't be used: " + detail);

    public static Failure Refused(string detail) => new(ErrorCatalogue.SignInRefused, "the OpenID provider's answer does not let anybody in: " + detail);

    private async Task<Result<JsonElement>> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
    {
        try
        {
            using var response = await http.SendAsync(request, cancellationToken);
            if (response.Content.Headers.ContentType?.MediaType != "application/json")
            {
                return Failed("it does not answer in JSON");
            }

            using var json = JsonDocument.Parse(await response.Content.ReadAsByteArrayAsync(cancellationToken));
            return json.RootElement.ValueKind == JsonValueKind.Object ? json.RootElement.Clone() : Failed("it does not answer with an object");
        }
        catch (Exception exception) when (exception is HttpRequestException or IOException or JsonException or TaskCanceledException && !cancellationToken.IsCancellationRequested)
        {
            logger.ProviderRefused(exception.Message);
            return Failed("it does not answer");
        }
    }

    public static string? Read(JsonElement json, string name) => json.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;
}
