using System.Security.Cryptography;
using System.Text.RegularExpressions;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player;
using Nacre.Player.Devices;
using Nacre.Player.Keys;
using Nacre.Player.Leases;
using Nacre.Player.LivePcs;
using Nacre.Volumes;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>A layer that was put back to an older state behind the player's back. What a guest would write is written here, and but for the last start QEMU is
/// missing, which a start finds out after it has opened the layers: that takes seconds.</summary>
public sealed class FreshnessTests
{
    private static readonly string[] Places = ["NACRE_HOME", "XDG_RUNTIME_DIR"];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_layer_that_was_put_back_is_refused_until_its_user_accepts_it_and_the_server_writes_that_down()
    {
        await using var organisation = await Organisation.CreateAsync();
        await organisation.OfferAsync(await GoldenImages.MinimalAsync(1));
        await organisation.EnrolAsync();
        var bare = new Shell(
            ("NACRE_HOME", organisation.DeviceState), ("XDG_RUNTIME_DIR", organisation.Runtime), ("NACRE_ACCEL", "tcg"), ("PATH", organisation["nowhere"]));
        Task<CommandResult> OpensAsync(params string[] options) => bare.FailAsync(ErrorCatalogue.ProgramMissing, ["livepc", "start", "office", .. options]);
        Task<CommandResult> RefusedAsync() => bare.FailAsync(ErrorCatalogue.VolumeOutdated, "livepc", "start", "office");

        var livePc = Path.Combine(organisation.DeviceState, "livepcs", "office");
        var (layer, anchors) = (Path.Combine(livePc, "volumes", "data"), Path.Combine(livePc, "anchors"));
        await OpensAsync();
        await WriteAsync(organisation);
        await OpensAsync();
        var (old, oldAnchors) = (organisation["old"], organisation["old-anchors"]);
        Copy(layer, old);
        File.Copy(anchors, oldAnchors);
        await WriteAsync(organisation);
        await OpensAsync();
        var newest = organisation["newest"];
        Copy(layer, newest);
        Assert.Empty(await AuditAsync(organisation));

        // The layer alone: this device knows better, without a server too.
        PutBack(old, layer);
        Assert.Matches("the layer 'data' .*an older copy", (await RefusedAsync()).Error);
        await organisation.StopServerAsync();
        await RefusedAsync();
        await organisation.StartServerAsync();

        // And all that this device knows of it: the server knows better, and notes what it was told.
        File.Copy(oldAnchors, anchors, overwrite: true);
        await RefusedAsync();
        Assert.All(await AuditAsync(organisation), entry => Assert.Equal("anchor.refuse", entry.Action));
        Assert.Contains(await AuditAsync(organisation), entry => entry.Detail.Contains("layer data", StringComparison.Ordinal));
        File.Delete(anchors);
        await RefusedAsync();

        // The newest one is in its place again: nothing happened.
        PutBack(newest, layer);
        await OpensAsync();
        var before = (await AuditAsync(organisation)).Count;

        // The older one is what the user wants. A real guest starts with it.
        PutBack(old, layer);
        var started = await organisation.Device.RunAsync("livepc", "start", "office", "--memory", "1024", "--accept-older-state");
        Assert.Matches("accepted as the newest state from now on: the layer 'data' .*an older copy", started.Output);
        await organisation.InGuestAsync("echo works > /home/user/note; sync");
        await organisation.Device.RunAsync("livepc", "stop", "office");
        var noted = Assert.Single((await AuditAsync(organisation)).Skip(before));
        Assert.Equal(("anchor.replace", "office"), (noted.Action, noted.Subject));
        Assert.StartsWith("device:", noted.Actor, StringComparison.Ordinal);
        Assert.Matches(@"^layer data: position \d+ of volume \S+ \(epoch 2\) accepted in place of position \d+ of volume \S+ \(epoch 1\)$", noted.Detail);

        // From there on all is as before, and what the guest wrote counts.
        var (accepted, worked) = (organisation["accepted"], await OpensAsync());
        Assert.DoesNotContain("accepted", worked.Output + worked.Error, StringComparison.Ordinal);
        Copy(layer, accepted);
        PutBack(old, layer);
        File.Delete(anchors);
        await RefusedAsync();
        PutBack(accepted, layer);
        await OpensAsync("--accept-older-state");
        Assert.Equal(before + 1, (await AuditAsync(organisation)).Count);
    }

    /// <summary>Writes something to the user's data, as a guest would.</summary>
    private static async Task WriteAsync(Organisation organisation)
    {
        var before = Places.ToDictionary(name => name, Environment.GetEnvironmentVariable);
        try
        {
            Environment.SetEnvironmentVariable("NACRE_HOME", organisation.DeviceState);
            Environment.SetEnvironmentVariable("XDG_RUNTIME_DIR", organisation.Runtime);
            var paths = PlayerPaths.Open();
            var folder = new LivePcFolder(paths, "office");
            using var identity = EnrolledIdentity.Open(paths);
            var lease = OpenedLease.TryOpenKept(identity, folder, TimeProvider.System)!;
            using var part = lease.KeyPart(identity);
            using var secrets = new KeySecrets { Password = SecretBytes.Take(System.Text.Encoding.UTF8.GetBytes(Shell.Password)) };
            using var key = new LivePcKeys(folder, identity, TimeProvider.System).Open(part.Span, lease.Policy, secrets);
            await using var volume = Volume.Open(folder.Volume("data"), key.Span);
            await volume.WriteAsync(0, RandomNumberGenerator.GetBytes(64 * 1024), forceUnitAccess: true, Token);
        }
        finally
        {
            foreach (var (name, value) in before)
            {
                Environment.SetEnvironmentVariable(name, value);
            }
        }
    }

    private static async Task<List<AuditEntry>> AuditAsync(Organisation organisation)
    {
        var token = (await File.ReadAllTextAsync(Path.Combine(organisation.ServerData, "admin-token"), Token)).Trim();
        using var client = new NacreClient(new Uri(organisation.Url), Credential.Administrator(token));
        var log = await client.GetAuditAsync(cancellationToken: Token);
        Assert.True(log.Verified);
        return [.. log.Entries.Where(entry => Regex.IsMatch(entry.Action, @"^anchor\."))];
    }

    private static void Copy(string source, string target)
    {
        Directory.CreateDirectory(target);
        foreach (var file in Directory.GetFiles(source))
        {
            File.Copy(file, Path.Combine(target, Path.GetFileName(file)), overwrite: true);
        }
    }

    private static void PutBack(string copy, string target)
    {
        Directory.Delete(target, recursive: true);
        Copy(copy, target);
    }
}
