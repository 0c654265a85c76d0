using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Player.HostChecks;
using Nacre.Player.Usb;

namespace Nacre.Player.LivePcs;

/// <content>USB devices of the host that the user gives to the guest, as far as the policy lets it.</content>
public sealed partial class LivePcSession
{
    private const string UsbPrefix = "nacre-usb-";

    private readonly SemaphoreSlim usbTurn = new(1, 1);
    private readonly Dictionary<string, UsbDevice> attached = new(StringComparer.Ordinal); // by their names here

    private async Task<IReadOnlyList<UsbListing>> ListUsbAsync(CancellationToken cancellationToken)
    {
        await usbTurn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            return [.. UsbDevice.List(HostFacts.Real).Concat(attached.Values).DistinctBy(device => device.Id)
                .Select(device => new UsbListing(device.Id, device.VidPid, device.Name, device.Kinds, attached.ContainsKey(device.Id), device.WhyNot(policy)))];
        }
        finally
        {
            usbTurn.Release();
        }
    }

    /// <summary>Gives a device to the guest.</summary>
    /// <param name="untrustedId">What it is called here, or its vendor and product.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="NacreException">Forbidden, NotFound, AlreadyExists, NotRunning, Locked, QemuFailed.</exception>
    private async Task<UsbListing> AttachUsbAsync(string untrustedId, CancellationToken cancellationToken)
    {
        RequireNotLocked();
        var machine = Machine();
        await usbTurn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (UsbDevice.List(HostFacts.Real).Where(one => one.Id == untrustedId || one.VidPid == untrustedId).ToList() is not [var device])
            {
                throw new NacreException(ErrorCatalogue.NotFound, $"not exactly one USB device of this computer is '{Machines.GuestText.Line(untrustedId)}'; 'nacre livepc usb list {folder.Name}' shows them");
            }

            if (device.WhyNot(policy) is { } reason)
            {
                throw new NacreException(ErrorCatalogue.Forbidden, $"your company does not let '{folder.Name}' have {device.VidPid} ({device.Name}): {reason}");
            }

            if (!features.HasUsb)
            {
                throw new NacreException(ErrorCatalogue.Forbidden, $"'{folder.Name}' was started without USB; from its next start on it has some");
            }

            if (attached.ContainsKey(device.Id))
            {
                throw new NacreException(ErrorCatalogue.AlreadyExists, $"'{folder.Name}' has {device.VidPid} ({device.Name}) already");
            }

            if (device.Node is { } node)
            {
                // It may be there from an earlier time.
                await TryAsync(machine, "blockdev-add", (JsonObject)node.DeepClone(), cancellationToken).ConfigureAwait(false);
            }

            var arguments = (JsonObject)device.Driver.DeepClone();
            (arguments["id"], arguments["bus"]) = (UsbPrefix + device.Id, "usb.0");
            await machine.ExecuteAsync("device_add", arguments, cancellationToken).ConfigureAwait(false);
            attached[device.Id] = device;
            return new UsbListing(device.Id, device.VidPid, device.Name, device.Kinds, IsAttached: true, Refused: null);
        }
        finally
        {
            usbTurn.Release();
        }
    }

    /// <summary>Takes a device back.</summary>
    /// <exception cref="NacreException">NotFound, NotRunning, QemuFailed.</exception>
    private async Task DetachUsbAsync(string untrustedId, CancellationToken cancellationToken)
    {
        var machine = Machine();
        await usbTurn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (attached.Values.Where(one => one.Id == untrustedId || one.VidPid == untrustedId).ToList() is not [var device])
            {
                throw new NacreException(ErrorCatalogue.NotFound, $"'{folder.Name}' has not exactly one USB device '{Machines.GuestText.Line(untrustedId)}'");
            }

            await machine.ExecuteAsync("device_del", new JsonObject { ["id"] = UsbPrefix + device.Id }, cancellationToken).ConfigureAwait(false);
            attached.Remove(device.Id);
        }
        finally
        {
            usbTurn.Release();
        }
    }

    /// <summary>Takes back what the policy no longer lets the guest have. A player that goes on with a guest does not know what it has, and takes all.</summary>
    private async Task EnforceUsbAsync(bool isAdopted, CancellationToken cancellationToken)
    {
        if (!features.HasUsb || qmp is not { } machine)
        {
            return;
        }

        await usbTurn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (isAdopted)
            {
                var devices = await machine.ExecuteAsync("qom-list", new JsonObject { ["path"] = "/machine/peripheral" }, cancellationToken).ConfigureAwait(false);
                foreach (var name in devices!.AsArray().Select(device => device!["name"]!.GetValue<string>()).Where(name => name.StartsWith(UsbPrefix, StringComparison.Ordinal)))
                {
                    await TryAsync(machine, "device_del", new JsonObject { ["id"] = name }, cancellationToken).ConfigureAwait(false);
                }
            }

            foreach (var device in attached.Values.Where(device => device.WhyNot(policy) is not null).ToList())
            {
                await machine.ExecuteAsync("device_del", new JsonObject { ["id"] = UsbPrefix + device.Id }, cancellationToken).ConfigureAwait(false);
                attached.Remove(device.Id);
            }
        }
        finally
        {
            usbTurn.Release();
        }
    }

    private static async Task TryAsync(Machines.Qmp machine, string command, JsonObject arguments, CancellationToken cancellationToken)
    {
        try
        {
            await machine.ExecuteAsync(command, arguments, cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException)
        {
            // It is as it was to be.
        }
    }
}
