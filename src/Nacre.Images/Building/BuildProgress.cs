namespace Nacre.Images.Building;

/// <summary>What a build is doing.</summary>
public enum BuildPhase
{
    /// <summary>Checking the machine and writing what the build needs.</summary>
    Prepare,

    /// <summary>A step is taken from an earlier build: the message says which.</summary>
    Cached,

    /// <summary>Fetching packages.</summary>
    Download,

    /// <summary>Unpacking and configuring packages.</summary>
    Install,

    /// <summary>Files, users, services and scripts of the recipe.</summary>
    Scripts,

    /// <summary>Writing the file system and the initramfs.</summary>
    FileSystem,

    /// <summary>The image is at its place.</summary>
    Done,
}

/// <summary>Where a build stands.</summary>
/// <param name="Phase">What it is doing.</param>
/// <param name="Fraction">How much of the phase is done, 0 to 1; null where that cannot be told.</param>
/// <param name="Message">The present step, for people.</param>
public readonly record struct BuildProgress(BuildPhase Phase, double? Fraction, string Message);
