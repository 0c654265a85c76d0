using System.Text.Json;
using System.Xml;
using Nacre.Contracts;

namespace Nacre.Images.Checking;

/// <summary>A known vulnerability of an installed package.</summary>
/// <param name="Id">What the advisory calls it.</param>
/// <param name="Severity">How bad it is.</param>
/// <param name="Package">What is installed.</param>
/// <param name="FixedIn">The version that has it no more; null where there is none yet.</param>
internal sealed record Vulnerability(string Id, Severity Severity, DebianPackage Package, string? FixedIn);

/// <summary>
/// Looks installed packages up in advisories that lie on this computer: OSV as JSON, a file each, and Debian's OVAL as XML. The files are
/// untrusted: they are read within bounds, and no XML entity or address in them is followed.
/// </summary>
internal sealed class Advisories(IReadOnlyList<DebianPackage> packages, string debianVersion)
{
    private const int LargestOsv = 16 << 20;
    private const long LargestOval = 1L << 30;
    private const int MostFiles = 1_000_000;
    private const int MostFound = 100_000;
    private const int LongestId = 100;

    private readonly ILookup<string, DebianPackage> bySource = packages.ToLookup(package => package.Source, StringComparer.Ordinal);
    private readonly Dictionary<(string Id, string Package), Vulnerability> found = [];

    /// <summary>How many advisories were looked at.</summary>
    internal int Count { get; private set; }

    /// <summary>What was found, the most severe first.</summary>
    internal IReadOnlyList<Vulnerability> Found =>
        [.. found.Values.OrderByDescending(one => one.Severity).ThenBy(one => one.Id, StringComparer.Ordinal).ThenBy(one => one.Package.Name, StringComparer.Ordinal)];

