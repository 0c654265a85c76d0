using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using Amazon.S3;
using Microsoft.Extensions.DependencyInjection;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>What every store of segments does.</summary>
public abstract class SegmentStoreTests
{
    internal abstract Task<ISegmentStore> OpenAsync();

    [Fact]
    public async Task A_segment_appears_whole_when_it_is_committed_and_never_if_it_is_not()
    {
        var store = await OpenAsync();
        var (name, other) = (SegmentName(), SegmentName());
        var bytes = RandomNumberGenerator.GetBytes(3_000_000);
        await using (var writer = await store.CreateAsync(name, default))
        {
            await writer.WriteAsync(bytes.AsMemory(0, 1_000_000), default);
            await writer.WriteAsync(bytes.AsMemory(1_000_000), default);
            Assert.Null(await store.FindLengthAsync(name, default));
            await writer.CommitAsync(default);
        }

        await using (var writer = await store.CreateAsync(other, default))
        {
            await writer.WriteAsync(bytes, default);
        }

        Assert.Null(await store.FindLengthAsync(other, default));
        Assert.Null(await store.OpenAsync(other, default));
        Assert.Equal(bytes.Length, await store.FindLengthAsync(name, default));
        await using var stream = (await store.OpenAsync(name, default))!;
        Assert.Equal(bytes.Length, stream.Length);
        var read = new MemoryStream();
        await stream.CopyToAsync(read);
        Assert.Equal(bytes, read.ToArray());
        var part = new byte[5000];
        stream.Seek(2_500_000, SeekOrigin.Begin);
        await stream.ReadExactlyAsync(part);
        Assert.Equal(bytes[2_500_000..2_505_000], part);
        stream.Seek(0, SeekOrigin.Begin);
        await stream.ReadExactlyAsync(part);
        Assert.Equal(bytes[..5000], part);
    }

    [Fact]
    public async Task A_segment_is_listed_under_its_digits_replaced_and_removed()
    {
        var store = await OpenAsync();
        var name = SegmentName();
        foreach (var length in new[] { 1000, 2000 })
        {
            await using var writer = await store.CreateAsync(name, default);
            await writer.WriteAsync(new byte[length], default);
            await writer.CommitAsync(default);
        }

        var listed = await store.ListAsync(name[..2], default).ToListAsync();
        var found = Assert.Single(listed, one => one.Name == name);
        Assert.Equal(2000, found.Length);
        Assert.InRange(found.WrittenAt, TimeProvider.System.GetUtcNow() - TimeSpan.FromMinutes(5), TimeProvider.System.GetUtcNow() + TimeSpan.FromMinutes(5));
        Assert.All(listed, one => Assert.StartsWith(name[..2], one.Name, StringComparison.Ordinal));
        await store.DeleteAsync(name, default);
        await store.DeleteAsync(name, default);
        Assert.Null(await store.FindLengthAsync(name, default));
        Assert.DoesNotContain(await store.ListAsync(name[..2], default).ToListAsync(), one => one.Name == name);
    }
}

public sealed class FolderSegmentStoreTests : SegmentStoreTests, IDisposable
{
    private readonly TemporaryDirectory folder = new();

    public void Dispose() => folder.Dispose();

    internal override async Task<ISegmentStore> OpenAsync()
    {
        var store = new FolderSegmentStore(new DataDirectory(folder.Path));
        await store.PrepareAsync(default);
        return store;
    }
}

/// <summary>A real S3 service (Ceph's gateway), started by a tool beside the checkout.</summary>
public sealed class S3Service : IAsyncLifetime
{
    private readonly TemporaryDirectory folder = new();

    private static string Tool => Environment.GetEnvironmentVariable("NACRE_S3_TOOL") is { Length: > 0 } given ? given : Repository.At("..", "shared", "tools", "s3-up.sh");

    internal S3Options? Options { get; private set; }

    public async ValueTask InitializeAsync()
    {
        if (!File.Exists(Tool))
        {
            return;
        }

        var words = (await RunAsync("start", folder["s3"], $"{FreePort()}")).Split('\n').Where(line => line.Contains('=', StringComparison.Ordinal)).ToDictionary(line => line[..line.IndexOf('=', StringComparison.Ordinal)], line => line[(line.IndexOf('=', StringComparison.Ordinal) + 1)..]);
        Options = new S3Options { Bucket = new Uri(words["S3_ENDPOINT"] + "/segments"), AccessKey = words["S3_ACCESS_KEY"], SecretKey = words["S3_SECRET_KEY"] };
        using var client = new AmazonS3Client(Options.AccessKey, Options.SecretKey, new AmazonS3Config { ServiceURL = Options.Service, ForcePathStyle = true, UseHttp = true, AuthenticationRegion = "us-east-1" });
        await client.PutBucketAsync("segments");
    }

    internal S3Options Require()
    {
        Assert.SkipWhen(Options is null, "this test needs a real S3 service: ../shared/tools/s3-up.sh beside the checkout, or NACRE_S3_TOOL, is not there");
        return Options!;
    }

