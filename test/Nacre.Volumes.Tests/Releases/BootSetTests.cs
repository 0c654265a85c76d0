using System.Security.Cryptography;
using Nacre.Testing;
using Nacre.Volumes.Releases;
using Xunit;
using static Nacre.Volumes.Tests.Releases.TestRelease;

namespace Nacre.Volumes.Tests.Releases;

/// <summary>What a start reads is recorded, and taken from an object that may lie.</summary>
public sealed class BootSetTests : IDisposable
{
    private const string Pack = "0123456789abcdef0123456789abcdef";
    private const int Before = 40; // bytes of the object in front of the copies
    private readonly TemporaryDirectory folder = new();
    private readonly MemoryOrigin origin = new();
    private readonly byte[] content = Content(300 * 4096);
    private readonly ReleaseIndex index;
    private readonly SegmentCache cache;

    public BootSetTests()
    {
        index = TestRelease.Publish(new PublisherKeys(SHA256.HashData("an organisation"u8)), origin, content);
        cache = new SegmentCache(folder.Path);
    }

    public void Dispose()
    {
        cache.Dispose();
        folder.Dispose();
    }

    [Fact]
    public async Task Chunks_are_recorded_in_the_order_of_their_first_use_and_each_once()
    {
        using var reader = new ReleaseReader(index, cache, origin);
        await using var volume = new ReleaseVolume(reader, "system");
        foreach (var block in new[] { 200, 4, 201, 0, 4, 8 })
        {
            await volume.ReadAsync(block * 4096, new byte[4096], TestContext.Current.CancellationToken);
        }

        Assert.Equal(Copies(200, 4, 0, 8), reader.EndRecording());
        await volume.ReadAsync(100 * 4096, new byte[4096], TestContext.Current.CancellationToken);
        Assert.Empty(reader.EndRecording());
    }

    [Fact]
    public async Task A_pack_brings_its_chunks_in_few_requests_and_reading_them_asks_for_nothing()
    {
        var copies = Copies([.. Enumerable.Range(0, 75).Select(number => number * 37 % 75 * 4).Where(IsStored)]);
        Offer(copies);
        using var reader = new ReleaseReader(index, cache, origin);
        await reader.FillAsync(Pack, Before, copies, TestContext.Current.CancellationToken);
        Assert.InRange(origin.Requests, 1, 12);
        Assert.Equal(copies.Sum(copy => copy.Length), reader.Statistics.FetchedBytes);
        Assert.Equal(reader.Statistics.TotalBytes, reader.Statistics.PresentBytes);
        var requests = origin.Requests;
        Assert.Equal(content, await reader.ReadAllAsync("system", 1 << 30, TestContext.Current.CancellationToken));
        Assert.Equal(requests, origin.Requests);

        // Again: all of it is here.
        await reader.FillAsync(Pack, Before, copies, TestContext.Current.CancellationToken);
        Assert.Equal(requests, origin.Requests);
    }

    [Fact]
    [Spec("REL-071")]
    public async Task Arbitrary_software_in_a_pack_is_never_kept_and_ends_the_pack()
    {
        var copies = Copies(0, 4, 8, 12);
        Offer(copies)[Before + copies[0].Length + 5] ^= 1;
        using var reader = new ReleaseReader(index, cache, origin);
        var exception = await Assert.ThrowsAsync<VolumeException>(() => reader.FillAsync(Pack, Before, copies, TestContext.Current.CancellationToken));
        Assert.Equal(VolumeErrorKind.NotAuthentic, exception.Kind);
        Assert.Equal(copies[0].Length, reader.Statistics.PresentBytes);
        await using var volume = new ReleaseVolume(reader, "system");
        var bytes = new byte[16 * 4096];
        await volume.ReadAsync(0, bytes, TestContext.Current.CancellationToken);
        Assert.Equal(content[..bytes.Length], bytes);
    }

    [Fact]
    [Spec("REL-071")]
    public async Task Mix_and_match_another_chunk_in_a_chunks_place_does_not_verify()
    {
        var copies = Copies(0, 4);
        var swapped = Copies(4, 0);
        Offer(swapped);
        using var reader = new ReleaseReader(index, cache, origin);
        var lie = new[] { copies[0] with { Length = swapped[0].Length }, copies[1] with { Length = swapped[1].Length } };
        if (copies[0].Length == copies[1].Length)
        {
            Assert.Equal(VolumeErrorKind.NotAuthentic, (await Assert.ThrowsAsync<VolumeException>(() => reader.FillAsync(Pack, Before, lie, TestContext.Current.CancellationToken))).Kind);
        }
        else
        {
            // Other lengths than the index says: no chunk of this release, and not even asked for.
            await reader.FillAsync(Pack, Before, lie, TestContext.Current.CancellationToken);
            Assert.Equal(0, origin.Requests);
        }

        Assert.Equal(0, reader.Statistics.PresentBytes);
    }

