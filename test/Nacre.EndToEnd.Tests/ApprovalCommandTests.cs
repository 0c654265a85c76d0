using System.Text.Json;
using Nacre.Contracts;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>How a release comes to a channel, by the real commands of three administrators: checked, published, approved by another, moved; or rejected.</summary>
public sealed class ApprovalCommandTests
{
    private const string Image = "debian-minimal";
    private static readonly string[] Keys = ["release-signing.key"];
    private static readonly string[] ShownWhereItLacks =
    [
        "signatures: passed, ", "sbom: passed, ", "malware: not done, ", "boot: not done, skipped", "no channel can point at it:", "  the check 'boot' is required and was not made",
    ];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_channel_moves_once_a_release_has_its_checks_and_another_administrators_approval()
    {
        var golden = await GoldenImages.MinimalAsync(1);
        await using var organisation = await Organisation.CreateAsync();
        var first = organisation.Administrator;
        var image = organisation["image"];
        Directory.CreateDirectory(image);
        foreach (var file in Directory.GetFiles(golden))
        {
            File.Copy(file, Path.Combine(image, Path.GetFileName(file)));
        }

        await first.RunAsync("image", "policy", "--require", "signatures,sbom,boot", "--approvals", "1");
        await first.FailAsync(ErrorCatalogue.RequestInvalid, "image", "policy", "--require", "horoscope");
        var (ben, eve) = (await AddAsync(organisation, "ben"), await AddAsync(organisation, "eve"));
        await ben.FailAsync(ErrorCatalogue.Forbidden, "image", "policy", "--approvals", "0");
        await ben.FailAsync(ErrorCatalogue.Forbidden, "administrator", "add", "eve-again");
        Assert.Equal("required checks: signatures, sbom, boot\napprovals by others than the publisher: 1", (await ben.RunAsync("image", "policy")).Line);

        // Ben publishes: with the organisation's keys, which its first computer has.
        await first.RunAsync("device", "code", "alice");
        foreach (var key in Keys)
        {
            File.Copy(Path.Combine(organisation["admin"], key), Path.Combine(organisation["ben"], key));
        }

        Assert.Contains("boot: not done, skipped", (await ben.RunAsync("image", "check", image, "--no-boot")).Output, StringComparison.Ordinal);
        var refused = await ben.FailAsync(ErrorCatalogue.NotApproved, "image", "publish", image, "--channel", "stable");
        Assert.Contains(
            $"no channel can point at release 1 of '{Image}': the check 'boot' is required and was not made; it has 0 of 1 approvals by administrators other than 'ben'", refused.Error, StringComparison.Ordinal);
        Assert.Equal("", await ChannelsAsync(eve));

        var shown = (await eve.RunAsync("image", "show", Image, "1")).Output;
        Assert.Matches($"^{Image} release 1, published [0-9: -]+ by ben, ", shown);
        foreach (var line in ShownWhereItLacks)
        {
            Assert.Contains($"\n{line}", shown, StringComparison.Ordinal);
        }

        // Who published can't approve, whoever else is asked for; another's approval does not make up for a check.
        var own = await ben.FailAsync(ErrorCatalogue.Forbidden, "image", "approve", Image, "1");
        Assert.Contains("who published a release can't approve it: another administrator must", own.Error, StringComparison.Ordinal);
        Assert.Contains("the check 'boot' is required and was not made", (await eve.RunAsync("image", "approve", Image, "1", "--reason", "looked at it")).Error, StringComparison.Ordinal);
        await eve.FailAsync(ErrorCatalogue.NotApproved, "image", "channel", Image, "stable", "1");
        await first.RunAsync("image", "policy", "--require", "signatures,sbom");
        await eve.RunAsync("image", "channel", Image, "stable", "1");
        Assert.Equal("stable", await ChannelsAsync(ben));
        shown = (await ben.RunAsync("image", "show", Image, "1")).Output;
        Assert.Matches("\napproved by eve on [0-9: -]+: looked at it\nchannels can point at it; these do: stable\n$", shown);

        await RejectAsync(ben, eve);
        await ReplaceReportAsync(first, ben, eve, image);
        await first.FailAsync(ErrorCatalogue.NotFound, "image", "approve", Image, "7");
        await ben.FailAsync(ErrorCatalogue.NotFound, "image", "show", Image, "7");

        // Nobody is locked in: the file system of a system is an EROFS that any Linux mounts, and the command says where.
        Assert.Contains("an EROFS that any Linux mounts", (await ben.FailAsync(ErrorCatalogue.Unsupported, "image", "export", image, organisation["out.qcow2"])).Error, StringComparison.Ordinal);
    }

