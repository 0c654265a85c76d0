using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>The check that starts a built image in a throw-away guest: what comes up healthy passes, what does not is stopped, and nothing is left behind.</summary>
public sealed class BootCheckTests : IDisposable
{
    private readonly TemporaryDirectory folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string Runtime => folder["run"];

    private string Temporary => folder["temporary"];

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task An_image_that_comes_up_healthy_passes_and_one_that_does_not_start_is_stopped_with_the_end_of_its_console()
    {
        var image = await GoldenImages.MinimalAsync(1);
        var healthy = Copy(image, folder["healthy"], "");
        var broken = Copy(image, folder["broken"], "boot=nothing");
        var shell = MakeShell();
        var starting = CheckAsync(shell, healthy, "--boot-unit", "multi-user.target");
        var stopped = await CheckAsync(shell, broken);
        var started = await starting;

        Assert.Equal((0, "passed"), (started.Code, started.Outcome));
        Assert.Matches("^healthy after [0-9.]+ s under tcg: its agent answered, and its units were active", started.Summary);
        Assert.Equal(((int)ExitCode.Refused, "failed"), (stopped.Code, stopped.Outcome));
        Assert.Matches("^not healthy after [0-9.]+ s under tcg: the guest ended before its agent answered$", stopped.Summary);
        Assert.Contains(stopped.Findings, line => line.StartsWith("console: ", StringComparison.Ordinal) && line.Contains("panic", StringComparison.Ordinal));
        RequireNothingLeft();

        // No channel could point at a release of it.
        await shell.FailAsync(ErrorCatalogue.CheckFailed, "image", "publish", broken);
        TestContext.Current.SendDiagnosticMessage("figure: boot check: {0}; broken: {1}", started.Summary, stopped.Summary);
    }

    [Fact]
    public async Task A_check_that_is_interrupted_ends_its_guest_and_leaves_nothing()
    {
        var image = Copy(await GoldenImages.MinimalAsync(1), folder["image"], "");
        using var check = MakeShell().Start("image", "check", image, "--temporary", Temporary);
        check.StandardInput.Close();
        var (output, error) = (check.StandardOutput.ReadToEndAsync(Token), check.StandardError.ReadToEndAsync(Token));
        for (var limit = Stopwatch.StartNew(); Machines().Length == 0; await Task.Delay(100, Token))
        {
            Assert.False(check.HasExited, "the check ended before its guest began");
            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(3));
        }

