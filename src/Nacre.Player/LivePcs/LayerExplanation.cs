using System.Text.Json.Serialization;
using Nacre.Policies;

namespace Nacre.Player.LivePcs;

/// <summary>What becomes of a path's content at a rejuvenation.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<Survival>))]
public enum Survival
{
    /// <summary>It is gone; what the company's layers have there is back.</summary>
    [JsonStringEnumMemberName("no")]
    No,

    /// <summary>It stays.</summary>
    [JsonStringEnumMemberName("yes")]
    Yes,

    /// <summary>It is as it was in the snapshot that is chosen.</summary>
    [JsonStringEnumMemberName("snapshot")]
    Snapshot,
}

/// <summary>What a path's content survives, by the depth of a rejuvenation.</summary>
/// <param name="System">The system layer: what every start does where the policy says nothing else.</param>
/// <param name="Applications">And the user's applications.</param>
/// <param name="Settings">And the user's settings.</param>
/// <param name="Data">And the user's data, as of a snapshot.</param>
/// <param name="Moment">Everything to one moment.</param>
public sealed record LayerSurvival(Survival System, Survival Applications, Survival Settings, Survival Data, Survival Moment)
{
    /// <summary>For what is on a layer.</summary>
    public static LayerSurvival Of(Layer layer) => layer switch
    {
        Layer.Scratch => new(Survival.No, Survival.No, Survival.No, Survival.No, Survival.No),
        Layer.Applications => new(Survival.Yes, Survival.No, Survival.No, Survival.No, Survival.Snapshot),
        Layer.Settings => new(Survival.Yes, Survival.Yes, Survival.No, Survival.No, Survival.Snapshot),
        Layer.Data => new(Survival.Yes, Survival.Yes, Survival.Yes, Survival.Snapshot, Survival.Snapshot),
        _ => throw new ArgumentOutOfRangeException(nameof(layer), layer, null),
    };
}

/// <summary>What a file belongs to.</summary>
/// <param name="Kind"><c>release</c>, <c>application layer</c> or <c>user package</c>.</param>
/// <param name="Name">The package.</param>
/// <param name="Layer">The application layer, where it is one.</param>
public sealed record PathOwner(string Kind, string Name, string? Layer = null);

/// <summary>Where a path of a LivePC's guest lives, and what that means.</summary>
/// <param name="LivePc">The LivePC.</param>
/// <param name="Path">The path; in a running guest with the links on the way to it followed.</param>
/// <param name="Layer">The layer that it is on: as the guest has it where that runs, else as the rules say.</param>
/// <param name="Rule">The rule that decides.</param>
/// <param name="Survives">What it survives.</param>
/// <param name="Owner">What it belongs to; null where nothing is known to own it.</param>
/// <param name="AskedGuest">Whether the running guest was asked, and has it.</param>
/// <param name="Notes">What a person should know beside that.</param>
public sealed record LayerExplanation(
    string LivePc, string Path, Layer Layer, LayeringRule Rule, LayerSurvival Survives, PathOwner? Owner, bool AskedGuest, IReadOnlyList<string> Notes);
