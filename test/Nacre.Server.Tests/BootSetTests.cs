using System.Buffers.Binary;
using System.Security.Cryptography;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Policies;
using Nacre.Testing;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>Boot packs out of what devices say, which may be lies.</summary>
public class BootSetTests
{
    private sealed record Office(World World, ReleaseManifest Manifest, IReadOnlyList<byte[]> Segments) : IAsyncDisposable
    {
        public static async Task<Office> OpenAsync()
        {
            var world = await StartAsync();
            var segments = new[] { RandomNumberGenerator.GetBytes(100_000), RandomNumberGenerator.GetBytes(50_000) };
            var references = new List<SegmentReference>();
            foreach (var bytes in segments)
            {
                var name = SegmentName();
                await world.Admin.UploadSegmentAsync(name, bytes);
                references.Add(Describe(name, bytes));
            }

            await world.Admin.PutSigningKeyAsync(PublicKeys.From(world.Publisher));
            var manifest = new ReleaseManifest(1, "debian", 1, 1_700_000_000, "quiet", 4096, await world.UploadAsync(), references);
            await world.Admin.PublishReleaseAsync("debian", new PublishRelease(Jws.SignClaims(manifest, world.Publisher), Convert.ToBase64String(new byte[32])));
            await world.Admin.MoveChannelAsync("debian", "stable", 1);
            await world.CodeAsync();
            await world.EntitleAsync();
            return new Office(world, manifest, segments);
        }

        public StoredRange Range(int segment, int offset, int length) => new(Manifest.Segments[segment].Name, offset, length);

        public Task SendAsync(NacreClient device, params StoredRange[] ranges) => SendAsync(device, BootSet.Encode(ranges));

        public Task SendAsync(NacreClient device, byte[] table, string livePc = "desk", ReleaseName? release = null) =>
            device.SendRecordingAsync(livePc, new SendRecording(release ?? Manifest.Name, Convert.ToBase64String(table)));

        public async Task<BootPack?> PackAsync() => (await World.Admin.GetBootSetAsync("debian", 1)).Pack;

        public byte[] Bytes(params StoredRange[] ranges) => [.. BootSet.Encode(ranges), .. ranges.SelectMany(range =>
            Segments[range.Segment == Manifest.Segments[0].Name ? 0 : 1].AsSpan(range.Offset, range.Length).ToArray())];

        public ValueTask DisposeAsync() => World.DisposeAsync();
    }

    [Fact]
    public async Task Two_devices_that_agree_make_a_pack_of_copies_in_the_order_of_first_use_and_leases_name_it()
    {
        await using var office = await Office.OpenAsync();
        var (_, _, first) = await office.World.EnrolAsync();
        var (_, _, second) = await office.World.EnrolAsync();
        var (a, b, c) = (office.Range(1, 32, 4000), office.Range(0, 5000, 70_000), office.Range(0, 32, 100));
        await office.SendAsync(first, a, b, c);
        Assert.Null(await office.PackAsync());
        Assert.Empty((await first.TakeLeaseAsync("desk", new TakeLease(null))).BootPacks!);
        await office.SendAsync(first, a, b); // again, and other: the first one stays
        Assert.Null(await office.PackAsync());

        office.World.Time.Advance(TimeSpan.FromSeconds(1));
        await office.SendAsync(second, a, b);
        var pack = (await office.PackAsync())!;
        Assert.Equal((2, BootSet.TableSize(2) + 74_000L), (pack.Chunks, pack.Length));
        Assert.Equal(office.Bytes(a, b), await office.World.Nobody.DownloadSegmentAsync(pack.Name));
        Assert.Equal(pack, Assert.Single((await second.TakeLeaseAsync("desk", new TakeLease(null))).BootPacks!));
        var state = await office.World.Admin.GetBootSetAsync("debian", 1);
        Assert.Equal([3, 2], state.Recordings.Select(recording => recording.Chunks));
        Assert.Equal(2, (await office.World.Admin.GetAuditAsync()).Entries.Count(entry => entry.Action == "boot-set.record"));
    }

