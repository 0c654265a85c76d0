namespace Nacre.Images.Recipes;

/// <summary>Lays a recipe over the one it is from: lists grow, keys win, and an item that names the same file, account or script wins by its keys.</summary>
internal static class RecipeLayering
{
    private static readonly Dictionary<string, string> Identities = new(StringComparer.Ordinal) { ["files"] = "path", ["users"] = "name", ["scripts"] = "name" };

    internal static RecipeMap Over(RecipeMap below, RecipeMap above, bool isRoot = true)
    {
        var entries = below.Entries.Where(entry => !isRoot || entry.Key.Value != "from").ToList();
        foreach (var (key, value) in above.Entries)
        {
            var at = entries.FindIndex(entry => entry.Key.Value == key.Value);
            if (at < 0)
            {
                entries.Add((key, value));
                continue;
            }

            entries[at] = (key, (entries[at].Value, value) switch
            {
                (RecipeMap old, RecipeMap @new) => Over(old, @new, isRoot: false),
                (RecipeList old, RecipeList @new) => Append(old, @new, isRoot ? Identities.GetValueOrDefault(key.Value) : null),
                _ => value,
            });
        }

        return above with { Entries = entries };
    }

    private static RecipeList Append(RecipeList below, RecipeList above, string? identity)
    {
        var items = below.Items.ToList();
        var inherited = items.Count;
        foreach (var item in above.Items)
        {
            // Only what is inherited is looked at: what one recipe says twice is its author's mistake, and reported.
            var at = items.FindIndex(0, inherited, old => (old, item) switch
            {
                (RecipeScalar one, RecipeScalar other) => one.Value == other.Value,
                (RecipeMap one, RecipeMap other) => identity is not null && NameOf(one, identity) is { } name && name == NameOf(other, identity),
                _ => false,
            });
            if (at < 0)
            {
                items.Add(item);
            }
            else if (items[at] is RecipeMap old)
            {
                items[at] = identity == "path" ? File(old, (RecipeMap)item) : Over(old, (RecipeMap)item, isRoot: false);
            }
        }

        return above with { Items = items };
    }

    /// <summary>A file has a content or a source: the one that is said last.</summary>
    private static RecipeMap File(RecipeMap below, RecipeMap above)
    {
        static bool IsContent((RecipeScalar Key, RecipeNode Value) entry) => entry.Key.Value is "content" or "source";
        return Over(above.Entries.Any(IsContent) ? below with { Entries = [.. below.Entries.Where(entry => !IsContent(entry))] } : below, above, isRoot: false);
    }

    private static string? NameOf(RecipeMap map, string identity) => (map.Entries.FirstOrDefault(entry => entry.Key.Value == identity).Value as RecipeScalar)?.Value;
}
