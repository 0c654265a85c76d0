using System.Text.Json;
using System.Text.Json.Serialization;
using Nacre.Contracts;

namespace Nacre.Player.Stacks;

/// <summary>The corporate layers that start together, lowest first: a release of the system, then of each application layer. Two with the same releases in the same order are equal.</summary>
[JsonConverter(typeof(Converter))]
internal sealed class CorporateStack : IEquatable<CorporateStack>
{
    /// <param name="releases">Lowest first, at least the system.</param>
    public CorporateStack(IEnumerable<ReleaseName> releases)
    {
        Releases = [.. releases];
        if (Releases.Count == 0)
        {
            throw new ArgumentException("a stack has a system", nameof(releases));
        }
    }

    public IReadOnlyList<ReleaseName> Releases { get; }

    public ReleaseName System => Releases[0];

    /// <summary>The application layers, lowest first.</summary>
    public IEnumerable<ReleaseName> Layers => Releases.Skip(1);

    public bool Equals(CorporateStack? other) => other is not null && Releases.SequenceEqual(other.Releases);

    public override bool Equals(object? obj) => Equals(obj as CorporateStack);

    public override int GetHashCode() => Releases.Aggregate(0, HashCode.Combine);

    /// <summary>For a person: <c>release 2 of debian with tools 1</c>.</summary>
    public override string ToString() =>
        $"release {System.Version} of {System.Image}" + (Releases.Count == 1 ? "" : $" with {string.Join(", ", Layers)}");

    private sealed class Converter : JsonConverter<CorporateStack>
    {
        public override CorporateStack Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
            JsonSerializer.Deserialize<ReleaseName[]>(ref reader, options) is { Length: > 0 } releases && releases.All(release => release is not null)
                ? new CorporateStack(releases)
                : throw new JsonException("a stack has a system");

        public override void Write(Utf8JsonWriter writer, CorporateStack value, JsonSerializerOptions options) => JsonSerializer.Serialize(writer, value.Releases, options);
    }
}
