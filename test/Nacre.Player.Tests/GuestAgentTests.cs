using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Player.Machines;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>The guest is hostile: whatever its agent says, the player stays bounded and clear.</summary>
public sealed class GuestAgentTests : IDisposable
{
    private readonly TemporaryDirectory folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task A_command_is_run_and_its_output_and_exit_code_come_back()
    {
        var polls = 0;
        using var guest = new FakeAgent(folder["agent"], request => request["execute"]!.GetValue<string>() switch
        {
            "guest-exec" => """{"return":{"pid":7}}""",
            "guest-exec-status" when polls++ < 2 => """{"return":{"exited":false}}""",
            "guest-exec-status" => """{"return":{"exited":true,"exitcode":3,"out-data":"aGk=","err-data":"b2g="}}""",
            _ => throw new InvalidOperationException(),
        });
        using var agent = new GuestAgent(folder["agent"]);
        await agent.WaitAsync(Token);
        var result = await agent.ExecuteAsync("/bin/true", ["a b", "c"], "in"u8.ToArray(), Token);
        Assert.Equal((3, "hi", "oh"), (result.ExitCode, Encoding.ASCII.GetString(result.Output), Encoding.ASCII.GetString(result.Error)));
        var sent = guest.Requests.First(request => request["execute"]!.GetValue<string>() == "guest-exec")["arguments"]!;
        Assert.Equal("""["a b","c"]""", sent["arg"]!.ToJsonString());
        Assert.Equal("aW4=", sent["input-data"]!.GetValue<string>());
    }

    [Theory]
    [InlineData("not json")]
    [InlineData("[1,2]")]
    [InlineData("7")]
    [InlineData("null")]
    [InlineData("""{"return":{}}""")]
    [InlineData("""{"return":{"pid":"seven"}}""")]
    [InlineData("""{"return":[]}""")]
    [InlineData("""{"error":{"desc":"no"}}""")]
    public async Task An_odd_answer_is_a_clear_error(string answer)
    {
        using var guest = new FakeAgent(folder["agent"], _ => answer);
        using var agent = new GuestAgent(folder["agent"]);
        await agent.WaitAsync(Token);
        var failure = await Assert.ThrowsAsync<NacreException>(() => agent.ExecuteAsync("/bin/true", [], null, Token));
        Assert.Equal(ErrorCatalogue.GuestFailed, failure.Kind);
    }

    [Fact]
    public async Task Output_that_is_not_base64_is_a_clear_error()
    {
        using var guest = new FakeAgent(folder["agent"], request => request["execute"]!.GetValue<string>() == "guest-exec"
            ? """{"return":{"pid":7}}""" : """{"return":{"exited":true,"exitcode":0,"out-data":"***"}}""");
        using var agent = new GuestAgent(folder["agent"]);
        await agent.WaitAsync(Token);
        Assert.Equal(ErrorCatalogue.GuestFailed, (await Assert.ThrowsAsync<NacreException>(() => agent.ExecuteAsync("/bin/true", [], null, Token))).Kind);
    }

    [Fact]
    public async Task A_line_without_end_is_cut_off()
    {
        var path = folder["endless"];
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen(1);
        var feeding = Task.Run(async () =>
        {
            using var peer = await listener.AcceptAsync(Token);
            var block = new byte[65536];
            block.AsSpan().Fill((byte)'x');
            var sent = 0L;
            try
            {
                while (sent < 100_000_000)
                {
                    sent += await peer.SendAsync(block, Token);
                }
            }
            catch (SocketException)
            {
                // The player hung up, as it should.
            }

            return sent;
        }, Token);
        using (var lines = await JsonLines.ConnectAsync(path, 100_000, Token))
        {
            await Assert.ThrowsAsync<IOException>(() => lines.ReadAsync(Token));
        }

        Assert.InRange(await feeding, 100_000, 5_000_000);
    }

