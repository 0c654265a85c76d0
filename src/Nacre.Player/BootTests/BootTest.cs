using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using Nacre.Images;
using Nacre.Images.FileSystems;
using Nacre.Nbd;
using Nacre.Player.LivePcs;
using Nacre.Player.Machines;
using Nacre.Player.Stacks;
using Nacre.Player.UserPackages;
using Nacre.Policies;
using Nacre.Volumes;
using Nacre.Volumes.Releases;

namespace Nacre.Player.BootTests;

/// <summary>What a start in a throw-away guest showed.</summary>
/// <param name="IsHealthy">Whether it came up healthy.</param>
/// <param name="Reason">In one line, what it came to.</param>
/// <param name="Seconds">From the machine's start until it was healthy, or judged not to be.</param>
/// <param name="Accelerator"><c>kvm</c> or <c>tcg</c>.</param>
/// <param name="FailedUnits">Units that the guest says have failed; a start can be healthy with some.</param>
/// <param name="Console">Of a start that was not healthy: the last lines of the guest's console.</param>
public sealed record BootTestResult(bool IsHealthy, string Reason, double Seconds, string Accelerator, IReadOnlyList<string> FailedUnits, IReadOnlyList<string> Console);

/// <summary>
/// Starts a built image in a throw-away guest, as the player would start its release: the same machine without a network, and blank user layers under keys that only memory
/// holds. It judges the start as the player does one on trial.
/// </summary>
public sealed record BootTest
{
    /// <summary>A kernel's last words have some 40 lines, and why it said them is before that.</summary>
    private const int ConsoleLines = 60;

    private const string Scratch = "scratch";
    private static readonly TimeSpan LookInterval = TimeSpan.FromSeconds(1);

    /// <summary>How long a healthy guest may take until all is started that starts by itself, so that it can say what failed.</summary>
    private static readonly TimeSpan SettleLimit = TimeSpan.FromMinutes(1);

    /// <summary>The system, or a whole disk.</summary>
    public required GoldenImage System { get; init; }

    /// <summary>Application layers on top of it, the lowest first.</summary>
    public IReadOnlyList<GoldenImage> Layers { get; init; } = [];

    /// <summary>Units that must be active; of a whole disk none are asked for.</summary>
    public IReadOnlyList<string> Units { get; init; } = [];

    /// <summary>How long it may take until it is healthy; a whole disk's agent is waited for no longer than the player would.</summary>
    public TimeSpan Limit { get; init; } = TimeSpan.FromMinutes(Settings.UpdateHealthMinutes.FactoryValue);

    /// <summary>Where the blank user layers are, as ciphertext, until the end.</summary>
    public required string TemporaryFolder { get; init; }

    /// <summary>Makes the test. Whatever becomes of it, the guest has ended and nothing is left behind when this returns.</summary>
    /// <param name="report">Told what goes on.</param>
    /// <param name="cancellationToken">Ends the guest.</param>
    /// <exception cref="NacreException">ProgramMissing; AcceleratorUnusable; FileAccess: what keeps the test from being made.</exception>
    public async Task<BootTestResult> RunAsync(Action<string> report, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(report);
        var paths = PlayerPaths.Open();

        // No LivePC has a dot in its name.
        var name = $"boot.{Guid.NewGuid().ToString("n")[..8]}";
        var (sockets, work) = (Path.Combine(paths.Runtime, name), Path.Combine(TemporaryFolder, $"nacre-{name}"));
        try
        {
            PlayerPaths.MakePrivate(sockets);
            PlayerPaths.MakePrivate(work);
            using var boot = await ReadBootFilesAsync(cancellationToken).ConfigureAwait(false);
            report("choosing the accelerator");
            var accelerator = await Accelerator.ChooseAsync(
                paths.Accelerator, boot.Kernel, () => report("finding out whether KVM really works here"), cancellationToken).ConfigureAwait(false);
            await using var volumes = OpenVolumes(work);
            var socket = Path.Combine(sockets, "nbd.sock");
            await using var nbd = NbdServer.Start(socket, volumes.Exports);
            using var parameters = new GuestParameters(
                Policy.Of("test", PolicyDocument.Empty.With(Settings.UpdateHealthUnits, Units)), Layers.Prepend(System).Select(image => $"{image.Name} 0"), UserPackageChoice.Postpone, []);
            await using var qemu = Qemu.Start(new MachineOptions
            {
                Name = name,
                Accelerator = accelerator,
                Kernel = boot.Kernel,
                Initramfs = boot.Initramfs,
                CommandLine = boot.CommandLine,
                Variables = boot.Variables,
                NbdSocket = socket,
                Disks = MachineOptions.DisksOf(System.Kind, Layers.Count),
                Parameters = System.Kind == ImageKind.Disk ? [] : parameters.Paths,
                Memory = MachineOptions.MemoryOf(Policy.Factory),
                Processors = MachineOptions.ProcessorsOf(Policy.Factory),
                Sockets = sockets,
            });
            using var agent = new GuestAgent(Qemu.AgentSocket(sockets));
            return await JudgeAsync(qemu, agent, accelerator, report, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, exception.Message.TrimEnd('.'), exception);
        }
        finally
        {
            foreach (var folder in new[] { sockets, work }.Where(Directory.Exists))
            {
                Directory.Delete(folder, recursive: true);
            }
        }
    }

