using System.Buffers;
using System.Collections.Concurrent;
using System.Globalization;
using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using Microsoft.Net.Http.Headers;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>A segment that is whole in the store.</summary>
internal sealed class SegmentRow
{
    public required string Name { get; init; }

    public required long Length { get; init; }

    public required string Sha256 { get; init; }

    /// <summary>When a publisher last sent it or was told that it is there, or a release that referred to it went. For a time from then on it stays, although no
    /// release refers to it (yet).</summary>
    public required DateTimeOffset NeededAt { get; set; }
}

/// <summary>A release refers to a segment: as long as it does, the database does not let the segment go.</summary>
internal sealed class SegmentUseRow
{
    public required string Image { get; init; }

    public required int Version { get; init; }

    public required string Segment { get; init; }
}

internal static class SegmentErrors
{
    public static Failure NameInvalid { get; } = new(ErrorCatalogue.RequestInvalid, "the name of a segment has 32 lower-case hexadecimal digits");

    public static Failure NotFound { get; } = new(ErrorCatalogue.NotFound, "there is no such segment");

    public static Failure DigestMissing { get; } = new(ErrorCatalogue.RequestInvalid, "the header 'Content-Digest: sha-256=:BASE64:' (RFC 9530) is missing or malformed");

    public static Failure DigestMismatch { get; } = new(ErrorCatalogue.DigestMismatch, "the bytes that arrived are not those that were announced");

    public static Failure Empty { get; } = new(ErrorCatalogue.RequestInvalid, "a segment has at least one byte");

    public static Failure Immutable { get; } = new(ErrorCatalogue.Immutable, "there is another segment of that name");

    public static Failure TooLarge(long limit) => new(ErrorCatalogue.TooLarge, string.Create(CultureInfo.InvariantCulture, $"a segment has at most {limit} bytes"));
}

internal sealed class Segments(NacreDatabase database, ISegmentStore store, ServerOptions options, TimeProvider time)
{
    private const int MostNames = 10_000;
    private const int BufferLength = 128 * 1024;

    /// <summary>Questions to the store at a time: one that is far away answers each in milliseconds.</summary>
    private const int QuestionsAtOnce = 16;

    public async Task<Result<MissingSegments>> FindMissingAsync(FindMissingSegments untrusted, CancellationToken cancellationToken)
    {
        if (untrusted.Names is null || untrusted.Names.Count > MostNames || !untrusted.Names.All(Names.IsSegmentName))
        {
            return new Failure(ErrorCatalogue.RequestInvalid, "'names' must be at most 10000 names of segments, each 32 lower-case hexadecimal digits");
        }

        var names = untrusted.Names.Distinct(StringComparer.Ordinal).ToList();
        await NeedAsync(names, cancellationToken);
        var present = await FindAsync(names, cancellationToken);
        return new MissingSegments(names.FindAll(name => !present.ContainsKey(name)));
    }

    /// <summary>Those of the segments that are whole in the store.</summary>
    public async Task<IReadOnlyDictionary<string, SegmentRow>> FindAsync(IEnumerable<string> names, CancellationToken cancellationToken)
    {
        var present = new ConcurrentDictionary<string, SegmentRow>(StringComparer.Ordinal);
        foreach (var chunk in names.Chunk(500))
        {
            var rows = await database.Segments.AsNoTracking().Where(row => chunk.Contains(row.Name)).ToListAsync(cancellationToken);
            await Parallel.ForEachAsync(rows, new ParallelOptions { MaxDegreeOfParallelism = QuestionsAtOnce, CancellationToken = cancellationToken }, async (row, token) =>
            {
                if (await store.FindLengthAsync(row.Name, token) == row.Length)
                {
                    present[row.Name] = row;
                }
            });
        }

        return present;
    }

    /// <summary>Notes that a publisher needs these segments: those that are there stay for the grace period. To be done before they are looked for.</summary>
    public async Task NeedAsync(IEnumerable<string> names, CancellationToken cancellationToken)
    {
        // As a writer: what is removed meanwhile is decided on what is noted here.
        await using var transaction = database.Database.CurrentTransaction is null ? await database.BeginWriteAsync(cancellationToken) : null;
        var now = time.Now();
        foreach (var chunk in names.Chunk(500))
        {
            await database.Segments.Where(row => chunk.Contains(row.Name))
                .ExecuteUpdateAsync(update => update.SetProperty(row => row.NeededAt, now), cancellationToken);
        }

        if (transaction is not null)
        {
            await transaction.CommitAsync(cancellationToken);
        }
    }

