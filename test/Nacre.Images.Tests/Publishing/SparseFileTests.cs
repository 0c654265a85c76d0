using Nacre.Images.Publishing;
using Nacre.Testing;
using Nacre.Volumes;
using Xunit;

namespace Nacre.Images.Tests.Publishing;

public sealed class SparseFileTests : IDisposable
{
    private const int LeastHole = 1 << 20;
    private readonly TemporaryDirectory folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(4095)]
    [InlineData((1 << 20) + 3)]
    public void A_file_without_holes_is_one_range_to_its_end(int length)
    {
        Write(length, (0, length));
        Assert.Equal(length == 0 ? [] : [(0L, (long)length)], Ranges(length));
    }

    [Fact]
    public void Large_holes_are_left_out_and_small_ones_are_not()
    {
        const int Length = (64 << 20) + 100;
        Write(Length, (10_000, 5), ((1 << 19) + 7, 1), (32 << 20, 4096), (Length - 3, 3));
        Assert.Equal([(8192, (1 << 19) + 4096), (32 << 20, (32 << 20) + 4096), (64 << 20, Length)], Ranges(Length));
    }

    [Fact]
    public void Nothing_that_was_written_lies_outside_of_the_ranges()
    {
        var random = new Random(7);
        for (var round = 0; round < 200; round++)
        {
            var length = random.Next(1, 16 << 20);
            var writes = Enumerable.Range(0, random.Next(8)).Select(_ => random.Next(length)).Select(at => (at, random.Next(1, Math.Min(100_000, length - at) + 1))).ToArray();
            Write(length, writes);
            var ranges = Ranges(length);
            Assert.All(writes, write => Assert.Contains(ranges, range => range.Start <= write.at && write.at + write.Item2 <= range.End));
            Assert.All(ranges, range => Assert.True(range.Start % IBlockDevice.BlockSize == 0 && range.Start < range.End && (range.End % IBlockDevice.BlockSize == 0 || range.End == length)));
            Assert.All(ranges.Zip(ranges.Skip(1)), pair => Assert.True(pair.First.End < pair.Second.Start));
        }
    }

    private void Write(int length, params (int At, int Count)[] writes)
    {
        using var file = File.Create(folder["file"]);
        file.SetLength(length);
        foreach (var (at, count) in writes)
        {
            file.Position = at;
            file.Write([.. Enumerable.Repeat((byte)1, count)]);
        }
    }

    private List<(long Start, long End)> Ranges(int length)
    {
        using var file = File.OpenHandle(folder["file"]);
        return [.. SparseFile.DataRanges(file, length, LeastHole)];
    }
}
