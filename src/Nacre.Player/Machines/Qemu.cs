using System.ComponentModel;
using System.Diagnostics;
using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Player.LivePcs;
using Nacre.Player.Stacks;
using Nacre.Policies;

namespace Nacre.Player.Machines;

/// <summary>A virtual disk of the guest.</summary>
/// <param name="Serial">What the guest knows it by, at most 20 characters.</param>
/// <param name="Export">Its name at the NBD server.</param>
/// <param name="IsReadOnly">Whether the guest may only read.</param>
/// <param name="IsStarted">Whether firmware starts it.</param>
internal sealed record GuestDisk(string Serial, string Export, bool IsReadOnly, bool IsStarted = false);

/// <summary>What QEMU runs.</summary>
internal sealed record MachineOptions
{
    public required string Name { get; init; }

    public required string Accelerator { get; init; }

    public string Kernel { get; init; } = "";

    public string Initramfs { get; init; } = "";

    public string CommandLine { get; init; } = "";

    /// <summary>Where firmware starts a disk: the file of its variables. Then there is no kernel.</summary>
    public string? Variables { get; init; }

    public required string NbdSocket { get; init; }

    public required IReadOnlyList<GuestDisk> Disks { get; init; }

    /// <summary>What the guest finds below <c>/sys/firmware/qemu_fw_cfg/by_name/opt/nacre</c>: names, and the files that hold it.</summary>
    public required IReadOnlyList<(string Name, string Path)> Parameters { get; init; }

    /// <summary>MiB.</summary>
    public required int Memory { get; init; }

    public required int Processors { get; init; }

    /// <summary>The folder of the machine's sockets.</summary>
    public required string Sockets { get; init; }

    /// <summary>What it has of its host's devices.</summary>
    public MachineFeatures Features { get; init; } = new();

    /// <summary>Bytes of the scratch disk; nothing is stored for what was never written.</summary>
    public const long ScratchSize = 32L << 30;

    /// <summary>MiB of memory where nobody asks for more or less: the policy's share of the host's, 1,024 to 4,096.</summary>
    public static int MemoryOf(Policy policy) => (int)Math.Clamp(GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / (1024 * 1024) * policy.Get(Settings.VmMemory) / 100, 1024, 4096);

    /// <summary>Processors where nobody asks for more or less: the policy's share of the host's, 1 to 4.</summary>
    public static int ProcessorsOf(Policy policy) => Math.Clamp(Environment.ProcessorCount * policy.Get(Settings.VmCpu) / 100, 1, 4);

    /// <summary>The disks of a guest.</summary>
    /// <param name="kind">Of its image.</param>
    /// <param name="layers">How many application layers it has.</param>
    public static IReadOnlyList<GuestDisk> DisksOf(ImageKind kind, int layers)
    {
        var users = UserLayers.Of(kind).Select(layer => new GuestDisk($"nacre-{layer.Layer}", layer.Layer, IsReadOnly: false));
        return kind == ImageKind.Disk ? [new GuestDisk("nacre-system", "system", IsReadOnly: false, IsStarted: true), .. users] :
        [
            new GuestDisk("nacre-system", "system", IsReadOnly: true),
            new GuestDisk("nacre-scratch", "scratch", IsReadOnly: false),
            .. users,
            .. Enumerable.Range(0, layers).Select(number => new GuestDisk($"nacre-{OpenReleases.ExportOf(number)}", OpenReleases.ExportOf(number), IsReadOnly: true)),
        ];
    }
}

/// <summary>A running QEMU: started confined, with no network, no files of the host but those named, and its console kept in memory. One that an
/// earlier player started is the same but for its console, which went to that one.</summary>
internal sealed class Qemu : IAsyncDisposable
{
    public const string Program = "qemu-system-x86_64";

    /// <summary>Bytes of the guest's console that are kept for an error report. They are never written to a file: they are the guest's.</summary>
    private const int ConsoleBytes = 64 * 1024;

    /// <summary>Seconds for which the guest's requests wait for a player that was killed; then the guest is paused, and its requests wait on.</summary>
    private const int ReconnectDelay = 60;

    /// <summary>The same for the disk that is only read, a day: it is not what pauses the guest, and must not be what fails in it.</summary>
    private const int ReadOnlyReconnectDelay = 24 * 60 * 60;

    private readonly Process? process;
    private readonly ProcessHandle? adopted;
    private readonly Task console = Task.CompletedTask;
    private readonly Task errors = Task.CompletedTask;
    private readonly ConsoleTail consoleTail = new(ConsoleBytes);
    private readonly ConsoleTail errorTail = new(ConsoleBytes);

