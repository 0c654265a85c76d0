using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Player.Machines;

namespace Nacre.Player.LivePcs;

/// <summary>Watches for the pause that QEMU makes where a request of the guest's disks failed, says why, and lets the guest go on when the request
/// can succeed: the request is repeated then, so nothing is lost.</summary>
/// <remarks>The events come on QMP's reading task, in QEMU's order; everything else is done by <see cref="RunAsync"/>.</remarks>
internal sealed class PauseWatch(Func<long> freeBytes, Action<string?> changed, TimeProvider time, Func<bool>? mayGoOn = null) : IDisposable
{
    /// <summary>Bytes that must be free before a guest goes on after a full disk: enough for some of the volumes' files (32 MiB each), so that it
    /// does not stop again at once.</summary>
    public const long RoomToGoOn = 256L << 20;

    /// <summary>How often a paused guest's disk is looked at: freeing space has no event.</summary>
    internal static readonly TimeSpan Interval = TimeSpan.FromSeconds(2);

    /// <summary>How long a guest has to have gone on to be believed: what failed is repeated at once, and QEMU takes a moment to stop for it again.</summary>
    private static readonly TimeSpan Moment = TimeSpan.FromSeconds(1);

    private readonly SemaphoreSlim news = new(0);
    private readonly Lock gate = new();
    private Cause? failed;
    private Cause? paused;
    private long? resumed;

    /// <summary>A failed request.</summary>
    /// <param name="IsFull">Whether it failed for want of space.</param>
    /// <param name="Layer">The layer of its disk.</param>
    private sealed record Cause(bool IsFull, string Layer);

    /// <summary>Whether the guest runs, and is not just being let go on.</summary>
    public bool IsSettled
    {
        get
        {
            lock (gate)
            {
                return paused is null && (resumed is not { } since || time.GetElapsedTime(since) > Moment);
            }
        }
    }

    /// <summary>Whether the guest is paused because a request failed.</summary>
    public bool IsPaused
    {
        get
        {
            lock (gate)
            {
                return paused is not null;
            }
        }
    }

    /// <summary>Takes an event of QEMU's.</summary>
    public void OnEvent(string name, JsonNode? data)
    {
        lock (gate)
        {
            switch (name)
            {
                case "BLOCK_IO_ERROR" when data is JsonObject error && error["action"]?.GetValue<string>() == "stop":
                    // Several requests may fail before it stops; a full disk explains the others.
                    if (failed is null || !failed.IsFull)
                    {
                        failed = new Cause(error["nospace"]?.GetValue<bool>() == true, error["node-name"]?.GetValue<string>() ?? "");
                    }

                    break;
                case "STOP" when failed is not null:
                    paused = failed;
                    news.Release();
                    break;
                case "RESUME":
                    Reset();
                    resumed = time.GetTimestamp();
                    break;
            }
        }
    }

    /// <summary>Forgets a machine that has ended.</summary>
    public void Reset()
    {
        lock (gate)
        {
            (failed, paused, resumed) = (null, null, null);
        }
    }

    /// <summary>Lets a paused guest go on until it is cancelled, or QEMU ends.</summary>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public async Task RunAsync(Qmp qmp, CancellationToken cancellationToken)
    {
        while (true)
        {
            await news.WaitAsync(cancellationToken).ConfigureAwait(false);
            for (var cause = Paused(); cause is not null; cause = Paused())
            {
                var free = cause.IsFull ? freeBytes() : long.MaxValue;
                changed(Words(cause, free));
                await Task.Delay(Interval, time, cancellationToken).ConfigureAwait(false);
                if ((!cause.IsFull || freeBytes() >= RoomToGoOn) && mayGoOn?.Invoke() != false)
                {
                    await TryGoOnAsync(qmp, cancellationToken).ConfigureAwait(false);
                }
            }

            changed(null);
        }
    }

    public void Dispose() => news.Dispose();

    private Cause? Paused()
    {
        lock (gate)
        {
            return paused;
        }
    }

    private static async Task TryGoOnAsync(Qmp qmp, CancellationToken cancellationToken)
    {
        try
        {
            await qmp.ExecuteAsync("cont", null, cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException)
        {
            // It has ended, which its player sees by itself, or can't go on yet.
        }
    }

    private static string Words(Cause cause, long free)
    {
        if (!cause.IsFull)
        {
            return $"the disk of its layer '{cause.Layer}' failed; it is tried again";
        }

        // With room on the disk, what is used up is the user's share of it.
        var missing = free < RoomToGoOn ? RoomToGoOn - free : RoomToGoOn;
        return $"the disk of this computer is full: free {(missing + 999_999) / 1_000_000} MB";
    }
}
