using System.CommandLine;
using System.Globalization;
using Nacre.Contracts;
using Nacre.Images.FileSystems;
using Nacre.Nbd;
using Nacre.Player;
using Nacre.Volumes;
using Spectre.Console;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre volume</c>: a volume's folder, without a server, for scripts and the help desk.</summary>
internal static class VolumeCommands
{
    private const string ExportName = "volume";

    private static readonly Argument<string> Folder = new("DIRECTORY") { Description = "The volume's folder" };

    private static readonly Option<string?> Key =
        new("--key", "-k") { Description = "A file with the key: 32 bytes, or 64 hexadecimal digits (without it the digits are asked for, or read from standard input)" };

    private const string SizeWords = "bytes, or a number with K, M, G or T (powers of 1024)";

    private static readonly Option<string?> Snapshot = new("--snapshot") { Description = "The state that this snapshot holds, instead of the present one" };

    public static Command Create() => new("volume", "Encrypted volumes by their folders: for scripts and the help desk")
    {
        CreateVolume(), Serve(), Stat(), Map(), TakeSnapshot(), Fork(), RollBack(), DeleteSnapshot(), Resize(), Verify(), Compact(), Import(), Export(),
    };

    private static Command CreateVolume()
    {
        var size = new Option<string>("--size", "-s") { Description = $"The size: {SizeWords}", Required = true };
        var command = new Command("create", "Make an empty volume") { Folder, Key, size };
        command.SetAction(parsed => GuardAsync(async () =>
        {
            var options = new VolumeOptions { Size = SizeOf(parsed.GetValue(size)!) };
            await using var volume = CreateIn(parsed.GetValue(Folder)!, options, KeyOf(parsed.GetValue(Key)));
            Terminal.Result(new { volume.Size }, () => Terminal.Line($"{parsed.GetValue(Folder)}: an empty volume of {Terminal.Bytes(volume.Size)}"));
        }));
        return command;
    }

    private static Command Serve()
    {
        var socket = new Option<string>("--socket") { Description = "The unix socket to make; who may use it decides who may read", Required = true };
        var readOnly = new Option<bool>("--read-only", "-r") { Description = "Refuse changes; several may serve one volume so" };
        var command = new Command("serve", "Serve the volume by NBD on a unix socket until interrupted") { Folder, Key, socket, Snapshot, readOnly };
        command.SetAction((parsed, cancellationToken) => GuardAsync(async () =>
        {
            await using var volume = Open(parsed, readOnly: parsed.GetValue(readOnly) || parsed.GetValue(Snapshot) is not null);
            var path = Path.GetFullPath(parsed.GetValue(socket)!);
            await using var server = NbdServer.Start(path, new Dictionary<string, IBlockDevice> { [ExportName] = DeviceOf(volume, parsed) });
            var uri = UriOf(path);
            Terminal.Result(new { Uri = uri, Socket = path }, () => Terminal.Line(uri));
            Terminal.Note("serving until Ctrl-C");
            var ended = new TaskCompletionSource();
            await using var registration = cancellationToken.Register(() => ended.TrySetResult());
            await ended.Task;
        }));
        return command;
    }

    private static Command Stat()
    {
        var command = new Command("stat", "Size, space, snapshots, anchor") { Folder, Key };
        command.SetAction(parsed => GuardAsync(async () =>
        {
            await using var volume = Open(parsed, readOnly: true);
            var (figures, snapshots, anchor) = (volume.Statistics, volume.Snapshots, volume.Anchor);
            var live = figures.LiveBlocks * IBlockDevice.BlockSize;
            Terminal.Result(new { volume.Size, LiveBytes = live, figures.StoredBytes, figures.Segments, Anchor = anchor, Snapshots = snapshots }, () =>
            {
                Terminal.Line($"size       {Terminal.Bytes(volume.Size)}");
                Terminal.Line($"holds      {Terminal.Bytes(live)}");
                Terminal.Line($"on disk    {Terminal.Bytes(figures.StoredBytes)} in {figures.Segments} segments");
                Terminal.Line($"anchor     {anchor.VolumeId} {anchor.Position}");
                Terminal.Line($"snapshots  {snapshots.Count}");
                foreach (var snapshot in snapshots)
                {
                    Terminal.Line($"  {snapshot.Taken.ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture)}  {Terminal.Bytes(snapshot.LiveBlocks * IBlockDevice.BlockSize),10}  {snapshot.Name}");
                }
            });
        }));
        return command;
    }

