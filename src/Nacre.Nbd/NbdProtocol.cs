namespace Nacre.Nbd;

/// <summary>The numbers of the NBD protocol (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md) and this server's limits.</summary>
internal static class NbdProtocol
{
    public const ulong InitMagic = 0x4e42444d41474943;
    public const ulong OptionMagic = 0x49484156454f5054;
    public const ulong OptionReplyMagic = 0x0003e889045565a9;
    public const uint RequestMagic = 0x25609513;
    public const uint SimpleReplyMagic = 0x67446698;
    public const uint ChunkMagic = 0x668e33ef;

    public const int RequestLength = 28;
    public const int SimpleReplyLength = 16;
    public const int ChunkLength = 20;
    public const int OptionLength = 16;

    /// <summary>Bytes of a read or write: bounds what a connection can make the server hold.</summary>
    public const int MaximumPayload = 32 << 20;

    /// <summary>Bytes of an option's data: the longest name (4096) and a few context queries. More closes the connection.</summary>
    public const int MaximumOptionData = 16 << 10;

    /// <summary>Options in one handshake: a client needs fewer than ten, an endless dialogue ends.</summary>
    public const int MaximumOptions = 256;

    public const int MaximumName = 4096;

    public const uint AllocationContextId = 1;
    public const string AllocationContext = "base:allocation";
}

internal static class HandshakeFlags
{
    public const ushort FixedNewstyle = 1;
    public const ushort NoZeroes = 2;
}

[Flags]
internal enum ExportFlags : ushort
{
    None = 0,
    HasFlags = 1,
    ReadOnly = 2,
    Flush = 4,
    ForceUnitAccess = 8,
    Trim = 32,
    WriteZeroes = 64,
    DoNotFragment = 128,
    MultipleConnections = 256,
    Cache = 1024,
    FastZero = 2048,
}

internal enum NbdOption : uint
{
    ExportName = 1,
    Abort = 2,
    List = 3,
    Info = 6,
    Go = 7,
    StructuredReply = 8,
    ListMetaContext = 9,
    SetMetaContext = 10,
}

internal enum OptionReply : uint
{
    Acknowledge = 1,
    Server = 2,
    Info = 3,
    MetaContext = 4,
    Unsupported = 0x80000001,
    Invalid = 0x80000003,
    Unknown = 0x80000006,
}

internal enum NbdInfo : ushort
{
    Export = 0,
    BlockSize = 3,
}

internal enum NbdCommand : ushort
{
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
    Cache = 5,
    WriteZeroes = 6,
    BlockStatus = 7,
}

[Flags]
internal enum CommandFlags : ushort
{
    None = 0,
    ForceUnitAccess = 1,
    NoHole = 2,
    DoNotFragment = 4,
    RequestOne = 8,
    FastZero = 16,
}

internal enum ChunkType : ushort
{
    OffsetData = 1,
    BlockStatus = 5,
    Error = 0x8001,
}

internal enum NbdError : uint
{
    None = 0,
    NotPermitted = 1,
    InputOutput = 5,
    Invalid = 22,
    NoSpace = 28,
    Overflow = 75,
    NotSupported = 95,
}
