using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.LivePcs;

namespace Nacre.Player.Erasure;

/// <summary>What is being destroyed, as it is written down before anything is.</summary>
/// <param name="Id">The order's number, or one of this device's own.</param>
/// <param name="LivePc">The LivePC; null: all of them, and the identity.</param>
/// <param name="Mode">How.</param>
/// <param name="Scope">Which files go with the keys.</param>
/// <param name="Order">The signed order, which a receipt is due for; null: the device does it by itself.</param>
/// <param name="Reason">Why, for people.</param>
internal sealed record ErasureEntry(string Id, string? LivePc, KillMode Mode, WipeScope Scope, string? Order, string Reason);

/// <summary>
/// Destroys a LivePC's keys on this device, or all of them with its identity, then files. What is to be done is written down first, and each step can be done again, so
/// that who is interrupted anywhere is gone on with: before any command does anything else. Nothing outside the player's folders is touched. Not thread-safe.
/// </summary>
/// <remarks>The order: keys; the guest; keys again (a player that ended may have written some); files; the receipt, signed while there is a key to sign with; the
/// identity; what was written down.</remarks>
internal sealed class Eraser
{
    private const string LockName = "lock";
    private static readonly TimeSpan GuestLimit = TimeSpan.FromSeconds(30), Step = TimeSpan.FromMilliseconds(50);

    /// <summary>What stays of the player's folder until a device was killed: what says that it was.</summary>
    private static readonly string[] Last = ["erasing", "receipts"];

    private readonly PlayerPaths paths;
    private readonly TimeProvider time;
    private readonly Action<string>? atStep;

    /// <param name="paths">The player's folders.</param>
    /// <param name="time">The clock of receipts.</param>
    /// <param name="atStep">Told each step before it is taken: where a test interrupts.</param>
    public Eraser(PlayerPaths paths, TimeProvider time, Action<string>? atStep = null)
    {
        this.paths = paths;
        this.time = time;
        this.atStep = atStep;
    }

    /// <summary>Whether something is to be destroyed, or was and is not finished.</summary>
    public static bool IsUnderWay(PlayerPaths paths) => Directory.Exists(Journal(paths)) && Directory.EnumerateFiles(Journal(paths), "*.json").Any();

    /// <summary>Writes down what is to be destroyed, durably. From here on it will be.</summary>
    public void Begin(ErasureEntry entry)
    {
        PlayerPaths.MakePrivate(Journal(paths));
        DurableFile.WriteJson(Path.Combine(Journal(paths), entry.Id + ".json"), entry);
    }

    /// <summary>Whether it takes a LivePC.</summary>
    public static bool Takes(ErasureEntry entry, string livePc) => entry.LivePc is null || entry.LivePc == livePc;

