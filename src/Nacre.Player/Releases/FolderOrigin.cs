using Nacre.Contracts;
using Nacre.Volumes;
using Nacre.Volumes.Releases;

namespace Nacre.Player.Releases;

/// <summary>A folder that <c>nacre replica sync</c> made, such as one on a USB stick. It is trusted as little as any origin.</summary>
internal sealed class FolderOrigin(string folder) : ISegmentOrigin
{
    private const int Piece = 1024 * 1024;

    public async ValueTask ReadAsync(SegmentRange range, CancellationToken cancellationToken)
    {
        var path = Path.Combine(folder, StoreOrigins.PathOf(range.Segment));
        try
        {
            // A pipe or a device has no length, and would never be opened.
            if (new FileInfo(path) is not { Exists: true } file || file.Length < range.Offset + range.Missing.Length)
            {
                throw new VolumeException(VolumeErrorKind.Truncated, $"'{path}' is not there, or not whole");
            }

            using var handle = File.OpenHandle(path, options: FileOptions.Asynchronous);
            while (!range.Missing.IsEmpty)
            {
                var read = await RandomAccess.ReadAsync(handle, range.Missing[..Math.Min(Piece, range.Missing.Length)], range.Offset, cancellationToken).ConfigureAwait(false);
                range.Advance(read > 0 ? read : throw new VolumeException(VolumeErrorKind.Truncated, $"'{path}' became shorter"));
            }
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new VolumeException(VolumeErrorKind.Io, exception.Message, new NacreException(ErrorCatalogue.FileAccess, exception.Message, exception));
        }
    }

    public override string ToString() => $"'{folder}'";
}
