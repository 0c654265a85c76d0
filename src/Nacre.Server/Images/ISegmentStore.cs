namespace Nacre.Server;

/// <summary>What a store has under a segment's name.</summary>
/// <param name="Name">The segment's name.</param>
/// <param name="Length">Bytes.</param>
/// <param name="WrittenAt">When it was written, by the store's clock.</param>
internal sealed record StoredSegment(string Name, long Length, DateTimeOffset WrittenAt);

/// <summary>
/// Keeps the bytes of segments under their names. What it has is whole: a write that ends early leaves nothing. It neither knows nor
/// checks what the bytes are; <see cref="Segments"/> does.
/// </summary>
internal interface ISegmentStore
{
    /// <summary>Before the first request: removes what a crash left of uploads, and finds out whether the store can be used.</summary>
    /// <exception cref="Contracts.NacreException">It can't.</exception>
    ValueTask PrepareAsync(CancellationToken cancellationToken);

    /// <summary>The length of a segment; null where there is none.</summary>
    ValueTask<long?> FindLengthAsync(string name, CancellationToken cancellationToken);

    /// <summary>All segments whose names begin with these two digits, in no order.</summary>
    IAsyncEnumerable<StoredSegment> ListAsync(string firstDigits, CancellationToken cancellationToken);

    /// <summary>Removes a segment; fine where there is none. Who reads it now may finish or fail.</summary>
    ValueTask DeleteAsync(string name, CancellationToken cancellationToken);

    /// <summary>Opens a segment for reading, at any place of it; null where there is none. The caller disposes it.</summary>
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
