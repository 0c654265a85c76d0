using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>Application layers and updates on trial, with real packages, a real server and real guests.</summary>
public sealed class ApplicationLayerTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    [Trait("lane", "long")]
    public async Task Application_layers_come_and_go_with_the_next_start_and_corporate_layers_that_fail_go_back_by_themselves()
    {
        await using var organisation = await Organisation.CreateAsync();
        var (administrator, device) = (organisation.Administrator, organisation.Device);
        var system = await GoldenImages.MinimalAsync(1);
        await organisation.OfferAsync(system);
        await PublishAsync(administrator, await GoldenImages.ApplicationAsync("tools-1", system));
        await administrator.RunAsync("livepc", "layers", "office", "tools");
        await organisation.EnrolAsync();

        // A web server from a layer of its own, known to dpkg and apt as if it had been installed.
        var started = await StartAsync(device);
        Assert.Equal(["tools 1"], started.GetProperty("layers").EnumerateArray().Select(layer => layer.GetString()!));
        await RequireSoundPackagesAsync(organisation);
        Assert.Equal("ii ii", (await organisation.InGuestAsync("dpkg-query -W -f '${db:Status-Abbrev} ' tree nginx-light | tr -s ' '")).Trim());
        Assert.Equal("active", (await organisation.InGuestAsync("systemctl is-active nginx.service || systemctl status nginx.service --no-pager")).Trim());
        Assert.Equal("tools 1", (await organisation.InGuestAsync("cat /etc/tools-release")).Trim());
        Assert.Equal("/usr/bin/tree", (await organisation.InGuestAsync("readlink -f /usr/bin/tools")).Trim());
        await organisation.InGuestAsync("getent passwd tools; su user -c 'echo report > /home/user/report.txt'; sync");

        // A release whose init is broken: two attempts, then the one before, in the same command.
        var broken = Copy(system, organisation["broken"], "boot=nothing");
        await PublishAsync(administrator, broken);
        await device.RunAsync("livepc", "update", "office");
        await device.RunAsync("livepc", "stop", "office");
        started = await StartAsync(device);
        Assert.Equal(1, started.GetProperty("version").GetInt32());
        Assert.Contains("release 2 of debian-minimal with tools 1 was set aside", started.GetProperty("setAside").GetString()!, StringComparison.Ordinal);
        Assert.Equal("report", (await organisation.InGuestAsync("cat /home/user/report.txt")).Trim());
        var report = Assert.Single(await ReportsAsync(administrator));
        Assert.Equal(("set-aside", 2), (report.GetProperty("kind").GetString(), report.GetProperty("stack")[0].GetProperty("version").GetInt32()));
        Assert.NotEmpty(report.GetProperty("console").GetString()!);
        var again = await device.TryAsync(null, "livepc", "update", "office", "--json");
        Assert.Equal((7, "E_SET_ASIDE"), (again.ExitCode, JsonDocument.Parse(again.Error.Trim().Split('\n')[^1]).RootElement.GetProperty("code").GetString()));

        // The next good release is taken, together with a layer that is upgraded and one that is added; the update may be killed at any moment.
        await PublishAsync(administrator, Copy(system, organisation["good"], ""));
        await PublishAsync(administrator, await GoldenImages.ApplicationAsync("tools-2", system));
        await PublishAsync(administrator, await GoldenImages.ApplicationAsync("extras-1", system));
        var stacked = await administrator.RunAsync("livepc", "layers", "office", "tools", "extras");
        Assert.Contains("conflict: /etc/tools-release: brought by tools, extras; extras wins", stacked.Output, StringComparison.Ordinal);
        await KillUpdatesAsync(device);
        await device.RunAsync("livepc", "update", "office");
        await device.RunAsync("livepc", "stop", "office");
        started = await StartAsync(device);
        Assert.Equal(3, started.GetProperty("version").GetInt32());
        Assert.Equal(JsonValueKind.Null, started.GetProperty("setAside").ValueKind);
        await RequireSoundPackagesAsync(organisation);
        Assert.Equal("extras 1", (await organisation.InGuestAsync("cat /etc/tools-release")).Trim());
        Assert.Equal("gone", (await organisation.InGuestAsync("command -v nginx || echo gone")).Trim());
        Assert.Equal("Hello, world!", (await organisation.InGuestAsync("LC_ALL=C hello")).Trim());
        Assert.Equal("/usr/games/sl", (await organisation.InGuestAsync("readlink -f /usr/bin/tools")).Trim());
        await organisation.InGuestAsync("getent passwd tools && getent passwd extras");

        // A layer whose unit fails, although its player is killed while it is tried: the layers before it start, and the server is told which unit.
        await administrator.RunAsync("policy", "set", "livepc:office", "update.healthUnits=desk.service");
        await PublishAsync(administrator, await GoldenImages.ApplicationAsync("extras-2", system));
        await device.RunAsync("livepc", "update", "office");
        await device.RunAsync("livepc", "stop", "office");
        await KillStartAsync(organisation);
        started = await StartAsync(device);
        Assert.Equal(["tools 2", "extras 1"], started.GetProperty("layers").EnumerateArray().Select(layer => layer.GetString()!));
        Assert.Contains("desk.service is failed", started.GetProperty("setAside").GetString()!, StringComparison.Ordinal);
        Assert.Equal("extras 1", (await organisation.InGuestAsync("cat /etc/tools-release")).Trim());
        Assert.Contains("desk.service", (await ReportsAsync(administrator))[0].GetProperty("reason").GetString()!, StringComparison.Ordinal);

        // The next one works, and starts without a server under the lease that was kept.
        await PublishAsync(administrator, await GoldenImages.ApplicationAsync("extras-3", system));
        await device.RunAsync("livepc", "update", "office");
        await device.RunAsync("livepc", "stop", "office");
        await organisation.StopServerAsync();
        started = await StartAsync(device);
        Assert.True(started.GetProperty("offline").GetBoolean());
        Assert.Equal("extras 3", (await organisation.InGuestAsync("cat /etc/tools-release")).Trim());
        await device.RunAsync("livepc", "stop", "office");
        await organisation.StartServerAsync();

        // Without the layer: gone at the next start, with all that it had in the shared databases.
        await administrator.RunAsync("policy", "set", "livepc:office", "--clear", "update.healthUnits");
        await administrator.RunAsync("livepc", "layers", "office", "tools");
        started = await StartAsync(device);
        Assert.Equal(["tools 2"], started.GetProperty("layers").EnumerateArray().Select(layer => layer.GetString()!));
        await RequireSoundPackagesAsync(organisation);
        Assert.Equal("tools 2 gone gone", (await organisation.InGuestAsync(
            "printf '%s ' \"$(cat /etc/tools-release)\"; dpkg -s hello >/dev/null 2>&1 || printf 'gone '; getent passwd extras || printf gone")).Trim());
        Assert.Equal("report", (await organisation.InGuestAsync("cat /home/user/report.txt")).Trim());
    }

    private static async Task RequireSoundPackagesAsync(Organisation organisation)
    {
        Assert.Equal("", await organisation.InGuestAsync("dpkg --audit"));
        Assert.Equal("sound", (await organisation.InGuestAsync("apt-get -qq check && echo sound")).Trim());
    }

    private static Task<CommandResult> PublishAsync(Shell administrator, string folder) => administrator.RunAsync("image", "publish", folder, "--channel", "stable");

    /// <summary>A built image with other words on its kernel's command line, as another release of it.</summary>
    private static string Copy(string image, string folder, string words)
    {
        Directory.CreateDirectory(folder);
        foreach (var file in Directory.GetFiles(image).Where(file => Path.GetFileName(file) != "image.json"))
        {
            File.Copy(file, Path.Combine(folder, Path.GetFileName(file)));
        }

        var description = JsonNode.Parse(File.ReadAllText(Path.Combine(image, "image.json")))!;
        description["kernelCommandLine"] = $"{description["kernelCommandLine"]} {words}".TrimEnd();
        File.WriteAllText(Path.Combine(folder, "image.json"), description.ToJsonString());
        return folder;
    }

    private static async Task KillUpdatesAsync(Shell device)
    {
        foreach (var milliseconds in new[] { 200, 500, 900, 1400, 2200 })
        {
            using var update = device.Start("livepc", "update", "office");
            update.StandardInput.Close();
            await Task.Delay(milliseconds, Token);
            update.Kill();
            await update.WaitForExitAsync(Token);
            Assert.Matches("release (1|3) of debian-minimal", (await device.RunAsync("livepc", "status", "office")).Output);
        }
    }

    /// <summary>Kills player and machine while the guest boots.</summary>
    private static async Task KillStartAsync(Organisation organisation)
    {
        using var start = organisation.Device.Start("livepc", "start", "office", "--memory", "1024");
        start.StandardInput.Close();
        for (var limit = Stopwatch.StartNew(); organisation.Machines().Length == 0; await Task.Delay(100, Token))
        {
            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(3));
        }

        await Task.Delay(2000, Token);
        await organisation.KillPlayerAsync();
        await organisation.KillMachineAsync();
        await start.WaitForExitAsync(Token);
        Assert.Contains("on trial", (await organisation.Device.RunAsync("livepc", "status", "office")).Output, StringComparison.Ordinal);
    }

    private static async Task<JsonElement> StartAsync(Shell device)
    {
        var result = await device.RunAsync("livepc", "start", "office", "--memory", "1024", "--json");
        return JsonDocument.Parse(result.Output).RootElement;
    }

    private static async Task<IReadOnlyList<JsonElement>> ReportsAsync(Shell administrator) =>
        [.. JsonDocument.Parse((await administrator.RunAsync("livepc", "reports", "office", "--json")).Output).RootElement.EnumerateArray().Select(one => one.GetProperty("report"))];
}
