using System.Collections.Immutable;
using System.Text.Json;
using System.Text.Json.Serialization;
using Nacre.Contracts;

namespace Nacre.Images.Importing;

/// <summary>The <c>image.json</c> of a golden image that was imported: a whole disk, whose inside Nacre does not know.</summary>
public sealed record ImportedDisk
{
    /// <summary>The name of the disk's file in the folder: raw, with holes where it is zero.</summary>
    public const string FileName = "disk.raw";

    /// <summary>Always <see cref="ImageKind.Disk"/>.</summary>
    public ImageKind Kind { get; init; } = ImageKind.Disk;

    /// <summary>The image's name.</summary>
    public required string Name { get; init; }

    /// <summary>When the imported file was changed last.</summary>
    public required DateTimeOffset Created { get; init; }

    /// <summary>Bytes of the disk.</summary>
    public required long DiskSize { get; init; }

    /// <summary>The format that it was imported from.</summary>
    public required DiskFormat From { get; init; }

    /// <summary>The disk's name in the archive that it was imported from; null where there was none.</summary>
    public string? Disk { get; init; }

    /// <summary>What the import did not look at, for who publishes the disk.</summary>
    public ImmutableArray<string> Notes { get; init; } = [];

    /// <summary>What is on it; empty where its table can't be understood, or it was imported before this was written down.</summary>
    public ImmutableArray<DiskPartition> Partitions { get; init; } = [];

    /// <summary>The file's text.</summary>
    public byte[] ToJson() => [.. JsonSerializer.SerializeToUtf8Bytes(this, ImportedDiskJson.Default.ImportedDisk), (byte)'\n'];

    /// <summary>Reads an <c>image.json</c>; null where it is of another kind.</summary>
    /// <exception cref="JsonException">The text is no description of an image.</exception>
    public static ImportedDisk? TryFromJson(ReadOnlyMemory<byte> untrustedJson)
    {
        using var document = JsonDocument.Parse(untrustedJson);
        return document.RootElement.ValueKind == JsonValueKind.Object && document.RootElement.TryGetProperty("kind", out var kind) && kind.ValueEquals("disk")
            ? document.Deserialize(ImportedDiskJson.Default.ImportedDisk)
            : null;
    }
}

/// <summary>The formats of disks that can be imported.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<DiskFormat>))]
public enum DiskFormat
{
    /// <summary>Byte for byte.</summary>
    [JsonStringEnumMemberName("raw")]
    Raw,

    /// <summary>QEMU's.</summary>
    [JsonStringEnumMemberName("qcow2")]
    Qcow2,

    /// <summary>VMware's, in one file.</summary>
    [JsonStringEnumMemberName("vmdk")]
    Vmdk,

    /// <summary>Hyper-V's.</summary>
    [JsonStringEnumMemberName("vhdx")]
    Vhdx,

    /// <summary>VirtualBox's.</summary>
    [JsonStringEnumMemberName("vdi")]
    Vdi,

    /// <summary>Virtual PC's, and Hyper-V's of before.</summary>
    [JsonStringEnumMemberName("vhd")]
    Vhd,

    /// <summary>An archive of a whole virtual machine, as VMware and VirtualBox make it; only for reading.</summary>
    [JsonStringEnumMemberName("ova")]
    Ova,
}

[JsonSerializable(typeof(ImportedDisk))]
[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true)]
internal sealed partial class ImportedDiskJson : JsonSerializerContext;
