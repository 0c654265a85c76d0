using System.Diagnostics;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Machines;
using Nacre.Player.Stacks;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <content>Corporate layers on trial: what a healthy start is, and going back to the previous ones where a start was none (docs/adr/0006).</content>
public sealed partial class LivePcSession
{
    /// <summary>What the initramfs says when a user's package keeps these layers from starting.</summary>
    private const string UserPackagesFailure = "user packages:";

    private static readonly TimeSpan UnitInterval = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan ReportInterval = TimeSpan.FromMinutes(1);

    /// <summary>Why a start was not healthy.</summary>
    /// <param name="Reason">In one line.</param>
    /// <param name="Console">The guest's last lines.</param>
    private sealed record Unhealthy(string Reason, string Console)
    {
        public bool IsUserPackages => Reason.StartsWith(UserPackagesFailure, StringComparison.Ordinal);
    }

    /// <summary>Starts the corporate layers that are next, until the guest ends. Those on trial have a second attempt; then the previous ones start.</summary>
    private async Task StartStackAsync()
    {
        while (true)
        {
            try
            {
                await StartAsync().ConfigureAwait(false);
                return;
            }
            catch (NacreException) when (unhealthy is not null && !isUp)
            {
                if (!await GoBackAsync(releases!.Stack, unhealthy).ConfigureAwait(false))
                {
                    throw;
                }
            }

            stopping.Token.ThrowIfCancellationRequested();
            Forget();
            folder.Machine = null;
        }
    }

    /// <summary>Writes down that a start was not healthy.</summary>
    /// <returns>Whether to start again: the same layers, or those that were good before.</returns>
    private async Task<bool> GoBackAsync(CorporateStack failed, Unhealthy failure)
    {
        var state = await book.ChangeAsync(now => now.Failed(failed), CancellationToken.None).ConfigureAwait(false);
        if (!failed.Equals(state.Trial))
        {
            return false;
        }

        var fallback = state.Fallback(failed, lease!.Covers);
        if (fallback is not null && !failure.IsUserPackages && state.Failures < policy.Get(Settings.UpdateTries))
        {
            Report(LivePcPhase.Lease, $"{failed} did not reach a healthy start and is tried once more: {failure.Reason}");
            return true;
        }

        if (fallback is not null || failure.IsUserPackages || state.Failures >= policy.Get(Settings.UpdateTries))
        {
            var kind = fallback is null ? ReportKind.Failed : failure.IsUserPackages ? ReportKind.UserPackages : ReportKind.SetAside;
            await KeepReportAsync(kind, failed, failure, now => fallback is null ? now : now.PutAside(failed, fallback, failure.Reason, time.GetUtcNow())).ConfigureAwait(false);
        }

        if (fallback is null)
        {
            return false;
        }

        var words = $"{failed} was set aside: {failure.Reason}";
        Change(now => now with { SetAside = words });
        Report(LivePcPhase.Lease, $"{words}; starting {fallback}");
        return true;
    }

