using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;

// Devices URL TOKEN-FILE SERVER-PID DEVICES CONNECTED CONTACTS WORKERS AUTHORITIES: simulated devices against one server. bench/devices.sh runs it.
var server = new Uri(args[0]);
var token = (await File.ReadAllTextAsync(args[1])).Trim();
int Number(int place) => int.Parse(args[place], CultureInfo.InvariantCulture);
var (process, count, connected, contacts, workers) = (Number(2), Number(3), Number(4), Number(5), Number(6));
var trust = ServerTrust.Of(await File.ReadAllTextAsync(args[7]));
using var admin = new NacreClient(server, Credential.Administrator(token), timeout: TimeSpan.FromMinutes(10), trust: trust);
using var nobody = new NacreClient(server, trust: trust);

// One release, one LivePC, one user for 50 devices.
using var publisher = ECDsa.Create(ECCurve.NamedCurves.nistP256);
var overview = await admin.GetTrustAsync();
var role = new TrustRole([TrustKey.From(publisher)], 1);
var ends = TimeProvider.System.GetUtcNow().AddDays(365);
await admin.PutTrustFileAsync("root", Encoding.UTF8.GetString(TrustMetadata.Sign(RootMetadata.Write(1, ends, role, role, new TrustRole([TrustKey.From(overview.OnlineKey)], 1)), publisher)));
await admin.PutTrustFileAsync("targets", Encoding.UTF8.GetString(TrustMetadata.Sign(TargetsMetadata.WriteImages(1, ends, new Dictionary<string, TrustRole> { ["debian"] = role }), publisher)));
await admin.PutSigningKeyAsync(PublicKeys.From(publisher));

// As many segments as debian-desktop's: the manifest names them.
const int Segments = 280;
var references = new SegmentReference[Segments];
for (var i = 0; i < Segments; i++)
{
    var segment = RandomNumberGenerator.GetBytes(1000);
    var name = RandomNumberGenerator.GetHexString(32, lowercase: true);
    await admin.UploadSegmentAsync(name, segment);
    references[i] = new SegmentReference(name, segment.Length, Convert.ToHexStringLower(SHA256.HashData(segment)));
}

var manifest = new ReleaseManifest(1, "debian", 1, 1_700_000_000, "quiet", 4096, references[0], references);
var signed = Jws.SignClaims(manifest, publisher);
await admin.PublishReleaseAsync("debian", new PublishRelease(signed, Convert.ToBase64String(RandomNumberGenerator.GetBytes(32))));
await admin.MoveChannelAsync("debian", "stable", 1);
await admin.CreateLivePcAsync(new CreateLivePc("desk", "debian", null));
await admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["maxDevicesPerUser"] = 100, ["kill.requireTwoAdmins"] = "never" });
for (var i = 0; i <= count / 50; i++)
{
    await admin.CreateUserAsync(new CreateUser($"user-{i}", null));
    await admin.EntitleAsync("desk", $"user-{i}");
}

var devices = new (string Id, Func<bool, NacreClient> Connect)[count];
Nacre.Contracts.PublicKey? leaseKey = null;
var enrolling = Stopwatch.StartNew();
await Parallel.ForEachAsync(Enumerable.Range(0, count), new ParallelOptions { MaxDegreeOfParallelism = workers }, async (i, cancellationToken) =>
{
    var made = await admin.CreateEnrolmentCodeAsync(new CreateEnrolmentCode($"user-{i / 50}", null), cancellationToken);
    _ = EnrolmentCode.TryParse(made.Code, out var code);
    var key = DeviceKey.Create();
    using var tls = ECDsa.Create(ECCurve.NamedCurves.nistP256);
    var device = await nobody.EnrolAsync(code!, $"laptop-{i}", key, PublicKeys.From(tls), cancellationToken);
    using var loaded = X509CertificateLoader.LoadCertificate(Convert.FromBase64String(device.Certificate!));
    var certificate = loaded.CopyWithPrivateKey(tls);
    leaseKey = device.LeaseKey;
    devices[i] = (device.DeviceId, isLong => new NacreClient(server, Credential.Device(device.DeviceId, key, () => certificate), trust: trust, isLong: isLong));
});
Say("enrolled", $"{count} devices in {enrolling.Elapsed.TotalSeconds:0} s");

// What a device does in its day. Each has the release, as on all days but those of an update.
string[] known = [LeaseGrant.DigestOf(signed)];
var revisions = new string?[count];
var layers = (string[])["applications", "settings", "data"];
var volume = Guid.NewGuid();
StatedAnchor[] Anchors(long position) => [.. layers.Select(layer => new StatedAnchor(new LayerAnchor(layer, volume, 1, position), null))];
await RunAsync("", RenewAsync, Math.Min(contacts, 2000)); // the server's code is compiled by now
var renewal = await RunAsync("renewals", RenewAsync, contacts);
async Task RenewAsync(int i)
{
    // As a player: with the trust metadata, of which most often only the timestamp is new.
    using var client = devices[i % count].Connect(false);
    revisions[i % count] = (await client.TakeLeaseAsync("desk", new TakeLease(null, RandomNumberGenerator.GetHexString(32), Anchors(1), KnownManifests: known))).Revision;
    await client.FetchTrustFileAsync("timestamp.json", 100_000, CancellationToken.None);
}

