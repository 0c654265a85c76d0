using System.Text.Json.Serialization;

namespace Nacre.Player.Keys;

/// <summary>What opens a key slot, with this device's secret and the lease's share, which all of them need.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<KeySlotKind>))]
internal enum KeySlotKind
{
    /// <summary>Nothing else.</summary>
    [JsonStringEnumMemberName("device")]
    Device,

    /// <summary>The user's password.</summary>
    [JsonStringEnumMemberName("password")]
    Password,

    /// <summary>A recovery code, which the organisation can find out.</summary>
    [JsonStringEnumMemberName("recovery")]
    Recovery,
}

/// <summary>A key slot: the LivePC's key, encrypted (SPEC.md beside this).</summary>
/// <param name="Kind">What opens it.</param>
/// <param name="Salt">16 bytes.</param>
/// <param name="Nonce">12 bytes.</param>
/// <param name="Wrapped">The key, encrypted, and a tag of 16 bytes.</param>
/// <param name="MemoryKiB">Of a password: Argon2id's memory.</param>
/// <param name="Passes">Of a password: Argon2id's passes.</param>
/// <param name="Number">Of a recovery code: its number, from 1.</param>
internal sealed record KeySlot(KeySlotKind Kind, byte[] Salt, byte[] Nonce, byte[] Wrapped, int MemoryKiB = 0, int Passes = 0, int Number = 0);

/// <summary>The recovery code that was handed to the organisation.</summary>
/// <param name="RecoveryKey">The name of the organisation's key that it is encrypted to.</param>
/// <param name="Number">The code's number.</param>
/// <param name="Undelivered">The code and the LivePC's key as compact JWE to that key, while the server has not taken them; null once it has.</param>
internal sealed record Escrow(string RecoveryKey, int Number, string? Undelivered);

/// <summary>The file <c>keys.json</c> of a LivePC.</summary>
/// <param name="Format">1.</param>
/// <param name="Id">Random: of this LivePC's key.</param>
/// <param name="Slots">What opens it.</param>
/// <param name="PasswordSince">When the password was chosen; null where there is none.</param>
/// <param name="Former">Of earlier passwords: slots that hold nothing, by which it is told that one is chosen again. The newest last.</param>
/// <param name="Escrow">What the organisation has; null: nothing.</param>
internal sealed record KeyFile(int Format, Guid Id, IReadOnlyList<KeySlot> Slots, DateTimeOffset? PasswordSince, IReadOnlyList<KeySlot> Former, Escrow? Escrow)
{
    public KeySlot? Find(KeySlotKind kind) => Slots.FirstOrDefault(slot => slot.Kind == kind);

    /// <summary>The same with this slot in the place of those of its kind.</summary>
    public KeyFile With(KeySlot slot) => this with { Slots = [.. Slots.Where(one => one.Kind != slot.Kind), slot] };

    public KeyFile Without(KeySlotKind kind) => this with { Slots = [.. Slots.Where(one => one.Kind != kind)] };
}
