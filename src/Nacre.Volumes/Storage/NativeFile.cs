using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Nacre.Volumes.Storage;

/// <summary>The Linux system calls that .NET does not offer as they are: fdatasync, fallocate, flock, fsync of a folder, exact errno.</summary>
internal static partial class NativeFile
{
    public const int ReadOnly = 0;
    public const int ReadWrite = 2;
    public const int CreateFlag = 0x40;
    public const int TruncateFlag = 0x200;
    private const int CloseOnExec = 0x80000;

    private const int Interrupted = 4;
    private const int WouldBlock = 11;
    private const int NoSpaceLeft = 28;
    private const int NotSupported = 95;
    private const int QuotaExceeded = 122;

    public static SafeFileHandle Open(string path, int flags)
    {
        int descriptor;
        do
        {
            descriptor = OpenFile(path, flags | CloseOnExec, 0x180 /* 0600 */);
        }
        while (descriptor < 0 && Marshal.GetLastPInvokeError() == Interrupted);

        return descriptor >= 0 ? new SafeFileHandle(descriptor, ownsHandle: true) : throw Failure("open", path);
    }

    public static unsafe int Read(SafeFileHandle file, string name, long offset, Span<byte> destination)
    {
        var done = 0;
        fixed (byte* start = destination)
        {
            while (done < destination.Length)
            {
                var count = ReadAt(file, start + done, (nuint)(destination.Length - done), offset + done);
                if (count > 0)
                {
                    done += (int)count;
                }
                else if (count == 0)
                {
                    break;
                }
                else if (Marshal.GetLastPInvokeError() != Interrupted)
                {
                    throw Failure("read", name);
                }
            }
        }

        return done;
    }

    public static unsafe void Write(SafeFileHandle file, string name, long offset, ReadOnlySpan<byte> source)
    {
        fixed (byte* start = source)
        {
            for (var done = 0; done < source.Length;)
            {
                var count = WriteAt(file, start + done, (nuint)(source.Length - done), offset + done);
                if (count > 0)
                {
                    done += (int)count;
                }
                else if (count == 0)
                {
                    throw new VolumeException(VolumeErrorKind.Io, $"write of {name} made no progress");
                }
                else if (Marshal.GetLastPInvokeError() != Interrupted)
                {
                    throw Failure("write", name);
                }
            }
        }
    }

    // A failed sync is never repeated: the kernel may have dropped the pages and would then report success.
    public static void SyncData(SafeFileHandle file, string name) => Check(DataSync(file), "fdatasync", name);

    /// <summary>Starts to write a range back without waiting for it. A failure is left to the next sync, which reports it.</summary>
    public static void BeginWriteback(SafeFileHandle file, long offset, long length)
    {
        const uint StartWriting = 2 /* SYNC_FILE_RANGE_WRITE */;
        _ = SyncRange(file, offset, length, StartWriting);
    }

    public static void Sync(SafeFileHandle file, string name) => Check(FullSync(file), "fsync", name);

    public static void Truncate(SafeFileHandle file, string name, long length) => Check(SetLength(file, length), "ftruncate", name);

    public static void Rename(string from, string to, string name) => Check(RenameFile(from, to), "rename", name);

    public static void Delete(string path, string name) => Check(Unlink(path), "unlink", name);

    /// <summary>Gives a file a second name; false where the file system refuses.</summary>
    public static bool TryLink(string from, string to) => LinkFile(from, to) == 0;

    /// <summary>How many names an open file has.</summary>
    public static unsafe uint LinkCount(SafeFileHandle file, string name)
    {
        const int ByDescriptor = 0x1000 /* AT_EMPTY_PATH */, LinkCountMask = 4;
        var status = stackalloc uint[64];
        Check(FileStatus(file, "", ByDescriptor, LinkCountMask, status), "statx", name);
        return status[4];
    }

    public static void Allocate(SafeFileHandle file, string name, long length)
    {
        int result;
        do
        {
            result = Reserve(file, 0, 0, length);
        }
        while (result != 0 && Marshal.GetLastPInvokeError() == Interrupted);

        if (result != 0 && Marshal.GetLastPInvokeError() == NotSupported)
        {
            result = SetLength(file, length);
        }

        Check(result, "fallocate", name);
    }

    /// <summary>Takes an advisory lock on the open file; false if another holds it.</summary>
    public static bool TryLock(SafeFileHandle file, string name, bool shared)
    {
        const int SharedLock = 1, ExclusiveLock = 2, DoNotWait = 4;
        if (LockFile(file, (shared ? SharedLock : ExclusiveLock) | DoNotWait) == 0)
        {
            return true;
        }

        return Marshal.GetLastPInvokeError() == WouldBlock ? false : throw Failure("flock", name);
    }

    private static void Check(int result, string operation, string name)
    {
        if (result != 0)
        {
            throw Failure(operation, name);
        }
    }

    private static VolumeException Failure(string operation, string name)
    {
        var error = Marshal.GetLastPInvokeError();
        var kind = error is NoSpaceLeft or QuotaExceeded ? VolumeErrorKind.NoSpace : VolumeErrorKind.Io;
        return new VolumeException(kind, $"{operation} of {Path.GetFileName(name)} failed: {Marshal.GetPInvokeErrorMessage(error)}");
    }

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int OpenFile(string path, int flags, int mode);

    [LibraryImport("libc", EntryPoint = "pread", SetLastError = true)]
    private static unsafe partial nint ReadAt(SafeFileHandle file, byte* buffer, nuint count, long offset);

    [LibraryImport("libc", EntryPoint = "pwrite", SetLastError = true)]
    private static unsafe partial nint WriteAt(SafeFileHandle file, byte* buffer, nuint count, long offset);

    [LibraryImport("libc", EntryPoint = "fdatasync", SetLastError = true)]
    private static partial int DataSync(SafeFileHandle file);

    [LibraryImport("libc", EntryPoint = "sync_file_range", SetLastError = true)]
    private static partial int SyncRange(SafeFileHandle file, long offset, long length, uint flags);

    [LibraryImport("libc", EntryPoint = "fsync", SetLastError = true)]
    private static partial int FullSync(SafeFileHandle file);

    [LibraryImport("libc", EntryPoint = "fallocate", SetLastError = true)]
    private static partial int Reserve(SafeFileHandle file, int mode, long offset, long length);

    [LibraryImport("libc", EntryPoint = "ftruncate", SetLastError = true)]
    private static partial int SetLength(SafeFileHandle file, long length);

    [LibraryImport("libc", EntryPoint = "flock", SetLastError = true)]
    private static partial int LockFile(SafeFileHandle file, int operation);

    [LibraryImport("libc", EntryPoint = "rename", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int RenameFile(string from, string to);

    [LibraryImport("libc", EntryPoint = "unlink", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Unlink(string path);

    [LibraryImport("libc", EntryPoint = "link", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int LinkFile(string from, string to);

    // statx: the same layout on every processor; the link count is the 32-bit word at offset 16.
    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int FileStatus(SafeFileHandle directory, string path, int flags, uint mask, uint* status);
}
