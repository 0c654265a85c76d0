using System.Text.Json;
using System.Text.Json.Nodes;

namespace Nacre.Policies;

/// <summary>A line of text; empty where nobody decides.</summary>
/// <param name="name">The name.</param>
/// <param name="scope">What it is about.</param>
/// <param name="longest">Characters at most.</param>
/// <param name="what">What it is, for messages.</param>
/// <param name="judge">What is wrong with it; null for nothing. It is not asked about the empty text.</param>
/// <param name="help">What it means.</param>
internal sealed class Phrase(string name, SettingScope scope, int longest, string what, Func<string, string?> judge, string help) : Setting<string>(name, scope, "", help, null)
{
    public override string Range => $"{what}, or nothing";

    public override JsonNode Write(object value) => JsonValue.Create((string)value);

    private protected override JsonObject DescribeType() => new() { ["type"] = "string", ["maxLength"] = longest };

    private protected override object? Parse(JsonElement untrusted, out string? why)
    {
        why = null;
        if (untrusted.ValueKind != JsonValueKind.String || untrusted.GetString()! is not { } text)
        {
            return null;
        }

        why = text.Length > longest ? $"it is longer than {longest} characters" : text.Length == 0 ? null : judge(text);
        return why is null ? text : null;
    }
}
