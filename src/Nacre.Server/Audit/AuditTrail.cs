using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>A line of the audit log. The database refuses to change or remove one.</summary>
internal sealed class AuditRow
{
    public required long Sequence { get; init; }

    public required DateTimeOffset At { get; init; }

    public required string Actor { get; init; }

    public required string Action { get; init; }

    public required string Subject { get; init; }

    public required string Detail { get; init; }

    public required byte[] Hash { get; init; }

    /// <summary>SHA-256 over the line before's hash and the fields, each with its length, so that no two lines hash the same bytes.</summary>
    public byte[] Expected(byte[] previous)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData("nacre-audit-1"u8);
        hash.AppendData(previous);
        Span<byte> number = stackalloc byte[8];
        foreach (var value in (ReadOnlySpan<long>)[Sequence, At.ToUnixTimeMilliseconds()])
        {
            BinaryPrimitives.WriteInt64BigEndian(number, value);
            hash.AppendData(number);
        }

        foreach (var text in (ReadOnlySpan<string>)[Actor, Action, Subject, Detail])
        {
            var bytes = Encoding.UTF8.GetBytes(text);
            BinaryPrimitives.WriteInt64BigEndian(number, bytes.Length);
            hash.AppendData(number);
            hash.AppendData(bytes);
        }

        return hash.GetHashAndReset();
    }
}

/// <summary>Writes down who did what, in the same transaction as the deed, and shows it.</summary>
internal sealed class AuditTrail(NacreDatabase database, Caller caller, TimeProvider time)
{
    public const int LargestPage = 1000;
    private static readonly byte[] Genesis = new byte[32];

    public async Task AppendAsync(string actor, string action, string subject, string detail, CancellationToken cancellationToken)
    {
        if (database.Database.CurrentTransaction is null)
        {
            throw new InvalidOperationException("a deed and its audit line are one transaction");
        }

        var last = await database.Audit.AsNoTracking().OrderByDescending(row => row.Sequence).FirstOrDefaultAsync(cancellationToken);
        var row = Next(last, time.Now(), actor == Roles.Administrator && !caller.IsFirst ? $"{actor}:{caller.Name}" : actor, action, subject, detail);
        database.Audit.Add(row);
        await database.SaveChangesAsync(cancellationToken);
    }

    public async Task<Result<AuditLog>> ReadAsync(long after, int limit, CancellationToken cancellationToken)
    {
        if (after < 0 || limit is < 1 or > LargestPage)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, string.Create(CultureInfo.InvariantCulture, $"'after' must not be negative, 'limit' must be 1 to {LargestPage}"));
        }

        var entries = new List<AuditEntry>();
        var previous = Genesis;
        var expected = 1L;
        long? wrong = null;
        await foreach (var row in database.Audit.AsNoTracking().OrderBy(row => row.Sequence).AsAsyncEnumerable().WithCancellation(cancellationToken))
        {
            if (wrong is null && (row.Sequence != expected || !row.Hash.AsSpan().SequenceEqual(row.Expected(previous))))
            {
                wrong = expected;
            }

            previous = row.Hash;
            expected = row.Sequence + 1;
            if (row.Sequence > after && entries.Count < limit)
            {
                entries.Add(new AuditEntry(row.Sequence, row.At, row.Actor, row.Action, row.Subject, row.Detail, Text.Hex(row.Hash)));
            }
        }

        return new AuditLog(wrong is null, wrong, entries);
    }

    private static AuditRow Next(AuditRow? last, DateTimeOffset at, string actor, string action, string subject, string detail)
    {
        var unsigned = new AuditRow
        {
            Sequence = (last?.Sequence ?? 0) + 1,
            At = at,
            Actor = actor,
            Action = action,
            Subject = subject,
            Detail = detail,
            Hash = [],
        };
        return new AuditRow
        {
            Sequence = unsigned.Sequence,
            At = at,
            Actor = actor,
            Action = action,
            Subject = subject,
            Detail = detail,
            Hash = unsigned.Expected(last?.Hash ?? Genesis),
        };
    }
}

internal static class AuditEndpoints
{
    public static void Map(Groups groups) => groups.Administrator
        .MapGet("/audit", async (AuditTrail trail, long? after, int? limit, CancellationToken cancellationToken) =>
            (await trail.ReadAsync(after ?? 0, limit ?? AuditTrail.LargestPage, cancellationToken)).ToHttp(TypedResults.Ok))
        .WithName("GetAudit").WithSummary("Who did what, oldest first, and whether the chain of hashes holds.")
        .Produces<AuditLog>().Fails(ErrorCatalogue.RequestInvalid);
}
