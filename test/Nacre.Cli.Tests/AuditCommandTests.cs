using System.Text;
using System.Text.RegularExpressions;
using CsCheck;
using Nacre.Contracts;
using Nacre.Server;
using Nacre.Testing;
using Xunit;

namespace Nacre.Cli.Tests;

/// <summary>The audit log of a real server, listed, exported, and verified without it.</summary>
public sealed partial class AuditCommandTests : IDisposable
{
    private readonly TemporaryDirectory folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task An_export_is_verified_without_a_server_and_a_later_one_continues_it()
    {
        await using var server = await ServeAsync();
        await DoneAsync("user", "add", "ann");
        Assert.NotEqual(0, (await NacreProgram.RunAsync(folder, "user", "add", "Bad_Name")).Code);
        var listed = await NacreProgram.JsonAsync(folder, "audit", "list");
        Assert.Equal(3, listed.GetArrayLength());
        Assert.Equal(("request", "refused", "127.0.0.1"), (listed[2].GetProperty("action").GetString(), listed[2].GetProperty("result").GetString(), listed[2].GetProperty("source").GetString()));
        var some = await DoneAsync("audit", "list", "--action", "user.create", "--actor", "administrator", "--since", "2020-01-01");
        Assert.Equal(2, some.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.Contains("user.create", some, StringComparison.Ordinal);

        await DoneAsync("audit", "export", "--format", "jsonl", "--output", folder["first.jsonl"]);
        var head = (await DoneAsync("audit", "verify", folder["first.jsonl"])).Trim().Split(' ');
        Assert.Equal(("3", listed[2].GetProperty("hash").GetString()), (head[0], head[1]));
        await DoneAsync("user", "add", "bob");
        await DoneAsync("audit", "export", "--format", "jsonl", "--output", folder["second.jsonl"]);
        await DoneAsync("audit", "export", "--format", "jsonl", "--output", folder["rest.jsonl"], "--after", "3");
        Assert.StartsWith("4 ", await DoneAsync("audit", "verify", folder["second.jsonl"], "--head", head[1]), StringComparison.Ordinal);
        Assert.StartsWith("4 ", await DoneAsync("audit", "verify", folder["rest.jsonl"], "--head", head[1]), StringComparison.Ordinal);
        Assert.StartsWith(File.ReadAllText(folder["first.jsonl"]), File.ReadAllText(folder["second.jsonl"]), StringComparison.Ordinal);
        var fourth = (await NacreProgram.JsonAsync(folder, "audit", "verify", folder["second.jsonl"])).GetProperty("hash").GetString()!;

        // Cut off, or begun in the middle without what was before.
        await RefusedAsync("the noted line is not in the file", "audit", "verify", folder["first.jsonl"], "--head", fourth);
        await RefusedAsync("begins with number 4", "audit", "verify", folder["rest.jsonl"]);
        await RefusedAsync("does not follow", "audit", "verify", folder["rest.jsonl"], "--head", fourth);
        File.WriteAllText(folder["empty.jsonl"], "");
        await RefusedAsync("empty", "audit", "verify", folder["empty.jsonl"]);

        // An older export stays, and what failed leaves nothing.
        var (code, _, error) = await NacreProgram.RunAsync(folder, "audit", "export", "--format", "jsonl", "--output", folder["first.jsonl"]);
        Assert.Equal((int)ErrorCatalogue.AlreadyExists.ExitCode, code);
        Assert.Contains("first.jsonl", error, StringComparison.Ordinal);
        Assert.Equal((int)ExitCode.Usage, (await NacreProgram.RunAsync(folder, "audit", "verify", folder["first.jsonl"], "--head", "abc")).Code);
        Assert.Empty(Directory.GetFiles(folder.Path, "*.partial"));
    }

    [Fact]
    public async Task An_export_that_follows_goes_on_with_what_is_done_until_it_is_ended()
    {
        await using var server = await ServeAsync();
        using var process = NacreProgram.Start(folder, "audit", "export", "--format", "syslog", "--follow");
        var first = await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken);
        await DoneAsync("user", "add", "ann");
        var second = await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken);
        Assert.Matches(Rfc5424(), first);
        Assert.Matches(Rfc5424(), second);
        Assert.Contains("127.0.0.1 nacre - user.create [nacre@32473 format=\"2\" sequence=\"2\" actor=\"administrator\" source=\"127.0.0.1\" action=\"user.create\" subject=\"ann\"", second, StringComparison.Ordinal);
        NacreProgram.Signal(process, NacreProgram.Interrupt);
        var (code, rest, error) = await NacreProgram.EndAsync(process);
        Assert.True(code == 0 && rest.Length == 0, error);
    }

    [Fact]
    public async Task Every_flipped_bit_every_missing_line_and_every_other_order_is_noticed()
    {
        var lines = Lines(4);
        var file = Encoding.UTF8.GetBytes(string.Concat(lines.Select(line => line + "\n")));
        Assert.Equal(4, (await VerifyAsync(file)).Sequence);
        for (var i = 0; i < file.Length * 8; i++)
        {
            file[i / 8] ^= (byte)(1 << (i % 8));
            await NotAuthenticAsync(file);
            file[i / 8] ^= (byte)(1 << (i % 8));
        }

        await NotAuthenticAsync(Bytes([lines[0], lines[2], lines[3]]), "line 2 of the file");
        await NotAuthenticAsync(Bytes([lines[1], lines[2], lines[3]]), "begins with number 2");
        await NotAuthenticAsync(Bytes([lines[0], lines[2], lines[1], lines[3]]), "line 2 of the file");
        await NotAuthenticAsync(Bytes([lines[0], lines[1], lines[1], lines[2], lines[3]]), "line 3 of the file");
        await NotAuthenticAsync(Bytes([lines[0], .. Lines(4, "eve")[1..]]), "line 2 of the file");
        await NotAuthenticAsync(Bytes([lines[0], lines[1].Replace(",\"hash\"", ", \"hash\"", StringComparison.Ordinal)]), "line 2 of the file");
        await NotAuthenticAsync([.. file, .. "{}\n"u8], "line 5 of the file");
    }

    [Theory]
    [InlineData("a\n<13>1 - forged", "a\\u000a<13>1 - forged")]
    [InlineData("a\r\nb\0c\u0085d\u2028e\x1b[2J", "a\\u000d\\u000ab\\u0000c\\u0085d\\u2028e\\u001b[2J")]
    [InlineData("\"] [x y=\"z\\", "\"] [x y=\"z\\")]
    public void A_field_of_a_syslog_line_ends_neither_itself_nor_the_line(string hostile, string shown)
    {
        var line = AuditSyslog.Format(new AuditEntry(2, 1, DateTimeOffset.UnixEpoch, hostile, hostile, hostile, hostile, AuditResult.Refused, hostile, hostile), hostile);
        var match = Rfc5424().Match(line);
        Assert.True(match.Success, line);
        Assert.StartsWith("<108>1 1970-01-01T00:00:00.000Z ", line, StringComparison.Ordinal);
        var values = match.Groups["value"].Captures.Select(capture => Escape().Replace(capture.Value, "$1")).ToList();
        Assert.Equal(["2", "1", shown, shown, shown, shown, "refused", shown, shown], values);
    }

    [Fact]
    public void Whatever_the_fields_hold_a_syslog_line_is_one_line_of_its_grammar() => Gen.String.Array[6].Sample(
        texts => Rfc5424().IsMatch(AuditSyslog.Format(new AuditEntry(2, 7, DateTimeOffset.UnixEpoch, texts[0], texts[1], texts[2], texts[3], AuditResult.Failed, texts[4], "ab"), texts[5])));

    [Fact]
    public async Task A_password_is_refused_on_the_command_line_and_never_said()
    {
        var (code, output, error) = await NacreProgram.RunAsync(folder, "server", "--data", folder["data"], "--postgres", "Host=x;Database=x;Password=canary-1");
        Assert.Equal((int)ExitCode.Usage, code);
        Assert.DoesNotContain("canary", output + error, StringComparison.Ordinal);
        File.WriteAllText(folder["postgres"], $"Host={folder.Path};Database=x;Username=x;Password=canary-2\n");
        (code, output, error) = await NacreProgram.RunAsync(folder, "server", "--data", folder["data"], "--postgres-file", folder["postgres"]);
        Assert.Equal((int)ErrorCatalogue.DatabaseUnreachable.ExitCode, code);
        Assert.Contains("PostgreSQL, 'x' at ", error, StringComparison.Ordinal);
        Assert.DoesNotContain("canary", output + error, StringComparison.Ordinal);
        Assert.Equal((int)ExitCode.Usage, (await NacreProgram.RunAsync(folder, "server", "--data", folder["data"], "--trusted-proxy", "somewhere")).Code);
    }

    private static List<string> Lines(int count, string who = "administrator")
    {
        var (lines, previous) = (new List<string>(), new byte[32]);
        for (var sequence = 1; sequence <= count; sequence++)
        {
            var format = sequence == 1 ? 1 : 2;
            var entry = new AuditEntry(
                format, sequence, DateTimeOffset.FromUnixTimeMilliseconds(1_700_000_000_000 + sequence), who, format == 1 ? null : "192.0.2.7", "user.create", "zoë \"x\"", format == 1 ? null : AuditResult.Done, "d", "");
            previous = AuditChain.HashOf(entry, previous)!;
            lines.Add(AuditFile.Format(entry with { Hash = Convert.ToHexStringLower(previous) }));
        }

        return lines;
    }

    private static byte[] Bytes(IEnumerable<string> lines) => Encoding.UTF8.GetBytes(string.Concat(lines.Select(line => line + "\n")));

    private static Task<AuditChain> VerifyAsync(byte[] file) => AuditFile.VerifyAsync(new MemoryStream(file), head: null, TestContext.Current.CancellationToken);

    private static async Task NotAuthenticAsync(byte[] file, string words = "")
    {
        var exception = await Assert.ThrowsAsync<NacreException>(() => VerifyAsync(file));
        Assert.Equal(ErrorCatalogue.AuditNotAuthentic, exception.Kind);
        Assert.Contains(words, exception.Message, StringComparison.Ordinal);
    }

    private async Task<Microsoft.AspNetCore.Builder.WebApplication> ServeAsync()
    {
        var server = NacreServer.Create(new ServerOptions { DataDirectory = folder["data"], Listen = "http://127.0.0.1:0" });
        await NacreServer.StartAsync(server);
        await DoneAsync("login", server.Urls.Single(), "--token-file", folder["data/admin-token"]);
        return server;
    }

    private async Task<string> DoneAsync(params string[] arguments)
    {
        var (code, output, error) = await NacreProgram.RunAsync(folder, arguments);
        Assert.True(code == 0, $"{string.Join(' ', arguments)} ended with {code}: {error}");
        return output;
    }

    private async Task RefusedAsync(string words, params string[] arguments)
    {
        var (code, _, error) = await NacreProgram.RunAsync(folder, arguments);
        Assert.Equal((int)ExitCode.NotAuthentic, code);
        Assert.Contains(words, error, StringComparison.Ordinal);
    }

    /// <summary>The grammar of RFC 5424 as far as these lines use it: nothing in them ends a line.</summary>
    [GeneratedRegex("""^<\d{1,3}>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [!-~]{1,255} nacre - [!-~]{1,32} \[nacre@32473( [a-z]+="(?<value>([^"\\\]\p{Cc}\u2028\u2029]|\\["\\\]])*)")+\] \uFEFF[^\p{Cc}\u2028\u2029]*$""")]
    private static partial Regex Rfc5424();

    [GeneratedRegex("""\\(["\\\]])""")]
    private static partial Regex Escape();
}
