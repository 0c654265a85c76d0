using System.Text.RegularExpressions;
using Nacre.Testing;
using Xunit;

namespace Nacre.Volumes.Tests;

/// <summary>Every numbered sentence of the formats has a test that says it proves it.</summary>
public sealed partial class SpecificationTests
{
    [Theory]
    [InlineData("VOL", "src/Nacre.Volumes/SPEC.md")]
    [InlineData("REL", "src/Nacre.Volumes/Releases/SPEC.md")]
    public void Every_sentence_is_cited_by_a_test_and_every_citation_is_of_a_sentence(string prefix, string specification)
    {
        var sentences = Number().Matches(File.ReadAllText(Repository.At(specification))).Select(match => match.Value).Where(number => number.StartsWith(prefix, StringComparison.Ordinal)).ToHashSet();
        var cited = Directory.GetFiles(Repository.At("test"), "*.cs", SearchOption.AllDirectories)
            .SelectMany(file => Citation().Matches(File.ReadAllText(file))).SelectMany(citation => Number().Matches(citation.Value)).Select(match => match.Value)
            .Where(number => number.StartsWith(prefix, StringComparison.Ordinal)).ToHashSet();
        Assert.True(sentences.Count > 15, "the specification has hardly any sentences");
        Assert.Empty(sentences.Except(cited).Order());
        Assert.Empty(cited.Except(sentences).Order());
    }

    [Fact]
    public void Every_citation_stands_at_a_test()
    {
        var citing = typeof(SpecificationTests).Assembly.GetTypes().SelectMany(type => type.GetMethods()).Where(method => method.IsDefined(typeof(SpecAttribute), false)).ToArray();
        Assert.NotEmpty(citing);
        Assert.All(citing, method => Assert.True(method.IsDefined(typeof(FactAttribute), inherit: true), $"{method.Name} is no test"));
    }

    [GeneratedRegex(@"\[Spec\([^\]]*\)\]")]
    private static partial Regex Citation();

    [GeneratedRegex("(?:VOL|REL)-[0-9]{3}")]
    private static partial Regex Number();
}
