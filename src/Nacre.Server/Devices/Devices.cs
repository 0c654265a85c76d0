using System.Security.Claims;
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

    /// <summary>Whether it may do nothing until an administrator approves it.</summary>
    public bool IsWaiting { get; set; }

    /// <summary>The serial of its newest certificate; null: it has none.</summary>
    public string? CertificateSerial { get; set; }

    public DateTimeOffset? CertificateEndsAt { get; set; }

    /// <summary>The serial of the certificate with which it asked for the newest, which goes on until its own end.</summary>
    public string? CertificateBefore { get; set; }

    public PublicKey PublicKey => new("EC", "P-256", KeyX, KeyY);

    public Device ToContract() => new(Id, Name, User, EnrolledAt, LastSeenAt, RevokedAt is not null, IsWaiting, CertificateSerial, CertificateEndsAt);
}

internal sealed class Devices(NacreDatabase database, AuditTrail audit, DeviceOrders orders, DeviceBell bell, TimeProvider time)
{
    public async Task<IReadOnlyList<Device>> ListAsync(CancellationToken cancellationToken) =>
        (await database.Devices.AsNoTracking().OrderBy(row => row.EnrolledAt).ThenBy(row => row.Id).ToListAsync(cancellationToken))
        .ConvertAll(row => row.ToContract());

    public async Task<Result<Device>> FindAsync(string untrustedId, CancellationToken cancellationToken) =>
        await database.Devices.AsNoTracking().SingleOrDefaultAsync(row => row.Id == untrustedId, cancellationToken) is { } device ? device.ToContract() : DeviceErrors.NoDevice;

    /// <summary>Lets a device in that waits, or turns it away for good.</summary>
    public async Task<Result<Device>> DecideAsync(string untrustedId, bool approves, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var device = await database.Devices.SingleOrDefaultAsync(row => row.Id == untrustedId, cancellationToken);
        if (device is null)
        {
            return DeviceErrors.NoDevice;
        }

        if (!device.IsWaiting || device.RevokedAt is not null)
        {
            return DeviceErrors.NotWaiting;
        }

        if (approves)
        {
            device.IsWaiting = false;
        }
        else
        {
            device.RevokedAt = time.Now();
        }

        await audit.AppendAsync(Roles.Administrator, approves ? "device.approve" : "device.reject", device.Id, $"{device.Name} of {device.User}", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return device.ToContract();
    }

    /// <summary>Takes a device's permission away. Doing it again changes nothing.</summary>
    public async Task<Result<Device>> RevokeAsync(string untrustedId, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var device = await database.Devices.SingleOrDefaultAsync(row => row.Id == untrustedId, cancellationToken);
        if (device is null)
        {
            return DeviceErrors.NoDevice;
        }

        await orders.RevokeAsync(device, null, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        bell.Ring(device.Id);
        return device.ToContract();
    }
}

internal static class DeviceEndpoints
{
    public static void Map(Groups groups)
    {
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapPost("/enrolment-codes", async (CreateEnrolmentCode body, Enrolment enrolment, CancellationToken cancellationToken) =>
                (await enrolment.CreateCodeAsync(body, cancellationToken)).ToHttp(code => TypedResults.Created((string?)null, code)))
            .WithName("CreateEnrolmentCode").WithSummary("Makes a one-time code with which a device of a user enrols; shown this once.")
            .Produces<CreatedEnrolmentCode>(StatusCodes.Status201Created).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound, ErrorCatalogue.TrustMissing);
        groups.Public.MapPost("/devices", async (EnrolDevice body, Enrolment enrolment, CancellationToken cancellationToken) =>
                (await enrolment.EnrolAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("EnrolDevice").WithSummary("Enrols a device with a one-time code. The same request again gets the same answer.")
            .Produces<EnrolledDevice>().Fails(
                ErrorCatalogue.RequestInvalid, ErrorCatalogue.EnrolmentCodeWrong, ErrorCatalogue.EnrolmentCodeExpired, ErrorCatalogue.EnrolmentCodeUsed, ErrorCatalogue.AlreadyEnrolled, ErrorCatalogue.TooManyDevices, ErrorCatalogue.TrustMissing);
        groups.Of(Roles.Administrator, Roles.HelpDesk, Roles.Auditor).MapGet("/devices", (Devices devices, CancellationToken cancellationToken) => devices.ListAsync(cancellationToken))
            .WithName("ListDevices").WithSummary("All devices.");
        groups.Of(Roles.Administrator, Roles.HelpDesk, Roles.Auditor).MapGet("/devices/{id}", async (string id, Devices devices, CancellationToken cancellationToken) =>
                (await devices.FindAsync(id, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("GetDevice").WithSummary("One device.")
            .Produces<Device>().Fails(ErrorCatalogue.NotFound);
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapPost("/devices/{id}/approve", async (string id, Devices devices, CancellationToken cancellationToken) =>
                (await devices.DecideAsync(id, approves: true, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("ApproveDevice").WithSummary("Lets a device in that waits for approval.")
            .Produces<Device>().Fails(ErrorCatalogue.NotFound, ErrorCatalogue.DeviceNotWaiting);
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapPost("/devices/{id}/reject", async (string id, Devices devices, CancellationToken cancellationToken) =>
                (await devices.DecideAsync(id, approves: false, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("RejectDevice").WithSummary("Turns a device away that waits for approval.")
            .Produces<Device>().Fails(ErrorCatalogue.NotFound, ErrorCatalogue.DeviceNotWaiting);
        groups.Device.MapPost("/certificate", async (RenewCertificate body, HttpContext context, DeviceCertificates certificates, CancellationToken cancellationToken) =>
                (await certificates.RenewAsync(context.User.FindFirstValue(ClaimTypes.NameIdentifier)!, body, context.Connection.ClientCertificate, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("RenewCertificate").WithSummary("Certifies the device's next key for TLS. The signed token alone proves the device here: its certificate may have ended.")
            .Produces<DeviceCertificate>().Fails(ErrorCatalogue.RequestInvalid).WithMetadata(new WithoutCertificate());
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapPost("/devices/{id}/revoke", async (string id, Devices devices, CancellationToken cancellationToken) =>
                (await devices.RevokeAsync(id, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("RevokeDevice").WithSummary("Takes a device's permission away, and orders it to forget its leases.")
            .Produces<Device>().Fails(ErrorCatalogue.NotFound);
    }
}
