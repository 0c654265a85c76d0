using Nacre.Contracts;
using Nacre.Player.Machines;

namespace Nacre.Player.LivePcs;

/// <summary>Why a guest is locked. While there is a reason its screen is shown to nobody, and its processors stand still where the reason says so. The reasons are kept beside the machine's sockets, so
/// that a player that goes on with a guest after its own was killed does not let it go on. Thread-safe.</summary>
/// <param name="path">The file of the reasons.</param>
/// <param name="changed">Told them in words, each time that they change.</param>
internal sealed class GuestLock(string path, Action<IReadOnlyList<string>> changed) : IDisposable
{
    private readonly SemaphoreSlim turn = new(1, 1);
    private readonly SortedDictionary<string, LockReason> reasons = new(StringComparer.Ordinal);
    private Qmp? machine;
    private ScreenDoor? screen;
    private bool isEnding;

    /// <summary>Whether there is a reason.</summary>
    public bool IsHeld { get; private set; }

    /// <summary>Whether there is a reason for which the guest stands still.</summary>
    public bool StandsStill => reasons.Values.Any(reason => reason.StandsStill);

    /// <summary>Whether there is this reason.</summary>
    public bool Has(string reason)
    {
        turn.Wait();
        try
        {
            return reasons.ContainsKey(reason);
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>Takes up the reasons that an earlier player left; a machine that starts anew has none.</summary>
    public void TakeUp(bool isAdopted)
    {
        reasons.Clear();
        foreach (var (reason, kept) in isAdopted ? DurableFile.ReadJson<Dictionary<string, LockReason>>(path) ?? [] : [])
        {
            reasons[reason] = kept;
        }

        (machine, screen, isEnding) = (null, null, false);
        IsHeld = reasons.Count > 0;
        changed([.. reasons.Values.Select(reason => reason.Words)]);
    }

    /// <summary>The screen can be seen from here on, unless there is a reason.</summary>
    public async Task AttachAsync(ScreenDoor door)
    {
        await turn.WaitAsync().ConfigureAwait(false);
        try
        {
            screen = door;
            door.Set(open: !IsHeld);
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>The guest is up: what was said before takes effect now. One that starts is not stopped, or it would count as unhealthy.</summary>
    /// <exception cref="NacreException">QemuFailed.</exception>
    public async Task AttachAsync(Qmp qmp, CancellationToken cancellationToken)
    {
        await turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            machine = qmp;
            if (StandsStill)
            {
                await qmp.ExecuteAsync("stop", null, cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>Locks the guest for a reason, so that it stands still.</summary>
    /// <exception cref="NacreException">QemuFailed.</exception>
    public Task LockAsync(string reason, string words, CancellationToken cancellationToken) => LockAsync(reason, words, standsStill: true, cancellationToken);

    /// <summary>Locks the guest for a reason; other words for one that there is replace them.</summary>
    /// <param name="reason">Its name.</param>
    /// <param name="words">For a person: why, and what to do.</param>
    /// <param name="standsStill">Whether the guest's processors stand still; else it works on, unseen.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <exception cref="NacreException">QemuFailed: QEMU does not answer. The reason is kept, and the screen is not shown.</exception>
    public async Task LockAsync(string reason, string words, bool standsStill, CancellationToken cancellationToken)
    {
        await turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            var fresh = new LockReason(words, standsStill);
            if (reasons.TryGetValue(reason, out var before) && before == fresh)
            {
                return;
            }

            var stood = StandsStill;
            reasons[reason] = fresh;
            Keep();
            screen?.Set(open: false);
            if (!stood && StandsStill && machine is not null && !isEnding)
            {
                await machine.ExecuteAsync("stop", null, cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>Takes a reason away; with the last one the guest goes on.</summary>
    /// <exception cref="NacreException">QemuFailed: QEMU does not answer, or the guest can't go on.</exception>
    public async Task UnlockAsync(string reason, CancellationToken cancellationToken)
    {
        await turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (!reasons.TryGetValue(reason, out var taken))
            {
                return;
            }

            // The reason goes when the guest goes on, so that one that could not is tried again.
            if (taken.StandsStill && reasons.Values.Count(one => one.StandsStill) == 1 && machine is not null && !isEnding)
            {
                await machine.ExecuteAsync("cont", null, cancellationToken).ConfigureAwait(false);
            }

            reasons.Remove(reason);
            Keep();
            screen?.Set(open: !IsHeld);
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>Lets a locked guest run to shut itself down, unseen; it is not stopped any more.</summary>
    public async Task EndAsync(CancellationToken cancellationToken)
    {
        await turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            isEnding = true;
            if (StandsStill && machine is not null)
            {
                await machine.ExecuteAsync("cont", null, cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>Forgets the reasons of a machine that has ended.</summary>
    public void Forget()
    {
        File.Delete(path);
        TakeUp(isAdopted: false);
    }

    public void Dispose() => turn.Dispose();

    private void Keep()
    {
        IsHeld = reasons.Count > 0;
        changed([.. reasons.Values.Select(reason => reason.Words)]);
        DurableFile.WriteJson(path, reasons);
    }
}

/// <summary>A reason for which a guest is locked.</summary>
/// <param name="Words">For a person: why, and what to do.</param>
/// <param name="StandsStill">Whether its processors stand still.</param>
internal sealed record LockReason(string Words, bool StandsStill);
