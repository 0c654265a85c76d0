using System.Diagnostics;
using Nacre.Player.Machines;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>A guest that boots in seconds (<c>scripts/tiny-guest.sh</c>), with one disk that is attached as the product attaches its own.</summary>
internal sealed class TinyGuest : IAsyncDisposable
{
    private readonly Process process;
    private readonly Task reading;
    private readonly Task<string> errors;
    private readonly List<string> console = [];

    private TinyGuest(Process process, Action<string> read)
    {
        this.process = process;
        errors = process.StandardError.ReadToEndAsync();
        reading = Task.Run(async () =>
        {
            while (await process.StandardOutput.ReadLineAsync() is { } line)
            {
                line = line.TrimEnd('\r');
                lock (console)
                {
                    console.Add(line);
                }

                read(line);
            }
        });
    }

    /// <summary>Completes when QEMU has ended.</summary>
    public Task Ended => process.WaitForExitAsync();

    /// <summary>What the guest said last, and QEMU's own words.</summary>
    public async Task<string> WordsAsync()
    {
        process.Kill();
        await reading;
        return string.Join('\n', console.TakeLast(40).Append(await errors));
    }

    /// <summary>Makes a guest's kernel and initramfs, and returns their folder.</summary>
    public static async Task<string> MakeAsync(string name, string init, params string[] programsAndFiles)
    {
        foreach (var program in programsAndFiles.Where(name => !File.Exists(name)).Append("busybox").Append("dpkg-deb"))
        {
            Require.Tool(program);
        }

        var folder = Repository.Path("artifacts", "tiny-guest", name);
        using var making = Process.Start(new ProcessStartInfo(Repository.Path("scripts", "tiny-guest.sh"), [folder, init, .. programsAndFiles]) { RedirectStandardError = true })!;
        var words = await making.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await making.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.True(making.ExitCode == 0, words);
        return folder;
    }

    /// <summary>Starts a guest.</summary>
    /// <param name="folder">Where its kernel and initramfs are.</param>
    /// <param name="nbdSocket">The socket that serves its disk, as the export <c>disk</c>.</param>
    /// <param name="parameters">What its init script finds in its environment.</param>
    /// <param name="read">Called with each line of its console.</param>
    public static TinyGuest Start(string folder, string nbdSocket, IEnumerable<string> parameters, Action<string> read)
    {
        var process = new Process
        {
            StartInfo = new ProcessStartInfo(Require.Tool(Qemu.Program),
            [
                "-nodefaults", "-no-user-config", "-no-reboot", "-machine", "pc,usb=off", "-accel", "tcg,thread=multi",
                "-cpu", Qemu.CpuModel(Accelerator.Emulation), "-m", "256", "-display", "none",
                "-kernel", Path.Combine(folder, "kernel"), "-initrd", Path.Combine(folder, "initramfs"),
                "-append", string.Join(' ', ["console=ttyS0", "quiet", "loglevel=3", "no_timer_check", "panic=-1", .. parameters]),
                "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console", "-object", "iothread,id=disks",
                .. Qemu.DiskArguments(new GuestDisk("disk", "disk", IsReadOnly: false), nbdSocket),
            ])
            { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true },
        };
        Qemu.Start(process);
        return new TinyGuest(process, read);
    }

    /// <summary>Kills QEMU.</summary>
    public async ValueTask DisposeAsync()
    {
        process.Kill();
        await process.WaitForExitAsync();
        await reading;
        process.Dispose();
    }
}
