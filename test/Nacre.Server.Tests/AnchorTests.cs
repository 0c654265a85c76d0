using System.Security.Cryptography;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>What the server knows of a device's layers never goes back unnoticed.</summary>
public sealed class AnchorTests : IAsyncLifetime
{
    private static readonly Guid Volume = Guid.Parse("11111111-2222-3333-4444-555555555555");
    private static readonly Guid OtherVolume = Guid.Parse("99999999-8888-7777-6666-555555555555");

    private World world = null!;
    private EnrolledDevice device = null!;
    private DeviceKey key = null!;
    private NacreClient client = null!;

    public async ValueTask InitializeAsync()
    {
        world = await StartAsync();
        await world.PublishAsync();
        (device, key, client) = await world.EnrolAsync();
        await world.EntitleAsync();
    }

    public ValueTask DisposeAsync() => world.DisposeAsync();

    [Fact]
    public async Task A_position_only_grows_and_a_lease_carries_what_is_known()
    {
        Assert.Empty(await LeaseAsync());
        Assert.Equal([Data(100)], await LeaseAsync(State(Data(100))));
        Assert.Equal([Data(100)], await LeaseAsync(State(Data(100))));
        Assert.Equal([Data(120)], await StateAsync(State(Data(120))));
        Assert.Equal([Data(120), Settings(7)], await StateAsync(State(Settings(7))));
        await world.StartAgainAsync();
        using var again = world.As(device, key);
        Assert.Equal([Data(120), Settings(7)], await LeaseAsync(again));
        Assert.Empty(await AuditAsync());
    }

    [Fact]
    public async Task An_older_position_is_not_taken_and_written_down_and_the_lease_says_what_is_known()
    {
        await StateAsync(State(Data(100)), State(Settings(5)));
        Assert.Equal([Data(100), Settings(6)], await LeaseAsync(State(Data(99)), State(Settings(6))));
        Assert.Equal([Data(100), Settings(6)], await StateAsync(State(Data(0))));
        Assert.Equal(
            [
                ("anchor.refuse", "desk", $"layer data: position 99 of volume {Volume} (epoch 1) stated, but known is position 100 of volume {Volume} (epoch 1)"),
                ("anchor.refuse", "desk", $"layer data: position 0 of volume {Volume} (epoch 1) stated, but known is position 100 of volume {Volume} (epoch 1)"),
            ],
            await AuditAsync());
        Assert.True((await world.Admin.GetAuditAsync()).Verified);
    }

    [Fact]
    public async Task Another_volume_or_epoch_is_not_taken_because_its_position_is_higher()
    {
        await StateAsync(State(Data(100)));
        Assert.Equal([Data(100)], await StateAsync(State(Data(500) with { Volume = OtherVolume })));
        Assert.Equal([Data(100)], await StateAsync(State(Data(500) with { Epoch = 2 })));
        Assert.Equal([Data(100)], await StateAsync(new StatedAnchor(Data(500) with { Epoch = 2 }, Settings(100) with { Layer = "data", Volume = OtherVolume })));
        Assert.Equal(3, (await AuditAsync()).Count);
    }

    [Fact]
    public async Task What_a_user_accepts_in_place_of_all_that_is_known_is_taken_and_written_down()
    {
        await StateAsync(State(Data(100)));
        var accepted = Data(40) with { Epoch = 2 };
        Assert.Equal([accepted], await StateAsync(new StatedAnchor(accepted, Data(130)))); // the device knew more than it had stated
        Assert.Equal([accepted with { Position = 41 }], await StateAsync(new StatedAnchor(accepted with { Position = 41 }, Data(130)))); // sent again
        var blank = new LayerAnchor("data", OtherVolume, 3, 0);
        Assert.Equal([blank], await LeaseAsync(new StatedAnchor(blank, accepted with { Position = 41 })));
        Assert.Equal(
            [
                ("anchor.replace", "desk", $"layer data: position 40 of volume {Volume} (epoch 2) accepted in place of position 100 of volume {Volume} (epoch 1)"),
                ("anchor.replace", "desk", $"layer data: position 0 of volume {OtherVolume} (epoch 3) accepted in place of position 41 of volume {Volume} (epoch 2)"),
            ],
            await AuditAsync());
    }

