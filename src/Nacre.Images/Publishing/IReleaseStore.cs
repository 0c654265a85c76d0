using Nacre.Contracts;

namespace Nacre.Images.Publishing;

/// <summary>The publisher's view of the server. All members may be called at once; all errors are <see cref="NacreException"/>.</summary>
public interface IReleaseStore
{
    /// <summary>Every release of every image of the organisation.</summary>
    Task<IReadOnlyList<Release>> ListReleasesAsync(CancellationToken cancellationToken);

    /// <summary>Which of these segments the store lacks.</summary>
    Task<IReadOnlyList<string>> FindMissingSegmentsAsync(IReadOnlyList<string> names, CancellationToken cancellationToken);

    /// <summary>Stores a segment; storing the same one again changes nothing.</summary>
    Task UploadSegmentAsync(string name, ReadOnlyMemory<byte> content, CancellationToken cancellationToken);

    /// <summary>Fills <paramref name="destination"/> from a stored segment.</summary>
    Task DownloadRangeAsync(string name, long offset, Memory<byte> destination, CancellationToken cancellationToken);

    /// <summary>Registers the release.</summary>
    Task<Release> PublishReleaseAsync(string image, PublishRelease release, CancellationToken cancellationToken);
}
