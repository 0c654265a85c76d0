using System.Diagnostics;
using Nacre.Contracts;

namespace Nacre.Player.Machines;

/// <summary>
/// Chooses QEMU's accelerator. A device node that opens proves nothing: KVM counts as working only after a guest's kernel has really booted
/// under it on this host. The answer is remembered for this host and kernel; <c>NACRE_ACCEL</c> (<c>kvm</c> or <c>tcg</c>) forces one.
/// </summary>
internal static class Accelerator
{
    public const string Kvm = "kvm";
    public const string Emulation = "tcg";

    /// <summary>Long enough for a slow host to boot a kernel up to its first panic, short enough to wait for once.</summary>
    private static readonly TimeSpan ProbeLimit = TimeSpan.FromSeconds(20);

    /// <summary>What was found out, and on which host.</summary>
    private sealed record Finding(string Host, string Accelerator);

    /// <summary>The accelerator to use here.</summary>
    /// <param name="remembered">File that keeps the answer.</param>
    /// <param name="kernel">A bootable kernel image for the probe; empty: the UEFI firmware.</param>
    /// <param name="probing">Called before a probe, which may take a while.</param>
    /// <param name="cancellationToken">Stops the probe.</param>
    /// <exception cref="NacreException">AcceleratorUnusable: the forced one is not one, or does not work.</exception>
    public static async Task<string> ChooseAsync(string remembered, string kernel, Action probing, CancellationToken cancellationToken)
    {
        switch (Environment.GetEnvironmentVariable("NACRE_ACCEL"))
        {
            case null or "":
                break;
            case Emulation:
                return Emulation;
            case Kvm when File.Exists("/dev/kvm"):
                return Kvm;
            case Kvm:
                throw new NacreException(ErrorCatalogue.AcceleratorUnusable, "NACRE_ACCEL=kvm, but this computer has no /dev/kvm");
            case var other:
                throw new NacreException(ErrorCatalogue.AcceleratorUnusable, $"NACRE_ACCEL={other} is neither 'kvm' nor 'tcg'");
        }

        if (!File.Exists("/dev/kvm"))
        {
            return Emulation;
        }

        var host = $"{Environment.OSVersion.VersionString}, {await Qemu.VersionAsync(cancellationToken).ConfigureAwait(false)}, {BootId()}";
        if (DurableFile.ReadJson<Finding>(remembered) is { } finding && finding.Host == host && finding.Accelerator is Kvm or Emulation)
        {
            return finding.Accelerator;
        }

        probing();
        var works = await BootsAsync(Kvm, kernel, ProbeLimit, cancellationToken).ConfigureAwait(false);
        var found = new Finding(host, works ? Kvm : Emulation);
        DurableFile.WriteJson(remembered, found);
        return found.Accelerator;
    }

    /// <summary>Whether a kernel really boots: without a root file system it ends in a panic that says so, which it reaches only after its
    /// processors, memory, interrupts and timers have worked. Firmware without a disk says that there is none, which it reaches as late.</summary>
    public static async Task<bool> BootsAsync(string accelerator, string kernel, TimeSpan limit, CancellationToken cancellationToken)
    {
        var mark = kernel.Length == 0 ? "BdsDxe" : "Unable to mount root fs";
        string[] start = kernel.Length == 0
            ? ["-machine", $"pc,accel={accelerator},pflash0=firmware", "-blockdev", Qemu.FileNode("firmware", BootFiles.FirmwareCode, isReadOnly: true)]
            : ["-machine", $"pc,accel={accelerator}", "-kernel", kernel, "-append", "console=ttyS0 panic=-1 no_timer_check root=none"];
        using var process = new Process
        {
            StartInfo = new ProcessStartInfo(
                Qemu.Program,
                ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "256", .. start, "-cpu", Qemu.CpuModel(accelerator), "-serial", "stdio"])
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            },
        };
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        deadline.CancelAfter(limit);
        Qemu.Start(process);
        try
        {
            var errors = process.StandardError.ReadToEndAsync(deadline.Token);
            while (await process.StandardOutput.ReadLineAsync(deadline.Token).ConfigureAwait(false) is { } line)
            {
                if (line.Contains(mark, StringComparison.Ordinal))
                {
                    return true;
                }
            }

            await errors.ConfigureAwait(false);
            return false;
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return false;
        }
        finally
        {
            if (!process.HasExited)
            {
                process.Kill();
            }

            await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>Changes with each start of the host: modules, firmware settings and nesting may have changed.</summary>
    private static string BootId() => File.Exists("/proc/sys/kernel/random/boot_id") ? File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim() : "";
}
