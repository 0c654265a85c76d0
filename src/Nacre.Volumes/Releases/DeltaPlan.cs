using System.Security.Cryptography;
using System.Text;
using ZstdSharp;

namespace Nacre.Volumes.Releases;

/// <summary>A part of a delta: chunks of the new release as one zstd frame that continues chunks of the old one.</summary>
/// <param name="Bases">Numbers of the old release's chunks (<see cref="ReleaseIndex.Stored"/>), in the order in which their content is the frame's prefix.</param>
/// <param name="Targets">Numbers of the new release's chunks, in the order in which their content is the frame's.</param>
/// <param name="Tags">16 bytes for each target: the tag of the chunk sealed without compression.</param>
public sealed record DeltaPart(IReadOnlyList<int> Bases, IReadOnlyList<int> Targets, ReadOnlyMemory<byte> Tags);

/// <summary>
/// What a delta between two releases holds, without the content (SPEC.md, REL-06x). Small, so a device can tell what it would save before it fetches any of it.
/// An instance obeys every bound of the format.
/// </summary>
public sealed class DeltaPlan
{
    /// <summary>Bounds what a device holds in memory: the content of a part's bases.</summary>
    public const int MaxBaseBytes = 64 * 1024 * 1024;

    /// <summary>The same for the content of its targets.</summary>
    public const int MaxTargetBytes = 32 * 1024 * 1024;

    /// <summary>The longest plan that a device takes.</summary>
    public const int MaxSealedSize = 64 * 1024 * 1024;

    private const int MaxParts = 1 << 16;

    /// <summary>Creates a plan of what a publisher made.</summary>
    /// <param name="from">Name of the old release's index, 32 hexadecimal digits.</param>
    /// <param name="to">Name of the new release's index.</param>
    /// <param name="parts">The parts, in the order of their stored files.</param>
    public DeltaPlan(string from, string to, IReadOnlyList<DeltaPart> parts)
    {
        From = from;
        To = to;
        Parts = parts;
    }

    /// <summary>Name of the old release's index.</summary>
    public string From { get; }

    /// <summary>Name of the new release's index.</summary>
    public string To { get; }

    /// <summary>The parts.</summary>
    public IReadOnlyList<DeltaPart> Parts { get; }

    private static ReadOnlySpan<byte> PlanMagic => "NACREDPL"u8;

    private static ReadOnlySpan<byte> PartMagic => "NACREDPT"u8;

    /// <summary>Encrypts the plan under a key that follows from the new release's.</summary>
    public byte[] Seal(ReadOnlySpan<byte> releaseKey)
    {
        using var compressor = new Compressor(19);
        return SealedFile.Seal(PlanMagic, Key(releaseKey), compressor.Wrap(Encode()));
    }

