using System.Text;
using Nacre.Contracts;

namespace Nacre.Images.Checking;

/// <summary>An installed Debian package.</summary>
/// <param name="Name">The package.</param>
/// <param name="Version">Its version.</param>
/// <param name="Architecture">Its architecture.</param>
/// <param name="Source">The source package that it was built from.</param>
/// <param name="SourceVersion">That one's version.</param>
internal sealed record DebianPackage(string Name, string Version, string Architecture, string Source, string SourceVersion);

/// <summary>Reads the list of packages that dpkg keeps. Nothing of it is trusted: it comes from the image.</summary>
internal static class DebianPackages
{
    private const int MostPackages = 100_000;
    private const int LongestField = 300;
    private static readonly string[] Required = ["Package", "Version", "Architecture"];

    /// <summary>The installed packages, by name; what has no name, version or architecture is left out.</summary>
    internal static IReadOnlyList<DebianPackage> Parse(byte[] untrustedStatus)
    {
        var packages = new List<DebianPackage>();
        var fields = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var line in Encoding.UTF8.GetString(untrustedStatus).Split('\n').Append(""))
        {
            if (line.Length == 0)
            {
                if (packages.Count < MostPackages && ToPackage(fields) is { } package)
                {
                    packages.Add(package);
                }

                fields.Clear();
            }
            else if (line[0] is not (' ' or '\t') && line.IndexOf(':', StringComparison.Ordinal) is > 0 and var colon)
            {
                fields.TryAdd(line[..colon], line[(colon + 1)..].Trim());
            }
        }

        return [.. packages.OrderBy(package => package.Name, StringComparer.Ordinal).ThenBy(package => package.Architecture, StringComparer.Ordinal)];
    }

    /// <summary>The packages that an application layer adds; it does not say from which source.</summary>
    internal static IReadOnlyList<DebianPackage> Of(LayerContents contents) =>
        [.. contents.Packages.Select(package => new DebianPackage(package.Name, package.Version, package.Architecture, package.Name, package.Version))];

    private static DebianPackage? ToPackage(Dictionary<string, string> fields)
    {
        string Field(string name) => fields.GetValueOrDefault(name, "");
        if (!Field("Status").EndsWith(" installed", StringComparison.Ordinal)
            || Required.Any(name => Field(name) is not { Length: > 0 and <= LongestField } value || value.Any(char.IsControl)))
        {
            return null;
        }

        // Source: name (version), where they are not the package's own.
        var source = Field("Source").Split(' ', 2);
        var version = source.Length == 2 ? source[1].Trim('(', ')') : Field("Version");
        return new DebianPackage(Field("Package"), Field("Version"), Field("Architecture"), source[0].Length > 0 ? source[0] : Field("Package"), version);
    }
}
