using Nacre.Contracts;
using Nacre.Volumes;

namespace Nacre.Player.Anchors;

/// <summary>Keeps a LivePC's anchors while a player has it: checks its layers as they are opened, then writes down how far they have grown, here, at the server and
/// in the TPM.</summary>
#pragma warning disable CA1001 // A semaphore whose wait handle nobody takes holds nothing.
internal sealed class AnchorKeeper
#pragma warning restore CA1001
{
    /// <summary>How often a LivePC that runs writes its anchors down on this computer. The server is told at <see cref="CheckInAsync"/>.</summary>
    internal static readonly TimeSpan Interval = TimeSpan.FromMinutes(5);

    /// <summary>A TPM's memory bears some hundred thousand writes, so one is made an hour at most, and one at each clean end: a workday's ten last for decades.</summary>
    private static readonly TimeSpan CountInterval = TimeSpan.FromHours(1);

    /// <summary>How long the end of a LivePC waits for a server that does not answer.</summary>
    private static readonly TimeSpan LastLimit = TimeSpan.FromSeconds(5);

    private readonly AnchorFile file;
    private readonly TpmCounter? tpm;
    private readonly Func<IReadOnlyList<StatedAnchor>, CancellationToken, Task<AnchorClaims>> state;
    private readonly SemaphoreSlim turn = new(1, 1);
    private readonly Action<string> problem;
    private readonly TimeProvider time;
    private readonly Dictionary<string, Volume> volumes = new(StringComparer.Ordinal);
    private readonly List<string> accepted = [];
    private AnchorBook book = new([]);
    private IReadOnlyList<StatedAnchor> stated = [];
    private NacreException? silentTpm;
    private ulong? kept;
    private ulong? counted;
    private long lastCount;

    /// <param name="file">Where this device keeps them.</param>
    /// <param name="tpm">The TPM's counter, where there is one.</param>
    /// <param name="state">Tells the server, and returns what it says.</param>
    /// <param name="problem">Told what a person should know.</param>
    /// <param name="time">The clock.</param>
    public AnchorKeeper(
        AnchorFile file, TpmCounter? tpm, Func<IReadOnlyList<StatedAnchor>, CancellationToken, Task<AnchorClaims>> state, Action<string> problem, TimeProvider time)
    {
        this.file = file;
        this.tpm = tpm;
        this.state = state;
        this.problem = problem;
        this.time = time;
        lastCount = time.GetTimestamp();
    }

    /// <summary>What to state with the request for a lease.</summary>
    public IReadOnlyList<StatedAnchor> Statements => book.Statements;

    /// <summary>What was accepted although it may be older, in words.</summary>
    public IReadOnlyList<string> Accepted => accepted;

    /// <summary>Reads what this device kept, and compares it with the TPM's count.</summary>
    public async Task LoadAsync(CancellationToken cancellationToken)
    {
        NacreException? doubt = null;
        try
        {
            if (file.Read() is { } read)
            {
                (book, kept) = (new AnchorBook(read.Layers), read.Count);
            }
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.VolumeOutdated)
        {
            doubt = exception;
        }

        if (tpm is null)
        {
            silentTpm = kept is null ? null : new NacreException(
                ErrorCatalogue.VolumeOutdated, "the TPM that counts for this device's layers does not answer, so nobody can tell without the server whether they are older copies");
        }
        else
        {
            counted = await tpm.ReadAsync(cancellationToken).ConfigureAwait(false);

            // The file is written first, then the TPM counts: after a crash between them the file is one ahead.
            if (doubt is null && kept != counted && !(kept is { } mine && counted is { } count && mine == count + 1))
            {
                doubt = new NacreException(
                    ErrorCatalogue.VolumeOutdated,
                    $"what this device keeps of its newest layers is an older copy: it says count {(object?)kept ?? "none"}, the TPM {(object?)counted ?? "none"}");
            }
        }

        if (doubt is not null)
        {
            book.Doubt(doubt);
        }
    }

    /// <summary>Takes what the lease says of the layers.</summary>
    /// <param name="anchors">What the server knew.</param>
    /// <param name="isNow">See <see cref="AnchorBook.Hear"/>.</param>
    public void Hear(IReadOnlyList<LayerAnchor> anchors, bool isNow)
    {
        book.Hear(anchors, isNow);
        if (silentTpm is not null && isNow)
        {
            problem("the TPM that counts for this device's layers does not answer: without the server they would not be opened");
        }
        else if (silentTpm is not null)
        {
            book.Doubt(silentTpm);
        }
    }

    /// <summary>Opens a layer, which must not be older than its newest known state.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="open">Opens its volume, which must not be older than this.</param>
    /// <param name="acceptOlder">Opens it even so.</param>
    /// <exception cref="NacreException">VolumeOutdated, and whatever keeps the volume from being opened.</exception>
    public async Task OpenAsync(string layer, Func<VolumeAnchor?, Volume> open, bool acceptOlder)
    {
        Volume volume;
        string? older = null;
        try
        {
            volume = open(book.Newest(layer) is { } newest ? new VolumeAnchor(newest.Volume, newest.Position) : null);
        }
        catch (NacreException exception) when (acceptOlder && exception.Kind == ErrorCatalogue.VolumeOutdated)
        {
            volume = open(null);
            older = exception.Message;
        }

        try
        {
            // What was written and not flushed before the last end is part of the volume again, and counts once it is durable.
            await volume.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        }
        catch (VolumeException exception)
        {
            throw VolumeErrors.OfVolume(exception, layer);
        }

        if (older is null)
        {
            book.Opened(layer, volume.Anchor);
        }
        else
        {
            book.Accepted(layer, volume.Anchor);
            accepted.Add(older);
        }

        volumes.Add(layer, volume);
    }

    /// <summary>Keeps the anchors from here on: writes down what was opened before anything else happens to it.</summary>
    /// <returns>Ends it, with the last words; to be disposed while the volumes are still open and nobody writes to them any more.</returns>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public async Task<IAsyncDisposable> BeginAsync()
    {
        await SaveAsync(mayCount: kept is null || kept != counted).ConfigureAwait(false);
        return new Keeping(this);
    }

    /// <summary>Writes down how far the layers have grown, and tells the server.</summary>
    /// <returns>What it said; null where it could not be asked.</returns>
    public async Task<AnchorClaims?> CheckInAsync(CancellationToken cancellationToken)
    {
        AnchorClaims? answer = null;
        await TryAsync(
            async () =>
            {
                await KeepAsync(mayCount: false).ConfigureAwait(false);
                answer = await StateAsync(cancellationToken).ConfigureAwait(false);
            }, cancellationToken).ConfigureAwait(false);
        return answer;
    }

    /// <summary>Says how far the layers have grown, and from then on writes it down whenever the interval is over.</summary>
    private async Task RunAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(Interval, time);
        try
        {
            await TryAsync(() => StateNewsAsync(cancellationToken), cancellationToken).ConfigureAwait(false);
            while (await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false))
            {
                await TryAsync(() => KeepAsync(mayCount: time.GetElapsedTime(lastCount) >= CountInterval), cancellationToken).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException)
        {
            // The LivePC ends.
        }
    }

    /// <summary>Writes down how far the layers have grown: before the server is told, which so never knows more than this device.</summary>
    private async Task KeepAsync(bool mayCount)
    {
        foreach (var (layer, volume) in volumes)
        {
            book.Grown(layer, volume.Anchor);
        }

        await SaveAsync(mayCount).ConfigureAwait(false);
    }

    /// <summary>One at a time. What fails now (a full disk, no server) is done at the next interval or start.</summary>
    private async Task TryAsync(Func<Task> keep, CancellationToken cancellationToken)
    {
        await turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await keep().ConfigureAwait(false);
        }
        catch (NacreException)
        {
            // Said where it matters: by the guest's own writes, by the next request to the server.
        }
        finally
        {
            turn.Release();
        }
    }

    private async Task StateNewsAsync(CancellationToken cancellationToken)
    {
        if (!book.Statements.SequenceEqual(stated))
        {
            await StateAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    private async Task<AnchorClaims> StateAsync(CancellationToken cancellationToken)
    {
        var statements = book.Statements;
        var answer = await state(statements, cancellationToken).ConfigureAwait(false);
        book.Answered(statements, answer.Anchors);
        stated = book.Statements;
        file.Write(new KeptAnchors(book.Kept, kept));
        if (book.Missed is { } missed)
        {
            problem(missed);
        }

        return answer;
    }

    private async Task SaveAsync(bool mayCount)
    {
        if (tpm is null || !mayCount)
        {
            file.Write(new KeptAnchors(book.Kept, kept));
            return;
        }

        try
        {
            // Never cancelled half-way, and asked anew each time: whether a count that failed was made is not known otherwise.
            counted = await tpm.ReadAsync(CancellationToken.None).ConfigureAwait(false);
            if (counted is { } count)
            {
                kept = count + 1;
                file.Write(new KeptAnchors(book.Kept, kept));
                counted = await tpm.IncrementAsync(CancellationToken.None).ConfigureAwait(false);
            }
            else
            {
                // Nobody can say what a new counter begins with.
                kept = counted = await tpm.IncrementAsync(CancellationToken.None).ConfigureAwait(false);
                file.Write(new KeptAnchors(book.Kept, kept));
            }

            lastCount = time.GetTimestamp();
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.FileAccess)
        {
            file.Write(new KeptAnchors(book.Kept, kept));
            problem(exception.Message);
        }
    }

    private sealed class Keeping : IAsyncDisposable
    {
        private readonly AnchorKeeper keeper;
        private readonly CancellationTokenSource ending = new();
        private readonly Task running;

        public Keeping(AnchorKeeper keeper)
        {
            this.keeper = keeper;
            running = keeper.RunAsync(ending.Token);
        }

        public async ValueTask DisposeAsync()
        {
            await ending.CancelAsync().ConfigureAwait(false);
            await running.ConfigureAwait(false);
            ending.Dispose();
            foreach (var volume in keeper.volumes.Values)
            {
                try
                {
                    await volume.FlushAsync(CancellationToken.None).ConfigureAwait(false);
                }
                catch (VolumeException)
                {
                    // What was durable before stays so.
                }
            }

            using var limit = new CancellationTokenSource(LastLimit, keeper.time);
            try
            {
                await keeper.TryAsync(
                    async () =>
                    {
                        await keeper.KeepAsync(mayCount: true).ConfigureAwait(false);
                        await keeper.StateNewsAsync(limit.Token).ConfigureAwait(false);
                    }, limit.Token).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                // Written down here, at least.
            }
        }
    }
}
