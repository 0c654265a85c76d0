using Nacre.Contracts;
using Nacre.Volumes;

namespace Nacre.Player.Anchors;

/// <summary>Keeps a LivePC's anchors while a player has it: checks its layers as they are opened, then writes down how far they have grown, here, at the server and
/// in the TPM.</summary>
internal sealed class AnchorKeeper
{
    /// <summary>How often a LivePC that runs states its anchors: the most that an older copy can lack without the server's notice. A request of some hundred
    /// bytes, and none where nothing was written.</summary>
    internal static readonly TimeSpan Interval = TimeSpan.FromMinutes(5);

    /// <summary>A TPM's memory bears some hundred thousand writes, so one is made an hour at most, and one at each clean end: a workday's ten last for decades.</summary>
    private static readonly TimeSpan CountInterval = TimeSpan.FromHours(1);

    /// <summary>How long the end of a LivePC waits for a server that does not answer.</summary>
    private static readonly TimeSpan LastLimit = TimeSpan.FromSeconds(5);

    private readonly AnchorFile file;
    private readonly TpmCounter? tpm;
    private readonly Func<IReadOnlyList<StatedAnchor>, CancellationToken, Task<IReadOnlyList<LayerAnchor>>> state;
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
    /// <param name="state">Tells the server, and returns what it knows.</param>
    /// <param name="problem">Told what a person should know.</param>
    /// <param name="time">The clock.</param>
    public AnchorKeeper(
        AnchorFile file, TpmCounter? tpm, Func<IReadOnlyList<StatedAnchor>, CancellationToken, Task<IReadOnlyList<LayerAnchor>>> state, Action<string> problem, TimeProvider time)
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

    /// <summary>Says how far the layers have grown, and again whenever the interval is over.</summary>
    private async Task RunAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(Interval, time);
        try
        {
            await TryAsync(() => StateAsync(cancellationToken)).ConfigureAwait(false);
            while (await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false))
            {
                await TryAsync(() => KeepAsync(mayCount: time.GetElapsedTime(lastCount) >= CountInterval, cancellationToken)).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException)
        {
            // The LivePC ends.
        }
    }

    /// <summary>Writes down how far the layers have grown, then tells the server: it never knows more than this device.</summary>
    private async Task KeepAsync(bool mayCount, CancellationToken cancellationToken)
    {
        foreach (var (layer, volume) in volumes)
        {
            book.Grown(layer, volume.Anchor);
        }

        await SaveAsync(mayCount).ConfigureAwait(false);
        await StateAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>What fails now (a full disk, no server) is done at the next interval or start.</summary>
    private static async Task TryAsync(Func<Task> keep)
    {
        try
        {
            await keep().ConfigureAwait(false);
        }
        catch (NacreException)
        {
            // Said where it matters: by the guest's own writes, by the next request to the server.
        }
    }

    private async Task StateAsync(CancellationToken cancellationToken)
    {
        var statements = book.Statements;
        if (statements.SequenceEqual(stated))
        {
            return;
        }

        book.Answered(statements, await state(statements, cancellationToken).ConfigureAwait(false));
        stated = book.Statements;
        file.Write(new KeptAnchors(book.Kept, kept));
        if (book.Missed is { } missed)
        {
            problem(missed);
        }
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
                await TryAsync(() => keeper.KeepAsync(mayCount: true, limit.Token)).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                // Written down here, at least.
            }
        }
    }
}