    /// <summary>Keeps a report for the server together with what changes with it, and sends it where the server can be reached.</summary>
    private async Task KeepReportAsync(ReportKind kind, CorporateStack stack, Unhealthy failure, Func<StackState, StackState> change)
    {
        using var identity = EnrolledIdentity.Open(paths);
        var box = new ReportBox(identity, folder.Name, book, () => policy);
        var kept = box.Seal(new SendReport(
            System.Security.Cryptography.RandomNumberGenerator.GetHexString(32, lowercase: true), time.GetUtcNow(), kind, stack.Releases,
            GuestText.Shorten(failure.Reason, 1000), GuestText.Shorten(failure.Console, 8000)));
        await book.ChangeAsync(now => change(now).Report(kept), CancellationToken.None).ConfigureAwait(false);
        using var client = identity.Connect();
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20), time);
        try
        {
            await box.DeliverAsync(client, null, limit.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // It is sent later.
        }
    }

    /// <summary>Sends what the server has not had yet, until nothing is left: what started, too. Says where application layers do not fit the system that they run on.</summary>
    private async Task ReportAsync(CancellationToken cancellationToken)
    {
        try
        {
            await ExamineLayersAsync(cancellationToken).ConfigureAwait(false);
            using var identity = EnrolledIdentity.Open(paths);
            using var client = identity.Connect();
            var box = new ReportBox(identity, folder.Name, book, () => policy);

            // Not kept: the next start says what is true then.
            var started = isHealthy
                ? new SendReport(System.Security.Cryptography.RandomNumberGenerator.GetHexString(32, lowercase: true), time.GetUtcNow(), ReportKind.Started, releases!.Stack.Releases, "healthy", "")
                : null;
            while (!await box.DeliverAsync(client, started, cancellationToken).ConfigureAwait(false))
            {
                await Task.Delay(ReportInterval, time, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or NacreException)
        {
            // The LivePC ends, or can't write its state now; the next start sends what is left.
        }
    }

    /// <summary>Application layers that were built on another release than the one below them may lack something there: the guest's own apt knows.</summary>
    private async Task ExamineLayersAsync(CancellationToken cancellationToken)
    {
        var stack = releases!.Stack;
        var system = lease!.Release(stack.System).Manifest.Digest;
        if (!examine || stack.Layers.All(layer => lease.Release(layer).Manifest.BuiltOn == system))
        {
            return;
        }

        GuestCommandResult answer;
        try
        {
            answer = await agent!.ExecuteAsync("/usr/bin/apt-get", ["-qq", "check"], null, cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException)
        {
            // A guest without apt, or one that does not answer: then nobody knows.
            return;
        }

        if (answer.ExitCode != 0)
        {
            var words = GuestText.Plain(System.Text.Encoding.UTF8.GetString(answer.Error));
            var reason = $"{stack}: the packages of the application layers lack something of this system; build the layers on it";
            Change(now => now with { LayerProblem = reason });
            await KeepReportAsync(ReportKind.Dependencies, stack, new Unhealthy(reason, words), now => now).ConfigureAwait(false);
        }
    }

    private bool examine; // these layers were on trial at this start
    private bool isHealthy;

    /// <summary>The start was healthy: these layers are good.</summary>
    private async Task ConfirmAsync()
    {
        examine = status.OnTrial;
        await book.ChangeAsync(now => now.Healthy(releases!.Stack), CancellationToken.None).ConfigureAwait(false);
        isHealthy = true;
        Change(now => now with { OnTrial = false });
    }

    /// <summary>Waits until every unit that the policy names is active.</summary>
    /// <returns>False where one is not and there is nothing to go back to: a guest that runs without it is better than none.</returns>
    /// <exception cref="NacreException">One is not.</exception>
    private async Task<bool> AreUnitsActiveAsync(Qemu qemu, Stopwatch waited, TimeSpan limit)
    {
        while (policy.Get(Settings.UpdateHealthUnits).Count > 0)
        {
            Report(LivePcPhase.Booting, "waiting for the units that a healthy start has active");
            var (missing, settled) = await FindInactiveAsync(qemu).ConfigureAwait(false);
            if (missing.Count == 0)
            {
                return true;
            }

            if (settled || waited.Elapsed > limit)
            {
                var names = string.Join(", ", missing.Select(unit => $"{unit.Unit} is {unit.State}"));
                var reason = settled ? $"the guest started without what the policy requires: {names}" : $"the guest was not healthy within {limit.TotalMinutes:0} minutes: {names}";
                var journal = await JournalAsync(missing[0].Unit).ConfigureAwait(false);
                var stack = releases!.Stack;
                if (book.Read().Fallback(stack, lease!.Covers) is not null)
                {
                    throw NotHealthy(ErrorCatalogue.GuestFailed, reason, journal);
                }

                Change(now => now with { LayerProblem = reason });
                if ((await book.ChangeAsync(now => now.Failed(stack), CancellationToken.None).ConfigureAwait(false)).Failures == 1)
                {
                    await KeepReportAsync(ReportKind.Failed, stack, new Unhealthy(reason, journal), now => now).ConfigureAwait(false);
                }

                return false;
            }

            await Task.WhenAny(qemu.Ended, Task.Delay(UnitInterval, time, stopping.Token)).ConfigureAwait(false);
            stopping.Token.ThrowIfCancellationRequested();
            if (qemu.Ended.IsCompleted)
            {
                throw Ended(qemu, "the guest ended before it was healthy");
            }
        }

        return true;
    }

    /// <summary>The units that are not active, and whether the guest has done all it does by itself.</summary>
    private async Task<(IReadOnlyList<(string Unit, string State)> Missing, bool Settled)> FindInactiveAsync(Qemu qemu)
    {
        try
        {
            return await GuestHealth.FindInactiveAsync(agent!, policy.Get(Settings.UpdateHealthUnits), stopping.Token).ConfigureAwait(false);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.GuestFailed && !qemu.Ended.IsCompleted)
        {
            return ([.. policy.Get(Settings.UpdateHealthUnits).Select(unit => (unit, "unknown"))], false);
        }
    }

    /// <summary>What a unit said last, for the report.</summary>
    private async Task<string> JournalAsync(string unit)
    {
        try
        {
            var answer = await agent!.ExecuteAsync("/bin/journalctl", ["-b", "-n", "12", "-o", "cat", "--no-pager", "-u", unit], null, stopping.Token).ConfigureAwait(false);
            return LastLines(GuestText.Plain(System.Text.Encoding.UTF8.GetString(answer.Output)));
        }
        catch (NacreException)
        {
            return "";
        }
    }

    /// <summary>A guest that ended while it started: the initramfs says why where it was the one that ended it.</summary>
    private NacreException Ended(Qemu qemu, string what) =>
        NotHealthy(ErrorCatalogue.GuestFailed, GuestHealth.ReasonOf(qemu.ConsoleText) ?? what, $"{LastLines(qemu.ConsoleText)}{LastLines(qemu.ErrorText)}", what);

    private NacreException NotHealthy(ErrorKind kind, string reason, string console, string? what = null)
    {
        unhealthy = new Unhealthy(reason, console);
        return new NacreException(kind, $"{what ?? reason}\n{console}");
    }
}
