using System.Text.Json.Nodes;
using Nacre.Player.Machines;

namespace Nacre.Player.LivePcs;

/// <summary>The QEMU processes of one LivePC whose player was killed. They are found by their own words, never by a number in a file: one that
/// was overlooked would write the volumes beside the next one.</summary>
internal sealed class LeftOver : IDisposable
{
    private readonly List<ProcessHandle> processes;

    private LeftOver(List<ProcessHandle> processes) => this.processes = processes;

    /// <summary>The one that there is; null where there are several, which only a defect can bring about.</summary>
    public ProcessHandle? Single => processes.Count == 1 ? processes[0] : null;

    /// <summary>What runs of this LivePC; null where nothing does. Only who holds the LivePC's lock may do anything to it.</summary>
    public static LeftOver? Find(LivePcFolder folder)
    {
        var found = new List<ProcessHandle>();
        foreach (var id in ProcessHandle.Numbers())
        {
            if (ProcessHandle.TryOpen(id) is { } process)
            {
                if (IsOf(folder, process.Words))
                {
                    found.Add(process);
                }
                else
                {
                    process.Dispose();
                }
            }
        }

        return found.Count == 0 ? null : new LeftOver(found);
    }

    /// <summary>Whether a process with these words is a QEMU of that LivePC: its program, its name and the socket of its disks.</summary>
    internal static bool IsOf(LivePcFolder folder, IReadOnlyList<string> words)
    {
        var socket = $"\"path\":{JsonValue.Create(folder.NbdSocket).ToJsonString()}";
        return Path.GetFileName(words[0]) == Qemu.Program
            && words.Zip(words.Skip(1)).Any(pair => pair == ("-name", MachineName(folder)))
            && words.Any(word => word.Contains(socket, StringComparison.Ordinal));
    }

    public static string MachineName(LivePcFolder folder) => $"nacre-{folder.Name}";

    /// <summary>Ends them: what the guest had flushed is kept.</summary>
    public async Task EndAsync()
    {
        foreach (var process in processes)
        {
            process.Kill();
        }

        await Task.WhenAll(processes.Select(process => process.Ended)).ConfigureAwait(false);
    }

    public void Dispose() => processes.ForEach(process => process.Dispose());
}
