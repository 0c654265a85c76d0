namespace Nacre.Volumes;

/// <summary>What went wrong in a volume. Callers decide by this, never by a message's words.</summary>
public enum VolumeErrorKind
{
    /// <summary>The host's file system or the origin failed.</summary>
    Io,

    /// <summary>A file ends before its content does.</summary>
    Truncated,

    /// <summary>A structure contradicts itself although it is authentic, or is not of our format.</summary>
    Corrupt,

    /// <summary>The content was changed, swapped or comes from elsewhere: its authentication failed.</summary>
    NotAuthentic,

    /// <summary>The key given opens no key slot.</summary>
    WrongKey,

    /// <summary>Written by a newer version, with a feature that this one does not know.</summary>
    Unsupported,

    /// <summary>The request lies outside the device.</summary>
    OutOfRange,

    /// <summary>The host's disk is full.</summary>
    NoSpace,

    /// <summary>The device does not take changes.</summary>
    ReadOnly,

    /// <summary>Another process has the volume open.</summary>
    Locked,

    /// <summary>Authentic, but older than a state that is known to have existed: somebody put an old copy back.</summary>
    Outdated,

    /// <summary>A snapshot with that name exists already, or none does.</summary>
    Snapshot,

    /// <summary>An earlier write or flush failed; the volume serves reads and refuses changes until it is reopened.</summary>
    Faulted,
}

/// <summary>The one exception of volumes: a kind to decide by, and a context for people (file, offset; never a key or content).</summary>
public sealed class VolumeException : Exception
{
    /// <summary>Creates the exception.</summary>
    /// <param name="kind">What went wrong.</param>
    /// <param name="context">Where, in words for a person.</param>
    /// <param name="innerException">The cause, where there is one.</param>
    public VolumeException(VolumeErrorKind kind, string context, Exception? innerException = null)
        : base(context, innerException) => Kind = kind;

    /// <summary>What went wrong.</summary>
    public VolumeErrorKind Kind { get; }
}
