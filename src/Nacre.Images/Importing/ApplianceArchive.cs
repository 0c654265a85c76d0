using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using Nacre.Contracts;

namespace Nacre.Images.Importing;

/// <summary>
/// An OVA: a tar with the description of a virtual machine, its disks and perhaps their digests. It is untrusted: names in it name nothing outside of it,
/// nothing is unpacked, and whatever no appliance has (links, folders, sparse files) is refused.
/// </summary>
internal static partial class ApplianceArchive
{
    private const int Block = 512;
    private const int MostFiles = 256;
    private const int LargestExtension = 1 << 16;
    private const int LargestText = 4 << 20;

    private sealed record Entry(string Name, long Offset, long Length);

    /// <summary>Whether bytes are the beginning of a tar.</summary>
    public static bool IsOne(ReadOnlySpan<byte> header) => header.Length >= Block && header[257..].StartsWith("ustar"u8);

    /// <summary>Finds the disk to import, and verifies all digests that the archive has.</summary>
    /// <param name="archive">The archive.</param>
    /// <param name="wanted">The disk's name; null: the only one.</param>
    /// <param name="report">Told the share that is done, 0 to 1, and what goes on.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <returns>The disk, its name in the archive, and what was not looked at.</returns>
    /// <exception cref="NacreException">NotADisk; UsageInvalid: there are several disks, or none of that name.</exception>
    public static (DiskSource Disk, string Name, string[] Notes) FindDisk(
        DiskSource archive, string? wanted, Action<double, string>? report, CancellationToken cancellationToken)
    {
        var files = Read(archive);
        var description = Only(".ovf") ?? throw DiskHeader.Refused(archive.Name, "it is a tar without a description of a virtual machine (.ovf), and no OVA");
        var manifest = Only(".mf");
        var disks = ApplianceDescription.Disks(archive.Name, Text(description));
        var name = Choose(archive.Name, disks, wanted);
        var disk = files.Find(file => file.Name == name) ?? throw DiskHeader.Refused(archive.Name, $"its disk '{name}' is not in it: it was cut off, or is a part of an appliance");
        if (manifest is not null)
        {
            Verify(archive, files, Text(manifest), [description.Name, name], report, cancellationToken);
        }

        string[] notes =
        [
            .. manifest is null ? ["the archive has no digests of its files"] : Array.Empty<string>(),
            .. files.Where(file => file.Name.EndsWith(".cert", StringComparison.OrdinalIgnoreCase)).Select(file => $"the archive's signature ('{file.Name}') was not looked at"),
        ];
        return (new DiskSource($"{archive.Name}: {name}", archive.Path, archive.Offset + disk.Offset, disk.Length), name, notes);

        Entry? Only(string ending) => files.FindAll(file => file.Name.EndsWith(ending, StringComparison.OrdinalIgnoreCase)) switch
        {
            [] => null,
            [var one] => one,
            _ => throw DiskHeader.Refused(archive.Name, $"it has several files that end in {ending}"),
        };

        string Text(Entry file) => file.Length <= LargestText
            ? Encoding.UTF8.GetString(archive.Read(file.Offset, (int)file.Length))
            : throw DiskHeader.Refused(archive.Name, $"'{file.Name}' in it has {file.Length} bytes; such a file has at most {LargestText}");
    }

    private static string Choose(string archive, IReadOnlyList<string> disks, string? wanted)
    {
        var names = string.Join(", ", disks.Select(disk => $"'{disk}'"));
        return wanted is null
            ? disks.Count == 1 ? disks[0] : throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{archive}' has {disks.Count} disks: {names}; say with --disk which one is to be imported")
            : disks.Contains(wanted) ? wanted : throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{archive}' has no disk '{wanted}'; it has {names}");
    }

