using System.Collections.Immutable;

namespace Nacre.Policies;

/// <summary>How much of a LivePC its user may put back without the administrator.</summary>
public enum UserRejuvenation
{
    /// <summary>Nothing by hand.</summary>
    None,

    /// <summary>The system layer.</summary>
    System,

    /// <summary>The system layer and the user's applications.</summary>
    Applications,

    /// <summary>Every layer.</summary>
    Full,
}

/// <summary>How long what is in no layer of the user's stays.</summary>
public enum SystemCleaning
{
    /// <summary>Until the next start.</summary>
    EveryStart,

    /// <summary>A week at most, and no longer than the corporate layers stay the same.</summary>
    Weekly,

    /// <summary>As long as the corporate layers stay the same.</summary>
    OnUpdate,
}

/// <content>Layers, and putting them back.</content>
public static partial class Settings
{
    /// <summary>Whether what the user installs is kept.</summary>
    public static Setting<bool> LayerApp { get; } = new Switch(
        "layer.app", SettingScope.Workspace, true, "Whether what the user installs in the guest is on a layer of its own, and kept; otherwise it is part of the system layer, and goes with it (rejuvenate.system).") { IsForNextStart = true };

    /// <summary>Whether what the user installed survives a restart.</summary>
    public static Setting<bool> LayerRetainUserApps { get; } = new Switch(
        "layer.retainUserAppsAfterRestart", SettingScope.Workspace, true, "Whether what the user installed is still there after a restart; otherwise the applications layer is blank at every start. Settings and data stay.") { IsForNextStart = true };

    /// <summary>Layering rules after the factory's.</summary>
    public static Setting<IReadOnlyList<string>> LayerRules { get; } = new Lines(
        "layer.rules", SettingScope.Workspace, 500, "a layering rule 'PATTERN LAYER' or a comment", LayeringRules.Judge, "Layering rules that follow the factory's; the last that covers a path decides.") { IsForNextStart = true };

    /// <summary>How much the user's applications may take.</summary>
    public static Setting<int> LayerQuotaAppsGB { get; } = new WholeNumber(
        "layer.quotaAppsGB", SettingScope.Workspace, 10, 1, 32, "GB", "How much of its disk the applications layer may use; beyond it the guest's programs are told that the disk is full. What is there already stays.", "all that the layer's disk has") { IsForNextStart = true };

    /// <summary>How much the user's data may take.</summary>
    public static Setting<int> LayerQuotaUserGB { get; } = new WholeNumber(
        "layer.quotaUserGB", SettingScope.Workspace, 20, 1, 64, "GB", "How much of its disk the user's data may use; beyond it the guest's programs are told that the disk is full. What is there already stays.", "all that the layer's disk has") { IsForNextStart = true };

    /// <summary>Who sees which application.</summary>
    public static Setting<IReadOnlyList<string>> AppVisibility { get; } = new Lines(
        "appVisibility", SettingScope.Workspace, 200, "a package and the groups whose users have it, as 'gimp design press', or 'gimp -' for nobody", Policies.AppVisibility.Judge,
        "Applications that only some users have: in the guest of anybody else the package's programs and menu entries are not there. Of several lines for a package, each adds its groups.") { IsForNextStart = true };

    /// <summary>Whether nothing of a session is kept.</summary>
    public static Setting<bool> Disposable { get; } = new Switch(
        "disposable", SettingScope.Workspace, false,
        "Whether a LivePC begins blank at every start, and nothing of what its user did is left at its end: not even this device could read it. What was kept before lies untouched, and is back once this is off.") { IsForNextStart = true };

    /// <summary>When the system layer is put back to clean.</summary>
    public static Setting<SystemCleaning> RejuvenateSystem { get; } = new Choice<SystemCleaning>(
        "rejuvenate.system", SettingScope.Workspace, SystemCleaning.EveryStart,
        "When what is in none of the user's layers is put back to what the company shipped: at every start (every-start), a week after the last time (weekly), or where other corporate layers start (on-update); always after an end that was not a shutdown.",
        ("every-start", SystemCleaning.EveryStart), ("weekly", SystemCleaning.Weekly), ("on-update", SystemCleaning.OnUpdate)) { IsForNextStart = true };

    /// <summary>How much the user may put back.</summary>
    public static Setting<UserRejuvenation> RejuvenateUserAllowed { get; } = new Choice<UserRejuvenation>(
        "rejuvenate.userAllowed", SettingScope.Workspace, UserRejuvenation.Full, "What the user may put back to a clean state by hand.",
        ("none", UserRejuvenation.None), ("system", UserRejuvenation.System), ("applications", UserRejuvenation.Applications), ("full", UserRejuvenation.Full));

    /// <summary>For how long a rejuvenation can be undone.</summary>
    public static Setting<int> RejuvenateUndoDays { get; } = new WholeNumber(
        "rejuvenate.undoDays", SettingScope.Workspace, 7, 0, 3650, "days", "For how long a rejuvenation can be undone.");

    /// <summary>Whether a rejuvenation can be undone.</summary>
    public static Setting<bool> RejuvenateSnapshotBefore { get; } = new Switch(
        "rejuvenate.snapshotBefore", SettingScope.Workspace, true, "Whether what a rejuvenation puts back is kept for rejuvenate.undoDays, so that it can be undone; otherwise it is given up at once.");

    /// <summary>All of these.</summary>
    private static ImmutableArray<Setting> OfLayers =>
    [
        LayerApp, LayerRetainUserApps, LayerRules, LayerQuotaAppsGB, LayerQuotaUserGB, AppVisibility, Disposable, RejuvenateSystem, RejuvenateUserAllowed, RejuvenateSnapshotBefore, RejuvenateUndoDays,
    ];
}
