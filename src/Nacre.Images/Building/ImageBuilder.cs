using System.Collections.Immutable;
using System.Globalization;
using System.Runtime.Versioning;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using Nacre.Images.Recipes;

namespace Nacre.Images.Building;

/// <summary>
/// Builds golden images: a folder with <c>system.erofs</c>, <c>kernel</c>, <c>initramfs</c> and <c>image.json</c>. The same recipe, guest
/// files and packages give the same bytes. Works as root and, through user namespaces, as an ordinary user.
/// </summary>
public static class ImageBuilder
{
    /// <summary>What the layers, the agent and the initramfs need in every image.</summary>
    private static readonly ImmutableArray<string> GuestPackages =
        ["systemd-sysv", "udev", "dbus", "passwd", "qemu-guest-agent", "initramfs-tools", "busybox", "zstd", "e2fsprogs", "tzdata"];

    /// <summary>Programs of the machine that builds, and the Debian packages they are in.</summary>
    private static readonly ImmutableArray<(string Program, string Package)> Programs =
    [
        ("mmdebstrap", "mmdebstrap"), ("mkfs.erofs", "erofs-utils"), ("apt-get", "apt"), ("dpkg", "dpkg"), ("tar", "tar"),
        ("chroot", "coreutils"), ("setsid", "util-linux"), ("zstd", "zstd"),
    ];

    /// <summary>Where administrators' programs are, on the PATH or not.</summary>
    private static readonly ImmutableArray<string> SystemFolders = ["/usr/sbin", "/sbin"];

    /// <summary>For what records dates while packages are configured; the image's own date is that of its newest package.</summary>
    private const long EpochWhileInstalling = 1_704_067_200;

    /// <summary>Builds <paramref name="recipe"/> into <paramref name="outputDirectory"/>, which must not exist.</summary>
    /// <returns>The description that is also in <c>image.json</c>.</returns>
    /// <exception cref="ImageBuildException">The build failed; its <see cref="ImageBuildException.Failure"/> says why. The output does not exist.</exception>
    /// <exception cref="OperationCanceledException">Cancelled; every process of the build has ended and the output does not exist.</exception>
    public static async Task<BuiltImage> BuildAsync(
        Recipe recipe,
        string outputDirectory,
        BuildOptions options,
        IProgress<BuildProgress> progress,
        CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(progress);
        if (recipe.Kind == ImageKind.Application)
        {
            throw new ImageBuildException(ImageBuildFailure.OtherSystem, $"'{recipe.Name}' is an application layer: it is built on the folder of the system image '{recipe.On}'");
        }

        if (OperatingSystem.IsWindows())
        {
            throw new PlatformNotSupportedException("images are built on Linux");
        }

        var searchPath = Environment.GetEnvironmentVariable("PATH") ?? "/usr/bin:/bin";
        RequirePrograms(searchPath, SystemFolders);
        var output = OutputAt(outputDirectory);

        var guest = FindGuestFiles(options);
        var sources = SourcesOf(recipe);

        progress.Report(new BuildProgress(BuildPhase.Prepare, null, "preparing"));
        Directory.CreateDirectory(Path.GetDirectoryName(output)!);
        var logFile = options.LogFile ?? output + ".log";
        using var log = new BuildLog(logFile, progress);
        using var secrets = BuildSecrets.Create(recipe, options.Secrets);
        using var work = BuildWork.Create(options.TemporaryFolder, guest, recipe);
        var environment = EnvironmentOf(recipe, options, work, secrets, searchPath);
        var indexes = await FetchAsync(work, sources, log, logFile, cancellationToken).ConfigureAwait(false);
        var steps = BuildSteps.Of(
            recipe, work, CacheOf(options), PathsOf(searchPath), ["system", environment["SOURCE_DATE_EPOCH"], .. ArgumentsOf(recipe, sources), .. indexes.Digests()],
            [environment["NACRE_UUID"], environment["NACRE_EPOCH"]]);
        if (!await steps.TakeAsync(log, cancellationToken).ConfigureAwait(false))
        {
            await RunAsync("mmdebstrap", ArgumentsOf(recipe, sources, hasPackages: File.Exists(work.KeptStep(0))), steps, work, options, environment, log, logFile, cancellationToken).ConfigureAwait(false);
            await steps.KeepImageAsync(["system.erofs", "kernel", "initramfs", "packages", "epoch"], cancellationToken).ConfigureAwait(false);
        }

        var packages = File.ReadLines(work.Result("packages"))
            .Select(line => line.Split('\t'))
            .Select(words => new InstalledPackage(words[0], words[1]))
            .OrderBy(package => package.Name, StringComparer.Ordinal);
        var image = DescriptionOf(recipe, work, "system.erofs") with
        {
            Archives = await indexes.ArchivesAsync(guest, cancellationToken).ConfigureAwait(false),
            KernelCommandLine = CommandLineOf(recipe),
            KernelSize = new FileInfo(work.Result("kernel")).Length,
            InitramfsSize = new FileInfo(work.Result("initramfs")).Length,
            Packages = [.. packages],
        };
        Deliver(image, work, ["system.erofs", "kernel", "initramfs"], output);
        progress.Report(new BuildProgress(BuildPhase.Done, 1, output));
        return image;
    }

