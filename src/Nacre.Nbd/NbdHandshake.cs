using System.Buffers.Binary;
using System.Text;
using Nacre.Volumes;

namespace Nacre.Nbd;

/// <summary>What the two sides agreed on.</summary>
internal sealed record NbdSession(IBlockDevice Device, bool Structured, bool AllocationContext);

/// <summary>The fixed newstyle handshake: options until the client goes over to transmission or leaves.</summary>
internal sealed class NbdHandshake(NbdStream stream, IReadOnlyDictionary<string, IBlockDevice> exports)
{
    private static readonly UTF8Encoding StrictUtf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private bool _noZeroes;
    private bool _structured;
    private string? _contextExport;

    /// <summary>Runs the handshake; null if the client left, or did what ends a connection.</summary>
    public NbdSession? Run()
    {
        var greeting = stream.Reserve(18).Span;
        BinaryPrimitives.WriteUInt64BigEndian(greeting, NbdProtocol.InitMagic);
        BinaryPrimitives.WriteUInt64BigEndian(greeting[8..], NbdProtocol.OptionMagic);
        BinaryPrimitives.WriteUInt16BigEndian(greeting[16..], HandshakeFlags.FixedNewstyle | HandshakeFlags.NoZeroes);
        stream.Append(18);
        if (!stream.Receive(4))
        {
            return null;
        }

        var clientFlags = BinaryPrimitives.ReadUInt32BigEndian(stream.Input.Span);
        stream.Take(4);
        if ((clientFlags & HandshakeFlags.FixedNewstyle) == 0 || clientFlags > (HandshakeFlags.FixedNewstyle | HandshakeFlags.NoZeroes))
        {
            return null;
        }

        _noZeroes = (clientFlags & HandshakeFlags.NoZeroes) != 0;
        for (var i = 0; i < NbdProtocol.MaximumOptions; i++)
        {
            if (!stream.Receive(NbdProtocol.OptionLength))
            {
                return null;
            }

            var untrustedHeader = stream.Input.Span;
            var option = (NbdOption)BinaryPrimitives.ReadUInt32BigEndian(untrustedHeader[8..]);
            var length = BinaryPrimitives.ReadUInt32BigEndian(untrustedHeader[12..]);
            if (BinaryPrimitives.ReadUInt64BigEndian(untrustedHeader) != NbdProtocol.OptionMagic || length > NbdProtocol.MaximumOptionData
                || !stream.Receive(NbdProtocol.OptionLength + (int)length))
            {
                return null;
            }

            var untrustedData = stream.Input.Slice(NbdProtocol.OptionLength, (int)length).ToArray();
            stream.Take(NbdProtocol.OptionLength + (int)length);
            if (Answer(option, untrustedData, out var session))
            {
                return session;
            }
        }

        return null;
    }

    /// <summary>Answers one option; true when the handshake is over, with a session if it succeeded.</summary>
    private bool Answer(NbdOption option, ReadOnlySpan<byte> data, out NbdSession? session)
    {
        session = null;
        switch (option)
        {
            case NbdOption.ExportName:
                session = AnswerExportName(data);
                return true;
            case NbdOption.Abort:
                Reply(option, OptionReply.Acknowledge, []);
                stream.Flush();
                return true;
            case NbdOption.List:
                AnswerList(data);
                return false;
            case NbdOption.Info or NbdOption.Go:
                session = AnswerInfo(option, data);
                return session is not null;
            case NbdOption.StructuredReply:
                _structured |= data.IsEmpty;
                Reply(option, data.IsEmpty ? OptionReply.Acknowledge : OptionReply.Invalid, []);
                return false;
            case NbdOption.ListMetaContext or NbdOption.SetMetaContext:
                AnswerMetaContext(option, data);
                return false;
            default:
                Reply(option, OptionReply.Unsupported, []);
                return false;
        }
    }

    private NbdSession? AnswerExportName(ReadOnlySpan<byte> data)
    {
        if (!TryFind(data, out _, out var device))
        {
            return null;
        }

        var length = _noZeroes ? 10 : 134;
        var reply = stream.Reserve(length).Span;
        reply.Clear();
        BinaryPrimitives.WriteInt64BigEndian(reply, device.Size);
        BinaryPrimitives.WriteUInt16BigEndian(reply[8..], (ushort)FlagsOf(device));
        stream.Append(length);
        return new NbdSession(device, _structured, HasContext(device));
    }

    private void AnswerList(ReadOnlySpan<byte> data)
    {
        if (!data.IsEmpty)
        {
            Reply(NbdOption.List, OptionReply.Invalid, []);
            return;
        }

        foreach (var name in exports.Keys)
        {
            var bytes = new byte[4 + Encoding.UTF8.GetByteCount(name)];
            BinaryPrimitives.WriteInt32BigEndian(bytes, bytes.Length - 4);
            Encoding.UTF8.GetBytes(name, bytes.AsSpan(4));
            Reply(NbdOption.List, OptionReply.Server, bytes);
        }

        Reply(NbdOption.List, OptionReply.Acknowledge, []);
    }

