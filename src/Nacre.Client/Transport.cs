using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Client;

/// <summary>Sends requests, tries again what may be tried again, and turns every failure into a <see cref="NacreException"/>.</summary>
internal sealed class Transport : IDisposable
{
    private const int Tries = 3;
    private const int LongestEventLine = 256;
    private const int LargestAnswer = 64 * 1024 * 1024; // a list of releases with their manifests
    private static readonly TimeSpan FirstPause = TimeSpan.FromMilliseconds(200);
    private readonly HttpClient http;
    private readonly Credential credential;
    private readonly TimeProvider time;
    private readonly TimeSpan timeout;
    private readonly Version version;

    public Transport(Uri server, Credential credential, TimeProvider time, TimeSpan timeout, ServerTrust trust, bool isLong)
    {
        ArgumentNullException.ThrowIfNull(server);
        if (!server.IsAbsoluteUri || server.Scheme is not ("http" or "https") || server.Query.Length > 0 || server.UserInfo.Length > 0)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{server}' is not the address of a server: it must look like https://nacre.example.com");
        }

        Server = server.AbsolutePath.EndsWith('/') ? server : new Uri(server.AbsoluteUri + "/");
        this.credential = credential;
        this.time = time;
        this.timeout = timeout;
        Trust = trust;

        // Redirections would carry the administrator's token elsewhere.
        http = new HttpClient(new SocketsHttpHandler
        {
            AllowAutoRedirect = false,
            UseCookies = false,
            ConnectTimeout = TimeSpan.FromSeconds(10),
            PooledConnectionLifetime = isLong ? Timeout.InfiniteTimeSpan : TimeSpan.FromMinutes(5),
            PooledConnectionIdleTimeout = isLong ? Timeout.InfiniteTimeSpan : TimeSpan.FromMinutes(1),
            SslOptions = trust.Options((credential as Credential.EnrolledDeviceKey)?.Certificate, time),
        })
        {
            Timeout = Timeout.InfiniteTimeSpan,
        };
        version = isLong && server.Scheme == "https" ? HttpVersion.Version20 : HttpVersion.Version11;
        http.DefaultRequestHeaders.UserAgent.ParseAdd("nacre");
    }

    public Uri Server { get; }

    public ServerTrust Trust { get; }

    public Uri At(string path) => new(Server, path);

    public Task<T> GetAsync<T>(string path, CancellationToken cancellationToken)
        where T : class => TryAsync(Tries, () => Request(HttpMethod.Get, path, null), ReadAsync<T>, cancellationToken);

    public Task<T> SendAsync<T>(HttpMethod method, string path, object? body, CancellationToken cancellationToken)
        where T : class => TryAsync(1, () => Request(method, path, body), ReadAsync<T>, cancellationToken);

    public Task SendAsync(HttpMethod method, string path, CancellationToken cancellationToken) => SendAsync(method, path, null, cancellationToken);

    public Task SendAsync(HttpMethod method, string path, object? body, CancellationToken cancellationToken) =>
        TryAsync(1, () => Request(method, path, body), static (_, _) => Task.FromResult(true), cancellationToken);

    public void Authorize(HttpRequestMessage request, ReadOnlySpan<byte> body)
    {
        var token = credential switch
        {
            Credential.AdministratorToken administrator => administrator.Token,
            Credential.ReplicaToken replica => replica.Token,
            Credential.EnrolledDeviceKey device => device.Key.SignToken(device.Id, request.Method.Method, request.RequestUri!.PathAndQuery, body, time.GetUtcNow()),
            _ => null,
        };
        if (token is not null && !request.Headers.TryAddWithoutValidation("Authorization", "Bearer " + token))
        {
            throw new NacreException(ErrorCatalogue.Unauthenticated, "the token is not one");
        }
    }

    public async Task<T> TryAsync<T>(
        int tries, Func<HttpRequestMessage> make, Func<HttpResponseMessage, CancellationToken, Task<T>> read, CancellationToken cancellationToken, Func<NacreException>? truncated = null)
    {
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                return await OnceAsync(make, read, truncated, cancellationToken).ConfigureAwait(false);
            }
            catch (Transient transient)
            {
                if (attempt >= tries)
                {
                    throw transient.Reason;
                }
            }

            // 200 ms, 400 ms, each less up to a half of it, so that devices that lost the server together do not return together.
            var pause = FirstPause * Math.Pow(2, attempt - 1) * (1 - (RandomNumberGenerator.GetInt32(500) / 1000.0));
            await Task.Delay(pause, time, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Reads an answer that does not end (<c>text/event-stream</c>), line by line.</summary>
    /// <param name="path">Where.</param>
    /// <param name="matters">Which lines are told.</param>
    /// <param name="heard">Told of each; reading waits for it.</param>
    /// <param name="silence">The longest time without a byte.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public async Task ListenAsync(string path, Func<string, bool> matters, Func<CancellationToken, Task> heard, TimeSpan silence, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(timeout);
        using var request = Request(HttpMethod.Get, path, null);
        try
        {
            using var response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, limit.Token).ConfigureAwait(false);
            if (!response.IsSuccessStatusCode)
            {
                var failure = await FailureAsync(response, null, limit.Token).ConfigureAwait(false);
                throw failure is Transient transient ? transient.Reason : failure;
            }

            if (response.Content.Headers.ContentType?.MediaType != "text/event-stream")
            {
                throw NotOurs(response);
            }

            var stream = await response.Content.ReadAsStreamAsync(limit.Token).ConfigureAwait(false);
            await using (stream.ConfigureAwait(false))
            {
                var (buffer, line) = (new byte[256], new StringBuilder());
                while (true)
                {
                    limit.CancelAfter(silence);
                    var count = await stream.ReadAsync(buffer, limit.Token).ConfigureAwait(false);
                    if (count == 0)
                    {
                        return;
                    }

                    limit.CancelAfter(Timeout.InfiniteTimeSpan); // what is done about an event takes its time
                    foreach (var character in Encoding.ASCII.GetString(buffer, 0, count))
                    {
                        if (character != '\n')
                        {
                            line.Append(line.Length < LongestEventLine ? character : throw NotOurs(response));
                            continue;
                        }

                        var told = matters(line.ToString());
                        line.Clear();
                        if (told)
                        {
                            await heard(cancellationToken).ConfigureAwait(false);
                        }
                    }
                }
            }
        }
        catch (OperationCanceledException exception) when (!cancellationToken.IsCancellationRequested)
        {
            throw new NacreException(ErrorCatalogue.ServerUnreachable, $"{Server} was silent for too long", exception);
        }
        catch (Exception exception) when (exception is HttpRequestException or IOException)
        {
            throw new NacreException(ErrorCatalogue.ServerUnreachable, $"can't reach {Server}: {exception.Message}", exception);
        }
    }

    public void Dispose() => http.Dispose();

    private async Task<T> OnceAsync<T>(
        Func<HttpRequestMessage> make, Func<HttpResponseMessage, CancellationToken, Task<T>> read, Func<NacreException>? truncated, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(timeout);
        using var request = make();
        try
        {
            using var response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, limit.Token).ConfigureAwait(false);
            return response.IsSuccessStatusCode
                ? await read(response, limit.Token).ConfigureAwait(false)
                : throw await FailureAsync(response, truncated, limit.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException exception) when (!cancellationToken.IsCancellationRequested)
        {
            throw new Transient(new NacreException(ErrorCatalogue.ServerUnreachable, $"{Server} did not answer within {timeout.TotalSeconds:0.#} seconds", exception));
        }
        catch (HttpIOException exception) when (truncated is not null && exception.HttpRequestError == HttpRequestError.ResponseEnded)
        {
            throw new Transient(truncated());
        }
        catch (HttpRequestException exception) when (exception.HttpRequestError == HttpRequestError.SecureConnectionError && Trust.Problem is { } problem)
        {
            throw new NacreException(ErrorCatalogue.ServerNotAuthentic, $"what answers at {Server} is not believed: {problem}", exception);
        }
        catch (Exception exception) when (exception is HttpRequestException or IOException)
        {
            throw new Transient(new NacreException(ErrorCatalogue.ServerUnreachable, $"can't reach {Server}: {exception.Message}", exception));
        }
    }

    private HttpRequestMessage Request(HttpMethod method, string path, object? body)
    {
        var bytes = body is null ? [] : JsonSerializer.SerializeToUtf8Bytes(body, body.GetType(), ContractJson.Options);
        var request = new HttpRequestMessage(method, At(path)) { Version = version, VersionPolicy = HttpVersionPolicy.RequestVersionOrLower };
        if (body is not null)
        {
            request.Content = new ByteArrayContent(bytes);
            request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        }

        Authorize(request, bytes);
        return request;
    }

    private async Task<T> ReadAsync<T>(HttpResponseMessage response, CancellationToken cancellationToken)
        where T : class
    {
        var body = await BodyAsync(response, cancellationToken).ConfigureAwait(false);
        return response.Content.Headers.ContentType?.MediaType == "application/json" && Jws.TryRead<T>(body, out var value) ? value : throw NotOurs(response);
    }

    private async Task<Exception> FailureAsync(HttpResponseMessage response, Func<NacreException>? truncated, CancellationToken cancellationToken)
    {
        if (response.StatusCode == HttpStatusCode.RequestedRangeNotSatisfiable && truncated is not null)
        {
            return truncated();
        }

        NacreException failure;
        if (response.Content.Headers.ContentType?.MediaType == "application/problem+json"
            && Jws.TryRead<Problem>(await BodyAsync(response, cancellationToken).ConfigureAwait(false), out var problem)
            && problem is { Code: not null } && ErrorCatalogue.All.TryGetValue(problem.Code, out var kind))
        {
            failure = kind == ErrorCatalogue.Internal
                ? new NacreException(ErrorCatalogue.ServerFailed, $"{Server} failed, trace id {Clean(problem.TraceId)}")
                : new NacreException(kind, Clean(problem.Detail));
        }
        else
        {
            failure = NotOurs(response);
        }

        return response.StatusCode is HttpStatusCode.BadGateway or HttpStatusCode.ServiceUnavailable or HttpStatusCode.GatewayTimeout ? new Transient(failure) : failure;
    }

    private static async Task<byte[]> BodyAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        await response.Content.LoadIntoBufferAsync(LargestAnswer, cancellationToken).ConfigureAwait(false);
        return await response.Content.ReadAsByteArrayAsync(cancellationToken).ConfigureAwait(false);
    }

    private NacreException NotOurs(HttpResponseMessage response) => new(
        ErrorCatalogue.ServerUnreachable,
        $"what answers at {Server} is not a nacre server: status {(int)response.StatusCode}, {Clean(response.Content.Headers.ContentType?.MediaType ?? "no content type")}");

    // A hostile server's words reach a terminal.
    private static string Clean(string? untrusted)
    {
        var text = new string((untrusted ?? "").Where(character => !char.IsControl(character)).Take(500).ToArray());
        return text.Length == 0 ? "no reason given" : text;
    }

    /// <summary>Failed now, may succeed in a moment.</summary>
#pragma warning disable CA1032, CA1064 // Never leaves this class.
    private sealed class Transient(NacreException reason) : Exception(reason.Message, reason)
#pragma warning restore CA1032, CA1064
    {
        public NacreException Reason => reason;
    }
}
