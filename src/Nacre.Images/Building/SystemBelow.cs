using System.Collections.Immutable;
using System.Text;
using Nacre.Contracts;
using Nacre.Images.FileSystems;
using Nacre.Images.Recipes;

namespace Nacre.Images.Building;

/// <summary>What an application layer's build asks the system below it before anything is built: read out of its file system, of which nothing is mounted.</summary>
internal sealed class SystemBelow : IAsyncDisposable
{
    /// <summary>Larger than any of these files of a real system; bounds memory.</summary>
    private const int LargestFile = 64 << 20;

    private readonly FileDevice device;

    private SystemBelow(FileDevice device) => this.device = device;

    /// <param name="path">The system's <c>system.erofs</c>.</param>
    /// <exception cref="IOException">It can't be opened.</exception>
    /// <exception cref="UnauthorizedAccessException">It can't be opened.</exception>
    internal static SystemBelow Open(string path) => new(FileDevice.Open(path));

    public ValueTask DisposeAsync() => device.DisposeAsync();

    /// <summary>The system's own one-line apt sources.</summary>
    internal async Task<ImmutableArray<string>> SourcesAsync(CancellationToken cancellationToken)
    {
        const string Parts = "etc/apt/sources.list.d";
        var names = await ErofsFiles.ListAsync(device, Parts, cancellationToken).ConfigureAwait(false) ?? [];
        var sources = ImmutableArray.CreateBuilder<string>();
        foreach (var path in names.Where(name => name.EndsWith(".list", StringComparison.Ordinal)).Order(StringComparer.Ordinal).Select(name => $"{Parts}/{name}").Prepend("etc/apt/sources.list"))
        {
            sources.AddRange((await LinesAsync(path, cancellationToken).ConfigureAwait(false)).Select(line => line.Trim()).Where(line => line.StartsWith("deb ", StringComparison.Ordinal)));
        }

        return sources.ToImmutable();
    }

    /// <summary>A file's bytes; null where there is none.</summary>
    internal Task<byte[]?> ReadAsync(string path, CancellationToken cancellationToken) => ErofsFiles.ReadAsync(device, path, LargestFile, cancellationToken);

    /// <summary>The system's files that a layer's own replace, with the packages that own them: those with other content.</summary>
    internal async Task<ImmutableArray<CoveredPath>> CoveredByAsync(ImmutableArray<RecipeFile> files, CancellationToken cancellationToken)
    {
        var covered = new List<string>();
        foreach (var file in files)
        {
            var place = InUsr(file.Path);
            var folder = await ErofsFiles.ListAsync(device, Path.GetDirectoryName(place)!, cancellationToken).ConfigureAwait(false);
            if (folder?.Contains(Path.GetFileName(place), StringComparer.Ordinal) == true
                && await ReadAsync(place, cancellationToken).ConfigureAwait(false) is var old && old?.AsSpan().SequenceEqual(file.Content.AsSpan()) != true)
            {
                covered.Add(place);
            }
        }

        var owners = covered.Count == 0 ? [] : await OwnersAsync([.. covered], cancellationToken).ConfigureAwait(false);
        return [.. covered.Order(StringComparer.Ordinal).Select(path => new CoveredPath(path, owners.GetValueOrDefault(path, "system"), Removed: false))];
    }

    /// <summary>Where a path really is: Debian's <c>/bin</c>, <c>/sbin</c> and <c>/lib</c> are links into <c>/usr</c>.</summary>
    private static string InUsr(string path) =>
        path.Split('/')[1] is "bin" or "sbin" or "lib" or "lib32" or "lib64" or "libx32" ? "/usr" + path : path;

    private async Task<Dictionary<string, string>> OwnersAsync(HashSet<string> paths, CancellationToken cancellationToken)
    {
        const string Info = "var/lib/dpkg/info";
        var owners = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var name in (await ErofsFiles.ListAsync(device, Info, cancellationToken).ConfigureAwait(false) ?? []).Where(name => name.EndsWith(".list", StringComparison.Ordinal)))
        {
            foreach (var path in (await LinesAsync($"{Info}/{name}", cancellationToken).ConfigureAwait(false)).Where(line => line.Length > 1).Select(InUsr).Where(paths.Contains))
            {
                owners[path] = name[..^".list".Length].Split(':')[0];
            }
        }

        return owners;
    }

    private async Task<string[]> LinesAsync(string path, CancellationToken cancellationToken) =>
        Encoding.UTF8.GetString(await ReadAsync(path, cancellationToken).ConfigureAwait(false) ?? []).Split('\n');
}
