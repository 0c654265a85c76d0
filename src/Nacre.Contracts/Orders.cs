using System.Text.Json.Serialization;

namespace Nacre.Contracts;

/// <summary>How much a rejuvenation puts back; each of the first four is all before it and more.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<RejuvenationDepth>))]
public enum RejuvenationDepth
{
    /// <summary>The system layer, as every start does.</summary>
    [JsonStringEnumMemberName("system")]
    System,

    /// <summary>And the user's applications: to blank, or to a moment.</summary>
    [JsonStringEnumMemberName("applications")]
    Applications,

    /// <summary>And the user's settings: to blank, or to a moment.</summary>
    [JsonStringEnumMemberName("settings")]
    Settings,

    /// <summary>Applications and settings to blank, the user's data to a moment.</summary>
    [JsonStringEnumMemberName("data")]
    Data,

    /// <summary>Everything as it was at a moment.</summary>
    [JsonStringEnumMemberName("moment")]
    Moment,
}

/// <summary>Where an administrator's order is.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<OrderState>))]
public enum OrderState
{
    /// <summary>The device has not carried it out, as far as the server knows.</summary>
    [JsonStringEnumMemberName("waiting")]
    Waiting,

    /// <summary>The device carried it out.</summary>
    [JsonStringEnumMemberName("done")]
    Done,

    /// <summary>The device could not carry it out, and does not try again.</summary>
    [JsonStringEnumMemberName("failed")]
    Failed,

    /// <summary>The administrator took it back before the device had said that it was carried out.</summary>
    [JsonStringEnumMemberName("withdrawn")]
    Withdrawn,
}

/// <summary>Orders a device to rejuvenate a LivePC at its next contact.</summary>
/// <param name="Device">The device.</param>
/// <param name="Depth">How much.</param>
/// <param name="To">The moment to go back to; null: see <paramref name="Before"/>.</param>
/// <param name="Before">The newest moment that was taken before this time; null with <paramref name="To"/>, and where the layers go to blank.</param>
public sealed record CreateOrder(string Device, RejuvenationDepth Depth, string? To = null, DateTimeOffset? Before = null);

/// <summary>An order as the administrator sees it.</summary>
/// <param name="Id">Its number, 16 hexadecimal digits.</param>
/// <param name="LivePc">The LivePC.</param>
/// <param name="Device">The device.</param>
/// <param name="Depth">How much.</param>
/// <param name="To">The moment to go back to.</param>
/// <param name="Before">Or the newest one that was taken before this time.</param>
/// <param name="OrderedAt">When the administrator gave it.</param>
/// <param name="State">Where it is.</param>
/// <param name="EndedAt">When the device carried it out or failed to, by its clock, or when it was withdrawn; null while it waits.</param>
/// <param name="Detail">What the device said.</param>
public sealed record Order(
    string Id, string LivePc, string Device, RejuvenationDepth Depth, string? To, DateTimeOffset? Before, DateTimeOffset OrderedAt, OrderState State,
    DateTimeOffset? EndedAt, string Detail);

/// <summary>What a device says of an order.</summary>
/// <param name="Id">The order.</param>
/// <param name="Succeeded">Whether it was carried out.</param>
/// <param name="At">When.</param>
/// <param name="Detail">For people, at most 400 characters.</param>
public sealed record OrderReceipt(string Id, bool Succeeded, DateTimeOffset At, string Detail);

/// <summary>A device's question for the orders of one LivePC, with the receipts of those that it dealt with.</summary>
/// <param name="Nonce">At most 64 characters that the answer repeats, so that an older one can't be put in its place.</param>
/// <param name="Receipts">At most 100.</param>
public sealed record FetchOrders(string Nonce, IReadOnlyList<OrderReceipt> Receipts);

/// <summary>The answer to <see cref="FetchOrders"/>.</summary>
/// <param name="Orders">An <see cref="OrderClaims"/> as compact JWS (ES256) by the server's lease key.</param>
public sealed record SignedOrders(string Orders);

/// <summary>An order as the device gets it.</summary>
/// <param name="Id">Its number.</param>
/// <param name="Depth">How much.</param>
/// <param name="To">The moment to go back to.</param>
/// <param name="Before">Or the newest one that was taken before this time.</param>
public sealed record RejuvenationOrder(string Id, RejuvenationDepth Depth, string? To, DateTimeOffset? Before);

/// <summary>The orders that wait for a device, oldest first.</summary>
/// <param name="Sub">The device.</param>
/// <param name="LivePc">The LivePC.</param>
/// <param name="Nonce">The request's.</param>
/// <param name="Orders">What waits.</param>
public sealed record OrderClaims(string Sub, string LivePc, string Nonce, IReadOnlyList<RejuvenationOrder> Orders)
{
    /// <summary>The <c>typ</c> of the signed claims.</summary>
    public const string Type = "nacre-orders+jwt";
}
