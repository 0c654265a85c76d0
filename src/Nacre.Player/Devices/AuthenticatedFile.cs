using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Player.Devices;

/// <summary>A small durable file of this device's own: an HMAC under a key from the device's secret (32 bytes), then JSON. The HMAC stops who can write the file and
/// not read that secret; an older copy of the whole file is not told.</summary>
internal sealed class AuthenticatedFile<T>
    where T : class
{
    private readonly byte[] key;

    /// <param name="path">Where it is.</param>
    /// <param name="identity">Whose it is.</param>
    /// <param name="purpose">What it is for, so that one can't serve as another.</param>
    public AuthenticatedFile(string path, EnrolledIdentity identity, string purpose)
    {
        Path = path;
        var secret = identity.ReadSecret();
        key = HKDF.DeriveKey(HashAlgorithmName.SHA256, secret, HMACSHA256.HashSizeInBytes, info: Encoding.UTF8.GetBytes(purpose));
        CryptographicOperations.ZeroMemory(secret);
    }

    public string Path { get; }

    /// <summary>Reads it.</summary>
    /// <param name="value">What is in it; null where there is no file.</param>
    /// <returns>False where this device did not write it.</returns>
    public bool TryRead(out T? value)
    {
        value = null;
        byte[] content;
        try
        {
            content = File.ReadAllBytes(Path);
        }
        catch (Exception exception) when (exception is FileNotFoundException or DirectoryNotFoundException)
        {
            return true;
        }

        value = content.Length > HMACSHA256.HashSizeInBytes
            && CryptographicOperations.FixedTimeEquals(content.AsSpan(0, HMACSHA256.HashSizeInBytes), HMACSHA256.HashData(key, content.AsSpan(HMACSHA256.HashSizeInBytes)))
            ? JsonSerializer.Deserialize<T>(content.AsSpan(HMACSHA256.HashSizeInBytes), ContractJson.Options)
            : null;
        return value is not null;
    }

    /// <summary>Keeps it, durably.</summary>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public void Write(T value)
    {
        var content = JsonSerializer.SerializeToUtf8Bytes(value, ContractJson.Options);
        DurableFile.Write(Path, [.. HMACSHA256.HashData(key, content), .. content]);
    }
}
