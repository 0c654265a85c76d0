using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Xunit;

namespace Nacre.EndToEnd.Tests;

/// <summary>Updates by deltas, from a real server to a real device; no guest has to run for that.</summary>
public sealed class DeltaUpdateTests
{
    private const int Block = 4096;

    [Fact]
    public async Task An_update_by_a_delta_moves_fewer_bytes_and_a_damaged_delta_only_costs_more_of_them()
    {
        await using var organisation = await Organisation.CreateAsync();
        var administrator = organisation.Administrator;
        var content = Program(30 << 20);
        await organisation.OfferAsync(await ImportAsync(organisation, "first", content), "desk");
        await organisation.EnrolAsync();
        await organisation.Device.RunAsync("livepc", "update", "office");
        var other = new Shell(("NACRE_HOME", organisation["other"]), ("XDG_RUNTIME_DIR", organisation.Runtime), ("TPM2TOOLS_TCTI", "none"));
        await other.RunAsync("device", "enrol", organisation.Url, (await administrator.RunAsync("device", "code", "alice")).Line);
        await other.RunAsync("livepc", "update", "office");

        // A new build: an address in every block of the first half is another one.
        for (var at = 100; at < content.Length / 2; at += Block)
        {
            content[at]++;
        }

        var published = await administrator.RunAsync("image", "publish", await ImportAsync(organisation, "second", content), "--channel", "stable");
        Assert.Contains("delta from release 1: ", published.Output, StringComparison.Ordinal);

        var update = await organisation.Device.RunAsync("livepc", "update", "office", "--json");
        var result = JsonNode.Parse(update.Output)!;
        var bytes = (long)result["bytes"]!;
        Assert.Null((string?)result["deltaFailure"]);
        Assert.InRange(bytes, 1, (long)result["savedBytes"]! / 4);

        // The same with a delta that somebody damaged: whole chunks, and the same release.
        foreach (var file in Directory.GetFiles(Path.Combine(organisation.ServerData, "segments"), "*", SearchOption.AllDirectories))
        {
            var stored = await File.ReadAllBytesAsync(file, TestContext.Current.CancellationToken);
            if (stored.AsSpan().StartsWith("NACREDPT"u8))
            {
                stored[^100] ^= 1;
                await File.WriteAllBytesAsync(file, stored, TestContext.Current.CancellationToken);
            }
        }

        var whole = await other.RunAsync("livepc", "update", "office");
        Assert.Contains("deltas save ", whole.Error, StringComparison.Ordinal);
        Assert.Contains("whole chunks came in the place of a delta", whole.Error, StringComparison.Ordinal);
        var downloaded = Regex.Match(whole.Output, @"\(([0-9.]+) MB downloaded\)");
        Assert.True(downloaded.Success, whole.Output);
        Assert.True(double.Parse(downloaded.Groups[1].Value, CultureInfo.InvariantCulture) * 1e6 > 3 * bytes, whole.Output);
        foreach (var device in new[] { organisation.Device, other })
        {
            Assert.Contains("up to date", (await device.RunAsync("livepc", "update", "office")).Output, StringComparison.Ordinal);
        }
    }

    private static async Task<string> ImportAsync(Organisation organisation, string name, byte[] content)
    {
        await File.WriteAllBytesAsync(organisation[name + ".raw"], content, TestContext.Current.CancellationToken);
        await organisation.Administrator.RunAsync("image", "import", organisation[name + ".raw"], "--format", "raw", "--name", "desk", "--output", organisation[name]);
        return organisation[name];
    }

    /// <summary>Words in random order: it compresses, and no two blocks are alike.</summary>
    private static byte[] Program(int length)
    {
        var random = new Random(11);
        var words = Enumerable.Range(0, 5000).Select(_ => Enumerable.Range(0, random.Next(4, 16)).Select(_ => (byte)random.Next(1, 256)).ToArray()).ToArray();
        var content = new byte[length];
        for (var at = 0; at < length;)
        {
            var word = words[random.Next(words.Length)];
            var count = Math.Min(word.Length, length - at);
            word.AsSpan(0, count).CopyTo(content.AsSpan(at));
            at += count;
        }

        (content[510], content[511]) = (0x55, 0xAA);
        return content;
    }
}
