using System.Buffers.Binary;

namespace Nacre.Contracts;

/// <summary>A sealed chunk's place in the store.</summary>
/// <param name="Segment">The segment's name.</param>
/// <param name="Offset">Its first byte there.</param>
/// <param name="Length">Bytes.</param>
public readonly record struct StoredRange(string Segment, int Offset, int Length);

/// <summary>
/// The chunks that a start reads, in the order of their first use: what a device records, and what a boot pack begins with. Places of ciphertext, no content.
/// The format is in <c>src/Nacre.Volumes/Releases/SPEC.md</c>, REL-07x.
/// </summary>
public static class BootSet
{
    /// <summary>Chunks at most.</summary>
    public const int MostChunks = 20_000;

    /// <summary>Bytes of all chunks at most, whatever the release's size.</summary>
    public const long MostBytes = 256L * 1024 * 1024;

    private const int HeaderSize = 16, EntrySize = 24, NameSize = 16;

    /// <summary>No chunk is before a segment's header, smaller than a tag and a byte, or larger than 64 blocks and a tag.</summary>
    private const int LeastOffset = 32, LeastLength = 17, MostLength = (64 * 4096) + 16;

    private static ReadOnlySpan<byte> Magic => "NACREPAK"u8;

    /// <summary>Bytes of a table of so many chunks.</summary>
    public static int TableSize(int chunks) => HeaderSize + (chunks * EntrySize);

    /// <summary>Writes the table.</summary>
    public static byte[] Encode(IReadOnlyList<StoredRange> ranges)
    {
        ArgumentNullException.ThrowIfNull(ranges);
        var bytes = new byte[TableSize(ranges.Count)];
        Magic.CopyTo(bytes);
        bytes[8] = 1;
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(12), ranges.Count);
        for (var number = 0; number < ranges.Count; number++)
        {
            var entry = bytes.AsSpan(TableSize(number), EntrySize);
            Convert.FromHexString(ranges[number].Segment).CopyTo(entry);
            BinaryPrimitives.WriteInt32LittleEndian(entry[16..], ranges[number].Offset);
            BinaryPrimitives.WriteInt32LittleEndian(entry[20..], ranges[number].Length);
        }

        return bytes;
    }

    /// <summary>Reads a table; null where it is none, or one of its chunks can't be: out of bounds, or over another one.</summary>
    public static IReadOnlyList<StoredRange>? TryDecode(ReadOnlySpan<byte> untrustedTable)
    {
        if (untrustedTable.Length < HeaderSize || !untrustedTable.StartsWith(Magic) || untrustedTable[8] != 1 || untrustedTable[9..12].ContainsAnyExcept((byte)0)
            || BinaryPrimitives.ReadInt32LittleEndian(untrustedTable[12..]) is var count && (count is < 1 or > MostChunks || untrustedTable.Length != TableSize(count)))
        {
            return null;
        }

        var ranges = new List<StoredRange>(count);
        for (var number = 0; number < count; number++)
        {
            var entry = untrustedTable.Slice(TableSize(number), EntrySize);
            var (offset, length) = (BinaryPrimitives.ReadInt32LittleEndian(entry[16..]), BinaryPrimitives.ReadInt32LittleEndian(entry[20..]));
            if (offset < LeastOffset || length is < LeastLength or > MostLength || offset > int.MaxValue - length)
            {
                return null;
            }

            ranges.Add(new StoredRange(Convert.ToHexStringLower(entry[..NameSize]), offset, length));
        }

        var ordered = ranges.OrderBy(range => range.Segment, StringComparer.Ordinal).ThenBy(range => range.Offset).ToList();
        return ordered.Zip(ordered.Skip(1)).Any(pair => pair.First.Segment == pair.Second.Segment && pair.First.Offset + pair.First.Length > pair.Second.Offset)
            || ranges.Sum(range => (long)range.Length) > MostBytes ? null : ranges;
    }
}

/// <summary>What a device's start read until its guest was up.</summary>
/// <param name="Release">A release of the LivePC's stack.</param>
/// <param name="Chunks">A <see cref="BootSet"/>, base64.</param>
public sealed record SendRecording(ReleaseName Release, string Chunks);

/// <summary>The stored object that brings what a start of a release reads, as one stream. Nothing of it is trusted: its chunks are verified as all are.</summary>
/// <param name="Release">Whose.</param>
/// <param name="Name">Its name in the store, as a segment's.</param>
/// <param name="Chunks">How many it has.</param>
/// <param name="Length">Bytes.</param>
public sealed record BootPack(ReleaseName Release, string Name, int Chunks, long Length);

/// <summary>A recording that the server keeps.</summary>
/// <param name="Device">The device's identity.</param>
/// <param name="ReceivedAt">When it came.</param>
/// <param name="Chunks">Chunks that the start read.</param>
/// <param name="Bytes">Their stored bytes.</param>
/// <param name="IsTrusted">Whether the administrator said that it counts alone.</param>
public sealed record Recording(string Device, DateTimeOffset ReceivedAt, int Chunks, long Bytes, bool IsTrusted);

/// <summary>What is known of a release's boot set.</summary>
/// <param name="Recordings">The devices' recordings, oldest first.</param>
/// <param name="Pack">The pack; null before two devices agreed, or the administrator trusted one.</param>
public sealed record BootSetState(IReadOnlyList<Recording> Recordings, BootPack? Pack);

/// <summary>Says that a device's recording counts alone, as that of a computer of the administrator's.</summary>
/// <param name="Device">The device's identity.</param>
public sealed record TrustRecording(string Device);
