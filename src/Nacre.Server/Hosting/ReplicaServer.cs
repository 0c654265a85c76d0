using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>Serves a replica's folder as an origin: segments by GET and HEAD, with ranges, and nothing else of the folder. Any web server can do the same.</summary>
public static class ReplicaServer
{
    /// <summary>Builds it; it listens after <see cref="StartAsync"/>. The caller disposes it.</summary>
    /// <param name="folder">The replica's folder.</param>
    /// <param name="listen">The address, plain HTTP: what it serves is ciphertext, and devices verify it.</param>
    /// <exception cref="NacreException">UsageInvalid: the address is none, or there is no such folder.</exception>
    public static WebApplication Create(string folder, string listen)
    {
        var root = Path.GetFullPath(folder);
        if (!Directory.Exists(root))
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"there is no folder '{folder}': 'nacre replica sync' makes one");
        }

        if (!Uri.TryCreate(listen, UriKind.Absolute, out var url) || url.Scheme != "http" || url.PathAndQuery != "/")
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"can't listen on '{listen}': it must look like http://0.0.0.0:8421");
        }

        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions { ApplicationName = "Nacre.Server", ContentRootPath = root });
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = 0;
        }).UseUrls(listen);
        builder.Logging.AddSimpleConsole().SetMinimumLevel(LogLevel.Warning).AddFilter("Microsoft.Extensions.Hosting", LogLevel.None);
        var app = builder.Build();
        app.Run(context => SendAsync(context, root));
        return app;
    }

    /// <summary>Starts it.</summary>
    /// <exception cref="NacreException">AddressInUse.</exception>
    public static async Task StartAsync(WebApplication app, string listen, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(app);
        try
        {
            await app.StartAsync(cancellationToken);
        }
        catch (Exception exception) when (exception is IOException or System.Net.Sockets.SocketException)
        {
            throw new NacreException(ErrorCatalogue.AddressInUse, $"can't listen on {listen}: {exception.Message}", exception);
        }
    }

    private static Task SendAsync(HttpContext context, string root)
    {
        var untrustedName = context.Request.Path.Value is { Length: 36 } path ? path[4..] : "";
        if (!HttpMethods.IsGet(context.Request.Method) && !HttpMethods.IsHead(context.Request.Method))
        {
            context.Response.StatusCode = StatusCodes.Status405MethodNotAllowed;
            return Task.CompletedTask;
        }

        if (!Names.IsSegmentName(untrustedName) || context.Request.Path.Value != "/" + StoreOrigins.PathOf(untrustedName)
            || new FileInfo(Path.Combine(root, StoreOrigins.PathOf(untrustedName))) is not { Exists: true, LinkTarget: null } file)
        {
            context.Response.StatusCode = StatusCodes.Status404NotFound;
            return Task.CompletedTask;
        }

        context.Response.Headers.CacheControl = "public, max-age=31536000, immutable";
        return TypedResults.PhysicalFile(file.FullName, "application/octet-stream", enableRangeProcessing: true).ExecuteAsync(context);
    }
}
