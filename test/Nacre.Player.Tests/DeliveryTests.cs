using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Http;
using Nacre.Contracts;
using Nacre.Player.Releases;
using Nacre.Testing;
using Nacre.Volumes;
using Nacre.Volumes.Releases;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>Downloads from origins that misbehave, over real HTTP. Each ends right or says what stopped it, goes on where it was, and nothing unverified is ever readable.</summary>
public sealed class DeliveryTests : IDisposable
{
    private const int ChunkLength = 64 * 1024, Chunks = 40;
    private static readonly Uri Server = new("http://127.0.0.1:1/");
    private readonly TemporaryDirectory folder = new();
    private readonly byte[] content = RandomNumberGenerator.GetBytes(ChunkLength * Chunks);
    private readonly Dictionary<string, byte[]> segments = [];
    private readonly ReleaseIndex index;

    public DeliveryTests() => index = Publish(content, segments);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => folder.Dispose();

    [Fact]
    [Spec("REL-044")]
    public async Task A_release_comes_from_the_first_origin_which_is_told_a_name_and_a_range_and_nothing_else()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        await using var spare = await FaultyOrigin.StartAsync(segments);
        await EnsureAsync(Delivery(origin, spare));
        Assert.Equal(0, spare.Requests);
        Assert.All(origin.Seen, request =>
        {
            Assert.Equal(("", ""), (request.Authorization, request.Cookie));
            Assert.Matches(@"\A/[0-9a-f]{2}/[0-9a-f]{32}\z", request.Path);
            Assert.Matches(@"\Abytes=\d+-\d+\z", request.Range);
        });
        await AssertCompleteAsync();
    }

    [Theory]
    [InlineData(403)]
    [InlineData(404)]
    [InlineData(429)]
    [InlineData(500)]
    [InlineData(503)]
    [InlineData(204)]
    public async Task An_origin_that_refuses_is_passed_over(int status)
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        await using var spare = await FaultyOrigin.StartAsync(segments);
        origin.Fault = Status(status);
        await EnsureAsync(Delivery(origin, spare));
        Assert.InRange(origin.Requests, 1, 10);
        await AssertCompleteAsync();
    }

    [Fact]
    public async Task Refusals_in_turn_end_right_without_another_origin()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        int[] statuses = [403, 404, 429, 500, 503];
        origin.Fault = (context, number) => number <= statuses.Length ? Status(statuses[number - 1])(context, number) : Task.FromResult(false);
        await EnsureAsync(Delivery(origin));
        await AssertCompleteAsync();
    }

    [Fact]
    public async Task Nothing_but_refusals_end_in_an_error_that_names_origin_and_status()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        origin.Fault = Status(503);
        var failure = await Assert.ThrowsAsync<VolumeException>(() => EnsureAsync(Delivery(origin)));
        Assert.Equal(VolumeErrorKind.Io, failure.Kind);
        Assert.Contains(origin.Url.AbsoluteUri, failure.Message, StringComparison.Ordinal);
        Assert.Contains("503", failure.Message, StringComparison.Ordinal);
        Assert.Equal(ErrorCatalogue.ServerUnreachable, VolumeErrors.OfRelease(failure).Kind);
    }

    [Fact]
    public async Task Retry_After_is_obeyed_within_bounds_and_a_date_by_the_origins_own_clock()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        var asked = 0L;
        var came = 0L;
        origin.Fault = async (context, number) =>
        {
            if (number == 1)
            {
                // An hour behind this device's clock, and two seconds ahead of the origin's.
                context.Response.Headers.Date = "Mon, 02 Mar 2026 10:00:00 GMT";
                context.Response.Headers.RetryAfter = "Mon, 02 Mar 2026 10:00:02 GMT";
                asked = Stopwatch.GetTimestamp();
                return await Status(429)(context, number);
            }

            _ = Interlocked.CompareExchange(ref came, Stopwatch.GetTimestamp(), 0);
            return false;
        };
        var delivery = Delivery(origin);
        await ReadOneAsync(delivery);
        Assert.InRange(Stopwatch.GetElapsedTime(asked, came), TimeSpan.FromSeconds(1.8), TimeSpan.FromSeconds(30));

        origin.Fault = (context, number) =>
        {
            context.Response.Headers.RetryAfter = "999999999";
            return Status(503)(context, number);
        };
        var single = HttpOrigin.Named(origin.Url, Server, Throttle.None, TimeProvider.System, HttpOrigin.Patience);
        await Assert.ThrowsAsync<VolumeException>(() => single.ReadAsync(Range(), Token).AsTask());
        Assert.Equal(TimeSpan.FromMinutes(1), single.AskedToWait);
        foreach (var nonsense in new[] { "-5", "soon", "Mon, 02 Mar 1970 10:00:00 GMT" })
        {
            origin.Fault = (context, number) =>
            {
                context.Response.Headers.RetryAfter = nonsense;
                return Status(503)(context, number);
            };
            await Assert.ThrowsAsync<VolumeException>(() => single.ReadAsync(Range(), Token).AsTask());
            Assert.Equal(TimeSpan.Zero, single.AskedToWait);
        }
    }

    [Theory]
    [InlineData("flips bits")]
    [InlineData("an old release's bytes")]
    [InlineData("zeroes")]
    public async Task What_is_not_the_release_is_never_kept_and_another_origin_is_asked(string how)
    {
        var old = new Dictionary<string, byte[]>();
        Publish(RandomNumberGenerator.GetBytes(content.Length), old);
        await using var origin = await FaultyOrigin.StartAsync(segments);
        await using var spare = await FaultyOrigin.StartAsync(segments);
        origin.Change = bytes =>
        {
            switch (how)
            {
                case "flips bits":
                    for (var i = 500; i < bytes.Length; i += 3 * ChunkLength)
                    {
                        bytes[i] ^= 1;
                    }

                    return bytes;
                case "zeroes":
                    return new byte[bytes.Length];
                default:
                    return old.Values.First(one => one.Length == bytes.Length);
            }
        };
        var failure = await Assert.ThrowsAsync<VolumeException>(() => EnsureAsync(Delivery(origin)));
        Assert.Equal(VolumeErrorKind.NotAuthentic, failure.Kind);
        Assert.Equal(ErrorCatalogue.SegmentNotAuthentic, VolumeErrors.OfRelease(failure).Kind);
        AssertOnlyAuthentic();
        await EnsureAsync(Delivery(origin, spare));
        await AssertCompleteAsync();
    }

    [Fact]
    public async Task An_origin_that_cuts_answers_short_makes_progress_all_the_same()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        origin.Fault = async (context, _) =>
        {
            await origin.SendAsync(context, only: 3 * ChunkLength);
            FaultyOrigin.Reset(context);
            return true;
        };
        for (var run = 1; ; run++)
        {
            try
            {
                await EnsureAsync(Delivery(origin));
                break;
            }
            catch (VolumeException failure) when (failure.Kind is VolumeErrorKind.Truncated or VolumeErrorKind.Io && run < 20)
            {
                AssertOnlyAuthentic();
            }
        }

        await AssertCompleteAsync();
    }

    [Fact]
    public async Task An_origin_with_half_of_the_bytes_ends_as_truncated()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        origin.Change = bytes => bytes[..(bytes.Length / 2)];
        var failure = await Assert.ThrowsAsync<VolumeException>(() => EnsureAsync(Delivery(origin)));
        Assert.Equal(VolumeErrorKind.Truncated, failure.Kind);
        AssertOnlyAuthentic();
    }

    [Fact]
    [Spec("REL-042")]
    public async Task Endless_data_is_read_no_further_than_it_was_asked_for()
    {
        // A raw socket: what its writes take was really taken by the peer, but for what the system buffers.
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var sent = 0L;
        using var done = CancellationTokenSource.CreateLinkedTokenSource(Token);
        var serving = Task.Run(async () =>
        {
            var noise = RandomNumberGenerator.GetBytes(64 * 1024);
            while (!done.IsCancellationRequested)
            {
                using var client = await listener.AcceptTcpClientAsync(done.Token);
                var stream = client.GetStream();
                try
                {
                    await stream.ReadAtLeastAsync(new byte[4096], 20, throwOnEndOfStream: false, done.Token);
                    await stream.WriteAsync("HTTP/1.1 200 OK\r\n\r\n"u8.ToArray(), done.Token);
                    while (true)
                    {
                        await stream.WriteAsync(noise, done.Token);
                        sent += noise.Length;
                    }
                }
                catch (IOException)
                {
                    // The client has hung up.
                }
            }
        }, Token);
        var origin = HttpOrigin.Named(new Uri($"http://127.0.0.1:{((IPEndPoint)listener.LocalEndpoint).Port}/"), Server, Throttle.None, TimeProvider.System, HttpOrigin.Patience);
        var failure = await Assert.ThrowsAsync<VolumeException>(() => ReadOneAsync(new Delivery([origin], TimeProvider.System)));
        Assert.Equal(VolumeErrorKind.NotAuthentic, failure.Kind);
        await Task.Delay(500, Token);
        var after = sent;
        await Task.Delay(500, Token);
        Assert.Equal(after, sent);
        Assert.InRange(sent, 1, 128L << 20);
        await done.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => serving);
        AssertOnlyAuthentic();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_silent_or_trickling_origin_is_left_for_another_one(bool trickles)
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        await using var spare = await FaultyOrigin.StartAsync(segments);
        origin.Fault = async (context, _) =>
        {
            context.Response.StatusCode = 200;
            for (var left = 600; left > 0; left--)
            {
                if (trickles)
                {
                    await context.Response.Body.WriteAsync(new byte[10], context.RequestAborted);
                }

                await Task.Delay(100, context.RequestAborted);
            }

            return true;
        };
        var patience = TimeSpan.FromSeconds(1);
        await EnsureAsync(new Delivery([Named(origin, patience), Named(spare, patience)], TimeProvider.System));
        await AssertCompleteAsync();
        var failure = await Assert.ThrowsAsync<VolumeException>(() => Named(origin, patience).ReadAsync(Range(), Token).AsTask());
        Assert.Contains("silent", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_origin_that_is_killed_and_started_again_goes_on_where_it_was()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        var first = new TaskCompletionSource();
        origin.Fault = async (context, number) =>
        {
            if (number == 1)
            {
                await origin.SendAsync(context, only: 10 * ChunkLength);
                await context.Response.Body.FlushAsync(context.RequestAborted);
                first.TrySetResult();
                await Task.Delay(Timeout.Infinite, context.RequestAborted);
            }

            return false;
        };
        using var cache = new SegmentCache(folder["segments"]);
        using var reader = new ReleaseReader(index, cache, Delivery(origin));
        var download = reader.EnsureAllAsync(null, Token);
        await first.Task.WaitAsync(TimeSpan.FromSeconds(20), Token);
        await UntilAsync(() => reader.Statistics.PresentBytes >= 9 * ChunkLength);
        await origin.KillAsync();
        await Task.Delay(300, Token);
        await origin.StartAsync();
        await download;
        Assert.Equal(reader.Statistics.TotalBytes, reader.Statistics.FetchedBytes);
        var asked = origin.Seen.Select(request => long.Parse(request.Range.Split('=', '-')[1], System.Globalization.CultureInfo.InvariantCulture)).ToArray();
        Assert.Contains(asked[1..], offset => offset >= 9 * ChunkLength);
        await AssertCompleteAsync();
    }

    [Fact]
    public async Task A_download_that_was_killed_fetches_only_the_rest()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        origin.Fault = async (context, _) =>
        {
            await origin.SendAsync(context, only: 15 * ChunkLength);
            await context.Response.Body.FlushAsync(context.RequestAborted);
            await Task.Delay(Timeout.Infinite, context.RequestAborted);
            return true;
        };
        using (var killed = new CancellationTokenSource())
        using (var cache = new SegmentCache(folder["segments"]))
        using (var reader = new ReleaseReader(index, cache, Delivery(origin)))
        {
            var download = reader.EnsureAllAsync(null, killed.Token);
            await UntilAsync(() => reader.Statistics.PresentBytes >= 14 * ChunkLength);
            await killed.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => download);
        }

        AssertOnlyAuthentic();
        origin.Fault = null;
        var fetched = await EnsureAsync(Delivery(origin));
        Assert.InRange(fetched, 1, (long)(Chunks - 13) * (ChunkLength + 16));
        await AssertCompleteAsync();
    }

    [Fact]
    public async Task A_full_disk_stops_the_download_at_once_and_with_room_it_goes_on()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "mounting a small disk needs root");
        await using var origin = await FaultyOrigin.StartAsync(segments);
        Directory.CreateDirectory(folder["segments"]);
        await ShellAsync("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder["segments"]);
        try
        {
            var failure = await Assert.ThrowsAsync<VolumeException>(() => EnsureAsync(Delivery(origin)));
            Assert.Equal(VolumeErrorKind.NoSpace, failure.Kind);
            Assert.Equal(ErrorCatalogue.NoSpace, VolumeErrors.OfRelease(failure).Kind);
            Assert.InRange(origin.Requests, 1, 8);
            AssertOnlyAuthentic();
            await ShellAsync("mount", "-o", "remount,size=16m", folder["segments"]);
            await EnsureAsync(Delivery(origin));
            await AssertCompleteAsync();
        }
        finally
        {
            await ShellAsync("umount", "-l", folder["segments"]);
        }
    }

    [Fact]
    public async Task A_wrong_clock_and_one_that_jumps_do_not_matter_to_a_download()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        var clock = new JumpingTime();
        var turn = 0;
        origin.Fault = (context, number) =>
        {
            clock.Now = new DateTimeOffset(Interlocked.Increment(ref turn) % 2 == 0 ? 1971 : 2096, 1, 1, 0, 0, 0, TimeSpan.Zero);
            return number <= 3 ? Status(503)(context, number) : Task.FromResult(false);
        };
        await EnsureAsync(new Delivery([HttpOrigin.Named(origin.Url, Server, new Throttle(50_000_000, clock), clock, HttpOrigin.Patience)], clock));
        await AssertCompleteAsync();
    }

    [Fact]
    public async Task The_throttle_holds_and_does_not_slow_what_somebody_waits_for()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        var rate = (int)(segments.Values.Sum(bytes => (long)bytes.Length) / 2);
        var throttle = new Throttle(rate, TimeProvider.System);
        var delivery = new Delivery([HttpOrigin.Named(origin.Url, Server, throttle, TimeProvider.System, HttpOrigin.Patience)], TimeProvider.System);
        var watch = Stopwatch.StartNew();
        var download = EnsureAsync(delivery);
        await ReadOneAsync(delivery);
        var urgent = watch.Elapsed;
        await download;

        // The rate is a bound from below only: a busy machine takes longer.
        Assert.InRange(watch.Elapsed, TimeSpan.FromSeconds(1.5), TimeSpan.FromMinutes(1));
        Assert.True(urgent < watch.Elapsed, $"{urgent} of {watch.Elapsed}");
        await AssertCompleteAsync();
    }

    [Fact]
    public async Task A_server_without_ranges_a_folder_and_redirections_are_origins_too()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        origin.Fault = async (context, _) =>
        {
            await context.Response.Body.WriteAsync(segments[context.Request.Path.Value!.Split('/')[^1]], context.RequestAborted);
            return true;
        };
        await EnsureAsync(Delivery(origin));
        await AssertCompleteAsync();

        Directory.Delete(folder["segments"], recursive: true);
        foreach (var (name, bytes) in segments)
        {
            Directory.CreateDirectory(folder[name[..2]]);
            await File.WriteAllBytesAsync(folder[StoreOrigins.PathOf(name)], bytes, Token);
        }

        await EnsureAsync(new Delivery([new FolderOrigin(folder.Path)], TimeProvider.System));
        await AssertCompleteAsync();

        Directory.Delete(folder["segments"], recursive: true);
        await using var front = await FaultyOrigin.StartAsync(segments);
        origin.Fault = null;
        front.Fault = (context, _) =>
        {
            context.Response.Redirect(new Uri(origin.Url, context.Request.Path.Value![1..]).AbsoluteUri);
            return Task.FromResult(true);
        };
        await EnsureAsync(Delivery(front));
        await AssertCompleteAsync();
        front.Fault = (context, _) =>
        {
            context.Response.Redirect(context.Request.Path);
            return Task.FromResult(true);
        };
        var seen = front.Requests;
        await Assert.ThrowsAsync<VolumeException>(() => Named(front, HttpOrigin.Patience).ReadAsync(Range(), Token).AsTask());
        Assert.Equal(4, front.Requests - seen);
    }

    [Fact]
    public async Task A_folder_with_other_things_under_a_segments_name_is_passed_over()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        foreach (var (number, name) in segments.Keys.Index())
        {
            Directory.CreateDirectory(folder[name[..2]]);
            var path = folder[StoreOrigins.PathOf(name)];
            if (number == 0)
            {
                await ShellAsync("mkfifo", path);
            }
            else
            {
                File.CreateSymbolicLink(path, "/dev/zero");
            }
        }

        await EnsureAsync(new Delivery([new FolderOrigin(folder.Path), Named(origin, HttpOrigin.Patience)], TimeProvider.System));
        await AssertCompleteAsync();
    }

    [Theory]
    [InlineData("Host", "127.0.0.1", true)]
    [InlineData("Host", "169.254.169.254", false)]
    [InlineData("Host", "fe80::1", false)]
    [InlineData("Network", "127.0.0.1", false)]
    [InlineData("Network", "::1", false)]
    [InlineData("Network", "::ffff:127.0.0.1", false)]
    [InlineData("Network", "64:ff9b::7f00:1", false)]
    [InlineData("Network", "169.254.169.254", false)]
    [InlineData("Network", "::ffff:169.254.169.254", false)]
    [InlineData("Network", "0.0.0.0", false)]
    [InlineData("Network", "::", false)]
    [InlineData("Network", "224.0.0.1", false)]
    [InlineData("Network", "255.255.255.255", false)]
    [InlineData("Network", "192.168.1.20", true)]
    [InlineData("Network", "fd00::1", true)]
    [InlineData("Network", "93.184.216.34", true)]
    [InlineData("Internet", "93.184.216.34", true)]
    [InlineData("Internet", "2606:2800:220:1::1", true)]
    [InlineData("Internet", "10.0.0.1", false)]
    [InlineData("Internet", "172.31.0.1", false)]
    [InlineData("Internet", "192.168.1.20", false)]
    [InlineData("Internet", "100.64.0.1", false)]
    [InlineData("Internet", "fd00::1", false)]
    [InlineData("Internet", "64:ff9b::c0a8:101", false)]
    [InlineData("Any", "127.0.0.1", true)]
    public void A_connection_leads_only_where_an_origin_may_be(string rule, string address, bool allowed) =>
        Assert.Equal(allowed, HttpOrigin.Permits(Enum.Parse<AddressRule>(rule), IPAddress.Parse(address)));

    [Fact]
    public async Task A_server_elsewhere_can_not_send_a_device_to_itself_by_address_name_or_redirection()
    {
        await using var origin = await FaultyOrigin.StartAsync(segments);
        var elsewhere = new Uri("https://nacre.example.com/");
        foreach (var url in new[] { origin.Url, new Uri($"http://localhost:{origin.Port}/"), new Uri($"http://[::ffff:127.0.0.1]:{origin.Port}/") })
        {
            var refused = await Assert.ThrowsAsync<VolumeException>(
                () => HttpOrigin.Named(url, elsewhere, Throttle.None, TimeProvider.System, HttpOrigin.Patience).ReadAsync(Range(), Token).AsTask());
            Assert.Contains("no origin may be", refused.Message, StringComparison.Ordinal);
        }

        Assert.Equal(0, origin.Requests);

        // An origin on the network that leads to this computer, or to its neighbours.
        if (Own() is { } own)
        {
            await using var outside = await FaultyOrigin.StartAsync(segments);
            using var relay = new TcpListener(own, 0);
            relay.Start();
            var port = ((IPEndPoint)relay.LocalEndpoint).Port;
            var answering = Task.Run(async () =>
            {
                using var client = await relay.AcceptTcpClientAsync(Token);
                var stream = client.GetStream();
                await stream.ReadAtLeastAsync(new byte[4096], 20, false, Token);
                await stream.WriteAsync(Encoding.ASCII.GetBytes($"HTTP/1.1 302 Found\r\nLocation: {outside.Url}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), Token);
            }, Token);
            var refused = await Assert.ThrowsAsync<VolumeException>(
                () => HttpOrigin.Named(new Uri($"http://{own}:{port}/"), elsewhere, Throttle.None, TimeProvider.System, HttpOrigin.Patience).ReadAsync(Range(), Token).AsTask());
            await answering;
            Assert.Contains("no origin may be", refused.Message, StringComparison.Ordinal);
            Assert.Equal(0, outside.Requests);
        }
    }

    /// <summary>An address of this computer that is not its loopback; null where it has none.</summary>
    private static IPAddress? Own() => System.Net.NetworkInformation.NetworkInterface.GetAllNetworkInterfaces().SelectMany(one => one.GetIPProperties().UnicastAddresses).Select(one => one.Address)
        .FirstOrDefault(address => address.AddressFamily == AddressFamily.InterNetwork && HttpOrigin.Permits(AddressRule.Network, address));

    private static Func<HttpContext, int, Task<bool>> Status(int status) => (context, _) =>
    {
        context.Response.StatusCode = status;
        return Task.FromResult(true);
    };

    private static HttpOrigin Named(FaultyOrigin origin, TimeSpan patience) => HttpOrigin.Named(origin.Url, Server, Throttle.None, TimeProvider.System, patience);

    private static Delivery Delivery(params FaultyOrigin[] origins) => new(origins.Select(origin => Named(origin, HttpOrigin.Patience)), TimeProvider.System);

    private SegmentRange Range() => new(segments.Keys.First(), 0, new byte[ChunkLength], arrived => arrived, isUrgent: true);

    private async Task<long> EnsureAsync(ISegmentOrigin origin)
    {
        using var cache = new SegmentCache(folder["segments"]);
        using var reader = new ReleaseReader(index, cache, origin);
        await reader.EnsureAllAsync(null, Token);
        return reader.Statistics.FetchedBytes;
    }

    /// <summary>What a guest does: reads a block and waits for it.</summary>
    private async Task ReadOneAsync(ISegmentOrigin origin)
    {
        using var cache = new SegmentCache(folder["other"]);
        using var reader = new ReleaseReader(index, cache, origin);
        await using var volume = new ReleaseVolume(reader, "system");
        var block = new byte[4096];
        await volume.ReadAsync(8192, block, Token);
        Assert.Equal(content[8192..12288], block);
    }

    private async Task AssertCompleteAsync()
    {
        using var cache = new SegmentCache(folder["segments"]);
        using var reader = new ReleaseReader(index, cache, new NoOrigin());
        await using var volume = new ReleaseVolume(reader, "system");
        var all = new byte[content.Length];
        await volume.ReadAsync(0, all, Token);
        Assert.Equal(content, all);
    }

    /// <summary>Every byte that was kept is the published one.</summary>
    private void AssertOnlyAuthentic()
    {
        foreach (var file in Directory.Exists(folder["segments"]) ? Directory.GetFiles(folder["segments"]) : [])
        {
            var kept = File.ReadAllBytes(file);
            var real = segments[Path.GetFileName(file)];
            Assert.True(kept.Length <= real.Length);
            for (var i = 0; i < kept.Length; i++)
            {
                Assert.True(kept[i] == 0 || kept[i] == real[i], $"byte {i} of {Path.GetFileName(file)} was never published");
            }
        }
    }

    private static async Task UntilAsync(Func<bool> condition)
    {
        for (var limit = Stopwatch.StartNew(); !condition(); await Task.Delay(10, Token))
        {
            Assert.True(limit.Elapsed < TimeSpan.FromSeconds(30), "it did not come to that");
        }
    }

    private static async Task ShellAsync(string program, params string[] arguments)
    {
        using var process = Process.Start(program, arguments);
        await process.WaitForExitAsync(Token);
        Assert.Equal(0, process.ExitCode);
    }

    /// <summary>Publishes random content in two segments.</summary>
    private static ReleaseIndex Publish(byte[] content, Dictionary<string, byte[]> into)
    {
        var keys = new PublisherKeys(SHA256.HashData("an organisation"u8));
        var (described, chunks) = (new List<ReleaseSegment>(), new List<ReleaseChunk>());
        for (var part = 0; part < 2; part++)
        {
            var builder = new SegmentBuilder(keys);
            for (var i = 0; i < Chunks / 2; i++)
            {
                var plain = content.AsSpan(((part * Chunks / 2) + i) * ChunkLength, ChunkLength);
                builder.Add(keys.NameChunk(plain), plain, ChunkLength, compressed: false);
            }

            var segment = builder.Seal();
            into[segment.Name] = segment.Bytes;
            described.Add(new ReleaseSegment(segment.Name, keys.SegmentKey(Convert.FromHexString(segment.Name)), segment.Bytes.Length));
            chunks.AddRange(segment.Chunks.Select(chunk => chunk.Place).OrderBy(place => place.Ordinal).Select(
                place => new ReleaseChunk(((long)(part * Chunks / 2) + place.Ordinal) * ChunkLength, ChunkLength, part, place.Ordinal, place.Offset, place.StoredLength, place.Compressed)));
        }

        return new ReleaseIndex(described, [new ReleaseArtifact("system", content.Length, chunks)]);
    }

    private sealed class NoOrigin : ISegmentOrigin
    {
        public ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken) => throw new VolumeException(VolumeErrorKind.NotAuthentic, "all of it should be here");
    }

    /// <summary>A clock that shows anything.</summary>
    private sealed class JumpingTime : TimeProvider
    {
        public DateTimeOffset Now { get; set; } = new(1970, 1, 1, 0, 0, 0, TimeSpan.Zero);

        public override DateTimeOffset GetUtcNow() => Now;
    }
}
