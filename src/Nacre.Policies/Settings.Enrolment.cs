namespace Nacre.Policies;

/// <summary>What happens to a device that enrolled with a code.</summary>
public enum EnrolmentApproval
{
    /// <summary>It is let in.</summary>
    Auto,

    /// <summary>It waits until an administrator approves it.</summary>
    Manual,
}

public static partial class Settings
{
    /// <summary>Whether an administrator approves each device.</summary>
    public static Setting<EnrolmentApproval> EnrolmentApproval { get; } = new Choice<EnrolmentApproval>(
        "enrolmentApproval", SettingScope.Container, Policies.EnrolmentApproval.Auto,
        "What happens to a device that enrols with a code: it is let in (auto), or waits until an administrator approves it (manual: nacre device approve).",
        ("auto", Policies.EnrolmentApproval.Auto), ("manual", Policies.EnrolmentApproval.Manual)) { IsAboutPerson = true };

    /// <summary>Whether users enrol their devices themselves.</summary>
    public static Setting<bool> EnrolmentBySelf { get; } = new Switch(
        "enrolment.bySelf", SettingScope.Container, false,
        "Whether who signs in as a user enrols devices of their own without an administrator's code (nacre device enrol URL --oidc, or --user): as many as maxDevicesPerUser, approved as enrolmentApproval says.") { IsAboutPerson = true };
}
