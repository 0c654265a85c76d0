using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Serialization;

namespace Nacre.Contracts;

/// <summary>What a device is ordered to do.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<DeviceAct>))]
public enum DeviceAct
{
    /// <summary>It is taken away, and can be given back: the device forgets its leases, and shuts down what runs.</summary>
    [JsonStringEnumMemberName("revoke")]
    Revoke,

    /// <summary>The keys are destroyed, which nobody can take back.</summary>
    [JsonStringEnumMemberName("kill")]
    Kill,

    /// <summary>The device sends its log.</summary>
    [JsonStringEnumMemberName("logs")]
    Logs,
}

/// <summary>Where a device's order is.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<DeviceOrderState>))]
public enum DeviceOrderState
{
    /// <summary>The policy wants that a second administrator approves it first.</summary>
    [JsonStringEnumMemberName("unapproved")]
    Unapproved,

    /// <summary>The device has not heard of it.</summary>
    [JsonStringEnumMemberName("queued")]
    Queued,

    /// <summary>The device was given it, and has not said yet that it was carried out.</summary>
    [JsonStringEnumMemberName("delivered")]
    Delivered,

    /// <summary>The device carried it out: there is a receipt that its key signed.</summary>
    [JsonStringEnumMemberName("confirmed")]
    Confirmed,

    /// <summary>The device could not carry it out so far, and tries again; its receipt says why.</summary>
    [JsonStringEnumMemberName("failed")]
    Failed,

    /// <summary>It was taken back before the device had heard of it.</summary>
    [JsonStringEnumMemberName("withdrawn")]
    Withdrawn,
}

/// <summary>How a kill destroys.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<KillMode>))]
public enum KillMode
{
    /// <summary>All files with keys; ciphertext stays, as noise.</summary>
    [JsonStringEnumMemberName("crypto-erase")]
    CryptoErase,

    /// <summary>The keys, and then the files.</summary>
    [JsonStringEnumMemberName("both")]
    Both,
}

/// <summary>Which files go with a kill after the keys.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<WipeScope>))]
public enum WipeScope
{
    /// <summary>The LivePC's folder, and cached releases that nothing else on the device uses.</summary>
    [JsonStringEnumMemberName("all")]
    All,

    /// <summary>The LivePC's folder; cached releases, which are ciphertext without their keys, stay.</summary>
    [JsonStringEnumMemberName("work-data")]
    WorkData,
}

/// <summary>Orders that devices destroy the keys of a LivePC, or of all of theirs with their identity.</summary>
/// <param name="Devices">1 to 1,000 devices.</param>
/// <param name="LivePc">The LivePC; null: the whole device.</param>
public sealed record OrderKill(IReadOnlyList<string> Devices, string? LivePc = null);

/// <summary>A revoke or kill, or that a log was asked for, as the administrator sees it.</summary>
/// <param name="Id">Its number, 16 hexadecimal digits.</param>
/// <param name="Act">What it is.</param>
/// <param name="Device">The device.</param>
/// <param name="LivePc">The LivePC; null: the whole device.</param>
/// <param name="Mode">How a kill destroys.</param>
/// <param name="Scope">Which files go with it.</param>
/// <param name="GraceMinutes">Of a revoke: how long the user may save.</param>
/// <param name="OrderedBy">The administrator.</param>
/// <param name="OrderedAt">When.</param>
/// <param name="ApprovedBy">The second administrator; null where none was needed, or there is none yet.</param>
/// <param name="State">Where it is.</param>
/// <param name="DeliveredAt">When the device was given it.</param>
/// <param name="EndedAt">When the device carried it out, by its clock, or when it was withdrawn.</param>
/// <param name="LiftedAt">When the permission was given back; null while it is not.</param>
/// <param name="Detail">What the device said.</param>
/// <param name="SignedOrder">A <see cref="DeviceOrderClaims"/> as compact JWS (ES256) by the server's lease key; null before it is queued.</param>
/// <param name="Receipt">A <see cref="DeviceReceiptClaims"/> as compact JWS (ES256) by the device's key; null before there is one.</param>
/// <param name="DeviceKey">The device's public key, which verifies the receipt.</param>
/// <param name="Reason">Why a log was asked for; null: nobody said, or it is something else.</param>
public sealed record DeviceOrder(
    string Id, DeviceAct Act, string Device, string? LivePc, KillMode Mode, WipeScope Scope, int GraceMinutes, string OrderedBy, DateTimeOffset OrderedAt, string? ApprovedBy,
    DeviceOrderState State, DateTimeOffset? DeliveredAt, DateTimeOffset? EndedAt, DateTimeOffset? LiftedAt, string Detail, string? SignedOrder, string? Receipt, PublicKey DeviceKey, string? Reason = null);

/// <summary>What the device is ordered. Times are seconds since 1970.</summary>
/// <param name="Sub">The device.</param>
/// <param name="Id">The order's number.</param>
/// <param name="Act">What is done.</param>
/// <param name="LivePc">The LivePC; null: the whole device.</param>
/// <param name="Mode">How a kill destroys.</param>
/// <param name="Scope">Which files go with it.</param>
/// <param name="GraceMinutes">Of a revoke: how long the user may save.</param>
/// <param name="Iat">When it was queued.</param>
/// <param name="OrderedBy">Who asks for a log, for its user; null where it is something else.</param>
/// <param name="Reason">Why; null: nobody said.</param>
public sealed record DeviceOrderClaims(
    string Sub, string Id, DeviceAct Act, string? LivePc, KillMode Mode, WipeScope Scope, int GraceMinutes, long Iat, string? OrderedBy = null, string? Reason = null)
{
    /// <summary>The <c>typ</c> of the signed claims.</summary>
    public const string Type = "nacre-device-order+jwt";
}

