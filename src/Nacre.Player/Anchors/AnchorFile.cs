using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.LivePcs;

namespace Nacre.Player.Anchors;

/// <summary>What this device keeps of one of the user's layers.</summary>
/// <param name="Anchor">Its newest state.</param>
/// <param name="Replaces">See <see cref="StatedAnchor.Replaces"/>.</param>
/// <param name="Missed">A newer state, of which the server told while the layer was in use: what had been opened is an older copy.</param>
internal sealed record KeptAnchor(LayerAnchor Anchor, LayerAnchor? Replaces = null, LayerAnchor? Missed = null);

/// <summary>What this device keeps of a LivePC's layers.</summary>
/// <param name="Layers">One for each layer that was ever opened.</param>
/// <param name="Count">The TPM's count when this was the newest; null where no TPM counts.</param>
internal sealed record KeptAnchors(IReadOnlyList<KeptAnchor> Layers, ulong? Count);

/// <summary>The file <c>anchors</c> beside the lease: an HMAC under a key from the device's secret (32 bytes), then JSON. The HMAC stops who can write the file
/// and not read that secret; an older copy of the whole file is told by the lease and by the TPM only.</summary>
internal sealed class AnchorFile
{
    private readonly string path;
    private readonly string livePc;
    private readonly byte[] key;

    public AnchorFile(LivePcFolder folder, EnrolledIdentity identity)
    {
        (path, livePc) = (folder.Anchors, folder.Name);
        var secret = identity.ReadSecret();
        key = HKDF.DeriveKey(HashAlgorithmName.SHA256, secret, HMACSHA256.HashSizeInBytes, info: Encoding.UTF8.GetBytes($"nacre anchors of {identity.Record.DeviceId} {livePc}"));
        CryptographicOperations.ZeroMemory(secret);
    }

    /// <summary>What is kept; null where there is no file.</summary>
    /// <exception cref="NacreException">VolumeOutdated: this device did not write it.</exception>
    public KeptAnchors? Read()
    {
        byte[] content;
        try
        {
            content = File.ReadAllBytes(path);
        }
        catch (Exception exception) when (exception is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }

        return content.Length > HMACSHA256.HashSizeInBytes
            && CryptographicOperations.FixedTimeEquals(content.AsSpan(0, HMACSHA256.HashSizeInBytes), HMACSHA256.HashData(key, content.AsSpan(HMACSHA256.HashSizeInBytes)))
            && JsonSerializer.Deserialize<KeptAnchors>(content.AsSpan(HMACSHA256.HashSizeInBytes), ContractJson.Options) is { } kept
            ? kept
            : throw new NacreException(ErrorCatalogue.VolumeOutdated, $"what this device knows of the newest layers of '{livePc}' was changed ('{path}'), so nobody can tell whether they are older copies");
    }

    /// <summary>Keeps it, durably.</summary>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public void Write(KeptAnchors kept)
    {
        var content = JsonSerializer.SerializeToUtf8Bytes(kept, ContractJson.Options);
        DurableFile.Write(path, [.. HMACSHA256.HashData(key, content), .. content]);
    }
}
