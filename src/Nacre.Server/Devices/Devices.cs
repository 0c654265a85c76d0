using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

internal sealed class DeviceRow
{
    public required string Id { get; init; }

    public required string Name { get; init; }

    public required string User { get; init; }

    public required string KeyX { get; init; }

    public required string KeyY { get; init; }

    public required DateTimeOffset EnrolledAt { get; init; }

    public DateTimeOffset? LastSeenAt { get; set; }

    public DateTimeOffset? RevokedAt { get; set; }

    public PublicKey PublicKey => new("EC", "P-256", KeyX, KeyY);

    public Device ToContract() => new(Id, Name, User, EnrolledAt, LastSeenAt, RevokedAt is not null);
}

internal sealed class Devices(NacreDatabase database, AuditTrail audit, TimeProvider time)
{
    public async Task<IReadOnlyList<Device>> ListAsync(CancellationToken cancellationToken) =>
        (await database.Devices.AsNoTracking().OrderBy(row => row.EnrolledAt).ThenBy(row => row.Id).ToListAsync(cancellationToken))
        .ConvertAll(row => row.ToContract());

    /// <summary>Takes a device's permission away. Doing it again changes nothing.</summary>
    public async Task<Result<Device>> RevokeAsync(string untrustedId, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var device = await database.Devices.SingleOrDefaultAsync(row => row.Id == untrustedId, cancellationToken);
        if (device is null)
        {
            return DeviceErrors.NoDevice;
        }

        if (device.RevokedAt is null)
        {
            device.RevokedAt = time.Now();
            await audit.AppendAsync(Roles.Administrator, "device.revoke", device.Id, $"{device.Name} of {device.User}", cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }

        return device.ToContract();
    }
}

internal static class DeviceEndpoints
{
    public static void Map(Groups groups)
    {
        groups.Administrator.MapPost("/enrolment-codes", async (CreateEnrolmentCode body, Enrolment enrolment, CancellationToken cancellationToken) =>
                (await enrolment.CreateCodeAsync(body, cancellationToken)).ToHttp(code => TypedResults.Created((string?)null, code)))
            .WithName("CreateEnrolmentCode").WithSummary("Makes a one-time code with which a device of a user enrols; shown this once.")
            .Produces<CreatedEnrolmentCode>(StatusCodes.Status201Created).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.TrustMissing);
        groups.Public.MapPost("/devices", async (EnrolDevice body, Enrolment enrolment, CancellationToken cancellationToken) =>
                (await enrolment.EnrolAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("EnrolDevice").WithSummary("Enrols a device with a one-time code. The same request again gets the same answer.")
            .Produces<EnrolledDevice>().Fails(
                ErrorCatalogue.RequestInvalid, ErrorCatalogue.EnrolmentCodeWrong, ErrorCatalogue.EnrolmentCodeExpired, ErrorCatalogue.EnrolmentCodeUsed, ErrorCatalogue.AlreadyEnrolled, ErrorCatalogue.TooManyDevices, ErrorCatalogue.TrustMissing);
        groups.Administrator.MapGet("/devices", (Devices devices, CancellationToken cancellationToken) => devices.ListAsync(cancellationToken))
            .WithName("ListDevices").WithSummary("All devices.");
        groups.Administrator.MapPost("/devices/{id}/revoke", async (string id, Devices devices, CancellationToken cancellationToken) =>
                (await devices.RevokeAsync(id, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("RevokeDevice").WithSummary("Takes a device's permission away.")
            .Produces<Device>().Fails(ErrorCatalogue.NotFound);
    }
}
