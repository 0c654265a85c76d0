using System.Globalization;
using System.Text.Json.Nodes;
using Nacre.Player.HostChecks;
using Nacre.Player.Machines;
using Nacre.Policies;

namespace Nacre.Player.Usb;

/// <summary>A USB device of the host, as its descriptors describe it. What it says of itself is not verified: a device can lie.</summary>
/// <param name="Id">What it is called here: the kernel's name of the place where it is plugged in, such as <c>1-4</c>.</param>
/// <param name="VidPid">Vendor and product, such as <c>046d:c52b</c>.</param>
/// <param name="Name">For people.</param>
/// <param name="Kinds">The kinds of its interfaces (<see cref="Settings.UsbKinds"/>); <c>hub</c> for one.</param>
internal sealed record UsbDevice(string Id, string VidPid, string Name, IReadOnlyList<string> Kinds)
{
    /// <summary>QEMU's driver and its arguments.</summary>
    public required JsonObject Driver { get; init; }

    /// <summary>A block node that the driver needs; null for none.</summary>
    public JsonObject? Node { get; init; }

    /// <summary>The devices that are plugged in, and QEMU's own that <c>NACRE_USB_EMULATED</c> names (for tests).</summary>
    public static IReadOnlyList<UsbDevice> List(HostFacts host) =>
    [
        .. host.List("/sys/bus/usb/devices").Where(name => !name.Contains(':', StringComparison.Ordinal)).Order(StringComparer.Ordinal).Select(name => Read(host, name)).OfType<UsbDevice>(),
        .. (host.Variables.GetValueOrDefault("NACRE_USB_EMULATED") ?? "").Split(',', StringSplitOptions.RemoveEmptyEntries).Select(Emulated).OfType<UsbDevice>(),
    ];

    /// <summary>Why a policy does not let the guest have it; null where it does.</summary>
    public string? WhyNot(Policy policy)
    {
        var (mode, allowed) = (policy.Get(Settings.UsbMode), policy.Get(Settings.UsbClasses));
        return mode == UsbMode.Deny ? $"'{Settings.UsbMode}' is deny"
            : Kinds.Count == 0 ? "it does not say what it is"
            : Kinds.Contains("hub") ? "it is a hub: the devices behind it are given one by one"
            : Kinds.Contains("video") && !policy.Get(Settings.Camera) ? $"'{Settings.Camera}' is off"
            : Kinds.Contains("audio") && !policy.Get(Settings.Microphone) ? $"it is a sound device, which may record, and '{Settings.Microphone}' is off"
            : mode == UsbMode.Allow || policy.Get(Settings.UsbVidPidAllow).Contains(VidPid) || Kinds.All(allowed.Contains) ? null
            : $"neither is {VidPid} in '{Settings.UsbVidPidAllow}', nor {(Kinds.Count == 1 ? "its kind" : "each of its kinds")} ({string.Join(", ", Kinds)}) in '{Settings.UsbClasses}'";
    }

    private static UsbDevice? Read(HostFacts host, string name)
    {
        string? Text(string file) => host.Read($"/sys/bus/usb/devices/{name}/{file}")?.Trim();
        static bool IsHex(string? text, int length) => text?.Length == length && text.All(char.IsAsciiHexDigitLower);
        if (Text("idVendor") is not { } vendor || Text("idProduct") is not { } product || !IsHex(vendor, 4) || !IsHex(product, 4)
            || !int.TryParse(Text("busnum"), NumberStyles.None, CultureInfo.InvariantCulture, out var bus) || !int.TryParse(Text("devnum"), NumberStyles.None, CultureInfo.InvariantCulture, out var number))
        {
            return null;
        }

        // A device of class 0 has its classes on its interfaces; another may have both.
        var classes = host.List($"/sys/bus/usb/devices/{name}").Where(entry => entry.StartsWith(name + ":", StringComparison.Ordinal))
            .Select(entry => host.Read($"/sys/bus/usb/devices/{name}/{entry}/bInterfaceClass")?.Trim()).Append(Text("bDeviceClass") is "00" or "ef" ? null : Text("bDeviceClass"));
        var words = GuestText.Line($"{Text("manufacturer")} {Text("product")}".Trim(), 80);
        return new UsbDevice(name, $"{vendor}:{product}", words.Length == 0 ? "unnamed" : words, [.. classes.OfType<string>().Select(KindOf).Distinct().Order(StringComparer.Ordinal)])
        {
            // Where it is, and not its number alone: what is unplugged meanwhile is not followed by another.
            Driver = new JsonObject { ["driver"] = "usb-host", ["hostdevice"] = string.Create(CultureInfo.InvariantCulture, $"/dev/bus/usb/{bus:000}/{number:000}") },
        };
    }

    private static string KindOf(string code) => code switch
    {
        "01" => "audio",
        "03" => "hid",
        "06" => "phone", // still image: cameras and phones by PTP
        "07" => "printer",
        "08" => "storage",
        "09" => "hub",
        "0b" => "smart-card",
        "0e" => "video",
        _ => "other",
    };

    /// <summary>QEMU's devices, which have descriptors of their own.</summary>
    private static UsbDevice? Emulated(string driver)
    {
        (string VidPid, string Kind)? known = driver switch
        {
            "usb-kbd" or "usb-tablet" or "usb-mouse" => ("0627:0001", "hid"),
            "usb-storage" => ("46f4:0001", "storage"),
            "usb-ccid" => ("08e6:4433", "smart-card"),
            "usb-audio" => ("46f4:0002", "audio"),
            _ => null,
        };
        if (known is not { } one)
        {
            return null;
        }

        var device = new UsbDevice(driver, one.VidPid, "emulated by QEMU", [one.Kind]) { Driver = new JsonObject { ["driver"] = driver } };
        return driver switch
        {
            "usb-storage" => device with
            {
                Driver = new JsonObject { ["driver"] = driver, ["drive"] = "nacre-usb-node" },
                Node = new JsonObject { ["driver"] = "null-co", ["node-name"] = "nacre-usb-node", ["size"] = 1 << 20, ["read-zeroes"] = true },
            },
            "usb-audio" => device with { Driver = new JsonObject { ["driver"] = driver, ["audiodev"] = "sound" } },
            _ => device,
        };
    }
}

/// <summary>A USB device, for people.</summary>
/// <param name="Id">What it is called here.</param>
/// <param name="VidPid">Vendor and product.</param>
/// <param name="Name">Its name.</param>
/// <param name="Kinds">The kinds of its interfaces.</param>
/// <param name="IsAttached">Whether the guest has it.</param>
/// <param name="Refused">Why the policy does not let the guest have it; null where it does.</param>
public sealed record UsbListing(string Id, string VidPid, string Name, IReadOnlyList<string> Kinds, bool IsAttached, string? Refused);
