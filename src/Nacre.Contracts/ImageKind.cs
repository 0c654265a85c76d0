using System.Text.Json.Serialization;

namespace Nacre.Contracts;

/// <summary>What a golden image is made of, and so what kind of guest it becomes.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<ImageKind>))]
public enum ImageKind
{
    /// <summary>A Linux system whose layers are stacked in the guest: the artifacts <c>system</c>, <c>kernel</c> and <c>initramfs</c>.</summary>
    [JsonStringEnumMemberName("layered")]
    Layered,

    /// <summary>A whole disk that boots by UEFI, whose inside Nacre does not know: the artifact <c>disk</c>.</summary>
    [JsonStringEnumMemberName("disk")]
    Disk,
}
