using System.Text.Json.Serialization;
using Nacre.Contracts;

namespace Nacre.Player.Stacks;

/// <summary>A stack that did not reach a healthy start.</summary>
/// <param name="Stack">The stack.</param>
/// <param name="Reason">Why, in one line.</param>
/// <param name="At">When it was set aside.</param>
internal sealed record SetAsideStack(CorporateStack Stack, string Reason, DateTimeOffset At);

/// <summary>Which corporate layers of a LivePC start, which are on trial, and which were set aside. Every change is a new state; it is kept whole or not at all.</summary>
internal sealed record StackState
{
    private const int MostSetAside = 16, MostReports = 16;

    /// <summary>The stack whose start was healthy last; null before the first.</summary>
    public CorporateStack? Good { get; init; }

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

    /// <summary>Every release that a start may need: the lease has to cover them.</summary>
    [JsonIgnore]
    public IReadOnlyList<ReleaseName> Needed => [.. (Trial?.Releases ?? []).Concat(Good?.Releases ?? []).Distinct()];

    public SetAsideStack? FindSetAside(CorporateStack stack) => SetAside.LastOrDefault(one => one.Stack.Equals(stack));

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
    public StackState Offer(CorporateStack stack, DateTimeOffset? at = null) => stack.Equals(Trial) ? this
        : this with { Trial = stack.Equals(Good) ? null : stack, OfferedAt = at, Postponed = 0, Failures = 0, SetAside = [.. SetAside.Where(one => !one.Stack.Equals(stack))] };

    /// <summary>A start of this stack was healthy.</summary>
    public StackState Healthy(CorporateStack stack) => this with
    {
        // An update that came while it started stays on trial. What was set aside before something newer worked is history.
        Good = stack, Trial = stack.Equals(Trial) ? null : Trial, Failures = stack.Equals(Trial) ? 0 : Failures, SetAside = stack.Equals(Trial) ? [] : SetAside,
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
