using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;

namespace Nacre.Player;

/// <summary>Where the player keeps things. Everything under <see cref="State"/> is ciphertext or public, but for the device's key file.</summary>
public sealed partial class PlayerPaths
{
    private PlayerPaths(string state, string runtime, string? memory)
    {
        State = state;
        Runtime = runtime;
        Memory = memory;
    }

    /// <summary>What lasts: identity, leases, the segment cache, volumes.</summary>
    public string State { get; }

    /// <summary>Sockets of what runs now; gone with the host's next start.</summary>
    public string Runtime { get; }

    /// <summary>A folder that only memory holds: <see cref="Runtime"/> where that is one, else one in <c>/dev/shm</c>; null where there is none.</summary>
    public string? Memory { get; }

    /// <summary>The cached segments of all LivePCs.</summary>
    public string Segments => Path.Combine(State, "segments");

    /// <summary>Cached indexes of releases (encrypted).</summary>
    public string Indexes => Path.Combine(State, "indexes");

    /// <summary>Held locked while a lease is kept, and while what no kept lease needs is removed from the cache.</summary>
    public string CacheLock => Path.Combine(State, "segments.lock");

    /// <summary>The folder with a folder for each LivePC.</summary>
    public string LivePcs => Path.Combine(State, "livepcs");

    /// <summary>What was found out about this host's accelerators.</summary>
    public string Accelerator => Path.Combine(State, "accelerator.json");

    /// <summary>Finds the places: <c>NACRE_HOME</c>, else <c>$XDG_DATA_HOME/nacre</c>, else <c>~/.local/share/nacre</c>; sockets in
    /// <c>$XDG_RUNTIME_DIR/nacre</c>, <c>/run/nacre</c> (root) or <c>/tmp/nacre-UID</c>. Makes both, open to their user only.</summary>
    /// <exception cref="NacreException">FileAccess.</exception>
    public static PlayerPaths Open()
    {
        var state = StatePath();
        var user = GetUserId();
        var runtimes = Environment.GetEnvironmentVariable("XDG_RUNTIME_DIR") is { Length: > 0 } runtime && Directory.Exists(runtime)
            ? Path.Combine(runtime, "nacre") : user == 0 ? "/run/nacre" : $"/tmp/nacre-{user}";

        // A unix socket's path has at most 107 bytes, so the state folder appears in it as a short digest.
        var digest = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(state)))[..8];
        string? memory;
        try
        {
            MakePrivate(state);
            MakePrivate(runtimes);
            MakePrivate(Path.Combine(runtimes, digest));
            memory = IsInMemory(Path.Combine(runtimes, digest)) ? Path.Combine(runtimes, digest) : MakeInMemory($"/dev/shm/nacre-{user}", digest);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, exception.Message, exception);
        }

        return new PlayerPaths(state, Path.Combine(runtimes, digest), memory);
    }

    /// <summary>Whether this user's player has a folder.</summary>
    public static bool Exists() => Directory.Exists(StatePath());

    private static string StatePath() => Environment.GetEnvironmentVariable("NACRE_HOME") is { Length: > 0 } home ? Path.GetFullPath(home) : Path.Combine(
            Environment.GetEnvironmentVariable("XDG_DATA_HOME") is { Length: > 0 } data
                ? data : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".local", "share"), "nacre");

    /// <summary>Makes a folder that only its user can enter; refuses one that belongs to somebody else or is open to others.</summary>
    internal static void MakePrivate(string folder)
    {
        const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        Directory.CreateDirectory(folder, Private);
        if (new DirectoryInfo(folder).LinkTarget is not null)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"'{folder}' is a link; the player's folders must be folders");
        }

        // Fails for anybody but the owner: a folder that another user made under /tmp is not used.
        File.SetUnixFileMode(folder, Private);
    }

    /// <summary>Whether what is written there is in memory and nowhere else (or in the host's swap, as all memory may be).</summary>
    private static bool IsInMemory(string folder) => new DriveInfo(folder).DriveFormat is "tmpfs" or "ramfs";

    private static string? MakeInMemory(string parent, string name)
    {
        try
        {
            var folder = Path.Combine(parent, name);
            if (Directory.Exists("/dev/shm") && IsInMemory("/dev/shm"))
            {
                MakePrivate(parent);
                MakePrivate(folder);
                return folder;
            }
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or NacreException)
        {
            // Somebody else's, or full: there is none then.
        }

        return null;
    }

    [LibraryImport("libc", EntryPoint = "getuid")]
    private static partial uint GetUserId();
}
