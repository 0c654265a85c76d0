using System.Net.Sockets;
using System.Reflection;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.DataProtection;
using Microsoft.AspNetCore.DataProtection.AuthenticatedEncryption;
using Microsoft.AspNetCore.DataProtection.AuthenticatedEncryption.ConfigurationModel;
using Microsoft.AspNetCore.HttpOverrides;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Npgsql;

namespace Nacre.Server;

/// <summary>The Nacre server.</summary>
public static class NacreServer
{
    private const long LargestBody = 1024 * 1024;

    /// <summary>Builds the server; it listens after <see cref="StartAsync"/>. The caller disposes it.</summary>
    /// <param name="options">How it runs.</param>
    /// <param name="time">The clock; null: the computer's.</param>
    /// <exception cref="NacreException">The options make no sense, or the data directory can't be made.</exception>
    public static WebApplication Create(ServerOptions options, TimeProvider? time = null) => Create(options, time, customise: null);

    /// <summary>Starts a server made by <see cref="Create(ServerOptions, TimeProvider?)"/>; <see cref="WebApplication.Urls"/> then has the address.</summary>
    /// <exception cref="NacreException">The address is in use, the disk is full, or a file can't be used.</exception>
    public static async Task StartAsync(WebApplication app, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(app);
        try
        {
            await app.StartAsync(cancellationToken);
        }
        catch (Exception exception) when (Explain(app, exception) is { } known)
        {
            throw known;
        }
    }

    /// <summary>Runs a server until it is cancelled or the process is told to end.</summary>
    /// <exception cref="NacreException">As <see cref="StartAsync"/>.</exception>
    public static async Task RunAsync(ServerOptions options, TimeProvider? time = null, CancellationToken cancellationToken = default)
    {
        await using var app = Create(options, time);
        await StartAsync(app, cancellationToken);
        await app.WaitForShutdownAsync(cancellationToken);
    }

    // With inner, which takes the place of a listener and of a log, it is one of the organisations of the server around it.
    internal static WebApplication Create(ServerOptions options, TimeProvider? time, Action<WebApplicationBuilder>? customise, InnerServer? inner = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Check();
        var directory = new DataDirectory(options.DataDirectory, options.KeyDirectory);

        // Empty: no configuration files, no environment variables. What runs is what the options say.
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions { ApplicationName = "Nacre.Server", ContentRootPath = directory.Path });
        if (inner is null)
        {
            Listen(builder, options);
        }
        else
        {
            builder.WebHost.UseServer(inner);
            builder.Services.AddSingleton<IHostLifetime, NoLifetime>();
        }

        AddServices(builder.Services, options, directory, time ?? TimeProvider.System);
        customise?.Invoke(builder);

        var app = builder.Build();
        if (inner is null)
        {
            app.Use(app.Services.GetRequiredService<Organisations>().DispatchAsync);
        }

        if (options.TrustedProxies.Count > 0)
        {
            var forwarded = new ForwardedHeadersOptions { ForwardedHeaders = ForwardedHeaders.XForwardedFor, ForwardLimit = null };
            forwarded.KnownProxies.Clear();
            forwarded.KnownIPNetworks.Clear();
            foreach (var network in options.TrustedProxies)
            {
                forwarded.KnownIPNetworks.Add(network);
            }

            app.UseForwardedHeaders(forwarded);
        }

        app.UseMiddleware<FailureMiddleware>();
        app.UseRouting();
        app.UseAuthentication();
        app.UseAuthorization();
        Map(app, options);

