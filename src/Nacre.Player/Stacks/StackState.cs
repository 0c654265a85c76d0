using System.Text.Json.Serialization;
using Nacre.Contracts;

namespace Nacre.Player.Stacks;

/// <summary>A stack that did not reach a healthy start, or that its user left.</summary>
/// <param name="Stack">The stack.</param>
/// <param name="Reason">Why, in one line.</param>
/// <param name="At">When it was set aside.</param>
/// <param name="IsByUser">Whether the user left it for the one before.</param>
internal sealed record SetAsideStack(CorporateStack Stack, string Reason, DateTimeOffset At, bool IsByUser = false);

/// <summary>Which corporate layers of a LivePC start, which are on trial, and which were set aside. Every change is a new state; it is kept whole or not at all.</summary>
internal sealed record StackState
{
    /// <summary>With the good one as many as a policy can keep.</summary>
    private const int MostEarlier = 4;
    private const int MostSetAside = 16, MostReports = 16;

    /// <summary>The stack whose start was healthy last; null before the first.</summary>
    public CorporateStack? Good { get; init; }

    /// <summary>The stacks that were good before <see cref="Good"/> and are kept, the newest last.</summary>
    public IReadOnlyList<CorporateStack> Earlier { get; init; } = [];

    /// <summary>A stack that is being downloaded, or was without becoming the next; null: none.</summary>
    public CorporateStack? Coming { get; init; }

    /// <summary>The stack that starts next and was not healthy yet; null where that is <see cref="Good"/>.</summary>
    public CorporateStack? Trial { get; init; }

    /// <summary>From when the deadline of <see cref="Trial"/> is counted; null: it never waited for a start.</summary>
    public DateTimeOffset? OfferedAt { get; init; }

    /// <summary>How often the user put that deadline off.</summary>
    public int Postponed { get; init; }

    /// <summary>Unhealthy starts of <see cref="Trial"/>.</summary>
    public int Failures { get; init; }

    /// <summary>What was set aside, the newest last.</summary>
    public IReadOnlyList<SetAsideStack> SetAside { get; init; } = [];

    /// <summary>Reports that the server has not had yet, sealed (<see cref="ReportBox"/>).</summary>
    public IReadOnlyList<string> Reports { get; init; } = [];

    /// <summary>What starts next; null before anything was chosen.</summary>
    [JsonIgnore]
    public CorporateStack? Next => Trial ?? Good;

    /// <summary>Every release that a start may need, now or after going back: the lease has to cover them. The most important first.</summary>
    [JsonIgnore]
    public IReadOnlyList<ReleaseName> Needed => [.. Current.Concat(Former).SelectMany(stack => stack.Releases).Distinct()];

    /// <summary>What starts, was good last or comes.</summary>
    private IEnumerable<CorporateStack> Current => new[] { Trial, Good, Coming }.OfType<CorporateStack>();

    /// <summary>What the user left, and what was good before, the newest first.</summary>
    private IEnumerable<CorporateStack> Former => SetAside.Where(one => one.IsByUser).Select(one => one.Stack).Reverse().Concat(Earlier.Reverse());

    /// <summary>Why a stack is not taken by itself: it was set aside, or has a release that the user left. Null where it may be.</summary>
    public SetAsideStack? FindSetAside(CorporateStack stack) => SetAside.LastOrDefault(
        one => one.Stack.Equals(stack) || (one.IsByUser && one.Stack.Releases.Except(Good?.Releases ?? []).Intersect(stack.Releases).Any()));

    /// <summary>The releases to keep where so many of each image are: of what starts, was good last or comes all; then of what was before, the newest first.</summary>
    public IReadOnlySet<ReleaseName> ToKeep(int versions) => Current.SelectMany(stack => stack.Releases)
        .Concat(new[] { Trial, Good }.OfType<CorporateStack>().Concat(Former).SelectMany(stack => stack.Releases).Distinct().GroupBy(release => release.Image).SelectMany(image => image.Take(versions)))
        .ToHashSet();

    /// <summary>The same without the earlier stacks that are not kept whole.</summary>
    public StackState Forget(int versions)
    {
        var kept = ToKeep(versions);
        var whole = Earlier.Where(stack => stack.Releases.All(kept.Contains)).ToList();
        return whole.Count == Earlier.Count ? this : this with { Earlier = whole };
    }

