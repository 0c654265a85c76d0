using System.Security.Cryptography;
using Microsoft.AspNetCore.DataProtection;

namespace Nacre.Server;

/// <summary>
/// Encrypts the secrets that the database keeps. Each is bound to what it is and whose: a secret moved into another row does not open.
/// The key ring is a folder, which all servers of one database share.
/// </summary>
internal sealed class SecretBox(IDataProtectionProvider provider)
{
    public byte[] Protect(ReadOnlySpan<byte> secret, params string[] whose)
    {
        var copy = secret.ToArray();
        try
        {
            return For(whose).Protect(copy);
        }
        finally
        {
            CryptographicOperations.ZeroMemory(copy);
        }
    }

    public byte[] Reveal(byte[] box, params string[] whose) => For(whose).Unprotect(box);

    private IDataProtector For(string[] whose) => provider.CreateProtector(["nacre", .. whose]);
}