    private static Command Map()
    {
        var command = new Command("map", "Which byte ranges hold data") { Folder, Key, Snapshot };
        command.SetAction(parsed => GuardAsync(async () =>
        {
            await using var volume = Open(parsed, readOnly: true);
            var device = DeviceOf(volume, parsed);
            var extents = new List<(long Start, BlockExtent Extent)>();
            var buffer = new BlockExtent[256];
            for (var at = 0L; at < device.Size;)
            {
                foreach (var extent in buffer.AsSpan(0, device.DescribeExtents(at, device.Size - at, buffer)))
                {
                    extents.Add((at, extent));
                    at += extent.Length;
                }
            }

            Terminal.Result(extents.Select(extent => new { extent.Start, extent.Extent.Length, Data = !extent.Extent.IsHole }).ToArray(), () => Terminal.Table(
                ["START", "LENGTH", "DATA"], extents.Select(extent => new[] { $"{extent.Start}", $"{extent.Extent.Length}", extent.Extent.IsHole ? "no" : "yes" })));
        }));
        return command;
    }

    private static Command TakeSnapshot() => OfSnapshot("snapshot", "Keep the present state under a name", (volume, name) =>
    {
        var taken = volume.TakeSnapshot(name);
        Terminal.Result(taken, () => Terminal.Line($"{name}: kept, {Terminal.Bytes(taken.LiveBlocks * IBlockDevice.BlockSize)} of data"));
    });

