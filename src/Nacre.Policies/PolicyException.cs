namespace Nacre.Policies;

/// <summary>What was to be a policy is none. All that is wrong is said at once.</summary>
public sealed class PolicyException : Exception
{
    /// <param name="problems">What is wrong, each naming its setting and what it may be.</param>
    /// <param name="inner">The cause, where there is one.</param>
    public PolicyException(IReadOnlyList<string> problems, Exception? inner = null)
        : base(string.Join("; ", problems), inner) => Problems = problems;

    /// <summary>What is wrong, each naming its setting and what it may be.</summary>
    public IReadOnlyList<string> Problems { get; }
}
