using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Player.Releases;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>The boot set: taking it from the server's packs, and telling the server what a first start read.</content>
public sealed partial class LivePcSession
{
    private static readonly TimeSpan RecordingInterval = TimeSpan.FromMinutes(1);

    private Task filled = Task.CompletedTask; // ends when nothing more comes from the packs
    private IReadOnlyList<SendRecording> recordings = [];

    /// <summary>Begins to fetch what a start reads as one stream. A lease that was kept says nothing of packs that are there now.</summary>
    private async Task<BootPackFill> BeginFillingAsync(OpenedLease taken)
    {
        var filling = await BootPackFill.BeginAsync(releases!, taken.IsNew && policy.Get(Settings.Prefetch) != Policies.Prefetch.Off ? taken.UntrustedPacks : [], failure => Change(now => failure is null
            ? now with { Presence = ReleasePresence.Usable }
            : now with { Problem = $"the boot pack is of no use, the release is fetched as it is read: {failure.Message}" }), stopping.Token).ConfigureAwait(false);
        filled = filling.Done;
        return filling;
    }

    /// <summary>What the start read is known now. It is for the server where this stack starts for the first time here, and the policy lets it go.</summary>
    /// <param name="wasUp">The guest was up already: an earlier player knows what it had read.</param>
    private void EndRecording(bool wasUp)
    {
        var read = releases!.EndRecording();
        Change(now => now.Presence == ReleasePresence.Streaming ? now with { Presence = ReleasePresence.Usable } : now);
        recordings = wasUp || !examine || policy.Get(Settings.Telemetry) == TelemetryLevel.Off ? []
            : [.. read.Where(one => one.Chunks.Count is > 0 and <= BootSet.MostChunks).Select(one => new SendRecording(one.Release, Convert.ToBase64String(BootSet.Encode(one.Chunks))))];
    }

    /// <summary>Sends the recordings, until the server has answered each.</summary>
    private async Task SendRecordingAsync(CancellationToken cancellationToken)
    {
        try
        {
            using var identity = EnrolledIdentity.Open(paths);
            using var client = identity.Connect();
            foreach (var recording in recordings)
            {
                while (!await TrySendAsync(client, recording, cancellationToken).ConfigureAwait(false))
                {
                    await Task.Delay(RecordingInterval, time, cancellationToken).ConfigureAwait(false);
                }
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or NacreException)
        {
            // The LivePC ends, or the device is not enrolled any more. Other devices' recordings do.
        }
    }

    private async Task<bool> TrySendAsync(Client.NacreClient client, SendRecording recording, CancellationToken cancellationToken)
    {
        try
        {
            await client.SendRecordingAsync(folder.Name, recording, cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (NacreException exception)
        {
            // A server of before does not know of recordings, and one that refuses won't take it later.
            return exception.Kind != ErrorCatalogue.ServerUnreachable && exception.Kind != ErrorCatalogue.ServerFailed;
        }
    }
}