        // Built once: a group builds its endpoints, each of which is compiled, whenever it is asked for them.
        var sources = ((IEndpointRouteBuilder)app).DataSources;
        var endpoints = sources.SelectMany(source => source.Endpoints).ToArray();
        Groups.CheckComplete(endpoints);
        sources.Clear();
        sources.Add(new DefaultEndpointDataSource(endpoints));
        return app;
    }

    internal static string ConnectionString(DataDirectory directory) => new SqliteConnectionStringBuilder { DataSource = directory.Database }.ToString();

    private static void AddServices(IServiceCollection services, ServerOptions options, DataDirectory directory, TimeProvider time)
    {
        services.AddSingleton(options).AddSingleton(directory).AddSingleton(time);
        services.AddRouting();
        services.Configure<RouteHandlerOptions>(handlers => handlers.ThrowOnBadRequest = true);
        services.ConfigureHttpJsonOptions(json =>
        {
            ContractJson.Configure(json.SerializerOptions);
            json.SerializerOptions.UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow;
        });
        services.AddOpenApi("v1", OpenApi.Configure);
        services.AddDataProtection().SetApplicationName("nacre").PersistKeysToFileSystem(new DirectoryInfo(directory.Keys))
            .UseCryptographicAlgorithms(new AuthenticatedEncryptorConfiguration { EncryptionAlgorithm = EncryptionAlgorithm.AES_256_GCM });
        services.AddAuthentication(NacreAuthenticationHandler.SchemeName)
            .AddScheme<AuthenticationSchemeOptions, NacreAuthenticationHandler>(NacreAuthenticationHandler.SchemeName, null);
        services.AddAuthorization();
        services.AddSingleton<WriteGate>();
        if (options.Postgres is null)
        {
            services.AddDbContext<NacreDatabase>(database => database.UseSqlite(ConnectionString(directory)));
        }
        else
        {
            services.AddSingleton(_ => options.Postgres.Open());
            services.AddDbContext<NacreDatabase, PostgresDatabase>((provider, database) =>
                database.UseNpgsql(provider.GetRequiredService<NpgsqlDataSource>().CreateConnection(), contextOwnsConnection: true));
        }

        services.AddSingleton<SecretBox>().AddSingleton<LeaseSigner>().AddSingleton<Authority>().AddSingleton<ServerCertificates>().AddSingleton<AdministratorToken>();
        services.AddSingleton<ISegmentStore>(options.S3 is null ? new FolderSegmentStore(directory) : new S3SegmentStore(options.S3, directory));
        services.AddHttpContextAccessor();
        services.AddSingleton<Passwords>().AddSingleton<OpenIdClient>().AddScoped<Throttle>().AddScoped<Sessions>().AddScoped<Accounts>().AddScoped<OpenId>();
        services.AddSingleton<Refusals>();
        services.AddScoped<Caller>().AddScoped<AuditTrail>().AddScoped<Administrators>().AddScoped<Approvals>().AddScoped<Users>().AddScoped<UserGroups>().AddScoped<Policies>().AddScoped<Devices>().AddScoped<DeviceAuthenticator>().AddScoped<DeviceCertificates>().AddScoped<Enrolment>()
            .AddScoped<SigningKey>().AddScoped<TrustFiles>().AddScoped<Segments>().AddScoped<Images>().AddScoped<LivePcs>().AddScoped<Layers>().AddScoped<Following>().AddScoped<Rollouts>().AddScoped<Reports>().AddScoped<Anchors>()
            .AddScoped<Leases>().AddScoped<LeaseExtensions>().AddScoped<Orders>().AddScoped<DeviceOrders>().AddScoped<StoreKeeper>().AddScoped<Origins>().AddScoped<BootSets>().AddScoped<Recovery>().AddScoped<ReplicaToken>();
        services.AddSingleton<DeviceQueries>().AddSingleton<DeviceBell>().AddHostedService(provider => provider.GetRequiredService<DeviceBell>());
        services.AddSingleton<LastSeen>().AddHostedService(provider => provider.GetRequiredService<LastSeen>());
        services.AddHostedService<Startup>().AddHostedService<CodeSweeper>().AddHostedService<PeopleSweeper>().AddHostedService<StoreSweeper>().AddHostedService<RefusalSweeper>().AddHostedService<LogSweeper>();
    }

    private static void Listen(WebApplicationBuilder builder, ServerOptions options)
    {
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = LargestBody;
            if (options.IsTls)
            {
                var certificates = kestrel.ApplicationServices.GetRequiredService<ServerCertificates>();
                var organisations = kestrel.ApplicationServices.GetRequiredService<Organisations>();
                kestrel.Listen(options.Endpoint, listen => listen.UseHttps(new TlsHandshakeCallbackOptions
                {
                    OnConnection = connection => new((organisations.CertificatesOf(connection.ClientHelloInfo.ServerName) ?? certificates).Current()),
                }));
            }
        });
        if (!options.IsTls)
        {
            builder.WebHost.UseUrls(options.Listen);
        }

        builder.Logging.AddSimpleConsole().SetMinimumLevel(LogLevel.Warning).AddFilter("Nacre", LogLevel.Information)
            .AddFilter("Microsoft.AspNetCore.DataProtection", LogLevel.Error).AddFilter("Microsoft.Extensions.Hosting", LogLevel.None)
            .AddFilter("Microsoft.EntityFrameworkCore", LogLevel.Critical); // what fails is thrown, and said once, by us
        builder.Services.AddSingleton<Organisations>().AddHostedService(provider => provider.GetRequiredService<Organisations>());
    }

    private static void Map(WebApplication app, ServerOptions options)
    {
        var groups = new Groups(app);
        var version = typeof(NacreServer).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+')[0] ?? "0";
        groups.Public.MapGet("/server", () => TypedResults.Ok(new ServerInfo("nacre", version, options.OrganisationName)))
            .WithName("GetServer").WithSummary("What the server says about itself.");
        app.MapGet("/healthz", async (NacreDatabase database, CancellationToken cancellationToken) =>
            {
                await database.Settings.AsNoTracking().AnyAsync(cancellationToken);
                return TypedResults.Text("ok");
            })
            .AllowAnonymous().WithName("GetHealth").WithSummary("Whether the server works, its database included.");
        IdentityEndpoints.Map(groups);
        DeviceEndpoints.Map(groups);
        AdministratorEndpoints.Map(groups);
        PeopleEndpoints.Map(groups);
        OpenIdEndpoints.Map(groups);
        ImageEndpoints.Map(groups);
        BootSetEndpoints.Map(groups);
        ApprovalEndpoints.Map(groups);
        SegmentEndpoints.Map(groups, options);
        LivePcEndpoints.Map(groups);
        GroupEndpoints.Map(groups);
        PolicyEndpoints.Map(groups);
        LeaseEndpoints.Map(groups);
        RecoveryEndpoints.Map(groups);
        OrderEndpoints.Map(groups);
        DeviceOrderEndpoints.Map(groups);
        ReportEndpoints.Map(groups);
        TrustEndpoints.Map(groups);
        AuditEndpoints.Map(groups);
        StoreEndpoints.Map(groups);
        app.MapOpenApi("/openapi/{documentName}.json").AllowAnonymous();
    }

    private static NacreException? Explain(WebApplication app, Exception exception)
    {
        var options = app.Services.GetRequiredService<ServerOptions>();
        var place = $"'{app.Services.GetRequiredService<DataDirectory>().Path}'";
        return exception switch
        {
            NacreException known => known,
            IOException { InnerException: Microsoft.AspNetCore.Connections.AddressInUseException } =>
                new NacreException(ErrorCatalogue.AddressInUse, $"can't listen on {options.Listen}: another program does", exception),
            SocketException => new NacreException(ErrorCatalogue.AddressInUse, $"can't listen on {options.Listen}: {exception.Message}", exception),
            IOException full when Problems.IsDiskFull(full) => new NacreException(ErrorCatalogue.NoSpace, $"the disk of {place} is full", exception),
            _ when DatabaseProblems.Find(exception) is { } failure => new NacreException(failure.Kind, $"can't use {options.Postgres?.ToString() ?? $"the database in {place}"}: {failure.Detail}", exception),
            SqliteException => new NacreException(ErrorCatalogue.FileAccess, $"can't use the database in {place}: {exception.Message}", exception),
            System.Security.Cryptography.CryptographicException =>
                new NacreException(ErrorCatalogue.FileAccess, $"the key ring in '{app.Services.GetRequiredService<DataDirectory>().Keys}' does not belong to the database", exception),
            IOException or UnauthorizedAccessException => new NacreException(ErrorCatalogue.FileAccess, $"can't use {place}: {exception.Message}", exception),
            _ => null,
        };
    }
}