    [Fact]
    public async Task An_acceptance_that_is_sent_again_after_more_was_written_has_no_effect()
    {
        var replay = new StatedAnchor(Data(40) with { Epoch = 2 }, Data(100));
        await StateAsync(State(Data(100)));
        await StateAsync(replay);
        await StateAsync(State(Data(60) with { Epoch = 2 }));
        Assert.Equal([Data(60) with { Epoch = 2 }], await StateAsync(replay));

        // Nor one that was given when less was known than is now.
        await StateAsync(State(Settings(100)));
        Assert.Contains(Settings(100), await StateAsync(new StatedAnchor(Settings(40) with { Epoch = 2 }, Settings(99))));
        Assert.Equal(["anchor.replace", "anchor.refuse", "anchor.refuse"], (await AuditAsync()).Select(entry => entry.Action));
    }

    [Fact]
    public async Task Each_device_and_each_LivePC_has_anchors_of_its_own()
    {
        await world.EntitleAsync("lab");
        var (_, _, other) = await world.EnrolAsync();
        await StateAsync(State(Data(100)));
        Assert.Equal([Data(3)], await LeaseAsync(other, State(Data(3))));
        Assert.Empty(Claims((await client.TakeLeaseAsync("lab", new TakeLease(null))).Lease).Anchors!);
        Assert.Equal([Data(100)], await LeaseAsync());
        Assert.Empty(await AuditAsync());
    }

    [Fact]
    public async Task The_answer_is_signed_for_the_device_and_repeats_the_requests_nonce()
    {
        var grant = await client.TakeLeaseAsync("desk", new TakeLease(null, "one"));
        Assert.Equal("one", Claims(grant.Lease).Nonce);
        var answer = await client.StateAnchorsAsync("desk", new StateAnchors("two", []));
        var claims = Jws.VerifyClaims<AnchorClaims>(answer.Anchors, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, AnchorClaims.Type);
        Assert.Equal((device.DeviceId, "desk", "two"), (claims.Sub, claims.LivePc, claims.Nonce));
        Assert.False(Jws.TryVerify(answer.Anchors, device.LeaseKey, DeviceToken.LeaseType, out _));
    }

    [Fact]
    public async Task Who_is_not_entitled_or_revoked_states_nothing()
    {
        var (_, _, stranger) = await world.EnrolAsync("bob");
        await FailsAsync(ErrorCatalogue.NotEntitled, stranger.StateAnchorsAsync("desk", new StateAnchors("n", [State(Data(1))])));
        await FailsAsync(ErrorCatalogue.NotEntitled, stranger.StateAnchorsAsync("none", new StateAnchors("n", [State(Data(1))])));
        await world.Admin.RevokeDeviceAsync(device.DeviceId);
        await FailsAsync(ErrorCatalogue.DeviceRevoked, client.StateAnchorsAsync("desk", new StateAnchors("n", [State(Data(1))])));
        Assert.Equal(0L, await world.SqlAsync("SELECT COUNT(*) FROM \"Anchors\""));
    }

