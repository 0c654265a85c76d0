using System.Diagnostics;
using System.Security.Cryptography;
using System.Text.Json;
using Jose;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Player.LivePcs;
using Nacre.Policies;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>A lease that runs down without a server: warnings, codes over the phone, a clock that is moved, and the end of the keys.</summary>
[Collection("NACRE_HOME")]
public sealed class LeaseEndTests : IDisposable
{
    private readonly Office office = new();
    private readonly ECDsa leaseKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
    private readonly DeviceKey deviceKey = DeviceKey.Create();
    private readonly MovedClock time = new();
    private readonly byte[] share = RandomNumberGenerator.GetBytes(32);
    private readonly string device = RandomNumberGenerator.GetHexString(32, lowercase: true);

    public LeaseEndTests()
    {
        DurableFile.Write(Path.Combine(office.Paths.State, "device.secret"), RandomNumberGenerator.GetBytes(32));
        DurableFile.Write(Path.Combine(office.Paths.State, "device.key"), deviceKey.ExportPkcs8());

        // Nothing listens there: the device is offline.
        DurableFile.WriteJson(Path.Combine(office.Paths.State, "device.json"), new DeviceRecord(new Uri("http://127.0.0.1:9/"), device, "ann", "o", PublicKeys.From(leaseKey), PublicKeys.From(leaseKey)));
        Keep(TimeSpan.FromHours(168));
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        leaseKey.Dispose();
        deviceKey.Dispose();
        office.Dispose();
    }

    [Theory]
    [InlineData(100, null)]
    [InlineData(72, "72:00:00")]
    [InlineData(25, "72:00:00")]
    [InlineData(24, "24:00:00")]
    [InlineData(0.9, "01:00:00")]
    [InlineData(0.2, "00:15:00")]
    [InlineData(0.01, "00:05:00")]
    public void Warnings_come_at_the_times_of_the_policy(double hoursLeft, string? warning)
    {
        var (claims, policy) = Kept();
        var expected = warning is null ? (TimeSpan?)null : warning == "72:00:00" ? TimeSpan.FromHours(72) : warning == "24:00:00" ? TimeSpan.FromHours(24) : TimeSpan.Parse(warning, null);
        Assert.Equal(expected, LeaseEnd.WarningOf(claims, policy, TimeSpan.FromHours(hoursLeft)));
        Assert.Equal(warning is not null, LeaseEnd.WordsOf(claims, policy, null, DateTimeOffset.FromUnixTimeSeconds(claims.Exp).AddHours(-hoursLeft)) is not null);
    }

    [Fact]
    public async Task A_kept_lease_ends_with_its_time_and_with_the_policy_that_lets_nothing_be_used_offline()
    {
        Assert.NotEqual(ErrorCatalogue.LeaseExpired, await WhyAsync());
        time.Offset = TimeSpan.FromHours(169);
        Assert.Equal(ErrorCatalogue.LeaseExpired, await WhyAsync());
        Keep(TimeSpan.FromHours(168), policy: ("offline.allow", false));
        Assert.Equal(ErrorCatalogue.OfflineDenied, await WhyAsync());
        Keep(TimeSpan.FromHours(168), by: ECDsa.Create(ECCurve.NamedCurves.nistP256));
        Assert.Equal(ErrorCatalogue.LeaseNotAuthentic, await WhyAsync()); // forged
    }

    [Fact]
    public async Task A_clock_that_was_set_back_is_noticed_and_opens_nothing_without_the_server()
    {
        time.Offset = TimeSpan.FromHours(100);
        Assert.NotEqual(ErrorCatalogue.ClockSetBack, await WhyAsync());
        time.Offset = TimeSpan.FromHours(100) - TimeSpan.FromMinutes(4); // that much is nobody's ill will
        Assert.NotEqual(ErrorCatalogue.ClockSetBack, await WhyAsync());
        time.Offset = TimeSpan.FromHours(1);
        Assert.Equal(ErrorCatalogue.ClockSetBack, await WhyAsync());

        // Only said, where the policy ignores it; and even then what has passed has passed.
        Keep(TimeSpan.FromHours(-1), issued: -200, policy: ("clock.tamperAction", "ignore"));
        time.Offset = TimeSpan.FromHours(-50);
        Assert.Equal(ErrorCatalogue.LeaseExpired, await WhyAsync());

        // The server's word sets it right, also after a clock that was wrong in the future.
        using var identity = EnrolledIdentity.Open(office.Paths);
        var clock = new TrustedClock(identity, time);
        Assert.NotNull(clock.SetBack);
        clock.Hear(time.GetUtcNow());
        Assert.Null(new TrustedClock(identity, time).SetBack);

        // Who can write the file and not read the device's secret changes nothing but losing what was known.
        await File.WriteAllBytesAsync(identity.ClockPath, new byte[100], Token);
        Assert.Equal(0, new TrustedClock(identity, time).HighWater.ToUnixTimeSeconds());
    }

