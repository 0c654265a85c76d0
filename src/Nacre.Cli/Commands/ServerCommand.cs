using System.CommandLine;
using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Hosting;
using Nacre.Contracts;
using Nacre.Server;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre server</c>.</summary>
internal static class ServerCommand
{
    public static Command Create()
    {
        var defaults = new ServerOptions { DataDirectory = "nacre-server" };
        var listen = new Option<string>("--listen") { Description = "The address to serve: https://0.0.0.0:8420 (TLS 1.3), or http:// for this computer alone or behind a proxy at which TLS ends", DefaultValueFactory = _ => "http://127.0.0.1:8420" };
        var data = new Option<string>("--data") { Description = "Folder of the database, the segments and the keys", DefaultValueFactory = _ => "nacre-server", Recursive = true };
        var organisation = new Option<string>("--organisation") { Description = "The organisation's name, for people", DefaultValueFactory = _ => defaults.OrganisationName };
        var grace = new Option<double>("--segment-grace-hours") { Description = "How long a segment stays that no release refers to: longer than a publication takes", DefaultValueFactory = _ => defaults.SegmentGrace.TotalHours };
        var postgres = new Option<string?>("--postgres") { Description = "Keep the state in this database of PostgreSQL's instead of in DATA: Host=db.example;Database=nacre;Username=nacre (with a password: --postgres-file, or NACRE_POSTGRES in the environment)" };
        var postgresFile = new Option<string?>("--postgres-file") { Description = "A file with that text" };
        var keys = new Option<string?>("--keys") { Description = "Folder of the key ring (default: keys in DATA); servers of one database share it" };
        var proxies = new Option<string[]>("--trusted-proxy") { Description = "A proxy, or a network of proxies, whose X-Forwarded-For is believed: 10.0.0.1 or 10.0.0.0/24; may be given several times" };
        var bucket = new Option<string?>("--s3") { Description = "Keep the segments in this bucket: https://s3.example.com/BUCKET, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment" };
        var region = new Option<string>("--s3-region") { Description = "The bucket's region", DefaultValueFactory = _ => "us-east-1" };
        var names = new Option<string[]>("--name") { Description = "With https: a name, or an address, under which devices reach this server; may be given several times. The organisation's own authority makes the certificate for them" };
        var certificate = new Option<string?>("--certificate") { Description = "With https: use this certificate, with its chain, instead (PEM; read again when it changes)" };
        var certificateKey = new Option<string?>("--certificate-key") { Description = "The key of that certificate (PEM)" };
        var authorities = new Option<string?>("--ca") { Description = "With --certificate, or a proxy: the authorities (PEM) that devices are to believe from their enrolment on; without it those that their computers trust" };
        var command = new Command("server", "Run the server until Ctrl-C") { listen, names, certificate, certificateKey, authorities, data, organisation, grace, postgres, postgresFile, keys, proxies, bucket, region };
        command.Subcommands.Add(OrganisationCommands.Create(data));
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var options = new ServerOptions
            {
                Listen = parsed.GetValue(listen)!,
                Names = parsed.GetValue(names) ?? [],
                CertificateFile = parsed.GetValue(certificate),
                CertificateKeyFile = parsed.GetValue(certificateKey),
                AuthoritiesFile = parsed.GetValue(authorities),
                DataDirectory = Path.GetFullPath(parsed.GetValue(data)!),
                OrganisationName = parsed.GetValue(organisation)!,
                SegmentGrace = TimeSpan.FromHours(parsed.GetValue(grace)),
                Postgres = await ReadPostgresAsync(parsed.GetValue(postgres), parsed.GetValue(postgresFile), cancellationToken),
                KeyDirectory = parsed.GetValue(keys),
                TrustedProxies = [.. (parsed.GetValue(proxies) ?? []).Select(ReadNetwork)],
                S3 = parsed.GetValue(bucket) is not { } url ? null : new S3Options
                {
                    Bucket = Uri.TryCreate(url, UriKind.Absolute, out var place) ? place : throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{url}' is not the address of a bucket"),
                    Region = parsed.GetValue(region)!,
                    AccessKey = Environment.GetEnvironmentVariable("AWS_ACCESS_KEY_ID") ?? "",
                    SecretKey = Environment.GetEnvironmentVariable("AWS_SECRET_ACCESS_KEY") ?? "",
                },
            };
            await using var server = NacreServer.Create(options);
            await NacreServer.StartAsync(server, cancellationToken);
            var address = server.Urls.First();
            Terminal.Note($"serving {address} (Ctrl-C ends)");
            var ca = Path.Combine(options.DataDirectory, "ca.pem");
            if (Path.Combine(options.DataDirectory, "admin-token") is var token && File.Exists(token))
            {
                Terminal.Note($"administrators log in once with: nacre login {AddressFor(address, options)} --token-file {token}{(File.Exists(ca) && server.Urls.First().StartsWith("https:", StringComparison.Ordinal) ? $" --ca {ca}" : "")}");
            }

            await server.WaitForShutdownAsync(cancellationToken);
        });
        return command;
    }

    /// <summary>An address that can be connected to, where all of this computer's are served.</summary>
    private static string AddressFor(string served, ServerOptions options)
    {
        var url = new Uri(served);
        return url.Host is not ("0.0.0.0" or "[::]") ? served : new UriBuilder(url) { Host = options.Names is [var first, ..] ? first : "localhost" }.Uri.GetLeftPart(UriPartial.Authority);
    }

    private static async Task<PostgresOptions?> ReadPostgresAsync(string? text, string? file, CancellationToken cancellationToken)
    {
        if (text is not null && file is not null)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "--postgres and --postgres-file say the same: give one of them");
        }

        if (text?.Contains("password", StringComparison.OrdinalIgnoreCase) == true || text?.Contains("pwd", StringComparison.OrdinalIgnoreCase) == true)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "everybody on this computer can read a command line, and so a password in it: put the connection string into a file (--postgres-file) or into NACRE_POSTGRES");
        }

        var connection = text ?? (file is null ? Environment.GetEnvironmentVariable("NACRE_POSTGRES") : await File.ReadAllTextAsync(file, cancellationToken));
        return string.IsNullOrWhiteSpace(connection) && text is null && file is null ? null : new PostgresOptions { ConnectionString = connection!.Trim() };
    }

    private static IPNetwork ReadNetwork(string untrusted) =>
        IPNetwork.TryParse(untrusted, out var network) ? network
        : IPAddress.TryParse(untrusted, out var address) ? new IPNetwork(address, address.AddressFamily == AddressFamily.InterNetwork ? 32 : 128)
        : throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{untrusted}' is neither an address, such as 10.0.0.1, nor a network, such as 10.0.0.0/24");
}
