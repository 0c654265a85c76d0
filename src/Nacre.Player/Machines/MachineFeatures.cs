using Nacre.Player.HostChecks;
using Nacre.Policies;

namespace Nacre.Player.Machines;

/// <summary>What a machine has of its host's devices: decided by the policy at its start, and the same until it ends.</summary>
internal sealed record MachineFeatures
{
    /// <summary>Whether it has a USB controller, to which devices can be attached.</summary>
    public bool HasUsb { get; init; }

    /// <summary>Whether it has the port on which the guest's clipboard agent speaks.</summary>
    public bool HasClipboard { get; init; }

    /// <summary>Whether its sound is played.</summary>
    public bool HasAudioOut { get; init; }

    /// <summary>Whether it records.</summary>
    public bool HasMicrophone { get; init; }

    /// <summary>Through which of QEMU's drivers; <c>none</c> where the host has no sound.</summary>
    public string Audio { get; init; } = "none";

    /// <summary>What a policy wants on this host.</summary>
    public static MachineFeatures Of(Policy policy, HostFacts host) => new()
    {
        HasUsb = policy.Get(Settings.UsbMode) != UsbMode.Deny,
        HasClipboard = policy.Get(Settings.ClipboardIn) != ClipboardMode.Off || policy.Get(Settings.ClipboardOut) != ClipboardMode.Off,
        HasAudioOut = policy.Get(Settings.AudioOut),
        HasMicrophone = policy.Get(Settings.Microphone),
        Audio = policy.Get(Settings.AudioOut) || policy.Get(Settings.Microphone) ? AudioOf(host) : "none",
    };

    /// <summary>QEMU's words for it.</summary>
    /// <param name="clipboardSocket">Where the clipboard's port is.</param>
    public IEnumerable<string> Arguments(string clipboardSocket)
    {
        if (HasUsb)
        {
            foreach (var word in new[] { "-device", "qemu-xhci,id=usb" })
            {
                yield return word;
            }
        }

        if (HasClipboard)
        {
            foreach (var word in new[] { "-chardev", $"socket,id=clipboard,path={clipboardSocket.Replace(",", ",,", StringComparison.Ordinal)},server=on,wait=off", "-device", "virtserialport,chardev=clipboard,name=com.redhat.spice.0" })
            {
                yield return word;
            }
        }

        if (HasAudioOut || HasMicrophone)
        {
            // A device that has no way in for what is not allowed; of one that only records, what is played goes nowhere.
            foreach (var word in new[]
            {
                "-audiodev", $"{Audio},id=sound,in.voices={(HasMicrophone ? 1 : 0)},out.voices={(HasAudioOut ? 1 : 0)}", "-device", "intel-hda,id=hda",
                "-device", $"{(HasMicrophone ? "hda-duplex" : "hda-output")},audiodev=sound",
            })
            {
                yield return word;
            }
        }
    }

    /// <summary>What of the policy this host can't do.</summary>
    public IEnumerable<string> Unenforceable() => (HasAudioOut || HasMicrophone) && Audio == "none"
        ? [$"{(HasAudioOut ? Settings.AudioOut.Name : Settings.Microphone.Name)}: this computer has no sound that QEMU can use (PulseAudio with the package qemu-system-gui, or ALSA)"]
        : [];

    private static string AudioOf(HostFacts host) =>
        host.Variables.GetValueOrDefault("XDG_RUNTIME_DIR") is { Length: > 0 } runtime && host.Exists($"{runtime}/pulse/native") && host.Exists("/usr/lib/x86_64-linux-gnu/qemu/audio-pa.so") ? "pa"
        : host.List("/dev/snd").Any(name => name.StartsWith("pcm", StringComparison.Ordinal)) ? "alsa"
        : "none";
}