    private Qemu(Process process)
    {
        this.process = process;
        console = Task.Run(() => consoleTail.FillAsync(process.StandardOutput.BaseStream));
        errors = Task.Run(() => errorTail.FillAsync(process.StandardError.BaseStream));
    }

    private Qemu(ProcessHandle adopted) => this.adopted = adopted;

    /// <summary>Completes when QEMU has ended.</summary>
    public Task Ended => process?.WaitForExitAsync() ?? adopted!.Ended;

    /// <summary>Completes when it has ended and all that it said was read.</summary>
    public Task Heard => Task.WhenAll(console, errors);

    public int ProcessId => process?.Id ?? adopted!.Id;

    /// <summary>The last lines of the guest's serial console.</summary>
    public string ConsoleText => consoleTail.ToString();

    /// <summary>QEMU's own words.</summary>
    public string ErrorText => errorTail.ToString();

    public static string QmpSocket(string sockets) => Path.Combine(sockets, "qmp.sock");

    public static string AgentSocket(string sockets) => Path.Combine(sockets, "agent.sock");

    public static string ClipboardSocket(string sockets) => Path.Combine(sockets, "clipboard.sock");

    /// <summary>Where the screen is; viewers come to it through the <see cref="ScreenDoor"/>.</summary>
    public static string ScreenSocket(string sockets) => Path.Combine(sockets, "vnc.sock");

    /// <summary>The processor that the guest sees. Emulated, a plain one is faster: with every feature the guest's libraries choose wide vector
    /// instructions, which emulation makes slow.</summary>
    public static string CpuModel(string accelerator) => accelerator == Machines.Accelerator.Kvm ? "host" : "qemu64";

    /// <summary>Starts QEMU. The guest begins to run at once.</summary>
    /// <exception cref="NacreException">ProgramMissing.</exception>
    public static Qemu Start(MachineOptions options)
    {
        foreach (var socket in new[] { QmpSocket(options.Sockets), AgentSocket(options.Sockets), ScreenSocket(options.Sockets), ClipboardSocket(options.Sockets) })
        {
            File.Delete(socket);
        }

        var process = new Process
        {
            StartInfo = new ProcessStartInfo(Program) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true },
        };
        foreach (var argument in Arguments(options))
        {
            process.StartInfo.ArgumentList.Add(argument);
        }

