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
    public static Command Create() => new("image", "Golden images: build, import, publish, list (administrators)") { Build(), Import(), Publish(), List(), Channel(), Retention(), BootSetOf() };

    private static Command Build()
    {
        var recipe = new Argument<string>("RECIPE") { Description = "The recipe's YAML file; docs/recipes.md describes it" };
        var output = new Option<string?>("--output", "-o") { Description = "The folder to make (default: the image's name)" };
        var cache = new Option<string?>("--package-cache") { Description = "Where downloaded packages are kept (default: ~/.cache/nacre/debs)" };
        var on = new Option<string?>("--on") { Description = "For an application layer (kind: application): the folder of the built system image that it goes on top of" };
        var command = new Command("build", "Build a golden image, or an application layer on top of one, from a recipe") { recipe, on, output, cache };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var image = Parse(parsed.GetValue(recipe)!);
            var folder = Path.GetFullPath(parsed.GetValue(output) ?? image.Name);
            var options = parsed.GetValue(cache) is { } packages ? new BuildOptions { PackageCache = Path.GetFullPath(packages) } : new BuildOptions();
            var system = parsed.GetValue(on);
            if (system is null == (image.Kind == ImageKind.Application))
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, system is null
                    ? $"'{image.Name}' is an application layer: name the folder of the built system image '{image.On}' with --on"
                    : $"'{image.Name}' is a system: --on is for application layers (kind: application)");
            }

            var built = await Terminal.ProgressAsync($"building {image.Name}", report => BuildAsync(image, system, folder, options, report, cancellationToken));
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
            Terminal.Line($"conflict: {path.Path} of {(path.Owner == "system" ? "the system" : path.Owner)} is {(path.Removed ? "removed" : "replaced")}: the layer wins");
        }

        if (covers.Count > Named)
        {
            Terminal.Line($"conflict: {covers.Count - Named} more paths of the system; contents.json names all of them");
        }
    }

    private static async Task<BuiltImage> BuildAsync(Recipe image, string? system, string folder, BuildOptions options, Action<double, string> report, CancellationToken cancellationToken)
    {
        try
        {
            var reporter = new Reporter<BuildProgress>(progress => report(progress.Fraction ?? double.NaN, progress.Message));
            return system is null
                ? await ImageBuilder.BuildAsync(image, folder, options, reporter, cancellationToken)
                : await ImageBuilder.BuildApplicationAsync(image, system, folder, options, reporter, cancellationToken);
        }
        catch (ImageBuildException exception)
        {
            throw new NacreException(exception.Failure switch
            {
                ImageBuildFailure.MissingProgram => ErrorCatalogue.ProgramMissing,
                ImageBuildFailure.MissingGuestFiles => ErrorCatalogue.FileAccess,
                ImageBuildFailure.OutputExists => ErrorCatalogue.AlreadyExists,
                ImageBuildFailure.NoSource => ErrorCatalogue.RecipeInvalid,
                ImageBuildFailure.OtherSystem => ErrorCatalogue.NotAnImage,
                ImageBuildFailure.StepFailed => ErrorCatalogue.BuildFailed,
            }, exception.Message, exception);
        }
    }

    private static Recipe Parse(string path)
    {
        try
        {
            return RecipeParser.Parse(path);
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
        var disk = new Argument<string>("DISK") { Description = "One file that holds a whole disk which boots by UEFI: raw, qcow2, vmdk, vhdx or vdi; it is not changed" };
        var name = new Option<string>("--name") { Description = "The golden image's name", Required = true };
        var output = new Option<string?>("--output", "-o") { Description = "The folder to make (default: the image's name)" };
        var format = new Option<DiskFormat?>("--format") { Description = "What the file is (default: what its first bytes say)" };
        var command = new Command("import", "Make a golden image of a disk whose inside Nacre does not know, such as a Windows that was installed elsewhere; it needs drivers for virtio disks") { disk, name, output, format };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var folder = parsed.GetValue(output) ?? parsed.GetValue(name)!;
            var imported = await Terminal.ProgressAsync($"importing {parsed.GetValue(name)}", report => DiskImporter.ImportAsync(
                parsed.GetValue(disk)!, parsed.GetValue(format), parsed.GetValue(name)!, Path.GetFullPath(folder), report, cancellationToken));
            Terminal.Result(imported, () =>
            {
                Terminal.Line($"{Path.GetFullPath(folder)}: a disk of {Terminal.Bytes(imported.DiskSize)}, imported from {imported.From.ToString().ToLowerInvariant()}");
                Terminal.Line($"next: nacre image publish {folder} --channel pilot");
            });
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
            var image = GoldenImage.Open(parsed.GetValue(folder)!);
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
