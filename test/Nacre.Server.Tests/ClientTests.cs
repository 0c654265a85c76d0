using Nacre.Testing;
using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Http;
using Nacre.Client;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

public class ClientTests
{
    private const string Name = "0123456789abcdef0123456789abcdef";

    [Fact]
    public async Task A_server_that_is_not_there_is_named()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var url = new Uri($"http://127.0.0.1:{((IPEndPoint)listener.LocalEndpoint).Port}");
        listener.Stop();
        using var client = new NacreClient(url);
        var exception = await FailsAsync(ErrorCatalogue.ServerUnreachable, client.GetServerAsync());
        Assert.Contains(url.ToString(), exception.Message, StringComparison.Ordinal);
        using var nowhere = new NacreClient(new Uri("http://nacre.invalid"));
        Assert.Contains("nacre.invalid", (await FailsAsync(ErrorCatalogue.ServerUnreachable, nowhere.GetServerAsync())).Message, StringComparison.Ordinal);
        Assert.Equal(ErrorCatalogue.UsageInvalid, Assert.Throws<NacreException>(() => new NacreClient(new Uri("ftp://x"))).Kind);
    }

    [Fact]
    public async Task A_server_that_does_not_answer_times_out_and_a_cancelled_call_is_cancelled()
    {
        var never = new TaskCompletionSource();
        await using var peer = await HostilePeer.StartAsync(context => never.Task.WaitAsync(context.RequestAborted));
        using var client = new NacreClient(peer.Url, timeout: TimeSpan.FromMilliseconds(50));
        await FailsAsync(ErrorCatalogue.ServerUnreachable, client.GetServerAsync());
        using var patient = new NacreClient(peer.Url);
        using var cancel = new CancellationTokenSource(50);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => patient.GetServerAsync(cancel.Token));
    }

    [Theory]
    [InlineData(503, 3)]
    [InlineData(502, 3)]
    [InlineData(500, 1)]
    [InlineData(404, 1)]
    [InlineData(200, 1)]
    [InlineData(302, 1)]
    public async Task What_is_not_ours_is_said_and_reading_is_tried_again_where_it_may_help(int status, int tries)
    {
        var calls = 0;
        await using var peer = await HostilePeer.StartAsync(context =>
        {
            Interlocked.Increment(ref calls);
            context.Response.StatusCode = status;
            context.Response.Headers.Location = "/elsewhere";
            context.Response.ContentType = "text/html";
            return context.Response.WriteAsync("<html>hello</html>");
        });
        using var client = new NacreClient(peer.Url, Credential.Administrator("token"));
        var exception = await FailsAsync(ErrorCatalogue.ServerUnreachable, client.GetServerAsync());
        Assert.Contains("not a nacre server", exception.Message, StringComparison.Ordinal);
        Assert.Equal(tries, calls);
        calls = 0;
        await FailsAsync(ErrorCatalogue.ServerUnreachable, client.CreateUserAsync(new CreateUser("ann", null)));
        Assert.Equal(1, calls);
    }

    [Fact]
    public async Task Reading_succeeds_when_the_third_try_does()
    {
        var calls = 0;
        await using var peer = await HostilePeer.StartAsync(context =>
        {
            if (Interlocked.Increment(ref calls) < 3)
            {
                context.Abort();
                return Task.CompletedTask;
            }

            return context.Response.WriteAsJsonAsync(new ServerInfo("nacre", "1", "x"), ContractJson.Options);
        });
        using var client = new NacreClient(peer.Url);
        Assert.Equal("x", (await client.GetServerAsync()).Organisation);
        Assert.Equal(3, calls);
    }

    [Fact]
    public async Task A_hostile_problem_reaches_no_terminal()
    {
        await using var peer = await HostilePeer.StartAsync(context =>
        {
            context.Response.StatusCode = 404;
            return context.Response.WriteAsJsonAsync(new Problem("", "", 404, "\u001b[31mred\n", "E_NOT_FOUND", "", ""), ContractJson.Options, "application/problem+json");
        });
        using var client = new NacreClient(peer.Url);
        Assert.Equal("[31mred", (await FailsAsync(ErrorCatalogue.NotFound, client.GetServerAsync())).Message);
    }

    public static TheoryData<string, string> Origins => new()
    {
        { "whole instead of range", "E_SEGMENT_NOT_AUTHENTIC" },
        { "other range", "E_SEGMENT_NOT_AUTHENTIC" },
        { "shorter range", "E_SEGMENT_TRUNCATED" },
        { "body ends early", "E_SEGMENT_TRUNCATED" },
        { "chunked and short", "E_SEGMENT_TRUNCATED" },
        { "chunked and long", "E_SEGMENT_NOT_AUTHENTIC" },
        { "no range header", "E_SEGMENT_NOT_AUTHENTIC" },
        { "beyond the end", "E_SEGMENT_TRUNCATED" },
    };

    [Theory]
    [MemberData(nameof(Origins))]
    [Spec("REL-042")]
    public async Task A_range_is_whole_or_an_error(string origin, string code)
    {
        await using var peer = await HostilePeer.StartAsync(async context =>
        {
            var response = context.Response;
            response.StatusCode = 206;
            response.Headers.ContentRange = "bytes 10-19/100";
            switch (origin)
            {
                case "whole instead of range":
                    response.StatusCode = 200;
                    response.Headers.Remove("Content-Range");
                    await response.Body.WriteAsync(new byte[10]);
                    break;
                case "other range":
                    response.Headers.ContentRange = "bytes 0-9/100";
                    await response.Body.WriteAsync(new byte[10]);
                    break;
                case "shorter range":
                    response.Headers.ContentRange = "bytes 10-14/15";
                    await response.Body.WriteAsync(new byte[5]);
                    break;
                case "body ends early":
                    response.ContentLength = 10;
                    await response.Body.WriteAsync(new byte[5]);
                    break;
                case "chunked and short":
                    await response.Body.WriteAsync(new byte[5]);
                    break;
                case "chunked and long":
                    await response.Body.WriteAsync(new byte[11]);
                    break;
                case "no range header":
                    response.Headers.Remove("Content-Range");
                    await response.Body.WriteAsync(new byte[10]);
                    break;
                default:
                    response.StatusCode = 416;
                    break;
            }
        });
        using var client = new NacreClient(peer.Url);
        await FailsAsync(ErrorCatalogue.All[code], client.DownloadRangeAsync(Name, 10, new byte[10]));
    }

    [Fact]
    public async Task A_segment_larger_than_allowed_is_not_read()
    {
        await using var world = await StartAsync();
        var segment = await world.UploadAsync(1000);
        await FailsAsync(ErrorCatalogue.TooLarge, world.Nobody.DownloadSegmentAsync(segment.Name, 999));
        Assert.Equal(1000, (await world.Nobody.DownloadSegmentAsync(segment.Name, 1000)).Length);
        await FailsAsync(ErrorCatalogue.NotFound, world.Nobody.DownloadRangeAsync(Name, 0, new byte[1]));
        await FailsAsync(ErrorCatalogue.NameInvalid, world.Nobody.DownloadSegmentAsync("../x"));
    }

    [Fact]
    public void Names_can_not_leave_their_place()
    {
        using var client = new NacreClient(new Uri("http://127.0.0.1:1"));
        Assert.Equal(ErrorCatalogue.NameInvalid, Assert.Throws<NacreException>(() => { _ = client.RevokeDeviceAsync(".."); }).Kind);
    }
}
