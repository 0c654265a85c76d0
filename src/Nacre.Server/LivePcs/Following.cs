using System.Globalization;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Server;

/// <summary>What an image of a LivePC follows on a device.</summary>
/// <param name="Name">The channel, or <c>release N</c>.</param>
/// <param name="Held">The release that the policy holds it at; null: it follows the channel.</param>
/// <param name="Failure">Why it can't be held there; null: it can.</param>
/// <param name="Problem">For a person: that it has no channel of the name that the policy says; null: it has.</param>
internal sealed record Followed(string Name, ReleaseName? Held = null, Failure? Failure = null, string? Problem = null);

internal static class HeldErrors
{
    public static Failure NoRelease(ReleaseName release) => new(
        ErrorCatalogue.NotFound, string.Create(CultureInfo.InvariantCulture, $"the policy ({Settings.UpdateChannel}) holds '{release.Image}' at release {release.Version}, and there is none of that number"));

    public static Failure NotApproved(ReleaseName release) => new(
        ErrorCatalogue.NotApproved, string.Create(CultureInfo.InvariantCulture, $"the policy ({Settings.UpdateChannel}) holds '{release.Image}' at release {release.Version}, which is not approved"));
}

/// <summary>Says what LivePCs follow: their own channels, or what the policy (<c>update.channel</c>) puts in the place of those.</summary>
internal sealed class Following(NacreDatabase database, Approvals approvals)
{
    /// <summary>What a LivePC's image follows.</summary>
    /// <param name="livePc">The LivePC.</param>
    /// <param name="policy">What holds for it.</param>
    /// <param name="deviceId">The device: it stays with a release that a lease of it covers already, as a channel stays; null: any.</param>
    /// <param name="cancellationToken">Stops.</param>
    public async Task<Followed> OfSystemAsync(LivePcRow livePc, Policy policy, string? deviceId, CancellationToken cancellationToken)
    {
        var wanted = policy.Get(Settings.UpdateChannel);
        if (Settings.TryReadRelease(wanted) is not { } version)
        {
            return await OfAsync(livePc.Image, livePc.Channel, wanted, cancellationToken);
        }

        var name = new ReleaseName(livePc.Image, version);
        var failure = await database.Releases.AsNoTracking().SingleOrDefaultAsync(row => row.Image == livePc.Image && row.Version == version, cancellationToken) is not { } release
            ? HeldErrors.NoRelease(name)
            : await IsLeasedAsync(name, deviceId, cancellationToken) ? null
            : await approvals.LacksAsync(release, cancellationToken) is { Count: > 0 } ? HeldErrors.NotApproved(name) : null;
        return new Followed(wanted, name, failure);
    }

    /// <summary>What an application layer of a LivePC follows.</summary>
    public async Task<Followed> OfLayerAsync(LivePcLayerRow layer, Policy policy, CancellationToken cancellationToken) =>
        await OfAsync(layer.Image, layer.Channel, Settings.TryReadRelease(policy.Get(Settings.UpdateChannel)) is null ? policy.Get(Settings.UpdateChannel) : "", cancellationToken);

    /// <summary>What of the policy does not come true for a LivePC.</summary>
    public async Task<IReadOnlyList<string>> ProblemsAsync(LivePcRow livePc, Policy policy, string? deviceId, CancellationToken cancellationToken)
    {
        var followed = new List<Followed> { await OfSystemAsync(livePc, policy, deviceId, cancellationToken) };
        foreach (var layer in await database.LivePcLayers.AsNoTracking().Where(row => row.LivePc == livePc.Name).OrderBy(row => row.Position).ToListAsync(cancellationToken))
        {
            followed.Add(await OfLayerAsync(layer, policy, cancellationToken));
        }

        return [.. followed.Select(one => one.Failure?.Detail ?? one.Problem).OfType<string>().Select(why => $"{Settings.UpdateChannel}: {why}")];
    }

    /// <summary>The channel that an image follows, where it follows one.</summary>
    /// <param name="own">The LivePC's own.</param>
    /// <param name="wanted">The policy's; may be empty.</param>
    /// <param name="isThere">Whether the image has a channel.</param>
    public static string ChannelOf(string own, string wanted, Func<string, bool> isThere) => wanted.Length > 0 && isThere(wanted) ? wanted : own;

    private async Task<Followed> OfAsync(string image, string own, string wanted, CancellationToken cancellationToken)
    {
        var isThere = wanted.Length > 0 && await database.Channels.AnyAsync(row => row.Image == image && row.Name == wanted, cancellationToken);
        var channel = ChannelOf(own, wanted, _ => isThere);
        return new Followed(channel, Problem: isThere || wanted.Length == 0 || wanted == own ? null : $"'{image}' has no channel '{wanted}' and follows '{own}'");
    }

    private async Task<bool> IsLeasedAsync(ReleaseName release, string? deviceId, CancellationToken cancellationToken) => deviceId is not null && await database.LeasedReleases.AnyAsync(
        row => row.Image == release.Image && row.Version == release.Version && database.Leases.Any(lease => lease.Id == row.LeaseId && lease.DeviceId == deviceId), cancellationToken);
}
