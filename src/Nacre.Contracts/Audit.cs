using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Serialization;

namespace Nacre.Contracts;

/// <summary>How an act ended.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<AuditResult>))]
public enum AuditResult
{
    /// <summary>It was done.</summary>
    [JsonStringEnumMemberName("done")]
    Done,

    /// <summary>It was not permitted, or not as it must be; nothing was changed by it.</summary>
    [JsonStringEnumMemberName("refused")]
    Refused,

    /// <summary>It should have been done, and was not.</summary>
    [JsonStringEnumMemberName("failed")]
    Failed,
}

/// <summary>One line of the audit log.</summary>
/// <param name="Format">How <paramref name="Hash"/> is made: 2, or 1 for lines of before there was a source and a result.</param>
/// <param name="Sequence">1, 2, 3, … without gaps.</param>
/// <param name="At">When, to the millisecond.</param>
/// <param name="Actor">Who: <c>administrator</c> (the first), <c>administrator:NAME</c>, <c>device:ID</c>, <c>code:ID</c>, <c>replica</c>, <c>server</c>, or <c>nobody</c> (no valid credential).</param>
/// <param name="Source">From where: the address that the server saw; null: by itself, or of format 1.</param>
/// <param name="Action">What, for example <c>device.revoke</c>.</param>
/// <param name="Subject">To what.</param>
/// <param name="Result">How it ended; null: of format 1.</param>
/// <param name="Detail">More about it; never a secret.</param>
/// <param name="Hash">SHA-256 over the line before's hash and this line's fields, hexadecimal.</param>
public sealed record AuditEntry(
    int Format, long Sequence, DateTimeOffset At, string Actor, string? Source, string Action, string Subject, AuditResult? Result, string Detail, string Hash);

/// <summary>A page of the audit log.</summary>
/// <param name="Verified">Whether each line of the page follows from the one before it in the log.</param>
/// <param name="FirstWrongSequence">The first line that does not, or is gone; null where all do.</param>
/// <param name="Entries">The page, oldest first.</param>
public sealed record AuditLog(bool Verified, long? FirstWrongSequence, IReadOnlyList<AuditEntry> Entries);

/// <summary>The chain of the audit log's hashes, followed line by line: who knows one line's hash knows all lines up to it.</summary>
/// <param name="sequence">The number of the last line; 0 before the first.</param>
/// <param name="head">Its hash, 32 bytes.</param>
public sealed class AuditChain(long sequence, byte[] head)
{
    /// <summary>How new lines are hashed.</summary>
    public const int NewestFormat = 2;

    /// <summary>A chain before its first line.</summary>
    public AuditChain()
        : this(0, new byte[32])
    {
    }

    /// <summary>The number of the last line.</summary>
    public long Sequence { get; private set; } = sequence;

    /// <summary>The hash of the last line, hexadecimal.</summary>
    public string Head => Convert.ToHexStringLower(head);

    /// <summary>Takes a line where it follows from the last one.</summary>
    /// <returns>False: it does not, and nothing changed.</returns>
    public bool TryFollow(AuditEntry untrusted)
    {
        ArgumentNullException.ThrowIfNull(untrusted);
        if (untrusted.Sequence != Sequence + 1 || HashOf(untrusted, head) is not { } hash || Convert.ToHexStringLower(hash) != untrusted.Hash)
        {
            return false;
        }

        (Sequence, head) = (untrusted.Sequence, hash);
        return true;
    }

    /// <summary>SHA-256 over the line before's hash and the fields, each with its length, so that no two lines hash the same bytes.</summary>
    /// <returns>Null: there is no such line, because its format is not known or does not have its fields.</returns>
    public static byte[]? HashOf(AuditEntry untrusted, ReadOnlySpan<byte> previous)
    {
        ArgumentNullException.ThrowIfNull(untrusted);
        var result = untrusted.Result switch { AuditResult.Done => "done", AuditResult.Refused => "refused", AuditResult.Failed => "failed", _ => null };
        string[]? fields = untrusted switch
        {
            { Format: 1, Source: null, Result: null } => [untrusted.Actor, untrusted.Action, untrusted.Subject, untrusted.Detail],
            { Format: 2, Source: not "" } when result is not null => [untrusted.Actor, untrusted.Source ?? "", untrusted.Action, untrusted.Subject, result, untrusted.Detail],
            _ => null,
        };
        if (fields is null)
        {
            return null;
        }

        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(untrusted.Format == 1 ? "nacre-audit-1"u8 : "nacre-audit-2"u8);
        hash.AppendData(previous);
        Span<byte> number = stackalloc byte[8];
        foreach (var value in (ReadOnlySpan<long>)[untrusted.Sequence, untrusted.At.ToUnixTimeMilliseconds()])
        {
            BinaryPrimitives.WriteInt64BigEndian(number, value);
            hash.AppendData(number);
        }

        foreach (var text in fields)
        {
            var bytes = Encoding.UTF8.GetBytes(text);
            BinaryPrimitives.WriteInt64BigEndian(number, bytes.Length);
            hash.AppendData(number);
            hash.AppendData(bytes);
        }

        return hash.GetHashAndReset();
    }
}
