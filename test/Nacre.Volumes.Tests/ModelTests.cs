using CsCheck;
using Nacre.Testing;
using Xunit;
using static Nacre.Volumes.Tests.TestVolume;

namespace Nacre.Volumes.Tests;

/// <summary>The volume against an array: every operation, with histories, cleaning, reopening and kills in between.</summary>
public sealed class ModelTests
{
    private const int MaximumBlocks = 96;

    private static long _operations;

    [Fact]
    public void Volume_behaves_like_an_array_of_bytes() => Sample(iterations: 4_000, length: 60);

    [Fact]
    [Trait("lane", "long")]
    public void Volume_behaves_like_an_array_of_bytes_for_a_million_operations() => Sample(iterations: 13_000, length: 160);

    private static void Sample(int iterations, int length)
    {
        _operations = 0;
        var operation = Gen.Select(Gen.Int[0, 19], Gen.Int[0, (64 * Block) - 1], Gen.Int[1, 6 * Block], Gen.Byte);
        operation.Array[1, length].Sample(
            operations => Run(operations), iter: iterations, seed: Environment.GetEnvironmentVariable("NACRE_CSCHECK_SEED"), threads: 1);
        TestContext.Current.TestOutputHelper?.WriteLine($"{_operations} operations");
    }

    private static void Run((int Kind, int Offset, int Length, byte Value)[] operations)
    {
        var storage = new RecordingStorage { IsRecording = false };
        var volume = Volume.Create(storage, Small, Key);
        var model = new byte[volume.Size];
        var snapshots = new Dictionary<string, byte[]>();
        var names = 0;
        foreach (var (kind, offset, wanted, value) in operations)
        {
            _operations++;
            var length = Math.Min(wanted, model.Length - offset);
            switch (kind)
            {
                case < 3:
                    // A batch: one write, a block of zeroes somewhere in it, and a part of it again.
                    var (whole, zeroes, part) = (new byte[length], new byte[Math.Min(Block, length)], new byte[Math.Min(100, length)]);
                    Array.Fill(whole, value);
                    Array.Fill(part, (byte)(value + 1));
                    var zeroAt = offset / Block * Block is var start && start >= offset ? start : offset;
                    volume.WriteTogether([new BlockWrite(offset, whole), new BlockWrite(zeroAt, zeroes), new BlockWrite(offset + length - part.Length, part)]);
                    whole.CopyTo(model, offset);
                    zeroes.CopyTo(model, zeroAt);
                    part.CopyTo(model, offset + length - part.Length);
                    break;
                case < 8:
                    var bytes = new byte[length];
                    bytes.AsSpan(0, value % 3 == 0 ? length / 2 : length).Fill(value);
                    Done(volume.WriteAsync(offset, bytes, value % 7 == 0, default));
                    bytes.CopyTo(model, offset);
                    break;
                case 8:
                    Done(volume.TrimAsync(offset, length, default));
                    var first = (offset + Block - 1) / Block * Block;
                    var end = (offset + length) / Block * Block;
                    model.AsSpan(first, Math.Max(0, end - first)).Clear();
                    break;
                case 9:
                    Done(volume.WriteZeroesAsync(offset, length, true, false, default));
                    model.AsSpan(offset, length).Clear();
                    break;
                case 10:
                    volume.Checkpoint();
                    break;
                case 11:
                    Done(volume.DisposeAsync());
                    volume = Volume.Open(storage, Key, Small);
                    break;
                case 12:
                    // Killed: what was answered is there.
                    storage = RecordingStorage.Of(storage.Content, isRecording: false);
                    volume = Volume.Open(storage, Key, Small);
                    break;
                case 13 or 14 when snapshots.Count < 6:
                    var name = $"snapshot {++names}";
                    volume.TakeSnapshot(name);
                    snapshots[name] = (byte[])model.Clone();
                    break;
                case 15 when snapshots.Count > 0:
                    name = snapshots.Keys.ElementAt(value % snapshots.Count);
                    volume.RollBack(name);
                    Array.Clear(model);
                    snapshots[name].CopyTo(model, 0);
                    break;
                case 16 when snapshots.Count > 0:
                    name = snapshots.Keys.ElementAt(value % snapshots.Count);
                    volume.DeleteSnapshot(name);
                    snapshots.Remove(name);
                    break;
                case 17:
                    volume.Compact(null, default);
                    break;
                case 18 when value % 8 == 0 && model.Length < MaximumBlocks * Block:
                    volume.Resize(model.Length + Block);
                    Array.Resize(ref model, model.Length + Block);
                    break;
                case 19 when value % 4 == 0:
                    // The fork is looked at, written to, and thrown away; or it is what goes on, without snapshots.
                    var fork = new RecordingStorage { IsRecording = false };
                    volume.Fork(fork, Key, snapshot: null, progress: null, default);
                    var forked = Volume.Open(fork, Key, Small);
                    RequireContent(forked, model);
                    if (value % 8 == 0)
                    {
                        Done(forked.WriteAsync(0, new byte[] { 1, 2, 3 }, false, default));
                    }
                    else
                    {
                        (storage, volume) = (fork, forked);
                        snapshots.Clear();
                    }

                    break;
            }

            var read = new byte[length];
            Done(volume.ReadAsync(offset, read, default));
            Assert.True(read.AsSpan().SequenceEqual(model.AsSpan(offset, length)));
        }

        RequireContent(volume, model);
        RequireExtents(volume, model);
        Assert.Equal(snapshots.Keys.Order(), volume.Snapshots.Select(snapshot => snapshot.Name).Order());
        foreach (var (name, content) in snapshots)
        {
            RequireContent(volume.OpenSnapshot(name), content);
        }

        Assert.Empty(volume.Verify(null, default).Damages);
        volume.Compact(null, default);
        RequireContent(volume, model);
        long needed = snapshots.Count == 0 ? model.Chunk(Block).Count(block => block.AsSpan().ContainsAnyExcept((byte)0)) : uint.MaxValue;
        Assert.True(volume.Statistics.StoredBytes <= (needed + 16) * Segment.SlotSize, "compacting left dead slots");
    }

    private static void RequireContent(IBlockDevice device, byte[] expected)
    {
        var all = new byte[expected.Length];
        Assert.Equal(expected.Length, device.Size);
        Done(device.ReadAsync(0, all, default));
        Assert.True(all.AsSpan().SequenceEqual(expected));
    }

    private static void RequireExtents(Volume volume, byte[] model)
    {
        var extents = new BlockExtent[100];
        var at = 0L;
        foreach (var extent in extents.AsSpan(0, volume.DescribeExtents(0, volume.Size, extents)))
        {
            Assert.True(!extent.IsHole || !model.AsSpan((int)at, (int)extent.Length).ContainsAnyExcept((byte)0));
            at += extent.Length;
        }

        Assert.Equal(volume.Size, at);
    }
}
