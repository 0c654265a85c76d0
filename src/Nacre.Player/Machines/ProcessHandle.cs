using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Nacre.Player.Machines;

/// <summary>A process of this user that this one did not start. It is held by a descriptor, so a number that the system gives to another
/// process later is never meant.</summary>
internal sealed partial class ProcessHandle : IDisposable
{
    private const int KillSignal = 9;
    private const short Readable = 1;

    private readonly SafeFileHandle descriptor;
    private readonly Lazy<Task> ended;

    private ProcessHandle(int id, SafeFileHandle descriptor)
    {
        Id = id;
        this.descriptor = descriptor;
        ended = new Lazy<Task>(() => Task.Factory.StartNew(WaitForEnd, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default));
    }

    public int Id { get; }

    /// <summary>When it started, in the kernel's ticks since the host's start: with the number, it names a process.</summary>
    public required long StartTime { get; init; }

    /// <summary>Its program and arguments.</summary>
    public required IReadOnlyList<string> Words { get; init; }

    /// <summary>Completes when it has ended, whether or not somebody took notice of its end.</summary>
    public Task Ended => ended.Value;

    /// <summary>The numbers of this user's processes.</summary>
    public static IEnumerable<int> Numbers() => Directory.EnumerateDirectories("/proc")
        .Select(folder => int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out var id) ? id : 0)
        .Where(id => id > 0 && IsOwn(id));

    /// <summary>Takes hold of a process; null where it has ended.</summary>
    public static ProcessHandle? TryOpen(int id)
    {
        var handle = Open(id, 0);
        if (handle < 0)
        {
            return null;
        }

        var descriptor = new SafeFileHandle(handle, ownsHandle: true);
        try
        {
            // Read after it was taken hold of: while that process lives, its number is not given away.
            var words = Encoding.UTF8.GetString(File.ReadAllBytes($"/proc/{id}/cmdline")).Split('\0', StringSplitOptions.RemoveEmptyEntries);
            if (StartTimeOf(id) is { } started && words.Length > 0 && IsOwn(id) && SendSignal(handle, 0, 0, 0) == 0)
            {
                return new ProcessHandle(id, descriptor) { StartTime = started, Words = words };
            }
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // It has ended meanwhile.
        }

        descriptor.Dispose();
        return null;
    }

    /// <summary>When a process started, in the kernel's ticks; null where it has ended.</summary>
    public static long? StartTimeOf(int id)
    {
        const int StartTimeField = 19; // the 22nd, counted from the one after the program's name, which may hold anything
        try
        {
            var line = File.ReadAllText($"/proc/{id}/stat");
            var fields = line[(line.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            return fields.Length > StartTimeField && long.TryParse(fields[StartTimeField], NumberStyles.None, CultureInfo.InvariantCulture, out var ticks) ? ticks : null;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    public void Kill() => _ = SendSignal((int)descriptor.DangerousGetHandle(), KillSignal, 0, 0);

    public void Dispose() => descriptor.Dispose();

    private static bool IsOwn(int id)
    {
        try
        {
            return File.ReadLines($"/proc/{id}/status").FirstOrDefault(line => line.StartsWith("Uid:", StringComparison.Ordinal))?.Split('\t') is [_, var real, ..]
                && real == GetUserId().ToString(CultureInfo.InvariantCulture);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private void WaitForEnd()
    {
        var held = false;
        try
        {
            descriptor.DangerousAddRef(ref held);
            var wanted = new Wanted { Descriptor = (int)descriptor.DangerousGetHandle(), Events = Readable };
            while (Poll(ref wanted, 1, -1) < 1)
            {
                // Interrupted by a signal.
            }
        }
        finally
        {
            if (held)
            {
                descriptor.DangerousRelease();
            }
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Wanted
    {
        public int Descriptor;
        public short Events;
        public short Found;
    }

    [LibraryImport("libc", EntryPoint = "pidfd_open")]
    private static partial int Open(int id, uint flags);

    [LibraryImport("libc", EntryPoint = "pidfd_send_signal")]
    private static partial int SendSignal(int descriptor, int signal, nint information, uint flags);

    [LibraryImport("libc", EntryPoint = "poll")]
    private static partial int Poll(ref Wanted wanted, nuint count, int milliseconds);

    [LibraryImport("libc", EntryPoint = "getuid")]
    private static partial uint GetUserId();
}