    private static Command RollBack()
    {
        var name = new Argument<string>("NAME") { Description = "The snapshot to go back to" };
        var discard = new Option<bool>("--discard") { Description = "Give up the present state instead of keeping it as a snapshot" };
        var command = new Command("rollback", "Go back to a snapshot; the present state is kept as another one, so this can be undone") { Folder, name, Key, discard };
        command.SetAction(parsed => GuardAsync(async () =>
        {
            await using var volume = Open(parsed);
            string? kept = null;
            if (volume.Snapshots.Any(snapshot => snapshot.Name == parsed.GetValue(name)) && !parsed.GetValue(discard))
            {
                kept = $"before rollback {TimeProvider.System.GetUtcNow().ToString("yyyy-MM-dd HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture)}";
                volume.TakeSnapshot(kept);
            }

            volume.RollBack(parsed.GetValue(name)!);
            Terminal.Result(new { RolledBackTo = parsed.GetValue(name), Kept = kept }, () => Terminal.Line(
                $"the volume is as in '{parsed.GetValue(name)}'" + (kept is null ? "" : $"; what it was is kept as '{kept}'")));
        }));
        return command;
    }

    private static Command DeleteSnapshot() => OfSnapshot("delete-snapshot", "Give up a snapshot and the space that only it needs", (volume, name) =>
    {
        volume.DeleteSnapshot(name);
        Terminal.Result(new { Deleted = name }, () => Terminal.Line($"{name}: given up"));
    });

    private static Command Fork()
    {
        var target = new Argument<string>("NEW-DIRECTORY") { Description = "The folder of the new volume" };
        var newKey = new Option<string?>("--new-key") { Description = "A file with the new volume's key (default: the same key)" };
        var command = new Command("fork", "Make a new volume that begins as this one is, without copying where one file system holds both") { Folder, target, Key, newKey, Snapshot };
        command.SetAction((parsed, cancellationToken) => GuardAsync(async () =>
        {
            var key = KeyOf(parsed.GetValue(Key));
            var forKey = parsed.GetValue(newKey) is { } file ? KeyOf(file) : key;
            await using var volume = Open(parsed, key, new VolumeOptions());
            await ForkAsync(volume, parsed.GetValue(target)!, forKey, parsed.GetValue(Snapshot), cancellationToken);
            Terminal.Result(new { Fork = parsed.GetValue(target) }, () => Terminal.Line($"{parsed.GetValue(target)}: forked from {parsed.GetValue(Folder)}"));
        }));
        return command;
    }

    private static Command Resize()
    {
        var size = new Argument<string>("SIZE") { Description = $"The new size, at least the present one: {SizeWords}" };
        var command = new Command("resize", "Make the volume larger; what is added reads as zeroes") { Folder, size, Key };
        command.SetAction(parsed => GuardAsync(async () =>
        {
            await using var volume = Open(parsed);
            var wanted = SizeOf(parsed.GetValue(size)!);
            if (wanted < volume.Size)
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, $"the volume has {volume.Size} bytes and cannot shrink to {wanted}");
            }

            volume.Resize(wanted);
            Terminal.Result(new { volume.Size }, () => Terminal.Line($"{parsed.GetValue(Folder)}: {Terminal.Bytes(volume.Size)}"));
        }));
        return command;
    }

    private static Command Verify()
    {
        var command = new Command("verify", "Read and authenticate everything that the volume and its snapshots hold; names what is damaged, of a release's file system the files") { Folder, Key };
        command.SetAction((parsed, cancellationToken) => GuardAsync(async () =>
        {
            await using var volume = Open(parsed, KeyOf(parsed.GetValue(Key)), new VolumeOptions { Tolerant = true });
            var found = await Terminal.ProgressAsync("verifying", report => Task.Run(() => volume.Verify(Progress(report), cancellationToken), cancellationToken));
            var (damages, unreadable) = await WithFilesAsync(volume, found.Damages, cancellationToken);
            var logDamages = found.LogDamages.Select(damage => new { Kind = $"{damage.Kind}", damage.Message });
            Terminal.Result(
                new { found.VerifiedBytes, Damages = damages, UnreadablePaths = unreadable, LogDamages = logDamages }, () => Say(found, damages, unreadable));
            if (damages.Length + found.LogDamages.Count > 0)
            {
                throw new NacreException(ErrorCatalogue.VolumeDamaged, damages.Length == 0
                    ? $"the log of {parsed.GetValue(Folder)} is damaged"
                    : $"{Terminal.Bytes(found.Damages.Sum(damage => damage.Length))} in {damages.Length} ranges of {parsed.GetValue(Folder)} are damaged");
            }
        }));
        return command;
    }

    private static void Say(VolumeVerification found, DamagedRange[] damages, string[] unreadable)
    {
        foreach (var damage in damages)
        {
            Terminal.Line($"damaged: bytes {damage.Offset} to {damage.Offset + damage.Length - 1}{(damage.Snapshot is null ? "" : $" of snapshot '{damage.Snapshot}'")}: {damage.Message}");
            SayPaths(damage.Files);
        }

        if (unreadable.Length > 0)
        {
            Terminal.Line("more files may be damaged: these can't be looked into, or through:");
            SayPaths(unreadable);
        }

        foreach (var damage in found.LogDamages)
        {
            Terminal.Line($"damaged: {damage.Message}");
        }

        Terminal.Line($"{Terminal.Bytes(found.VerifiedBytes)} are authentic");
    }

    private static void SayPaths(IReadOnlyCollection<string> paths)
    {
        const int Said = 20;
        foreach (var path in paths.Take(Said))
        {
            Terminal.Line($"  {Terminal.Printable(path)}");
        }

        if (paths.Count > Said)
        {
            Terminal.Line($"  and {paths.Count - Said} more (--json lists all)");
        }
    }

    /// <summary>Adds to each damage whose content it is, where the volume holds a release's file system.</summary>
    private static async Task<(DamagedRange[] Damages, string[] Unreadable)> WithFilesAsync(Volume volume, IReadOnlyList<VolumeDamage> damages, CancellationToken cancellationToken)
    {
        var named = new List<DamagedRange>();
        var unreadable = new List<string>();
        foreach (var state in damages.GroupBy(damage => damage.Snapshot))
        {
            var device = state.Key is { } name ? volume.OpenSnapshot(name) : volume;
            var ranges = state.Select(damage => new ByteRange(damage.Offset, damage.Length)).ToArray();
            var search = await ErofsFiles.FindAsync(device, ranges, cancellationToken);
            named.AddRange(state.Select((damage, i) => new DamagedRange(
                damage.Snapshot, damage.Offset, damage.Length, $"{damage.Cause.Kind}", damage.Cause.Message, search?.Files[i] ?? [])));
            unreadable.AddRange(search?.Unreadable ?? []);
            if (search is { IsComplete: false })
            {
                unreadable.Add("/");
            }
        }

        return ([.. named], [.. unreadable.Distinct()]);
    }

    private sealed record DamagedRange(string? Snapshot, long Offset, long Length, string Kind, string Message, IReadOnlyList<string> Files);

    private static Command Compact()
    {
        var command = new Command("compact", "Give back all space that nothing in the volume needs") { Folder, Key };
        command.SetAction((parsed, cancellationToken) => GuardAsync(async () =>
        {
            await using var volume = Open(parsed);
            var before = volume.Statistics.StoredBytes;
            await Terminal.ProgressAsync("compacting", report => Task.Run(
                () =>
                {
                    volume.Compact(Progress(report), cancellationToken);
                    return true;
                },
                cancellationToken));
            var after = volume.Statistics.StoredBytes;
            Terminal.Result(new { Before = before, After = after }, () => Terminal.Line($"{Terminal.Bytes(before)} before, {Terminal.Bytes(after)} now"));
        }));
        return command;
    }

    private static Command Import()
    {
        var file = new Argument<string>("FILE") { Description = "The disk image" };
        var format = new Option<string?>("--format", "-f") { Description = "raw, qcow2, vmdk, vhdx, … (default: what qemu-img recognises)" };
        var chain = new Option<bool>("--chain") { Description = "Read the other files that the image names too (what it is based on, its parts): only for images that you made yourself" };
        var command = new Command("import", "Make a volume from a disk image") { Folder, file, Key, format, chain };
        command.SetAction((parsed, cancellationToken) => GuardAsync(async () =>
        {
            var source = Path.GetFullPath(parsed.GetValue(file)!);
            var key = KeyOf(parsed.GetValue(Key));
            var bytes = await DiskImages.SizeAsync(source, parsed.GetValue(format), parsed.GetValue(chain), cancellationToken);
            var directory = parsed.GetValue(Folder)!;
            var size = (bytes + IBlockDevice.BlockSize - 1) / IBlockDevice.BlockSize * IBlockDevice.BlockSize;
            RequireEmptyOrMissing(directory);
            var live = await ImportAsync(directory, size, key, async uri => await Terminal.ProgressAsync(
                "importing", report => DiskImages.ImportAsync(source, parsed.GetValue(format), uri, InBytes(size, report), cancellationToken)));
            Terminal.Result(new { Size = size, LiveBytes = live }, () => Terminal.Line($"{directory}: {Terminal.Bytes(size)}, of which {Terminal.Bytes(live)} hold data"));
        }));
        return command;
    }

    /// <summary>Makes a volume of what <paramref name="copy"/> writes to it. It has another name until it is whole: no kill leaves half of one that looks whole.</summary>
    /// <returns>The bytes that it holds.</returns>
    private static async Task<long> ImportAsync(string directory, long size, byte[] key, Func<string, Task> copy)
    {
        var part = Path.TrimEndingDirectorySeparator(Path.GetFullPath(directory)) + ".part";
        if (Path.Exists(part))
        {
            throw new NacreException(ErrorCatalogue.AlreadyExists, $"{part} exists: another import runs, or one was killed; in that case delete it");
        }

        try
        {
            long live;
            await using (var volume = CreateIn(part, new VolumeOptions { Size = size }, key))
            {
                await ServeDuringAsync(volume, copy);
                await volume.FlushAsync(CancellationToken.None);
                live = volume.Statistics.LiveBlocks * IBlockDevice.BlockSize;
            }

            if (Directory.Exists(directory))
            {
                Directory.Delete(directory);
            }

            Directory.Move(part, directory);
            return live;
        }
        catch when (Directory.Exists(part))
        {
            Directory.Delete(part, recursive: true);
            throw;
        }
    }

    private static Command Export()
    {
        var file = new Argument<string>("FILE") { Description = "The disk image to make; must not exist" };
        var format = new Option<string>("--format", "-f") { Description = "raw, qcow2, vmdk, vhdx, …", DefaultValueFactory = _ => "raw" };
        var rescue = new Option<bool>("--rescue") { Description = "Export what can be read of a damaged volume: what can't be reads as zeroes and is named" };
        var command = new Command("export", "Copy the volume into a disk image, in the clear") { Folder, file, Key, format, Snapshot, rescue };
        command.SetAction((parsed, cancellationToken) => GuardAsync(async () =>
        {
            var target = Path.GetFullPath(parsed.GetValue(file)!);
            if (Path.Exists(target))
            {
                throw new NacreException(ErrorCatalogue.AlreadyExists, $"{target} exists");
            }

            await using var volume = Open(parsed, KeyOf(parsed.GetValue(Key)), new VolumeOptions { ReadOnly = true, Tolerant = parsed.GetValue(rescue) });
            var rescued = parsed.GetValue(rescue) ? new RescuedDevice(DeviceOf(volume, parsed)) : null;
            var device = rescued ?? DeviceOf(volume, parsed);
            await ServeDuringAsync(device, uri => Terminal.ProgressAsync(
                "exporting", report => DiskImages.ExportAsync(uri, target, parsed.GetValue(format)!, InBytes(device.Size, report), cancellationToken)));
            var lost = rescued?.Lost ?? [];
            Terminal.Result(new { File = target, Lost = lost }, () =>
            {
                foreach (var range in lost)
                {
                    Terminal.Line($"lost: bytes {range.Offset} to {range.Offset + range.Length - 1}");
                }

                Terminal.Line($"{target}: written; it is not encrypted");
            });
            if (lost.Count > 0)
            {
                throw new NacreException(ErrorCatalogue.VolumeDamaged, $"{Terminal.Bytes(lost.Sum(range => range.Length))} in {lost.Count} ranges could not be read and are zeroes in {target}");
            }
        }));
        return command;
    }

    private static Command OfSnapshot(string verb, string description, Action<Volume, string> action)
    {
        var name = new Argument<string>("NAME") { Description = "The snapshot's name" };
        var command = new Command(verb, description) { Folder, name, Key };
        command.SetAction(parsed => GuardAsync(async () =>
        {
            await using var volume = Open(parsed);
            action(volume, parsed.GetValue(name)!);
        }));
        return command;
    }

    private static async Task ServeDuringAsync(IBlockDevice device, Func<string, Task> work)
    {
        var folder = Directory.CreateTempSubdirectory("nacre-volume-");
        try
        {
            var socket = Path.Combine(folder.FullName, "nbd");
            await using var server = NbdServer.Start(socket, new Dictionary<string, IBlockDevice> { [ExportName] = device });
            await work(UriOf(socket));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    private static string UriOf(string socket) =>
        $"nbd+unix:///{ExportName}?socket={Uri.EscapeDataString(socket).Replace("%2F", "/", StringComparison.Ordinal)}";

    /// <summary>Makes a volume in a folder that is empty or does not exist.</summary>
    private static Volume CreateIn(string directory, VolumeOptions options, byte[] key)
    {
        try
        {
            return Volume.Create(directory, options, key);
        }
        catch (VolumeException exception) when (exception.Kind == VolumeErrorKind.Corrupt)
        {
            throw NotEmpty(directory, exception);
        }
    }

    /// <summary>Forks into a folder that is empty or does not exist; a failure leaves none that was not there.</summary>
    private static async Task ForkAsync(Volume volume, string directory, byte[] key, string? snapshot, CancellationToken cancellationToken)
    {
        var existed = Directory.Exists(directory);
        if (snapshot is not null)
        {
            // Fails before there is a folder where there is no such snapshot.
            volume.OpenSnapshot(snapshot);
        }

        try
        {
            await Terminal.ProgressAsync("forking", report => Task.Run(
                () =>
                {
                    volume.Fork(directory, key, snapshot, Progress(report), cancellationToken);
                    return true;
                },
                cancellationToken));
        }
        catch (VolumeException exception) when (exception.Kind == VolumeErrorKind.Corrupt && existed)
        {
            throw NotEmpty(directory, exception);
        }
        catch when (!existed && Directory.Exists(directory) && !Directory.EnumerateFileSystemEntries(directory).Any())
        {
            Directory.Delete(directory);
            throw;
        }
    }

    private static void RequireEmptyOrMissing(string directory)
    {
        if (Path.Exists(directory) && !(Directory.Exists(directory) && !Directory.EnumerateFileSystemEntries(directory).Any()))
        {
            throw NotEmpty(directory, null);
        }
    }

    private static NacreException NotEmpty(string directory, Exception? cause) =>
        new(ErrorCatalogue.AlreadyExists, $"{directory} is not empty: it holds a volume, or something else", cause);

    private static Volume Open(ParseResult parsed, bool readOnly = false) =>
        Open(parsed, KeyOf(parsed.GetValue(Key)), new VolumeOptions { ReadOnly = readOnly });

    private static Volume Open(ParseResult parsed, byte[] key, VolumeOptions options)
    {
        var directory = parsed.GetValue(Folder)!;
        try
        {
            File.GetUnixFileMode(Path.Combine(directory, "header"));
        }
        catch (Exception exception) when (exception is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"{directory} holds no volume", exception);
        }

        return Volume.Open(directory, key, options);
    }

    private static IBlockDevice DeviceOf(Volume volume, ParseResult parsed) =>
        parsed.GetValue(Snapshot) is { } name ? volume.OpenSnapshot(name) : volume;

    private static Reporter<VolumeProgress> Progress(Action<double, string> report) => new(progress => report(
        progress.Total == 0 ? 1 : (double)progress.Done / progress.Total, $"{Terminal.Bytes(progress.Done)} of {Terminal.Bytes(progress.Total)}"));

    private static Action<double, string> InBytes(long total, Action<double, string> report) =>
        (fraction, _) => report(fraction, $"{Terminal.Bytes((long)(fraction * total))} of {Terminal.Bytes(total)}");

    private static async Task GuardAsync(Func<Task> work)
    {
        try
        {
            await work();
        }
        catch (VolumeException exception)
        {
            throw VolumeErrors.OfFolder(exception);
        }
        catch (ArgumentException exception)
        {
            var words = exception.Message.Replace($" (Parameter '{exception.ParamName}')", "", StringComparison.Ordinal);
            throw new NacreException(ErrorCatalogue.UsageInvalid, words, exception);
        }
    }

    private static byte[] KeyOf(string? file)
    {
        var untrustedKey = file is null ? Convert.FromHexString(Ask()) : ReadKey(file);
        return untrustedKey.Length == 32 ? untrustedKey : throw Invalid();

        static string Ask()
        {
            if (Console.IsInputRedirected)
            {
                return RequireDigits(Console.In.ReadLine() ?? "");
            }

            return RequireDigits(AnsiConsole.Prompt(new TextPrompt<string>("key (64 hexadecimal digits):").Secret(null)));
        }

        static byte[] ReadKey(string path)
        {
            using var stream = File.OpenRead(path);
            var bytes = new byte[256];
            var length = stream.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            return length == 32 ? bytes[..32] : Convert.FromHexString(RequireDigits(System.Text.Encoding.ASCII.GetString(bytes, 0, length)));
        }

        static string RequireDigits(string text) => text.Trim() is { Length: 64 } digits && digits.All(char.IsAsciiHexDigit) ? digits : throw Invalid();

        static NacreException Invalid() => new(ErrorCatalogue.UsageInvalid, "a volume's key is 32 bytes, or 64 hexadecimal digits");
    }

    private static long SizeOf(string text)
    {
        var shift = char.ToUpperInvariant(text.LastOrDefault()) switch { 'K' => 10, 'M' => 20, 'G' => 30, 'T' => 40, _ => 0 };
        var digits = shift == 0 ? text : text[..^1];
        if (!long.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out var number) || number <= 0 || number > VolumeOptions.MaximumSize >> shift)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{text}' is no size up to {VolumeOptions.MaximumSize >> 40}T: give {SizeWords}");
        }

        return (number << shift) % IBlockDevice.BlockSize == 0
            ? number << shift
            : throw new NacreException(ErrorCatalogue.UsageInvalid, $"the size must be a multiple of {IBlockDevice.BlockSize} bytes");
    }
}
