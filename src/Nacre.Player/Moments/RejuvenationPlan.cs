using System.Text.Json.Serialization;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Player.Moments;

/// <summary>What is asked for.</summary>
/// <param name="Depth">How much; not looked at where <paramref name="IsUndo"/>.</param>
/// <param name="To">The moment to go back to, by identity or label.</param>
/// <param name="Before">The newest moment that was taken before this time; null with <paramref name="To"/>.</param>
/// <param name="IsUndo">To undo the last rejuvenation instead.</param>
/// <param name="Order">The administrator's order that asks; null: the user.</param>
public sealed record RejuvenationRequest(RejuvenationDepth Depth, string? To = null, DateTimeOffset? Before = null, bool IsUndo = false, string? Order = null);

/// <summary>What becomes of a layer.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<LayerFate>))]
public enum LayerFate
{
    /// <summary>It stays as it is.</summary>
    [JsonStringEnumMemberName("kept")]
    Kept,

    /// <summary>All of it is lost.</summary>
    [JsonStringEnumMemberName("blank")]
    Blank,

    /// <summary>It goes back to a moment; what was changed since is lost.</summary>
    [JsonStringEnumMemberName("moment")]
    Moment,
}

/// <summary>What a rejuvenation does to a layer, before it is done.</summary>
/// <param name="Layer">The layer.</param>
/// <param name="Fate">What becomes of it.</param>
/// <param name="Moment">The moment that it goes back to.</param>
/// <param name="Since">When that was taken: what was changed since is lost.</param>
/// <param name="BytesNow">Bytes of data that it holds now.</param>
/// <param name="BytesThen">Bytes of data that it will hold.</param>
public sealed record LayerPlan(string Layer, LayerFate Fate, string? Moment, DateTimeOffset? Since, long BytesNow, long BytesThen);

/// <summary>What a rejuvenation would do or did. The system layer is clean at every start, whatever else is done.</summary>
/// <param name="Depth">How much.</param>
/// <param name="IsUndo">Whether it undoes another one.</param>
/// <param name="Layers">The user's layers.</param>
public sealed record RejuvenationPlan(RejuvenationDepth Depth, bool IsUndo, IReadOnlyList<LayerPlan> Layers)
{
    /// <summary>What has to be done to the volumes.</summary>
    [JsonIgnore]
    public IReadOnlyList<LayerAction> Actions => [.. Layers.Where(layer => layer.Fate != LayerFate.Kept).Select(layer => new LayerAction(layer.Layer, layer.Moment))];

    /// <summary>Decides what a request means for a LivePC's layers.</summary>
    /// <param name="request">What is asked for.</param>
    /// <param name="moments">The LivePC's moments, oldest first.</param>
    /// <param name="bytesNow">Layer to bytes that it holds.</param>
    /// <param name="policy">What the administrator decided.</param>
    /// <param name="now">The time.</param>
    /// <exception cref="NacreException">UsageInvalid, NotFound, Forbidden.</exception>
    internal static RejuvenationPlan Of(
        RejuvenationRequest request, IReadOnlyList<Moment> moments, IReadOnlyDictionary<string, long> bytesNow, Policy policy, DateTimeOffset now)
    {
        if (request.IsUndo)
        {
            return Undo(moments, bytesNow, policy, now);
        }

        if (request.Order is null)
        {
            RequireUserMay(request.Depth, policy);
        }

        var to = Target(request, moments);
        LayerPlan Blank(string layer) => new(layer, LayerFate.Blank, null, null, bytesNow.GetValueOrDefault(layer), 0);
        LayerPlan Kept(string layer) => new(layer, LayerFate.Kept, null, null, bytesNow.GetValueOrDefault(layer), bytesNow.GetValueOrDefault(layer));
        LayerPlan Back(string layer) => Plan(layer, to!, bytesNow);
        LayerPlan BackOrBlank(string layer) => to is null ? Blank(layer) : Back(layer);
        IReadOnlyList<LayerPlan> layers = request.Depth switch
        {
            RejuvenationDepth.System => [Kept("applications"), Kept("settings"), Kept("data")],
            RejuvenationDepth.Applications => [BackOrBlank("applications"), Kept("settings"), Kept("data")],
            RejuvenationDepth.Settings => [BackOrBlank("applications"), BackOrBlank("settings"), Kept("data")],
            RejuvenationDepth.Data => [Blank("applications"), Blank("settings"), Back("data")],
            RejuvenationDepth.Moment => [Back("applications"), Back("settings"), Back("data")],
            _ => throw new NacreException(ErrorCatalogue.UsageInvalid, $"there is no depth '{request.Depth}'"),
        };
        // A LivePC whose image is a whole disk has no more than its data.
        return new RejuvenationPlan(request.Depth, IsUndo: false, [.. layers.Where(layer => bytesNow.ContainsKey(layer.Layer))]);
    }

