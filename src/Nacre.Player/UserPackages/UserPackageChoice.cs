namespace Nacre.Player.UserPackages;

/// <summary>What a start does where the corporate layers can't carry a package that the user installed (a dependency is gone).</summary>
public enum UserPackageChoice
{
    /// <summary>Does not start these layers: the previous ones start, and the user decides.</summary>
    Postpone,

    /// <summary>Drops the package.</summary>
    Remove,

    /// <summary>Drops the package, and installs it anew once the guest is up.</summary>
    Reinstall,
}
