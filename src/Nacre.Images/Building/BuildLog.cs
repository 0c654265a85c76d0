using System.Globalization;
using System.Text.RegularExpressions;

namespace Nacre.Images.Building;

/// <summary>Keeps mmdebstrap's output in a file, remembers its last lines, and tells from it where the build stands.</summary>
internal sealed partial class BuildLog(string path, IProgress<BuildProgress> progress) : IDisposable
{
    private const int RememberedLines = 20;

    private readonly StreamWriter writer = new(path) { AutoFlush = true };
    private readonly Queue<string> last = new();
    private BuildPhase phase = BuildPhase.Prepare;
    private double total;
    private double done;

    internal string LastLines => string.Join(Environment.NewLine, last);

    public void Dispose() => writer.Dispose();

    internal void Add(string line)
    {
        writer.WriteLine(line);
        last.Enqueue(line);
        if (last.Count > RememberedLines)
        {
            last.Dequeue();
        }

        Read(line);
    }

    /// <summary>Says that a step is taken from the cache.</summary>
    internal void AddCached(string step)
    {
        Add($"N: from the cache: {step}");
        progress.Report(new BuildProgress(BuildPhase.Cached, null, $"from the cache: {step}"));
    }

    private void Read(string line)
    {
        if (NewPackages().Match(line) is { Success: true } match)
        {
            total = int.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture);
            done = 0;
        }
        else if (line.StartsWith("I: downloading packages", StringComparison.Ordinal) || line.StartsWith("I: running apt-get update", StringComparison.Ordinal))
        {
            Enter(BuildPhase.Download, null, line[3..]);
        }
        else if (line.StartsWith("Get:", StringComparison.Ordinal))
        {
            Enter(BuildPhase.Download, total > 0 ? Math.Min(1, ++done / total) : null, line);
        }
        else if (line.StartsWith("I: extracting", StringComparison.Ordinal) || line.StartsWith("I: installing", StringComparison.Ordinal))
        {
            done = 0;
            Enter(BuildPhase.Install, null, line[3..]);
        }
        else if (line.StartsWith("Unpacking ", StringComparison.Ordinal) || line.StartsWith("Setting up ", StringComparison.Ordinal))
        {
            // Every package is unpacked once and set up once.
            Enter(BuildPhase.Install, total > 0 ? Math.Min(1, ++done / (2 * total)) : null, line);
        }
        else if (line is "N: recipe" || line.StartsWith("N: script ", StringComparison.Ordinal))
        {
            Enter(BuildPhase.Scripts, null, line[3..]);
        }
        else if (line is "N: finish" or "N: file system")
        {
            Enter(BuildPhase.FileSystem, line is "N: finish" ? 0 : 0.5, line[3..]);
        }
    }

    private void Enter(BuildPhase next, double? fraction, string message)
    {
        // apt downloads a second time while it installs; a phase never goes back.
        if (next >= phase)
        {
            phase = next;
            progress.Report(new BuildProgress(next, fraction, message.Trim()));
        }
    }

    [GeneratedRegex(@"^\d+ upgraded, (\d+) newly installed")]
    private static partial Regex NewPackages();
}
