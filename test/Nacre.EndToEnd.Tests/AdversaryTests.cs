using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>
/// What somebody tries who has a device, its clock or an old copy of something in hand, with a real guest: an imported disk, which boots in seconds. The clock is moved for the
/// commands under test alone (<c>faketime</c>).
/// </summary>
public sealed class AdversaryTests
{
    private const string Canary = "canary-of-the-adversary";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    [Trait("lane", "long")]
    public async Task A_lease_runs_down_whatever_the_clock_shows_and_neither_a_forged_one_nor_a_clone_of_the_device_opens_what_it_should_not()
    {
        await using var organisation = await ReadyAsync();
        var device = organisation.Device;
        await organisation.InGuestAsync($"echo {Canary} > /home/report; sync");
        await device.RunAsync("livepc", "stop", "office");
        await organisation.StopServerAsync();
        var lease = Path.Combine(organisation.DeviceState, "livepcs", "office", "lease.json");

        // A forged lease: the end put off by ten years.
        var real = await File.ReadAllTextAsync(lease, Token);
        var grant = JsonNode.Parse(real)!;
        var parts = grant["lease"]!.GetValue<string>().Split('.');
        var claims = JsonNode.Parse(System.Buffers.Text.Base64Url.DecodeFromChars(parts[1]))!;
        claims["exp"] = claims["exp"]!.GetValue<long>() + (10L * 365 * 86_400);
        grant["lease"] = $"{parts[0]}.{System.Buffers.Text.Base64Url.EncodeToString(JsonSerializer.SerializeToUtf8Bytes(claims))}.{parts[2]}";
        await File.WriteAllTextAsync(lease, grant.ToJsonString(), Token);
        await device.FailAsync(ErrorCatalogue.LeaseNotAuthentic, "livepc", "start", "office");
        await File.WriteAllTextAsync(lease, real, Token);

        // Two minutes before its end, offline: the guest starts, is warned, and shut down.
        var late = At(organisation, "+604680s");
        Assert.Contains("lease", (await late.RunAsync("livepc", "start", "office", "--memory", "512")).Output, StringComparison.Ordinal);
        Assert.Equal(Canary, (await late.RunAsync("livepc", "exec", "office", "--", "/bin/sh", "-c", "cat /home/report")).Line);
        for (var limit = Stopwatch.StartNew(); organisation.Machines().Length > 0; await Task.Delay(500, Token))
        {
            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(6), "the guest ran on after the end of its lease");
        }

        // It has ended, and a clock that is set back does not bring it back.
        await At(organisation, "+169h").FailAsync(ErrorCatalogue.LeaseExpired, "livepc", "start", "office");
        await device.FailAsync(ErrorCatalogue.ClockSetBack, "livepc", "start", "office");
        await At(organisation, "-30d").FailAsync(ErrorCatalogue.ClockSetBack, "livepc", "start", "office");
        Assert.True(File.Exists(Path.Combine(organisation.DeviceState, "livepcs", "office", "keys.json")), "a wrong clock destroyed keys");

        // The server knows the time.
        await organisation.StartServerAsync();
        await device.RunAsync("livepc", "start", "office", "--memory", "512");
        await organisation.InGuestAsync("echo more >> /home/report; sync");
        await device.RunAsync("livepc", "stop", "office");

        // A clone of the whole device, made before the last session: what it has is older than what the server knows.
        var clone = organisation["clone"];
        Copy(organisation.DeviceState, clone);
        await device.RunAsync("livepc", "start", "office", "--memory", "512");
        await organisation.InGuestAsync("echo newest >> /home/report; sync");
        await device.RunAsync("livepc", "stop", "office");
        var thief = new Shell(("NACRE_HOME", clone), ("XDG_RUNTIME_DIR", organisation.Runtime), ("NACRE_ACCEL", "tcg"), ("TPM2TOOLS_TCTI", "none"));
        await thief.FailAsync(ErrorCatalogue.VolumeOutdated, "livepc", "start", "office");

