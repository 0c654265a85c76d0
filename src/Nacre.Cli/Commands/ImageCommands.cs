using System.CommandLine;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Images;
using Nacre.Images.Building;
using Nacre.Images.Importing;
using Nacre.Images.Publishing;
using Nacre.Images.Recipes;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre image</c>: build golden images, publish releases, move channels.</summary>
internal static class ImageCommands
{
    public static Command Create() => new("image", "Golden images: build, import, export, check, publish, approve, list (administrators)")
    {
        Build(), Import(), Export(), ReleaseCommands.Check(), Publish(), List(), ReleaseCommands.Show(), ReleaseCommands.Approve(), ReleaseCommands.Reject(), ReleaseCommands.Policy(), Channel(), Retention(),
        BootSetOf(),
    };

    private static Command Build()
    {
        var recipe = new Argument<string>("RECIPE") { Description = "The recipe's YAML file; docs/recipes.md describes it" };
        var output = new Option<string?>("--output", "-o") { Description = "The folder to make (default: the image's name)" };
        var cache = new Option<string?>("--package-cache") { Description = "Where downloaded packages are kept (default: ~/.cache/nacre/debs)" };
        var noCache = new Option<bool>("--no-cache") { Description = "Do every step anew, and keep none for the next build (default: steps that are the same are taken from ~/.cache/nacre/steps)" };
        var on = new Option<string?>("--on") { Description = "For an application layer (kind: application): the folder of the built system image that it goes on top of" };
        var variables = new Option<string[]>("--var") { Description = "NAME=VALUE: the value of a variable that the recipe declares; can be given again" };
        var secrets = new Option<string[]>("--secret") { Description = "NAME=FILE: a secret that the recipe's scripts read in /run/secrets, and that never gets into the image; can be given again" };
        var plan = new Option<bool>("--dry-run") { Description = "Build nothing: say what would change against the last release" };
        var against = new Option<string?>("--against") { Description = "With --dry-run: the folder of the last release's image (default: the output folder, else the server's last release)" };
        var command = new Command("build", "Build a golden image, or an application layer on top of one, from a recipe") { recipe, on, output, cache, noCache, variables, secrets, plan, against };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var image = Parse(parsed.GetValue(recipe)!, Pairs("--var", parsed.GetValue(variables)));
            var folder = Path.GetFullPath(parsed.GetValue(output) ?? image.Name);
            var options = parsed.GetValue(cache) is { } packages ? new BuildOptions { PackageCache = Path.GetFullPath(packages) } : new BuildOptions();
            options = options with { Secrets = Pairs("--secret", parsed.GetValue(secrets)), StepCache = parsed.GetValue(noCache) ? null : options.StepCache };
            var system = parsed.GetValue(on);
            if (system is null == (image.Kind == ImageKind.Application))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, system is null
                    ? $"'{image.Name}' is an application layer: name the folder of the built system image '{image.On}' with --on"
                    : $"'{image.Name}' is a system: --on is for application layers (kind: application)");
            }

            if (parsed.GetValue(plan))
            {
                await BuildPlans.ShowAsync(image, system, options, parsed.GetValue(against), folder, cancellationToken);
                return;
            }

            var cached = new List<string>();
            var built = await Terminal.ProgressAsync($"building {image.Name}", report => BuildAsync(image, system, folder, options, cached, report, cancellationToken));
            cached.ForEach(Terminal.Note);
            Terminal.Result(built, () =>
            {
                if (built.Kind == ImageKind.Application)
                {
                    ShowLayer(built, folder);
                }
                else
                {
                    Terminal.Line($"{folder}: {built.Packages.Length} packages, system {Terminal.Bytes(built.SystemSize)}, kernel {Terminal.Bytes(built.KernelSize)}, initramfs {Terminal.Bytes(built.InitramfsSize)}");
                }

                Terminal.Line($"next: nacre image publish {parsed.GetValue(output) ?? image.Name} --channel pilot");
            });
        });
        return command;
    }

    /// <summary>What a layer adds, and what of the system it covers.</summary>
    private static void ShowLayer(BuiltImage built, string folder)
    {
        const int Named = 20;
        var covers = LayerContents.FromJson(File.ReadAllBytes(Path.Combine(folder, "contents.json"))).Covers;
        Terminal.Line($"{folder}: adds {built.Packages.Length} packages to {built.On!.Name}, {Terminal.Bytes(built.SystemSize)}");
        foreach (var path in covers.Take(Named))
        {
            Terminal.Line(Conflict(path));
        }

        if (covers.Count > Named)
        {
            Terminal.Line($"conflict: {covers.Count - Named} more paths of the system; contents.json names all of them");
        }
    }

    internal static string Conflict(CoveredPath path) =>
        $"conflict: {path.Path} of {(path.Owner == "system" ? "the system" : path.Owner)} is {(path.Removed ? "removed" : "replaced")}: the layer wins";

    private static Task<BuiltImage> BuildAsync(Recipe image, string? system, string folder, BuildOptions options, List<string> cached, Action<double, string> report, CancellationToken cancellationToken)
    {
        var reporter = new Reporter<BuildProgress>(progress =>
        {
            if (progress.Phase == BuildPhase.Cached)
            {
                cached.Add(progress.Message);
            }

            report(progress.Fraction ?? double.NaN, progress.Message);
        });
        return ExplainAsync(() => system is null
            ? ImageBuilder.BuildAsync(image, folder, options, reporter, cancellationToken)
            : ImageBuilder.BuildApplicationAsync(image, system, folder, options, reporter, cancellationToken));
    }

    /// <summary>Gives what ended a build its place in the catalogue.</summary>
    internal static async Task<T> ExplainAsync<T>(Func<Task<T>> build)
    {
        try
        {
            return await build();
        }
        catch (ImageBuildException exception)
        {
            throw new NacreException(exception.Failure switch
            {
                ImageBuildFailure.MissingProgram => ErrorCatalogue.ProgramMissing,
                ImageBuildFailure.MissingGuestFiles => ErrorCatalogue.FileAccess,
                ImageBuildFailure.OutputExists => ErrorCatalogue.AlreadyExists,
                ImageBuildFailure.NoSource or ImageBuildFailure.UnverifiedSource => ErrorCatalogue.RecipeInvalid,
                ImageBuildFailure.OtherSystem => ErrorCatalogue.NotAnImage,
                ImageBuildFailure.Secret => ErrorCatalogue.UsageInvalid,
                ImageBuildFailure.StepFailed => ErrorCatalogue.BuildFailed,
            }, exception.Message, exception);
        }
    }

    /// <summary>Options of the form NAME=VALUE.</summary>
    private static Dictionary<string, string> Pairs(string option, string[]? untrusted)
    {
        var pairs = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var text in untrusted ?? [])
        {
            var at = text.IndexOf('=', StringComparison.Ordinal);
            if (at <= 0 || !pairs.TryAdd(text[..at], text[(at + 1)..]))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, at <= 0 ? $"{option} takes NAME=VALUE" : $"{option} {text[..at]} is there twice");
            }
        }

        return pairs;
    }

    private static Recipe Parse(string path, Dictionary<string, string> variables)
    {
        try
        {
            return RecipeParser.Parse(path, variables);
        }
        catch (RecipeException exception)
        {
            foreach (var error in exception.Errors)
            {
                Terminal.Note($"{error}");
            }

            var first = exception.Errors[0];
            throw new NacreException(ErrorCatalogue.RecipeInvalid, exception.Errors.Length == 1 ? $"{first}" : $"{exception.Errors.Length} errors in the recipe, the first: {first}", exception);
        }
    }

    private static Command Import()
    {
        var disk = new Argument<string>("DISK") { Description = "One file that holds a whole disk which boots by UEFI: raw, qcow2, vmdk, vhd, vhdx or vdi, or an OVA; it is not changed" };
        var name = new Option<string>("--name") { Description = "The golden image's name", Required = true };
        var output = new Option<string?>("--output", "-o") { Description = "The folder to make (default: the image's name)" };
        var format = new Option<DiskFormat?>("--format") { Description = "What the file is (default: what its first bytes say)" };
        var member = new Option<string?>("--disk") { Description = "Of an OVA with several disks: the name of the one to import" };
        var command = new Command("import", "Make a golden image of a disk whose inside Nacre does not know, such as a Windows that was installed elsewhere; it needs drivers for virtio disks") { disk, name, output, format, member };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var folder = parsed.GetValue(output) ?? parsed.GetValue(name)!;
            var imported = await Terminal.ProgressAsync($"importing {parsed.GetValue(name)}", report => DiskImporter.ImportAsync(
                parsed.GetValue(disk)!, parsed.GetValue(format), parsed.GetValue(member), parsed.GetValue(name)!, Path.GetFullPath(folder), report, cancellationToken));
            Terminal.Result(imported, () =>
            {
                Terminal.Line($"{Path.GetFullPath(folder)}: a disk of {Terminal.Bytes(imported.DiskSize)}, imported from {imported.From.ToString().ToLowerInvariant()}{(imported.Disk is null ? "" : $" ({Terminal.Printable(imported.Disk)})")}");
                foreach (var note in imported.Notes)
                {
                    Terminal.Line($"note: {Terminal.Printable(note)}");
                }

                foreach (var partition in imported.Partitions)
                {
                    Terminal.Line($"partition at {Terminal.Bytes(partition.Offset)}: {Terminal.Bytes(partition.Size)}, {partition.FileSystem ?? "not recognised"}{(partition.Label is null ? "" : $" '{Terminal.Printable(partition.Label)}'")}");
                }

                Terminal.Line($"next: nacre image publish {folder} --channel pilot");
            });
        });
        return command;
    }

    private static Command Export()
    {
        var folder = new Argument<string>("FOLDER") { Description = "The folder that 'nacre image import' made" };
        var file = new Argument<string>("FILE") { Description = "The file to make; it holds the disk in the clear, and only you can read it" };
        var format = new Option<DiskFormat>("--format") { Description = "What to make: qcow2, vhdx, raw, vmdk, vhd or vdi", DefaultValueFactory = _ => DiskFormat.Qcow2 };
        format.AcceptOnlyFromAmong("qcow2", "vhdx", "raw", "vmdk", "vhd", "vdi");
        var command = new Command("export", "Make a disk for other programs of a whole disk's image") { folder, file, format };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var image = GoldenImage.Open(parsed.GetValue(folder)!);
            if (image.Kind != ImageKind.Disk)
            {
                throw new NacreException(ErrorCatalogue.Unsupported, $"'{image.Name}' is no whole disk, and does not start without Nacre: its file system is {image.Artifacts[^1].Path}, an EROFS that any Linux mounts");
            }

            var target = Path.GetFullPath(parsed.GetValue(file)!);
            if (Path.Exists(target))
            {
                throw new NacreException(ErrorCatalogue.AlreadyExists, $"'{target}' is there already");
            }

            var kind = parsed.GetValue(format).ToString().ToLowerInvariant();
            await Terminal.ProgressAsync($"exporting {image.Name}", report => DiskImages.ExportAsync(Path.GetFullPath(image.Artifacts[0].Path), target, kind == "vhd" ? "vpc" : kind, report, cancellationToken));
            Terminal.Result(new { file = target, format = kind, bytes = new FileInfo(target).Length }, () => Terminal.Line($"{target}: {Terminal.Bytes(image.Artifacts[0].Size)} as {kind}, {Terminal.Bytes(new FileInfo(target).Length)}"));
        });
        return command;
    }

    private static Command Publish()
    {
        var folder = new Argument<string>("FOLDER") { Description = "The folder that 'nacre image build' or 'nacre image import' made" };
        var channel = new Option<string?>("--channel") { Description = "Point this channel at the new release" };
        var noDelta = new Option<bool>("--no-delta") { Description = "Make no deltas. Otherwise devices that have the latest release, or one that a channel points at, download only what changed in it" };
        var command = new Command("publish", "Publish an image as the next release: uploads only what the server lacks, signs it; interrupted, run it again") { folder, channel, noDelta };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var place = parsed.GetValue(folder)!;
            var image = GoldenImage.Open(place);
            var checks = await Nacre.Images.Checking.ImageChecks.OpenAsync(place, image, cancellationToken);
            if (checks?.HasFailed == true)
            {
                throw new NacreException(ErrorCatalogue.CheckFailed, $"'{place}' failed its checks, and no channel could point at a release of it");
            }

            using var client = Administration.Connect();
            using var key = Administration.SigningKey();
            var trust = new TrustDesk(client, TimeProvider.System);
            await trust.EnsureAsync(cancellationToken);
            await client.PutSigningKeyAsync(PublicKeys.From(key), cancellationToken);
            await trust.DelegateAsync(image.Name, key, cancellationToken);
            var trusted = await trust.UpdateAsync(cancellationToken);
            var publisher = new ReleasePublisher(
                new ServerStore(client), Administration.PublisherKeys(), key, release => trusted.Vouches(new ReleaseName(release.Image, release.Version), release.Manifest));
            var result = await Terminal.ProgressAsync($"publishing {image.Name}", report => publisher.PublishAsync(
                image,
                !parsed.GetValue(noDelta),
                new Reporter<PublishProgress>(progress => report(
                    progress.TotalBytes == 0 ? 1 : (double)progress.ReadBytes / progress.TotalBytes,
                    progress.DeltaFrom is { } from
                        ? $"delta from release {from}: {Terminal.Bytes(progress.ReadBytes)} of {Terminal.Bytes(progress.TotalBytes)} that changed, {Terminal.Bytes(progress.UploadedBytes)} uploaded"
                        : $"{Terminal.Bytes(progress.ReadBytes)} of {Terminal.Bytes(progress.TotalBytes)} read, {Terminal.Bytes(progress.UploadedBytes)} uploaded")),
                cancellationToken));
            await trust.VouchAsync(image.Name, [result.Release], key, cancellationToken);
            if (checks is not null)
            {
                await ReleaseCommands.AttachAsync(client, place, result.Release, checks, cancellationToken);
            }

            if (parsed.GetValue(channel) is { } name)
            {
                await client.MoveChannelAsync(image.Name, name, result.Release.Version, cancellationToken);
            }

            Terminal.Result(result, () =>
            {
                Terminal.Line($"{image.Name} release {result.Release.Version}: {Terminal.Bytes(result.ImageBytes)}, of which {Terminal.Bytes(result.ReusedBytes)} were there; {Terminal.Bytes(result.UploadedBytes)} uploaded"
                    + (parsed.GetValue(channel) is { } moved ? $"; channel {moved} points at it" : ""));
                foreach (var delta in result.Deltas)
                {
                    Terminal.Line($"delta from release {delta.From}: {Terminal.Bytes(delta.Parts.Append(delta.Plan).Sum(file => file.Length))}");
                }
            });
        });
        return command;
    }

    private static Command List()
    {
        var command = new Command("list", "List the images with their releases and channels");
        command.SetAction(async (_, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var images = await client.ListImagesAsync(cancellationToken);
            var releases = new List<Release>();
            foreach (var image in images)
            {
                releases.AddRange(await client.ListReleasesAsync(image.Name, cancellationToken));
            }

            Terminal.Result(releases, () => Terminal.Table(["IMAGE", "RELEASE", "PUBLISHED", "SIZE", "STORED", "CHANNELS"], releases.Select(release => new[]
            {
                release.Image, $"{release.Version}", release.PublishedAt.ToString("yyyy-MM-dd HH:mm", System.Globalization.CultureInfo.InvariantCulture),
                Terminal.Bytes(release.Size), Terminal.Bytes(release.StoredSize), string.Join(", ", release.Channels),
            })));
        });
        return command;
    }

    private static Command Retention()
    {
        var image = new Argument<string>("IMAGE") { Description = "The golden image" };
        var keep = new Option<int?>("--keep") { Description = "Keep this many of its newest releases, and those on a channel or on a device" };
        var all = new Option<bool>("--all") { Description = "Keep all of its releases (as delivered)" };
        var command = new Command("retention", "Say how many of an image's releases are kept; the others go within the hour, or with 'nacre store clean'. Without an option: show it") { image, keep, all };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            if (parsed.GetValue(keep) is not null && parsed.GetValue(all))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "either --keep or --all");
            }

            var name = parsed.GetValue(image)!;
            var now = parsed.GetValue(keep) is not null || parsed.GetValue(all)
                ? await client.SetRetentionAsync(name, parsed.GetValue(keep), cancellationToken)
                : (await client.ListImagesAsync(cancellationToken)).FirstOrDefault(one => one.Name == name)
                    ?? throw new NacreException(ErrorCatalogue.NotFound, $"there is no image '{name}'");
            Terminal.Result(now, () => Terminal.Line(now.Keep is { } count
                ? $"{now.Name}: the newest {count} releases are kept, and those on a channel or on a device"
                : $"{now.Name}: all releases are kept"));
        });
        return command;
    }

    private static Command Channel()
    {
        var image = new Argument<string>("IMAGE") { Description = "The golden image" };
        var channel = new Argument<string>("CHANNEL") { Description = "The channel, such as pilot or stable" };
        var version = new Argument<int>("RELEASE") { Description = "The release that it shall point at" };
        var command = new Command("channel", "Point a channel at a release: forward, or back") { image, channel, version };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            await client.MoveChannelAsync(parsed.GetValue(image)!, parsed.GetValue(channel)!, parsed.GetValue(version), cancellationToken);
            Terminal.Note($"{parsed.GetValue(image)}: {parsed.GetValue(channel)} points at release {parsed.GetValue(version)}");
        });
        return command;
    }

    private static Command BootSetOf()
    {
        var image = new Argument<string>("IMAGE") { Description = "The golden image" };
        var version = new Argument<int>("RELEASE") { Description = "The release" };
        var trust = new Option<string?>("--trust") { Description = "Make the boot pack of what this device recorded alone (its id in 'nacre device list'), as of a computer of yours on which you started the release" };
        var command = new Command("boot-set", "Show what devices recorded of a release's start, and the boot pack made of it: two devices have to agree") { image, version, trust };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            using var client = Administration.Connect();
            var (name, number) = (parsed.GetValue(image)!, parsed.GetValue(version));
            var state = await Terminal.ProgressAsync($"boot set of {name} {number}", _ => parsed.GetValue(trust) is { } device
                ? client.TrustRecordingAsync(name, number, device, cancellationToken)
                : client.GetBootSetAsync(name, number, cancellationToken));
            Terminal.Result(state, () =>
            {
                Terminal.Table(["DEVICE", "RECORDED", "CHUNKS", "SIZE", "TRUSTED"], state.Recordings.Select(recording => new[]
                {
                    recording.Device, recording.ReceivedAt.ToString("yyyy-MM-dd HH:mm", System.Globalization.CultureInfo.InvariantCulture),
                    $"{recording.Chunks}", Terminal.Bytes(recording.Bytes), recording.IsTrusted ? "yes" : "no",
                }));
                Terminal.Line(state.Pack is { } pack
                    ? $"boot pack: {pack.Chunks} chunks, {Terminal.Bytes(pack.Length)}"
                    : "boot pack: none yet; two devices that agree make one, or --trust DEVICE");
            });
        });
        return command;
    }

    /// <summary>The server as a publisher sees it.</summary>
    private sealed class ServerStore(NacreClient client) : IReleaseStore
    {
        public async Task<IReadOnlyList<Release>> ListReleasesAsync(CancellationToken cancellationToken)
        {
            var releases = new List<Release>();
            foreach (var image in await client.ListImagesAsync(cancellationToken))
            {
                releases.AddRange(await client.ListReleasesAsync(image.Name, cancellationToken));
            }

            return releases;
        }

        public Task<IReadOnlyList<string>> FindMissingSegmentsAsync(IReadOnlyList<string> names, CancellationToken cancellationToken) =>
            client.FindMissingSegmentsAsync(names, cancellationToken);

        public Task UploadSegmentAsync(string name, ReadOnlyMemory<byte> content, CancellationToken cancellationToken) =>
            client.UploadSegmentAsync(name, content, cancellationToken);

        public Task DownloadRangeAsync(string name, long offset, Memory<byte> destination, CancellationToken cancellationToken) =>
            client.DownloadRangeAsync(name, offset, destination, cancellationToken);

        public Task<Release> PublishReleaseAsync(string image, PublishRelease release, CancellationToken cancellationToken) =>
            client.PublishReleaseAsync(image, release, cancellationToken);
    }
}
