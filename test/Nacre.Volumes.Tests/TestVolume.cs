using System.Buffers.Binary;
using System.Globalization;
using Xunit;

namespace Nacre.Volumes.Tests;

/// <summary>Small volumes for tests, and blocks that say what they are.</summary>
internal static class TestVolume
{
    public const int Block = IBlockDevice.BlockSize;

    public static readonly byte[] Key = [.. Enumerable.Range(1, 32).Select(i => (byte)i)];

    /// <summary>64 blocks in segments of 16 slots; checkpoints and cleaning come often, and at the same events every time.</summary>
    public static VolumeOptions Small { get; } =
        new() { Size = 64 * Block, SegmentSlots = 16, CheckpointInterval = 40 * Block, BackgroundMaintenance = false };

    public static CancellationToken None => TestContext.Current.CancellationToken;

    /// <summary>The seed of a random test: NACRE_SEED, or a new one; printed so that a failure can be repeated.</summary>
    public static int Seed()
    {
        var seed = int.TryParse(Environment.GetEnvironmentVariable("NACRE_SEED"), CultureInfo.InvariantCulture, out var given)
            ? given : Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"NACRE_SEED={seed}");
        return seed;
    }

    /// <summary>A block that states its number and version in every 16 bytes; version 0 is a block of zeroes.</summary>
    public static byte[] Content(long block, long version)
    {
        var bytes = new byte[Block];
        for (var at = 0; version != 0 && at < Block; at += 16)
        {
            BinaryPrimitives.WriteInt64LittleEndian(bytes.AsSpan(at), block);
            BinaryPrimitives.WriteInt64LittleEndian(bytes.AsSpan(at + 8), version);
        }

        return bytes;
    }

    public static async Task<byte[]> ReadAllAsync(IBlockDevice device)
    {
        var bytes = new byte[device.Size];
        await device.ReadAsync(0, bytes, None);
        return bytes;
    }

    public static async Task<VolumeException> FailsAsync(VolumeErrorKind kind, Func<Task> action)
    {
        var error = await Assert.ThrowsAsync<VolumeException>(action);
        Assert.Equal(kind, error.Kind);
        return error;
    }

    public static ValueTask WriteAsync(this IBlockDevice device, long block, byte[] content, bool forceUnitAccess = false) =>
        device.WriteAsync(block * Block, content, forceUnitAccess, None);

    /// <summary>Requires that a volume's call completed on this thread, and gives its exception.</summary>
    public static void Done(ValueTask task)
    {
        Assert.True(task.IsCompleted);
        task.GetAwaiter().GetResult();
    }
}
