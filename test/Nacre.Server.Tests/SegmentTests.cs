using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

public class SegmentTests
{
    private static ByteArrayContent Content(byte[] bytes, byte[]? announced = null)
    {
        var content = new ByteArrayContent(bytes);
        content.Headers.TryAddWithoutValidation("Content-Digest", $"sha-256=:{Convert.ToBase64String(SHA256.HashData(announced ?? bytes))}:");
        return content;
    }

    private static string[] Files(World world) => Directory.GetFiles(System.IO.Path.Combine(world.Data, "segments"), "*", SearchOption.AllDirectories);

    [Fact]
    public async Task A_segment_comes_back_as_it_was_sent()
    {
        await using var world = await StartAsync();
        var bytes = RandomNumberGenerator.GetBytes(300_000);
        var name = SegmentName();
        Assert.Equal([name], await world.Admin.FindMissingSegmentsAsync([name, name]));
        await world.Admin.UploadSegmentAsync(name, bytes);
        Assert.Empty(await world.Admin.FindMissingSegmentsAsync([name]));
        Assert.Equal(bytes, await world.Nobody.DownloadSegmentAsync(name));
        var part = new byte[1000];
        await world.Nobody.DownloadRangeAsync(name, 299_000, part);
        Assert.Equal(bytes[299_000..], part);
        Assert.True(File.Exists(System.IO.Path.Combine(world.Data, "segments", name[..2], name)));
        var response = await world.SendAsync("HEAD", "v1/segments/" + name);
        Assert.Equal(300_000, response.Content.Headers.ContentLength);
        Assert.Equal($"\"{Convert.ToHexStringLower(SHA256.HashData(bytes))}\"", response.Headers.ETag!.Tag);
        Assert.Equal(["immutable", "max-age=31536000", "public"], response.Headers.GetValues("Cache-Control").Single().Split(", ").Order());
    }

    [Theory]
    [InlineData("bytes=0-0", 206, "bytes 0-0/1000", 1)]
    [InlineData("bytes=990-", 206, "bytes 990-999/1000", 10)]
    [InlineData("bytes=-5", 206, "bytes 995-999/1000", 5)]
    [InlineData("bytes=-5000", 206, "bytes 0-999/1000", 1000)]
    [InlineData("bytes=999-2000", 206, "bytes 999-999/1000", 1)]
    [InlineData("bytes=1000-", 416, "bytes */1000", null)]
    [InlineData("bytes=-0", 416, "bytes */1000", null)]
    [InlineData("bytes=5-4", 200, null, 1000)]
    [InlineData("lines=1-2", 200, null, 1000)]
    [InlineData("bytes=0-1,4-5", 200, null, 1000)]
    public async Task Ranges_are_served(string range, int status, string? contentRange, int? length)
    {
        await using var world = await StartAsync();
        var segment = await world.UploadAsync();
        using var request = new HttpRequestMessage(HttpMethod.Get, "v1/segments/" + segment.Name);
        request.Headers.TryAddWithoutValidation("Range", range);
        using var response = await world.Http.SendAsync(request);
        Assert.Equal(status, (int)response.StatusCode);
        Assert.Equal(contentRange, response.Content.Headers.ContentRange?.ToString());
        if (length is { } expected)
        {
            Assert.Equal(expected, (await response.Content.ReadAsByteArrayAsync()).Length);
        }
        else
        {
            await ProblemAsync(response, ErrorCatalogue.RequestInvalid);
        }
    }

    [Fact]
    public async Task A_cache_that_has_it_is_told_so()
    {
        await using var world = await StartAsync();
        var segment = await world.UploadAsync();
        using var request = new HttpRequestMessage(HttpMethod.Get, "v1/segments/" + segment.Name);
        request.Headers.IfNoneMatch.Add(new EntityTagHeaderValue($"\"{segment.Sha256}\""));
        Assert.Equal(HttpStatusCode.NotModified, (await world.Http.SendAsync(request)).StatusCode);
    }

    [Fact]
    public async Task Other_bytes_than_announced_leave_nothing()
    {
        await using var world = await StartAsync();
        var name = SegmentName();
        var response = await world.SendAsync("PUT", "v1/segments/" + name, world.Token, Content([1, 2, 3], [1, 2, 4]));
        await ProblemAsync(response, ErrorCatalogue.DigestMismatch);
        Assert.Empty(Files(world));
        await FailsAsync(ErrorCatalogue.NotFound, world.Nobody.DownloadSegmentAsync(name));
    }

