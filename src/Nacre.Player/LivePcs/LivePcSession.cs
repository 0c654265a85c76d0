using System.Diagnostics;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Nbd;
using Nacre.Player.Anchors;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Player.Machines;
using Nacre.Player.Releases;
using Nacre.Volumes;
using Nacre.Volumes.Releases;

namespace Nacre.Player.LivePcs;

/// <summary>How to run a LivePC.</summary>
public sealed record SessionOptions
{
    /// <summary>The guest's memory in MiB; null: half of the host's, 1,024 to 4,096.</summary>
    public int? Memory { get; init; }

    /// <summary>The guest's processors; null: the host's, at most 4.</summary>
    public int? Processors { get; init; }

    /// <summary>How long the guest may take until it is healthy; null: as long as the policy says.</summary>
    public TimeSpan? StartLimit { get; init; }

    /// <summary>What is done with a package of the user's that the corporate layers can't carry; null: what was chosen at the update, else postpone.</summary>
    public UserPackageConflicts? UserPackages { get; init; }

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

    /// <summary>The user's layers and their sizes; nothing is stored for what was never written.</summary>
    internal static readonly (string Layer, long Size)[] UserLayers = [("applications", 32 * GiB), ("settings", 8 * GiB), ("data", 64 * GiB)];

    private readonly PlayerPaths paths;
    private readonly LivePcFolder folder;
    private readonly SessionOptions options;
    private readonly Action<PlayerReport> report;
    private readonly TimeProvider time;
    private readonly Stopwatch sinceCommand = Stopwatch.StartNew();
    private readonly CancellationTokenSource stopping = new();
    private readonly PauseWatch pause;
    private readonly Lock gate = new();
    private LivePcStatus status; // changed under the gate
    private LayerPolicy policy = LayerPolicy.Default; // the lease's
    private ReleaseReader? reader;
    private ReleaseOpener? opener;

    /// <summary>Prepares a session.</summary>
    /// <param name="paths">The player's folders.</param>
    /// <param name="name">The LivePC.</param>
    /// <param name="options">How to run it.</param>
    /// <param name="report">Told each change until the guest is up, and the error where it does not come up.</param>
    /// <param name="time">The clock that leases are compared with.</param>
    public LivePcSession(PlayerPaths paths, string name, SessionOptions options, Action<PlayerReport> report, TimeProvider time)
    {
        this.paths = paths;
        this.options = options;
        this.report = report;
        this.time = time;
        folder = new LivePcFolder(paths, name);
        folder.Create();
        status = new LivePcStatus { Name = name };
        pause = new PauseWatch(FreeBytes, OnPause, time);
    }

    /// <summary>Where the player's own errors go; nothing of the guest's is ever in it.</summary>
    public string LogFile => folder.Log;

    /// <summary>Runs the LivePC from its lease to its end.</summary>
    /// <param name="stop">Ends it: the guest is shut down.</param>
    /// <exception cref="NacreException">Whatever kept it from starting.</exception>
    public async Task RunAsync(CancellationToken stop)
    {
        using var registration = stop.Register(stopping.Cancel);
        using var single = folder.Hold();
        using var leftOver = LeftOver.Find(folder);
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
                await StartAsync().ConfigureAwait(false);
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
        reader?.Dispose();
        pause.Dispose();
        stopping.Dispose();
    }

    private async Task StartAsync()
    {
        using var identity = EnrolledIdentity.Open(paths);
        using var client = identity.Connect();
        var anchors = await LoadAnchorsAsync(identity, client).ConfigureAwait(false);
        var lease = await TakeLeaseAsync(identity, anchors).ConfigureAwait(false);
        using var cache = new SegmentCache(paths.Segments);
        var (kernel, initramfs, commandLine) = await OpenReleaseAsync(lease, cache, client).ConfigureAwait(false);
        using (kernel)
        using (initramfs)
        {
            await using var volumes = await OpenVolumesAsync(lease, identity, anchors).ConfigureAwait(false);
            await using var keeping = await anchors.BeginAsync().ConfigureAwait(false);
            await PrepareMomentsAsync(volumes, lease, identity, client).ConfigureAwait(false);
            await using var nbd = NbdServer.Start(folder.NbdSocket, volumes.Exports);
            disks = nbd;
            Report(LivePcPhase.Accelerator, "choosing the accelerator");
            var accelerator = await Accelerator.ChooseAsync(
                paths.Accelerator, kernel.Path, () => Report(LivePcPhase.Accelerator, "finding out whether KVM really works here"), stopping.Token).ConfigureAwait(false);
            Change(now => now with { Accelerator = accelerator });
            Report(LivePcPhase.Booting, "starting the guest");
            var fresh = UserLayers.Select(layer => layer.Layer).Where(layer => !folder.IsInUse(layer)).ToArray();
            if (fresh.Length > 0)
            {
                commandLine += $" nacre.fresh={string.Join(',', fresh)}";
            }

            using var parameters = new GuestParameters(policy, [$"{status.Image} {status.Version}"], options.UserPackages ?? folder.UserPackages ?? UserPackageConflicts.Postpone);
            var machine = Machine(accelerator, kernel.Path, initramfs.Path, commandLine, parameters.Paths);
            await using var qemu = Qemu.Start(machine);
            var record = new MachineRecord
            {
                ProcessId = qemu.ProcessId,
                StartTime = ProcessHandle.StartTimeOf(qemu.ProcessId) ?? 0,
                Version = status.Version!.Value,
                Release = MachineRecord.DigestOf(lease.Release(status.Version!.Value).Signed),
                Accelerator = accelerator,
                Memory = machine.Memory,
                Processors = machine.Processors,
                Shape = MachineRecord.ShapeOf(machine),
                Fresh = fresh,
            };
            folder.Machine = record;
            await ServeAsync(qemu, record).ConfigureAwait(false);
        }
    }

