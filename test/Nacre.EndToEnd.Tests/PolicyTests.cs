using System.Diagnostics;
using System.Text.Json;
using Nacre.Contracts;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>What an administrator decides has its effect in a real LivePC, while it runs where it can, and comes back acknowledged.</summary>
public sealed class PolicyTests
{
    [Fact]
    public async Task A_policy_that_is_tightened_holds_in_a_running_LivePC_and_in_its_guest_from_the_next_start_on()
    {
        await using var organisation = await Organisation.CreateAsync();
        var (administrator, device) = (organisation.Administrator, organisation.Device);
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();

        // What the user agrees to first, and is told where the company does not let it start.
        await administrator.RunAsync("policy", "set", "organisation", "eula.text=Work only.\nNo games.", "supportContact=IT, room 12", "messages.refused=Use the computer that you were given.", "messages.start=Backups run on Fridays.");
        Assert.Contains("were not accepted yet", (await device.FailAsync(ErrorCatalogue.TermsNotAccepted, "livepc", "start", "office")).Error, StringComparison.Ordinal);
        Assert.StartsWith("Work only.\nNo games.\n", (await device.RunAsync("livepc", "terms", "office")).Output, StringComparison.Ordinal);
        await device.FailAsync(ErrorCatalogue.TermsNotAccepted, "livepc", "start", "office");
        await device.RunAsync("livepc", "terms", "office", "--accept");
        await administrator.RunAsync("policy", "set", "organisation", "host.os=block", "host.osMin=plan9 4");
        Assert.Contains("Use the computer that you were given.\n  ask IT, room 12\n", (await device.FailAsync(ErrorCatalogue.HostCheckFailed, "livepc", "start", "office")).Error, StringComparison.Ordinal);
        Assert.Contains("help: IT, room 12", (await device.RunAsync("livepc", "status", "office")).Output, StringComparison.Ordinal);
        Assert.Contains("terms.accept", (await administrator.RunAsync("audit", "list")).Output, StringComparison.Ordinal);
        await administrator.RunAsync("policy", "set", "organisation", "eula.text=Work only.", "host.os=off");
        Assert.Contains("changed", (await device.FailAsync(ErrorCatalogue.TermsNotAccepted, "livepc", "start", "office")).Error, StringComparison.Ordinal);
        await device.RunAsync("livepc", "terms", "office", "--accept");
        await administrator.RunAsync("group", "add", "press");
        await administrator.RunAsync(
            "policy", "set", "organisation", "policyRefreshInterval=1", "lease.hours=48", "prefetch=off", "rejuvenate.system=on-update", "layer.quotaUserGB=1", "layer.quotaAppsGB=2", "appVisibility=gpgv press");
        Assert.Contains("Backups run on Fridays.", (await device.RunAsync("livepc", "start", "office")).Output, StringComparison.Ordinal);
        var before = await StatusAsync(device);
        Assert.InRange(before.GetProperty("leaseEnds").GetDateTimeOffset() - TimeProvider.System.GetUtcNow(), TimeSpan.FromHours(47.5), TimeSpan.FromHours(48));
        var (processors, memory) = await MachineAsync(organisation);
        Assert.Equal(Math.Clamp(Environment.ProcessorCount, 1, 4), processors);
        await administrator.FailAsync(ErrorCatalogue.PolicyInvalid, "policy", "set", "livepc:office", "vm.autoFitCpu=0", "lease.hour=3");

        // How much the layers may use, also for root; an application of a group that the user is not in; what is in none of the user's layers.
        Assert.Equal(
            "full data fits data full applications fits applications hidden",
            (await organisation.InGuestAsync("""
                for layer in 'data /home/user 1 800' 'applications /usr/local 2 1700'; do
                    set -- $layer
                    fallocate -l "$3G" "$2/large" 2>/dev/null && echo "fits $1" || echo "full $1"
                    rm -f "$2/large"
                    fallocate -l "$4M" "$2/small" && echo "fits $1" && rm "$2/small"
                done
                command -v gpgv >/dev/null || [ -e /usr/bin/gpgv ] || echo hidden
                """)).ReplaceLineEndings(" ").Trim());
        await organisation.InGuestAsync("echo kept > /usr/lib/marker; echo tool > /usr/local/tool; echo mine > /home/user/mine; sync");

        // While it runs: what the user may put back, and the lease's length; what the machine is made of waits.
        await administrator.RunAsync("policy", "set", "livepc:office", "rejuvenate.userAllowed=none", "vm.autoFitCpu=1", "vm.autoFitMemory=5", "layer.retainUserAppsAfterRestart=off");
        await administrator.RunAsync("policy", "set", "organisation", "lease.hours=24", "prefetch=full");
        var asked = await WaitAsync(async () => await StatusAsync(device), status => status.GetProperty("policyFromNextStart").GetArrayLength() == 3);
        Assert.Equal(["layer.retainUserAppsAfterRestart", "vm.autoFitCpu", "vm.autoFitMemory"], asked.GetProperty("policyFromNextStart").EnumerateArray().Select(name => name.GetString()!));
        Assert.DoesNotContain(asked.GetProperty("unenforceable").EnumerateArray(), one => one.GetString()!.StartsWith("layer.", StringComparison.Ordinal) || one.GetString()!.StartsWith("appVisibility", StringComparison.Ordinal));
        Assert.NotEqual("Complete", before.GetProperty("presence").GetString());
        await WaitAsync(async () => await StatusAsync(device), status => status.GetProperty("presence").GetString() == "Complete");
        Assert.InRange(asked.GetProperty("leaseEnds").GetDateTimeOffset() - TimeProvider.System.GetUtcNow(), TimeSpan.FromHours(23.5), TimeSpan.FromHours(24));
        await device.FailAsync(ErrorCatalogue.Forbidden, "livepc", "rejuvenate", "office", "--depth", "settings", "--yes");
        var enforced = JsonDocument.Parse((await administrator.RunAsync("policy", "status", "--json")).Output).RootElement[0];
        Assert.Equal((true, asked.GetProperty("policyVersion").GetString(), 3), (enforced.GetProperty("isCurrent").GetBoolean(), enforced.GetProperty("version").GetString(), enforced.GetProperty("fromNextStart").GetArrayLength()));
        Assert.Equal((processors, memory), await MachineAsync(organisation));

        // From the next start on, as the guest sees it.
        await device.RunAsync("livepc", "stop", "office");
        Assert.Contains("system layer kept as it was", (await device.RunAsync("livepc", "start", "office")).Output, StringComparison.Ordinal);
        Assert.Equal("kept mine", (await organisation.InGuestAsync(Traces)).ReplaceLineEndings(" ").Trim());
        var (fewer, less) = await MachineAsync(organisation);
        Assert.Equal(1, fewer);
        Assert.True(less < memory || memory < 1100, $"{less} MiB, {memory} MiB before");
        var explained = await administrator.RunAsync("policy", "explain", "--livepc", "office", "--device", enforced.GetProperty("device").GetString()!);
        Assert.Matches(@"(?m)^vm\.autoFitCpu +1 +livepc:office$", explained.Output);
        Assert.Matches(@"(?m)^lease\.hours +24 +organisation$", explained.Output);
        Assert.Matches(@"(?m)^snapshot\.keep +30 +factory$", explained.Output);
        Assert.Contains("rejuvenate.userAllowed", (await administrator.RunAsync("policy", "diff", "organisation", "livepc:office")).Output, StringComparison.Ordinal);

        // Disposable: nothing of before is there, and nothing of it is afterwards; with an application of the group that the user is in now.
        await administrator.RunAsync("group", "put", "press", "alice");
        await administrator.RunAsync("policy", "set", "livepc:office", "disposable=on", "layer.app=off");
        await device.RunAsync("livepc", "stop", "office");
        Assert.Contains("system layer put back to clean", (await device.RunAsync("livepc", "start", "office")).Output, StringComparison.Ordinal);
        Assert.Equal("gpgv", (await organisation.InGuestAsync($"{Traces}; basename $(command -v gpgv)")).Trim());
        Assert.Equal("discard", (await organisation.InGuestAsync("modprobe -q qemu_fw_cfg; cat /sys/firmware/qemu_fw_cfg/by_name/opt/nacre/applications/raw")).Trim());
        await organisation.InGuestAsync("echo gone > /home/user/gone; echo gone > /etc/gone; sync");
        await administrator.RunAsync("policy", "set", "livepc:office", "disposable=off");
        await device.RunAsync("livepc", "stop", "office");
        await device.RunAsync("livepc", "start", "office");
        Assert.Equal("mine", (await organisation.InGuestAsync(Traces)).Trim());
    }

    private const string Traces = "cat /usr/lib/marker /usr/local/tool /home/user/mine /home/user/gone /etc/gone 2>/dev/null; true";

    private static async Task<JsonElement> StatusAsync(Shell device) => JsonDocument.Parse((await device.RunAsync("livepc", "status", "office", "--json")).Output).RootElement;

    private static async Task<(int Processors, int MiB)> MachineAsync(Organisation organisation)
    {
        var words = (await organisation.InGuestAsync("nproc; awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo")).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
        return (int.Parse(words[0], System.Globalization.CultureInfo.InvariantCulture), int.Parse(words[1], System.Globalization.CultureInfo.InvariantCulture));
    }

    private static async Task<T> WaitAsync<T>(Func<Task<T>> ask, Func<T, bool> isEnough)
    {
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(1000, TestContext.Current.CancellationToken))
        {
            var answer = await ask();
            if (isEnough(answer))
            {
                return answer;
            }

            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(4), "what was waited for did not come");
        }
    }
}
