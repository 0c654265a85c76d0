using System.Text;
using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Cli;

/// <summary>An export of the audit log as JSON Lines, verified without a server.</summary>
internal static class AuditFile
{
    /// <summary>A line is some fields of some hundred characters each.</summary>
    private const int LongestLine = 1024 * 1024;

    /// <summary>A line as it is exported, without its end.</summary>
    public static string Format(AuditEntry entry) => JsonSerializer.Serialize(entry, ContractJson.Options);

    /// <summary>Follows the chain of hashes from the first line to the last.</summary>
    /// <param name="untrusted">The file's content.</param>
    /// <param name="head">The hash of a line that was noted earlier, hexadecimal: the file has this line, or begins right after it. Null: it must begin with the log's first line.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <returns>The chain at the file's last line.</returns>
    /// <exception cref="NacreException">AuditNotAuthentic: a line does not follow from the one before it, or the noted one is not there.</exception>
    public static async Task<AuditChain> VerifyAsync(Stream untrusted, string? head, CancellationToken cancellationToken)
    {
        using var reader = new StreamReader(untrusted, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true), detectEncodingFromByteOrderMarks: false);
        AuditChain? chain = null;
        var (number, isNotedSeen) = (0L, head is null);
        try
        {
            while (await reader.ReadLineAsync(cancellationToken) is { } line)
            {
                number++;
                var entry = Read(line) ?? throw Wrong($"line {number} of the file is not a line of the audit log as it is exported");
                if (chain is null)
                {
                    chain = Begin(entry, head);
                    isNotedSeen |= chain.Head == head;
                }

                if (!chain.TryFollow(entry))
                {
                    throw Wrong($"line {number} of the file (number {entry.Sequence} of the log) does not follow from the one before it: it was changed, or lines are missing, or it is not of this log");
                }

                isNotedSeen |= chain.Head == head;
            }
        }
        catch (DecoderFallbackException)
        {
            throw Wrong($"line {number + 1} of the file is not a line of the audit log as it is exported");
        }

        if (!isNotedSeen)
        {
            throw Wrong(chain is null ? "the file is empty, and the noted line is not in it" : $"the noted line is not in the file, which ends with number {chain.Sequence}: what came after it, or the whole log, was replaced or cut off");
        }

        return chain ?? throw Wrong("the file is empty");
    }

    private static AuditChain Begin(AuditEntry first, string? head) => (first.Sequence, head) switch
    {
        (1, _) => new AuditChain(),
        (_, null) => throw Wrong($"the file begins with number {first.Sequence} of the log, and what was before it can't be told: say the hash of number {first.Sequence - 1} with --head"),
        var (sequence, _) => new AuditChain(sequence - 1, Convert.FromHexString(head)),
    };

    /// <summary>Just what is written, in no other way: what a hash does not cover must not be there.</summary>
    private static AuditEntry? Read(string line)
    {
        try
        {
            return line.Length <= LongestLine && JsonSerializer.Deserialize<AuditEntry>(line, ContractJson.Options) is { } entry && Format(entry) == line ? entry : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }

    private static NacreException Wrong(string message) => new(ErrorCatalogue.AuditNotAuthentic, message);
}
