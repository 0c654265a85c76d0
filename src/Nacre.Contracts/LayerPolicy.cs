using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;

namespace Nacre.Contracts;

/// <summary>How much of a LivePC its user may put back without the administrator.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<UserRejuvenation>))]
public enum UserRejuvenation
{
    /// <summary>Nothing by hand; the system layer is clean at every start all the same.</summary>
    [JsonStringEnumMemberName("none")]
    None,

    /// <summary>The system layer.</summary>
    [JsonStringEnumMemberName("system")]
    System,

    /// <summary>The system layer and the user's applications.</summary>
    [JsonStringEnumMemberName("applications")]
    Applications,

    /// <summary>Every layer.</summary>
    [JsonStringEnumMemberName("full")]
    Full,
}

/// <summary>What the administrator decides about the layers of a LivePC. The server signs it into each lease. An instance is always valid: a value out of
/// bounds is a <see cref="JsonException"/> that names it, wherever it comes from.</summary>
public sealed partial record LayerPolicy
{
    private const int MostRules = 500, MostUnits = 64, MostWindows = 32;

    /// <summary>What holds where the administrator has decided nothing.</summary>
    public static LayerPolicy Default { get; } = new();

    /// <summary>Whether what the user installs in the guest is kept.</summary>
    public bool UserApplications { get; init; } = true;

    /// <summary>Layering rules that follow the factory's, each <c>PATTERN LAYER</c> or a comment; the last match wins. At most 500 lines.</summary>
    public IReadOnlyList<string> Rules
    {
        get;
        init => field = Check(value);
    } = [];

    /// <summary>How much the user may put back.</summary>
    public UserRejuvenation UserRejuvenation
    {
        get;
        init => field = Enum.IsDefined(value) ? value : throw new JsonException("'userRejuvenation' must be none, system, applications or full");
    } = UserRejuvenation.Full;

    /// <summary>Hours between two snapshots of the user's layers while the LivePC runs, at most 8760; 0: none on a schedule.</summary>
    public int SnapshotEveryHours
    {
        get;
        init => field = Within(value, 0, 8760, "snapshotEveryHours");
    } = 4;

    /// <summary>How many snapshots are kept at most, 1 to 1000.</summary>
    public int KeepSnapshots
    {
        get;
        init => field = Within(value, 1, 1000, "keepSnapshots");
    } = 30;

    /// <summary>How many days a snapshot is kept at most, 1 to 3650.</summary>
    public int KeepDays
    {
        get;
        init => field = Within(value, 1, 3650, "keepDays");
    } = 30;

    /// <summary>For how many days a rejuvenation can be undone, at most 3650; 0: not at all.</summary>
    public int UndoDays
    {
        get;
        init => field = Within(value, 0, 3650, "undoDays");
    } = 7;

    /// <summary>systemd units that a healthy start has active, at most 64.</summary>
    public IReadOnlyList<string> HealthUnits
    {
        get;
        init => field = value is { Count: <= MostUnits } && value.All(unit => unit is not null && UnitPattern().IsMatch(unit)) ? [.. value]
            : throw new JsonException($"'healthUnits' must have at most {MostUnits} systemd units, each with its type, such as ssh.service");
    } = [];

    /// <summary>Minutes from the guest's start until it must be healthy, 1 to 240.</summary>
    public int HealthMinutes
    {
        get;
        init => field = Within(value, 1, 240, "healthMinutes");
    } = 15;

    /// <summary>What a device does by itself with corporate layers on offer.</summary>
    public UpdateMode Updates
    {
        get;
        init => field = Enum.IsDefined(value) ? value : throw new JsonException("'updates' must be manual, download, next-start or deadline");
    } = UpdateMode.NextStart;

    /// <summary>Minutes between two looks for updates while the LivePC runs, 1 to 10080.</summary>
    public int UpdateEveryMinutes
    {
        get;
        init => field = Within(value, 1, 10080, "updateEveryMinutes");
    } = 60;

    /// <summary>When updates may be downloaded, each an <see cref="UpdateWindow"/>, at most 32; none: always.</summary>
    public IReadOnlyList<string> UpdateWindows
    {
        get;
        init => field = value is { Count: <= MostWindows } && value.All(window => UpdateWindow.TryParse(window) is not null) ? [.. value]
            : throw new JsonException($"'updateWindows' must have at most {MostWindows} parts of the week, each as 'mon-fri 18:00-06:00' or '22:00-05:00'");
    } = [];

    /// <summary>Whether updates are downloaded over a metered network.</summary>
    public bool UpdateOnMetered { get; init; }

    /// <summary>Whether updates are downloaded while the computer runs on its battery.</summary>
    public bool UpdateOnBattery { get; init; }

    /// <summary>With <see cref="UpdateMode.Deadline"/>: days that a downloaded update may wait for the next start, 0 to 30.</summary>
    public int UpdateDeadlineDays
    {
        get;
        init => field = Within(value, 0, 30, "updateDeadlineDays");
    } = 7;

    /// <summary>How often the user may put that off by a day, 0 to 10.</summary>
    public int UpdatePostponements
    {
        get;
        init => field = Within(value, 0, 10, "updatePostponements");
    } = 3;

    /// <summary>How many bytes a second the LivePC downloads at most, 10000 to 2000000000; 0: as many as there are. What a guest waits for is counted and not slowed.</summary>
    public int DownloadBytesPerSecond
    {
        get;
        init => field = value == 0 ? 0 : Within(value, 10_000, 2_000_000_000, "downloadBytesPerSecond");
    }

    /// <summary>Whether devices send which chunks the first start of a release reads (places of ciphertext in the store, no content), so that the server can make boot packs of them.</summary>
    public bool RecordStarts { get; init; } = true;

    /// <summary>Reads a policy as an administrator writes it; what is left out is the default's.</summary>
    /// <exception cref="NacreException">RequestInvalid: no policy, a key that is none, or a value out of its bounds.</exception>
    public static LayerPolicy Parse(ReadOnlySpan<byte> untrustedJson)
    {
        try
        {
            return JsonSerializer.Deserialize<LayerPolicy>(untrustedJson, Strict) ?? throw new JsonException("the policy is null");
        }
        catch (JsonException exception)
        {
            throw new NacreException(ErrorCatalogue.RequestInvalid, $"the policy can't be used: {exception.Message}", exception);
        }
    }

    private static readonly JsonSerializerOptions Strict = new(ContractJson.Options) { UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow };

    private static int Within(int value, int least, int most, string name) =>
        value >= least && value <= most ? value : throw new JsonException($"'{name}' must be {least} to {most}");

    private static IReadOnlyList<string> Check(IReadOnlyList<string>? lines)
    {
        if (lines is not { Count: <= MostRules })
        {
            throw new JsonException($"'rules' must have at most {MostRules} lines");
        }

        for (var number = 1; number <= lines.Count; number++)
        {
            if ((lines[number - 1] is { } line ? LayeringRules.Judge(line) : "it is null") is { } wrong)
            {
                throw new JsonException($"'rules', line {number}, is no layering rule 'PATTERN LAYER': {wrong}");
            }
        }

        return [.. lines];
    }

    [GeneratedRegex(@"\A[A-Za-z0-9_][A-Za-z0-9_.@:\\-]{0,200}\.(service|socket|target|timer|mount|path|device|swap|scope|slice|automount)\z")]
    private static partial Regex UnitPattern();
}
