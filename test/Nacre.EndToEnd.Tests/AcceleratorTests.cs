using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Player.Machines;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>An accelerator counts as working only when a kernel really boots under it.</summary>
public sealed class AcceleratorTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_kernel_that_boots_is_seen_to_boot_and_one_that_does_not_is_not()
    {
        Require.Tool("qemu-system-x86_64");
        var kernel = Path.Combine(await GoldenImages.MinimalAsync(1), "kernel");
        Assert.True(await Accelerator.BootsAsync(Accelerator.Emulation, kernel, TimeSpan.FromMinutes(2), Token));

        // The same kernel with its code replaced by an endless loop: QEMU starts, the processor runs, and nothing boots.
        using var folder = new TemporaryDirectory();
        var bytes = await File.ReadAllBytesAsync(kernel, Token);
        for (var i = 0x10000; i + 1 < bytes.Length; i += 2)
        {
            (bytes[i], bytes[i + 1]) = (0xEB, 0xFE);
        }

        await File.WriteAllBytesAsync(folder["stuck"], bytes, Token);
        var limit = Stopwatch.StartNew();
        Assert.False(await Accelerator.BootsAsync(Accelerator.Emulation, folder["stuck"], TimeSpan.FromSeconds(5), Token));
        Assert.InRange(limit.Elapsed.TotalSeconds, 0, 30);
        Assert.False(await Accelerator.BootsAsync("no-such-accelerator", kernel, TimeSpan.FromSeconds(20), Token));
    }

    [Fact]
    public async Task Firmware_that_starts_is_seen_to_start()
    {
        Require.Tool("qemu-system-x86_64");
        BootFiles.RequireFirmware();
        Assert.True(await Accelerator.BootsAsync(Accelerator.Emulation, "", TimeSpan.FromMinutes(2), Token));
        Assert.False(await Accelerator.BootsAsync("no-such-accelerator", "", TimeSpan.FromSeconds(20), Token));
    }

    [Fact]
    public async Task A_forced_accelerator_is_obeyed_and_an_unknown_one_refused()
    {
        await using var organisation = await Organisation.CreateAsync();
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        var device = new Shell(("NACRE_HOME", organisation.DeviceState), ("XDG_RUNTIME_DIR", organisation.Runtime), ("NACRE_ACCEL", "warp"), ("TPM2TOOLS_TCTI", "none"));
        var refused = await device.FailAsync(ErrorCatalogue.AcceleratorUnusable, "livepc", "start", "office");
        Assert.Contains("NACRE_ACCEL=warp", refused.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_was_found_out_is_remembered_for_this_host()
    {
        if (!File.Exists("/dev/kvm"))
        {
            Assert.Skip("this computer has no /dev/kvm: there is nothing to find out");
        }

        Environment.SetEnvironmentVariable("NACRE_ACCEL", null);
        using var folder = new TemporaryDirectory();
        var kernel = Path.Combine(await GoldenImages.MinimalAsync(1), "kernel");
        var probes = 0;
        var first = await Accelerator.ChooseAsync(folder["found"], kernel, () => probes++, Token);
        Assert.Equal(first, await Accelerator.ChooseAsync(folder["found"], kernel, () => probes++, Token));
        Assert.Equal(1, probes);
    }
}
