// Rejuvenates a LivePC's three layers, with so many GiB really written to them, by each depth, with the player's own code: Rejuvenate GIB ROUNDS.
// NACRE_HOME is the folder that it works in. Prints a line of figures for each depth. See bench/rejuvenation.sh.
using System.Diagnostics;
using System.Globalization;
using System.Runtime.Versioning;
using Nacre.Contracts;
using Nacre.Player;
using Nacre.Player.LivePcs;
using Nacre.Player.Moments;
using Nacre.Policies;
using Nacre.Volumes;

[assembly: SupportedOSPlatform("linux")]

var mib = (long)(double.Parse(args[0], CultureInfo.InvariantCulture) * 1024);
var rounds = int.Parse(args[1], CultureInfo.InvariantCulture);
var folder = new LivePcFolder(PlayerPaths.Open(), "bench");
folder.Create();
var key = new byte[32];
var shares = new (string Layer, long Mib)[] { ("applications", mib / 4), ("settings", mib / 4), ("data", mib / 2) };
var volumes = new Dictionary<string, Volume>();
var filling = Stopwatch.StartNew();
var piece = new byte[1 << 20];
Random.Shared.NextBytes(piece);
foreach (var (layer, share) in shares)
{
    var volume = Volume.Create(folder.Volume(layer), new VolumeOptions { Size = Math.Max(share, 64) << 20 }, key);
    for (var at = 0L; at < share; at++)
    {
        await volume.WriteAsync(at << 20, piece, forceUnitAccess: false, CancellationToken.None);
    }

    await volume.FlushAsync(CancellationToken.None);
    volume.Checkpoint();
    volumes.Add(layer, volume);
    folder.SetInUse(layer);
}

Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{mib / 1024.0:0.##} GiB written to the layers in {filling.Elapsed.TotalSeconds:0} s"));
var moments = new MomentStore(volumes, folder, TimeProvider.System);
var taking = Stopwatch.StartNew();
var clean = moments.Take(MomentKind.User, "clean");
Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"moment       {taking.Elapsed.TotalMilliseconds,8:0.0} ms"));
foreach (var depth in new[] { RejuvenationDepth.Applications, RejuvenationDepth.Settings, RejuvenationDepth.Data, RejuvenationDepth.Moment })
{
    var (times, undone) = (new List<double>(), new List<double>());
    for (var round = 0; round < rounds; round++)
    {
        foreach (var volume in volumes.Values)
        {
            // What a user does meanwhile.
            await volume.WriteAsync((round + 1) << 20, piece, forceUnitAccess: true, CancellationToken.None);
        }

        times.Add(await RunAsync(MomentKind.Rejuvenation, new RejuvenationRequest(depth, depth < RejuvenationDepth.Data ? null : clean.Id)));
        undone.Add(await RunAsync(MomentKind.Undo, new RejuvenationRequest(depth, IsUndo: true)));
    }

    times.Sort();
    undone.Sort();
    Console.WriteLine(string.Create(
        CultureInfo.InvariantCulture, $"{depth.ToString().ToLowerInvariant(),-12} {times[rounds / 2],8:0.0} ms (longest {times[^1]:0.0}), undone in {undone[rounds / 2]:0.0} ms (longest {undone[^1]:0.0})"));
}

foreach (var volume in volumes.Values)
{
    await volume.DisposeAsync();
}

async Task<double> RunAsync(MomentKind kind, RejuvenationRequest request)
{
    var plan = RejuvenationPlan.Of(request, moments.List(), moments.BytesNow, Policy.Factory, TimeProvider.System.GetUtcNow());
    var time = Stopwatch.StartNew();
    await moments.RejuvenateAsync(kind, plan.Actions, null);
    return time.Elapsed.TotalMilliseconds;
}