    /// <summary>Builds an application layer on top of a built system image: a folder with <c>layer.erofs</c>, <c>contents.json</c> and <c>image.json</c>. The
    /// same recipe, system and packages give the same bytes.</summary>
    /// <param name="recipe">The application's recipe.</param>
    /// <param name="systemFolder">The folder of the system image that the recipe names.</param>
    /// <param name="outputDirectory">What to make; must not exist.</param>
    /// <param name="options">How to build.</param>
    /// <param name="progress">Told each step.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <exception cref="ImageBuildException">As for a system; OtherSystem where the folder holds none, or not the one that the recipe names.</exception>
    public static async Task<BuiltImage> BuildApplicationAsync(
        Recipe recipe, string systemFolder, string outputDirectory, BuildOptions options, IProgress<BuildProgress> progress, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(progress);
        if (OperatingSystem.IsWindows())
        {
            throw new PlatformNotSupportedException("images are built on Linux");
        }

        var searchPath = Environment.GetEnvironmentVariable("PATH") ?? "/usr/bin:/bin";
        RequirePrograms(searchPath, SystemFolders);
        var output = OutputAt(outputDirectory);
        var guest = FindGuestFiles(options);
        progress.Report(new BuildProgress(BuildPhase.Prepare, null, "preparing"));
        var (on, system) = await ReadSystemAsync(recipe, systemFolder, cancellationToken).ConfigureAwait(false);
        Directory.CreateDirectory(Path.GetDirectoryName(output)!);
        var logFile = options.LogFile ?? output + ".log";
        using var log = new BuildLog(logFile, progress);
        using var secrets = BuildSecrets.Create(recipe, options.Secrets);
        using var work = BuildWork.Create(options.TemporaryFolder, guest, recipe);
        var environment = EnvironmentOf(recipe, options, work, secrets, searchPath);
        var (first, last) = AccountNumbersOf(recipe.Name);
        environment["NACRE_NAME"] = recipe.Name;
        environment["NACRE_PACKAGES"] = string.Join(' ', recipe.Packages);
        environment["NACRE_FIRST_ID"] = first.ToString(CultureInfo.InvariantCulture);
        environment["NACRE_LAST_ID"] = last.ToString(CultureInfo.InvariantCulture);
        environment["NACRE_SYSTEM_EPOCH"] = on.Created.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture);
        environment["NACRE_UUID"] = UuidOf(recipe, on.Sha256).ToString();
        var indexes = recipe.Packages.IsEmpty ? null : await FetchAsync(work, await SourcesOfAsync(recipe, system, cancellationToken).ConfigureAwait(false), log, logFile, cancellationToken).ConfigureAwait(false);
        var steps = BuildSteps.Of(
            recipe, work, CacheOf(options), PathsOf(searchPath),
            ["application", on.Sha256, recipe.Name, environment["SOURCE_DATE_EPOCH"], environment["NACRE_PACKAGES"], .. indexes?.Digests() ?? []],
            [environment["NACRE_UUID"], environment["NACRE_EPOCH"], environment["NACRE_SYSTEM_EPOCH"]]);
        if (!await steps.TakeAsync(log, cancellationToken).ConfigureAwait(false))
        {
            string[] user = Environment.IsPrivilegedProcess ? [] : ["--user", "--map-root-user", "--map-auto"];
            await RunAsync(
                "unshare", [.. user, "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", Path.Combine(work.Folder, "guest", "build", "application"), system],
                steps, work, options, environment, log, logFile, cancellationToken).ConfigureAwait(false);
            await steps.KeepImageAsync(["layer.erofs", "packages", "epoch", "contents"], cancellationToken).ConfigureAwait(false);
        }

