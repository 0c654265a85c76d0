using System.Security.Claims;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>What a device reported.</summary>
internal sealed class ReportRow
{
    public required string DeviceId { get; init; }

    public required string Id { get; init; }

    public required string LivePc { get; init; }

    public required DateTimeOffset ReceivedAt { get; init; }

    /// <summary>A <see cref="SendReport"/> as JSON.</summary>
    public required string Report { get; init; }
}

/// <summary>Takes what devices report, and shows it.</summary>
internal sealed class Reports(NacreDatabase database, Rollouts rollouts, AuditTrail audit, TimeProvider time)
{
    /// <summary>Of one device; the oldest give way. Bounds what a hostile device can make the server keep.</summary>
    private const int MostPerDevice = 200;
    private const int MostLayers = 1 + Layers.Most, LongestReason = 1000, LongestConsole = 8000;

    private static readonly Failure Invalid = new(
        ErrorCatalogue.RequestInvalid,
        $"a report must have an 'id' of 32 hexadecimal digits, a 'stack' of 1 to {MostLayers} releases, a 'reason' of at most {LongestReason} and a 'console' of at most {LongestConsole} characters");

    /// <summary>Takes a report. The same one again changes nothing.</summary>
    public async Task<Result<Done>> TakeAsync(string deviceId, string untrustedLivePc, SendReport untrusted, CancellationToken cancellationToken)
    {
        if (!Names.IsSegmentName(untrusted.Id) || !Enum.IsDefined(untrusted.Kind) || untrusted.Stack.Count is < 1 or > MostLayers
            || untrusted.Stack.Any(release => release is null || !Names.IsValid(release.Image) || release.Version < 1)
            || !Text.IsLabel(untrusted.Reason, LongestReason) || untrusted.Console.Length > LongestConsole
            || !untrusted.Console.Split('\n').All(Text.IsPrintable))
        {
            return Invalid;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var device = await database.Devices.AsNoTracking().SingleAsync(row => row.Id == deviceId, cancellationToken);
        if (!await database.Entitlements.AnyAsync(row => row.LivePc == untrustedLivePc && row.User == device.User, cancellationToken))
        {
            return LeaseErrors.NotEntitled;
        }

        if (untrusted.Kind == ReportKind.Started)
        {
            // Nothing to look into: what the roll-outs and the list of starts know is all.
            await rollouts.NoteAsync(deviceId, untrustedLivePc, untrusted, cancellationToken);
            await transaction.CommitAsync(cancellationToken);
            return default(Done);
        }

        if (await database.Reports.AnyAsync(row => row.DeviceId == deviceId && row.Id == untrusted.Id, cancellationToken))
        {
            return default(Done);
        }

        var old = await database.Reports.Where(row => row.DeviceId == deviceId).OrderByDescending(row => row.ReceivedAt).Skip(MostPerDevice - 1).ToListAsync(cancellationToken);
        database.Reports.RemoveRange(old);
        database.Reports.Add(new ReportRow
        {
            DeviceId = deviceId, Id = untrusted.Id, LivePc = untrustedLivePc, ReceivedAt = time.Now(), Report = JsonSerializer.Serialize(untrusted, ContractJson.Options),
        });
        await audit.AppendAsync(
            "device:" + deviceId, "device.report", untrustedLivePc,
            $"{JsonSerializer.Serialize(untrusted.Kind).Trim('"')}: {string.Join(", ", untrusted.Stack)}: {untrusted.Reason}", cancellationToken);
        await rollouts.NoteAsync(deviceId, untrustedLivePc, untrusted, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    /// <summary>How releases did on the devices of a LivePC, or of all.</summary>
    public async Task<IReadOnlyList<DeviceStart>> ListStartsAsync(string? untrustedLivePc, CancellationToken cancellationToken) =>
        (await database.Starts.AsNoTracking().Where(row => untrustedLivePc == null || row.LivePc == untrustedLivePc)
            .OrderBy(row => row.LivePc).ThenBy(row => row.DeviceId).ThenBy(row => row.Image).ThenByDescending(row => row.Version).Take(10_000).ToListAsync(cancellationToken))
        .ConvertAll(row => new DeviceStart(row.DeviceId, row.LivePc, new ReleaseName(row.Image, row.Version), row.HealthyAt, row.FailedAt));

    /// <summary>The reports of a device or a LivePC, or all of them; the newest first.</summary>
    public async Task<IReadOnlyList<DeviceReport>> ListAsync(string? untrustedDevice, string? untrustedLivePc, CancellationToken cancellationToken) =>
        (await database.Reports.AsNoTracking()
            .Where(row => (untrustedDevice == null || row.DeviceId == untrustedDevice) && (untrustedLivePc == null || row.LivePc == untrustedLivePc))
            .OrderByDescending(row => row.ReceivedAt).Take(1000).ToListAsync(cancellationToken))
        .ConvertAll(row => new DeviceReport(row.DeviceId, row.LivePc, row.ReceivedAt, JsonSerializer.Deserialize<SendReport>(row.Report, ContractJson.Options)!));
}

internal static class ReportEndpoints
{
    public static void Map(Groups groups)
    {
        groups.Device.MapPost("/livepcs/{name}/reports", async (string name, SendReport body, ClaimsPrincipal caller, Reports reports, CancellationToken cancellationToken) =>
                (await reports.TakeAsync(caller.FindFirstValue(ClaimTypes.NameIdentifier)!, name, body, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("SendReport").WithSummary("That corporate layers started on this device, or why they did not.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotEntitled);
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.HelpDesk, Roles.Auditor).MapGet("/reports", (string? device, string? livePc, Reports reports, CancellationToken cancellationToken) =>
                reports.ListAsync(device, livePc, cancellationToken))
            .WithName("ListReports").WithSummary("What devices reported, the newest first; of one device or LivePC where that is named.");
        groups.Of(Roles.Administrator, Roles.Author, Roles.Approver, Roles.HelpDesk, Roles.Auditor).MapGet("/starts", (string? livePc, Reports reports, CancellationToken cancellationToken) => reports.ListStartsAsync(livePc, cancellationToken))
            .WithName("ListStarts").WithSummary("Which releases really started on which devices, and which did not; of one LivePC where that is named.");
    }
}
