using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Spectre.Console;

namespace Nacre.Cli;

/// <summary>Key files of the trust metadata: FILE is the private key under a passphrase (PKCS #8, PEM: openssl reads it), FILE.pub the public one. The release signing key of this
/// computer, which nobody types a passphrase for, is read too.</summary>
internal static class TrustKeys
{
    private const int LongestFile = 64 * 1024;

    /// <summary>600,000 rounds of PBKDF2-SHA256: a second of work for each guess on a computer of today.</summary>
    private static readonly PbeParameters Encryption = new(PbeEncryptionAlgorithm.Aes256Cbc, HashAlgorithmName.SHA256, 600_000);

    /// <summary>Makes a key pair.</summary>
    /// <exception cref="NacreException">AlreadyExists, FileAccess.</exception>
    public static TrustKey Create(string path, string? passphraseFile)
    {
        if (File.Exists(path) || File.Exists(path + ".pub"))
        {
            throw new NacreException(ErrorCatalogue.AlreadyExists, $"'{path}' is there already, and a key that is overwritten is lost");
        }

        var passphrase = Passphrase(path, passphraseFile, isNew: true);
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using (var file = new FileStream(path, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite }))
        {
            file.Write(System.Text.Encoding.ASCII.GetBytes(key.ExportEncryptedPkcs8PrivateKeyPem(passphrase, Encryption) + "\n"));
            file.Flush(flushToDisk: true);
        }

        var made = TrustKey.From(key);
        File.WriteAllText(path + ".pub", made.Pem + "\n");
        return made;
    }

    /// <summary>Opens a private key; the caller disposes it.</summary>
    /// <exception cref="NacreException">FileAccess, VolumeKeyWrong.</exception>
    public static ECDsa Open(string path, string? passphraseFile)
    {
        var content = Read(path);
        var key = ECDsa.Create();
        try
        {
            if (content.AsSpan().StartsWith("-----BEGIN ENCRYPTED"u8))
            {
                key.ImportFromEncryptedPem(System.Text.Encoding.ASCII.GetString(content), Passphrase(path, passphraseFile, isNew: false));
            }
            else
            {
                key.ImportPkcs8PrivateKey(content, out _);
            }

            return key;
        }
        catch (Exception exception) when (exception is CryptographicException or ArgumentException or NotSupportedException)
        {
            key.Dispose();
            throw new NacreException(ErrorCatalogue.FileAccess, $"'{path}' is no key, or the passphrase is wrong", exception);
        }
    }

    /// <summary>Reads a public key.</summary>
    /// <exception cref="NacreException">FileAccess, TrustNotAuthentic.</exception>
    public static TrustKey ReadPublic(string path) => TrustKey.Parse(System.Text.Encoding.ASCII.GetString(Read(path)).TrimEnd('\n'));

    private static byte[] Read(string path) => new FileInfo(path) is { Exists: true, Length: <= LongestFile }
        ? File.ReadAllBytes(path) : throw new NacreException(ErrorCatalogue.FileAccess, $"'{path}' is not a key file");

    private static string Passphrase(string path, string? file, bool isNew)
    {
        var passphrase = file is not null ? File.ReadAllText(file).TrimEnd('\n', '\r')
            : Console.IsInputRedirected ? throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{path}' needs a passphrase: type it at a terminal, or give --passphrase-file")
            : AnsiConsole.Prompt(new TextPrompt<string>($"passphrase of {Markup.Escape(path)}:").Secret(null));
        return passphrase.Length >= 8 || !isNew ? passphrase : throw new NacreException(ErrorCatalogue.UsageInvalid, "a passphrase has at least 8 characters");
    }
}
