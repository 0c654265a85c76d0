using System.Collections.Immutable;
using System.Text.Json;
using System.Text.Json.Serialization;
using Nacre.Contracts;

namespace Nacre.Images.Building;

/// <summary>A package of an image.</summary>
/// <param name="Name">The Debian package, with its architecture where it is not the only one.</param>
/// <param name="Version">The installed version.</param>
public sealed record InstalledPackage(string Name, string Version);

/// <summary>A file that the recipe itself put into an image.</summary>
/// <param name="Path">Where.</param>
/// <param name="Sha256">Of its content.</param>
public sealed record BuiltFile(string Path, string Sha256);

/// <summary>An archive that packages were taken from, after apt verified its signature.</summary>
/// <param name="Name">The address of its signed index, as apt calls the file; of an unverified source its list of packages.</param>
/// <param name="Sha256">Of that file.</param>
/// <param name="SignedBy">The keyring and the fingerprints of the keys whose signatures were good.</param>
/// <param name="IsUnverified">The recipe takes it as it comes (<c>base.unverifiedSources</c>), and nobody looked for a signature.</param>
public sealed record SignedArchive(string Name, string Sha256, string SignedBy, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)] bool IsUnverified = false);

/// <summary>The system that an application layer was built on.</summary>
/// <param name="Name">The system's image.</param>
/// <param name="Created">The system's date.</param>
/// <param name="Sha256">Of its <c>system.erofs</c>.</param>
public sealed record BuiltOn(string Name, DateTimeOffset Created, string Sha256);

/// <summary>A built golden image's <c>image.json</c>.</summary>
public sealed record BuiltImage
{
    /// <summary>What it is.</summary>
    public ImageKind Kind { get; init; }

    /// <summary>Of an application layer: the system that it was built on.</summary>
    public BuiltOn? On { get; init; }

    /// <summary>The recipe's name.</summary>
    public required string Name { get; init; }

    /// <summary>The recipe's description.</summary>
    public required string Description { get; init; }

    /// <summary>The image's date (of its newest package, or as ordered), never the time it was built.</summary>
    public required DateTimeOffset Created { get; init; }

    /// <summary><see cref="Recipes.Recipe.Sha256"/> of the recipe.</summary>
    public required string RecipeSha256 { get; init; }

    /// <summary>The kernel command line to start it with; empty for an application layer.</summary>
    public required string KernelCommandLine { get; init; }

    /// <summary>Bytes of <c>system.erofs</c>, or of an application layer's <c>layer.erofs</c>.</summary>
    public required long SystemSize { get; init; }

    /// <summary>Bytes of <c>kernel</c>; 0 for an application layer.</summary>
    public required long KernelSize { get; init; }

    /// <summary>Bytes of <c>initramfs</c>; 0 for an application layer.</summary>
    public required long InitramfsSize { get; init; }

    /// <summary>What is installed (by an application layer: what it adds), by name.</summary>
    public required ImmutableArray<InstalledPackage> Packages { get; init; }

    /// <summary>The archives that its packages were taken from; empty in an image that was built before this was written down.</summary>
    public ImmutableArray<SignedArchive> Archives { get; init; } = [];

    /// <summary>The recipe's own files; empty in an image that was built before this was written down.</summary>
    public ImmutableArray<BuiltFile> Files { get; init; } = [];

    /// <summary>The file's text.</summary>
    public byte[] ToJson() => [.. JsonSerializer.SerializeToUtf8Bytes(this, BuiltImageJson.Default.BuiltImage), (byte)'\n'];

    /// <summary>Reads an <c>image.json</c>.</summary>
    /// <exception cref="JsonException">The text is no description of an image.</exception>
    public static BuiltImage FromJson(ReadOnlySpan<byte> untrustedJson) =>
        JsonSerializer.Deserialize(untrustedJson, BuiltImageJson.Default.BuiltImage) ?? throw new JsonException("image.json is null");
}

[JsonSerializable(typeof(BuiltImage))]
[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true)]
internal sealed partial class BuiltImageJson : JsonSerializerContext;
