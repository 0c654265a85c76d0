using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Nbd;
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

    /// <summary>How long the guest may take until its agent answers.</summary>
    public TimeSpan StartLimit { get; init; } = TimeSpan.FromMinutes(15);

    /// <summary>Whether the rest of the release is fetched once the guest is up.</summary>
    public bool FetchRest { get; init; } = true;
}

/// <summary>
/// The player of one running LivePC: takes the lease, opens the release and the volumes, serves them to QEMU, and stays until the guest ends.
/// </summary>
public sealed class LivePcSession : IDisposable
{
    private const int MaxKernelBytes = 64 * 1024 * 1024;
    private const int MaxInitramfsBytes = 512 * 1024 * 1024;
    private const long GiB = 1L << 30;
    private const string Scratch = "scratch";
    private static readonly TimeSpan OutageLimit = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan ShutdownLimit = TimeSpan.FromSeconds(90);

    /// <summary>The user's layers and their sizes; nothing is stored for what was never written.</summary>
    private static readonly (string Layer, long Size)[] UserLayers = [("applications", 32 * GiB), ("settings", 8 * GiB), ("data", 64 * GiB)];

    private readonly PlayerPaths paths;
    private readonly LivePcFolder folder;
    private readonly SessionOptions options;
    private readonly Action<PlayerReport> report;
    private readonly TimeProvider time;
    private readonly Stopwatch sinceCommand = Stopwatch.StartNew();
    private readonly CancellationTokenSource stopping = new();
    private LivePcStatus status;
    private ReleaseReader? reader;
    private ReleaseOpener? opener;
    private Qmp? qmp;
    private GuestAgent? agent; // disposed by the scope that made it

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
    }

    /// <summary>Where the player's own errors go; nothing of the guest's is ever in it.</summary>
    public string LogFile => folder.Log;

    /// <summary>Runs the LivePC from its lease to its end.</summary>
    /// <param name="stop">Ends it: the guest is shut down.</param>
    /// <exception cref="NacreException">Whatever kept it from starting.</exception>
    public async Task RunAsync(CancellationToken stop)
    {
        using var registration = stop.Register(stopping.Cancel);
        using var single = HoldLock();
        EndLeftOver();
        await using var control = new ControlSocket(folder.ControlSocket, HandleAsync);
        try
        {
            await RunLockedAsync().ConfigureAwait(false);
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
        stopping.Dispose();
    }

    private async Task RunLockedAsync()
    {
        using var identity = EnrolledIdentity.Open(paths);
        using var client = identity.Connect();
        var lease = await TakeLeaseAsync(identity).ConfigureAwait(false);
        using var cache = new SegmentCache(paths.Segments);
        var (kernel, initramfs, commandLine) = await OpenReleaseAsync(lease, cache, client).ConfigureAwait(false);
        using (kernel)
        using (initramfs)
        {
            await using var volumes = await OpenVolumesAsync(lease, identity).ConfigureAwait(false);
            await using var nbd = NbdServer.Start(folder.NbdSocket, volumes.Exports);
            Report(LivePcPhase.Accelerator, "choosing the accelerator");
            var accelerator = await Accelerator.ChooseAsync(
                paths.Accelerator, kernel.Path, () => Report(LivePcPhase.Accelerator, "finding out whether KVM really works here"), stopping.Token).ConfigureAwait(false);
            status = status with { Accelerator = accelerator };
            Report(LivePcPhase.Booting, "starting the guest");
            var fresh = UserLayers.Select(layer => layer.Layer).Where(layer => !folder.IsInUse(layer)).ToArray();
            if (fresh.Length > 0)
            {
                commandLine += $" nacre.fresh={string.Join(',', fresh)}";
            }

            await using var qemu = Qemu.Start(Machine(accelerator, kernel, initramfs, commandLine));
            DurableFile.Write(folder.QemuProcess, System.Text.Encoding.ASCII.GetBytes($"{qemu.ProcessId}"));
            using var guest = new GuestAgent(Qemu.AgentSocket(folder.Sockets));
            agent = guest;
            try
            {
                await WaitForGuestAsync(qemu).ConfigureAwait(false);
                Array.ForEach(fresh, folder.SetInUse);
                await StayAsync(qemu).ConfigureAwait(false);
            }
            finally
            {
                qemu.Kill();
                await qemu.Ended.ConfigureAwait(false);
                File.Delete(folder.QemuProcess);
            }
        }
    }

    private async Task<OpenedLease> TakeLeaseAsync(EnrolledIdentity identity)
    {
        Report(LivePcPhase.Lease, "taking a lease");
        var installed = folder.InstalledManifest is { } signed && identity.Record.ReleaseKey is { } key
            ? Jws.VerifyClaims<ReleaseManifest>(signed, key, ErrorCatalogue.ReleaseNotAuthentic, ReleaseManifest.Type).Version
            : (int?)null;
        var lease = await OpenedLease.TakeAsync(identity, folder, installed, time, stopping.Token).ConfigureAwait(false);
        // A channel that was moved back takes the newer release away: what the lease does not cover does not start.
        status = status with
        {
            Image = lease.Claims.Image,
            Version = installed is { } version && lease.Covers(version) ? version : lease.Claims.Version,
            Offline = lease.OfflineBecause is not null,
            LeaseEnds = lease.Ends,
        };
        return lease;
    }

    private async Task<(MemoryFile Kernel, MemoryFile Initramfs, string CommandLine)> OpenReleaseAsync(OpenedLease lease, SegmentCache cache, NacreClient client)
    {
        Report(LivePcPhase.Release, $"verifying release {status.Version} of {status.Image}");
        var (manifest, signed) = lease.Release(status.Version!.Value);
        opener = new ReleaseOpener(paths, cache, new ServerOrigin(client));
        reader = await opener.OpenAsync(manifest, lease.ReleaseKey(manifest.Version), stopping.Token).ConfigureAwait(false);
        status = status with { ImageBytes = manifest.Size };
        Report(LivePcPhase.Release, "fetching the kernel");
        var kernel = new MemoryFile("kernel", await reader.ReadAllAsync("kernel", MaxKernelBytes, stopping.Token).ConfigureAwait(false));
        var initramfs = new MemoryFile("initramfs", await reader.ReadAllAsync("initramfs", MaxInitramfsBytes, stopping.Token).ConfigureAwait(false));
        if (folder.InstalledManifest != signed)
        {
            folder.InstalledManifest = signed;
        }

        return (kernel, initramfs, manifest.CommandLine);
    }

    private async Task<OpenVolumes> OpenVolumesAsync(OpenedLease lease, EnrolledIdentity identity)
    {
        Report(LivePcPhase.Volumes, "opening the user's layers");
        var volumes = new OpenVolumes();
        try
        {
            volumes.Add("system", new ReleaseVolume(reader!, "system"));
            var slotKey = lease.SlotKey(identity);
            foreach (var (layer, size) in UserLayers)
            {
                await volumes.OpenAsync(layer, folder.Volume(layer), size, slotKey).ConfigureAwait(false);
            }

            System.Security.Cryptography.CryptographicOperations.ZeroMemory(slotKey);
            var clean = Stopwatch.StartNew();
            volumes.Renew(Scratch, folder.Volume(Scratch), 32 * GiB);
            status = status with { RejuvenationMilliseconds = clean.Elapsed.TotalMilliseconds };
            return volumes;
        }
        catch
        {
            await volumes.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private MachineOptions Machine(string accelerator, MemoryFile kernel, MemoryFile initramfs, string commandLine)
    {
        var host = GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / (1024 * 1024);
        return new MachineOptions
        {
            Name = $"nacre-{folder.Name}",
            Accelerator = accelerator,
            Kernel = kernel.Path,
            Initramfs = initramfs.Path,
            CommandLine = commandLine,
            NbdSocket = folder.NbdSocket,
            Disks =
            [
                new GuestDisk("nacre-system", "system", IsReadOnly: true),
                new GuestDisk("nacre-scratch", Scratch, IsReadOnly: false),
                .. UserLayers.Select(layer => new GuestDisk($"nacre-{layer.Layer}", layer.Layer, IsReadOnly: false)),
            ],
            Memory = options.Memory ?? (int)Math.Clamp(host / 2, 1024, 4096),
            Processors = options.Processors ?? Math.Min(4, Environment.ProcessorCount),
            Sockets = folder.Sockets,
        };
    }

    private async Task WaitForGuestAsync(Qemu qemu)
    {
        qmp = await ConnectQmpAsync(qemu).ConfigureAwait(false);
        qmp.EventRaised += OnQemuEvent;
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(stopping.Token);
        limit.CancelAfter(options.StartLimit);
        var answered = agent!.WaitAsync(limit.Token);
        var outage = Stopwatch.StartNew();
        while (true)
        {
            var tick = Task.Delay(TimeSpan.FromMilliseconds(250), time, CancellationToken.None);
            await Task.WhenAny(answered, qemu.Ended, tick).ConfigureAwait(false);
            if (answered.IsCompletedSuccessfully)
            {
                break;
            }

            if (qemu.Ended.IsCompleted)
            {
                throw new NacreException(ErrorCatalogue.GuestFailed, $"the guest ended before its agent answered\n{LastLines(qemu.ConsoleText)}{LastLines(qemu.ErrorText)}");
            }

            if (answered.IsCompleted)
            {
                stopping.Token.ThrowIfCancellationRequested();
                throw new NacreException(ErrorCatalogue.TimedOut,
                    $"the guest's agent did not answer within {options.StartLimit.TotalMinutes:0} minutes\n{LastLines(qemu.ConsoleText)}");
            }

            if (reader!.Failure is not { } failure)
            {
                outage.Restart();
            }
            else if (failure.Kind != VolumeErrorKind.Io || outage.Elapsed > OutageLimit)
            {
                throw failure;
            }

            Report(LivePcPhase.Booting, reader.Failure is null ? "waiting for the guest's agent" : $"waiting for the server: {reader.Failure.Message}");
        }

        status = status with
        {
            SecondsToAgent = sinceCommand.Elapsed.TotalSeconds,
            BytesToAgent = Refresh().FetchedBytes,
        };
        Report(LivePcPhase.Running, "running");
    }

    /// <summary>Stays until the guest ends, or a stop is asked for.</summary>
    private async Task StayAsync(Qemu qemu)
    {
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(stopping.Token);
        var fetching = options.FetchRest ? FetchRestAsync(ending.Token) : Task.CompletedTask;
        var asked = Task.Delay(Timeout.Infinite, stopping.Token);
        await Task.WhenAny(qemu.Ended, asked).ConfigureAwait(false);
        if (!qemu.Ended.IsCompleted)
        {
            status = status with { Phase = LivePcPhase.Stopping, Detail = "shutting the guest down" };
            await ShutDownAsync(qemu).ConfigureAwait(false);
        }

        await ending.CancelAsync().ConfigureAwait(false);
        await fetching.ConfigureAwait(false);
        await qmp!.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>Fetches what is missing of the release, so that it starts without a network.</summary>
    private async Task FetchRestAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                await reader!.EnsureAllAsync(null, cancellationToken).ConfigureAwait(false);
                status = status with { Presence = ReleasePresence.Complete, Problem = null };
                return;
            }
            catch (VolumeException exception)
            {
                status = status with { Problem = VolumeErrors.OfRelease(exception).Message };
            }
            catch (OperationCanceledException)
            {
                return;
            }

            try
            {
                await Task.Delay(TimeSpan.FromSeconds(15), time, cancellationToken).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                return;
            }
        }
    }

    private async Task ShutDownAsync(Qemu qemu)
    {
        using var limit = new CancellationTokenSource(ShutdownLimit);
        try
        {
            await agent!.ShutDownAsync(limit.Token).ConfigureAwait(false);
            await qemu.Ended.WaitAsync(limit.Token).ConfigureAwait(false);
        }
        catch (Exception exception) when (exception is OperationCanceledException or IOException or System.Net.Sockets.SocketException or JsonException)
        {
            // A guest that does not shut down is switched off, as a computer would be; what it had flushed is kept.
            qemu.Kill();
        }
    }

    private async Task<Qmp> ConnectQmpAsync(Qemu qemu)
    {
        var path = Qemu.QmpSocket(folder.Sockets);
        var limit = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                return await Qmp.ConnectAsync(path, stopping.Token).ConfigureAwait(false);
            }
            catch (Exception exception) when (exception is System.Net.Sockets.SocketException or IOException or NacreException)
            {
                if (exception is NacreException || qemu.Ended.IsCompleted || limit.Elapsed > TimeSpan.FromSeconds(30))
                {
                    qemu.Kill();
                    await qemu.Ended.ConfigureAwait(false);
                    throw new NacreException(ErrorCatalogue.QemuFailed, $"QEMU did not start\n{LastLines(qemu.ErrorText)}", exception);
                }

                await Task.Delay(TimeSpan.FromMilliseconds(20), time, stopping.Token).ConfigureAwait(false);
            }
        }
    }

    private void OnQemuEvent(string name, JsonNode? data)
    {
        if (name == "BLOCK_IO_ERROR" && data?["action"]?.GetValue<string>() == "stop")
        {
            var full = data["nospace"]?.GetValue<bool>() == true;
            status = status with { Problem = $"the LivePC is paused: the disk of its layer '{data["node-name"]}' {(full ? "is full" : "failed")}" };
        }
    }

    private async Task<JsonNode?> HandleAsync(string command, JsonObject arguments, CancellationToken cancellationToken)
    {
        switch (command)
        {
            case "status":
                return JsonSerializer.SerializeToNode(Refresh(), ContractJson.Options);
            case "stop":
                await stopping.CancelAsync().ConfigureAwait(false);
                return null;
            case "execute":
                var words = arguments["words"]?.AsArray().Select(word => word!.GetValue<string>()).ToArray() ?? [];
                if (words.Length == 0)
                {
                    throw new NacreException(ErrorCatalogue.UsageInvalid, "no command was given");
                }

                var input = arguments["input"]?.GetValue<string>() is { } text ? Convert.FromBase64String(text) : null;
                var result = await Running().Agent.ExecuteAsync(words[0], words[1..], input, cancellationToken).ConfigureAwait(false);
                return JsonSerializer.SerializeToNode(result, ContractJson.Options);
            case "screenshot":
                var file = arguments["file"]?.GetValue<string>() ?? "";
                await Running().Qmp.ExecuteAsync("screendump", new JsonObject { ["filename"] = file, ["format"] = "png" }, cancellationToken).ConfigureAwait(false);
                return null;
            default:
                throw new NacreException(ErrorCatalogue.RequestInvalid, $"the player has no command '{command}'");
        }
    }

    private (GuestAgent Agent, Qmp Qmp) Running() => status.Phase == LivePcPhase.Running && agent is not null && qmp is not null
        ? (agent, qmp)
        : throw new NacreException(ErrorCatalogue.NotRunning, $"'{folder.Name}' does not run yet");

    private LivePcStatus Refresh()
    {
        if (reader is null)
        {
            return status;
        }

        var figures = reader.Statistics;
        return status = status with
        {
            FetchedBytes = figures.FetchedBytes + (opener?.FetchedBytes ?? 0),
            FetchRequests = figures.Requests,
            PresentBytes = figures.PresentBytes,
            StoredBytes = figures.TotalBytes,
        };
    }

    private void Report(LivePcPhase phase, string detail)
    {
        status = status with { Phase = phase, Detail = detail };
        report(new PlayerReport(Refresh(), null, null));
    }

    private FileStream HoldLock()
    {
        try
        {
            return new FileStream(folder.Lock, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException exception)
        {
            throw new NacreException(ErrorCatalogue.AlreadyRunning, $"'{folder.Name}' runs already", exception);
        }
    }

    /// <summary>Ends a QEMU whose player was killed: its disks are gone, and nobody else may write the volumes.</summary>
    private void EndLeftOver()
    {
        if (!File.Exists(folder.QemuProcess) || !int.TryParse(File.ReadAllText(folder.QemuProcess), out var id))
        {
            return;
        }

        try
        {
            using var process = Process.GetProcessById(id);
            if (File.ReadAllText($"/proc/{id}/cmdline").Contains(folder.NbdSocket, StringComparison.Ordinal))
            {
                process.Kill();
                process.WaitForExit();
            }
        }
        catch (Exception exception) when (exception is ArgumentException or IOException or InvalidOperationException)
        {
            // It has ended.
        }

        File.Delete(folder.QemuProcess);
    }

    private static string LastLines(string text) => string.Concat(text.Split('\n', StringSplitOptions.RemoveEmptyEntries).TakeLast(12).Select(line => $"  {line.TrimEnd()}\n"));
}