        // Nobody but the owner: it is revoked, and the clone with it.
        var id = JsonDocument.Parse((await organisation.Administrator.RunAsync("device", "list", "--json")).Output).RootElement[0].GetProperty("id").GetString()!;
        await organisation.Administrator.RunAsync("revoke", "device", id);
        await thief.FailAsync(ErrorCatalogue.DeviceRevoked, "livepc", "start", "office");
        await device.FailAsync(ErrorCatalogue.DeviceRevoked, "livepc", "start", "office");
    }

    [Fact]
    [Trait("lane", "long")]
    public async Task A_receipt_that_is_sent_again_confirms_nothing_and_a_server_put_back_to_a_backup_neither_loses_a_file_nor_brings_a_killed_LivePC_back()
    {
        await using var organisation = await ReadyAsync();
        var (administrator, device) = (organisation.Administrator, organisation.Device);
        await organisation.InGuestAsync($"echo {Canary} > /home/report; sync");
        await device.RunAsync("livepc", "stop", "office");
        await organisation.StopServerAsync();
        var backup = organisation["backup"];
        Copy(organisation.ServerData, backup);
        await organisation.StartServerAsync();
        await device.RunAsync("livepc", "start", "office", "--memory", "512");
        await organisation.InGuestAsync("echo after >> /home/report; sync");
        await device.RunAsync("livepc", "stop", "office");

        // The server is put back: what the device wrote since is there, and the server learns how far it is.
        await organisation.StopServerAsync();
        Directory.Delete(organisation.ServerData, recursive: true);
        Copy(backup, organisation.ServerData);
        await organisation.StartServerAsync();
        await device.RunAsync("livepc", "start", "office", "--memory", "512");
        Assert.Equal($"{Canary}\nafter", (await organisation.InGuestAsync("cat /home/report")).TrimEnd());
        await device.RunAsync("livepc", "stop", "office");

        // Killed, and confirmed.
        var id = JsonDocument.Parse((await administrator.RunAsync("device", "list", "--json")).Output).RootElement[0].GetProperty("id").GetString()!;
        await administrator.RunAsync("kill", "livepc", "office", id);
        await device.FailAsync(ErrorCatalogue.LivePcKilled, "livepc", "start", "office");
        var first = await NewestAsync(administrator);
        Assert.Equal("confirmed", first.GetProperty("state").GetString());

        // A new LivePC in its place, and another kill: the receipt of the first says nothing of it.
        await administrator.RunAsync("kill", "lift", first.GetProperty("id").GetString()!);
        await device.RunAsync("livepc", "start", "office", "--memory", "512");
        Assert.Equal("empty", (await organisation.InGuestAsync("test -e /home/report || echo empty")).TrimEnd());
        await device.RunAsync("livepc", "stop", "office");
        await administrator.RunAsync("kill", "livepc", "office", id);
        using (var nobody = new NacreClient(new Uri(organisation.Url)))
        {
            await nobody.DeliverReceiptAsync(new DeliverReceipt(first.GetProperty("signedOrder").GetString()!, first.GetProperty("receipt").GetString()!), Token);
            var second = await NewestAsync(administrator);
            Assert.NotEqual(first.GetProperty("id").GetString(), second.GetProperty("id").GetString());
            Assert.NotEqual("confirmed", second.GetProperty("state").GetString());
        }

        // A server that forgot the kill gives the keys' part to nobody who has lost the rest.
        await device.FailAsync(ErrorCatalogue.LivePcKilled, "livepc", "start", "office");
        Assert.Equal("confirmed", (await NewestAsync(administrator)).GetProperty("state").GetString());
        await organisation.StopServerAsync();
        Directory.Delete(organisation.ServerData, recursive: true);
        Copy(backup, organisation.ServerData);
        await organisation.StartServerAsync();
        await device.FailAsync(ErrorCatalogue.VolumeOutdated, "livepc", "start", "office"); // it remembers layers that are gone
        await device.RunAsync("livepc", "start", "office", "--memory", "512", "--accept-older-state");
        Assert.Equal("empty", (await organisation.InGuestAsync("test -e /home/report || echo empty")).TrimEnd());
        await device.RunAsync("livepc", "stop", "office");
    }

    /// <summary>An organisation whose device runs an imported disk.</summary>
    private static async Task<Organisation> ReadyAsync()
    {
        Require.Tool("faketime");
        var organisation = await Organisation.CreateAsync();
        await WholeDiskTests.ImportAsync(organisation, "first", "agent");
        await organisation.OfferAsync(organisation["first"], "desktop");
        await organisation.EnrolAsync();
        await organisation.Device.RunAsync("livepc", "start", "office", "--memory", "512");
        return organisation;
    }

    /// <summary>The device's user while its clock is wrong.</summary>
    private static Shell At(Organisation organisation, string shift) => new(
        ("NACRE_HOME", organisation.DeviceState), ("XDG_RUNTIME_DIR", organisation.Runtime), ("NACRE_ACCEL", "tcg"), ("TPM2TOOLS_TCTI", "none"),
        ("LD_PRELOAD", Preload.Value), ("FAKETIME", shift), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("FAKETIME_NO_CACHE", "1"), ("FAKETIME_FORCE_MONOTONIC_FIX", "0"));

    private static readonly Lazy<string> Preload = new(() => Directory.GetDirectories("/usr/lib", "*-linux-gnu").Select(folder => Path.Combine(folder, "faketime", "libfaketimeMT.so.1")).First(File.Exists));

    private static void Copy(string from, string to)
    {
        using var copy = Process.Start("cp", ["-a", from, to]);
        copy.WaitForExit();
        Assert.Equal(0, copy.ExitCode);
    }

    private static async Task<JsonElement> NewestAsync(Shell administrator) => JsonDocument.Parse((await administrator.RunAsync("kill", "list", "--json")).Output).RootElement[0];
}