    [Fact]
    public async Task Statements_that_are_none_are_refused_and_change_nothing()
    {
        StatedAnchor[][] invalid =
        [
            [State(Data(-1))],
            [State(Data(1) with { Epoch = 0 })],
            [State(Data(1) with { Layer = "../data" })],
            [State(Data(1)), State(Data(2))],
            [new StatedAnchor(Data(1), Data(2))],
            [new StatedAnchor(Data(1) with { Epoch = 2 }, Settings(2))],
            [.. Enumerable.Range(0, 17).Select(i => State(Data(1) with { Layer = $"layer-{i}" }))],
        ];
        foreach (var anchors in invalid)
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, client.StateAnchorsAsync("desk", new StateAnchors("n", anchors)));
            await FailsAsync(ErrorCatalogue.RequestInvalid, client.TakeLeaseAsync("desk", new TakeLease(null, null, anchors)));
        }

        foreach (var body in new[] { "{}", """{"nonce":"n","anchors":[null]}""", """{"nonce":"n","anchors":[{}]}""", """{"nonce":"n","anchors":[{"anchor":{"layer":null}}]}""" })
        {
            const string Path = "/v1/device/livepcs/desk/anchors";
            var token = key.SignToken(device.DeviceId, "POST", Path, System.Text.Encoding.UTF8.GetBytes(body), world.Time.GetUtcNow());
            await ProblemAsync(await world.SendAsync("POST", Path, token, Json(body)), ErrorCatalogue.RequestInvalid);
        }

        await FailsAsync(ErrorCatalogue.RequestInvalid, client.StateAnchorsAsync("desk", new StateAnchors("", [])));
        await FailsAsync(ErrorCatalogue.RequestInvalid, client.TakeLeaseAsync("desk", new TakeLease(null, new string('n', 65))));
        Assert.Equal(0L, await world.SqlAsync("SELECT COUNT(*) FROM \"Anchors\""));

        // The limit counts what is kept already.
        await StateAsync([.. Enumerable.Range(0, 16).Select(i => State(Data(1) with { Layer = $"layer-{i}" }))]);
        await FailsAsync(ErrorCatalogue.RequestInvalid, client.StateAnchorsAsync("desk", new StateAnchors("n", [State(Data(1))])));
        Assert.Equal(16L, await world.SqlAsync("SELECT COUNT(*) FROM \"Anchors\""));
    }

    [Fact]
    public async Task The_answer_says_whether_a_renewal_of_the_lease_would_change_anything()
    {
        var (_, _, otherClient) = await world.EnrolAsync("bob");
        await world.PublishAsync(2, channel: null);
        using var recovery = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        (string What, Func<Task> Do)[] changes =
        [
            ("a policy", () => world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["lease.hours"] = 24 })),
            ("a group", () => world.Admin.CreateGroupAsync("staff")),
            ("a member", () => world.Admin.PutMemberAsync("staff", "ann", isMember: true)),
            ("no member", () => world.Admin.PutMemberAsync("staff", "ann", isMember: false)),
            ("an entitlement", () => world.Admin.EntitleAsync("desk", "bob")),
            ("a channel", () => world.Admin.MoveChannelAsync("debian", "stable", 2)),
            ("origins", () => world.Admin.PutOriginsAsync(new StoreOrigins(["https://cdn.example/"]))),
            ("other origins", () => world.Admin.PutOriginsAsync(new StoreOrigins(["https://cdn.example/", "https://cdn.example/2/"]))),
            ("a recovery key", () => world.Admin.PutRecoveryKeyAsync(new RecoveryKey(TrustKey.From(recovery).Pem))),
            ("a LivePC", () => world.Admin.CreateLivePcAsync(new CreateLivePc("lab", "debian", null))),
            ("trust metadata", async () =>
            {
                var publisher = new TrustRole([TrustKey.From(world.Publisher)], 1);
                var targets = TargetsMetadata.WriteImages(2, world.Time.GetUtcNow().AddDays(365), new Dictionary<string, TrustRole> { ["debian"] = publisher, ["tools"] = publisher });
                await world.Admin.PutTrustFileAsync("targets", System.Text.Encoding.UTF8.GetString(TrustMetadata.Sign(targets, world.Publisher)));
            }),
            ("a boot pack", () => world.SqlAsync("INSERT INTO \"BootPacks\" (\"Image\", \"Version\", \"Segment\", \"Chunks\", \"Length\") VALUES ('debian', 2, 'abc', 1, 1)")),
            ("layers", () => world.SqlAsync("INSERT INTO \"LivePcLayers\" (\"LivePc\", \"Position\", \"Image\", \"Channel\") VALUES ('lab', 0, 'debian', 'stable')")),
        ];
        foreach (var (what, change) in changes)
        {
            var revision = (await client.TakeLeaseAsync("desk", new TakeLease(null))).Revision;
            Assert.True((await NewsAsync(revision)).IsLeaseCurrent, what);
            await change();
            Assert.False((await NewsAsync(revision)).IsLeaseCurrent, what);
        }

        // What devices do by themselves, each hour, changes nothing; and a word of none of this server's is none.
        var kept = (await client.TakeLeaseAsync("desk", new TakeLease(null))).Revision;
        await otherClient.TakeLeaseAsync("desk", new TakeLease(null));
        await StateAsync(State(Data(101)));
        world.Time.Advance(TimeSpan.FromHours(2));
        await world.Nobody.FetchTrustFileAsync("timestamp.json", 100_000, TestContext.Current.CancellationToken);
        await world.EnrolAsync("carl");
        Assert.True((await NewsAsync(kept)).IsLeaseCurrent);
        await world.StartAgainAsync();
        using var again = world.As(device, key);
        Assert.True((await NewsAsync(kept, again)).IsLeaseCurrent);
        Assert.False((await NewsAsync(null, again)).IsLeaseCurrent);
        Assert.False((await NewsAsync("", again)).IsLeaseCurrent);

        // While a roll-out goes on, the clock changes what is offered.
        await world.Admin.MoveChannelAsync("debian", "stable", 1);
        await world.Admin.StartRolloutAsync("debian", "stable", new StartRollout(2, [20]));
        kept = (await again.TakeLeaseAsync("desk", new TakeLease(null))).Revision;
        Assert.False((await NewsAsync(kept, again)).IsLeaseCurrent);
        await world.Admin.ChangeRolloutAsync("debian", "stable", RolloutAction.Pause);
        kept = (await again.TakeLeaseAsync("desk", new TakeLease(null))).Revision;
        Assert.True((await NewsAsync(kept, again)).IsLeaseCurrent);
    }

    [Fact]
    public async Task The_answer_says_whether_orders_wait()
    {
        var (_, _, other) = await world.EnrolAsync("bob");
        await world.Admin.EntitleAsync("desk", "bob");
        var kept = (await client.TakeLeaseAsync("desk", new TakeLease(null))).Revision;
        Assert.False((await NewsAsync(kept)).HasOrders);
        var order = await world.Admin.CreateOrderAsync("desk", new CreateOrder(device.DeviceId, RejuvenationDepth.System));
        Assert.True((await NewsAsync(kept)).HasOrders);
        Assert.True((await NewsAsync(kept)).IsLeaseCurrent);
        await world.Admin.WithdrawOrderAsync(order.Id);
        Assert.False((await NewsAsync(kept)).HasOrders);

        await world.Admin.PatchPolicyAsync("organisation", new Dictionary<string, object?> { ["kill.requireTwoAdmins"] = "never" });
        kept = (await client.TakeLeaseAsync("desk", new TakeLease(null))).Revision;
        var kill = Assert.Single(await world.Admin.OrderKillAsync(new OrderKill([device.DeviceId], "desk")));
        Assert.Equal((false, true), await NewsAsync(kept) is var news ? (news.IsLeaseCurrent, news.HasOrders) : default);
        await world.Admin.WithdrawDeviceOrderAsync(kill.Id);
        Assert.Equal((true, false), await NewsAsync(kept) is var after ? (after.IsLeaseCurrent, after.HasOrders) : default);
        var others = (await other.TakeLeaseAsync("desk", new TakeLease(null))).Revision;
        Assert.Equal(kept, others);
    }

    private async Task<AnchorClaims> NewsAsync(string? revision, NacreClient? from = null)
    {
        var answer = await (from ?? client).StateAnchorsAsync("desk", new StateAnchors("nonce", [], revision));
        return Jws.VerifyClaims<AnchorClaims>(answer.Anchors, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, AnchorClaims.Type);
    }

    private static LayerAnchor Data(long position) => new("data", Volume, 1, position);

    private static LayerAnchor Settings(long position) => new("settings", Volume, 1, position);

    private static StatedAnchor State(LayerAnchor anchor) => new(anchor, null);

    private LeaseClaims Claims(string lease) => Jws.VerifyClaims<LeaseClaims>(lease, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, DeviceToken.LeaseType);

    private Task<IReadOnlyList<LayerAnchor>> LeaseAsync(params StatedAnchor[] anchors) => LeaseAsync(client, anchors);

    private async Task<IReadOnlyList<LayerAnchor>> LeaseAsync(NacreClient from, params StatedAnchor[] anchors) =>
        Claims((await from.TakeLeaseAsync("desk", new TakeLease(null, "nonce", anchors))).Lease).Anchors!;

    private async Task<IReadOnlyList<LayerAnchor>> StateAsync(params StatedAnchor[] anchors)
    {
        var answer = await client.StateAnchorsAsync("desk", new StateAnchors("nonce", anchors));
        return Jws.VerifyClaims<AnchorClaims>(answer.Anchors, device.LeaseKey, ErrorCatalogue.LeaseNotAuthentic, AnchorClaims.Type).Anchors;
    }

    private async Task<List<(string Action, string Subject, string Detail)>> AuditAsync() =>
        [.. (await world.Admin.GetAuditAsync()).Entries.Where(entry => entry.Action.StartsWith("anchor.", StringComparison.Ordinal)).Select(entry => (entry.Action, entry.Subject, entry.Detail))];
}
