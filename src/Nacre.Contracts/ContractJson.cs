using System.Text.Json;
using System.Text.Json.Serialization;

namespace Nacre.Contracts;

/// <summary>How every body, claim set and manifest is written and read: camelCase, exact case, no duplicate properties, no numbers in quotes.</summary>
public static class ContractJson
{
    /// <summary>The shared options; read-only. Properties that a reader does not know are skipped, so that an old reader understands a new writer.</summary>
    public static JsonSerializerOptions Options { get; } = Create();

    private static JsonSerializerOptions Create()
    {
        var options = new JsonSerializerOptions();
        Configure(options);
        options.MakeReadOnly(populateMissingResolver: true);
        return options;
    }

    /// <summary>Gives <paramref name="options"/> the same rules.</summary>
    public static void Configure(JsonSerializerOptions options)
    {
        options.PropertyNamingPolicy = JsonNamingPolicy.CamelCase;
        options.PropertyNameCaseInsensitive = false;
        options.NumberHandling = JsonNumberHandling.Strict;
        options.AllowDuplicateProperties = false;
        options.RespectNullableAnnotations = true;
        options.MaxDepth = 16;
    }
}
