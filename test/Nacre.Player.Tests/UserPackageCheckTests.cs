using System.Text;
using Nacre.Contracts;
using Nacre.Player.Machines;
using Nacre.Player.UserPackages;
using Xunit;

namespace Nacre.Player.Tests;

public sealed class UserPackageCheckTests
{
    [Fact]
    public async Task What_the_guest_finds_is_read()
    {
        var finding = await AskAsync(3, """{"carried":[{"package":"tmux","version":"3.3a-3"}],"conflicts":[{"package":"a","reason":"depends on b","version":"1"}],"replaced":["c"]}""");
        Assert.Equal([new UserPackage("tmux", "3.3a-3")], finding!.Carried);
        Assert.Equal([new UserPackageConflict("a", "1", "depends on b")], finding.Conflicts);
        Assert.Equal(["c"], finding.Replaced);
    }

    [Fact]
    public async Task A_guest_that_merges_no_packages_says_nothing() => Assert.Null(await AskAsync(4, ""));

    [Theory]
    [InlineData(0, "")]
    [InlineData(0, "null")]
    [InlineData(3, "{}")]
    [InlineData(3, "[1")]
    [InlineData(1, "{}")]
    [InlineData(137, "")]
    public async Task Whatever_else_the_guest_answers_is_an_error(int exitCode, string untrustedAnswer)
    {
        var exception = await Assert.ThrowsAsync<NacreException>(() => AskAsync(exitCode, untrustedAnswer));
        Assert.Equal(ErrorCatalogue.GuestFailed, exception.Kind);
    }

    private static Task<UserPackageFinding?> AskAsync(int exitCode, string output) => UserPackageCheck.AskAsync(
        (_, _, _) => Task.FromResult(new GuestCommandResult(exitCode, Encoding.UTF8.GetBytes(output), [])), [], TestContext.Current.CancellationToken);
}
