using System.Globalization;
using Nacre.Contracts;
using Nacre.Policies;
using Nacre.Volumes;

namespace Nacre.Player.LivePcs;

/// <summary>The system layer's own disk of a LivePC whose policy keeps it over restarts: a volume like the user's, with an anchor. That it may be kept is a snapshot that
/// the last clean end took, named after what it lies over and when it was clean last: who can write the device's files can't make one.</summary>
/// <param name="volume">Its volume; stays its owner's.</param>
/// <param name="time">The clock.</param>
internal sealed class KeptSystem(Volume volume, TimeProvider time)
{
    /// <summary>The layer's name: not that of the corporate layers' disk.</summary>
    public const string Layer = "kept-system";

    private const string Mark = "ended ";
    private static readonly TimeSpan Week = TimeSpan.FromDays(7);

    private string over = "";
    private DateTimeOffset cleaned;

    /// <summary>Makes it ready for a guest: as the last one left it, or blank.</summary>
    /// <param name="when">When it is put back to clean.</param>
    /// <param name="lies">What it lies over, in hexadecimal.</param>
    /// <returns>Whether it was kept.</returns>
    public async Task<bool> BeginAsync(SystemCleaning when, string lies)
    {
        var words = volume.Snapshots.Select(snapshot => snapshot.Name).LastOrDefault(name => name.StartsWith(Mark, StringComparison.Ordinal))?.Split(' ');
        (over, cleaned) = (lies, time.GetUtcNow());
        var isKept = when != SystemCleaning.EveryStart && words is [_, var before, var then] && before == lies
            && (when != SystemCleaning.Weekly || cleaned - TimeOf(then) < Week);
        if (!isKept)
        {
            await CleanAsync().ConfigureAwait(false);
            return false;
        }

        cleaned = TimeOf(words![2]);
        Unmark();
        return true;
    }

    /// <summary>After the guest has shut down: the next start may keep it.</summary>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public void End() => Guard(() => volume.TakeSnapshot(string.Create(CultureInfo.InvariantCulture, $"{Mark}{over} {cleaned.ToUnixTimeSeconds()}")));

    /// <summary>Makes it blank, while no guest has it.</summary>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public async Task CleanAsync()
    {
        Unmark();
        cleaned = time.GetUtcNow();
        try
        {
            await volume.TrimAsync(0, volume.Size, CancellationToken.None).ConfigureAwait(false);
            await volume.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        }
        catch (VolumeException exception)
        {
            throw VolumeErrors.OfVolume(exception, Layer);
        }
    }

    /// <summary>A start that does not end in a shutdown leaves no mark.</summary>
    private void Unmark()
    {
        foreach (var snapshot in volume.Snapshots)
        {
            Guard(() => volume.DeleteSnapshot(snapshot.Name));
        }
    }

    private static DateTimeOffset TimeOf(string seconds) => DateTimeOffset.FromUnixTimeSeconds(long.Parse(seconds, CultureInfo.InvariantCulture));

    private static void Guard(Action work)
    {
        try
        {
            work();
        }
        catch (VolumeException exception)
        {
            throw VolumeErrors.OfVolume(exception, Layer);
        }
    }
}