    /// <summary>Stores a segment; the answer is whether it is new.</summary>
    public async Task<Result<Stored<string>>> PutAsync(string untrustedName, HttpRequest request, CancellationToken cancellationToken)
    {
        if (!Names.IsSegmentName(untrustedName))
        {
            return SegmentErrors.NameInvalid;
        }

        if (!ContentDigest.TryParse(request.Headers["Content-Digest"], out var announced))
        {
            return SegmentErrors.DigestMissing;
        }

        if (request.ContentLength > options.MaxSegmentBytes)
        {
            return SegmentErrors.TooLarge(options.MaxSegmentBytes);
        }

        var digest = Text.Hex(announced);
        var existing = await database.Segments.AsNoTracking().SingleOrDefaultAsync(row => row.Name == untrustedName, cancellationToken);
        if (existing is not null && existing.Sha256 != digest)
        {
            return SegmentErrors.Immutable;
        }

        // What is sent again is either of a publisher that did not ask before, or mends the store: then what is there is not what it should be.
        if (existing is not null)
        {
            await NeedAsync([existing.Name], cancellationToken);
            if (await HashAsync(existing.Name, cancellationToken) == (existing.Length, existing.Sha256))
            {
                return new Stored<string>(untrustedName, IsNew: false);
            }
        }

        await using var writer = await store.CreateAsync(untrustedName, cancellationToken);
        var received = await ReceiveAsync(request.Body, writer, cancellationToken);
        if (received.Failure is { } failure)
        {
            return failure;
        }

        if (!CryptographicOperations.FixedTimeEquals(received.Value.Sha256, announced))
        {
            return SegmentErrors.DigestMismatch;
        }

        return await RecordAsync(writer, new SegmentRow { Name = untrustedName, Length = received.Value.Length, Sha256 = digest, NeededAt = time.Now() }, cancellationToken);
    }

    public async Task<Result<(SegmentRow Row, Stream Content)>> OpenAsync(string untrustedName, CancellationToken cancellationToken)
    {
        if (!Names.IsSegmentName(untrustedName))
        {
            return SegmentErrors.NotFound;
        }

        var row = await database.Segments.AsNoTracking().SingleOrDefaultAsync(segment => segment.Name == untrustedName, cancellationToken);
        if (row is null || await store.OpenAsync(untrustedName, cancellationToken) is not { } content)
        {
            return SegmentErrors.NotFound;
        }

        return (row, content);
    }

    /// <summary>What the store really has: its length and hash; null where it has nothing.</summary>
    public async Task<(long Length, string Sha256)?> HashAsync(string name, CancellationToken cancellationToken)
    {
        if (await store.OpenAsync(name, cancellationToken) is not { } stream)
        {
            return null;
        }

        await using (stream)
        {
            return (stream.Length, Text.Hex(await SHA256.HashDataAsync(stream, cancellationToken)));
        }
    }

    /// <summary>Stores an object that the server makes itself; null where what it is made of is not in the store.</summary>
    public async Task<SegmentRow?> StoreAsync(string name, IAsyncEnumerable<ReadOnlyMemory<byte>> content, CancellationToken cancellationToken)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        await using var writer = await store.CreateAsync(name, cancellationToken);
        var length = 0L;
        try
        {
            await foreach (var part in content)
            {
                hash.AppendData(part.Span);
                await writer.WriteAsync(part, cancellationToken);
                length += part.Length;
            }
        }
        catch (FileNotFoundException)
        {
            return null;
        }

