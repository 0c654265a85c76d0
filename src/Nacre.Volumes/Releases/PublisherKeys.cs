using System.Buffers.Binary;
using System.Security.Cryptography;

namespace Nacre.Volumes.Releases;

/// <summary>
/// What follows from the organisation's secret: it never leaves the publisher. Equal chunks of one organisation get equal names, so they
/// are stored once; nobody without the secret can test whether a chunk is there.
/// </summary>
public sealed class PublisherKeys
{
    private readonly byte[] chunkNames;
    private readonly byte[] segmentNames;
    private readonly byte[] segments;
    private readonly byte[] catalogues;
    private readonly byte[] releases;

    /// <summary>Derives the keys.</summary>
    /// <param name="organisationSecret">32 random bytes.</param>
    public PublisherKeys(ReadOnlySpan<byte> organisationSecret)
    {
        if (organisationSecret.Length != SegmentFormat.KeySize)
        {
            throw new ArgumentException("the organisation's secret has 32 bytes", nameof(organisationSecret));
        }

        var secret = organisationSecret.ToArray();
        chunkNames = Derive(secret, "nacre chunk names");
        segmentNames = Derive(secret, "nacre segment names");
        segments = Derive(secret, "nacre segments");
        catalogues = Derive(secret, "nacre catalogues");
        releases = Derive(secret, "nacre releases");
        ChunkingSeed = BinaryPrimitives.ReadInt64LittleEndian(Derive(secret, "nacre chunking"));
        CryptographicOperations.ZeroMemory(secret);
    }

    /// <summary>Seeds the choice of chunk boundaries, so that chunk lengths tell an outsider nothing about the content.</summary>
    public long ChunkingSeed { get; }

    /// <summary>A chunk's name: 16 bytes of HMAC-SHA-256 over its content.</summary>
    public UInt128 NameChunk(ReadOnlySpan<byte> plain)
    {
        Span<byte> hash = stackalloc byte[32];
        HMACSHA256.HashData(chunkNames, plain, hash);
        return BinaryPrimitives.ReadUInt128LittleEndian(hash);
    }

    /// <summary>A segment's name: 16 bytes of HMAC-SHA-256 over exactly what will be encrypted under its key. The same name is therefore never
    /// used for two different contents, and no nonce twice for different bytes.</summary>
    internal byte[] NameSegment(ReadOnlySpan<byte> content) => HMACSHA256.HashData(segmentNames, content)[..SegmentFormat.NameSize];

    /// <summary>The key of a release: opens its index and the deltas to it. The publisher finds it again when it makes a delta from that release to a later one.</summary>
    /// <param name="image">The golden image.</param>
    /// <param name="version">The release's number.</param>
    public byte[] ReleaseKey(string image, int version) => Derive(releases, string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{image}/{version}"));

    /// <summary>The key of a segment's chunks; goes into the indexes of the releases that refer to it.</summary>
    public byte[] SegmentKey(ReadOnlySpan<byte> name) =>
        HKDF.DeriveKey(HashAlgorithmName.SHA256, segments, SegmentFormat.KeySize, info: name.ToArray());

    internal byte[] CatalogueKey(ReadOnlySpan<byte> name) =>
        HKDF.DeriveKey(HashAlgorithmName.SHA256, catalogues, SegmentFormat.KeySize, info: name.ToArray());

    private static byte[] Derive(byte[] secret, string purpose) =>
        HKDF.DeriveKey(HashAlgorithmName.SHA256, secret, SegmentFormat.KeySize, info: System.Text.Encoding.ASCII.GetBytes(purpose));
}