    [Fact]
    public async Task A_device_that_the_administrator_trusts_counts_alone()
    {
        await using var office = await Office.OpenAsync();
        var (device, _, client) = await office.World.EnrolAsync();
        await FailsAsync(ErrorCatalogue.NotFound, office.World.Admin.TrustRecordingAsync("debian", 1, device.DeviceId));
        await FailsAsync(ErrorCatalogue.NotFound, office.World.Admin.GetBootSetAsync("debian", 2));
        var range = office.Range(0, 40, 500);
        await office.SendAsync(client, range);
        var state = await office.World.Admin.TrustRecordingAsync("debian", 1, device.DeviceId);
        Assert.True(Assert.Single(state.Recordings).IsTrusted);
        Assert.Equal(office.Bytes(range), await office.World.Nobody.DownloadSegmentAsync(state.Pack!.Name));
        Assert.Single((await office.World.Admin.GetAuditAsync()).Entries, entry => entry.Action == "boot-set.trust");
    }

    [Fact]
    [Spec("REL-073")]
    public async Task A_recording_that_lies_is_refused_and_nothing_is_kept()
    {
        await using var office = await Office.OpenAsync();
        var (_, _, client) = await office.World.EnrolAsync();
        var (_, _, stranger) = await office.World.EnrolAsync("eve");
        var good = office.Range(0, 32, 1000);
        var table = BootSet.Encode([good]);
        byte[] Changed(int at, int value)
        {
            var bytes = (byte[])table.Clone();
            BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(at), value);
            return bytes;
        }

