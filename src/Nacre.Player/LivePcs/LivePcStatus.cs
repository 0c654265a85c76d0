using System.Text.Json.Serialization;

namespace Nacre.Player.LivePcs;

/// <summary>Where a LivePC is on its way from nothing to a usable desktop and back.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<LivePcPhase>))]
public enum LivePcPhase
{
    /// <summary>Not running.</summary>
    Stopped,

    /// <summary>Taking or checking the lease.</summary>
    Lease,

    /// <summary>Verifying the release and reading its map, kernel and initramfs.</summary>
    Release,

    /// <summary>Opening the user's volumes and making a clean system layer.</summary>
    Volumes,

    /// <summary>Finding out whether hardware acceleration really works here.</summary>
    Accelerator,

    /// <summary>The guest starts.</summary>
    Booting,

    /// <summary>The guest's agent answered, or has had its time (see <see cref="LivePcStatus.Agent"/>).</summary>
    Running,

    /// <summary>Shutting the guest down.</summary>
    Stopping,

    /// <summary>The guest stands still because a request of its disks failed (this computer's disk is full); it goes on by itself.</summary>
    Paused,

    /// <summary>Its player was killed; its guest waits for the next start, which goes on with it.</summary>
    Abandoned,
}

/// <summary>Whether a guest has an agent.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<AgentState>))]
public enum AgentState
{
    /// <summary>It did not answer within its time. The machine runs; only a guest whose image is a whole disk may have none.</summary>
    [JsonStringEnumMemberName("none")]
    None,

    /// <summary>It answered.</summary>
    [JsonStringEnumMemberName("answers")]
    Answers,
}

/// <summary>How far a release is on this device.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<ReleasePresence>))]
public enum ReleasePresence
{
    /// <summary>Started from the first byte: what is missing is fetched as it is read.</summary>
    Streaming,

    /// <summary>All that a start reads is here (the boot set): the rest comes in the background.</summary>
    Usable,

    /// <summary>All of it is here, verified: starts without a network.</summary>
    Complete,
}

/// <summary>What a LivePC does now.</summary>
public sealed record LivePcStatus
{
    /// <summary>The LivePC.</summary>
    public required string Name { get; init; }

    /// <summary>Where it is.</summary>
    public LivePcPhase Phase { get; init; }

    /// <summary>For a person: what is going on, or why it stopped.</summary>
    public string Detail { get; init; } = "";

    /// <summary>For a person: why the guest is locked, each with what to do. It stands still, and its screen is not shown; none: it is not locked.</summary>
    public IReadOnlyList<string> Locked { get; init; } = [];

    /// <summary>Its golden image.</summary>
    public string? Image { get; init; }

    /// <summary>The release that runs, or would run at the next start.</summary>
    public int? Version { get; init; }

    /// <summary>The application layers on top of it, lowest first, each <c>NAME VERSION</c>.</summary>
    public IReadOnlyList<string> Layers { get; init; } = [];

    /// <summary>Whether these corporate layers have not reached a healthy start yet.</summary>
    public bool OnTrial { get; init; }

    /// <summary>For a person: which corporate layers were set aside, and why; null where none were at this start.</summary>
    public string? SetAside { get; init; }

    /// <summary>For a person: what the application layers lack of this system; null where nothing is known to be missing.</summary>
    public string? LayerProblem { get; init; }

    /// <summary>Whether the lease came from the server just now, or was kept from earlier.</summary>
    public bool Offline { get; init; }

    /// <summary>When the lease ends.</summary>
    public DateTimeOffset? LeaseEnds { get; init; }

    /// <summary>For a person: why the lease could not be renewed at the last contact; null where it was.</summary>
    public string? LeaseProblem { get; init; }

    /// <summary>For a person: that the lease, or the LivePC itself, ends soon or ended; null where there is nothing to say.</summary>
    public string? LeaseWarning { get; init; }

