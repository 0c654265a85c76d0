using System.Collections.Immutable;
using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace Nacre.Policies;

/// <summary>Values of some settings: what one level decides. On the wire a JSON object with a property for each setting that it decides. Always valid.</summary>
[JsonConverter(typeof(Converter))]
public sealed class PolicyDocument : IEquatable<PolicyDocument>
{
    private static readonly JsonDocumentOptions Strict = new() { AllowDuplicateProperties = false, MaxDepth = 8 };
    private readonly ImmutableDictionary<Setting, object> values;

    private PolicyDocument(ImmutableDictionary<Setting, object> values) => this.values = values;

    /// <summary>One that decides nothing.</summary>
    public static PolicyDocument Empty { get; } = new(ImmutableDictionary<Setting, object>.Empty);

    /// <summary>The settings that it decides, in the schema's order.</summary>
    public IEnumerable<Setting> Settings => Policies.Settings.All.Where(values.ContainsKey);

    /// <summary>Reads one.</summary>
    /// <exception cref="PolicyException">It is no JSON object, a setting is unknown or stated twice, or a value is out of its bounds: all that is wrong.</exception>
    public static PolicyDocument Parse(string untrustedJson)
    {
        try
        {
            using var json = JsonDocument.Parse(untrustedJson, Strict);
            return Parse(json.RootElement);
        }
        catch (JsonException exception)
        {
            throw new PolicyException([$"a policy is a JSON object: {exception.Message}"], exception);
        }
    }

    /// <summary>Reads one.</summary>
    /// <exception cref="PolicyException">It is no JSON object, a setting is unknown, or a value is out of its bounds: all that is wrong.</exception>
    public static PolicyDocument Parse(JsonElement untrusted)
    {
        if (untrusted.ValueKind != JsonValueKind.Object)
        {
            throw new PolicyException(["a policy is a JSON object with a property for each setting that it decides"]);
        }

        var values = ImmutableDictionary.CreateBuilder<Setting, object>();
        var problems = new List<string>();
        foreach (var property in untrusted.EnumerateObject())
        {
            if (Policies.Settings.Find(property.Name) is not { } setting)
            {
                problems.Add(Policies.Settings.Unknown(property.Name));
            }
            else if (values.ContainsKey(setting))
            {
                problems.Add($"'{setting.Name}' is stated twice");
            }
            else if (setting.TryRead(property.Value, out var value, out var problem))
            {
                values[setting] = value;
            }
            else
            {
                problems.Add(problem);
            }
        }

        return problems.Count == 0 ? new PolicyDocument(values.ToImmutable()) : throw new PolicyException(problems);
    }

    /// <summary>The same changed by a merge patch (RFC 7396): a property whose value is null takes a decision back.</summary>
    /// <exception cref="PolicyException">As <see cref="Parse(JsonElement)"/>.</exception>
    public PolicyDocument Patch(JsonElement untrusted)
    {
        if (untrusted.ValueKind != JsonValueKind.Object)
        {
            throw new PolicyException(["a change of a policy is a JSON object with a property for each setting that it changes"]);
        }

        var merged = ToJson();
        foreach (var property in untrusted.EnumerateObject())
        {
            if (property.Value.ValueKind == JsonValueKind.Null && Policies.Settings.Find(property.Name) is not null)
            {
                merged.Remove(property.Name);
            }
            else
            {
                merged[property.Name] = JsonNode.Parse(property.Value.GetRawText());
            }
        }

        return Parse(JsonSerializer.SerializeToElement(merged));
    }

    /// <summary>What it decides about a setting.</summary>
    public bool TryGet(Setting setting, [NotNullWhen(true)] out object? value) => values.TryGetValue(setting, out value);

    /// <summary>The same with one more value, which has to be one that the setting takes.</summary>
    /// <exception cref="PolicyException">It is not.</exception>
    public PolicyDocument With<T>(Setting<T> setting, T value)
        where T : notnull => With((Setting)setting, value);

    /// <summary>The same with one more value, which has to be one that the setting takes.</summary>
    /// <exception cref="PolicyException">It is not.</exception>
    public PolicyDocument With(Setting setting, object value)
    {
        ArgumentNullException.ThrowIfNull(setting);
        return setting.TryRead(JsonSerializer.SerializeToElement(setting.Write(value)), out var read, out var problem)
            ? new PolicyDocument(values.SetItem(setting, read))
            : throw new PolicyException([problem]);
    }

    /// <summary>What this decides and, over it, what another does.</summary>
    public PolicyDocument Under(PolicyDocument other)
    {
        ArgumentNullException.ThrowIfNull(other);
        return new PolicyDocument(values.SetItems(other.values));
    }

    /// <summary>As JSON, in the schema's order: the same content is the same text.</summary>
    public JsonObject ToJson()
    {
        var json = new JsonObject();
        foreach (var setting in Settings)
        {
            json[setting.Name] = setting.Write(values[setting]);
        }

        return json;
    }

    /// <inheritdoc/>
    public override string ToString() => ToJson().ToJsonString();

    /// <inheritdoc/>
    public bool Equals(PolicyDocument? other) => other is not null && ToString() == other.ToString();

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as PolicyDocument);

    /// <inheritdoc/>
    public override int GetHashCode() => ToString().GetHashCode(StringComparison.Ordinal);

    private sealed class Converter : JsonConverter<PolicyDocument>
    {
        public override PolicyDocument Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
        {
            using var json = JsonDocument.ParseValue(ref reader);
            try
            {
                return Parse(json.RootElement);
            }
            catch (PolicyException exception)
            {
                throw new JsonException(exception.Message, exception);
            }
        }

        public override void Write(Utf8JsonWriter writer, PolicyDocument value, JsonSerializerOptions options) => value.ToJson().WriteTo(writer, options);
    }
}
