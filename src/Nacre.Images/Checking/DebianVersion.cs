namespace Nacre.Images.Checking;

/// <summary>Debian's order of versions, as <c>dpkg --compare-versions</c> has it (deb-version(7)).</summary>
public static class DebianVersion
{
    /// <summary>Below, at or above 0. Any text has a place in the order, so no untrusted version fails.</summary>
    public static int Compare(string one, string other)
    {
        ArgumentNullException.ThrowIfNull(one);
        ArgumentNullException.ThrowIfNull(other);
        var (epoch, upstream, revision) = Parts(one);
        var (otherEpoch, otherUpstream, otherRevision) = Parts(other);
        var order = Numbers(epoch, otherEpoch);
        order = order != 0 ? order : Text(upstream, otherUpstream);
        return order != 0 ? order : Text(revision, otherRevision);
    }

    private static (string Epoch, string Upstream, string Revision) Parts(string version)
    {
        var colon = version.IndexOf(':', StringComparison.Ordinal);
        var epoch = colon > 0 && version.AsSpan(0, colon).IndexOfAnyExceptInRange('0', '9') < 0 ? version[..colon] : "";
        var rest = epoch.Length > 0 ? version[(colon + 1)..] : version;
        var hyphen = rest.LastIndexOf('-');
        return hyphen < 0 ? (epoch, rest, "") : (epoch, rest[..hyphen], rest[(hyphen + 1)..]);
    }

    private static int Text(string one, string other)
    {
        var (i, j) = (0, 0);
        while (i < one.Length || j < other.Length)
        {
            while ((i < one.Length && !char.IsAsciiDigit(one[i])) || (j < other.Length && !char.IsAsciiDigit(other[j])))
            {
                var order = Order(one, i) - Order(other, j);
                if (order != 0)
                {
                    return order;
                }

                i++;
                j++;
            }

            var (from, otherFrom) = (i, j);
            i = EndOfDigits(one, i);
            j = EndOfDigits(other, j);
            var numbers = Numbers(one.AsSpan(from, i - from), other.AsSpan(otherFrom, j - otherFrom));
            if (numbers != 0)
            {
                return numbers;
            }
        }

        return 0;
    }

    private static int EndOfDigits(string text, int at)
    {
        while (at < text.Length && char.IsAsciiDigit(text[at]))
        {
            at++;
        }

        return at;
    }

    /// <summary>Numbers of any length, without leading zeroes the longer one is more.</summary>
    private static int Numbers(ReadOnlySpan<char> one, ReadOnlySpan<char> other)
    {
        one = one.TrimStart('0');
        other = other.TrimStart('0');
        return one.Length != other.Length ? one.Length.CompareTo(other.Length) : one.SequenceCompareTo(other);
    }

    /// <summary>A tilde is before the end, which is before letters, which are before the rest.</summary>
    private static int Order(string text, int at) => at >= text.Length || char.IsAsciiDigit(text[at]) ? 0
        : text[at] == '~' ? -1
        : char.IsAsciiLetter(text[at]) ? text[at] : text[at] + 256;
}
