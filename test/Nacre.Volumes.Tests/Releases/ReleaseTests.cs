using System.Security.Cryptography;
using System.Text;
using Nacre.Testing;
using Nacre.Volumes.Releases;
using Xunit;
using static Nacre.Volumes.Tests.Releases.TestRelease;

namespace Nacre.Volumes.Tests.Releases;

public sealed class ReleaseTests : IDisposable
{
    private const string Canary = "canary-of-the-release-0123456789";
    private readonly TemporaryDirectory folder = new();
    private readonly PublisherKeys keys = new(SHA256.HashData("an organisation"u8));
    private readonly MemoryOrigin origin = new();
    private readonly byte[] releaseKey = SHA256.HashData("a release"u8);

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task What_was_published_is_read_back_whole_and_in_parts()
    {
        var content = Content(300 * 4096);
        using var cache = new SegmentCache(folder.Path);
        using var reader = new ReleaseReader(Publish(content), cache, origin);
        await using var volume = new ReleaseVolume(reader, "system");
        Assert.Equal(content.Length, volume.Size);
        var random = new Random(7);
        foreach (var length in new[] { 0, 1, 511, 4096, 65536, 300_000, content.Length })
        {
            var offset = random.Next(content.Length - length + 1);
            var bytes = new byte[length];
            await volume.ReadAsync(offset, bytes, TestContext.Current.CancellationToken);
            Assert.Equal(content[offset..(offset + length)], bytes);
        }

        Assert.Equal(content, await reader.ReadAllAsync("system", 1 << 30, TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task Only_the_chunks_that_are_read_are_fetched_and_each_once()
    {
        var content = Content(300 * 4096);
        using var cache = new SegmentCache(folder.Path);
        using var reader = new ReleaseReader(Publish(content), cache, origin);
        await using var volume = new ReleaseVolume(reader, "system");
        var bytes = new byte[4096];
        await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => volume.ReadAsync(0, new byte[4096], TestContext.Current.CancellationToken).AsTask()));
        Assert.Equal(1, origin.Requests);
        await reader.EnsureAllAsync(null, TestContext.Current.CancellationToken);
        var requests = origin.Requests;
        using var again = new ReleaseReader(reader.Index, cache, origin);
        await using var second = new ReleaseVolume(again, "system");
        await second.ReadAsync(content.Length - 4096, bytes, TestContext.Current.CancellationToken);
        await again.EnsureAllAsync(null, TestContext.Current.CancellationToken);
        Assert.Equal(requests, origin.Requests);
        Assert.Equal(again.Statistics.TotalBytes, again.Statistics.PresentBytes);
    }

    [Fact]
    [Spec("REL-040")]
    public async Task A_flipped_bit_anywhere_in_a_served_chunk_is_not_authentic_and_is_not_kept()
    {
        var content = Content(40 * 4096);
        var index = Publish(content);
        var places = index["system"].Chunks.Where(chunk => chunk.Segment >= 0).ToArray();
        Assert.True(places.Length > 3);
        foreach (var chunk in places)
        {
            foreach (var position in new[] { chunk.Offset, chunk.Offset + (chunk.StoredLength / 2), chunk.Offset + chunk.StoredLength - 1 })
            {
                using var fresh = new TemporaryDirectory();
                using var cache = new SegmentCache(fresh.Path);
                using var reader = new ReleaseReader(index, cache, origin);
                await using var volume = new ReleaseVolume(reader, "system");
                var bytes = origin.Segments[index.Segments[chunk.Segment].Name];
                bytes[position] ^= 0x10;
                var failure = await Assert.ThrowsAsync<VolumeException>(async () => await volume.ReadAsync(chunk.Start, new byte[1], TestContext.Current.CancellationToken));
                Assert.Equal(VolumeErrorKind.NotAuthentic, failure.Kind);
                Assert.Equal(VolumeErrorKind.NotAuthentic, reader.Failure!.Kind);
                Assert.Equal(0, reader.Statistics.PresentBytes);
                bytes[position] ^= 0x10;
                var mended = new byte[1];
                await volume.ReadAsync(chunk.Start, mended, TestContext.Current.CancellationToken);
                Assert.Equal(content[(int)chunk.Start], mended[0]);
                Assert.Null(reader.Failure);
            }
        }
    }

    [Fact]
    [Spec("REL-040")]
    public async Task Chunks_that_are_swapped_are_not_authentic()
    {
        var content = Content(80 * 4096);
        var index = Publish(content);
        var chunks = index["system"].Chunks.Where(chunk => chunk.Segment >= 0).ToArray();
        var swapped = chunks.Zip(chunks.Skip(1)).First(pair => pair.First.Length == pair.Second.Length);
        var artifact = new ReleaseArtifact("system", content.Length,
            [.. index["system"].Chunks.Select(chunk => chunk == swapped.First ? swapped.First with { Offset = swapped.Second.Offset, StoredLength = swapped.Second.StoredLength } : chunk)]);
        using var cache = new SegmentCache(folder.Path);
        using var reader = new ReleaseReader(new ReleaseIndex(index.Segments, [artifact]), cache, origin);
        await using var volume = new ReleaseVolume(reader, "system");
        var failure = await Assert.ThrowsAsync<VolumeException>(async () => await volume.ReadAsync(swapped.First.Start, new byte[1], TestContext.Current.CancellationToken));
        Assert.Equal(VolumeErrorKind.NotAuthentic, failure.Kind);
    }

    [Fact]
    [Spec("REL-041")]
    public async Task Damage_in_the_cache_is_fetched_again()
    {
        var content = Content(100 * 4096);
        var index = Publish(content);
        using (var cache = new SegmentCache(folder.Path))
        using (var reader = new ReleaseReader(index, cache, origin))
        {
            await reader.EnsureAllAsync(null, TestContext.Current.CancellationToken);
        }

        foreach (var file in Directory.GetFiles(folder.Path))
        {
            var bytes = File.ReadAllBytes(file);
            for (var i = 100; i < bytes.Length; i += 1000)
            {
                bytes[i] ^= 1;
            }

            File.WriteAllBytes(file, bytes);
        }

        using (var cache = new SegmentCache(folder.Path))
        using (var reader = new ReleaseReader(index, cache, origin))
        {
            Assert.Equal(content, await reader.ReadAllAsync("system", 1 << 30, TestContext.Current.CancellationToken));
        }
    }

    [Fact]
    [Spec("REL-043")]
    public async Task A_reader_waits_while_the_origin_is_away_and_goes_on_when_it_is_back()
    {
        using var cache = new SegmentCache(folder.Path);
        var content = Content(20 * 4096);
        using var reader = new ReleaseReader(Publish(content), cache, origin);
        await using var volume = new ReleaseVolume(reader, "system");
        origin.FailuresLeft = 2;
        var bytes = new byte[4096];
        await volume.ReadAsync(0, bytes, TestContext.Current.CancellationToken);
        Assert.Equal(content[..4096], bytes);
        Assert.Equal(0, origin.FailuresLeft);
    }

    [Fact]
    public async Task A_full_disk_does_not_stop_reading_but_completing_says_so()
    {
        var content = Content(20 * 4096);
        var index = Publish(content);
        using var cache = new SegmentCache(folder["cache"]);
        foreach (var segment in index.Segments)
        {
            // A device that is always full stands where the cache's file would.
            File.CreateSymbolicLink(Path.Combine(folder["cache"], segment.Name), "/dev/full");
        }

        using var reader = new ReleaseReader(index, cache, origin);
        await using var volume = new ReleaseVolume(reader, "system");
        var bytes = new byte[4096];
        await volume.ReadAsync(0, bytes, TestContext.Current.CancellationToken);
        Assert.Equal(content[..4096], bytes);
        var failure = await Assert.ThrowsAsync<VolumeException>(() => reader.EnsureAllAsync(null, TestContext.Current.CancellationToken));
        Assert.Equal(VolumeErrorKind.NoSpace, failure.Kind);
    }

    [Fact]
    public async Task Neither_the_segments_nor_the_cache_nor_the_index_hold_plain_content()
    {
        var content = Content(100 * 4096);
        Encoding.ASCII.GetBytes(Canary).CopyTo(content, 50 * 4096);
        var index = Publish(content);
        using var cache = new SegmentCache(folder.Path);
        using var reader = new ReleaseReader(index, cache, origin);
        await reader.EnsureAllAsync(null, TestContext.Current.CancellationToken);
        var canary = Encoding.ASCII.GetBytes(Canary);
        Assert.All(origin.Segments.Values.Concat(Directory.GetFiles(folder.Path).Select(File.ReadAllBytes)).Append(index.Seal(releaseKey)),
            bytes => Assert.Equal(-1, bytes.AsSpan().IndexOf(canary)));
    }

    [Fact]
    [Spec("REL-001", "REL-002")]
    public void The_same_chunks_give_the_same_segment_and_another_organisation_another()
    {
        var content = Content(10 * 4096);
        Publish(content);
        var names = origin.Segments.Keys.Order().ToArray();
        Publish(content);
        Assert.Equal<IEnumerable<string>>(names, origin.Segments.Keys.Order());
        var other = new PublisherKeys(SHA256.HashData("another organisation"u8));
        Assert.NotEqual(keys.NameChunk(content), other.NameChunk(content));
    }

    [Fact]
    [Spec("REL-020", "REL-021", "REL-022")]
    public void An_index_survives_sealing()
    {
        var index = Publish(Content(300 * 4096));
        var opened = ReleaseIndex.Open(index.Seal(releaseKey), releaseKey);
        Assert.Equal(index["system"].Chunks, opened["system"].Chunks);
        Assert.Equal(index.Segments.Select(segment => (segment.Name, segment.Length, Convert.ToHexString(segment.Key.Span))),
            opened.Segments.Select(segment => (segment.Name, segment.Length, Convert.ToHexString(segment.Key.Span))));
    }

    [Fact]
    public void A_flipped_bit_anywhere_in_an_index_is_named()
    {
        var bytes = Publish(Content(10 * 4096)).Seal(releaseKey);
        for (var i = 0; i < bytes.Length; i++)
        {
            bytes[i] ^= 1;
            var failure = Assert.Throws<VolumeException>(() => ReleaseIndex.Open(bytes, releaseKey));
            Assert.Equal(i < 8 ? VolumeErrorKind.Corrupt : i < 12 ? VolumeErrorKind.Unsupported : VolumeErrorKind.NotAuthentic, failure.Kind);
            bytes[i] ^= 1;
        }

        Assert.Equal(VolumeErrorKind.Truncated, Assert.Throws<VolumeException>(() => ReleaseIndex.Open(bytes.AsSpan(0, 20), releaseKey)).Kind);
        Assert.Equal(VolumeErrorKind.NotAuthentic, Assert.Throws<VolumeException>(() => ReleaseIndex.Open(bytes.AsSpan(0, bytes.Length - 1), releaseKey)).Kind);
        Assert.Equal(VolumeErrorKind.NotAuthentic, Assert.Throws<VolumeException>(() => ReleaseIndex.Open(bytes, new byte[32])).Kind);
    }

    [Fact]
    [Spec("REL-023")]
    public void An_authentic_index_that_contradicts_itself_is_corrupt()
    {
        var index = Publish(Content(30 * 4096));
        var chunks = index["system"].Chunks;
        ReleaseIndex With(IEnumerable<ReleaseChunk> changed, long size) => new(index.Segments, [new ReleaseArtifact("system", size, [.. changed])]);
        var size = index["system"].Size;
        ReleaseIndex[] bad =
        [
            With(chunks, size + 4096),
            With(chunks.Skip(1), size),
            With(chunks.Select(chunk => chunk with { Segment = 99 }), size),
            With(chunks.Select(chunk => chunk with { Offset = 40_000_000 }), size),
            With(chunks.Select(chunk => chunk with { Offset = 1 }), size),
            With(chunks.Select(chunk => chunk with { StoredLength = 3 }), size),
            With(chunks.Select(chunk => chunk with { Length = 1 << 20 }), size),
            With(chunks.Select(chunk => chunk with { Compressed = false }), size),
        ];
        Assert.All(bad, each => Assert.Equal(VolumeErrorKind.Corrupt, Assert.Throws<VolumeException>(() => ReleaseIndex.Open(each.Seal(releaseKey), releaseKey)).Kind));
    }

    [Fact]
    public void A_catalogue_opens_for_its_organisation_only()
    {
        Publish(Content(100 * 4096));
        var (name, bytes) = origin.Segments.First();
        var tail = bytes.AsSpan(bytes.Length - SegmentCatalogue.TailLength(bytes.AsSpan(bytes.Length - SegmentCatalogue.TrailerLength), bytes.Length));
        Assert.NotEmpty(SegmentCatalogue.Parse(keys, name, tail));
        var other = new PublisherKeys(SHA256.HashData("another organisation"u8));
        var copy = tail.ToArray();
        Assert.Equal(VolumeErrorKind.NotAuthentic, Assert.Throws<VolumeException>(() => SegmentCatalogue.Parse(other, name, copy)).Kind);
    }

    private ReleaseIndex Publish(byte[] content) => TestRelease.Publish(keys, origin, content);
}
