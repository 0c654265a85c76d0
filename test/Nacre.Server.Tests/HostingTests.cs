using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

public class HostingTests
{
    [Fact]
    public async Task A_server_started_again_knows_what_it_knew()
    {
        await using var world = await StartAsync();
        await world.PublishAsync();
        var (device, key, _) = await world.EnrolAsync();
        await world.EntitleAsync();
        var token = world.Token;
        await world.StartAgainAsync();
        Assert.Equal(token, world.Token);
        Assert.Equal(device.DeviceId, Assert.Single(await world.Admin.ListDevicesAsync()).Id);
        Assert.Single(await world.Admin.ListReleasesAsync("debian"));
        using var client = world.As(device, key);
        Assert.Single(await client.ListEntitledLivePcsAsync());
        Assert.True((await world.Admin.GetAuditAsync()).Verified);
        if (world.Cluster is null)
        {
            Assert.Equal("wal", await world.SqlAsync("PRAGMA journal_mode"));
        }
    }

    [Fact]
    public async Task No_secret_is_in_the_clear_in_the_data_directory_or_the_log_or_the_audit()
    {
        await using var world = await StartAsync();
        var releaseKey = await world.PublishAsync();
        var (device, key, client) = await world.EnrolAsync();
        var unused = await world.CodeAsync();
        await world.EntitleAsync();
        var grant = await client.TakeLeaseAsync("desk", new TakeLease(null));
        var share = Convert.FromBase64String(key.DecryptKeys(grant.Keys).Share);
        var secrets = new[] { releaseKey, share }.SelectMany(bytes => new[]
        {
            bytes, Encoding.ASCII.GetBytes(Convert.ToBase64String(bytes).TrimEnd('=')), Encoding.ASCII.GetBytes(Convert.ToHexString(bytes)), Encoding.ASCII.GetBytes(Convert.ToHexStringLower(bytes)),
        }).Append(Encoding.ASCII.GetBytes(unused.Secret)).ToList();
        var token = Encoding.ASCII.GetBytes(world.Token);
        var audit = string.Join('\n', (await world.Admin.GetAuditAsync()).Entries);
        await world.App.StopAsync();
        var files = Directory.GetFiles(world.Data, "*", SearchOption.AllDirectories);
        Assert.True(world.Cluster is not null || files.Any(file => file.EndsWith("nacre.db", StringComparison.Ordinal)));
        foreach (var file in files)
        {
            var bytes = await File.ReadAllBytesAsync(file);
            Assert.All(secrets, secret => Assert.True(bytes.AsSpan().IndexOf(secret) < 0, file));
            Assert.Equal(file.EndsWith("admin-token", StringComparison.Ordinal), bytes.AsSpan().IndexOf(token) >= 0);
        }

        var said = Encoding.UTF8.GetBytes(world.Log.Text + audit + (world.Cluster is null ? "" : await world.Cluster.DumpAsync(new Npgsql.NpgsqlConnectionStringBuilder(world.Options.Postgres!.ConnectionString).Database!)));
        Assert.All(secrets.Append(token).Append(Encoding.ASCII.GetBytes(PostgresCluster.Password)), secret => Assert.True(said.AsSpan().IndexOf(secret) < 0));
        Assert.NotEmpty(device.DeviceId);
    }

    [Fact]
    public void Nothing_that_holds_a_secret_says_it()
    {
        var secret = Convert.ToBase64String(RandomNumberGenerator.GetBytes(32));
        object[] holders =
        [
            new PublishRelease("m", secret), new LeaseKeys(secret, new Dictionary<string, string> { ["1"] = secret }), new CreatedEnrolmentCode(secret, default),
            Nacre.Client.Credential.Administrator(secret),
        ];
        Assert.All(holders, holder => Assert.DoesNotContain(secret, holder.ToString()!, StringComparison.Ordinal));
    }

