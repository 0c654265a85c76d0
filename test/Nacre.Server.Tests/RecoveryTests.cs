using System.Net;
using System.Security.Cryptography;
using System.Text;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Contracts.Trust;
using Xunit;
using static Nacre.Server.Tests.World;

namespace Nacre.Server.Tests;

/// <summary>What devices hand over for who has forgotten a password: kept, given out with a reason, and of no use to the server.</summary>
public sealed class RecoveryTests
{
    private const string Name = "desk";

    [Fact]
    public async Task The_newest_code_is_kept_and_given_out_with_a_reason_that_is_written_down()
    {
        await using var world = await StartAsync();
        var (device, key, client) = await EntitledAsync(world);
        using var recovery = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var name = TrustKey.From(recovery).Id;
        await FailsAsync(ErrorCatalogue.NoRecovery, world.Admin.ReleaseEscrowAsync(device.DeviceId, Name, "forgotten"));
        await client.PutEscrowAsync(Name, Escrow(1, recovery));
        var second = Escrow(2, recovery);
        await client.PutEscrowAsync(Name, second);
        await client.PutEscrowAsync(Name, second); // an answer that was lost on the way
        await FailsAsync(ErrorCatalogue.Immutable, client.PutEscrowAsync(Name, Escrow(1, recovery)));
        await FailsAsync(ErrorCatalogue.Immutable, client.PutEscrowAsync(Name, Escrow(2, recovery)));

        await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.ReleaseEscrowAsync(device.DeviceId, Name, ""));
        var released = await world.Admin.ReleaseEscrowAsync(device.DeviceId, Name, "ann called, forgotten");
        Assert.Equal((2, name, second.Keys), (released.Entry.Number, released.Entry.RecoveryKey, released.Keys));
        Assert.Equal("secret 2", Encoding.UTF8.GetString(Jwe.TryDecrypt(released.Keys, recovery)!));
        var entry = Assert.Single(await world.Admin.ListEscrowsAsync());
        Assert.NotNull(entry.ReleasedAt);
        var line = Assert.Single((await world.Admin.GetAuditAsync(action: "recovery.release")).Entries);
        Assert.Contains("ann called, forgotten", line.Detail, StringComparison.Ordinal);
        Assert.Equal(2, (await world.Admin.GetAuditAsync(action: "recovery.escrow")).Entries.Count);
        key.Dispose();
        client.Dispose();
    }

    [Fact]
    public async Task The_recovery_key_is_a_public_key_and_comes_with_a_lease()
    {
        await using var world = await StartAsync();
        var (_, key, client) = await EntitledAsync(world);
        Assert.Null((await client.TakeLeaseAsync(Name, new TakeLease(null))).RecoveryKey);
        await FailsAsync(ErrorCatalogue.NotFound, world.Admin.GetRecoveryKeyAsync());
        using var recovery = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        foreach (var pem in new[] { "", "x", recovery.ExportPkcs8PrivateKeyPem(), new string('x', 100_000) })
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, world.Admin.PutRecoveryKeyAsync(new RecoveryKey(pem)));
        }

        var own = TrustKey.From(recovery).Pem;
        await world.Admin.PutRecoveryKeyAsync(new RecoveryKey(own));
        Assert.Equal(own, (await world.Admin.GetRecoveryKeyAsync()).Pem);
        Assert.Equal(own, (await client.TakeLeaseAsync(Name, new TakeLease(null))).RecoveryKey);
        key.Dispose();
        client.Dispose();
    }

    [Fact]
    public async Task A_device_hands_over_its_own_and_nothing_that_is_no_escrow()
    {
        await using var world = await StartAsync();
        var (_, key, client) = await EntitledAsync(world);
        using var recovery = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var good = Escrow(1, recovery);
        await FailsAsync(ErrorCatalogue.NotEntitled, client.PutEscrowAsync("other", good));
        foreach (var bad in new[]
        {
            good with { Number = 0 }, good with { RecoveryKey = "x" }, good with { RecoveryKey = new string('G', 64) }, good with { Keys = "" }, good with { Keys = "a.b.c" },
            good with { Keys = "a.b.c.d.<script>" }, good with { Keys = "a.b.c.d." + new string('e', 9000) },
        })
        {
            await FailsAsync(ErrorCatalogue.RequestInvalid, client.PutEscrowAsync(Name, bad));
        }

        Assert.Empty(await world.Admin.ListEscrowsAsync());
        Assert.Equal(HttpStatusCode.Forbidden, (await world.SendAsync("PUT", $"v1/device/livepcs/{Name}/escrow", world.Token, Json(good))).StatusCode);
        key.Dispose();
        client.Dispose();
    }

    private static PutEscrow Escrow(int number, ECDsa recovery) => new(number, TrustKey.From(recovery).Id, Jwe.Encrypt(Encoding.UTF8.GetBytes($"secret {number}"), PublicKeys.From(recovery)));

    private static async Task<(EnrolledDevice Device, DeviceKey Key, NacreClient Client)> EntitledAsync(World world)
    {
        var enrolled = await world.EnrolAsync();
        await world.PublishAsync();
        await world.Admin.CreateLivePcAsync(new CreateLivePc(Name, "debian", null));
        await world.Admin.EntitleAsync(Name, "ann");
        return enrolled;
    }
}
