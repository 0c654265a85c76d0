using System.Buffers.Binary;
using System.Security.Cryptography;

namespace Nacre.Player.Keys;

/// <summary>What a person gave to open a LivePC, in UTF-8. Whoever made it disposes it.</summary>
public sealed class KeySecrets : IDisposable
{
    /// <summary>The password; null where none was asked for.</summary>
    public SecretBytes? Password { get; init; }

    /// <summary>The password that is to hold from now on; null: none is chosen.</summary>
    public SecretBytes? New { get; init; }

    /// <summary>The recovery code, as typed; null: none.</summary>
    public string? UntrustedCode { get; init; }

    /// <summary>Whether the password is to be removed, which policy has to allow.</summary>
    public bool RemovesPassword { get; init; }

    /// <summary>Nothing of them.</summary>
    public override string ToString() => "***";

    /// <summary>Hands them to another process of ours: a byte (1: it is there) and, where it is, the length (2 bytes, little-endian) and the bytes of each: password, new password.</summary>
    public async Task WriteAsync(Stream stream, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(stream);
        foreach (var secret in new[] { Password, New })
        {
            var bytes = new byte[secret is null ? 1 : 3 + secret.Length];
            if (secret is not null)
            {
                bytes[0] = 1;
                BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(1), checked((ushort)secret.Length));
                secret.Span.CopyTo(bytes.AsSpan(3));
            }

            await stream.WriteAsync(bytes, cancellationToken).ConfigureAwait(false);
            CryptographicOperations.ZeroMemory(bytes);
        }
    }

    /// <summary>Reads what <see cref="WriteAsync"/> wrote; what is not there is null.</summary>
    public static KeySecrets Read(Stream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        return new KeySecrets { Password = ReadOne(stream), New = ReadOne(stream) };
    }

    private static SecretBytes? ReadOne(Stream stream)
    {
        Span<byte> head = stackalloc byte[3];
        if (stream.ReadAtLeast(head[..1], 1, throwOnEndOfStream: false) == 0 || head[0] != 1)
        {
            return null;
        }

        stream.ReadExactly(head[1..]);
        var secret = new SecretBytes(BinaryPrimitives.ReadUInt16LittleEndian(head[1..]));
        stream.ReadExactly(secret.Span);
        return secret;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Password?.Dispose();
        New?.Dispose();
    }
}

/// <summary>What the organisation gets of a LivePC's keys, encrypted to its recovery key.</summary>
/// <param name="Device">The device.</param>
/// <param name="LivePc">The LivePC.</param>
/// <param name="Number">The code's number, from 1.</param>
/// <param name="Code">What its user types.</param>
/// <param name="Key">The LivePC's key, 32 bytes, base64: it opens the volumes without the device.</param>
public sealed record EscrowedKeys(string Device, string LivePc, int Number, string Code, string Key)
{
    /// <summary>Characters of a code, of five bits each.</summary>
    public const int CodeLength = 24;

    /// <summary>Without the secrets.</summary>
    public override string ToString() => $"{nameof(EscrowedKeys)} {{ {Device} {LivePc} {Number} }}";
}

/// <summary>Where passwords come from: a person before a terminal, or what a script gave.</summary>
public interface IPasswordSource
{
    /// <summary>The password of a LivePC.</summary>
    /// <param name="livePc">The LivePC.</param>
    /// <param name="problem">Why it is asked for again; null the first time.</param>
    /// <returns>UTF-8; null where there is none, or no other than was given before.</returns>
    SecretBytes? Current(string livePc, string? problem);

    /// <summary>A new password.</summary>
    /// <param name="livePc">The LivePC.</param>
    /// <param name="problem">Why one has to be chosen, and what it must have; null: its user wants another one.</param>
    /// <returns>UTF-8; null where none is chosen.</returns>
    SecretBytes? Choose(string livePc, string? problem);
}
