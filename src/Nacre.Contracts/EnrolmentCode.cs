using System.Security.Cryptography;
using System.Text;

namespace Nacre.Contracts;

/// <summary>
/// A one-time code with which a device enrols: 24 characters of Crockford's base 32 in groups of four. The first eight name the code at
/// the server; the other sixteen (80 bits) are a secret that never travels: both sides prove that they know it by HMAC-SHA-256, so that a
/// network in between can neither enrol in the device's place nor put its own keys in the place of the server's, with or without TLS.
/// </summary>
public sealed class EnrolmentCode
{
    private const int IdLength = 8;
    private const int Length = 24;
    private readonly string text;

    private EnrolmentCode(string text) => this.text = text;

    /// <summary>The part that names the code; not secret.</summary>
    public string Id => text[..IdLength];

    /// <summary>The part that never travels. The server keeps it until the code is used or expires.</summary>
    public string Secret => text[IdLength..];

    /// <summary>Makes a new random code.</summary>
    public static EnrolmentCode Create() => new(TypedCode.Create(Length));

    /// <summary>Joins the two parts again.</summary>
    public static EnrolmentCode FromParts(string id, string secret) => new(id + secret);

    /// <summary>Reads a code as a person types it: any case, with or without hyphens and spaces, O for 0, I and L for 1.</summary>
    public static bool TryParse(string? untrustedText, out EnrolmentCode code)
    {
        code = null!;
        if (!TypedCode.TryRead(untrustedText, Length, out var read))
        {
            return false;
        }

        code = new EnrolmentCode(read);
        return true;
    }

    /// <summary>The proof, in base64url, that the sender of <paramref name="parts"/> knows the secret.</summary>
    /// <param name="purpose">Which message it is, so that one proof can't serve as another.</param>
    /// <param name="parts">The message's fields in order.</param>
    public string Prove(string purpose, params ReadOnlySpan<string> parts)
    {
        var message = new StringBuilder("nacre-enrolment-1\n").Append(purpose);
        foreach (var part in parts)
        {
            message.Append('\n').Append(part.Length).Append(':').Append(part);
        }

        var key = HKDF.DeriveKey(HashAlgorithmName.SHA256, Encoding.ASCII.GetBytes(Secret), 32, info: "nacre enrolment"u8.ToArray());
        return Base64Url(HMACSHA256.HashData(key, Encoding.UTF8.GetBytes(message.ToString())));
    }

    /// <summary>Whether <paramref name="untrustedProof"/> is the proof for these parts, compared in constant time.</summary>
    public bool Verify(string? untrustedProof, string purpose, params ReadOnlySpan<string> parts) => untrustedProof is not null
        && CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(untrustedProof), Encoding.UTF8.GetBytes(Prove(purpose, parts)));

    /// <summary>The code as it is shown: <c>ABCD-EFGH-…</c>. It contains the secret.</summary>
    public string Reveal() => TypedCode.Show(text);

    /// <summary>Only the part that is not secret.</summary>
    public override string ToString() => Id + "-***";

    private static string Base64Url(byte[] bytes) => System.Buffers.Text.Base64Url.EncodeToString(bytes);
}
