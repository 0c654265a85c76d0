using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Erasure;
using Nacre.Player.LivePcs;
using Nacre.Player.Logs;
using Nacre.Player.Orders;
using Nacre.Policies;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>A forged or replayed kill kills nothing.</summary>
[Collection("NACRE_HOME")]
public sealed class DeviceOrderReplayTests : IDisposable
{
    private readonly Office office = new();
    private readonly ECDsa leaseKey = ECDsa.Create(ECCurve.NamedCurves.nistP256), otherKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
    private readonly DeviceKey deviceKey = DeviceKey.Create();
    private readonly HttpListener server = new();
    private readonly List<DeliverReceipt> receipts = [];
    private Func<string, string> answer = _ => "";
    private readonly List<(string Path, SendLog Log)> logs = [];
    private bool refuse, refuseLogs;

    public DeviceOrderReplayTests()
    {
        string url;
        using (var probe = new TcpListener(IPAddress.Loopback, 0))
        {
            probe.Start();
            url = $"http://127.0.0.1:{((IPEndPoint)probe.LocalEndpoint).Port}/";
        }

        server.Prefixes.Add(url);
        server.Start();
        _ = ServeAsync();
        DurableFile.Write(Path.Combine(office.Paths.State, "device.secret"), RandomNumberGenerator.GetBytes(32));
        DurableFile.Write(Path.Combine(office.Paths.State, "device.key"), deviceKey.ExportPkcs8());
        DurableFile.WriteJson(Path.Combine(office.Paths.State, "device.json"), new DeviceRecord(new Uri(url), "device-1", "ann", "o", PublicKeys.From(leaseKey), PublicKeys.From(leaseKey)));
        DurableFile.Write(office.Folder.GrantPath, "a lease"u8);
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        server.Close();
        leaseKey.Dispose();
        otherKey.Dispose();
        deviceKey.Dispose();
        office.Dispose();
    }

    [Fact]
    public async Task Only_what_the_server_signed_for_this_device_in_answer_to_its_question_is_carried_out()
    {
        var desk = new DeviceOrderDesk(office.Paths, TimeProvider.System);
        string recorded = "";
        Func<string, string>[] wrong =
        [
            nonce => Answer(nonce, Order(), otherKey), // forged
            nonce => Answer(nonce, Order(by: otherKey)), // the answer is the server's, the order in it is not
            nonce => Answer("another", Order()), // replayed
            nonce => Answer(nonce, Order(device: "device-2")),
            nonce => Answer(nonce, Order(), device: "device-2"),
            nonce => Answer(nonce, Order(livePc: "../office")),
            nonce => Answer(nonce, Order(id: "../../../../etc")),
            nonce => Answer(nonce, Order().Replace('.', '!')),
            nonce => Answer(nonce, Order(act: DeviceAct.Logs), otherKey),
            nonce => Answer(nonce, Order(act: DeviceAct.Logs, by: otherKey)),
            nonce => Answer("another", Order(act: DeviceAct.Logs)),
            nonce => Answer(nonce, Order(act: (DeviceAct)7)),
            _ => "",
        ];
        foreach (var one in wrong)
        {
            answer = one;
            Assert.Equal(ErrorCatalogue.LeaseNotAuthentic, (await Assert.ThrowsAsync<NacreException>(() => desk.AttendAsync(null, Token))).Kind);
            Assert.False(Eraser.IsUnderWay(office.Paths));
            await desk.SendLogsAsync(null, Token);
            Assert.True(File.Exists(office.Folder.GrantPath));
            Assert.Empty(logs);
        }

        answer = nonce => recorded = Answer(nonce, Order());
        await desk.AttendAsync(null, Token);
        Assert.False(Path.Exists(office.Folder.Root));
        var receipt = Assert.Single(receipts);
        Assert.True(receipt.Verify(PublicKeys.From(leaseKey), _ => deviceKey.PublicKey).Receipt.Succeeded);

        // What was there again afterwards is not killed by what killed the first: neither by the recorded answer, nor by a server that was restored and orders it again.
        office.Folder.Create();
        DurableFile.Write(office.Folder.GrantPath, "a new lease"u8);
        answer = _ => recorded;
        await Assert.ThrowsAsync<NacreException>(() => desk.AttendAsync(null, Token));
        answer = nonce => Answer(nonce, Order());
        await desk.AttendAsync(null, Token);
        await desk.AttendAsync(null, Token);
        Assert.True(File.Exists(office.Folder.GrantPath));
        Assert.All(receipts, one => Assert.Equal(receipt, one)); // it is told what it forgot
        Assert.InRange(receipts.Count, 2, 3);
    }

    [Fact]
    public async Task A_receipt_is_kept_until_the_server_takes_it()
    {
        answer = nonce => Answer(nonce, Order());
        refuse = true;
        await new DeviceOrderDesk(office.Paths, TimeProvider.System).AttendAsync(null, Token);
        Assert.False(ReceiptBox.IsEmpty(office.Paths));
        refuse = false;
        Assert.True(await new LivePcPlayer(office.Paths, null, TimeProvider.System).DeliverReceiptsAsync(Token));
        Assert.True(ReceiptBox.IsEmpty(office.Paths));
        Assert.Single(receipts);
    }

