using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;

namespace Nacre.Policies;

/// <summary>The schema for others: as JSON Schema (draft 2020-12), and as a page of documentation.</summary>
public static class PolicySchema
{
    /// <summary>A JSON Schema that a document of one level satisfies exactly where it is valid, but for the syntax of single lines of text.</summary>
    public static JsonObject ToJson()
    {
        var properties = new JsonObject();
        foreach (var setting in Settings.All)
        {
            properties[setting.Name] = setting.ToSchema();
        }

        return new JsonObject
        {
            ["$schema"] = "https://json-schema.org/draft/2020-12/schema",
            ["title"] = "Nacre policy",
            ["description"] = "What one level (organisation, group, LivePC, device) decides.",
            ["type"] = "object",
            ["additionalProperties"] = false,
            ["properties"] = properties,
        };
    }

    /// <summary><c>docs/policies.md</c>.</summary>
    public static string ToMarkdown()
    {
        var text = new StringBuilder();
        text.Append(
            """
            # Policies

            Generated from the schema by `nacre policy schema --markdown`; a test compares it.

            A policy decides about settings. Levels follow each other, and the last one that says something wins: the factory's values below, the organisation, the user's groups (in the order of `nacre group list`), the LivePC, the
            device. `nacre policy set LEVEL SETTING=VALUE…` decides, `nacre policy explain --livepc NAME --device ID` says for every setting what holds and who decided it. Levels are written `organisation`, `group:NAME`, `livepc:NAME`,
            `device:ID`.

            | setting | values | factory | scope | meaning |
            |---|---|---|---|---|

            """);
        foreach (var setting in Settings.All)
        {
            text.Append(CultureInfo.InvariantCulture, $"| `{setting.Name}` | {setting.Range} | `{setting.Write(setting.Factory).ToJsonString()}` | {setting.Scope.ToString().ToLowerInvariant()}{(setting.IsAboutPerson ? ", of a person: the organisation or a group decides" : "")}{(setting.IsForNextStart ? ", from the next start on" : "")} | {setting.Help} |\n");
        }

        return text.ToString();
    }
}
