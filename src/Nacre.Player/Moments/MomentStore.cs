using Nacre.Contracts;
using Nacre.Player.LivePcs;
using Nacre.Policies;
using Nacre.Volumes;

namespace Nacre.Player.Moments;

/// <summary>The moments of a LivePC whose user layers are open, and what is done with them. Not thread-safe; the volumes may be in use meanwhile, but for
/// <see cref="FinishAsync"/> and <see cref="RejuvenateAsync"/>: while they work no guest may have them.</summary>
/// <remarks>
/// A moment is taken layer by layer, the data last, and given up in the other order: one that the data lacks was interrupted, and is none. A rejuvenation's plan is in
/// the name of the moment that is taken before it, so it is decided when that moment is whole, in one slot of the data's log. Each layer that was
/// acted on then keeps a mark; a start that finds marks missing carries the rest out before its guest runs. Everything here is in the volumes: who can write the
/// device's files can neither forge a plan nor repeat or forget one, unless he puts a whole layer back, which its anchor tells.
/// </remarks>
internal sealed class MomentStore
{
    /// <summary>The user's layers in the order in which a moment is taken; a LivePC whose image is a whole disk has the last one only.</summary>
    public static readonly IReadOnlyList<string> Layers = [.. UserLayers.Of(ImageKind.System).Select(layer => layer.Layer)];

    private readonly IReadOnlyDictionary<string, Volume> volumes;
    private readonly IReadOnlyList<string> layers;
    private readonly LivePcFolder folder;
    private readonly TimeProvider time;

    /// <param name="volumes">The open volumes of the user's layers, by layer; they stay their owner's.</param>
    /// <param name="folder">The LivePC.</param>
    /// <param name="time">The clock.</param>
    public MomentStore(IReadOnlyDictionary<string, Volume> volumes, LivePcFolder folder, TimeProvider time)
    {
        this.volumes = volumes;
        layers = [.. Layers.Where(volumes.ContainsKey)];
        this.folder = folder;
        this.time = time;
    }

    /// <summary>Makes sure that the administrator lets the user take moments by hand.</summary>
    /// <exception cref="NacreException">Forbidden.</exception>
    public static void RequireUserMayTake(Policy policy)
    {
        if (!policy.Get(Settings.VmLocalSnapshots))
        {
            throw new NacreException(ErrorCatalogue.Forbidden, $"your company does not let you take snapshots by hand ('{Settings.VmLocalSnapshots}' is off); those on schedule are taken all the same");
        }
    }

    /// <summary>Called with a step's name after each durable step; the kill tests stop there.</summary>
    internal Action<string>? StepTaken { get; init; }

    /// <summary>Layer to bytes of data that it holds now.</summary>
    public IReadOnlyDictionary<string, long> BytesNow => volumes.ToDictionary(pair => pair.Key, pair => pair.Value.Statistics.LiveBlocks * IBlockDevice.BlockSize);

    /// <summary>The moments, oldest first.</summary>
    public IReadOnlyList<Moment> List()
    {
        var parts = layers.ToDictionary(layer => layer, layer => volumes[layer].Snapshots.ToDictionary(snapshot => snapshot.Name, StringComparer.Ordinal));
        var moments = new List<Moment>();
        foreach (var (name, data) in parts["data"])
        {
            if (MomentName.TryParse(name) is { } parsed && layers.All(layer => parts[layer].ContainsKey(name)))
            {
                moments.Add(new Moment(
                    parsed.Id, parsed.Kind, data.Taken, parsed.Label, layers.ToDictionary(layer => layer, layer => parts[layer][name].LiveBlocks * IBlockDevice.BlockSize),
                    parsed.Actions, parsed.Order));
            }
        }

        return moments;
    }

    /// <summary>A moment by its identity or its label; of several with one label, the newest.</summary>
    /// <exception cref="NacreException">NotFound.</exception>
    public Moment Find(string untrustedName) => Find(List(), untrustedName);

    /// <inheritdoc cref="Find(string)"/>
    public static Moment Find(IReadOnlyList<Moment> moments, string untrustedName) =>
        moments.LastOrDefault(moment => moment.Id == untrustedName) ?? moments.LastOrDefault(moment => moment.Label == untrustedName)
        ?? throw new NacreException(ErrorCatalogue.NotFound, $"there is no moment '{untrustedName}'");

    /// <summary>A layer as it was at a moment; it ends with the volume, and fails once the moment is given up.</summary>
    public IBlockDevice Open(Moment moment, string layer) => Guard(layer, volume => volume.OpenSnapshot(NameIn(volume, moment.Id)!));

    /// <summary>Takes a moment: the layers as they are now. Durable on return.</summary>
    /// <param name="kind">Why.</param>
    /// <param name="label">What a person calls it.</param>
    /// <exception cref="NacreException">NoSpace, also where a layer has 4,096 snapshots; FileAccess. Nothing is left behind then.</exception>
    public Moment Take(MomentKind kind, string? label) => Take(kind, label, [], null, isToSettle: true);

