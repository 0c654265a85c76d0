using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Volumes;

namespace Nacre.Player.LivePcs;

/// <summary>The volumes of a running LivePC; closing it closes them, last opened first.</summary>
internal sealed class OpenVolumes : IAsyncDisposable
{
    private readonly Dictionary<string, IBlockDevice> exports = new(StringComparer.Ordinal);
    private readonly List<IBlockDevice> order = [];
    private readonly List<(string Directory, ScratchKey Key)> temporary = [];
    private Task cleaning = Task.CompletedTask;

    public IReadOnlyDictionary<string, IBlockDevice> Exports => exports;

    public void Add(string name, IBlockDevice device)
    {
        exports.Add(name, device);
        order.Add(device);
    }

    /// <summary>Opens one of the user's layers; made at the first start.</summary>
    public void Open(string layer, string directory, long size, byte[] slotKey) => Add(layer, () => Directory.Exists(directory)
        ? Volume.Open(directory, slotKey)
        : Volume.Create(directory, new VolumeOptions { Size = size }, slotKey));

    /// <summary>Puts a layer back to blank: a new volume under a new key that only memory holds. What was there before is noise.</summary>
    public void Renew(string layer, string directory, long size, ScratchKey key)
    {
        // Moved aside first: how long it takes to free the old blocks does not matter to the start.
        if (Directory.Exists(directory))
        {
            Directory.Move(directory, $"{directory}.{Guid.NewGuid():N}.old");
        }

        var fresh = key.Renew();
        Add(layer, () => Volume.Create(directory, new VolumeOptions { Size = size, Volatile = true }, fresh));
        CryptographicOperations.ZeroMemory(fresh);
        temporary.Add((directory, key));
        cleaning = Task.Run(() => DeleteOld(directory));
    }

    /// <summary>Opens a layer that a killed player had put back to blank, as its guest left it.</summary>
    /// <exception cref="NacreException">NotFound: its key is gone.</exception>
    public void Resume(string layer, string directory, ScratchKey key)
    {
        var kept = key.TryRead() ?? throw new NacreException(ErrorCatalogue.NotFound, $"the key of the layer '{layer}' is gone");
        Add(layer, () => Volume.Open(directory, kept, new VolumeOptions { Volatile = true }));
        CryptographicOperations.ZeroMemory(kept);
        temporary.Add((directory, key));
    }

    public async ValueTask DisposeAsync()
    {
        temporary.ForEach(layer => layer.Key.Forget());
        await cleaning.ConfigureAwait(false);
        order.Reverse();
        foreach (var device in order)
        {
            await device.DisposeAsync().ConfigureAwait(false);
        }

        foreach (var (directory, _) in temporary.Where(layer => Directory.Exists(layer.Directory)))
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    private void Add(string layer, Func<Volume> open)
    {
        try
        {
            Add(layer, open());
        }
        catch (VolumeException exception)
        {
            throw VolumeErrors.OfVolume(exception, layer);
        }
    }

    /// <summary>Deletes what earlier starts left of a layer.</summary>
    private static void DeleteOld(string directory)
    {
        foreach (var old in Directory.GetDirectories(Path.GetDirectoryName(directory)!, $"{Path.GetFileName(directory)}.*.old"))
        {
            Directory.Delete(old, recursive: true);
        }
    }
}