    private async Task<BootFiles> ReadBootFilesAsync(CancellationToken cancellationToken)
    {
        if (System.Kind == ImageKind.Disk)
        {
            return BootFiles.Firmware();
        }

        Task<byte[]> ReadAsync(string artifact) => File.ReadAllBytesAsync(System.Artifacts.Single(one => one.Name == artifact).Path, cancellationToken);
        var fresh = string.Join(',', UserLayers.Of(System.Kind).Select(layer => layer.Layer));
        return new BootFiles(await ReadAsync("kernel").ConfigureAwait(false), await ReadAsync("initramfs").ConfigureAwait(false), $"{System.CommandLine} nacre.fresh={fresh}");
    }

    private OpenVolumes OpenVolumes(string work)
    {
        var volumes = new OpenVolumes();
        foreach (var (layer, size) in UserLayers.Of(System.Kind))
        {
            volumes.Add(layer, Blank(work, layer, size));
        }

        var system = FileDevice.Open(System.Artifacts[^1].Path);
        if (System.Kind == ImageKind.Disk)
        {
            volumes.Add("system", new ReleaseFork(system, Blank(work, Scratch, ReleaseFork.VolumeSize(system.Size))));
            return volumes;
        }

        volumes.Add("system", system);
        volumes.Add(Scratch, Blank(work, Scratch, MachineOptions.ScratchSize));
        foreach (var (layer, number) in Layers.Select((layer, number) => (layer, number)))
        {
            volumes.Add(OpenReleases.ExportOf(number), FileDevice.Open(layer.Artifacts[^1].Path));
        }

        return volumes;
    }

    private static Volume Blank(string work, string layer, long size)
    {
        var key = RandomNumberGenerator.GetBytes(32);
        var volume = Volume.Create(Path.Combine(work, layer), new VolumeOptions { Size = size, Volatile = true }, key);
        CryptographicOperations.ZeroMemory(key);
        return volume;
    }

