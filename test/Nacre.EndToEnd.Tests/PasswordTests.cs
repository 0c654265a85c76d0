using System.Diagnostics;
using System.Text.Json;
using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>A LivePC opens with its user's password only; who forgets it is helped by a code that the organisation's offline key gives, and nobody else gets in.</summary>
public sealed class PasswordTests
{
    private const string Canary = "canary-of-the-password";

    [Fact]
    public async Task The_password_opens_the_LivePC_and_the_help_desk_helps_who_forgot_it()
    {
        await using var organisation = await Organisation.CreateAsync();
        var (administrator, device) = (organisation.Administrator, organisation.Device);
        using var folder = new TemporaryDirectory();
        await File.WriteAllTextAsync(folder["pass"], "a passphrase of the recovery officer\n", Token);
        var offline = new Shell();
        await offline.RunAsync("recovery", "create-key", folder["recovery"], "--passphrase-file", folder["pass"]);
        await administrator.RunAsync("recovery", "set", folder["recovery.pub"]);
        await administrator.RunAsync("policy", "set", "organisation", "logs.eventLevel=debug");
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        var alice = new Typist(organisation, folder);

        // Nothing opens without one, and nothing weak is taken; neither took a guest's start to find out.
        var quick = Stopwatch.StartNew();
        await alice.FailAsync(ErrorCatalogue.PasswordUnset, null, "livepc", "start", "office");
        var weak = await alice.FailAsync(ErrorCatalogue.PasswordWeak, "brief", "livepc", "start", "office");
        Assert.Contains("at least 12 characters", weak.Error, StringComparison.Ordinal);
        Assert.InRange(quick.Elapsed, TimeSpan.Zero, TimeSpan.FromMinutes(1));
        await alice.RunAsync(Shell.Password, "livepc", "start", "office");
        await organisation.InGuestAsync($"echo {Canary} > /home/user/secret.txt; sync");

        // Locked by hand: it works on, unseen, and only the password opens it.
        await device.RunAsync("livepc", "lock", "office");
        await device.FailAsync(ErrorCatalogue.Locked, "livepc", "exec", "office", "--", "true");
        await device.FailAsync(ErrorCatalogue.Locked, "livepc", "screenshot", "office", folder["seen.png"]);
        Assert.False(File.Exists(folder["seen.png"]));
        await alice.FailAsync(ErrorCatalogue.PasswordNeeded, null, "livepc", "unlock", "office");
        await alice.FailAsync(ErrorCatalogue.PasswordWrong, "not that one either", "livepc", "unlock", "office");
        await device.FailAsync(ErrorCatalogue.Locked, "livepc", "exec", "office", "--", "true");
        await alice.RunAsync(Shell.Password, "livepc", "unlock", "office");
        Assert.Contains(Canary, await organisation.InGuestAsync("cat /home/user/secret.txt"), StringComparison.Ordinal);

        // Changed while it runs; its player is killed, and a mistyped password does not end the guest.
        const string Second = "the second password of alice";
        await File.WriteAllTextAsync(folder["new"], Second, Token);
        await alice.RunAsync(Shell.Password, "livepc", "password", "office", "--new-password-file", folder["new"]);
        var machine = Assert.Single(organisation.Machines());
        await organisation.KillPlayerAsync();
        await alice.FailAsync(ErrorCatalogue.PasswordWrong, Shell.Password, "livepc", "start", "office");
        Assert.Equal(machine, Assert.Single(organisation.Machines()));
        await alice.RunAsync(Second, "livepc", "start", "office");
        Assert.Equal(machine, Assert.Single(organisation.Machines()));
        Assert.Contains(Canary, await organisation.InGuestAsync("cat /home/user/secret.txt"), StringComparison.Ordinal);

        // Who helps asks for the log while it runs: it says what happened and nothing that was typed, and its user reads who asked.
        var asked = JsonDocument.Parse((await administrator.RunAsync("device", "list", "--json")).Output).RootElement[0].GetProperty("id").GetString()!;
        await administrator.FailAsync(ErrorCatalogue.RequestInvalid, "device", "logs", asked, "--livepc", "office");
        await administrator.RunAsync("device", "logs", asked, "--livepc", "office", "--reason", "alice called", "--out", folder["log"]);
        var log = (await File.ReadAllLinesAsync(folder["log"], Token)).Select(line => JsonSerializer.Deserialize<LogLine>(line, ContractJson.Options)!).ToList();
        string[] events = ["start", "start.step", "start.stage", "start.done", "start.failed", "lease.renewed", "lock", "unlock", "password.wrong", "log.asked"];
        Assert.All(events, name => Assert.Contains(log, line => line.Event == name));
        Assert.Contains(log, line => line.Event == "start.stage" && line.Text.StartsWith("booting took ", StringComparison.Ordinal));
        Assert.Contains("administrator asked for this log because: alice called", (await device.RunAsync("livepc", "status", "office")).Output, StringComparison.Ordinal);
        Assert.Contains("log.asked: ", (await device.RunAsync("livepc", "log", "office")).Output, StringComparison.Ordinal);
        var secret = await File.ReadAllBytesAsync(Path.Combine(organisation.DeviceState, "device.secret"), Token);
        foreach (var word in new[] { Shell.Password, Second, "not that one either", "brief", Canary, Convert.ToBase64String(secret), Convert.ToHexStringLower(secret) })
        {
            Assert.DoesNotContain(word, await File.ReadAllTextAsync(folder["log"], Token), StringComparison.Ordinal);
        }

        await alice.RunAsync(Second, "livepc", "stop", "office");

        // A lost laptop, with all of its files, in front of somebody who does not know the password.
        using (var copy = Process.Start("cp", ["-a", organisation.DeviceState, folder["stolen"]]))
        {
            await copy.WaitForExitAsync(Token);
        }

        var thief = new Shell(("NACRE_HOME", folder["stolen"]), ("XDG_RUNTIME_DIR", organisation.Runtime), ("NACRE_ACCEL", "tcg"), ("TPM2TOOLS_TCTI", "none"), ("NACRE_PASSWORD", "password1234"));
        await thief.FailAsync(ErrorCatalogue.PasswordWrong, "livepc", "start", "office");
        await thief.FailAsync(ErrorCatalogue.PasswordWrong, "livepc", "snapshot", "list", "office");
        await thief.FailAsync(ErrorCatalogue.PasswordWrong, "livepc", "password", "office", "--new-password-file", folder["new"]);
        await thief.FailAsync(ErrorCatalogue.PasswordWait, "livepc", "start", "office");
        await alice.FailAsync(ErrorCatalogue.PasswordNeeded, null, "livepc", "snapshot", "list", "office");

        // Forgotten. What the device handed over goes to a computer without a network, where the recovery key is.
        var id = JsonDocument.Parse((await administrator.RunAsync("recovery", "list", "--json")).Output).RootElement[0].GetProperty("device").GetString()!;
        await administrator.RunAsync("recovery", "fetch", id, "office", "--reason", "alice called", "--output", folder["escrow"]);
        Assert.Contains("alice called", (await administrator.RunAsync("audit", "list", "--action", "recovery.release")).Output, StringComparison.Ordinal);
        var code = (await offline.RunAsync("recovery", "unlock", "--escrow", folder["escrow"], "--key", folder["recovery"], "--passphrase-file", folder["pass"])).Line;
        await organisation.StopServerAsync();
        const string Third = "the third password of alice";
        await alice.FailAsync(ErrorCatalogue.PasswordWrong, Third, "livepc", "password", "office", "--recovery", "--code", "0000-0000-0000-0000-0000-0000");
        await alice.RunAsync(Third, "livepc", "password", "office", "--recovery", "--code", code);
        await alice.FailAsync(ErrorCatalogue.PasswordWrong, Third, "livepc", "password", "office", "--recovery", "--code", code); // used
        await alice.FailAsync(ErrorCatalogue.PasswordWrong, Second, "livepc", "start", "office");
        await alice.RunAsync(Third, "livepc", "start", "office");
        Assert.Contains(Canary, await organisation.InGuestAsync("cat /home/user/secret.txt"), StringComparison.Ordinal);
        await alice.RunAsync(Third, "livepc", "stop", "office");

        // The device is broken: its disk is read with the key that it had handed over.
        await offline.RunAsync("recovery", "key", "--escrow", folder["escrow"], "--key", folder["recovery"], "--passphrase-file", folder["pass"], "--output", folder["volume.key"]);
        var volume = Path.Combine(folder["stolen"], "livepcs", "office", "volumes", "data");
        Assert.Contains("68.72 GB", (await offline.RunAsync("volume", "stat", volume, "--key", folder["volume.key"])).Output, StringComparison.Ordinal);

        // With a network again the organisation gets the next code.
        await organisation.StartServerAsync();
        await alice.RunAsync(Third, "livepc", "snapshot", "list", "office");
        Assert.Equal(2, JsonDocument.Parse((await administrator.RunAsync("recovery", "list", "--json")).Output).RootElement[0].GetProperty("number").GetInt32());

        await alice.FailAsync(ErrorCatalogue.UsageInvalid, Third, "livepc", "forget", "office");
        var kept = Path.Combine(organisation.DeviceState, "livepcs", "office");
        Assert.True(File.Exists(Path.Combine(kept, "keys.json")));

        // No password lies anywhere.
        foreach (var word in new[] { Shell.Password, Second, Third, code, code.Replace("-", "", StringComparison.Ordinal) })
        {
            foreach (var place in new[] { organisation.DeviceState, organisation.ServerData, organisation.Runtime })
            {
                using var grep = Process.Start(new ProcessStartInfo("grep", ["-rlaF", "--devices=skip", word, place]) { RedirectStandardOutput = true })!;
                Assert.Equal("", await grep.StandardOutput.ReadToEndAsync(Token));
            }
        }

        await alice.RunAsync(Third, "livepc", "forget", "office", "--yes");
        Assert.False(Directory.Exists(kept));
        Assert.True(File.Exists(Path.Combine(organisation.DeviceState, "device.json")));
    }

