using System.Buffers.Binary;
using System.Net.Sockets;

namespace Nacre.Nbd.Tests;

/// <summary>A client that sends whatever bytes it is told to.</summary>
internal sealed class RawClient : IDisposable
{
    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 20_000, SendTimeout = 20_000 };

    public RawClient(string path, bool greet = true)
    {
        _socket.Connect(new UnixDomainSocketEndPoint(path));
        if (greet)
        {
            Receive(18);
            Send([0, 0, 0, 3]);
        }
    }

    public static byte[] U32(uint value)
    {
        var bytes = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        return bytes;
    }

    public static byte[] Request(NbdCommand command, ulong cookie, ulong offset, uint length, ushort flags = 0, uint magic = NbdProtocol.RequestMagic)
    {
        var bytes = new byte[28];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, magic);
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(4), flags);
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(6), (ushort)command);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(8), cookie);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(16), offset);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(24), length);
        return bytes;
    }

    public void Send(params byte[][] parts)
    {
        foreach (var part in parts)
        {
            for (var rest = part.AsSpan(); !rest.IsEmpty;)
            {
                rest = rest[_socket.Send(rest)..];
            }
        }
    }

    public byte[] Receive(int count)
    {
        var bytes = new byte[count];
        for (var done = 0; done < count;)
        {
            var received = _socket.Receive(bytes.AsSpan(done));
            done += received > 0 ? received : throw new EndOfStreamException();
        }

        return bytes;
    }

    /// <summary>Whether the server closes the connection, whatever it sends before.</summary>
    public bool IsClosedByServer()
    {
        try
        {
            var bytes = new byte[65536];
            while (_socket.Receive(bytes) > 0)
            {
            }

            return true;
        }
        catch (SocketException e) when (e.SocketErrorCode is SocketError.ConnectionReset or SocketError.Shutdown)
        {
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    public (uint Type, byte[] Data) Option(uint option, params byte[] data)
    {
        SendOption(option, (uint)data.Length, data);
        return OptionReply();
    }

    public void SendOption(uint option, uint length, byte[] data) => Send("IHAVEOPT"u8.ToArray(), U32(option), U32(length), data);

    public (uint Type, byte[] Data) OptionReply()
    {
        var head = Receive(20);
        return (BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(12)), Receive(BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(16))));
    }

    /// <summary>Goes over to transmission with EXPORT_NAME; returns size and flags.</summary>
    public byte[] Enter(string name = "")
    {
        var bytes = System.Text.Encoding.UTF8.GetBytes(name);
        SendOption(1, (uint)bytes.Length, bytes);
        return Receive(10);
    }

    public (uint Error, ulong Cookie) SimpleReply()
    {
        var reply = Receive(16);
        return (BinaryPrimitives.ReadUInt32BigEndian(reply.AsSpan(4)), BinaryPrimitives.ReadUInt64BigEndian(reply.AsSpan(8)));
    }

    public void HalfClose() => _socket.Shutdown(SocketShutdown.Send);

    public void Dispose() => _socket.Dispose();
}
