using System.Collections.Immutable;

namespace Nacre.Images.Recipes;

/// <summary>One thing wrong with a recipe, and where.</summary>
/// <param name="File">The recipe's path as it was given.</param>
/// <param name="Line">Line, from 1.</param>
/// <param name="Column">Column, from 1.</param>
/// <param name="Key">The key it is about, such as <c>users[0].shell</c>; empty for the document as a whole.</param>
/// <param name="Message">What was found and what was expected.</param>
public sealed record RecipeError(string File, int Line, int Column, string Key, string Message)
{
    /// <summary><c>file:line:column: key: message</c>, as compilers write it.</summary>
    public override string ToString() => Key.Length == 0
        ? $"{File}:{Line}:{Column}: {Message}"
        : $"{File}:{Line}:{Column}: {Key}: {Message}";
}

/// <summary>A recipe that cannot be used; carries everything that is wrong with it.</summary>
public sealed class RecipeException(ImmutableArray<RecipeError> errors)
    : Exception(string.Join(Environment.NewLine, errors.Select(error => error.ToString())))
{
    /// <summary>All errors, in the order of the document.</summary>
    public ImmutableArray<RecipeError> Errors { get; } = errors;
}
