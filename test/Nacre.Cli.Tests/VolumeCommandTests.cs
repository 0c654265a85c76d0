using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.RegularExpressions;
using Nacre.Cli.Commands;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.Cli.Tests;

/// <summary>Every verb of <c>nacre volume</c> by the real program, with NBD clients that nobody here wrote.</summary>
public sealed partial class VolumeCommandTests : IAsyncDisposable
{
    private const int Block = 4096;
    private const int Size = 8 << 20;
    private const int SlotSize = 4128;

    private readonly TemporaryDirectory folder = new();
    private readonly List<Process> started = [];

    public VolumeCommandTests()
    {
        File.WriteAllBytes(folder["key"], RandomNumberGenerator.GetBytes(32));
        File.WriteAllBytes(folder["other-key"], RandomNumberGenerator.GetBytes(32));
    }

    private string Volume => folder["volume"];

    private string Key => folder["key"];

    public async ValueTask DisposeAsync()
    {
        foreach (var process in started)
        {
            if (!process.HasExited)
            {
                process.Kill();
                await process.WaitForExitAsync();
            }

            process.Dispose();
        }

        folder.Dispose();
    }

    [Theory]
    [InlineData(NacreProgram.Terminate)]
    [InlineData(NacreProgram.Interrupt)]
    public async Task Serve_takes_connections_once_it_says_where_and_keeps_everything_when_a_signal_ends_it(int signal)
    {
        await SucceedAsync("create", Volume, "-k", Key, "--size", "8M");
        var (process, uri) = await ServeAsync(Volume);
        Assert.Equal($"nbd+unix:///volume?socket={folder["nbd"]}", uri);
        Assert.Contains($"export-size: {Size}", await ToolAsync("nbdinfo", uri), StringComparison.Ordinal);
        await ToolAsync("qemu-io", "-f", "raw", "-c", "write -P 0x5a 64k 1M", "-c", "read -P 0x5a 64k 1M", "-c", "read -P 0 0 64k", uri);
        NacreProgram.Signal(process, signal);
        var (code, _, error) = await NacreProgram.EndAsync(process);
        Assert.Equal(0, code);
        Assert.DoesNotContain("error", error, StringComparison.Ordinal);
        Assert.False(File.Exists(folder["nbd"]), "the socket is left");

        // Closed, not only left: a checkpoint says so.
        Assert.Single(Directory.GetFiles(Volume, "checkpoint-*"));
        var content = await ExportAsync(Volume);
        Assert.Equal([.. new byte[64 << 10], .. Enumerable.Repeat((byte)0x5a, 1 << 20), .. new byte[Size - (1 << 20) - (64 << 10)]], content);
    }

    [Fact]
    public async Task Serve_is_killed_and_what_was_answered_is_there()
    {
        await SucceedAsync("create", Volume, "-k", Key, "--size", "8M");
        var (process, uri) = await ServeAsync(Volume);
        await ToolAsync("qemu-io", "-f", "raw", "-c", "write -P 0x77 0 1M", uri);
        process.Kill();
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.Equal(Enumerable.Repeat((byte)0x77, 1 << 20), (await ExportAsync(Volume)).Take(1 << 20));

        // The socket that it left behind is replaced.
        await StopAsync((await ServeAsync(Volume)).Process);
    }

    [Fact]
    public async Task Volume_that_is_served_is_busy_for_every_other_verb()
    {
        await SucceedAsync("create", Volume, "-k", Key, "--size", "8M");
        var (process, _) = await ServeAsync(Volume);
        string[][] others =
        [
            ["serve", Volume, "--socket", folder["nbd2"]], ["serve", Volume, "--socket", folder["nbd2"], "--read-only"], ["create", Volume, "--size", "4M"],
            ["stat", Volume], ["snapshot", Volume, "x"], ["export", Volume, folder["out"]], ["compact", Volume], ["verify", Volume],
        ];
        foreach (var other in others)
        {
            await FailAsync(ErrorCatalogue.VolumeBusy, [.. other, "-k", Key]);
        }

        Assert.False(File.Exists(folder["nbd2"]));
        Assert.False(File.Exists(folder["out"]));
        await StopAsync(process);
        await SucceedAsync("verify", Volume, "-k", Key);
    }

