using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Player.Releases;
using Nacre.Testing;
using Nacre.Volumes;
using Nacre.Volumes.Releases;
using Xunit;

namespace Nacre.Player.Tests;

[Collection("NACRE_HOME")]
public sealed class ReleaseOpenerTests : IDisposable
{
    private static readonly byte[] ReleaseKey = SHA256.HashData("a release"u8);
    private static readonly string SegmentName = new('a', 32);

    private readonly TemporaryDirectory folder = new();
    private readonly byte[] index = new ReleaseIndex([new ReleaseSegment(SegmentName, new byte[32], 1000)], []).Seal(ReleaseKey);

    public ReleaseOpenerTests() => Environment.SetEnvironmentVariable("NACRE_HOME", folder.Path);

    public void Dispose() => folder.Dispose();

    [Fact]
    [Spec("REL-030")]
    public async Task An_index_is_taken_only_if_the_manifest_vouches_for_it_and_for_every_segment_that_it_names()
    {
        using var cache = new SegmentCache(folder["segments"]);
        var manifest = new ReleaseManifest(
            1, "desk", 1, 0, "", 10, new SegmentReference(new string('b', 32), index.Length, Convert.ToHexStringLower(SHA256.HashData(index))),
            [new SegmentReference(SegmentName, 1000, "")]);
        using (await OpenAsync(manifest, cache))
        {
        }

        ReleaseManifest[] others =
        [
            manifest with { Index = manifest.Index with { Name = new string('c', 32), Length = index.Length - 1 } },
            manifest with { Index = manifest.Index with { Sha256 = Convert.ToHexStringLower(SHA256.HashData("another"u8)) } },
            manifest with { Segments = [] },
            manifest with { Segments = [new SegmentReference(new string('d', 32), 1000, "")] },
            manifest with { Segments = [new SegmentReference(SegmentName, 1001, "")] },
        ];
        foreach (var other in others)
        {
            var refused = await Assert.ThrowsAsync<NacreException>(() => OpenAsync(other, cache));
            Assert.Equal(ErrorCatalogue.SegmentNotAuthentic, refused.Kind);
        }
    }

    [Fact]
    [Spec("REL-070")]
    public async Task A_boot_pack_that_is_none_is_refused_before_anything_of_it_is_fetched()
    {
        using var cache = new SegmentCache(folder["segments"]);
        var range = new StoredRange(SegmentName, 32, 100);
        async Task<IReadOnlyList<StoredRange>> ReadAsync(byte[] table, int chunks, string? name = null) => await new ReleaseOpener(PlayerPaths.Open(), cache, new IndexOrigin(table))
            .ReadPackAsync(new BootPack(new ReleaseName("desk", 1), name ?? SegmentName, chunks, 1_000_000), TestContext.Current.CancellationToken);
        Assert.Equal([range], await ReadAsync([.. BootSet.Encode([range]), .. new byte[100]], 1));
        foreach (var (table, chunks, name) in new (byte[], int, string?)[]
        {
            (BootSet.Encode([range]), 1, "../../etc/passwd"), ([], 0, null), ([], -1, null), ([], BootSet.MostChunks + 1, null), ([], int.MaxValue, null),
            (BootSet.Encode([range, range]), 2, null), (BootSet.Encode([range, range with { Offset = 200 }]), 1, null), (RandomNumberGenerator.GetBytes(BootSet.TableSize(3)), 3, null),
        })
        {
            Assert.Equal(VolumeErrorKind.Corrupt, (await Assert.ThrowsAsync<VolumeException>(() => ReadAsync(table, chunks, name))).Kind);
        }
    }

    private Task<ReleaseReader> OpenAsync(ReleaseManifest manifest, SegmentCache cache) =>
        new ReleaseOpener(PlayerPaths.Open(), cache, new IndexOrigin(index)).OpenAsync(manifest, ReleaseKey, TestContext.Current.CancellationToken);

    private sealed class IndexOrigin(byte[] index) : ISegmentOrigin
    {
        public ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken)
        {
            index.AsMemory((int)range.Offset, range.Missing.Length).CopyTo(range.Missing);
            range.Advance(range.Missing.Length);
            return ValueTask.CompletedTask;
        }
    }
}
