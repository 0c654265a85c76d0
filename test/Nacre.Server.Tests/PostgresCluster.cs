using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Nacre.Testing;
using Npgsql;
using Xunit;

[assembly: AssemblyFixture(typeof(Nacre.Server.Tests.PostgresCluster.Shared))]

namespace Nacre.Server.Tests;

/// <summary>A real PostgreSQL of Debian's, in a folder of its own that only its user may look into, reached by a socket in it. Ends with the test run, however that ends.</summary>
internal sealed class PostgresCluster : IAsyncDisposable
{
    /// <summary>The role of the servers under test, and a password that must never be seen anywhere.</summary>
    public const string Role = "nacre", Password = "canary-Tr0ub4dor";

    private const string Template = "nacre_template";
    private static readonly SemaphoreSlim Gate = new(1, 1);
    private static PostgresCluster? shared;

    /// <summary>Databases that were used and are empty again: making one costs a second of a core.</summary>
    private readonly ConcurrentBag<string> free = [];
    private readonly TemporaryDirectory directory;
    private readonly string programs;
    private Process? process;
    private int databases;

    private PostgresCluster(TemporaryDirectory directory, string programs) => (this.directory, this.programs) = (directory, programs);

    /// <summary>The one of this test run; started by who needs it first.</summary>
    public static async Task<PostgresCluster> GetAsync()
    {
        await Gate.WaitAsync();
        try
        {
            if (shared is null)
            {
                var cluster = await CreateAsync();
                await cluster.ExecuteAsync("postgres", $"CREATE DATABASE {Template} OWNER {Role}");
                await using (var server = NacreServer.Create(new ServerOptions { DataDirectory = cluster.directory["first"], Listen = "http://127.0.0.1:0", Postgres = cluster.Options(Template) }, null, builder => builder.Logging.ClearProviders()))
                {
                    // Only the tables: what a server makes at its first start is each test's own.
                    await using var scope = server.Services.CreateAsyncScope();
                    await scope.ServiceProvider.GetRequiredService<NacreDatabase>().PrepareAsync(default);
                }

                shared = cluster;
            }

            return shared;
        }
        finally
        {
            Gate.Release();
        }
    }

