using System.Collections.Concurrent;
using Microsoft.EntityFrameworkCore;

namespace Nacre.Server;

/// <summary>Writes down when devices were seen, some seconds later and many at once: a write for each request would make the requests wait for each other. What a server
/// that is killed had not written yet is lost.</summary>
internal sealed class LastSeen(IServiceScopeFactory scopes, TimeProvider time, ILogger<LastSeen> logger) : BackgroundService
{
    private static readonly TimeSpan Step = TimeSpan.FromMinutes(1), Pause = TimeSpan.FromSeconds(2);
    private readonly ConcurrentDictionary<string, DateTimeOffset> seen = new(StringComparer.Ordinal);

    /// <summary>A device proved itself just now.</summary>
    public void Note(DeviceRow device)
    {
        if (time.Now() is var now && (device.LastSeenAt is null || now - device.LastSeenAt > Step))
        {
            seen[device.Id] = now;
        }
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        await WriteAsync(cancellationToken);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Pause);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            await WriteAsync(stoppingToken);
        }
    }

    private async Task WriteAsync(CancellationToken cancellationToken)
    {
        if (seen.IsEmpty)
        {
            return;
        }

        try
        {
            await using var scope = scopes.CreateAsyncScope();
            var database = scope.ServiceProvider.GetRequiredService<NacreDatabase>();
            await using var transaction = await database.BeginWriteAsync(cancellationToken);
            var written = seen.ToArray();
            foreach (var (device, at) in written)
            {
                await database.Devices.Where(row => row.Id == device).ExecuteUpdateAsync(update => update.SetProperty(row => row.LastSeenAt, at), cancellationToken);
            }

            await transaction.CommitAsync(cancellationToken);
            foreach (var one in written)
            {
                seen.TryRemove(one); // not where it was seen again meanwhile
            }
        }
#pragma warning disable CA1031 // A database that is away now must not end the server, nor keep it from ending.
        catch (Exception exception) when (exception is not OperationCanceledException)
#pragma warning restore CA1031
        {
            logger.LastSeenNotWritten(exception);
        }
    }
}