    /// <summary>Whom the user asks, as the policy says; null: nobody is named.</summary>
    public string? SupportContact { get; init; }

    /// <summary>What the company tells at each start; null: nothing.</summary>
    public string? Notice { get; init; }

    /// <summary>The version of the policy that holds.</summary>
    public string? PolicyVersion { get; init; }

    /// <summary>Settings of it that take effect at the next start.</summary>
    public IReadOnlyList<string> PolicyFromNextStart { get; init; } = [];

    /// <summary>For a person: settings of it that this computer can't enforce, each <c>SETTING: why</c>.</summary>
    public IReadOnlyList<string> Unenforceable { get; init; } = [];

    /// <summary>For a person: what of this computer is not as the policy wants it, each with what to do.</summary>
    public IReadOnlyList<string> HostProblems { get; init; } = [];

    /// <summary>For a person: when an administrator asked for the log of this LivePC last, who, and why; null: nobody did, as far as the log goes back.</summary>
    public string? LogAsked { get; init; }

    /// <summary><c>kvm</c> or <c>tcg</c>.</summary>
    public string? Accelerator { get; init; }

    /// <summary>Bytes of the whole release and of its application layers, uncompressed.</summary>
    public long ImageBytes { get; init; }

    /// <summary>Bytes fetched from the origin since this start.</summary>
    public long FetchedBytes { get; init; }

    /// <summary>Requests to the origin since this start.</summary>
    public long FetchRequests { get; init; }

    /// <summary>Stored bytes of the release that are on this device.</summary>
    public long PresentBytes { get; init; }

    /// <summary>Stored bytes of the release.</summary>
    public long StoredBytes { get; init; }

    /// <summary>How far the release is on this device.</summary>
    public ReleasePresence Presence { get; init; }

    /// <summary>Whether the guest has an agent; null while that is not known.</summary>
    public AgentState? Agent { get; init; }

    /// <summary>Whether the guest was running already: this start went on with it after its player had been killed.</summary>
    public bool Adopted { get; init; }

    /// <summary>Milliseconds that putting the system layer back to clean took at this start; null where the policy keeps it, or the guest was running already.</summary>
    public double? RejuvenationMilliseconds { get; init; }

    /// <summary>Seconds from the command to the agent's first answer.</summary>
    public double? SecondsToAgent { get; init; }

    /// <summary>Bytes fetched from the origin until the agent's first answer.</summary>
    public long? BytesToAgent { get; init; }

    /// <summary>What is wrong with the age of the user's layers, for a person.</summary>
    public string? FreshnessProblem { get; init; }

    /// <summary>The layers that were older than their newest known state at this start, and accepted on purpose; in words.</summary>
    public IReadOnlyList<string> AcceptedOlder { get; init; } = [];

    /// <summary>The moment before a rejuvenation that had been interrupted, and was finished by this start; null where there was none.</summary>
    public string? FinishedRejuvenation { get; init; }

    /// <summary>For a person: what becomes of an update, or why it waits; null where there is none.</summary>
    public string? Update { get; init; }

    /// <summary>What is wrong with the moments or the administrator's orders, for a person.</summary>
    public string? MomentProblem { get; init; }

    /// <summary>For a person: why no new release is taken from the server; null where one may be.</summary>
    public string? TrustProblem { get; init; }

    /// <summary>For a person: which parts of the trust metadata end soon.</summary>
    public IReadOnlyList<string> TrustWarnings { get; init; } = [];

    /// <summary>What is wrong, for a person: why the release can't be completed now, where it can't.</summary>
    public string? Problem { get; init; }
}

/// <summary>A line of a starting player's report: a status, or the error that ended it.</summary>
/// <param name="Status">The status.</param>
/// <param name="Code">The error's code.</param>
/// <param name="Message">The error's message.</param>
public sealed record PlayerReport(LivePcStatus? Status, string? Code, string? Message);
