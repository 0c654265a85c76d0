using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

internal sealed class LivePcRow
{
    public required string Name { get; init; }

    public required string Image { get; init; }

    public required string Channel { get; init; }
}

internal sealed class EntitlementRow
{
    public required string LivePc { get; init; }

    public required string User { get; init; }
}

internal static class LivePcErrors
{
    public static Failure Exists(string name) => new(ErrorCatalogue.AlreadyExists, $"there is a LivePC '{name}' already");

    public static Failure NotASystem(string image) => new(ErrorCatalogue.RequestInvalid, $"'{image}' is an application layer, and a LivePC runs a system: add it with 'nacre livepc layers'");

    public static Failure NoLivePc { get; } = new(ErrorCatalogue.NotFound, "there is no such LivePC");
}

internal sealed class LivePcs(NacreDatabase database, AuditTrail audit, DeviceOrders orders, DeviceBell bell)
{
    public async Task<Result<LivePc>> CreateAsync(CreateLivePc untrusted, CancellationToken cancellationToken)
    {
        var channel = untrusted.Channel ?? "stable";
        if (!Names.IsValid(untrusted.Name))
        {
            return IdentityErrors.NameInvalid("a LivePC");
        }

        if (!Names.IsValid(untrusted.Image) || !Names.IsValid(channel))
        {
            return IdentityErrors.NameInvalid("an image or a channel");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.LivePcs.AnyAsync(row => row.Name == untrusted.Name, cancellationToken))
        {
            return LivePcErrors.Exists(untrusted.Name);
        }

        if (await database.Images.AsNoTracking().SingleOrDefaultAsync(row => row.Name == untrusted.Image, cancellationToken) is not { } image)
        {
            return ImageErrors.NoImage(untrusted.Image);
        }

        if (image.Kind == ImageKind.Application)
        {
            return LivePcErrors.NotASystem(untrusted.Image);
        }

        database.LivePcs.Add(new LivePcRow { Name = untrusted.Name, Image = untrusted.Image, Channel = channel });
        await audit.AppendAsync(Roles.Administrator, "livepc.create", untrusted.Name, $"{untrusted.Image}/{channel}", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new LivePc(untrusted.Name, untrusted.Image, channel, []);
    }

    public async Task<IReadOnlyList<LivePc>> ListAsync(CancellationToken cancellationToken)
    {
        var users = (await database.Entitlements.AsNoTracking().OrderBy(row => row.User).ToListAsync(cancellationToken)).ToLookup(row => row.LivePc, row => row.User);
        return (await database.LivePcs.AsNoTracking().OrderBy(row => row.Name).ToListAsync(cancellationToken))
            .ConvertAll(row => new LivePc(row.Name, row.Image, row.Channel, [.. users[row.Name]]));
    }

    /// <summary>Gives or takes an entitlement. Doing it again changes nothing.</summary>
    public async Task<Result<Done>> EntitleAsync(string untrustedName, string untrustedUser, bool entitled, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (!await database.LivePcs.AnyAsync(row => row.Name == untrustedName, cancellationToken))
        {
            return LivePcErrors.NoLivePc;
        }

        if (!await database.Users.AnyAsync(row => row.Name == untrustedUser, cancellationToken))
        {
            return Names.IsValid(untrustedUser) ? IdentityErrors.NoUser(untrustedUser) : IdentityErrors.NameInvalid("a user");
        }

        var row = await database.Entitlements.SingleOrDefaultAsync(one => one.LivePc == untrustedName && one.User == untrustedUser, cancellationToken);
        if (entitled == row is not null)
        {
            return default(Done);
        }

        if (row is null)
        {
            database.Entitlements.Add(new EntitlementRow { LivePc = untrustedName, User = untrustedUser });
        }
        else
        {
            database.Entitlements.Remove(row);
        }

        await audit.AppendAsync(Roles.Administrator, entitled ? "livepc.entitle" : "livepc.disentitle", untrustedName, untrustedUser, cancellationToken);
        var devices = await database.Devices.Where(device => device.User == untrustedUser && device.RevokedAt == null).ToListAsync(cancellationToken);
        foreach (var device in entitled ? [] : devices)
        {
            await orders.RevokeAsync(device, untrustedName, cancellationToken);
        }

        if (entitled)
        {
            await orders.EntitledAsync(untrustedUser, untrustedName, cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);
        devices.ForEach(device => bell.Ring(device.Id));
        return default(Done);
    }
}

internal static class LivePcEndpoints
{
    public static void Map(Groups groups)
    {
        var group = groups.Administrator;
        group.MapPost("/livepcs", async (CreateLivePc body, LivePcs livePcs, CancellationToken cancellationToken) =>
                (await livePcs.CreateAsync(body, cancellationToken)).ToHttp(livePc => TypedResults.Created((string?)null, livePc)))
            .WithName("CreateLivePc").WithSummary("Creates a LivePC on a channel of an image; without a channel, on 'stable'.")
            .Produces<LivePc>(StatusCodes.Status201Created)
            .Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NameInvalid, ErrorCatalogue.AlreadyExists, ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.HelpDesk, Roles.Auditor).MapGet("/livepcs", (LivePcs livePcs, CancellationToken cancellationToken) => livePcs.ListAsync(cancellationToken))
            .WithName("ListLivePcs").WithSummary("All LivePCs and who is entitled to them.");
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.HelpDesk, Roles.Auditor).MapGet("/livepcs/{name}/layers", async (string name, Layers layers, CancellationToken cancellationToken) =>
                (await layers.GetAsync(name, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("GetLayers").WithSummary("What a LivePC is stacked of, with the paths that several layers bring and the winner of each.")
            .Produces<LivePcLayers>().Fails(ErrorCatalogue.NotFound);
        group.MapPut("/livepcs/{name}/layers", async (string name, PutLayers body, Layers layers, CancellationToken cancellationToken) =>
                (await layers.PutAsync(name, body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("PutLayers").WithSummary("Sets the application layers of a LivePC, lowest first. Devices take them with their next update.")
            .Produces<LivePcLayers>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.ChannelEmpty, ErrorCatalogue.LayersIncompatible);
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapPut("/livepcs/{name}/entitlements/{user}", async (string name, string user, LivePcs livePcs, CancellationToken cancellationToken) =>
                (await livePcs.EntitleAsync(name, user, entitled: true, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("Entitle").WithSummary("Entitles a user to a LivePC.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NameInvalid, ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapDelete("/livepcs/{name}/entitlements/{user}", async (string name, string user, LivePcs livePcs, CancellationToken cancellationToken) =>
                (await livePcs.EntitleAsync(name, user, entitled: false, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("RemoveEntitlement").WithSummary("Takes a user's entitlement to a LivePC away, and orders that user's devices to forget its lease.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NameInvalid, ErrorCatalogue.NotFound);
    }
}
