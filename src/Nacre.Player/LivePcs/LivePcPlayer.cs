using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Nacre.Client;
using Nacre.Contracts;
using Nacre.Player.Devices;
using Nacre.Player.Erasure;
using Nacre.Player.Keys;
using Nacre.Player.Leases;
using Nacre.Player.Logs;
using Nacre.Player.Machines;
using Nacre.Player.Orders;
using Nacre.Player.Releases;
using Nacre.Player.Stacks;
using Nacre.Player.Trust;
using Nacre.Player.UserPackages;
using Nacre.Volumes.Releases;

namespace Nacre.Player.LivePcs;

/// <summary>A LivePC on this device: whether it is entitled, what is installed, and what runs.</summary>
/// <param name="Name">The LivePC.</param>
/// <param name="Image">Its golden image.</param>
/// <param name="Channel">The channel that it follows; null where the server was not asked.</param>
/// <param name="Offered">The release that the channel points at; null where there is none or the server was not asked.</param>
/// <param name="Installed">The release that starts; null before the first start.</param>
/// <param name="Phase">What it does.</param>
public sealed record LivePcSummary(string Name, string Image, string? Channel, int? Offered, int? Installed, LivePcPhase Phase);

/// <summary>What an update would do or did.</summary>
/// <param name="From">The release that was installed; null where none was.</param>
/// <param name="To">The release that the channel points at.</param>
/// <param name="Bytes">Bytes to download, or downloaded.</param>
/// <param name="ReleaseBytes">Stored bytes of the whole new release and its application layers.</param>
/// <param name="Layers">The application layers that are added, replaced or removed.</param>
public sealed record UpdateResult(int? From, int To, long Bytes, long ReleaseBytes, IReadOnlyList<LayerChange> Layers)
{
    /// <summary>What becomes of the packages that the user installed; null where nobody could be asked: the LivePC does not run.</summary>
    public UserPackageFinding? UserPackages { get; init; }

    /// <summary>Bytes that need not be downloaded because of deltas: as planned.</summary>
    public long SavedBytes { get; init; }

    /// <summary>Why a delta could not be used, where one could not: whole chunks were downloaded in its place.</summary>
    public string? DeltaFailure { get; init; }
}

/// <summary>Which corporate layers an update takes again that were set aside on this device.</summary>
public enum Retake
{
    /// <summary>None.</summary>
    Nothing,

    /// <summary>Those that their user left: the user asks for them.</summary>
    Left,

    /// <summary>Those that did not reach a healthy start, too.</summary>
    All,
}

/// <summary>What an update does to an application layer.</summary>
/// <param name="Image">The layer.</param>
/// <param name="From">Its release before; null where it is added.</param>
/// <param name="To">Its release after; null where it is removed.</param>
public sealed record LayerChange(string Image, int? From, int? To);

/// <summary>What a person or a script can do with this device's LivePCs.</summary>
public sealed partial class LivePcPlayer
{
    private readonly PlayerPaths paths;
    private readonly IPasswordSource? passwords;
    private readonly TimeProvider time;

    /// <summary>Opens the player of this user.</summary>
    /// <param name="paths">The player's folders.</param>
    /// <param name="passwords">Asked for passwords; null: there are none to be had.</param>
    /// <param name="time">The clock.</param>
    public LivePcPlayer(PlayerPaths paths, IPasswordSource? passwords, TimeProvider time)
    {
        this.paths = paths;
        this.passwords = passwords;
        this.time = time;
    }

