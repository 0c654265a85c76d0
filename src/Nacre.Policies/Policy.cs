using System.Security.Cryptography;
using System.Text;

namespace Nacre.Policies;

/// <summary>What holds: of each setting the value of the last level that decides it.</summary>
public sealed class Policy
{
    /// <summary>The level of what nobody decided.</summary>
    public const string FactoryLevel = "factory";

    private readonly IReadOnlyDictionary<Setting, string> levels;

    private Policy(PolicyDocument decided, IReadOnlyDictionary<Setting, string> levels)
    {
        Decided = decided;
        this.levels = levels;
        Version = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(decided.ToString())).AsSpan(0, 8));
    }

    /// <summary>What holds where nobody decides anything.</summary>
    public static Policy Factory { get; } = Of(FactoryLevel, PolicyDocument.Empty);

    /// <summary>All that was decided.</summary>
    public PolicyDocument Decided { get; }

    /// <summary>16 hexadecimal digits of the SHA-256 of <see cref="Decided"/>: the same policy is the same version.</summary>
    public string Version { get; }

    /// <summary>One level's decisions alone.</summary>
    public static Policy Of(string level, PolicyDocument document) => Of([(level, document)]);

    /// <summary>What several levels decide, the last one that speaks wins.</summary>
    /// <param name="levels">Their names and decisions, the weakest first.</param>
    public static Policy Of(IEnumerable<(string Level, PolicyDocument Document)> levels)
    {
        ArgumentNullException.ThrowIfNull(levels);
        var decided = PolicyDocument.Empty;
        var by = new Dictionary<Setting, string>();
        foreach (var (level, document) in levels)
        {
            decided = decided.Under(document);
            foreach (var setting in document.Settings)
            {
                by[setting] = level;
            }
        }

        return new Policy(decided, by);
    }

    /// <summary>The value of a setting.</summary>
    public T Get<T>(Setting<T> setting)
        where T : notnull
    {
        ArgumentNullException.ThrowIfNull(setting);
        return Decided.TryGet(setting, out var value) ? (T)value : setting.FactoryValue;
    }

    /// <summary>The value of a setting.</summary>
    public object Get(Setting setting)
    {
        ArgumentNullException.ThrowIfNull(setting);
        return Decided.TryGet(setting, out var value) ? value : setting.Factory;
    }

    /// <summary>Which level decided: the name that it was given, or <see cref="FactoryLevel"/>.</summary>
    public string DecidedBy(Setting setting) => levels.GetValueOrDefault(setting, FactoryLevel);
}