    [Theory]
    [InlineData(null)]
    [InlineData("sha-256=:AAAA:")]
    [InlineData("sha-512=:AAAA:")]
    [InlineData("sha-256=nonsense")]
    public async Task Without_a_digest_nothing_is_taken(string? digest)
    {
        await using var world = await StartAsync();
        var content = new ByteArrayContent([1]);
        if (digest is not null)
        {
            content.Headers.TryAddWithoutValidation("Content-Digest", digest);
        }

        await ProblemAsync(await world.SendAsync("PUT", "v1/segments/" + SegmentName(), world.Token, content), ErrorCatalogue.RequestInvalid);
        Assert.Empty(Files(world));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_segment_above_the_limit_is_refused_and_one_at_the_limit_is_not(bool announced)
    {
        await using var world = await StartAsync();
        await world.Admin.UploadSegmentAsync(SegmentName(), new byte[1024 * 1024]);
        var name = SegmentName();
        using var request = new HttpRequestMessage(HttpMethod.Put, "v1/segments/" + name) { Content = Content(new byte[(1024 * 1024) + 1]) };
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", world.Token);
        request.Headers.TransferEncodingChunked = announced ? null : true;
        request.Headers.ExpectContinue = true;
        await ProblemAsync(await world.Http.SendAsync(request), ErrorCatalogue.TooLarge);
        Assert.Single(Files(world));
        await FailsAsync(ErrorCatalogue.TooLarge, world.Admin.UploadSegmentAsync(name, new byte[(1024 * 1024) + 1]));
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.UploadSegmentAsync(name, Array.Empty<byte>()));
    }