    [Fact]
    [Spec("REL-070")]
    public async Task Endless_data_of_other_things_costs_no_bytes()
    {
        var copies = Copies(0);
        Offer(copies);
        using var reader = new ReleaseReader(index, cache, origin);
        List<(string, int, int)> lies = [.. Enumerable.Range(0, 1000).Select(number => ($"{number:x32}", 32, 262_160)), (index.Segments[0].Name, 33, 5000)];
        await reader.FillAsync(Pack, Before, [.. lies], TestContext.Current.CancellationToken);
        Assert.Equal((0, 0L), (origin.Requests, reader.Statistics.FetchedBytes));
    }

    [Fact]
    [Spec("REL-072")]
    public async Task What_is_read_while_the_pack_does_not_come_is_asked_for_alone()
    {
        var copies = Copies(0, 4, 8, 12);
        var stuck = new StuckPack(origin, Pack);
        using var reader = new ReleaseReader(index, cache, stuck);
        using var stop = new CancellationTokenSource();
        var filling = reader.FillAsync(Pack, Before, copies, stop.Token);
        await using var volume = new ReleaseVolume(reader, "system");
        var bytes = new byte[16 * 4096];
        await volume.ReadAsync(0, bytes, TestContext.Current.CancellationToken);
        Assert.Equal(content[..bytes.Length], bytes);
        Assert.False(filling.IsCompleted);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => filling);
    }

    [Fact]
    public async Task What_the_pack_is_bringing_is_not_asked_for_twice()
    {
        var copies = Copies(0, 4, 8, 12);
        Offer(copies);
        var answer = new TaskCompletionSource();
        origin.Wait = answer.Task;
        using var reader = new ReleaseReader(index, cache, origin);
        var filling = reader.FillAsync(Pack, Before, copies, TestContext.Current.CancellationToken);
        await using var volume = new ReleaseVolume(reader, "system");
        var bytes = new byte[16 * 4096];
        var reading = volume.ReadAsync(0, bytes, TestContext.Current.CancellationToken).AsTask();
        answer.SetResult();
        await Task.WhenAll(filling, reading);
        Assert.Equal(1, origin.Requests);
        Assert.Equal(content[..bytes.Length], bytes);
    }

    [Fact]
    public async Task A_pack_that_is_shorter_than_it_says_is_truncated_and_the_release_is_read_without_it()
    {
        var copies = Copies(0, 4, 8, 12);
        origin.Segments[Pack] = Offer(copies)[..(Before + 100)];
        using var reader = new ReleaseReader(index, cache, new Shortening(origin));
        Assert.Equal(VolumeErrorKind.Truncated, (await Assert.ThrowsAsync<VolumeException>(() => reader.FillAsync(Pack, Before, copies, TestContext.Current.CancellationToken))).Kind);
        Assert.Equal(content, await reader.ReadAllAsync("system", 1 << 30, TestContext.Current.CancellationToken));
    }

    private ReleaseChunk At(int block) => index["system"].Chunks.Single(chunk => chunk.Start <= block * 4096 && block * 4096 < chunk.Start + chunk.Length);

    private bool IsStored(int block) => At(block).Segment >= 0;

    private (string Segment, int Offset, int Length)[] Copies(params int[] blocks) =>
        [.. blocks.Select(At).Select(chunk => (index.Segments[chunk.Segment].Name, chunk.Offset, chunk.StoredLength)).Distinct()];

    /// <summary>Puts the pack at the origin.</summary>
    private byte[] Offer((string Segment, int Offset, int Length)[] copies) =>
        origin.Segments[Pack] = [.. new byte[Before], .. copies.SelectMany(copy => origin.Segments[copy.Segment].AsSpan(copy.Offset, copy.Length).ToArray())];

    private sealed class StuckPack(MemoryOrigin origin, string pack) : ISegmentOrigin
    {
        public async ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken)
        {
            if (range.Segment == pack)
            {
                await Task.Delay(Timeout.Infinite, cancellationToken);
            }

            await origin.ReadAsync(range, cancellationToken);
        }
    }

    private sealed class Shortening(MemoryOrigin origin) : ISegmentOrigin
    {
        public ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken) =>
            origin.Segments[range.Segment].Length < range.Offset + range.Missing.Length
                ? throw new VolumeException(VolumeErrorKind.Truncated, range.Segment)
                : origin.ReadAsync(range, cancellationToken);
    }
}
