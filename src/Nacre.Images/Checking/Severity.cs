namespace Nacre.Images.Checking;

/// <summary>How bad a vulnerability is, by CVSS's own names.</summary>
public enum Severity
{
    /// <summary>The advisory does not say.</summary>
    Unknown,

    /// <summary>Below 4.0.</summary>
    Low,

    /// <summary>4.0 and more.</summary>
    Medium,

    /// <summary>7.0 and more.</summary>
    High,

    /// <summary>9.0 and more.</summary>
    Critical,
}

/// <summary>Reads what advisories say of severity.</summary>
internal static class Severities
{
    internal static Severity OfWord(string? word) => word?.ToUpperInvariant() switch
    {
        "LOW" or "UNIMPORTANT" or "NEGLIGIBLE" or "LOW**" => Severity.Low,
        "MEDIUM" or "MODERATE" or "MEDIUM**" => Severity.Medium,
        "HIGH" or "HIGH**" or "IMPORTANT" => Severity.High,
        "CRITICAL" => Severity.Critical,
        _ => Severity.Unknown,
    };

    /// <summary>The severity of a CVSS 3.0 or 3.1 vector by its base score.</summary>
    internal static Severity OfVector(string? vector) => BaseScore(vector) switch
    {
        null => Severity.Unknown,
        >= 9.0 => Severity.Critical,
        >= 7.0 => Severity.High,
        >= 4.0 => Severity.Medium,
        _ => Severity.Low,
    };

    /// <summary>The base score (CVSS 3.1, section 7.1); null where that is no vector of version 3.</summary>
    internal static double? BaseScore(string? vector)
    {
        if (vector is not { Length: <= 200 } || !vector.StartsWith("CVSS:3.", StringComparison.Ordinal))
        {
            return null;
        }

        var metrics = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var part in vector.Split('/').Skip(1))
        {
            if (part.Split(':') is [var name, var value])
            {
                metrics[name] = value;
            }
        }

        string Metric(string name) => metrics.GetValueOrDefault(name, "");
        var changed = Metric("S") == "C";
        double?[] values =
        [
            Metric("AV") switch { "N" => 0.85, "A" => 0.62, "L" => 0.55, "P" => 0.2, _ => null },
            Metric("AC") switch { "L" => 0.77, "H" => 0.44, _ => null },
            Metric("PR") switch { "N" => 0.85, "L" => changed ? 0.68 : 0.62, "H" => changed ? 0.5 : 0.27, _ => null },
            Metric("UI") switch { "N" => 0.85, "R" => 0.62, _ => null },
            Impact(Metric("C")), Impact(Metric("I")), Impact(Metric("A")),
        ];
        if (values.Any(value => value is null) || Metric("S") is not ("C" or "U"))
        {
            return null;
        }

        var lost = 1 - ((1 - values[4]!.Value) * (1 - values[5]!.Value) * (1 - values[6]!.Value));
        var impact = changed ? (7.52 * (lost - 0.029)) - (3.25 * Math.Pow(lost - 0.02, 15)) : 6.42 * lost;
        var exploitability = 8.22 * values[0]!.Value * values[1]!.Value * values[2]!.Value * values[3]!.Value;
        return impact <= 0 ? 0 : RoundUp(Math.Min((changed ? 1.08 : 1) * (impact + exploitability), 10));
    }

    private static double? Impact(string value) => value switch { "H" => 0.56, "L" => 0.22, "N" => 0, _ => null };

    /// <summary>To the next tenth, as appendix A of CVSS 3.1 does it.</summary>
    private static double RoundUp(double value)
    {
        var whole = (long)Math.Round(value * 100_000);
        return whole % 10_000 == 0 ? whole / 100_000.0 : (Math.Floor(whole / 10_000.0) + 1) / 10.0;
    }
}
