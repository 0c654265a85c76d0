using System.ComponentModel;
using System.Diagnostics;

namespace Nacre.Images.Building;

/// <summary>Runs one program with its output as lines; cancellation ends the program and all it started.</summary>
internal static class ProcessTree
{
    /// <summary>The full path of <paramref name="program"/>, looked for on the search path and in further folders; null where it is not.</summary>
    internal static string? Find(string program, string searchPath, IEnumerable<string> folders) =>
        searchPath.Split(':').Concat(folders)
            .Where(folder => folder.Length > 0)
            .Select(folder => Path.Combine(folder, program))
            .FirstOrDefault(File.Exists);

    /// <summary>Runs it to its end and returns its exit code.</summary>
    internal static async Task<int> RunAsync(
        string program,
        IEnumerable<string> arguments,
        string workingDirectory,
        IReadOnlyDictionary<string, string> environment,
        Action<string> onLine,
        CancellationToken cancellationToken)
    {
        // setsid: a session of its own, so that whatever is still alive at the end can be found and ended.
        var start = new ProcessStartInfo("setsid", ["--wait", program, .. arguments])
        {
            WorkingDirectory = workingDirectory,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        start.Environment.Clear();
        foreach (var (name, value) in environment)
        {
            start.Environment[name] = value;
        }

        using var process = new Process { StartInfo = start };
        var gate = new Lock();
        void OnData(object sender, DataReceivedEventArgs data)
        {
            if (data.Data is { } line)
            {
                lock (gate)
                {
                    onLine(line);
                }
            }
        }

        process.OutputDataReceived += OnData;
        process.ErrorDataReceived += OnData;
        process.Start();
        process.StandardInput.Close();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        try
        {
            await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            await EndAsync(process).ConfigureAwait(false);
            throw;
        }

        return process.ExitCode;
    }

    /// <summary>mmdebstrap unmounts and removes its folder when it is asked to end; what does not listen is killed.</summary>
    private static async Task EndAsync(Process process)
    {
        foreach (var child in Descendants(process.Id))
        {
            Signal("TERM", child);
        }

        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(10));
        try
        {
            await process.WaitForExitAsync(patience.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            foreach (var child in Descendants(process.Id))
            {
                Signal("KILL", child);
            }

            process.Kill(entireProcessTree: true);
            await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
        }
    }

    private static List<int> Descendants(int root)
    {
        var parents = new Dictionary<int, int>();
        foreach (var folder in Directory.EnumerateDirectories("/proc"))
        {
            if (int.TryParse(Path.GetFileName(folder), out var id) && ParentOf(folder) is { } parent)
            {
                parents[id] = parent;
            }
        }

        bool IsBelow(int id)
        {
            for (var steps = 0; steps < 1000 && parents.TryGetValue(id, out var parent); steps++)
            {
                if (parent == root)
                {
                    return true;
                }

                id = parent;
            }

            return false;
        }

        return [.. parents.Keys.Where(IsBelow)];
    }

    private static int? ParentOf(string folder)
    {
        try
        {
            // pid (command) state parent …; the command may hold anything, so look after its last parenthesis.
            var text = File.ReadAllText(Path.Combine(folder, "stat"));
            var words = text[(text.LastIndexOf(')') + 2)..].Split(' ');
            return int.TryParse(words[1], out var parent) ? parent : null;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return null; // it ended meanwhile
        }
    }

    private static void Signal(string signal, int id)
    {
        try
        {
            using var kill = Process.Start(new ProcessStartInfo("/bin/kill", [$"-{signal}", $"{id}"]) { RedirectStandardError = true });
            kill?.WaitForExit();
        }
        catch (Win32Exception)
        {
            // no kill program: Process.Kill follows
        }
    }
}