    [Fact]
    public async Task A_revoke_forgets_the_leases_and_leaves_the_volumes()
    {
        Directory.CreateDirectory(office.Folder.Volume("data"));
        DurableFile.Write(Path.Combine(office.Folder.Volume("data"), "header"), "slots"u8);
        answer = nonce => Answer(nonce, Order(act: DeviceAct.Revoke));
        using (office.Folder.Hold())
        {
            // While a player runs it, there is no receipt; that player's own answer tells it to end.
            Assert.Equal(DeviceAct.Revoke, Assert.Single(await new DeviceOrderDesk(office.Paths, TimeProvider.System).AttendAsync("office", Token)).Act);
            await new DeviceOrderDesk(office.Paths, TimeProvider.System).AttendAsync(null, Token);
            Assert.Empty(receipts);
        }

        await new DeviceOrderDesk(office.Paths, TimeProvider.System).AttendAsync(null, Token);
        Assert.Single(receipts);
        Assert.False(File.Exists(office.Folder.GrantPath));
        Assert.True(File.Exists(Path.Combine(office.Folder.Volume("data"), "header")));
    }

    [Theory]
    [InlineData("office")]
    [InlineData(null)]
    public async Task A_log_is_sent_for_an_order_only_and_its_user_can_read_who_asked_and_why(string? livePc)
    {
        var player = new LivePcPlayer(office.Paths, null, TimeProvider.System);
        var lab = new LivePcFolder(office.Paths, "lab");
        lab.Create();
        var (log, other) = (new LivePcLog(office.Folder, () => EventLevel.Warning, TimeProvider.System), new LivePcLog(lab, () => EventLevel.Warning, TimeProvider.System));
        log.Write(EventLevel.Error, "start.failed", "no lease");
        other.Write(EventLevel.Error, "start.failed", "no network");
        answer = nonce => Answer(nonce);
        await player.AttendAsync(Token);
        Assert.Empty(logs);

        // It says who asked before anything is sent, and a server that can't take it now gets it later.
        answer = nonce => Answer(nonce, Order(livePc: livePc, act: DeviceAct.Logs));
        refuseLogs = true;
        await player.AttendAsync(Token);
        Assert.Equal(("start.failed", "log.asked"), (log.Read()[0].Event, log.Read()[1].Event));
        Assert.Empty(receipts);
        refuseLogs = false;
        await player.AttendAsync(Token);
        var (path, sent) = Assert.Single(logs);
        Assert.Equal("/v1/device/orders/0123456789abcdef/log", path);
        Assert.Equal((livePc is null ? log.Read().Concat(other.Read()).OrderBy(line => line.Time) : log.Read()), sent.Lines);
        Assert.Equal("order 0123456789abcdef: kim asked for this log because: it does not start", Assert.Single(log.Read(), line => line.Event == "log.asked").Text);
        Assert.EndsWith("because: it does not start", (await player.StatusAsync("office", Token)).LogAsked, StringComparison.Ordinal);
        Assert.Equal(livePc is null ? 2 : 1, other.Read().Count);
        Assert.Equal($"{sent.Lines.Count} lines", Assert.Single(receipts).Verify(PublicKeys.From(leaseKey), _ => deviceKey.PublicKey).Receipt.Detail);

        // The same order again says again that it was done, and sends nothing.
        await player.AttendAsync(Token);
        Assert.Single(logs);
        Assert.Equal(2, receipts.Count);
        Assert.True(File.Exists(office.Folder.GrantPath));
    }

    private string Order(string device = "device-1", string id = "0123456789abcdef", string? livePc = "office", ECDsa? by = null, DeviceAct act = DeviceAct.Kill) =>
        Jws.SignClaims(
            new DeviceOrderClaims(device, id, act, livePc, KillMode.Both, WipeScope.All, 0, 0, act == DeviceAct.Logs ? "kim" : null, act == DeviceAct.Logs ? "it does not start" : null), by ?? leaseKey, DeviceOrderClaims.Type);

    private string Answer(string nonce, string? order = null, ECDsa? by = null, string device = "device-1") =>
        Jws.SignClaims(new DeviceOrdersClaims(device, nonce, TimeProvider.System.GetUtcNow().ToUnixTimeSeconds(), order is null ? [] : [order]), by ?? leaseKey, DeviceOrdersClaims.Type);

    private async Task ServeAsync()
    {
        while (true)
        {
            HttpListenerContext context;
            try
            {
                context = await server.GetContextAsync();
            }
            catch (Exception exception) when (exception is HttpListenerException or ObjectDisposedException)
            {
                return;
            }

            using var request = await JsonDocument.ParseAsync(context.Request.InputStream, cancellationToken: CancellationToken.None);
            if (refuse && context.Request.Url!.AbsolutePath.EndsWith("/receipts", StringComparison.Ordinal))
            {
                context.Response.StatusCode = 503;
            }
            else if (context.Request.Url!.AbsolutePath.EndsWith("/receipts", StringComparison.Ordinal))
            {
                receipts.Add(request.RootElement.Deserialize<DeliverReceipt>(ContractJson.Options)!);
                context.Response.StatusCode = 204;
            }
            else if (context.Request.Url!.AbsolutePath.EndsWith("/log", StringComparison.Ordinal))
            {
                context.Response.StatusCode = refuseLogs ? 503 : 204;
                if (!refuseLogs)
                {
                    logs.Add((context.Request.Url.AbsolutePath, request.RootElement.Deserialize<SendLog>(ContractJson.Options)!));
                }
            }
            else
            {
                context.Response.ContentType = "application/json";
                await context.Response.OutputStream.WriteAsync(JsonSerializer.SerializeToUtf8Bytes(new SignedDeviceOrders(answer(request.RootElement.GetProperty("nonce").GetString()!)), ContractJson.Options));
            }

            context.Response.Close();
        }
    }
}
