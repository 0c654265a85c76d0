using System.Xml;
using System.Xml.Linq;

namespace Nacre.Images.Importing;

/// <summary>The OVF description of a virtual machine: which disks it has. It is untrusted XML: it has no document type, so no entities, and nothing that it names is fetched.</summary>
internal static class ApplianceDescription
{
    private const int Deepest = 64; // elements

    /// <summary>The names of the files that hold its disks, in its own order; one at least.</summary>
    /// <param name="archive">What people know the archive by.</param>
    /// <param name="untrustedText">The description, of bounded length.</param>
    /// <exception cref="Nacre.Contracts.NacreException">NotADisk.</exception>
    public static IReadOnlyList<string> Disks(string archive, string untrustedText)
    {
        var root = Parse(archive, untrustedText);
        var files = new Dictionary<string, XElement>();
        foreach (var file in root.Elements().Where(one => Is(one, "References")).Elements().Where(one => Is(one, "File")))
        {
            if (!files.TryAdd(Attribute(file, "id") ?? "", file))
            {
                throw DiskHeader.Refused(archive, "its description has two files of one id");
            }
        }

        // A disk without a file is an empty one, to be made where the machine is.
        var disks = root.Descendants().Where(one => Is(one, "Disk") && Attribute(one, "fileRef") is not null).ToList();
        if (disks.Exists(disk => Attribute(disk, "parentRef") is not null))
        {
            throw DiskHeader.Refused(archive, "a disk in it is made of changes to another one");
        }

        string[] names = [.. disks.Select(disk => FileOf(archive, files.GetValueOrDefault(Attribute(disk, "fileRef")!))).Distinct()];
        return names.Length > 0 ? names : throw DiskHeader.Refused(archive, "its description has no disk with content");
    }

    private static XElement Parse(string archive, string untrustedText)
    {
        try
        {
            // A tree takes time by the square of its depth to be made.
            using (var reader = Open())
            {
                while (reader.Read())
                {
                    if (reader.Depth > Deepest)
                    {
                        throw DiskHeader.Refused(archive, $"its description is nested more than {Deepest} deep");
                    }
                }
            }

            using var again = Open();
            return XDocument.Load(again).Root!;
        }
        catch (XmlException exception)
        {
            throw DiskHeader.Refused(archive, $"its description can't be read: {Checking.Programs.Printable(exception.Message.TrimEnd('.'))}");
        }

        XmlReader Open() => XmlReader.Create(
            new StringReader(untrustedText.TrimStart('\uFEFF')), new XmlReaderSettings { DtdProcessing = DtdProcessing.Prohibit, XmlResolver = null });
    }

    private static string FileOf(string archive, XElement? file)
    {
        var name = file is null ? null : Attribute(file, "href");
        if (name is null)
        {
            throw DiskHeader.Refused(archive, "its description has a disk without a file");
        }

        var shown = Checking.Programs.Printable(name);
        return file switch
        {
            _ when name.Contains('/', StringComparison.Ordinal) => throw DiskHeader.Refused(archive, $"its disk is at '{shown}', which is not in it; nothing is fetched"),
            _ when Attribute(file!, "chunkSize") is not null => throw DiskHeader.Refused(archive, $"its disk '{shown}' is cut into parts; export it anew without that"),
            _ when Attribute(file!, "compression") is { } compression and not ("" or "identity") => throw DiskHeader.Refused(
                archive, $"its disk '{shown}' is compressed ({Checking.Programs.Printable(compression)}); export it anew without that: the disk's own format compresses already"),
            _ => name,
        };
    }

    /// <summary>By its local name: each version of the format has a namespace of its own.</summary>
    private static bool Is(XElement element, string name) => element.Name.LocalName == name;

    private static string? Attribute(XElement element, string name) => element.Attributes().FirstOrDefault(one => one.Name.LocalName == name)?.Value;
}
