using System.Security.Cryptography;
using Nacre.Contracts;

namespace Nacre.Client;

/// <summary>A P-256 private key that never leaves a piece of hardware; what needs it is done there. Thread-safe.</summary>
public interface IHardwareKey
{
    /// <summary>The public half.</summary>
    PublicKey PublicKey { get; }

    /// <summary>Signs a SHA-256 (ECDSA): r, then s, 32 bytes each.</summary>
    /// <exception cref="NacreException">The hardware refuses, or is not there any more.</exception>
    byte[] Sign(ReadOnlySpan<byte> digest);

    /// <summary>The x coordinate, 32 bytes, of the point agreed on with another key (ECDH); the hardware refuses what is not on the curve.</summary>
    /// <exception cref="NacreException">The hardware refuses, or is not there any more.</exception>
    byte[] Agree(ECPoint other);
}

/// <summary>ECDSA with a key in hardware, for code that knows the framework's classes.</summary>
internal sealed class HardwareSigning(IHardwareKey key) : ECDsa
{
    public override int KeySize
    {
        get => 256;
        set => throw new NotSupportedException();
    }

    public override byte[] SignHash(byte[] hash)
    {
        ArgumentNullException.ThrowIfNull(hash);
        return hash.Length == SHA256.HashSizeInBytes ? key.Sign(hash) : throw new CryptographicException("only SHA-256 is signed");
    }

    public override bool VerifyHash(byte[] hash, byte[] signature)
    {
        using var open = Create(ExportParameters(includePrivateParameters: false));
        return open.VerifyHash(hash, signature);
    }

    public override ECParameters ExportParameters(bool includePrivateParameters) => HardwareAgreement.Export(key, includePrivateParameters);
}

/// <summary>ECDH with a key in hardware, for code that knows the framework's classes.</summary>
internal sealed class HardwareAgreement(IHardwareKey key) : ECDiffieHellman
{
    public override int KeySize
    {
        get => 256;
        set => throw new NotSupportedException();
    }

    public override ECDiffieHellmanPublicKey PublicKey
    {
        get
        {
            using var open = Create(ExportParameters(includePrivateParameters: false));
            return open.PublicKey;
        }
    }

    public static ECParameters Export(IHardwareKey key, bool includePrivateParameters) => !includePrivateParameters && PublicKeys.TryRead(key.PublicKey, out var parameters)
        ? parameters
        : throw new CryptographicException("the private key does not leave its hardware");

    public override byte[] DeriveKeyFromHash(ECDiffieHellmanPublicKey otherPartyPublicKey, HashAlgorithmName hashAlgorithm, byte[]? secretPrepend, byte[]? secretAppend)
    {
        ArgumentNullException.ThrowIfNull(otherPartyPublicKey);
        if (hashAlgorithm != HashAlgorithmName.SHA256)
        {
            throw new CryptographicException("only SHA-256 is derived with");
        }

        var agreed = key.Agree(otherPartyPublicKey.ExportParameters().Q);
        byte[] hashed = [.. secretPrepend ?? [], .. agreed, .. secretAppend ?? []];
        try
        {
            return SHA256.HashData(hashed);
        }
        finally
        {
            CryptographicOperations.ZeroMemory(agreed);
            CryptographicOperations.ZeroMemory(hashed);
        }
    }

    public override ECParameters ExportParameters(bool includePrivateParameters) => Export(key, includePrivateParameters);
}
