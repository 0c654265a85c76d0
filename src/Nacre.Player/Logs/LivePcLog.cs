using System.Diagnostics;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Player.Leases;
using Nacre.Player.LivePcs;
using Nacre.Policies;

namespace Nacre.Player.Logs;

/// <summary>
/// The log of a LivePC on this device: a <see cref="LogLine"/> as JSON in each line of a file in its folder, which only its user can read, and the file before that one. A line
/// has the first line of what is said: what follows may be the guest's console. Several processes may write; what can't be written is left out, and keeps nobody from anything.
/// </summary>
/// <param name="folder">The LivePC.</param>
/// <param name="level">The least that is written down, as the policy says now.</param>
/// <param name="time">The clock.</param>
internal sealed class LivePcLog(LivePcFolder folder, Func<EventLevel> level, TimeProvider time)
{
    /// <summary>The event that an administrator asked for the log.</summary>
    public const string Asked = "log.asked";

    /// <summary>Bytes of a file; there are two at most.</summary>
    public const int LongestFile = 128 * 1024;

    /// <summary>The errno of a file that another process has locked.</summary>
    private const int WouldBlock = 11;

    /// <summary>How long another process may have the file.</summary>
    private static readonly TimeSpan LongestWait = TimeSpan.FromSeconds(2);

    private string Former => folder.EventLog + ".1";

    /// <summary>The level of the policy of the lease that is kept; the factory's where there is none.</summary>
    public static EventLevel KeptLevel(PlayerPaths paths, LivePcFolder folder) => OpenedLease.ReadKeptPolicy(folder, paths).Get(Settings.LogsEventLevel);

    /// <summary>Writes an event down, where the policy wants it.</summary>
    public void Write(EventLevel matters, string name, string untrustedText)
    {
        if (matters <= level())
        {
            Append(matters, name, untrustedText);
        }
    }

    /// <summary>Writes down that the log was asked for, whatever the policy says. Once for each order.</summary>
    public void WriteAsked(DeviceOrderClaims order)
    {
        var number = $"order {order.Id}: ";
        if (!Read().Any(line => line.Event == Asked && line.Text.StartsWith(number, StringComparison.Ordinal)))
        {
            Append(EventLevel.Warning, Asked, number + WordsOf(order));
        }
    }

    /// <summary>For the user: who asks for the log, and why.</summary>
    public static string WordsOf(DeviceOrderClaims order) => $"{order.OrderedBy} asked for this log {(order.Reason is { } reason ? $"because: {reason}" : "and gave no reason")}";

    /// <summary>When the log was asked for last, by whom and why; null: not as far as it goes back.</summary>
    public string? LastAsked() => Read().LastOrDefault(line => line.Event == Asked) is { } last ? $"on {last.Time:yyyy-MM-dd HH:mm} UTC, {last.Text}" : null;

    /// <summary>All that there is, the oldest first; lines that are none are left out.</summary>
    public IReadOnlyList<LogLine> Read() => [.. new[] { Former, folder.EventLog }.SelectMany(ReadFile)];

    private IEnumerable<LogLine> ReadFile(string path)
    {
        byte[] bytes;
        try
        {
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            file.Position = Math.Max(0, file.Length - (2 * LongestFile)); // whoever made it longer
            using var memory = new MemoryStream();
            file.CopyTo(memory);
            bytes = memory.ToArray();
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            yield break;
        }

        for (var rest = bytes.AsMemory(); rest.Length > 0;)
        {
            var end = rest.Span.IndexOf((byte)'\n');
            if (Jws.TryRead<LogLine>(end < 0 ? rest.Span : rest.Span[..end], out var line) && LogLine.IsValid(line) && line.LivePc == folder.Name)
            {
                yield return line;
            }

            rest = end < 0 ? default : rest[(end + 1)..];
        }
    }

    private void Append(EventLevel matters, string name, string untrustedText)
    {
        byte[] line = [.. JsonSerializer.SerializeToUtf8Bytes(LogLine.Of(time.GetUtcNow(), folder.Name, matters, name, untrustedText), ContractJson.Options), (byte)'\n'];
        for (var (waiting, since) = (default(SpinWait), Stopwatch.StartNew()); ; waiting.SpinOnce())
        {
            try
            {
                using var file = new FileStream(folder.EventLog, new FileStreamOptions
                {
                    Mode = FileMode.OpenOrCreate,
                    Access = FileAccess.ReadWrite,
                    Share = FileShare.None, // one writer at a time, of all processes
                    BufferSize = 0,
                    UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
                });
                if (file.Length + line.Length > LongestFile && new FileInfo(folder.EventLog).Length == file.Length)
                {
                    File.Move(folder.EventLog, Former, overwrite: true);
                    continue;
                }

                // After a line that a loss of power cut off, a new one begins.
                file.Seek(-Math.Min(1, file.Length), SeekOrigin.End);
                file.Write(file.Length > 0 && file.ReadByte() != '\n' ? [(byte)'\n', .. line] : line);
                return;
            }
            catch (IOException exception) when ((exception.HResult & 0xFFFF) == WouldBlock && since.Elapsed < LongestWait)
            {
                // Another process has it.
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                return; // a full disk, or a folder that is gone
            }
        }
    }
}
