using Nacre.Testing;
using Nacre.Volumes;
using Xunit;

namespace Nacre.Nbd.Tests;

public sealed class HostileClientTests : IAsyncDisposable
{
    private readonly TemporaryDirectory _folder = new();
    private readonly MemoryDevice _device = new(1 << 20);
    private readonly NbdServer _server;
    private readonly string _path;

    public HostileClientTests()
    {
        _path = _folder["nbd"];
        _server = NbdServer.Start(_path, new Dictionary<string, IBlockDevice> { ["disk"] = _device });
    }

    public async ValueTask DisposeAsync()
    {
        await _server.DisposeAsync();
        _folder.Dispose();
    }

    [Fact]
    public void The_socket_is_the_users_alone() =>
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, OperatingSystem.IsWindows() ? default : File.GetUnixFileMode(_path));

    [Theory]
    [InlineData(0u)]
    [InlineData(4u)]
    [InlineData(0x80000001u)]
    public void Unknown_or_old_style_client_flags_end_the_connection(uint flags)
    {
        using var client = new RawClient(_path, greet: false);
        client.Receive(18);
        client.Send(RawClient.U32(flags));
        Assert.True(client.IsClosedByServer());
    }

    [Fact]
    public void Unknown_option_is_unsupported_and_the_dialogue_goes_on()
    {
        using var client = new RawClient(_path);
        Assert.Equal(0x80000001u, client.Option(99, 1, 2, 3).Type);
        Assert.Equal(0x80000001u, client.Option(5).Type);
        Assert.Equal(10, client.Enter().Length);
    }

    [Fact]
    public void Option_with_another_magic_ends_the_connection()
    {
        using var client = new RawClient(_path);
        client.Send("IHAVEOP?"u8.ToArray(), RawClient.U32(3), RawClient.U32(0));
        Assert.True(client.IsClosedByServer());
    }

    [Theory]
    [InlineData(uint.MaxValue)]
    [InlineData(0x7fffffffu)]
    [InlineData(16385u)]
    public void Oversized_option_ends_the_connection(uint length)
    {
        using var client = new RawClient(_path);
        client.SendOption(7, length, []);
        Assert.True(client.IsClosedByServer());
    }

    [Fact]
    public void Endless_options_end_the_connection()
    {
        using var client = new RawClient(_path);
        for (var i = 0; i < NbdProtocol.MaximumOptions; i++)
        {
            client.Option(8);
        }

        Assert.True(client.IsClosedByServer());
    }

    [Theory]
    [InlineData(new byte[0])]
    [InlineData(new byte[] { 0xff, 0xff, 0xff, 0xff, 0, 0 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 0, 9 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 0, 0, 0 })]
    public void Malformed_go_is_invalid(byte[] data)
    {
        using var client = new RawClient(_path);
        Assert.Equal(0x80000003u, client.Option(7, data).Type);
        Assert.Equal(0x80000003u, client.Option(6, data).Type);
    }

    [Theory]
    [InlineData(new byte[] { 0, 0, 0, 4, (byte)'d', (byte)'i', (byte)'s', (byte)'x', 0, 0 })]
    [InlineData(new byte[] { 0, 0, 0, 2, 0xc0, 0x80, 0, 0 })]
    public void Unknown_export_is_unknown(byte[] data)
    {
        using var client = new RawClient(_path);
        Assert.Equal(0x80000006u, client.Option(7, data).Type);
    }

    [Fact]
    public void Meta_context_needs_structured_replies_first()
    {
        using var client = new RawClient(_path);
        Assert.Equal(0x80000003u, client.Option(10, 0, 0, 0, 0, 0, 0, 0, 0).Type);
        Assert.Equal(0x80000003u, client.Option(8, 1).Type);
        Assert.Equal(1u, client.Option(8).Type);
        Assert.Equal(1u, client.Option(10, 0, 0, 0, 0, 0, 0, 0, 0).Type);
        Assert.Equal(0x80000003u, client.Option(10, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff).Type);
    }

    [Fact]
    public void Request_with_another_magic_ends_the_connection()
    {
        using var client = new RawClient(_path);
        client.Enter("disk");
        client.Send(RawClient.Request(NbdCommand.Read, 1, 0, 512, magic: 0x25609514));
        Assert.True(client.IsClosedByServer());
    }

    [Fact]
    public void Oversized_write_ends_the_connection_before_its_payload()
    {
        using var client = new RawClient(_path);
        client.Enter();
        client.Send(RawClient.Request(NbdCommand.Write, 1, 0, uint.MaxValue));
        Assert.True(client.IsClosedByServer());
    }

    [Theory]
    [InlineData(0, 0, (1u << 20) + 1, 0, 22u)]
    [InlineData(0, 1ul << 63, 512, 0, 22u)]
    [InlineData(0, ulong.MaxValue, 2, 0, 22u)]
    [InlineData(0, 0, 0, 0, 22u)]
    [InlineData(0, 0, 512, 4, 22u)]
    [InlineData(0, 0, uint.MaxValue, 0, 22u)]
    [InlineData(6, 1 << 20, 1, 0, 28u)]
    [InlineData(6, 0, 1, 0x8000, 22u)]
    [InlineData(4, 0, uint.MaxValue, 0, 22u)]
    [InlineData(7, 0, 512, 0, 22u)]
    [InlineData(8, 0, 512, 0, 22u)]
    [InlineData(0xffff, 0, 512, 0, 22u)]
    public void Bad_request_gets_an_error_and_the_next_one_is_served(ushort command, ulong offset, uint length, ushort flags, uint error)
    {
        using var client = new RawClient(_path);
        client.Enter();
        client.Send(RawClient.Request((NbdCommand)command, 7, offset, length, flags), RawClient.Request(NbdCommand.Read, 8, 0, 1));
        Assert.Equal((error, 7ul), client.SimpleReply());
        Assert.Equal((0u, 8ul), client.SimpleReply());
        Assert.Equal(0, client.Receive(1)[0]);
    }

    [Fact]
    public void Payload_of_a_refused_write_is_skipped()
    {
        using var client = new RawClient(_path);
        client.Enter();
        client.Send(RawClient.Request(NbdCommand.Write, 1, 1 << 20, 4096), new byte[4096], RawClient.Request(NbdCommand.Flush, 2, 0, 0));
        Assert.Equal((28u, 1ul), client.SimpleReply());
        Assert.Equal((0u, 2ul), client.SimpleReply());
        Assert.Equal(1, _device.Flushes);
    }

    [Fact]
    public void Request_in_single_bytes_is_served()
    {
        using var client = new RawClient(_path);
        client.Enter();
        foreach (var part in RawClient.Request(NbdCommand.Write, 5, 3, 2).Concat("ab"u8.ToArray()))
        {
            client.Send([part]);
        }

        Assert.Equal((0u, 5ul), client.SimpleReply());
    }

    [Fact]
    public async Task Client_that_vanishes_in_mid_request_leaves_the_server_serving()
    {
        for (var cut = 1; cut < 60; cut += 7)
        {
            using var client = new RawClient(_path);
            client.Enter();
            client.Send(RawClient.Request(NbdCommand.Write, 1, 0, 4096).Concat(new byte[4096]).Take(cut).ToArray());
            client.HalfClose();
            Assert.True(client.IsClosedByServer());
        }

        using var next = new RawClient(_path);
        Assert.Equal(10, next.Enter().Length);
        await Task.CompletedTask;
    }

    [Fact]
    public void Client_that_never_reads_holds_no_more_than_its_bounds()
    {
        _device.Hold = _ => null;
        var before = GC.GetTotalMemory(forceFullCollection: true);
        using var client = new RawClient(_path);
        client.Enter();
        var requests = Enumerable.Range(0, 1000).SelectMany(i => RawClient.Request(NbdCommand.Read, (ulong)i, 0, 1 << 20)).ToArray();
        client.Send(requests);
        Assert.True(GC.GetTotalMemory(forceFullCollection: true) - before < 100 << 20);
        using var other = new RawClient(_path);
        Assert.Equal(10, other.Enter().Length);
    }

    [Fact]
    public async Task Random_bytes_never_stop_the_server()
    {
        var seed = Environment.GetEnvironmentVariable("NACRE_SEED") is { } given ? int.Parse(given, System.Globalization.CultureInfo.InvariantCulture) : Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"NACRE_SEED={seed}");
        var random = new Random(seed);
        for (var i = 0; i < 200; i++)
        {
            using var client = new RawClient(_path);
            if (i % 2 == 0)
            {
                client.Enter();
            }

            var bytes = new byte[random.Next(1, 300)];
            random.NextBytes(bytes);
            try
            {
                if (i % 4 == 0)
                {
                    client.Send(RawClient.U32(NbdProtocol.RequestMagic));
                }

                client.Send(bytes);
            }
            catch (System.Net.Sockets.SocketException)
            {
                // Closed meanwhile.
            }

            // The server closes what comes beyond its bound, so wait for it to notice who left.
            while (_server.Connections > 20)
            {
                await Task.Delay(1, TestContext.Current.CancellationToken);
            }
        }

        using var next = new RawClient(_path);
        Assert.Equal(10, next.Enter().Length);
    }
}
