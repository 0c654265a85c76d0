namespace Nacre.Server;

/// <summary>
/// Keeps the bytes of segments under their names. What it has is whole: a write that ends early leaves nothing. It neither knows nor
/// checks what the bytes are; <see cref="Segments"/> does.
/// </summary>
internal interface ISegmentStore
{
    /// <summary>The length of a segment; null where there is none.</summary>
    ValueTask<long?> FindLengthAsync(string name, CancellationToken cancellationToken);

    /// <summary>Opens a segment for reading; null where there is none. The caller disposes it.</summary>
    ValueTask<Stream?> OpenAsync(string name, CancellationToken cancellationToken);

    /// <summary>Begins to write a segment, which appears when it is committed and never if it is not.</summary>
    ValueTask<ISegmentWriter> CreateAsync(string name, CancellationToken cancellationToken);
}

/// <summary>A segment being written; disposed uncommitted, it leaves nothing.</summary>
internal interface ISegmentWriter : IAsyncDisposable
{
    ValueTask WriteAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken);

    /// <summary>Durable on return, in the place of what had the name before.</summary>
    ValueTask CommitAsync(CancellationToken cancellationToken);
}
