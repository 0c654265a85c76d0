using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Tpm;

namespace Nacre.Player.Leases;

/// <summary>What this device knows of the time.</summary>
/// <param name="HighWater">A time that has passed, seconds since 1970: the server's, or one that the computer's clock showed.</param>
/// <param name="Server">The newest time that the server said, seconds since 1970; 0: none.</param>
/// <param name="Boot">The host's start during which <paramref name="Ticks"/> were read.</param>
/// <param name="Ticks">Milliseconds since that start, at the newest look.</param>
/// <param name="Counted">Milliseconds that were counted since <paramref name="Server"/> was said, whatever the clock showed: they pass only while the host runs.</param>
/// <param name="Overdue">LivePCs whose keys are due to be destroyed by what the clock shows: what was counted when it first showed so.</param>
/// <param name="Tpm">What the TPM's clock said at <paramref name="HighWater"/>, milliseconds; 0: nothing.</param>
internal sealed record KeptTime(long HighWater, long Server, string Boot, long Ticks, long Counted, IReadOnlyDictionary<string, long> Overdue, long Tpm = 0);

/// <summary>
/// Tells a clock that was set back, and how much of what it shows is plausible (docs/adr/0010). Kept in an authenticated file; an older copy of the whole file is not told,
/// as of the device's other files. Not thread-safe; processes may look at the same time, the newest look wins.
/// </summary>
internal sealed class TrustedClock
{
    /// <summary>Clocks are set by minutes without anybody meaning harm.</summary>
    public static TimeSpan Tolerance { get; } = TimeSpan.FromMinutes(5);

    /// <summary>So long the host has to have run since its clock first showed that keys are due, before they are destroyed without the server's word.</summary>
    public static TimeSpan Patience { get; } = TimeSpan.FromHours(24);

    private static readonly TimeSpan Step = TimeSpan.FromMinutes(5);
    private readonly AuthenticatedFile<KeptTime> file;
    private readonly TimeProvider time;
    private readonly string boot;
    private readonly Func<long> ticks;
    private readonly long tpm;
    private KeptTime kept;
    private long written; // the highest time in the file

    /// <param name="identity">This device.</param>
    /// <param name="time">The computer's clock.</param>
    /// <param name="boot">Names the host's start; null: as the kernel does.</param>
    /// <param name="ticks">Milliseconds since it; null: the kernel's.</param>
    public TrustedClock(EnrolledIdentity identity, TimeProvider time, string? boot = null, Func<long>? ticks = null)
    {
        this.time = time;
        this.ticks = ticks ?? (() => Environment.TickCount64);
        this.boot = boot ?? BootOf();
        file = new AuthenticatedFile<KeptTime>(identity.ClockPath, identity, $"nacre clock of {identity.Record.DeviceId}");

        // A file that somebody changed says nothing, which is what removing it does too.
        kept = file.TryRead(out var read) && read is not null ? read : new KeptTime(0, 0, this.boot, this.ticks(), 0, new Dictionary<string, long>());
        written = kept.HighWater;
        tpm = TpmClock.Read() ?? 0;
        if (kept.Tpm > 0 && tpm > kept.Tpm)
        {
            // A TPM's clock need not be accurate: two thirds of what it counted have passed for certain.
            kept = kept with { HighWater = kept.HighWater + ((tpm - kept.Tpm) / 1500), Tpm = tpm };
        }
    }

    /// <summary>A time that has passed for certain.</summary>
    public DateTimeOffset HighWater => DateTimeOffset.FromUnixTimeSeconds(kept.HighWater);

    /// <summary>How far the clock is behind a time that has passed; null where it is not.</summary>
    public TimeSpan? SetBack => HighWater - time.GetUtcNow() is { } behind && behind > Tolerance ? behind : null;

    /// <summary>The time that leases are compared with: the clock's, and never one before what has passed.</summary>
    public DateTimeOffset Now => time.GetUtcNow() is { } now && now > HighWater ? now : HighWater;

    /// <summary>The server said, in answer to this device, what time it is. That is right, whatever was believed before.</summary>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public void Hear(DateTimeOffset said) => Keep(new KeptTime(said.ToUnixTimeSeconds(), said.ToUnixTimeSeconds(), boot, ticks(), 0, new Dictionary<string, long>(), tpm));

    /// <summary>Looks at the clock; what it shows has passed from now on.</summary>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public void Look()
    {
        var (now, since) = (ticks(), kept.Boot == boot ? Math.Max(0, ticks() - kept.Ticks) : 0);
        var next = new KeptTime(Math.Max(kept.HighWater, time.GetUtcNow().ToUnixTimeSeconds()), kept.Server, boot, now, kept.Counted + since, kept.Overdue, tpm);
        if (next.Boot != kept.Boot || TimeSpan.FromMilliseconds(since) >= Step || TimeSpan.FromSeconds(next.HighWater - written) >= Step)
        {
            Keep(next);
        }
    }

    /// <summary>Whether a time after which keys are destroyed has passed for certain: the server said so, or the clock shows it for as long as the host has to have run since.
    /// A clock that shows an earlier time again begins anew.</summary>
    /// <param name="livePc">Whose keys.</param>
    /// <param name="due">The time.</param>
    /// <param name="left">How much longer the host has to run; zero where the answer is true, and null where the clock does not show that time.</param>
    public bool IsPast(string livePc, DateTimeOffset due, out TimeSpan? left)
    {
        Look();
        left = null;
        if (time.GetUtcNow() < due)
        {
            if (kept.Overdue.ContainsKey(livePc))
            {
                Keep(kept with { Overdue = kept.Overdue.Where(one => one.Key != livePc).ToDictionary() });
            }

            return false;
        }

        if (!kept.Overdue.TryGetValue(livePc, out var since))
        {
            since = kept.Counted;
            Keep(kept with { Overdue = kept.Overdue.Append(new(livePc, since)).ToDictionary() });
        }

        var wait = DateTimeOffset.FromUnixTimeSeconds(kept.Server) >= due ? TimeSpan.Zero : Patience - TimeSpan.FromMilliseconds(kept.Counted - since);
        left = wait > TimeSpan.Zero ? wait : TimeSpan.Zero;
        return left == TimeSpan.Zero;
    }

    private static string BootOf()
    {
        try
        {
            return File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim();
        }
        catch (IOException)
        {
            return "";
        }
    }

    private void Keep(KeptTime value)
    {
        file.Write(value);
        (kept, written) = (value, value.HighWater);
    }
}
