namespace Nacre.Images.Building;

/// <summary>Why an image could not be built.</summary>
public enum ImageBuildFailure
{
    /// <summary>A program that the build needs is not installed.</summary>
    MissingProgram,

    /// <summary>The product's guest files are not where they should be.</summary>
    MissingGuestFiles,

    /// <summary>The output is there already.</summary>
    OutputExists,

    /// <summary>No apt source of this machine serves the recipe's suite.</summary>
    NoSource,

    /// <summary>A layer would take packages that nobody signed, because its system does, and its recipe does not say so.</summary>
    UnverifiedSource,

    /// <summary>An application layer is to be built on something that is not the system that it is for.</summary>
    OtherSystem,

    /// <summary>A secret that the recipe names was not given, or one that it does not name was, or one can't be used.</summary>
    Secret,

    /// <summary>A step of the build failed; the log says which.</summary>
    StepFailed,
}

/// <summary>An image could not be built; nothing was left at the output.</summary>
public sealed class ImageBuildException(ImageBuildFailure failure, string message, string? logFile = null, Exception? inner = null)
    : Exception(message, inner)
{
    /// <summary>Why.</summary>
    public ImageBuildFailure Failure { get; } = failure;

    /// <summary>The build's log, where the build got far enough to have one.</summary>
    public string? LogFile { get; } = logFile;
}