    [Fact]
    public async Task The_console_can_not_move_the_terminal_and_keeps_only_its_end()
    {
        var tail = new ConsoleTail(20);
        using var stream = new MemoryStream(Encoding.ASCII.GetBytes("lost lost lost \u001b[2J\u001b[31mred\u001b]0;t\u0007\rline\n"));
        await tail.FillAsync(stream);
        var text = tail.ToString();
        Assert.DoesNotContain('\u001b', text);
        Assert.DoesNotContain('\r', text);
        Assert.DoesNotContain("lost lost", text, StringComparison.Ordinal);
        Assert.EndsWith("line\n", text, StringComparison.Ordinal);
    }

    /// <summary>Answers synchronisation as an agent does, and every other command as the test says.</summary>
    [Fact]
    public async Task A_guest_that_stands_still_goes_on_whatever_happens_and_is_asked_nothing_else_meanwhile()
    {
        var (isStill, thaws, refuses) = (false, 0, 0);
        using var guest = new FakeAgent(folder["agent"], request =>
        {
            switch (request["execute"]!.GetValue<string>())
            {
                case "guest-fsfreeze-freeze-list":
                    isStill = true;
                    return """{"return":3}""";
                case "guest-fsfreeze-thaw" when refuses-- > 0:
                    return """{"error":{"desc":"not now"}}""";
                case "guest-fsfreeze-thaw":
                    isStill = false;
                    thaws++;
                    return """{"return":3}""";
                default:
                    return isStill ? """{"error":{"desc":"the agent is in frozen state"}}""" : """{"return":{"pid":7}}""";
            }
        });
        using var agent = new GuestAgent(folder["agent"]);
        var limit = TimeSpan.FromSeconds(30);
        Task? other = null;
        Assert.Equal(5, await agent.WhileFrozenAsync(
            ["/a"],
            () =>
            {
                Assert.True(isStill);
                other = agent.StartAsync("/bin/true", [], Token);
                return 5;
            },
            limit, limit));
        await other!;

        refuses = 2;
        await Assert.ThrowsAsync<InvalidOperationException>(() => agent.WhileFrozenAsync<int>(["/a"], () => throw new InvalidOperationException("no"), limit, limit));
        Assert.Equal((false, 2), (isStill, thaws));
    }

    [Fact]
    public async Task A_guest_that_does_not_stand_still_in_time_is_asked_to_go_on()
    {
        var thaws = 0;
        using var freed = new ManualResetEventSlim();
        using var guest = new FakeAgent(folder["agent"], request =>
        {
            if (request["execute"]!.GetValue<string>() == "guest-fsfreeze-thaw")
            {
                thaws++;
                return """{"return":0}""";
            }

            freed.Wait(Token);
            return """{"return":3}""";
        });
        using var agent = new GuestAgent(folder["agent"]);
        var taking = agent.WhileFrozenAsync(["/a"], () => 5, TimeSpan.FromMilliseconds(200), TimeSpan.FromSeconds(30));
        await Task.Delay(500, Token);
        freed.Set();
        Assert.Equal(ErrorCatalogue.GuestFailed, (await Assert.ThrowsAsync<NacreException>(() => taking)).Kind);
        Assert.Equal(1, thaws);
    }

    private sealed class FakeAgent : IDisposable
    {
        private readonly Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);

        public FakeAgent(string path, Func<JsonObject, string> answer)
        {
            listener.Bind(new UnixDomainSocketEndPoint(path));
            listener.Listen(4);
            _ = Task.Run(async () =>
            {
                while (true)
                {
                    using var lines = new JsonLines(await listener.AcceptAsync(), 1 << 20);
                    try
                    {
                        while (await lines.ReadAsync(CancellationToken.None) is JsonObject request)
                        {
                            Requests.Add(request);
                            var text = request["execute"]!.GetValue<string>() == "guest-sync-delimited"
                                ? $$"""{"return":{{request["arguments"]!["id"]}}}""" : answer(request);
                            await lines.WriteAsync(Encoding.ASCII.GetBytes(text + "\n"), CancellationToken.None);
                        }
                    }
                    catch (IOException)
                    {
                        // The player did not wait for the answer; the agent goes on with the next conversation.
                    }
                }
            });
        }

        public System.Collections.Concurrent.ConcurrentBag<JsonObject> Requests { get; } = [];

        public void Dispose() => listener.Dispose();
    }
}