    /// <summary>What to start under a lease: what is next; in the place of a release that the lease does not cover (its channel was moved back) the one on offer, and without a layer that was taken
    /// out.</summary>
    public CorporateStack Choose(Func<ReleaseName, bool> covers, CorporateStack offered)
    {
        if (Next is not { } next || next.System.Image != offered.System.Image)
        {
            return offered;
        }

        return new CorporateStack(next.Releases.Select(release => covers(release) ? release : offered.Releases.FirstOrDefault(one => one.Image == release.Image)).OfType<ReleaseName>());
    }

    /// <summary>What to go back to from <paramref name="failed"/>: the good stack without the layers that the lease does not cover any more; null where that is nothing, or the same.</summary>
    public CorporateStack? Fallback(CorporateStack failed, Func<ReleaseName, bool> covers)
    {
        if (Good is null || !covers(Good.System))
        {
            return null;
        }

        var remaining = new CorporateStack(Good.Releases.Where(covers));
        return remaining.Equals(failed) ? null : remaining;
    }

    /// <summary>Makes a stack the next one, on trial unless it is the good one.</summary>
    /// <param name="stack">The stack.</param>
    /// <param name="at">When, where it waits for a start; null where it starts now.</param>
    public StackState Offer(CorporateStack stack, DateTimeOffset? at = null) => stack.Equals(Trial) ? Coming is null ? this : this with { Coming = null }
        : this with
        {
            Trial = stack.Equals(Good) ? null : stack, Coming = null, OfferedAt = at, Postponed = 0, Failures = 0, SetAside = [.. SetAside.Where(one => !one.Stack.Equals(stack))],
        };

    /// <summary>A start of this stack was healthy.</summary>
    public StackState Healthy(CorporateStack stack) => SetAside.Any(one => one.IsByUser && one.Stack.Equals(stack)) ? this // its user left it while it started
        : this with
        {
            // An update that came while it started stays on trial. What was set aside before something newer worked is history.
            Good = stack, Trial = stack.Equals(Trial) ? null : Trial, Failures = stack.Equals(Trial) ? 0 : Failures, SetAside = stack.Equals(Trial) ? [] : SetAside,
            Earlier = Good is null || stack.Equals(Good) ? Earlier : [.. Earlier.Where(one => !one.Equals(stack) && !one.Equals(Good)).Append(Good).TakeLast(MostEarlier)],
        };

    /// <summary>What the user goes back from, and to; null where there is nothing to go back to.</summary>
    /// <param name="started">What started last: an update that waits for its start is not gone back from.</param>
    public (CorporateStack From, CorporateStack To)? FindEarlier(CorporateStack? started) =>
        Trial is null ? Good is not null && Earlier is [.., var before] ? (Good, before) : null
        : Trial.Equals(started) && Good is not null ? (Trial, Good) : null;

    /// <summary>The user leaves a stack for an earlier one, which starts next; it is not taken again by itself.</summary>
    public StackState GoBack(CorporateStack from, CorporateStack to, DateTimeOffset at) => this with
    {
        Good = to,
        Trial = null,
        Failures = 0,
        Earlier = [.. Earlier.Where(one => !one.Equals(to))],
        SetAside = [.. SetAside.Append(new SetAsideStack(from, "its user went back", at, IsByUser: true)).TakeLast(MostSetAside)],
    };

    /// <summary>The user puts the deadline of the stack on trial off by a day, counted from where it is, or from <paramref name="least"/> where that is later.</summary>
    public StackState Postpone(DateTimeOffset least) => OfferedAt is not { } at ? this
        : this with { OfferedAt = (at > least ? at : least) + TimeSpan.FromDays(1), Postponed = Postponed + 1 };

    /// <summary>A start of the stack on trial was not healthy.</summary>
    public StackState Failed(CorporateStack stack) => stack.Equals(Trial) ? this with { Failures = Failures + 1 } : this;

    /// <summary>Sets the stack on trial aside; <paramref name="fallback"/> is good from then on.</summary>
    public StackState PutAside(CorporateStack stack, CorporateStack fallback, string reason, DateTimeOffset at) => this with
    {
        Good = fallback,
        Trial = stack.Equals(Trial) ? null : Trial,
        Failures = 0,
        SetAside = [.. SetAside.Append(new SetAsideStack(stack, reason, at)).TakeLast(MostSetAside)],
    };

    /// <summary>Keeps a report for the server; the oldest gives way.</summary>
    public StackState Report(string sealedReport) => this with { Reports = [.. Reports.Append(sealedReport).TakeLast(MostReports)] };

    public StackState Delivered(string sealedReport) => this with { Reports = [.. Reports.Where(one => one != sealedReport)] };
}
