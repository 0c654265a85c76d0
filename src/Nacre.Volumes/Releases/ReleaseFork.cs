namespace Nacre.Volumes.Releases;

/// <summary>
/// A release's disk that can be written to: what was never changed reads as the release, every change lands in a volume of its own
/// (SPEC.md, REL-05x).
/// </summary>
/// <remarks>
/// <para>Requests complete synchronously but for parts of the release that have to be fetched: for a read of them, and for the first change
/// of a part of a block. A change that fails before its answer leaves each block as it was, or as it was to be.</para>
/// <para>The release and the volume stay their owner's. Nobody else may change the volume while the fork is in use.</para>
/// </remarks>
public sealed class ReleaseFork : IBlockDevice
{
    private const int BlockSize = IBlockDevice.BlockSize;
    private const int BlocksPerPage = BlockSize * 8;

    private readonly IBlockDevice release;
    private readonly Volume changes;

    // One bit per block: the release does not show through, although the volume may have a hole there. A page that is null has none set;
    // a page is replaced, never changed, and a bit never goes out again.
    private readonly byte[]?[] marks;
    private readonly Lock marking = new();

    // Held for writing while a block of the release is copied, so that no change falls between the look and the copy.
    private readonly ReaderWriterLockSlim copying = new();

    /// <summary>Opens a fork, new or as an earlier process left it.</summary>
    /// <param name="release">What shows through.</param>
    /// <param name="changes">Where changes are: of <see cref="VolumeSize"/> bytes, blank for a new fork.</param>
    /// <exception cref="VolumeException">Corrupt: the volume is none of a fork of this release's size. Any failure to read it.</exception>
    public ReleaseFork(IBlockDevice release, Volume changes)
    {
        if (changes.Size != VolumeSize(release.Size))
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, $"a volume of {changes.Size} bytes holds no fork of a disk of {release.Size} bytes");
        }

        this.release = release;
        this.changes = changes;
        marks = new byte[]?[(changes.Size - Size) / BlockSize];
        for (var page = 0; page < marks.Length; page++)
        {
            var at = Size + ((long)page * BlockSize);
            if (!IsHole(at))
            {
                marks[page] = new byte[BlockSize];
                changes.Read(snapshot: null, at, marks[page]);
            }
        }
    }

    /// <inheritdoc/>
    public long Size => release.Size;

    /// <inheritdoc/>
    public bool IsReadOnly => false;

    /// <summary>What a block shows.</summary>
    private enum Source
    {
        Release,
        Data,
        Hole,
    }

    /// <summary>The size of the volume that a fork of a disk of <paramref name="size"/> bytes needs: that of the disk, and a bit for each of its blocks.</summary>
    public static long VolumeSize(long size) => size + (((size / BlockSize) + BlocksPerPage - 1) / BlocksPerPage * BlockSize);

    /// <inheritdoc/>
    public async ValueTask ReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken)
    {
        Check(offset, destination.Length);
        while (destination.Length > 0)
        {
            var (source, length) = Run(offset, destination.Length);
            var part = destination[..(int)length];
            await (source == Source.Release ? release : changes).ReadAsync(offset, part, cancellationToken).ConfigureAwait(false);
            destination = destination[part.Length..];
            offset += part.Length;
        }
    }

    /// <inheritdoc/>
    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> source, bool forceUnitAccess, CancellationToken cancellationToken)
    {
        Check(offset, source.Length);
        await TakeEdgesAsync(offset, source.Length, cancellationToken).ConfigureAwait(false);
        Change(() =>
        {
            MarkZeroes(offset, source.Span);
            changes.Change(SlotKind.Data, 0, source.Length, [new BlockWrite(offset, source)]);
        }, forceUnitAccess);
    }

    /// <inheritdoc/>
    public ValueTask TrimAsync(long offset, long length, CancellationToken cancellationToken)
    {
        Check(offset, length);
        var (first, end) = WholeBlocks(offset, length);
        if (first < end)
        {
            Change(() =>
            {
                Mark(first, end);
                changes.Change(SlotKind.Trim, first * BlockSize, (end - first) * BlockSize, []);
            }, isDurable: false);
        }

        return ValueTask.CompletedTask;
    }

    /// <inheritdoc/>
    public async ValueTask WriteZeroesAsync(long offset, long length, bool keepAllocated, bool forceUnitAccess, CancellationToken cancellationToken)
    {
        Check(offset, length);
        await TakeEdgesAsync(offset, length, cancellationToken).ConfigureAwait(false);
        var (first, end) = WholeBlocks(offset, length);
        Change(() =>
        {
            Mark(first, end);
            changes.Change(SlotKind.Zero, offset, length, []);
        }, forceUnitAccess);
    }

    /// <inheritdoc/>
    public ValueTask FlushAsync(CancellationToken cancellationToken) => changes.FlushAsync(cancellationToken);

    /// <inheritdoc/>
    public int DescribeExtents(long offset, long length, Span<BlockExtent> extents)
    {
        Check(offset, length);
        Span<BlockExtent> one = stackalloc BlockExtent[1];
        var count = 0;
        for (var end = offset + length; offset < end;)
        {
            var (source, run) = Run(offset, end - offset);
            one[0] = new BlockExtent(run, source == Source.Hole);
            if (source == Source.Release)
            {
                release.DescribeExtents(offset, run, one);
            }

            if (count > 0 && extents[count - 1].IsHole == one[0].IsHole)
            {
                extents[count - 1] = one[0] with { Length = extents[count - 1].Length + one[0].Length };
            }
            else if (count == extents.Length)
            {
                break;
            }
            else
            {
                extents[count++] = one[0];
            }

            offset += one[0].Length;
        }

        return count;
    }

    /// <inheritdoc/>
    public ValueTask DisposeAsync()
    {
        copying.Dispose();
        return ValueTask.CompletedTask;
    }

    private static (long First, long End) WholeBlocks(long offset, long length) =>
        ((offset + BlockSize - 1) / BlockSize, (offset + length) / BlockSize);

    private void Check(long offset, long length)
    {
        if (offset < 0 || length < 0 || offset > Size - length)
        {
            throw new VolumeException(VolumeErrorKind.OutOfRange, $"{length} bytes from {offset} on lie outside the disk of {Size} bytes");
        }
    }

    /// <summary>Changes the volume, with no copy of the release's in between.</summary>
    private void Change(Action change, bool isDurable)
    {
        copying.EnterReadLock();
        try
        {
            change();
        }
        finally
        {
            copying.ExitReadLock();
        }

        if (isDurable)
        {
            changes.Flush();
        }
    }

    /// <summary>The longest run from <paramref name="offset"/> on that has one source.</summary>
    private (Source Source, long Length) Run(long offset, long length)
    {
        // First the volume, then the mark: a block is marked before it becomes a hole.
        Span<BlockExtent> extents = stackalloc BlockExtent[1];
        changes.DescribeExtents(offset, length, extents);
        if (!extents[0].IsHole)
        {
            return (Source.Data, extents[0].Length);
        }

        var end = offset + extents[0].Length;
        var block = offset / BlockSize;
        var isMarked = IsMarked(block);
        do
        {
            block++;
        }
        while (block * BlockSize < end && IsMarked(block) == isMarked);
        return (isMarked ? Source.Hole : Source.Release, Math.Min(end, block * BlockSize) - offset);
    }

    private bool IsHole(long offset)
    {
        Span<BlockExtent> extents = stackalloc BlockExtent[1];
        changes.DescribeExtents(offset, BlockSize, extents);
        return extents[0].IsHole;
    }

    private bool IsMarked(long block) =>
        Volatile.Read(ref marks[block / BlocksPerPage]) is { } page && (page[block % BlocksPerPage / 8] & (1 << (int)(block % 8))) != 0;

    /// <summary>Says that the release shows through no more in blocks that become holes.</summary>
    private void Mark(long first, long end)
    {
        for (var block = first; block < end;)
        {
            var page = block / BlocksPerPage;
            var last = Math.Min(end, (page + 1) * BlocksPerPage);
            while (block < last && IsMarked(block))
            {
                block++;
            }

            if (block < last)
            {
                MarkWithin((int)page, (int)(block % BlocksPerPage), (int)(last - (page * BlocksPerPage)));
                block = last;
            }
        }
    }

    private void MarkWithin(int page, int first, int end)
    {
        lock (marking)
        {
            var changed = marks[page]?.AsSpan().ToArray() ?? new byte[BlockSize];
            for (var block = first; block < end; block++)
            {
                changed[block / 8] |= (byte)(1 << (block % 8));
            }

            changes.Change(SlotKind.Data, 0, BlockSize, [new BlockWrite(Size + ((long)page * BlockSize), changed)]);
            Volatile.Write(ref marks[page], changed);
        }
    }

    /// <summary>Marks the whole blocks of zeroes in a write: the volume makes holes of them.</summary>
    private void MarkZeroes(long offset, ReadOnlySpan<byte> source)
    {
        var (first, end) = WholeBlocks(offset, source.Length);
        for (var block = first; block < end; block++)
        {
            if (!source.Slice((int)((block * BlockSize) - offset), BlockSize).ContainsAnyExcept((byte)0))
            {
                Mark(block, block + 1);
            }
        }
    }

    /// <summary>Sees to it that the volume holds the blocks of which a change touches a part.</summary>
    private async ValueTask TakeEdgesAsync(long offset, long length, CancellationToken cancellationToken)
    {
        var end = offset + length;
        if (length > 0 && offset % BlockSize != 0)
        {
            await TakeAsync(offset / BlockSize, cancellationToken).ConfigureAwait(false);
        }

        if (length > 0 && end % BlockSize != 0 && (offset % BlockSize == 0 || offset / BlockSize != end / BlockSize))
        {
            await TakeAsync(end / BlockSize, cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask TakeAsync(long block, CancellationToken cancellationToken)
    {
        if (IsMarked(block))
        {
            return;
        }

        byte[]? content = null;
        if (IsHole(block * BlockSize))
        {
            content = new byte[BlockSize];
            await release.ReadAsync(block * BlockSize, content, cancellationToken).ConfigureAwait(false);
        }

        copying.EnterWriteLock();
        try
        {
            if (!IsMarked(block))
            {
                if (content is not null && IsHole(block * BlockSize))
                {
                    changes.Change(SlotKind.Data, 0, BlockSize, [new BlockWrite(block * BlockSize, content)]);
                }

                // Marked even so: the change may leave nothing but zeroes in it.
                Mark(block, block + 1);
            }
        }
        finally
        {
            copying.ExitWriteLock();
        }
    }
}
