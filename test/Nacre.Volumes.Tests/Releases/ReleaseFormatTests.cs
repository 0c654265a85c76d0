using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Nacre.Testing;
using Nacre.Volumes.Releases;
using Xunit;
using ZstdSharp;

namespace Nacre.Volumes.Tests.Releases;

/// <summary>Published bytes against Releases/SPEC.md, by code that is written from it alone.</summary>
public sealed class ReleaseFormatTests
{
    private static readonly byte[] Secret = SHA256.HashData("an organisation"u8);
    private static readonly byte[] ReleaseKey = SHA256.HashData("a release"u8);

    private readonly PublisherKeys keys = new(Secret);
    private readonly (byte[] Plain, byte[] Stored, bool Compressed)[] chunks = [.. Chunks()];

    [Fact]
    [Spec("REL-001", "REL-002", "REL-003", "REL-010", "REL-012")]
    public void A_segment_is_byte_for_byte_what_the_specification_says()
    {
        var entries = chunks.Select(chunk => Entry(Hmac("nacre chunk names", chunk.Plain), chunk.Stored.Length, chunk.Plain.Length, chunk.Compressed)).ToArray();
        byte[] committed = [.. entries.Zip(chunks).SelectMany(pair => pair.First.Concat(pair.Second.Stored))];
        var name = Hmac("nacre segment names", SHA256.HashData(committed));
        byte[] expected = [.. "NACRESEG"u8, 1, .. new byte[7], .. name];
        var key = Derive(Derive(Secret, "nacre segments"), name);
        for (var i = 0; i < chunks.Length; i++)
        {
            var (plain, stored, compressed) = chunks[i];
            expected = [.. expected, .. Sealed(key, (uint)i, stored, [.. BitConverter.GetBytes(plain.Length), compressed ? (byte)1 : (byte)0])];
        }

        expected =
        [
            .. expected, .. Sealed(Derive(Derive(Secret, "nacre catalogues"), name), uint.MaxValue, [.. entries.SelectMany(entry => entry)], []),
            .. "NACRECAT"u8, .. BitConverter.GetBytes(chunks.Length), .. new byte[4],
        ];
        var built = Build();
        Assert.Equal(Convert.ToHexStringLower(name), built.Name);
        Assert.Equal(expected, built.Bytes);
    }

    [Fact]
    [Spec("REL-004", "REL-020", "REL-021", "REL-022")]
    public void An_index_holds_what_the_specification_says()
    {
        var built = Build();
        var places = built.Chunks.Select(chunk => chunk.Place).ToArray();
        var segment = new ReleaseSegment(built.Name, keys.SegmentKey(Convert.FromHexString(built.Name)), built.Bytes.Length);
        var index = new ReleaseIndex([segment],
        [
            new ReleaseArtifact("system", 5 * 4096, [
                new ReleaseChunk(0, 4096, 0, 1, places[1].Offset, places[1].StoredLength, places[1].Compressed),
                new ReleaseChunk(4096, 3 * 4096, -1, 0, 0, 0, false),
                new ReleaseChunk(4 * 4096, 4096, 0, 0, places[0].Offset, places[0].StoredLength, places[0].Compressed)]),
        ]).Seal(ReleaseKey);
        Assert.Equal("NACREIDX"u8.ToArray().Concat(new byte[] { 1, 0, 0, 0 }), index[..12]);
        var frame = new byte[index.Length - 24 - 16];
        using (var cipher = new AesGcm(Derive(ReleaseKey, "nacre release index"), 16))
        {
            cipher.Decrypt(index.AsSpan(12, 12), index.AsSpan(24, frame.Length), index.AsSpan(24 + frame.Length), frame, index.AsSpan(0, 12));
        }

        using var decompressor = new Decompressor();
        Assert.Equal(
            [
                .. Number(1), .. Convert.FromHexString(built.Name), .. segment.Key.Span, .. Number((ulong)built.Bytes.Length),
                .. Number(1), .. Number(6), .. "system"u8, .. Number(5 * 4096), .. Number(3),
                .. Number(1 << 1), .. Signed(0), .. Signed(1), .. Signed(places[1].Offset - 32), .. Number(((ulong)places[1].StoredLength << 1) | (places[1].Compressed ? 1u : 0)),
                .. Number((3 << 1) | 1),
                .. Number(1 << 1), .. Signed(0), .. Signed(-2), .. Signed(places[0].Offset - places[1].Offset - places[1].StoredLength),
                .. Number(((ulong)places[0].StoredLength << 1) | (places[0].Compressed ? 1u : 0)),
            ],
            decompressor.Unwrap(frame).ToArray());
    }

