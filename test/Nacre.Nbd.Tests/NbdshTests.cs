using System.Diagnostics;
using Nacre.Testing;
using Nacre.Volumes;
using Xunit;

namespace Nacre.Nbd.Tests;

/// <summary>Single requests of libnbd, one or two connections at a time, up to a loss of power.</summary>
public sealed class NbdshTests : IAsyncDisposable
{
    private const int Block = 4096;
    private const long Size = 64 << 20;

    private static readonly byte[] Key = new byte[32];

    private readonly TemporaryDirectory _folder = new();
    private NbdServer? _server;
    private IBlockDevice? _device;

    public async ValueTask DisposeAsync()
    {
        if (_server is not null)
        {
            await _server.DisposeAsync();
        }

        if (_device is not null)
        {
            await _device.DisposeAsync();
        }

        _folder.Dispose();
    }

    [Theory]
    [InlineData("h.pwrite(b'n' * 8192, 4096, nbd.CMD_FLAG_FUA)", 'n')]
    [InlineData("h.zero(8192, 4096, nbd.CMD_FLAG_FUA)", '\0')]
    [InlineData("h.zero(8192, 4096, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)", '\0')]
    [InlineData("h.zero(8192, 4096, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_FAST_ZERO)", '\0')]
    [InlineData("h.trim(8192, 4096, nbd.CMD_FLAG_FUA)", '\0')]
    [InlineData("h.pwrite(b'n' * 8192, 4096); h.flush()", 'n')]
    [InlineData("h.zero(8192, 4096); h.flush()", '\0')]
    [InlineData("h.trim(8192, 4096); h.flush()", '\0')]
    [InlineData("h.pwrite(b'n' * 8192, 4096); b.flush()", 'n')]
    [InlineData("h.zero(8192, 4096); b.flush()", '\0')]
    [InlineData("h.trim(8192, 4096); b.flush()", '\0')]
    [InlineData("h.pwrite(b'n' * 8192, 4096); b.pwrite(b'o' * 512, 65536, nbd.CMD_FLAG_FUA); b.flush()", 'n')]
    public async Task Change_that_was_made_durable_is_seen_by_others_and_survives_a_loss_of_power(string change, char expected)
    {
        var storage = new RecordingStorage();
        var uri = Serve(Volume.Create(storage, new VolumeOptions { Size = Size, SegmentSlots = 64, BackgroundMaintenance = false }, Key));
        await ScriptAsync(uri, $"""
            b = connect()
            assert h.can_multi_conn() and h.can_flush() and h.can_fua()
            h.pwrite(b'o' * 16384, 0)
            h.flush()
            {change}
            assert b.pread(8192, 4096) == b'{(expected == '\0' ? "\\0" : $"{expected}")}' * 8192
            assert b.pread(4096, 0) == b'o' * 4096 and b.pread(4096, 12288) == b'o' * 4096
            """);
        var random = new Random(4);
        for (var i = 0; i < 20; i++)
        {
            await using var survivor = Volume.Open(RecordingStorage.Of(storage.AfterPowerLoss(storage.Changes, random)), Key, null);
            var content = new byte[4 * Block];
            await survivor.ReadAsync(0, content, TestContext.Current.CancellationToken);
            Assert.Equal([.. Enumerable.Repeat((byte)'o', Block), .. Enumerable.Repeat((byte)expected, 2 * Block), .. Enumerable.Repeat((byte)'o', Block)], content);
        }
    }

