using Nacre.Contracts;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>An administrator takes the root and the targets key off the computer, signs without a network, and replaces the publisher's key.</summary>
public sealed class TrustCommandTests
{
    [Fact]
    public async Task The_root_goes_offline_with_a_threshold_and_a_stolen_publishers_key_is_replaced()
    {
        await using var organisation = await Organisation.CreateAsync();
        var administrator = organisation.Administrator;
        using var folder = new TemporaryDirectory();
        await File.WriteAllTextAsync(folder["pass"], "correct horse battery\n", TestContext.Current.CancellationToken);
        var offline = new Shell(); // no login, no server
        foreach (var name in new[] { "r1", "r2", "r3", "t", "p" })
        {
            await offline.RunAsync("trust", "key", folder[name], "--passphrase-file", folder["pass"]);
        }

        Assert.StartsWith("-----BEGIN ENCRYPTED PRIVATE KEY-----", await File.ReadAllTextAsync(folder["r1"], TestContext.Current.CancellationToken), StringComparison.Ordinal);
        await offline.FailAsync(ErrorCatalogue.AlreadyExists, "trust", "key", folder["r1"], "--passphrase-file", folder["pass"]);
        await administrator.FailAsync(ErrorCatalogue.TrustMissing, "trust", "status");
        await organisation.EnrolAsync(); // 'device code' begins the trust
        await administrator.FailAsync(ErrorCatalogue.AlreadyExists, "trust", "init");
        Assert.Contains("1 of 1", (await administrator.RunAsync("trust", "status")).Output, StringComparison.Ordinal);

        var files = folder["files"];
        var drafted = await administrator.RunAsync(
            "trust", "rotate", "--root", folder["r1.pub"], "--root", folder["r2.pub"], "--root", folder["r3.pub"], "--threshold", "2", "--targets", folder["t.pub"], "--output", files);
        Assert.Contains("root.json: lacks 2 signatures", drafted.Output, StringComparison.Ordinal);
        string root = Path.Combine(files, "root.json"), targets = Path.Combine(files, "targets.json");
        await offline.RunAsync("trust", "sign", root, "--key", folder["r1"], "--passphrase-file", folder["pass"]);
        await administrator.FailAsync(ErrorCatalogue.TrustNotAuthentic, "trust", "sign", root, "--send");
        await offline.RunAsync("trust", "sign", root, "--key", folder["r3"], "--passphrase-file", folder["pass"]);
        await administrator.RunAsync("trust", "sign", root, "--send");
        await offline.RunAsync("trust", "sign", targets, "--key", folder["t"], "--passphrase-file", folder["pass"]);
        await administrator.RunAsync("trust", "sign", targets, "--send");
        var status = (await administrator.RunAsync("trust", "status")).Output;
        Assert.Contains("2 of 2", status, StringComparison.Ordinal);
        Assert.DoesNotContain("0 of", status, StringComparison.Ordinal);

        // This computer's key is no targets key any more: it can't have a new image believed by itself.
        await administrator.FailAsync(ErrorCatalogue.TrustNotAuthentic, "image", "publish", await GoldenImages.MinimalAsync(1));
        await administrator.RunAsync("trust", "rotate", "--publisher", folder["p.pub"], "--image", "debian-minimal", "--key", folder["t"], "--passphrase-file", folder["pass"], "--output", files);
        Assert.Contains("targets", (await administrator.RunAsync("trust", "status")).Output, StringComparison.Ordinal);
        await administrator.FailAsync(
            ErrorCatalogue.FileAccess, "trust", "sign", root, "--key", folder["r2"], "--passphrase-file", folder["r1.pub"]); // a wrong passphrase
    }
}
