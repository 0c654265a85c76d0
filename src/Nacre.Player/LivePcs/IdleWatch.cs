using System.Globalization;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <summary>Knows when a running LivePC has to ask for its password again. Time is the host's since its boot, with the time that it slept: no clock that somebody sets.</summary>
/// <param name="time">Counts without the time that the host slept.</param>
/// <param name="sinceBoot">Counts with it.</param>
internal sealed class IdleWatch(TimeProvider time, Func<TimeSpan> sinceBoot)
{
    /// <summary>Two readings of two clocks are not at the same moment.</summary>
    private static readonly TimeSpan ShortestSleep = TimeSpan.FromSeconds(10);

    private readonly Lock gate = new();
    private readonly long began = time.GetTimestamp();
    private readonly TimeSpan bootAtBegin = sinceBoot();
    private TimeSpan slept;
    private TimeSpan active = sinceBoot();
    private TimeSpan typed = sinceBoot();

    /// <summary>The host's time since boot, as Linux counts it (CLOCK_BOOTTIME); elsewhere without its sleep.</summary>
    public static TimeSpan ReadSinceBoot() => OperatingSystem.IsLinux()
        ? TimeSpan.FromSeconds(double.Parse(File.ReadAllText("/proc/uptime").Split(' ')[0], CultureInfo.InvariantCulture)) : TimeSpan.FromMilliseconds(Environment.TickCount64);

    /// <summary>Its user did something.</summary>
    public void NoteActivity()
    {
        lock (gate)
        {
            active = sinceBoot();
        }
    }

    /// <summary>The password was given.</summary>
    public void NotePassword()
    {
        lock (gate)
        {
            active = typed = sinceBoot();
            slept = Sleep();
        }
    }

    /// <summary>Why the password has to be given now; null: it has not.</summary>
    /// <param name="policy">The policy.</param>
    /// <param name="isHostLocked">Whether the host's screen is locked; null: nobody knows.</param>
    public string? Due(Policy policy, bool? isHostLocked)
    {
        lock (gate)
        {
            var now = sinceBoot();
            var minutes = policy.Get(Settings.LockIdleMinutes);
            var hours = policy.Get(Settings.ReauthPeriodHours);
            return policy.Get(Settings.LockOnSleep) && Sleep() - slept > ShortestSleep ? "this computer slept"
                : policy.Get(Settings.LockOnHostLock) && isHostLocked == true ? "this computer's screen was locked"
                : minutes > 0 && now - active >= TimeSpan.FromMinutes(minutes) ? string.Create(CultureInfo.InvariantCulture, $"nobody used it for {minutes} minutes")
                : hours > 0 && now - typed >= TimeSpan.FromHours(hours) ? string.Create(CultureInfo.InvariantCulture, $"its password was given {hours} hours ago")
                : null;
        }
    }

    private TimeSpan Sleep() => sinceBoot() - bootAtBegin - time.GetElapsedTime(began);
}