    /// <summary>The LivePCs that this device is entitled to, and those that it has.</summary>
    /// <returns>The list, and why the server was not asked where it was not.</returns>
    public async Task<(IReadOnlyList<LivePcSummary> LivePcs, NacreException? Offline)> ListAsync(CancellationToken cancellationToken)
    {
        await AttendAsync(cancellationToken).ConfigureAwait(false);
        using var identity = EnrolledIdentity.Open(paths);
        NacreException? offline = null;
        IReadOnlyList<EntitledLivePc> entitled = [];
        try
        {
            await identity.RenewCertificateAsync(time, cancellationToken).ConfigureAwait(false);
            using var client = identity.Connect();
            entitled = await client.ListEntitledLivePcsAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.ServerUnreachable || exception.Kind == ErrorCatalogue.ServerNotAuthentic)
        {
            offline = exception;
        }

        var names = entitled.Select(livePc => livePc.Name)
            .Concat(Directory.Exists(paths.LivePcs) ? Directory.GetDirectories(paths.LivePcs).Select(folder => Path.GetFileName(folder)!)
                .Where(name => Next(new LivePcFolder(paths, name)) is not null) : [])
            .Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal);
        var result = new List<LivePcSummary>();
        foreach (var name in names)
        {
            var folder = new LivePcFolder(paths, name);
            var status = await StatusAsync(name, cancellationToken).ConfigureAwait(false);
            var offer = entitled.FirstOrDefault(livePc => livePc.Name == name);
            var installed = Next(folder);
            result.Add(new LivePcSummary(name, offer?.Image ?? installed?.System.Image ?? "", offer?.Channel, offer?.Version, installed?.System.Version, status.Phase));
        }

