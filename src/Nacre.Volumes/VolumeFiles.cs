using System.Globalization;

namespace Nacre.Volumes;

/// <summary>The names of a volume's files.</summary>
internal static class VolumeFiles
{
    public const string Lock = "lock";

    /// <summary>A file that is being made; whatever still has this ending when the volume is opened is left over from a crash.</summary>
    public const string TemporarySuffix = ".new";

    private const string SegmentPrefix = "segment-";
    private const string CheckpointPrefix = "checkpoint-";

    public static string Segment(uint sequence) => string.Create(CultureInfo.InvariantCulture, $"{SegmentPrefix}{sequence:x8}");

    public static string Checkpoint(uint number) => string.Create(CultureInfo.InvariantCulture, $"{CheckpointPrefix}{number:x8}");

    /// <summary>The file of a dead segment that waits to be written over.</summary>
    public static string Spare(uint sequence) => string.Create(CultureInfo.InvariantCulture, $"spare-{sequence:x8}{TemporarySuffix}");

    public static SortedSet<uint> Segments(IEnumerable<string> names) => Numbers(names, SegmentPrefix);

    public static SortedSet<uint> Checkpoints(IEnumerable<string> names) => Numbers(names, CheckpointPrefix);

    private static SortedSet<uint> Numbers(IEnumerable<string> names, string prefix)
    {
        var numbers = new SortedSet<uint>();
        foreach (var name in names)
        {
            if (name.Length == prefix.Length + 8 && name.StartsWith(prefix, StringComparison.Ordinal)
                && uint.TryParse(name.AsSpan(prefix.Length), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var number))
            {
                numbers.Add(number);
            }
        }

        return numbers;
    }
}
