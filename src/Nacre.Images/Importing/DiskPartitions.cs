using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using Nacre.Images.Building;
using Nacre.Images.Checking;

namespace Nacre.Images.Importing;

/// <summary>A partition of an imported disk.</summary>
/// <param name="Offset">Where it begins, in bytes.</param>
/// <param name="Size">Its bytes.</param>
/// <param name="FileSystem">What it holds, as blkid calls it (<c>ntfs</c>, <c>ext4</c>, <c>vfat</c>, …); null where that is not known.</param>
/// <param name="Label">The file system's label; null where there is none.</param>
public sealed record DiskPartition(long Offset, long Size, string? FileSystem, string? Label);

/// <summary>Recognises what is on a raw disk, with sfdisk and blkid under limits: the disk is untrusted, and nothing of it is mounted.</summary>
internal static class DiskPartitions
{
    private const int Most = 128;
    private static readonly string[] Limits = ["--as=1073741824", "--fsize=0", "--core=0", "--cpu=30"];

    /// <summary>The partitions, in the order of their table; empty where it can't be understood.</summary>
    /// <exception cref="Nacre.Contracts.NacreException">ProgramMissing.</exception>
    public static async Task<ImmutableArray<DiskPartition>> ReadAsync(string disk, CancellationToken cancellationToken)
    {
        Programs.Require("sfdisk", "fdisk");
        Programs.Require("blkid", "util-linux");
        var (code, table) = await RunAsync(disk, ["sfdisk", "--json", disk], cancellationToken).ConfigureAwait(false);
        if (code != 0)
        {
            return [];
        }

        var partitions = ImmutableArray.CreateBuilder<DiskPartition>();
        foreach (var (offset, size) in Places(string.Join('\n', table), new FileInfo(disk).Length))
        {
            var (_, lines) = await RunAsync(
                disk, ["blkid", "--probe", "--output", "export", "--offset", Text(offset), "--size", Text(size), "--usages", "filesystem,crypto,raid", disk], cancellationToken).ConfigureAwait(false);
            string? Value(string key) => lines.FirstOrDefault(line => line.StartsWith(key + "=", StringComparison.Ordinal)) is { } line ? Programs.Printable(line[(key.Length + 1)..]) : null;
            partitions.Add(new DiskPartition(offset, size, Value("TYPE"), Value("LABEL")));
        }

        return partitions.ToImmutable();
    }

    private static List<(long Offset, long Size)> Places(string untrustedTable, long diskSize)
    {
        var places = new List<(long, long)>();
        try
        {
            using var document = JsonDocument.Parse(untrustedTable);
            var table = document.RootElement.GetProperty("partitiontable");
            var sector = table.TryGetProperty("sectorsize", out var bytes) ? bytes.GetInt64() : 512;
            foreach (var partition in table.TryGetProperty("partitions", out var list) ? list.EnumerateArray().Take(Most) : [])
            {
                var (start, size) = (partition.GetProperty("start").GetInt64(), partition.GetProperty("size").GetInt64());
                if (sector is 512 or 4096 && start > 0 && size > 0 && start < diskSize / sector && size <= (diskSize / sector) - start)
                {
                    places.Add((start * sector, size * sector));
                }
            }
        }
        catch (Exception exception) when (exception is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
        {
            // What can't be understood is not reported; the disk is a disk all the same.
        }

        return places;
    }

    private static async Task<(int Code, List<string> Lines)> RunAsync(string disk, string[] command, CancellationToken cancellationToken)
    {
        var lines = new List<string>();
        var code = await ProcessTree.RunAsync(
            "prlimit", [.. Limits, "--", .. command], Path.GetDirectoryName(disk)!, Programs.Environment, line =>
            {
                if (lines.Count < 10_000)
                {
                    lines.Add(line);
                }
            }, cancellationToken).ConfigureAwait(false);
        return (code, lines);
    }

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);
}
