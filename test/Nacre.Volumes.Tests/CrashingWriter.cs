using System.Runtime.CompilerServices;

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

        var volume = Volume.Create(folder, TestVolume.Small, TestVolume.Key);
        using var output = Console.OpenStandardOutput();
        for (var version = 1; ; version++)
        {
            var write = volume.WriteAsync(version % 64 * TestVolume.Block, TestVolume.Content(version % 64, version), false, default);
            write.AsTask().GetAwaiter().GetResult();
            output.Write(System.Text.Encoding.ASCII.GetBytes($"{version}\n"));
        }
    }
}
