using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace Nacre.Contracts;

/// <summary>
/// The code with which a lease lasts longer without a network: 10 bits of hours and 50 bits of HMAC-SHA-256 over the device, the LivePC, the device's counter, the
/// hours and the day (UTC) on which it was made, in 12 characters of Crockford's base 32. The key follows from the lease's share, which only the server and
/// the device have.
/// </summary>
public static class ExtensionCode
{
    /// <summary>The most hours that a code can carry.</summary>
    public const int MostHours = 720;

    private const string Alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    private const int Characters = 12, TagBits = 50;

    /// <summary>The code.</summary>
    /// <param name="share">The lease's share.</param>
    /// <param name="device">The device.</param>
    /// <param name="livePc">The LivePC.</param>
    /// <param name="counter">How many codes the device took before.</param>
    /// <param name="hours">1 to <see cref="MostHours"/>.</param>
    /// <param name="now">The server's time.</param>
    public static string Make(ReadOnlySpan<byte> share, string device, string livePc, int counter, int hours, DateTimeOffset now)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(hours, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(hours, MostHours);
        var value = ((ulong)hours << TagBits) | Tag(share, device, livePc, counter, hours, DayOf(now));
        var text = new StringBuilder();
        for (var i = Characters - 1; i >= 0; i--)
        {
            text.Append(Alphabet[(int)(value >> (5 * i)) & 31]);
            if (i is 8 or 4)
            {
                text.Append('-');
            }
        }

        return text.ToString();
    }

    /// <summary>When a code that was made at a time ends at the latest: counted from the end of its day, so that a code which is used again later gives nothing.</summary>
    public static DateTimeOffset LatestEnd(DateTimeOffset made, int hours) => DateTimeOffset.UnixEpoch.AddDays(DayOf(made) + 1).AddHours(hours);

    /// <summary>Verifies a code as typed. Codes of the day before and after are taken too.</summary>
    /// <param name="untrustedCode">As typed: case, spaces and hyphens do not matter; O counts as 0, I and L as 1.</param>
    /// <param name="share">The lease's share.</param>
    /// <param name="device">The device.</param>
    /// <param name="livePc">The LivePC.</param>
    /// <param name="counter">How many codes the device took before.</param>
    /// <param name="now">The device's time.</param>
    /// <param name="end">When the lease ends with it.</param>
    public static bool TryVerify(string untrustedCode, ReadOnlySpan<byte> share, string device, string livePc, int counter, DateTimeOffset now, out DateTimeOffset end)
    {
        end = default;
        if (!TryRead(untrustedCode, out var value) || (int)(value >> TagBits) is not (>= 1 and <= MostHours and var hours))
        {
            return false;
        }

        Span<byte> given = stackalloc byte[8], right = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(given, value & ((1UL << TagBits) - 1));
        foreach (var days in new[] { 0, -1, 1 })
        {
            var made = now.AddDays(days);
            BinaryPrimitives.WriteUInt64BigEndian(right, Tag(share, device, livePc, counter, hours, DayOf(made)));
            if (CryptographicOperations.FixedTimeEquals(given, right))
            {
                end = new[] { now.AddHours(hours), LatestEnd(made, hours) }.Min();
                return true;
            }
        }

        return false;
    }

    /// <summary>What the user reads out.</summary>
    public static string Request(string device, int counter)
    {
        ArgumentNullException.ThrowIfNull(device);
        return string.Create(CultureInfo.InvariantCulture, $"{device[..8]}-{counter}");
    }

    /// <summary>Reads what the user read out.</summary>
    public static bool TryReadRequest(string? untrusted, [NotNullWhen(true)] out string? device, out int counter)
    {
        (device, counter) = (null, 0);
        var parts = untrusted?.Trim().Split('-') ?? [];
        if (parts is not [{ Length: 8 } prefix, { Length: <= 6 } number] || !prefix.All(char.IsAsciiHexDigit) || !int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out counter))
        {
            return false;
        }

        device = string.Concat(prefix.Select(char.ToLowerInvariant));
        return true;
    }

    private static int DayOf(DateTimeOffset time) => (int)(time - DateTimeOffset.UnixEpoch).TotalDays;

    private static ulong Tag(ReadOnlySpan<byte> share, string device, string livePc, int counter, int hours, int day)
    {
        var key = new byte[32];
        HKDF.DeriveKey(HashAlgorithmName.SHA256, share, key, [], Encoding.UTF8.GetBytes($"nacre lease extension of {device} {livePc}"));
        var tag = HMACSHA256.HashData(key, Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{counter} {hours} {day}")));
        CryptographicOperations.ZeroMemory(key);
        return BinaryPrimitives.ReadUInt64BigEndian(tag) >> (64 - TagBits);
    }

    private static bool TryRead(string untrusted, out ulong value)
    {
        value = 0;
        var count = 0;
        foreach (var character in untrusted.Length > 40 ? "" : untrusted)
        {
            if (character is '-' or ' ')
            {
                continue;
            }

            var digit = Alphabet.IndexOf(char.ToUpperInvariant(character) switch { 'O' => '0', 'I' or 'L' => '1', var other => other }, StringComparison.Ordinal);
            if (digit < 0 || ++count > Characters)
            {
                return false;
            }

            value = (value << 5) | (uint)digit;
        }

        return count == Characters;
    }
}
