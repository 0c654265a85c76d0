using System.Security.Cryptography;
using Nacre.Testing;
using Nacre.Volumes.Releases;
using Xunit;

namespace Nacre.Volumes.Tests.Releases;

public sealed class DeltaTests : IDisposable
{
    private const int Block = 4096;
    private static readonly string OldName = new('a', 32);
    private static readonly string NewName = new('b', 32);
    private static readonly byte[] ReleaseKey = SHA256.HashData("the new release"u8);

    private readonly TemporaryDirectory folder = new();
    private readonly PublisherKeys keys = new(SHA256.HashData("an organisation"u8));
    private readonly MemoryOrigin origin = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => folder.Dispose();

    [Theory]
    [Spec("REL-061", "REL-064")]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public async Task A_release_put_together_from_a_delta_is_the_release_bit_for_bit_and_took_fewer_bytes(int seed)
    {
        var random = new Random(seed);
        var pair = await PublishAsync(Text(random, 600), content => Edit(random, content));
        using (var device = await Device.CreateAsync(this, pair))
        {
            var delta = device.Delta(pair);
            var missing = device.New.Statistics.TotalBytes - device.New.Statistics.PresentBytes;
            Assert.InRange(delta.Bytes, 1, delta.ReplacedBytes - 1);
            await delta.ApplyAsync(null, Token);
            Assert.Null(delta.Failure);
            Assert.Equal(delta.Bytes, device.New.Statistics.FetchedBytes);
            Assert.Equal(missing - delta.ReplacedBytes, device.New.Statistics.TotalBytes - device.New.Statistics.PresentBytes);
            await device.New.EnsureAllAsync(null, Token);
            Assert.Equal(delta.Bytes + missing - delta.ReplacedBytes, device.New.Statistics.FetchedBytes);
            Assert.True(Same(pair.NewContent, await device.New.ReadAllAsync("system", 1 << 30, Token)));
        }

        // What a delta left is found again, without an origin, by whatever release refers to it.
        using var cache = new SegmentCache(folder["device"]);
        using var again = new ReleaseReader(pair.New, cache, new MemoryOrigin());
        Assert.Equal(again.Statistics.TotalBytes, again.Statistics.PresentBytes);
        Assert.True(Same(pair.NewContent, await again.ReadAllAsync("system", 1 << 30, Token)));
    }

    [Fact]
    [Spec("REL-063", "REL-065")]
    public async Task A_flipped_bit_anywhere_in_a_part_is_noticed_and_whole_chunks_come_instead()
    {
        var pair = await PublishAsync(Text(new Random(5), 200), content => Edit(new Random(6), content));
        var part = pair.Files[0];
        var whole = origin.Segments[part.Name];
        for (var at = 0; at < whole.Length; at += Math.Max(1, whole.Length / 40))
        {
            var flipped = whole.ToArray();
            flipped[at] ^= 1;
            origin.Segments[part.Name] = flipped;
            using var device = await Device.CreateAsync(this, pair, $"flip{at}");
            var before = device.New.Statistics.PresentBytes;

            // As the signed hash finds it; and as the seal does where whoever signed named these very bytes.
            foreach (var files in new[] { pair.Files, [part with { Sha256 = Convert.ToHexStringLower(SHA256.HashData(flipped)) }, .. pair.Files.Skip(1)] })
            {
                var delta = new DeltaReader(device.Old, device.New, pair.Plan, [.. files], ReleaseKey, origin);
                await delta.ApplyAsync(null, Token);
                Assert.NotNull(delta.Failure);
                Assert.Equal(before, device.New.Statistics.PresentBytes);
            }

            await device.New.EnsureAllAsync(null, Token);
            Assert.True(Same(pair.NewContent, await device.New.ReadAllAsync("system", 1 << 30, Token)));
        }
    }