    /// <summary>A rejection stops every channel from being moved there, and moves none away.</summary>
    private static async Task RejectAsync(Shell ben, Shell eve)
    {
        Assert.Equal((int)ExitCode.Usage, (await eve.TryAsync(null, "image", "reject", Image, "1")).ExitCode);
        Assert.Contains("'eve' rejected it: wrong logo", (await eve.RunAsync("image", "reject", Image, "1", "--reason", "wrong logo")).Error, StringComparison.Ordinal);
        Assert.Contains("'eve' rejected it: wrong logo", (await ben.FailAsync(ErrorCatalogue.NotApproved, "image", "channel", Image, "pilot", "1")).Error, StringComparison.Ordinal);
        Assert.Matches("\nrejected by eve on [0-9: -]+: wrong logo\n", (await ben.RunAsync("image", "show", Image, "1")).Output);
        Assert.Equal("stable", await ChannelsAsync(ben));
        await eve.RunAsync("image", "approve", Image, "1");
        await ben.RunAsync("image", "channel", Image, "pilot", "1");
        Assert.Equal("pilot, stable", await ChannelsAsync(ben));
    }

    /// <summary>An approval is of one report, and of an administrator who still is one.</summary>
    private static async Task ReplaceReportAsync(Shell first, Shell ben, Shell eve, string image)
    {
        await ben.RunAsync("image", "check", image, "--no-boot", "--release", "1");
        var shown = (await ben.RunAsync("image", "show", Image, "1")).Output;
        Assert.Contains("(with another report: counts no more)\nno channel can point at it:\n  it has 0 of 1 approvals", shown, StringComparison.Ordinal);
        await eve.FailAsync(ErrorCatalogue.NotApproved, "image", "channel", Image, "canary", "1");
        await eve.RunAsync("image", "approve", Image, "1");
        await eve.RunAsync("image", "channel", Image, "canary", "1");
        await first.RunAsync("administrator", "remove", "eve");
        await eve.FailAsync(ErrorCatalogue.Unauthenticated, "image", "list");
        Assert.Contains("it has 0 of 1 approvals", (await ben.FailAsync(ErrorCatalogue.NotApproved, "image", "channel", Image, "later", "1")).Error, StringComparison.Ordinal);
        await first.RunAsync("image", "approve", Image, "1");
        await ben.RunAsync("image", "channel", Image, "later", "1");
    }

    /// <summary>A second administrator, on a computer of that person's own.</summary>
    private static async Task<Shell> AddAsync(Organisation organisation, string name)
    {
        var token = (await organisation.Administrator.RunAsync("administrator", "add", name)).Line;
        await File.WriteAllTextAsync(organisation[$"{name}.token"], token, Token);
        var shell = new Shell(("NACRE_ADMIN_HOME", organisation[name]));
        await shell.RunAsync("login", organisation.Url, "--token-file", organisation[$"{name}.token"]);
        return shell;
    }

    private static async Task<string> ChannelsAsync(Shell administrator)
    {
        var releases = JsonDocument.Parse((await administrator.RunAsync("image", "list", "--json")).Output).RootElement;
        return string.Join(", ", releases.EnumerateArray().Single().GetProperty("channels").EnumerateArray().Select(channel => channel.GetString()).Order(StringComparer.Ordinal));
    }
}
