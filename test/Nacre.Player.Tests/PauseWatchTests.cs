using System.Net.Sockets;
using System.Text.Json.Nodes;
using System.Threading.Channels;
using Nacre.Player.LivePcs;
using Nacre.Player.Machines;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>A guest that QEMU paused goes on when it can, and not before.</summary>
public sealed class PauseWatchTests : IDisposable
{
    private const string Full = """{"event":"BLOCK_IO_ERROR","data":{"device":"","node-name":"data","operation":"write","action":"stop","nospace":true,"reason":"No space left on device"}}""";
    private const string Failed = """{"event":"BLOCK_IO_ERROR","data":{"device":"","node-name":"data","operation":"write","action":"stop","nospace":false,"reason":"Input/output error"}}""";
    private const string Stopped = """{"event":"STOP"}""";
    private const string Resumed = """{"event":"RESUME"}""";

    private readonly TemporaryDirectory folder = new();
    private readonly Channel<string?> words = Channel.CreateUnbounded<string?>();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task A_full_disk_is_named_with_what_is_missing_and_the_guest_goes_on_only_with_room()
    {
        var free = 100L << 20;
        await using var world = await World.CreateAsync(folder["qmp"], () => Interlocked.Read(ref free), words.Writer);
        await world.SendAsync(Failed, Full, Stopped);
        Assert.Equal("the disk of this computer is full: free 164 MB", await words.Reader.ReadAsync(Token));
        Assert.True(world.Watch.IsPaused);

        // Some room, and not enough.
        Interlocked.Exchange(ref free, 200L << 20);
        Assert.Equal("the disk of this computer is full: free 59 MB", await words.Reader.ReadAsync(Token));
        Assert.False(world.Commands.Reader.TryRead(out _));

        Interlocked.Exchange(ref free, PauseWatch.RoomToGoOn);
        Assert.Equal("cont", await world.Commands.Reader.ReadAsync(Token));
        Assert.Null(await LastAsync());
        Assert.False(world.Watch.IsPaused);
    }

    [Fact]
    public async Task A_guest_that_stops_again_is_let_go_on_again()
    {
        var again = true;
        await using var world = await World.CreateAsync(folder["qmp"], () => long.MaxValue, words.Writer, () =>
        {
            var first = again;
            again = false;
            return first ? [Resumed, Failed, Stopped] : [Resumed];
        });
        await world.SendAsync(Failed, Stopped);
        Assert.Equal("the disk of its layer 'data' failed; it is tried again", await words.Reader.ReadAsync(Token));
        Assert.Equal("cont", await world.Commands.Reader.ReadAsync(Token));
        Assert.Equal("cont", await world.Commands.Reader.ReadAsync(Token));
        Assert.Null(await LastAsync());
    }

    [Fact]
    public async Task A_pause_that_no_disk_caused_is_left_alone()
    {
        await using var world = await World.CreateAsync(folder["qmp"], () => long.MaxValue, words.Writer);
        await world.SendAsync(Stopped, """{"event":"BLOCK_IO_ERROR","data":{"action":"report","nospace":true,"node-name":"system"}}""", Stopped);
        await world.Qmp.ExecuteAsync("query-status", null, Token);
        Assert.Equal("query-status", await world.Commands.Reader.ReadAsync(Token));
        Assert.False(world.Watch.IsPaused);
        Assert.False(words.Reader.TryRead(out _));
    }

    [Fact]
    public async Task A_reply_that_nobody_waited_for_is_not_taken_for_the_next_commands()
    {
        await using var world = await World.CreateAsync(folder["qmp"], () => 0, words.Writer);
        await world.SendAsync("""{"return":"stale","id":0}""", """{"return":"strange"}""");
        Assert.Equal("query-status", (await world.Qmp.ExecuteAsync("query-status", null, Token))!.GetValue<string>());
    }

    private async Task<string?> LastAsync()
    {
        while (await words.Reader.ReadAsync(Token) is not null)
        {
            // The same pause, said again.
        }

        return null;
    }

    /// <summary>A QEMU that answers every command with its name, and <c>cont</c> with events.</summary>
    private sealed class World : IAsyncDisposable
    {
        private readonly Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        private readonly CancellationTokenSource ending = new();
        private JsonLines? peer;
        private Task serving = Task.CompletedTask;
        private Task watching = Task.CompletedTask;

        private World(PauseWatch watch) => Watch = watch;

        public PauseWatch Watch { get; }

        public Channel<string> Commands { get; } = Channel.CreateUnbounded<string>();

        public Qmp Qmp { get; private set; } = null!;

        public static async Task<World> CreateAsync(string path, Func<long> free, ChannelWriter<string?> words, Func<string[]>? onContinue = null)
        {
            var world = new World(new PauseWatch(free, why => words.TryWrite(why), TimeProvider.System));
            world.listener.Bind(new UnixDomainSocketEndPoint(path));
            world.listener.Listen(1);
            world.serving = Task.Run(() => world.ServeAsync(onContinue ?? (() => [Resumed])), Token);
            world.Qmp = await Qmp.ConnectAsync(path, Token);
            world.Qmp.EventRaised += world.Watch.OnEvent;
            world.watching = world.Watch.RunAsync(world.Qmp, world.ending.Token);
            return world;
        }

        public async Task SendAsync(params string[] lines)
        {
            foreach (var line in lines)
            {
                await peer!.WriteAsync(JsonNode.Parse(line)!, Token);
            }
        }

        public async ValueTask DisposeAsync()
        {
            await ending.CancelAsync();
            await watching.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await Qmp.DisposeAsync();
            await serving;
            peer?.Dispose();
            listener.Dispose();
            Watch.Dispose();
            ending.Dispose();
        }

        private async Task ServeAsync(Func<string[]> onContinue)
        {
            peer = new JsonLines(await listener.AcceptAsync(Token), 1 << 20);
            await SendAsync("""{"QMP":{}}""");
            while (await peer.ReadAsync(Token) is { } request)
            {
                var command = request["execute"]!.GetValue<string>();
                if (command == "cont")
                {
                    await SendAsync(onContinue());
                }

                await peer.WriteAsync(new JsonObject { ["return"] = command, ["id"] = request["id"]!.DeepClone() }, Token);
                if (command != "qmp_capabilities")
                {
                    Commands.Writer.TryWrite(command);
                }
            }
        }
    }
}
