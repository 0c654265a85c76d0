// Serves a volume over NBD for bench/volumes.py: ServeVolume FOLDER SOCKET MIB. The key is fixed: for measuring only.
// A folder that is not there yet becomes a new volume. Commands on standard input, one a line, each answered by one line of JSON:
//   stat                counters, allocated bytes, the managed heap after a collection where asked by "stat collect"
//   snapshot NAME | rollback NAME | delete NAME
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using Nacre.Nbd;
using Nacre.Volumes;

var key = new byte[32];
var opening = Stopwatch.StartNew();
var size = long.Parse(args[2], CultureInfo.InvariantCulture) << 20;
await using var volume = Directory.Exists(args[0]) ? Volume.Open(args[0], key) : Volume.Create(args[0], new VolumeOptions { Size = size }, key);
await using var server = NbdServer.Start(args[1], new Dictionary<string, IBlockDevice> { ["disk"] = volume });
Answer(new { OpenedMs = opening.Elapsed.TotalMilliseconds, volume.Statistics.ReplayedSlots });
using var stopped = new ManualResetEventSlim();
using var signal = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
{
    context.Cancel = true;
    stopped.Set();
});
new Thread(() => Obey(volume)) { IsBackground = true }.Start();
stopped.Wait();

static void Obey(Volume volume)
{
    while (Console.In.ReadLine() is { } line)
    {
        var words = line.Split(' ');
        var time = Stopwatch.StartNew();
        switch (words[0])
        {
            case "snapshot":
                volume.TakeSnapshot(words[1]);
                break;
            case "rollback":
                volume.RollBack(words[1]);
                break;
            case "delete":
                volume.DeleteSnapshot(words[1]);
                break;
            case "stat":
                Answer(new
                {
                    volume.Statistics,
                    AllocatedBytes = GC.GetTotalAllocatedBytes(precise: true),
                    HeapBytes = words.Length > 1 ? GC.GetTotalMemory(forceFullCollection: true) : 0,
                });
                continue;
            default:
                throw new ArgumentException($"unknown command '{line}'");
        }

        Answer(new { Ms = time.Elapsed.TotalMilliseconds });
    }
}

static void Answer(object answer) => Console.Out.WriteLine(JsonSerializer.Serialize(answer));
