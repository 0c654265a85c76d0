using System.Buffers;
using System.Buffers.Binary;
using System.Net.Sockets;
using Nacre.Volumes;

namespace Nacre.Nbd;

/// <summary>One client: a thread that receives, and answers at once what the device can answer at once.</summary>
/// <remarks>What the device answers later is sent by the thread that completes it; how much of that is under way is bounded, and beyond it
/// the connection's thread waits, so that the client is slowed down instead of the server filled up.</remarks>
internal sealed class NbdConnection(Socket socket, IReadOnlyDictionary<string, IBlockDevice> exports) : IDisposable
{
    private const int MaximumLater = 64;
    private const long MaximumLaterBytes = 64 << 20;
    private const int MaximumExtents = 1024;
    private const int MaximumTogether = 64;

    // A request to cache is read in pieces of this size, and leaves the connection's thread for those behind it after this many bytes.
    private const int FetchPiece = 256 << 10;
    private const int FetchAtOnce = NbdProtocol.MaximumPayload;

    // A handshake is a few round trips on one machine; whoever takes longer only holds a thread.
    private static readonly TimeSpan HandshakeTimeout = TimeSpan.FromSeconds(10);

    private readonly NbdStream _stream = new(socket);
    private readonly CancellationTokenSource _stopping = new();
    private readonly object _later = new();
    private readonly NbdRequest[] _requests = new NbdRequest[MaximumTogether];
    private readonly BlockWrite[] _writes = new BlockWrite[MaximumTogether];
    private int _laterCount;
    private long _laterBytes;

    /// <summary>Serves the client until it leaves. Never throws.</summary>
    public void Run()
    {
        try
        {
            _stream.ReceiveTimeout(HandshakeTimeout);
            if (new NbdHandshake(_stream, exports).Run() is { } session)
            {
                _stream.ReceiveTimeout(TimeSpan.Zero);
                Serve(session);
            }

            _stream.Flush();
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The client is gone: nothing is owed to it, and what it wrote is in the device.
        }
        finally
        {
            _stopping.Cancel();
            WaitUntilNothingIsLater();
            _stream.Dispose();
        }
    }

    /// <summary>Makes <see cref="Run"/> return soon: requests under way are cancelled, and with them the wait for there to be fewer.</summary>
    public void Stop()
    {
        _stream.Abort();
        try
        {
            _stopping.Cancel();
        }
        catch (ObjectDisposedException)
        {
            // It ended meanwhile.
        }
    }

    public void Dispose() => _stopping.Dispose();

    private void Serve(NbdSession session)
    {
        while (_stream.Receive(NbdProtocol.RequestLength))
        {
            if (!NbdRequest.TryParse(_stream.Input.Span, out var request))
            {
                return;
            }

            if (request.Command == NbdCommand.Disconnect)
            {
                // The protocol: what was asked before is done first. A client that only leaves gives it up.
                _stream.Flush();
                WaitUntilNothingIsLater();
                return;
            }

            if (request.HasPayload)
            {
                // A longer payload would have to be received to be refused.
                if (request.UntrustedLength > NbdProtocol.MaximumPayload || !_stream.Receive(NbdProtocol.RequestLength + request.Length))
                {
                    return;
                }
            }

            var payload = request.HasPayload ? _stream.Input.Slice(NbdProtocol.RequestLength, request.Length) : default;
            _stream.Take(NbdProtocol.RequestLength);
            var error = request.Validate(session.Device, session.Structured, session.AllocationContext);
            if (error == NbdError.None && session.Device is IWriteTogether device && request is { Command: NbdCommand.Write, Flags: CommandFlags.None })
            {
                _stream.Take(payload.Length);
                WriteTogether(session, device, request, payload);
                continue;
            }

            if (error != NbdError.None)
            {
                Reply(session, request, error);
            }
            else
            {
                Dispatch(session, request, payload);
            }

            _stream.Take(payload.Length);
        }
    }

    /// <summary>Runs a request that was validated; nothing is checked again from here on.</summary>
    private void Dispatch(NbdSession session, NbdRequest request, ReadOnlyMemory<byte> payload)
    {
        switch (request.Command)
        {
            case NbdCommand.Read:
                Read(session, request);
                break;
            case NbdCommand.BlockStatus:
                DescribeBlocks(session, request);
                break;
            default:
                Execute(session, request, payload);
                break;
        }
    }

