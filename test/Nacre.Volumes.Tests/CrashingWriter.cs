using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;

namespace Nacre.Volumes.Tests;

/// <summary>The child process of the kill test: this executable, told by its environment to write until it is killed.</summary>
internal static class CrashingWriter
{
    [ModuleInitializer]
    internal static void RunIfAsked()
    {
        if (Environment.GetEnvironmentVariable("NACRE_CRASH_VOLUME") is not { Length: > 0 } folder)
        {
            return;
        }

        var first = int.Parse(Environment.GetEnvironmentVariable("NACRE_CRASH_VERSION")!, CultureInfo.InvariantCulture) + 1;
        var volume = first == 1 ? Volume.Create(folder, TestVolume.Small, TestVolume.Key) : Volume.Open(folder, TestVolume.Key, TestVolume.Small);
        using var output = Console.OpenStandardOutput();
        for (var version = first; ; version++)
        {
            var write = volume.WriteAsync(version % 64 * TestVolume.Block, TestVolume.Content(version % 64, version), false, default);
            write.AsTask().GetAwaiter().GetResult();
            output.Write(Encoding.ASCII.GetBytes($"{version}\n"));
            if (version % 100 == 0)
            {
                // History and cleaning may be what the kill hits.
                foreach (var snapshot in volume.Snapshots)
                {
                    volume.DeleteSnapshot(snapshot.Name);
                }

                volume.TakeSnapshot($"{version}");
            }
        }
    }
}
