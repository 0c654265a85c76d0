using System.Text;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.HostChecks;
using Nacre.Player.Leases;
using Nacre.Player.Machines;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>The lease of a LivePC that runs, renewed with the policy that came with it.</content>
public sealed partial class LivePcSession
{
    /// <summary>What only the layers of a guest's inside can carry.</summary>
    private static readonly Setting[] OfLayersWithin =
    [
        Settings.VmComputerName, Settings.VmTimeZone, Settings.LayerApp, Settings.LayerRetainUserApps, Settings.LayerRules, Settings.LayerQuotaAppsGB, Settings.LayerQuotaUserGB, Settings.AppVisibility,
    ];

    private AcknowledgePolicy? acknowledged;
    private IReadOnlyList<string>? guestDoes;

    /// <summary>Takes a lease anew: the policy of it holds at once. Where the server can't be reached, or grants none, the one that there is goes on.</summary>
    private async Task RenewLeaseAsync(CancellationToken cancellationToken)
    {
        try
        {
            using var identity = EnrolledIdentity.Open(paths);
            var taken = await OpenedLease.TakeAsync(identity, folder, book.Read().Needed, null, time, cancellationToken).ConfigureAwait(false);
            if (!taken.IsNew)
            {
                log.Write(EventLevel.Warning, "server.unreachable", taken.OfflineBecause?.Message ?? "the server did not answer");
                return;
            }

            policy = taken.Policy;
            NoteLease(taken);
            Change(now => now with { LeaseEnds = taken.Ends });
            await EnforceDevicesAsync(isAdopted: false, cancellationToken).ConfigureAwait(false);
            await AcknowledgePolicyAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException exception)
        {
            Change(now => now with { LeaseProblem = exception.Message });
        }
    }

    /// <summary>What the guest's start knows how to do.</summary>
    private async Task<IReadOnlyList<string>> DoesAsync(CancellationToken cancellationToken)
    {
        try
        {
            guestDoes ??= Encoding.ASCII.GetString((await agent!.ExecuteAsync("/bin/sed", ["-n", "s/^does //p", "/run/nacre/policy"], null, cancellationToken).ConfigureAwait(false)).Output).Trim().Split(' ');
        }
        catch (NacreException)
        {
            // The next contact says it.
        }

        return guestDoes ?? ["quotas", "hidden"];
    }

    /// <summary>Tells the server which policy holds here, where that is news. What the server does not hear now it hears at the next contact.</summary>
    private async Task AcknowledgePolicyAsync(CancellationToken cancellationToken)
    {
        var unenforceable = new List<string>();
        if (policy.Get(Settings.MeteredBehaviour) == MeteredBehaviour.Pause && await host.IsMeteredAsync(cancellationToken).ConfigureAwait(false) is null)
        {
            unenforceable.Add($"{Settings.MeteredBehaviour}: this computer does not say whether its network is metered");
        }

        if (policy.Get(Settings.LockOnHostLock) && await host.IsScreenLockedAsync(cancellationToken).ConfigureAwait(false) is null)
        {
            unenforceable.Add($"{Settings.LockOnHostLock}: this computer does not say whether its screen is locked");
        }

        if (claims?.ChannelProblem is { } channel)
        {
            unenforceable.Add(GuestText.Line($"{Settings.UpdateChannel}: {channel}", 400));
        }

        if (isUp && !isDisposable && moments?.FindOverdue(policy, folder.InUseSince("data")) is { } last)
        {
            unenforceable.Add($"{Settings.SnapshotWarnIfNoneDays}: no snapshot was taken since {last:yyyy-MM-dd}{(status.MomentProblem is { } why ? $": {GuestText.Line(why, 200)}" : "")}");
        }

        var checks = hostChecks;
        unenforceable.AddRange(checks.Where(result => result.Action != CheckAction.Off && result.Outcome == HostCheckOutcome.Unknown).Select(result => GuestText.Line($"{result.Setting}: {result.Detail}", 400)));
        unenforceable.AddRange(features.Unenforceable());
        if (kind == ImageKind.Disk)
        {
            unenforceable.AddRange(OfLayersWithin.Where(setting => policy.DecidedBy(setting) != Policy.FactoryLevel && !setting.AreSame(policy.Get(setting), setting.Factory)).Select(setting => $"{setting}: the guest's image is a whole disk"));
        }
        else if (status.Agent == AgentState.Answers)
        {
            var (does, what) = (await DoesAsync(cancellationToken).ConfigureAwait(false), new (string Word, Setting Setting)[] { ("quotas", Settings.LayerQuotaAppsGB), ("quotas", Settings.LayerQuotaUserGB), ("hidden", Settings.AppVisibility) });
            unenforceable.AddRange(what.Where(one => !does.Contains(one.Word) && !one.Setting.AreSame(policy.Get(one.Setting), one.Setting is Setting<int> ? 0 : one.Setting.Factory)).Select(one => $"{one.Setting}: the image was built before there was this setting"));
        }

        var waiting = Settings.All.Where(setting => setting.IsForNextStart && !setting.AreSame(policy.Get(setting), atStart.Get(setting))).Select(setting => setting.Name).ToList();
        var wanted = isUp ? MachineFeatures.Of(policy, HostFacts.Real) : features;
        waiting.AddRange(new[]
        {
            wanted.HasUsb && !features.HasUsb ? Settings.UsbMode.Name : "", wanted.HasClipboard && !features.HasClipboard ? policy.Get(Settings.ClipboardIn) != ClipboardMode.Off ? Settings.ClipboardIn.Name : Settings.ClipboardOut.Name : "",
        }.Where(name => name.Length > 0));
        Change(now => now with { PolicyVersion = policy.Version, PolicyFromNextStart = waiting, Unenforceable = unenforceable, LeaseProblem = null });
        var statement = new AcknowledgePolicy(policy.Version, waiting, unenforceable, StatementsOf(checks, policy), folder.AcceptedTerms);
        if (acknowledged is { } before && before.Version == statement.Version && before.FromNextStart!.SequenceEqual(waiting) && before.Unenforceable!.SequenceEqual(unenforceable)
            && before.HostChecks!.SequenceEqual(statement.HostChecks!) && before.AcceptedTerms == statement.AcceptedTerms)
        {
            return;
        }

        try
        {
            using var identity = EnrolledIdentity.Open(paths);
            using var client = identity.Connect();
            await client.AcknowledgePolicyAsync(folder.Name, statement, cancellationToken).ConfigureAwait(false);
            acknowledged = statement;
        }
        catch (NacreException)
        {
            // The next contact says it.
        }
    }

    /// <summary>What the server is told of the checks, as far as the policy lets it.</summary>
    internal static IReadOnlyList<StatedHostCheck> StatementsOf(IReadOnlyList<HostCheckResult> checks, Policy policy) =>
        policy.Get(Settings.Telemetry) == TelemetryLevel.Off ? [] : [.. checks.Where(result => result.Action != CheckAction.Off).Select(StatementOf)];

    private static StatedHostCheck StatementOf(HostCheckResult result) => new(
        result.Setting, result.Outcome == HostCheckOutcome.Passed ? "passed" : result.Outcome == HostCheckOutcome.Failed ? "failed" : "unknown",
        GuestText.Line(string.Join("; ", result.Facts.Select(fact => $"{fact.Key}={fact.Value}").Prepend(result.Detail)), 400));
}
