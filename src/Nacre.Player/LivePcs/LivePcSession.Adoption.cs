using System.Net.Sockets;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Nbd;
using Nacre.Player.Anchors;
using Nacre.Player.Devices;
using Nacre.Player.Keys;
using Nacre.Player.Leases;
using Nacre.Player.Machines;
using Nacre.Volumes;
using Nacre.Volumes.Releases;

namespace Nacre.Player.LivePcs;

/// <content>Going on with a QEMU whose player was killed: its requests wait for its disks to be served again, and are repeated then.</content>
public sealed partial class LivePcSession
{
    /// <summary>How long QEMU may take to answer a player that goes on with it: it may first have to wait for its disks (16 seconds at most).</summary>
    private static readonly TimeSpan AnswerLimit = TimeSpan.FromSeconds(45);

    /// <summary>How long everything before may take, the server's answer for the lease included.</summary>
    private static readonly TimeSpan AdoptionLimit = TimeSpan.FromMinutes(3);

    /// <summary>Goes on with the machine that an earlier player left, until the guest ends.</summary>
    /// <returns>False where that can't be done, or it ended before its guest answered; it may still run then, without disks.</returns>
    private async Task<bool> TryGoOnAsync(LeftOver leftOver)
    {
        try
        {
            // Not ended by a stop: the guest is somebody's work. A stop is heard once it can be shut down properly.
            using var limit = new CancellationTokenSource(AdoptionLimit, time);
            Report(LivePcPhase.Lease, "going on with the guest that runs");
            var (process, record) = Require(leftOver);
            using var identity = EnrolledIdentity.Open(paths);
            using var client = identity.Connect();
            var anchors = await LoadAnchorsAsync(identity, client).ConfigureAwait(false);
            lease = await TakeLeaseAsync(identity, anchors, record, limit.Token).ConfigureAwait(false);
            await OpenKeyAsync(lease, identity, client).ConfigureAwait(false);
            Change(now => now with { OnTrial = record.Stack.Equals(book.Read().Trial) });
            using var cache = new SegmentCache(paths.Segments);
            Report(LivePcPhase.Release, $"opening {record.Stack}");
            await OpenReleasesAsync(lease, record.Stack, cache, client, limit.Token).ConfigureAwait(false);
            Report(LivePcPhase.Volumes, "opening the guest's layers again");
            await using var volumes = new OpenVolumes();

            // Not what is accepted at a start: this guest knows the newer state.
            isDisposable = record.IsDisposable;
            if (isDisposable)
            {
                UserLayers.Of(kind).ToList().ForEach(one => volumes.Resume(one.Layer, folder.DisposableVolume(one.Layer), folder.DisposableKey(one.Layer)));
            }
            else
            {
                await OpenUserLayersAsync(volumes, lease, anchors, acceptOlder: false).ConfigureAwait(false);
            }

            if (record.KeepsSystem)
            {
                // Its end leaves no mark, as this player does not know since when it is what it is: the next start's is clean.
                var kept = await OpenKeptSystemAsync(volumes, anchors, size: 0, acceptOlder: false).ConfigureAwait(false);
                volumes.Alias(Scratch, kept);
                AddSystem(volumes, kept);
            }
            else
            {
                AddSystem(volumes, volumes.Resume(Scratch, folder.Volume(Scratch), folder.ScratchKey));
            }

            await using var keeping = await anchors.BeginAsync().ConfigureAwait(false);
            TakeUpMoments(volumes, identity, client);
            await using var nbd = NbdServer.Start(folder.NbdSocket, volumes.Exports);
            disks = nbd;
            Report(LivePcPhase.Booting, "connecting to the guest");
            guestLock.TakeUp(isAdopted: true);
            qmp = await ReachAsync(process, limit.Token).ConfigureAwait(false);
            Change(now => now with { Accelerator = record.Accelerator, Adopted = true });
            await using var qemu = Qemu.Adopt(process);
            await ServeAsync(qemu, record).ConfigureAwait(false);
            return true;
        }
        catch (NacreException exception) when (LivePcKeys.IsAboutSecrets(exception.Kind))
        {
            throw; // somebody mistyped: the guest waits on
        }
        catch (Exception exception) when (!isUp && exception is NacreException or VolumeException or IOException or UnauthorizedAccessException or OperationCanceledException)
        {
            Change(now => now with { Adopted = false });
            Report(LivePcPhase.Lease, $"the guest that runs can't be gone on with and is ended: {exception.Message}");
            pause.Reset();
            releases?.Dispose();
            (releases, qmp, unhealthy) = (null, null, null);
            return false;
        }
    }

