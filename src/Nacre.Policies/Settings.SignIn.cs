namespace Nacre.Policies;

/// <summary>What happens after the last wrong try.</summary>
public enum AttemptsAction
{
    /// <summary>Nothing but longer pauses.</summary>
    Delay,

    /// <summary>Only a recovery code opens the LivePC.</summary>
    Lock,

    /// <summary>The LivePC's keys are destroyed.</summary>
    Wipe,
}

/// <content>The password that opens a LivePC, and its lock.</content>
public static partial class Settings
{
    /// <summary>Whether a LivePC has a password.</summary>
    public static Setting<bool> PasswordRequired { get; } = new Switch(
        "password.required", SettingScope.Container, true,
        "Whether a LivePC opens with its user's password only, beside this device's key and the lease. Off: whoever uses the computer as this user opens it; a password that was set stays until its user removes it.") { IsForNextStart = true };

    /// <summary>Characters of a password.</summary>
    public static Setting<int> PasswordMinLength { get; } = new WholeNumber(
        "password.minLength", SettingScope.Container, 12, 4, 64, "characters", "How long a new password is at least.");

    /// <summary>Kinds of characters of a password.</summary>
    public static Setting<int> PasswordClasses { get; } = new WholeNumber(
        "password.classes", SettingScope.Container, 0, 1, 4, "kinds of characters", "How many of these a new password has at least: small letters, capital letters, digits, others.", "no matter");

    /// <summary>Earlier passwords that are not taken again.</summary>
    public static Setting<int> PasswordHistory { get; } = new WholeNumber(
        "password.history", SettingScope.Container, 5, 1, 24, "passwords", "How many earlier passwords can't be chosen again.", "none");

    /// <summary>Days that a password may be used.</summary>
    public static Setting<int> PasswordMaxAgeDays { get; } = new WholeNumber(
        "password.maxAgeDays", SettingScope.Container, 0, 1, 3650, "days", "After how many days a password has to be changed.", "never") { IsForNextStart = true };

    /// <summary>Wrong tries.</summary>
    public static Setting<int> MaxAttempts { get; } = new WholeNumber(
        "auth.maxAttempts", SettingScope.Container, 10, 3, 20, "tries", "How many wrong passwords may be tried in a row; from the fourth on each has to wait longer.");

    /// <summary>What happens then.</summary>
    public static Setting<AttemptsAction> MaxAttemptsAction { get; } = new Choice<AttemptsAction>(
        "auth.maxAttemptsAction", SettingScope.Container, AttemptsAction.Lock,
        "What happens after the last of them: nothing but pauses of 15 minutes (delay); only a recovery code opens the LivePC (lock; where the organisation has no recovery key, as delay); its keys are destroyed (wipe).",
        ("delay", AttemptsAction.Delay), ("lock", AttemptsAction.Lock), ("wipe", AttemptsAction.Wipe));

    /// <summary>Minutes of nobody until a LivePC locks.</summary>
    public static Setting<int> LockIdleMinutes { get; } = new WholeNumber(
        "lock.idleMinutes", SettingScope.Workspace, 15, 1, 240, "minutes", "After how long without a key, a movement of the pointer or a command a running LivePC locks: it works on unseen, and asks for its password.", "never");

    /// <summary>Whether a LivePC locks with the host's screen.</summary>
    public static Setting<bool> LockOnHostLock { get; } = new Switch(
        "lock.onHostLock", SettingScope.Workspace, true, "Whether a LivePC locks when this computer's screen is locked, as the desktop tells logind.");

    /// <summary>Whether a LivePC locks when the host sleeps.</summary>
    public static Setting<bool> LockOnSleep { get; } = new Switch(
        "lock.onSleep", SettingScope.Workspace, true, "Whether a LivePC is locked when this computer wakes up.");

    /// <summary>Hours until the password is asked for again.</summary>
    public static Setting<int> ReauthPeriodHours { get; } = new WholeNumber(
        "reauthPeriodHours", SettingScope.Container, 12, 1, 168, "hours", "After how long a running LivePC asks for its password again, however much it is used.", "never");
}
