using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Nacre.Contracts;
using Nacre.Nbd;
using Nacre.Player.Machines;

namespace Nacre.Player.Moments;

/// <summary>How a file differs.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<FileChange>))]
public enum FileChange
{
    /// <summary>It is in the second state only.</summary>
    [JsonStringEnumMemberName("added")]
    Added,

    /// <summary>It is in both, and differs in content, kind, owner or mode.</summary>
    [JsonStringEnumMemberName("changed")]
    Changed,

    /// <summary>It is in the first state only.</summary>
    [JsonStringEnumMemberName("removed")]
    Removed,
}

/// <summary>A file or folder that differs between two states.</summary>
/// <param name="Path">Its path in the layer, which is the user's.</param>
/// <param name="Layer">The layer.</param>
/// <param name="Change">How.</param>
/// <param name="Bytes">Its size in the second state, or in the first where it was removed.</param>
public sealed record ChangedFile(string Path, string Layer, FileChange Change, long Bytes);

/// <summary>What differs between two states.</summary>
/// <param name="From">The first: a moment.</param>
/// <param name="To">The second: a moment, or <c>now</c>.</param>
/// <param name="Files">By path.</param>
/// <param name="IsCut">Whether there is more than could be shown.</param>
public sealed record MomentDifference(string From, string To, IReadOnlyList<ChangedFile> Files, bool IsCut);

/// <summary>A file or folder of a moment.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Kind">As <c>find</c> names it: <c>f</c> a file, <c>d</c> a folder, <c>l</c> a link, …</param>
/// <param name="Bytes">Its size.</param>
/// <param name="Modified">When it was changed last.</param>
/// <param name="Mode">Octal.</param>
/// <param name="Owner">User and group.</param>
/// <param name="Target">Where a link leads to.</param>
public sealed record MomentFile(string Name, string Kind, long Bytes, DateTimeOffset Modified, string Mode, string Owner, string Target);

/// <summary>A file or folder that was taken back.</summary>
/// <param name="Path">Where it is now.</param>
/// <param name="Displaced">Where what was there before is now; null where nothing was.</param>
/// <param name="Files">Files taken back.</param>
/// <param name="Bytes">Their bytes.</param>
public sealed record RestoredFiles(string Path, string? Displaced, long Files, long Bytes);

/// <summary>Shows moments to the running guest, which looks into them: each as a read-only disk that is plugged in for one question and then taken away. Nothing of
/// their content is on the host but what is answered.</summary>
internal sealed class MomentViews
{
    /// <summary>Beginning of the names of what is plugged in.</summary>
    private const string Prefix = "moment-";

    /// <summary>More files than this are not compared by content: they are called changed because they were written.</summary>
    private const int MostCompared = 20_000;

    private const string Now = "now";
    private static readonly TimeSpan UnplugLimit = TimeSpan.FromSeconds(30);

    private readonly Qmp qmp;
    private readonly NbdServer nbd;
    private readonly string nbdSocket;
    private readonly GuestAgent agent;
    private readonly MomentStore moments;

    public MomentViews(Qmp qmp, NbdServer nbd, string nbdSocket, GuestAgent agent, MomentStore moments)
    {
        this.qmp = qmp;
        this.nbd = nbd;
        this.nbdSocket = nbdSocket;
        this.agent = agent;
        this.moments = moments;
    }

    /// <summary>Says which files differ between a moment and another one, or the present.</summary>
    /// <param name="untrustedFirst">A moment.</param>
    /// <param name="untrustedSecond">A moment; null or <c>now</c>: the present.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="NacreException">NotFound, MomentUnreadable, GuestFailed, QemuFailed.</exception>
    public async Task<MomentDifference> CompareAsync(string untrustedFirst, string? untrustedSecond, CancellationToken cancellationToken)
    {
        var first = moments.Find(untrustedFirst);
        var second = untrustedSecond is null or Now ? null : moments.Find(untrustedSecond);
        var files = new List<ChangedFile>();
        var isCut = false;
        foreach (var layer in MomentStore.Layers)
        {
            await using var disks = new Disks(this);
            string[] arguments =
            [
                await disks.PlugAsync(first, layer, cancellationToken).ConfigureAwait(false),
                second is null ? Now : await disks.PlugAsync(second, layer, cancellationToken).ConfigureAwait(false),
                layer,
            ];
            var output = await RunAsync(GuestScripts.Compare, arguments, null, "the moments", cancellationToken).ConfigureAwait(false);
            var (changes, touched, cut) = ReadChanges(output, layer);
            isCut |= cut;
            if (touched.Count is > 0 and <= MostCompared)
            {
                var same = await RunAsync(GuestScripts.Same, arguments, [.. touched.SelectMany(path => Encoding.UTF8.GetBytes(path + '\0'))], "the moments", cancellationToken).ConfigureAwait(false);
                var alike = Texts(same).ToHashSet(StringComparer.Ordinal);
                changes.RemoveAll(change => change.Change == FileChange.Changed && alike.Contains(change.Path[1..]));
            }

            files.AddRange(changes);
        }

        return new MomentDifference(first.Id, second?.Id ?? Now, [.. files.OrderBy(file => file.Path, StringComparer.Ordinal)], isCut);
    }

