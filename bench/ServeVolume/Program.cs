// Serves a new volume over NBD until it is told to stop: serve <folder> <socket> <MiB>. The key is fixed: for measuring only.
using System.Globalization;
using System.Runtime.InteropServices;
using Nacre.Nbd;
using Nacre.Volumes;

var size = long.Parse(args[2], CultureInfo.InvariantCulture) << 20;
var volume = Volume.Create(args[0], new VolumeOptions { Size = size }, new byte[32]);
var server = NbdServer.Start(args[1], new Dictionary<string, IBlockDevice> { ["disk"] = volume });
var stopped = new TaskCompletionSource();
using var signal = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
{
    context.Cancel = true;
    stopped.TrySetResult();
});
await stopped.Task;
Console.WriteLine(volume.Statistics);
await server.DisposeAsync();
await volume.DisposeAsync();
