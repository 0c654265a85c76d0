using Nacre.Contracts;
using Nacre.Volumes;

namespace Nacre.Player;

/// <summary>What a volume's error means to the person before the device.</summary>
public static class VolumeErrors
{
    /// <summary>An error of the user's own volumes.</summary>
    public static NacreException OfVolume(VolumeException exception, string layer) => new(exception.Kind switch
    {
        VolumeErrorKind.NoSpace => ErrorCatalogue.NoSpace,
        VolumeErrorKind.Io => ErrorCatalogue.FileAccess,
        VolumeErrorKind.Locked => ErrorCatalogue.AlreadyRunning,
        VolumeErrorKind.Unsupported => ErrorCatalogue.Unsupported,
        VolumeErrorKind.Truncated or VolumeErrorKind.Corrupt or VolumeErrorKind.NotAuthentic or VolumeErrorKind.WrongKey
            or VolumeErrorKind.Faulted => ErrorCatalogue.VolumeDamaged,
        VolumeErrorKind.Outdated => ErrorCatalogue.VolumeOutdated,
        VolumeErrorKind.OutOfRange or VolumeErrorKind.ReadOnly or VolumeErrorKind.Snapshot => ErrorCatalogue.Internal,
    }, $"the layer '{layer}' ({exception.Kind}): {exception.Message}", exception);

    /// <summary>An error of a volume that was named by its folder.</summary>
    public static NacreException OfFolder(VolumeException exception) => new(exception.Kind switch
    {
        VolumeErrorKind.NoSpace => ErrorCatalogue.NoSpace,
        VolumeErrorKind.Io => ErrorCatalogue.FileAccess,
        VolumeErrorKind.Locked => ErrorCatalogue.VolumeBusy,
        VolumeErrorKind.Unsupported => ErrorCatalogue.Unsupported,
        VolumeErrorKind.WrongKey => ErrorCatalogue.VolumeKeyWrong,
        VolumeErrorKind.Outdated => ErrorCatalogue.VolumeOutdated,
        VolumeErrorKind.Snapshot => ErrorCatalogue.SnapshotName,
        VolumeErrorKind.Truncated or VolumeErrorKind.Corrupt or VolumeErrorKind.NotAuthentic or VolumeErrorKind.Faulted => ErrorCatalogue.VolumeDamaged,
        VolumeErrorKind.OutOfRange or VolumeErrorKind.ReadOnly => ErrorCatalogue.Internal,
    }, exception.Message, exception);

    /// <summary>An error of the release.</summary>
    public static NacreException OfRelease(VolumeException exception) => new(exception.Kind switch
    {
        VolumeErrorKind.NoSpace => ErrorCatalogue.NoSpace,
        VolumeErrorKind.Io => exception.InnerException is NacreException inner ? inner.Kind : ErrorCatalogue.FileAccess,
        VolumeErrorKind.Unsupported => ErrorCatalogue.Unsupported,
        VolumeErrorKind.Truncated => ErrorCatalogue.SegmentTruncated,
        VolumeErrorKind.Corrupt or VolumeErrorKind.NotAuthentic or VolumeErrorKind.WrongKey => ErrorCatalogue.SegmentNotAuthentic,
        VolumeErrorKind.Locked or VolumeErrorKind.Faulted or VolumeErrorKind.OutOfRange or VolumeErrorKind.ReadOnly
            or VolumeErrorKind.Outdated or VolumeErrorKind.Snapshot => ErrorCatalogue.Internal,
    }, $"the release ({exception.Kind}): {exception.Message}", exception);
}
