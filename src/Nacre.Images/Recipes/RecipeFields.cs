using System.Collections.Immutable;
using System.Text.RegularExpressions;

namespace Nacre.Images.Recipes;

/// <summary>Takes typed values out of one mapping; every mismatch is reported with its place, and what nothing asked for is an unknown key.</summary>
internal sealed class RecipeFields(RecipeMap map, string path, Action<RecipeNode, string, string> report)
{
    /// <summary>More of anything than a recipe can need; bounds the work a hostile one makes.</summary>
    private const int MaximumItems = 10_000;

    private readonly HashSet<string> known = new(StringComparer.Ordinal);

    internal RecipeNode Node => map;

    internal string KeyOf(string key) => path.Length == 0 ? key : $"{path}.{key}";

    internal void Report(RecipeNode node, string key, string message) => report(node, KeyOf(key), message);

    internal bool Has(string key) => map.Entries.Any(entry => entry.Key.Value == key);

    internal RecipeNode? Find(string key)
    {
        known.Add(key);
        return map.Entries.FirstOrDefault(entry => entry.Key.Value == key).Value;
    }

    internal void RejectUnknown()
    {
        foreach (var (key, _) in map.Entries.Where(entry => !known.Contains(entry.Key.Value)))
        {
            Report(key, key.Value, $"unknown key; expected one of: {string.Join(", ", known.Order(StringComparer.Ordinal))}");
        }
    }

    /// <summary>Text that is a scalar and passes <paramref name="shape"/>; <paramref name="otherwise"/> where it is absent or wrong.</summary>
    internal string Text(string key, Regex? shape, string expected, string otherwise = "", bool required = false)
    {
        var node = Find(key);
        if (node is null)
        {
            if (required)
            {
                Report(map, key, $"missing; expected {expected}");
            }

            return otherwise;
        }

        return Text(node, key, shape, expected) ?? otherwise;
    }

    internal string? Text(RecipeNode node, string key, Regex? shape, string expected)
    {
        if (node is not RecipeScalar scalar)
        {
            Report(node, key, $"expected {expected}, found a {Kind(node)}");
            return null;
        }

        // A plain `key:` is YAML's null: an omission, not the empty text.
        if ((scalar.Value.Length == 0 && !scalar.Quoted) || shape?.IsMatch(scalar.Value) == false)
        {
            Report(node, key, $"expected {expected}, found '{Shorten(scalar.Value)}'");
            return null;
        }

        return scalar.Value;
    }

    internal bool Flag(string key)
    {
        if (Find(key) is not { } node)
        {
            return false;
        }

        if (node is RecipeScalar { Quoted: false, Value: "true" or "false" } scalar)
        {
            return scalar.Value == "true";
        }

        Report(node, key, "expected true or false");
        return false;
    }

    /// <summary>A list of words of one shape.</summary>
    /// <param name="key">Where it is.</param>
    /// <param name="shape">What each word looks like.</param>
    /// <param name="expected">The shape, for people.</param>
    /// <param name="unique">Whether a word may be there once only.</param>
    /// <param name="refuse">What is wrong with a word that needs words of its own; null where nothing is.</param>
    internal ImmutableArray<string> Words(string key, Regex shape, string expected, bool unique = true, Func<string, string?>? refuse = null)
    {
        var words = ImmutableArray.CreateBuilder<string>();
        var index = 0;
        foreach (var item in Items(key))
        {
            var name = $"{key}[{index++}]";
            if (item is RecipeScalar scalar && refuse?.Invoke(scalar.Value) is { } reason)
            {
                Report(item, name, reason);
                continue;
            }

            if (Text(item, name, shape, expected) is not { } word)
            {
                continue;
            }

            if (unique && words.Contains(word))
            {
                Report(item, name, $"'{word}' is there twice");
                continue;
            }

            words.Add(word);
        }

        return words.ToImmutable();
    }

    internal IReadOnlyList<RecipeNode> Items(string key)
    {
        switch (Find(key))
        {
            case null:
                return [];
            case RecipeList { Items.Count: <= MaximumItems } list:
                return list.Items;
            case RecipeList list:
                Report(list, key, $"more than {MaximumItems} items");
                return [];
            case var node:
                Report(node, key, $"expected a list, found a {Kind(node)}");
                return [];
        }
    }

    /// <summary>The mapping at <paramref name="key"/>; null where it is absent or no mapping.</summary>
    internal RecipeFields? Map(string key)
    {
        var node = Find(key);
        return node is null ? null : Map(node, key);
    }

    internal RecipeFields? Map(RecipeNode node, string key)
    {
        if (node is RecipeMap inner)
        {
            return new RecipeFields(inner, KeyOf(key), report);
        }

        Report(node, key, $"expected a mapping, found a {Kind(node)}");
        return null;
    }

    internal IEnumerable<RecipeFields> Maps(string key) =>
        Items(key).Select((node, index) => Map(node, $"{key}[{index}]")).OfType<RecipeFields>();

    private static string Kind(RecipeNode node) => node switch
    {
        RecipeList => "list",
        RecipeMap => "mapping",
        _ => "plain value",
    };

    private static string Shorten(string value) => value.Length <= 60 ? value : string.Concat(value.AsSpan(0, 60), "…");
}