    [Fact]
    public async Task Only_the_owner_may_look_into_the_data_directory()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "file modes of Unix");
        await using var world = await StartAsync();
        if (!OperatingSystem.IsWindows())
        {
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(Path.Combine(world.Data, "admin-token")));
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, File.GetUnixFileMode(Path.Combine(world.Data, "keys")));
        }

        Assert.Equal(32, System.Buffers.Text.Base64Url.DecodeFromChars(world.Token).Length);
    }

    [Fact]
    public async Task An_address_in_use_is_said_without_a_stack_trace()
    {
        await using var world = await StartAsync();
        using var other = new TemporaryDirectory();
        var exception = await FailsAsync(ErrorCatalogue.AddressInUse, NacreServer.RunAsync(world.Options with { DataDirectory = other["data"], Postgres = null, Listen = world.Url.ToString() }));
        Assert.Contains(world.Url.Port.ToString(System.Globalization.CultureInfo.InvariantCulture), exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_runs_until_it_is_cancelled()
    {
        using var directory = new TemporaryDirectory();
        using var cancel = new CancellationTokenSource();
        var running = NacreServer.RunAsync(new ServerOptions { DataDirectory = directory["data"], Listen = "http://127.0.0.1:0" }, cancellationToken: cancel.Token);
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        while (!File.Exists(Path.Combine(directory["data"], "admin-token")))
        {
            await Task.Delay(10, deadline.Token);
        }

        await cancel.CancelAsync();
        try
        {
            await running;
        }
        catch (OperationCanceledException)
        {
            // cancelled while it was still starting
        }
    }

    [Fact]
    public async Task A_data_directory_has_one_server()
    {
        await using var world = await StartAsync();
        await FailsAsync(ErrorCatalogue.FileAccess, NacreServer.RunAsync(world.Options));
        Assert.Single((await world.Admin.GetAuditAsync()).Entries);
    }

    [Fact]
    public async Task A_data_directory_that_can_not_be_is_said()
    {
        using var directory = new TemporaryDirectory();
        await File.WriteAllTextAsync(directory["file"], "");
        var options = new ServerOptions { DataDirectory = directory["file"], Listen = "http://127.0.0.1:0" };
        await FailsAsync(ErrorCatalogue.FileAccess, NacreServer.RunAsync(options));
        await FailsAsync(ErrorCatalogue.UsageInvalid, NacreServer.RunAsync(options with { Listen = "ftp://127.0.0.1:0" }));
        await FailsAsync(ErrorCatalogue.UsageInvalid, NacreServer.RunAsync(options with { OrganisationName = "" }));
        await FailsAsync(ErrorCatalogue.UsageInvalid, NacreServer.RunAsync(options with { MaxSegmentBytes = 0 }));
        await FailsAsync(ErrorCatalogue.UsageInvalid, NacreServer.RunAsync(options with { DataDirectory = " " }));
        Directory.CreateDirectory(directory["bad"]);
        await File.WriteAllTextAsync(Path.Combine(directory["bad"], "nacre.db"), "this is not a database, whatever its name says");
        await FailsAsync(ErrorCatalogue.FileAccess, NacreServer.RunAsync(options with { DataDirectory = directory["bad"] }));
    }

    [Fact]
    public async Task A_database_of_a_newer_version_is_said_and_left_alone()
    {
        await using var world = await StartAsync();
        await world.App.StopAsync();
        await world.SqlAsync("INSERT INTO \"__EFMigrationsHistory\" (\"MigrationId\", \"ProductVersion\") VALUES ('99990101000000_Later', '99.0')");
        var exception = await FailsAsync(ErrorCatalogue.Unsupported, NacreServer.RunAsync(world.Options));
        Assert.Contains("99990101000000_Later", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void No_change_of_the_model_lacks_a_migration()
    {
        using var sqlite = new NacreDatabaseDesign().CreateDbContext([]);
        using var postgres = new PostgresDatabaseDesign().CreateDbContext([]);
        Assert.False(sqlite.Database.HasPendingModelChanges(), "dotnet ef migrations add NAME --context NacreDatabase: see docs/operations.md");
        Assert.False(postgres.Database.HasPendingModelChanges(), "dotnet ef migrations add NAME --context PostgresDatabase: see docs/operations.md");
    }

    [Fact]
    public async Task A_database_without_its_keys_is_said()
    {
        await using var world = await StartAsync();
        await world.App.StopAsync();
        Directory.Delete(Path.Combine(world.Data, "keys"), recursive: true);
        await FailsAsync(ErrorCatalogue.FileAccess, NacreServer.RunAsync(world.Options));
    }

    [Fact]
    public void Event_ids_are_unique()
    {
        var ids = typeof(Log).GetMethods().SelectMany(method => method.GetCustomAttributes(typeof(Microsoft.Extensions.Logging.LoggerMessageAttribute), false))
            .Select(attribute => ((Microsoft.Extensions.Logging.LoggerMessageAttribute)attribute).EventId).ToList();
        Assert.NotEmpty(ids);
        Assert.Equal(ids.Count, ids.Distinct().Count());
    }
}
