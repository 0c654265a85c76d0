using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;
using System.Threading.Channels;
using CsCheck;
using Nacre.Contracts;
using Nacre.Player.Clipboard;
using Nacre.Policies;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>What passes between host and guest on the clipboard, whatever the guest's agent says.</summary>
public sealed class ClipboardTests : IDisposable
{
    private readonly TemporaryDirectory folder = new();
    private Policy policy = Of("text", "text", 100);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(2047)]
    [InlineData(100_000)]
    public void A_message_is_read_whatever_pieces_it_comes_in(int piece)
    {
        var text = new string('x', 5000);
        var bytes = VdAgent.Encode(VdAgent.Clipboard, Encoding.UTF8.GetBytes(text)).Concat(VdAgent.Encode(VdAgent.Release, [])).ToArray();
        var heard = new List<AgentMessage>();
        var parser = new AgentParser(10_000);
        foreach (var part in bytes.Chunk(piece))
        {
            parser.Feed(part, heard.Add);
        }

        Assert.Equal([(VdAgent.Clipboard, text, false), (VdAgent.Release, "", false)], heard.Select(message => (message.Type, Encoding.UTF8.GetString(message.Data), message.IsTooLong)));
    }

    [Fact]
    public void A_message_that_is_too_long_is_counted_and_not_kept_and_the_next_one_is_read()
    {
        var heard = new List<AgentMessage>();
        var parser = new AgentParser(1000);
        var before = GC.GetAllocatedBytesForCurrentThread();

        // In one chunk, as spice-vdagentd sends it: 3 GB announced, of which 64 MB come.
        const int Sent = 64 << 20;
        parser.Feed(Chunk(3u << 30, Header(VdAgent.Clipboard, (3u << 30) - 20)), heard.Add);
        var junk = new byte[65536];
        for (var i = 0; i < Sent; i += junk.Length)
        {
            parser.Feed(junk, heard.Add);
        }

        Assert.Empty(heard);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 1 << 20);

        var next = new AgentParser(1000);
        next.Feed(VdAgent.Encode(VdAgent.Clipboard, new byte[1001]), heard.Add);
        next.Feed(VdAgent.Encode(VdAgent.Clipboard, new byte[1000]), heard.Add);
        Assert.Equal([(true, 0), (false, 1000)], heard.Select(message => (message.IsTooLong, message.Data.Length)));
    }

    [Fact]
    public void Whatever_bytes_come_they_are_messages_or_refused_and_no_more_is_kept_than_is_taken() => Gen.Select(
            Gen.Byte.Array[0, 300], Gen.Int[1, 50], Gen.OneOf(Gen.Const(0u), Gen.Const(1u), Gen.Const(2u), Gen.UInt), Gen.OneOf(Gen.UInt[0, 400], Gen.UInt), Gen.OneOf(Gen.UInt[0, 12], Gen.UInt), Gen.OneOf(Gen.UInt[0, 300], Gen.UInt))
        .Sample((noise, piece, port, chunk, type, size) =>
        {
            byte[] bytes = [.. VdAgent.Numbers(port, chunk), .. Header(type, size), .. noise];
            var parser = new AgentParser(200);
            try
            {
                foreach (var part in bytes.Chunk(piece))
                {
                    parser.Feed(part, message => Assert.True(message.Data.Length <= 200 && (!message.IsTooLong || message.Data.Length == 0)));
                }
            }
            catch (InvalidDataException)
            {
                // Refused.
            }
        });

    [Fact]
    public async Task Whatever_messages_come_the_channel_goes_on()
    {
        await using var world = await World.CreateAsync(folder["clip"], () => policy);
        Gen.Select(Gen.UInt[0, 20], Gen.Byte.Array[0, 40], Gen.Bool).Array[1, 20].Sample(messages =>
        {
            foreach (var (type, data, isTooLong) in messages)
            {
                world.Channel.Hear(new AgentMessage(type, isTooLong ? [] : data, isTooLong));
            }
        }, threads: 1, iter: 2000);
        using var other = new TemporaryDirectory();
        await using var fresh = await World.CreateAsync(other["clip"], () => policy);
        await fresh.SayAsync(VdAgent.Encode(99, [1, 2, 3]));
        fresh.Channel.Offer("still there");
        Assert.Equal(VdAgent.Grab, (await fresh.HearAsync()).Type);
    }

    [Fact]
    public async Task Text_goes_in_when_the_guest_asks_for_it_and_the_policy_lets_it()
    {
        await using var world = await World.CreateAsync(folder["clip"], () => policy);
        world.Channel.Offer("grüezi");
        Assert.Equal(VdAgent.Numbers(0, VdAgent.Utf8), (await world.HearAsync()).Data);
        await world.SayAsync(VdAgent.Encode(VdAgent.Request, VdAgent.Numbers(0, VdAgent.Utf8)));
        Assert.Equal(VdAgent.Numbers(0, VdAgent.Utf8).Concat(Encoding.UTF8.GetBytes("grüezi")), (await world.HearAsync()).Data);

        // Another type, and another selection.
        await world.SayAsync(VdAgent.Encode(VdAgent.Request, VdAgent.Numbers(1, VdAgent.Utf8)));
        await world.SayAsync(VdAgent.Encode(VdAgent.Request, VdAgent.Numbers(0, 2)));
        Assert.Equal(VdAgent.Numbers(0, VdAgent.Nothing), (await world.HearAsync()).Data);

        // Tightened after it was offered: it is taken back, and not given.
        policy = Of("off", "text", 100);
        world.Channel.Enforce();
        Assert.Equal(VdAgent.Release, (await world.HearAsync()).Type);
        await world.SayAsync(VdAgent.Encode(VdAgent.Request, VdAgent.Numbers(0, VdAgent.Utf8)));
        Assert.Equal(VdAgent.Numbers(0, VdAgent.Nothing), (await world.HearAsync()).Data);
        Assert.Equal(ErrorCatalogue.Forbidden, Assert.Throws<NacreException>(() => world.Channel.Offer("more")).Kind);
        policy = Of("text", "off", 5);
        Assert.Equal(ErrorCatalogue.TooLarge, Assert.Throws<NacreException>(() => world.Channel.Offer("123456")).Kind);
        world.Channel.Offer("12345");
    }

    [Fact]
    public async Task Text_comes_out_when_it_is_asked_for_and_the_policy_lets_it()
    {
        await using var world = await World.CreateAsync(folder["clip"], () => policy);
        Assert.Equal(ErrorCatalogue.NotFound, (await Assert.ThrowsAsync<NacreException>(() => world.Channel.FetchAsync(Token))).Kind);
        await world.GrabAsync();
        Assert.Equal("copied", await world.FetchAsync(Encoding.UTF8.GetBytes("copied")));
        Assert.Equal(ErrorCatalogue.TooLarge, (await Assert.ThrowsAsync<NacreException>(() => world.FetchAsync(new byte[101]))).Kind);
        Assert.Equal(ErrorCatalogue.TooLarge, (await Assert.ThrowsAsync<NacreException>(() => world.FetchAsync(new byte[6 << 20]))).Kind);
        Assert.Equal(ErrorCatalogue.GuestFailed, (await Assert.ThrowsAsync<NacreException>(() => world.FetchAsync([0xff, 0xfe]))).Kind);

        // What comes unasked goes nowhere, and is not the answer to what is asked later.
        await world.SayAsync(VdAgent.Encode(VdAgent.Clipboard, [.. VdAgent.Numbers(0, VdAgent.Utf8), .. Encoding.UTF8.GetBytes("unasked")]));
        await world.GrabAsync();
        Assert.Equal("asked", await world.FetchAsync(Encoding.UTF8.GetBytes("asked")));

        // Where nothing may come out the guest is not even asked.
        policy = Of("text", "off", 100);
        Assert.Equal(ErrorCatalogue.Forbidden, (await Assert.ThrowsAsync<NacreException>(() => world.Channel.FetchAsync(Token))).Kind);
        world.Channel.Offer("in");
        Assert.Equal(VdAgent.Grab, (await world.HearAsync()).Type);
    }

    [Fact]
    public async Task An_agent_that_speaks_nonsense_is_left_and_met_again()
    {
        await using var world = await World.CreateAsync(folder["clip"], () => policy);
        await world.SayAsync(VdAgent.Numbers(7, 7, 7, 7));
        await world.AcceptAsync();
        await world.GrabAsync();
        Assert.Equal("again", await world.FetchAsync(Encoding.UTF8.GetBytes("again")));
    }

    private static Policy Of(string into, string @out, int most) => Policy.Of("lease", PolicyDocument.Parse($$"""{"clipboard.in":"{{into}}","clipboard.out":"{{@out}}","clipboard.maxChars":{{most}}}"""));

    private static byte[] Header(uint type, uint size) => VdAgent.Numbers(1, type, 0, 0, size);

    private static byte[] Chunk(uint size, byte[] beginning) => [.. VdAgent.Numbers(VdAgent.ClientPort, size), .. beginning];

    /// <summary>A guest's agent at the end of a socket.</summary>
    private sealed class World : IAsyncDisposable
    {
        private readonly Socket listener;
        private readonly Channel<AgentMessage> heard = System.Threading.Channels.Channel.CreateUnbounded<AgentMessage>();
        private Socket? agent;

        public required ClipboardChannel Channel { get; init; }

        public static async Task<World> CreateAsync(string path, Func<Policy> policy)
        {
            var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            listener.Bind(new UnixDomainSocketEndPoint(path));
            listener.Listen(1);
            var world = new World(listener) { Channel = new ClipboardChannel(path, policy, TimeProvider.System) };
            await world.AcceptAsync();
            return world;
        }

        private World(Socket listener) => this.listener = listener;

        /// <summary>Takes the player's connection, and says what the agent can.</summary>
        public async Task AcceptAsync()
        {
            agent?.Dispose();
            agent = await listener.AcceptAsync(Token);
            _ = ReadAsync(agent);
            Assert.Equal(VdAgent.AnnounceCapabilities, (await HearAsync()).Type);
            await SayAsync(VdAgent.Encode(VdAgent.AnnounceCapabilities, VdAgent.Numbers(1, (1u << VdAgent.Selection) | (1u << VdAgent.ByDemand))));
            var answer = await HearAsync();
            Assert.Equal((VdAgent.AnnounceCapabilities, 0u), (answer.Type, BinaryPrimitives.ReadUInt32LittleEndian(answer.Data)));
        }

        public async Task SayAsync(byte[] bytes) => await agent!.SendAsync(bytes, SocketFlags.None, Token);

        public async Task<AgentMessage> HearAsync()
        {
            using var limit = CancellationTokenSource.CreateLinkedTokenSource(Token);
            limit.CancelAfter(TimeSpan.FromSeconds(20));
            return await heard.Reader.ReadAsync(limit.Token);
        }

        /// <summary>Says that text was copied in the guest, and waits until that is known.</summary>
        public async Task GrabAsync()
        {
            await SayAsync(VdAgent.Encode(VdAgent.Grab, VdAgent.Numbers(0, VdAgent.Utf8)));
            await SayAsync(VdAgent.Encode(VdAgent.Request, VdAgent.Numbers(0, VdAgent.Utf8)));
            Assert.Equal(VdAgent.Clipboard, (await HearAsync()).Type);
        }

        public async Task<string> FetchAsync(byte[] content)
        {
            var fetching = Channel.FetchAsync(Token);
            Assert.Equal(VdAgent.Request, (await HearAsync()).Type);
            await SayAsync(VdAgent.Encode(VdAgent.Clipboard, [.. VdAgent.Numbers(0, VdAgent.Utf8), .. content]));
            return await fetching;
        }

        public async ValueTask DisposeAsync()
        {
            await Channel.DisposeAsync();
            agent?.Dispose();
            listener.Dispose();
        }

        private async Task ReadAsync(Socket socket)
        {
            var (parser, buffer) = (new AgentParser(1 << 24), new byte[4096]);
            try
            {
                int count;
                while ((count = await socket.ReceiveAsync(buffer, SocketFlags.None)) > 0)
                {
                    parser.Feed(buffer.AsSpan(0, count), message => heard.Writer.TryWrite(message));
                }
            }
            catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
            {
                // The player left.
            }
        }
    }
}
