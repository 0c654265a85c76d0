using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;
using Nacre.Contracts;
using Nacre.Player.Moments;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <summary>The moments of a LivePC.</summary>
/// <param name="Moments">Oldest first.</param>
/// <param name="BytesNow">Layer to bytes of data that it holds now.</param>
/// <param name="Policy">What the administrator decides.</param>
public sealed record MomentList(IReadOnlyList<Moment> Moments, IReadOnlyDictionary<string, long> BytesNow, PolicyDocument Policy);

/// <content>Moments, and putting layers back: of a LivePC that runs through its player, of one that does not by opening its layers here.</content>
public sealed partial class LivePcPlayer
{
    /// <summary>The moments of a LivePC, and what its layers hold.</summary>
    public async Task<MomentList> ListMomentsAsync(string name, CancellationToken cancellationToken) =>
        await AskAsync<MomentList>(name, "moments", [], cancellationToken).ConfigureAwait(false)
        ?? await WithLayersAsync(name, layers => Task.FromResult(ListOf(layers)), cancellationToken).ConfigureAwait(false);

    /// <summary>Takes a moment: of a guest that runs while its file systems stand still, else of the layers as they are.</summary>
    /// <param name="name">The LivePC.</param>
    /// <param name="untrustedLabel">What a person calls it; null: nothing.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="NacreException">Forbidden, NameInvalid, GuestFailed, NoSpace, and what keeps the layers from being opened.</exception>
    public async Task<TakenMoment> TakeMomentAsync(string name, string? untrustedLabel, CancellationToken cancellationToken)
    {
        var label = untrustedLabel is null ? null : MomentName.ParseLabel(untrustedLabel);
        return await AskAsync<TakenMoment>(name, "moment-take", new JsonObject { ["label"] = label }, cancellationToken).ConfigureAwait(false)
            ?? await WithLayersAsync(
                name,
                layers =>
                {
                    MomentStore.RequireUserMayTake(layers.Policy);
                    var taken = layers.Moments.Take(MomentKind.User, label);
                    layers.Moments.Retain(layers.Policy);
                    return Task.FromResult(new TakenMoment(taken, 0));
                },
                cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Gives a moment up, with the space that only it needs.</summary>
    /// <exception cref="NacreException">NotFound, and what keeps the layers from being opened.</exception>
    public async Task<Moment> DeleteMomentAsync(string name, string moment, CancellationToken cancellationToken) =>
        await AskAsync<Moment>(name, "moment-delete", new JsonObject { ["moment"] = moment }, cancellationToken).ConfigureAwait(false)
        ?? await WithLayersAsync(
            name,
            layers =>
            {
                var found = layers.Moments.Find(moment);
                layers.Moments.Delete(found);
                return Task.FromResult(found);
            },
            cancellationToken).ConfigureAwait(false);

    /// <summary>Says which files differ between a moment and another one, or the present. The LivePC must run: its guest reads them.</summary>
    /// <exception cref="NacreException">NotRunning, NotFound, MomentUnreadable, GuestFailed.</exception>
    public async Task<MomentDifference> CompareMomentsAsync(string name, string first, string? second, CancellationToken cancellationToken) =>
        await AskAsync<MomentDifference>(name, "moment-compare", new JsonObject { ["moment"] = first, ["with"] = second }, cancellationToken).ConfigureAwait(false)
        ?? throw MustRun(name);

    /// <summary>Lists a folder as it was. The LivePC must run: its guest reads it.</summary>
    /// <exception cref="NacreException">NotRunning, NotFound, UsageInvalid, MomentUnreadable, GuestFailed.</exception>
    public async Task<IReadOnlyList<MomentFile>> BrowseMomentAsync(string name, string moment, string path, CancellationToken cancellationToken) =>
        await AskAsync<IReadOnlyList<MomentFile>>(name, "moment-browse", new JsonObject { ["moment"] = moment, ["path"] = path }, cancellationToken).ConfigureAwait(false)
        ?? throw MustRun(name);

    /// <summary>Takes a file or a folder back, and nothing else. The LivePC must run: its guest copies it.</summary>
    /// <exception cref="NacreException">NotRunning, NotFound, UsageInvalid, MomentUnreadable, GuestFailed.</exception>
    public async Task<RestoredFiles> RestoreFilesAsync(string name, string moment, string path, string? to, CancellationToken cancellationToken) =>
        await AskAsync<RestoredFiles>(name, "moment-restore", new JsonObject { ["moment"] = moment, ["path"] = path, ["to"] = to }, cancellationToken).ConfigureAwait(false)
        ?? throw MustRun(name);

    /// <summary>Has the player of a LivePC that runs ask the server for orders now.</summary>
    /// <returns>How many there are; they are carried out at the guest's restart, which begins in half a minute.</returns>
    /// <exception cref="NacreException">NotRunning, ServerUnreachable.</exception>
    public async Task<int> ContactAsync(string name, CancellationToken cancellationToken) =>
        (await ControlSocket.RequestAsync(new LivePcFolder(paths, name).ControlSocket, "contact", null, cancellationToken).ConfigureAwait(false))!.GetValue<int>();

    /// <summary>What a rejuvenation would do; nothing is changed.</summary>
    /// <exception cref="NacreException">UsageInvalid, NotFound, Forbidden, and what keeps the layers from being opened.</exception>
    public async Task<RejuvenationPlan> PlanRejuvenationAsync(string name, RejuvenationRequest request, CancellationToken cancellationToken)
    {
        var list = await ListMomentsAsync(name, cancellationToken).ConfigureAwait(false);
        return RejuvenationPlan.Of(request, list.Moments, list.BytesNow, Policy.Of("lease", list.Policy), time.GetUtcNow());
    }

    /// <summary>Makes sure that the administrator lets the user rejuvenate so deep; a LivePC that does not run is clean at its next start anyway.</summary>
    /// <exception cref="NacreException">Forbidden.</exception>
    public async Task RequireUserMayAsync(string name, RejuvenationDepth depth, CancellationToken cancellationToken)
    {
        try
        {
            if (await AskAsync<MomentList>(name, "moments", [], cancellationToken).ConfigureAwait(false) is { } list)
            {
                RejuvenationPlan.RequireUserMay(depth, Policy.Of("lease", list.Policy));
            }
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotRunning)
        {
            // It has not even opened its layers: nothing of the guest's is lost.
        }
    }

    /// <summary>The next start begins with a clean system layer, whatever the policy keeps.</summary>
    public void CleanSystem(string name) => new LivePcFolder(paths, name).IsSystemToClean = true;

    /// <summary>Takes a moment of a LivePC that does not run, and puts its layers back. Killed half-way, it is finished by whatever opens the layers next.</summary>
    /// <exception cref="NacreException">AlreadyRunning; else as <see cref="PlanRejuvenationAsync"/>; NoSpace.</exception>
    public Task<RejuvenationResult> RejuvenateAsync(string name, RejuvenationRequest request, CancellationToken cancellationToken) => WithLayersAsync(
        name,
        async layers =>
        {
            var plan = RejuvenationPlan.Of(request, layers.Moments.List(), layers.Moments.BytesNow, layers.Policy, time.GetUtcNow());
            CleanSystem(name); // first: a rejuvenation that is interrupted is finished, and this would be forgotten
            var took = Stopwatch.StartNew();
            var before = plan.Actions.Count == 0 ? null : await layers.Moments.RejuvenateAsync(
                request.IsUndo ? MomentKind.Undo : MomentKind.Rejuvenation, plan.Actions, request.Order).ConfigureAwait(false);
            var milliseconds = took.Elapsed.TotalMilliseconds;
            layers.Moments.Retain(layers.Policy);
            return new RejuvenationResult(plan, layers.Policy.Get(Settings.RejuvenateSnapshotBefore) ? before : null, milliseconds);
        },
        cancellationToken);

    private static NacreException MustRun(string name) => new(ErrorCatalogue.NotRunning, $"'{name}' does not run: it is its guest that reads the files of a moment");

    private static MomentList ListOf(OpenLayers layers) => new(layers.Moments.List(), layers.Moments.BytesNow, layers.Policy.Decided);

    /// <summary>Asks the LivePC's player; null where none runs.</summary>
    private async Task<T?> AskAsync<T>(string name, string command, JsonObject arguments, CancellationToken cancellationToken)
        where T : class
    {
        var folder = new LivePcFolder(paths, name);
        JsonNode? answer;
        try
        {
            answer = await ControlSocket.RequestAsync(folder.ControlSocket, command, arguments, cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotRunning && !IsHeld(folder))
        {
            return null;
        }

        return answer.Deserialize<T>(ContractJson.Options) ?? throw new NacreException(ErrorCatalogue.Internal, $"the player answered '{command}' with nothing");
    }

    private async Task<T> WithLayersAsync<T>(string name, Func<OpenLayers, Task<T>> work, CancellationToken cancellationToken)
    {
        return await WithPasswordAsync(name, async secrets =>
        {
            await using var layers = await OpenLayers.OpenAsync(paths, name, secrets, time, cancellationToken).ConfigureAwait(false);
            return await work(layers).ConfigureAwait(false);
        }).ConfigureAwait(false);
    }
}
