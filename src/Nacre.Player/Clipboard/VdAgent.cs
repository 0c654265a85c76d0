using System.Buffers.Binary;

namespace Nacre.Player.Clipboard;

/// <summary>A message of SPICE's agent (spice-protocol, vd_agent.h).</summary>
/// <param name="Type">One of <see cref="VdAgent"/>'s; others are nothing to us.</param>
/// <param name="Data">Its content; empty where it is longer than is taken.</param>
/// <param name="IsTooLong">Whether it was.</param>
internal readonly record struct AgentMessage(uint Type, byte[] Data, bool IsTooLong);

/// <summary>SPICE's agent protocol, as far as it is about the clipboard: numbers are little endian.</summary>
internal static class VdAgent
{
    public const uint Clipboard = 4, AnnounceCapabilities = 6, Grab = 7, Request = 8, Release = 9;

    /// <summary>Types of content.</summary>
    public const uint Nothing = 0, Utf8 = 1;

    /// <summary>Capabilities: the clipboard is fetched when it is wanted, and messages say which selection they are about.</summary>
    public const int ByDemand = 5, Selection = 6;

    /// <summary>Bytes of a chunk's header (port, size), and of a message's (protocol, type, opaque, size).</summary>
    public const int ChunkHeader = 8, MessageHeader = 20;

    /// <summary>Where messages between the guest's agent and a client are; the other port is the SPICE server's, which there is not.</summary>
    public const uint ClientPort = 1, ServerPort = 2;

    /// <summary>Bytes of a chunk that an agent takes.</summary>
    private const int LargestChunk = 2048;

    private const uint Protocol = 1;

    /// <summary>A message as it goes to the guest.</summary>
    public static byte[] Encode(uint type, ReadOnlySpan<byte> data)
    {
        var message = new byte[MessageHeader + data.Length];
        BinaryPrimitives.WriteUInt32LittleEndian(message, Protocol);
        BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(4), type);
        BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(16), (uint)data.Length);
        data.CopyTo(message.AsSpan(MessageHeader));
        using var encoded = new MemoryStream();
        var header = new byte[ChunkHeader];
        foreach (var chunk in message.Chunk(LargestChunk))
        {
            BinaryPrimitives.WriteUInt32LittleEndian(header, ClientPort);
            BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(4), (uint)chunk.Length);
            encoded.Write(header);
            encoded.Write(chunk);
        }

        return encoded.ToArray();
    }

    /// <summary>Numbers in a row.</summary>
    public static byte[] Numbers(params ReadOnlySpan<uint> numbers)
    {
        var bytes = new byte[4 * numbers.Length];
        for (var i = 0; i < numbers.Length; i++)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(4 * i), numbers[i]);
        }

        return bytes;
    }

    internal static bool IsProtocol(uint untrusted) => untrusted == Protocol;
}

/// <summary>Reads what the guest's agent says, in whatever pieces it comes. The guest is not trusted: what is longer than is taken is counted and not kept.</summary>
/// <param name="longest">Bytes of a message that are taken.</param>
internal sealed class AgentParser(int longest)
{
    private readonly byte[] chunkHeader = new byte[VdAgent.ChunkHeader];
    private readonly byte[] messageHeader = new byte[VdAgent.MessageHeader];
    private readonly List<byte> body = [];
    private int chunkHeaderBytes, messageHeaderBytes;
    private uint port, chunkLeft, messageLeft;

    /// <summary>Takes bytes.</summary>
    /// <param name="untrusted">What the guest sent.</param>
    /// <param name="deliver">Told each message.</param>
    /// <exception cref="InvalidDataException">It is not the protocol: nothing after it can be understood.</exception>
    public void Feed(ReadOnlySpan<byte> untrusted, Action<AgentMessage> deliver)
    {
        while (!untrusted.IsEmpty)
        {
            if (chunkLeft == 0)
            {
                Fill(chunkHeader, ref chunkHeaderBytes, ref untrusted);
                if (chunkHeaderBytes < chunkHeader.Length)
                {
                    return;
                }

                chunkHeaderBytes = 0;
                port = BinaryPrimitives.ReadUInt32LittleEndian(chunkHeader);
                chunkLeft = BinaryPrimitives.ReadUInt32LittleEndian(chunkHeader.AsSpan(4));
                if (port is not (VdAgent.ClientPort or VdAgent.ServerPort))
                {
                    throw new InvalidDataException("the guest's clipboard agent sent a chunk for no port");
                }

                continue;
            }

            var piece = untrusted[..(int)Math.Min(chunkLeft, (uint)untrusted.Length)];
            untrusted = untrusted[piece.Length..];
            chunkLeft -= (uint)piece.Length;
            if (port == VdAgent.ClientPort)
            {
                Take(piece, deliver);
            }
        }
    }

    private static void Fill(byte[] header, ref int has, ref ReadOnlySpan<byte> bytes)
    {
        var count = Math.Min(header.Length - has, bytes.Length);
        bytes[..count].CopyTo(header.AsSpan(has));
        has += count;
        bytes = bytes[count..];
    }

    private void Take(ReadOnlySpan<byte> bytes, Action<AgentMessage> deliver)
    {
        while (!bytes.IsEmpty)
        {
            if (messageHeaderBytes < messageHeader.Length)
            {
                Fill(messageHeader, ref messageHeaderBytes, ref bytes);
                if (messageHeaderBytes < messageHeader.Length)
                {
                    return;
                }

                if (!VdAgent.IsProtocol(BinaryPrimitives.ReadUInt32LittleEndian(messageHeader)))
                {
                    throw new InvalidDataException("the guest's clipboard agent speaks another protocol");
                }

                messageLeft = Size;
            }

            var piece = bytes[..(int)Math.Min(messageLeft, (uint)bytes.Length)];
            bytes = bytes[piece.Length..];
            messageLeft -= (uint)piece.Length;
            if (Size <= longest)
            {
                body.AddRange(piece);
            }

            if (messageLeft == 0)
            {
                deliver(new AgentMessage(BinaryPrimitives.ReadUInt32LittleEndian(messageHeader.AsSpan(4)), [.. body], Size > longest));
                body.Clear();
                messageHeaderBytes = 0;
            }
        }
    }

    private uint Size => BinaryPrimitives.ReadUInt32LittleEndian(messageHeader.AsSpan(16));
}
