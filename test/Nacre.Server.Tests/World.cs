using System.Collections.Concurrent;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Nacre.Testing;
using Xunit;

namespace Nacre.Server.Tests;

/// <summary>A real server on a free loopback port with its own data directory, database, clock and log. The database is SQLite, or a real PostgreSQL where
/// <c>NACRE_TEST_DATABASE</c> says <c>postgresql</c> or the test asks for it.</summary>
internal sealed class World : IAsyncDisposable
{
    private readonly TemporaryDirectory directory = new();
    private readonly Action<WebApplicationBuilder>? customise;
    private WebApplication? app;
    private World? around;
    private string? database;
    private World? first;
    private bool isChanged;

    private World(Action<WebApplicationBuilder>? customise) => this.customise = customise;

    public static bool PrefersPostgres { get; } = Environment.GetEnvironmentVariable("NACRE_TEST_DATABASE") switch
    {
        null or "" or "sqlite" => false,
        "postgresql" => true,
        var other => throw new InvalidOperationException($"NACRE_TEST_DATABASE must be sqlite or postgresql, not '{other}'"),
    };

    /// <summary>Where its database is; null: in the data directory.</summary>
    public PostgresCluster? Cluster { get; private init; }

    /// <summary>Whether it is reached by TLS, and what its options are beyond those of all.</summary>
    public Func<ServerOptions, ServerOptions>? Tls { get; private init; }

    /// <summary>Whose certificates its callers believe.</summary>
    public ServerTrust Trust => ServerTrust.Of(Tls is null ? null : File.ReadAllText(Path.Combine(Data, "ca.pem")));

    public SettableTime Time { get; } = new();

    public CapturedLog Log { get; } = new();

    public string Data => around is null ? directory["data"] : OrganisationFolders.PathOf(around.Data, Inside);

    public WebApplication App => app ?? around!.Organisation(Inside);

    public Uri Url => around is null ? new(App.Urls.Single()) : new UriBuilder(around.Url) { Host = InsideHost }.Uri;

    public HttpClient Http { get; private set; } = new();

    public string Token { get; private set; } = "";

    public NacreClient Admin { get; private set; } = null!;

    public NacreClient Nobody { get; private set; } = null!;

    public ECDsa Publisher { get; } = ECDsa.Create(ECCurve.NamedCurves.nistP256);

    public ServerOptions Options => Tls is null ? Plain : Tls(Plain with { Listen = "https://127.0.0.1:0" });

    private ServerOptions Plain => new() { DataDirectory = Data, Listen = "http://127.0.0.1:0", OrganisationName = "Müller & Co", MaxSegmentBytes = 1024 * 1024, Postgres = Cluster?.Options(database!), KeyDirectory = first is null ? null : Path.Combine(first.Data, "keys") };

    /// <summary>One that is reached by TLS.</summary>
    public static Task<World> StartTlsAsync(Func<ServerOptions, ServerOptions>? options = null) => StartAsync(tls: options ?? (plain => plain));

    public static async Task<World> StartAsync(Action<WebApplicationBuilder>? customise = null, PostgresCluster? cluster = null, Func<ServerOptions, ServerOptions>? tls = null)
    {
        cluster ??= PrefersPostgres ? await PostgresCluster.GetAsync() : null;
        var world = new World(customise) { Cluster = cluster, Tls = tls };
        world.database = cluster is null ? null : await cluster.CreateDatabaseAsync();
        if (cluster is null)
        {
            await File.WriteAllBytesAsync(new DataDirectory(world.Data).Database, await Empty.Value);
        }

        await world.StartAgainAsync();
        return world;
    }

    /// <summary>The folder of the organisation that <see cref="StartInsideAsync"/> adds, and its name: this computer's, as another one than the address that the server around has.</summary>
    public const string Inside = "acme", InsideHost = "localhost";

    /// <summary>A second organisation in the process of a first one, by the same listener. Dispose it before the first.</summary>
    public static async Task<World> StartInsideAsync(World around)
    {
        var world = new World(customise: null) { around = around, Cluster = around.Cluster, Tls = around.Tls };
        if (around.Cluster is not null)
        {
            await around.Cluster.CreateNamedAsync($"{around.database}_{Inside}");
        }

        OrganisationFolders.Add(around.Data, Inside, new OrganisationSettings("Acme", [InsideHost]));
        await WaitAsync(() => around.Organisation(Inside, isWaited: true) is not null);
        await world.OpenAsync();
        return world;
    }

