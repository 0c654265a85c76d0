using System.CommandLine;
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
        var listen = new Option<string>("--listen") { Description = "The address to serve", DefaultValueFactory = _ => "http://127.0.0.1:8420" };
        var data = new Option<string>("--data") { Description = "Folder of the database, the segments and the keys", DefaultValueFactory = _ => "nacre-server" };
        var organisation = new Option<string>("--organisation") { Description = "The organisation's name, for people", DefaultValueFactory = _ => defaults.OrganisationName };
        var grace = new Option<double>("--segment-grace-hours") { Description = "How long a segment stays that no release refers to: longer than a publication takes", DefaultValueFactory = _ => defaults.SegmentGrace.TotalHours };
        var bucket = new Option<string?>("--s3") { Description = "Keep the segments in this bucket: https://s3.example.com/BUCKET, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment" };
        var region = new Option<string>("--s3-region") { Description = "The bucket's region", DefaultValueFactory = _ => "us-east-1" };
        var command = new Command("server", "Run the server until Ctrl-C") { listen, data, organisation, grace, bucket, region };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var options = new ServerOptions
            {
                Listen = parsed.GetValue(listen)!,
                DataDirectory = Path.GetFullPath(parsed.GetValue(data)!),
                OrganisationName = parsed.GetValue(organisation)!,
                SegmentGrace = TimeSpan.FromHours(parsed.GetValue(grace)),
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
            Terminal.Note($"administrators log in once with: nacre login {address} --token-file {Path.Combine(options.DataDirectory, "admin-token")}");
            await server.WaitForShutdownAsync(cancellationToken);
        });
        return command;
    }
}
