using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>A person who signed in. The token is known by its hash only.</summary>
internal sealed class SessionRow
{
    public required string Id { get; init; }

    public required byte[] TokenHash { get; init; }

    public required string Person { get; init; }

    /// <summary>How it began, in words.</summary>
    public required string Method { get; init; }

    /// <summary>Whether the OpenID provider said who it is: its groups say what the person may do then.</summary>
    public required bool IsFederated { get; init; }

    public required string? Source { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }

    public required DateTimeOffset LastUsedAt { get; set; }

    public required DateTimeOffset ExpiresAt { get; init; }
}

/// <summary>Whom the OpenID provider knows under a name here.</summary>
internal sealed class FederatedRow
{
    /// <summary>The provider's issuer and the person's <c>sub</c> there, hashed: what never changes.</summary>
    public required string Subject { get; init; }

    public required string Name { get; init; }

    /// <summary>What the person's groups meant at the last sign-in, with commas between them.</summary>
    public required string Roles { get; set; }

    public IReadOnlyList<string> RoleList => Roles.Split(',', StringSplitOptions.RemoveEmptyEntries);
}

/// <summary>Sessions: begun by signing in, found by their token, ended by time, by their owner, and by what changes who may do what.</summary>
internal sealed class Sessions(NacreDatabase database, AuditTrail audit, Caller caller, TimeProvider time)
{
    /// <summary>A working day, and a pause in it.</summary>
    public static readonly TimeSpan Life = TimeSpan.FromHours(12), IdleLife = TimeSpan.FromHours(2);

    private const int MostOfPerson = 50;
    private static readonly TimeSpan LastUsedStep = TimeSpan.FromMinutes(1);

    public static Failure Ended { get; } = new(ErrorCatalogue.SessionEnded, "the session has ended");

    /// <summary>What a person may do who signs in with a password.</summary>
    public static async Task<IReadOnlyList<string>> RolesOfAsync(NacreDatabase database, string name, CancellationToken cancellationToken)
    {
        var administrator = await database.Administrators.AsNoTracking().SingleOrDefaultAsync(row => row.Name == name, cancellationToken);
        var isUser = await database.Users.AnyAsync(row => row.Name == name, cancellationToken);
        return [.. administrator?.RoleList ?? [], .. isUser ? [Roles.User] : Array.Empty<string>()];
    }

    /// <summary>The names of all, but the first administrator, who have one of some roles today.</summary>
    public static async Task<IReadOnlySet<string>> NamesWithAsync(NacreDatabase database, IReadOnlyList<string> roles, CancellationToken cancellationToken)
    {
        var named = await database.Administrators.AsNoTracking().ToListAsync(cancellationToken);
        var federated = await database.Federated.AsNoTracking().ToListAsync(cancellationToken);
        return named.Where(row => row.RoleList.Any(roles.Contains)).Select(row => row.Name).Concat(federated.Where(row => row.RoleList.Any(roles.Contains)).Select(row => row.Name)).ToHashSet(StringComparer.Ordinal);
    }

    /// <summary>The session of a token and what its person may do now; null: there is no such session.</summary>
    public async Task<Result<(SessionRow Session, IReadOnlyList<string> Roles)>?> FindAsync(string untrustedToken, CancellationToken cancellationToken)
    {
        var hash = Hash(untrustedToken);
        if (await database.Sessions.AsNoTracking().SingleOrDefaultAsync(row => row.TokenHash == hash, cancellationToken) is not { } session)
        {
            return null;
        }

        var now = time.Now();
        if (now >= session.ExpiresAt || now - session.LastUsedAt >= IdleLife)
        {
            return Ended;
        }

        var roles = session.IsFederated
            ? (await database.Federated.AsNoTracking().SingleOrDefaultAsync(row => row.Name == session.Person, cancellationToken))?.RoleList ?? []
            : await RolesOfAsync(database, session.Person, cancellationToken);
        if (roles.Count == 0)
        {
            return Ended;
        }

        if (now - session.LastUsedAt > LastUsedStep)
        {
            await database.Sessions.Where(row => row.Id == session.Id).ExecuteUpdateAsync(update => update.SetProperty(row => row.LastUsedAt, now), cancellationToken);
        }

        return (session, roles);
    }

    /// <summary>Begins a session; in the caller's transaction.</summary>
    public async Task<SignedIn> BeginAsync(string name, IReadOnlyList<string> roles, string method, bool isFederated, CancellationToken cancellationToken)
    {
        var now = time.Now();
        var token = Text.Url(RandomNumberGenerator.GetBytes(32));
        var old = await database.Sessions.Where(row => row.Person == name).OrderByDescending(row => row.LastUsedAt).Skip(MostOfPerson - 1).Select(row => row.Id).ToListAsync(cancellationToken);
        await database.Sessions.Where(row => old.Contains(row.Id)).ExecuteDeleteAsync(cancellationToken);
        database.Sessions.Add(new SessionRow
        {
            Id = Text.RandomId(), TokenHash = Hash(token), Person = name, Method = method, IsFederated = isFederated, Source = caller.Source, CreatedAt = now, LastUsedAt = now, ExpiresAt = now + Life,
        });
        await audit.AppendAsync($"{Roles.People.First(roles.Contains)}:{name}", "sign-in", name, method, cancellationToken);
        return new SignedIn(name, roles, token, now + Life);
    }

    public async Task<IReadOnlyList<Session>> ListAsync(CancellationToken cancellationToken)
    {
        var now = time.Now();
        var idle = now - IdleLife;
        return (await database.Sessions.AsNoTracking().Where(row => row.Person == caller.Name && row.ExpiresAt > now && row.LastUsedAt > idle).OrderBy(row => row.CreatedAt).ThenBy(row => row.Id).ToListAsync(cancellationToken))
            .ConvertAll(row => new Session(row.Id, row.Method, row.Source, row.CreatedAt, row.LastUsedAt, row.ExpiresAt, row.Id == caller.Session));
    }

    /// <summary>Ends a session of one's own; null: all of them.</summary>
    public async Task<Result<Done>> EndAsync(string? untrustedId, CancellationToken cancellationToken)
    {
        if (caller.Has(Roles.First))
        {
            return new Failure(ErrorCatalogue.NotFound, "the first administrator's token has no sessions");
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        var ended = await database.Sessions.Where(row => row.Person == caller.Name && (untrustedId == null || row.Id == untrustedId)).ExecuteDeleteAsync(cancellationToken);
        if (ended == 0 && untrustedId is not null)
        {
            return new Failure(ErrorCatalogue.NotFound, "there is no such session of yours");
        }

        await audit.AppendAsync(caller.Actor!, untrustedId is null ? "sign-out.everywhere" : "sign-out", caller.Name, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    /// <summary>Ends all sessions of a person; in the caller's transaction.</summary>
    public static Task EndAllAsync(NacreDatabase database, string name, CancellationToken cancellationToken) =>
        database.Sessions.Where(row => row.Person == name).ExecuteDeleteAsync(cancellationToken);

    public Task SweepAsync(CancellationToken cancellationToken)
    {
        var now = time.Now();
        var idle = now - IdleLife;
        return database.Sessions.Where(row => row.ExpiresAt <= now || row.LastUsedAt <= idle).ExecuteDeleteAsync(cancellationToken);
    }

    private static byte[] Hash(string token) => SHA256.HashData(Encoding.UTF8.GetBytes(token));
}