    private NbdSession? AnswerInfo(NbdOption option, ReadOnlySpan<byte> data)
    {
        var rest = data;
        if (!TryTakeString(ref rest, out var name) || rest.Length < 2 || rest.Length != 2 + (2 * BinaryPrimitives.ReadUInt16BigEndian(rest)))
        {
            Reply(option, OptionReply.Invalid, []);
            return null;
        }

        if (!TryFind(name, out _, out var device))
        {
            Reply(option, OptionReply.Unknown, []);
            return null;
        }

        Span<byte> export = stackalloc byte[12];
        BinaryPrimitives.WriteUInt16BigEndian(export, (ushort)NbdInfo.Export);
        BinaryPrimitives.WriteInt64BigEndian(export[2..], device.Size);
        BinaryPrimitives.WriteUInt16BigEndian(export[10..], (ushort)FlagsOf(device));
        Reply(option, OptionReply.Info, export);
        Span<byte> blockSize = stackalloc byte[14];
        BinaryPrimitives.WriteUInt16BigEndian(blockSize, (ushort)NbdInfo.BlockSize);
        BinaryPrimitives.WriteUInt32BigEndian(blockSize[2..], 512);
        BinaryPrimitives.WriteUInt32BigEndian(blockSize[6..], IBlockDevice.BlockSize);
        BinaryPrimitives.WriteUInt32BigEndian(blockSize[10..], NbdProtocol.MaximumPayload);
        Reply(option, OptionReply.Info, blockSize);
        Reply(option, OptionReply.Acknowledge, []);
        return option == NbdOption.Go ? new NbdSession(device, _structured, HasContext(device)) : null;
    }

    private void AnswerMetaContext(NbdOption option, ReadOnlySpan<byte> data)
    {
        var rest = data;
        var sets = option == NbdOption.SetMetaContext;
        _contextExport = sets ? null : _contextExport;
        if ((sets && !_structured) || !TryTakeString(ref rest, out var name) || rest.Length < 4)
        {
            Reply(option, OptionReply.Invalid, []);
            return;
        }

        var queries = BinaryPrimitives.ReadUInt32BigEndian(rest);
        rest = rest[4..];
        var wanted = !sets && queries == 0;
        for (var i = 0u; i < queries; i++)
        {
            if (!TryTakeString(ref rest, out var query))
            {
                Reply(option, OptionReply.Invalid, []);
                return;
            }

            wanted |= query.SequenceEqual("base:allocation"u8) || (!sets && query.SequenceEqual("base:"u8));
        }

        if (!rest.IsEmpty)
        {
            Reply(option, OptionReply.Invalid, []);
            return;
        }

        if (!TryFind(name, out var exportName, out _))
        {
            Reply(option, OptionReply.Unknown, []);
            return;
        }

        if (wanted)
        {
            Span<byte> context = stackalloc byte[4 + NbdProtocol.AllocationContext.Length];
            BinaryPrimitives.WriteUInt32BigEndian(context, sets ? NbdProtocol.AllocationContextId : 0);
            Encoding.ASCII.GetBytes(NbdProtocol.AllocationContext, context[4..]);
            Reply(option, OptionReply.MetaContext, context);
            _contextExport = sets ? exportName : _contextExport;
        }

        Reply(option, OptionReply.Acknowledge, []);
    }

    private bool HasContext(IBlockDevice device) => _contextExport is { } name && exports.GetValueOrDefault(name) == device;

    private ExportFlags FlagsOf(IBlockDevice device)
    {
        var flags = ExportFlags.HasFlags | ExportFlags.Flush | ExportFlags.ForceUnitAccess | ExportFlags.Cache
            | ExportFlags.MultipleConnections | (_structured ? ExportFlags.DoNotFragment : ExportFlags.None);
        return flags | (device.IsReadOnly ? ExportFlags.ReadOnly : ExportFlags.Trim | ExportFlags.WriteZeroes | ExportFlags.FastZero);
    }

    /// <summary>Finds an export; the empty name is the only one, where there is one only.</summary>
    private bool TryFind(ReadOnlySpan<byte> untrustedName, out string name, out IBlockDevice device)
    {
        (name, device) = ("", null!);
        if (untrustedName.Length > NbdProtocol.MaximumName)
        {
            return false;
        }

        try
        {
            name = StrictUtf8.GetString(untrustedName);
        }
        catch (DecoderFallbackException)
        {
            return false;
        }

        if (name.Length == 0 && exports.Count == 1)
        {
            name = exports.Keys.FirstOrDefault() ?? "";
        }

        return exports.TryGetValue(name, out device!);
    }

    private static bool TryTakeString(ref ReadOnlySpan<byte> rest, out ReadOnlySpan<byte> value)
    {
        value = default;
        if (rest.Length < 4 || BinaryPrimitives.ReadUInt32BigEndian(rest) > rest.Length - 4)
        {
            return false;
        }

        value = rest.Slice(4, (int)BinaryPrimitives.ReadUInt32BigEndian(rest));
        rest = rest[(4 + value.Length)..];
        return true;
    }

    private void Reply(NbdOption option, OptionReply type, ReadOnlySpan<byte> data)
    {
        var reply = stream.Reserve(20 + data.Length).Span;
        BinaryPrimitives.WriteUInt64BigEndian(reply, NbdProtocol.OptionReplyMagic);
        BinaryPrimitives.WriteUInt32BigEndian(reply[8..], (uint)option);
        BinaryPrimitives.WriteUInt32BigEndian(reply[12..], (uint)type);
        BinaryPrimitives.WriteInt32BigEndian(reply[16..], data.Length);
        data.CopyTo(reply[20..]);
        stream.Append(20 + data.Length);
    }
}
