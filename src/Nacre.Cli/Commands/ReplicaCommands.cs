using System.CommandLine;
using Microsoft.Extensions.Hosting;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Server;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre replica</c>: segments near to their devices.</summary>
internal static class ReplicaCommands
{
    public static Command Create() => new("replica", "Mirror releases' ciphertext into a folder, and serve it near the devices; a replica has no key and can read nothing of it") { Token(), Sync(), Serve() };

    private static Command Token()
    {
        var command = new Command("token", "Make the token with which replicas learn what to mirror, and print it; an earlier one is void. For the administrator");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var created = await client.CreateReplicaTokenAsync(cancellationToken);
            Terminal.Result(created, () => Terminal.Line(created.Token));
            Terminal.Note("keep it in a file for 'nacre replica sync --token-file'");
        });
        return command;
    }

    private static Command Sync()
    {
        var folder = new Argument<string>("FOLDER") { Description = "The folder: a new or empty one, or a replica; on a USB stick, too" };
        var server = new Option<string>("--server") { Description = "The server's address", Required = true };
        var token = new Option<string>("--token-file") { Description = "A file with the token that 'nacre replica token' printed", Required = true };
        var authorities = new Option<string?>("--ca") { Description = "Believe a server of these authorities (PEM) and no other (default: NACRE_CA in the environment, else those that this computer trusts)" };
        var images = new Option<string[]>("--image") { Description = "Only releases of this image; may be given several times" };
        var all = new Option<bool>("--all") { Description = "All releases, not only those on a channel" };
        var command = new Command("sync", "Fetch what the folder lacks of the releases on channels, and remove what none of them needs; interrupted, run it again") { folder, server, token, authorities, images, all };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            if (!Uri.TryCreate(parsed.GetValue(server), UriKind.Absolute, out var url))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{parsed.GetValue(server)}' is not the address of a server: it must look like https://nacre.example.com");
            }

            using var client = new NacreClient(url, Credential.Replica((await File.ReadAllTextAsync(parsed.GetValue(token)!, cancellationToken)).Trim()),
                trust: ServerTrust.Of(await Administration.ReadAuthoritiesAsync(parsed.GetValue(authorities), cancellationToken)));
            var only = parsed.GetValue(images) ?? [];
            var (contents, done) = await Terminal.ProgressAsync("mirroring", report => new ReplicaFolder(parsed.GetValue(folder)!).SyncAsync(
                client,
                release => (only.Length == 0 || only.Contains(release.Release.Image)) && (parsed.GetValue(all) || release.Channels.Count > 0),
                new Reporter<ReplicaProgress>(progress => report(
                    progress.TotalBytes == 0 ? 1 : (double)progress.DoneBytes / progress.TotalBytes, $"{Terminal.Bytes(progress.DoneBytes)} of {Terminal.Bytes(progress.TotalBytes)}")),
                cancellationToken));
            Terminal.Result(contents, () => Terminal.Line($"{contents.Releases.Count} releases, {Terminal.Bytes(done.TotalBytes)}, of which {Terminal.Bytes(done.FetchedBytes)} were fetched: {string.Join(", ", contents.Releases)}"));
        });
        return command;
    }

    private static Command Serve()
    {
        var folder = new Argument<string>("FOLDER") { Description = "The folder that 'nacre replica sync' fills" };
        var listen = new Option<string>("--listen") { Description = "The address to serve", DefaultValueFactory = _ => "http://0.0.0.0:8421" };
        var command = new Command("serve", "Serve the folder as an origin, by plain HTTP, until Ctrl-C; the administrator names it with 'nacre store origins'") { folder, listen };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            await using var server = ReplicaServer.Create(parsed.GetValue(folder)!, parsed.GetValue(listen)!);
            await ReplicaServer.StartAsync(server, parsed.GetValue(listen)!, cancellationToken);
            Terminal.Note($"serving {server.Urls.First()} (Ctrl-C ends)");
            await server.WaitForShutdownAsync(cancellationToken);
        });
        return command;
    }
}
