using Nacre.Contracts;

namespace Nacre.Player.Machines;

/// <summary>What a machine starts from, in memory: a kernel of its release, or the firmware that starts the system disk.</summary>
internal sealed class BootFiles : IDisposable
{
    private const string FirmwareFolder = "/usr/share/OVMF";

    private readonly MemoryFile? kernel;
    private readonly MemoryFile? initramfs;
    private readonly MemoryFile? variables;

    /// <summary>A kernel.</summary>
    public BootFiles(byte[] kernel, byte[] initramfs, string commandLine)
    {
        this.kernel = new MemoryFile("kernel", kernel);
        this.initramfs = new MemoryFile("initramfs", initramfs);
        CommandLine = commandLine;
    }

    private BootFiles(byte[] variables) => this.variables = new MemoryFile("variables", variables);

    /// <summary>The UEFI firmware's code, which machines read and never write.</summary>
    public static string FirmwareCode => Path.Combine(FirmwareFolder, "OVMF_CODE_4M.fd");

    public string Kernel => kernel?.Path ?? "";

    public string Initramfs => initramfs?.Path ?? "";

    public string CommandLine { get; } = "";

    /// <summary>The firmware's variables; null where a kernel is started.</summary>
    public string? Variables => variables?.Path;

    /// <summary>Firmware with blank variables: what a guest keeps in them goes with its system disk's changes, and is no place to survive in.</summary>
    /// <exception cref="NacreException">ProgramMissing.</exception>
    public static BootFiles Firmware()
    {
        RequireFirmware();
        return new BootFiles(File.ReadAllBytes(Path.Combine(FirmwareFolder, "OVMF_VARS_4M.fd")));
    }

    /// <exception cref="NacreException">ProgramMissing.</exception>
    public static void RequireFirmware()
    {
        if (!File.Exists(FirmwareCode))
        {
            throw new NacreException(ErrorCatalogue.ProgramMissing, "the UEFI firmware that this LivePC starts with is not installed (Debian: ovmf)");
        }
    }

    public void Dispose()
    {
        kernel?.Dispose();
        initramfs?.Dispose();
        variables?.Dispose();
    }
}
