using System.Collections.Concurrent;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Nacre.Contracts;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>A real web server that has segments, and answers as a test says.</summary>
internal sealed class FaultyOrigin : IAsyncDisposable
{
    private readonly IReadOnlyDictionary<string, byte[]> segments;
    private WebApplication? app;
    private int requests;

    private FaultyOrigin(IReadOnlyDictionary<string, byte[]> segments) => this.segments = segments;

    /// <summary>Answers instead of the segment's range, told the request's number from 1, which no other has; null, or one that returns false: the range.</summary>
    public Func<HttpContext, int, Task<bool>>? Fault { get; set; }

    /// <summary>Changes what is sent.</summary>
    public Func<byte[], byte[]>? Change { get; set; }

    public int Port { get; private set; }

    public Uri Url => new($"http://127.0.0.1:{Port}/");

    public int Requests => Volatile.Read(ref requests);

    public ConcurrentQueue<HttpRequestData> Seen { get; } = new();

    public static async Task<FaultyOrigin> StartAsync(IReadOnlyDictionary<string, byte[]> segments)
    {
        var origin = new FaultyOrigin(segments);
        await origin.StartAsync();
        return origin;
    }

    /// <summary>Starts it, at the port that it had before.</summary>
    public async Task StartAsync()
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.MinResponseDataRate = null;
            kestrel.Listen(System.Net.IPAddress.Loopback, Port);
        });
        app = builder.Build();
        app.Run(AnswerAsync);
        await app.StartAsync(TestContext.Current.CancellationToken);
        Port = new Uri(app.Urls.Single()).Port;
    }

    /// <summary>Ends it at once, whatever it is sending.</summary>
    public async Task KillAsync()
    {
        using var now = new CancellationTokenSource();
        await now.CancelAsync();
        await app!.StopAsync(now.Token);
        await app.DisposeAsync();
        app = null;
    }

    public async ValueTask DisposeAsync()
    {
        if (app is not null)
        {
            await KillAsync();
        }
    }

    /// <summary>Ends the connection in the middle.</summary>
    public static void Reset(HttpContext context) => context.Abort();

    private async Task AnswerAsync(HttpContext context)
    {
        var headers = context.Request.Headers;
        var number = Interlocked.Increment(ref requests);
        Seen.Enqueue(new HttpRequestData(context.Request.Path, headers.Range.ToString(), headers.Authorization.ToString(), headers.Cookie.ToString()));
        try
        {
            if (Fault is { } fault && await fault(context, number))
            {
                return;
            }

            await SendAsync(context);
        }
        catch (Exception exception) when (exception is OperationCanceledException or IOException or SocketException)
        {
            // The client has enough.
        }
    }

    /// <summary>Sends what was asked for.</summary>
    public async Task SendAsync(HttpContext context, int? only = null)
    {
        var name = context.Request.Path.Value!.Split('/')[^1];
        if (!segments.TryGetValue(name, out var bytes) || context.Request.Path.Value != "/" + StoreOrigins.PathOf(name))
        {
            context.Response.StatusCode = 404;
            return;
        }

        bytes = Change is { } change ? change(bytes.ToArray()) : bytes;
        var range = context.Request.GetTypedHeaders().Range!.Ranges.Single();
        var (first, last) = ((int)range.From!.Value, (int)Math.Min(range.To!.Value, bytes.Length - 1));
        if (first > last)
        {
            context.Response.StatusCode = 416;
            return;
        }

        context.Response.StatusCode = 206;
        context.Response.Headers.ContentRange = $"bytes {first}-{last}/{bytes.Length}";
        context.Response.ContentLength = last - first + 1;
        await context.Response.Body.WriteAsync(bytes.AsMemory(first, Math.Min(only ?? int.MaxValue, last - first + 1)), context.RequestAborted);
    }
}

/// <summary>What an origin was told.</summary>
internal sealed record HttpRequestData(string Path, string Range, string Authorization, string Cookie);
