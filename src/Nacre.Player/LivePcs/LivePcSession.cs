using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Nbd;
using Nacre.Player.Anchors;
using Nacre.Player.Devices;
using Nacre.Player.HostChecks;
using Nacre.Player.Keys;
using Nacre.Player.Leases;
using Nacre.Player.Logs;
using Nacre.Player.Machines;
using Nacre.Player.Releases;
using Nacre.Player.Stacks;
using Nacre.Player.UserPackages;
using Nacre.Policies;
using Nacre.Volumes;
using Nacre.Volumes.Releases;

namespace Nacre.Player.LivePcs;

/// <summary>How to run a LivePC.</summary>
public sealed record SessionOptions
{
    /// <summary>The guest's memory in MiB; null: as the policy says.</summary>
    public int? Memory { get; init; }

    /// <summary>The guest's processors; null: as the policy says.</summary>
    public int? Processors { get; init; }

    /// <summary>How long the guest may take until it is healthy; null: as long as the policy says.</summary>
    public TimeSpan? StartLimit { get; init; }

    /// <summary>What is done with a package of the user's that the corporate layers can't carry; null: what was chosen at the update, else postpone.</summary>
    public UserPackageChoice? UserPackages { get; init; }

    /// <summary>How long a guest whose image is a whole disk may take until its agent answers; then it counts as one without an agent. Null: 2 minutes, 6 where it
    /// is emulated.</summary>
    public TimeSpan? AgentLimit { get; init; }

    /// <summary>Whether the rest of the release is fetched once the guest is up.</summary>
    public bool FetchRest { get; init; } = true;

    /// <summary>Whether layers that are older than their newest known state are opened even so, and count as the newest from then on.</summary>
    public bool AcceptOlderState { get; init; }
}

/// <summary>
/// The player of one running LivePC: takes the lease, opens the release and the volumes, serves them to QEMU, and stays until the guest ends. Where an
/// earlier player was killed and its QEMU still runs, it goes on with that one.
/// </summary>
public sealed partial class LivePcSession : IDisposable
{
    private const int MaxKernelBytes = 64 * 1024 * 1024;
    private const int MaxInitramfsBytes = 512 * 1024 * 1024;
    private const long GiB = 1L << 30;
    private const string Scratch = "scratch";

    private readonly PlayerPaths paths;
    private readonly LivePcFolder folder;
    private readonly SessionOptions options;
    private readonly KeySecrets secrets;
    private readonly Action<PlayerReport> report;
    private readonly TimeProvider time;
    private readonly Stopwatch sinceCommand = Stopwatch.StartNew();
    private readonly CancellationTokenSource stopping = new();
    private readonly PauseWatch pause;
    private readonly Lock gate = new();
    private LivePcStatus status; // changed under the gate
    private Policy policy = Policy.Factory; // the newest lease's
    private Policy atStart = Policy.Factory; // what the machine started with
    private readonly StackBook book;
    private readonly LivePcLog log;
    private ImageKind kind; // of the LivePC's image
    private bool isDisposable; // nothing of the user's is kept of what runs
    private KeptSystem? system; // of a start of this player's whose policy keeps it
    private volatile bool isShutDown; // the guest ended as it should
    private OpenReleases? releases;
    private OpenedLease? lease;
    private AnchorKeeper? keeper;
    private string? revision; // of the lease whose policy holds here, whatever another command has taken since
    private SecretBytes? key; // of the LivePC's volumes: kept for a start that this player makes by itself
    private Unhealthy? unhealthy;