    [Fact]
    public async Task Several_may_serve_one_volume_for_reading_and_none_of_them_writes()
    {
        await PatternAsync(0x33);
        var (first, firstUri) = await ServeAsync(Volume, ["--read-only"]);
        var (second, secondUri) = await ServeAsync(Volume, ["-r"], socket: "nbd2");
        foreach (var uri in new[] { firstUri, secondUri })
        {
            await ToolAsync("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x33 0 1M", uri);
            Assert.Contains("is_read_only: true", await ToolAsync("nbdinfo", uri), StringComparison.Ordinal);
        }

        Assert.Equal(Size, (await JsonAsync("stat", Volume, "-k", Key)).GetProperty("size").GetInt64());
        await FailAsync(ErrorCatalogue.VolumeBusy, "snapshot", Volume, "x", "-k", Key);
        await StopAsync(first);
        await StopAsync(second);
    }

    [Fact]
    public async Task Serve_takes_no_name_of_a_file_or_of_another_server()
    {
        await SucceedAsync("create", Volume, "-k", Key, "--size", "8M");
        await SucceedAsync("create", folder["second"], "-k", Key, "--size", "8M");
        await File.WriteAllTextAsync(folder["letter"], "dear reader", TestContext.Current.CancellationToken);
        await FailAsync(ErrorCatalogue.FileAccess, "serve", Volume, "-k", Key, "--socket", folder["letter"]);
        Assert.Equal("dear reader", await File.ReadAllTextAsync(folder["letter"], TestContext.Current.CancellationToken));
        await FailAsync(ErrorCatalogue.FileAccess, "serve", Volume, "-k", Key, "--socket", folder["no/such/folder"]);
        await FailAsync(ErrorCatalogue.FileAccess, "serve", Volume, "-k", Key, "--socket", folder[new string('x', 120)]);
        var (process, uri) = await ServeAsync(Volume);
        await FailAsync(ErrorCatalogue.FileAccess, "serve", folder["second"], "-k", Key, "--socket", folder["nbd"]);
        await ToolAsync("qemu-io", "-f", "raw", "-c", "read -P 0 0 4k", uri);
        await StopAsync(process);
    }

    [Fact]
    public async Task Serve_says_in_json_where_and_the_address_is_one_for_any_path()
    {
        await SucceedAsync("create", Volume, "-k", Key, "--size", "8M");
        var process = NacreProgram.Start(folder, "volume", "serve", Volume, "-k", Key, "--socket", folder["a b&c"], "--json");
        started.Add(process);
        var text = "";
        while (!text.EndsWith('}'))
        {
            text += await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken);
        }