        return (result, offline);
    }

    /// <summary>Goes on with what was interrupted; destroys what is due; fetches what is ordered, carries it out and delivers the receipts. A server that does not answer is asked at the next command.</summary>
    /// <exception cref="NacreException">NotEnrolled, FileAccess, LeaseNotAuthentic.</exception>
    public async Task AttendAsync(CancellationToken cancellationToken) => await (await HearAsync(cancellationToken).ConfigureAwait(false)).SendLogsAsync(null, cancellationToken).ConfigureAwait(false);

    /// <summary>The same, but for the logs that were asked for, which the answer sends.</summary>
    private async Task<DeviceOrderDesk> HearAsync(CancellationToken cancellationToken)
    {
        var desk = new DeviceOrderDesk(paths, time);
        await new Eraser(paths, time).GoOnAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await desk.AttendAsync(null, cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.ServerUnreachable || exception.Kind == ErrorCatalogue.ClockWrong || exception.Kind == ErrorCatalogue.NotFound)
        {
            // Offline, or a server of before there were such orders.
        }

        await new LeaseEnd(paths, time).EnforceAsync(cancellationToken).ConfigureAwait(false);
        return desk;
    }

    /// <summary>Goes on with a destruction that was interrupted, before anything else is done on this computer; where nothing was, does nothing.</summary>
    /// <exception cref="NacreException">FileAccess: something could not be destroyed.</exception>
    public static async Task FinishErasureAsync(CancellationToken cancellationToken)
    {
        if (PlayerPaths.Exists())
        {
            var paths = PlayerPaths.Open();
            if (Eraser.IsUnderWay(paths))
            {
                await new Eraser(paths, TimeProvider.System).GoOnAsync(cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Delivers receipts, if there are any: a device that was killed has nothing else to say.</summary>
    /// <returns>Whether all are delivered.</returns>
    public Task<bool> DeliverReceiptsAsync(CancellationToken cancellationToken) => new ReceiptBox(paths).DeliverAsync(cancellationToken);

    /// <summary>Stays connected to the server and carries out revokes and kills at once, until it is cancelled or the device was killed.</summary>
    /// <param name="problem">Told why it is not connected; null once it is.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public async Task WatchAsync(Action<NacreException?> problem, CancellationToken cancellationToken)
    {
        using var hours = new PeriodicTimer(TimeSpan.FromHours(1), time);
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var (hourly, sending) = (HourlyAsync(), Task.CompletedTask);
        try
        {
            await DeviceWatch.RunAsync(paths, async token =>
            {
                try
                {
                    sending = SendLogsAsync(await HearAsync(token).ConfigureAwait(false), sending); // a kill that comes meanwhile does not wait for it
                }
                catch (NacreException exception) when (exception.Kind != ErrorCatalogue.NotEnrolled)
                {
                    problem(exception);
                }
            }, () => TimeSpan.FromMinutes(Policies.Settings.PolicyRefreshInterval.FactoryValue), time, problem, _ => { }, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await ending.CancelAsync().ConfigureAwait(false);
            await Task.WhenAll(hourly, sending).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        // Killed: the receipt is all that is left.
        while (!await DeliverReceiptsAsync(cancellationToken).ConfigureAwait(false))
        {
            await Task.Delay(TimeSpan.FromMinutes(1), time, cancellationToken).ConfigureAwait(false);
        }

        async Task SendLogsAsync(DeviceOrderDesk desk, Task before)
        {
            await before.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await desk.SendLogsAsync(null, ending.Token).ConfigureAwait(false);
        }

        async Task HourlyAsync()
        {
            do
            {
                try
                {
                    await new LeaseEnd(paths, time).EnforceAsync(ending.Token).ConfigureAwait(false);
                }
                catch (NacreException)
                {
                    // The next hour.
                }
            }
            while (await hours.WaitForNextTickAsync(ending.Token).ConfigureAwait(false));
        }
    }

    /// <summary>What a user reads to the help desk to put off the end of a lease.</summary>
    /// <exception cref="NacreException">NotEnrolled.</exception>
    public string ExtensionRequest(string name)
    {
        using var identity = EnrolledIdentity.Open(paths);
        return new LeaseExtender(identity, new LivePcFolder(paths, name)).Request;
    }

    /// <summary>Takes the help desk's code.</summary>
    /// <returns>When the lease ends now.</returns>
    /// <exception cref="NacreException">ExtensionRefused, NotFound, ClockSetBack, NotEnrolled.</exception>
    public DateTimeOffset Extend(string name, string untrustedCode)
    {
        using var identity = EnrolledIdentity.Open(paths);
        return new LeaseExtender(identity, new LivePcFolder(paths, name)).Take(untrustedCode, time);
    }

    /// <summary>What the LivePC does now.</summary>
    public async Task<LivePcStatus> StatusAsync(string name, CancellationToken cancellationToken)
    {
        var folder = new LivePcFolder(paths, name);
        try
        {
            var answer = await ControlSocket.RequestAsync(folder.ControlSocket, "status", null, cancellationToken).ConfigureAwait(false);
            var status = answer.Deserialize<LivePcStatus>(ContractJson.Options) ?? throw new NacreException(ErrorCatalogue.NotRunning, "the player answered nothing");
            using var identity = EnrolledIdentity.Open(paths);
            return WithTrust(status with { SetAside = status.SetAside ?? (new StackBook(folder, time).Read().SetAside is [.., { IsByUser: true } left] ? Words(name, left) : null) }, identity) with { LogAsked = LogOf(folder).LastAsked() };
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotRunning)
        {
            using var identity = EnrolledIdentity.Open(paths);
            var state = new StackBook(folder, time).Read();
            var abandoned = IsAbandoned(folder);
            var stack = (abandoned ? folder.Machine?.Stack : null) ?? state.Next;
            var (ends, warning) = LeaseEnd.Read(identity, folder, time);
            return WithTrust(new LivePcStatus
            {
                Name = name,
                Phase = abandoned ? LivePcPhase.Abandoned : LivePcPhase.Stopped,
                Image = stack?.System.Image,
                Version = stack?.System.Version,
                Layers = [.. stack?.Layers.Select(layer => layer.ToString()) ?? []],
                LeaseEnds = ends,
                LeaseWarning = warning,
                SupportContact = LivePcSession.Words(OpenedLease.ReadKeptPolicy(folder, paths), Policies.Settings.SupportContact),
                OnTrial = stack is not null && stack.Equals(state.Trial),
                SetAside = state.SetAside is [.., var aside] ? Words(name, aside) : null,
            }, identity) with { LogAsked = LogOf(folder).LastAsked() };
        }
    }

    private static string Words(string name, SetAsideStack aside) => aside.IsByUser
        ? string.Create(CultureInfo.InvariantCulture, $"its user went back from {aside.Stack} on {aside.At:yyyy-MM-dd HH:mm} UTC: 'nacre livepc update {name}' takes it again, newer ones are taken without")
        : string.Create(CultureInfo.InvariantCulture, $"{aside.Stack} was set aside on {aside.At:yyyy-MM-dd HH:mm} UTC: {aside.Reason}");

    /// <summary>The log of a LivePC on this device, the oldest event first.</summary>
    /// <exception cref="NacreException">NotFound: the LivePC was never started here.</exception>
    public IReadOnlyList<LogLine> ReadLog(string name)
    {
        var folder = new LivePcFolder(paths, name);
        return Directory.Exists(folder.Root) ? LogOf(folder).Read() : throw new NacreException(ErrorCatalogue.NotFound, $"'{name}' is not on this device");
    }

    private LivePcLog LogOf(LivePcFolder folder) => new(folder, () => LivePcLog.KeptLevel(paths, folder), time);

    private LivePcStatus WithTrust(LivePcStatus status, EnrolledIdentity identity)
    {
        try
        {
            return status with { TrustWarnings = [.. new DeviceTrust(identity, time).Warnings.Select(warning => $"{warning}")] };
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.TrustNotAuthentic)
        {
            return status with { TrustProblem = exception.Message };
        }
    }

    /// <summary>Starts the LivePC in a process of its own and returns when its guest is up.</summary>
    /// <param name="name">The LivePC.</param>
    /// <param name="playerCommand">The program and arguments that run a player for it.</param>
    /// <param name="secrets">What its user gave to open it.</param>
    /// <param name="progress">Told each change.</param>
    /// <param name="cancellationToken">Ends the start, and the player with it.</param>
    /// <exception cref="NacreException">Whatever kept it from starting.</exception>
    public async Task<LivePcStatus> StartAsync(
        string name, IReadOnlyList<string> playerCommand, KeySecrets secrets, IProgress<LivePcStatus> progress, CancellationToken cancellationToken)
    {
        var folder = new LivePcFolder(paths, name);
        using (EnrolledIdentity.Open(paths))
        {
            folder.Create();
        }

        using var process = new Process
        {
            // None of this process's streams: whoever reads them would wait for the player's end.
            StartInfo = new ProcessStartInfo(playerCommand[0], playerCommand.Skip(1)) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true },
        };
        process.Start();
        await secrets.WriteAsync(process.StandardInput.BaseStream, cancellationToken).ConfigureAwait(false);
        process.StandardInput.Close();
        var errors = process.StandardError.ReadToEndAsync(CancellationToken.None);
        using var cancelled = cancellationToken.Register(() => _ = StopQuietlyAsync(folder));
        while (await process.StandardOutput.ReadLineAsync(CancellationToken.None).ConfigureAwait(false) is { } line)
        {
            var report = JsonSerializer.Deserialize<PlayerReport>(line, ContractJson.Options);
            if (report?.Code is { } code)
            {
                await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
                throw new NacreException(ErrorCatalogue.All.GetValueOrDefault(code, ErrorCatalogue.Internal), report.Message ?? code);
            }

            if (report?.Status is { } status)
            {
                progress.Report(status);
                if (status.Phase == LivePcPhase.Running)
                {
                    return status;
                }
            }
        }

        cancellationToken.ThrowIfCancellationRequested();
        throw new NacreException(ErrorCatalogue.Internal, $"the player of '{name}' ended without a word; its log is {folder.Log}\n{await errors.ConfigureAwait(false)}");
    }

    /// <summary>Shuts the LivePC down and returns when it has ended.</summary>
    /// <exception cref="NacreException">NotRunning.</exception>
    public async Task StopAsync(string name, CancellationToken cancellationToken)
    {
        var folder = new LivePcFolder(paths, name);
        try
        {
            await ControlSocket.RequestAsync(folder.ControlSocket, "stop", null, cancellationToken).ConfigureAwait(false);
        }
        catch (NacreException exception) when (exception.Kind == ErrorCatalogue.NotRunning && IsAbandoned(folder))
        {
            throw new NacreException(ErrorCatalogue.NotRunning, $"the player of '{name}' was killed; its guest waits for the next start, and can be stopped then", exception);
        }

        while (IsHeld(folder))
        {
            await Task.Delay(TimeSpan.FromMilliseconds(50), time, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Puts off by a day that a running LivePC starts again for an update.</summary>
    /// <returns>When it does.</returns>
    /// <exception cref="NacreException">NotRunning; NotFound: no update has a deadline; Forbidden: it was put off as often as the policy lets it.</exception>
    public async Task<DateTimeOffset> PostponeUpdateAsync(string name, CancellationToken cancellationToken) =>
        (await ControlSocket.RequestAsync(new LivePcFolder(paths, name).ControlSocket, "postpone", null, cancellationToken).ConfigureAwait(false)).Deserialize<DateTimeOffset>(ContractJson.Options);

    /// <summary>Runs a command in the guest as root.</summary>
    public async Task<GuestCommandResult> ExecuteAsync(string name, IReadOnlyList<string> words, byte[]? input, CancellationToken cancellationToken)
    {
        var arguments = new JsonObject { ["words"] = new JsonArray([.. words.Select(word => (JsonNode)word)]) };
        if (input is not null)
        {
            arguments["input"] = Convert.ToBase64String(input);
        }

        var answer = await ControlSocket.RequestAsync(new LivePcFolder(paths, name).ControlSocket, "execute", arguments, cancellationToken).ConfigureAwait(false);
        return answer.Deserialize<GuestCommandResult>(ContractJson.Options) ?? throw new NacreException(ErrorCatalogue.GuestFailed, "the guest's agent answered nothing");
    }

    /// <summary>Saves the LivePC's screen as a PNG file.</summary>
    public async Task ScreenshotAsync(string name, string file, CancellationToken cancellationToken) => await ControlSocket.RequestAsync(
        new LivePcFolder(paths, name).ControlSocket, "screenshot", new JsonObject { ["file"] = Path.GetFullPath(file) }, cancellationToken).ConfigureAwait(false);

    /// <summary>The unix socket on which the LivePC's screen speaks VNC.</summary>
    /// <exception cref="NacreException">NotRunning, Locked.</exception>
    public async Task<string> ScreenSocketAsync(string name, CancellationToken cancellationToken)
    {
        var folder = new LivePcFolder(paths, name);
        await ControlSocket.RequestAsync(folder.ControlSocket, "screen", null, cancellationToken).ConfigureAwait(false);
        return folder.ScreenSocket;
    }

    /// <summary>Says what an update would download, then downloads and verifies all of it, and only then makes it the release that starts next.</summary>
    /// <param name="name">The LivePC.</param>
    /// <param name="userPackages">What is done at the next start with packages of the user's that the new release can't carry.</param>
    /// <param name="planned">Told what will be downloaded before it is.</param>
    /// <param name="progress">Bytes downloaded so far.</param>
    /// <param name="retake">Which corporate layers are taken again that were set aside.</param>
    /// <param name="isToStart">Whether they start at the next start; else they are only downloaded.</param>
    /// <param name="from">A folder of segments (<c>nacre replica sync</c>) that is asked before the network; with it, a kept lease does where the server can't be reached. Null: none.</param>
    /// <param name="cancellationToken">Stops; what was downloaded stays.</param>
    /// <returns>What was done; null where the corporate layers on offer are installed and complete already.</returns>
    /// <exception cref="NacreException">UserPackagesInTheWay: nothing was downloaded, nothing changes. StackSetAside, ServerUnreachable, and whatever keeps a release from being opened.</exception>
    public async Task<UpdateResult?> UpdateAsync(
        string name, UserPackageChoice userPackages, Action<UpdateResult> planned, IProgress<long> progress, Retake retake, bool isToStart, string? from, CancellationToken cancellationToken)
    {
        using var identity = EnrolledIdentity.Open(paths);
        var folder = new LivePcFolder(paths, name);
        var book = new StackBook(folder, time);
        var state = book.Read();
        var lease = await OpenedLease.TakeAsync(identity, folder, state.Needed, null, time, cancellationToken).ConfigureAwait(false);
        if (lease.OfflineBecause is { } offline && from is null)
        {
            throw offline;
        }

        using var client = identity.Connect();
        var box = new ReportBox(identity, name, book, () => lease.Policy);
        if (lease.IsNew)
        {
            await box.DeliverAsync(client, null, cancellationToken).ConfigureAwait(false);
        }

        var offered = lease.Offered;
        if (state.FindSetAside(offered) is { } aside && (aside.IsByUser ? retake == Retake.Nothing : retake != Retake.All))
        {
            throw new NacreException(ErrorCatalogue.StackSetAside, aside.IsByUser ? $"{offered} is on offer, and {Words(name, aside)}" : Words(name, aside));
        }

        // Written down, so that nobody takes for unneeded what arrives.
        await book.ChangeAsync(now => now with { Coming = offered.Equals(now.Next) ? null : offered }, cancellationToken).ConfigureAwait(false);
        var result = await FetchAsync(lease, folder, offered, userPackages, planned, progress, (client, box, book, from), cancellationToken).ConfigureAwait(false);
        if (isToStart && result is not null)
        {
            // What the user chose holds too where nobody could be asked whether there is anything to choose.
            folder.UserPackages = result.UserPackages is { Conflicts: [] } || userPackages == UserPackageChoice.Postpone ? null : userPackages;
            await book.ChangeAsync(now => now.Offer(offered, time.GetUtcNow()), cancellationToken).ConfigureAwait(false);
        }

        await new CacheKeeper(paths, identity, time).TryCleanAsync(cancellationToken).ConfigureAwait(false);
        return result;
    }

    /// <summary>Says what a stack would download, asks about the user's packages, downloads and verifies all of it.</summary>
    /// <returns>What was done; null where it is what starts next and complete.</returns>
    private async Task<UpdateResult?> FetchAsync(
        OpenedLease lease, LivePcFolder folder, CorporateStack stack, UserPackageChoice userPackages, Action<UpdateResult> planned, IProgress<long> progress,
        (NacreClient Client, ReportBox Box, StackBook Book, string? From) by, CancellationToken cancellationToken)
    {
        var state = by.Book.Read();
        using var cache = new SegmentCache(paths.Segments);
        using var releases = await OpenReleases.OpenAsync(lease, stack, new ReleaseOpener(paths, cache, Delivery.Of(lease, by.Client, by.From, time)), cancellationToken).ConfigureAwait(false);
        await releases.FindDeltasAsync(lease, state.Needed, cancellationToken).ConfigureAwait(false);
        var before = releases.Statistics;
        var missing = releases.MissingBytes;
        if (stack.Equals(state.Next) && missing == 0)
        {
            return null;
        }

        var result = new UpdateResult(state.Next?.System.Version, stack.System.Version, missing + before.FetchedBytes, before.TotalBytes, Compare(state.Next, stack))
        {
            SavedBytes = releases.SavedBytes,
        };
        var log = new LivePcLog(folder, () => lease.Policy.Get(Policies.Settings.LogsEventLevel), time);
        log.Write(Policies.EventLevel.Information, "update.found", $"{stack}, {result.Bytes} bytes to download");
        planned(result);
        var finding = stack.Equals(state.Next) || lease.Kind == ImageKind.Disk ? null : await FindUserPackagesAsync(folder.Name, releases, cancellationToken).ConfigureAwait(false);
        if (finding is { Conflicts: [_, ..] conflicts })
        {
            await DecideAsync(folder.Name, stack, conflicts, userPackages, by.Box, by.Book, by.Client, cancellationToken).ConfigureAwait(false);
        }

        try
        {
            await releases.EnsureAllAsync(new Progress(progress), cancellationToken).ConfigureAwait(false);
        }
        catch (Volumes.VolumeException exception)
        {
            throw VolumeErrors.OfRelease(exception);
        }

        log.Write(Policies.EventLevel.Information, "update.downloaded", $"{stack}");
        return result with { Bytes = releases.Statistics.FetchedBytes, UserPackages = finding, DeltaFailure = releases.DeltaFailure };
    }

    /// <summary>Asks the running guest what a release means for the user's packages.</summary>
    /// <returns>What it found; null where it does not run, or merges no packages.</returns>
    private async Task<UserPackageFinding?> FindUserPackagesAsync(string name, OpenReleases releases, CancellationToken cancellationToken)
    {
        if ((await StatusAsync(name, cancellationToken).ConfigureAwait(false)).Phase != LivePcPhase.Running)
        {
            return null;
        }

        try
        {
            if (await UserPackageCheck.ReadStatusAsync(releases, cancellationToken).ConfigureAwait(false) is not { } status)
            {
                return null;
            }

            return await UserPackageCheck.AskAsync((words, input, token) => ExecuteAsync(name, words, input, token), status, cancellationToken).ConfigureAwait(false);
        }
        catch (Volumes.VolumeException exception)
        {
            throw VolumeErrors.OfRelease(exception);
        }
    }

    /// <summary>Tells the administrator which of the user's packages the corporate layers on offer can't carry, once for each choice, and does not go on where there is none.</summary>
    /// <exception cref="NacreException">UserPackagesInTheWay: the user has not chosen.</exception>
    private async Task DecideAsync(
        string name, CorporateStack offered, IReadOnlyList<UserPackageConflict> conflicts, UserPackageChoice choice, ReportBox box, StackBook book, NacreClient client,
        CancellationToken cancellationToken)
    {
        var list = string.Concat(conflicts.Select(conflict => $"  {conflict.Package} {conflict.Version}: {conflict.Reason}\n")).TrimEnd();
        var decided = choice == UserPackageChoice.Postpone ? "not installed" : $"the user chose to {choice.ToString().ToLowerInvariant()} them";
        var reason = $"packages of the user's that they can't carry; {decided}: {string.Join("; ", conflicts.Select(conflict => $"{conflict.Package} {conflict.Version}: {conflict.Reason}"))}";
        var identity = SHA256.HashData(Encoding.UTF8.GetBytes($"{box.DeviceId} {name} {offered} {reason}"));
        var report = box.Seal(new SendReport(
            Convert.ToHexStringLower(identity)[..32], time.GetUtcNow(), ReportKind.UserPackages, offered.Releases, reason.Length <= 1000 ? reason : reason[..999] + "…", ""));
        await book.ChangeAsync(now => now.Report(report), cancellationToken).ConfigureAwait(false);
        await box.DeliverAsync(client, null, cancellationToken).ConfigureAwait(false);
        if (choice == UserPackageChoice.Postpone)
        {
            throw new NacreException(ErrorCatalogue.UserPackagesInTheWay, $"'{name}' stays as it is: the new release can't carry what you installed\n{list}");
        }
    }

    private CorporateStack? Next(LivePcFolder folder) => new StackBook(folder, time).Read().Next;

    private static IReadOnlyList<LayerChange> Compare(CorporateStack? before, CorporateStack after)
    {
        static int? Find(CorporateStack? stack, string image) => stack?.Layers.FirstOrDefault(layer => layer.Image == image)?.Version;
        return [.. (before?.Layers ?? []).Concat(after.Layers).Select(layer => layer.Image).Distinct(StringComparer.Ordinal)
            .Select(image => new LayerChange(image, Find(before, image), Find(after, image))).Where(change => change.From != change.To)];
    }

    /// <summary>Whether a guest runs whose player was killed. To be asked where no player answers: one that runs or ends does, until its guest has ended.</summary>
    private static bool IsAbandoned(LivePcFolder folder)
    {
        using var leftOver = LeftOver.Find(folder);
        return leftOver is not null;
    }

    internal static bool IsHeld(LivePcFolder folder)
    {
        try
        {
            using var file = new FileStream(folder.Lock, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
            return false;
        }
        catch (Exception exception) when (exception is FileNotFoundException or DirectoryNotFoundException)
        {
            return false;
        }
        catch (IOException)
        {
            return true;
        }
    }

    private static async Task StopQuietlyAsync(LivePcFolder folder)
    {
        try
        {
            await ControlSocket.RequestAsync(folder.ControlSocket, "stop", null, CancellationToken.None).ConfigureAwait(false);
        }
        catch (NacreException)
        {
            // It has ended by itself.
        }
    }

    /// <summary>Turns what is present into what was fetched.</summary>
    private sealed class Progress(IProgress<long> inner) : IProgress<ReleaseStatistics>
    {
        public void Report(ReleaseStatistics value) => inner.Report(value.FetchedBytes);
    }
}