    private Task<AnchorKeeper> LoadAnchorsAsync(EnrolledIdentity identity, NacreClient client) => OpenLayers.LoadAnchorsAsync(
        folder, identity, client, problem => Change(now => now with { FreshnessProblem = problem }), time, stopping.Token);

    private async Task<OpenedLease> TakeLeaseAsync(EnrolledIdentity identity, AnchorKeeper anchors)
    {
        Report(LivePcPhase.Lease, "taking a lease");
        var installed = folder.InstalledManifest is { } signed && identity.Record.ReleaseKey is { } key
            ? Jws.VerifyClaims<ReleaseManifest>(signed, key, ErrorCatalogue.ReleaseNotAuthentic, ReleaseManifest.Type).Version
            : (int?)null;
        var lease = await OpenedLease.TakeAsync(identity, folder, installed, anchors.Statements, time, stopping.Token).ConfigureAwait(false);
        // A channel that was moved back takes the newer release away: what the lease does not cover does not start.
        Note(lease, installed is { } version && lease.Covers(version) ? version : lease.Claims.Version);
        return lease;
    }

    private void Note(OpenedLease lease, int version)
    {
        policy = lease.Claims.Policy ?? LayerPolicy.Default;
        Change(now => now with
        {
            Image = lease.Claims.Image,
            Version = version,
            Offline = lease.OfflineBecause is not null,
            LeaseEnds = lease.Ends,
        });
    }

    private async Task<(MemoryFile Kernel, MemoryFile Initramfs, string CommandLine)> OpenReleaseAsync(OpenedLease lease, SegmentCache cache, NacreClient client)
    {
        Report(LivePcPhase.Release, $"verifying release {status.Version} of {status.Image}");
        var (manifest, signed) = lease.Release(status.Version!.Value);
        var opened = await OpenReaderAsync(lease, manifest, cache, client, stopping.Token).ConfigureAwait(false);
        Report(LivePcPhase.Release, "fetching the kernel");
        var kernel = new MemoryFile("kernel", await opened.ReadAllAsync("kernel", MaxKernelBytes, stopping.Token).ConfigureAwait(false));
        var initramfs = new MemoryFile("initramfs", await opened.ReadAllAsync("initramfs", MaxInitramfsBytes, stopping.Token).ConfigureAwait(false));
        if (folder.InstalledManifest != signed)
        {
            folder.InstalledManifest = signed;
        }

        return (kernel, initramfs, manifest.CommandLine);
    }

    private async Task<ReleaseReader> OpenReaderAsync(
        OpenedLease lease, ReleaseManifest manifest, SegmentCache cache, NacreClient client, CancellationToken cancellationToken)
    {
        opener = new ReleaseOpener(paths, cache, new ServerOrigin(client));
        reader = await opener.OpenAsync(manifest, lease.ReleaseKey(manifest.Version), cancellationToken).ConfigureAwait(false);
        Change(now => now with { ImageBytes = manifest.Size });
        return reader;
    }

    private async Task<OpenVolumes> OpenVolumesAsync(OpenedLease lease, EnrolledIdentity identity, AnchorKeeper anchors)
    {
        Report(LivePcPhase.Volumes, "opening the user's layers");
        var volumes = new OpenVolumes();
        try
        {
            await OpenUserLayersAsync(volumes, lease, identity, anchors, options.AcceptOlderState).ConfigureAwait(false);
            var clean = Stopwatch.StartNew();
            volumes.Renew(Scratch, folder.Volume(Scratch), 32 * GiB, folder.ScratchKey);
            Change(now => now with { RejuvenationMilliseconds = clean.Elapsed.TotalMilliseconds });
            return volumes;
        }
        catch
        {
            await volumes.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private async Task OpenUserLayersAsync(OpenVolumes volumes, OpenedLease lease, EnrolledIdentity identity, AnchorKeeper anchors, bool acceptOlder)
    {
        volumes.Add("system", new ReleaseVolume(reader!, "system"));
        await OpenLayers.OpenUserLayersAsync(volumes, folder, lease, identity, anchors, acceptOlder).ConfigureAwait(false);
        Change(now => now with { AcceptedOlder = anchors.Accepted });
    }

    private MachineOptions Machine(string accelerator, string kernel, string initramfs, string commandLine, IReadOnlyList<(string Name, string Path)> parameters)
    {
        var host = GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / (1024 * 1024);
        return new MachineOptions
        {
            Name = LeftOver.MachineName(folder),
            Accelerator = accelerator,
            Kernel = kernel,
            Initramfs = initramfs,
            CommandLine = commandLine,
            NbdSocket = folder.NbdSocket,
            Disks =
            [
                new GuestDisk("nacre-system", "system", IsReadOnly: true),
                new GuestDisk("nacre-scratch", Scratch, IsReadOnly: false),
                .. UserLayers.Select(layer => new GuestDisk($"nacre-{layer.Layer}", layer.Layer, IsReadOnly: false)),
            ],
            Parameters = parameters,
            Memory = options.Memory ?? (int)Math.Clamp(host / 2, 1024, 4096),
            Processors = options.Processors ?? Math.Min(4, Environment.ProcessorCount),
            Sockets = folder.Sockets,
        };
    }
}
