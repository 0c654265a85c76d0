using System.CommandLine;
using Nacre.Client;
using Nacre.Contracts;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre store</c>: what the administrator does with the server's segments.</summary>
internal static class StoreCommands
{
    public static Command Create() => new("store", "Check and clean the server's segments, and name the places where devices fetch them") { Check(), Clean(), Origins() };

    private static Command Check()
    {
        var repair = new Option<string?>("--repair") { Description = "Put back what is missing or damaged from this folder: a replica ('nacre replica sync'), or a copy of the server's 'segments'" };
        var command = new Command("check", "Have the server read every segment and compare it with its hash; ends with 5 where a release is not whole") { repair };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var found = await Terminal.ProgressAsync("checking the store", report => CheckAsync(client, report, cancellationToken));
            var repaired = 0;
            if (parsed.GetValue(repair) is { } folder)
            {
                (found, repaired) = await RepairAsync(client, found, folder, cancellationToken);
            }

            var broken = found.Problems.Where(problem => problem.Kind != StoreProblemKind.Orphan && problem.Releases.Count > 0).ToList();
            Terminal.Result(found, () =>
            {
                foreach (var problem in found.Problems)
                {
                    Terminal.Line($"{problem.Segment}: {problem.Kind.ToString().ToLowerInvariant()}{(problem.Releases.Count > 0 ? $", needed by {string.Join(", ", problem.Releases)}" : ", needed by no release")}");
                }

                Terminal.Line($"{found.Segments} segments, {Terminal.Bytes(found.Bytes)} read; {(found.Problems.Count == 0 ? "all of it is as it should be" : $"{found.Problems.Count} findings")}"
                    + (repaired > 0 ? $"; {repaired} put back" : ""));
            });
            if (broken.Count > 0)
            {
                throw new NacreException(ErrorCatalogue.StoreDamaged, $"{broken.Count} segments that releases need are missing or damaged: "
                    + string.Join(", ", broken.SelectMany(problem => problem.Releases).Distinct().Order(Comparer<ReleaseName>.Create((one, other) => string.CompareOrdinal($"{one}", $"{other}"))).Select(release => $"{release}")) + " can't be installed anew");
            }
        });
        return command;
    }

    private static async Task<StoreCheck> CheckAsync(NacreClient client, Action<double, string> report, CancellationToken cancellationToken)
    {
        var problems = new List<StoreProblem>();
        var (segments, bytes) = (0, 0L);
        for (var part = 0; part < StoreCheck.Parts; part++)
        {
            var one = await client.CheckStoreAsync(part, cancellationToken);
            segments += one.Segments;
            bytes += one.Bytes;
            problems.AddRange(one.Problems);
            report((part + 1.0) / StoreCheck.Parts, $"{segments} segments, {Terminal.Bytes(bytes)} read, {problems.Count} findings");
        }

        return new StoreCheck(segments, bytes, problems);
    }

    private static async Task<(StoreCheck Left, int Repaired)> RepairAsync(NacreClient client, StoreCheck found, string folder, CancellationToken cancellationToken)
    {
        var replica = new ReplicaFolder(folder);
        var left = new List<StoreProblem>();
        foreach (var problem in found.Problems)
        {
            if (problem.Sha256 is { } sha256 && await replica.TryReadAsync(problem.Segment, sha256, cancellationToken) is { } bytes)
            {
                await client.UploadSegmentAsync(problem.Segment, bytes, cancellationToken);
            }
            else
            {
                left.Add(problem);
            }
        }

        return (found with { Problems = left }, found.Problems.Count - left.Count);
    }

    private static Command Clean()
    {
        var dryRun = new Option<bool>("--dry-run") { Description = "Only say what would go" };
        var command = new Command("clean", "Remove releases outside retention and segments that nobody needs; the server does it by itself every hour") { dryRun };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var cleaned = await Terminal.ProgressAsync("cleaning the store", _ => client.CleanStoreAsync(parsed.GetValue(dryRun), cancellationToken));
            Terminal.Result(cleaned, () =>
            {
                var would = parsed.GetValue(dryRun) ? "would go" : "went";
                foreach (var release in cleaned.Releases)
                {
                    Terminal.Line($"{release} {would}: outside its image's retention");
                }

                Terminal.Line($"{cleaned.Segments} segments ({Terminal.Bytes(cleaned.Bytes)}) {would}");
            });
        });
        return command;
    }

    private static Command Origins()
    {
        var urls = new Argument<string[]>("URL") { Description = "Base URLs in the order in which devices ask them; the server itself comes last", Arity = ArgumentArity.ZeroOrMore };
        var none = new Option<bool>("--none") { Description = "No origins: devices ask the server only" };
        var command = new Command("origins", "Name the web servers, CDNs, buckets and replicas where devices fetch segments (URL/ab/abcdef…); without any: show them") { urls, none };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var given = parsed.GetValue(urls) ?? [];
            if (given.Length > 0 && parsed.GetValue(none))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "either URLs or --none");
            }

            var now = given.Length > 0 || parsed.GetValue(none)
                ? await client.PutOriginsAsync(new StoreOrigins(given), cancellationToken)
                : await client.GetOriginsAsync(cancellationToken);
            Terminal.Result(now, () =>
            {
                foreach (var url in now.Urls)
                {
                    Terminal.Line(url);
                }

                Terminal.Note(now.Urls.Count == 0 ? "no origins: devices fetch from the server" : "then the server; devices learn it with their next lease");
            });
        });
        return command;
    }
}
