namespace Nacre.Player.Machines;

/// <summary>Text that the guest said.</summary>
internal static class GuestText
{
    /// <summary>Without what could move a terminal's cursor or colour; line breaks stay.</summary>
    public static string Plain(string untrusted) =>
        new([.. untrusted.Where(character => character == '\n' || (!char.IsControl(character) && !char.IsSurrogate(character) && character != '\ufffd'))]);

    /// <summary>The same, its last <paramref name="most"/> characters at most.</summary>
    public static string Shorten(string untrusted, int most) => Plain(untrusted) is var plain && plain.Length <= most ? plain : plain[^most..];
}
