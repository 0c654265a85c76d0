using System.Net.Sockets;

namespace Nacre.Player.Machines;

/// <summary>The socket at which viewers find the guest's screen: connections go on to QEMU's own while the door is open. A closed one ends them, and those that come.</summary>
internal sealed class ScreenDoor : IAsyncDisposable
{
    /// <summary>Viewers at a time; more are sent away, so that nobody uses the player's descriptors up.</summary>
    private const int MostViewers = 16;

    private readonly Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly CancellationTokenSource closing = new();
    private readonly HashSet<Socket> viewers = [];
    private readonly Lock gate = new();
    private readonly Action? used;
    private readonly string path;
    private readonly string machine;
    private readonly Task accepting;
    private bool isOpen = true;

    /// <param name="path">Where viewers connect.</param>
    /// <param name="machine">QEMU's socket.</param>
    /// <param name="used">Told when somebody types or points.</param>
    public ScreenDoor(string path, string machine, Action? used = null)
    {
        this.used = used;
        this.path = path;
        this.machine = machine;
        File.Delete(path);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen(4);
        accepting = AcceptAsync();
    }

    /// <summary>Opens or closes it.</summary>
    public void Set(bool open)
    {
        lock (gate)
        {
            isOpen = open;
            if (!open)
            {
                foreach (var viewer in viewers)
                {
                    Shut(viewer);
                }
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await closing.CancelAsync().ConfigureAwait(false);
        listener.Dispose();
        Set(open: false);
        await accepting.ConfigureAwait(false);
        File.Delete(path);
        closing.Dispose();
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                _ = ServeAsync(await listener.AcceptAsync(closing.Token).ConfigureAwait(false));
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // Closing.
        }
    }

    private async Task ServeAsync(Socket viewer)
    {
        using var other = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            lock (gate)
            {
                if (!isOpen || viewers.Count >= MostViewers)
                {
                    return;
                }

                viewers.Add(viewer);
            }

            await other.ConnectAsync(new UnixDomainSocketEndPoint(machine)).ConfigureAwait(false);
            using NetworkStream here = new(viewer), there = new(other);
            var (down, up) = (there.CopyToAsync(here), PassInputAsync(here, there));
            await Task.WhenAny(down, up).ConfigureAwait(false);

            // Whoever ends it ends it for both.
            Shut(viewer);
            Shut(other);
            await Task.WhenAll(down, up).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        catch (Exception exception) when (exception is SocketException or IOException or ObjectDisposedException)
        {
            // QEMU has ended, or the viewer has.
        }
        finally
        {
            lock (gate)
            {
                viewers.Remove(viewer);
            }

            viewer.Dispose();
        }
    }

    private async Task PassInputAsync(NetworkStream viewer, NetworkStream qemu)
    {
        var input = new ScreenInput();
        var buffer = new byte[16 * 1024];
        while (await viewer.ReadAsync(buffer).ConfigureAwait(false) is > 0 and var read)
        {
            if (input.Take(buffer.AsSpan(0, read)))
            {
                used?.Invoke();
            }

            await qemu.WriteAsync(buffer.AsMemory(0, read)).ConfigureAwait(false);
        }
    }

    private static void Shut(Socket socket)
    {
        try
        {
            socket.Shutdown(SocketShutdown.Both);
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
        {
            // It is shut.
        }
    }
}
