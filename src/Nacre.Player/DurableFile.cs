using System.Runtime.InteropServices;
using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Player;

/// <summary>Small files that are either the old or the new content after a crash at any moment, never a part.</summary>
internal static partial class DurableFile
{
    private const int ReadOnlyFlag = 0;

    private static readonly TimeSpan LockLimit = TimeSpan.FromSeconds(10);

    public static void Write(string path, ReadOnlySpan<byte> content)
    {
        var temporary = $"{path}.{Environment.ProcessId}.new";
        try
        {
            using (var file = new FileStream(temporary, new FileStreamOptions
            {
                Mode = FileMode.Create,
                Access = FileAccess.Write,
                UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
            }))
            {
                file.Write(content);
                file.Flush(flushToDisk: true);
            }

            File.Move(temporary, path, overwrite: true);
            FlushDirectory(Path.GetDirectoryName(path)!);
        }
        catch (IOException exception)
        {
            File.Delete(temporary);
            throw Translate(exception, path);
        }
    }

    /// <summary>Removes a file, if it is there; it does not come back after a loss of power.</summary>
    public static void Delete(string path)
    {
        if (File.Exists(path))
        {
            File.Delete(path);
            FlushDirectory(Path.GetDirectoryName(path)!);
        }
    }

    public static void WriteJson<T>(string path, T value) => Write(path, JsonSerializer.SerializeToUtf8Bytes(value, ContractJson.Options));

    /// <summary>The file's content; null where there is none or it can't be read as a <typeparamref name="T"/>.</summary>
    public static T? ReadJson<T>(string path)
        where T : class
    {
        try
        {
            return JsonSerializer.Deserialize<T>(File.ReadAllBytes(path), ContractJson.Options);
        }
        catch (Exception exception) when (exception is FileNotFoundException or DirectoryNotFoundException or JsonException)
        {
            return null;
        }
    }

    /// <summary>Waits until no other holds this file, and holds it until it is disposed.</summary>
    /// <exception cref="NacreException">FileAccess: somebody held it for longer than 10 seconds.</exception>
    public static async Task<FileStream> LockAsync(string path, TimeProvider time, CancellationToken cancellationToken)
    {
        for (var since = time.GetTimestamp(); ;)
        {
            try
            {
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException exception) when (exception is not DirectoryNotFoundException)
            {
                if (time.GetElapsedTime(since) > LockLimit)
                {
                    throw Translate(exception, path);
                }

                await Task.Delay(TimeSpan.FromMilliseconds(20), time, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    public static NacreException Translate(IOException exception, string path) => new(
        (exception.HResult & 0xFFFF) is 28 or 122 ? ErrorCatalogue.NoSpace : ErrorCatalogue.FileAccess, $"'{path}': {exception.Message}", exception);

    internal static void FlushDirectory(string folder)
    {
        var descriptor = Open(folder, ReadOnlyFlag);
        if (descriptor >= 0)
        {
            _ = Flush(descriptor);
            _ = Close(descriptor);
        }
    }

    [LibraryImport("libc", EntryPoint = "open", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "fsync")]
    private static partial int Flush(int descriptor);

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int descriptor);
}