    /// <summary>Waits for what a server does by itself within seconds.</summary>
    public static async Task WaitAsync(Func<bool> isDone)
    {
        for (var limit = System.Diagnostics.Stopwatch.StartNew(); !isDone(); await Task.Delay(50))
        {
            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(1), "it did not come");
        }
    }

    /// <summary>The server of an organisation inside this one.</summary>
    public WebApplication Organisation(string name, bool isWaited = false) =>
        App.Services.GetRequiredService<Organisations>().ServerOf(name) ?? (isWaited ? null! : throw new InvalidOperationException($"there is no organisation '{name}'"));

    /// <summary>A SQLite database with the tables of the newest version and nothing in them: what a server makes at its first start is each test's own, but its migrations.</summary>
    private static readonly Lazy<Task<byte[]>> Empty = new(async () =>
    {
        using var folder = new TemporaryDirectory();
        var file = folder["nacre.db"];
        await using (var database = new NacreDatabase(new DbContextOptionsBuilder<NacreDatabase>().UseSqlite(new SqliteConnectionStringBuilder { DataSource = file, Pooling = false }.ToString()).Options, new WriteGate()))
        {
            await database.PrepareAsync(default);
        }

        return await File.ReadAllBytesAsync(file);
    });

    /// <summary>A second server on the database of a first one, with a data directory of its own and the first one's key ring. Dispose it before the first.</summary>
    public static async Task<World> StartBesideAsync(World first)
    {
        var world = new World(customise: null) { Cluster = first.Cluster, database = first.database, first = first };
        await world.StartAgainAsync();
        return world;
    }

    /// <summary>Looks into the database from outside. Names are in quotation marks, which both databases know.</summary>
    public async Task<object?> SqlAsync(string sql)
    {
        isChanged |= !sql.StartsWith("SELECT", StringComparison.Ordinal);
        if (Cluster is not null)
        {
            return await Cluster.ExecuteAsync(around is null ? database! : $"{around.database}_{Inside}", sql);
        }

        await using var connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = Path.Combine(Data, "nacre.db"), Pooling = false }.ToString());
        await connection.OpenAsync();
        await using var command = connection.CreateCommand();
#pragma warning disable CA2100 // the test's own text
        command.CommandText = sql;
