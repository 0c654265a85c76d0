using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Server;

/// <summary>A roll-out of a channel that is under way.</summary>
internal sealed class RolloutRow
{
    public required string Image { get; init; }

    public required string Channel { get; init; }

    public required int Version { get; init; }

    public required RolloutState State { get; set; }

    /// <summary>Shares in percent, growing, the last one 100.</summary>
    public required List<int> Steps { get; init; }

    public required int Step { get; set; }

    public required DateTimeOffset StepSince { get; set; }

    public required int StepHours { get; init; }

    public required int StopAtPercent { get; init; }

    public required int StopAfter { get; init; }

    /// <summary>Failures from then on count.</summary>
    public required DateTimeOffset CountedFrom { get; set; }
}

/// <summary>How a release of a system or a layer did on a device's LivePC.</summary>
internal sealed class StartRow
{
    public required string DeviceId { get; init; }

    public required string LivePc { get; init; }

    public required string Image { get; init; }

    public required int Version { get; init; }

    /// <summary>Its newest healthy start.</summary>
    public DateTimeOffset? HealthyAt { get; set; }

    /// <summary>When it was last set aside, or failed with nothing to go back to.</summary>
    public DateTimeOffset? FailedAt { get; set; }
}

internal static class RolloutErrors
{
    public static Failure Invalid { get; } = new(
        ErrorCatalogue.RequestInvalid,
        "a roll-out has at most 20 'steps' that grow within 1 to 100, 'stepHours' of 0 to 8760, 'stopAtPercent' of 1 to 100, and 'stopAfter' of 1 to 100000");

    public static Failure None(string image, string channel) => new(ErrorCatalogue.NotFound, $"no roll-out of '{image}' is under way in channel '{channel}'");

    public static Failure UnderWay(string image, string channel, int version) => new(
        ErrorCatalogue.AlreadyExists, string.Create(CultureInfo.InvariantCulture, $"release {version} of '{image}' is being rolled out in channel '{channel}': withdraw that, or let it end"));

    public static Failure There(string image, string channel, int version) => new(
        ErrorCatalogue.RequestInvalid, string.Create(CultureInfo.InvariantCulture, $"channel '{channel}' of '{image}' points at release {version} already"));
}

/// <summary>Offers a release to a growing share of a channel's devices, and stops where too many starts fail.</summary>
internal sealed class Rollouts(NacreDatabase database, Approvals approvals, Policies policies, AuditTrail audit, TimeProvider time)
{
    /// <summary>Releases of a device's LivePC that are remembered: bounds what a hostile device can make the server keep.</summary>
    private const int MostStarts = 200;

    private const int MostSteps = 20, LongestHours = 8760, MostFailures = 100_000;

    private static readonly int[] DefaultSteps = [5, 25, 100];

