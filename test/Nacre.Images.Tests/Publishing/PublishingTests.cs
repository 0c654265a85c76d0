using System.Collections.Concurrent;
using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Images.Publishing;
using Nacre.Testing;
using Nacre.Volumes.Releases;
using Xunit;

namespace Nacre.Images.Tests.Publishing;

public sealed class PublishingTests : IDisposable
{
    private readonly TemporaryDirectory folder = new();
    private readonly PublisherKeys keys = new(SHA256.HashData("an organisation"u8));
    private readonly ECDsa signingKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
    private readonly MemoryStore store = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        signingKey.Dispose();
        folder.Dispose();
    }

    [Fact]
    public async Task A_published_image_is_read_back_bit_for_bit()
    {
        var image = Image("disk", Content(40_000_000, 1), [1, 2, 3], new byte[5000]);
        await Publisher().PublishAsync(image, true, null, Token);
        using var reader = Open(store.Releases[0]);
        foreach (var artifact in image.Artifacts)
        {
            var expected = await File.ReadAllBytesAsync(artifact.Path, Token);
            var read = await reader.ReadAllAsync(artifact.Name, 1 << 30, Token);
            Assert.True(expected.AsSpan().SequenceEqual(read), artifact.Name);
        }
    }

    [Fact]
    [Spec("REL-011", "REL-013")]
    public async Task A_chunk_is_compressed_only_where_that_is_smaller()
    {
        var random = new byte[9_000_000];
        new Random(8).NextBytes(random);
        var image = Image("disk", [.. random, .. Enumerable.Range(0, 9_000_000).Select(i => (byte)(i / 5000))], [1], [2]);
        await Publisher().PublishAsync(image, true, null, Token);
        using var reader = Open(store.Releases[0]);
        var chunks = reader.Index["system"].Chunks.Where(chunk => chunk.Segment >= 0).ToArray();
        Assert.Contains(chunks, chunk => chunk.Compressed);
        Assert.Contains(chunks, chunk => !chunk.Compressed);
        Assert.All(chunks, chunk => Assert.True(chunk.Compressed ? chunk.StoredLength - 16 < chunk.Length : chunk.StoredLength - 16 == chunk.Length));
        Assert.All(store.Segments.Values, segment => Assert.InRange(segment.Length, 1, 32 << 20));
    }

    [Fact]
    public async Task An_empty_artifact_and_one_of_zeroes_only_are_published()
    {
        var image = Image("disk", new byte[70_000_000], [], [7]);
        await Publisher().PublishAsync(image, true, null, Token);
        using var reader = Open(store.Releases[0]);
        Assert.Equal(70_000_000, (await reader.ReadAllAsync("system", 1 << 30, Token)).Length);
        Assert.Empty(await reader.ReadAllAsync("kernel", 1 << 30, Token));
        Assert.True(store.Segments.Values.Sum(segment => segment.Length) < 100_000);
    }

    [Fact]
    public async Task The_next_release_uploads_only_what_changed()
    {
        var content = Content(30_000_000, 2);
        var first = await Publisher().PublishAsync(Image("disk", content, [1], [2]), true, null, Token);
        // Four blocks are inserted near the beginning: everything behind moves.
        byte[] changed = [.. content.AsSpan(0, 1_003_520), .. Content(16_384, 3), .. content.AsSpan(1_003_520)];
        var second = await Publisher().PublishAsync(Image("disk", changed, [1], [2]), true, null, Token);
        Assert.Equal(2, second.Release.Version);
        Assert.InRange(second.UploadedBytes, 1, first.UploadedBytes / 20);
        using var reader = Open(store.Releases[1]);
        var read = await reader.ReadAllAsync("system", 1 << 30, Token);
        Assert.True(changed.AsSpan().SequenceEqual(read));
    }

    [Fact]
    public async Task An_interrupted_publication_uploads_only_what_is_missing_when_it_is_run_again()
    {
        var image = Image("disk", Content(60_000_000, 4), [1], [2]);
        store.UploadsLeft = 3;
        var interrupted = await Assert.ThrowsAsync<NacreException>(() => Publisher().PublishAsync(image, true, null, Token));
        Assert.Equal(ErrorCatalogue.ServerUnreachable, interrupted.Kind);
        Assert.Empty(store.Releases);
        var before = store.Segments.Keys.ToHashSet();
        Assert.Equal(3, before.Count);
        store.UploadsLeft = int.MaxValue;
        store.Uploaded.Clear();
        await Publisher().PublishAsync(image, true, null, Token);
        Assert.Empty(store.Uploaded.Intersect(before));
        using var reader = Open(store.Releases[0]);
        Assert.Equal(60_000_000, (await reader.ReadAllAsync("system", 1 << 30, Token)).Length);
    }

    [Fact]
    [Spec("REL-002")]
    public async Task Two_publishers_with_the_same_inputs_make_the_same_segments()
    {
        var image = Image("disk", Content(20_000_000, 5), [1], [2]);
        await Publisher().PublishAsync(image, true, null, Token);
        var other = new MemoryStore();
        await new ReleasePublisher(other, keys, signingKey).PublishAsync(image, true, null, Token);
        var ours = Manifest(store.Releases[0]).Segments;
        Assert.Equal(ours, Manifest(other.Releases[0]).Segments);
        Assert.All(ours, segment => Assert.Equal(store.Segments[segment.Name], other.Segments[segment.Name]));
    }

    [Fact]
    [Spec("REL-005", "REL-060")]
    public async Task The_same_release_published_by_two_machines_is_the_same_release_bit_for_bit_before_encryption()
    {
        var first = Content(20_000_000, 21);
        byte[] second = [.. first.AsSpan(0, 5_000_000), .. Content(300_000, 22), .. first.AsSpan(5_000_000)];
        var other = new MemoryStore();
        foreach (var content in new[] { first, second })
        {
            var image = Image("disk", content, [1, 2, 3], [4, 5]);
            await Publisher().PublishAsync(image, true, null, Token);
            await new ReleasePublisher(other, new PublisherKeys(SHA256.HashData("an organisation"u8)), signingKey).PublishAsync(image, true, null, Token);
        }

        for (var number = 0; number < 2; number++)
        {
            var (ours, theirs) = (Manifest(store.Releases[number]), Manifest(other.Releases[number]));
            Assert.Equal(store.Keys[number + 1], other.Keys[number + 1]);
            Assert.Equal(ours.Segments, theirs.Segments);
            Assert.All(ours.Segments, segment => Assert.Equal(store.Segments[segment.Name], other.Segments[segment.Name]));
            var (mine, yours) = (Opened(store, ours), Opened(other, theirs));
            Assert.Equal(mine.Segments.Select(segment => (segment.Name, Convert.ToHexString(segment.Key.Span), segment.Length)), yours.Segments.Select(segment => (segment.Name, Convert.ToHexString(segment.Key.Span), segment.Length)));
            Assert.Equal(mine.Artifacts.SelectMany(artifact => artifact.Chunks), yours.Artifacts.SelectMany(artifact => artifact.Chunks));
            Assert.Equal((ours.Image, ours.Version, ours.Created, ours.Size, ours.Digest), (theirs.Image, theirs.Version, theirs.Created, theirs.Size, theirs.Digest));
            Assert.Equal(ours.Deltas?.Select(delta => (delta.From, Lengths(delta))), theirs.Deltas?.Select(delta => (delta.From, Lengths(delta))));
        }

        Assert.Equal(1, Assert.Single(Manifest(store.Releases[1]).Deltas!).From);
        Assert.NotEqual(store.Keys[1], store.Keys[2]);

        ReleaseIndex Opened(MemoryStore where, ReleaseManifest manifest) => ReleaseIndex.Open(where.Segments[manifest.Index.Name], keys.ReleaseKey(manifest.Image, manifest.Version));

        static string Lengths(ReleaseDelta delta) => string.Join(' ', delta.Parts.Select(part => part.Length));
    }

    [Fact]
    public async Task No_delta_is_made_where_none_is_wanted_or_the_earlier_release_can_not_be_opened()
    {
        var content = Content(5_000_000, 23);
        var first = await Publisher().PublishAsync(Image("disk", content, [1], [2]), true, null, Token);
        Assert.Empty(first.Deltas);
        content[1_000_000]++;
        var second = await Publisher().PublishAsync(Image("disk", content, [1], [2]), false, null, Token);
        Assert.Null(Manifest(second.Release).Deltas);

        // As it was published before keys followed from the secret.
        var manifest = Manifest(store.Releases[1]);
        var strange = ReleaseIndex.Open(store.Segments[manifest.Index.Name], keys.ReleaseKey("disk", 2)).Seal(RandomNumberGenerator.GetBytes(32));
        store.Segments[manifest.Index.Name] = strange;
        manifest = manifest with { Index = manifest.Index with { Sha256 = Convert.ToHexStringLower(SHA256.HashData(strange)), Length = strange.Length } };
        store.Releases[1] = store.Releases[1] with { Manifest = Jws.SignClaims(manifest, signingKey, ReleaseManifest.Type) };
        content[2_000_000]++;
        Assert.Empty((await Publisher().PublishAsync(Image("disk", content, [1], [2]), true, null, Token)).Deltas);
    }

    [Fact]
    public async Task A_store_that_lists_a_release_of_somebody_else_is_refused()
    {
        var image = Image("disk", Content(1_000_000, 6), [1], [2]);
        await Publisher().PublishAsync(image, true, null, Token);
        using var strange = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        store.Releases[0] = store.Releases[0] with { Manifest = Jws.SignClaims(Manifest(store.Releases[0]), strange, ReleaseManifest.Type) };
        var refused = await Assert.ThrowsAsync<NacreException>(() => Publisher().PublishAsync(image, true, null, Token));
        Assert.Equal(ErrorCatalogue.ReleaseNotAuthentic, refused.Kind);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void A_change_moves_only_the_cuts_around_it(int seed)
    {
        var content = Content(16_000_000, seed);
        var plain = Cuts(content);
        byte[] changed = [.. Content(4096, seed + 50), .. content];
        var shifted = Cuts(changed);
        Assert.InRange(plain.Intersect(shifted).Count(), plain.Distinct().Count() * 0.97, plain.Count);
        var lengths = plain.Select(cut => cut.Length).ToArray();
        Assert.InRange(lengths.Average() / 4096, 12, 20);
        Assert.True(lengths.Max() <= 64 * 4096);
    }

    private static List<string> Cuts(byte[] content)
    {
        var chunker = new Chunker(42);
        var cuts = new List<Chunker.Cut>();
        for (var start = 0; start + 4096 <= content.Length; start += 4096)
        {
            chunker.Add(content.AsSpan(start, 4096), cuts);
        }

        chunker.Finish(cuts);
        var result = new List<string>();
        var position = 0;
        foreach (var cut in cuts)
        {
            var length = Chunker.Bytes(cut.Blocks);
            result.Add(Convert.ToHexString(SHA256.HashData(content.AsSpan(position, length))).PadRight(length));
            position += length;
        }

        return result;
    }

    private static ReleaseManifest Manifest(Release release) => System.Text.Json.JsonSerializer.Deserialize<ReleaseManifest>(
        System.Buffers.Text.Base64Url.DecodeFromChars(release.Manifest.Split('.')[1]), ContractJson.Options)!;

    private static byte[] Content(int length, int seed)
    {
        var content = new byte[length];
        new Random(seed).NextBytes(content);
        for (var start = 100_000; start + 50_000 < length; start += 1_000_000)
        {
            content.AsSpan(start, 50_000).Clear();
        }

        return content;
    }

    private ReleasePublisher Publisher() => new(store, keys, signingKey);

    private ReleaseReader Open(Release release)
    {
        var manifest = Jws.VerifyClaims<ReleaseManifest>(release.Manifest, PublicKeys.From(signingKey), ErrorCatalogue.ReleaseNotAuthentic, ReleaseManifest.Type);
        var index = ReleaseIndex.Open(store.Segments[manifest.Index.Name], Convert.FromBase64String(store.Keys[release.Version]));
        return new ReleaseReader(index, new SegmentCache(folder["cache"]), store);
    }

    private GoldenImage Image(string name, byte[] system, byte[] kernel, byte[] initramfs) => new(name, 1_700_000_000, "quiet", [.. new[] { ("kernel", kernel), ("initramfs", initramfs), ("system", system) }.Select(file =>
    {
        File.WriteAllBytes(folder[file.Item1], file.Item2);
        return new GoldenArtifact(file.Item1, folder[file.Item1], file.Item2.Length);
    })]);

    private sealed class MemoryStore : IReleaseStore, ISegmentOrigin
    {
        public ConcurrentDictionary<string, byte[]> Segments { get; } = new();

        public List<Release> Releases { get; } = [];

        public Dictionary<int, string> Keys { get; } = [];

        public List<string> Uploaded { get; } = [];

        public int UploadsLeft { get; set; } = int.MaxValue;

        public Task<IReadOnlyList<Release>> ListReleasesAsync(CancellationToken cancellationToken) => Task.FromResult<IReadOnlyList<Release>>([.. Releases]);

        public Task<IReadOnlyList<string>> FindMissingSegmentsAsync(IReadOnlyList<string> names, CancellationToken cancellationToken) =>
            Task.FromResult<IReadOnlyList<string>>([.. names.Where(name => !Segments.ContainsKey(name))]);

        public Task UploadSegmentAsync(string name, ReadOnlyMemory<byte> content, CancellationToken cancellationToken)
        {
            if (UploadsLeft-- <= 0)
            {
                throw new NacreException(ErrorCatalogue.ServerUnreachable, "the server went away");
            }

            Uploaded.Add(name);
            Segments[name] = content.ToArray();
            return Task.CompletedTask;
        }

        public Task DownloadRangeAsync(string name, long offset, Memory<byte> destination, CancellationToken cancellationToken)
        {
            Segments[name].AsMemory((int)offset, destination.Length).CopyTo(destination);
            return Task.CompletedTask;
        }

        public Task<Release> PublishReleaseAsync(string image, PublishRelease release, CancellationToken cancellationToken)
        {
            var published = new Release(image, Releases.Count + 1, DateTimeOffset.UnixEpoch, 0, 0, [], release.Manifest);
            Assert.Equal(published.Version, Manifest(published).Version);
            Keys[published.Version] = release.ReleaseKey;
            Releases.Add(published);
            return Task.FromResult(published);
        }

        public async ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken)
        {
            await DownloadRangeAsync(range.Segment, range.Offset, range.Missing, cancellationToken);
            range.Advance(range.Missing.Length);
        }
    }
}