    [Fact]
    public async Task The_same_again_is_fine_and_other_bytes_are_not()
    {
        await using var world = await StartAsync();
        var name = SegmentName();
        Assert.Equal(HttpStatusCode.Created, (await world.SendAsync("PUT", "v1/segments/" + name, world.Token, Content([1, 2, 3]))).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await world.SendAsync("PUT", "v1/segments/" + name, world.Token, Content([1, 2, 3]))).StatusCode);
        await FailsAsync(ErrorCatalogue.Immutable, world.Admin.UploadSegmentAsync(name, new byte[] { 1, 2, 4 }));
        Assert.Equal([1, 2, 3], await world.Nobody.DownloadSegmentAsync(name));
    }

    [Fact]
    public async Task Two_uploads_of_one_name_at_once_leave_one_segment()
    {
        await using var world = await StartAsync();
        var name = SegmentName();
        var outcomes = await Task.WhenAll(Enumerable.Range(1, 8).Select(async i =>
        {
            using var response = await world.SendAsync("PUT", "v1/segments/" + name, world.Token, Content([.. Enumerable.Repeat((byte)i, 100_000)]));
            return response.StatusCode;
        }));
        Assert.Single(outcomes, HttpStatusCode.Created);
        Assert.Equal(7, outcomes.Count(status => status == HttpStatusCode.Conflict));
        Assert.Single(Files(world));
        Assert.Single((await world.Nobody.DownloadSegmentAsync(name)).Distinct());
    }

    [Fact]
    public async Task An_upload_that_ends_half_way_leaves_nothing()
    {
        await using var world = await StartAsync();
        var name = SegmentName();
        using (var socket = new TcpClient())
        {
            await socket.ConnectAsync(IPAddress.Loopback, world.Url.Port);
            var stream = socket.GetStream();
            await stream.WriteAsync(Encoding.ASCII.GetBytes(
                $"PUT /v1/segments/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.Token}\r\nContent-Length: 1000\r\nContent-Digest: sha-256=:{Convert.ToBase64String(new byte[32])}:\r\n\r\n"));
            await stream.WriteAsync(new byte[500]);
            await UntilAsync(() => Files(world).Length == 1);
        }

        await UntilAsync(() => Files(world).Length == 0);
        await FailsAsync(ErrorCatalogue.NotFound, world.Nobody.DownloadSegmentAsync(name));
    }

    [Fact]
    public async Task What_a_crash_left_of_an_upload_is_removed_at_the_next_start()
    {
        await using var world = await StartAsync();
        var left = System.IO.Path.Combine(world.Data, "segments", "incoming", "half");
        await File.WriteAllTextAsync(left, "half");
        await world.StartAgainAsync();
        Assert.False(File.Exists(left));
    }

    [Fact]
    public async Task A_segment_that_was_damaged_on_disk_is_missing_and_can_be_sent_again()
    {
        await using var world = await StartAsync();
        var name = SegmentName();
        await world.Admin.UploadSegmentAsync(name, new byte[100]);
        await File.WriteAllBytesAsync(System.IO.Path.Combine(world.Data, "segments", name[..2], name), new byte[50]);
        Assert.Equal([name], await world.Admin.FindMissingSegmentsAsync([name]));
        await FailsAsync(ErrorCatalogue.SegmentTruncated, world.Nobody.DownloadRangeAsync(name, 0, new byte[100]));
        await FailsAsync(ErrorCatalogue.SegmentTruncated, world.Nobody.DownloadRangeAsync(name, 60, new byte[40]));
        await world.Admin.UploadSegmentAsync(name, new byte[100]);
        Assert.Equal(new byte[100], await world.Nobody.DownloadSegmentAsync(name));
    }

    [Theory]
    [InlineData("..%2F..%2Fadmin-token")]
    [InlineData("%2e%2e")]
    [InlineData("..%5c..%5cadmin-token")]
    [InlineData("0123456789ABCDEF0123456789ABCDEF")]
    [InlineData("0123456789abcdef0123456789abcdef%0a")]
    [InlineData("incoming")]
    [InlineData("%00")]
    public async Task Names_that_are_paths_reach_nothing(string name)
    {
        await using var world = await StartAsync();
        var (get, _) = await RawAsync(world, $"GET /v1/segments/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        Assert.True(get is 404 or 400, get.ToString(System.Globalization.CultureInfo.InvariantCulture));
        var (put, text) = await RawAsync(world, $"PUT /v1/segments/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {world.Token}\r\nContent-Length: 1\r\nContent-Digest: sha-256=:{Convert.ToBase64String(SHA256.HashData([65]))}:\r\n\r\nA");
        Assert.True(put is 404 or 400 or 405, text);
        Assert.DoesNotContain(world.Token, text, StringComparison.Ordinal);
        Assert.Empty(Files(world));
    }

    [Fact]
    public async Task A_full_disk_is_said_and_leaves_nothing()
    {
        await using var world = await StartAsync(builder => builder.Services.AddSingleton<ISegmentStore, FullStore>());
        var name = SegmentName();
        var exception = await FailsAsync(ErrorCatalogue.NoSpace, world.Admin.UploadSegmentAsync(name, new byte[10]));
        Assert.Contains("full", exception.Message, StringComparison.Ordinal);
        await FailsAsync(ErrorCatalogue.NotFound, world.Nobody.DownloadSegmentAsync(name));
        Assert.Equal(0L, await world.SqlAsync("SELECT COUNT(*) FROM \"Segments\""));
    }

    [Fact]
    public async Task A_defect_is_a_trace_id_for_the_caller_and_a_reason_in_the_log()
    {
        await using var world = await StartAsync(builder => builder.Services.AddSingleton<ISegmentStore, BrokenStore>());
        using var response = await world.SendAsync("PUT", "v1/segments/" + SegmentName(), world.Token, Content([1]));
        var problem = await ProblemAsync(response, ErrorCatalogue.Internal);
        Assert.DoesNotContain("broken inside", problem.ToString(), StringComparison.Ordinal);
        Assert.Contains("broken inside", world.Log.Text, StringComparison.Ordinal);
        Assert.Contains(problem.TraceId, world.Log.Text, StringComparison.Ordinal);
        var exception = await FailsAsync(ErrorCatalogue.ServerFailed, world.Admin.UploadSegmentAsync(SegmentName(), new byte[1]));
        Assert.Contains("trace id", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Only_names_of_segments_can_be_asked_for()
    {
        await using var world = await StartAsync();
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.FindMissingSegmentsAsync(["../x"]));
        var many = Enumerable.Range(0, 10_001).Select(i => i.ToString("x32", System.Globalization.CultureInfo.InvariantCulture)).ToList();
        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.FindMissingSegmentsAsync(many));
        Assert.Equal(10_000, (await world.Admin.FindMissingSegmentsAsync(many[..10_000])).Count);
    }

    private static async Task UntilAsync(Func<bool> condition)
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        while (!condition())
        {
            await Task.Delay(10, deadline.Token);
        }
    }

    private static async Task<(int Status, string Text)> RawAsync(World world, string request)
    {
        using var socket = new TcpClient();
        await socket.ConnectAsync(IPAddress.Loopback, world.Url.Port);
        var stream = socket.GetStream();
        await stream.WriteAsync(Encoding.ASCII.GetBytes(request));
        using var reader = new StreamReader(stream, Encoding.ASCII);
        var text = await reader.ReadToEndAsync();
        return (int.Parse(text.AsSpan(9, 3), System.Globalization.CultureInfo.InvariantCulture), text);
    }

    private sealed class FullStore : FailingStore
    {
        protected override Exception Reason => new IOException("No space left on device", 28);
    }

    private sealed class BrokenStore : FailingStore
    {
        protected override Exception Reason => new InvalidOperationException("broken inside");
    }

    private abstract class FailingStore : ISegmentStore, ISegmentWriter
    {
        protected abstract Exception Reason { get; }

        public ValueTask PrepareAsync(CancellationToken cancellationToken) => ValueTask.CompletedTask;

        public IAsyncEnumerable<StoredSegment> ListAsync(string firstDigits, CancellationToken cancellationToken) => AsyncEnumerable.Empty<StoredSegment>();

        public ValueTask DeleteAsync(string name, CancellationToken cancellationToken) => ValueTask.FromException(Reason);

        public ValueTask<long?> FindLengthAsync(string name, CancellationToken cancellationToken) => ValueTask.FromResult<long?>(null);

        public ValueTask<Stream?> OpenAsync(string name, CancellationToken cancellationToken) => ValueTask.FromResult<Stream?>(null);

        public ValueTask<ISegmentWriter> CreateAsync(string name, CancellationToken cancellationToken) => ValueTask.FromResult<ISegmentWriter>(this);

        public ValueTask WriteAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken) => ValueTask.FromException(Reason);

        public ValueTask CommitAsync(CancellationToken cancellationToken) => ValueTask.FromException(Reason);

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;
    }
}