        var contents = ReadContents(work.Result("contents"));
        var image = DescriptionOf(recipe, work, "layer.erofs") with
        {
            On = on,
            Archives = indexes is null ? [] : await indexes.ArchivesAsync(guest, cancellationToken).ConfigureAwait(false),
            Packages = [.. contents.Packages.Select(package => new InstalledPackage(package.Name, package.Version))],
        };
        Deliver(image, work, ["layer.erofs"], output, ("contents.json", contents.ToJson()));
        progress.Report(new BuildProgress(BuildPhase.Done, 1, output));
        return image;
    }

    /// <summary>Runs what makes the image, and keeps what of it can be used again, however it ended.</summary>
    /// <exception cref="ImageBuildException">StepFailed.</exception>
    [UnsupportedOSPlatform("windows")]
    private static async Task RunAsync(
        string program, IEnumerable<string> arguments, BuildSteps steps, BuildWork work, BuildOptions options, Dictionary<string, string> environment, BuildLog log, string logFile,
        CancellationToken cancellationToken)
    {
        if (!File.Exists(work.KeptStep(0)))
        {
            await work.TakeCachedPackagesAsync(options.PackageCache, cancellationToken).ConfigureAwait(false);
        }

        int exitCode;
        try
        {
            exitCode = await ProcessTree.RunAsync(program, arguments, work.Folder, environment, log.Add, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            work.KeepNewPackages(options.PackageCache);
            await steps.KeepAsync().ConfigureAwait(false);
        }

        if (exitCode != 0)
        {
            throw new ImageBuildException(
                ImageBuildFailure.StepFailed,
                $"the build failed ({program} ended with {exitCode}); the log is {logFile}, its last lines:{Environment.NewLine}{log.LastLines}",
                logFile);
        }
    }

    /// <summary>Fetches what the archives offer now.</summary>
    /// <exception cref="ImageBuildException">StepFailed.</exception>
    [UnsupportedOSPlatform("windows")]
    private static async Task<AptIndexes> FetchAsync(BuildWork work, ImmutableArray<string> sources, BuildLog log, string logFile, CancellationToken cancellationToken)
    {
        try
        {
            var indexes = await AptIndexes.FetchAsync(work.AptFolder, sources, installed: null, log.Add, cancellationToken).ConfigureAwait(false);
            work.OpenAptFolder();
            return indexes;
        }
        catch (ImageBuildException exception)
        {
            throw new ImageBuildException(exception.Failure, $"the build failed; the log is {logFile}: {exception.Message}", logFile, exception);
        }
    }

    [UnsupportedOSPlatform("windows")]
    private static StepCache? CacheOf(BuildOptions options) => options.StepCache is { } folder ? new StepCache(folder, options.StepCacheBytes, TimeProvider.System) : null;

    private static IEnumerable<string> PathsOf(string searchPath) => Programs.Select(item => ProcessTree.Find(item.Program, searchPath, SystemFolders)).OfType<string>();

    /// <summary>The archives of an application layer: the recipe's, else those of the system below it.</summary>
    /// <exception cref="ImageBuildException">NoSource; UnverifiedSource.</exception>
    internal static async Task<ImmutableArray<string>> SourcesOfAsync(Recipe recipe, string system, CancellationToken cancellationToken)
    {
        ImmutableArray<string> given = [.. recipe.Base.Sources, .. recipe.Base.UnverifiedSources];
        if (!given.IsEmpty)
        {
            return given;
        }

        var below = SystemBelow.Open(system);
        await using var _ = below.ConfigureAwait(false);
        var sources = await below.SourcesAsync(cancellationToken).ConfigureAwait(false);

        // What the system's recipe took upon itself is not this one's.
        if (sources.FirstOrDefault(source => RecipeSyntax.UncheckedSource().IsMatch(source)) is { } unverified)
        {
            throw new ImageBuildException(
                ImageBuildFailure.UnverifiedSource,
                $"the system '{recipe.On}' has a source of packages that nobody signed ('{unverified}'): name this recipe's own sources in base.sources, and those in base.unverifiedSources");
        }

        return sources.IsEmpty
            ? throw new ImageBuildException(ImageBuildFailure.NoSource, $"the system '{recipe.On}' has no apt source; name some in the recipe's base.sources")
            : sources;
    }

    /// <summary>The numbers of the system accounts that a layer makes: 20 of its own from 300 on, by its name, above those that a system gives from 100 on and
    /// below those that it gives from 999 down.</summary>
    internal static (int First, int Last) AccountNumbersOf(string name)
    {
        const int Lowest = 300, Count = 20, Ranges = 30;
        var range = System.Buffers.Binary.BinaryPrimitives.ReadUInt32BigEndian(SHA256.HashData(Encoding.ASCII.GetBytes("nacre accounts " + name))) % Ranges;
        var first = Lowest + ((int)range * Count);
        return (first, first + Count - 1);
    }

    /// <summary>The archives of a system: the recipe's, else those of this machine.</summary>
    internal static ImmutableArray<string> SourcesOf(Recipe recipe)
    {
        ImmutableArray<string> given = [.. recipe.Base.Sources, .. recipe.Base.UnverifiedSources];
        var sources = given.IsEmpty ? AptSources.ForSuite("/etc/apt", recipe.Base.Suite, recipe.Base.Components) : given;
        return sources.IsEmpty
            ? throw new ImageBuildException(
                ImageBuildFailure.NoSource, $"no apt source of this machine is a Debian archive of '{recipe.Base.Suite}'; name one in the recipe's base.mirror")
            : sources;
    }

    /// <summary>What is installed in a system beside what every Debian has.</summary>
    internal static IEnumerable<string> PackagesOf(Recipe recipe) => GuestPackages.Append(recipe.Kernel.Package).Concat(recipe.Packages).Distinct(StringComparer.Ordinal);

    internal static ImmutableArray<BuiltFile> FilesOf(Recipe recipe) => [.. recipe.Files.Select(file => new BuiltFile(file.Path, Convert.ToHexStringLower(SHA256.HashData([.. file.Content]))))];

    private static string OutputAt(string outputDirectory)
    {
        var output = Path.TrimEndingDirectorySeparator(Path.GetFullPath(outputDirectory));
        return Path.Exists(output) ? throw new ImageBuildException(ImageBuildFailure.OutputExists, $"the output '{output}' exists already") : output;
    }

    /// <summary>The system that an application layer is built on.</summary>
    /// <exception cref="ImageBuildException">OtherSystem.</exception>
    internal static async Task<(BuiltOn On, string Path)> ReadSystemAsync(Recipe recipe, string folder, CancellationToken cancellationToken)
    {
        try
        {
            var built = BuiltImage.FromJson(await File.ReadAllBytesAsync(Path.Combine(folder, "image.json"), cancellationToken).ConfigureAwait(false));
            if (built.Kind != ImageKind.System || built.Name != recipe.On)
            {
                throw new ImageBuildException(
                    ImageBuildFailure.OtherSystem, $"'{folder}' holds the {(built.Kind == ImageKind.System ? "system" : "application layer")} '{built.Name}', and the recipe is for the system '{recipe.On}'");
            }

            var path = Path.GetFullPath(Path.Combine(folder, "system.erofs"));
            var stream = File.OpenRead(path);
            await using var _ = stream.ConfigureAwait(false);
            return (new BuiltOn(built.Name, built.Created, Convert.ToHexStringLower(await SHA256.HashDataAsync(stream, cancellationToken).ConfigureAwait(false))), path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or System.Text.Json.JsonException)
        {
            throw new ImageBuildException(ImageBuildFailure.OtherSystem, $"'{folder}' is not the folder of a built system image: {exception.Message}", null, exception);
        }
    }

    /// <summary>Reads what guest/build/difference wrote: a kind and its fields a line, separated by tabs.</summary>
    internal static LayerContents ReadContents(string path)
    {
        var (packages, accounts, files, covers) = (new List<LayerPackage>(), new List<LayerAccount>(), new List<LayerFile>(), new List<CoveredPath>());
        foreach (var words in File.ReadLines(path).Select(line => line.Split('\t')))
        {
            switch (words)
            {
                case ["package", var name, var version, var architecture]:
                    packages.Add(new LayerPackage(name, version, architecture));
                    break;
                case ["passwd" or "group", var name, var number]:
                    accounts.Add(new LayerAccount(words[0], name, long.Parse(number, CultureInfo.InvariantCulture)));
                    break;
                case ["file", var place, var what, .. var content]:
                    files.Add(new LayerFile(place, content.Length == 0 ? what : content[0]));
                    break;
                case ["covers", var place, var owner, var how]:
                    covers.Add(new CoveredPath(place, owner, how == "removed"));
                    break;
                default:
                    throw new InvalidDataException($"'{string.Join(' ', words)}' describes nothing of a layer");
            }
        }

        return new LayerContents(packages, accounts, files, covers);
    }

    /// <summary>A UUID (RFC 9562 version 8) that the same recipe (on the same system) always gets.</summary>
    internal static Guid UuidOf(Recipe recipe, string system = "")
    {
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(Encoding.ASCII.GetBytes("nacre image " + recipe.Sha256 + system), hash);
        hash[6] = (byte)((hash[6] & 0x0f) | 0x80);
        hash[8] = (byte)((hash[8] & 0x3f) | 0x80);
        return new Guid(hash[..16], bigEndian: true);
    }

    /// <summary>What starts the image's kernel; the player adds nothing it does not have to.</summary>
    internal static string CommandLineOf(Recipe recipe) =>
        $"boot=nacre root=/dev/vda ro console=ttyS0 no_timer_check panic=-1 quiet {recipe.Kernel.CommandLine}".TrimEnd();

    /// <summary>mmdebstrap's arguments. Hooks are constant text: what they need is in files of the work folder.</summary>
    /// <param name="recipe">The recipe.</param>
    /// <param name="sources">The archives, of which the setup hook puts the indexes in.</param>
    /// <param name="hasPackages">Whether the setup hook brings the root with its packages.</param>
    internal static ImmutableArray<string> ArgumentsOf(Recipe recipe, ImmutableArray<string> sources, bool hasPackages = false) =>
    [
        Environment.IsPrivilegedProcess ? "--mode=root" : "--mode=unshare",
        hasPackages ? "--variant=custom" : "--variant=apt",
        "--format=null",
        "--verbose",
        // The root is thrown away, so nothing in it is cleaned up after the hooks.
        "--skip=update,essential/unlink,download/empty,cleanup/apt,cleanup/reproducible",
        "--components=" + string.Join(',', recipe.Base.Components),
        .. hasPackages ? [] : new[] { "--include=" + string.Join(',', PackagesOf(recipe)) },
        "--aptopt=Apt::Install-Recommends \"false\"",
        "--aptopt=Acquire::Languages \"none\"",
        "--aptopt=Acquire::Retries \"3\"",
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=force-confold",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/info/*",
        "--dpkgopt=path-exclude=/usr/share/lintian/*",
        "--setup-hook=\"$NACRE_WORK/guest/build/setup\" \"$1\"",
        .. hasPackages ? [] : new[] { "--essential-hook=\"$NACRE_WORK/guest/build/prepare\" \"$1\"", "--customize-hook=\"$NACRE_WORK/guest/build/cache-out\" \"$1\"" },
        "--customize-hook=\"$NACRE_WORK/guest/build/customize\" \"$1\"",
        "--customize-hook=\"$NACRE_WORK/guest/build/image\" \"$1\"",
        recipe.Base.Suite,
        "/dev/null",
        .. sources,
    ];

    [UnsupportedOSPlatform("windows")]
    private static Dictionary<string, string> EnvironmentOf(Recipe recipe, BuildOptions options, BuildWork work, BuildSecrets secrets, string searchPath)
    {
        // Nothing else of the builder's environment: it would find its way into maintainer scripts.
        var environment = new Dictionary<string, string>
        {
            ["PATH"] = searchPath + ":/usr/local/sbin:/usr/sbin:/sbin",
            ["HOME"] = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile),
            ["LC_ALL"] = "C.UTF-8",
            ["TMPDIR"] = options.TemporaryFolder,
            ["SOURCE_DATE_EPOCH"] = (options.SourceDateEpoch ?? EpochWhileInstalling).ToString(CultureInfo.InvariantCulture),
            ["PYTHONHASHSEED"] = "0",
            // The kernel package makes no initramfs; the guest's finish script does, once.
            ["INITRD"] = "No",
            ["NACRE_WORK"] = work.Folder,
            ["NACRE_SECRETS"] = secrets.Folder,
            ["NACRE_EPOCH"] = options.SourceDateEpoch?.ToString(CultureInfo.InvariantCulture) ?? "",
            ["NACRE_UUID"] = UuidOf(recipe).ToString(),
        };
        foreach (var name in new[] { "http_proxy", "https_proxy", "no_proxy" })
        {
            if (Environment.GetEnvironmentVariable(name) is { } proxy)
            {
                environment[name] = proxy;
            }
        }

        return environment;
    }

    /// <summary>Fails with the packages to install if a program is neither on the path nor in <paramref name="systemFolders"/>.</summary>
    internal static void RequirePrograms(string searchPath, ImmutableArray<string> systemFolders)
    {
        var missing = Programs.Where(item => ProcessTree.Find(item.Program, searchPath, systemFolders) is null).ToList();
        if (missing.Count > 0)
        {
            throw new ImageBuildException(
                ImageBuildFailure.MissingProgram,
                $"not installed: {string.Join(", ", missing.Select(item => item.Program))}; "
                + $"install with: apt-get install {string.Join(' ', missing.Select(item => item.Package).Distinct(StringComparer.Ordinal))}");
        }
    }

    private static string FindGuestFiles(BuildOptions options)
    {
        var candidates = new List<string>();
        if (options.GuestFiles is not null)
        {
            candidates.Add(options.GuestFiles);
        }
        else
        {
            for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
            {
                candidates.Add(Path.Combine(folder.FullName, "guest"));
            }
        }

        return candidates.FirstOrDefault(folder => File.Exists(Path.Combine(folder, "layers")) && File.Exists(Path.Combine(folder, "build", "finish")))
            ?? throw new ImageBuildException(ImageBuildFailure.MissingGuestFiles, $"the product's guest files are not in '{candidates[0]}'");
    }

    [UnsupportedOSPlatform("windows")]
    private static BuiltImage DescriptionOf(Recipe recipe, BuildWork work, string fileSystem) => new()
    {
        Kind = recipe.Kind,
        Name = recipe.Name,
        Description = recipe.Description,
        Created = DateTimeOffset.FromUnixTimeSeconds(long.Parse(File.ReadAllText(work.Result("epoch")).Trim(), CultureInfo.InvariantCulture)),
        RecipeSha256 = recipe.Sha256,
        KernelCommandLine = "",
        SystemSize = new FileInfo(work.Result(fileSystem)).Length,
        KernelSize = 0,
        InitramfsSize = 0,
        Packages = [],
        Files = FilesOf(recipe),
    };

    /// <summary>Puts an image's files in their place, all of them or none.</summary>
    [UnsupportedOSPlatform("windows")]
    private static void Deliver(BuiltImage image, BuildWork work, string[] names, string output, params (string Name, byte[] Content)[] more)
    {
        var half = Path.Combine(Path.GetDirectoryName(output)!, $".{Path.GetFileName(output)}.{Guid.NewGuid():n}");
        Directory.CreateDirectory(half);
        try
        {
            foreach (var name in names)
            {
                var target = Path.Combine(half, name);
                File.Move(work.Result(name), target);
                File.SetUnixFileMode(target, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead);
            }

            foreach (var (name, content) in more.Append(("image.json", image.ToJson())))
            {
                File.WriteAllBytes(Path.Combine(half, name), content);
            }

            Directory.Move(half, output);
        }
        catch
        {
            Directory.Delete(half, recursive: true);
            throw;
        }
    }
}