// Connections, which stay, and an order to all of them.
using var ending = new CancellationTokenSource();
var heardAt = new long[connected];
var heard = new CountdownEvent(Math.Max(1, connected));
var (cpu, bytes) = (Cpu(), Loopback());
var (clients, listening) = (new NacreClient[connected], new Task[connected]);
for (var i = 0; i < connected; i++)
{
    clients[i] = devices[i].Connect(true);
    listening[i] = ListenAsync(i);
    await Task.Delay(10); // as after a night: not all within a second
}

async Task ListenAsync(int i)
{
    while (!ending.IsCancellationRequested)
    {
        try
        {
            await clients[i].ListenForOrdersAsync(_ =>
            {
                if (Interlocked.CompareExchange(ref heardAt[i], Stopwatch.GetTimestamp(), 0) == 0)
                {
                    heard.Signal();
                }

                return Task.CompletedTask;
            }, ending.Token);
        }
        catch (NacreException)
        {
            await Task.Delay(1000); // and again, as a device does
        }
    }
}

await Task.Delay(TimeSpan.FromSeconds(5));
var (perConnection, bytesPerConnection) = ((Cpu() - cpu) / Math.Max(1, connected), (double)(Loopback() - bytes) / Math.Max(1, connected));
Say("connections", $"{perConnection:0.00} ms of processor time and {bytesPerConnection:0} bytes each");

// Over those connections, as a LivePC that runs.
var contact = await RunAsync("contacts", async i =>
{
    var answer = await clients[i % connected].StateAnchorsAsync("desk", new StateAnchors(RandomNumberGenerator.GetHexString(32), Anchors(2 + i), revisions[i % connected]));
    if (revisions[i % connected] is not null && !Jws.TryVerify(answer.Anchors, leaseKey!, AnchorClaims.Type, out _))
    {
        throw new InvalidOperationException("no answer");
    }
}, contacts);
var ordered = new long[connected];
for (var from = 0; from < connected; from += 1000)
{
    var batch = devices[from..Math.Min(connected, from + 1000)].Select(device => device.Id).ToList();
    var since = Stopwatch.GetTimestamp();
    Array.Fill(ordered, since, from, batch.Count);
    await admin.OrderKillAsync(new OrderKill(batch));
    Say("order", $"{batch.Count} devices in {Stopwatch.GetElapsedTime(since).TotalMilliseconds:0} ms");
}

var all = heard.Wait(TimeSpan.FromMinutes(2));
var delays = Enumerable.Range(0, connected).Where(i => heardAt[i] != 0).Select(i => Stopwatch.GetElapsedTime(ordered[i], heardAt[i]).TotalMilliseconds).Order().ToArray();
if (delays.Length > 0)
{
    Say("heard", $"{delays.Length} of {connected}{(all ? "" : " (the others not)")}: p50 {delays[delays.Length / 2]:0} ms, p99 {delays[delays.Length * 99 / 100]:0} ms after the order was sent");
}

// At the default intervals: a contact an hour, a renewal and a connection at the start and after 12 hours, and every ten minutes a line, which is one packet and its acknowledgement.
const int Beat = 10 + 9 + 22 + (2 * 66);
foreach (var hours in (int[])[10, 24])
{
    var renewed = Math.Max(1, hours / 12);
    Say("a day", $"{(hours * contact.Cpu) + (renewed * renewal.Cpu) + (renewed * perConnection):0.0} ms of processor time and {((hours * contact.Bytes) + (renewed * renewal.Bytes) + (renewed * bytesPerConnection) + (hours * 6 * Beat)) / 1000:0.0} KB for each device that runs for {hours} hours");
}

await ending.CancelAsync();
await Task.WhenAll(listening).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);

// Of all packets on the loopback interface, with their headers; each is counted once. Nothing else may use it meanwhile.
static long Loopback() => long.Parse(File.ReadLines("/proc/net/dev").Select(line => line.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)).First(words => words[0] == "lo:")[1], CultureInfo.InvariantCulture);

async Task<(double Cpu, double Bytes)> RunAsync(string what, Func<int, Task> act, int times)
{
    var took = new double[times];
    var next = -1;
    var (cpu, bytes, clock) = (Cpu(), Loopback(), Stopwatch.StartNew());
    await Task.WhenAll(Enumerable.Range(0, workers).Select(_ => Task.Run(async () =>
    {
        for (var i = Interlocked.Increment(ref next); i < times; i = Interlocked.Increment(ref next))
        {
            var since = Stopwatch.GetTimestamp();
            await act(i);
            took[i] = Stopwatch.GetElapsedTime(since).TotalMilliseconds;
        }
    })));
    var each = (Cpu: (Cpu() - cpu) / times, Bytes: (double)(Loopback() - bytes) / times);
    Array.Sort(took);
    if (what.Length > 0)
    {
        Say(what, $"{times / clock.Elapsed.TotalSeconds:0} a second with {workers} at once; p50 {took[times / 2]:0.0} ms, p99 {took[times * 99 / 100]:0.0} ms; {each.Cpu:0.00} ms of processor time and {each.Bytes:0} bytes each");
    }

    return each;
}

double Cpu() => Process.GetProcessById(process).TotalProcessorTime.TotalMilliseconds;

static void Say(string what, FormattableString words) => Console.WriteLine($"{what}: {words.ToString(CultureInfo.InvariantCulture)}");