    private async Task<BootTestResult> JudgeAsync(Qemu qemu, GuestAgent agent, string accelerator, Action<string> report, CancellationToken cancellationToken)
    {
        var clock = Stopwatch.StartNew();
        var limit = System.Kind == ImageKind.Disk && GuestHealth.AgentLimit(accelerator) is var patience && patience < Limit ? patience : Limit;
        report("waiting for the guest's agent");
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var answered = agent.WaitAsync(ending.Token);
        var started = "";
        var nothing = false;
        while (!answered.IsCompleted && !qemu.Ended.IsCompleted && clock.Elapsed < limit && !nothing)
        {
            await Task.WhenAny(answered, qemu.Ended, Task.Delay(LookInterval, cancellationToken)).ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            if (System.Kind == ImageKind.Disk)
            {
                var console = qemu.ConsoleText;
                (started, nothing) = (StartedByFirmware(console) ?? started, FoundNothing(console));
            }
        }

        await ending.CancelAsync().ConfigureAwait(false);
        await answered.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        cancellationToken.ThrowIfCancellationRequested();
        if (qemu.Ended.IsCompleted)
        {
            await qemu.Heard.ConfigureAwait(false);
            return Result(false, GuestHealth.ReasonOf(qemu.ConsoleText) ?? "the guest ended before its agent answered", []);
        }

        if (answered.IsCompletedSuccessfully)
        {
            return System.Kind == ImageKind.Disk
                ? Result(true, "its agent answered", [])
                : await AskAsync(qemu, agent, clock, Result, report, cancellationToken).ConfigureAwait(false);
        }

        return System.Kind != ImageKind.Disk ? Result(false, $"the guest's agent did not answer within {limit.TotalMinutes:0.#} minutes", [])
            : nothing ? Result(false, "the firmware found nothing on the disk to start", [])
            : started.Length > 0 ? Result(true, $"no agent answered within {limit.TotalMinutes:0.#} minutes; the firmware started {started}, and the guest runs", [])
            : Result(false, $"the firmware started nothing within {limit.TotalMinutes:0.#} minutes", []);

        BootTestResult Result(bool isHealthy, string reason, IReadOnlyList<string> failedUnits) => new(
            isHealthy, reason, clock.Elapsed.TotalSeconds, accelerator, failedUnits,
            isHealthy ? [] : [.. $"{qemu.ConsoleText}\n{qemu.ErrorText}".Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).TakeLast(ConsoleLines)]);
    }

    /// <summary>Of a guest whose agent answers: whether the units are active, and which have failed.</summary>
    private async Task<BootTestResult> AskAsync(
        Qemu qemu, GuestAgent agent, Stopwatch clock, Func<bool, string, IReadOnlyList<string>, BootTestResult> result, Action<string> report, CancellationToken cancellationToken)
    {
        BootTestResult? healthy = null;
        report("waiting for the guest's units");
        while (true)
        {
            var end = healthy is null ? Limit : TimeSpan.FromSeconds(healthy.Seconds) + SettleLimit;
            try
            {
                var (missing, settled) = await GuestHealth.FindInactiveAsync(agent, Units, cancellationToken).ConfigureAwait(false);
                healthy ??= missing.Count == 0 ? result(true, Units.Count == 0 ? "its agent answered" : "its agent answered, and its units were active", []) : null;
                if (settled || clock.Elapsed > end)
                {
                    var failed = await FailedUnitsAsync(agent, cancellationToken).ConfigureAwait(false);
                    var names = string.Join(", ", missing.Select(one => $"{one.Unit} is {one.State}"));
                    return healthy is { } up ? up with { FailedUnits = failed }
                        : result(false, settled ? $"the guest started without what must be active: {names}" : $"the guest was not healthy within {Limit.TotalMinutes:0.#} minutes: {names}", failed);
                }
            }
            catch (NacreException exception) when (exception.Kind == ErrorCatalogue.GuestFailed)
            {
                // It is busy, and asked again, or it has ended.
                if (clock.Elapsed > end && !qemu.Ended.IsCompleted)
                {
                    return healthy ?? result(false, exception.Message, []);
                }
            }

            await Task.WhenAny(qemu.Ended, Task.Delay(LookInterval, cancellationToken)).ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            if (qemu.Ended.IsCompleted)
            {
                await qemu.Heard.ConfigureAwait(false);
                return result(false, GuestHealth.ReasonOf(qemu.ConsoleText) ?? "the guest ended while it started", []);
            }
        }
    }

    private static async Task<IReadOnlyList<string>> FailedUnitsAsync(GuestAgent agent, CancellationToken cancellationToken)
    {
        var answer = await agent.ExecuteAsync("/bin/systemctl", ["list-units", "--failed", "--plain", "--no-legend", "--no-pager"], null, cancellationToken).ConfigureAwait(false);
        return [.. GuestText.Plain(Encoding.UTF8.GetString(answer.Output)).Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Select(line => line.Split(' ')[0])];
    }

    /// <summary>What the firmware handed over to, as it says it on the console; null where it has not.</summary>
    private static string? StartedByFirmware(string console)
    {
        const string Mark = "BdsDxe: starting ";
        var at = console.LastIndexOf(Mark, StringComparison.Ordinal);
        return at < 0 || console.IndexOf("BdsDxe: failed to", at, StringComparison.Ordinal) >= 0 ? null : console[(at + Mark.Length)..].Split('\n')[0].Trim();
    }

    /// <summary>Whether the firmware came to its last resort: what it can't start now, it never will.</summary>
    private static bool FoundNothing(string console) =>
        console.Contains("EFI Internal Shell", StringComparison.Ordinal) || console.Contains("BdsDxe: No bootable option", StringComparison.Ordinal);
}