    /// <summary>Lists a folder as it was.</summary>
    /// <param name="untrustedMoment">The moment.</param>
    /// <param name="untrustedPath">The folder or file, as the user sees it.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="NacreException">NotFound, UsageInvalid, MomentUnreadable, GuestFailed, QemuFailed.</exception>
    public async Task<IReadOnlyList<MomentFile>> BrowseAsync(string untrustedMoment, string untrustedPath, CancellationToken cancellationToken)
    {
        var (moment, path) = (moments.Find(untrustedMoment), Normal(untrustedPath));
        var mounts = await MountsAsync(cancellationToken).ConfigureAwait(false);
        if (path == "/")
        {
            return [.. mounts.Where(mount => MomentStore.Layers.Contains(mount.Layer)).Select(mount => new MomentFile(mount.Path, "d", 0, moment.Taken, "", mount.Layer, ""))];
        }

        await using var disks = new Disks(this);
        var disk = await disks.PlugAsync(moment, LayerOf(path, mounts), cancellationToken).ConfigureAwait(false);
        var output = await RunAsync(GuestScripts.Browse, [disk, path], null, $"'{path}' in moment {moment.Id}", cancellationToken).ConfigureAwait(false);
        return [.. Texts(output).Chunk(7).Where(fields => fields.Length == 7).Select(fields => new MomentFile(
            fields[0], fields[1], Number(fields[2]), DateTimeOffset.FromUnixTimeSeconds(Number(fields[3].Split('.')[0])), fields[4], fields[5], fields[6]))
            .OrderBy(file => file.Name, StringComparer.Ordinal)];
    }

