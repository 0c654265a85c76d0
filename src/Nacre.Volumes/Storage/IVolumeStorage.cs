namespace Nacre.Volumes.Storage;

/// <summary>The folder a volume lives in, as the few operations that the engine needs: the seam where tests record and inject faults.</summary>
/// <remarks>Every failure is a <see cref="VolumeException"/>: <see cref="VolumeErrorKind.NoSpace"/> where the host's disk or quota is
/// full, else <see cref="VolumeErrorKind.Io"/>. Names are plain file names, never paths.</remarks>
internal interface IVolumeStorage : IDisposable
{
    /// <summary>The names of all files, in ordinal order.</summary>
    string[] List();

    /// <summary>Creates an empty file, replacing one of that name. Its name is durable after <see cref="SyncDirectory"/>.</summary>
    IStorageFile Create(string name);

    /// <summary>Opens a file that exists.</summary>
    IStorageFile Open(string name, bool writable);

    /// <summary>Renames a file, replacing one that has the new name.</summary>
    void Rename(string from, string to);

    /// <summary>Removes a file; open handles of it stay usable.</summary>
    void Delete(string name);

    /// <summary>Makes every create, rename and delete before this call durable.</summary>
    void SyncDirectory();

    /// <summary>Makes a file of this storage appear in another one under the same name, without a copy: both names are one file, whose
    /// content neither side changes from then on. False where that is not possible, and nothing was done.</summary>
    bool TryLink(string name, IVolumeStorage target) => false;

    /// <summary>Takes the lock until the result is disposed; fails with <see cref="VolumeErrorKind.Locked"/> if another holds it.</summary>
    IDisposable Lock(string name, bool shared);
}

/// <summary>An open file. Reads and writes at positions may run on several threads at once.</summary>
internal interface IStorageFile : IDisposable
{
    /// <summary>The file's length in bytes.</summary>
    long Length { get; }

    /// <summary>Whether the file has a second name somewhere, so that writing over it would change what others see.</summary>
    bool IsLinked => false;

    /// <summary>Reads until the destination is full or the file ends; returns the number of bytes read.</summary>
    int Read(long offset, Span<byte> destination);

    /// <summary>Writes all of <paramref name="source"/>; on failure any part of it may have been written.</summary>
    void Write(long offset, ReadOnlySpan<byte> source);

    /// <summary>Makes every write before this call durable.</summary>
    void SyncData();

    /// <summary>Lets the disk begin with what was written there, so that a later <see cref="SyncData"/> waits for less. Promises nothing.</summary>
    void BeginWriteback(long offset, long length)
    {
    }

    /// <summary>Extends the file to <paramref name="length"/> zero bytes with space reserved for them.</summary>
    void Allocate(long length);

    /// <summary>Cuts the file to <paramref name="length"/>.</summary>
    void Truncate(long length);
}
