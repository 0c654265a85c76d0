using System.Collections.Immutable;
using System.Runtime.Versioning;
using System.Security.Cryptography;

namespace Nacre.Images.Building;

/// <summary>The signed indexes of some archives as they are now, and apt with nothing else: the packages of this computer play no part. Its folder is the owner's to remove.</summary>
[UnsupportedOSPlatform("windows")]
internal sealed class AptIndexes
{
    private readonly string folder;
    private readonly Action<string> log;

    private AptIndexes(string folder, Action<string> log) => (this.folder, this.log) = (folder, log);

    private string Lists => Path.Combine(folder, "lists");

    private string SourcesFile => Path.Combine(folder, "sources.list");

    /// <summary>Fetches the indexes; apt refuses those whose signatures are not good.</summary>
    /// <param name="folder">The folder to make.</param>
    /// <param name="sources">One-line sources.</param>
    /// <param name="installed">The status file of what is installed; null: nothing is.</param>
    /// <param name="log">Told each line of apt's.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="ImageBuildException">StepFailed with apt's own words.</exception>
    internal static async Task<AptIndexes> FetchAsync(string folder, ImmutableArray<string> sources, string? installed, Action<string> log, CancellationToken cancellationToken)
    {
        foreach (var inner in new[] { "lists/partial", "archives/partial" })
        {
            Directory.CreateDirectory(Path.Combine(folder, inner));
        }

        var indexes = new AptIndexes(folder, log);
        await File.WriteAllLinesAsync(indexes.SourcesFile, sources, cancellationToken).ConfigureAwait(false);
        await File.WriteAllTextAsync(Path.Combine(folder, "apt.conf"), $"""
            Dir::State "{folder}";
            Dir::State::status "{installed ?? "/dev/null"}";
            Dir::State::lists "{folder}/lists";
            Dir::Cache "{folder}";
            Dir::Cache::archives "{folder}/archives";
            Dir::Etc::sourcelist "{folder}/sources.list";
            Dir::Etc::sourceparts "/dev/null";
            Dir::Etc::preferences "/dev/null";
            Dir::Etc::preferencesparts "/dev/null";
            Apt::Install-Recommends "false";
            Acquire::Languages "none";
            Acquire::Retries "3";
            APT::Sandbox::User "root";

            """, cancellationToken).ConfigureAwait(false);
        log("I: running apt-get update...");
        await indexes.RunAsync(["apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any"], cancellationToken).ConfigureAwait(false);
        return indexes;
    }

    /// <summary>A line for each list of packages, which the same packages on offer always give.</summary>
    internal IEnumerable<string> Digests() =>
        Directory.EnumerateFiles(Lists, "*_Packages*").Order(StringComparer.Ordinal).Select(file =>
        {
            using var stream = File.OpenRead(file);
            return $"{Path.GetFileName(file)} {Convert.ToHexStringLower(SHA256.HashData(stream))}";
        });

    /// <summary>The archives and who signed them.</summary>
    /// <param name="guest">The product's guest files.</param>
    /// <param name="cancellationToken">Stops.</param>
    internal async Task<ImmutableArray<SignedArchive>> ArchivesAsync(string guest, CancellationToken cancellationToken) =>
    [
        .. (await RunAsync([Path.Combine(guest, "build", "archives"), Lists, SourcesFile], cancellationToken, isTold: false).ConfigureAwait(false))
            .Select(line => line.Split('\t')).Where(words => words.Length >= 3)
            .Select(words => new SignedArchive(words[0], words[1], words[2].Trim(), words.Length > 3)),
    ];

    /// <summary>Runs one of apt's programs, or one that reads its files, and returns its lines.</summary>
    /// <exception cref="ImageBuildException">StepFailed with apt's own words.</exception>
    internal async Task<List<string>> RunAsync(string[] command, CancellationToken cancellationToken, bool isTold = true)
    {
        var environment = new Dictionary<string, string> { ["PATH"] = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", ["LC_ALL"] = "C.UTF-8", ["APT_CONFIG"] = Path.Combine(folder, "apt.conf") };
        foreach (var name in new[] { "http_proxy", "https_proxy", "no_proxy" })
        {
            if (Environment.GetEnvironmentVariable(name) is { } proxy)
            {
                environment[name] = proxy;
            }
        }

        var lines = new List<string>();
        var code = await ProcessTree.RunAsync(
            command[0],
            command[1..],
            folder,
            environment,
            line =>
            {
                lines.Add(line);
                if (isTold)
                {
                    log(line);
                }
            },
            cancellationToken).ConfigureAwait(false);
        return code == 0 ? lines : throw new ImageBuildException(
            ImageBuildFailure.StepFailed, $"{command[0]} ended with {code}:{Environment.NewLine}{string.Join(Environment.NewLine, lines.Where(line => line.StartsWith("E:", StringComparison.Ordinal)).Take(20))}");
    }
}