    /// <summary>Destroys what is written down.</summary>
    /// <returns>What was destroyed.</returns>
    public async Task<IReadOnlyList<ErasureEntry>> GoOnAsync(CancellationToken cancellationToken)
    {
        if (!IsUnderWay(paths))
        {
            return [];
        }

        FileStream single;
        try
        {
            single = new FileStream(Path.Combine(Journal(paths), LockName), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException)
        {
            return []; // another process is at it
        }

        var done = new List<ErasureEntry>();
        NacreException? failure = null;
        await using (single.ConfigureAwait(false))
        {
            foreach (var file in Directory.GetFiles(Journal(paths), "*.json").Order(StringComparer.Ordinal))
            {
                // What nobody can read says nothing; and a name that is none never becomes a path.
                if (DurableFile.ReadJson<ErasureEntry>(file) is { } entry && Names.IsOrderId(entry.Id) && (entry.LivePc is null || Names.IsValid(entry.LivePc)))
                {
                    try
                    {
                        await CarryOutAsync(entry, cancellationToken).ConfigureAwait(false);
                        done.Add(entry);
                    }
                    catch (NacreException exception)
                    {
                        failure ??= exception;
                        continue;
                    }
                }

                DurableFile.Delete(file);
            }
        }

        return failure is null ? done : throw failure;
    }

    /// <summary>Destroys the keys, and nothing else: milliseconds.</summary>
    /// <returns>How many files had some.</returns>
    public int EraseKeys(ErasureEntry entry)
    {
        atStep?.Invoke("keys");
        var count = 0;
        foreach (var folder in Folders(entry))
        {
            // All that is not a volume's content: the lease with the share and the releases' keys, key files, what is authenticated with them; and the slots of the volumes.
            foreach (var file in ErasedFiles.Below(folder).Where(file => IsKey(folder, file)))
            {
                count += ErasedFiles.Overwrite(file) ? 1 : 0;
            }

            // Of the scratch layer, and of layers that nothing is kept of.
            foreach (var key in paths.Memory is { } memory && Directory.Exists(memory) ? Directory.GetFiles(memory, Path.GetFileName(folder) + ".*scratch") : [])
            {
                count += ErasedFiles.Overwrite(key) ? 1 : 0;
            }
        }

        if (entry.LivePc is null)
        {
            count += ErasedFiles.Overwrite(Path.Combine(paths.State, "device.secret")) ? 1 : 0;
        }

        return count;
    }

    private static bool IsKey(string folder, string file) =>
        Path.GetDirectoryName(file) == folder ? Path.GetFileName(file) != LockName : Path.GetFileName(file).StartsWith("header", StringComparison.Ordinal);

    private static string Journal(PlayerPaths paths) => Path.Combine(paths.State, "erasing");

    private async Task CarryOutAsync(ErasureEntry entry, CancellationToken cancellationToken)
    {
        try
        {
            var keys = EraseKeys(entry);
            atStep?.Invoke("guest");
            using var held = await EndGuestsAsync(entry, cancellationToken).ConfigureAwait(false);
            keys += EraseKeys(entry);
            atStep?.Invoke("files");
            var files = entry.Mode == KillMode.Both ? RemoveFiles(entry) : SetAside(entry);
            atStep?.Invoke("receipt");
            Sign(entry, true, $"{entry.Reason}: {keys} files with keys were overwritten and removed{(entry.Mode == KillMode.Both ? $", and {files} others removed" : "")}");
            atStep?.Invoke("identity");
            if (entry.LivePc is null)
            {
                EraseIdentity(entry.Mode);
            }

            atStep?.Invoke("end");
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or NacreException)
        {
            // Written down still: the next command tries again.
            Sign(entry, false, exception.Message);
            throw new NacreException(ErrorCatalogue.FileAccess, $"{entry.Reason}, and not all of it could be destroyed: {exception.Message}", exception);
        }
    }

    private IReadOnlyList<string> Folders(ErasureEntry entry) => entry.LivePc is { } name ? [Path.Combine(paths.LivePcs, name)]
        : Directory.Exists(paths.LivePcs) && new DirectoryInfo(paths.LivePcs).LinkTarget is null ? [.. Directory.GetFileSystemEntries(paths.LivePcs).Where(Directory.Exists)] : [];

    /// <summary>Switches off what runs; its memory goes with it. Returns with the LivePCs held, so that nothing starts.</summary>
    private async Task<Held> EndGuestsAsync(ErasureEntry entry, CancellationToken cancellationToken)
    {
        var held = new Held();
        try
        {
            foreach (var name in Folders(entry).Where(folder => new DirectoryInfo(folder).LinkTarget is null).Select(folder => Path.GetFileName(folder)).Where(Names.IsValid))
            {
                var folder = new LivePcFolder(paths, name);
                for (var waited = TimeSpan.Zero; ; waited += Step)
                {
                    using (var running = LeftOver.Find(folder))
                    {
                        if (running is not null)
                        {
                            await running.EndAsync().WaitAsync(GuestLimit, cancellationToken).ConfigureAwait(false);
                        }
                    }

                    if (!Directory.Exists(folder.Root) || held.TryAdd(folder))
                    {
                        break;
                    }

                    if (waited > GuestLimit)
                    {
                        throw new NacreException(ErrorCatalogue.AlreadyRunning, $"the player of '{name}' does not end");
                    }

                    await Task.Delay(Step, TimeProvider.System, cancellationToken).ConfigureAwait(false);
                }
            }

            return held;
        }
        catch (TimeoutException exception)
        {
            held.Dispose();
            throw new NacreException(ErrorCatalogue.AlreadyRunning, "a guest does not end", exception);
        }
        catch
        {
            held.Dispose();
            throw;
        }
    }

    private int RemoveFiles(ErasureEntry entry)
    {
        var count = Folders(entry).Sum(ErasedFiles.RemoveTree);

        // Cached releases belong to all LivePCs of the device: while there is another one they stay.
        if (entry.Scope == WipeScope.All && (entry.LivePc is null || !Directory.Exists(paths.LivePcs) || !Directory.EnumerateFileSystemEntries(paths.LivePcs).Any()))
        {
            count += ErasedFiles.RemoveTree(paths.Segments) + ErasedFiles.RemoveTree(paths.Indexes);
        }

        return count;
    }

    /// <summary>What is left without keys is noise, and in nobody's way.</summary>
    private int SetAside(ErasureEntry entry)
    {
        foreach (var folder in Folders(entry).Where(Directory.Exists))
        {
            PlayerPaths.MakePrivate(Path.Combine(paths.State, "erased"));
            Directory.Move(folder, Path.Combine(paths.State, "erased", $"{Path.GetFileName(folder)}-{entry.Id}-{RandomNumberGenerator.GetHexString(8, lowercase: true)}"));
        }

        return 0;
    }

    /// <summary>Signs the receipt, where one is due and this device still can; it lasts until the server has it.</summary>
    private void Sign(ErasureEntry entry, bool succeeded, string detail)
    {
        try
        {
            if (entry.Order is null)
            {
                return;
            }

            using var identity = EnrolledIdentity.Open(paths);
            var receipt = (succeeded && ReceiptBox.Has(paths, entry.Id, succeeded: true) ? ReceiptBox.Find(paths, entry.Id) : null)
                ?? new ReceiptBox(paths).Sign(identity, entry.Id, entry.Order, succeeded, detail, time.GetUtcNow());
            if (succeeded && entry.LivePc is not null)
            {
                new DoneOrders(paths, identity).Remember(entry.Id, receipt);
            }
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotEnrolled)
        {
            // The identity is gone: the receipt was signed before it went.
        }
    }

    private void EraseIdentity(KillMode mode)
    {
        foreach (var file in new DirectoryInfo(paths.State).EnumerateFiles().Where(file => file.Name != "device.json").Select(file => file.FullName).ToList())
        {
            ErasedFiles.Overwrite(file);
        }

        foreach (var folder in new DirectoryInfo(paths.State).EnumerateDirectories().Where(folder => !Last.Contains(folder.Name)).ToList())
        {
            if (mode == KillMode.Both || folder.Name == "trust")
            {
                ErasedFiles.RemoveTree(folder.FullName);
            }
        }

        ErasedFiles.Overwrite(Path.Combine(paths.State, "device.json"));
    }

    private sealed class Held : IDisposable
    {
        private readonly List<FileStream> locks = [];

        public bool TryAdd(LivePcFolder folder)
        {
            try
            {
                locks.Add(folder.Hold());
                return true;
            }
            catch (NacreException exception) when (exception.Kind == ErrorCatalogue.AlreadyRunning)
            {
                return false;
            }
        }

        public void Dispose() => locks.ForEach(file => file.Dispose());
    }
}
