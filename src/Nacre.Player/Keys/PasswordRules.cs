using System.Globalization;
using System.Text;
using Nacre.Contracts;
using Nacre.Policies;

namespace Nacre.Player.Keys;

/// <summary>What policy wants of a password.</summary>
internal static class PasswordRules
{
    /// <summary>Longer ones are not read.</summary>
    public const int LongestBytes = 1024;

    /// <summary>The rules in words.</summary>
    public static string Words(Policy policy)
    {
        var classes = policy.Get(Settings.PasswordClasses);
        var history = policy.Get(Settings.PasswordHistory);
        return string.Create(CultureInfo.InvariantCulture, $"at least {policy.Get(Settings.PasswordMinLength)} characters")
            + (classes > 1 ? string.Create(CultureInfo.InvariantCulture, $", of at least {classes} of these kinds: small letters, capital letters, digits, others") : "")
            + (history > 0 ? string.Create(CultureInfo.InvariantCulture, $", and none of the last {history}") : "");
    }

    /// <summary>Refuses what the rules do not allow; whether it was used before is not asked here.</summary>
    /// <param name="untrusted">UTF-8.</param>
    /// <param name="policy">The policy.</param>
    /// <exception cref="NacreException">PasswordWeak.</exception>
    public static void Require(ReadOnlySpan<byte> untrusted, Policy policy)
    {
        var (characters, kinds) = (0, 0);
        for (var rest = untrusted; rest.Length > 0; characters++)
        {
            if (Rune.DecodeFromUtf8(rest, out var rune, out var used) != System.Buffers.OperationStatus.Done || Rune.IsControl(rune))
            {
                throw Weak("has a character that can't be typed", policy);
            }

            kinds |= rune.Value is >= 'a' and <= 'z' || Rune.IsLower(rune) ? 1 : Rune.IsUpper(rune) ? 2 : Rune.IsDigit(rune) ? 4 : 8;
            rest = rest[used..];
        }

        if (characters < policy.Get(Settings.PasswordMinLength))
        {
            throw Weak("is too short", policy);
        }

        if (untrusted.Length > LongestBytes)
        {
            throw Weak("is too long", policy);
        }

        if (int.PopCount(kinds) < policy.Get(Settings.PasswordClasses))
        {
            throw Weak("has too few kinds of characters", policy);
        }
    }

    public static NacreException Weak(string why, Policy policy) => new(ErrorCatalogue.PasswordWeak, $"the new password {why}; it must have {Words(policy)}");
}