#pragma warning restore CA2100
        return await command.ExecuteScalarAsync();
    }

    public async Task StartAgainAsync()
    {
        if (app is not null)
        {
            await app.StopAsync();
            await app.DisposeAsync();
        }

        app = NacreServer.Create(Options, Time, builder =>
        {
            builder.Logging.ClearProviders().AddProvider(Log).SetMinimumLevel(LogLevel.Trace);
            customise?.Invoke(builder);
        });
        await NacreServer.StartAsync(app);
        await OpenAsync();
    }

    private async Task OpenAsync()
    {
        Token = first?.Token ?? (await File.ReadAllTextAsync(Path.Combine(Data, "admin-token"))).Trim();
        Http = Open(null);
        Admin = new NacreClient(Url, Credential.Administrator(Token), Time, trust: Trust);
        Nobody = Tls is null ? new NacreClient(Url) : new NacreClient(Url, null, Time, trust: ServerTrust.ByCode());
    }

    /// <summary>Bare HTTP, with a certificate of the caller's own where there is one.</summary>
    public HttpClient Open(X509Certificate2? certificate) =>
        new(new SocketsHttpHandler { UseCookies = false, SslOptions = Trust.Options(() => certificate, Time) }) { BaseAddress = Url };

    public NacreClient As(EnrolledDevice device, DeviceKey key, X509Certificate2? certificate = null) => new(Url, Credential.Device(device.DeviceId, key, () => certificate), Time, trust: Trust);

    public async Task<EnrolmentCode> CodeAsync(string user = "ann", long? seconds = null)
    {
        if ((await Admin.ListUsersAsync()).All(existing => existing.Name != user))
        {
            await Admin.CreateUserAsync(new CreateUser(user, null));
        }

        await TrustAsync();
        var created = await Admin.CreateEnrolmentCodeAsync(new CreateEnrolmentCode(user, seconds));
        Assert.True(EnrolmentCode.TryParse(created.Code, out var code));
        return code;
    }

    /// <summary>Begins the trust with the publisher's key in every role, where it has not begun.</summary>
    public async Task TrustAsync()
    {
        var overview = await Admin.GetTrustAsync();
        if (overview.Files.Count == 0)
        {
            var publisher = new TrustRole([TrustKey.From(Publisher)], 1);
            var ends = Time.GetUtcNow().AddDays(365);
            var root = TrustMetadata.Sign(RootMetadata.Write(1, ends, publisher, publisher, new TrustRole([TrustKey.From(overview.OnlineKey)], 1)), Publisher);
            await Admin.PutTrustFileAsync("root", Encoding.UTF8.GetString(root));
            var targets = TrustMetadata.Sign(TargetsMetadata.WriteImages(1, ends, new Dictionary<string, TrustRole> { ["debian"] = publisher }), Publisher);
            await Admin.PutTrustFileAsync("targets", Encoding.UTF8.GetString(targets));
        }
    }

    /// <summary>Lets a user have more devices than the factory's policy does.</summary>
    public Task AllowDevicesAsync(int most) => Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["maxDevicesPerUser"] = most });

    public async Task<(EnrolledDevice Device, DeviceKey Key, NacreClient Client)> EnrolAsync(string user = "ann")
    {
        var key = DeviceKey.Create();
        var device = await Nobody.EnrolAsync(await CodeAsync(user), "laptop", key);
        return (device, key, As(device, key));
    }

    public static SegmentReference Describe(string name, byte[] bytes) => new(name, bytes.Length, Convert.ToHexStringLower(SHA256.HashData(bytes)));

    public static string SegmentName() => RandomNumberGenerator.GetHexString(32, lowercase: true);

    public async Task<SegmentReference> UploadAsync(int length = 1000)
    {
        var bytes = RandomNumberGenerator.GetBytes(length);
        var name = SegmentName();
        await Admin.UploadSegmentAsync(name, bytes);
        return Describe(name, bytes);
    }

    /// <summary>The file of a segment in the store.</summary>
    public string FileOf(string segment) => Path.Combine(Data, "segments", segment[..2], segment);

    public async Task<ReleaseManifest> ManifestAsync(int version = 1, string image = "debian") =>
        new(1, image, version, 1_700_000_000, "quiet", 4096, await UploadAsync(), [await UploadAsync(), await UploadAsync()]);

    public async Task<byte[]> PublishAsync(int version = 1, string image = "debian", string? channel = "stable")
    {
        await Admin.PutSigningKeyAsync(PublicKeys.From(Publisher));
        var key = RandomNumberGenerator.GetBytes(32);
        await Admin.PublishReleaseAsync(image, new PublishRelease(Jws.SignClaims(await ManifestAsync(version, image), Publisher), Convert.ToBase64String(key)));
        if (channel is not null)
        {
            await Admin.MoveChannelAsync(image, channel, version);
        }

        return key;
    }

    public async Task EntitleAsync(string livePc = "desk", string user = "ann", string image = "debian")
    {
        await Admin.CreateLivePcAsync(new CreateLivePc(livePc, image, null));
        await Admin.EntitleAsync(livePc, user);
    }

    public Task<HttpResponseMessage> SendAsync(string method, string path, string? bearer = null, HttpContent? content = null)
    {
        var request = new HttpRequestMessage(new HttpMethod(method), path) { Content = content };
        if (bearer is not null)
        {
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", bearer);
        }

        return Http.SendAsync(request, path == "v1/device/events" || path == "/v1/device/events" ? HttpCompletionOption.ResponseHeadersRead : HttpCompletionOption.ResponseContentRead); // that one does not end
    }

    public static StringContent Json(string json) => new(json, Encoding.UTF8, "application/json");

    public static StringContent Json(object body) => Json(JsonSerializer.Serialize(body, body.GetType(), ContractJson.Options));

    public static async Task<Problem> ProblemAsync(HttpResponseMessage response, ErrorKind expected)
    {
        Assert.Equal("application/problem+json", response.Content.Headers.ContentType?.MediaType);
        var problem = JsonSerializer.Deserialize<Problem>(await response.Content.ReadAsStringAsync(), ContractJson.Options)!;
        Assert.Equal(expected.Code, problem.Code);
        Assert.Equal(expected.Hint, problem.Hint);
        Assert.Equal((int)response.StatusCode, problem.Status);
        Assert.NotEmpty(problem.TraceId);
        Assert.NotEmpty(problem.Title);
        Assert.NotEmpty(problem.Detail);
        return problem;
    }

    public static async Task<NacreException> FailsAsync(ErrorKind kind, Task task)
    {
        var exception = await Assert.ThrowsAsync<NacreException>(() => task);
        Assert.True(exception.Kind == kind, $"expected {kind.Code}, got {exception.Kind.Code}: {exception.Message}");
        return exception;
    }

    public async ValueTask DisposeAsync()
    {
        if (app is not null)
        {
            await app.StopAsync();
            await app.DisposeAsync();
        }

        if (around is not null)
        {
            await OrganisationFolders.RemoveAsync(around.Data, Inside, TimeProvider.System, default);
            await (Cluster?.ExecuteAsync("postgres", $"DROP DATABASE {around.database}_{Inside} WITH (FORCE)") ?? Task.FromResult<object?>(null));
        }
        else if (Cluster is not null && first is null)
        {
            await Cluster.GiveBackAsync(database!, isChanged);
        }

        Http.Dispose();
        Publisher.Dispose();
        directory.Dispose();
    }
}

internal sealed class SettableTime : TimeProvider
{
    private long milliseconds = new DateTimeOffset(2026, 3, 1, 12, 0, 0, TimeSpan.Zero).ToUnixTimeMilliseconds();

    public override DateTimeOffset GetUtcNow() => DateTimeOffset.FromUnixTimeMilliseconds(Interlocked.Read(ref milliseconds));

    public void Advance(TimeSpan by) => Interlocked.Add(ref milliseconds, (long)by.TotalMilliseconds);
}

internal sealed class CapturedLog : ILoggerProvider, ILogger
{
    private readonly ConcurrentQueue<string> lines = new();

    public string Text => string.Join('\n', lines);

    public ILogger CreateLogger(string categoryName) => this;

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => true;

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
        lines.Enqueue($"{logLevel} {eventId.Id} {formatter(state, exception)} {exception}");

    public void Dispose()
    {
    }
}