    [Fact]
    [Trait("lane", "long")]
    public async Task A_LivePC_that_nobody_uses_locks_by_itself_and_works_on()
    {
        await using var organisation = await Organisation.CreateAsync();
        using var folder = new TemporaryDirectory();
        await organisation.Administrator.RunAsync("policy", "set", "organisation", "lock.idleMinutes=1");
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        await organisation.Device.RunAsync("livepc", "start", "office");
        await organisation.InGuestAsync("(while :; do date +%s > /tmp/ticks; sleep 1; done) >/dev/null 2>&1 &");
        var alice = new Typist(organisation, folder);
        string words;
        for (var limit = Stopwatch.StartNew(); ; await Task.Delay(1000, Token))
        {
            var locked = JsonDocument.Parse((await organisation.Device.RunAsync("livepc", "status", "office", "--json")).Output).RootElement.GetProperty("locked");
            if (locked.GetArrayLength() > 0)
            {
                words = locked[0].GetString()!;
                break;
            }

            Assert.True(limit.Elapsed < TimeSpan.FromMinutes(3), "it did not lock");
        }

        Assert.Contains("nobody used it for 1 minutes", words, StringComparison.Ordinal);
        var at = TimeProvider.System.GetUtcNow();
        await organisation.Device.FailAsync(ErrorCatalogue.Locked, "livepc", "exec", "office", "--", "true");
        await Task.Delay(TimeSpan.FromSeconds(10), Token);
        await alice.RunAsync(Shell.Password, "livepc", "unlock", "office");
        var ticked = long.Parse(await organisation.InGuestAsync("cat /tmp/ticks"), System.Globalization.CultureInfo.InvariantCulture);
        Assert.True(DateTimeOffset.FromUnixTimeSeconds(ticked) > at.AddSeconds(5), "the guest stood still");
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>The device's user, who gives a password in a file, or none.</summary>
    private sealed class Typist(Organisation organisation, TemporaryDirectory folder)
    {
        private readonly Shell shell = new(
            ("NACRE_HOME", organisation.DeviceState), ("XDG_RUNTIME_DIR", organisation.Runtime), ("NACRE_ACCEL", "tcg"), ("TPM2TOOLS_TCTI", "none"), ("NACRE_PASSWORD", ""));

        public Task<CommandResult> RunAsync(string password, params string[] arguments) => shell.RunAsync(With(password, arguments));

        public Task<CommandResult> FailAsync(ErrorKind kind, string? password, params string[] arguments) => shell.FailAsync(kind, With(password, arguments));

        /// <summary>The same file is the current and the new password, where another file is not named.</summary>
        private string[] With(string? password, string[] arguments)
        {
            if (password is null)
            {
                return arguments;
            }

            var file = folder[$"password-{Guid.NewGuid():N}"];
            File.WriteAllText(file, password + "\n");
            return [.. arguments, "--password-file", file, .. arguments.Contains("--new-password-file") ? Array.Empty<string>() : ["--new-password-file", file]];
        }
    }
}
