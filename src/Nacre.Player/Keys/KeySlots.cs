using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using NSec.Cryptography;

namespace Nacre.Player.Keys;

/// <summary>Makes and opens key slots: AES-256-GCM under a key from HKDF-SHA256 over the device's and the lease's part and what else the slot needs (SPEC.md beside
/// this). Argon2id is RFC 9106.</summary>
internal static class KeySlots
{
    public const int KeySize = 32;
    private const int SaltSize = 16, NonceSize = 12, TagSize = 16;

    /// <summary>What a guess costs: 256 MiB and three passes, a second of a processor of today.</summary>
    public static (int MemoryKiB, int Passes) Cost { get; } = (256 * 1024, 3);

    /// <summary>A file that somebody changed must not take all of the computer's memory.</summary>
    private static readonly (int Least, int Most) MemoryKiB = (8 * 1024, 1024 * 1024), Passes = (1, 16);

    /// <summary>Makes a slot.</summary>
    /// <param name="kind">What opens it.</param>
    /// <param name="id">The LivePC's key's.</param>
    /// <param name="key">What it holds: the LivePC's key.</param>
    /// <param name="part">The device's and the lease's part, 32 bytes.</param>
    /// <param name="secret">The code; empty for none.</param>
    /// <param name="number">Of a code.</param>
    public static KeySlot Make(KeySlotKind kind, Guid id, ReadOnlySpan<byte> key, ReadOnlySpan<byte> part, ReadOnlySpan<byte> secret, int number = 0)
    {
        var empty = new KeySlot(kind, RandomNumberGenerator.GetBytes(SaltSize), [], [], Number: number);
        using var wrapping = Derive(empty, part, secret);
        return Fill(empty, id, key, wrapping);
    }

    /// <summary>Makes a password's slot, and its mark: a slot that holds nothing, by which the password is told when it is chosen again.</summary>
    public static (KeySlot Slot, KeySlot Mark) MakePassword(Guid id, ReadOnlySpan<byte> key, ReadOnlySpan<byte> part, ReadOnlySpan<byte> password, (int MemoryKiB, int Passes)? cost)
    {
        var (memory, passes) = cost ?? Cost;
        var empty = new KeySlot(KeySlotKind.Password, RandomNumberGenerator.GetBytes(SaltSize), [], [], memory, passes);
        using var wrapping = Derive(empty, part, password);
        return (Fill(empty, id, key, wrapping), Fill(empty, id, [], wrapping));
    }

    /// <summary>Opens a slot; null where the secret, the device, the lease or the slot is another.</summary>
    /// <exception cref="NacreException">VolumeDamaged: it is no slot.</exception>
    public static SecretBytes? TryOpen(KeySlot untrusted, Guid id, ReadOnlySpan<byte> part, ReadOnlySpan<byte> secret)
    {
        if (untrusted is not { Salt.Length: SaltSize, Nonce.Length: NonceSize, Wrapped.Length: TagSize or (KeySize + TagSize) } || (untrusted.Kind == KeySlotKind.Password
            && (untrusted.MemoryKiB < MemoryKiB.Least || untrusted.MemoryKiB > MemoryKiB.Most || untrusted.Passes < Passes.Least || untrusted.Passes > Passes.Most)))
        {
            throw new NacreException(ErrorCatalogue.VolumeDamaged, "a key slot of the LivePC is not as it must be");
        }

        using var wrapping = Derive(untrusted, part, secret);
        using var cipher = new AesGcm(wrapping.Span, TagSize);
        var key = new SecretBytes(untrusted.Wrapped.Length - TagSize);
        try
        {
            cipher.Decrypt(untrusted.Nonce, untrusted.Wrapped.AsSpan(0, key.Length), untrusted.Wrapped.AsSpan(key.Length), key.Span, Associated(untrusted, id));
            return key;
        }
        catch (AuthenticationTagMismatchException)
        {
            key.Dispose();
            return null;
        }
    }

    private static KeySlot Fill(KeySlot empty, Guid id, ReadOnlySpan<byte> key, SecretBytes wrapping)
    {
        var slot = empty with { Nonce = RandomNumberGenerator.GetBytes(NonceSize), Wrapped = new byte[key.Length + TagSize] };
        using var cipher = new AesGcm(wrapping.Span, TagSize);
        cipher.Encrypt(slot.Nonce, key, slot.Wrapped.AsSpan(0, key.Length), slot.Wrapped.AsSpan(key.Length), Associated(slot, id));
        return slot;
    }

    private static SecretBytes Derive(KeySlot slot, ReadOnlySpan<byte> part, ReadOnlySpan<byte> secret)
    {
        using var stretched = new SecretBytes(slot.Kind == KeySlotKind.Password ? KeySize : secret.Length);
        if (slot.Kind == KeySlotKind.Password)
        {
            var argon = PasswordBasedKeyDerivationAlgorithm.Argon2id(new Argon2Parameters { DegreeOfParallelism = 1, MemorySize = slot.MemoryKiB, NumberOfPasses = slot.Passes });
            argon.DeriveBytes(secret, slot.Salt, stretched.Span);
        }
        else
        {
            secret.CopyTo(stretched.Span);
        }

        using var material = new SecretBytes(part.Length + stretched.Length);
        part.CopyTo(material.Span);
        stretched.Span.CopyTo(material.Span[part.Length..]);
        var key = new SecretBytes(KeySize);
        HKDF.DeriveKey(HashAlgorithmName.SHA256, material.Span, key.Span, slot.Salt, Encoding.ASCII.GetBytes($"nacre key slot {Word(slot.Kind)} v1"));
        return key;
    }

    private static byte[] Associated(KeySlot slot, Guid id) => Encoding.ASCII.GetBytes(
        string.Create(CultureInfo.InvariantCulture, $"{id:D} {Word(slot.Kind)} {slot.MemoryKiB} {slot.Passes} {slot.Number}"));

    private static string Word(KeySlotKind kind) => kind switch { KeySlotKind.Device => "device", KeySlotKind.Password => "password", _ => "recovery" };
}
