using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using Nacre.Player.UserPackages;
using Nacre.Policies;

namespace Nacre.Player.Machines;

/// <summary>What the guest's initramfs is told about its layers (docs/adr/0006): files in memory that QEMU reads once and shows the guest. Nothing of it is secret.</summary>
internal sealed class GuestParameters : IDisposable
{
    /// <summary>Their names; the same for every machine.</summary>
    public static readonly ImmutableArray<string> Names = ["rules", "stack", "applications", "conflicts", "units", "computer-name", "time-zone", "quotas", "hidden"];

    private readonly MemoryFile[] files;

    /// <param name="policy">The lease's.</param>
    /// <param name="stack">The corporate layers that start, lowest first, each <c>NAME VERSION</c>.</param>
    /// <param name="conflicts">What is done with a user's package that the corporate layers can't carry.</param>
    /// <param name="groups">The user's, as far as <see cref="AppVisibility"/> needs them.</param>
    /// <param name="serial">What <see cref="Settings.SerialMask"/> stands for.</param>
    public GuestParameters(Policy policy, IEnumerable<string> stack, UserPackageChoice conflicts, IReadOnlyCollection<string> groups, string serial = "")
    {
        files = [.. Texts(policy, stack, conflicts, groups, serial).Zip(Names, (text, name) => new MemoryFile(name, Encoding.UTF8.GetBytes(text)))];
    }

    /// <summary>For <see cref="MachineOptions.Parameters"/>.</summary>
    public IReadOnlyList<(string Name, string Path)> Paths => [.. Names.Zip(files, (name, file) => (name, file.Path))];

    /// <summary>The same names without files, for the shape of a machine that runs.</summary>
    public static IReadOnlyList<(string Name, string Path)> WithoutFiles => [.. Names.Select(name => (name, ""))];

    /// <summary>The texts, in the order of <see cref="Names"/>.</summary>
    internal static ImmutableArray<string> Texts(Policy policy, IEnumerable<string> stack, UserPackageChoice conflicts, IReadOnlyCollection<string> groups, string serial = "") =>
    [
        Lines(policy.Get(Settings.LayerRules)), Lines(stack), policy.Get(Settings.LayerApp) ? "keep\n" : "discard\n", $"{conflicts.ToString().ToLowerInvariant()}\n", Lines(policy.Get(Settings.UpdateHealthUnits)),
        $"{policy.Get(Settings.VmComputerName).Replace(Settings.SerialMask, serial, StringComparison.Ordinal)}\n", $"{(policy.Get(Settings.VmTimeZone) is "host" ? TimeZoneInfo.Local.Id : policy.Get(Settings.VmTimeZone))}\n",
        Lines(QuotasOf(policy)), Lines(AppVisibility.Hidden(policy, groups)),
    ];

    public void Dispose()
    {
        foreach (var file in files)
        {
            file.Dispose();
        }
    }

    private static IEnumerable<string> QuotasOf(Policy policy) => new[] { ("applications", Settings.LayerQuotaAppsGB), ("data", Settings.LayerQuotaUserGB) }
        .Where(layer => policy.Get(layer.Item2) > 0).Select(layer => string.Create(CultureInfo.InvariantCulture, $"{layer.Item1} {policy.Get(layer.Item2)}000000000"));

    private static string Lines(IEnumerable<string> lines) => string.Concat(lines.Select(line => line + "\n"));
}