        foreach (var lie in new[]
        {
            BootSet.Encode([good with { Segment = SegmentName() }]), // no segment of the release
            BootSet.Encode([good with { Segment = office.Manifest.Index.Name }]), // its index is none of its chunks
            BootSet.Encode([office.Range(0, 99_990, 100)]), // beyond its end
            BootSet.Encode([good, office.Range(0, 1031, 100)]), // over another
            BootSet.Encode([good, good]), // twice
            BootSet.Encode([office.Range(0, 31, 100)]), // the header
            BootSet.Encode([office.Range(0, 32, 16)]), // a tag without content
            BootSet.Encode([office.Range(0, 32, (64 * 4096) + 17)]), // larger than any chunk
            BootSet.Encode([office.Range(0, int.MaxValue - 10, 100)]), Changed(32, -1), Changed(36, -1), // numbers that overflow
            Changed(0, 0), Changed(8, 2), Changed(12, 0), Changed(12, 2), Changed(12, -1), Changed(12, int.MaxValue), // no table
            table[..^1], [.. table, 0], [], table[..16],
        })
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, office.SendAsync(client, lie));
        }

        await FailsAsync(ErrorCatalogue.RequestInvalid, client.SendRecordingAsync("desk", new SendRecording(new ReleaseName("debian", 1), "no base64")));
        await FailsAsync(ErrorCatalogue.NotEntitled, office.SendAsync(stranger, table));
        await FailsAsync(ErrorCatalogue.NotEntitled, office.SendAsync(client, table, "other"));
        await FailsAsync(ErrorCatalogue.NotEntitled, office.SendAsync(client, table, release: new ReleaseName("secret", 1)));
        await FailsAsync(ErrorCatalogue.NotFound, office.SendAsync(client, table, release: new ReleaseName("debian", 2)));
        await office.World.Admin.PutPolicyAsync("livepc:desk", PolicyDocument.Empty.With(Settings.Telemetry, TelemetryLevel.Off));
        await FailsAsync(ErrorCatalogue.NotEntitled, office.SendAsync(client, table));
        Assert.Empty((await office.World.Admin.GetBootSetAsync("debian", 1)).Recordings);
        Assert.DoesNotContain((await office.World.Admin.GetAuditAsync()).Entries, entry => entry.Action == "boot-set.record");
    }

    [Fact]
    public void A_table_is_bounded_however_many_segments_it_names()
    {
        var ranges = Enumerable.Range(0, BootSet.MostChunks).Select(number => new StoredRange(new string('a', 32), 32 + (number * 17), 17)).ToList();
        Assert.Equal(ranges, BootSet.TryDecode(BootSet.Encode(ranges)));
        Assert.Null(BootSet.TryDecode(BootSet.Encode([.. ranges, new StoredRange(new string('b', 32), 32, 17)])));
        var large = Enumerable.Range(0, 1025).Select(number => new StoredRange($"{number:x32}", 32, 64 * 4096)).ToList();
        Assert.Null(BootSet.TryDecode(BootSet.Encode(large)));
        Assert.Equal(BootSet.MostBytes, BootSet.TryDecode(BootSet.Encode(large[..1024]))!.Sum(range => (long)range.Length));
    }

    [Fact]
    public async Task The_ninth_recording_of_a_release_is_not_kept_and_packs_are_made_at_two_four_and_eight()
    {
        await using var office = await Office.OpenAsync();
        await office.World.AllowDevicesAsync(9);
        var names = new List<string?>();
        for (var number = 0; number < 9; number++)
        {
            var (_, _, client) = await office.World.EnrolAsync();
            office.World.Time.Advance(TimeSpan.FromSeconds(1));
            await office.SendAsync(client, [.. Enumerable.Range(0, Math.Max(1, number)).Select(place => office.Range(0, 32 + (place * 100), 100))]);
            names.Add((await office.PackAsync())?.Name);
        }

        Assert.Equal(8, (await office.World.Admin.GetBootSetAsync("debian", 1)).Recordings.Count);
        Assert.Null(names[0]);
        Assert.NotNull(names[1]);
        Assert.Equal(names[1], names[2]);
        Assert.NotEqual(names[2], names[3]);
        Assert.Equal([names[3], names[3], names[3]], names[4..7]);
        Assert.NotEqual(names[3], names[7]);
        Assert.Equal(names[7], names[8]);
    }

    [Fact]
    [Spec("REL-073")]
    public void A_device_that_lies_adds_nothing_to_what_two_others_agree_on_and_takes_nothing_away()
    {
        static IReadOnlyList<StoredRange> Ranges(params int[] places) => [.. places.Select(place => new StoredRange(new string('a', 32), 32 + (place * 100), 100))];
        var honest = Ranges(3, 1, 2);
        var lie = Ranges(90, 91, 92, 93, 2);
        Assert.Equal(honest, BootSets.Merge([(honest, false), (lie, false), (honest, false)], 10_000));
        Assert.Equal(Ranges(2), BootSets.Merge([(honest, false), (lie, false)], 10_000));
        Assert.Empty(BootSets.Merge([(lie, false)], 10_000));
        Assert.Equal(honest, BootSets.Merge([(honest, true)], 10_000));

        // Two that lie together are still bounded.
        Assert.Equal(250 / 100, BootSets.Merge([(lie, false), (lie, false)], 250).Count);
    }

    [Fact]
    public async Task A_pack_that_went_from_the_store_is_offered_no_more()
    {
        await using var office = await Office.OpenAsync();
        var (device, _, client) = await office.World.EnrolAsync();
        await office.SendAsync(client, office.Range(0, 40, 500));
        var pack = (await office.World.Admin.TrustRecordingAsync("debian", 1, device.DeviceId)).Pack!;
        File.Delete(Path.Combine(office.World.Data, "segments", pack.Name[..2], pack.Name));
        Assert.Empty((await client.TakeLeaseAsync("desk", new TakeLease(null))).BootPacks!);

        // Nor is one made of a segment that is not there, and what was recorded stays.
        File.Delete(Path.Combine(office.World.Data, "segments", office.Manifest.Segments[0].Name[..2], office.Manifest.Segments[0].Name));
        await office.World.Admin.TrustRecordingAsync("debian", 1, device.DeviceId);
        Assert.Empty((await client.TakeLeaseAsync("desk", new TakeLease(null))).BootPacks!);
        Assert.Empty(Directory.GetFiles(Path.Combine(office.World.Data, "segments", "incoming")));
    }
}