        Start(process);
        return new Qemu(process);
    }

    /// <summary>Goes on with one that another player started. The handle stays its owner's.</summary>
    public static Qemu Adopt(ProcessHandle running) => new(running);

    /// <summary>Starts a process, or says which package it comes from.</summary>
    public static void Start(Process process)
    {
        try
        {
            process.Start();
            process.StandardInput.Close();
        }
        catch (Win32Exception exception)
        {
            throw new NacreException(ErrorCatalogue.ProgramMissing,
                $"'{process.StartInfo.FileName}' can't be started: {exception.Message}; on Debian it is in the package qemu-system-x86", exception);
        }
    }

    /// <summary>QEMU's version, as it says it.</summary>
    public static async Task<string> VersionAsync(CancellationToken cancellationToken)
    {
        using var process = new Process
        {
            StartInfo = new ProcessStartInfo(Program, ["--version"]) { RedirectStandardInput = true, RedirectStandardOutput = true },
        };
        Start(process);
        var text = await process.StandardOutput.ReadToEndAsync(cancellationToken).ConfigureAwait(false);
        await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);
        return text.Split('\n')[0];
    }

    public void Kill()
    {
        adopted?.Kill();
        if (process is { HasExited: false })
        {
            process.Kill();
        }
    }

    public async ValueTask DisposeAsync()
    {
        Kill();
        await Ended.ConfigureAwait(false);
        await Heard.ConfigureAwait(false);
        process?.Dispose();
    }

    internal static List<string> Arguments(MachineOptions options)
    {
        static string Path(string path) => path.Replace(",", ",,", StringComparison.Ordinal);

        List<string> arguments =
        [
            "-nodefaults", "-no-user-config", "-no-reboot",
            "-name", options.Name,
            "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-machine", options.Variables is null ? "pc,usb=off" : "pc,usb=off,pflash0=firmware,pflash1=variables",
            "-accel", options.Accelerator == Machines.Accelerator.Emulation ? "tcg,thread=multi" : options.Accelerator,
            "-cpu", CpuModel(options.Accelerator),
            "-smp", $"{options.Processors}",
            "-m", $"{options.Memory}",
            .. options.Variables is null
                ? ["-kernel", options.Kernel, "-initrd", options.Initramfs, "-append", options.CommandLine]
                : Firmware(options.Variables),
            "-display", "none", "-vnc", $"unix:{Path(ScreenSocket(options.Sockets))}",
            "-device", "virtio-vga", "-device", "virtio-keyboard-pci", "-device", "virtio-tablet-pci", "-device", "virtio-rng-pci",
            "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
            "-chardev", $"socket,id=qmp,path={Path(QmpSocket(options.Sockets))},server=on,wait=off", "-mon", "chardev=qmp,mode=control",
            "-device", "virtio-serial-pci",
            "-chardev", $"socket,id=agent,path={Path(AgentSocket(options.Sockets))},server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-object", "iothread,id=disks",
        ];
        arguments.AddRange(options.Features.Arguments(ClipboardSocket(options.Sockets)));
        foreach (var (name, path) in options.Parameters)
        {
            arguments.AddRange(["-fw_cfg", $"name=opt/nacre/{name},file={Path(path)}"]);
        }

        foreach (var disk in options.Disks)
        {
            arguments.AddRange(DiskArguments(disk, options.NbdSocket));
        }

        return arguments;
    }

    /// <summary>A disk, for a QEMU that has an iothread named <c>disks</c>.</summary>
    internal static string[] DiskArguments(GuestDisk disk, string nbdSocket) =>
    [
        "-blockdev", DiskNode(disk, nbdSocket, disk.IsReadOnly ? ReadOnlyReconnectDelay : ReconnectDelay).ToJsonString(),
        "-device", $"virtio-blk-pci,drive={disk.Export},serial={disk.Serial},iothread=disks" + (disk.IsReadOnly ? "" : ",werror=stop,rerror=stop") + (disk.IsStarted ? ",bootindex=0" : ""),
    ];

    private static string[] Firmware(string variables) =>
        ["-blockdev", FileNode("firmware", BootFiles.FirmwareCode, isReadOnly: true), "-blockdev", FileNode("variables", variables, isReadOnly: false)];

    /// <summary>The block node of a file.</summary>
    internal static string FileNode(string name, string file, bool isReadOnly) =>
        new JsonObject { ["driver"] = "file", ["node-name"] = name, ["filename"] = file, ["read-only"] = isReadOnly }.ToJsonString();

    /// <summary>A disk's block node, as an argument or for <c>blockdev-add</c>.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="nbdSocket">Who serves it.</param>
    /// <param name="reconnectDelay">Seconds for which requests wait for a server that went away.</param>
    internal static JsonObject DiskNode(GuestDisk disk, string nbdSocket, int reconnectDelay)
    {
        var node = new JsonObject
        {
            ["driver"] = "nbd",
            ["node-name"] = disk.Export,
            ["server"] = new JsonObject { ["type"] = "unix", ["path"] = nbdSocket },
            ["export"] = disk.Export,
            ["reconnect-delay"] = reconnectDelay,
            ["read-only"] = disk.IsReadOnly,
            ["discard"] = "unmap",
        };
        if (!disk.IsReadOnly)
        {
            node["detect-zeroes"] = "unmap";
        }

        return node;
    }
}

/// <summary>The last bytes of a stream. Thread-safe.</summary>
internal sealed class ConsoleTail(int capacity)
{
    private readonly Lock gate = new();
    private readonly Queue<byte> bytes = new(capacity);

    public async Task FillAsync(Stream stream)
    {
        var buffer = new byte[4096];
        try
        {
            int count;
            while ((count = await stream.ReadAsync(buffer).ConfigureAwait(false)) > 0)
            {
                lock (gate)
                {
                    foreach (var value in buffer.AsSpan(0, count))
                    {
                        if (bytes.Count == capacity)
                        {
                            bytes.Dequeue();
                        }

                        bytes.Enqueue(value);
                    }
                }
            }
        }
        catch (Exception exception) when (exception is IOException or ObjectDisposedException)
        {
            // The process is gone; what was read stays.
        }
    }

    /// <summary>As text, with everything that could move a terminal's cursor or colour taken out.</summary>
    public override string ToString()
    {
        string text;
        lock (gate)
        {
            text = System.Text.Encoding.UTF8.GetString([.. bytes]);
        }

        text = System.Text.RegularExpressions.Regex.Replace(text, "\u001b(\\[[0-9;?]*[A-Za-z]|.)", "");
        return new string([.. text.Where(character => character == '\n' || !char.IsControl(character))]);
    }
}