    /// <summary>Prepares a session.</summary>
    /// <param name="paths">The player's folders.</param>
    /// <param name="name">The LivePC.</param>
    /// <param name="options">How to run it.</param>
    /// <param name="secrets">What its user gave to open it; stays the caller's.</param>
    /// <param name="report">Told each change until the guest is up, and the error where it does not come up.</param>
    /// <param name="time">The clock that leases are compared with.</param>
    public LivePcSession(PlayerPaths paths, string name, SessionOptions options, KeySecrets secrets, Action<PlayerReport> report, TimeProvider time)
    {
        this.paths = paths;
        this.options = options;
        this.secrets = secrets;
        this.report = report;
        this.time = time;
        folder = new LivePcFolder(paths, name);
        folder.Create();
        book = new StackBook(folder, time);
        status = new LivePcStatus { Name = name };

        // What is killed leaves no log; before there is a lease the last one's policy says what is written.
        var kept = LivePcLog.KeptLevel(paths, folder);
        log = new LivePcLog(folder, () => isKilled ? EventLevel.None : lease is null ? kept : policy.Get(Settings.LogsEventLevel), time);
        guestLock = new GuestLock(folder.Locks, reasons => Change(now => now with { Locked = reasons }));
        pause = new PauseWatch(FreeBytes, OnPause, time, () => !guestLock.StandsStill);
        idle = new IdleWatch(time, IdleWatch.ReadSinceBoot);
    }

    /// <summary>Where the player's own errors go; nothing of the guest's is ever in it.</summary>
    public string LogFile => folder.Log;

    /// <summary>Runs the LivePC from its lease to its end.</summary>
    /// <param name="stop">Ends it: the guest is shut down.</param>
    /// <exception cref="NacreException">Whatever kept it from starting.</exception>
    public async Task RunAsync(CancellationToken stop)
    {
        var isEnded = false;
        try
        {
            await RunHeldAsync(stop).ConfigureAwait(false);
        }
        catch (NacreException exception) when (isKilled)
        {
            throw new NacreException(ErrorCatalogue.LivePcKilled, $"'{folder.Name}' was killed on this device", exception);
        }
        catch (NacreException exception)
        {
            NoteFailure(exception);
            isEnded = exception.Kind == ErrorCatalogue.LeaseExpired || exception.Kind == ErrorCatalogue.LivePcExpired;
            throw Explained(exception);
        }
        finally
        {
            await sending.ConfigureAwait(false);
            await FinishDeviceOrdersAsync(isEnded).ConfigureAwait(false);
        }
    }

