using System.Collections.Immutable;
using Nacre.Contracts;

namespace Nacre.Images.Recipes;

/// <summary>
/// What a golden image is built from. Made only by <see cref="RecipeParser"/>, so every instance is valid: names are well-formed, paths are
/// absolute and stay inside the image, and the bytes of local files are already read.
/// </summary>
public sealed record Recipe
{
    internal Recipe()
    {
    }

    /// <summary>The image's name: lower-case letters, digits and hyphens.</summary>
    public string Name { get; internal init; } = "";

    /// <summary>What the image is for, in the administrator's words.</summary>
    public string Description { get; internal init; } = "";

    /// <summary>What it makes: a system, or an application layer on top of one.</summary>
    public ImageKind Kind { get; internal init; }

    /// <summary>Of an application layer: the name of the system image that it is built on.</summary>
    public string On { get; internal init; } = "";

    /// <summary>The distribution it starts from; of an application layer only the sources, where it has its own.</summary>
    public RecipeBase Base { get; internal init; } = new();

    /// <summary>The kernel package and what is added to its command line.</summary>
    public RecipeKernel Kernel { get; internal init; } = new();

    /// <summary>Debian packages, in the recipe's order.</summary>
    public ImmutableArray<string> Packages { get; internal init; } = [];

    /// <summary>Files put into the image after its packages.</summary>
    public ImmutableArray<RecipeFile> Files { get; internal init; } = [];

    /// <summary>People's accounts.</summary>
    public ImmutableArray<RecipeUser> Users { get; internal init; } = [];

    /// <summary>systemd units that start with the system.</summary>
    public ImmutableArray<string> EnabledServices { get; internal init; } = [];

    /// <summary>systemd units that do not start with the system.</summary>
    public ImmutableArray<string> DisabledServices { get; internal init; } = [];

    /// <summary>Shell scripts, run in this order inside the image at the end.</summary>
    public ImmutableArray<RecipeScript> Scripts { get; internal init; } = [];

    /// <summary>The secrets that the scripts may read while they run, by name; their bytes are given to the build, never to the recipe.</summary>
    public ImmutableArray<string> Secrets { get; internal init; } = [];

    /// <summary>The guest's host name.</summary>
    public string HostName { get; internal init; } = "";

    /// <summary>The default locale, such as <c>en_GB.UTF-8</c>.</summary>
    public string Locale { get; internal init; } = "C.UTF-8";

    /// <summary>The time zone, such as <c>Europe/Paris</c>.</summary>
    public string TimeZone { get; internal init; } = "Etc/UTC";

    /// <summary>SHA-256 of the text of the recipe and of those it is from, of the variables' values, and of every local file that is taken in, lower-case hexadecimal.</summary>
    public string Sha256 { get; internal init; } = "";
}

/// <summary>The distribution an image starts from.</summary>
public sealed record RecipeBase
{
    internal RecipeBase()
    {
    }

    /// <summary>The suite, such as <c>bookworm</c>.</summary>
    public string Suite { get; internal init; } = "";

    /// <summary>Archive sections.</summary>
    public ImmutableArray<string> Components { get; internal init; } = ["main"];

    /// <summary>One-line apt sources. With <see cref="UnverifiedSources"/> empty too: those of the machine that builds, as far as they are Debian's of this suite; of a layer those of its system.</summary>
    public ImmutableArray<string> Sources { get; internal init; } = [];

    /// <summary>One-line sources whose packages are taken without a look at any signature, each with <c>[trusted=yes]</c>.</summary>
    public ImmutableArray<string> UnverifiedSources { get; internal init; } = [];
}

/// <summary>The kernel of an image.</summary>
public sealed record RecipeKernel
{
    internal RecipeKernel()
    {
    }

    /// <summary>The Debian package, such as <c>linux-image-cloud-amd64</c>.</summary>
    public string Package { get; internal init; } = "linux-image-amd64";

    /// <summary>Words added to the kernel's command line.</summary>
    public string CommandLine { get; internal init; } = "";
}

/// <summary>A file of the image.</summary>
public sealed record RecipeFile
{
    internal RecipeFile()
    {
    }

    /// <summary>Absolute path inside the image.</summary>
    public string Path { get; internal init; } = "";

    /// <summary>The file's bytes.</summary>
    public ImmutableArray<byte> Content { get; internal init; } = [];

    /// <summary>Permission bits.</summary>
    public int Mode { get; internal init; } = 0b110_100_100;

    /// <summary><c>user</c> or <c>user:group</c>.</summary>
    public string Owner { get; internal init; } = "root:root";
}

/// <summary>An account of the image. Without a password it can be entered by autologin only.</summary>
public sealed record RecipeUser
{
    internal RecipeUser()
    {
    }

    /// <summary>The login name.</summary>
    public string Name { get; internal init; } = "";

    /// <summary>The person's name.</summary>
    public string FullName { get; internal init; } = "";

    /// <summary>Supplementary groups.</summary>
    public ImmutableArray<string> Groups { get; internal init; } = [];

    /// <summary>The login shell.</summary>
    public string Shell { get; internal init; } = "/bin/bash";

    /// <summary>Whether the display manager signs this user in by itself.</summary>
    public bool Autologin { get; internal init; }

    /// <summary>The password's crypt(3) hash, or null: no password opens the account.</summary>
    public string? PasswordHash { get; internal init; }
}

/// <summary>A shell script of a recipe.</summary>
public sealed record RecipeScript
{
    internal RecipeScript()
    {
    }

    /// <summary>What messages call it.</summary>
    public string Name { get; internal init; } = "";

    /// <summary>POSIX shell text.</summary>
    public string Run { get; internal init; } = "";
}
