using System.Text;
using Microsoft.Data.Sqlite;
using Nacre.Contracts;
using Npgsql;

namespace Nacre.Server;

/// <summary>What an exception of the database means, wherever it lies in what was thrown.</summary>
internal static class DatabaseProblems
{
    private const string IdleInTransactionTimeout = "25P03";

    /// <returns>Null: it is none whose cause is known.</returns>
    public static Failure? Find(Exception exception)
    {
        for (var one = exception; one is not null; one = one.InnerException)
        {
            if (From(one) is { } failure)
            {
                return failure;
            }
        }

        return null;
    }

    private static Failure? From(Exception exception) => exception switch
    {
        SqliteException { SqliteErrorCode: 13 } => Full,
        PostgresException { SqlState: PostgresErrorCodes.DiskFull } => Full,
        PostgresException { SqlState: PostgresErrorCodes.CharacterNotInRepertoire or PostgresErrorCodes.UntranslatableCharacter } => NoText,
        PostgresException refused when refused.SqlState is PostgresErrorCodes.InvalidPassword or PostgresErrorCodes.InvalidAuthorizationSpecification
            or PostgresErrorCodes.InvalidCatalogName or PostgresErrorCodes.InsufficientPrivilege => new Failure(ErrorCatalogue.DatabaseRefused, $"PostgreSQL refuses: {refused.MessageText}"),
        PostgresException away when away.IsTransient || away.SqlState == IdleInTransactionTimeout => new Failure(ErrorCatalogue.DatabaseUnreachable, $"PostgreSQL can't serve now: {away.MessageText}"),
        PostgresException or NpgsqlOperationInProgressException => null,
        NpgsqlException { InnerException: TimeoutException } => new Failure(ErrorCatalogue.DatabaseUnreachable, "PostgreSQL did not answer in time: it does too much, or another server holds the lock of writers"),
        NpgsqlException { IsTransient: true } away => new Failure(ErrorCatalogue.DatabaseUnreachable, $"PostgreSQL can't be reached: {(away.InnerException ?? away).Message}"),
        NpgsqlException { InnerException: System.Security.Authentication.AuthenticationException } distrusted => new Failure(ErrorCatalogue.DatabaseRefused, $"PostgreSQL's certificate is not trusted: {distrusted.InnerException!.Message}"),
        NpgsqlException other => new Failure(ErrorCatalogue.DatabaseRefused, $"PostgreSQL can't be used: {other.Message}"),
        EncoderFallbackException => NoText,
        _ => null,
    };

    private static Failure Full { get; } = new(ErrorCatalogue.NoSpace, "the disk of the server's database is full; nothing of this request was kept");

    private static Failure NoText { get; } = new(ErrorCatalogue.RequestInvalid, "a text of the request has a character that none may have: NUL, or half of one");
}
