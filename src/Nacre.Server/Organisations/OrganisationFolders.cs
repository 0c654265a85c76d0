using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>An organisation beside the one whose data directory it is in: <c>organisation.json</c> in its own data directory.</summary>
/// <param name="Name">Its name for people, at most 100 characters.</param>
/// <param name="Hosts">The DNS names, in lower case, that are its alone: whoever asks for one of them is with this organisation.</param>
public sealed record OrganisationSettings(string Name, IReadOnlyList<string> Hosts)
{
    /// <summary>Its certificate with the chain, PEM; null: the server's, or where the server has none its own authority makes one.</summary>
    public string? CertificateFile { get; init; }

    /// <summary>The key of <see cref="CertificateFile"/>.</summary>
    public string? CertificateKeyFile { get; init; }

    /// <summary>The authorities that its devices believe (<see cref="ServerOptions.AuthoritiesFile"/>).</summary>
    public string? AuthoritiesFile { get; init; }

    /// <summary>A file with the connection string of its database; null: where the server's is on PostgreSQL, the database of the server's name with <c>_</c> and its folder's name behind.</summary>
    public string? PostgresFile { get; init; }

    /// <summary>Its bucket; null: where the server has one, that address with <c>-</c> and its folder's name behind.</summary>
    public string? Bucket { get; init; }

    /// <exception cref="NacreException">UsageInvalid: why it can't be one.</exception>
    internal void Check()
    {
        if (!Text.IsLabel(Name, 100))
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "the organisation's name must have 1 to 100 printable characters");
        }

        if (Hosts is not { Count: > 0 and <= 16 })
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "an organisation needs 1 to 16 DNS names of its own, such as acme.example");
        }

        if (Hosts.FirstOrDefault(host => Uri.CheckHostName(host) != UriHostNameType.Dns || host.Any(char.IsAsciiLetterUpper) || !System.Text.Ascii.IsValid(host) || host.EndsWith('.')) is { } wrong)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{Text.Printable(wrong, 100)}' is not a DNS name in lower case, such as acme.example");
        }
    }
}

/// <summary>The organisations of a server's data directory: <c>organisations/FOLDER</c> is a data directory like the server's own, with nothing in common with it. A server that
/// runs sees what is added, changed or removed.</summary>
public static class OrganisationFolders
{
    internal const string Folder = "organisations", File = "organisation.json";
    private const string Removed = "removed";
    private const int LongestFile = 64 * 1024;
    private static readonly TimeSpan Stopping = TimeSpan.FromMinutes(1);

    /// <summary>The data directory of an organisation.</summary>
    public static string PathOf(string data, string name) => Path.Combine(Path.GetFullPath(data), Folder, name);

    /// <summary>The names of the folders, in order.</summary>
    public static IReadOnlyList<string> List(string data)
    {
        var root = Path.Combine(Path.GetFullPath(data), Folder);
        return Directory.Exists(root)
            ? [.. Directory.EnumerateDirectories(root).Select(Path.GetFileName).OfType<string>().Where(name => Names.IsValid(name) && System.IO.File.Exists(Path.Combine(root, name, File))).Order(StringComparer.Ordinal)]
            : [];
    }

    /// <summary>What an organisation's file says.</summary>
    /// <exception cref="NacreException">NotFound; FileAccess; UsageInvalid: it says nothing that can be used.</exception>
    public static OrganisationSettings Read(string data, string name)
    {
        var file = Path.Combine(PathOf(data, name), File);
        try
        {
            using var stream = System.IO.File.OpenRead(file);
            var settings = stream.Length > LongestFile ? null : JsonSerializer.Deserialize<OrganisationSettings>(stream, ContractJson.Options);
            (settings ?? throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{file}' is not what 'nacre server organisation add' writes")).Check();
            return settings;
        }
        catch (Exception exception) when (exception is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new NacreException(ErrorCatalogue.NotFound, $"there is no organisation '{name}' in '{data}'", exception);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"'{file}': {exception.Message}", exception);
        }
        catch (JsonException exception)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{file}' is not the JSON of an organisation: {exception.Message}", exception);
        }
    }

    /// <summary>Adds an organisation. A server that runs on the data directory has it within seconds.</summary>
    /// <exception cref="NacreException">NameInvalid; AlreadyExists; UsageInvalid: a name that another organisation has; NoSpace, FileAccess.</exception>
    public static void Add(string data, string name, OrganisationSettings settings)
    {
        ArgumentNullException.ThrowIfNull(settings);
        if (!Names.IsValid(name))
        {
            throw new NacreException(ErrorCatalogue.NameInvalid, $"'{Text.Printable(name, 100)}' is not a name");
        }

        settings.Check();
        var folder = PathOf(data, name);
        if (System.IO.File.Exists(Path.Combine(folder, File)))
        {
            throw new NacreException(ErrorCatalogue.AlreadyExists, $"there is an organisation '{name}' in '{data}'");
        }

        foreach (var other in List(data))
        {
            if (Read(data, other).Hosts.Intersect(settings.Hosts, StringComparer.Ordinal).FirstOrDefault() is { } taken)
            {
                throw new NacreException(ErrorCatalogue.AlreadyExists, $"'{taken}' is organisation '{other}'");
            }
        }

        _ = new DataDirectory(folder);
        try
        {
            var temporary = Path.Combine(folder, File + ".new");
            System.IO.File.WriteAllBytes(temporary, JsonSerializer.SerializeToUtf8Bytes(settings, ContractJson.Options));
            System.IO.File.Move(temporary, Path.Combine(folder, File));
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new NacreException(exception is IOException full && Problems.IsDiskFull(full) ? ErrorCatalogue.NoSpace : ErrorCatalogue.FileAccess, $"can't write into '{folder}': {exception.Message}", exception);
        }
    }

    /// <summary>Takes an organisation off the server and keeps its data directory: moved back, it is there again.</summary>
    /// <returns>Where the data directory is then.</returns>
    /// <exception cref="NacreException">NotFound; FileAccess: a server that uses it did not stop it within a minute, or it can't be moved.</exception>
    public static async Task<string> RemoveAsync(string data, string name, TimeProvider time, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(time);
        if (!Names.IsValid(name) || !List(data).Contains(name))
        {
            throw new NacreException(ErrorCatalogue.NotFound, $"there is no organisation '{Text.Printable(name, 100)}' in '{data}'");
        }

        var folder = PathOf(data, name);
        var goal = Path.Combine(Path.GetFullPath(data), Removed, $"{name}-{time.GetUtcNow():yyyyMMdd-HHmmss}");
        var file = Path.Combine(folder, File);
        var aside = file + ".removed";
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(goal)!);
            System.IO.File.Move(file, aside, overwrite: true); // which stops it
            try
            {
                using (await ClaimAsync(folder, cancellationToken))
                {
                    Directory.Move(folder, goal);
                }
            }
            catch
            {
                System.IO.File.Move(aside, file);
                throw;
            }

            System.IO.File.Move(Path.Combine(goal, Path.GetFileName(aside)), Path.Combine(goal, File));
            return goal;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"can't move '{folder}' to '{goal}': {exception.Message}", exception);
        }
    }

    private static async Task<FileStream> ClaimAsync(string folder, CancellationToken cancellationToken)
    {
        for (var waited = System.Diagnostics.Stopwatch.StartNew(); ; await Task.Delay(200, cancellationToken))
        {
            try
            {
                return new FileStream(Path.Combine(folder, "lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException) when (waited.Elapsed < Stopping)
            {
                // The server is still at work in it.
            }
        }
    }
}