        var json = JsonDocument.Parse(text).RootElement;
        Assert.Equal(folder["a b&c"], json.GetProperty("socket").GetString());
        Assert.Contains("export-size", await ToolAsync("nbdinfo", json.GetProperty("uri").GetString()!), StringComparison.Ordinal);
        await StopAsync(process);
    }

    [Fact]
    public async Task Snapshot_is_served_and_exported_as_it_was_and_only_for_reading()
    {
        await PatternAsync(0x11);
        var taken = await JsonAsync("snapshot", Volume, "monday", "-k", Key);
        Assert.Equal("monday", taken.GetProperty("name").GetString());
        await PatternAsync(0x22, create: false);
        var (process, uri) = await ServeAsync(Volume, ["--snapshot", "monday"]);
        await ToolAsync("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x11 0 1M", uri);
        Assert.Contains("is_read_only: true", await ToolAsync("nbdinfo", uri), StringComparison.Ordinal);
        await StopAsync(process);
        Assert.Equal(0x11, (await ExportAsync(Volume, ["--snapshot", "monday"]))[0]);
        Assert.Equal(0x22, (await ExportAsync(Volume))[0]);
        await FailAsync(ErrorCatalogue.SnapshotName, "serve", Volume, "-k", Key, "--socket", folder["nbd"], "--snapshot", "tuesday");
        await FailAsync(ErrorCatalogue.SnapshotName, "export", Volume, folder["out"], "-k", Key, "--snapshot", "tuesday");
        Assert.False(File.Exists(folder["out"]));
    }

    [Fact]
    public async Task Stat_and_map_say_what_is_there()
    {
        await PatternAsync(0x11);
        await SucceedAsync("snapshot", Volume, "monday", "-k", Key);
        var stat = await JsonAsync("stat", Volume, "-k", Key);
        Assert.Equal(Size, stat.GetProperty("size").GetInt64());
        Assert.Equal(1 << 20, stat.GetProperty("liveBytes").GetInt64());
        Assert.Equal("monday", stat.GetProperty("snapshots")[0].GetProperty("name").GetString());
        Assert.True(stat.GetProperty("anchor").GetProperty("position").GetInt64() > 256);
        Assert.True(stat.GetProperty("storedBytes").GetInt64() > 1 << 20);
        var words = await SucceedAsync("stat", Volume, "-k", Key);
        Assert.Contains("size       8.4 MB", words, StringComparison.Ordinal);
        Assert.Contains("monday", words, StringComparison.Ordinal);

        var map = await JsonAsync("map", Volume, "-k", Key);
        Assert.Equal(
            [(0, 1 << 20, true), (1 << 20, Size - (1 << 20), false)],
            map.EnumerateArray().Select(extent => (extent.GetProperty("start").GetInt64(), extent.GetProperty("length").GetInt64(), extent.GetProperty("data").GetBoolean())));
        Assert.Equal("START    LENGTH   DATA\n0        1048576  yes\n1048576  7340032  no\n", await SucceedAsync("map", Volume, "-k", Key, "--snapshot", "monday"));
    }

    [Fact]
    public async Task Rollback_keeps_what_was_so_that_it_can_be_undone()
    {
        await PatternAsync(0x11);
        await SucceedAsync("snapshot", Volume, "monday", "-k", Key);
        await PatternAsync(0x22, create: false);
        var rolled = await JsonAsync("rollback", Volume, "monday", "-k", Key);
        var kept = rolled.GetProperty("kept").GetString()!;
        Assert.Equal(0x11, (await ExportAsync(Volume))[0]);
        Assert.Contains("kept as '", await SucceedAsync("rollback", Volume, kept, "-k", Key), StringComparison.Ordinal);
        Assert.Equal(0x22, (await ExportAsync(Volume))[0]);
        Assert.Equal(3, (await SnapshotsAsync(Volume)).Length);
    }

    [Fact]
    public async Task Rollback_with_discard_keeps_nothing_else()
    {
        await PatternAsync(0x11);
        await SucceedAsync("snapshot", Volume, "monday", "-k", Key);
        await PatternAsync(0x22, create: false);
        Assert.Equal(JsonValueKind.Null, (await JsonAsync("rollback", Volume, "monday", "-k", Key, "--discard")).GetProperty("kept").ValueKind);
        Assert.Equal(["monday"], await SnapshotsAsync(Volume));
        Assert.Equal(0x11, (await ExportAsync(Volume))[0]);
        await FailAsync(ErrorCatalogue.SnapshotName, "rollback", Volume, "tuesday", "-k", Key);
        Assert.Equal(["monday"], await SnapshotsAsync(Volume));
    }

    [Fact]
    public async Task Snapshots_are_named_once_and_deleted_by_name()
    {
        await SucceedAsync("create", Volume, "-k", Key, "--size", "8M");
        await SucceedAsync("snapshot", Volume, "monday", "-k", Key);
        await FailAsync(ErrorCatalogue.SnapshotName, "snapshot", Volume, "monday", "-k", Key);
        foreach (var name in new[] { "", "a\nb", new string('x', 129) })
        {
            var (_, message) = await FailAsync(ErrorCatalogue.UsageInvalid, "snapshot", Volume, name, "-k", Key);
            Assert.DoesNotContain("Parameter", message, StringComparison.Ordinal);
        }

        Assert.Equal("monday", (await JsonAsync("delete-snapshot", Volume, "monday", "-k", Key)).GetProperty("deleted").GetString());
        Assert.Empty(await SnapshotsAsync(Volume));
        await FailAsync(ErrorCatalogue.SnapshotName, "delete-snapshot", Volume, "monday", "-k", Key);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Fork_has_a_key_of_its_own_and_neither_sees_what_the_other_writes(bool acrossFileSystems)
    {
        await PatternAsync(0x11);
        await SucceedAsync("snapshot", Volume, "monday", "-k", Key);
        await PatternAsync(0x22, create: false);
        using var memory = new TemporaryFolderInMemory();
        var fork = acrossFileSystems ? Path.Combine(memory.Path, "fork") : folder["fork"];
        Assert.Equal(fork, (await JsonAsync("fork", Volume, fork, "-k", Key, "--new-key", folder["other-key"])).GetProperty("fork").GetString());
        await FailAsync(ErrorCatalogue.VolumeKeyWrong, "stat", fork, "-k", Key);
        Assert.Equal(0x22, (await ExportAsync(fork, key: "other-key"))[0]);

        await PatternAsync(0x33, create: false);
        await PatternAsync(0x44, create: false, volume: fork, key: "other-key");
        await SucceedAsync("compact", Volume, "-k", Key);
        await SucceedAsync("compact", fork, "-k", folder["other-key"]);
        Assert.Equal(0x33, (await ExportAsync(Volume))[0]);
        Assert.Equal(0x44, (await ExportAsync(fork, key: "other-key"))[0]);
        await SucceedAsync("verify", Volume, "-k", Key);
        await SucceedAsync("verify", fork, "-k", folder["other-key"]);

        // Of a snapshot, with the same key.
        await SucceedAsync("fork", Volume, fork + "2", "-k", Key, "--snapshot", "monday");
        Assert.Equal(0x11, (await ExportAsync(fork + "2"))[0]);
        Assert.Empty(await SnapshotsAsync(fork + "2"));
    }

    [Fact]
    public async Task Fork_that_fails_leaves_nothing_and_takes_no_folder_that_holds_something()
    {
        await PatternAsync(0x11);
        await FailAsync(ErrorCatalogue.SnapshotName, "fork", Volume, folder["fork"], "-k", Key, "--snapshot", "tuesday");
        Assert.False(Directory.Exists(folder["fork"]));
        Directory.CreateDirectory(folder["documents/inside"]);
        await FailAsync(ErrorCatalogue.AlreadyExists, "fork", Volume, folder["documents"], "-k", Key);
        Assert.Equal([folder["documents/inside"]], Directory.GetFileSystemEntries(folder["documents"]));
        await SucceedAsync("fork", Volume, folder["fork"], "-k", Key);
        await FailAsync(ErrorCatalogue.AlreadyExists, "fork", Volume, folder["fork"], "-k", Key);
        Assert.Equal(0x11, (await ExportAsync(folder["fork"]))[0]);
    }

    [Fact]
    public async Task Resize_adds_zeroes_and_never_shrinks()
    {
        await PatternAsync(0x11);
        Assert.Equal(2 * Size, (await JsonAsync("resize", Volume, "16M", "-k", Key)).GetProperty("size").GetInt64());
        var content = await ExportAsync(Volume);
        Assert.Equal(2 * Size, content.Length);
        Assert.Equal(0x11, content[0]);
        Assert.False(content.AsSpan(1 << 20).ContainsAnyExcept((byte)0));
        foreach (var size in new[] { "8M", "9T", "much", "17MB", "0", "-16M", "16777217" })
        {
            await FailAsync(ErrorCatalogue.UsageInvalid, "resize", Volume, "-k", Key, "--", size);
        }

        Assert.Equal(2 * Size, (await JsonAsync("stat", Volume, "-k", Key)).GetProperty("size").GetInt64());
        Assert.Empty((await JsonAsync("verify", Volume, "-k", Key)).GetProperty("damages").EnumerateArray());
    }

    [Fact]
    public async Task Verify_names_the_byte_ranges_that_are_damaged()
    {
        await PatternAsync(0x11);
        Assert.Equal("1.0 MB are authentic\n", await SucceedAsync("verify", Volume, "-k", Key));

        // The pattern was one request: slot n holds block n.
        var segment = Directory.GetFiles(Volume, "segment-*").Single();
        var bytes = await File.ReadAllBytesAsync(segment, TestContext.Current.CancellationToken);
        foreach (var slot in new[] { 5, 6, 200 })
        {
            bytes[Block + (slot * SlotSize) + 1000] ^= 0x40;
        }

        await File.WriteAllBytesAsync(segment, bytes, TestContext.Current.CancellationToken);
        var (code, output, error) = await NacreProgram.RunAsync(folder, "volume", "verify", Volume, "-k", Key);
        Assert.Equal((int)ExitCode.NotAuthentic, code);
        Assert.Contains("damaged: bytes 20480 to 28671: ", output, StringComparison.Ordinal);
        Assert.Contains("damaged: bytes 819200 to 823295: ", output, StringComparison.Ordinal);
        Assert.Contains("nacre: error: 12.3 kB in 2 ranges", error, StringComparison.Ordinal);

        (code, output, error) = await NacreProgram.RunAsync(folder, "volume", "verify", Volume, "-k", Key, "--json");
        Assert.Equal((int)ExitCode.NotAuthentic, code);
        Assert.Equal(ErrorCatalogue.VolumeDamaged.Code, JsonDocument.Parse(error).RootElement.GetProperty("code").GetString());
        var found = JsonDocument.Parse(output).RootElement;
        Assert.Equal((1 << 20) - (3 * Block), found.GetProperty("verifiedBytes").GetInt64());
        Assert.Equal(
            [(20480, 8192, "NotAuthentic"), (819200, 4096, "NotAuthentic")],
            found.GetProperty("damages").EnumerateArray().Select(range => (range.GetProperty("offset").GetInt64(), range.GetProperty("length").GetInt64(), range.GetProperty("kind").GetString()!)));

        // What is damaged is not copied as something else.
        await FailAsync(ErrorCatalogue.FileAccess, "export", Volume, folder["out"], "-k", Key);
        Assert.False(File.Exists(folder["out"]));
        Assert.False(File.Exists(folder["out.part"]));
    }

    [Fact]
    public async Task Verify_names_the_files_of_a_release_that_are_damaged()
    {
        var content = RandomNumberGenerator.GetBytes(3 * Block);
        Directory.CreateDirectory(folder["tree/usr/lib"]);
        await File.WriteAllBytesAsync(folder["tree/usr/lib/known"], content, TestContext.Current.CancellationToken);
        for (var i = 0; i < 1000; i++)
        {
            await File.WriteAllBytesAsync(folder[$"tree/usr/empty-{i}"], [], TestContext.Current.CancellationToken);
        }

        // As guest/build makes a release's.
        await ToolAsync("mkfs.erofs", "--quiet", "-Enoinline_data", "-x1000000", folder["image"], folder["tree"]);
        var image = await File.ReadAllBytesAsync(folder["image"], TestContext.Current.CancellationToken);
        await SucceedAsync("import", Volume, folder["image"], "-k", Key, "--format", "raw");
        await SucceedAsync("snapshot", Volume, "as published", "-k", Key);
        var file = image.AsSpan().IndexOf(content.AsSpan(Block, Block)) / Block;
        await FlipAsync(image, file);
        var (code, output, _) = await NacreProgram.RunAsync(folder, "volume", "verify", Volume, "-k", Key);
        Assert.Equal((int)ExitCode.NotAuthentic, code);
        Assert.Matches($"^damaged: bytes {file * Block} to {((file + 1) * Block) - 1}: [^\n]+\n  /usr/lib/known\n[^ ]", output);

        // A block of the directory's list: what is named there can't be told.
        await FlipAsync(image, file);
        var list = image.AsSpan().IndexOf("empty-500"u8) / Block;
        await FlipAsync(image, list);
        var found = JsonDocument.Parse((await NacreProgram.RunAsync(folder, "volume", "verify", Volume, "-k", Key, "--json")).Output).RootElement;
        Assert.Contains("/usr/", found.GetProperty("damages")[0].GetProperty("files").EnumerateArray().Select(path => path.GetString()));
        Assert.Equal(["/usr/"], found.GetProperty("unreadablePaths").EnumerateArray().Select(path => path.GetString()));
        (code, output, _) = await NacreProgram.RunAsync(folder, "volume", "verify", Volume, "-k", Key);
        Assert.Contains("these can't be looked into, or through:\n  /usr/\n", output, StringComparison.Ordinal);
        await FlipAsync(image, list);

        // A block of inodes: many files, of which some are said and all are in the JSON.
        var node = await ToolAsync("dump.erofs", "--path=/usr/empty-500", folder["image"]);
        await FlipAsync(image, int.Parse(NodeNumber().Match(node).Groups[1].Value, CultureInfo.InvariantCulture) * 32 / Block);
        found = JsonDocument.Parse((await NacreProgram.RunAsync(folder, "volume", "verify", Volume, "-k", Key, "--json")).Output).RootElement;
        var files = found.GetProperty("damages")[0].GetProperty("files").EnumerateArray().Select(path => path.GetString()).ToArray();
        Assert.Contains("/usr/empty-500", files);
        Assert.InRange(files.Length, 40, 128);
        (code, output, _) = await NacreProgram.RunAsync(folder, "volume", "verify", Volume, "-k", Key);
        Assert.Contains($"  and {files.Length - 20} more (--json lists all)\n", output, StringComparison.Ordinal);
        Assert.Equal((int)ExitCode.NotAuthentic, code);
    }

    [Fact]
    public async Task Verify_prints_no_name_that_a_terminal_would_obey()
    {
        Directory.CreateDirectory(folder["tree"]);
        var content = RandomNumberGenerator.GetBytes(Block);
        await File.WriteAllBytesAsync(folder["tree/\u001b[31mred"], content, TestContext.Current.CancellationToken);
        await ToolAsync("mkfs.erofs", "--quiet", "-Enoinline_data", folder["image"], folder["tree"]);
        var image = await File.ReadAllBytesAsync(folder["image"], TestContext.Current.CancellationToken);
        await SucceedAsync("import", Volume, folder["image"], "-k", Key, "--format", "raw");
        await FlipAsync(image, image.AsSpan().IndexOf(content) / Block);
        var (_, output, _) = await NacreProgram.RunAsync(folder, "volume", "verify", Volume, "-k", Key);
        Assert.Contains("\n  /\\x1b[31mred\n", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Verify_goes_past_a_missing_segment_and_says_what_it_held()
    {
        await PatternAsync(0x11);
        File.Delete(Directory.GetFiles(Volume, "segment-*").Single());
        await FailAsync(ErrorCatalogue.VolumeDamaged, "stat", Volume, "-k", Key);
        var (code, output, _) = await NacreProgram.RunAsync(folder, "volume", "verify", Volume, "-k", Key);
        Assert.Equal((int)ExitCode.NotAuthentic, code);
        Assert.Contains("damaged: bytes 0 to 1048575: ", output, StringComparison.Ordinal);
        Assert.Contains("segment-00000001 is missing", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Compact_gives_back_what_was_overwritten()
    {
        await PatternAsync(0x11);
        var (process, uri) = await ServeAsync(Volume);
        await ToolAsync("qemu-io", "-f", "raw", "-c", "write -P 0x12 832k 192k", uri);
        await StopAsync(process);

        var compacted = await JsonAsync("compact", Volume, "-k", Key);
        Assert.Equal((1 << 20) / Block * SlotSize, compacted.GetProperty("after").GetInt64());
        Assert.True(compacted.GetProperty("before").GetInt64() > compacted.GetProperty("after").GetInt64(), $"{compacted}");
        var content = await ExportAsync(Volume);
        Assert.Equal((0x11, 0x12), (content[0], content[(1 << 20) - 1]));
        Assert.Contains("now", await SucceedAsync("compact", Volume, "-k", Key), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Key_is_32_bytes_or_64_digits_from_a_file_or_from_standard_input()
    {
        var digits = Convert.ToHexStringLower(await File.ReadAllBytesAsync(Key, TestContext.Current.CancellationToken));
        await File.WriteAllTextAsync(folder["digits"], digits.ToUpperInvariant() + "\n", TestContext.Current.CancellationToken);
        await SucceedAsync("create", Volume, "-k", Key, "--size", "8M");
        await SucceedAsync("stat", Volume, "-k", folder["digits"]);
        var (code, _, error) = await NacreProgram.RunAsync(folder, digits + "\n", ["volume", "stat", Volume]);
        Assert.True(code == 0, error);
        foreach (var wrong in new[] { "", "abc", digits[1..], digits + "0", digits[1..] + "g" })
        {
            await File.WriteAllTextAsync(folder["digits"], wrong, TestContext.Current.CancellationToken);
            var (_, message) = await FailAsync(ErrorCatalogue.UsageInvalid, "stat", Volume, "-k", folder["digits"]);
            (code, _, error) = await NacreProgram.RunAsync(folder, wrong + "\n", ["volume", "stat", Volume]);
            Assert.Equal((int)ErrorCatalogue.UsageInvalid.ExitCode, code);
            Assert.True(wrong.Length == 0 || !(message + error).Contains(wrong, StringComparison.Ordinal), "the key is in the message");
        }

        await FailAsync(ErrorCatalogue.FileAccess, "stat", Volume, "-k", folder["no-key"]);
    }

    [Fact]
    public async Task Every_verb_tells_a_wrong_key_and_a_missing_volume_apart()
    {
        await SucceedAsync("create", Volume, "-k", Key, "--size", "8M");
        var arguments = new Dictionary<string, string[]>
        {
            ["serve"] = ["--socket", folder["nbd"]], ["stat"] = [], ["map"] = [], ["snapshot"] = ["x"], ["fork"] = [folder["fork"]], ["rollback"] = ["x"],
            ["delete-snapshot"] = ["x"], ["resize"] = ["16M"], ["verify"] = [], ["compact"] = [], ["export"] = [folder["out"]],
        };
        var verbs = VolumeCommands.Create().Subcommands.Select(command => command.Name).ToArray();
        Assert.Equal(verbs.Order(), arguments.Keys.Concat(["create", "import"]).Order());
        await Parallel.ForEachAsync(arguments, new ParallelOptions { MaxDegreeOfParallelism = 2 }, async (verb, _) =>
        {
            await FailAsync(ErrorCatalogue.FileAccess, [verb.Key, folder["nowhere"], .. verb.Value, "-k", Key]);
        });
        foreach (var (verb, rest) in arguments)
        {
            await FailAsync(ErrorCatalogue.VolumeKeyWrong, [verb, Volume, .. rest, "-k", folder["other-key"]]);
        }

        Assert.False(Directory.Exists(folder["nowhere"]) || Directory.Exists(folder["fork"]) || File.Exists(folder["out"]));
    }

    [Fact]
    public async Task Help_of_each_verb_says_what_it_does()
    {
        foreach (var command in VolumeCommands.Create().Subcommands)
        {
            var help = await SucceedAsync(command.Name, "--help");
            Assert.Contains(command.Description!, help, StringComparison.Ordinal);
            Assert.Contains("--key", help, StringComparison.Ordinal);
        }
    }

    /// <summary>Flips a bit in the slot of a block: an import writes those that are not zero, in their order.</summary>
    private async Task FlipAsync(byte[] image, int block)
    {
        var slot = Enumerable.Range(0, block).Count(earlier => image.AsSpan(earlier * Block, Block).ContainsAnyExcept((byte)0));
        await using var segment = new FileStream(Directory.GetFiles(Volume, "segment-*").Single(), FileMode.Open, FileAccess.ReadWrite);
        segment.Position = Block + (slot * SlotSize) + 1000;
        var value = segment.ReadByte();
        segment.Position--;
        segment.WriteByte((byte)(value ^ 0x40));
    }

    private Task<JsonElement> JsonAsync(params string[] arguments) => NacreProgram.JsonAsync(folder, ["volume", .. arguments]);

    private async Task<string> SucceedAsync(params string[] arguments)
    {
        var (code, output, error) = await NacreProgram.RunAsync(folder, ["volume", .. arguments]);
        Assert.True(code == 0, $"{string.Join(' ', arguments)} ended with {code}: {error}");
        return output;
    }

    private async Task<(string Hint, string Message)> FailAsync(ErrorKind kind, params string[] arguments)
    {
        var (code, output, error) = await NacreProgram.RunAsync(folder, ["volume", "--json", .. arguments]);
        Assert.True(code == (int)kind.ExitCode && output.Length == 0, $"{string.Join(' ', arguments)} ended with {code}: {output}{error}");
        using var document = JsonDocument.Parse(error);
        Assert.Equal(kind.Code, document.RootElement.GetProperty("code").GetString());
        return (document.RootElement.GetProperty("hint").GetString()!, document.RootElement.GetProperty("message").GetString()!);
    }

    private async Task<(Process Process, string Uri)> ServeAsync(string volume, string[]? options = null, string key = "key", string socket = "nbd")
    {
        var process = NacreProgram.Start(folder, ["volume", "serve", volume, "-k", folder[key], "--socket", folder[socket], .. options ?? []]);
        started.Add(process);
        var uri = await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken);
        return (process, uri ?? throw new InvalidOperationException(await process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken)));
    }

    private static async Task StopAsync(Process process)
    {
        NacreProgram.Signal(process, NacreProgram.Terminate);
        Assert.Equal(0, (await NacreProgram.EndAsync(process)).Code);
    }

    /// <summary>Writes a MiB of one byte at the beginning, in one request.</summary>
    private async Task PatternAsync(byte value, bool create = true, string? volume = null, string key = "key")
    {
        volume ??= Volume;
        if (create)
        {
            await SucceedAsync("create", volume, "-k", Key, "--size", "8M");
        }

        var (process, uri) = await ServeAsync(volume, key: key);
        await ToolAsync("qemu-io", "-f", "raw", "-c", $"write -P {value} 0 1M", uri);
        await StopAsync(process);
    }

    private async Task<byte[]> ExportAsync(string volume, string[]? options = null, string key = "key")
    {
        var target = folder[$"export {Guid.NewGuid()}"];
        await SucceedAsync(["export", volume, target, "-k", folder[key], .. options ?? []]);
        return await File.ReadAllBytesAsync(target, TestContext.Current.CancellationToken);
    }

    private static async Task<string> ToolAsync(string tool, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(Require.Tool(tool), arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var (code, output, error) = await NacreProgram.EndAsync(process);
        Assert.True(code == 0 && !output.Contains("ailed", StringComparison.Ordinal), $"{tool} ended with {code}: {output}{error}");
        return output;
    }

    [GeneratedRegex(@"NID: (\d+)")]
    private static partial Regex NodeNumber();

    /// <summary>A folder on a file system that is not that of the temporary folder.</summary>
    private sealed class TemporaryFolderInMemory : IDisposable
    {
        public string Path { get; } = Directory.CreateDirectory($"/dev/shm/nacre-{Guid.NewGuid()}").FullName;

        public void Dispose() => Directory.Delete(Path, recursive: true);
    }
}
