using System.Diagnostics;
using System.Text.Json;
using Nacre.Contracts;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>A release is rolled out, and a running device takes it by itself.</summary>
public sealed class AutomaticUpdateTests
{
    [Fact]
    [Trait("lane", "long")]
    public async Task A_rolled_out_release_is_downloaded_can_be_put_off_and_starts_at_its_deadline()
    {
        await using var organisation = await Organisation.CreateAsync();
        var (administrator, device) = (organisation.Administrator, organisation.Device);
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await File.WriteAllTextAsync(organisation["policy.json"], """{"update.apply":"deadline","policyRefreshInterval":1,"update.deadlineDays":0,"update.postponeMax":1,"prefetch.onBattery":true,"net.meteredBehaviour":"go"}""", TestContext.Current.CancellationToken);
        await administrator.RunAsync("policy", "set", "livepc:office", "--file", organisation["policy.json"]);
        await organisation.EnrolAsync();
        await device.RunAsync("livepc", "start", "office", "--memory", "1024");
        await device.FailAsync(ErrorCatalogue.NotFound, "livepc", "postpone", "office");
        await WaitAsync(async () => (await administrator.RunAsync("livepc", "starts", "office")).Output.Contains("debian-minimal 1 ", StringComparison.Ordinal), 1);

        await administrator.RunAsync("image", "publish", await GoldenImages.MinimalAsync(2));
        Assert.Contains("release 2 in channel stable is running at 100 %", (await administrator.RunAsync("rollout", "start", "debian-minimal", "stable", "2", "--steps", "100")).Output, StringComparison.Ordinal);
        await WaitAsync(async () => (await device.RunAsync("livepc", "status", "office")).Output.Contains("update: release 2 of debian-minimal is here and starts at the next start; on ", StringComparison.Ordinal), 6);
        await WaitAsync(async () => JsonDocument.Parse((await device.RunAsync("livepc", "status", "office", "--json")).Output).RootElement.GetProperty("detail").GetString()!.Contains("an update has to start", StringComparison.Ordinal), 2);

        // Put off: it goes on. Once is what the policy allows.
        await device.RunAsync("livepc", "postpone", "office");
        Assert.Contains("put off 1 times", (await device.FailAsync(ErrorCatalogue.Forbidden, "livepc", "postpone", "office")).Error, StringComparison.Ordinal);
        Assert.Contains("office: running, release 1", (await device.RunAsync("livepc", "status", "office")).Output, StringComparison.Ordinal);

        // The next start takes it; the roll-out hears of it, and is ended by hand.
        await device.RunAsync("livepc", "stop", "office");
        await device.RunAsync("livepc", "start", "office", "--memory", "1024");
        await WaitAsync(async () => (await administrator.RunAsync("rollout", "list")).Output.Split('\n')[1].TrimEnd().EndsWith(" 1        0", StringComparison.Ordinal), 1);
        Assert.Contains("the roll-out is done; channel stable points at release 2", (await administrator.RunAsync("rollout", "advance", "debian-minimal", "stable")).Output, StringComparison.Ordinal);

        // Nobody does anything: the guest is shut down and starts again with the next one.
        await administrator.RunAsync("image", "publish", await GoldenImages.MinimalAsync(1), "--channel", "stable");
        await WaitAsync(async () => (await device.RunAsync("livepc", "status", "office")).Output.Contains("office: running, release 3", StringComparison.Ordinal), 15);
        await WaitAsync(async () => (await administrator.RunAsync("livepc", "starts", "office")).Output.Contains("debian-minimal 3 ", StringComparison.Ordinal), 2);
    }

    private static async Task WaitAsync(Func<Task<bool>> isSo, int minutes)
    {
        for (var limit = Stopwatch.StartNew(); !await isSo(); await Task.Delay(2000, TestContext.Current.CancellationToken))
        {
            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(minutes), "what was waited for did not come");
        }
    }
}