    /// <summary>Takes a file or a folder back, with owner, mode and attributes. What is in its place is put aside, not lost.</summary>
    /// <param name="untrustedMoment">The moment.</param>
    /// <param name="untrustedPath">What, as the user sees it.</param>
    /// <param name="untrustedTo">Where to; null: to its own place.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <exception cref="NacreException">NotFound, UsageInvalid, MomentUnreadable, GuestFailed, QemuFailed.</exception>
    public async Task<RestoredFiles> RestoreAsync(string untrustedMoment, string untrustedPath, string? untrustedTo, CancellationToken cancellationToken)
    {
        var (moment, path) = (moments.Find(untrustedMoment), Normal(untrustedPath));
        var to = untrustedTo is null ? path : Normal(untrustedTo);
        if (path == "/" || to == "/")
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "give a file or a folder; to put whole layers back, use 'nacre livepc rejuvenate'");
        }

        var mounts = await MountsAsync(cancellationToken).ConfigureAwait(false);
        await using var disks = new Disks(this);
        var disk = await disks.PlugAsync(moment, LayerOf(path, mounts), cancellationToken).ConfigureAwait(false);
        var output = await RunAsync(
            GuestScripts.Restore, [disk, path, to, to == path ? "same" : "other"], null, $"'{path}' in moment {moment.Id}", cancellationToken).ConfigureAwait(false);
        return Texts(output) is [var displaced, var files, var bytes]
            ? new RestoredFiles(to, displaced.Length == 0 ? null : displaced, Number(files), Number(bytes))
            : throw Unreadable($"'{path}' in moment {moment.Id}", "the guest answered something else");
    }

    /// <summary>Takes away what an earlier player, which was killed, had plugged in.</summary>
    public async Task CleanAsync(CancellationToken cancellationToken)
    {
        var devices = await qmp.ExecuteAsync("qom-list", new JsonObject { ["path"] = "/machine/peripheral" }, cancellationToken).ConfigureAwait(false) as JsonArray ?? [];
        foreach (var name in devices.Select(device => device?["name"]?.GetValue<string>()).OfType<string>().Where(IsOurs).ToArray())
        {
            await UnplugAsync(name).ConfigureAwait(false);
        }

        var nodes = await qmp.ExecuteAsync("query-named-block-nodes", new JsonObject { ["flat"] = true }, cancellationToken).ConfigureAwait(false) as JsonArray ?? [];
        foreach (var name in nodes.Select(node => node?["node-name"]?.GetValue<string>()).OfType<string>().Where(IsOurs).ToArray())
        {
            await RemoveNodeAsync(name).ConfigureAwait(false);
        }
    }

    /// <summary>A path as the user sees it: absolute, without anything to be resolved.</summary>
    /// <exception cref="NacreException">UsageInvalid.</exception>
    internal static string Normal(string untrustedPath)
    {
        var parts = untrustedPath.Split('/', StringSplitOptions.RemoveEmptyEntries).Where(part => part != ".").ToArray();
        return untrustedPath.StartsWith('/') && !parts.Contains("..") && !untrustedPath.Contains('\0') && !untrustedPath.Contains('\n')
            ? "/" + string.Join('/', parts)
            : throw new NacreException(ErrorCatalogue.UsageInvalid, "give a path in the LivePC that begins with '/' and has no '..'");
    }

    /// <summary>Reads what the guest says of two states of a layer.</summary>
    /// <returns>The changes; those files (without the leading slash) that were written and may have the same content; whether something is missing.</returns>
    internal static (List<ChangedFile> Changes, List<string> Touched, bool IsCut) ReadChanges(byte[] untrusted, string layer)
    {
        const char InSecond = '\u0002';
        var (before, after) = (new Dictionary<string, string[]>(StringComparer.Ordinal), new Dictionary<string, string[]>(StringComparer.Ordinal));
        foreach (var text in Texts(untrusted))
        {
            var fields = text.TrimStart(InSecond).Split('\u0001');
            if (fields.Length == 6)
            {
                (text.StartsWith(InSecond) ? after : before)[fields[0]] = fields;
            }
        }

        var (changes, touched) = (new List<ChangedFile>(), new List<string>());
        foreach (var path in before.Keys.Union(after.Keys))
        {
            var (old, present) = (before.GetValueOrDefault(path), after.GetValueOrDefault(path));

            // A device is how an overlay says that a file of the company's was removed.
            var (was, isThere) = (old is not null && old[1] != "c", present is not null && present[1] != "c");
            var change = was && isThere ? FileChange.Changed : isThere ? FileChange.Added : FileChange.Removed;
            changes.Add(new ChangedFile("/" + path, layer, change, Number((present ?? old!)[2])));
            if (change == FileChange.Changed && old![1] == "f" && present![1] == "f" && old[2] == present[2] && old[4] == present[4])
            {
                touched.Add(path);
            }
        }

        return (changes, touched, untrusted.Length > 0 && untrusted[^1] != 0);
    }

    private static List<string> Texts(byte[] untrusted)
    {
        var texts = Encoding.UTF8.GetString(untrusted).Split('\0');
        return [.. texts.Take(texts.Length - 1)];
    }

    private static long Number(string untrusted) => long.TryParse(untrusted, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number) ? number : 0;

    private static bool IsOurs(string name) => name.StartsWith(Prefix, StringComparison.Ordinal);

    private static NacreException Unreadable(string what, string why) => new(ErrorCatalogue.MomentUnreadable, $"{what} can't be read: {why}");

    private static string LayerOf(string path, IReadOnlyList<(string Path, string Layer)> mounts)
    {
        var mount = mounts.Where(mount => path == mount.Path || mount.Path == "/" || path.StartsWith(mount.Path + "/", StringComparison.Ordinal)).MaxBy(mount => mount.Path.Length);
        return MomentStore.Layers.Contains(mount.Layer)
            ? mount.Layer
            : throw new NacreException(ErrorCatalogue.NotFound, $"'{path}' is in none of the layers that are kept, so no moment has it");
    }

    private async Task<IReadOnlyList<(string Path, string Layer)>> MountsAsync(CancellationToken cancellationToken)
    {
        var result = await agent.ExecuteAsync("/bin/sh", ["-c", GuestScripts.Mounts], null, cancellationToken).ConfigureAwait(false);
        return [.. Encoding.UTF8.GetString(result.Output).Split('\n').Select(line => line.Split(' ')).Where(fields => fields.Length >= 2).Select(fields => (fields[0], fields[1]))];
    }

    /// <summary>Runs a script in mounts of its own, and says in words what its exit code means.</summary>
    private async Task<byte[]> RunAsync(string script, IReadOnlyList<string> arguments, byte[]? input, string what, CancellationToken cancellationToken)
    {
        var result = await agent.ExecuteAsync(
            "/usr/bin/unshare", ["-m", "--propagation", "private", "/bin/bash", "-c", script, "nacre", .. arguments], input, cancellationToken).ConfigureAwait(false);
        return result.ExitCode switch
        {
            0 => result.Output,
            GuestScripts.NotThere => throw new NacreException(ErrorCatalogue.NotFound, $"there is no {what}"),
            GuestScripts.ThroughLink => throw Unreadable(what, "a symbolic link lies on the way: give the path that it leads to"),
            GuestScripts.NoFolder => throw Unreadable(what, "the folder that it is to go to does not exist"),
            GuestScripts.NoDisk => throw Unreadable(what, "its disk did not appear in the guest"),
            _ => throw Unreadable(what, Words(result)),
        };
    }

    private static string Words(GuestCommandResult result)
    {
        var last = Encoding.UTF8.GetString(result.Error).Split('\n', StringSplitOptions.RemoveEmptyEntries).LastOrDefault() ?? $"exit code {result.ExitCode}";
        return GuestText.Plain(last) is var words && words.Length <= 300 ? words : words[..300];
    }

    private async Task UnplugAsync(string name)
    {
        var gone = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        void OnEvent(string happened, JsonNode? data)
        {
            if (happened == "DEVICE_DELETED" && data?["device"] is JsonValue value && value.TryGetValue<string>(out var device) && device == name)
            {
                gone.TrySetResult();
            }
        }

        qmp.EventRaised += OnEvent;
        try
        {
            using var limit = new CancellationTokenSource(UnplugLimit);
            await qmp.ExecuteAsync("device_del", new JsonObject { ["id"] = name }, limit.Token).ConfigureAwait(false);
            await gone.Task.WaitAsync(limit.Token).ConfigureAwait(false);
        }
        catch (Exception exception) when (exception is NacreException or OperationCanceledException)
        {
            // A guest that does not let go of it keeps a disk that answers nothing, until its end.
        }
        finally
        {
            qmp.EventRaised -= OnEvent;
        }
    }

    private async Task RemoveNodeAsync(string name)
    {
        try
        {
            await qmp.ExecuteAsync("blockdev-del", new JsonObject { ["node-name"] = name }, CancellationToken.None).ConfigureAwait(false);
        }
        catch (NacreException)
        {
            // Still in use, or gone.
        }
    }

    /// <summary>The disks that are plugged in for one question.</summary>
    private sealed class Disks(MomentViews views) : IAsyncDisposable
    {
        private readonly List<string> plugged = [];

        /// <summary>Plugs a layer of a moment in, and returns its serial number; <c>-</c> for one that holds nothing.</summary>
        public async Task<string> PlugAsync(Moment moment, string layer, CancellationToken cancellationToken)
        {
            if (moment.Bytes[layer] == 0)
            {
                return "-";
            }

            var name = Prefix + RandomNumberGenerator.GetHexString(8, lowercase: true);
            views.nbd.AddExport(name, views.moments.Open(moment, layer));
            plugged.Add(name);
            await views.qmp.ExecuteAsync("blockdev-add", Qemu.DiskNode(new GuestDisk(name, name, IsReadOnly: true), views.nbdSocket, reconnectDelay: 0), cancellationToken).ConfigureAwait(false);
            await views.qmp.ExecuteAsync(
                "device_add", new JsonObject { ["driver"] = "virtio-blk-pci", ["id"] = name, ["drive"] = name, ["serial"] = name }, cancellationToken).ConfigureAwait(false);
            return name;
        }

        public async ValueTask DisposeAsync()
        {
            foreach (var name in plugged)
            {
                await views.UnplugAsync(name).ConfigureAwait(false);
                await views.RemoveNodeAsync(name).ConfigureAwait(false);
                views.nbd.RemoveExport(name);
            }
        }
    }
}
