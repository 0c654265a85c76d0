using System.CommandLine;
using Microsoft.Extensions.Hosting;
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
        var days = new Option<double>("--lease-days") { Description = "How long a lease lasts without contact", DefaultValueFactory = _ => defaults.LeaseDuration.TotalDays };
        var command = new Command("server", "Run the server until Ctrl-C") { listen, data, organisation, days };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var options = new ServerOptions
            {
                Listen = parsed.GetValue(listen)!,
                DataDirectory = Path.GetFullPath(parsed.GetValue(data)!),
                OrganisationName = parsed.GetValue(organisation)!,
                LeaseDuration = TimeSpan.FromDays(parsed.GetValue(days)),
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
