using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Nacre.Policies;

/// <summary>What a setting is about.</summary>
public enum SettingScope
{
    /// <summary>The whole LivePC on a device.</summary>
    Container,

    /// <summary>What happens inside a running one.</summary>
    Workspace,
}

/// <summary>One thing that an administrator can decide: its name on the wire, its type and bounds, what holds where nobody decides, and what it means.</summary>
public abstract class Setting
{
    private protected Setting(string name, SettingScope scope, string help, string? unit)
    {
        Name = name;
        Scope = scope;
        Help = help;
        Unit = unit;
    }

    /// <summary>The name, such as <c>update.apply</c>.</summary>
    public string Name { get; }

    /// <summary>What it is about.</summary>
    public SettingScope Scope { get; }

    /// <summary>What it means, in a sentence.</summary>
    public string Help { get; }

    /// <summary>The unit of a number; null for none.</summary>
    public string? Unit { get; }

    /// <summary>Whether it is about a person and not about a LivePC: the organisation and groups decide it, a LivePC and a device can not.</summary>
    public bool IsAboutPerson { get; init; }

    /// <summary>Whether a change waits for the LivePC's next start; otherwise it holds from the next contact on.</summary>
    public bool IsForNextStart { get; init; }

    /// <summary>What values it takes, in words.</summary>
    public abstract string Range { get; }

    /// <summary>What holds where nobody decides.</summary>
    public abstract object Factory { get; }

    /// <summary>Its values as JSON Schema (draft 2020-12).</summary>
    public JsonObject ToSchema()
    {
        var schema = DescribeType();
        schema["description"] = Help;
        schema["default"] = Write(Factory);
        schema["x-scope"] = Scope.ToString().ToLowerInvariant();
        if (Unit is not null)
        {
            schema["x-unit"] = Unit;
        }

        if (IsAboutPerson)
        {
            schema["x-decided-by"] = new JsonArray("organisation", "group");
        }

        if (IsForNextStart)
        {
            schema["x-takes-effect"] = "next start";
        }

        return schema;
    }

    /// <summary>A value as JSON.</summary>
    public abstract JsonNode Write(object value);

    /// <summary>Reads a value.</summary>
    /// <param name="untrusted">The JSON.</param>
    /// <param name="value">The value.</param>
    /// <param name="problem">What is wrong, naming the setting and what it may be.</param>
    public bool TryRead(JsonElement untrusted, [NotNullWhen(true)] out object? value, [NotNullWhen(false)] out string? problem)
    {
        value = Parse(untrusted, out var why);
        problem = value is null ? $"'{Name}' must be {Range}{(why is null ? "" : $": {why}")}" : null;
        return value is not null;
    }

    /// <summary>Reads a value as a person types it: <c>72</c>, <c>on</c>, <c>deadline</c>; a list as JSON, or as its only item.</summary>
    /// <param name="untrusted">What was typed.</param>
    /// <param name="value">The value.</param>
    /// <param name="problem">What is wrong, naming the setting and what it may be.</param>
    public bool TryReadTyped(string untrusted, [NotNullWhen(true)] out object? value, [NotNullWhen(false)] out string? problem)
    {
        ArgumentNullException.ThrowIfNull(untrusted);
        JsonElement json;
        try
        {
            json = JsonSerializer.SerializeToElement(FromTyped(untrusted));
        }
        catch (JsonException exception)
        {
            (value, problem) = (null, $"'{Name}' must be {Range}: {exception.Message}");
            return false;
        }

        return TryRead(json, out value, out problem);
    }

    /// <summary>Whether two of its values are the same.</summary>
    public bool AreSame(object one, object other) => JsonNode.DeepEquals(Write(one), Write(other));

    /// <inheritdoc/>
    public override string ToString() => Name;

    private protected abstract JsonObject DescribeType();

    private protected abstract object? Parse(JsonElement untrusted, out string? why);

    private protected virtual JsonNode? FromTyped(string untrusted) => untrusted;
}

/// <summary>A setting whose values have a type.</summary>
/// <typeparam name="T">The type.</typeparam>
public abstract class Setting<T> : Setting
    where T : notnull
{
    private protected Setting(string name, SettingScope scope, T factory, string help, string? unit)
        : base(name, scope, help, unit) => FactoryValue = factory;

    /// <summary>What holds where nobody decides.</summary>
    public T FactoryValue { get; }

    /// <inheritdoc/>
    public sealed override object Factory => FactoryValue;
}

/// <summary>On or off.</summary>
internal sealed class Switch(string name, SettingScope scope, bool factory, string help) : Setting<bool>(name, scope, factory, help, null)
{
    public override string Range => "true or false";

    public override JsonNode Write(object value) => JsonValue.Create((bool)value);

    private protected override JsonObject DescribeType() => new() { ["type"] = "boolean" };

