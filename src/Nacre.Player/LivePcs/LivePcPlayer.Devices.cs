using System.Text.Json;
using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Player.Usb;

namespace Nacre.Player.LivePcs;

/// <content>USB devices and the clipboard of a LivePC that runs.</content>
public sealed partial class LivePcPlayer
{
    /// <summary>The USB devices of this computer, and whether the guest has or may have them.</summary>
    /// <exception cref="NacreException">NotRunning.</exception>
    public async Task<IReadOnlyList<UsbListing>> ListUsbAsync(string name, CancellationToken cancellationToken) =>
        (await AskDeviceAsync(name, "usb-list", [], cancellationToken).ConfigureAwait(false)).Deserialize<IReadOnlyList<UsbListing>>(ContractJson.Options) ?? [];

    /// <summary>Gives a USB device to the guest.</summary>
    /// <exception cref="NacreException">Forbidden, NotFound, AlreadyExists, NotRunning, Locked, QemuFailed.</exception>
    public async Task<UsbListing> AttachUsbAsync(string name, string device, CancellationToken cancellationToken) =>
        (await AskDeviceAsync(name, "usb-attach", new JsonObject { ["device"] = device }, cancellationToken).ConfigureAwait(false)).Deserialize<UsbListing>(ContractJson.Options)!;

    /// <summary>Takes a USB device back.</summary>
    /// <exception cref="NacreException">NotFound, NotRunning, QemuFailed.</exception>
    public async Task DetachUsbAsync(string name, string device, CancellationToken cancellationToken) =>
        await AskDeviceAsync(name, "usb-detach", new JsonObject { ["device"] = device }, cancellationToken).ConfigureAwait(false);

    /// <summary>Offers text to the guest's clipboard.</summary>
    /// <exception cref="NacreException">Forbidden, TooLarge, NoAgent, NotRunning, Locked.</exception>
    public async Task CopyAsync(string name, string text, CancellationToken cancellationToken) =>
        await AskDeviceAsync(name, "clipboard-copy", new JsonObject { ["text"] = text }, cancellationToken).ConfigureAwait(false);

    /// <summary>The text on the guest's clipboard.</summary>
    /// <exception cref="NacreException">Forbidden, TooLarge, NoAgent, NotFound, GuestFailed, NotRunning, Locked.</exception>
    public async Task<string> PasteAsync(string name, CancellationToken cancellationToken) =>
        (await AskDeviceAsync(name, "clipboard-paste", [], cancellationToken).ConfigureAwait(false))?.GetValue<string>() ?? "";

    private Task<JsonNode?> AskDeviceAsync(string name, string command, JsonObject arguments, CancellationToken cancellationToken) =>
        ControlSocket.RequestAsync(new LivePcFolder(paths, name).ControlSocket, command, arguments, cancellationToken);
}