    [Fact]
    [Spec("REL-062")]
    public async Task A_flipped_bit_anywhere_in_a_plan_is_named()
    {
        var pair = await PublishAsync(Text(new Random(7), 100), content => Edit(new Random(8), content));
        var bytes = pair.Plan.Seal(ReleaseKey);
        Assert.Equal(pair.Plan.Parts.Count, Open(bytes).Parts.Count);
        for (var at = 0; at < bytes.Length; at++)
        {
            var flipped = bytes.ToArray();
            flipped[at] ^= 1;
            var refused = Assert.Throws<VolumeException>(() => Open(flipped));
            Assert.Equal(at < 8 ? VolumeErrorKind.Corrupt : at < 12 ? VolumeErrorKind.Unsupported : VolumeErrorKind.NotAuthentic, refused.Kind);
        }

        Assert.Equal(VolumeErrorKind.Truncated, Assert.Throws<VolumeException>(() => Open(bytes.AsSpan(0, 30))).Kind);
        Assert.Equal(VolumeErrorKind.NotAuthentic, Assert.Throws<VolumeException>(() => DeltaPlan.Open(bytes, new byte[32], (pair.Old, OldName), (pair.New, NewName))).Kind);

        DeltaPlan Open(ReadOnlySpan<byte> untrusted) => DeltaPlan.Open(untrusted, ReleaseKey, (pair.Old, OldName), (pair.New, NewName));
    }

    [Fact]
    [Spec("REL-062")]
    public async Task A_delta_for_another_pair_of_releases_is_refused()
    {
        var pair = await PublishAsync(Text(new Random(9), 100), content => Edit(new Random(10), content));
        var bytes = pair.Plan.Seal(ReleaseKey);
        foreach (var (from, to) in new[] { (NewName, NewName), (OldName, OldName), (NewName, OldName) })
        {
            var refused = Assert.Throws<VolumeException>(() => DeltaPlan.Open(bytes, ReleaseKey, (pair.Old, from), (pair.New, to)));
            Assert.Equal(VolumeErrorKind.Corrupt, refused.Kind);
        }
    }

    [Fact]
    [Spec("REL-062")]
    public async Task Claims_out_of_bounds_are_refused_before_anything_is_fetched()
    {
        var pair = await PublishAsync(Text(new Random(11), 100), content => Edit(new Random(12), content));
        var part = pair.Plan.Parts[0];
        var many = Enumerable.Repeat(0, (DeltaPlan.MaxBaseBytes / (4 * Block)) + 1).ToArray();
        DeltaPart[][] claims =
        [
            [part with { Bases = many }],
            [part with { Bases = [pair.Old.Stored.Count] }],
            [part with { Bases = [-1] }],
            [part with { Bases = [int.MaxValue - 1] }],
            [part with { Targets = [.. part.Targets.Skip(1), pair.New.Stored.Count] }],
            [part with { Targets = [.. part.Targets.Skip(1), part.Targets[^1]] }],
            [part, part],
            [part with { Tags = part.Tags[..^1] }],
            [part with { Tags = new byte[part.Tags.Length + 1] }],
        ];
        Assert.All(claims, claim => Assert.Equal(
            VolumeErrorKind.Corrupt,
            Assert.Throws<VolumeException>(() => DeltaPlan.Open(new DeltaPlan(OldName, NewName, claim).Seal(ReleaseKey), ReleaseKey, (pair.Old, OldName), (pair.New, NewName))).Kind));

        using var device = await Device.CreateAsync(this, pair);
        var requests = origin.Requests;
        foreach (var files in new IReadOnlyList<DeltaFile>[] { [], [pair.Files[0] with { Length = long.MaxValue }], [pair.Files[0] with { Length = 0 }], [pair.Files[0] with { Length = -1 }] })
        {
            Assert.Throws<VolumeException>(() => new DeltaReader(device.Old, device.New, pair.Plan, files, ReleaseKey, origin));
        }

        Assert.Equal(requests, origin.Requests);
    }

    [Fact]
    [Spec("REL-064")]
    public async Task A_frame_of_other_content_or_of_another_length_leaves_nothing_in_the_cache()
    {
        var pair = await PublishAsync(Text(new Random(13), 100), content => Edit(new Random(14), content));
        var length = pair.Plan.Parts[0].Targets.Sum(number => pair.New.Stored[number].Length);
        byte[][] contents = [new byte[length], RandomNumberGenerator.GetBytes(length), new byte[length - 1], new byte[64 << 20], []];
        var hostile = contents.Select(content => Frame(content)).Append("no frame"u8.ToArray()).ToArray();
        foreach (var frame in hostile)
        {
            var bytes = DeltaPlan.SealPart(ReleaseKey, frame);
            using var device = await Device.CreateAsync(this, pair, Guid.NewGuid().ToString("N"));
            var before = device.New.Statistics.PresentBytes;
            var name = Convert.ToHexStringLower(SHA256.HashData(bytes));
            origin.Segments[name] = bytes;
            var file = new DeltaFile(name, bytes.Length, name);
            var delta = new DeltaReader(device.Old, device.New, pair.Plan, [file, .. pair.Files.Skip(1)], ReleaseKey, origin);
            if (delta.Bytes > 0)
            {
                await delta.ApplyAsync(null, Token);
                Assert.NotNull(delta.Failure);
            }

            Assert.Equal(before, device.New.Statistics.PresentBytes);
        }

        static byte[] Frame(byte[] content)
        {
            using var compressor = new ZstdSharp.Compressor(3);
            return compressor.Wrap(content).ToArray();
        }
    }

