using System.Collections.Frozen;
using System.Text.Json;
using Microsoft.AspNetCore.Connections.Features;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>The organisations beside the server's own (docs/adr/0013): each a server of its own in this process, with its own database, keys and authority, that is found by the
/// name it is asked for by. Nothing is looked up across them, so there is nothing that could be forgotten in a query.</summary>
internal sealed class Organisations(ServerOptions options, TimeProvider time, ILoggerFactory logs, ILogger<Organisations> logger) : BackgroundService, IHostedLifecycleService
{
    private static readonly TimeSpan BetweenLooks = TimeSpan.FromSeconds(1), BetweenTries = TimeSpan.FromMinutes(1);
    private readonly Dictionary<string, Entry> entries = new(StringComparer.Ordinal);
    private readonly SemaphoreSlim gate = new(1);
    private bool isEnding;
    private volatile FrozenDictionary<string, Entry> byHost = FrozenDictionary<string, Entry>.Empty;

    /// <summary>With what a connection that asks for this name is answered; null: the server's own.</summary>
    public ServerCertificates? CertificatesOf(string? untrustedName) =>
        untrustedName is not null && byHost.TryGetValue(untrustedName, out var entry) ? entry.App?.Services.GetRequiredService<ServerCertificates>() : null;

    /// <summary>Hands a request to the organisation that it names.</summary>
    public Task DispatchAsync(HttpContext context, RequestDelegate next)
    {
        var entry = Find(context.Request.Host.Host);

        // What the connection was opened for says whose certificate it has: what comes by it is for the same organisation.
        if (context.Features.Get<ITlsHandshakeFeature>() is { } handshake && Find(handshake.HostName) != entry)
        {
            return RefuseAsync(context, ErrorCatalogue.Misdirected, "this connection was opened to another name");
        }

        return entry is null ? next(context)
            : entry.Server?.ProcessAsync(context.Features) ?? RefuseAsync(context, ErrorCatalogue.OrganisationDown, "this organisation does not run on the server now");
    }

