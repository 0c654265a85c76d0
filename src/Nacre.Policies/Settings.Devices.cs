using System.Collections.Immutable;
using System.Text.RegularExpressions;

namespace Nacre.Policies;

/// <summary>Which USB devices of the host a guest may have.</summary>
public enum UsbMode
{
    /// <summary>None: its machine has no USB.</summary>
    Deny,

    /// <summary>Those of a class, or of a vendor and product, that is on a list.</summary>
    AllowList,

    /// <summary>Any, but for cameras and sound devices where those are off.</summary>
    Allow,
}

/// <summary>What of a clipboard passes in one direction.</summary>
public enum ClipboardMode
{
    /// <summary>Nothing.</summary>
    Off,

    /// <summary>Text.</summary>
    Text,
}

/// <content>What the guest has of the host's devices, and what its machine is called.</content>
public static partial class Settings
{
    /// <summary>The kinds of USB devices that <see cref="UsbClasses"/> names.</summary>
    public static ImmutableArray<string> UsbKinds { get; } = ["hid", "storage", "printer", "audio", "video", "smart-card", "phone", "other"];

    /// <summary>Which USB devices a guest may have.</summary>
    public static Setting<UsbMode> UsbMode { get; } = new Choice<UsbMode>(
        "usb.mode", SettingScope.Workspace, Policies.UsbMode.Deny,
        "Which USB devices of the host the user may give to the guest: none (deny), those of usb.classes and usb.vidPidAllow (allow-list), or any (allow); a camera only where camera is on, a sound device only where microphone is. What is no longer allowed is taken away at once; where it was deny at the start, another value waits for the next one.",
        ("deny", Policies.UsbMode.Deny), ("allow-list", Policies.UsbMode.AllowList), ("allow", Policies.UsbMode.Allow));

    /// <summary>Kinds that are allowed.</summary>
    public static Setting<IReadOnlyList<string>> UsbClasses { get; } = new Lines(
        "usb.classes", SettingScope.Workspace, 8, "one of hid, storage, printer, audio, video, smart-card, phone, other", line => UsbKinds.Contains(line) ? null : $"'{Shorten(line)}' is none",
        "With usb.mode allow-list: the kinds of devices that are allowed. Every interface of a device has to be of one of them, so a stick that is a keyboard too is no storage.");

    /// <summary>Vendors and products that are allowed.</summary>
    public static Setting<IReadOnlyList<string>> UsbVidPidAllow { get; } = new Lines(
        "usb.vidPidAllow", SettingScope.Workspace, 200, "a vendor and product such as 046d:c52b", line => VidPidPattern().IsMatch(line) ? null : $"'{Shorten(line)}' is none",
        "With usb.mode allow-list: devices that are allowed whatever their kind, as they say themselves.");

    /// <summary>Whether the guest may have a camera.</summary>
    public static Setting<bool> Camera { get; } = new Switch("camera", SettingScope.Workspace, false, "Whether the guest may have a camera (a USB device of the kind video, as far as usb.mode allows it).");

    /// <summary>Whether the guest hears the microphone.</summary>
    public static Setting<bool> Microphone { get; } = new Switch("microphone", SettingScope.Workspace, false, "Whether the guest's sound device records from the host's microphone; it has no input otherwise.") { IsForNextStart = true };

    /// <summary>Whether the guest's sound is played.</summary>
    public static Setting<bool> AudioOut { get; } = new Switch("audioOut", SettingScope.Workspace, true, "Whether the guest's machine has a sound device whose sound the host plays.") { IsForNextStart = true };

    /// <summary>What passes from the host to the guest.</summary>
    public static Setting<ClipboardMode> ClipboardIn { get; } = Direction("clipboard.in", "What the user may copy from the host into the guest: nothing (off), or text.");

    /// <summary>What passes from the guest to the host.</summary>
    public static Setting<ClipboardMode> ClipboardOut { get; } = Direction("clipboard.out", "What the user may copy out of the guest: nothing (off), or text.");

    /// <summary>How much passes at a time.</summary>
    public static Setting<int> ClipboardMaxChars { get; } = new WholeNumber(
        "clipboard.maxChars", SettingScope.Workspace, 1_048_576, 1, 1_048_576, "characters", "How much the user may copy at a time; more is refused, not cut.");

    /// <summary>Whether the user may take snapshots.</summary>
    public static Setting<bool> VmLocalSnapshots { get; } = new Switch("vm.localSnapshots", SettingScope.Workspace, true, "Whether the user may take snapshots by hand; those on schedule and before changes are taken all the same.");

    /// <summary>The guest's name.</summary>
    public static Setting<string> VmComputerName { get; } = new Phrase(
        "vm.computerName", SettingScope.Workspace, 63, "a host name such as WS-%serial%", text => HostNamePattern().IsMatch(text.Replace(SerialMask, "00000000", StringComparison.Ordinal)) ? null : $"'{Shorten(text)}' is none",
        "The guest's host name, in place of the image's; %serial% stands for eight digits and letters that are the same for this device and LivePC always. A guest whose image is a whole disk keeps its own.") { IsForNextStart = true };

    /// <summary>The guest's time zone.</summary>
    public static Setting<string> VmTimeZone { get; } = new Phrase(
        "vm.timeZone", SettingScope.Workspace, 60, "a time zone such as Europe/Zurich, or host", text => ZonePattern().IsMatch(text) ? null : $"'{Shorten(text)}' is none",
        "The guest's time zone, in place of the image's; host: this computer's. A guest whose image is a whole disk keeps its own.") { IsForNextStart = true };

    /// <summary>What stands for the serial number in <see cref="VmComputerName"/>.</summary>
    public const string SerialMask = "%serial%";

    private static ImmutableArray<Setting> OfDevices =>
        [UsbMode, UsbClasses, UsbVidPidAllow, Camera, Microphone, AudioOut, ClipboardIn, ClipboardOut, ClipboardMaxChars, VmLocalSnapshots, VmComputerName, VmTimeZone];

    private static Choice<ClipboardMode> Direction(string name, string help) => new(
        name, SettingScope.Workspace, ClipboardMode.Off, help + " Where both directions were off at the start, another value waits for the next one.", ("off", ClipboardMode.Off), ("text", ClipboardMode.Text));

    [GeneratedRegex(@"\A[0-9a-f]{4}:[0-9a-f]{4}\z")]
    private static partial Regex VidPidPattern();

    [GeneratedRegex(@"\A[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\z")]
    private static partial Regex HostNamePattern();

    [GeneratedRegex(@"\A(host|[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2})\z")]
    private static partial Regex ZonePattern();
}
