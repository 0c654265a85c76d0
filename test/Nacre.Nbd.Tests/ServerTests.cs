using System.Buffers.Binary;
using Nacre.Testing;
using Nacre.Volumes;
using Xunit;

namespace Nacre.Nbd.Tests;

public sealed class ServerTests : IAsyncDisposable
{
    private readonly TemporaryDirectory _folder = new();
    private readonly MemoryDevice _device = new(64 << 20);
    private readonly MemoryDevice _readOnly = new(1 << 20, isReadOnly: true);
    private readonly NbdServer _server;
    private readonly string _path;

    public ServerTests()
    {
        _path = _folder["nbd"];
        _server = NbdServer.Start(_path, new Dictionary<string, IBlockDevice> { ["disk"] = _device, ["fixed"] = _readOnly });
    }

    public async ValueTask DisposeAsync()
    {
        await _server.DisposeAsync();
        _folder.Dispose();
    }

    [Fact]
    public void Later_request_overtakes_one_that_waits_for_its_content()
    {
        var arrival = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _device.Hold = offset => offset == 0 ? arrival.Task : null;
        using var client = new RawClient(_path);
        client.Enter("disk");
        client.Send(RawClient.Request(NbdCommand.Read, 1, 0, 4096), RawClient.Request(NbdCommand.Read, 2, 4096, 16));
        Assert.Equal((0u, 2ul), client.SimpleReply());
        client.Receive(16);
        arrival.SetResult();
        Assert.Equal((0u, 1ul), client.SimpleReply());
        client.Receive(4096);
    }

    [Fact]
    public async Task A_write_that_can_not_be_made_does_not_fail_those_received_with_it()
    {
        var (folder, path, key) = (_folder["volume"], _folder["second"], new byte[32]);
        await using (var whole = Volume.Create(folder, new VolumeOptions { Size = 1 << 20 }, key))
        {
            await whole.WriteAsync(0, Enumerable.Repeat((byte)1, 4096).ToArray(), false, TestContext.Current.CancellationToken);
        }

        var segment = Directory.GetFiles(folder, "segment-*").Single();
        var bytes = await File.ReadAllBytesAsync(segment, TestContext.Current.CancellationToken);
        bytes[4096 + 100] ^= 1;
        await File.WriteAllBytesAsync(segment, bytes, TestContext.Current.CancellationToken);
        await using var volume = Volume.Open(folder, key);
        await using var server = NbdServer.Start(path, new Dictionary<string, IBlockDevice> { ["disk"] = volume });
        using var client = new RawClient(path);
        client.Enter("disk");
        var content = Enumerable.Repeat((byte)7, 4096).ToArray();
        client.Send([.. RawClient.Request(NbdCommand.Write, 1, 4096, 4096), .. content, .. RawClient.Request(NbdCommand.Write, 2, 100, 50), .. content[..50], .. RawClient.Request(NbdCommand.Write, 3, 8192, 4096), .. content]);
        Assert.Equal((0u, 1ul), client.SimpleReply());
        Assert.Equal(((uint)NbdError.InputOutput, 2ul), client.SimpleReply());
        Assert.Equal((0u, 3ul), client.SimpleReply());
        var read = new byte[8192];
        await volume.ReadAsync(4096, read, TestContext.Current.CancellationToken);
        Assert.True(read.AsSpan().IndexOfAnyExcept((byte)7) < 0);
    }

    [Fact]
    public void Writes_that_wait_keep_their_own_bytes()
    {
        var arrival = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _device.Hold = _ => arrival.Task;
        using var client = new RawClient(_path);
        client.Enter("disk");
        for (var i = 0; i < 32; i++)
        {
            client.Send(RawClient.Request(NbdCommand.Write, (ulong)i, (ulong)i * 4096, 4096), Enumerable.Repeat((byte)(i + 1), 4096).ToArray());
        }

        arrival.SetResult();
        for (var i = 0; i < 32; i++)
        {
            Assert.Equal(0u, client.SimpleReply().Error);
        }

        _device.Hold = null;
        client.Send(RawClient.Request(NbdCommand.Read, 99, 0, 32 * 4096));
        Assert.Equal((0u, 99ul), client.SimpleReply());
        Assert.Equal(Enumerable.Range(1, 32).SelectMany(i => Enumerable.Repeat((byte)i, 4096)).ToArray(), client.Receive(32 * 4096));
    }