    private static List<Entry> Read(DiskSource archive)
    {
        var files = new List<Entry>();
        var extension = new Dictionary<string, string>();
        for (long at = 0; at < archive.Length;)
        {
            var header = archive.Read(at, Block);
            if (header.Length < Block)
            {
                throw DiskHeader.Refused(archive.Name, "it was cut off");
            }

            if (!header.AsSpan().ContainsAnyExcept((byte)0))
            {
                break;
            }

            RequireChecksum(archive, at, header);
            var size = extension.TryGetValue("size", out var text) ? Number(archive, text, 10) : Size(archive, header);
            at += Block;
            if (size > archive.Length - at)
            {
                throw DiskHeader.Refused(archive.Name, $"it has {archive.Length} bytes, and a file in it would end at {(decimal)at + size}: it was cut off");
            }

            const int TypeAt = 156;
            if (header[TypeAt] == 'x')
            {
                extension = size <= LargestExtension ? Extension(archive, archive.Read(at, (int)size)) : throw DiskHeader.Refused(archive.Name, "it has attributes that are too long");
            }
            else
            {
                var name = NameOf(archive, extension.GetValueOrDefault("path") ?? Name(header));
                if (header[TypeAt] is not ((byte)'0' or 0) || extension.Keys.Any(key => key.StartsWith("GNU.sparse", StringComparison.Ordinal)))
                {
                    throw DiskHeader.Refused(archive.Name, $"'{name}' in it is no ordinary file; an OVA has no links, folders or sparse files");
                }

                if (files.Exists(file => file.Name == name) || files.Count == MostFiles)
                {
                    throw DiskHeader.Refused(archive.Name, files.Count == MostFiles ? $"it has more than {MostFiles} files" : $"it has '{name}' twice");
                }

                files.Add(new Entry(name, at, size));
                extension = [];
            }

            at += (size + Block - 1) / Block * Block;
        }

        return files;
    }

    private static void RequireChecksum(DiskSource archive, long at, byte[] header)
    {
        const int SumAt = 148, SumLength = 8;
        var sum = header.Sum(value => value) - header.AsSpan(SumAt, SumLength).ToArray().Sum(value => value) + (SumLength * ' ');
        if (!IsOne(header) || Number(archive, Ascii(header.AsSpan(SumAt, SumLength)), 8) != sum)
        {
            throw DiskHeader.Refused(archive.Name, $"it is damaged at byte {at}");
        }
    }

    /// <summary>The size in a header: octal digits, or where they do not suffice a binary number with its first bit set.</summary>
    private static long Size(DiskSource archive, ReadOnlySpan<byte> header)
    {
        const int SizeAt = 124, SizeLength = 12, NumberAt = SizeAt + SizeLength - sizeof(long);
        if ((header[SizeAt] & 0x80) == 0)
        {
            return Number(archive, Ascii(header.Slice(SizeAt, SizeLength)), 8);
        }

        var size = BinaryPrimitives.ReadInt64BigEndian(header[NumberAt..]);
        return header[SizeAt] == 0x80 && !header[(SizeAt + 1)..NumberAt].ContainsAnyExcept((byte)0) && size >= 0 ? size : throw NoSize(archive);
    }

    private static long Number(DiskSource archive, string untrusted, int radix)
    {
        long number = 0;
        foreach (var digit in untrusted.Trim())
        {
            number = digit >= '0' && digit < '0' + radix && number <= (long.MaxValue - 9) / radix ? (number * radix) + (digit - '0') : throw NoSize(archive);
        }

        return number;
    }

    private static NacreException NoSize(DiskSource archive) => DiskHeader.Refused(archive.Name, "a file in it has a size that is no number");

    private static string Ascii(ReadOnlySpan<byte> field) => Encoding.ASCII.GetString(field).Split('\0')[0];

    private static string Name(ReadOnlySpan<byte> header)
    {
        const int NameLength = 100, MagicAt = 257, PrefixAt = 345, PrefixLength = 155;
        static string Of(ReadOnlySpan<byte> field) => Encoding.UTF8.GetString(field.IndexOf((byte)0) is >= 0 and var end ? field[..end] : field);

        // GNU's own headers have times where the standard's have a prefix.
        var prefix = header[MagicAt + 5] == 0 ? Of(header.Slice(PrefixAt, PrefixLength)) : "";
        return prefix.Length > 0 ? $"{prefix}/{Of(header[..NameLength])}" : Of(header[..NameLength]);
    }