    /// <summary>The machine, where it is the one that is wanted.</summary>
    private (ProcessHandle Process, MachineRecord Record) Require(LeftOver leftOver)
    {
        if (leftOver.Single is not { } process || folder.Machine is not { } record || record.ProcessId != process.Id || record.StartTime != process.StartTime)
        {
            throw Impossible("it is not known what it was started with");
        }

        kind = record.Kind;
        if (UserLayers.Of(kind).Any(layer => !Directory.Exists(record.IsDisposable ? folder.DisposableVolume(layer.Layer) : folder.Volume(layer.Layer)))
            || (record.KeepsSystem && !Directory.Exists(folder.Volume(KeptSystem.Layer))))
        {
            throw Impossible("the volume of a layer is gone");
        }

        if ((options.Memory ?? record.Memory) != record.Memory || (options.Processors ?? record.Processors) != record.Processors)
        {
            throw Impossible("it has other memory or processors than are asked for");
        }

        features = record.Features;
        var machine = Machine(record.Accelerator, record.Stack, GuestParameters.WithoutFiles) with
        {
            Memory = record.Memory, Processors = record.Processors, Variables = kind == ImageKind.Disk ? "" : null,
        };
        return MachineRecord.ShapeOf(machine) == record.Shape ? (process, record) : throw Impossible("another version of nacre started it");
    }

    /// <summary>The lease under which the machine was started still serves, as it did for the player that was killed; else the server is asked.</summary>
    private async Task<OpenedLease> TakeLeaseAsync(EnrolledIdentity identity, AnchorKeeper anchors, MachineRecord record, CancellationToken cancellationToken)
    {
        bool Covers(OpenedLease one) => record.Stack.Releases.All(one.Covers) && MachineRecord.DigestOf(record.Stack.Releases.Select(release => one.Release(release).Signed)) == record.Release;
        var kept = OpenedLease.TryOpenKept(identity, folder, time);
        if (kept is null || !Covers(kept))
        {
            kept = await OpenedLease.TakeAsync(identity, folder, [.. record.Stack.Releases.Concat(book.Read().Needed).Distinct()], anchors.Statements, time, cancellationToken).ConfigureAwait(false);
        }

        if (!Covers(kept))
        {
            throw Impossible($"the lease does not cover {record.Stack}");
        }

        Note(kept, record.Stack);
        return kept;
    }

    /// <summary>Connects to QEMU, and lets its guest go on where it was paused because its disks were away for too long.</summary>
    private async Task<Qmp> ReachAsync(ProcessHandle process, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(AnswerLimit);
        Qmp? connected = null;
        try
        {
            connected = await Qmp.ConnectAsync(Qemu.QmpSocket(folder.Sockets), limit.Token).ConfigureAwait(false);

            // Before the guest goes on: it may be paused again at once.
            connected.EventRaised += pause.OnEvent;
            connected.EventRaised += NoteShutdown;
            var state = await connected.ExecuteAsync("query-status", null, limit.Token).ConfigureAwait(false);
            switch (state?["status"]?.GetValue<string>())
            {
                case "running":
                    break;
                case "io-error" or "paused" when guestLock.StandsStill:
                    break;
                case "io-error" or "paused":
                    await connected.ExecuteAsync("cont", null, limit.Token).ConfigureAwait(false);
                    break;
                case var other:
                    throw Impossible($"QEMU says that it is '{other}'");
            }

            return connected;
        }
        catch (Exception exception)
        {
            if (connected is not null)
            {
                await connected.DisposeAsync().ConfigureAwait(false);
            }

            if (exception is NacreException)
            {
                throw;
            }

            throw exception is SocketException or IOException or JsonException or InvalidOperationException or OperationCanceledException
                ? Impossible($"QEMU (process {process.Id}) does not answer: {exception.Message}", exception)
                : new NacreException(ErrorCatalogue.Internal, exception.Message, exception);
        }
    }

    private static NacreException Impossible(string why, Exception? cause = null) => new(ErrorCatalogue.QemuFailed, why, cause);
}