    /// <summary>Makes a write, and with it those that were received whole behind it.</summary>
    private void WriteTogether(NbdSession session, IWriteTogether device, NbdRequest request, ReadOnlyMemory<byte> payload)
    {
        var count = 0;
        Add(request, payload);
        while (count < _requests.Length && _stream.Available >= NbdProtocol.RequestLength
            && NbdRequest.TryParse(_stream.Input.Span, out var next) && next is { Command: NbdCommand.Write, Flags: CommandFlags.None }
            && next.UntrustedLength <= _stream.Available - NbdProtocol.RequestLength
            && next.Validate(session.Device, session.Structured, session.AllocationContext) == NbdError.None)
        {
            Add(next, _stream.Input.Slice(NbdProtocol.RequestLength, next.Length));
            _stream.Take(NbdProtocol.RequestLength + next.Length);
        }

        try
        {
            device.WriteTogether(_writes.AsSpan(0, count));
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            // Each anew, so that only those fail that can't be made: a write over part of a damaged block must not fail its neighbours.
            for (var i = 0; i < count; i++)
            {
                Execute(session, _requests[i], _writes[i].Source);
            }

            return;
        }

        foreach (var answered in _requests.AsSpan(0, count))
        {
            Reply(session, answered, NbdError.None);
        }

        void Add(NbdRequest added, ReadOnlyMemory<byte> bytes)
        {
            _requests[count] = added;
            _writes[count++] = new BlockWrite(added.Offset, bytes);
        }
    }

    private void Read(NbdSession session, NbdRequest request)
    {
        var head = session.Structured ? NbdProtocol.ChunkLength + 8 : NbdProtocol.SimpleReplyLength;
        var reply = _stream.Reserve(head + request.Length);
        FormatReadHead(session, request, reply.Span);
        ValueTask read;
        try
        {
            read = session.Device.ReadAsync(request.Offset, reply[head..], _stopping.Token);
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            read = ValueTask.FromException(e);
        }

        if (read.IsCompletedSuccessfully)
        {
            _stream.Append(reply.Length);
        }
        else if (read.IsCompleted)
        {
            Reply(session, request, ErrorOf(read.AsTask()));
        }
        else
        {
            _stream.DetachOutput();
            BeginLater(reply.Length);
            _ = FinishLaterAsync(session, request, read.AsTask(), reply, reply.Length);
        }
    }

    /// <summary>Runs a request whose answer holds nothing but its success.</summary>
    private void Execute(NbdSession session, NbdRequest request, ReadOnlyMemory<byte> payload)
    {
        ValueTask operation;
        try
        {
            operation = ExecuteAsync(session.Device, request, payload);
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            operation = ValueTask.FromException(e);
        }

        if (operation.IsCompleted)
        {
            Reply(session, request, operation.IsCompletedSuccessfully ? NbdError.None : ErrorOf(operation.AsTask()));
            return;
        }

        if (!payload.IsEmpty)
        {
            _stream.DetachInput();
        }

        var held = request.Command == NbdCommand.Cache ? FetchPiece : payload.Length;
        BeginLater(held);
        _ = FinishLaterAsync(session, request, operation.AsTask(), default, held);
    }

    private ValueTask ExecuteAsync(IBlockDevice device, NbdRequest request, ReadOnlyMemory<byte> payload)
    {
        var durable = request.Has(CommandFlags.ForceUnitAccess);
        return request.Command switch
        {
            NbdCommand.Write => device.WriteAsync(request.Offset, payload, durable, _stopping.Token),
            NbdCommand.WriteZeroes => device.WriteZeroesAsync(
                request.Offset, request.UntrustedLength, request.Has(CommandFlags.NoHole), durable, _stopping.Token),
            NbdCommand.Trim => TrimAsync(device, request, durable),
            NbdCommand.Cache => FetchAsync(device, request),
            _ => device.FlushAsync(_stopping.Token),
        };
    }

    private async ValueTask TrimAsync(IBlockDevice device, NbdRequest request, bool durable)
    {
        await device.TrimAsync(request.Offset, request.UntrustedLength, _stopping.Token).ConfigureAwait(false);
        if (durable)
        {
            await device.FlushAsync(_stopping.Token).ConfigureAwait(false);
        }
    }

