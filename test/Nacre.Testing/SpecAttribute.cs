namespace Nacre.Testing;

/// <summary>Says which numbered sentences of a specification a test proves.</summary>
/// <param name="sentences">Their numbers: <c>VOL-031</c>.</param>
[AttributeUsage(AttributeTargets.Method)]
public sealed class SpecAttribute(params string[] sentences) : Attribute
{
    /// <summary>The numbers.</summary>
    public IReadOnlyList<string> Sentences => sentences;
}
