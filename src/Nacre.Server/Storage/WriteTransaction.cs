using Microsoft.EntityFrameworkCore.Storage;

namespace Nacre.Server;

/// <summary>
/// Lets one writer of this server at a time into a database, in the order in which they came. SQLite knows no queue: who finds it locked sleeps, and tries again; in
/// PostgreSQL those who wait would each hold a connection that a reader needs.
/// </summary>
internal sealed class WriteGate : IDisposable
{
    private readonly SemaphoreSlim gate = new(1);

    public Task EnterAsync(CancellationToken cancellationToken) => gate.WaitAsync(cancellationToken);

    public void Leave() => gate.Release();

    public void Dispose() => gate.Dispose();
}

/// <summary>A transaction that writes. What is not committed when it is disposed is taken back.</summary>
internal sealed class WriteTransaction(IDbContextTransaction transaction, WriteGate gate) : IAsyncDisposable
{
    private bool isInside = true;

    public async Task CommitAsync(CancellationToken cancellationToken)
    {
        await transaction.CommitAsync(cancellationToken);
        await transaction.DisposeAsync();
        Leave();
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            await transaction.DisposeAsync();
        }
        finally
        {
            Leave();
        }
    }

    private void Leave()
    {
        if (isInside)
        {
            isInside = false;
            gate.Leave();
        }
    }
}
