using Nacre.Contracts;
using Nacre.Server;
using Nacre.Testing;
using Xunit;

namespace Nacre.Cli.Tests;

/// <summary>A user enrols a device without an administrator's code, by the real program and a real server.</summary>
public sealed class EnrolCommandTests : IDisposable
{
    private const string Password = "four words picked by dice";
    private readonly TemporaryDirectory folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task Who_signs_in_enrols_a_device_where_the_policy_lets_users_and_nobody_stays_signed_in()
    {
        await using var server = NacreServer.Create(new ServerOptions { DataDirectory = folder["server"], Listen = "http://127.0.0.1:0" });
        await NacreServer.StartAsync(server, TestContext.Current.CancellationToken);
        var url = server.Urls.First();
        await DoneAsync("login", url, "--token-file", folder["server/admin-token"]);
        await DoneAsync("user", "add", "ann");
        await DoneAsync("device", "code", "ann"); // the organisation's trust begins with the first
        await File.WriteAllTextAsync(folder["password"], Password, TestContext.Current.CancellationToken);
        await DoneAsync("account", "accept", url, (await DoneAsync("user", "invite", "ann")).Trim(), "--password-file", folder["password"]);

        string[] enrol = ["device", "enrol", url, "--user", "ann", "--password-file", folder["password"]];
        await RefusedAsync(ErrorCatalogue.Forbidden, enrol);
        await RefusedAsync(ErrorCatalogue.UsageInvalid, [.. enrol, "--oidc"]);
        await RefusedAsync(ErrorCatalogue.UsageInvalid, "device", "enrol", url);
        await RefusedAsync(ErrorCatalogue.UsageInvalid, [.. enrol, "AAAA-BBBB"]);
        await DoneAsync("policy", "set", "organisation", "enrolment.bySelf=on");
        await File.WriteAllTextAsync(folder["wrong"], "another", TestContext.Current.CancellationToken);
        await RefusedAsync(ErrorCatalogue.SignInRefused, "device", "enrol", url, "--user", "ann", "--password-file", folder["wrong"]);
        Assert.Contains("for ann; this device's key is in ", await DoneAsync(enrol), StringComparison.Ordinal);
        Assert.Contains("ann", await DoneAsync("device", "list"), StringComparison.Ordinal); // still as the administrator
        Assert.Equal(0, (await NacreProgram.JsonAsync(folder, "user", "people")).EnumerateArray().Single(one => one.GetProperty("name").GetString() == "ann").GetProperty("sessions").GetInt32());
        await RefusedAsync(ErrorCatalogue.AlreadyEnrolled, enrol);
        await RefusedAsync(ErrorCatalogue.AlreadyEnrolled, "device", "enrol", url, "--user", "ann", "--password-file", folder["wrong"]); // said before anybody signs in
    }

    private async Task<string> DoneAsync(params string[] arguments)
    {
        var (code, output, error) = await NacreProgram.RunAsync(folder, arguments);
        Assert.True(code == 0, $"{string.Join(' ', arguments)}: {error}");
        return output;
    }

    private async Task RefusedAsync(ErrorKind kind, params string[] arguments)
    {
        var (code, _, error) = await NacreProgram.RunAsync(folder, arguments);
        Assert.True(code == (int)kind.ExitCode, $"{string.Join(' ', arguments)} ended with {code}: {error}");
        Assert.Contains($"nacre: hint: {kind.Hint}", error, StringComparison.Ordinal);
    }
}