    /// <summary>As <see cref="Take(MomentKind, string)"/>, without waiting for the disk; <see cref="Settle"/> follows. A loss of power before that may keep parts of it: they
    /// are no moment, and go at the next start, or where only the data has kept its part, once moments of that age do.</summary>
    public Moment Mark(MomentKind kind, string? label) => Take(kind, label, [], null, isToSettle: false);

    /// <summary>Makes what was marked durable.</summary>
    /// <exception cref="NacreException">FileAccess. The moment is given up then, as far as possible.</exception>
    public void Settle(Moment moment)
    {
        try
        {
            foreach (var layer in layers)
            {
                Guard(layer, volume =>
                {
                    volume.Flush();
                    return 0;
                });
            }
        }
        catch (NacreException)
        {
            TryDeleteParts(moment.Id);
            throw;
        }
    }

    /// <summary>Gives a moment up, with the space that only it needed.</summary>
    public void Delete(Moment moment) => DeleteParts(moment.Id);

    /// <summary>Removes what was interrupted while it was taken or given up.</summary>
    public void Repair()
    {
        var whole = volumes["data"].Snapshots.Select(snapshot => snapshot.Name).ToHashSet(StringComparer.Ordinal);
        foreach (var id in volumes.Values.SelectMany(volume => volume.Snapshots).Where(snapshot => !whole.Contains(snapshot.Name))
            .Select(snapshot => MomentName.TryParse(snapshot.Name)?.Id).OfType<string>().Distinct().ToArray())
        {
            DeleteParts(id);
        }
    }

    /// <summary>Carries out what an interrupted rejuvenation left to do.</summary>
    /// <returns>The moment before it; null where there was nothing.</returns>
    public async Task<Moment?> FinishAsync()
    {
        Moment? finished = null;
        foreach (var moment in List().Where(IsPending))
        {
            await CarryOutAsync(moment).ConfigureAwait(false);
            finished = moment;
        }

        return finished;
    }

    /// <summary>Takes a moment, and puts layers back.</summary>
    /// <param name="kind">Rejuvenation or undo.</param>
    /// <param name="actions">What to do; at least one.</param>
    /// <param name="order">The administrator's order, where it is one.</param>
    /// <returns>The moment before it.</returns>
    /// <exception cref="NacreException">NotFound: there is no such moment to go back to. NoSpace, FileAccess.</exception>
    public async Task<Moment> RejuvenateAsync(MomentKind kind, IReadOnlyList<LayerAction> actions, string? order)
    {
        foreach (var to in actions.Select(action => action.To).OfType<string>().Distinct())
        {
            Find(to);
        }

        var before = Take(kind, null, actions, order, isToSettle: true);
        StepTaken?.Invoke("decided");
        await CarryOutAsync(before).ConfigureAwait(false);
        return before;
    }

    /// <summary>Gives up the moments that the policy does not keep. What a rejuvenation can be undone with stays for its days; moments that a person took go last.</summary>
    public void Retain(Policy policy)
    {
        var now = time.GetUtcNow();
        var moments = List().ToList();
        foreach (var moment in policy.Get(Settings.RejuvenateSnapshotBefore) ? [] : moments.Where(moment => moment.Actions.Count > 0 && !IsPending(moment)).ToArray())
        {
            Delete(moment);
            moments.Remove(moment);
        }

        var undoable = moments.Where(moment => moment.Actions.Count > 0 && IsWithin(moment, policy.Get(Settings.RejuvenateUndoDays))).ToHashSet();
        var others = moments.Where(moment => !undoable.Contains(moment)).OrderBy(moment => moment.Kind == MomentKind.User).ThenBy(moment => moment.Taken).ToList();
        var excess = Math.Max(0, others.Count - policy.Get(Settings.SnapshotKeep));
        foreach (var moment in others.Where((moment, index) => index < excess || !IsWithin(moment, policy.Get(Settings.SnapshotKeepDays))))
        {
            Delete(moment);
        }

        // Parts of a moment whose other layers were replaced.
        var whole = moments.Select(moment => moment.Id).ToHashSet(StringComparer.Ordinal);
        foreach (var id in volumes.Values.SelectMany(volume => volume.Snapshots).Where(snapshot => now - snapshot.Taken > TimeSpan.FromDays(policy.Get(Settings.SnapshotKeepDays)))
            .Select(snapshot => MomentName.TryParse(snapshot.Name)?.Id ?? MomentName.DoneId(snapshot.Name)).OfType<string>().Where(id => !whole.Contains(id)).Distinct().ToArray())
        {
            DeleteParts(id);
        }
    }

    /// <summary>Since when there is no newer moment, where that is longer than the policy wants to be silent about; null: all is well.</summary>
    /// <param name="policy">What the administrator decided.</param>
    /// <param name="inUse">Since when the layers hold anything; null: they do not yet.</param>
    public DateTimeOffset? FindOverdue(Policy policy, DateTimeOffset? inUse) =>
        policy.Get(Settings.SnapshotWarnIfNoneDays) is > 0 and var days && (List() is [.., var newest] ? newest.Taken : inUse) is { } last && time.GetUtcNow() - last >= TimeSpan.FromDays(days) ? last : null;

