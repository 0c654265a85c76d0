using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Player.Keys;
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

    /// <summary>Serves an open volume under another name too.</summary>
    public void Alias(string name, Volume volume) => exports.Add(name, volume);

    /// <summary>Opens one of the user's layers; made at the first start.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="directory">Its volume's folder.</param>
    /// <param name="size">The size of a new volume.</param>
    /// <param name="slotKey">Its key.</param>
    /// <param name="newest">What it must not be older than; null where nothing is known, or anything is accepted.</param>
    /// <exception cref="NacreException">VolumeOutdated, and whatever keeps the volume from being opened.</exception>
    public Volume Open(string layer, string directory, long size, SecretBytes slotKey, VolumeAnchor? newest) => Add(layer, () => Directory.Exists(directory)
        ? Volume.Open(directory, slotKey.Span, new VolumeOptions { Anchor = newest })
        : newest is not { } gone
        ? Volume.Create(directory, new VolumeOptions { Size = size }, slotKey.Span)
        : throw new VolumeException(VolumeErrorKind.Outdated, $"the volume {gone.VolumeId}, which was at {gone.Position}, is gone"));

    /// <summary>Puts a layer back to blank: a new volume under a new key that only memory holds. What was there before is noise.</summary>
    public Volume Renew(string layer, string directory, long size, ScratchKey key)
    {
        // Moved aside first: how long it takes to free the old blocks does not matter to the start.
        if (Directory.Exists(directory))
        {
            Directory.Move(directory, $"{directory}.{Guid.NewGuid():N}.old");
        }

        var fresh = key.Renew();
        var blank = Add(layer, () => Volume.Create(directory, new VolumeOptions { Size = size, Volatile = true }, fresh));
        CryptographicOperations.ZeroMemory(fresh);
        temporary.Add((directory, key));
        cleaning = Task.Run(() => DeleteOld(directory));
        return blank;
    }

    /// <summary>Opens a layer that a killed player had put back to blank, as its guest left it.</summary>
    /// <exception cref="NacreException">NotFound: its key is gone.</exception>
    public Volume Resume(string layer, string directory, ScratchKey key)
    {
        var kept = key.TryRead() ?? throw new NacreException(ErrorCatalogue.NotFound, $"the key of the layer '{layer}' is gone");
        var resumed = Add(layer, () => Volume.Open(directory, kept, new VolumeOptions { Volatile = true }));
        CryptographicOperations.ZeroMemory(kept);
        temporary.Add((directory, key));
        return resumed;
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

    private Volume Add(string layer, Func<Volume> open)
    {
        try
        {
            var volume = open();
            Add(layer, volume);
            return volume;
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
