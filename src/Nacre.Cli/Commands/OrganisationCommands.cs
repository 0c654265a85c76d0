using System.CommandLine;
using Nacre.Contracts;
using Nacre.Server;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre server organisation</c>: more than one organisation on one server.</summary>
internal static class OrganisationCommands
{
    private static readonly Argument<string> Name = new("name") { Description = "The organisation's folder: lower-case letters, digits and hyphens" };

    public static Command Create(Option<string> data) => new("organisation", "Organisations that this server serves beside its own, each with a database, keys and an authority of its own. A server that runs takes each change within seconds")
    {
        Add(data), List(data), Remove(data),
    };

    private static Command Add(Option<string> data)
    {
        var hosts = new Option<string[]>("--host") { Description = "A DNS name that is this organisation's alone, such as acme.example; may be given several times", Required = true };
        var title = new Option<string?>("--title") { Description = "Its name for people (default: NAME)" };
        var certificate = new Option<string?>("--certificate") { Description = "Its own certificate, with the chain (PEM; default: the server's, or its own authority makes one)" };
        var certificateKey = new Option<string?>("--certificate-key") { Description = "The key of that certificate (PEM)" };
        var authorities = new Option<string?>("--ca") { Description = "The authorities (PEM) that its devices are to believe, with a certificate that is not its own authority's" };
        var postgresFile = new Option<string?>("--postgres-file") { Description = "A file with the connection string of its own database (default: the server's, with _NAME behind the database's name)" };
        var bucket = new Option<string?>("--s3") { Description = "Its own bucket (default: the server's, with -NAME behind)" };
        var command = new Command("add", "Add an organisation") { Name, hosts, title, certificate, certificateKey, authorities, postgresFile, bucket };
        command.SetAction(parsed =>
        {
            var name = parsed.GetValue(Name)!;
            var folder = parsed.GetValue(data)!;
            static string? Full(string? path) => path is null ? null : Path.GetFullPath(path);
            if (parsed.GetValue(certificate) is null != parsed.GetValue(certificateKey) is null)
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "a certificate and its key belong together: give both files, or neither");
            }

            RequireServers(folder);
            var settings = new OrganisationSettings(parsed.GetValue(title) ?? name, [.. parsed.GetValue(hosts)!.Select(host => host.ToLowerInvariant())])
            {
                CertificateFile = Full(parsed.GetValue(certificate)),
                CertificateKeyFile = Full(parsed.GetValue(certificateKey)),
                AuthoritiesFile = Full(parsed.GetValue(authorities)),
                PostgresFile = Full(parsed.GetValue(postgresFile)),
                Bucket = parsed.GetValue(bucket),
            };
            OrganisationFolders.Add(folder, name, settings);
            var path = OrganisationFolders.PathOf(folder, name);
            Terminal.Result(new { Name = name, settings.Hosts, Data = path }, () =>
            {
                Terminal.Line($"organisation {name}: {string.Join(", ", settings.Hosts)}");
                Terminal.Line($"a server that runs with --data {folder} serves it within seconds; its log says so, or why not");
                Terminal.Line($"its administrators log in once with: nacre login https://{settings.Hosts[0]}:PORT --token-file {Path.Combine(path, "admin-token")} --ca {Path.Combine(path, "ca.pem")}");
            });
        });
        return command;
    }

    private static Command List(Option<string> data)
    {
        var command = new Command("list", "List the organisations beside the server's own");
        command.SetAction(parsed =>
        {
            var folder = parsed.GetValue(data)!;
            RequireServers(folder);
            var entries = OrganisationFolders.List(folder).Select(name =>
            {
                var settings = OrganisationFolders.Read(folder, name);
                return new { Name = name, Title = settings.Name, settings.Hosts, Data = OrganisationFolders.PathOf(folder, name) };
            }).ToArray();
            Terminal.Result(entries, () => Terminal.Table(["NAME", "TITLE", "HOSTS", "DATA"], entries.Select(entry => new[] { entry.Name, entry.Title, string.Join(", ", entry.Hosts), entry.Data })));
        });
        return command;
    }

    private static Command Remove(Option<string> data)
    {
        var yes = new Option<bool>("--yes") { Description = "Do it: its devices and administrators reach it no more" };
        var command = new Command("remove", "Take an organisation off the server; its data directory is kept, aside") { Name, yes };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var (name, folder) = (parsed.GetValue(Name)!, parsed.GetValue(data)!);
            RequireServers(folder);
            if (!parsed.GetValue(yes))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, $"devices and administrators of '{name}' would reach it no more: say --yes to do it");
            }

            var goal = await Terminal.ProgressAsync($"stopping {name}", _ => OrganisationFolders.RemoveAsync(folder, name, TimeProvider.System, cancellationToken));
            Terminal.Result(new { Name = name, Data = goal }, () =>
            {
                Terminal.Line($"{name} is served no more; its data are in {goal}");
                Terminal.Line($"moved back to {OrganisationFolders.PathOf(folder, name)} it is there again; a database of PostgreSQL's and a bucket stay as they are");
            });
        });
        return command;
    }

    private static void RequireServers(string data)
    {
        if (!Directory.Exists(data))
        {
            throw new NacreException(ErrorCatalogue.NotFound, $"'{data}' is no server's data directory: give the one of the server with --data");
        }
    }
}
