using System.Text;
using System.Text.Json;

namespace Nacre.Contracts.Trust;

/// <summary>Canonical JSON as TUF signs it: no white space, names in order, whole numbers only, one spelling for each text. A file must be spelled so already, so that nobody can
/// make two files of one signature; only a text's control characters are escaped in it (JSON wants that), and are signed as they are.</summary>
public static class CanonicalJson
{
    private const int DeepestNesting = 16;

    /// <summary>Reads bytes that must be canonical.</summary>
    /// <exception cref="NacreException"><see cref="ErrorCatalogue.TrustNotAuthentic"/>: they are no JSON, or spelled otherwise.</exception>
    public static JsonElement Parse(ReadOnlyMemory<byte> untrusted)
    {
        try
        {
            using var document = JsonDocument.Parse(untrusted, new JsonDocumentOptions { MaxDepth = DeepestNesting, AllowDuplicateProperties = false });
            if (EncodeFile(document.RootElement).AsSpan().SequenceEqual(untrusted.Span))
            {
                return document.RootElement.Clone();
            }
        }
        catch (Exception exception) when (exception is JsonException or FormatException or InvalidOperationException or DecoderFallbackException)
        {
            throw new NacreException(ErrorCatalogue.TrustNotAuthentic, "trust metadata is not JSON as it must be", exception);
        }

        throw new NacreException(ErrorCatalogue.TrustNotAuthentic, "trust metadata is not spelled canonically");
    }

    /// <summary>The bytes of a value that are signed.</summary>
    /// <exception cref="FormatException">It holds a fraction, or a name that is not ASCII.</exception>
    public static byte[] EncodeSigned(JsonElement value) => Encode(value, escapes: false);

    /// <summary>The bytes of a value that are signed.</summary>
    public static byte[] EncodeSigned<T>(T value) => EncodeSigned(JsonSerializer.SerializeToElement(value));

    /// <summary>The bytes of a value in a file.</summary>
    public static byte[] EncodeFile<T>(T value) => Encode(JsonSerializer.SerializeToElement(value), escapes: true);

    private static byte[] Encode(JsonElement value, bool escapes)
    {
        var text = new StringBuilder();
        Write(text, value, escapes);
        return new UTF8Encoding(false, throwOnInvalidBytes: true).GetBytes(text.ToString());
    }

    private static void Write(StringBuilder text, JsonElement value, bool escapes)
    {
        switch (value.ValueKind)
        {
            case JsonValueKind.Object:
                text.Append('{');
                var first = true;
                foreach (var property in value.EnumerateObject().OrderBy(property => property.Name, StringComparer.Ordinal))
                {
                    if (!Ascii.IsValid(property.Name))
                    {
                        throw new FormatException("a name is not ASCII");
                    }

                    text.Append(first ? "" : ",");
                    first = false;
                    WriteText(text, property.Name, escapes);
                    text.Append(':');
                    Write(text, property.Value, escapes);
                }

                text.Append('}');
                break;
            case JsonValueKind.Array:
                text.Append('[');
                foreach (var (number, item) in value.EnumerateArray().Index())
                {
                    text.Append(number == 0 ? "" : ",");
                    Write(text, item, escapes);
                }

                text.Append(']');
                break;
            case JsonValueKind.String:
                WriteText(text, value.GetString()!, escapes);
                break;
            case JsonValueKind.Number:
                text.Append(value.TryGetInt64(out var whole) ? whole : throw new FormatException("a number is not whole"));
                break;
            default:
                text.Append(value.ValueKind switch { JsonValueKind.True => "true", JsonValueKind.False => "false", _ => "null" });
                break;
        }
    }

    private static void WriteText(StringBuilder text, string value, bool escapes)
    {
        text.Append('"');
        foreach (var character in value)
        {
            text.Append(character switch
            {
                '"' => "\\\"",
                '\\' => "\\\\",
                < ' ' when escapes => $"\\u{(int)character:x4}",
                _ => character.ToString(),
            });
        }

        text.Append('"');
    }
}
