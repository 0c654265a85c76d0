using System.Security.Cryptography;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Leases;
using Nacre.Player.Releases;
using Nacre.Player.Stacks;
using Nacre.Player.UserPackages;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <summary>What going back by hand would do.</summary>
/// <param name="From">The corporate layers that are left, in words.</param>
/// <param name="To">Those that start next, in words.</param>
/// <param name="Layers">The application layers that are added, replaced or removed.</param>
public sealed record RollbackPlan(string From, string To, IReadOnlyList<LayerChange> Layers);

/// <content>The user's way back to the corporate layers from before the last update.</content>
public sealed partial class LivePcPlayer
{
    /// <summary>What going back would do; nothing is changed.</summary>
    /// <exception cref="NacreException">Forbidden: the policy does not let the user go back, or the server does not let the earlier layers start any more. NotFound: there is nothing to go back to.</exception>
    public async Task<RollbackPlan> PlanRollbackAsync(string name, CancellationToken cancellationToken)
    {
        using var identity = EnrolledIdentity.Open(paths);
        var (_, from, to) = await FindRollbackAsync(identity, new LivePcFolder(paths, name), cancellationToken).ConfigureAwait(false);
        return new RollbackPlan($"{from}", $"{to}", Compare(from, to));
    }

    /// <summary>Downloads and verifies what is missing of the corporate layers from before the last update, and makes them what starts next. Those that are left are not taken again by themselves.</summary>
    /// <param name="name">The LivePC.</param>
    /// <param name="userPackages">What is done at the next start with packages of the user's that the earlier layers can't carry.</param>
    /// <param name="planned">Told what will be downloaded before it is.</param>
    /// <param name="progress">Bytes downloaded so far.</param>
    /// <param name="cancellationToken">Stops; what was downloaded stays.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="NacreException">As <see cref="PlanRollbackAsync"/>; UserPackagesInTheWay: nothing changes; ServerUnreachable, where something is missing.</exception>
    public async Task<RollbackPlan> RollBackAsync(
        string name, UserPackageChoice userPackages, Action<UpdateResult> planned, IProgress<long> progress, CancellationToken cancellationToken)
    {
        using var identity = EnrolledIdentity.Open(paths);
        var folder = new LivePcFolder(paths, name);
        var (lease, from, to) = await FindRollbackAsync(identity, folder, cancellationToken).ConfigureAwait(false);
        var book = new StackBook(folder, time);
        var box = new ReportBox(identity, name, book, () => lease.Policy);
        using var client = identity.Connect();
        var done = await FetchAsync(lease, folder, to, userPackages, planned, progress, (client, box, book, null), cancellationToken).ConfigureAwait(false);
        folder.UserPackages = done?.UserPackages is { Conflicts: [] } || userPackages == UserPackageChoice.Postpone ? null : userPackages;
        var report = box.Seal(new SendReport(
            RandomNumberGenerator.GetHexString(32, lowercase: true), time.GetUtcNow(), ReportKind.RolledBack, from.Releases, $"its user went back to {to}", ""));
        await book.ChangeAsync(
            now => now.FindEarlier(folder.Started) is { } way && way.Equals((from, to))
                ? now.GoBack(from, to, time.GetUtcNow()).Report(report)
                : throw new NacreException(ErrorCatalogue.NotFound, $"the corporate layers of '{name}' changed meanwhile: nothing was done"), cancellationToken).ConfigureAwait(false);
        await new CacheKeeper(paths, identity, time).TryCleanAsync(cancellationToken).ConfigureAwait(false);
        if (lease.IsNew)
        {
            await box.DeliverAsync(client, null, cancellationToken).ConfigureAwait(false);
        }

        return new RollbackPlan($"{from}", $"{to}", Compare(from, to));
    }

    private async Task<(OpenedLease Lease, CorporateStack From, CorporateStack To)> FindRollbackAsync(EnrolledIdentity identity, LivePcFolder folder, CancellationToken cancellationToken)
    {
        var state = new StackBook(folder, time).Read();
        var lease = await OpenedLease.TakeAsync(identity, folder, state.Needed, null, time, cancellationToken).ConfigureAwait(false);
        if (!lease.Policy.Get(Settings.UpdateUserRollback))
        {
            throw new NacreException(ErrorCatalogue.Forbidden, $"your company does not let you go back to earlier corporate layers of '{folder.Name}' ({Settings.UpdateUserRollback})");
        }

        if (state.FindEarlier(folder.Started) is not { } way)
        {
            throw new NacreException(ErrorCatalogue.NotFound, state.Trial is { } waiting && !waiting.Equals(folder.Started) && state.Good is not null
                ? $"{waiting} is here and starts at the next start of '{folder.Name}': only then there is something to go back from"
                : $"'{folder.Name}' has no corporate layers from before an update on this device ({Settings.UpdateKeepVersions} is {lease.Policy.Get(Settings.UpdateKeepVersions)})");
        }

        return way.To.Releases.FirstOrDefault(release => !lease.Covers(release)) is { } gone
            ? throw new NacreException(ErrorCatalogue.Forbidden, $"'{folder.Name}' can't go back to {way.To}: your company does not let release {gone.Version} of {gone.Image} start any more", lease.Trust.Problem)
            : (lease, way.From, way.To);
    }
}
