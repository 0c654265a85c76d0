using System.Diagnostics;
using System.Text.Json;
using Nacre.Contracts;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>A release is rolled out, and a running device takes it by itself; its user goes back.</summary>
public sealed class AutomaticUpdateTests
{
    [Fact]
    [Trait("lane", "long")]
    public async Task A_rolled_out_release_is_downloaded_can_be_put_off_starts_at_its_deadline_and_is_left_by_hand()
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

        // The device keeps two releases, as delivered.
        await WaitAsync(() => Task.FromResult(Directory.GetFiles(Path.Combine(organisation.DeviceState, "indexes")).Length == 2), 2);

        // The user goes back by hand: where somebody can be asked or says so, and where the policy lets the user.
        await device.RunAsync("livepc", "exec", "office", "--", "/bin/sh", "-c", "echo mine > /home/mine; sync");
        await device.FailAsync(ErrorCatalogue.UsageInvalid, "livepc", "rollback", "office");
        await administrator.RunAsync("policy", "set", "livepc:office", "update.userRollback=off");
        Assert.Contains("update.userRollback", (await device.FailAsync(ErrorCatalogue.Forbidden, "livepc", "rollback", "office", "--yes")).Error, StringComparison.Ordinal);
        await administrator.RunAsync("policy", "set", "livepc:office", "--clear", "update.userRollback");
        var back = await device.RunAsync("livepc", "rollback", "office", "--yes");
        Assert.Contains("office: release 3 of debian-minimal is left, and release 2 of debian-minimal starts at the next start", back.Error, StringComparison.Ordinal);
        Assert.Contains("office: release 3 to 2: 0 ", back.Error, StringComparison.Ordinal);
        Assert.Contains("rolled-back: debian-minimal 3", (await administrator.RunAsync("livepc", "reports", "office")).Output, StringComparison.Ordinal);
        await device.RunAsync("livepc", "stop", "office");
        await device.RunAsync("livepc", "start", "office", "--memory", "1024");
        Assert.Contains("office: running, release 2", (await device.RunAsync("livepc", "status", "office")).Output, StringComparison.Ordinal);
        Assert.Equal("mine", (await device.RunAsync("livepc", "exec", "office", "--", "/bin/cat", "/home/mine")).Line);

        // What was left is on offer still, and is taken when it is asked for.
        await WaitAsync(async () => (await device.RunAsync("livepc", "status", "office")).Output.Contains("update: release 3 of debian-minimal is on offer, and its user went back from", StringComparison.Ordinal), 4);
        Assert.Contains("office: running, release 2", (await device.RunAsync("livepc", "status", "office")).Output, StringComparison.Ordinal);

        // A channel that the image does not have: the device follows its own, and says so to its user and to the administrator.
        await administrator.RunAsync("policy", "set", "livepc:office", "update.channel=pilot");
        const string Missing = "update.channel: 'debian-minimal' has no channel 'pilot' and follows 'stable'";
        Assert.Contains(Missing, (await administrator.RunAsync("policy", "explain", "--livepc", "office")).Output, StringComparison.Ordinal);
        await WaitAsync(async () => (await device.RunAsync("livepc", "status", "office")).Output.Contains(Missing, StringComparison.Ordinal), 4);
        await WaitAsync(async () => (await administrator.RunAsync("policy", "status")).Output.Contains("has no channel 'pilot'", StringComparison.Ordinal), 1);
        Assert.Contains("office: release 3 is here", (await device.RunAsync("livepc", "update", "office")).Output, StringComparison.Ordinal);
    }

    private static async Task WaitAsync(Func<Task<bool>> isSo, int minutes)
    {
        for (var limit = Stopwatch.StartNew(); !await isSo(); await Task.Delay(2000, TestContext.Current.CancellationToken))
        {
            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(minutes), "what was waited for did not come");
        }
    }
}
