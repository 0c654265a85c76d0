namespace Nacre.Volumes.Storage;

/// <summary>A storage whose syncs do nothing: what was written survives the death of this process, not a loss of power.</summary>
/// <remarks>Everything else is the inner storage's, which this owns.</remarks>
internal sealed class VolatileStorage(IVolumeStorage inner) : IVolumeStorage
{
    public string[] List() => inner.List();

    public IStorageFile Create(string name) => new StorageFile(inner.Create(name));

    public IStorageFile Open(string name, bool writable) => new StorageFile(inner.Open(name, writable));

    public void Rename(string from, string to) => inner.Rename(from, to);

    public void Delete(string name) => inner.Delete(name);

    public void SyncDirectory()
    {
    }

    public IDisposable Lock(string name, bool shared) => inner.Lock(name, shared);

    public void Dispose() => inner.Dispose();

    private sealed class StorageFile(IStorageFile inner) : IStorageFile
    {
        public long Length => inner.Length;

        public int Read(long offset, Span<byte> destination) => inner.Read(offset, destination);

        public void Write(long offset, ReadOnlySpan<byte> source) => inner.Write(offset, source);

        public void SyncData()
        {
        }

        public void Allocate(long length) => inner.Allocate(length);

        public void Truncate(long length) => inner.Truncate(length);

        public void Dispose() => inner.Dispose();
    }
}
