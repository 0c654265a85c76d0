using System.Globalization;
using System.Text;
using System.Text.Json.Serialization;
using Nacre.Contracts;

namespace Nacre.Player.Moments;

/// <summary>Why a moment was taken.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<MomentKind>))]
public enum MomentKind
{
    /// <summary>The policy's hours were over.</summary>
    [JsonStringEnumMemberName("schedule")]
    Schedule,

    /// <summary>Another release was about to start.</summary>
    [JsonStringEnumMemberName("update")]
    Update,

    /// <summary>Layers were about to be put back.</summary>
    [JsonStringEnumMemberName("rejuvenation")]
    Rejuvenation,

    /// <summary>A rejuvenation was about to be undone.</summary>
    [JsonStringEnumMemberName("undo")]
    Undo,

    /// <summary>Somebody asked for it.</summary>
    [JsonStringEnumMemberName("user")]
    User,
}

/// <summary>What a rejuvenation does to a layer.</summary>
/// <param name="Layer">The layer.</param>
/// <param name="To">The identity of the moment that it goes back to; null: to blank.</param>
public sealed record LayerAction(string Layer, string? To);

/// <summary>A state of all three of the user's layers that is kept: a snapshot of the same name in each.</summary>
/// <param name="Id">Its identity: the time in UTC when it was taken, <c>yyyyMMdd-HHmmss</c>.</param>
/// <param name="Kind">Why it was taken.</param>
/// <param name="Taken">When, by the device's clock.</param>
/// <param name="Label">What a person called it; null where nobody did.</param>
/// <param name="Bytes">Layer to bytes of data that it held.</param>
/// <param name="Actions">What was done to the layers after it was taken; empty unless it is of a rejuvenation or an undo.</param>
/// <param name="Order">The administrator's order that this was done for; null where there was none.</param>
public sealed record Moment(
    string Id, MomentKind Kind, DateTimeOffset Taken, string? Label, IReadOnlyDictionary<string, long> Bytes, IReadOnlyList<LayerAction> Actions, string? Order);

/// <summary>What a snapshot's name says of the moment that it is a part of: <c>moment ID KIND PLAN LABEL</c>. The plan (<c>-</c> where there is none) is what a
/// rejuvenation does after the moment: <c>a=blank,s=ID,d=ID,o=ORDER</c>. It is the note that a start finds: durable and authentic as the volume is.</summary>
internal sealed record MomentName(string Id, MomentKind Kind, IReadOnlyList<LayerAction> Actions, string? Order, string? Label)
{
    /// <summary>UTF-8 bytes of a label.</summary>
    public const int LongestLabel = 80;

    private const string Word = "moment";
    private const string Done = "done ";
    private const string Blank = "blank";
    private const string IdFormat = "yyyyMMdd-HHmmss";

    /// <summary>What says in a layer that the plan of the moment <paramref name="id"/> was carried out there.</summary>
    public static string DoneName(string id) => Done + id;

    /// <summary>The moment whose plan a snapshot says was carried out; null where it says no such thing.</summary>
    public static string? DoneId(string name) => name.StartsWith(Done, StringComparison.Ordinal) && IsId(name[Done.Length..]) ? name[Done.Length..] : null;

    public static string IdOf(DateTimeOffset time) => time.UtcDateTime.ToString(IdFormat, CultureInfo.InvariantCulture);

    public static bool IsId(string text) => DateTime.TryParseExact(text, IdFormat, CultureInfo.InvariantCulture, DateTimeStyles.None, out _);

    /// <summary>A label as typed.</summary>
    /// <exception cref="NacreException">NameInvalid.</exception>
    public static string ParseLabel(string untrusted) =>
        untrusted.Length > 0 && untrusted.Trim() == untrusted && !untrusted.Any(char.IsControl) && Encoding.UTF8.GetByteCount(untrusted) <= LongestLabel && !IsId(untrusted)
            ? untrusted
            : throw new NacreException(ErrorCatalogue.NameInvalid, $"'{new string([.. untrusted.Where(letter => !char.IsControl(letter)).Take(LongestLabel)])}' can't be the name of a moment: it has 1 to {LongestLabel} bytes, no control characters, and is no time");

    /// <summary>As much of a text of ASCII as a label holds.</summary>
    public static string Shorten(string text) => text.Length <= LongestLabel ? text : string.Concat(text.AsSpan(0, LongestLabel - 3), "...");

    /// <summary>Reads a snapshot's name; null where it is none of a moment's.</summary>
    public static MomentName? TryParse(string name)
    {
        var parts = name.Split(' ', 5);
        if (parts is not [Word, var id, var kindText, var plan, ..] || !IsId(id) || TryKind(kindText) is not { } kind)
        {
            return null;
        }

        var actions = new List<LayerAction>();
        string? order = null;
        foreach (var step in plan == "-" ? [] : plan.Split(','))
        {
            if (step.Split('=') is not [var key, { Length: > 0 } value])
            {
                return null;
            }

            if (key == "o")
            {
                order = value;
            }
            else if (MomentStore.Layers.FirstOrDefault(layer => layer[..1] == key) is { } layer && (value == Blank || IsId(value)))
            {
                actions.Add(new LayerAction(layer, value == Blank ? null : value));
            }
            else
            {
                return null;
            }
        }

        return new MomentName(id, kind, actions, order, parts.Length == 5 ? parts[4] : null);
    }

    public override string ToString()
    {
        var steps = Actions.Select(action => $"{action.Layer[..1]}={action.To ?? Blank}");
        var plan = string.Join(',', Order is null ? steps : steps.Append($"o={Order}"));
        return $"{Word} {Id} {NameOf(Kind)} {(plan.Length == 0 ? "-" : plan)}{(Label is null ? "" : $" {Label}")}";
    }

    private static MomentKind? TryKind(string text)
    {
        foreach (var kind in Enum.GetValues<MomentKind>())
        {
            if (NameOf(kind) == text)
            {
                return kind;
            }
        }

        return null;
    }

    private static string NameOf(MomentKind kind) => kind.ToString().ToLowerInvariant();
}