    [Fact]
    public async Task Flush_costs_one_sync_where_something_is_pending_whoever_wrote_it()
    {
        var storage = new RecordingStorage();
        var volume = Volume.Create(storage, new VolumeOptions { Size = Size, SegmentSlots = 64, BackgroundMaintenance = false }, Key);
        var uri = Serve(volume);
        await ScriptAsync(uri, """
            b = connect()
            b.flush()
            h.pwrite(b'x' * 4096, 0)
            b.flush()
            h.flush()
            b.flush()
            b.pwrite(b'x' * 4096, 0, nbd.CMD_FLAG_FUA)
            h.flush()
            """);
        Assert.Equal(2, volume.Statistics.DataSyncs);
        Assert.Equal(5, volume.Statistics.Flushes - 1);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Ranges_that_are_not_blocks_change_only_what_they_name(bool real)
    {
        var uri = real ? ServeVolume() : Serve(new MemoryDevice(Size));
        await ScriptAsync(uri, """
            import random
            random.seed(5)
            model = bytearray(1 << 20)
            for i in range(400):
                at = random.randrange(0, 2040) * 512
                length = random.randrange(1, 33) * 512
                length = min(length, len(model) - at)
                kind = random.randrange(3)
                if kind < 2:
                    data = bytes([random.randrange(1, 256)]) * length
                    h.pwrite(data, at, nbd.CMD_FLAG_FUA if i % 50 == 0 else 0)
                    model[at:at + length] = data
                else:
                    h.zero(length, at, random.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO]))
                    model[at:at + length] = bytes(length)
                at = random.randrange(0, 2047) * 512
                assert h.pread(512, at) == model[at:at + 512]
            assert h.pread(1 << 20, 0) == model
            h.trim(8192, 512)
            assert h.pread(512, 0) == model[0:512] and h.pread(512, 8704) == model[8704:9216]
            """);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Requests_up_to_32_MiB_are_served_and_larger_ones_refused(bool real)
    {
        var uri = real ? ServeVolume() : Serve(new MemoryDevice(Size));
        await ScriptAsync(uri, """
            assert (h.get_block_size(nbd.SIZE_MINIMUM), h.get_block_size(nbd.SIZE_PREFERRED), h.get_block_size(nbd.SIZE_MAXIMUM)) == (512, 4096, 32 << 20)
            data = bytes(range(256)) * (32 << 12)
            h.pwrite(data, 4096)
            assert h.pread(32 << 20, 4096) == data
            h.set_strict_mode(0)
            fails('EOVERFLOW', lambda: h.pread((32 << 20) + 1, 0))
            assert h.pread(512, 4096) == data[:512]
            h.zero(64 << 20, 0)
            h.trim(64 << 20, 0)
            h.cache(64 << 20, 0)
            assert h.pread(512, 4096) == bytes(512)

            # The rest of a payload would have to be received to be refused: that ends this connection, and no other.
            b = connect()
            try:
                h.pwrite(bytes((32 << 20) + 1), 0)
                assert False, 'a write of more than 32 MiB was accepted'
            except nbd.Error:
                pass
            assert b.pread(512, 0) == bytes(512)
            """);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Requests_outside_of_the_device_are_refused_and_the_connection_goes_on(bool real)
    {
        var uri = real ? ServeVolume() : Serve(new MemoryDevice(Size));
        await ScriptAsync(uri, $"""
            size = {Size}
            h.set_strict_mode(0)
            for offset, length in [(size, 512), (size - 512, 1024), (size + (1 << 40), 512), ((1 << 63) - 512, 1024), ((1 << 64) - 512, 512)]:
                fails('EINVAL', lambda: h.pread(length, offset))
                fails('ENOSPC', lambda: h.pwrite(bytes(length), offset))
                fails('ENOSPC', lambda: h.zero(length, offset))
                fails('EINVAL', lambda: h.trim(length, offset))
                fails('EINVAL', lambda: h.cache(length, offset))
                fails('EINVAL', lambda: h.block_status(length, offset, lambda *a: 0))
            fails('EINVAL', lambda: h.pread(0, 0))
            h.pwrite(b'e' * 512, size - 512)
            assert h.pread(512, size - 512) == b'e' * 512
            """);
    }

    [Fact]
    public async Task Block_status_tells_thousands_of_extents_apart()
    {
        var uri = ServeVolume();
        await ScriptAsync(uri, """
            # Every third block of the first 24 MiB, and 2 MiB at 40 MiB.
            for i in range(2048):
                h.pwrite(b'd' * 4096, i * 12288)
            h.pwrite(b'd' * (2 << 20), 40 << 20)
            found, replies = [], 0
            def extents(context, offset, entries, error):
                global replies
                assert context == nbd.CONTEXT_BASE_ALLOCATION and len(entries) <= 2048
                replies += 1
                for i in range(0, len(entries), 2):
                    if found and found[-1][2] == entries[i + 1]:
                        found[-1][1] += entries[i]
                    else:
                        found.append([offset, entries[i], entries[i + 1]])
                    offset += entries[i]
            at, size = 0, h.get_size()
            while at < size:
                h.block_status(size - at, at, extents)
                assert found[-1][0] + found[-1][1] > at
                at = found[-1][0] + found[-1][1]
            data, hole = 0, nbd.STATE_HOLE | nbd.STATE_ZERO
            expected = []
            for i in range(2048):
                expected += [[i * 12288, 4096, data], [i * 12288 + 4096, 8192, hole]]
            expected[-1][1] = (40 << 20) - expected[-1][0]
            expected += [[40 << 20, 2 << 20, data], [42 << 20, 22 << 20, hole]]
            assert found == expected, (len(found), len(expected))
            assert replies >= 4
            found = []
            h.block_status(size - 512, 512, extents, nbd.CMD_FLAG_REQ_ONE)
            assert found == [[512, 3584, data]], found
            """);
    }

    [Fact]
    public async Task Cache_reads_all_of_the_range_in_bounded_pieces()
    {
        var device = new MemoryDevice(Size);
        var pieces = new List<(long Offset, int Length)>();
        device.Reading = (offset, length) => pieces.Add((offset, length));
        await ScriptAsync(Serve(device), """
            assert h.can_cache()
            h.cache(40 << 20, 512)
            """);
        Assert.All(pieces, piece => Assert.InRange(piece.Length, 1, 256 << 10));
        var next = 512L;
        foreach (var (offset, length) in pieces)
        {
            Assert.Equal(next, offset);
            next += length;
        }

        Assert.Equal(512 + (40 << 20), next);
    }

    [Fact]
    public async Task Cache_of_a_range_that_is_damaged_is_an_input_output_error_and_of_others_is_not()
    {
        await using (var volume = Volume.Create(_folder["volume"], new VolumeOptions { Size = Size }, Key))
        {
            var content = new byte[1 << 20];
            new Random(1).NextBytes(content);
            await volume.WriteAsync(0, content, false, TestContext.Current.CancellationToken);
        }

        await using (var segment = new FileStream(Directory.GetFiles(_folder["volume"], "segment-*").Single(), FileMode.Open, FileAccess.ReadWrite))
        {
            segment.Position = Segment.PositionOf(100) + 50;
            var value = segment.ReadByte();
            segment.Position--;
            segment.WriteByte((byte)~value);
        }

        await ScriptAsync(Serve(Volume.Open(_folder["volume"], Key)), """
            h.cache(100 * 4096, 0)
            fails('EIO', lambda: h.cache(512, 100 * 4096))
            fails('EIO', lambda: h.cache(64 << 20, 0))
            h.cache((64 << 20) - 101 * 4096, 101 * 4096)
            fails('EIO', lambda: h.pread(4096, 100 * 4096))
            """);
    }

    [Fact]
    public async Task Cache_that_waits_for_what_it_fetches_is_overtaken()
    {
        var arrival = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var device = new MemoryDevice(Size) { Hold = offset => offset >= 1 << 20 ? arrival.Task : null };
        var uri = Serve(device);
        device.Reading = (offset, _) =>
        {
            if (offset == 4096)
            {
                arrival.SetResult();
            }
        };
        await ScriptAsync(uri, """
            cookie = h.aio_cache(4 << 20, 1 << 20)
            h.pread(512, 0)
            assert not h.aio_command_completed(cookie)
            h.pread(512, 4096)
            while not h.aio_command_completed(cookie):
                h.poll(-1)
            """);
    }

    private string ServeVolume() => Serve(Volume.Create(_folder["volume"], new VolumeOptions { Size = Size }, Key));

    private string Serve(IBlockDevice device)
    {
        _device = device;
        _server = NbdServer.Start(_folder["nbd"], new Dictionary<string, IBlockDevice> { ["disk"] = device });
        return $"nbd+unix:///disk?socket={_folder["nbd"]}";
    }

    /// <summary>Runs Python with a connection <c>h</c>, more of them from <c>connect()</c>, and <c>fails(errno, what)</c>.</summary>
    private static async Task ScriptAsync(string uri, string script)
    {
        var start = new ProcessStartInfo(Require.Tool("nbdsh"), ["-c", $"""
            def connect():
                handle = nbd.NBD()
                handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
                handle.connect_uri('{uri}')
                return handle
            def fails(errno, what):
                try:
                    what()
                except nbd.Error as e:
                    assert e.errno == errno, e
                    return
                assert False, 'it did not fail'
            h = connect()
            """, "-c", script])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,

            // It is a script that takes the first Python: the distribution's has the library.
            Environment = { ["PATH"] = "/usr/bin:/bin" },
        };
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var error = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.True(process.ExitCode == 0, $"nbdsh ended with {process.ExitCode}: {await output}{await error}");
    }
}
