using System.Collections.Concurrent;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Volumes;
using Nacre.Volumes.Releases;

namespace Nacre.Player.Releases;

/// <summary>
/// A web server that has segments: a CDN, a bucket, a replica, or the nacre server itself. It is told nothing but a segment's name and a range: no
/// token, no cookie. What it answers is read only as far as it was asked for.
/// </summary>
internal sealed class HttpOrigin : ISegmentOrigin
{
    /// <summary>How long an origin may stay silent, and take for 64 KiB, unless told otherwise.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    /// <summary>The longest time for which <c>Retry-After</c> is obeyed.</summary>
    private static readonly TimeSpan LongestRetryAfter = TimeSpan.FromMinutes(1);
    private static readonly HttpRequestOptionsKey<AddressRule> Rule = new("nacre.addresses");

    private static readonly HttpClient Http = MakeClient(ServerTrust.System);

    /// <summary>Of the servers that are believed by authorities of their own, one for each set of them.</summary>
    private static readonly ConcurrentDictionary<string, HttpClient> ServerClients = new(StringComparer.Ordinal);

    private const int Piece = 64 * 1024, MostRedirects = 3;

    private readonly Uri address;
    private readonly Func<string, string> pathOf;
    private readonly AddressRule rule;
    private readonly Throttle throttle;
    private readonly TimeProvider time;
    private readonly TimeSpan patience;

    private readonly HttpClient http;

    private HttpOrigin(Uri address, Func<string, string> pathOf, AddressRule rule, Throttle throttle, TimeProvider time, TimeSpan patience, HttpClient? http = null)
    {
        this.http = http ?? Http;
        this.address = address;
        this.pathOf = pathOf;
        this.rule = rule;
        this.throttle = throttle;
        this.time = time;
        this.patience = patience;
    }

    /// <summary>How long the origin asked to be left alone when it failed last; at most a minute.</summary>
    public TimeSpan AskedToWait { get; private set; }

    /// <summary>The nacre server.</summary>
    public static HttpOrigin Server(Uri server, ServerTrust trust, Throttle throttle, TimeProvider time, TimeSpan patience) =>
        new(server, segment => $"v1/segments/{segment}", AddressRule.Any, throttle, time, patience, trust.Authorities is { } authorities ? ServerClients.GetOrAdd(authorities, _ => MakeClient(trust)) : Http);

    /// <summary>An origin that a lease names.</summary>
    /// <param name="address">Its base URL.</param>
    /// <param name="server">The server that named it: only one on this computer may name another on this computer.</param>
    /// <param name="throttle">Slows it.</param>
    /// <param name="time">The clock.</param>
    /// <param name="patience">How long it may stay silent.</param>
    public static HttpOrigin Named(Uri address, Uri server, Throttle throttle, TimeProvider time, TimeSpan patience) =>
        new(address, StoreOrigins.PathOf, server.IsLoopback ? AddressRule.Host : AddressRule.Network, throttle, time, patience);

    /// <inheritdoc/>
    public async ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        using var timer = time.CreateTimer(_ => _ = limit.CancelAsync(), null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        AskedToWait = TimeSpan.Zero;
        try
        {
            timer.Change(patience, Timeout.InfiniteTimeSpan);
            using var response = await AskAsync(range, limit.Token).ConfigureAwait(false);
            var skip = Begin(response, range);
            var stream = await response.Content.ReadAsStreamAsync(limit.Token).ConfigureAwait(false);
            await using var _ = stream.ConfigureAwait(false);
            await SkipAsync(stream, skip, timer, range, limit.Token).ConfigureAwait(false);
            while (!range.Missing.IsEmpty)
            {
                var piece = range.Missing[..Math.Min(Piece, range.Missing.Length)];
                timer.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
                await throttle.WaitAsync(piece.Length, range.IsUrgent, cancellationToken).ConfigureAwait(false);
                timer.Change(patience, Timeout.InfiniteTimeSpan);
                var read = await stream.ReadAtLeastAsync(piece, piece.Length, throwOnEndOfStream: false, limit.Token).ConfigureAwait(false);
                range.Advance(read);
                if (read < piece.Length)
                {
                    throw Truncated(range);
                }
            }
        }
        catch (OperationCanceledException exception) when (!cancellationToken.IsCancellationRequested)
        {
            throw Unreachable($"{this} is silent, or slower than {Piece / 1024} KiB in {patience.TotalSeconds:0.#} seconds", exception);
        }
        catch (HttpIOException exception) when (exception.HttpRequestError == HttpRequestError.ResponseEnded)
        {
            throw Truncated(range, exception);
        }
        catch (Exception exception) when (exception is HttpRequestException or IOException or SocketException)
        {
            throw Unreachable($"can't reach {this}: {exception.Message}", exception);
        }
    }

