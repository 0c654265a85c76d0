using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Player.Clipboard;
using Nacre.Player.Machines;

namespace Nacre.Player.LivePcs;

/// <content>What the machine has of its host's devices, and the clipboard.</content>
public sealed partial class LivePcSession
{
    private MachineFeatures features = new(); // of the machine that runs
    private ClipboardChannel? clipboard; // disposed by the scope that made it

    /// <summary>Does what a policy wants of devices that the guest has already.</summary>
    private async Task EnforceDevicesAsync(bool isAdopted, CancellationToken cancellationToken)
    {
        clipboard?.Enforce();
        try
        {
            await EnforceUsbAsync(isAdopted, cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException exception)
        {
            // QEMU does not answer: tried again with the next policy.
            Change(now => now with { Problem = $"a USB device that is no longer allowed could not be taken back: {exception.Message}" });
        }
    }

    private async Task<JsonNode?> HandleDeviceAsync(string command, JsonObject arguments, CancellationToken cancellationToken)
    {
        string Text(string name) => arguments[name]?.GetValue<string>() ?? "";
        switch (command)
        {
            case "host-check":
                if (isUp)
                {
                    await ObeyHostAsync(cancellationToken).ConfigureAwait(false);
                }

                return null;
            case "usb-list":
                return System.Text.Json.JsonSerializer.SerializeToNode(await ListUsbAsync(cancellationToken).ConfigureAwait(false), ContractJson.Options);
            case "usb-attach":
                return System.Text.Json.JsonSerializer.SerializeToNode(await AttachUsbAsync(Text("device"), cancellationToken).ConfigureAwait(false), ContractJson.Options);
            case "usb-detach":
                await DetachUsbAsync(Text("device"), cancellationToken).ConfigureAwait(false);
                return null;
            case "clipboard-copy":
                Clipboard().Offer(Text("text"));
                return null;
            case "clipboard-paste":
                return await Clipboard().FetchAsync(cancellationToken).ConfigureAwait(false);
            default:
                return await HandleMomentAsync(command, arguments, cancellationToken).ConfigureAwait(false);
        }
    }

    private ClipboardChannel Clipboard()
    {
        RequireNotLocked();
        _ = Machine();
        return clipboard ?? throw new NacreException(ErrorCatalogue.Forbidden, $"'{folder.Name}' was started without a clipboard, as your company wanted it; from its next start on it is as your company wants it then");
    }
}