    [Fact]
    public async Task Where_a_TPM_counts_what_passed_while_no_player_ran_has_passed()
    {
        using var folder = new Nacre.Testing.TemporaryDirectory();
        await using var tpm = await SoftwareTpm.StartAsync(folder["tpm"]);
        using var identity = EnrolledIdentity.Open(office.Paths);
        new TrustedClock(identity, time).Hear(time.GetUtcNow());
        Assert.Null(new TrustedClock(identity, time).SetBack);

        // The computer's clock stands where it was; the TPM's says that three hours passed, of which two did for certain.
        await AdvanceAsync(TimeSpan.FromHours(3));
        var clock = new TrustedClock(identity, time);
        Assert.InRange(clock.HighWater - time.GetUtcNow(), TimeSpan.FromHours(2) - TimeSpan.FromSeconds(2), TimeSpan.FromHours(2) + TimeSpan.FromMinutes(1));
        Assert.NotNull(clock.SetBack);
        clock.Look();

        // It is not counted twice, and a TPM that was cleared or is away takes nothing back.
        Assert.InRange(new TrustedClock(identity, time).HighWater - time.GetUtcNow(), TimeSpan.FromHours(2) - TimeSpan.FromSeconds(2), TimeSpan.FromHours(2) + TimeSpan.FromMinutes(1));
        using (var clear = Process.Start(new ProcessStartInfo("tpm2_clear") { RedirectStandardError = true })!)
        {
            await clear.WaitForExitAsync(Token);
            Assert.Equal(0, clear.ExitCode);
        }

        Assert.NotNull(new TrustedClock(identity, time).SetBack);

        async Task AdvanceAsync(TimeSpan by)
        {
            var value = (Tpm.TpmClock.Read()!.Value + (long)by.TotalMilliseconds).ToString(System.Globalization.CultureInfo.InvariantCulture);
            using var set = Process.Start(new ProcessStartInfo("tpm2_setclock", [value]) { RedirectStandardError = true })!;
            await set.WaitForExitAsync(Token);
            Assert.Equal(0, set.ExitCode);
        }
    }

    [Fact]
    public async Task Keys_are_destroyed_after_the_days_of_the_policy_by_the_servers_word_or_a_day_of_running()
    {
        var ticks = 0L;
        using (var identity = EnrolledIdentity.Open(office.Paths))
        {
            TrustedClock Clock(string boot = "b") => new(identity, time, boot, () => ticks);
            var due = DateTimeOffset.FromUnixTimeSeconds(Kept().Claims.Exp).AddDays(90);
            Assert.Equal(due, LeaseEnd.DestructionOf(Kept().Claims, Kept().Policy, null));
            Clock().Hear(time.GetUtcNow());
            Assert.False(Clock().IsPast("office", due, out _));

            // A clock that was set forward by mistake destroys nothing by itself: not at once, and not over a restart of the host.
            time.Offset = TimeSpan.FromDays(4000);
            Assert.False(Clock().IsPast("office", due, out var left));
            Assert.Equal(TrustedClock.Patience, left);
            ticks += (long)TimeSpan.FromHours(20).TotalMilliseconds;
            Assert.False(Clock().IsPast("office", due, out left));
            Assert.Equal(TimeSpan.FromHours(4), left);
            ticks = 5; // restarted
            Assert.False(Clock("c").IsPast("office", due, out left));
            Assert.Equal(TimeSpan.FromHours(4), left);

            // Set right again: nothing happened.
            time.Offset = TimeSpan.Zero;
            Assert.False(Clock("c").IsPast("office", due, out left));
            Assert.Null(left);
            time.Offset = TimeSpan.FromDays(4000);
            Assert.False(Clock("c").IsPast("office", due, out left));
            Assert.Equal(TrustedClock.Patience, left);
            ticks += (long)TimeSpan.FromHours(25).TotalMilliseconds;
            Assert.True(Clock("c").IsPast("office", due, out _));

            // And at once, if the server says what time it is.
            Clock("c").Hear(time.GetUtcNow());
            Assert.True(Clock("c").IsPast("office", due, out _));
        }

        Assert.True(File.Exists(office.Folder.GrantPath));
        Assert.Equal(["office"], await new LeaseEnd(office.Paths, time).EnforceAsync(Token));
        Assert.False(Path.Exists(office.Folder.Root));
        Assert.Empty(await new LeaseEnd(office.Paths, time).EnforceAsync(Token));
    }

    [Fact]
    public async Task A_lease_that_nobody_signed_destroys_nothing()
    {
        Keep(TimeSpan.FromHours(-10_000), issued: -10_200, by: ECDsa.Create(ECCurve.NamedCurves.nistP256));
        using (var identity = EnrolledIdentity.Open(office.Paths))
        {
            new TrustedClock(identity, time).Hear(time.GetUtcNow());
        }

        Assert.Empty(await new LeaseEnd(office.Paths, time).EnforceAsync(Token));
        Keep(TimeSpan.FromHours(-10_000), issued: -10_200, policy: ("lease.deleteAfterDays", 0));
        Assert.Empty(await new LeaseEnd(office.Paths, time).EnforceAsync(Token));
        Keep(TimeSpan.FromHours(-1), issued: -100, expires: TimeSpan.FromHours(-1), policy: ("expiration.action", "delete"));
        Assert.Equal(["office"], await new LeaseEnd(office.Paths, time).EnforceAsync(Token));
    }

