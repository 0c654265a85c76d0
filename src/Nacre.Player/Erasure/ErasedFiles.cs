using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Microsoft.Win32.SafeHandles;

namespace Nacre.Player.Erasure;

/// <summary>
/// Destroys files below one folder, and never what is elsewhere: links are removed and not followed, and the content of a file that has another name too is left
/// alone. Doing it again does what is left. A file system that writes elsewhere than in place (most do on flash) may keep the old bytes: docs/threat-model.md.
/// </summary>
internal static partial class ErasedFiles
{
    private const int WriteOnly = 1, NoFollow = 0x20000, CloseOnExec = 0x80000;
    private const int ByDescriptor = 0x1000 /* AT_EMPTY_PATH */, TypeAndLinks = 1 | 4;
    private const int LongestOverwrite = 64 * 1024 * 1024;

    /// <summary>Overwrites and removes a file, durably.</summary>
    /// <returns>Whether it was there.</returns>
    /// <exception cref="IOException">It is still there. UnauthorizedAccessException too.</exception>
    public static bool Overwrite(string path)
    {
        var file = new FileInfo(path);
        if (file.LinkTarget is null && !file.Exists)
        {
            return false;
        }

        if (file.LinkTarget is null)
        {
            var descriptor = Open(path, WriteOnly | NoFollow | CloseOnExec);
            if (descriptor >= 0)
            {
                using var handle = new SafeFileHandle(descriptor, ownsHandle: true);
                if (IsOnlyNameOfFile(handle))
                {
                    var length = Math.Min(RandomAccess.GetLength(handle), LongestOverwrite);
                    var noise = new byte[Math.Min(length, 1024 * 1024)];
                    for (var offset = 0L; offset < length; offset += noise.Length)
                    {
                        RandomNumberGenerator.Fill(noise);
                        RandomAccess.Write(handle, noise.AsSpan(0, (int)Math.Min(noise.Length, length - offset)), offset);
                    }

                    RandomAccess.FlushToDisk(handle);
                    RandomAccess.SetLength(handle, 0);
                }
            }
        }

        File.Delete(path);
        DurableFile.FlushDirectory(Path.GetDirectoryName(path)!);
        return true;
    }

    /// <summary>Removes a folder and all in it; a link in its place, or in it, is removed, and what it points at stays.</summary>
    /// <returns>How many files.</returns>
    public static int RemoveTree(string path)
    {
        var folder = new DirectoryInfo(path);
        if (folder.LinkTarget is not null)
        {
            File.Delete(path);
            return 1;
        }

        if (!folder.Exists)
        {
            return 0;
        }

        var count = 0;
        foreach (var entry in folder.EnumerateFileSystemInfos().ToList())
        {
            if (entry is DirectoryInfo && entry.LinkTarget is null)
            {
                count += RemoveTree(entry.FullName);
            }
            else
            {
                File.Delete(entry.FullName);
                count++;
            }
        }

        Directory.Delete(path);
        DurableFile.FlushDirectory(Path.GetDirectoryName(path)!);
        return count;
    }

    /// <summary>The files below a folder; links are among them and are not followed.</summary>
    public static IEnumerable<string> Below(string path)
    {
        var folder = new DirectoryInfo(path);
        if (folder.LinkTarget is not null || !folder.Exists)
        {
            return folder.LinkTarget is null ? [] : [path];
        }

        return folder.EnumerateFileSystemInfos().ToList().SelectMany(entry => entry is DirectoryInfo && entry.LinkTarget is null ? Below(entry.FullName) : [entry.FullName]);
    }

    private static unsafe bool IsOnlyNameOfFile(SafeFileHandle handle)
    {
        const int RegularFile = 0x8000, TypeBits = 0xF000;
        var status = stackalloc uint[64]; // struct statx: links at byte 16, mode at 28
        return FileStatus((int)handle.DangerousGetHandle(), "", ByDescriptor, TypeAndLinks, status) == 0 && status[4] == 1 && ((ushort)status[7] & TypeBits) == RegularFile;
    }

    [LibraryImport("libc", EntryPoint = "open", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "statx", StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int FileStatus(int folder, string path, int flags, uint mask, uint* status);
}
