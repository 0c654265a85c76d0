using System.Text.Json;
using Nacre.Contracts;
using Nacre.Player.LivePcs;
using Nacre.Player.Logs;
using Nacre.Policies;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>The log of a LivePC: what is in it, who reads it, and what nobody puts into it.</summary>
[Collection("NACRE_HOME")]
public sealed class LivePcLogTests : IDisposable
{
    private readonly Office office = new();
    private readonly ManualTime time = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string File1 => office.Folder.EventLog;

    private string File2 => office.Folder.EventLog + ".1";

    public void Dispose() => office.Dispose();

    [Theory]
    [InlineData(EventLevel.None)]
    [InlineData(EventLevel.Error)]
    [InlineData(EventLevel.Warning)]
    [InlineData(EventLevel.Information)]
    [InlineData(EventLevel.Debug)]
    public async Task It_has_the_events_of_the_policys_level_and_only_its_user_reads_them(EventLevel level)
    {
        var log = Log(level);
        EventLevel[] all = [EventLevel.Error, EventLevel.Warning, EventLevel.Information, EventLevel.Debug];
        foreach (var one in all)
        {
            log.Write(one, "test", $"{one}");
        }

        Assert.Equal(all.Where(one => one <= level), log.Read().Select(line => line.Level));
        Assert.Equal(level != EventLevel.None, File.Exists(File1));
        if (level != EventLevel.None)
        {
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(File1));
            Assert.Equal("""{"time":"2026-11-28T00:00:00+00:00","livePc":"office","level":"error","event":"test","text":"Error"}""", (await File.ReadAllLinesAsync(File1, Token))[0]);
        }
    }

    [Fact]
    public void That_it_was_asked_for_is_written_whatever_the_level_and_once()
    {
        var log = Log(EventLevel.None);
        Assert.Null(log.LastAsked());
        DeviceOrderClaims Order(string id, string? reason) => new("device-1", id, DeviceAct.Logs, "office", KillMode.Both, WipeScope.All, 0, 0, "kim", reason);
        log.WriteAsked(Order("0123456789abcdef", "it does not start"));
        log.WriteAsked(Order("0123456789abcdef", "it does not start"));
        Assert.Equal("on 2026-11-28 00:00 UTC, order 0123456789abcdef: kim asked for this log because: it does not start", log.LastAsked());
        Assert.Single(log.Read());
        log.WriteAsked(Order("0123456789abcde0", null));
        Assert.EndsWith("kim asked for this log and gave no reason", log.LastAsked(), StringComparison.Ordinal);
        log.WriteAsked(Order("0123456789abcde1", "\u001b[2J\u202egnp\n{}"));
        Assert.EndsWith("because: [2Jgnp", log.LastAsked(), StringComparison.Ordinal);
    }

    [Fact]
    public void It_grows_to_two_files_of_a_bounded_size_and_has_the_newest_events()
    {
        var log = Log(EventLevel.Debug);
        for (var i = 0; i < 800; i++)
        {
            log.Write(EventLevel.Debug, "test", $"{i} {new string('x', 2000)}");
        }

        Assert.InRange(new FileInfo(File1).Length, 1, LivePcLog.LongestFile);
        Assert.InRange(new FileInfo(File2).Length, LivePcLog.LongestFile - 2000, LivePcLog.LongestFile);
        var lines = log.Read();
        Assert.All(lines, line => Assert.Equal(LogLine.LongestText, line.Text.Length));
        var first = 800 - lines.Count;
        Assert.InRange(first, 400, 700);
        Assert.Equal(Enumerable.Range(first, lines.Count), lines.Select(line => int.Parse(line.Text.Split(' ')[0], null)));
        Assert.Equal(["log", "log.1"], Directory.GetFiles(office.Folder.Root, "log*").Select(Path.GetFileName).Order());
    }

    [Fact]
    public async Task Several_may_write_at_once_and_none_of_them_loses_anything()
    {
        await Task.WhenAll(Enumerable.Range(0, 4).Select(writer => Task.Run(() =>
        {
            var log = Log(EventLevel.Debug);
            for (var i = 0; i < 100; i++)
            {
                log.Write(EventLevel.Debug, "test", $"{writer} {i} {new string('x', 400)}");
            }
        }, Token)));
        var lines = Log(EventLevel.Debug).Read();
        Assert.True(File.Exists(File2)); // also while it is rotated
        Assert.All(lines.GroupBy(line => line.Text[0]), own => Assert.Equal(own.Select(line => line.Text), own.Select(line => line.Text).OrderBy(text => int.Parse(text.Split(' ')[1], null))));
        Assert.Equal(400, lines.Select(line => line.Text).Distinct().Count());
    }

    [Theory]
    [InlineData("the guest ended\n  Linux version 6.12 canary\n", "the guest ended")] // later lines are the guest's console
    [InlineData("a\u001b[31mb\u0007\r", "a[31mb")]
    [InlineData("x\"}\n{\"time\":\"2026-01-01T00:00:00Z\",\"livePc\":\"office\",\"level\":\"error\",\"event\":\"forged\",\"text\":\"x\"}", "x\"}")]
    [InlineData("\u202egnp.exe\u2028second\u0085third", "gnp.exesecondthird")]
    [InlineData("\ud800 lone", "lone")]
    [InlineData("\u001b", "-")]
    [InlineData("Grüezi, 你好", "Grüezi, 你好")]
    public async Task What_others_say_moves_no_terminal_and_forges_no_line(string said, string written)
    {
        var log = Log(EventLevel.Debug);
        log.Write(EventLevel.Warning, "test", said);
        Assert.Equal(("test", written), Assert.Single(log.Read().Select(line => (line.Event, line.Text))));
        Assert.DoesNotContain("canary", await File.ReadAllTextAsync(File1, Token), StringComparison.Ordinal);
        Assert.Single(await File.ReadAllLinesAsync(File1, Token));
    }

    [Fact]
    public async Task Lines_that_are_none_are_left_out_and_a_new_one_begins_after_a_torn_one()
    {
        var log = Log(EventLevel.Debug);
        log.Write(EventLevel.Debug, "test", "before");
        await File.AppendAllTextAsync(File1, """
            {"time":"2026-11-28T00:00:00+00:00","livePc":"office","level":"fatal","event":"test","text":"x"}
            {"time":"2026-11-28T00:00:00+00:00","livePc":"other","level":"error","event":"test","text":"x"}
            {"time":"2026-11-28T00:00:00+00:00","livePc":"office","level":"error","event":"test","text":"\u001b[2J"}
            {"time":"2026-11-28T00:00:00+00:00","livePc":"office","level":"error","event":"test"}
            null
            {"time":"2026-11-28T00:0
            """, Token);
        log.Write(EventLevel.Debug, "test", "after");
        Assert.Equal(["before", "after"], log.Read().Select(line => line.Text));

        // Whoever made it long makes nobody read it all; the next event puts it away.
        await using (var file = new FileStream(File1, FileMode.Append))
        {
            file.SetLength(200L * 1024 * 1024);
        }

        Assert.Empty(log.Read());
        log.Write(EventLevel.Debug, "test", "again");
        Assert.Equal("again", log.Read()[^1].Text);
        Assert.InRange(new FileInfo(File1).Length, 1, 1000);
    }

    [Fact]
    public void A_folder_that_is_gone_gets_none_and_what_can_not_be_written_is_left_out()
    {
        var log = Log(EventLevel.Debug);
        Directory.Delete(office.Folder.Root, recursive: true);
        log.Write(EventLevel.Error, "test", "after a kill");
        Assert.False(Path.Exists(office.Folder.Root));
        Assert.Empty(log.Read());
        Assert.Equal(ErrorCatalogue.NotFound, Assert.Throws<NacreException>(() => new LivePcPlayer(office.Paths, null, time).ReadLog("office")).Kind);
        office.Folder.Create();
        Directory.CreateDirectory(File1);
        log.Write(EventLevel.Error, "test", "no file");
        Assert.Empty(log.Read());
    }

    [Fact]
    public void One_answer_has_as_many_of_the_newest_lines_as_it_has_room_for()
    {
        var lines = Enumerable.Range(0, 1000).Select(i => LogLine.Of(time.GetUtcNow(), "office", EventLevel.Debug, "test", $"{i} {new string('ü', 999)}")).ToList();
        var newest = LogSender.Newest(lines);
        var bytes = newest.Sum(line => JsonSerializer.SerializeToUtf8Bytes(line, ContractJson.Options).Length + 1);
        Assert.InRange(bytes, SendLog.LongestLines - 7000, SendLog.LongestLines);
        Assert.Equal(lines[^newest.Count..], newest);
        Assert.InRange(JsonSerializer.SerializeToUtf8Bytes(new SendLog(newest), ContractJson.Options).Length, bytes, SendLog.LongestBody);
        Assert.Empty(LogSender.Newest([]));
        Assert.Equal(lines[..3], LogSender.Newest(lines[..3]));
    }

    private LivePcLog Log(EventLevel level) => new(office.Folder, () => level, time);
}
