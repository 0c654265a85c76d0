using System.Data;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Design;
using Microsoft.EntityFrameworkCore.Storage;

namespace Nacre.Server;

/// <summary>The same state in PostgreSQL, for which there are migrations of their own (docs/adr/0008).</summary>
internal sealed class PostgresDatabase(DbContextOptions<PostgresDatabase> options, WriteGate gate) : NacreDatabase(options, gate)
{
    /// <summary>Advisory locks are numbers: who writes holds the first, who brings the database to a version the second.</summary>
    private const long WriteLock = 0x6e61637265, MigrationLock = 0x6e61637266;

    /// <summary>Takes the one lock of all writers. The statements that follow see all that was committed before it was had, and the commit, or the end of the
    /// connection, gives it back. A server that vanished with it is waited for five minutes at most.</summary>
    protected override async Task<IDbContextTransaction> BeginAloneAsync(CancellationToken cancellationToken)
    {
        var transaction = await Database.BeginTransactionAsync(cancellationToken);
        try
        {
            await Database.ExecuteSqlAsync($"SELECT set_config('idle_in_transaction_session_timeout', '5min', true), pg_advisory_xact_lock({WriteLock})", cancellationToken);
            return transaction;
        }
        catch
        {
            await transaction.DisposeAsync();
            throw;
        }
    }

    /// <summary>One server at a time; the others wait, and find it done. A change of a large table takes longer than a request may.</summary>
    public override async Task PrepareAsync(CancellationToken cancellationToken)
    {
        Database.SetCommandTimeout(TimeSpan.FromHours(1));
        await Database.OpenConnectionAsync(cancellationToken);
        try
        {
            await Database.ExecuteSqlAsync($"SELECT pg_advisory_lock({MigrationLock})", cancellationToken);
            await MigrateAsync(cancellationToken);
            await Database.ExecuteSqlRawAsync(Revision.Postgres(), cancellationToken);
        }
        finally
        {
            // A connection goes back as it is, with what it has locked; one that is gone has nothing.
            if (Database.GetDbConnection().State == ConnectionState.Open)
            {
                await Database.ExecuteSqlAsync($"SELECT pg_advisory_unlock({MigrationLock})", CancellationToken.None);
            }

            await Database.CloseConnectionAsync();
            Database.SetCommandTimeout(null);
        }
    }

    protected override void OnModelCreating(ModelBuilder modelBuilder)
    {
        base.OnModelCreating(modelBuilder);

        // Texts are compared byte by byte, as SQLite does, whatever the database was created with.
        foreach (var property in modelBuilder.Model.GetEntityTypes().SelectMany(entity => entity.GetProperties())
            .Where(property => property.ClrType == typeof(string) || property.GetProviderClrType() == typeof(string)))
        {
            property.SetCollation("C");
        }
    }
}

/// <summary>Lets <c>dotnet ef</c> write migrations for PostgreSQL.</summary>
internal sealed class PostgresDatabaseDesign : IDesignTimeDbContextFactory<PostgresDatabase>
{
    public PostgresDatabase CreateDbContext(string[] args) => new(new DbContextOptionsBuilder<PostgresDatabase>().UseNpgsql("Host=nowhere").Options, new WriteGate());
}
