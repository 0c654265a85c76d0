using System.Globalization;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>A revoke or kill of a device, or of one LivePC on it; or that the log of it was asked for.</summary>
internal sealed class DeviceOrderRow
{
    public required string Id { get; init; }

    /// <summary>Grows with each order that is queued, on all servers of the database; 0 before.</summary>
    public long Number { get; set; }

    public required DeviceAct Act { get; init; }

    public required string DeviceId { get; init; }

    public required string? LivePc { get; init; }

    public required KillMode Mode { get; init; }

    public required WipeScope Scope { get; init; }

    public required int GraceMinutes { get; init; }

    public required string OrderedBy { get; init; }

    public required DateTimeOffset OrderedAt { get; init; }

    public string? ApprovedBy { get; set; }

    public required DeviceOrderState State { get; set; }

    /// <summary>Whether the device's permission went with it, and comes back if it is withdrawn.</summary>
    public bool Revoked { get; set; }

    public DateTimeOffset? DeliveredAt { get; set; }

    public DateTimeOffset? EndedAt { get; set; }

    public DateTimeOffset? LiftedAt { get; set; }

    public string Detail { get; set; } = "";

    public string? SignedOrder { get; set; }

    public string? Receipt { get; set; }

    /// <summary>Why a log was asked for.</summary>
    public string? Reason { get; init; }

    /// <summary>Whether the device has to carry it out still.</summary>
    public bool IsOpen => State is DeviceOrderState.Queued or DeviceOrderState.Delivered or DeviceOrderState.Failed;

    /// <summary>What the audit log calls it.</summary>
    public string Word => Act switch
    {
        DeviceAct.Revoke => "revoke",
        DeviceAct.Kill => "kill",
        DeviceAct.Logs => "logs",
        _ => throw new System.Diagnostics.UnreachableException(),
    };

    public string Words => string.Create(CultureInfo.InvariantCulture, $"{Word} {(LivePc is null ? "the whole device" : LivePc + " on device")} {DeviceId}") + Act switch
    {
        DeviceAct.Kill => Mode == KillMode.Both ? ", keys and files" : ", keys",
        DeviceAct.Revoke => string.Create(CultureInfo.InvariantCulture, $", {GraceMinutes} minutes to save"),
        _ => Reason is null ? "" : $": {Reason}",
    };

    public DeviceOrder ToContract(DeviceRow device) => new(
        Id, Act, DeviceId, LivePc, Mode, Scope, GraceMinutes, OrderedBy, OrderedAt, ApprovedBy, State, DeliveredAt, EndedAt, LiftedAt, Detail, SignedOrder, Receipt, device.PublicKey, Reason);
}

/// <summary>A log that a device sent because it was ordered to.</summary>
internal sealed class DeviceLogRow
{
    public required string OrderId { get; init; }

    public required DateTimeOffset ReceivedAt { get; set; }

    /// <summary>A list of <see cref="LogLine"/> as JSON.</summary>
    public required string Lines { get; set; }
}

internal static class DeviceOrderErrors
{
    public static Failure NoOrder { get; } = new(ErrorCatalogue.NotFound, "there is no such order");

    public static Failure Invalid { get; } = new(ErrorCatalogue.RequestInvalid, "'devices' must have 1 to 1000 devices, each once, and 'livePc' a LivePC's name or null");

    public static Failure Again(DeviceOrderRow order) => new(ErrorCatalogue.AlreadyExists, $"order {order.Id} does so already: {order.Words}");

    public static Failure NoLog { get; } = new(ErrorCatalogue.NotFound, "there is no log of that order: the device has not sent it, or it was deleted");

    public static Failure LogInvalid { get; } = new(
        ErrorCatalogue.RequestInvalid, $"a log has 'lines', each of the LivePC that was asked for, with a 'time', 'level', 'event', and a printable 'text' of at most {LogLine.LongestText} characters");

    public static Failure ReasonInvalid { get; } = new(ErrorCatalogue.RequestInvalid, $"'reason' must have 1 to {OrderLog.LongestReason} printable characters");

    public static Failure ReasonMissing { get; } = new(ErrorCatalogue.RequestInvalid, "the policy wants to know why a log is asked for ('logs.adminReasonRequired'): give a 'reason'");

    public static Failure Silent(string device) => new(ErrorCatalogue.Forbidden, $"device {device} is revoked: nothing but receipts is taken from it");

    public static Failure NeverThere(string device) => new(ErrorCatalogue.NotFound, $"device {device} never had a lease of this LivePC, so it has no key of it");

    public static Failure Locked(string device) => new(ErrorCatalogue.Forbidden, $"device {device} is revoked, and the policy queues no kill for one ('kill.queueWhenLocked')");

    public static Failure SameAdministrator { get; } = new(ErrorCatalogue.Forbidden, "a second administrator has to approve it, not the one who ordered it");

    public static Failure Not(DeviceOrderRow order, string done) => new(ErrorCatalogue.Immutable, $"order {order.Id} can't be {done}: it is {order.State.ToString().ToLowerInvariant()}{(order.LiftedAt is null ? "" : ", and lifted")}");

    public static Failure Gone { get; } = new(ErrorCatalogue.Immutable, "a device that was killed has no identity any more: it enrols again, with a new code");

    public static Failure NotAuthentic(NacreException exception) => new(ErrorCatalogue.ReceiptNotAuthentic, exception.Message);
}