/// <summary>A device's question for its orders.</summary>
/// <param name="Nonce">At most 64 characters that the answer repeats, so that an older one can't be put in its place.</param>
public sealed record FetchDeviceOrders(string Nonce);

/// <summary>The answer to <see cref="FetchDeviceOrders"/>.</summary>
/// <param name="Orders">A <see cref="DeviceOrdersClaims"/> as compact JWS (ES256) by the server's lease key.</param>
public sealed record SignedDeviceOrders(string Orders);

/// <summary>The orders for a device that have no receipt yet, kills first.</summary>
/// <param name="Sub">The device.</param>
/// <param name="Nonce">The request's.</param>
/// <param name="Iat">The server's time, seconds since 1970.</param>
/// <param name="Orders">Each a <see cref="DeviceOrderClaims"/> as compact JWS by the same key.</param>
public sealed record DeviceOrdersClaims(string Sub, string Nonce, long Iat, IReadOnlyList<string> Orders)
{
    /// <summary>The <c>typ</c> of the signed claims.</summary>
    public const string Type = "nacre-device-orders+jwt";
}

/// <summary>What a device says of an order, signed with its key (<c>kid</c>: the device).</summary>
/// <param name="Sub">The device.</param>
/// <param name="Id">The order's number.</param>
/// <param name="OrderSha256">SHA-256 of the signed order, hexadecimal: which order exactly.</param>
/// <param name="Succeeded">Whether it was carried out.</param>
/// <param name="At">When, by the device's clock, seconds since 1970.</param>
/// <param name="Detail">For people, at most 400 characters.</param>
public sealed record DeviceReceiptClaims(string Sub, string Id, string OrderSha256, bool Succeeded, long At, string Detail)
{
    /// <summary>The <c>typ</c> of the signed claims.</summary>
    public const string Type = "nacre-receipt+jwt";

    /// <summary>The longest <see cref="Detail"/>.</summary>
    public const int LongestDetail = 400;

    /// <summary>The <see cref="OrderSha256"/> of an order.</summary>
    public static string DigestOf(string signedOrder) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(signedOrder)));
}

/// <summary>Delivers a receipt. It needs no other credential: a device that was killed has none any more.</summary>
/// <param name="Order">The signed order.</param>
/// <param name="Receipt">A <see cref="DeviceReceiptClaims"/> as compact JWS (ES256) by the device's key.</param>
public sealed record DeliverReceipt(string Order, string Receipt)
{
    /// <summary>The most characters of either.</summary>
    public const int Longest = 4096;

    /// <summary>Verifies that the device with this key signed the receipt of exactly this order, which the lease key signed.</summary>
    /// <param name="leaseKey">The server's.</param>
    /// <param name="findKey">The key of a device; null: unknown.</param>
    /// <exception cref="NacreException">ReceiptNotAuthentic.</exception>
    public (DeviceOrderClaims Order, DeviceReceiptClaims Receipt) Verify(PublicKey leaseKey, Func<string, PublicKey?> findKey)
    {
        ArgumentNullException.ThrowIfNull(findKey);
        if (Order is not { Length: <= Longest } || Receipt is not { Length: <= Longest }
            || !Jws.TryVerify(Order, leaseKey, DeviceOrderClaims.Type, out var orderBytes) || !Jws.TryRead<DeviceOrderClaims>(orderBytes, out var order)
            || !Jws.TryReadKeyId(Receipt, out var device) || device != order.Sub || findKey(device) is not { } key
            || !Jws.TryVerify(Receipt, key, DeviceReceiptClaims.Type, out var receiptBytes) || !Jws.TryRead<DeviceReceiptClaims>(receiptBytes, out var receipt)
            || receipt.Sub != device || receipt.Id != order.Id || receipt.OrderSha256 != DeviceReceiptClaims.DigestOf(Order))
        {
            throw new NacreException(ErrorCatalogue.ReceiptNotAuthentic, "the receipt is not this device's, or is of another order");
        }

        return (order, receipt);
    }
}

/// <summary>The events that a device hears while it is connected (<c>text/event-stream</c>).</summary>
public static class DeviceEvents
{
    /// <summary>There are orders: fetch them.</summary>
    public const string Orders = "orders";

    /// <summary>Between two signs of life of the server while nothing happens.</summary>
    public static TimeSpan Beat { get; } = TimeSpan.FromMinutes(10);

    /// <summary>A connection that is silent for longer is a dead one.</summary>
    public static TimeSpan LongestSilence { get; } = Beat * 1.25;
}

/// <summary>Asks for the code with which a user puts off the end of a lease without a network.</summary>
/// <param name="Request">What the user read out: 8 digits of the device's identity, a hyphen, and its counter.</param>
/// <param name="LivePc">The LivePC.</param>
/// <param name="Hours">For how long.</param>
public sealed record ExtendLease(string Request, string LivePc, int Hours);

/// <summary>The code, to be read to the user.</summary>
/// <param name="Device">The device that it is for.</param>
/// <param name="Code">The code.</param>
/// <param name="Until">The latest end that it gives the lease.</param>
public sealed record LeaseExtension(string Device, string Code, DateTimeOffset Until);