    /// <inheritdoc/>
    public override string ToString() => address.AbsoluteUri;

    private async Task<HttpResponseMessage> AskAsync(SegmentRange range, CancellationToken cancellationToken)
    {
        var url = new Uri(address, pathOf(range.Segment));
        for (var redirects = 0; ; redirects++)
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, url);
            request.Headers.Range = new RangeHeaderValue(range.Offset, range.Offset + range.Missing.Length - 1);
            request.Headers.UserAgent.ParseAdd("nacre");

            // A named origin may be in a private network. Nobody else can send a device there.
            request.Options.Set(Rule, url.Host == address.Host && url.Port == address.Port ? rule : rule == AddressRule.Host ? rule : AddressRule.Internet);
            var response = await (url.Host == address.Host && url.Port == address.Port ? http : Http).SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellationToken).ConfigureAwait(false);
            if (response.StatusCode is HttpStatusCode.OK or HttpStatusCode.PartialContent)
            {
                return response;
            }

            using (response)
            {
                if ((int)response.StatusCode is 301 or 302 or 303 or 307 or 308 && response.Headers.Location is { } location)
                {
                    var next = new Uri(url, location);
                    if (redirects >= MostRedirects || next.Scheme is not ("http" or "https") || (url.Scheme == "https" && next.Scheme != "https") || next.UserInfo.Length > 0)
                    {
                        throw Unreachable($"{this} leads elsewhere, too often or by a worse way", null);
                    }

                    url = next;
                    continue;
                }

                throw Refused(response, range);
            }
        }
    }

    private static HttpClient MakeClient(ServerTrust trust) => new(new SocketsHttpHandler
    {
        AllowAutoRedirect = false,
        UseCookies = false,
        ConnectTimeout = TimeSpan.FromSeconds(10),
        PooledConnectionLifetime = TimeSpan.FromMinutes(5),
        MaxResponseDrainSize = 0,
        ConnectCallback = ConnectAsync,
        SslOptions = trust.Options(null, TimeProvider.System),
    })
    {
        Timeout = Timeout.InfiniteTimeSpan,
    };

    /// <summary>How many bytes come before those that were asked for: a server that knows no ranges sends all of the segment.</summary>
    private long Begin(HttpResponseMessage response, SegmentRange range)
    {
        if (response.StatusCode == HttpStatusCode.OK)
        {
            return range.Offset;
        }

        var sent = response.Content.Headers.ContentRange;
        var last = range.Offset + range.Missing.Length - 1;
        return sent is not { HasRange: true, Unit: "bytes" } || sent.From != range.Offset || sent.To > last
            ? throw new VolumeException(VolumeErrorKind.NotAuthentic, $"{this} does not send the range of segment {range.Segment} that it was asked for")
            : sent.To < last ? throw Truncated(range) : 0;
    }

    private async Task SkipAsync(Stream stream, long count, ITimer timer, SegmentRange range, CancellationToken cancellationToken)
    {
        var buffer = new byte[(int)Math.Min(count, Piece)];
        for (; count > 0; timer.Change(patience, Timeout.InfiniteTimeSpan))
        {
            await throttle.WaitAsync(buffer.Length, range.IsUrgent, cancellationToken).ConfigureAwait(false);
            var part = buffer.AsMemory(0, (int)Math.Min(count, buffer.Length));
            var read = await stream.ReadAtLeastAsync(part, part.Length, throwOnEndOfStream: false, cancellationToken).ConfigureAwait(false);
            count -= read == part.Length ? read : throw Truncated(range);
        }
    }

    private VolumeException Refused(HttpResponseMessage response, SegmentRange range)
    {
        var after = response.Headers.RetryAfter;

        // A date is compared with the origin's own clock: this device's may be wrong.
        var wait = after?.Delta ?? (after?.Date is { } date && response.Headers.Date is { } now ? date - now : TimeSpan.Zero);
        AskedToWait = wait < TimeSpan.Zero ? TimeSpan.Zero : wait > LongestRetryAfter ? LongestRetryAfter : wait;
        return response.StatusCode switch
        {
            HttpStatusCode.RequestedRangeNotSatisfiable => Truncated(range),
            HttpStatusCode.NotFound or HttpStatusCode.Gone => new VolumeException(
                VolumeErrorKind.Io, $"{this} does not have segment {range.Segment}", new NacreException(ErrorCatalogue.NotFound, $"{this} does not have segment {range.Segment}")),
            var status => Unreachable($"{this} answers with status {(int)status}", null),
        };
    }

    private VolumeException Truncated(SegmentRange range, Exception? inner = null) =>
        new(VolumeErrorKind.Truncated, $"{this} has less of segment {range.Segment} than there is", inner);

    private static VolumeException Unreachable(string message, Exception? inner) =>
        new(VolumeErrorKind.Io, message, new NacreException(ErrorCatalogue.ServerUnreachable, message, inner));

    private static async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        var rule = IsProxy(context) || !context.InitialRequestMessage.Options.TryGetValue(Rule, out var found) ? AddressRule.Any : found;
        var addresses = await Dns.GetHostAddressesAsync(context.DnsEndPoint.Host.Trim('[', ']'), cancellationToken).ConfigureAwait(false);

        // The addresses that were judged are those that are connected to: a name that changes its mind in between gains nothing.
        var allowed = addresses.Where(address => Permits(rule, address)).ToArray();
        if (allowed.Length == 0)
        {
            throw new HttpRequestException($"{context.DnsEndPoint.Host} is at an address where no origin may be");
        }

        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(allowed, context.DnsEndPoint.Port, cancellationToken).ConfigureAwait(false);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Whether the connection goes to the proxy that this computer is set to: what that reaches is its administrator's to say.</summary>
    private static bool IsProxy(SocketsHttpConnectionContext context) =>
        context.InitialRequestMessage.RequestUri is { } url && !HttpClient.DefaultProxy.IsBypassed(url) && HttpClient.DefaultProxy.GetProxy(url) is { } proxy
        && proxy.Port == context.DnsEndPoint.Port && proxy.IdnHost == context.DnsEndPoint.Host;

    /// <summary>Whether a connection to an address is allowed by a rule.</summary>
    internal static bool Permits(AddressRule rule, IPAddress address)
    {
        if (rule == AddressRule.Any)
        {
            return true;
        }

        address = Plain(address);
        var bytes = address.GetAddressBytes();
        var isV4 = address.AddressFamily == AddressFamily.InterNetwork;
        if (IPAddress.IsLoopback(address))
        {
            return rule == AddressRule.Host;
        }

        var isNobody = isV4 ? bytes[0] is 0 or >= 224 || (bytes[0] == 169 && bytes[1] == 254)
            : address.IsIPv6LinkLocal || address.IsIPv6Multicast || address.Equals(IPAddress.IPv6Any);
        var isPrivate = isV4
            ? bytes[0] is 10 or 127 || (bytes[0] == 172 && bytes[1] is >= 16 and < 32) || (bytes[0] == 192 && bytes[1] == 168) || (bytes[0] == 100 && bytes[1] is >= 64 and < 128)
            : address.IsIPv6UniqueLocal || address.IsIPv6SiteLocal;
        return !isNobody && (rule != AddressRule.Internet || !isPrivate);
    }

    /// <summary>The IPv4 address that an IPv6 one stands for, where it does (mapped, or through NAT64).</summary>
    private static IPAddress Plain(IPAddress address)
    {
        if (address.IsIPv4MappedToIPv6)
        {
            return address.MapToIPv4();
        }

        var bytes = address.GetAddressBytes();
        return bytes.Length == 16 && bytes.AsSpan(0, 12).SequenceEqual((ReadOnlySpan<byte>)[0, 0x64, 0xFF, 0x9B, 0, 0, 0, 0, 0, 0, 0, 0]) ? new IPAddress(bytes.AsSpan(12)) : address;
    }
}

/// <summary>Where a connection may lead, so that nobody can use devices to reach what only they can reach.</summary>
internal enum AddressRule
{
    /// <summary>Anywhere: the server, which the user named.</summary>
    Any,

    /// <summary>Anywhere but link-local addresses (where clouds keep their metadata) and those of nobody.</summary>
    Host,

    /// <summary>Not to this computer either.</summary>
    Network,

    /// <summary>Not into private networks either.</summary>
    Internet,
}