    [Fact]
    public async Task More_waiting_requests_than_the_bound_slow_the_client_and_all_are_answered()
    {
        var arrival = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var started = 0;
        _device.Hold = _ =>
        {
            Interlocked.Increment(ref started);
            return arrival.Task;
        };
        using var client = new RawClient(_path);
        client.Enter("disk");
        client.Send([.. Enumerable.Range(0, 500).SelectMany(i => RawClient.Request(NbdCommand.Read, (ulong)i, 0, 512))]);

        while (Volatile.Read(ref started) < 65)
        {
            await Task.Delay(5, TestContext.Current.CancellationToken);
        }

        Assert.Equal(65, started);
        arrival.SetResult();
        var cookies = new HashSet<ulong>();
        for (var i = 0; i < 500; i++)
        {
            var (error, cookie) = client.SimpleReply();
            Assert.Equal(0u, error);
            Assert.True(cookies.Add(cookie));
            client.Receive(512);
        }
    }

    [Fact]
    public async Task Disconnect_waits_for_what_was_asked_before_it()
    {
        var arrival = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _device.Hold = offset => offset == 0 ? arrival.Task : null;
        using (var client = new RawClient(_path))
        {
            client.Enter("disk");
            client.Send(RawClient.Request(NbdCommand.Write, 1, 0, 512), Enumerable.Repeat((byte)7, 512).ToArray(), RawClient.Request(NbdCommand.Read, 2, 4096, 512));
            client.Send(RawClient.Request(NbdCommand.Disconnect, 3, 0, 0));
            Assert.Equal((0u, 2ul), client.SimpleReply());
            client.Receive(512);
            arrival.SetResult();
            Assert.Equal((0u, 1ul), client.SimpleReply());
            Assert.True(client.IsClosedByServer());
        }

        _device.Hold = null;
        var content = new byte[512];
        await _device.ReadAsync(0, content, TestContext.Current.CancellationToken);
        Assert.Equal(Enumerable.Repeat((byte)7, 512), content);
    }

