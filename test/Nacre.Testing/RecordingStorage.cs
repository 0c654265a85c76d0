using Nacre.Volumes;
using Nacre.Volumes.Storage;

namespace Nacre.Testing;

/// <summary>A folder in memory that records every change, can rebuild what a power loss at any moment may leave, and injects faults.</summary>
/// <remarks>What is kept: of each file everything before its last completed sync; of the folder everything before its last sync, and a
/// prefix of the rest, as a journaling file system does. Later writes survive in any subset, torn at 512 bytes. Thread-safe.</remarks>
internal sealed class RecordingStorage : IVolumeStorage
{
    private readonly Lock _gate = new();
    private readonly Dictionary<string, MemoryFile> _names = [];
    private readonly List<Change> _changes = [];
    private bool _locked;

    /// <summary>Called before each operation with its name and the file's; throws to inject a fault.</summary>
    public Action<string, string>? Before { get; set; }

    public int Changes
    {
        get
        {
            lock (_gate)
            {
                return _changes.Count;
            }
        }
    }

    public int DataSyncs { get; private set; }

    public bool IsRecording { get; init; } = true;

    public IReadOnlyDictionary<string, byte[]> Content
    {
        get
        {
            lock (_gate)
            {
                return _names.ToDictionary(pair => pair.Key, pair => pair.Value.Bytes.ToArray());
            }
        }
    }

    /// <summary>A folder with these files, all durable: a power loss leaves at least them.</summary>
    public static RecordingStorage Of(IReadOnlyDictionary<string, byte[]> files, bool isRecording = true)
    {
        var storage = new RecordingStorage { IsRecording = isRecording };
        foreach (var (name, bytes) in files)
        {
            var file = new MemoryFile(storage, name) { Bytes = bytes.ToArray() };
            storage._names[name] = file;
            if (isRecording)
            {
                storage.Record(new Change("create", file, name));
                storage.Record(new Change("write", file, name, Bytes: bytes));
                storage.Record(new Change("sync", file, name));
            }
        }

        storage.Record(new Change("syncfolder", null, ""));
        return storage;
    }

    /// <summary>What the folder may hold after the power failed when <paramref name="cut"/> changes had been made.</summary>
    public Dictionary<string, byte[]> AfterPowerLoss(int cut, Random random)
    {
        var lastSync = new Dictionary<MemoryFile, int>();
        var lastFolderSync = -1;
        for (var i = 0; i < cut; i++)
        {
            if (_changes[i] is { Operation: "sync" } sync)
            {
                lastSync[sync.File!] = i;
            }
            else if (_changes[i].Operation == "syncfolder")
            {
                lastFolderSync = i;
            }
        }

        var folderCut = lastFolderSync + 1 + random.Next(cut - lastFolderSync);
        var keepChance = random.Next(3) * 0.5;
        var names = new Dictionary<string, MemoryFile>();
        for (var i = 0; i < cut && i <= folderCut; i++)
        {
            ApplyName(names, _changes[i]);
        }

        var contents = names.Values.ToHashSet().ToDictionary(file => file, _ => Array.Empty<byte>());
        for (var i = 0; i < cut; i++)
        {
            if (_changes[i] is { Operation: "write" or "length", File: { } file } change && contents.TryGetValue(file, out var content))
            {
                var durable = lastSync.TryGetValue(file, out var synced) && i < synced;
                contents[file] = Apply(content, change, durable, keepChance, random);
            }
        }

        return names.ToDictionary(pair => pair.Key, pair => contents.GetValueOrDefault(pair.Value, []));
    }

    public string[] List()
    {
        lock (_gate)
        {
            return [.. _names.Keys.Order(StringComparer.Ordinal)];
        }
    }

    public IStorageFile Create(string name)
    {
        Before?.Invoke("create", name);
        var file = new MemoryFile(this, name);
        lock (_gate)
        {
            _names[name] = file;
            Record(new Change("create", file, name));
        }

        return file;
    }

    public IStorageFile Open(string name, bool writable)
    {
        lock (_gate)
        {
            return _names.TryGetValue(name, out var file) ? file : throw new VolumeException(VolumeErrorKind.Io, $"{name} does not exist");
        }
    }

    public void Rename(string from, string to)
    {
        Before?.Invoke("rename", to);
        lock (_gate)
        {
            _names.Remove(from, out var file);
            _names[to] = file!;
            Record(new Change("rename", file, from, to));
        }
    }

