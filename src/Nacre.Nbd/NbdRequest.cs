using System.Buffers.Binary;
using Nacre.Volumes;

namespace Nacre.Nbd;

/// <summary>A request as it arrived. Its values are trusted only after <see cref="Validate"/> returned <see cref="NbdError.None"/>.</summary>
internal readonly record struct NbdRequest(CommandFlags Flags, NbdCommand Command, ulong Cookie, ulong UntrustedOffset, uint UntrustedLength)
{
    public long Offset => (long)UntrustedOffset;

    public int Length => (int)UntrustedLength;

    public bool HasPayload => Command == NbdCommand.Write;

    public bool Has(CommandFlags flag) => (Flags & flag) != 0;

    /// <summary>Reads the 28 bytes of a request; false if they are not one, after which the stream makes no sense any more.</summary>
    public static bool TryParse(ReadOnlySpan<byte> bytes, out NbdRequest request)
    {
        request = new NbdRequest(
            (CommandFlags)BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]), (NbdCommand)BinaryPrimitives.ReadUInt16BigEndian(bytes[6..]),
            BinaryPrimitives.ReadUInt64BigEndian(bytes[8..]), BinaryPrimitives.ReadUInt64BigEndian(bytes[16..]),
            BinaryPrimitives.ReadUInt32BigEndian(bytes[24..]));
        return BinaryPrimitives.ReadUInt32BigEndian(bytes) == NbdProtocol.RequestMagic;
    }

    /// <summary>Checks everything that a client may get wrong, once: the handlers rely on it.</summary>
    public NbdError Validate(IBlockDevice device, bool structured, bool allocationContext)
    {
        var changes = Command is NbdCommand.Write or NbdCommand.Trim or NbdCommand.WriteZeroes;
        CommandFlags? known = Command switch
        {
            NbdCommand.Read => structured ? CommandFlags.DoNotFragment : CommandFlags.None,
            NbdCommand.Write or NbdCommand.Trim => CommandFlags.ForceUnitAccess,
            NbdCommand.WriteZeroes => CommandFlags.ForceUnitAccess | CommandFlags.NoHole | CommandFlags.FastZero,
            NbdCommand.BlockStatus when allocationContext => CommandFlags.RequestOne,
            NbdCommand.Flush or NbdCommand.Cache => CommandFlags.None,
            _ => null,
        };
        if (known is null)
        {
            return NbdError.Invalid;
        }

        // Linux sets FUA on any command when it was offered; it asks nothing of those that change nothing.
        if ((Flags & ~(known.Value | CommandFlags.ForceUnitAccess)) != 0)
        {
            return NbdError.Invalid;
        }

        if (Command == NbdCommand.Flush)
        {
            return NbdError.None;
        }

        if (changes && device.IsReadOnly)
        {
            return NbdError.NotPermitted;
        }

        if (UntrustedLength == 0)
        {
            return NbdError.Invalid;
        }

        if (UntrustedOffset > (ulong)device.Size || UntrustedLength > (ulong)device.Size - UntrustedOffset)
        {
            return Command is NbdCommand.Write or NbdCommand.WriteZeroes ? NbdError.NoSpace : NbdError.Invalid;
        }

        return Command == NbdCommand.Read && UntrustedLength > NbdProtocol.MaximumPayload ? NbdError.Overflow : NbdError.None;
    }

    /// <summary>What the peer is told of a device's error.</summary>
    public static NbdError ErrorOf(VolumeErrorKind kind) => kind switch
    {
        VolumeErrorKind.Io => NbdError.InputOutput,
        VolumeErrorKind.Truncated => NbdError.InputOutput,
        VolumeErrorKind.Corrupt => NbdError.InputOutput,
        VolumeErrorKind.NotAuthentic => NbdError.InputOutput,
        VolumeErrorKind.WrongKey => NbdError.InputOutput,
        VolumeErrorKind.Unsupported => NbdError.NotSupported,
        VolumeErrorKind.OutOfRange => NbdError.Invalid,
        VolumeErrorKind.NoSpace => NbdError.NoSpace,
        VolumeErrorKind.ReadOnly => NbdError.NotPermitted,
        VolumeErrorKind.Locked => NbdError.InputOutput,
        VolumeErrorKind.Outdated => NbdError.InputOutput,
        VolumeErrorKind.Snapshot => NbdError.InputOutput,
        VolumeErrorKind.Faulted => NbdError.InputOutput,
    };
}
