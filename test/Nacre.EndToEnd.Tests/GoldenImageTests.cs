using System.Security.Cryptography;
using Nacre.Testing;
using Xunit;

namespace Nacre.EndToEnd.Tests;

public sealed class GoldenImageTests
{
    [Fact]
    public async Task The_same_recipe_built_again_elsewhere_gives_the_same_bytes()
    {
        var first = await GoldenImages.MinimalAsync(1);
        using var folder = new TemporaryDirectory();
        await new Shell().RunAsync("image", "build", Repository.Path("recipes", "debian-minimal.yaml"), "--output", folder["again"]);
        foreach (var name in new[] { "kernel", "initramfs", "system.erofs", "image.json" })
        {
            Assert.Equal(await HashAsync(Path.Combine(first, name)), await HashAsync(Path.Combine(folder["again"], name)));
        }
    }

    private static async Task<string> HashAsync(string path)
    {
        await using var stream = File.OpenRead(path);
        return $"{Path.GetFileName(path)} {Convert.ToHexStringLower(await SHA256.HashDataAsync(stream, TestContext.Current.CancellationToken))}";
    }
}
