using Microsoft.Data.Sqlite;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>Before the first request: one server per data directory, the database at its newest version, keys and token made.</summary>
internal sealed class Startup(IServiceProvider services, ServerOptions options, DataDirectory directory, ILogger<Startup> logger) : IHostedLifecycleService, IDisposable
{
    private FileStream? claim;

    public async Task StartingAsync(CancellationToken cancellationToken)
    {
        Claim();
        await services.GetRequiredService<ISegmentStore>().PrepareAsync(cancellationToken);
        await using var scope = services.CreateAsyncScope();
        var database = scope.ServiceProvider.GetRequiredService<NacreDatabase>();
        await database.PrepareAsync(cancellationToken);
        var audit = scope.ServiceProvider.GetRequiredService<AuditTrail>();
        await services.GetRequiredService<AdministratorToken>().EnsureAsync(database, audit, cancellationToken);
        await scope.ServiceProvider.GetRequiredService<StoreKeeper>().NoteUsesAsync(cancellationToken);

        // The first use of the key ring, under the writers' lock: of several servers at their first start one makes the key, and the others read it.
        await services.GetRequiredService<LeaseSigner>().EnsureAsync(database, cancellationToken);
        var authority = services.GetRequiredService<Authority>();
        await authority.EnsureAsync(database, cancellationToken);
        var certificates = services.GetRequiredService<ServerCertificates>();
        certificates.Prepare();
        if (options.IsTls && certificates.Authorities is { } authorities)
        {
            await File.WriteAllTextAsync(directory.Authorities, authorities, cancellationToken); // for the administrators' command line
        }

        if (options.IsOpen)
        {
            logger.ListensInTheClear(options.Listen);
        }

        await scope.ServiceProvider.GetRequiredService<Enrolment>().ForgetExpiredAsync(cancellationToken);
        logger.Ready(directory.Path, options.Postgres?.ToString() ?? directory.Database);
        if (File.Exists(directory.AdministratorToken))
        {
            logger.TokenFile(directory.AdministratorToken);
        }
    }

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken)
    {
        Dispose();
        return Task.CompletedTask;
    }

    public void Dispose()
    {
        using (var connection = new SqliteConnection(NacreServer.ConnectionString(directory)))
        {
            SqliteConnection.ClearPool(connection);
        }

        claim?.Dispose();
        claim = null;
    }

    private void Claim()
    {
        try
        {
            claim = new FileStream(directory.Lock, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException exception) when (File.Exists(directory.Lock) && !Problems.IsDiskFull(exception))
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"another server uses '{directory.Path}'", exception);
        }
    }
}

/// <summary>Clears the secrets of expired enrolment codes every hour, whether or not anybody calls.</summary>
internal sealed class CodeSweeper(IServiceScopeFactory scopes, TimeProvider time, ILogger<CodeSweeper> logger) : BackgroundService
{
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromHours(1), time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            try
            {
                await using var scope = scopes.CreateAsyncScope();
                await scope.ServiceProvider.GetRequiredService<Enrolment>().ForgetExpiredAsync(stoppingToken);
            }
#pragma warning disable CA1031 // The next hour is the next chance; a full disk now must not end the server.
            catch (Exception exception) when (exception is not OperationCanceledException)
#pragma warning restore CA1031
            {
                logger.CodesNotCleared(exception);
            }
        }
    }
}
