using System.Security.Cryptography;
using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Client;

/// <summary>What a replica holds.</summary>
/// <param name="Server">Where it came from.</param>
/// <param name="Releases">The releases whose segments are all there.</param>
public sealed record ReplicaContents(Uri Server, IReadOnlyList<ReleaseName> Releases);

/// <summary>How far a replica is.</summary>
/// <param name="DoneBytes">Bytes of the releases' segments that are there.</param>
/// <param name="TotalBytes">Bytes of all of them.</param>
/// <param name="FetchedBytes">Bytes that were fetched.</param>
public readonly record struct ReplicaProgress(long DoneBytes, long TotalBytes, long FetchedBytes);

/// <summary>
/// A folder that mirrors segments: ciphertext at <c>ab/abcdef…</c>, and <c>replica.json</c>, which says what of. It holds no key. Any web server can serve it as an origin, and a
/// device can take a release out of it.
/// </summary>
public sealed class ReplicaFolder
{
    private const string ContentsName = "replica.json";
    private const int DownloadsAtOnce = 4;
    private readonly string folder;

    /// <summary>Names the folder; nothing is made yet.</summary>
    public ReplicaFolder(string folder) => this.folder = Path.GetFullPath(folder);

    /// <summary>Where a segment is, whether or not it is there.</summary>
    /// <param name="segment">Its name.</param>
    public string PathOf(string segment) => Path.Combine(folder, StoreOrigins.PathOf(segment));

    /// <summary>
    /// Fetches what is missing of the releases, each segment whole and with the right hash or not at all, and removes what none of them needs. Interrupted and run again, it goes on.
    /// </summary>
    /// <param name="client">The server, as a replica.</param>
    /// <param name="choose">Which of the server's releases to mirror.</param>
    /// <param name="progress">Told after each segment.</param>
    /// <param name="cancellationToken">Stops; what is whole stays.</param>
    /// <exception cref="NacreException">UsageInvalid: the folder holds something else; SegmentNotAuthentic; what the client throws.</exception>
    /// <exception cref="IOException">The folder can't be written: the disk is full, or it was pulled out.</exception>
    public async Task<(ReplicaContents Contents, ReplicaProgress Done)> SyncAsync(
        NacreClient client, Func<ReplicaRelease, bool> choose, IProgress<ReplicaProgress>? progress, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(client);
        ArgumentNullException.ThrowIfNull(choose);
        var plan = await client.GetReplicaPlanAsync(cancellationToken).ConfigureAwait(false);
        var releases = (plan.Releases ?? []).Where(choose).ToList();
        var wanted = releases.SelectMany(release => release.Segments).DistinctBy(segment => segment.Name).ToDictionary(segment => segment.Name);
        if (wanted.Values.FirstOrDefault(segment => !Names.IsSegmentName(segment.Name) || segment.Length is < 1 or > NacreClient.LargestSegment) is { } wrong)
        {
            throw new NacreException(ErrorCatalogue.SegmentNotAuthentic, $"the server names a segment that can't be one, of {wrong.Length} bytes");
        }

        using var claim = Claim();
        var total = wanted.Values.Sum(segment => segment.Length);
        var (done, fetched) = (0L, 0L);
        await Parallel.ForEachAsync(wanted.Values, new ParallelOptions { MaxDegreeOfParallelism = DownloadsAtOnce, CancellationToken = cancellationToken }, async (segment, token) =>
        {
            if (!await IsHereAsync(segment, token).ConfigureAwait(false))
            {
                await FetchAsync(client, segment, token).ConfigureAwait(false);
                Interlocked.Add(ref fetched, segment.Length);
            }

            progress?.Report(new ReplicaProgress(Interlocked.Add(ref done, segment.Length), total, Interlocked.Read(ref fetched)));
        }).ConfigureAwait(false);
        foreach (var file in Directory.EnumerateDirectories(folder).SelectMany(Directory.EnumerateFiles)
            .Where(file => Names.IsSegmentName(Path.GetFileName(file)) && file == PathOf(Path.GetFileName(file)) && !wanted.ContainsKey(Path.GetFileName(file))))
        {
            File.Delete(file);
        }

        var contents = new ReplicaContents(client.Server, releases.ConvertAll(release => release.Release));
        await WriteAsync(Path.Combine(folder, ContentsName), JsonSerializer.SerializeToUtf8Bytes(contents, ContractJson.Options), cancellationToken).ConfigureAwait(false);
        return (contents, new ReplicaProgress(done, total, fetched));
    }

    /// <summary>A segment's bytes; null where they are not there, or not those with this hash.</summary>
    /// <param name="segment">Its name.</param>
    /// <param name="sha256">Of the bytes, hexadecimal.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public async Task<byte[]?> TryReadAsync(string segment, string sha256, CancellationToken cancellationToken = default)
    {
        var file = new FileInfo(PathOf(segment));
        if (!file.Exists || file.Length is 0 or > NacreClient.LargestSegment)
        {
            return null;
        }

        var bytes = await File.ReadAllBytesAsync(file.FullName, cancellationToken).ConfigureAwait(false);
        return Convert.ToHexStringLower(SHA256.HashData(bytes)) == sha256 ? bytes : null;
    }

    /// <summary>Nobody else may change it meanwhile; a folder of something else is left alone.</summary>
    private FileStream Claim()
    {
        Directory.CreateDirectory(folder);
        var path = Path.Combine(folder, ContentsName);
        if (!File.Exists(path) && !File.Exists(path + ".lock") && Directory.EnumerateFileSystemEntries(folder).Any())
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{folder}' holds something else: give an empty folder, or one that is a replica");
        }

        try
        {
            return new FileStream(path + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException exception) when (File.Exists(path + ".lock") && (exception.HResult & 0xFFFF) is not 28)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"another 'nacre replica sync' fills '{folder}'", exception);
        }
    }

    private async Task<bool> IsHereAsync(SegmentReference segment, CancellationToken cancellationToken)
    {
        var file = new FileInfo(PathOf(segment.Name));
        if (!file.Exists || file.Length != segment.Length)
        {
            return false;
        }

        var stream = file.OpenRead();
        await using var _ = stream.ConfigureAwait(false);
        return Convert.ToHexStringLower(await SHA256.HashDataAsync(stream, cancellationToken).ConfigureAwait(false)) == segment.Sha256;
    }

    private async Task FetchAsync(NacreClient client, SegmentReference segment, CancellationToken cancellationToken)
    {
        var bytes = await client.DownloadSegmentAsync(segment.Name, segment.Length, cancellationToken).ConfigureAwait(false);
        if (bytes.Length != segment.Length || Convert.ToHexStringLower(SHA256.HashData(bytes)) != segment.Sha256)
        {
            throw new NacreException(ErrorCatalogue.SegmentNotAuthentic, $"what {client.Server} sends is not segment {segment.Name}");
        }

        await WriteAsync(PathOf(segment.Name), bytes, cancellationToken).ConfigureAwait(false);
    }

    private static async Task WriteAsync(string path, byte[] bytes, CancellationToken cancellationToken)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        var temporary = path + ".new";
        try
        {
            var file = new FileStream(temporary, FileMode.Create, FileAccess.Write, FileShare.None, 0, useAsync: true);
            await using (file.ConfigureAwait(false))
            {
                await file.WriteAsync(bytes, cancellationToken).ConfigureAwait(false);
                file.Flush(flushToDisk: true);
            }

            File.Move(temporary, path, overwrite: true);
        }
        catch
        {
            File.Delete(temporary);
            throw;
        }
    }
}