    /// <summary>Another one, for a test that stops it. The caller disposes it.</summary>
    public static async Task<PostgresCluster> CreateAsync()
    {
        var programs = Directory.Exists("/usr/lib/postgresql")
            ? Directory.GetDirectories("/usr/lib/postgresql").Select(folder => Path.Combine(folder, "bin")).Where(folder => File.Exists(Path.Combine(folder, "initdb"))).Order(StringComparer.Ordinal).LastOrDefault()
            : null;
        Assert.SkipWhen(programs is null && Environment.GetEnvironmentVariable("CI") is null, "PostgreSQL is not installed: apt-get install postgresql");
        Assert.NotNull(programs);
        var cluster = new PostgresCluster(new TemporaryDirectory(), programs);
        if (Environment.IsPrivilegedProcess)
        {
            // PostgreSQL does not run as root.
            await RunAsync("chown", "postgres", cluster.directory.Path);
        }

        await RunAsync([.. As(), Path.Combine(programs, "initdb"), "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "-D", cluster.Data]);
        await File.WriteAllTextAsync(Path.Combine(cluster.Data, "pg_hba.conf"), $"local all {Role} scram-sha-256\nlocal all all trust\n");
        await cluster.StartAsync();
        await cluster.ExecuteAsync("postgres", $"CREATE ROLE {Role} LOGIN PASSWORD '{Password}'");
        return cluster;
    }

    /// <summary>A database with the tables of the newest version, and nothing in them.</summary>
    public async Task<string> CreateDatabaseAsync()
    {
        if (free.TryTake(out var used))
        {
            return used;
        }

        var name = string.Create(CultureInfo.InvariantCulture, $"world_{Interlocked.Increment(ref databases)}");
        await ExecuteAsync("postgres", this == shared ? $"CREATE DATABASE {name} TEMPLATE {Template} OWNER {Role}" : $"CREATE DATABASE {name} OWNER {Role}");
        return name;
    }

    /// <summary>One with nothing in it, not even tables; who makes it removes it.</summary>
    public Task CreateNamedAsync(string name) => ExecuteAsync("postgres", $"CREATE DATABASE {name} OWNER {Role}");

    /// <summary>Takes one back: the next test gets it without its rows. One whose tables or triggers were changed is not used again.</summary>
    public async Task GiveBackAsync(string database, bool isChanged)
    {
        if (isChanged)
        {
            await ExecuteAsync("postgres", $"DROP DATABASE {database} WITH (FORCE)");
            return;
        }

        await ExecuteAsync(
            database,
            """
            SET session_replication_role = replica; -- neither foreign keys nor the audit log's triggers are asked
            DO $$ DECLARE name text; BEGIN
              FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> '__EFMigrationsHistory' LOOP EXECUTE format('DELETE FROM %I', name); END LOOP;
            END $$
            """);
        free.Add(database);
    }

    /// <summary>All that is in a database, as SQL.</summary>
    public Task<string> DumpAsync(string database) => RunAsync([.. As(), Path.Combine(programs, "pg_dump"), "--host", directory.Path, "--username", "postgres", database]);

    public PostgresOptions Options(string database, string password = Password) => new()
    {
        ConnectionString = new NpgsqlConnectionStringBuilder { Host = directory.Path, Database = database, Username = Role, Password = password }.ToString(),
    };

    /// <summary>As the owner of all databases.</summary>
    public async Task<object?> ExecuteAsync(string database, string sql)
    {
        await using var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder { Host = directory.Path, Database = database, Username = "postgres", Pooling = false }.ToString());
        await connection.OpenAsync();
#pragma warning disable CA2100 // the tests' own text
        await using var command = new NpgsqlCommand(sql, connection);
#pragma warning restore CA2100
        return await command.ExecuteScalarAsync();
    }

    public async Task StartAsync()
    {
        // The shell ends the cluster when this process's end of its input is gone.
        var start = Words([.. As(), "sh", "-c", "\"$@\" >/dev/null 2>\"$0\" & cluster=$!; cat >/dev/null; kill -INT $cluster; wait $cluster", directory["data/server.log"],
            Path.Combine(programs, "postgres"), "-D", Data, "-k", directory.Path, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off", "-c", "autovacuum=off", "-c", "max_connections=300"]);
        start.RedirectStandardInput = true;
        process = Process.Start(start)!;
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        while (true)
        {
            try
            {
                await ExecuteAsync("postgres", "SELECT 1");
                return;
            }
            catch (NpgsqlException) when (!process.HasExited)
            {
                await Task.Delay(50, deadline.Token);
            }
        }
    }

    public async Task StopAsync()
    {
        if (process is not null)
        {
            process.StandardInput.Close();
            await process.WaitForExitAsync();
            process.Dispose();
            process = null;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        directory.Dispose();
    }

    private string Data => directory["data"];

    private static string[] As() => Environment.IsPrivilegedProcess ? ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] : [];

    private static ProcessStartInfo Words(string[] words) => new(words[0], words[1..]) { WorkingDirectory = "/" };

    private static async Task<string> RunAsync(params string[] words)
    {
        var start = Words(words);
        (start.RedirectStandardOutput, start.RedirectStandardError) = (true, true);
        using var run = Process.Start(start)!;
        var said = run.StandardOutput.ReadToEndAsync();
        var complained = await run.StandardError.ReadToEndAsync();
        await run.WaitForExitAsync();
        Assert.True(run.ExitCode == 0, $"{words[0]} ended with {run.ExitCode}: {complained}{await said}");
        return await said;
    }

    /// <summary>Ends the shared one after the last test.</summary>
    internal sealed class Shared : IAsyncDisposable
    {
        public async ValueTask DisposeAsync()
        {
            if (shared is not null)
            {
                await shared.DisposeAsync();
            }
        }
    }
}