    private protected override object? Parse(JsonElement untrusted, out string? why)
    {
        why = null;
        return untrusted.ValueKind is JsonValueKind.True or JsonValueKind.False ? untrusted.GetBoolean() : null;
    }

    private protected override JsonNode? FromTyped(string untrusted) => untrusted switch
    {
        "true" or "on" => true,
        "false" or "off" => false,
        _ => untrusted,
    };
}

/// <summary>A whole number within bounds; where <paramref name="orZero"/> says what 0 means, that too.</summary>
internal sealed class WholeNumber(string name, SettingScope scope, int factory, int least, int most, string unit, string help, string? orZero = null)
    : Setting<int>(name, scope, factory, help, unit)
{
    public override string Range => string.Create(CultureInfo.InvariantCulture, $"a whole number of {Unit} from {least} to {most}{(orZero is null ? "" : $", or 0 ({orZero})")}");

    public override JsonNode Write(object value) => JsonValue.Create((int)value);

    private protected override JsonObject DescribeType()
    {
        var bounded = new JsonObject { ["type"] = "integer", ["minimum"] = least, ["maximum"] = most };
        return orZero is null ? bounded : new JsonObject { ["anyOf"] = new JsonArray(new JsonObject { ["const"] = 0 }, bounded) };
    }

    private protected override object? Parse(JsonElement untrusted, out string? why)
    {
        why = null;
        return untrusted.ValueKind == JsonValueKind.Number && untrusted.TryGetInt32(out var number) && ((number >= least && number <= most) || (orZero is not null && number == 0)) ? number : null;
    }

    private protected override JsonNode? FromTyped(string untrusted) =>
        int.TryParse(untrusted, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number) ? number : untrusted;
}

/// <summary>One of a few words.</summary>
internal sealed class Choice<T>(string name, SettingScope scope, T factory, string help, params (string Word, T Value)[] words) : Setting<T>(name, scope, factory, help, null)
    where T : struct, Enum
{
    public override string Range => $"one of {string.Join(", ", words.Select(one => one.Word))}";

    public override JsonNode Write(object value) => Array.Find(words, one => one.Value.Equals(value)).Word;

    private protected override JsonObject DescribeType() => new() { ["type"] = "string", ["enum"] = new JsonArray([.. words.Select(one => (JsonNode)one.Word)]) };

    private protected override object? Parse(JsonElement untrusted, out string? why)
    {
        why = null;
        var place = untrusted.ValueKind == JsonValueKind.String ? Array.FindIndex(words, one => untrusted.ValueEquals(one.Word)) : -1;
        return place < 0 ? null : words[place].Value;
    }
}

/// <summary>Lines of text, in their order.</summary>
/// <param name="name">The name.</param>
/// <param name="scope">What it is about.</param>
/// <param name="most">How many lines at most.</param>
/// <param name="what">What each is, for messages.</param>
/// <param name="judge">What is wrong with a line; null for nothing.</param>
/// <param name="help">What it means.</param>
/// <param name="longest">Characters of a line at most.</param>
/// <param name="factory">What holds where nobody decides; null: none.</param>
internal sealed class Lines(
    string name, SettingScope scope, int most, string what, Func<string, string?> judge, string help, int longest = 1000, IReadOnlyList<string>? factory = null)
    : Setting<IReadOnlyList<string>>(name, scope, factory ?? [], help, null)
{
    public override string Range => string.Create(CultureInfo.InvariantCulture, $"a list of at most {most} texts, each {what}");

    public override JsonNode Write(object value) => new JsonArray([.. ((IReadOnlyList<string>)value).Select(line => (JsonNode)line)]);

    private protected override JsonObject DescribeType() => new()
    {
        ["type"] = "array", ["maxItems"] = most, ["items"] = new JsonObject { ["type"] = "string", ["maxLength"] = longest, ["description"] = what },
    };

    private protected override object? Parse(JsonElement untrusted, out string? why)
    {
        why = null;
        if (untrusted.ValueKind != JsonValueKind.Array || untrusted.GetArrayLength() > most)
        {
            return null;
        }

        var lines = new List<string>();
        foreach (var item in untrusted.EnumerateArray())
        {
            var line = item.ValueKind == JsonValueKind.String ? item.GetString()! : null;
            if ((line is null ? "it is no text" : line.Length > longest ? $"it is longer than {longest} characters" : judge(line)) is { } wrong)
            {
                why = string.Create(CultureInfo.InvariantCulture, $"number {lines.Count + 1}: {wrong}");
                return null;
            }

            lines.Add(line!);
        }

        return lines.AsReadOnly();
    }

    private protected override JsonNode? FromTyped(string untrusted) => untrusted.StartsWith('[') ? JsonNode.Parse(untrusted) : new JsonArray(untrusted);
}
