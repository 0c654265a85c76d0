using Nacre.Contracts;
using Nacre.Player.Stacks;
using Nacre.Player.UserPackages;

namespace Nacre.Player.LivePcs;

/// <summary>The folder of one LivePC on this device: its kept lease, which corporate layers start, and its volumes.</summary>
internal sealed class LivePcFolder
{
    private readonly string? memory;

    public LivePcFolder(PlayerPaths paths, string name)
    {
        Name = Names.Parse(name, "a LivePC");
        Root = Path.Combine(paths.LivePcs, Name);
        Sockets = Path.Combine(paths.Runtime, Name);
        memory = paths.Memory;
        ScratchKey = new ScratchKey(memory, Name);
        CacheLock = paths.CacheLock;
    }

    /// <summary>The folders of one LivePC, or of all that this device has; a link is none.</summary>
    public static IEnumerable<LivePcFolder> All(PlayerPaths paths, string? livePc) => (livePc is not null ? [livePc]
        : Directory.Exists(paths.LivePcs) ? Directory.GetDirectories(paths.LivePcs).Select(folder => Path.GetFileName(folder)!).Where(Names.IsValid) : [])
        .Select(name => new LivePcFolder(paths, name)).Where(folder => new DirectoryInfo(folder.Root).LinkTarget is null);

    public string Name { get; }

    public string Root { get; }

    /// <summary>The folder of the sockets while it runs.</summary>
    public string Sockets { get; }

    public string ControlSocket => Path.Combine(Sockets, "player.sock");

    public string NbdSocket => Path.Combine(Sockets, "nbd.sock");

    /// <summary>See <see cref="PlayerPaths.CacheLock"/>.</summary>
    public string CacheLock { get; }

    /// <summary>The key of its scratch layer.</summary>
    public ScratchKey ScratchKey { get; }

    /// <summary>The key of a layer of the user's that nothing is kept of.</summary>
    public ScratchKey DisposableKey(string layer) => new(memory, $"{Name}.{layer}");

    /// <summary>What runs, for a player that goes on after this one was killed; null where nothing does.</summary>
    public MachineRecord? Machine
    {
        get => DurableFile.ReadJson<MachineRecord>(MachinePath);
        set
        {
            if (value is null)
            {
                File.Delete(MachinePath);
            }
            else
            {
                DurableFile.WriteJson(MachinePath, value);
            }
        }
    }

    /// <summary>Why the guest that runs is locked.</summary>
    public string Locks => Path.Combine(Sockets, "locks.json");

    /// <summary>Where viewers find the guest's screen.</summary>
    public string ScreenSocket => Path.Combine(Sockets, "screen.sock");

    /// <summary>Where the player's own errors go.</summary>
    public string Log => Path.Combine(Sockets, "player.log");

    /// <summary>What happened to it, for who helps: see <see cref="Logs.LivePcLog"/>.</summary>
    public string EventLog => Path.Combine(Root, "log");

    /// <summary>Held locked while a player runs this LivePC.</summary>
    public string Lock => Path.Combine(Root, "lock");

    /// <summary>The slots of the key that opens its volumes.</summary>
    public string Keys => Path.Combine(Root, "keys.json");

    /// <summary>How often a wrong password was tried.</summary>
    public string Attempts => Path.Combine(Root, "attempts");

    public string Volume(string layer) => Path.Combine(Root, "volumes", layer);

    /// <summary>Where a layer of the user's is that nothing is kept of, beside the one that lies untouched meanwhile.</summary>
    public string DisposableVolume(string layer) => Volume($"disposable-{layer}");

    /// <summary>Whether the next start puts the system layer back to clean where the policy would keep it.</summary>
    public bool IsSystemToClean
    {
        get => File.Exists(Volume(KeptSystem.Layer) + ".clean");
        set
        {
            if (!value)
            {
                DurableFile.Delete(Volume(KeptSystem.Layer) + ".clean");
            }
            else if (Directory.Exists(Volume(KeptSystem.Layer)))
            {
                DurableFile.Write(Volume(KeptSystem.Layer) + ".clean", []);
            }
        }
    }

    /// <summary>The lease as the server granted it last; secrets in it are encrypted to the device's key.</summary>
    public LeaseGrant? Grant
    {
        get => DurableFile.ReadJson<LeaseGrant>(GrantPath);
        set => DurableFile.WriteJson(GrantPath, value!);
    }

    /// <summary>What is known of the newest states of its user layers.</summary>
    public string Anchors => Path.Combine(Root, "anchors");

    /// <summary>Whether a start with this layer has succeeded: only before that may the guest format its disk whatever is on it.</summary>
    public bool IsInUse(string layer) => File.Exists(Volume(layer) + ".in-use");

    /// <summary>When the first start with this layer succeeded; null: none has.</summary>
    public DateTimeOffset? InUseSince(string layer) => IsInUse(layer) ? File.GetLastWriteTimeUtc(Volume(layer) + ".in-use") : null;

    public void SetInUse(string layer) => DurableFile.Write(Volume(layer) + ".in-use", []);

    /// <summary>Takes that back, durably, before the layer is put back to blank.</summary>
    public void ForgetInUse(string layer) => DurableFile.Delete(Volume(layer) + ".in-use");

    /// <summary>Which terms of use the user agreed to; null: none.</summary>
    public string? AcceptedTerms
    {
        get => DurableFile.ReadJson<string>(AcceptedTermsPath);
        set => DurableFile.WriteJson(AcceptedTermsPath, value!);
    }

    /// <summary>The corporate layers that ran last on the user's; null before the first start.</summary>
    public CorporateStack? Started
    {
        get => DurableFile.ReadJson<CorporateStack>(StartedPath);
        set => DurableFile.WriteJson(StartedPath, value!);
    }

    /// <summary>What the user chose for the next start where packages of theirs can't be carried; null where nothing is chosen.</summary>
    public UserPackageChoice? UserPackages
    {
        get => DurableFile.ReadJson<ChosenConflicts>(UserPackagesPath)?.Choice;
        set
        {
            if (value is { } choice)
            {
                DurableFile.WriteJson(UserPackagesPath, new ChosenConflicts(choice));
            }
            else
            {
                DurableFile.Delete(UserPackagesPath);
            }
        }
    }

    /// <summary>The administrator's orders that were dealt with.</summary>
    public string Orders => Path.Combine(Root, "orders");

    /// <summary>How long codes of the help desk put off the end of the lease.</summary>
    public string Extension => Path.Combine(Root, "extension");

    /// <summary>Takes the LivePC for this process.</summary>
    /// <exception cref="NacreException">AlreadyRunning.</exception>
    public FileStream Hold()
    {
        try
        {
            return new FileStream(Lock, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException exception)
        {
            throw new NacreException(ErrorCatalogue.AlreadyRunning, $"'{Name}' runs already", exception);
        }
    }

    /// <summary>Where the kept lease is.</summary>
    public string GrantPath => Path.Combine(Root, "lease.json");

    private string MachinePath => Path.Combine(Sockets, "machine.json");

    private string UserPackagesPath => Path.Combine(Root, "user-packages.json");

    private string AcceptedTermsPath => Path.Combine(Root, "accepted-terms.json");

    private string StartedPath => Path.Combine(Root, "started.json");

    public void Create()
    {
        PlayerPaths.MakePrivate(Root);
        PlayerPaths.MakePrivate(Path.Combine(Root, "volumes"));
        PlayerPaths.MakePrivate(Sockets);
    }

    private sealed record ChosenConflicts(UserPackageChoice Choice);
}