    /// <summary>Makes sure that the administrator lets the user go so deep.</summary>
    /// <exception cref="NacreException">Forbidden.</exception>
    internal static void RequireUserMay(RejuvenationDepth depth, Policy policy)
    {
        RejuvenationDepth? deepest = policy.Get(Settings.RejuvenateUserAllowed) switch
        {
            UserRejuvenation.None => null,
            UserRejuvenation.System => RejuvenationDepth.System,
            UserRejuvenation.Applications => RejuvenationDepth.Applications,
            _ => RejuvenationDepth.Moment,
        };
        if (!(depth <= deepest))
        {
            throw new NacreException(ErrorCatalogue.Forbidden, deepest is { } allowed
                ? $"the administrator lets you rejuvenate to the depth '{Lower(allowed)}' only"
                : "the administrator lets nobody rejuvenate by hand");
        }
    }

    private static RejuvenationPlan Undo(IReadOnlyList<Moment> moments, IReadOnlyDictionary<string, long> bytesNow, Policy policy, DateTimeOffset now)
    {
        var last = moments.LastOrDefault(moment => moment.Actions.Count > 0);
        if (last is null || now - last.Taken > TimeSpan.FromDays(policy.Get(Settings.RejuvenateUndoDays)))
        {
            throw new NacreException(ErrorCatalogue.NotFound, last is null
                ? "there is no rejuvenation that could be undone"
                : $"the last rejuvenation is longer ago than the {policy.Get(Settings.RejuvenateUndoDays)} days for which one can be undone");
        }

        if (last.Order is not null)
        {
            throw new NacreException(ErrorCatalogue.Forbidden, "the last rejuvenation was ordered by the administrator, who alone can have it undone");
        }

        var acted = last.Actions.Select(action => action.Layer).ToHashSet(StringComparer.Ordinal);
        return new RejuvenationPlan(RejuvenationDepth.Moment, IsUndo: true, [.. MomentStore.Layers.Where(bytesNow.ContainsKey).Select(layer => acted.Contains(layer)
            ? Plan(layer, last, bytesNow)
            : new LayerPlan(layer, LayerFate.Kept, null, null, bytesNow[layer], bytesNow[layer]))]);
    }

    private static Moment? Target(RejuvenationRequest request, IReadOnlyList<Moment> moments)
    {
        if (request.To is not null && request.Before is not null)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, "give the moment or the time before which it was taken, not both");
        }

        if (request.Depth == RejuvenationDepth.System)
        {
            return request.To is null && request.Before is null ? null : throw new NacreException(
                ErrorCatalogue.UsageInvalid, "the system layer goes back to the release, not to a moment: give a depth beyond 'system'");
        }

        if (request.To is { } name)
        {
            return MomentStore.Find(moments, name);
        }

        if (request.Before is { } time)
        {
            return moments.LastOrDefault(moment => moment.Taken < time)
                ?? throw new NacreException(ErrorCatalogue.NotFound, $"there is no moment from before {time.UtcDateTime:yyyy-MM-dd HH:mm:ss} UTC");
        }

        return request.Depth < RejuvenationDepth.Data ? null : throw new NacreException(
            ErrorCatalogue.UsageInvalid, $"the depth '{Lower(request.Depth)}' needs the moment to go back to, or the time before which it was taken");
    }

    private static LayerPlan Plan(string layer, Moment to, IReadOnlyDictionary<string, long> bytesNow) =>
        new(layer, LayerFate.Moment, to.Id, to.Taken, bytesNow.GetValueOrDefault(layer), to.Bytes.GetValueOrDefault(layer));

    private static string Lower(RejuvenationDepth depth) => depth.ToString().ToLowerInvariant();
}

/// <summary>What a rejuvenation did.</summary>
/// <param name="Plan">What was done to each layer.</param>
/// <param name="Before">The moment that was taken before; null where only the system layer is put back.</param>
/// <param name="Milliseconds">How long it took, the moment before it included, and without opening the layers.</param>
public sealed record RejuvenationResult(RejuvenationPlan Plan, Moment? Before, double Milliseconds);
