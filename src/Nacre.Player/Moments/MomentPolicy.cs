using Nacre.Contracts;

namespace Nacre.Player.Moments;

/// <summary>What the administrator decides about moments.</summary>
internal sealed record MomentPolicy
{
    /// <summary>Hours between two moments while the LivePC runs; 0: none on a schedule. Default 4: half a workday is the most that is lost.</summary>
    public int SnapshotEveryHours { get; init; } = 4;

    /// <summary>How many are kept at most. Default 30.</summary>
    public int KeepSnapshots { get; init; } = 30;

    /// <summary>For how many days one is kept at most. Default 30.</summary>
    public int KeepDays { get; init; } = 30;

    /// <summary>For how many days a rejuvenation can be undone. Default 7: a week of noticing that something is missing.</summary>
    public int UndoDays { get; init; } = 7;

    /// <summary>The deepest rejuvenation that the user may do without the administrator; null: none by hand.</summary>
    public RejuvenationDepth? UserDepth { get; init; } = RejuvenationDepth.Moment;
}
