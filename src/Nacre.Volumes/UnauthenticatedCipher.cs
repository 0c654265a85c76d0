#if NACRE_ENCRYPTION_ONLY
using System.Security.Cryptography;

namespace Nacre.Volumes;

/// <summary>In the place of AES-GCM in builds that only measure what authentication costs (<c>-p:EncryptionOnly=true</c>, bench/volumes.sh):
/// the same number of AES rounds, no authentication, no nonce. Protects nothing. Never in a product: it goes to a folder of its own.</summary>
internal sealed class UnauthenticatedCipher : IDisposable
{
    private const int Longest = Segment.SlotSize;

    private readonly Aes _aes = Aes.Create();
    private readonly ICryptoTransform _encryptor;
    private readonly ICryptoTransform _decryptor;
    private readonly byte[] _in = new byte[Longest];
    private readonly byte[] _out = new byte[Longest];

    public UnauthenticatedCipher(byte[] key, int tagSize)
    {
        (_aes.Mode, _aes.Padding, _aes.Key) = (CipherMode.ECB, PaddingMode.None, key);
        (_encryptor, _decryptor) = (_aes.CreateEncryptor(), _aes.CreateDecryptor());
    }

    public void Encrypt(ReadOnlySpan<byte> nonce, ReadOnlySpan<byte> plaintext, Span<byte> ciphertext, Span<byte> tag, ReadOnlySpan<byte> associatedData) =>
        Transform(_encryptor, plaintext, ciphertext);

    public void Decrypt(ReadOnlySpan<byte> nonce, ReadOnlySpan<byte> ciphertext, ReadOnlySpan<byte> tag, Span<byte> plaintext, ReadOnlySpan<byte> associatedData) =>
        Transform(_decryptor, ciphertext, plaintext);

    public void Dispose()
    {
        _encryptor.Dispose();
        _decryptor.Dispose();
        _aes.Dispose();
    }

    private void Transform(ICryptoTransform transform, ReadOnlySpan<byte> source, Span<byte> target)
    {
        if (!source.IsEmpty)
        {
            source.CopyTo(_in);
            transform.TransformBlock(_in, 0, source.Length, _out, 0);
            _out.AsSpan(0, source.Length).CopyTo(target);
        }
    }
}
#endif