    [Fact]
    public async Task Stopping_ends_a_connection_that_waits_at_its_bound()
    {
        var started = 0;
        _device.Hold = _ =>
        {
            Interlocked.Increment(ref started);
            return new TaskCompletionSource().Task;
        };
        using var client = new RawClient(_path);
        client.Enter("disk");
        client.Send([.. Enumerable.Range(0, 100).SelectMany(i => RawClient.Request(NbdCommand.Read, (ulong)i, 0, 512))]);
        while (Volatile.Read(ref started) < 65)
        {
            await Task.Delay(5, TestContext.Current.CancellationToken);
        }

        await _server.DisposeAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(20), TestContext.Current.CancellationToken);
    }

    [Fact]
    public async Task Stopping_ends_requests_that_wait_for_ever()
    {
        _device.Hold = _ => new TaskCompletionSource().Task;
        using var client = new RawClient(_path);
        client.Enter("disk");
        client.Send(RawClient.Request(NbdCommand.Read, 1, 0, 512), RawClient.Request(NbdCommand.Write, 2, 0, 1), [1]);
        await _server.DisposeAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(20), TestContext.Current.CancellationToken);
        Assert.False(File.Exists(_path));
    }

    [Theory]
    [InlineData(VolumeErrorKind.Io, 5u)]
    [InlineData(VolumeErrorKind.NotAuthentic, 5u)]
    [InlineData(VolumeErrorKind.Faulted, 5u)]
    [InlineData(VolumeErrorKind.NoSpace, 28u)]
    [InlineData(VolumeErrorKind.ReadOnly, 1u)]
    [InlineData(VolumeErrorKind.Unsupported, 95u)]
    public void Device_errors_reach_the_client_as_their_number(VolumeErrorKind kind, uint error)
    {
        _device.Failure = kind;
        using var client = new RawClient(_path);
        client.Enter("disk");
        client.Send(RawClient.Request(NbdCommand.Read, 1, 0, 512), RawClient.Request(NbdCommand.Write, 2, 0, 1), [1], RawClient.Request(NbdCommand.Flush, 3, 0, 0));
        for (var i = 1ul; i <= 3; i++)
        {
            Assert.Equal((error, i), client.SimpleReply());
        }
    }

    [Fact]
    public void Every_kind_of_error_has_a_number()
    {
        foreach (var kind in Enum.GetValues<VolumeErrorKind>())
        {
            Assert.NotEqual(NbdError.None, NbdRequest.ErrorOf(kind));
        }
    }

    [Fact]
    public void Failed_structured_read_is_an_error_chunk()
    {
        using var client = new RawClient(_path);
        Assert.Equal(1u, client.Option(8).Type);
        client.Enter("disk");
        _device.Failure = VolumeErrorKind.Io;
        client.Send(RawClient.Request(NbdCommand.Read, 9, 0, 512));
        var chunk = client.Receive(26);
        Assert.Equal(NbdProtocol.ChunkMagic, BinaryPrimitives.ReadUInt32BigEndian(chunk));
        Assert.Equal(1, BinaryPrimitives.ReadUInt16BigEndian(chunk.AsSpan(4)));
        Assert.Equal(0x8001, BinaryPrimitives.ReadUInt16BigEndian(chunk.AsSpan(6)));
        Assert.Equal(5u, BinaryPrimitives.ReadUInt32BigEndian(chunk.AsSpan(20)));
    }

    [Fact]
    public void Force_unit_access_reaches_the_device()
    {
        using var client = new RawClient(_path);
        client.Enter("disk");
        client.Send(RawClient.Request(NbdCommand.Write, 1, 0, 1, flags: 1), [1], RawClient.Request(NbdCommand.Trim, 2, 0, 4096, flags: 1));
        client.SimpleReply();
        client.SimpleReply();
        Assert.Equal(1, _device.ForcedWrites);
        Assert.Equal(1, _device.Flushes);
    }

    [Fact]
    public void Read_only_export_says_so_and_refuses()
    {
        using var client = new RawClient(_path);
        Assert.Equal(2, client.Enter("fixed")[9] & 2);
        client.Send(RawClient.Request(NbdCommand.Write, 1, 0, 1), [1], RawClient.Request(NbdCommand.Trim, 2, 0, 1));
        Assert.Equal((1u, 1ul), client.SimpleReply());
        Assert.Equal((1u, 2ul), client.SimpleReply());
    }

    [Fact]
    public void Largest_write_and_read_work()
    {
        using var client = new RawClient(_path);
        client.Enter("disk");
        var content = new byte[32 << 20];
        new Random(1).NextBytes(content);
        client.Send(RawClient.Request(NbdCommand.Write, 1, 4096, 32 << 20), content, RawClient.Request(NbdCommand.Read, 2, 4096, 32 << 20));
        Assert.Equal((0u, 1ul), client.SimpleReply());
        Assert.Equal((0u, 2ul), client.SimpleReply());
        Assert.True(client.Receive(32 << 20).AsSpan().SequenceEqual(content));
    }

    [Fact]
    public void An_export_is_added_and_taken_away_while_others_are_served()
    {
        using var other = new RawClient(_path);
        other.Enter("disk");
        var late = new MemoryDevice(1 << 20, isReadOnly: true);
        Assert.Equal(NbdOptionUnknown, Ask());
        _server.AddExport("late", late);
        Assert.Throws<ArgumentException>(() => _server.AddExport("late", late));
        using var client = new RawClient(_path);
        client.Enter("late");
        _server.RemoveExport("late");
        Assert.Equal(NbdOptionUnknown, Ask());

        // Who is connected keeps it, and the others never noticed.
        client.Send(RawClient.Request(NbdCommand.Read, 1, 0, 512));
        Assert.Equal((0u, 1ul), client.SimpleReply());
        other.Send(RawClient.Request(NbdCommand.Write, 2, 0, 1), [1]);
        Assert.Equal((0u, 2ul), other.SimpleReply());

        uint Ask()
        {
            using var asking = new RawClient(_path);
            return asking.Option((uint)NbdOption.Go, [0, 0, 0, 4, .. "late"u8, 0, 0]).Type;
        }
    }

    private const uint NbdOptionUnknown = (uint)OptionReply.Unknown;
}
