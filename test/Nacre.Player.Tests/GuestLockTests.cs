using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using Nacre.Player.LivePcs;
using Nacre.Player.Machines;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>A locked guest stands still and nobody sees its screen, for as long as there is a reason. With a real QEMU, whose machine has nothing in it.</summary>
public sealed class GuestLockTests : IAsyncDisposable
{
    private readonly TemporaryDirectory folder = new();
    private readonly Process qemu;
    private IReadOnlyList<string> said = [];

    public GuestLockTests()
    {
        Require.Tool(Qemu.Program);
        qemu = Process.Start(new ProcessStartInfo(Qemu.Program,
        [
            "-nodefaults", "-machine", "none", "-accel", "tcg", "-display", "none", "-vnc", $"unix:{folder["vnc"]}", "-chardev", $"socket,id=qmp,path={folder["qmp"]},server=on,wait=off", "-mon", "chardev=qmp,mode=control",
        ])
        { RedirectStandardError = true })!;
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask DisposeAsync()
    {
        qemu.Kill();
        await qemu.WaitForExitAsync(Token);
        qemu.Dispose();
        folder.Dispose();
    }

    [Fact]
    public async Task A_guest_stands_still_unseen_until_the_last_reason_is_gone()
    {
        await using var qmp = await ConnectAsync();
        await using var door = new ScreenDoor(folder["screen"], folder["vnc"]);
        using var locked = new GuestLock(folder["locks"], words => said = words);
        await locked.AttachAsync(door);
        await locked.AttachAsync(qmp, Token);
        using var viewer = await ViewAsync();
        Assert.StartsWith("RFB 003", await HearAsync(viewer), StringComparison.Ordinal);

        await locked.LockAsync("host", "the firewall is off", Token);
        Assert.Equal("paused", await StateAsync(qmp));
        Assert.Equal("", await HearAsync(viewer));
        using var second = await ViewAsync();
        Assert.Equal("", await HearAsync(second));
        await locked.LockAsync("lease", "the lease has ended", Token);
        await locked.LockAsync("host", "the disk is not encrypted", Token);
        Assert.Equal(["the disk is not encrypted", "the lease has ended"], said);

        await locked.UnlockAsync("host", Token);
        await locked.UnlockAsync("nothing", Token);
        Assert.Equal("paused", await StateAsync(qmp));
        Assert.True(locked.IsHeld);
        await locked.UnlockAsync("lease", Token);
        Assert.Equal("running", await StateAsync(qmp));
        Assert.Empty(said);
        using var third = await ViewAsync();
        Assert.StartsWith("RFB 003", await HearAsync(third), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_player_that_goes_on_finds_the_reasons_that_the_one_before_it_had_and_a_new_machine_has_none()
    {
        await using var qmp = await ConnectAsync();
        using (var first = new GuestLock(folder["locks"], _ => { }))
        {
            await first.AttachAsync(qmp, Token);
            await first.LockAsync("host", "the firewall is off", Token);
        }

        using var second = new GuestLock(folder["locks"], words => said = words);
        second.TakeUp(isAdopted: true);
        Assert.True(second.IsHeld);
        Assert.Equal(["the firewall is off"], said);
        await using var door = new ScreenDoor(folder["screen"], folder["vnc"]);
        await second.AttachAsync(door);
        await second.AttachAsync(qmp, Token);
        using var viewer = await ViewAsync();
        Assert.Equal("", await HearAsync(viewer));
        await second.UnlockAsync("host", Token);
        Assert.Equal("running", await StateAsync(qmp));

        await second.LockAsync("host", "again", Token);
        second.Forget();
        second.TakeUp(isAdopted: true);
        Assert.False(second.IsHeld);
    }

    [Fact]
    public async Task A_guest_that_starts_is_stopped_once_it_is_up_and_a_locked_one_runs_to_shut_itself_down_unseen()
    {
        await using var qmp = await ConnectAsync();
        await using var door = new ScreenDoor(folder["screen"], folder["vnc"]);
        using var locked = new GuestLock(folder["locks"], words => said = words);
        await locked.AttachAsync(door);
        await locked.LockAsync("host", "the firewall is off", Token);
        Assert.Equal("running", await StateAsync(qmp));
        using var viewer = await ViewAsync();
        Assert.Equal("", await HearAsync(viewer));
        await locked.AttachAsync(qmp, Token);
        Assert.Equal("paused", await StateAsync(qmp));

        await locked.EndAsync(Token);
        Assert.Equal("running", await StateAsync(qmp));
        await locked.LockAsync("lease", "the lease has ended", Token);
        Assert.Equal("running", await StateAsync(qmp));
        using var second = await ViewAsync();
        Assert.Equal("", await HearAsync(second));
    }

    private static async Task<string> StateAsync(Qmp qmp) => (await qmp.ExecuteAsync("query-status", null, Token))!["status"]!.GetValue<string>();

    private static async Task<string> HearAsync(Socket viewer)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(Token);
        limit.CancelAfter(TimeSpan.FromSeconds(20));
        var buffer = new byte[100];
        try
        {
            return Encoding.ASCII.GetString(buffer, 0, await viewer.ReceiveAsync(buffer, SocketFlags.None, limit.Token));
        }
        catch (SocketException)
        {
            return "";
        }
    }

    private async Task<Socket> ViewAsync()
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(folder["screen"]), Token);
        return socket;
    }

    private async Task<Qmp> ConnectAsync()
    {
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(50, Token))
        {
            try
            {
                return await Qmp.ConnectAsync(folder["qmp"], Token);
            }
            catch (Exception exception) when (exception is SocketException or IOException && limit.Elapsed < TimeSpan.FromSeconds(30) && !qemu.HasExited)
            {
                // It starts.
            }
        }
    }
}