        var row = new SegmentRow { Name = name, Length = length, Sha256 = Text.Hex(hash.GetHashAndReset()), NeededAt = time.Now() };
        return (await RecordAsync(writer, row, cancellationToken)).Failure is null ? row : null;
    }

    private async Task<Result<(long Length, byte[] Sha256)>> ReceiveAsync(Stream body, ISegmentWriter writer, CancellationToken cancellationToken)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = ArrayPool<byte>.Shared.Rent(BufferLength);
        try
        {
            var length = 0L;
            int read;
            while ((read = await body.ReadAsync(buffer, cancellationToken)) > 0)
            {
                length += read;
                if (length > options.MaxSegmentBytes)
                {
                    return SegmentErrors.TooLarge(options.MaxSegmentBytes);
                }

                hash.AppendData(buffer.AsSpan(0, read));
                await writer.WriteAsync(buffer.AsMemory(0, read), cancellationToken);
            }

            return length == 0 ? SegmentErrors.Empty : (length, hash.GetHashAndReset());
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>The row decides which of two uploads of one name is the segment: it is written under the database's lock, after the file.</summary>
    private async Task<Result<Stored<string>>> RecordAsync(ISegmentWriter writer, SegmentRow row, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var winner = await database.Segments.AsNoTracking().SingleOrDefaultAsync(segment => segment.Name == row.Name, cancellationToken);
        if (winner is not null && winner.Sha256 != row.Sha256)
        {
            return SegmentErrors.Immutable;
        }

        await writer.CommitAsync(cancellationToken);
        if (winner is null)
        {
            database.Segments.Add(row);
            await database.SaveChangesAsync(cancellationToken);
        }
        else
        {
            await NeedAsync([row.Name], cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);

        return new Stored<string>(row.Name, winner is null);
    }
}

/// <summary>The header of RFC 9530.</summary>
internal static class ContentDigest
{
    private const string Prefix = "sha-256=:";
    private const int LongestHeader = 1024;

    public static bool TryParse(string? untrustedHeader, out byte[] sha256)
    {
        sha256 = new byte[32];
        if (untrustedHeader is null || untrustedHeader.Length > LongestHeader)
        {
            return false;
        }

        foreach (var part in untrustedHeader.Split(',', StringSplitOptions.TrimEntries))
        {
            if (part.StartsWith(Prefix, StringComparison.Ordinal))
            {
                return part.Length == Prefix.Length + 45 && part[^1] == ':' && Text.TryReadKey(part[Prefix.Length..^1], out sha256);
            }
        }

        return false;
    }
}

internal static class SegmentEndpoints
{
    public static void Map(Groups groups, ServerOptions options)
    {
        groups.Of(Roles.Administrator, Roles.Author).MapPost("/segments/missing", async (FindMissingSegments body, Segments segments, CancellationToken cancellationToken) =>
                (await segments.FindMissingAsync(body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("FindMissingSegments").WithSummary("Which of these segments the store lacks.")
            .Produces<MissingSegments>().Fails(ErrorCatalogue.RequestInvalid);
        groups.Of(Roles.Administrator, Roles.Author).MapPut("/segments/{name}", async (string name, HttpRequest request, Segments segments, CancellationToken cancellationToken) =>
                (await segments.PutAsync(name, request, cancellationToken))
                .ToHttp(stored => TypedResults.StatusCode(stored.IsNew ? StatusCodes.Status201Created : StatusCodes.Status200OK)))
            .WithName("PutSegment").WithSummary("Stores a segment, whole or not at all; its SHA-256 is in the header Content-Digest (RFC 9530).")
            .WithMetadata(new BodyLimit(options.MaxSegmentBytes)).Accepts<Stream>("application/octet-stream")
            .Produces(StatusCodes.Status201Created).Produces(StatusCodes.Status200OK)
            .Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.DigestMismatch, ErrorCatalogue.TooLarge, ErrorCatalogue.Immutable, ErrorCatalogue.NoSpace);
        groups.Public.MapMethods("/segments/{name}", [HttpMethods.Get, HttpMethods.Head], async (string name, HttpContext context, Segments segments, CancellationToken cancellationToken) =>
                (await segments.OpenAsync(name, cancellationToken)).ToHttp(found => Send(context, found.Row, found.Content)))
            .WithName("GetSegment").WithSummary("The ciphertext of a segment, or a range of it.")
            .Produces(StatusCodes.Status200OK, contentType: "application/octet-stream").Produces(StatusCodes.Status206PartialContent, contentType: "application/octet-stream")
            .Fails(ErrorCatalogue.NotFound);
    }

    private static IResult Send(HttpContext context, SegmentRow row, Stream content)
    {
        if (IsUnsatisfiable(context.Request, content.Length))
        {
            var length = content.Length;
            content.Dispose();
            context.Response.Headers.ContentRange = string.Create(CultureInfo.InvariantCulture, $"bytes */{length}");
            return new RangeProblem();
        }

        context.Response.Headers.CacheControl = "public, max-age=31536000, immutable";
        return TypedResults.File(content, "application/octet-stream", entityTag: new EntityTagHeaderValue($"\"{row.Sha256}\""),
            enableRangeProcessing: context.Request.GetTypedHeaders().Range?.Unit.Equals("bytes", StringComparison.OrdinalIgnoreCase) == true); // the framework takes any unit for bytes
    }

    private static bool IsUnsatisfiable(HttpRequest request, long length)
    {
        var headers = request.GetTypedHeaders();
        return headers.IfRange is null && headers.IfNoneMatch is not { Count: > 0 } && headers.Range is { Ranges.Count: 1 } range && range.Unit == "bytes"
            && range.Ranges.First() is var only && (only.From >= length || (only.From is null && only.To == 0));
    }

    private sealed class RangeProblem : IResult
    {
        public Task ExecuteAsync(HttpContext httpContext) => Problems.WriteAsync(
            httpContext, new Failure(ErrorCatalogue.RequestInvalid, "the segment ends before this range begins"), StatusCodes.Status416RangeNotSatisfiable);
    }
}
