using System.Text.Json;
using Nacre.Contracts;
using Nacre.Server;
using Nacre.Testing;
using Xunit;

namespace Nacre.Cli.Tests;

/// <summary>The log of a LivePC, from the event on the device to the file of who asked for it, by the real program and a real server.</summary>
public sealed class LogCommandTests : IDisposable
{
    private const string Reason = "Ann says that it does not start";
    private readonly TemporaryDirectory folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task A_start_that_fails_is_in_the_log_which_an_administrator_gets_for_a_reason_that_the_user_reads()
    {
        await using var server = NacreServer.Create(new ServerOptions { DataDirectory = folder["server"], Listen = "http://127.0.0.1:0" });
        await NacreServer.StartAsync(server, TestContext.Current.CancellationToken);
        await DoneAsync("login", server.Urls.First(), "--token-file", folder["server/admin-token"]);
        await DoneAsync("user", "add", "ann");
        var code = (await DoneAsync("device", "code", "ann")).Trim();
        await RefusedAsync(ErrorCatalogue.NotFound, "livepc", "log", "office");
        await DoneAsync("device", "enrol", server.Urls.First(), code);
        await RefusedAsync(ErrorCatalogue.NotEntitled, "livepc", "start", "office");
        await RefusedAsync(ErrorCatalogue.NotEntitled, "livepc", "start", "office");

        // On the device.
        var own = (await JsonAsync("livepc", "log", "office")).EnumerateArray().ToList();
        Assert.Equal(["start.failed", "start.failed"], own.Select(line => line.GetProperty("event").GetString()));
        Assert.StartsWith("E_NOT_ENTITLED: ", own[0].GetProperty("text").GetString(), StringComparison.Ordinal);
        Assert.Matches(@"\A\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ office error start.failed: E_NOT_ENTITLED: .+\n\z", await DoneAsync("livepc", "log", "office", "--lines", "1"));
        Assert.Equal((int)ExitCode.Usage, (await NacreProgram.RunAsync(folder, "livepc", "log", "office", "--lines", "0")).Code);
        await RefusedAsync(ErrorCatalogue.NotFound, "livepc", "log", "lab");

        // Asked for: not without a reason, and not where it could not be written.
        var device = (await JsonAsync("device", "list"))[0].GetProperty("id").GetString()!;
        await RefusedAsync(ErrorCatalogue.RequestInvalid, "device", "logs", device);
        await RefusedAsync(ErrorCatalogue.FileAccess, "device", "logs", device, "--reason", Reason, "--out", folder["none/log"]);
        await RefusedAsync(ErrorCatalogue.NotFound, "device", "logs", device, "--livepc", "office", "--reason", Reason); // the server never gave it one
        Assert.Empty((await JsonAsync("device", "logs", "list")).EnumerateArray());
        using var asking = NacreProgram.Start(folder, "device", "logs", device, "--reason", Reason, "--out", folder["log"]);
        await UntilAsync(async () => (await JsonAsync("device", "logs", "list")).GetArrayLength() == 1);
        Assert.False(File.Exists(folder["log"]));
        await DoneAsync("livepc", "list"); // the device's next contact
        var (ended, output, error) = await NacreProgram.EndAsync(asking);
        Assert.True(ended == 0, error);
        Assert.Equal($"{folder["log"]}: 3 events of device {device}", output.Trim());
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(folder["log"]));
        var lines = (await File.ReadAllLinesAsync(folder["log"], TestContext.Current.CancellationToken)).Select(line => JsonSerializer.Deserialize<LogLine>(line, ContractJson.Options)!).ToList();
        Assert.Equal(["start.failed", "start.failed", "log.asked"], lines.Select(line => line.Event));

        // Told to the user, and written down.
        var order = (await JsonAsync("device", "logs", "list"))[0];
        var id = order.GetProperty("id").GetString()!;
        Assert.Equal(("confirmed", Reason, "3 lines"), (order.GetProperty("state").GetString(), order.GetProperty("reason").GetString(), order.GetProperty("detail").GetString()));
        Assert.EndsWith($"order {id}: administrator asked for this log because: {Reason}", (await DoneAsync("livepc", "log", "office")).Trim(), StringComparison.Ordinal);
        Assert.Contains($"order {id}: administrator asked for this log because: {Reason}", await DoneAsync("livepc", "status", "office"), StringComparison.Ordinal);
        foreach (var action in new[] { "logs.order", "logs.deliver", "logs.send", "logs.confirm", "logs.read" })
        {
            Assert.Contains($"logs the whole device {device}: {Reason}", await DoneAsync("audit", "list", "--action", action), StringComparison.Ordinal);
        }

        // Fetched again, and deleted.
        Assert.Equal(3, (await DoneAsync("device", "logs", "fetch", id)).Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        await DoneAsync("device", "logs", "delete", id);
        await RefusedAsync(ErrorCatalogue.NotFound, "device", "logs", "fetch", id, "--out", folder["second"]);
        Assert.False(File.Exists(folder["second"]));

        // Taken back before the device heard of it; interrupted, the order stays.
        var waiting = (await DoneAsync("device", "logs", device, "--reason", Reason, "--no-wait")).Trim();
        await RefusedAsync(ErrorCatalogue.AlreadyExists, "device", "logs", device, "--reason", Reason);
        await DoneAsync("device", "logs", "withdraw", waiting);
        using var interrupted = NacreProgram.Start(folder, "device", "logs", device, "--reason", Reason);
        await UntilAsync(async () => (await JsonAsync("device", "logs", "list")).GetArrayLength() == 3);
        NacreProgram.Signal(interrupted, NacreProgram.Interrupt);
        Assert.Equal((int)ExitCode.Cancelled, (await NacreProgram.EndAsync(interrupted)).Code);
        Assert.Equal(["queued", "withdrawn", "confirmed"], (await JsonAsync("device", "logs", "list")).EnumerateArray().Select(one => one.GetProperty("state").GetString()));
        await DoneAsync("livepc", "list");
        Assert.Equal(2, lines.Count(line => line.Event == "start.failed"));
        Assert.Equal(["start.failed", "start.failed", "log.asked", "log.asked"], (await JsonAsync("livepc", "log", "office")).EnumerateArray().Select(line => line.GetProperty("event").GetString()));
    }

    private static async Task UntilAsync(Func<Task<bool>> isDone)
    {
        for (var limit = System.Diagnostics.Stopwatch.StartNew(); !await isDone(); await Task.Delay(100, TestContext.Current.CancellationToken))
        {
            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(1), "it did not come");
        }
    }

    private Task<JsonElement> JsonAsync(params string[] arguments) => NacreProgram.JsonAsync(folder, arguments);

    private async Task<string> DoneAsync(params string[] arguments)
    {
        var (code, output, error) = await NacreProgram.RunAsync(folder, arguments);
        Assert.True(code == 0, $"{string.Join(' ', arguments)} ended with {code}: {error}");
        return output;
    }

    private async Task RefusedAsync(ErrorKind kind, params string[] arguments)
    {
        var (code, _, error) = await NacreProgram.RunAsync(folder, arguments);
        Assert.True(code == (int)kind.ExitCode, $"{string.Join(' ', arguments)} ended with {code}: {error}");
        Assert.Contains($"nacre: hint: {kind.Hint}", error, StringComparison.Ordinal);
    }
}
