using System.Collections.Concurrent;
using System.Net.Sockets;
using Nacre.Volumes;

namespace Nacre.Nbd;

/// <summary>Serves block devices over the NBD protocol on a unix socket that only this user can connect to (mode 0600).</summary>
/// <remarks>
/// <para>Each connection has a thread; requests that the device completes synchronously are answered by it, the others when they complete,
/// without holding up what follows them. A flush of any connection covers the answered writes of all (multi-conn).</para>
/// <para>The devices stay their owner's: the server never disposes them. All members may be called from any thread.</para>
/// <para>A client that breaks the protocol is disconnected; it can make the server hold at most about 200 MiB, for as long as it is
/// connected.</para>
/// </remarks>
public sealed class NbdServer : IAsyncDisposable
{
    // Far more than one guest's disks need; each holds a thread and its buffers.
    private const int MaximumConnections = 64;

    // A client that takes no reply for this long is stuck; it must not hold the threads that answer it.
    private const int SendTimeoutMilliseconds = 60_000;

    private readonly Lock _gate = new();
    private readonly ManualResetEventSlim _stopped = new();
    private readonly Dictionary<NbdConnection, Task> _connections = [];
    private readonly Socket _listener;
    private readonly string _socketPath;
    private readonly ConcurrentDictionary<string, IBlockDevice> _exports;
    private readonly Task _accepting;
    private bool _stopping;

    private NbdServer(Socket listener, string socketPath, ConcurrentDictionary<string, IBlockDevice> exports)
    {
        _listener = listener;
        _socketPath = socketPath;
        _exports = exports;
        _accepting = StartThread("nbd accept", Accept);
    }

    /// <summary>How many clients are connected.</summary>
    public int Connections
    {
        get
        {
            lock (_gate)
            {
                return _connections.Count;
            }
        }
    }

    /// <summary>Starts to serve; the socket takes connections on return. A socket that somebody left behind at the path is replaced.</summary>
    /// <param name="socketPath">Where to put the socket; at most 107 bytes. Its folder should be private to the user.</param>
    /// <param name="exports">The devices by export name, copied. With a single one, clients may also ask for the empty name.</param>
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.Io"/>: the socket cannot be made, or the path is somebody else's.</exception>
    public static NbdServer Start(string socketPath, IReadOnlyDictionary<string, IBlockDevice> exports)
    {
        ArgumentNullException.ThrowIfNull(socketPath);
        ArgumentNullException.ThrowIfNull(exports);
        if (OperatingSystem.IsWindows())
        {
            throw new PlatformNotSupportedException("the server needs Linux");
        }

        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            RequireFree(socketPath);
            File.Delete(socketPath);
            listener.Bind(new UnixDomainSocketEndPoint(socketPath));

            // Before it listens nobody can connect, so the mode is never too wide.
            File.SetUnixFileMode(socketPath, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            listener.Listen(MaximumConnections);
            return new NbdServer(listener, socketPath, new ConcurrentDictionary<string, IBlockDevice>(exports, StringComparer.Ordinal));
        }
        catch (Exception e) when (e is SocketException or IOException or UnauthorizedAccessException or ArgumentException)
        {
            listener.Dispose();
            throw new VolumeException(VolumeErrorKind.Io, $"the NBD socket cannot be made: {e.Message.TrimEnd('.')}", e);
        }
        catch (VolumeException)
        {
            listener.Dispose();
            throw;
        }
    }

    /// <summary>Serves one more device from here on.</summary>
    /// <param name="name">Its export name.</param>
    /// <param name="device">The device; stays its owner's.</param>
    /// <exception cref="ArgumentException">There is an export of that name.</exception>
    public void AddExport(string name, IBlockDevice device)
    {
        if (!_exports.TryAdd(name, device))
        {
            throw new ArgumentException($"there is an export named {name} already", nameof(name));
        }
    }

    /// <summary>Takes an export away: nobody connects to it any more. A client that is connected keeps the device until it leaves.</summary>
    public void RemoveExport(string name) => _exports.TryRemove(name, out _);

    /// <summary>Closes the socket and all connections, and returns when no request is under way any more. Flushes nothing.</summary>
    public async ValueTask DisposeAsync()
    {
        Task[] running;
        lock (_gate)
        {
            if (_stopping)
            {
                return;
            }

            _stopping = true;
            foreach (var connection in _connections.Keys)
            {
                connection.Stop();
            }

            running = [.. _connections.Values];
        }

        _stopped.Set();
        _listener.Dispose();
        await _accepting.ConfigureAwait(false);
        await Task.WhenAll(running).ConfigureAwait(false);
        File.Delete(_socketPath);
        _stopped.Dispose();
    }

    /// <summary>Fails where the path is a file with content, or a socket on which somebody listens: neither is a left-over.</summary>
    private static void RequireFree(string socketPath)
    {
        var file = new FileInfo(socketPath);
        if (!file.Exists)
        {
            return;
        }

        if (file.Length > 0)
        {
            throw new VolumeException(VolumeErrorKind.Io, "a file that is no socket has the NBD socket's name");
        }

        // Without waiting: a listener that accepts nothing is somebody too.
        using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { Blocking = false };
        try
        {
            probe.Connect(new UnixDomainSocketEndPoint(socketPath));
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionRefused)
        {
            return;
        }
        catch (SocketException)
        {
            // Its queue is full, or it is not ours to ask.
        }

        throw new VolumeException(VolumeErrorKind.Io, "somebody serves on the NBD socket of that name already");
    }

    private static Task StartThread(string name, Action run)
    {
        var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var thread = new Thread(() =>
        {
            try
            {
                run();
                ended.SetResult();
            }
            catch (Exception e)
            {
                ended.SetException(e);
            }
        })
        { IsBackground = true, Name = name };
        thread.Start();
        return ended.Task;
    }

    private void Accept()
    {
        while (true)
        {
            Socket socket;
            try
            {
                socket = _listener.Accept();
                socket.SendTimeout = SendTimeoutMilliseconds;
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // Out of descriptors, perhaps: the connection waits in the queue meanwhile.
                if (_stopped.Wait(TimeSpan.FromMilliseconds(50)))
                {
                    return;
                }

                continue;
            }

            Take(socket);
        }
    }

    private void Take(Socket socket)
    {
        lock (_gate)
        {
            if (_stopping || _connections.Count >= MaximumConnections)
            {
                socket.Dispose();
                return;
            }

            var connection = new NbdConnection(socket, _exports);
            _connections.Add(connection, StartThread("nbd connection", () =>
            {
                connection.Run();
                lock (_gate)
                {
                    _connections.Remove(connection);
                }

                connection.Dispose();
            }));
        }
    }
}
