using System.Security.Cryptography;
using Nacre.Volumes.Storage;

namespace Nacre.Volumes;

/// <content>Creating and opening volumes, and their key slots.</content>
public sealed partial class Volume
{
    private Volume(VolumeOptions options, VolumeHeader header, VolumeLog log, IDisposable exclusion, bool ephemeral)
    {
        _options = options;
        _header = header;
        _log = log;
        _lock = exclusion;
        _ephemeral = ephemeral;
        _last = log.Segments.FirstOrDefault(segment => segment.Sequence == log.Tail.Sequence);
    }

    /// <summary>Creates a volume in a folder that does not hold one yet, and opens it. The volume is durable on return.</summary>
    /// <param name="directory">The folder; created if it is missing, readable by its owner only.</param>
    /// <param name="options">At least the size.</param>
    /// <param name="slotKey">32 bytes that will open the volume; not kept.</param>
    /// <exception cref="ArgumentException">Options or key length outside their documented bounds.</exception>
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.Io"/>, <see cref="VolumeErrorKind.NoSpace"/>,
    /// <see cref="VolumeErrorKind.Locked"/>; <see cref="VolumeErrorKind.Corrupt"/> if the folder holds a volume already.</exception>
    public static Volume Create(string directory, VolumeOptions options, ReadOnlySpan<byte> slotKey)
    {
        RequireValid(options);
        RequireKey(slotKey);
        return Create(Storage(DirectoryStorage.CreateFolder(directory), options), options, slotKey);
    }

    /// <summary>Creates a scratch volume whose key exists in this process's memory only: it ends with the process, and closing it removes
    /// its files. Flushes cost nothing, since there is nothing to survive for.</summary>
    /// <param name="directory">The folder; must not hold a volume.</param>
    /// <param name="size">The size in bytes, see <see cref="VolumeOptions.Size"/>.</param>
    /// <exception cref="VolumeException">As <see cref="Create(string, VolumeOptions, ReadOnlySpan{byte})"/>.</exception>
    public static Volume CreateEphemeral(string directory, long size)
    {
        var options = new VolumeOptions { Size = size };
        RequireValid(options);
        return Create(DirectoryStorage.CreateFolder(directory), options, slotKey: []);
    }

    /// <summary>Opens a volume, recovering it first if it was not closed.</summary>
    /// <param name="directory">The volume's folder.</param>
    /// <param name="slotKey">The 32 bytes that open one of its key slots; not kept.</param>
    /// <param name="options">Whether to open for reading only, the checkpoint interval, and whether it is volatile; null for the defaults.</param>
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.WrongKey"/>, <see cref="VolumeErrorKind.Locked"/>,
    /// <see cref="VolumeErrorKind.Unsupported"/>, <see cref="VolumeErrorKind.NotAuthentic"/>, <see cref="VolumeErrorKind.Truncated"/>,
    /// <see cref="VolumeErrorKind.Corrupt"/> (the file is named), <see cref="VolumeErrorKind.Io"/>.</exception>
    public static Volume Open(string directory, ReadOnlySpan<byte> slotKey, VolumeOptions? options = null)
    {
        RequireKey(slotKey);
        return Open(Storage(new DirectoryStorage(directory), options), slotKey, options);
    }

    /// <summary>Lets one more key open the volume. Durable on return.</summary>
    /// <param name="slotKey">32 bytes; not kept.</param>
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.NoSpace"/> if all eight slots are used.</exception>
    public void AddKeySlot(ReadOnlySpan<byte> slotKey)
    {
        RequireKey(slotKey);
        RequireChange(0, 0);
        lock (_gate)
        {
            var header = _header.Copy();
            header.AddKeySlot(_log.Keys, slotKey);
            header.Write(_log.Storage, _log.Keys);
            _header = header;
        }
    }

    /// <summary>Stops a key from opening the volume. Durable on return. Who copied the header before, and has the key, is not stopped.</summary>
    /// <param name="slotKey">The 32 bytes that open the slot; not kept.</param>
    /// <exception cref="VolumeException"><see cref="VolumeErrorKind.WrongKey"/> if it opens none.</exception>
    /// <exception cref="InvalidOperationException">It is the last slot: nobody could open the volume again.</exception>
    public void RemoveKeySlot(ReadOnlySpan<byte> slotKey)
    {
        RequireKey(slotKey);
        RequireChange(0, 0);
        lock (_gate)
        {
            var header = _header.Copy();
            if (header.RemoveKeySlot(slotKey) == 0)
            {
                throw new InvalidOperationException("the last key slot of a volume cannot be removed");
            }

            header.Write(_log.Storage, _log.Keys);
            _header = header;
        }
    }

    /// <summary>Creates a volume in <paramref name="storage"/>, which it owns from here on; an empty key makes it ephemeral.</summary>
    internal static Volume Create(IVolumeStorage storage, VolumeOptions options, ReadOnlySpan<byte> slotKey)
    {
        IDisposable? exclusion = null;
        VolumeKeys? keys = null;
        try
        {
            exclusion = storage.Lock(VolumeFiles.Lock, shared: false);
            if (storage.List().Any(name => name != VolumeFiles.Lock && !name.EndsWith(VolumeFiles.TemporarySuffix, StringComparison.Ordinal)))
            {
                throw new VolumeException(VolumeErrorKind.Corrupt, "the folder for the new volume is not empty");
            }

            var header = VolumeHeader.New(options.Size, options.SegmentSlots);
            var master = VolumeKeys.NewKeyBuffer();
            RandomNumberGenerator.Fill(master);
            keys = new VolumeKeys(header.VolumeId, master);
            if (!slotKey.IsEmpty)
            {
                header.AddKeySlot(keys, slotKey);
            }

            header.Write(storage, keys);
            var log = new VolumeLog(storage, keys, (uint)(header.Size / BlockSize));
            return new Volume(options with { ReadOnly = false }, header, log, exclusion, ephemeral: slotKey.IsEmpty);
        }
        catch
        {
            keys?.Dispose();
            exclusion?.Dispose();
            storage.Dispose();
            throw;
        }
    }

    /// <summary>Opens the volume in <paramref name="storage"/>, which it owns from here on.</summary>
    internal static Volume Open(IVolumeStorage storage, ReadOnlySpan<byte> slotKey, VolumeOptions? options)
    {
        options ??= new VolumeOptions();
        IDisposable? exclusion = null;
        try
        {
            exclusion = storage.Lock(VolumeFiles.Lock, shared: options.ReadOnly);
            var header = VolumeHeader.Read(storage);
            var log = LogRecovery.Run(storage, header.Unlock(slotKey), header, options.ReadOnly);
            return new Volume(options, header, log, exclusion, ephemeral: false);
        }
        catch
        {
            exclusion?.Dispose();
            storage.Dispose();
            throw;
        }
    }

    private static IVolumeStorage Storage(DirectoryStorage storage, VolumeOptions? options) =>
        options is { Volatile: true } ? new VolatileStorage(storage) : storage;

    private static void RequireKey(ReadOnlySpan<byte> slotKey)
    {
        if (slotKey.Length != VolumeKeys.KeySize)
        {
            throw new ArgumentException("a slot key has 32 bytes", nameof(slotKey));
        }
    }

    private static void RequireValid(VolumeOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (options.Size is <= 0 or > VolumeOptions.MaximumSize || options.Size % BlockSize != 0
            || options.SegmentSlots is <= 0 or > Segment.MaximumSlots || options.CheckpointInterval <= 0)
        {
            throw new ArgumentException("the volume's size, segment slots or checkpoint interval is outside its bounds", nameof(options));
        }
    }
}