    private async Task RunHeldAsync(CancellationToken stop)
    {
        using var registration = stop.Register(stopping.Cancel);
        using var single = folder.Hold();
        using var leftOver = LeftOver.Find(folder);
        log.Write(EventLevel.Information, "start", leftOver is null ? "the start begins" : "the start begins: a guest runs whose player was killed");
        await using var control = new ControlSocket(folder.ControlSocket, HandleAsync);
        try
        {
            if (leftOver is not null)
            {
                if (await TryGoOnAsync(leftOver).ConfigureAwait(false) && !TryBeginAnew())
                {
                    return;
                }

                await leftOver.EndAsync().ConfigureAwait(false);
            }

            do
            {
                folder.Machine = null;
                guestLock.Forget();
                await StartStackAsync().ConfigureAwait(false);
            }
            while (TryBeginAnew());
        }
        catch (VolumeException exception)
        {
            throw VolumeErrors.OfRelease(exception);
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
            throw new NacreException(ErrorCatalogue.Cancelled, $"'{folder.Name}' was stopped while it started");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        releases?.Dispose();
        key?.Dispose();
        pause.Dispose();
        guestLock.Dispose();
        hostTurn.Dispose();
        usbTurn.Dispose();
        attending.Dispose();
        stopping.Dispose();
    }

    private async Task StartAsync()
    {
        (system, isShutDown) = (null, false);
        await AttendBeforeStartAsync().ConfigureAwait(false);
        using var identity = EnrolledIdentity.Open(paths);
        using var client = identity.Connect();
        var anchors = await LoadAnchorsAsync(identity, client).ConfigureAwait(false);
        lease = await TakeLeaseAsync(identity, anchors).ConfigureAwait(false);
        RequireTerms();
        await OpenKeyAsync(lease, identity, client).ConfigureAwait(false);
        await RequireHostAsync(identity).ConfigureAwait(false);
        using var cache = new SegmentCache(paths.Segments);
        await OpenReleasesAsync(lease, cache, client).ConfigureAwait(false);
        await using var filling = await BeginFillingAsync(lease).ConfigureAwait(false);
        using (var boot = await ReadBootFilesAsync(lease).ConfigureAwait(false))
        {
            await using var volumes = await OpenVolumesAsync(lease, anchors).ConfigureAwait(false);
            await using var keeping = await anchors.BeginAsync().ConfigureAwait(false);
            await PrepareMomentsAsync(volumes, lease, identity, client).ConfigureAwait(false);
            await using var nbd = NbdServer.Start(folder.NbdSocket, volumes.Exports);
            disks = nbd;
            Report(LivePcPhase.Accelerator, "choosing the accelerator");
            var accelerator = await Accelerator.ChooseAsync(
                paths.Accelerator, boot.Kernel, () => Report(LivePcPhase.Accelerator, "finding out whether KVM really works here"), stopping.Token).ConfigureAwait(false);
            Change(now => now with { Accelerator = accelerator });
            Report(LivePcPhase.Booting, "starting the guest");
            var fresh = isDisposable ? [] : UserLayers.Of(kind).Select(layer => layer.Layer).Where(layer => !folder.IsInUse(layer)).ToArray();
            var commandLine = boot.CommandLine;
            if (fresh.Length > 0)
            {
                commandLine += $" nacre.fresh={string.Join(',', fresh)}";
            }

            var stack = releases!.Stack;
            using var parameters = new GuestParameters(policy, stack.Releases.Select(release => release.ToString()), options.UserPackages ?? folder.UserPackages ?? UserPackageChoice.Postpone, lease.Claims.Groups ?? [], SerialOf(identity));
            features = MachineFeatures.Of(policy, HostFacts.Real);
            var machine = Machine(accelerator, stack, parameters.Paths) with { Kernel = boot.Kernel, Initramfs = boot.Initramfs, CommandLine = commandLine, Variables = boot.Variables };
            await using var qemu = Qemu.Start(machine);
            var record = new MachineRecord
            {
                ProcessId = qemu.ProcessId,
                StartTime = ProcessHandle.StartTimeOf(qemu.ProcessId) ?? 0,
                Stack = stack,
                Release = MachineRecord.DigestOf(stack.Releases.Select(release => lease.Release(release).Signed)),
                Kind = kind,
                Accelerator = accelerator,
                Memory = machine.Memory,
                Processors = machine.Processors,
                Features = machine.Features,
                Shape = MachineRecord.ShapeOf(machine),
                Fresh = fresh,
                IsDisposable = isDisposable,
                KeepsSystem = system is not null,
            };
            folder.Machine = record;
            await ServeAsync(qemu, record).ConfigureAwait(false);
            if (isShutDown && !isKilled)
            {
                system?.End();
            }
        }
    }

    /// <summary>What a computer's name may have of this device and LivePC: always the same, and nothing secret.</summary>
    private string SerialOf(EnrolledIdentity identity) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes($"{identity.Record.DeviceId} {folder.Name}")).AsSpan(0, 4));

    private async Task<AnchorKeeper> LoadAnchorsAsync(EnrolledIdentity identity, NacreClient client) => keeper = await OpenLayers.LoadAnchorsAsync(
        folder, identity, () => (online ?? client, revision), problem => Change(now => now with { FreshnessProblem = problem }), time, stopping.Token).ConfigureAwait(false);

    private async Task<OpenedLease> TakeLeaseAsync(EnrolledIdentity identity, AnchorKeeper anchors)
    {
        Report(LivePcPhase.Lease, "taking a lease");
        var state = book.Read();
        var taken = await OpenedLease.TakeAsync(identity, folder, state.Needed, anchors.Statements, time, stopping.Token).ConfigureAwait(false);
        // A channel that was moved back, or a layer that was taken out, takes a release away: what the lease does not cover does not start.
        Note(taken, state.Choose(taken.Covers, taken.Offered));
        atStart = policy;
        return taken;
    }

    private void Note(OpenedLease taken, CorporateStack stack)
    {
        policy = taken.Policy;
        NoteLease(taken);
        kind = taken.Kind;
        Change(now => now with
        {
            Image = stack.System.Image,
            Version = stack.System.Version,
            Layers = [.. stack.Layers.Select(layer => layer.ToString())],
            Offline = taken.OfflineBecause is not null,
            LeaseEnds = taken.Ends,
            LeaseWarning = taken.IsNew && taken.Expires is null ? null : LeaseEnd.WordsOf(taken.Claims, taken.Policy, taken.Ends, time.GetUtcNow()),
            TrustProblem = taken.IsNew ? taken.Trust.Problem?.Message : null,
        });
    }

    private Task OpenReleasesAsync(OpenedLease taken, SegmentCache cache, NacreClient client)
    {
        var stack = book.Read().Choose(taken.Covers, taken.Offered);
        Report(LivePcPhase.Release, $"verifying {stack}");
        return OpenReleasesAsync(taken, stack, cache, client, stopping.Token);
    }

    private async Task<BootFiles> ReadBootFilesAsync(OpenedLease taken)
    {
        var (stack, opened) = (releases!.Stack, releases.System);
        BootFiles boot;
        if (kind == ImageKind.Disk)
        {
            boot = BootFiles.Firmware();
        }
        else
        {
            Report(LivePcPhase.Release, "fetching the kernel");
            boot = new BootFiles(
                await opened.ReadAllAsync("kernel", MaxKernelBytes, stopping.Token).ConfigureAwait(false),
                await opened.ReadAllAsync("initramfs", MaxInitramfsBytes, stopping.Token).ConfigureAwait(false),
                taken.Release(stack.System).Manifest.CommandLine);
        }

        var state = await book.ChangeAsync(now => stack.Equals(now.Next) ? now : now.Offer(stack), stopping.Token).ConfigureAwait(false);
        Change(now => now with { OnTrial = stack.Equals(state.Trial) });
        return boot;
    }

    private async Task OpenReleasesAsync(OpenedLease taken, CorporateStack stack, SegmentCache cache, NacreClient client, CancellationToken cancellationToken)
    {
        releases = await OpenReleases.OpenAsync(taken, stack, new ReleaseOpener(paths, cache, Delivery.Of(taken, client, null, time)), cancellationToken).ConfigureAwait(false);
        Change(now => now with { ImageBytes = releases.Size });
    }

    private async Task<OpenVolumes> OpenVolumesAsync(OpenedLease lease, AnchorKeeper anchors)
    {
        Report(LivePcPhase.Volumes, "opening the user's layers");
        var volumes = new OpenVolumes();
        try
        {
            isDisposable = policy.Get(Settings.Disposable);
            if (isDisposable)
            {
                foreach (var (layer, size) in UserLayers.Of(kind))
                {
                    volumes.Renew(layer, folder.DisposableVolume(layer), size, folder.DisposableKey(layer));
                }
            }
            else
            {
                await OpenUserLayersAsync(volumes, lease, anchors, options.AcceptOlderState).ConfigureAwait(false);
            }

            var clean = Stopwatch.StartNew();
            var (scratch, isKept) = await OpenScratchAsync(volumes, anchors).ConfigureAwait(false);
            AddSystem(volumes, scratch);
            Change(now => now with { RejuvenationMilliseconds = isKept ? null : clean.Elapsed.TotalMilliseconds });
            return volumes;
        }
        catch
        {
            await volumes.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>The disk of what is in no layer of the user's: blank, or where the policy keeps it as the last guest left it.</summary>
    private async Task<(Volume Scratch, bool IsKept)> OpenScratchAsync(OpenVolumes volumes, AnchorKeeper anchors)
    {
        var size = kind == ImageKind.Disk ? ReleaseFork.VolumeSize(new ReleaseVolume(releases!.System, "disk").Size) : MachineOptions.ScratchSize;
        var cleaning = isDisposable ? SystemCleaning.EveryStart : policy.Get(Settings.RejuvenateSystem);
        if (cleaning == SystemCleaning.EveryStart && !Directory.Exists(folder.Volume(KeptSystem.Layer)))
        {
            return (volumes.Renew(Scratch, folder.Volume(Scratch), size, folder.ScratchKey), false);
        }

        // An older copy, none in the place of one, or one that is damaged is no reason not to start: it is made blank.
        var known = anchors.Accepted.Count;
        Volume kept;
        try
        {
            kept = await OpenKeptSystemAsync(volumes, anchors, size, acceptOlder: true).ConfigureAwait(false);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.VolumeDamaged)
        {
            Directory.Delete(folder.Volume(KeptSystem.Layer), recursive: true);
            kept = await OpenKeptSystemAsync(volumes, anchors, size, acceptOlder: true).ConfigureAwait(false);
        }

        var isToClean = anchors.Accepted.Count > known || folder.IsSystemToClean || kept.Size != size;
        system = new KeptSystem(kept, time);
        var isKept = await system.BeginAsync(isToClean ? SystemCleaning.EveryStart : cleaning, WhatLiesBelow()).ConfigureAwait(false);
        folder.IsSystemToClean = false;
        if (kept.Size < size)
        {
            kept.Resize(size);
        }

        if (cleaning != SystemCleaning.EveryStart && kept.Size == size)
        {
            volumes.Alias(Scratch, kept);
            return (kept, isKept);
        }

        // It stays blank; a volume never shrinks to a smaller release's size.
        system = null;
        return (volumes.Renew(Scratch, folder.Volume(Scratch), size, folder.ScratchKey), false);
    }

    private async Task<Volume> OpenKeptSystemAsync(OpenVolumes volumes, AnchorKeeper anchors, long size, bool acceptOlder)
    {
        Volume? opened = null;
        await anchors.OpenAsync(
            KeptSystem.Layer, newest => opened = volumes.Open(KeptSystem.Layer, folder.Volume(KeptSystem.Layer), size, key!, newest), acceptOlder).ConfigureAwait(false);
        return opened!;
    }

    /// <summary>What the system layer's own disk lies over, and what a start writes into it: another one needs a blank disk.</summary>
    private string WhatLiesBelow() => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(string.Join('\n', [
        MachineRecord.DigestOf(releases!.Stack.Releases.Select(release => lease!.Release(release).Signed)), $"{policy.Get(Settings.LayerApp)}", .. policy.Get(Settings.LayerRules),
        "", .. AppVisibility.Hidden(policy, lease!.Claims.Groups ?? []),
    ]))).AsSpan(0, 16));

    /// <summary>Opens the key before anything is fetched: a wrong password is told at once.</summary>
    private async Task OpenKeyAsync(OpenedLease lease, EnrolledIdentity identity, NacreClient client)
    {
        if (key is null)
        {
            Report(LivePcPhase.Lease, "opening the keys");
            key = await OpenLayers.OpenKeyAsync(folder, lease, identity, client, secrets, time, stopping.Token).ConfigureAwait(false);
            idle.NotePassword();
        }
    }

    private async Task OpenUserLayersAsync(OpenVolumes volumes, OpenedLease lease, AnchorKeeper anchors, bool acceptOlder)
    {
        await OpenLayers.OpenUserLayersAsync(volumes, folder, lease, key!, anchors, acceptOlder).ConfigureAwait(false);
        Change(now => now with { AcceptedOlder = anchors.Accepted });
    }

    /// <summary>The corporate layers' disks: read-only, or of a whole disk its fork, with <paramref name="scratch"/> for what it changes.</summary>
    private void AddSystem(OpenVolumes volumes, Volume scratch)
    {
        if (kind == ImageKind.Disk)
        {
            volumes.Add("system", new ReleaseFork(new ReleaseVolume(releases!.System, "disk"), scratch));
            return;
        }

        volumes.Add("system", new ReleaseVolume(releases!.System, "system"));
        foreach (var (export, device) in releases.Layers)
        {
            volumes.Add(export, device);
        }
    }

    /// <summary>The machine, without what it starts from.</summary>
    private MachineOptions Machine(string accelerator, CorporateStack stack, IReadOnlyList<(string Name, string Path)> parameters)
    {
        return new MachineOptions
        {
            Name = LeftOver.MachineName(folder),
            Accelerator = accelerator,
            NbdSocket = folder.NbdSocket,
            Disks = MachineOptions.DisksOf(kind, stack.Layers.Count()),
            Parameters = kind == ImageKind.Disk ? [] : parameters,
            Memory = options.Memory ?? MachineOptions.MemoryOf(policy),
            Processors = options.Processors ?? MachineOptions.ProcessorsOf(policy),
            Features = features,
            Sockets = folder.Sockets,
        };
    }
}