    [Fact]
    public async Task A_code_over_the_phone_extends_a_lease_once()
    {
        time.Offset = TimeSpan.FromHours(169);
        Assert.Equal(ErrorCatalogue.LeaseExpired, await WhyAsync());
        var player = new LivePcPlayer(office.Paths, null, time);
        Assert.Equal($"{device[..8]}-0", player.ExtensionRequest("office"));
        var code = ExtensionCode.Make(share, device, "office", 0, 24, time.GetUtcNow());
        var ends = player.Extend("office", $" {code.ToLowerInvariant().Replace("-", " ", StringComparison.Ordinal)} ");
        Assert.InRange(ends - time.GetUtcNow(), TimeSpan.FromHours(23.9), TimeSpan.FromHours(24));
        Assert.NotEqual(ErrorCatalogue.LeaseExpired, await WhyAsync());
        Assert.Equal($"{device[..8]}-1", player.ExtensionRequest("office"));
        Refused(player, code); // once
        Refused(player, ExtensionCode.Make(share, device, "lab", 1, 24, time.GetUtcNow()));
        time.Offset += TimeSpan.FromMinutes(1);
        Refused(player, ExtensionCode.Make(share, RandomNumberGenerator.GetHexString(32, lowercase: true), "office", 1, 24, time.GetUtcNow()));

        // Three were wrong: the next has to wait, a right one too, and each wrong one makes it longer.
        var right = ExtensionCode.Make(share, device, "office", 1, 48, time.GetUtcNow());
        Refused(player, right);
        time.Offset += TimeSpan.FromMinutes(1);
        player.Extend("office", right);
        time.Offset += TimeSpan.FromHours(49);
        Assert.Equal(ErrorCatalogue.LeaseExpired, await WhyAsync());
        Refused(player, ExtensionCode.Make(share, device, "office", 2, 24, time.GetUtcNow().AddDays(-3))); // an old one
        Keep(TimeSpan.FromHours(-1), issued: -200, policy: ("lease.offlineExtensionHours", 0));
        Refused(player, ExtensionCode.Make(share, device, "office", 2, 24, time.GetUtcNow()));

        // Never beyond the LivePC's own end.
        Keep(TimeSpan.FromHours(-1), issued: -200, expires: TimeSpan.FromHours(50));
        Assert.Equal(TimeProvider.System.GetUtcNow().AddHours(50), player.Extend("office", ExtensionCode.Make(share, device, "office", 2, 72, time.GetUtcNow())), TimeSpan.FromSeconds(60));
    }

    private static void Refused(LivePcPlayer player, string code) =>
        Assert.Equal(ErrorCatalogue.ExtensionRefused, Assert.Throws<NacreException>(() => player.Extend("office", code)).Kind);

    private (LeaseClaims Claims, Policy Policy) Kept()
    {
        using var identity = EnrolledIdentity.Open(office.Paths);
        return OpenedLease.ReadKept(office.Folder.Grant!, identity, "office");
    }

    /// <summary>What keeps the kept lease from being used; null: nothing.</summary>
    private async Task<ErrorKind?> WhyAsync()
    {
        using var identity = EnrolledIdentity.Open(office.Paths);
        try
        {
            await OpenedLease.TakeAsync(identity, office.Folder, null, null, time, Token);
            return null;
        }
        catch (NacreException exception)
        {
            return exception.Kind;
        }
    }

    private void Keep(TimeSpan ends, double issued = 0, TimeSpan? expires = null, (string Name, object Value)? policy = null, ECDsa? by = null)
    {
        var now = TimeProvider.System.GetUtcNow();
        var decided = policy is { } one ? new System.Text.Json.Nodes.JsonObject { [one.Name] = JsonValue(one.Value) } : null;
        var claims = new LeaseClaims(
            device, "ann", "office", "debian", 1, null, now.AddHours(issued).ToUnixTimeSeconds(), (now + ends).ToUnixTimeSeconds(), "n", [], decided, Expires: expires is { } end ? (now + end).ToUnixTimeSeconds() : null);
        var keys = JWE.EncryptBytes(
            JsonSerializer.SerializeToUtf8Bytes(new LeaseKeys(Convert.ToBase64String(share), new Dictionary<string, string>()), ContractJson.Options),
            [new JweRecipient(JweAlgorithm.ECDH_ES_A256KW, new Jwk(crv: "P-256", x: deviceKey.PublicKey.X, y: deviceKey.PublicKey.Y))], JweEncryption.A256GCM, mode: SerializationMode.Compact);
        office.Folder.Grant = new LeaseGrant(Jws.SignClaims(claims, by ?? leaseKey, DeviceToken.LeaseType), [], keys);
    }

    private static System.Text.Json.Nodes.JsonNode JsonValue(object value) => JsonSerializer.SerializeToNode(value)!;

    private sealed class MovedClock : TimeProvider
    {
        public TimeSpan Offset { get; set; }

        public override DateTimeOffset GetUtcNow() => System.GetUtcNow() + Offset;
    }
}
