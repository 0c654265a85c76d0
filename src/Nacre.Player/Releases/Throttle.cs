namespace Nacre.Player.Releases;

/// <summary>
/// Keeps a LivePC's downloads to so many bytes a second. What a guest waits for is counted and not slowed: the rest waits longer for it. Thread-safe.
/// </summary>
internal sealed class Throttle
{
    /// <summary>No limit.</summary>
    public static Throttle None { get; } = new(0, TimeProvider.System);

    private readonly Lock gate = new();
    private readonly int bytesPerSecond;
    private readonly TimeProvider time;
    private readonly long begin;
    private TimeSpan free;

    /// <summary>Creates one.</summary>
    /// <param name="bytesPerSecond">The limit; 0: none.</param>
    /// <param name="time">The clock; only how it goes on counts, not what it shows.</param>
    public Throttle(int bytesPerSecond, TimeProvider time)
    {
        this.bytesPerSecond = bytesPerSecond;
        this.time = time;
        begin = time.GetTimestamp();
    }

    /// <summary>Returns when so many bytes may be fetched.</summary>
    public async ValueTask WaitAsync(int bytes, bool isUrgent, CancellationToken cancellationToken)
    {
        if (bytesPerSecond == 0)
        {
            return;
        }

        TimeSpan pause;
        lock (gate)
        {
            var now = time.GetElapsedTime(begin);
            var mine = free > now ? free : now;
            free = mine + TimeSpan.FromSeconds((double)bytes / bytesPerSecond);
            pause = mine - now;
        }

        if (!isUrgent && pause > TimeSpan.Zero)
        {
            await Task.Delay(pause, time, cancellationToken).ConfigureAwait(false);
        }
    }
}