    /// <summary>Opens a plan and holds it to the two releases that it is to be used for.</summary>
    /// <param name="untrustedBytes">The stored file.</param>
    /// <param name="releaseKey">The new release's key.</param>
    /// <param name="from">The old release, and the name of its index.</param>
    /// <param name="to">The new release, and the name of its index.</param>
    /// <exception cref="VolumeException">Unsupported, Truncated, NotAuthentic (wrong key or changed), Corrupt (out of bounds, or a plan for other releases).</exception>
    public static DeltaPlan Open(ReadOnlySpan<byte> untrustedBytes, ReadOnlySpan<byte> releaseKey, (ReleaseIndex Index, string Name) from, (ReleaseIndex Index, string Name) to)
    {
        var content = SealedFile.Open(PlanMagic, Key(releaseKey), untrustedBytes, "the delta's plan");
        try
        {
            using var decompressor = new Decompressor();
            using var reader = new BinaryReader(new MemoryStream(decompressor.Unwrap(content, MaxSealedSize).ToArray()), Encoding.ASCII);
            return Decode(reader, from, to);
        }
        catch (Exception exception) when (exception is ZstdException or OverflowException or ArgumentException or FormatException or EndOfStreamException)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, "the delta's plan", exception);
        }
    }

    /// <summary>Encrypts a part's frame.</summary>
    internal static byte[] SealPart(ReadOnlySpan<byte> releaseKey, ReadOnlySpan<byte> frame) => SealedFile.Seal(PartMagic, Key(releaseKey), frame);

    /// <summary>Opens a part's frame.</summary>
    internal static byte[] OpenPart(ReadOnlySpan<byte> releaseKey, ReadOnlySpan<byte> untrustedBytes) =>
        SealedFile.Open(PartMagic, Key(releaseKey), untrustedBytes, "a part of the delta");

    private static byte[] Key(ReadOnlySpan<byte> releaseKey) =>
        HKDF.DeriveKey(HashAlgorithmName.SHA256, releaseKey.ToArray(), SegmentFormat.KeySize, info: "nacre release delta"u8.ToArray());

    private byte[] Encode()
    {
        var stream = new MemoryStream();
        using var writer = new BinaryWriter(stream, Encoding.ASCII);
        writer.Write(Convert.FromHexString(From));
        writer.Write(Convert.FromHexString(To));
        writer.Write7BitEncodedInt(Parts.Count);
        foreach (var part in Parts)
        {
            Write(writer, part.Bases);
            Write(writer, part.Targets);
        }

        // The tags can't be compressed: together at the end they are in the way of nothing.
        foreach (var part in Parts)
        {
            writer.Write(part.Tags.Span);
        }

        writer.Flush();
        return stream.ToArray();
    }

    private static void Write(BinaryWriter writer, IReadOnlyList<int> numbers)
    {
        writer.Write7BitEncodedInt(numbers.Count);
        var expected = 0;
        foreach (var number in numbers)
        {
            var difference = number - expected;
            writer.Write7BitEncodedInt((difference << 1) ^ (difference >> 31));
            expected = number + 1;
        }
    }

    private static DeltaPlan Decode(BinaryReader reader, (ReleaseIndex Index, string Name) from, (ReleaseIndex Index, string Name) to)
    {
        if (Convert.ToHexStringLower(reader.ReadBytes(SegmentFormat.NameSize)) != from.Name || Convert.ToHexStringLower(reader.ReadBytes(SegmentFormat.NameSize)) != to.Name)
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, "the delta is for other releases");
        }

        var count = reader.Read7BitEncodedInt();
        if (count is < 0 or > MaxParts)
        {
            throw OutOfBounds("parts");
        }

        var seen = new bool[to.Index.Stored.Count];
        var numbers = new List<(int[] Bases, int[] Targets)>();
        for (; count > 0; count--)
        {
            var bases = Read(reader, from.Index.Stored, MaxBaseBytes);
            var targets = Read(reader, to.Index.Stored, MaxTargetBytes);
            foreach (var target in targets)
            {
                if (seen[target])
                {
                    throw OutOfBounds("a chunk comes twice");
                }

                seen[target] = true;
            }

            numbers.Add((bases, targets));
        }

        var parts = numbers.ConvertAll(part =>
        {
            var tags = reader.ReadBytes(part.Targets.Length * SegmentFormat.TagSize);
            return tags.Length == part.Targets.Length * SegmentFormat.TagSize ? new DeltaPart(part.Bases, part.Targets, tags) : throw new EndOfStreamException();
        });
        return reader.BaseStream.Position == reader.BaseStream.Length ? new DeltaPlan(from.Name, to.Name, parts) : throw OutOfBounds("it goes on after its end");
    }

    private static int[] Read(BinaryReader reader, IReadOnlyList<ReleaseChunk> chunks, int most)
    {
        var count = reader.Read7BitEncodedInt();
        if (count < 0 || count > most / IBlockDevice.BlockSize)
        {
            throw OutOfBounds("chunks of a part");
        }

        var numbers = new int[count];
        var expected = 0;
        var bytes = 0;
        for (var i = 0; i < count; i++)
        {
            var packed = reader.Read7BitEncodedInt();
            var number = expected + ((int)((uint)packed >> 1) ^ -(packed & 1));
            if (number < 0 || number >= chunks.Count || (bytes += chunks[number].Length) > most)
            {
                throw OutOfBounds("a chunk of a part");
            }

            numbers[i] = number;
            expected = number + 1;
        }

        return numbers;
    }

    private static VolumeException OutOfBounds(string what) => new(VolumeErrorKind.Corrupt, $"the delta's plan is out of bounds: {what}");
}
