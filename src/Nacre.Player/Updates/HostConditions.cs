using System.ComponentModel;
using System.Diagnostics;

namespace Nacre.Player.Updates;

/// <summary>What this computer runs on and over which kind of network, as it says itself. What can't be found out is no reason to wait.</summary>
/// <param name="PowerSupplies">The kernel's folder of power supplies (Documentation/ABI/testing/sysfs-class-power).</param>
/// <param name="Bus">The program that asks NetworkManager and logind over the system's bus.</param>
internal sealed record HostConditions(string PowerSupplies = "/sys/class/power_supply", string Bus = "busctl")
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(5);

    /// <summary>Whether it runs on its battery: a battery discharges, and no mains is connected.</summary>
    public bool IsOnBattery()
    {
        try
        {
            var supplies = Directory.GetDirectories(PowerSupplies).Select(supply => (Type: Read(supply, "type"), Online: Read(supply, "online"), Status: Read(supply, "status"), Scope: Read(supply, "scope"))).ToList();
            return supplies.Exists(supply => supply is { Type: "Battery", Status: "Discharging" } && supply.Scope != "Device")
                && !supplies.Exists(supply => supply.Type is "Mains" or "USB" && supply.Online == "1");
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    /// <summary>Whether the network is metered, or NetworkManager guesses that it is (NMMetered: 1 yes, 3 guessed yes); null where it does not say.</summary>
    public async Task<bool?> IsMeteredAsync(CancellationToken cancellationToken) =>
        await AskAsync("org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager", "Metered", cancellationToken).ConfigureAwait(false) switch
        {
            "u 1" or "u 3" => true,
            "u 2" or "u 4" => false,
            _ => null,
        };

    /// <summary>Whether this user's screen is locked, as the desktop tells logind; null where it does not say.</summary>
    public async Task<bool?> IsScreenLockedAsync(CancellationToken cancellationToken) =>
        await AskAsync("org.freedesktop.login1", "/org/freedesktop/login1/session/auto", "org.freedesktop.login1.Session", "LockedHint", cancellationToken).ConfigureAwait(false) switch
        {
            "b true" => true,
            "b false" => false,
            _ => null,
        };

    /// <summary>Reads a property on the system's bus; null where nobody answers.</summary>
    private async Task<string?> AskAsync(string service, string path, string type, string property, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(Limit);
        try
        {
            using var process = Process.Start(new ProcessStartInfo(Bus, ["--system", "get-property", service, path, type, property])
            {
                RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true,
            })!;
            process.StandardInput.Close();
            _ = process.StandardError.ReadToEndAsync(limit.Token);
            var answer = await process.StandardOutput.ReadToEndAsync(limit.Token).ConfigureAwait(false);
            await process.WaitForExitAsync(limit.Token).ConfigureAwait(false);
            return process.ExitCode != 0 ? null : answer.Trim();
        }
        catch (Win32Exception)
        {
            return null;
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return null;
        }
    }

    private static string? Read(string supply, string name)
    {
        var file = Path.Combine(supply, name);
        return File.Exists(file) ? File.ReadAllText(file).Trim() : null;
    }
}
