using Microsoft.Win32.SafeHandles;

namespace Nacre.Volumes.Storage;

/// <summary>A folder of the host's file system.</summary>
internal sealed class DirectoryStorage : IVolumeStorage
{
    private readonly string _path;
    private readonly SafeFileHandle _directory;

    public DirectoryStorage(string path)
    {
        _path = path;
        _directory = NativeFile.Open(path, NativeFile.ReadOnly);
    }

    /// <summary>Creates the folder, readable by its owner only, and makes its name durable. An existing folder is taken if it holds no other.</summary>
    public static DirectoryStorage CreateFolder(string path)
    {
        try
        {
            var full = Path.GetFullPath(path);
            if (OperatingSystem.IsWindows())
            {
                throw new PlatformNotSupportedException("volumes need Linux");
            }

            Directory.CreateDirectory(full, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            if (Directory.EnumerateDirectories(full).Any())
            {
                throw new VolumeException(VolumeErrorKind.Corrupt, "the folder for the new volume is not empty: it holds a folder");
            }

            if (Path.GetDirectoryName(full) is { } parent)
            {
                using var handle = NativeFile.Open(parent, NativeFile.ReadOnly);
                NativeFile.Sync(handle, parent);
            }

            return new DirectoryStorage(full);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new VolumeException(VolumeErrorKind.Io, "the volume's folder cannot be created", e);
        }
    }

    public string[] List()
    {
        try
        {
            var names = Directory.GetFiles(_path).Select(file => Path.GetFileName(file)).ToArray();
            Array.Sort(names, StringComparer.Ordinal);
            return names;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new VolumeException(VolumeErrorKind.Io, "the volume's folder cannot be listed", e);
        }
    }

    public IStorageFile Create(string name) =>
        new StorageFile(name, NativeFile.Open(At(name), NativeFile.ReadWrite | NativeFile.CreateFlag | NativeFile.TruncateFlag));

    public IStorageFile Open(string name, bool writable) =>
        new StorageFile(name, NativeFile.Open(At(name), writable ? NativeFile.ReadWrite : NativeFile.ReadOnly));

    public void Rename(string from, string to) => NativeFile.Rename(At(from), At(to), to);

    public void Delete(string name) => NativeFile.Delete(At(name), name);

    public void SyncDirectory() => NativeFile.Sync(_directory, "the volume's folder");

    public bool TryLink(string name, IVolumeStorage target) =>
        target is DirectoryStorage directory && NativeFile.TryLink(At(name), directory.At(name));

    public IDisposable Lock(string name, bool shared)
    {
        var file = NativeFile.Open(At(name), shared && File.Exists(At(name)) ? NativeFile.ReadOnly : NativeFile.ReadWrite | NativeFile.CreateFlag);
        if (NativeFile.TryLock(file, name, shared))
        {
            return file;
        }

        file.Dispose();
        throw new VolumeException(VolumeErrorKind.Locked, "the volume is open elsewhere");
    }

    public void Dispose() => _directory.Dispose();

    private string At(string name) => Path.Combine(_path, name);

    private sealed class StorageFile(string name, SafeFileHandle handle) : IStorageFile
    {
        public long Length => RandomAccess.GetLength(handle);

        public bool IsLinked => NativeFile.LinkCount(handle, name) > 1;

        public int Read(long offset, Span<byte> destination) => NativeFile.Read(handle, name, offset, destination);

        public void Write(long offset, ReadOnlySpan<byte> source) => NativeFile.Write(handle, name, offset, source);

        public void SyncData() => NativeFile.SyncData(handle, name);

        public void BeginWriteback(long offset, long length) => NativeFile.BeginWriteback(handle, offset, length);

        public void Allocate(long length) => NativeFile.Allocate(handle, name, length);

        public void Truncate(long length) => NativeFile.Truncate(handle, name, length);

        public void Dispose() => handle.Dispose();
    }
}
