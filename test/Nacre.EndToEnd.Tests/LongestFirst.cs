using Nacre.EndToEnd.Tests;
using Xunit;
using Xunit.Sdk;
using Xunit.v3;

[assembly: TestCollectionOrderer(typeof(LongestFirst))]

namespace Nacre.EndToEnd.Tests;

/// <summary>Starts the classes that take longest first, so that no processor stands idle at the end while the last of them runs alone.</summary>
internal sealed class LongestFirst : ITestCollectionOrderer
{
    private static readonly string[] Long =
    [
        nameof(MomentsTests), nameof(MainJobTests), nameof(UserPackagesInGuestTests), nameof(RobustnessTests), nameof(ApplicationLayerTests), nameof(PasswordTests), nameof(PolicyTests),
        nameof(GoldenImageTests), nameof(BadInputTests), nameof(WholeDiskTests),
    ];

    /// <inheritdoc/>
    public IReadOnlyCollection<TTestCollection> OrderTestCollections<TTestCollection>(IReadOnlyCollection<TTestCollection> testCollections)
        where TTestCollection : ITestCollection
        => [.. testCollections.OrderBy(Place).ThenBy(collection => collection.TestCollectionDisplayName, StringComparer.Ordinal)];

    private static int Place<TTestCollection>(TTestCollection collection)
        where TTestCollection : ITestCollection
    {
        var place = Array.FindIndex(Long, name => collection.TestCollectionDisplayName.Contains('.' + name, StringComparison.Ordinal));
        return place < 0 ? Long.Length : place;
    }
}
