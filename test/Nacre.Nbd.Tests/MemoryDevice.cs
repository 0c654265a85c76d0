using Nacre.Volumes;

namespace Nacre.Nbd.Tests;

/// <summary>A device in memory whose reads can be held back, and whose errors can be chosen.</summary>
internal sealed class MemoryDevice(long size, bool isReadOnly = false) : IBlockDevice
{
    private readonly byte[] _bytes = new byte[size];
    private readonly Lock _gate = new();

    /// <summary>Where set, a read or write waits for it first, asynchronously.</summary>
    public Func<long, Task?>? Hold { get; set; }

    /// <summary>Told of every read before it begins.</summary>
    public Action<long, int>? Reading { get; set; }

    public VolumeErrorKind? Failure { get; set; }

    public int Flushes { get; private set; }

    public int ForcedWrites { get; private set; }

    public long Size => size;

    public bool IsReadOnly => isReadOnly;

    public async ValueTask ReadAsync(long offset, Memory<byte> destination, CancellationToken cancellationToken)
    {
        Reading?.Invoke(offset, destination.Length);
        if (Hold?.Invoke(offset) is { } hold)
        {
            await hold.WaitAsync(cancellationToken);
        }

        Fail();
        lock (_gate)
        {
            _bytes.AsSpan((int)offset, destination.Length).CopyTo(destination.Span);
        }
    }

    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> source, bool forceUnitAccess, CancellationToken cancellationToken)
    {
        if (Hold?.Invoke(offset) is { } hold)
        {
            await hold.WaitAsync(cancellationToken);
        }

        Fail();
        lock (_gate)
        {
            source.Span.CopyTo(_bytes.AsSpan((int)offset));
            ForcedWrites += forceUnitAccess ? 1 : 0;
        }
    }

    public ValueTask FlushAsync(CancellationToken cancellationToken)
    {
        Fail();
        Flushes++;
        return ValueTask.CompletedTask;
    }

    public ValueTask TrimAsync(long offset, long length, CancellationToken cancellationToken) => WriteZeroesAsync(offset, length, false, false, cancellationToken);

    public ValueTask WriteZeroesAsync(long offset, long length, bool keepAllocated, bool forceUnitAccess, CancellationToken cancellationToken)
    {
        Fail();
        lock (_gate)
        {
            _bytes.AsSpan((int)offset, (int)length).Clear();
        }

        return ValueTask.CompletedTask;
    }

    public int DescribeExtents(long offset, long length, Span<BlockExtent> extents)
    {
        extents[0] = new BlockExtent(length, false);
        return 1;
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private void Fail()
    {
        if (Failure is { } kind)
        {
            throw new VolumeException(kind, "injected");
        }
    }
}
