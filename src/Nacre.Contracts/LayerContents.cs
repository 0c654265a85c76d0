using System.IO.Compression;
using System.Security.Cryptography;
using System.Text.Json;

namespace Nacre.Contracts;

/// <summary>What an application layer holds, without the contents of its files: enough to find out which layers do not go together.</summary>
/// <param name="Packages">The packages that it adds.</param>
/// <param name="Accounts">The system accounts and groups that it makes.</param>
/// <param name="Files">Every path that it brings, but for folders.</param>
/// <param name="Covers">The paths of the system that it was built on which it replaces or removes.</param>
public sealed record LayerContents(
    IReadOnlyList<LayerPackage> Packages, IReadOnlyList<LayerAccount> Accounts, IReadOnlyList<LayerFile> Files, IReadOnlyList<CoveredPath> Covers)
{
    /// <summary>Bounds what a publisher can make the server unpack.</summary>
    private const int LargestJson = 64 * 1024 * 1024;

    /// <summary>Its JSON, whose digest the manifest has.</summary>
    public byte[] ToJson() => JsonSerializer.SerializeToUtf8Bytes(this, ContractJson.Options);

    /// <summary>Reads it.</summary>
    /// <exception cref="JsonException">It is none.</exception>
    public static LayerContents FromJson(ReadOnlySpan<byte> untrustedJson)
    {
        var contents = JsonSerializer.Deserialize<LayerContents>(untrustedJson, ContractJson.Options) ?? throw new JsonException("the contents are null");
        return contents.Packages.Any(one => one is null) || contents.Accounts.Any(one => one is null) || contents.Files.Any(one => one is null) || contents.Covers.Any(one => one is null)
            ? throw new JsonException("one of the contents is null")
            : contents;
    }

    /// <summary>The JSON's digest, as the manifest has it.</summary>
    public static string DigestOf(ReadOnlySpan<byte> json) => Convert.ToHexStringLower(SHA256.HashData(json));

    /// <summary>Compresses the JSON (gzip) for the way to the server.</summary>
    public static byte[] Compress(ReadOnlySpan<byte> json)
    {
        using var buffer = new MemoryStream();
        using (var gzip = new GZipStream(buffer, CompressionLevel.Optimal, leaveOpen: true))
        {
            gzip.Write(json);
        }

        return buffer.ToArray();
    }

    /// <summary>The JSON again; null where that is no gzip, or of more than 64 MiB.</summary>
    public static byte[]? TryExpand(byte[] untrusted)
    {
        try
        {
            using var gzip = new GZipStream(new MemoryStream(untrusted), CompressionMode.Decompress);
            using var result = new MemoryStream();
            var buffer = new byte[81920];
            int read;
            while ((read = gzip.Read(buffer, 0, buffer.Length)) > 0)
            {
                result.Write(buffer, 0, read);
                if (result.Length > LargestJson)
                {
                    return null;
                }
            }

            return result.ToArray();
        }
        catch (InvalidDataException)
        {
            return null;
        }
    }
}

/// <summary>A package of a layer.</summary>
/// <param name="Name">The Debian package.</param>
/// <param name="Version">Its version.</param>
/// <param name="Architecture">Its architecture.</param>
public sealed record LayerPackage(string Name, string Version, string Architecture);

/// <summary>An account or group of a layer.</summary>
/// <param name="Table"><c>passwd</c> or <c>group</c>.</param>
/// <param name="Name">Its name.</param>
/// <param name="Number">Its number.</param>
public sealed record LayerAccount(string Table, string Name, long Number);

/// <summary>A path of a layer.</summary>
/// <param name="Path">Absolute.</param>
/// <param name="Content">What is there: of a file its SHA-256, of a link its target, of anything else what it is.</param>
public sealed record LayerFile(string Path, string Content);

/// <summary>A path of the system that a layer covers.</summary>
/// <param name="Path">Absolute.</param>
/// <param name="Owner">The package of the system that owns it; <c>system</c> where none does.</param>
/// <param name="Removed">Whether it is gone, rather than another.</param>
public sealed record CoveredPath(string Path, string Owner, bool Removed);
