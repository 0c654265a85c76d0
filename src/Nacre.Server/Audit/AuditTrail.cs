using System.Globalization;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>A line of the audit log. The database refuses to change or remove one.</summary>
internal sealed class AuditRow
{
    public required long Sequence { get; init; }

    /// <summary>How <see cref="Hash"/> is made: <see cref="AuditChain"/>.</summary>
    public required int Format { get; init; }

    public required DateTimeOffset At { get; init; }

    public required string Actor { get; init; }

    public required string? Source { get; init; }

    public required string Action { get; init; }

    public required string Subject { get; init; }

    public required AuditResult? Result { get; init; }

    public required string Detail { get; init; }

    public required byte[] Hash { get; set; }

    public AuditEntry ToContract() => new(Format, Sequence, At, Actor, Source, Action, Subject, Result, Detail, Text.Hex(Hash));
}

/// <summary>Which lines of the audit log are asked for; null: whatever there is.</summary>
internal sealed record AuditQuery(long? After, int? Limit, string? Actor, string? Action, DateTimeOffset? Since);

/// <summary>Writes down who did what, in the same transaction as the deed, and shows it.</summary>
internal sealed class AuditTrail(NacreDatabase database, Caller caller, TimeProvider time)
{
    public const int LargestPage = 1000;

    /// <summary>The newest line, which nobody else follows before the transaction ends.</summary>
    private (Guid Transaction, AuditRow Row)? newest;

    public Task AppendAsync(string actor, string action, string subject, string detail, CancellationToken cancellationToken) =>
        AppendAsync(actor, action, subject, detail, AuditResult.Done, cancellationToken);

    public async Task AppendAsync(string actor, string action, string subject, string detail, AuditResult result, CancellationToken cancellationToken)
    {
        await AddAsync(actor, action, subject, detail, result, cancellationToken);
        await database.SaveChangesAsync(cancellationToken);
    }

    /// <summary>The same, to be saved by the caller with what else it changes.</summary>
    public async Task AddAsync(string actor, string action, string subject, string detail, AuditResult result, CancellationToken cancellationToken)
    {
        if (database.Database.CurrentTransaction is not { TransactionId: var transaction })
        {
            throw new InvalidOperationException("a deed and its audit line are one transaction");
        }

        var last = newest?.Transaction == transaction ? newest?.Row : await database.Audit.AsNoTracking().OrderByDescending(row => row.Sequence).FirstOrDefaultAsync(cancellationToken);
        var row = new AuditRow
        {
            Sequence = (last?.Sequence ?? 0) + 1,
            Format = AuditChain.NewestFormat,
            At = time.Now(),
            Actor = actor == Roles.Administrator && !caller.IsFirst ? caller.Person ?? actor : actor,
            Source = caller.Source,
            Action = action,
            Subject = subject,
            Result = result,
            Detail = detail,
            Hash = [],
        };
        row.Hash = AuditChain.HashOf(row.ToContract(), last?.Hash ?? new byte[32])!;
        database.Audit.Add(row);
        newest = (transaction, row);
    }

    /// <summary>A page. Each line is compared with the hash of the one before it, so a page costs what it shows, however long the log is.</summary>
    public async Task<Result<AuditLog>> ReadAsync(AuditQuery untrusted, CancellationToken cancellationToken)
    {
        var (after, limit) = (untrusted.After ?? 0, untrusted.Limit ?? LargestPage);
        if (after < 0 || limit is < 1 or > LargestPage)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, string.Create(CultureInfo.InvariantCulture, $"'after' must not be negative, 'limit' must be 1 to {LargestPage}"));
        }

        var rows = database.Audit.AsNoTracking().Where(row => row.Sequence > after);
        if (untrusted.Actor is { } actor)
        {
            rows = rows.Where(row => row.Actor == actor);
        }

        if (untrusted.Action is { } action)
        {
            rows = rows.Where(row => row.Action == action);
        }

        if (untrusted.Since is { } since)
        {
            rows = rows.Where(row => row.At >= since);
        }

        var page = await rows.OrderBy(row => row.Sequence).Take(limit)
            .Select(row => new { Row = row, Before = database.Audit.Where(before => before.Sequence == row.Sequence - 1).Select(before => before.Hash).FirstOrDefault() }).ToListAsync(cancellationToken);
        var entries = page.ConvertAll(line => line.Row.ToContract());
        long? wrong = null;
        for (var i = 0; i < page.Count && wrong is null; i++)
        {
            var (entry, before) = (entries[i], entries[i].Sequence == 1 ? new byte[32] : page[i].Before);
            if (before is null)
            {
                wrong = entry.Sequence - 1;
            }
            else if (AuditChain.HashOf(entry, before) is not { } hash || Text.Hex(hash) != entry.Hash)
            {
                wrong = entry.Sequence;
            }
        }

        return new AuditLog(wrong is null, wrong, entries);
    }
}

internal static class AuditEndpoints
{
    public static void Map(Groups groups) => groups.Of(Roles.Administrator, Roles.Auditor)
        .MapGet("/audit", async ([AsParameters] AuditQuery query, AuditTrail trail, CancellationToken cancellationToken) =>
            (await trail.ReadAsync(query, cancellationToken)).ToHttp(TypedResults.Ok))
        .WithName("GetAudit").WithSummary("Who did what, oldest first, and whether each line follows from the one before it.")
        .Produces<AuditLog>().Fails(ErrorCatalogue.RequestInvalid);
}
