using System.Globalization;
using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Images;
using Nacre.Images.Checking;
using Nacre.Player.BootTests;

namespace Nacre.Cli;

/// <summary>The check that starts an image: the player's own machine, and its result as the others have theirs.</summary>
internal static class BootCheck
{
    private const double MostMinutes = 240;

    /// <summary>What <see cref="CheckOptions.Boot"/> is to do.</summary>
    /// <param name="image">The image that is checked.</param>
    /// <param name="system">Of an application layer: the folder of its system; null: it is not started.</param>
    /// <param name="units">Units that must be active.</param>
    /// <param name="minutes">How long it may take.</param>
    /// <param name="temporaryFolder">Where the guest's blank layers are.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="NacreException">UsageInvalid: the limit is none, or the system is not the one that the layer was built on. NotAnImage: the system's folder.</exception>
    public static async Task<Func<Action<double, string>, CancellationToken, Task<CheckResult>>> PrepareAsync(
        GoldenImage image, string? system, IReadOnlyList<string> units, double minutes, string temporaryFolder, CancellationToken cancellationToken)
    {
        if (!(minutes is > 0 and <= MostMinutes))
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"--boot-minutes must be more than 0 and at most {MostMinutes}");
        }

        if (image.Kind != ImageKind.Application)
        {
            return system is null
                ? (report, stop) => RunAsync(new BootTest { System = image, Units = units, Limit = TimeSpan.FromMinutes(minutes), TemporaryFolder = temporaryFolder }, report, stop)
                : throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{image.Name}' is no application layer, and starts on nothing but itself");
        }

        if (system is null)
        {
            return (_, _) => Task.FromResult(ImageChecks.Result(ReleaseChecks.Boot, CheckOutcome.NotDone, "the system that it was built on was not named (--on)", []));
        }

        var below = GoldenImage.Open(system);
        await using var file = File.OpenRead(below.Artifacts[^1].Path);
        if (below.Kind != ImageKind.System || Convert.ToHexStringLower(await SHA256.HashDataAsync(file, cancellationToken)) != image.BuiltOn)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{system}' is not the system that '{image.Name}' was built on");
        }

        return (report, stop) => RunAsync(
            new BootTest { System = below, Layers = [image], Units = units, Limit = TimeSpan.FromMinutes(minutes), TemporaryFolder = temporaryFolder }, report, stop);
    }

    private static async Task<CheckResult> RunAsync(BootTest test, Action<double, string> report, CancellationToken cancellationToken)
    {
        report(double.NaN, "starting it in a throw-away guest");
        var result = await test.RunAsync(words => report(double.NaN, $"starting it: {words}"), cancellationToken);
        var failed = result.FailedUnits.Count == 0 ? "" : $"; {result.FailedUnits.Count} of its units failed";
        return ImageChecks.Result(
            ReleaseChecks.Boot, result.IsHealthy ? CheckOutcome.Passed : CheckOutcome.Failed,
            string.Create(CultureInfo.InvariantCulture, $"{(result.IsHealthy ? "healthy" : "not healthy")} after {result.Seconds:0.0} s under {result.Accelerator}: {result.Reason}{failed}"),
            [.. result.FailedUnits.Select(unit => $"{unit} failed"), .. result.Console.Select(line => $"console: {line}")]);
    }
}
