using System.Globalization;

namespace Nacre.Images.Importing;

/// <summary>The bytes that are to be a disk, before anybody knows which format they have: a file, or a part of one.</summary>
/// <param name="Name">What people know it by.</param>
/// <param name="Path">The file.</param>
/// <param name="Offset">Where its bytes begin in the file.</param>
/// <param name="Length">How many they are.</param>
internal sealed record DiskSource(string Name, string Path, long Offset, long Length)
{
    /// <summary>All of a file.</summary>
    /// <exception cref="IOException">It can't be read.</exception>
    /// <exception cref="UnauthorizedAccessException">It must not be read.</exception>
    public static DiskSource Of(string name, string path)
    {
        using var file = File.OpenHandle(path);
        return new DiskSource(name, path, 0, RandomAccess.GetLength(file));
    }

    /// <summary>Bytes of it: fewer than asked for where it ends.</summary>
    /// <param name="at">Where they begin; not negative.</param>
    /// <param name="count">How many.</param>
    public byte[] Read(long at, int count)
    {
        var bytes = new byte[Math.Clamp(Length - at, 0, count)];
        using var file = File.OpenHandle(Path);
        for (var done = 0; done < bytes.Length;)
        {
            var read = RandomAccess.Read(file, bytes.AsSpan(done), Offset + at + done);
            done += read > 0 ? read : throw new EndOfStreamException($"'{Name}' became shorter while it was read");
        }

        return bytes;
    }

    /// <summary>The options of <c>qemu-img</c> that open these bytes with a driver: it guesses nothing from the content.</summary>
    /// <param name="driver">The driver with its own options.</param>
    public string Options(string driver)
    {
        var path = Path.Replace(",", ",,", StringComparison.Ordinal);
        using var file = File.OpenHandle(Path);
        return Offset == 0 && Length == RandomAccess.GetLength(file)
            ? $"driver={driver},read-only=on,file.driver=file,file.filename={path}"
            : string.Create(
                CultureInfo.InvariantCulture,
                $"driver={driver},read-only=on,file.driver=raw,file.offset={Offset},file.size={Length},file.file.driver=file,file.file.filename={path}");
    }
}
