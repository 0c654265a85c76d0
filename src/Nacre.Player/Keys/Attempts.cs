using System.Globalization;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.LivePcs;
using Nacre.Policies;

namespace Nacre.Player.Keys;

/// <summary>How often a wrong secret was given since the last right one.</summary>
/// <param name="Failures">So often; one that is being tried counts.</param>
/// <param name="Boot">Which boot of this computer <paramref name="At"/> is of.</param>
/// <param name="At">When the last one was, on that boot's clock, which nobody sets; in ticks.</param>
internal sealed record KeptAttempts(int Failures, string Boot, long At);

/// <summary>Slows down who guesses, whatever the wall clock says and however often the player is started again: each try is counted durably before it is made, and who
/// kills the process has lost it. Who copies the disk guesses elsewhere, at Argon2id's cost (docs/threat-model.md).</summary>
internal sealed class Attempts
{
    private const int Free = 3;
    private static readonly TimeSpan First = TimeSpan.FromSeconds(5), Longest = TimeSpan.FromMinutes(15);
    private readonly AuthenticatedFile<KeptAttempts> file;
    private readonly TimeProvider time;
    private readonly string boot;

    /// <param name="folder">The LivePC.</param>
    /// <param name="identity">This device.</param>
    /// <param name="time">Its timestamps count from the computer's boot.</param>
    /// <param name="boot">Names this boot; null: as the system says.</param>
    public Attempts(LivePcFolder folder, EnrolledIdentity identity, TimeProvider time, string? boot = null)
    {
        this.time = time;
        this.boot = boot ?? ReadBoot();
        file = new AuthenticatedFile<KeptAttempts>(folder.Attempts, identity, $"nacre attempts of {identity.Record.DeviceId} {folder.Name}");
    }

    /// <summary>Failures so far. Where somebody changed the file, one try is left.</summary>
    public int Failures(Policy policy) => Read(policy).Failures;

    /// <summary>Counts a try that is about to be made.</summary>
    /// <param name="policy">Says how many there may be.</param>
    /// <param name="canRecover">Whether a recovery code could open the LivePC: else nothing is locked for good.</param>
    /// <param name="isRecovery">Whether it is a recovery code that is tried: it helps out of a lock.</param>
    /// <exception cref="NacreException">PasswordWait: it is too early; PasswordLocked: there were too many.</exception>
    public void Begin(Policy policy, bool canRecover, bool isRecovery)
    {
        var kept = Read(policy);
        if (!isRecovery && canRecover && policy.Get(Settings.MaxAttemptsAction) == AttemptsAction.Lock && kept.Failures >= policy.Get(Settings.MaxAttempts))
        {
            throw new NacreException(ErrorCatalogue.PasswordLocked, string.Create(CultureInfo.InvariantCulture, $"{kept.Failures} wrong passwords were tried, and no more may be"));
        }

        var now = time.GetTimestamp();
        if (kept.Boot != boot || kept.At > now)
        {
            // Another boot, whose clock began anew: the pause does too.
            kept = kept with { Boot = boot, At = now };
            file.Write(kept);
        }

        var left = Delay(kept.Failures) - time.GetElapsedTime(kept.At, now);
        if (left > TimeSpan.Zero)
        {
            throw new NacreException(ErrorCatalogue.PasswordWait, string.Create(CultureInfo.InvariantCulture, $"after {kept.Failures} wrong tries the next one may be made in {Math.Ceiling(left.TotalSeconds)} s"));
        }

        file.Write(new KeptAttempts(kept.Failures + 1, boot, now));
    }

    /// <summary>The try was right.</summary>
    public void Succeed() => DurableFile.Delete(file.Path);

    /// <summary>What a person is told after a wrong try.</summary>
    public string Words(Policy policy)
    {
        var failures = Failures(policy);
        var left = policy.Get(Settings.MaxAttempts) - failures;
        var delay = Delay(failures);
        return (policy.Get(Settings.MaxAttemptsAction) == AttemptsAction.Delay ? "" : left > 0
                ? string.Create(CultureInfo.InvariantCulture, $"; {left} tries are left")
                : "; no try is left")
            + (delay > TimeSpan.Zero ? string.Create(CultureInfo.InvariantCulture, $"; the next one may be made in {delay.TotalSeconds:0} s") : "");
    }

    private static TimeSpan Delay(int failures) => failures < Free ? TimeSpan.Zero : TimeSpan.FromSeconds(Math.Min(Longest.TotalSeconds, First.TotalSeconds * Math.Pow(2, Math.Min(failures - Free, 20))));

    private KeptAttempts Read(Policy policy) => file.TryRead(out var kept) ? kept ?? new KeptAttempts(0, boot, 0) : new KeptAttempts(policy.Get(Settings.MaxAttempts) - 1, "", 0);

    private static string ReadBoot() => OperatingSystem.IsLinux() && File.Exists("/proc/sys/kernel/random/boot_id") ? File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim() : "";
}