    [Fact]
    [Spec("REL-013", "REL-020")]
    public void A_segment_of_more_than_32_MiB_is_corrupt()
    {
        byte[] Index(long length) => new ReleaseIndex([new ReleaseSegment(new string('0', 32), new byte[32], length)], []).Seal(ReleaseKey);
        Assert.Equal(32 << 20, ReleaseIndex.Open(Index(32 << 20), ReleaseKey).Segments[0].Length);
        Assert.Equal(VolumeErrorKind.Corrupt, Assert.Throws<VolumeException>(() => ReleaseIndex.Open(Index((32 << 20) + 1), ReleaseKey)).Kind);
    }

    [Theory]
    [InlineData(1L << 44, true)]
    [InlineData((1L << 44) + 1, false)]
    [Spec("REL-021")]
    public void An_artifact_of_more_than_2_to_the_44_bytes_is_corrupt(long size, bool isValid)
    {
        var holes = new List<ReleaseChunk>();
        for (var at = 0L; at < size; at += 1 << 30)
        {
            holes.Add(new ReleaseChunk(at, (int)Math.Min(1 << 30, (size - at + 4095) / 4096 * 4096), -1, 0, 0, 0, false));
        }

        var index = new ReleaseIndex([], [new ReleaseArtifact("system", size, holes)]).Seal(ReleaseKey);
        if (isValid)
        {
            Assert.Equal(size, ReleaseIndex.Open(index, ReleaseKey)["system"].Size);
        }
        else
        {
            Assert.Equal(VolumeErrorKind.Corrupt, Assert.Throws<VolumeException>(() => ReleaseIndex.Open(index, ReleaseKey)).Kind);
        }
    }

    private BuiltSegment Build()
    {
        var builder = new SegmentBuilder(keys);
        foreach (var (plain, stored, compressed) in chunks)
        {
            builder.Add(keys.NameChunk(plain), stored, plain.Length, compressed);
        }

        return builder.Seal();
    }

    private static IEnumerable<(byte[] Plain, byte[] Stored, bool Compressed)> Chunks()
    {
        using var compressor = new Compressor(3);
        var random = new byte[4096];
        new Random(1).NextBytes(random);
        yield return (random, random, false);
        var even = Enumerable.Repeat((byte)7, 4096).ToArray();
        yield return (even, compressor.Wrap(even).ToArray(), true);
        var large = Enumerable.Range(0, 64 * 4096).Select(i => (byte)(i / 4096)).ToArray();
        yield return (large, compressor.Wrap(large).ToArray(), true);
    }

    private static byte[] Entry(byte[] chunk, int stored, int plain, bool compressed)
    {
        var entry = new byte[24];
        chunk.CopyTo(entry, 0);
        BinaryPrimitives.WriteUInt32LittleEndian(entry.AsSpan(16), ((uint)stored * 2) + (compressed ? 1u : 0));
        BinaryPrimitives.WriteInt32LittleEndian(entry.AsSpan(20), plain);
        return entry;
    }

    private static byte[] Sealed(byte[] key, uint ordinal, byte[] plain, byte[] associated)
    {
        var nonce = new byte[12];
        BinaryPrimitives.WriteUInt32LittleEndian(nonce, ordinal);
        var bytes = new byte[plain.Length + 16];
        using var cipher = new AesGcm(key, 16);
        cipher.Encrypt(nonce, plain, bytes.AsSpan(0, plain.Length), bytes.AsSpan(plain.Length), associated);
        return bytes;
    }

    private static byte[] Hmac(string purpose, byte[] content) => HMACSHA256.HashData(Derive(Secret, purpose), content)[..16];

    private static byte[] Derive(byte[] key, string info) => Derive(key, Encoding.ASCII.GetBytes(info));

    private static byte[] Derive(byte[] key, byte[] info) => HKDF.DeriveKey(HashAlgorithmName.SHA256, key, 32, salt: [], info);

    private static byte[] Signed(long value) => Number((ulong)((value << 1) ^ (value >> 63)));

    private static byte[] Number(ulong value)
    {
        var bytes = new List<byte>();
        for (; value >= 128; value >>= 7)
        {
            bytes.Add((byte)(value | 128));
        }

        bytes.Add((byte)value);
        return [.. bytes];
    }
}
