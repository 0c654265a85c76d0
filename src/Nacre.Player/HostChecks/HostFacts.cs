using System.ComponentModel;
using System.Diagnostics;
using System.Text;

namespace Nacre.Player.HostChecks;

/// <summary>The host as this user sees it: files and programs below a root folder, which is another one in tests. Nothing of it is believed further than a check needs: who controls the host can make it say anything.</summary>
/// <param name="Root">The folder that stands for <c>/</c>.</param>
/// <param name="Variables">Variables of the environment.</param>
internal sealed record HostFacts(string Root, IReadOnlyDictionary<string, string> Variables)
{
    /// <summary>Prevents a file that grows from filling the memory.</summary>
    private const int LongestText = 4 * 1024 * 1024;

    private static readonly string[] ProgramFolders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    private static readonly TimeSpan ProgramLimit = TimeSpan.FromSeconds(10);

    /// <summary>This computer.</summary>
    public static HostFacts Real { get; } = new("/", Environment.GetEnvironmentVariables().Cast<System.Collections.DictionaryEntry>()
        .ToDictionary(variable => (string)variable.Key, variable => (string?)variable.Value ?? "", StringComparer.Ordinal));

    /// <summary>The user's home.</summary>
    public string Home => Variables.GetValueOrDefault("HOME") is { Length: > 0 } home ? home : "/root";

    /// <summary>Where a path of the host is.</summary>
    public string At(string path) => Path.Combine(Root, path.TrimStart('/'));

    /// <summary>Whether there is something at a path, be it a link to nothing.</summary>
    public bool Exists(string path) => Path.Exists(At(path)) || new FileInfo(At(path)).LinkTarget is not null;

    /// <summary>A text; null where there is none, or it can't be read.</summary>
    public string? Read(string path) => ReadBytes(path, LongestText) is { } bytes ? Encoding.UTF8.GetString(bytes) : null;

    /// <summary>The first bytes of a file; null where there is none, or it can't be read.</summary>
    public byte[]? ReadBytes(string path, int most)
    {
        try
        {
            // Files of the kernel's say that they are empty: read to the end.
            using var file = new FileStream(At(path), FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
            using var content = new MemoryStream();
            var buffer = new byte[Math.Min(most, 64 * 1024)];
            int count;
            while (content.Length < most && (count = file.Read(buffer, 0, (int)Math.Min(buffer.Length, most - content.Length))) > 0)
            {
                content.Write(buffer, 0, count);
            }

            return content.ToArray();
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>When a file or folder was last changed; null where there is none.</summary>
    public DateTimeOffset? ChangedAt(string path) => Path.Exists(At(path)) ? new DateTimeOffset(File.GetLastWriteTimeUtc(At(path)), TimeSpan.Zero) : null;

    /// <summary>The names in a folder; none where there is none, or it can't be read.</summary>
    public IReadOnlyList<string> List(string path)
    {
        try
        {
            return Directory.Exists(At(path)) ? [.. Directory.EnumerateFileSystemEntries(At(path)).Select(entry => Path.GetFileName(entry)!)] : [];
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    /// <summary>The names in a folder that a path leads to through links.</summary>
    public string? Resolve(string path)
    {
        try
        {
            return new DirectoryInfo(At(path)) is { Exists: true } folder ? folder.ResolveLinkTarget(returnFinalTarget: true)?.FullName ?? folder.FullName : null;
        }
        catch (IOException)
        {
            return null;
        }
    }

    /// <summary>Whether systemd says that a unit is active; null where this host has no systemd.</summary>
    public bool? IsActive(string unit) => Exists("/run/systemd/units") ? Exists($"/run/systemd/units/invocation:{unit}") : null;

    /// <summary>What a program of the host says; null where there is none, it fails, or it takes too long.</summary>
    public async Task<string?> AskAsync(string program, IReadOnlyList<string> arguments, CancellationToken cancellationToken)
    {
        var path = ProgramFolders.Select(folder => At($"{folder}/{program}")).FirstOrDefault(File.Exists);
        if (path is null)
        {
            return null;
        }

        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(ProgramLimit);
        Process? process = null;
        try
        {
            process = Process.Start(new ProcessStartInfo(path, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true })!;
            process.StandardInput.Close();
            _ = process.StandardError.ReadToEndAsync(limit.Token);
            var answer = await BoundedText.ReadAsync(process.StandardOutput.BaseStream, LongestText, limit.Token).ConfigureAwait(false);
            await process.WaitForExitAsync(limit.Token).ConfigureAwait(false);
            return process.ExitCode == 0 ? answer : null;
        }
        catch (Exception exception) when (exception is Win32Exception or IOException)
        {
            return null;
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            process?.Kill(entireProcessTree: true);
            return null;
        }
        finally
        {
            process?.Dispose();
        }
    }
}

/// <summary>Text of a program, of which no more is taken than is wanted.</summary>
internal static class BoundedText
{
    /// <summary>Reads to the end, or until there is as much as is wanted; what is more is read and dropped, so that the program does not wait for its reader.</summary>
    public static async Task<string> ReadAsync(Stream stream, int most, CancellationToken cancellationToken)
    {
        var (kept, buffer) = (new MemoryStream(), new byte[8192]);
        int count;
        while ((count = await stream.ReadAsync(buffer, cancellationToken).ConfigureAwait(false)) > 0)
        {
            kept.Write(buffer, 0, (int)Math.Min(count, most - kept.Length));
        }

        return Encoding.UTF8.GetString(kept.ToArray());
    }
}
