namespace Nacre.Player.Machines;

/// <summary>Text that the guest, or a program of the host, said.</summary>
internal static class GuestText
{
    /// <summary>Without what could move a terminal's cursor or colour; line breaks stay.</summary>
    public static string Plain(string untrusted) =>
        new([.. untrusted.Where(character => character == '\n' || (!char.IsControl(character) && !char.IsSurrogate(character) && character != '\ufffd'))]);

    /// <summary>One line of it, its first <paramref name="most"/> characters at most.</summary>
    public static string Line(string untrusted, int most = 60) => Plain(untrusted).Replace('\n', ' ') is var line && line.Length <= most ? line.Trim() : line[..most].Trim();

    /// <summary>The same, its last <paramref name="most"/> characters at most.</summary>
    public static string Shorten(string untrusted, int most) => Plain(untrusted) is var plain && plain.Length <= most ? plain : plain[^most..];
}
