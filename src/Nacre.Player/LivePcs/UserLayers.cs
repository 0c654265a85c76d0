using Nacre.Contracts;

namespace Nacre.Player.LivePcs;

/// <summary>The user's layers of a LivePC, by the kind of its image: the one place that says which there are.</summary>
internal static class UserLayers
{
    private const long GiB = 1L << 30;

    private static readonly IReadOnlyList<(string Layer, long Size)> Layered = [("applications", 32 * GiB), ("settings", 8 * GiB), ("data", 64 * GiB)];

    /// <summary>A guest whose inside nobody knows has one disk of its own, which it partitions and formats itself.</summary>
    private static readonly IReadOnlyList<(string Layer, long Size)> WholeDisk = [("data", 64 * GiB)];

    /// <summary>The layers and their sizes, in the order in which a moment is taken; nothing is stored for what was never written.</summary>
    public static IReadOnlyList<(string Layer, long Size)> Of(ImageKind kind) => kind == ImageKind.Disk ? WholeDisk : Layered;
}