    /// <summary>A file's name; nothing is ever written under it.</summary>
    private static string NameOf(DiskSource archive, string untrusted)
    {
        const int Longest = 255;
        var name = untrusted.StartsWith("./", StringComparison.Ordinal) ? untrusted[2..] : untrusted;
        return name is not ("" or "." or "..") && name.Length <= Longest && !name.Any(character => character is '/' or '\\' or '\uFFFD' || char.IsControl(character))
            ? name
            : throw DiskHeader.Refused(archive.Name, $"'{Checking.Programs.Printable(untrusted)}' in it is no plain file name");
    }

    /// <summary>The attributes before a file's header, each <c>LENGTH KEY=VALUE</c> and the end of a line.</summary>
    private static Dictionary<string, string> Extension(DiskSource archive, ReadOnlySpan<byte> bytes)
    {
        var attributes = new Dictionary<string, string>();
        while (bytes.Length > 0 && bytes[0] != 0)
        {
            var space = bytes.IndexOf((byte)' ');
            var length = space is > 0 and < 8 ? Number(archive, Encoding.ASCII.GetString(bytes[..space]), 10) : 0;
            var isWhole = length > space + 1 && length <= bytes.Length && bytes[(int)length - 1] == '\n';
            var record = isWhole ? bytes[(space + 1)..((int)length - 1)] : [];
            var equals = record.IndexOf((byte)'=');
            if (equals < 0)
            {
                throw DiskHeader.Refused(archive.Name, "it has attributes that can't be read");
            }

            attributes[Encoding.UTF8.GetString(record[..equals])] = Encoding.UTF8.GetString(record[(equals + 1)..]);
            bytes = bytes[(int)length..];
        }

        return attributes;
    }

    private static void Verify(
        DiskSource archive, List<Entry> files, string untrustedManifest, string[] needed, Action<double, string>? report, CancellationToken cancellationToken)
    {
        var lines = new List<(Entry File, HashAlgorithmName Algorithm, string Digest)>();
        foreach (var line in untrustedManifest.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            if (DigestLine().Match(line) is not { Success: true } match || lines.Count == 2 * MostFiles)
            {
                throw DiskHeader.Refused(archive.Name, $"its manifest has a line that is no digest by SHA-1, SHA-256 or SHA-512: {Checking.Programs.Printable(line)}");
            }

            var file = files.Find(file => file.Name == match.Groups["name"].Value)
                ?? throw DiskHeader.Refused(archive.Name, $"its manifest has '{Checking.Programs.Printable(match.Groups["name"].Value)}', which is not in it: it was cut off");
            lines.Add((file, new HashAlgorithmName(match.Groups["algorithm"].Value), match.Groups["digest"].Value));
        }

        if (needed.FirstOrDefault(name => !lines.Exists(line => line.File.Name == name)) is { } missing)
        {
            throw DiskHeader.Refused(archive.Name, $"its manifest has no digest of '{missing}'");
        }

        var (total, done) = (lines.Sum(line => (double)line.File.Length), 0L);
        foreach (var (file, algorithm, digest) in lines)
        {
            const int Piece = 1 << 20;
            using var hash = IncrementalHash.CreateHash(algorithm);
            for (long at = 0; at < file.Length; at += Piece)
            {
                cancellationToken.ThrowIfCancellationRequested();
                var piece = archive.Read(file.Offset + at, (int)Math.Min(Piece, file.Length - at));
                hash.AppendData(piece);
                done += piece.Length;
                report?.Invoke(done / total, $"verifying {file.Name}");
            }

            if (!Convert.ToHexString(hash.GetHashAndReset()).Equals(digest, StringComparison.OrdinalIgnoreCase))
            {
                throw DiskHeader.Refused(archive.Name, $"'{file.Name}' in it is not what its manifest says: it was changed or damaged");
            }
        }
    }

    [GeneratedRegex(@"^(?<algorithm>SHA1|SHA256|SHA512)\s*\((?<name>.+)\)\s*=\s*(?<digest>[0-9A-Fa-f]+)$", RegexOptions.CultureInvariant | RegexOptions.NonBacktracking)]
    private static partial Regex DigestLine();
}
