using System.Security.Cryptography;

namespace Nacre.Volumes.Releases;

/// <summary>A stored file that is sealed as a whole: 8 bytes that say what it is, its format (1), 3 zero bytes, a random nonce, the sealed content
/// (SPEC.md, "Index file" and "Delta").</summary>
internal static class SealedFile
{
    private const int HeaderSize = 24;
    private const int NonceAt = 12;
    private const int NonceSize = 12;

    /// <summary>Bytes that a file has more than its content.</summary>
    public const int Overhead = HeaderSize + SegmentFormat.TagSize;

    /// <summary>Seals <paramref name="content"/> under a key that seals no more than some thousands of files.</summary>
    public static byte[] Seal(ReadOnlySpan<byte> magic, byte[] key, ReadOnlySpan<byte> content)
    {
        var bytes = new byte[content.Length + Overhead];
        magic.CopyTo(bytes);
        bytes[8] = 1;
        RandomNumberGenerator.Fill(bytes.AsSpan(NonceAt, NonceSize));
        using var gcm = new AesGcm(key, SegmentFormat.TagSize);
        gcm.Encrypt(bytes.AsSpan(NonceAt, NonceSize), content, bytes.AsSpan(HeaderSize, content.Length), bytes.AsSpan(HeaderSize + content.Length), bytes.AsSpan(0, NonceAt));
        return bytes;
    }

    /// <summary>Opens what <see cref="Seal"/> made.</summary>
    /// <param name="magic">What it has to be.</param>
    /// <param name="key">The key.</param>
    /// <param name="untrustedBytes">The file.</param>
    /// <param name="what">What it is, for a person.</param>
    /// <exception cref="VolumeException">Truncated, Corrupt (something else), Unsupported, NotAuthentic (wrong key or changed).</exception>
    public static byte[] Open(ReadOnlySpan<byte> magic, byte[] key, ReadOnlySpan<byte> untrustedBytes, string what)
    {
        if (untrustedBytes.Length < Overhead)
        {
            throw new VolumeException(VolumeErrorKind.Truncated, what);
        }

        if (!untrustedBytes.StartsWith(magic))
        {
            throw new VolumeException(VolumeErrorKind.Corrupt, $"{what} does not begin as one");
        }

        if (untrustedBytes[8] != 1 || untrustedBytes[9..NonceAt].ContainsAnyExcept((byte)0))
        {
            throw new VolumeException(VolumeErrorKind.Unsupported, $"{what} has format {untrustedBytes[8]}");
        }

        var content = new byte[untrustedBytes.Length - Overhead];
        using var gcm = new AesGcm(key, SegmentFormat.TagSize);
        try
        {
            gcm.Decrypt(
                untrustedBytes.Slice(NonceAt, NonceSize), untrustedBytes[HeaderSize..^SegmentFormat.TagSize], untrustedBytes[^SegmentFormat.TagSize..], content, untrustedBytes[..NonceAt]);
            return content;
        }
        catch (AuthenticationTagMismatchException exception)
        {
            throw new VolumeException(VolumeErrorKind.NotAuthentic, what, exception);
        }
    }
}
