using System.Text;
using Nacre.Contracts;

namespace Nacre.Player.Machines;

/// <summary>When a start is healthy: the agent answers, then every unit that was named is active. A guest whose inside nobody knows may have no agent.</summary>
internal static class GuestHealth
{
    /// <summary>How long a guest whose inside nobody knows may take until its agent answers; then it counts as one without.</summary>
    public static TimeSpan AgentLimit(string? accelerator) => TimeSpan.FromMinutes(accelerator == Accelerator.Emulation ? 6 : 2);

    /// <summary>The units that are not active, and whether the guest has done all it does by itself.</summary>
    /// <exception cref="NacreException">GuestFailed.</exception>
    public static async Task<(IReadOnlyList<(string Unit, string State)> Missing, bool Settled)> FindInactiveAsync(
        GuestAgent agent, IReadOnlyList<string> units, CancellationToken cancellationToken)
    {
        // Asked first: what is not active after everything was started will not be.
        var running = await agent.ExecuteAsync("/bin/systemctl", ["is-system-running"], null, cancellationToken).ConfigureAwait(false);
        var answer = await agent.ExecuteAsync("/bin/systemctl", ["is-active", "--", .. units], null, cancellationToken).ConfigureAwait(false);
        var states = Encoding.UTF8.GetString(answer.Output).Split('\n', StringSplitOptions.RemoveEmptyEntries);
        var missing = units.Select((unit, number) => (unit, GuestText.Plain(number < states.Length ? states[number] : "unknown"))).Where(one => one.Item2 != "active").ToList();
        var settled = Encoding.UTF8.GetString(running.Output).Trim() is "running" or "degraded" && missing.TrueForAll(one => one.Item2 is not ("activating" or "reloading"));
        return (missing, settled);
    }

    /// <summary>Why a start ended, where the initramfs was the one that ended it; null where it was not.</summary>
    public static string? ReasonOf(string console)
    {
        const string Mark = "nacre: failed: ";
        var said = console.Split('\n').LastOrDefault(line => line.Contains(Mark, StringComparison.Ordinal));
        return said?[(said.IndexOf(Mark, StringComparison.Ordinal) + Mark.Length)..].Trim() is { Length: > 0 } reason ? reason : null;
    }
}
