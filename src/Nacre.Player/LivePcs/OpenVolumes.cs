using Nacre.Volumes;

namespace Nacre.Player.LivePcs;

/// <summary>The volumes of a running LivePC; closing it closes them, last opened first.</summary>
internal sealed class OpenVolumes : IAsyncDisposable
{
    private readonly Dictionary<string, IBlockDevice> exports = new(StringComparer.Ordinal);
    private readonly List<IBlockDevice> order = [];
    private readonly List<string> temporary = [];
    private Task cleaning = Task.CompletedTask;

    public IReadOnlyDictionary<string, IBlockDevice> Exports => exports;

    public void Add(string name, IBlockDevice device)
    {
        exports.Add(name, device);
        order.Add(device);
    }

    /// <summary>Opens one of the user's layers; made at the first start.</summary>
    public Task OpenAsync(string layer, string directory, long size, byte[] slotKey)
    {
        try
        {
            Add(layer, Directory.Exists(directory)
                ? Volume.Open(directory, slotKey)
                : Volume.Create(directory, new VolumeOptions { Size = size }, slotKey));
            return Task.CompletedTask;
        }
        catch (VolumeException exception)
        {
            throw VolumeErrors.OfVolume(exception, layer);
        }
    }

    /// <summary>Puts a layer back to blank: a new volume under a new key that exists in memory only. What was there before is noise.</summary>
    public void Renew(string layer, string directory, long size)
    {
        try
        {
            // Moved aside first: how long it takes to free the old blocks does not matter to the start.
            if (Directory.Exists(directory))
            {
                Directory.Move(directory, $"{directory}.{Guid.NewGuid():N}.old");
            }

            Add(layer, Volume.CreateEphemeral(directory, size));
            temporary.Add(directory);
            cleaning = Task.Run(() => DeleteOld(directory));
        }
        catch (VolumeException exception)
        {
            throw VolumeErrors.OfVolume(exception, layer);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await cleaning.ConfigureAwait(false);
        order.Reverse();
        foreach (var device in order)
        {
            await device.DisposeAsync().ConfigureAwait(false);
        }

        foreach (var directory in temporary.Where(Directory.Exists))
        {
            Directory.Delete(directory, recursive: true);
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
