using System.Diagnostics;
using Nacre.Client;
using Nacre.Contracts;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>How long a lease lasts, what the help desk adds to it, and devices on several servers.</summary>
public sealed class LeaseEndingTests
{
    private static readonly string[] OneDay = ["2026-03-03"], TwoDays = ["2026-03-02", "2026-03-03"];

    [Fact]
    public async Task The_help_desks_code_is_the_devices_and_within_the_policy()
    {
        await using var world = await StartedAsync();
        var (device, key, client) = await world.EnrolAsync();
        var request = ExtensionCode.Request(device.DeviceId, 3);
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.ExtendLeaseAsync(new ExtendLease(request, "desk", 24))); // never had a lease
        var grant = await client.TakeLeaseAsync("desk", new TakeLease(null));
        var share = Convert.FromBase64String(key.DecryptKeys(grant.Keys).Share);
        var made = await world.Admin.ExtendLeaseAsync(new ExtendLease(request, "desk", 24));
        Assert.Matches(@"\A[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}\z", made.Code);
        Assert.Equal((device.DeviceId, ExtensionCode.LatestEnd(world.Time.GetUtcNow(), 24)), (made.Device, made.Until));
        Assert.True(ExtensionCode.TryVerify(made.Code, share, device.DeviceId, "desk", 3, world.Time.GetUtcNow(), out var end));
        Assert.Equal(world.Time.GetUtcNow().AddHours(24), end);
        Assert.False(ExtensionCode.TryVerify(made.Code, share, device.DeviceId, "desk", 4, world.Time.GetUtcNow(), out _));
        Assert.False(ExtensionCode.TryVerify(made.Code, share, device.DeviceId, "lab", 3, world.Time.GetUtcNow(), out _));
        Assert.False(ExtensionCode.TryVerify(made.Code, share, device.DeviceId, "desk", 3, world.Time.GetUtcNow().AddDays(2), out _));
        for (var i = 0; i < made.Code.Length; i++)
        {
            var changed = made.Code.ToCharArray();
            changed[i] = changed[i] == '-' ? '-' : changed[i] == '7' ? '8' : '7';
            Assert.Equal(changed[i] == '-', ExtensionCode.TryVerify(new string(changed), share, device.DeviceId, "desk", 3, world.Time.GetUtcNow(), out _));
        }

        var line = Assert.Single((await world.Admin.GetAuditAsync(action: "lease.extend")).Entries);
        Assert.Contains(device.DeviceId, line.Detail, StringComparison.Ordinal);
        foreach (var wrong in new ExtendLease[] { new("", "desk", 1), new("zzzzzzzz-1", "desk", 1), new(request + "9999999", "desk", 1), new(request, "../x", 1), new(request, "desk", 0), new(request, "desk", 721) })
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.ExtendLeaseAsync(wrong));
        }

        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.ExtendLeaseAsync(new ExtendLease("00000000-1", "desk", 1)));
        await FailsAsync(ErrorCatalogue.NotEntitled, world.Admin.ExtendLeaseAsync(new ExtendLease(request, "lab", 1)));
        await FailsAsync(ErrorCatalogue.ExtensionRefused, world.Admin.ExtendLeaseAsync(new ExtendLease(request, "desk", 73)));
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["offline.allow"] = false });
        await FailsAsync(ErrorCatalogue.ExtensionRefused, world.Admin.ExtendLeaseAsync(new ExtendLease(request, "desk", 1)));
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["offline.allow"] = null });
        await world.Admin.RevokeDeviceAsync(device.DeviceId);
        await FailsAsync(ErrorCatalogue.ExtensionRefused, world.Admin.ExtendLeaseAsync(new ExtendLease(request, "desk", 1)));
    }

    [Fact]
    public async Task A_LivePC_ends_when_the_policy_says_whatever_its_lease()
    {
        await using var world = await StartedAsync();
        var (device, _, client) = await world.EnrolAsync();
        var now = world.Time.GetUtcNow();
        Assert.Equal((now.AddHours(168).ToUnixTimeSeconds(), (long?)null), await TakeAsync(client, device));
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["offline.allow"] = false });
        Assert.Equal(now.AddMinutes(120).ToUnixTimeSeconds(), (await TakeAsync(client, device)).Exp);
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["offline.allow"] = null, ["expiration.mode"] = "date", ["expiration.date"] = OneDay });
        var last = new DateTimeOffset(2026, 3, 4, 0, 0, 0, TimeSpan.Zero).ToUnixTimeSeconds(); // the day itself is in it
        Assert.Equal((last, (long?)last), await TakeAsync(client, device));
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["expiration.date"] = TwoDays });
        await FailsAsync(ErrorCatalogue.LivePcExpired, client.TakeLeaseAsync("desk", new TakeLease(null)));
        world.Time.Advance(TimeSpan.FromHours(12));
        Assert.Equal(last, (await TakeAsync(client, device)).Exp);
        world.Time.Advance(TimeSpan.FromHours(48));
        await FailsAsync(ErrorCatalogue.LivePcExpired, client.TakeLeaseAsync("desk", new TakeLease(null)));

        // From the user's first lease on, on whatever device.
        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["expiration.mode"] = "days-after-first-use", ["expiration.days"] = 4 });
        var end = now.AddDays(4).ToUnixTimeSeconds();
        Assert.Equal((end, (long?)end), await TakeAsync(client, device));
        var (second, _, another) = await world.EnrolAsync();
        Assert.Equal(end, (await TakeAsync(another, second)).Exp);
        world.Time.Advance(TimeSpan.FromDays(2));
        await FailsAsync(ErrorCatalogue.LivePcExpired, another.TakeLeaseAsync("desk", new TakeLease(null)));
    }

    [Fact]
    public async Task A_device_that_is_connected_to_another_server_of_the_database_hears_within_two_seconds()
    {
        await using var world = await StartAsync(cluster: await PostgresCluster.GetAsync());
        await using var beside = await StartBesideAsync(world);
        var (device, key, _) = await world.EnrolAsync();
        using var client = beside.As(device, key);
        using var ending = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        var heard = new TaskCompletionSource<long>(TaskCreationOptions.RunContinuationsAsynchronously);
        var listening = client.ListenForOrdersAsync(_ => Task.FromResult(heard.TrySetResult(Stopwatch.GetTimestamp())), ending.Token);
        await DeviceOrderTests.ConnectedAsync(beside, 1);
        await Task.Delay(TimeSpan.FromSeconds(3), TestContext.Current.CancellationToken); // it has looked once
        await world.Admin.OrderKillAsync(new OrderKill([device.DeviceId]));
        var ordered = Stopwatch.GetTimestamp();
        Assert.InRange(Stopwatch.GetElapsedTime(ordered, await heard.Task.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken)), TimeSpan.FromSeconds(-1), TimeSpan.FromSeconds(2));
        await ending.CancelAsync();
        await listening.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
    }

    private static async Task<World> StartedAsync()
    {
        var world = await StartAsync();
        await world.PublishAsync();
        await world.CodeAsync();
        await world.EntitleAsync();
        return world;
    }

    private static async Task<(long Exp, long? Expires)> TakeAsync(NacreClient client, EnrolledDevice device)
    {
        var claims = Jws.VerifyClaims<LeaseClaims>((await client.TakeLeaseAsync("desk", new TakeLease(null))).Lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceToken.LeaseType);
        return (claims.Exp, claims.Expires);
    }
}
