using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>Tries that have not succeeded, of an account or from a source.</summary>
internal sealed class ThrottleRow
{
    public required string Key { get; init; }

    public required int Tries { get; set; }

    /// <summary>Of an account the last try, of a source the first one that counts.</summary>
    public required DateTimeOffset At { get; set; }
}

/// <summary>
/// Holds up who guesses, in the database: a start of the server or another server forgets nothing. A try is taken before it is judged, under the writers'
/// lock, so tries at once are counted as tries one after another, and it is given back where it was right.
/// </summary>
internal sealed class Throttle(NacreDatabase database, Caller caller, TimeProvider time)
{
    /// <summary>Tries of an account before each costs time.</summary>
    public const int FreeTries = 5;

    /// <summary>Tries from a source in <see cref="SourceSpan"/>.</summary>
    public const int MostOfSource = 50;

    public static readonly TimeSpan FirstWait = TimeSpan.FromSeconds(30), LongestWait = TimeSpan.FromMinutes(15), SourceSpan = TimeSpan.FromMinutes(10);
    private static readonly TimeSpan Memory = TimeSpan.FromDays(1);

    /// <summary>Takes a try at an account, whether or not there is one of that name.</summary>
    public async Task<Failure?> TakeAsync(string untrustedName, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var now = time.Now();
        if (await TakeSourceAsync("sign-in", now, cancellationToken) is { } refused)
        {
            return refused;
        }

        var row = await FindAsync(KeyOf(untrustedName), now, cancellationToken);
        if (now - row.At >= Memory)
        {
            row.Tries = 0;
        }

        var wait = row.Tries < FreeTries ? TimeSpan.Zero : TimeSpan.FromSeconds(Math.Min(FirstWait.TotalSeconds * Math.Pow(2, Math.Min(row.Tries - FreeTries, 20)), LongestWait.TotalSeconds));
        if (now < row.At + wait)
        {
            return TooMany("for this name", row.At + wait - now);
        }

        (row.Tries, row.At) = (row.Tries + 1, now);
        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return null;
    }

    /// <summary>Takes something that anybody may ask for, so often from one source.</summary>
    public async Task<Failure?> TakeOfSourceAsync(string what, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await TakeSourceAsync(what, time.Now(), cancellationToken) is { } refused)
        {
            return refused;
        }

        await database.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return null;
    }

    /// <summary>Gives a try back that was right as far as it went; in the caller's transaction.</summary>
    public async Task GiveBackAsync(string name, bool forgets, CancellationToken cancellationToken)
    {
        var (account, source) = (KeyOf(name), SourceKey("sign-in"));
        await database.Throttles.Where(row => row.Key == source && row.Tries > 0).ExecuteUpdateAsync(update => update.SetProperty(row => row.Tries, row => row.Tries - 1), cancellationToken);
        await database.Throttles.Where(row => row.Key == account && row.Tries > 0)
            .ExecuteUpdateAsync(update => update.SetProperty(row => row.Tries, row => forgets ? 0 : row.Tries - 1), cancellationToken);
    }

    /// <summary>Lets a person try at once again; in the caller's transaction.</summary>
    public Task ForgetAsync(string name, CancellationToken cancellationToken)
    {
        var key = KeyOf(name);
        return database.Throttles.Where(row => row.Key == key).ExecuteDeleteAsync(cancellationToken);
    }

    public Task SweepAsync(CancellationToken cancellationToken)
    {
        var since = time.Now() - Memory;
        return database.Throttles.Where(row => row.At < since).ExecuteDeleteAsync(cancellationToken);
    }

    private async Task<Failure?> TakeSourceAsync(string what, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var row = await FindAsync(SourceKey(what), now, cancellationToken);
        if (now - row.At >= SourceSpan)
        {
            (row.Tries, row.At) = (0, now);
        }

        if (row.Tries >= MostOfSource)
        {
            return TooMany("from this network", row.At + SourceSpan - now);
        }

        row.Tries++;
        return null;
    }

    private async Task<ThrottleRow> FindAsync(string key, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var row = await database.Throttles.SingleOrDefaultAsync(one => one.Key == key, cancellationToken);
        if (row is null)
        {
            row = new ThrottleRow { Key = key, Tries = 0, At = now };
            database.Throttles.Add(row);
        }

        return row;
    }

    // What was typed as a name may be a password.
    private static string KeyOf(string untrustedName) => "account:" + Text.Hex(SHA256.HashData(Encoding.UTF8.GetBytes(untrustedName)).AsSpan(0, 16));

    private string SourceKey(string what) => $"{what}:{Refusals.SourceOf(caller.Source)}";

    private static Failure TooMany(string of, TimeSpan wait) =>
        new(ErrorCatalogue.TooManyTries, string.Create(CultureInfo.InvariantCulture, $"there were too many tries {of}: the next one is possible in {Math.Ceiling(wait.TotalSeconds)} seconds"));
}