    public void Delete(string name)
    {
        Before?.Invoke("delete", name);
        lock (_gate)
        {
            _names.Remove(name);
            Record(new Change("delete", null, name));
        }
    }

    public void SyncDirectory()
    {
        Before?.Invoke("syncfolder", "");
        Record(new Change("syncfolder", null, ""));
    }

    public IDisposable Lock(string name, bool shared)
    {
        if (_locked)
        {
            throw new VolumeException(VolumeErrorKind.Locked, "the volume is open elsewhere");
        }

        _locked = true;
        return new Unlocker(this);
    }

    public void Dispose()
    {
    }

    private static byte[] Apply(byte[] content, Change change, bool durable, double keepChance, Random random)
    {
        if (change.Operation == "length")
        {
            if (durable || random.NextDouble() < keepChance)
            {
                Array.Resize(ref content, (int)change.Offset);
            }

            return content;
        }

        if (!durable && random.NextDouble() >= keepChance && random.Next(2) == 0)
        {
            return content;
        }

        var torn = !durable && random.Next(2) == 0;
        var end = (int)change.Offset + change.Bytes!.Length;
        if (content.Length < end)
        {
            Array.Resize(ref content, end);
        }

        for (var at = 0; at < change.Bytes.Length;)
        {
            // Sectors of the disk, not of the write.
            var part = Math.Min(512 - (((int)change.Offset + at) % 512), change.Bytes.Length - at);
            if (!torn || random.NextDouble() < keepChance)
            {
                change.Bytes.AsSpan(at, part).CopyTo(content.AsSpan((int)change.Offset + at));
            }

            at += part;
        }

        return content;
    }

    private static void ApplyName(Dictionary<string, MemoryFile> names, Change change)
    {
        switch (change.Operation)
        {
            case "create":
                names[change.Name] = change.File!;
                break;
            case "rename":
                names.Remove(change.Name);
                names[change.To] = change.File!;
                break;
            case "delete":
                names.Remove(change.Name);
                break;
        }
    }

    private void Record(Change change)
    {
        lock (_gate)
        {
            DataSyncs += change.Operation == "sync" ? 1 : 0;
            if (IsRecording)
            {
                _changes.Add(change);
            }
        }
    }

    private sealed record Change(string Operation, MemoryFile? File, string Name, string To = "", long Offset = 0, byte[]? Bytes = null);

    private sealed class Unlocker(RecordingStorage storage) : IDisposable
    {
        public void Dispose() => storage._locked = false;
    }

    internal sealed class MemoryFile(RecordingStorage storage, string name) : IStorageFile
    {
        public byte[] Bytes { get; set; } = [];

        public long Length => Bytes.Length;

        public int Read(long offset, Span<byte> destination)
        {
            lock (storage._gate)
            {
                var count = (int)Math.Clamp(Bytes.Length - offset, 0, destination.Length);
                Bytes.AsSpan((int)Math.Min(offset, Bytes.Length), count).CopyTo(destination);
                return count;
            }
        }

        public void Write(long offset, ReadOnlySpan<byte> source)
        {
            storage.Before?.Invoke("write", name);
            var copy = source.ToArray();
            lock (storage._gate)
            {
                var bytes = Bytes;
                if (bytes.Length < offset + source.Length)
                {
                    Array.Resize(ref bytes, (int)offset + source.Length);
                    Bytes = bytes;
                }

                source.CopyTo(bytes.AsSpan((int)offset));
                storage.Record(new Change("write", this, name, Offset: offset, Bytes: copy));
            }
        }

        public void SyncData()
        {
            storage.Before?.Invoke("sync", name);
            storage.Record(new Change("sync", this, name));
        }

        public void Allocate(long length)
        {
            storage.Before?.Invoke("allocate", name);
            SetLength(length);
        }

        public void Truncate(long length)
        {
            storage.Before?.Invoke("truncate", name);
            SetLength(length);
        }

        public void Dispose()
        {
        }

        private void SetLength(long length)
        {
            lock (storage._gate)
            {
                var bytes = Bytes;
                Array.Resize(ref bytes, (int)length);
                Bytes = bytes;
                storage.Record(new Change("length", this, name, Offset: length));
            }
        }
    }
}