    /// <summary>Whether a moment is not older than so many days.</summary>
    public bool IsWithin(Moment moment, int days) => time.GetUtcNow() - moment.Taken <= TimeSpan.FromDays(days);

    private bool IsPending(Moment moment) => moment.Actions.Any(action => !IsDone(volumes[action.Layer], moment.Id));

    private static bool IsDone(Volume volume, string id) => volume.Snapshots.Any(snapshot => snapshot.Name == MomentName.DoneName(id));

    private static string? NameIn(Volume volume, string id) => volume.Snapshots.Select(snapshot => snapshot.Name).LastOrDefault(name => MomentName.TryParse(name)?.Id == id);

    private Moment Take(MomentKind kind, string? label, IReadOnlyList<LayerAction> actions, string? order, bool isToSettle)
    {
        var used = volumes.Values.SelectMany(volume => volume.Snapshots).Select(snapshot => MomentName.TryParse(snapshot.Name)?.Id ?? MomentName.DoneId(snapshot.Name))
            .OfType<string>().ToHashSet(StringComparer.Ordinal);
        var moment = time.GetUtcNow();
        while (used.Contains(MomentName.IdOf(moment)))
        {
            moment += TimeSpan.FromSeconds(1);
        }

        var name = new MomentName(MomentName.IdOf(moment), kind, actions, order, label);
        try
        {
            foreach (var layer in layers)
            {
                Guard(layer, volume => isToSettle ? volume.TakeSnapshot(name.ToString()) : volume.MarkSnapshot(name.ToString()));
                StepTaken?.Invoke($"took {layer}");
            }
        }
        catch (NacreException)
        {
            TryDeleteParts(name.Id);
            throw;
        }

        return Find(name.Id);
    }

    private async Task CarryOutAsync(Moment moment)
    {
        // All of it or nothing: where a moment to go back to is gone, the layers stay as they are.
        var possible = moment.Actions.All(action => action.To is null || NameIn(volumes[action.Layer], action.To) is not null);
        foreach (var (layer, to) in moment.Actions)
        {
            if (IsDone(volumes[layer], moment.Id))
            {
                continue;
            }

            if (possible)
            {
                await PutBackAsync(layer, to).ConfigureAwait(false);
                StepTaken?.Invoke($"put {layer} back");
            }

            Guard(layer, volume => volume.TakeSnapshot(MomentName.DoneName(moment.Id)));
            StepTaken?.Invoke($"marked {layer}");
        }
    }

    /// <summary>Makes a layer blank, where there is anything in it. No guest may have it.</summary>
    /// <exception cref="NacreException">NoSpace, FileAccess.</exception>
    public Task BlankAsync(string layer) => BytesNow[layer] == 0 ? Task.CompletedTask : PutBackAsync(layer, null);

    private async Task PutBackAsync(string layer, string? to)
    {
        var volume = volumes[layer];
        var target = to is null ? null : volume.Snapshots.First(snapshot => snapshot.Name == NameIn(volume, to));
        try
        {
            if (target is not { LiveBlocks: > 0 })
            {
                // A guest that is interrupted while it formats the blank layer may format it again.
                folder.ForgetInUse(layer);
            }

            if (target is null)
            {
                await volume.TrimAsync(0, volume.Size, CancellationToken.None).ConfigureAwait(false);
                await volume.FlushAsync(CancellationToken.None).ConfigureAwait(false);
            }
            else
            {
                volume.RollBack(target.Name);
                if (target.LiveBlocks > 0)
                {
                    folder.SetInUse(layer);
                }
            }
        }
        catch (VolumeException exception)
        {
            throw VolumeErrors.OfVolume(exception, layer);
        }
    }

    private void DeleteParts(string id)
    {
        foreach (var layer in layers.Reverse())
        {
            if (NameIn(volumes[layer], id) is { } name)
            {
                Guard(layer, volume =>
                {
                    volume.DeleteSnapshot(name);
                    return 0;
                });
                StepTaken?.Invoke($"gave {layer} up");
            }
        }

        // The marks go last: without them a moment that is still there would be carried out once more.
        foreach (var layer in layers.Where(layer => IsDone(volumes[layer], id)))
        {
            Guard(layer, volume =>
            {
                volume.DeleteSnapshot(MomentName.DoneName(id));
                return 0;
            });
        }
    }

    private void TryDeleteParts(string id)
    {
        try
        {
            DeleteParts(id);
        }
        catch (NacreException)
        {
            // The next start removes what is left.
        }
    }

    private T Guard<T>(string layer, Func<Volume, T> work)
    {
        try
        {
            return work(volumes[layer]);
        }
        catch (VolumeException exception)
        {
            throw VolumeErrors.OfVolume(exception, layer);
        }
    }
}
