using System.Security.Cryptography;
using Microsoft.Win32.SafeHandles;
using Nacre.Contracts;
using Nacre.Volumes;
using Nacre.Volumes.Releases;

namespace Nacre.Images.Publishing;

/// <summary>Makes the delta from an earlier release to the one that is being published, and uploads it.</summary>
/// <param name="store">Where both are.</param>
/// <param name="keys">The organisation's keys.</param>
/// <param name="uploaded">Told the bytes of each file that was sent.</param>
internal sealed class DeltaPublisher(IReleaseStore store, PublisherKeys keys, Action<long> uploaded)
{
    /// <summary>Makes it.</summary>
    /// <param name="earlier">The earlier release.</param>
    /// <param name="image">The new content.</param>
    /// <param name="index">Its map.</param>
    /// <param name="indexName">The name of that.</param>
    /// <param name="releaseKey">The new release's key.</param>
    /// <param name="progress">Told after each part.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <returns>Null where it would save nothing, and where the earlier release was published before there were deltas: only devices can open it.</returns>
    public async Task<ReleaseDelta?> MakeAsync(
        ReleaseManifest earlier, GoldenImage image, ReleaseIndex index, string indexName, byte[] releaseKey, IProgress<PublishProgress>? progress, CancellationToken cancellationToken)
    {
        if (await OpenIndexAsync(earlier, cancellationToken).ConfigureAwait(false) is not { } old)
        {
            return null;
        }

        // Ciphertext only, as the store has it.
        var folder = Directory.CreateTempSubdirectory("nacre-delta-");
        var files = image.Artifacts.ToDictionary(artifact => artifact.Name, artifact => File.OpenHandle(artifact.Path), StringComparer.Ordinal);
        try
        {
            using var cache = new SegmentCache(folder.FullName);
            using var from = new ReleaseReader(old, cache, new StoreOrigin(store));
            var builder = new DeltaBuilder(from, index, (artifact, chunk, destination) => Read(files[artifact.Name], chunk.Start, destination), releaseKey);
            var parts = new List<SegmentReference>();
            var total = builder.TargetBytes;
            var sent = 0L;
            var described = await builder.BuildAsync(
                async (file, token) =>
                {
                    parts.Add(await UploadAsync(file.ToArray(), token).ConfigureAwait(false));
                    sent += file.Length;
                },
                new Counted(done => progress?.Report(new PublishProgress(done, total, sent, earlier.Version))), cancellationToken).ConfigureAwait(false);
            return parts.Count == 0
                ? null
                : new ReleaseDelta(earlier.Version, await UploadAsync(new DeltaPlan(earlier.Index.Name, indexName, described).Seal(releaseKey), cancellationToken).ConfigureAwait(false), parts);
        }
        catch (VolumeException exception) when (exception.InnerException is NacreException cause)
        {
            throw cause;
        }
        finally
        {
            foreach (var file in files.Values)
            {
                file.Dispose();
            }

            folder.Delete(recursive: true);
        }
    }

    /// <summary>The last block of an artifact may be cut by its end; the rest is zero.</summary>
    private static void Read(SafeFileHandle file, long offset, Span<byte> destination)
    {
        for (int count; destination.Length > 0 && (count = RandomAccess.Read(file, destination, offset)) > 0; offset += count)
        {
            destination = destination[count..];
        }

        destination.Clear();
    }

    private async Task<ReleaseIndex?> OpenIndexAsync(ReleaseManifest release, CancellationToken cancellationToken)
    {
        var untrusted = new byte[release.Index.Length];
        await store.DownloadRangeAsync(release.Index.Name, 0, untrusted, cancellationToken).ConfigureAwait(false);
        if (ReleasePublisher.Reference(release.Index.Name, untrusted) != release.Index)
        {
            throw new NacreException(ErrorCatalogue.SegmentNotAuthentic, $"the index of release {release.Version} of '{release.Image}' is not what was published");
        }

        try
        {
            return ReleaseIndex.Open(untrusted, keys.ReleaseKey(release.Image, release.Version));
        }
        catch (VolumeException exception) when (exception.Kind == VolumeErrorKind.NotAuthentic)
        {
            return null;
        }
    }

    private async Task<SegmentReference> UploadAsync(byte[] file, CancellationToken cancellationToken)
    {
        var name = Convert.ToHexStringLower(SHA256.HashData(file))[..32];
        await store.UploadSegmentAsync(name, file, cancellationToken).ConfigureAwait(false);
        uploaded(file.Length);
        return ReleasePublisher.Reference(name, file);
    }

    private sealed class Counted(Action<long> report) : IProgress<long>
    {
        public void Report(long value) => report(value);
    }

    private sealed class StoreOrigin(IReleaseStore store) : ISegmentOrigin
    {
        public async ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken)
        {
            try
            {
                await store.DownloadRangeAsync(range.Segment, range.Offset, range.Missing, cancellationToken).ConfigureAwait(false);
                range.Advance(range.Missing.Length);
            }
            catch (NacreException exception)
            {
                throw new VolumeException(VolumeErrorKind.Io, exception.Message, exception);
            }
        }
    }
}
