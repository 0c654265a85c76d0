using System.Text;

namespace Nacre.Images.Recipes;

/// <summary>
/// Puts values in the place of <c>${NAME}</c> in a recipe's values, once: what a value says is not looked at again, and can be no key, list or
/// mapping, because the YAML is parsed before. <c>$${</c> stands for <c>${</c>.
/// </summary>
internal sealed class RecipeExpansion(IReadOnlyDictionary<string, string> values, Action<RecipeNode, string, string> report)
{
    /// <summary>Characters of all values together; keeps a recipe that uses a long value often from filling memory.</summary>
    private const int MaximumText = 8 << 20;

    private long text;

    internal RecipeNode Expand(RecipeNode node, string key = "") => node switch
    {
        RecipeMap map => map with { Entries = [.. map.Entries.Select(entry => (entry.Key, key.Length == 0 && entry.Key.Value is "variables" or "from"
            ? entry.Value : Expand(entry.Value, key.Length == 0 ? entry.Key.Value : $"{key}.{entry.Key.Value}")))] },
        RecipeList list => list with { Items = [.. list.Items.Select((item, index) => Expand(item, $"{key}[{index}]"))] },
        RecipeScalar scalar when scalar.Value.Contains("${", StringComparison.Ordinal) => Expand(scalar, key),
        _ => node,
    };

    private RecipeScalar Expand(RecipeScalar scalar, string key)
    {
        var result = new StringBuilder();
        var from = 0;
        foreach (var use in RecipeSyntax.Use().EnumerateMatches(scalar.Value))
        {
            var word = scalar.Value.AsSpan(use.Index, use.Length);
            result.Append(scalar.Value, from, use.Index - from);
            from = use.Index + use.Length;
            if (word is "$${")
            {
                result.Append("${");
                continue;
            }

            if (word is "${")
            {
                report(scalar, key, "'${' begins no use of a variable; '$${' stands for a '${' that is meant");
                return scalar;
            }

            if (!values.TryGetValue(word[2..^1].ToString(), out var value))
            {
                report(scalar, key, $"the variable '{word[2..^1]}' is not declared under variables; '$${{' stands for a '${{' that is meant");
                return scalar;
            }

            text += value.Length;
            if (text > MaximumText)
            {
                report(scalar, key, $"the variables make more than {MaximumText} characters of it");
                return scalar;
            }

            result.Append(value);
        }

        return scalar with { Value = result.Append(scalar.Value, from, scalar.Value.Length - from).ToString() };
    }
}
