using System.Text.Json.Serialization;

namespace Nacre.Contracts;

/// <summary>What an image is, and so what its releases may be used as.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<ImageKind>))]
public enum ImageKind
{
    /// <summary>An operating system: the lowest layer, with its kernel.</summary>
    [JsonStringEnumMemberName("system")]
    System,

    /// <summary>An application layer: what an installation on top of a system changed.</summary>
    [JsonStringEnumMemberName("application")]
    Application,

    /// <summary>A whole disk that boots by UEFI, whose inside Nacre does not know: the artifact <c>disk</c>.</summary>
    [JsonStringEnumMemberName("disk")]
    Disk,
}

/// <summary>One release of one image.</summary>
/// <param name="Image">The image.</param>
/// <param name="Version">The release.</param>
public sealed record ReleaseName(string Image, int Version)
{
    /// <summary><c>IMAGE VERSION</c>, as the guest is told it.</summary>
    public override string ToString() => string.Create(global::System.Globalization.CultureInfo.InvariantCulture, $"{Image} {Version}");
}