    /// <summary>Reads a file, or all that a folder holds.</summary>
    /// <exception cref="NacreException">FileAccess: it can't be read, or is no advisory.</exception>
    internal void Read(string path, CancellationToken cancellationToken)
    {
        var files = Directory.Exists(path)
            ? Directory.EnumerateFiles(path, "*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.ReparsePoint })
                .Where(file => Path.GetExtension(file) is ".json" or ".xml").Take(MostFiles)
            : [path];
        var before = Count;
        foreach (var file in files)
        {
            cancellationToken.ThrowIfCancellationRequested();
            try
            {
                if (Path.GetExtension(file) == ".xml")
                {
                    ReadOval(file);
                }
                else
                {
                    ReadOsv(file);
                }
            }
            catch (Exception exception) when (exception is JsonException or XmlException or InvalidOperationException or IOException or UnauthorizedAccessException)
            {
                throw new NacreException(ErrorCatalogue.FileAccess, $"'{file}' can't be read as advisories: {exception.Message.TrimEnd('.')}", exception);
            }
        }

        if (Count == before)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"'{path}' holds no advisories: OSV (*.json) or Debian's OVAL (*.xml)");
        }
    }

    private void Add(string id, Severity severity, DebianPackage package, string? fixedIn)
    {
        if (found.Count < MostFound && (!found.TryGetValue((id, package.Name), out var known) || known.Severity < severity))
        {
            found[(id, package.Name)] = new Vulnerability(id, severity, package, fixedIn ?? known?.FixedIn);
        }
    }

    private void ReadOsv(string file)
    {
        if (new FileInfo(file).Length > LargestOsv)
        {
            throw new IOException($"it has more than {LargestOsv} bytes");
        }

        using var document = JsonDocument.Parse(File.ReadAllBytes(file), new JsonDocumentOptions { MaxDepth = 32 });
        var root = document.RootElement;
        if (root.ValueKind != JsonValueKind.Object || Text(root, "id") is not { Length: > 0 and <= LongestId } id || root.TryGetProperty("withdrawn", out _))
        {
            return;
        }

        Count++;
        foreach (var affected in Items(root, "affected"))
        {
            if (!affected.TryGetProperty("package", out var package) || Text(package, "name") is not { } name
                || Text(package, "ecosystem") is not { } ecosystem || (ecosystem != "Debian" && ecosystem != $"Debian:{debianVersion}"))
            {
                continue;
            }

            foreach (var installed in bySource[name])
            {
                if (IsAffected(affected, installed.SourceVersion, out var fixedIn))
                {
                    Add(id, SeverityOf(root, affected), installed, fixedIn);
                }
            }
        }
    }

    private static bool IsAffected(JsonElement affected, string version, out string? fixedIn)
    {
        fixedIn = null;
        var isAffected = Items(affected, "versions").Any(one => one.ValueKind == JsonValueKind.String && one.GetString() == version);
        foreach (var range in Items(affected, "ranges").Where(range => Text(range, "type") == "ECOSYSTEM"))
        {
            var events = Items(range, "events")
                .Select(EventOf).Where(one => one.Version.Length > 0)
                .Order(Comparer<(string Version, int Kind)>.Create((one, other) => one.Version == "0" || other.Version == "0"
                    ? (other.Version == "0").CompareTo(one.Version == "0") : DebianVersion.Compare(one.Version, other.Version)));
            var inside = false;
            foreach (var (at, kind) in events)
            {
                var order = at == "0" ? 1 : DebianVersion.Compare(version, at);
                if (kind == 0 && order >= 0)
                {
                    inside = true;
                }
                else if ((kind == 1 && order >= 0) || (kind == 2 && order > 0))
                {
                    inside = false;
                }
                else if (kind == 1 && inside)
                {
                    fixedIn ??= at;
                }
            }

            isAffected |= inside;
        }

        return isAffected;
    }

    /// <summary>Where a range begins (0), ends before (1), or ends with (2).</summary>
    private static (string Version, int Kind) EventOf(JsonElement one)
    {
        string[] kinds = ["introduced", "fixed", "last_affected"];
        var kind = Array.FindIndex(kinds, name => Text(one, name) is not null);
        return kind < 0 ? ("", 0) : (Text(one, kinds[kind])!, kind);
    }

    private static Severity SeverityOf(JsonElement root, JsonElement affected)
    {
        var vectors = Items(affected, "severity").Concat(Items(root, "severity")).Select(one => Severities.OfVector(Text(one, "score")));
        var words = new[] { (affected, "ecosystem_specific", "urgency"), (affected, "database_specific", "severity"), (root, "database_specific", "severity") }
            .Select(place => place.Item1.TryGetProperty(place.Item2, out var inner) ? Severities.OfWord(Text(inner, place.Item3)) : Severity.Unknown);
        return vectors.Concat(words).Max();
    }

    private static JsonElement.ArrayEnumerator Items(JsonElement element, string name) =>
        element.ValueKind == JsonValueKind.Object && element.TryGetProperty(name, out var list) && list.ValueKind == JsonValueKind.Array ? list.EnumerateArray() : default;

    private static string? Text(JsonElement element, string name) =>
        element.ValueKind == JsonValueKind.Object && element.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    /// <summary>Debian's OVAL: a definition is true where one of its tests is, and each test is «package X is earlier than Y». It names no severity.</summary>
    private void ReadOval(string file)
    {
        if (new FileInfo(file).Length > LargestOval)
        {
            throw new IOException($"it has more than {LargestOval} bytes");
        }

        var definitions = new List<(string Id, List<string> Tests)>();
        var tests = new Dictionary<string, (string Object, string State)>(StringComparer.Ordinal);
        var objects = new Dictionary<string, string>(StringComparer.Ordinal);
        var states = new Dictionary<string, string>(StringComparer.Ordinal);
        var (test, place, state, element) = ("", "", "", "");
        using var reader = XmlReader.Create(file, new XmlReaderSettings { DtdProcessing = DtdProcessing.Prohibit, XmlResolver = null, MaxCharactersInDocument = LargestOval });
        while (reader.Read())
        {
            if (reader.NodeType == XmlNodeType.Text && element == "name" && place.Length > 0)
            {
                objects[place] = reader.Value.Trim();
            }
            else if (reader.NodeType == XmlNodeType.Text && element == "evr" && state.Length > 0)
            {
                states[state] = reader.Value.Trim();
            }

            element = reader.NodeType == XmlNodeType.Element ? reader.LocalName : "";
            if (element.Length == 0)
            {
                continue;
            }

            string Attribute(string name) => reader.GetAttribute(name) ?? "";
            switch (element)
            {
                case "definition":
                    definitions.Add((Short(Attribute("id")), []));
                    break;
                case "reference" when definitions.Count > 0 && Attribute("ref_id").Length > 0 && Attribute("source") == "CVE":
                    definitions[^1] = (Short(Attribute("ref_id")), definitions[^1].Tests);
                    break;
                case "criterion" when definitions.Count > 0:
                    definitions[^1].Tests.Add(Attribute("test_ref"));
                    break;
                case "dpkginfo_test":
                    test = Attribute("id");
                    tests[test] = ("", "");
                    break;
                case "object" when tests.TryGetValue(test, out var known):
                    tests[test] = (Attribute("object_ref"), known.State);
                    break;
                case "state" when tests.TryGetValue(test, out var known):
                    tests[test] = (known.Object, Attribute("state_ref"));
                    break;
                case "dpkginfo_object":
                    place = Attribute("id");
                    break;
                case "dpkginfo_state":
                    state = Attribute("id");
                    break;
                case "evr" when Attribute("operation") != "less than":
                    element = "";
                    break;
            }
        }

        Count += definitions.Count;
        var byName = packages.ToLookup(package => package.Name, StringComparer.Ordinal);
        foreach (var (id, refs) in definitions)
        {
            foreach (var one in refs)
            {
                if (!tests.TryGetValue(one, out var known) || !objects.TryGetValue(known.Object, out var name) || !states.TryGetValue(known.State, out var before))
                {
                    continue;
                }

                foreach (var installed in byName[name].Union(bySource[name]))
                {
                    var version = installed.Name == name ? installed.Version : installed.SourceVersion;
                    if (DebianVersion.Compare(version, before) < 0)
                    {
                        Add(id, Severity.Unknown, installed, before);
                    }
                }
            }
        }
    }

    private static string Short(string text) => text.Length <= LongestId ? text : text[..LongestId];
}
