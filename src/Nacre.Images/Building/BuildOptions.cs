namespace Nacre.Images.Building;

/// <summary>How an image is built; none of it changes what the image is, except <see cref="SourceDateEpoch"/>.</summary>
public sealed record BuildOptions
{
    /// <summary>Folder that keeps downloaded packages. Default: <c>nacre/debs</c> in the user's cache folder.</summary>
    public string PackageCache { get; init; } = InCache("debs");

    /// <summary>Folder that keeps what the steps of builds made, so that the next build begins behind those that are the same; null: nothing is kept or taken. Default: <c>nacre/steps</c> in the user's cache folder.</summary>
    public string? StepCache { get; init; } = InCache("steps");

    /// <summary>Bytes that <see cref="StepCache"/> takes at most: what was not used for longest goes. Default: 16 GiB, about ten systems with a desktop.</summary>
    public long StepCacheBytes { get; init; } = 16L << 30;

    /// <summary>The files of the recipe's secrets, by name. Their bytes go to its scripts and nowhere else; a build that leaves them in the image fails.</summary>
    public IReadOnlyDictionary<string, string> Secrets { get; init; } = new Dictionary<string, string>();

    /// <summary>
    /// The image's date, seconds since 1970. Default (null): the date of the newest package in it, which the same packages always give.
    /// </summary>
    public long? SourceDateEpoch { get; init; }

    /// <summary>The <c>guest</c> folder of the product. Default (null): beside the program, or in a folder above it.</summary>
    public string? GuestFiles { get; init; }

    /// <summary>Folder for the unpacked system while it is built: as large as the image. Default: the system's temporary folder.</summary>
    public string TemporaryFolder { get; init; } = Path.GetTempPath();

    /// <summary>The builder's log. Default (null): the output's path with <c>.log</c> added.</summary>
    public string? LogFile { get; init; }

    private static string InCache(string name) => Path.Combine(
        Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } cache
            ? cache
            : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache"),
        "nacre",
        name);
}
