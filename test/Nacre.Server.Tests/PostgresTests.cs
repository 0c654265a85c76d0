using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Testing;
using Npgsql;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>What only a database with several servers, and one that can be away, must withstand.</summary>
public class PostgresTests
{
    [Fact]
    public async Task Two_servers_write_at_once_and_the_chain_holds_and_no_deed_is_lost()
    {
        await using var world = await StartAsync(cluster: await PostgresCluster.GetAsync());
        await using var beside = await StartBesideAsync(world);
        var servers = new[] { world, beside };
        await Parallel.ForAsync(0, 60, new ParallelOptions { MaxDegreeOfParallelism = 12 }, async (i, token) => await servers[i % 2].Admin.CreateUserAsync(new CreateUser($"user-{i}", null), token));

        // The same name at both: one wins, and the other one is told so.
        var won = 0;
        await Parallel.ForAsync(0, 40, new ParallelOptions { MaxDegreeOfParallelism = 8 }, async (i, token) =>
        {
            try
            {
                await servers[i % 2].Admin.CreateUserAsync(new CreateUser($"contested-{i / 2}", null), token);
                Interlocked.Increment(ref won);
            }
            catch (NacreException exception) when (exception.Kind == ErrorCatalogue.AlreadyExists)
            {
            }
        });
        Assert.Equal(20, won);
        var log = await beside.Admin.GetAuditAsync();
        Assert.True(log.Verified);
        Assert.Equal(Enumerable.Range(1, log.Entries.Count).Select(number => (long)number), log.Entries.Select(entry => entry.Sequence));
        var users = (await world.Admin.ListUsersAsync()).Select(user => user.Name).Order(StringComparer.Ordinal).ToList();
        Assert.Equal(80, users.Count);
        Assert.Equal(users, log.Entries.Where(entry => entry.Action == "user.create").Select(entry => entry.Subject).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task What_one_server_changes_holds_at_the_other()
    {
        await using var world = await StartAsync(cluster: await PostgresCluster.GetAsync());
        await world.PublishAsync();
        await using var beside = await StartBesideAsync(world);
        var (device, key, _) = await world.EnrolAsync();
        await world.EntitleAsync();
        using var client = beside.As(device, key);
        var first = key.DecryptKeys((await client.TakeLeaseAsync("desk", new TakeLease(null))).Keys);
        using var again = world.As(device, key);
        Assert.Equal(first.Share, key.DecryptKeys((await again.TakeLeaseAsync("desk", new TakeLease(null))).Keys).Share);

        // Tokens: a new one voids the one before, at both.
        var earlier = (await world.Admin.CreateReplicaTokenAsync()).Token;
        var token = (await beside.Admin.CreateReplicaTokenAsync()).Token;
        foreach (var server in new[] { world, beside })
        {
            using var stranger = new NacreClient(server.Url, Credential.Replica(earlier));
            await FailsAsync(ErrorCatalogue.Unauthenticated, stranger.GetReplicaPlanAsync());
            using var replica = new NacreClient(server.Url, Credential.Replica(token));
            await replica.GetReplicaPlanAsync();
        }

        await world.Admin.RevokeDeviceAsync(device.DeviceId);
        await FailsAsync(ErrorCatalogue.DeviceRevoked, client.TakeLeaseAsync("desk", new TakeLease(null)));
    }

    [Fact]
    public async Task A_code_is_used_once_although_two_servers_are_asked_at_once()
    {
        await using var world = await StartAsync(cluster: await PostgresCluster.GetAsync());
        await using var beside = await StartBesideAsync(world);
        var code = await world.CodeAsync();
        var outcomes = await Task.WhenAll(Enumerable.Range(0, 8).Select(async i =>
        {
            using var key = DeviceKey.Create();
            var request = new EnrolDevice(code.Id, "laptop", key.PublicKey, code.Prove("request", code.Id, "laptop", key.PublicKey.X, key.PublicKey.Y));
            using var response = await (i % 2 == 0 ? world : beside).SendAsync("POST", "v1/devices", null, Json(request));
            return response.StatusCode;
        }));
        Assert.Single(outcomes, HttpStatusCode.OK);
        Assert.Single(await world.Admin.ListDevicesAsync());
    }

    [Fact]
    public async Task Two_servers_that_start_at_once_on_a_new_database_make_it_once()
    {
        await using var cluster = await PostgresCluster.CreateAsync();
        var database = await cluster.CreateDatabaseAsync();
        using var directory = new TemporaryDirectory();
        ServerOptions Options(string data) => new() { DataDirectory = directory[data], KeyDirectory = directory["keys"], Listen = "http://127.0.0.1:0", Postgres = cluster.Options(database) };
        await using var one = NacreServer.Create(Options("one"));
        await using var other = NacreServer.Create(Options("other"));
        await Task.WhenAll(NacreServer.StartAsync(one), NacreServer.StartAsync(other));
        Assert.Equal(1L, await cluster.ExecuteAsync(database, "SELECT count(*) FROM \"Audit\""));
        Assert.True(File.Exists(directory["one/admin-token"]) ^ File.Exists(directory["other/admin-token"]));
        Assert.Equal(one.Services.GetRequiredService<LeaseSigner>().PublicKey, other.Services.GetRequiredService<LeaseSigner>().PublicKey);
        await one.StopAsync();
        await other.StopAsync();
    }

    [Fact]
    public async Task While_PostgreSQL_is_away_requests_fail_clearly_and_afterwards_go_on()
    {
        await using var cluster = await PostgresCluster.CreateAsync();
        await using var world = await StartAsync(cluster: cluster);
        var answers = new ConcurrentQueue<HttpStatusCode>();
        using var enough = new CancellationTokenSource();
        var working = Task.Run(async () =>
        {
            for (var i = 0; !enough.IsCancellationRequested; i++)
            {
                using var response = await world.SendAsync("POST", "v1/users", world.Token, Json(new CreateUser($"user-{i}", null)));
                answers.Enqueue(response.StatusCode);
                if (response.StatusCode != HttpStatusCode.Created)
                {
                    var problem = await ProblemAsync(response, ErrorCatalogue.DatabaseUnreachable);
                    Assert.Contains("PostgreSQL", problem.Detail, StringComparison.Ordinal);
                    await Task.Delay(20);
                }
            }
        });
        await WaitAsync(() => answers.Count > 5);
        await cluster.StopAsync();
        await WaitAsync(() => answers.LastOrDefault() == HttpStatusCode.ServiceUnavailable);
        using var health = await world.Http.GetAsync(new Uri("healthz", UriKind.Relative));
        Assert.Equal(HttpStatusCode.ServiceUnavailable, health.StatusCode);
        await cluster.StartAsync();
        await WaitAsync(() => answers.LastOrDefault() == HttpStatusCode.Created);
        await enough.CancelAsync();
        await working;
        Assert.All(answers, answer => Assert.True(answer is HttpStatusCode.Created or HttpStatusCode.ServiceUnavailable, $"{answer}"));
        var log = await world.Admin.GetAuditAsync();
        Assert.True(log.Verified);
        Assert.Equal((await world.Admin.ListUsersAsync()).Count, log.Entries.Count(entry => entry.Action == "user.create"));
        Assert.DoesNotContain(PostgresCluster.Password, world.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_database_that_can_not_be_used_is_said_at_the_start_without_its_password()
    {
        var cluster = await PostgresCluster.GetAsync();
        using var directory = new TemporaryDirectory();
        async Task<string> StartAsync(ErrorKind expected, PostgresOptions postgres) =>
            (await FailsAsync(expected, NacreServer.RunAsync(new ServerOptions { DataDirectory = directory["data"], Listen = "http://127.0.0.1:0", Postgres = postgres }))).ToString();

        var said = new List<string>
        {
            await StartAsync(ErrorCatalogue.DatabaseRefused, cluster.Options("nacre_template", "canary-wrong")),
            await StartAsync(ErrorCatalogue.DatabaseRefused, cluster.Options("nothing")),
            await StartAsync(ErrorCatalogue.DatabaseUnreachable, new PostgresOptions { ConnectionString = $"Host={directory.Path};Database=x;Username=x;Password=canary-a" }),
            await StartAsync(ErrorCatalogue.DatabaseUnreachable, new PostgresOptions { ConnectionString = "Host=127.0.0.1;Port=1;Database=x;Username=x;Password=canary-b" }),
            await StartAsync(ErrorCatalogue.DatabaseUnreachable, new PostgresOptions { ConnectionString = "Host=nowhere.invalid;Database=x;Username=x;Password=canary-c" }),
            await StartAsync(ErrorCatalogue.UsageInvalid, new PostgresOptions { ConnectionString = "postgres://x:canary-d@db/nacre" }),
            await StartAsync(ErrorCatalogue.UsageInvalid, new PostgresOptions { ConnectionString = "Host=db;Colour=canary-e" }),
        };
        Assert.All(said, text => Assert.DoesNotContain("canary", text, StringComparison.Ordinal));
        Assert.DoesNotContain("canary", $"{new ServerOptions { DataDirectory = "x", Postgres = cluster.Options("x") }}", StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_second_server_with_another_key_ring_does_not_start()
    {
        await using var world = await StartAsync(cluster: await PostgresCluster.GetAsync());
        using var directory = new TemporaryDirectory();
        var exception = await FailsAsync(ErrorCatalogue.FileAccess, NacreServer.RunAsync(world.Options with { DataDirectory = directory["data"] }));
        Assert.Contains("key ring", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Texts_are_ordered_and_compared_byte_by_byte_whatever_the_database_was_made_with()
    {
        await using var world = await StartAsync(cluster: await PostgresCluster.GetAsync());
        foreach (var name in new[] { "b", "a-b", "ab", "a1", "a" })
        {
            await world.Admin.CreateUserAsync(new CreateUser(name, null));
        }

        Assert.Equal(["a", "a-b", "a1", "ab", "b"], (await world.Admin.ListUsersAsync()).Select(user => user.Name));
        Assert.Equal(0L, await world.SqlAsync(
            "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public' AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"));
    }

    [Fact]
    public async Task The_audit_log_can_not_be_emptied()
    {
        await using var world = await StartAsync(cluster: await PostgresCluster.GetAsync());
        var refused = await Assert.ThrowsAsync<PostgresException>(() => world.SqlAsync("TRUNCATE \"Audit\""));
        Assert.Contains("append-only", refused.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a\\u0000b")]
    [InlineData("\\ud800")]
    public async Task A_text_that_PostgreSQL_can_not_have_is_the_callers_fault(string text)
    {
        await using var world = await StartAsync(cluster: await PostgresCluster.GetAsync());
        await world.PublishAsync();
        await world.Admin.CreateLivePcAsync(new CreateLivePc("desk", "debian", null));
        var response = await world.SendAsync("POST", "v1/livepcs/desk/orders", world.Token, Json($$"""{"device":"{{text}}","depth":"settings"}"""));
        await ProblemAsync(response, ErrorCatalogue.RequestInvalid);
    }

    private static async Task WaitAsync(Func<bool> condition)
    {
        var waited = Stopwatch.StartNew();
        while (!condition())
        {
            Assert.True(waited.Elapsed < TimeSpan.FromSeconds(60), "it did not come to that");
            await Task.Delay(20);
        }
    }
}
