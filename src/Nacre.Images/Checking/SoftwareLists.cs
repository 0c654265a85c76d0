using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Nacre.Images.Checking;

/// <summary>What is installed in an image, in the two formats that others read. The same image gives the same bytes.</summary>
internal static class SoftwareLists
{
    private const string Unknown = "NOASSERTION";
    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true, Encoder = JavaScriptEncoder.Default };

    /// <summary>SPDX 2.3, JSON.</summary>
    internal static byte[] Spdx(GoldenImage image, string digest, IReadOnlyList<DebianPackage> packages)
    {
        var list = new JsonArray(new JsonObject
        {
            ["SPDXID"] = "SPDXRef-Image", ["name"] = image.Name, ["downloadLocation"] = Unknown, ["filesAnalyzed"] = false,
            ["licenseConcluded"] = Unknown, ["licenseDeclared"] = Unknown, ["copyrightText"] = Unknown, ["primaryPackagePurpose"] = "OPERATING-SYSTEM",
            ["checksums"] = new JsonArray(new JsonObject { ["algorithm"] = "SHA256", ["checksumValue"] = digest }),
        });
        var relations = new JsonArray(Relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image"));
        for (var index = 0; index < packages.Count; index++)
        {
            var id = string.Create(CultureInfo.InvariantCulture, $"SPDXRef-Package-{index}");
            list.Add(new JsonObject
            {
                ["SPDXID"] = id, ["name"] = packages[index].Name, ["versionInfo"] = packages[index].Version, ["downloadLocation"] = Unknown, ["filesAnalyzed"] = false,
                ["licenseConcluded"] = Unknown, ["licenseDeclared"] = Unknown, ["copyrightText"] = Unknown,
                ["sourceInfo"] = $"built from {packages[index].Source} {packages[index].SourceVersion}",
                ["externalRefs"] = new JsonArray(new JsonObject { ["referenceCategory"] = "PACKAGE-MANAGER", ["referenceType"] = "purl", ["referenceLocator"] = Purl(packages[index]) }),
            });
            relations.Add(Relation("SPDXRef-Image", "CONTAINS", id));
        }

        return Bytes(new JsonObject
        {
            ["spdxVersion"] = "SPDX-2.3", ["dataLicense"] = "CC0-1.0", ["SPDXID"] = "SPDXRef-DOCUMENT", ["name"] = image.Name,
            ["documentNamespace"] = $"urn:nacre:image:{image.Name}:{digest}",
            ["creationInfo"] = new JsonObject { ["created"] = Date(image), ["creators"] = new JsonArray("Tool: nacre") },
            ["packages"] = list, ["relationships"] = relations,
        });
    }

    /// <summary>CycloneDX 1.5, JSON.</summary>
    internal static byte[] CycloneDx(GoldenImage image, string digest, IReadOnlyList<DebianPackage> packages) => Bytes(new JsonObject
    {
        ["bomFormat"] = "CycloneDX", ["specVersion"] = "1.5", ["version"] = 1,
        ["metadata"] = new JsonObject
        {
            ["timestamp"] = Date(image),
            ["component"] = new JsonObject
            {
                ["type"] = "operating-system", ["bom-ref"] = "image", ["name"] = image.Name,
                ["hashes"] = new JsonArray(new JsonObject { ["alg"] = "SHA-256", ["content"] = digest }),
            },
        },
        ["components"] = new JsonArray([.. packages.Select(package => (JsonNode)new JsonObject
        {
            ["type"] = "library", ["bom-ref"] = Purl(package), ["name"] = package.Name, ["version"] = package.Version, ["purl"] = Purl(package),
            ["properties"] = new JsonArray(Property("nacre:source", package.Source), Property("nacre:source-version", package.SourceVersion)),
        })]),
    });

    /// <summary>The package URL (purl-spec, type deb).</summary>
    internal static string Purl(DebianPackage package) =>
        $"pkg:deb/debian/{Uri.EscapeDataString(package.Name)}@{Uri.EscapeDataString(package.Version)}?arch={Uri.EscapeDataString(package.Architecture)}";

    private static JsonObject Relation(string from, string type, string to) => new() { ["spdxElementId"] = from, ["relationshipType"] = type, ["relatedSpdxElement"] = to };

    private static JsonObject Property(string name, string value) => new() { ["name"] = name, ["value"] = value };

    private static string Date(GoldenImage image) => DateTimeOffset.FromUnixTimeSeconds(image.Created).ToString("yyyy-MM-ddTHH:mm:ssZ", CultureInfo.InvariantCulture);

    private static byte[] Bytes(JsonObject document) => JsonSerializer.SerializeToUtf8Bytes(document, Indented);
}
