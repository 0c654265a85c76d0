using Nacre.Player.Devices;
using Nacre.Player.Trust;
using Nacre.Policies;

namespace Nacre.Player.HostChecks;

/// <summary>Checks this computer as a policy wants it.</summary>
/// <param name="facts">The host.</param>
/// <param name="paths">The player's folders.</param>
/// <param name="time">The clock.</param>
internal sealed class HostCheck(HostFacts facts, PlayerPaths paths, TimeProvider time)
{
    /// <summary>The version of nacre that runs.</summary>
    public static Version Client { get; } = typeof(HostCheck).Assembly.GetName().Version ?? new Version(0, 0);

    /// <summary>Runs all checks, those that the policy does not ask for too where <paramref name="isForShow"/>; of the administrator's scripts only those that it asks for.</summary>
    public async Task<IReadOnlyList<HostCheckResult>> RunAsync(Policy policy, EnrolledIdentity? identity, bool isForShow, CancellationToken cancellationToken)
    {
        var results = (await new HostInspection(facts, paths.State, Client, time).RunAsync(policy, isForShow, cancellationToken).ConfigureAwait(false)).ToList();
        if (identity is not null && policy.Get(Settings.HostScriptsAction) != CheckAction.Off && policy.Get(Settings.HostScripts).Count > 0)
        {
            results.AddRange(await new HostScriptRunner(new DeviceTrust(identity, time), time).RunAsync(policy, cancellationToken).ConfigureAwait(false));
        }

        var unknownFails = policy.Get(Settings.HostUnknown) == UnknownFact.Fail;
        return results.ConvertAll(result => result with
        {
            Fails = result.Action != CheckAction.Off && (result.Outcome == HostCheckOutcome.Failed || (result.Outcome == HostCheckOutcome.Unknown && unknownFails)),
        });
    }
}
