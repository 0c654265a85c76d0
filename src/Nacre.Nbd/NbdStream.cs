using System.Net.Sockets;

namespace Nacre.Nbd;

/// <summary>A connection's bytes: blocking receive into a buffer that grows to one request at most, and batched sends.</summary>
/// <remarks>Receiving and appending belong to the connection's thread; <see cref="SendNow"/> may be called by any thread.</remarks>
internal sealed class NbdStream(Socket socket) : IDisposable
{
    private const int InitialCapacity = 512 << 10;

    // Small, since a device that answers later makes many of them; a larger request still gets what it needs.
    private const int AfterDetaching = 16 << 10;
    private const int BatchLimit = 256 << 10;

    // Received at once beyond what is waited for: many small requests, and little of a large one that would have to be moved.
    private const int ReceiveAhead = 128 << 10;

    private readonly Lock _sending = new();
    private byte[] _input = NewBuffer(InitialCapacity);
    private byte[] _output = NewBuffer(InitialCapacity);
    private int _start;
    private int _end;

    /// <summary>Bytes received and not yet taken.</summary>
    public int Available => _end - _start;

    /// <summary>Bytes appended and not yet sent.</summary>
    public int Pending { get; private set; }

    /// <summary>The received bytes, from the first not yet taken.</summary>
    public Memory<byte> Input => _input.AsMemory(_start, Available);

    /// <summary>Receives until <paramref name="count"/> bytes are available, sending what is pending before it waits; false at the end.</summary>
    public bool Receive(int count)
    {
        if (Available >= count)
        {
            return true;
        }

        Flush();
        if (_start + count > _input.Length)
        {
            var target = count > _input.Length ? NewBuffer(count) : _input;
            _input.AsSpan(_start, Available).CopyTo(target);
            (_input, _start, _end) = (target, 0, Available);
        }

        while (Available < count)
        {
            var received = socket.Receive(_input.AsSpan(_end, Math.Min(_input.Length - _end, Math.Max(count - Available, ReceiveAhead))));
            if (received == 0)
            {
                return false;
            }

            _end += received;
        }

        return true;
    }

    /// <summary>Takes bytes that were received.</summary>
    public void Take(int count)
    {
        _start += count;
        if (_start == _end)
        {
            (_start, _end) = (0, 0);
        }
    }

    /// <summary>Leaves the input buffer to an operation that still reads from it, and goes on with another.</summary>
    public void DetachInput()
    {
        var rest = NewBuffer(Math.Max(AfterDetaching, Available));
        Input.Span.CopyTo(rest);
        (_input, _start, _end) = (rest, 0, Available);
    }

    /// <summary>Room for <paramref name="count"/> bytes at the end of what is pending; they count after <see cref="Append"/>.</summary>
    public Memory<byte> Reserve(int count)
    {
        if (Pending + count > _output.Length)
        {
            Flush();
            _output = count > _output.Length ? NewBuffer(count) : _output;
        }

        return _output.AsMemory(Pending, count);
    }

    /// <summary>Makes reserved bytes part of what is pending.</summary>
    public void Append(int count)
    {
        Pending += count;
        if (Pending >= BatchLimit)
        {
            Flush();
        }
    }

    /// <summary>Leaves the output buffer, with the room reserved last, to an operation that still writes to it.</summary>
    public void DetachOutput()
    {
        Flush();
        _output = NewBuffer(AfterDetaching);
    }

    public void Flush()
    {
        if (Pending > 0)
        {
            var count = Pending;
            Pending = 0;
            SendNow(_output.AsSpan(0, count));
        }
    }

    /// <summary>Sends a whole reply; replies of several threads do not mix.</summary>
    public void SendNow(ReadOnlySpan<byte> bytes)
    {
        lock (_sending)
        {
            while (!bytes.IsEmpty)
            {
                bytes = bytes[socket.Send(bytes)..];
            }
        }
    }

    public void ReceiveTimeout(TimeSpan timeout) => socket.ReceiveTimeout = (int)timeout.TotalMilliseconds;

    /// <summary>Ends both directions, which wakes a thread that waits in them.</summary>
    public void Abort()
    {
        try
        {
            socket.Shutdown(SocketShutdown.Both);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The peer was faster.
        }
    }

    public void Dispose() => socket.Dispose();

    private static byte[] NewBuffer(int length) => GC.AllocateUninitializedArray<byte>(length, pinned: true);
}