    public async Task<Result<Rollout>> StartAsync(string untrustedImage, string untrustedChannel, StartRollout untrusted, CancellationToken cancellationToken)
    {
        List<int> steps = [.. untrusted.Steps ?? DefaultSteps];
        if (steps.Count is 0 or > MostSteps || steps[0] < 1 || steps[^1] > 100 || steps.Zip(steps.Skip(1)).Any(pair => pair.First >= pair.Second)
            || untrusted.StepHours is < 0 or > LongestHours || untrusted.StopAtPercent is < 1 or > 100 || untrusted.StopAfter is < 1 or > MostFailures)
        {
            return RolloutErrors.Invalid;
        }

        if (steps[^1] != 100)
        {
            steps.Add(100);
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Channels.AsNoTracking().SingleOrDefaultAsync(row => row.Image == untrustedImage && row.Name == untrustedChannel, cancellationToken) is not { } channel)
        {
            return Names.IsValid(untrustedImage) && Names.IsValid(untrustedChannel) ? LeaseErrors.ChannelEmpty(untrustedImage, untrustedChannel) : IdentityErrors.NameInvalid("an image or a channel");
        }

        if (await database.Releases.AsNoTracking().SingleOrDefaultAsync(row => row.Image == channel.Image && row.Version == untrusted.Version, cancellationToken) is not { } release)
        {
            return ImageErrors.NoRelease(channel.Image, untrusted.Version);
        }

        if (await approvals.LacksAsync(release, cancellationToken) is { Count: > 0 } lacks)
        {
            return ApprovalErrors.NotApproved(string.Create(CultureInfo.InvariantCulture, $"release {release.Version} of '{release.Image}'"), lacks);
        }

        if (channel.Version == untrusted.Version)
        {
            return RolloutErrors.There(channel.Image, channel.Name, channel.Version);
        }

        if (await FindAsync(channel.Image, channel.Name, cancellationToken) is { } other)
        {
            return RolloutErrors.UnderWay(channel.Image, channel.Name, other.Version);
        }

        var now = time.Now();
        var rollout = new RolloutRow
        {
            Image = channel.Image, Channel = channel.Name, Version = untrusted.Version, State = RolloutState.Running, Steps = steps, Step = 0, StepSince = now,
            StepHours = untrusted.StepHours, StopAtPercent = untrusted.StopAtPercent, StopAfter = untrusted.StopAfter, CountedFrom = now,
        };
        database.Rollouts.Add(rollout);
        await AuditAsync(Roles.Administrator, "start", rollout, $"of release {rollout.Version} to {string.Join(", ", steps)} %", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return await ToContractAsync(rollout, channel.Version, cancellationToken);
    }

    public async Task<IReadOnlyList<Rollout>> ListAsync(CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var answer = new List<Rollout>();
        foreach (var row in await database.Rollouts.OrderBy(row => row.Image).ThenBy(row => row.Channel).ToListAsync(cancellationToken))
        {
            var channel = await database.Channels.SingleAsync(one => one.Image == row.Image && one.Name == row.Channel, cancellationToken);
            if (await CarryOnAsync(row, channel, cancellationToken))
            {
                answer.Add(await ToContractAsync(row, channel.Version, cancellationToken));
            }
        }

        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return answer;
    }

    /// <returns>The roll-out as it is then; what it was where it is over.</returns>
    public async Task<Result<Rollout>> ChangeAsync(string untrustedImage, string untrustedChannel, ChangeRollout untrusted, CancellationToken cancellationToken)
    {
        if (!Enum.IsDefined(untrusted.Action))
        {
            return new Failure(ErrorCatalogue.RequestInvalid, "'action' must be pause, resume, advance or withdraw");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await FindAsync(untrustedImage, untrustedChannel, cancellationToken) is not { } rollout)
        {
            return RolloutErrors.None(Names.IsValid(untrustedImage) ? untrustedImage : "?", Names.IsValid(untrustedChannel) ? untrustedChannel : "?");
        }

        var channel = await database.Channels.SingleAsync(row => row.Image == rollout.Image && row.Name == rollout.Channel, cancellationToken);
        var (from, isOver) = (channel.Version, false);
        switch (untrusted.Action)
        {
            case RolloutAction.Pause:
                rollout.State = RolloutState.Paused;
                await AuditAsync(Roles.Administrator, "pause", rollout, $"at {rollout.Steps[rollout.Step]} %", cancellationToken);
                break;
            case RolloutAction.Resume:
                (rollout.State, rollout.StepSince, rollout.CountedFrom) = (RolloutState.Running, time.Now(), time.Now());
                await AuditAsync(Roles.Administrator, "resume", rollout, $"at {rollout.Steps[rollout.Step]} %", cancellationToken);
                break;
            case RolloutAction.Advance:
                rollout.State = RolloutState.Running;
                isOver = !await AdvanceAsync(Roles.Administrator, rollout, channel, cancellationToken);
                break;
            default:
                await EndAsync(rollout, cancellationToken);
                break;
        }

        var answer = await ToContractAsync(rollout, from, cancellationToken) with { IsOver = isOver };
        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return answer;
    }

    /// <summary>Ends a channel's roll-out, if one is under way, where the channel stands. Inside the caller's transaction.</summary>
    public async Task EndAsync(string image, string channel, CancellationToken cancellationToken)
    {
        if (await FindAsync(image, channel, cancellationToken) is { } rollout)
        {
            await EndAsync(rollout, cancellationToken);
        }
    }

    /// <summary>The release that a channel offers to a device; null where the channel points at none. Inside the caller's transaction where it is to carry a roll-out on.</summary>
    public async Task<ReleaseName?> OfferAsync(string image, string channel, string deviceId, CancellationToken cancellationToken)
    {
        if (await database.Channels.SingleOrDefaultAsync(row => row.Image == image && row.Name == channel, cancellationToken) is not { } found)
        {
            return null;
        }

        if (await FindAsync(image, channel, cancellationToken) is not { } rollout)
        {
            return new ReleaseName(image, found.Version);
        }

        if (database.Database.CurrentTransaction is not null && !await CarryOnAsync(rollout, found, cancellationToken))
        {
            return new ReleaseName(image, found.Version);
        }

        // Who failed with it is not asked to try again, until the administrator resumes; who has it keeps it.
        var start = await database.Starts.AsNoTracking().Where(row => row.DeviceId == deviceId && row.Image == image && row.Version == rollout.Version)
            .OrderByDescending(row => row.FailedAt != null).ThenByDescending(row => row.FailedAt).FirstOrDefaultAsync(cancellationToken); // where nothing sorts, databases differ
        var hasFailed = start?.FailedAt >= rollout.CountedFrom && !(start.HealthyAt > start.FailedAt);
        var has = start?.HealthyAt is not null && !hasFailed;
        var isInShare = rollout.State == RolloutState.Running && !hasFailed && PlaceOf(rollout, deviceId) < rollout.Steps[rollout.Step] * 100;
        return new ReleaseName(image, has || isInShare ? rollout.Version : found.Version);
    }

    /// <summary>Takes what a device says of a start; a roll-out may stop by it. Inside the caller's transaction.</summary>
    public async Task NoteAsync(string deviceId, string livePc, SendReport report, CancellationToken cancellationToken)
    {
        if (report.Kind is not (ReportKind.Started or ReportKind.SetAside or ReportKind.Failed))
        {
            return;
        }

        foreach (var release in report.Stack.Distinct())
        {
            if (!await database.Releases.AnyAsync(row => row.Image == release.Image && row.Version == release.Version, cancellationToken))
            {
                continue;
            }

            var row = await database.Starts.SingleOrDefaultAsync(
                one => one.DeviceId == deviceId && one.LivePc == livePc && one.Image == release.Image && one.Version == release.Version, cancellationToken);
            if (row is null)
            {
                database.Starts.RemoveRange(await database.Starts.Where(one => one.DeviceId == deviceId).OrderByDescending(one => one.HealthyAt ?? one.FailedAt).Skip(MostStarts - 1).ToListAsync(cancellationToken));
                row = new StartRow { DeviceId = deviceId, LivePc = livePc, Image = release.Image, Version = release.Version };
                database.Starts.Add(row);
            }

            // The server's clock: a device's may be wrong, or lie.
            if (report.Kind == ReportKind.Started)
            {
                row.HealthyAt = time.Now();
            }
            else
            {
                row.FailedAt = time.Now();
            }
        }

        await database.SaveChangesAsync(cancellationToken);
        foreach (var release in report.Stack.Distinct())
        {
            foreach (var rollout in await database.Rollouts.Where(row => row.Image == release.Image && row.Version == release.Version).ToListAsync(cancellationToken))
            {
                await CarryOnAsync(rollout, await database.Channels.SingleAsync(row => row.Image == rollout.Image && row.Name == rollout.Channel, cancellationToken), cancellationToken);
            }
        }
    }

    private Task<RolloutRow?> FindAsync(string image, string channel, CancellationToken cancellationToken) =>
        database.Rollouts.SingleOrDefaultAsync(row => row.Image == image && row.Channel == channel, cancellationToken);

    /// <summary>Stops a roll-out where too many starts failed; begins the next step where it is time.</summary>
    /// <returns>False: it is over.</returns>
    private async Task<bool> CarryOnAsync(RolloutRow rollout, ChannelRow channel, CancellationToken cancellationToken)
    {
        if (rollout.State != RolloutState.Running)
        {
            return true;
        }

        var (healthy, failed) = await CountAsync(rollout, cancellationToken);
        if (failed >= rollout.StopAfter && failed * 100L >= (long)rollout.StopAtPercent * (healthy + failed))
        {
            rollout.State = RolloutState.Stopped;
            await AuditAsync("server", "stop", rollout, $"release {rollout.Version} failed on {failed} of {healthy + failed} devices", cancellationToken);
            return true;
        }

        // A step that nobody reported of yet says nothing, unless nobody got the release.
        return rollout.StepHours == 0 || time.GetUtcNow() < rollout.StepSince.AddHours(rollout.StepHours) || (healthy == 0 && await IsOfferedAsync(rollout, cancellationToken))
            || await AdvanceAsync("server", rollout, channel, cancellationToken);
    }

    /// <returns>False: it is over.</returns>
    private async Task<bool> AdvanceAsync(string by, RolloutRow rollout, ChannelRow channel, CancellationToken cancellationToken)
    {
        if (rollout.Step + 1 < rollout.Steps.Count)
        {
            rollout.Step++;
            rollout.StepSince = time.Now();
            await AuditAsync(by, "advance", rollout, $"to {rollout.Steps[rollout.Step]} %", cancellationToken);
            return true;
        }

        await audit.AppendAsync(by, "channel.move", $"{channel.Image}/{channel.Name}", string.Create(CultureInfo.InvariantCulture, $"from {channel.Version} to {rollout.Version}: the roll-out is done"), cancellationToken);
        channel.Version = rollout.Version;
        database.Rollouts.Remove(rollout);
        return false;
    }

    private async Task EndAsync(RolloutRow rollout, CancellationToken cancellationToken)
    {
        database.Rollouts.Remove(rollout);
        await AuditAsync(Roles.Administrator, "withdraw", rollout, $"release {rollout.Version} at {rollout.Steps[rollout.Step]} %", cancellationToken);
    }

    /// <summary>Devices on which the release started, and on which it failed since counting began and did not start after that.</summary>
    private async Task<(int Healthy, int Failed)> CountAsync(RolloutRow rollout, CancellationToken cancellationToken)
    {
        var rows = await (
            from start in database.Starts.AsNoTracking()
            where start.Image == rollout.Image && start.Version == rollout.Version
            join device in database.Devices on start.DeviceId equals device.Id
            select new { Start = start, device.User }).ToListAsync(cancellationToken);
        var follows = await FollowersAsync(rollout, cancellationToken);
        var devices = rows.Where(row => follows(row.User, row.Start.LivePc, row.Start.DeviceId)).Select(row => row.Start).ToList();
        var failed = devices.Count(row => row.FailedAt >= rollout.CountedFrom && !(row.HealthyAt > row.FailedAt));
        return (devices.Count(row => row.HealthyAt is not null && !(row.FailedAt >= row.HealthyAt)), failed);
    }

    private async Task<bool> IsOfferedAsync(RolloutRow rollout, CancellationToken cancellationToken)
    {
        var rows = await (
            from leased in database.LeasedReleases.AsNoTracking()
            where leased.Image == rollout.Image && leased.Version == rollout.Version
            join lease in database.Leases on leased.LeaseId equals lease.Id
            where lease.IssuedAt >= rollout.StepSince
            join device in database.Devices on lease.DeviceId equals device.Id
            select new { device.User, lease.LivePc, lease.DeviceId }).Distinct().ToListAsync(cancellationToken);
        var follows = await FollowersAsync(rollout, cancellationToken);
        return rows.Exists(row => follows(row.User, row.LivePc, row.DeviceId));
    }

    /// <summary>Answers for a user, a LivePC and a device whether that LivePC follows the roll-out's channel there.</summary>
    private async Task<Func<string, string, string, bool>> FollowersAsync(RolloutRow rollout, CancellationToken cancellationToken)
    {
        var systems = await database.LivePcs.AsNoTracking().Where(row => row.Image == rollout.Image).ToDictionaryAsync(row => row.Name, row => row.Channel, cancellationToken);
        var layers = await database.LivePcLayers.AsNoTracking().Where(row => row.Image == rollout.Image).ToDictionaryAsync(row => row.LivePc, row => row.Channel, cancellationToken);
        var channels = await database.Channels.AsNoTracking().Where(row => row.Image == rollout.Image).Select(row => row.Name).ToListAsync(cancellationToken);
        var wanted = await policies.LoadAsync(Settings.UpdateChannel, cancellationToken);
        return (user, livePc, device) =>
        {
            var said = wanted(user, livePc, device);
            return systems.TryGetValue(livePc, out var own) ? Settings.TryReadRelease(said) is null && Following.ChannelOf(own, said, channels.Contains) == rollout.Channel
                : layers.TryGetValue(livePc, out own) && Following.ChannelOf(own, said, channels.Contains) == rollout.Channel;
        };
    }

    /// <summary>A device's place among all, 0 to 9,999: the same for one roll-out, and another for the next, so that not always the same devices are first.</summary>
    private static int PlaceOf(RolloutRow rollout, string deviceId) => (int)(BinaryPrimitives.ReadUInt64BigEndian(
        SHA256.HashData(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{rollout.Image}/{rollout.Channel}/{rollout.Version}/{deviceId}")))) % 10_000);

    private async Task<Rollout> ToContractAsync(RolloutRow row, int from, CancellationToken cancellationToken)
    {
        var (healthy, failed) = await CountAsync(row, cancellationToken);
        return new Rollout(row.Image, row.Channel, from, row.Version, row.State, row.Steps, row.Step, row.StepSince, row.StepHours, row.StopAtPercent, row.StopAfter, healthy, failed);
    }

    private Task AuditAsync(string by, string what, RolloutRow rollout, string detail, CancellationToken cancellationToken) =>
        audit.AppendAsync(by, "rollout." + what, $"{rollout.Image}/{rollout.Channel}", detail, cancellationToken);
}