    [Fact]
    [Spec("REL-065")]
    public async Task An_old_release_that_is_damaged_or_gone_and_an_origin_without_the_part_only_cost_bytes()
    {
        var pair = await PublishAsync(Text(new Random(15), 100), content => Edit(new Random(16), content));
        using (var device = await Device.CreateAsync(this, pair, "damaged"))
        {
            var delta = device.Delta(pair);
            var damaged = Path.Combine(folder["damaged"], pair.Old.Segments[0].Name);
            using (var file = File.OpenHandle(damaged, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
            {
                foreach (var number in pair.Plan.Parts[0].Bases)
                {
                    RandomAccess.Write(file, [0xff, 0xff], pair.Old.Stored[number].Offset);
                }
            }

            await delta.ApplyAsync(null, Token);
            Assert.Equal(VolumeErrorKind.NotAuthentic, delta.Failure?.Kind);
            await device.New.EnsureAllAsync(null, Token);
            Assert.True(Same(pair.NewContent, await device.New.ReadAllAsync("system", 1 << 30, Token)));
        }

        using (var cache = new SegmentCache(folder["empty"]))
        {
            using var old = new ReleaseReader(pair.Old, cache, origin);
            using var empty = new ReleaseReader(pair.New, cache, origin);
            Assert.Equal(0, new DeltaReader(old, empty, pair.Plan, pair.Files, ReleaseKey, origin).Bytes);
        }

        using (var device = await Device.CreateAsync(this, pair, "away"))
        {
            var delta = device.Delta(pair);
            origin.FailuresLeft = 1;
            await delta.ApplyAsync(null, Token);
            Assert.Equal(VolumeErrorKind.Io, delta.Failure?.Kind);
            await device.New.EnsureAllAsync(null, Token);
            Assert.True(Same(pair.NewContent, await device.New.ReadAllAsync("system", 1 << 30, Token)));
        }
    }

    [Fact]
    [Spec("REL-061")]
    public async Task A_part_that_is_longer_than_what_is_missing_is_not_fetched()
    {
        var pair = await PublishAsync(Text(new Random(17), 100), content => Edit(new Random(18), content));
        using var device = await Device.CreateAsync(this, pair);
        await device.New.EnsureAllAsync(null, Token);
        Assert.Equal(0, device.Delta(pair).Bytes);
        Assert.Equal(0, device.Delta(pair).ReplacedBytes);
    }

    [Fact]
    [Spec("REL-006", "REL-066")]
    public async Task A_chunk_that_a_delta_left_is_verified_each_time_and_lies_in_the_cache_as_ciphertext()
    {
        var pair = await PublishAsync(Text(new Random(19), 100), content => Edit(new Random(20), content));
        using (var device = await Device.CreateAsync(this, pair))
        {
            await device.Delta(pair).ApplyAsync(null, Token);
        }

        var chunk = pair.New.Stored[pair.Plan.Parts[0].Targets[0]];
        var path = Path.Combine(folder["device"], pair.New.Segments[chunk.Segment].Name);
        var place = SegmentFormat.PlainPlace(chunk.Ordinal);
        var plain = pair.NewContent.AsSpan((int)chunk.Start, chunk.Length).ToArray();
        using (var file = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite))
        {
            var kept = new byte[chunk.Length];
            RandomAccess.Read(file, kept, place);
            Assert.True(kept.AsSpan().IndexOf(plain.AsSpan(0, 32)) < 0);
            Assert.True(kept.AsSpan().ContainsAnyExcept((byte)0));
            RandomAccess.Write(file, [(byte)(kept[7] ^ 1)], place + 7);
        }

        using var cache = new SegmentCache(folder["device"]);
        using var reader = new ReleaseReader(pair.New, cache, origin);
        var requests = origin.Requests;
        var read = await reader.ReadChunkAsync(chunk, Token);
        Assert.True(plain.AsSpan().SequenceEqual(read));
        Assert.Equal(requests + 1, origin.Requests);
    }

    private static bool Same(byte[] expected, byte[] actual) => expected.AsSpan().SequenceEqual(actual);

    /// <summary>Blocks of words, as programs have them: compressible, and no two alike.</summary>
    private static byte[] Text(Random random, int blocks)
    {
        var words = Enumerable.Range(0, 4000).Select(_ => { var word = new byte[random.Next(3, 20)]; random.NextBytes(word); return word; }).ToArray();
        var content = new byte[blocks * Block];
        for (var at = 0; at < content.Length;)
        {
            var word = words[random.Next(words.Length)];
            var length = Math.Min(word.Length, content.Length - at);
            word.AsSpan(0, length).CopyTo(content.AsSpan(at));
            at += length;
        }

        return content;
    }

    /// <summary>What a new version changes: addresses here and there, some new text, something removed, something moved.</summary>
    private static byte[] Edit(Random random, byte[] content)
    {
        var result = content.ToList();
        for (var i = 0; i < content.Length; i += random.Next(200, 3 * Block))
        {
            result[i] = (byte)random.Next(256);
        }

        result.RemoveRange(random.Next(result.Count / 2), Block + random.Next(Block));
        result.InsertRange(random.Next(result.Count / 2), Text(random, 2));
        while (result.Count % Block != 0)
        {
            result.Add(0);
        }

        // The end stays as it was: there is something that both have.
        return [.. result.Take(result.Count / Block / 4 * 4 * Block), .. content.AsSpan(content.Length / 2 / (4 * Block) * 4 * Block)];
    }

    private async Task<Pair> PublishAsync(byte[] oldContent, Func<byte[], byte[]> edit)
    {
        var known = new Dictionary<UInt128, ChunkPlace>();
        var old = TestRelease.Publish(keys, origin, oldContent, known);
        var newContent = edit(oldContent);
        var next = TestRelease.Publish(keys, origin, newContent, known);
        using var cache = new SegmentCache(folder["publisher" + origin.Segments.Count]);
        using var from = new ReleaseReader(old, cache, origin);
        var files = new List<DeltaFile>();
        var builder = new DeltaBuilder(from, next, (_, chunk, destination) => newContent.AsSpan((int)chunk.Start, chunk.Length).CopyTo(destination), ReleaseKey);
        var parts = await builder.BuildAsync(
            (file, _) =>
            {
                var hash = Convert.ToHexStringLower(SHA256.HashData(file.Span));
                origin.Segments[hash[..32]] = file.ToArray();
                files.Add(new DeltaFile(hash[..32], file.Length, hash));
                return Task.CompletedTask;
            },
            null, Token);
        Assert.NotEmpty(parts);
        var plan = DeltaPlan.Open(new DeltaPlan(OldName, NewName, parts).Seal(ReleaseKey), ReleaseKey, (old, OldName), (next, NewName));
        return new Pair(old, next, newContent, plan, files);
    }

    private sealed record Pair(ReleaseIndex Old, ReleaseIndex New, byte[] NewContent, DeltaPlan Plan, IReadOnlyList<DeltaFile> Files);

    /// <summary>A device that has the old release.</summary>
    private sealed class Device : IDisposable
    {
        private readonly MemoryOrigin origin;
        private readonly SegmentCache cache;

        private Device(DeltaTests test, Pair pair, string name)
        {
            origin = test.origin;
            cache = new SegmentCache(test.folder[name]);
            Old = new ReleaseReader(pair.Old, cache, origin);
            New = new ReleaseReader(pair.New, cache, origin);
        }

        public ReleaseReader Old { get; }

        public ReleaseReader New { get; private set; }

        public static async Task<Device> CreateAsync(DeltaTests test, Pair pair, string name = "device")
        {
            var device = new Device(test, pair, name);
            await device.Old.EnsureAllAsync(null, Token);
            device.New = new ReleaseReader(pair.New, device.cache, test.origin);
            return device;
        }

        public DeltaReader Delta(Pair pair) => new(Old, New, pair.Plan, pair.Files, ReleaseKey, origin);

        public void Dispose()
        {
            Old.Dispose();
            New.Dispose();
            cache.Dispose();
        }
    }
}