    /// <summary>Reads the range and throws it away: what has to be fetched is here then, and what is damaged is told.</summary>
    private async ValueTask FetchAsync(IBlockDevice device, NbdRequest request)
    {
        var discarded = ArrayPool<byte>.Shared.Rent(FetchPiece);
        try
        {
            for (long done = 0, length = request.UntrustedLength; done < length;)
            {
                var part = (int)Math.Min(FetchPiece, length - done);
                await device.ReadAsync(request.Offset + done, discarded.AsMemory(0, part), _stopping.Token).ConfigureAwait(false);
                done += part;
                if (done % FetchAtOnce == 0 && done < length)
                {
                    await Task.Yield();
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(discarded);
        }
    }

    private void DescribeBlocks(NbdSession session, NbdRequest request)
    {
        const uint HoleThatReadsAsZeroes = 3;
        Span<BlockExtent> extents = stackalloc BlockExtent[request.Has(CommandFlags.RequestOne) ? 1 : MaximumExtents];
        int count;
        try
        {
            count = session.Device.DescribeExtents(request.Offset, request.UntrustedLength, extents);
        }
        catch (VolumeException e)
        {
            Reply(session, request, NbdRequest.ErrorOf(e.Kind));
            return;
        }

        var length = 4 + (8 * count);
        var reply = _stream.Reserve(NbdProtocol.ChunkLength + length).Span;
        FormatChunk(reply, ChunkType.BlockStatus, request.Cookie, length);
        BinaryPrimitives.WriteUInt32BigEndian(reply[NbdProtocol.ChunkLength..], NbdProtocol.AllocationContextId);
        for (var i = 0; i < count; i++)
        {
            var extent = reply[(NbdProtocol.ChunkLength + 4 + (8 * i))..];
            BinaryPrimitives.WriteUInt32BigEndian(extent, (uint)extents[i].Length);
            BinaryPrimitives.WriteUInt32BigEndian(extent[4..], extents[i].IsHole ? HoleThatReadsAsZeroes : 0);
        }

        _stream.Append(reply.Length);
    }

    // A device has one kind of exception; another one is a bug there, which must not end the other requests.
    private static NbdError ErrorOf(Task failed) => ErrorOf(failed.Exception?.GetBaseException());

    private static NbdError ErrorOf(Exception? cause) => cause is VolumeException e ? NbdRequest.ErrorOf(e.Kind) : NbdError.InputOutput;

    private async Task FinishLaterAsync(NbdSession session, NbdRequest request, Task operation, Memory<byte> reply, int heldBytes)
    {
        try
        {
            await operation.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            if (operation.IsCompletedSuccessfully && !reply.IsEmpty)
            {
                _stream.SendNow(reply.Span);
            }
            else
            {
                SendReply(session, request, operation.IsCompletedSuccessfully ? NbdError.None : ErrorOf(operation));
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The client is gone, or takes nothing any more.
            _stream.Abort();
        }
        finally
        {
            EndLater(heldBytes);
        }
    }

    private void SendReply(NbdSession session, NbdRequest request, NbdError error)
    {
        Span<byte> reply = stackalloc byte[NbdProtocol.ChunkLength + 6];
        _stream.SendNow(reply[..FormatReply(session, request, error, reply)]);
    }

    private void Reply(NbdSession session, NbdRequest request, NbdError error)
    {
        var reply = _stream.Reserve(NbdProtocol.ChunkLength + 6).Span;
        _stream.Append(FormatReply(session, request, error, reply));
    }

    private static int FormatReply(NbdSession session, NbdRequest request, NbdError error, Span<byte> reply)
    {
        if (session.Structured && error != NbdError.None && request.Command is NbdCommand.Read or NbdCommand.BlockStatus)
        {
            FormatChunk(reply, ChunkType.Error, request.Cookie, 6);
            BinaryPrimitives.WriteUInt32BigEndian(reply[NbdProtocol.ChunkLength..], (uint)error);
            BinaryPrimitives.WriteUInt16BigEndian(reply[(NbdProtocol.ChunkLength + 4)..], 0);
            return NbdProtocol.ChunkLength + 6;
        }

        FormatSimple(reply, request.Cookie, error);
        return NbdProtocol.SimpleReplyLength;
    }

    private static void FormatReadHead(NbdSession session, NbdRequest request, Span<byte> reply)
    {
        if (session.Structured)
        {
            FormatChunk(reply, ChunkType.OffsetData, request.Cookie, 8 + request.Length);
            BinaryPrimitives.WriteUInt64BigEndian(reply[NbdProtocol.ChunkLength..], request.UntrustedOffset);
        }
        else
        {
            FormatSimple(reply, request.Cookie, NbdError.None);
        }
    }

    private static void FormatSimple(Span<byte> reply, ulong cookie, NbdError error)
    {
        BinaryPrimitives.WriteUInt32BigEndian(reply, NbdProtocol.SimpleReplyMagic);
        BinaryPrimitives.WriteUInt32BigEndian(reply[4..], (uint)error);
        BinaryPrimitives.WriteUInt64BigEndian(reply[8..], cookie);
    }

    private static void FormatChunk(Span<byte> reply, ChunkType type, ulong cookie, int length)
    {
        const ushort Done = 1;
        BinaryPrimitives.WriteUInt32BigEndian(reply, NbdProtocol.ChunkMagic);
        BinaryPrimitives.WriteUInt16BigEndian(reply[4..], Done);
        BinaryPrimitives.WriteUInt16BigEndian(reply[6..], (ushort)type);
        BinaryPrimitives.WriteUInt64BigEndian(reply[8..], cookie);
        BinaryPrimitives.WriteInt32BigEndian(reply[16..], length);
    }

    private void BeginLater(int bytes)
    {
        lock (_later)
        {
            _laterCount++;
            _laterBytes += bytes;

            // One request more than the bound is under way at most: this one.
            while (_laterCount > MaximumLater || (_laterBytes > MaximumLaterBytes && _laterCount > 1))
            {
                Monitor.Wait(_later);
            }
        }
    }

    private void EndLater(int bytes)
    {
        lock (_later)
        {
            _laterCount--;
            _laterBytes -= bytes;
            Monitor.PulseAll(_later);
        }
    }

    private void WaitUntilNothingIsLater()
    {
        lock (_later)
        {
            while (_laterCount > 0)
            {
                Monitor.Wait(_later);
            }
        }
    }
}
