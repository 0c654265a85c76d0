using System.Diagnostics;
using System.Text.Json;
using Nacre.Contracts;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>A revoke and a kill reach a LivePC that runs, and do to it what they say and nothing else.</summary>
public sealed class KillTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    [Trait("lane", "long")]
    public async Task A_leaver_is_shut_down_and_can_come_back_and_a_kill_ends_a_running_guest_within_two_seconds_for_good()
    {
        await using var organisation = await Organisation.CreateAsync();
        var (administrator, device) = (organisation.Administrator, organisation.Device);
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        await administrator.RunAsync("policy", "set", "organisation", "policyRefreshInterval=1440"); // what is heard is heard by the events
        await device.RunAsync("livepc", "start", "office");
        await organisation.InGuestAsync("echo mine > /home/mine; sync");
        await File.WriteAllTextAsync(organisation["photo"], "the host's own", Token);
        var id = JsonDocument.Parse((await administrator.RunAsync("device", "list", "--json")).Output).RootElement[0].GetProperty("id").GetString()!;

        // Taken away while it runs: shut down, not switched off, and refused until it is given back.
        await administrator.RunAsync("revoke", "device", id);
        await WaitAsync(() => Task.FromResult(organisation.Machines().Length == 0), TimeSpan.FromMinutes(3));
        var revoke = await OrderAsync(administrator, "revoke", "confirmed");
        await device.FailAsync(ErrorCatalogue.DeviceRevoked, "livepc", "start", "office");
        Assert.False(File.Exists(Path.Combine(organisation.DeviceState, "livepcs", "office", "lease.json")));
        await administrator.RunAsync("revoke", "lift", revoke.GetProperty("id").GetString()!);
        await device.RunAsync("livepc", "start", "office");
        Assert.Equal("mine", (await organisation.InGuestAsync("cat /home/mine")).Trim());

        // Killed while it runs.
        Assert.Single(organisation.Machines());
        await administrator.RunAsync("kill", "livepc", "office", id);
        await WaitAsync(() => Task.FromResult(organisation.Machines().Length == 0), TimeSpan.FromSeconds(2));
        var kill = await OrderAsync(administrator, "kill", "confirmed");
        Assert.False(Directory.Exists(Path.Combine(organisation.DeviceState, "livepcs", "office")));
        Assert.Equal("the host's own", await File.ReadAllTextAsync(organisation["photo"], Token));
        await device.FailAsync(ErrorCatalogue.LivePcKilled, "livepc", "start", "office");
        await administrator.RunAsync("kill", "show", kill.GetProperty("id").GetString()!, "--receipt", organisation["receipt"]);
        await organisation.StopServerAsync();
        Assert.Contains("was carried out", (await administrator.RunAsync("kill", "verify", organisation["receipt"])).Output, StringComparison.Ordinal);
        var receipt = await File.ReadAllTextAsync(organisation["receipt"], Token);
        await File.WriteAllTextAsync(organisation["receipt"], receipt.Replace(kill.GetProperty("receipt").GetString()![^20..^10], "AAAAAAAAAA", StringComparison.Ordinal), Token);
        await administrator.FailAsync(ErrorCatalogue.ReceiptNotAuthentic, "kill", "verify", organisation["receipt"]);
        await organisation.StartServerAsync();

        // The whole device, which does not run: at its next command.
        await administrator.RunAsync("kill", "device", id);
        await device.FailAsync(ErrorCatalogue.NotEnrolled, "livepc", "list");
        Assert.DoesNotContain(Directory.GetFiles(organisation.DeviceState, "*", SearchOption.AllDirectories), file => Path.GetFileName(file).StartsWith("device.", StringComparison.Ordinal));
        await OrderAsync(administrator, "kill", "confirmed");
    }

    private static async Task<JsonElement> OrderAsync(Shell administrator, string act, string state)
    {
        JsonElement newest = default;
        await WaitAsync(async () =>
        {
            newest = JsonDocument.Parse((await administrator.RunAsync(act, "list", "--json")).Output).RootElement[0];
            return newest.GetProperty("state").GetString() == state;
        }, TimeSpan.FromMinutes(1));
        return newest;
    }

    private static async Task WaitAsync(Func<Task<bool>> isSo, TimeSpan limit)
    {
        for (var waited = Stopwatch.StartNew(); !await isSo(); await Task.Delay(20, Token))
        {
            Assert.True(waited.Elapsed < limit, "what was waited for did not come");
        }
    }
}
