using YamlDotNet.Core;
using YamlDotNet.Core.Events;

namespace Nacre.Images.Recipes;

/// <summary>A YAML value with its place; aliases, anchors and tags never get this far.</summary>
internal abstract record RecipeNode(string File, int Line, int Column);

internal sealed record RecipeScalar(string File, int Line, int Column, string Value, bool Quoted) : RecipeNode(File, Line, Column);

internal sealed record RecipeList(string File, int Line, int Column, IReadOnlyList<RecipeNode> Items) : RecipeNode(File, Line, Column);

internal sealed record RecipeMap(string File, int Line, int Column, IReadOnlyList<(RecipeScalar Key, RecipeNode Value)> Entries) : RecipeNode(File, Line, Column);

/// <summary>Turns YAML text into nodes. What a recipe has no use for (anchors, aliases, tags, several documents) is an error, so no text expands.</summary>
internal sealed class RecipeReader(string file, string text, Action<Mark, string, string> report)
{
    /// <summary>Deeper than any recipe; keeps hostile nesting off the stack.</summary>
    private const int MaximumDepth = 16;

    private readonly Parser parser = new(new StringReader(text));

    /// <summary>The document's root, or null where the text is not YAML or empty (reported).</summary>
    internal RecipeNode? Read()
    {
        try
        {
            parser.Consume<StreamStart>();
            if (parser.Accept<StreamEnd>(out _))
            {
                report(new Mark(0, 1, 1), "", "the recipe is empty; expected a mapping");
                return null;
            }

            parser.Consume<DocumentStart>();
            var root = ReadNode("", 0);
            parser.Consume<DocumentEnd>();
            if (!parser.Accept<StreamEnd>(out _))
            {
                report(parser.Current?.Start ?? Mark.Empty, "", "a second document; a recipe is one");
            }

            return root;
        }
        catch (YamlException exception)
        {
            report(exception.Start, "", $"not YAML: {exception.Message}");
            return null;
        }
    }

    private RecipeNode ReadNode(string key, int depth)
    {
        if (depth > MaximumDepth)
        {
            throw new YamlException(parser.Current!.Start, parser.Current.End, $"nested deeper than {MaximumDepth}");
        }

        if (parser.TryConsume<AnchorAlias>(out var alias))
        {
            report(alias.Start, key, "aliases are not allowed in recipes; write the value out");
            return new RecipeScalar(file, Line(alias.Start), Column(alias.Start), "", Quoted: true);
        }

        if (parser.Current is NodeEvent node)
        {
            if (!node.Anchor.IsEmpty)
            {
                report(node.Start, key, "anchors are not allowed in recipes");
            }

            if (!node.Tag.IsEmpty)
            {
                report(node.Start, key, "tags are not allowed in recipes");
            }
        }

        if (parser.TryConsume<Scalar>(out var scalar))
        {
            return ToScalar(scalar);
        }

        if (parser.TryConsume<SequenceStart>(out var sequence))
        {
            var items = new List<RecipeNode>();
            while (!parser.TryConsume<SequenceEnd>(out _))
            {
                items.Add(ReadNode($"{key}[{items.Count}]", depth + 1));
            }

            return new RecipeList(file, Line(sequence.Start), Column(sequence.Start), items);
        }

        var mapping = parser.Consume<MappingStart>();
        var entries = new List<(RecipeScalar, RecipeNode)>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        while (!parser.TryConsume<MappingEnd>(out _))
        {
            var place = parser.Current!.Start;
            if (ReadNode(key, depth + 1) is not RecipeScalar name)
            {
                report(place, key, "a key must be a word");
                ReadNode(key, depth + 1);
                continue;
            }

            var path = key.Length == 0 ? name.Value : $"{key}.{name.Value}";
            var value = ReadNode(path, depth + 1);
            if (seen.Add(name.Value))
            {
                entries.Add((name, value));
            }
            else
            {
                report(place, path, "the key is there twice");
            }
        }

        return new RecipeMap(file, Line(mapping.Start), Column(mapping.Start), entries);
    }

    private RecipeScalar ToScalar(Scalar scalar) =>
        new(file, Line(scalar.Start), Column(scalar.Start), scalar.Value, scalar.Style is not ScalarStyle.Plain);

    private static int Line(Mark mark) => checked((int)mark.Line);

    private static int Column(Mark mark) => checked((int)mark.Column);
}