    public async ValueTask DisposeAsync()
    {
        if (Options is not null)
        {
            await RunAsync("stop", folder["s3"]);
        }

        folder.Dispose();
    }

    private static int FreePort()
    {
        using var probe = new TcpListener(IPAddress.Loopback, 0);
        probe.Start();
        return ((IPEndPoint)probe.LocalEndpoint).Port;
    }

    private static async Task<string> RunAsync(params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(Tool, arguments) { RedirectStandardOutput = true })!;
        var output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        Assert.True(process.ExitCode == 0, $"{Tool} {arguments[0]} ended with {process.ExitCode}");
        return output;
    }
}

public sealed class S3SegmentStoreTests(S3Service service) : SegmentStoreTests, IClassFixture<S3Service>, IDisposable
{
    private readonly TemporaryDirectory folder = new();

    public void Dispose() => folder.Dispose();

    internal override async Task<ISegmentStore> OpenAsync()
    {
        var store = new S3SegmentStore(service.Require(), new DataDirectory(folder.Path));
        await store.PrepareAsync(default);
        return store;
    }

    [Fact]
    public async Task A_server_keeps_its_segments_in_a_bucket_serves_ranges_of_them_checks_and_cleans_them()
    {
        var options = service.Require();
        await using var world = await StartAsync(builder => builder.Services.AddSingleton<ISegmentStore>(provider => new S3SegmentStore(options, provider.GetRequiredService<DataDirectory>())));
        var bytes = RandomNumberGenerator.GetBytes(700_000);
        var kept = Describe(SegmentName(), bytes);
        await world.Admin.UploadSegmentAsync(kept.Name, bytes);
        await world.Admin.PutSigningKeyAsync(PublicKeys.From(world.Publisher));
        await world.Admin.PublishReleaseAsync("debian", new PublishRelease(
            Jws.SignClaims(new ReleaseManifest(1, "debian", 1, 0, "", 1, kept, [kept]), world.Publisher), Convert.ToBase64String(new byte[32])));
        var unneeded = await world.UploadAsync();
        Assert.Empty(Directory.GetFiles(Path.Combine(world.Data, "segments"), "*", SearchOption.AllDirectories));
        Assert.Equal(bytes, await world.Nobody.DownloadSegmentAsync(kept.Name));
        var part = new byte[1000];
        await world.Nobody.DownloadRangeAsync(kept.Name, 650_000, part);
        Assert.Equal(bytes[650_000..651_000], part);

        var digits = int.Parse(kept.Name[..2], System.Globalization.NumberStyles.HexNumber, System.Globalization.CultureInfo.InvariantCulture);
        Assert.DoesNotContain((await world.Admin.CheckStoreAsync(digits)).Problems, problem => problem.Segment == kept.Name);
        using (var client = new AmazonS3Client(options.AccessKey, options.SecretKey, new AmazonS3Config { ServiceURL = options.Service, ForcePathStyle = true, UseHttp = true, AuthenticationRegion = "us-east-1" }))
        {
            bytes[3] ^= 1;
            await client.PutObjectAsync(new Amazon.S3.Model.PutObjectRequest { BucketName = "segments", Key = StoreOrigins.PathOf(kept.Name), InputStream = new MemoryStream(bytes), UseChunkEncoding = false });
            bytes[3] ^= 1;
        }

        Assert.Equal(StoreProblemKind.Damaged, Assert.Single((await world.Admin.CheckStoreAsync(digits)).Problems, problem => problem.Segment == kept.Name).Kind);
        await world.Admin.UploadSegmentAsync(kept.Name, bytes);
        Assert.Equal(bytes, await world.Nobody.DownloadSegmentAsync(kept.Name));
        world.Time.Advance(TimeSpan.FromDays(2));
        Assert.Equal(1, (await world.Admin.CleanStoreAsync(dryRun: false)).Segments);
        Assert.Equal([unneeded.Name], await world.Admin.FindMissingSegmentsAsync([unneeded.Name, kept.Name]));
    }

    [Fact]
    public async Task A_bucket_that_is_not_there_or_a_wrong_key_stops_the_start_and_says_why()
    {
        var options = service.Require();
        foreach (var wrong in new[] { options with { Bucket = new Uri(options.Service + "/nothing") }, options with { SecretKey = "wrong" }, options with { Bucket = new Uri("http://127.0.0.1:1/segments") } })
        {
            using var data = new TemporaryDirectory();
            await using var app = NacreServer.Create(new ServerOptions { DataDirectory = data.Path, Listen = "http://127.0.0.1:0", S3 = wrong });
            var refused = await Assert.ThrowsAsync<NacreException>(() => NacreServer.StartAsync(app));
            Assert.Equal(ErrorCatalogue.ServerUnreachable, refused.Kind);
            Assert.Contains(wrong.Bucket.AbsoluteUri, refused.Message, StringComparison.Ordinal);
            Assert.DoesNotContain(wrong.SecretKey == "wrong" ? options.SecretKey : wrong.SecretKey, refused.ToString(), StringComparison.Ordinal);
        }
    }
}