    public Task StartingAsync(CancellationToken cancellationToken) => LookAsync(cancellationToken);

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <summary>Before the listener, which waits for the requests that are under way in them.</summary>
    public async Task StoppingAsync(CancellationToken cancellationToken)
    {
        await gate.WaitAsync(CancellationToken.None);
        try
        {
            isEnding = true;
            await Task.WhenAll(entries.Values.Select(entry => entry.StopAsync(cancellationToken)));
        }
        finally
        {
            gate.Release();
        }
    }

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override void Dispose()
    {
        gate.Dispose();
        base.Dispose();
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(BetweenLooks);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            await LookAsync(stoppingToken);
        }
    }

    private static async Task RefuseAsync(HttpContext context, ErrorKind kind, string detail)
    {
        // Not Problems: that writes into the audit log of an organisation, and this is nobody's.
        var problem = new Problem("urn:nacre:error:" + kind.Code, Problems.Title(kind), kind.HttpStatus, detail, kind.Code, kind.Hint, Problems.TraceId(context));
        context.Response.StatusCode = kind.HttpStatus;
        context.Response.Headers.CacheControl = "no-store";
        context.Response.Headers.XContentTypeOptions = "nosniff";
        context.Response.ContentType = Problems.ContentType;
        var body = JsonSerializer.SerializeToUtf8Bytes(problem, ContractJson.Options);
        context.Response.ContentLength = body.Length;
        if (!HttpMethods.IsHead(context.Request.Method))
        {
            await context.Response.Body.WriteAsync(body, context.RequestAborted);
        }
    }

    /// <summary>An organisation's server by its folder's name; null: it does not run.</summary>
    internal WebApplication? ServerOf(string name) => byHost.Values.FirstOrDefault(entry => entry.Name == name)?.App;

    private Entry? Find(string? untrustedHost) => untrustedHost is not null && byHost.TryGetValue(untrustedHost, out var entry) ? entry : null;

    /// <summary>Makes what runs what the folders say.</summary>
    private async Task LookAsync(CancellationToken cancellationToken)
    {
        var isChanged = false;
        await gate.WaitAsync(cancellationToken);
        try
        {
            if (isEnding)
            {
                return;
            }

            var names = OrganisationFolders.List(options.DataDirectory);
            foreach (var gone in entries.Keys.Except(names, StringComparer.Ordinal).ToArray())
            {
                await EndAsync(gone, cancellationToken);
                logger.OrganisationStopped(gone);
                isChanged = true;
            }

            List<Task> starts = [];
            foreach (var name in names)
            {
                var file = Path.Combine(OrganisationFolders.PathOf(options.DataDirectory, name), OrganisationFolders.File);
                var written = File.GetLastWriteTimeUtc(file);
                if (entries.TryGetValue(name, out var there) && there.Written == written && (there.IsRunning || time.GetUtcNow() < there.TryAgainAt))
                {
                    continue;
                }

                await EndAsync(name, cancellationToken);
                var entry = entries[name] = new Entry(name, written, time.GetUtcNow() + BetweenTries);
                isChanged = true;
                starts.Add(StartAsync(name, entry, cancellationToken));
            }

            await Task.WhenAll(starts);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            logger.OrganisationsNotRead(exception);
        }
        finally
        {
            if (isChanged)
            {
                byHost = entries.Values.SelectMany(entry => entry.Hosts.Select(host => (host, entry))).ToFrozenDictionary(pair => pair.host, pair => pair.entry, StringComparer.OrdinalIgnoreCase);
            }

            gate.Release();
        }
    }

    private async Task EndAsync(string name, CancellationToken cancellationToken)
    {
        if (entries.Remove(name, out var entry))
        {
            // Its names stay known while it ends, and are answered with "does not run": never by another organisation.
            await entry.StopAsync(cancellationToken);
        }
    }

    private async Task StartAsync(string name, Entry entry, CancellationToken cancellationToken)
    {
        try
        {
            var settings = OrganisationFolders.Read(options.DataDirectory, name);
            if (settings.Hosts.FirstOrDefault(host => options.Names.Contains(host, StringComparer.OrdinalIgnoreCase)
                || entries.Values.Any(other => other != entry && other.Hosts.Contains(host, StringComparer.Ordinal))) is { } taken)
            {
                throw new NacreException(ErrorCatalogue.AlreadyExists, $"'{taken}' is another organisation's name");
            }

            entry.Hosts = settings.Hosts;
            var server = new InnerServer();
            var app = NacreServer.Create(OptionsOf(name, settings), time, builder => builder.Logging.SetMinimumLevel(LogLevel.Trace).AddProvider(new Logs(logs, name)), server);
            try
            {
                await NacreServer.StartAsync(app, cancellationToken);
            }
            catch
            {
                await app.DisposeAsync();
                throw;
            }

            (entry.App, entry.Server) = (app, server);
            logger.OrganisationStarted(name, string.Join(", ", settings.Hosts));
        }
#pragma warning disable CA1031 // Whatever is wrong with one, the others run.
        catch (Exception exception) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            logger.OrganisationNotStarted(name, exception is NacreException ? exception.Message : exception.ToString());
        }
    }

    private ServerOptions OptionsOf(string name, OrganisationSettings settings)
    {
        var hasOwn = settings.CertificateFile is not null;
        return options with
        {
            DataDirectory = OrganisationFolders.PathOf(options.DataDirectory, name),
            OrganisationName = settings.Name,
            KeyDirectory = options.KeyDirectory is { } keys ? Path.Combine(keys, OrganisationFolders.Folder, name) : null,
            Names = options.IsTls ? settings.Hosts : [],
            CertificateFile = hasOwn ? settings.CertificateFile : options.CertificateFile,
            CertificateKeyFile = hasOwn ? settings.CertificateKeyFile : options.CertificateKeyFile,
            AuthoritiesFile = hasOwn || settings.AuthoritiesFile is not null ? settings.AuthoritiesFile : options.AuthoritiesFile,
            Postgres = settings.PostgresFile is { } file ? new PostgresOptions { ConnectionString = File.ReadAllText(file).Trim() } : options.Postgres?.WithDatabase(database => $"{database}_{name}"),
            S3 = options.S3 is null ? null
                : options.S3 with { Bucket = settings.Bucket is { } bucket ? new Uri(bucket, UriKind.RelativeOrAbsolute) : new Uri($"{options.S3.Bucket.AbsoluteUri.TrimEnd('/')}-{name}") },
        };
    }

    private sealed class Entry(string name, DateTime written, DateTimeOffset tryAgainAt)
    {
        public string Name => name;

        public DateTime Written => written;

        public DateTimeOffset TryAgainAt => tryAgainAt;

        public IReadOnlyList<string> Hosts { get; set; } = [];

        public WebApplication? App { get; set; }

        public InnerServer? Server { get; set; }

        public bool IsRunning => App is { } app && !app.Lifetime.ApplicationStopping.IsCancellationRequested;

        public async Task StopAsync(CancellationToken cancellationToken)
        {
            if (App is { } app)
            {
                App = null;
                await app.StopAsync(cancellationToken);
                await app.DisposeAsync();
            }
        }
    }

    /// <summary>Writes into the log of the server around, with the organisation's name behind the category.</summary>
    private sealed class Logs(ILoggerFactory outer, string organisation) : ILoggerProvider
    {
        public ILogger CreateLogger(string categoryName) => outer.CreateLogger($"{categoryName} ({organisation})");

        public void Dispose()
        {
        }
    }
}

/// <summary>The process ends when the server around does.</summary>
internal sealed class NoLifetime : IHostLifetime
{
    public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}
