using System.Collections.Concurrent;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.Data.Sqlite;
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

    public SettableTime Time { get; } = new();

    public CapturedLog Log { get; } = new();

    public string Data => directory["data"];

    public WebApplication App => app!;

    public Uri Url => new(App.Urls.Single());

    public HttpClient Http { get; private set; } = new();

    public string Token { get; private set; } = "";

    public NacreClient Admin { get; private set; } = null!;

    public NacreClient Nobody { get; private set; } = null!;

    public ECDsa Publisher { get; } = ECDsa.Create(ECCurve.NamedCurves.nistP256);

    public ServerOptions Options => new() { DataDirectory = Data, Listen = "http://127.0.0.1:0", OrganisationName = "Müller & Co", MaxSegmentBytes = 1024 * 1024, Postgres = Cluster?.Options(database!), KeyDirectory = first is null ? null : Path.Combine(first.Data, "keys") };

    public static async Task<World> StartAsync(Action<WebApplicationBuilder>? customise = null, PostgresCluster? cluster = null)
    {
        cluster ??= PrefersPostgres ? await PostgresCluster.GetAsync() : null;
        var world = new World(customise) { Cluster = cluster };
        world.database = cluster is null ? null : await cluster.CreateDatabaseAsync();
        await world.StartAgainAsync();
        return world;
    }

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
            return await Cluster.ExecuteAsync(database!, sql);
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
        Token = first?.Token ?? (await File.ReadAllTextAsync(Path.Combine(Data, "admin-token"))).Trim();
        Http = new HttpClient { BaseAddress = Url };
        Admin = new NacreClient(Url, Credential.Administrator(Token), Time);
        Nobody = new NacreClient(Url);
    }

    public NacreClient As(EnrolledDevice device, DeviceKey key) => new(Url, Credential.Device(device.DeviceId, key), Time);

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

        return Http.SendAsync(request);
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

        if (Cluster is not null && first is null)
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