        // Nothing that it does gets out: QEMU has no network device, and may start nothing.
        var machine = await File.ReadAllTextAsync($"/proc/{Machines()[0]}/cmdline", Token);
        Assert.Contains("\0-nodefaults\0", machine, StringComparison.Ordinal);
        Assert.Contains("spawn=deny", machine, StringComparison.Ordinal);
        Assert.DoesNotMatch("netdev|-nic|\0-net\0|virtio-net|e1000", machine);
        Assert.NotEmpty(Directory.GetDirectories(Temporary, "nacre-boot.*"));
        using var signal = Process.Start("kill", ["-INT", $"{check.Id}"]);
        await check.WaitForExitAsync(Token);
        var words = await error;
        Assert.True(check.ExitCode == (int)ExitCode.Cancelled, $"ended with {check.ExitCode}: {words}");
        Assert.Equal("", await output);
        Assert.Contains("interrupted", words, StringComparison.Ordinal);
        RequireNothingLeft();
        Assert.False(File.Exists(Path.Combine(image, "checks.json")));
    }

    [Fact]
    [Trait("lane", "long")]
    public async Task An_application_layer_starts_on_its_system_and_on_no_other()
    {
        var system = await GoldenImages.MinimalAsync(1);
        var layer = folder["layer"];
        CopyFiles(await GoldenImages.ApplicationAsync("tools-1", system), layer);
        var shell = MakeShell();
        var (code, outcome, summary, _) = await CheckAsync(shell, layer);
        Assert.Equal((0, "not-done", "the system that it was built on was not named (--on)"), (code, outcome, summary));
        var other = await shell.FailAsync(ErrorCatalogue.UsageInvalid, "image", "check", layer, "--on", layer);
        Assert.Contains("is not the system that 'tools' was built on", other.Error, StringComparison.Ordinal);
        (code, outcome, summary, _) = await CheckAsync(shell, layer, "--on", system, "--boot-unit", "multi-user.target");
        Assert.Equal((0, "passed"), (code, outcome));
        Assert.StartsWith("healthy after ", summary, StringComparison.Ordinal);

        // A unit that no layer has.
        (code, outcome, summary, _) = await CheckAsync(shell, layer, "--on", system, "--boot-unit", "desk.service");
        Assert.Equal(((int)ExitCode.Refused, "failed"), (code, outcome));
        Assert.EndsWith("the guest started without what must be active: desk.service is inactive", summary, StringComparison.Ordinal);
        RequireNothingLeft();
    }

    [Fact]
    [Trait("lane", "long")]
    public async Task A_whole_disk_passes_by_its_agent_or_by_what_its_firmware_starts_and_fails_where_that_is_nothing()
    {
        var shell = MakeShell();
        foreach (var (release, agent, expected) in new[] { ("first", "agent", "its agent answered"), ("second", "", "no agent answered within 4 minutes; the firmware started ") })
        {
            var file = Repository.Path("artifacts", "uefi-guest", $"{release}{agent}.qcow2");
            using var making = Process.Start(new ProcessStartInfo(Repository.Path("scripts", "uefi-guest.sh"), [file, $"{release} release", agent]) { RedirectStandardError = true })!;
            var words = await making.StandardError.ReadToEndAsync(Token);
            await making.WaitForExitAsync(Token);
            Assert.True(making.ExitCode == 0, words);
            await shell.RunAsync("image", "import", file, "--name", "desktop", "--output", folder[release]);
            var (code, outcome, summary, _) = await CheckAsync(shell, folder[release], agent.Length > 0 ? [] : ["--boot-minutes", "4"]);
            Assert.Equal((0, "passed"), (code, outcome));
            Assert.Contains(expected, summary, StringComparison.Ordinal);
            TestContext.Current.SendDiagnosticMessage("figure: boot check, {0}: {1}", release, summary);
        }

        var empty = folder["empty.raw"];
        var content = new byte[16 << 20];
        (content[510], content[511]) = (0x55, 0xAA);
        await File.WriteAllBytesAsync(empty, content, Token);
        await shell.RunAsync("image", "import", empty, "--name", "desktop", "--output", folder["empty"]);
        var nothing = await CheckAsync(shell, folder["empty"]);
        Assert.Equal(((int)ExitCode.Refused, "failed"), (nothing.Code, nothing.Outcome));
        Assert.EndsWith("the firmware found nothing on the disk to start", nothing.Summary, StringComparison.Ordinal);
        RequireNothingLeft();
    }

    private Shell MakeShell()
    {
        Require.Tool("qemu-system-x86_64");
        Directory.CreateDirectory(Runtime);
        Directory.CreateDirectory(Temporary);
        return new Shell(("NACRE_HOME", folder["home"]), ("NACRE_ADMIN_HOME", folder["admin"]), ("XDG_RUNTIME_DIR", Runtime), ("NACRE_ACCEL", "tcg"));
    }

    private async Task<(int Code, string Outcome, string Summary, string[] Findings)> CheckAsync(Shell shell, string image, params string[] options)
    {
        var result = await shell.TryAsync(null, ["image", "check", image, "--temporary", Temporary, "--json", .. options]);
        var checks = JsonDocument.Parse(result.Output).RootElement.GetProperty("checks").EnumerateArray();
        var boot = checks.Single(check => check.GetProperty("check").GetString() == "boot");
        return (result.ExitCode, boot.GetProperty("outcome").GetString()!, boot.GetProperty("summary").GetString()!, [.. boot.GetProperty("findings").EnumerateArray().Select(line => line.GetString()!)]);
    }

    private void RequireNothingLeft()
    {
        Assert.Empty(Machines());
        Assert.Empty(Directory.GetFileSystemEntries(Temporary));
        Assert.Empty(Directory.GetFileSystemEntries(Runtime, "boot.*", SearchOption.AllDirectories));
    }

    /// <summary>The numbers of this test's machines: their sockets are below its folder.</summary>
    private int[] Machines() => [.. Directory.GetDirectories("/proc").Select(Path.GetFileName).Where(name => int.TryParse(name, out _)).Select(name => int.Parse(name!, System.Globalization.CultureInfo.InvariantCulture)).Where(id =>
    {
        try
        {
            return File.ReadAllText($"/proc/{id}/cmdline") is var words && words.StartsWith("qemu-system-x86_64\0", StringComparison.Ordinal) && words.Contains(Runtime, StringComparison.Ordinal);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    })];

    /// <summary>A built image with other words on its kernel's command line.</summary>
    private static string Copy(string image, string target, string words)
    {
        CopyFiles(image, target);
        var description = JsonNode.Parse(File.ReadAllText(Path.Combine(target, "image.json")))!;
        description["kernelCommandLine"] = $"{description["kernelCommandLine"]} {words}".TrimEnd();
        File.WriteAllText(Path.Combine(target, "image.json"), description.ToJsonString());
        return target;
    }

    private static void CopyFiles(string image, string target)
    {
        Directory.CreateDirectory(target);
        foreach (var file in Directory.GetFiles(image))
        {
            File.Copy(file, Path.Combine(target, Path.GetFileName(file)));
        }
    }
}
