using System.CommandLine;
using System.Globalization;
using System.Runtime.CompilerServices;
using Nacre.Client;
using Nacre.Contracts;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre audit</c>: what was done at the server, by whom, from where.</summary>
internal static class AuditCommands
{
    /// <summary>How often a server is asked for new lines.</summary>
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(2);

    public static Command Create() => new("audit", "What was done at the server, by whom, from where, and with what result (administrators)") { List(), Export(), Verify() };

    private static Option<long> After() => new("--after") { Description = "Only lines with a greater number" };

    private static Command List()
    {
        var after = After();
        var actor = new Option<string?>("--actor") { Description = "Only of this one, such as administrator:bob or device:ID" };
        var action = new Option<string?>("--action") { Description = "Only this, such as lease.grant or sign-in" };
        var since = new Option<string?>("--since") { Description = "Only from this time on, such as 2026-11-25 or 2026-11-25T14:30Z" };
        var command = new Command("list", "Show the audit log, oldest first; ends with 5 where a line was changed or is missing") { after, actor, action, since };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var from = parsed.GetValue(since) is { } text ? Time(text) : (DateTimeOffset?)null;
            var (entries, wrong) = (new List<AuditEntry>(), (long?)null);
            await foreach (var page in PagesAsync(
                (last, token) => client.GetAuditAsync(last, actor: parsed.GetValue(actor), action: parsed.GetValue(action), since: from, cancellationToken: token), parsed.GetValue(after), cancellationToken))
            {
                entries.AddRange(page.Entries);
                wrong ??= page.FirstWrongSequence;
            }

            Terminal.Result(entries, () => Terminal.Table(["NUMBER", "TIME", "ACTOR", "FROM", "ACTION", "SUBJECT", "RESULT", "DETAIL"], entries.Select(entry => new[]
            {
                entry.Sequence.ToString(CultureInfo.InvariantCulture), entry.At.ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture), Terminal.Printable(entry.Actor), entry.Source ?? "-",
                Terminal.Printable(entry.Action), Terminal.Printable(entry.Subject), AuditSyslog.Result(entry) ?? "-", Terminal.Printable(entry.Detail),
            })));
            Hold(wrong);
        });
        return command;
    }

    private static Command Export()
    {
        var format = new Option<string>("--format") { Description = "jsonl ('nacre audit verify' reads it) or syslog (RFC 5424)", Required = true };
        format.AcceptOnlyFromAmong("jsonl", "syslog");
        var output = new Option<string?>("--output") { Description = "A new file (default: standard output)" };
        var follow = new Option<bool>("--follow") { Description = "Go on with what is done from now on, until Ctrl-C" };
        var after = After();
        var command = new Command("export", "Write the audit log out, line by line; ends with 5 where a line was changed or is missing") { format, output, follow, after };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            Func<AuditEntry, string> write = parsed.GetValue(format) == "jsonl" ? AuditFile.Format : entry => AuditSyslog.Format(entry, client.Server.Host);
            var path = parsed.GetValue(output);
            if (path is null)
            {
                Hold(await ExportAsync(client, Console.Out, write, parsed.GetValue(after), parsed.GetValue(follow), cancellationToken));
                return;
            }

            var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, Share = FileShare.Read };
            if (!OperatingSystem.IsWindows())
            {
                options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
            }

            if (File.Exists(path))
            {
                throw new NacreException(ErrorCatalogue.AlreadyExists, $"there is a file '{path}' already, and an export is not to go over an older one");
            }

            // What follows is there line by line; what ends is there whole, or not at all.
            var partial = parsed.GetValue(follow) ? path : $"{path}.partial";
            long? wrong;
            try
            {
                await using var writer = new StreamWriter(partial, options);
                wrong = await ExportAsync(client, writer, write, parsed.GetValue(after), parsed.GetValue(follow), cancellationToken);
            }
            catch when (partial != path)
            {
                File.Delete(partial);
                throw;
            }

            if (partial != path)
            {
                File.Move(partial, path);
            }

            Hold(wrong);
        });
        return command;
    }

    private static Command Verify()
    {
        var file = new Argument<string>("FILE") { Description = "What 'nacre audit export --format jsonl' wrote; - for standard input" };
        var head = new Option<string?>("--head") { Description = "The hash of a line that was noted earlier: the file must continue it" };
        var command = new Command("verify", "Verify an exported audit log without a server, and print its head; ends with 5 and names the first line that is wrong") { file, head };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var noted = parsed.GetValue(head)?.Trim().ToLowerInvariant();
            if (noted is not null && (noted.Length != 64 || !noted.All(char.IsAsciiHexDigitLower)))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "--head is a hash: 64 hexadecimal digits, as 'nacre audit verify' printed them");
            }

            var path = parsed.GetValue(file)!;
            await using var stream = path == "-" ? Console.OpenStandardInput() : File.OpenRead(path);
            var chain = await AuditFile.VerifyAsync(stream, noted, cancellationToken);
            Terminal.Result(new { chain.Sequence, Hash = chain.Head }, () => Terminal.Line(string.Create(CultureInfo.InvariantCulture, $"{chain.Sequence} {chain.Head}")));
            Terminal.Note(string.Create(CultureInfo.InvariantCulture, $"the log holds up to number {chain.Sequence}; note its hash elsewhere, and give it with --head to the next 'nacre audit verify'"));
        });
        return command;
    }

    /// <returns>The first line that the server says is wrong; null: none.</returns>
    private static async Task<long?> ExportAsync(NacreClient client, TextWriter writer, Func<AuditEntry, string> format, long after, bool follow, CancellationToken cancellationToken)
    {
        var (last, wrong) = (after, (long?)null);
        while (true)
        {
            try
            {
                await foreach (var page in PagesAsync((from, token) => client.GetAuditAsync(from, cancellationToken: token), last, cancellationToken))
                {
                    foreach (var entry in page.Entries)
                    {
                        await writer.WriteAsync($"{format(entry)}\n");
                        last = entry.Sequence;
                    }

                    await writer.FlushAsync(cancellationToken);
                    wrong ??= page.FirstWrongSequence;
                }
            }
            catch (NacreException exception) when (follow && exception.Kind.ExitCode == ExitCode.Unreachable)
            {
                Terminal.Note($"{exception.Message}; asking again");
            }
            catch (OperationCanceledException) when (follow)
            {
                return wrong;
            }

            if (!follow || wrong is not null)
            {
                return wrong;
            }

            await Task.Delay(Pause, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private static async IAsyncEnumerable<AuditLog> PagesAsync(
        Func<long, CancellationToken, Task<AuditLog>> read, long after, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        while (true)
        {
            var page = await read(after, cancellationToken);
            yield return page;
            if (page.Entries.Count == 0)
            {
                yield break;
            }

            after = page.Entries[^1].Sequence;
        }
    }

    private static void Hold(long? wrong)
    {
        if (wrong is not null)
        {
            throw new NacreException(ErrorCatalogue.AuditNotAuthentic, string.Create(CultureInfo.InvariantCulture, $"number {wrong} of the audit log was changed or is gone at the server"));
        }
    }

    private static DateTimeOffset Time(string untrusted) =>
        DateTimeOffset.TryParse(untrusted, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out var time)
            ? time
            : throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{untrusted}' is not a time such as 2026-11-25 or 2026-11-25T14:30Z");
}
