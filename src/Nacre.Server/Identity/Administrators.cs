using System.Security.Claims;
using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>An administrator beside the first one, whose token the server made at its first start.</summary>
internal sealed class AdministratorRow
{
    public required string Name { get; init; }

    public required byte[] TokenHash { get; init; }

    /// <summary>Of <see cref="PeopleRoles.Staff"/>, with commas between them.</summary>
    public required string Roles { get; set; }

    public required DateTimeOffset CreatedAt { get; init; }

    public IReadOnlyList<string> RoleList => Roles.Split(',');
}

/// <summary>Who makes the request that is being answered.</summary>
internal sealed class Caller(IHttpContextAccessor accessor)
{
    /// <summary>The administrator's name: <c>administrator</c> is the first one.</summary>
    public string Name => accessor.HttpContext?.User.FindFirstValue(ClaimTypes.NameIdentifier) ?? Roles.Administrator;

    /// <summary>The address that it comes from, as the server sees it or a proxy that is trusted says; null: nobody asked, the server does it by itself.</summary>
    public string? Source => accessor.HttpContext?.Connection.RemoteIpAddress is { } address ? (address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address).ToString() : null;

    /// <summary>The device whose key signed the request's token, whether or not it is let in.</summary>
    public string? SignedBy { get; set; }

    /// <summary>The person whose name was given to sign in, whether or not it is let in.</summary>
    public string? Named { get; set; }

    /// <summary>Who it is, in the words of the audit log; null: nobody that is known.</summary>
    public string? Actor => accessor.HttpContext?.User is not { Identity.IsAuthenticated: true } user ? (SignedBy is not null ? $"device:{SignedBy}" : Named is not null ? $"person:{Named}" : null)
        : user.IsInRole(Roles.Device) ? $"device:{Name}" : IsFirst ? Roles.Administrator : Person ?? Roles.Replica;

    /// <summary>A person with a role, such as <c>help-desk:kim</c>: the role is the one with most rights; null: none.</summary>
    public string? Person => Roles.People.FirstOrDefault(Has) is { } role ? $"{role}:{Name}" : null;

    /// <summary>The session of the request; null: it has a token of another kind.</summary>
    public string? Session => accessor.HttpContext?.User.FindFirstValue(ClaimTypes.Sid);

    /// <summary>What the person who calls may do.</summary>
    public IReadOnlyList<string> RoleList => [.. Roles.People.Where(Has)];

    /// <summary>Whether it is the first administrator, who names the others and sets what releases must have, or nobody: the server itself.</summary>
    public bool IsFirst => accessor.HttpContext?.User is not { Identity.IsAuthenticated: true } || Has(Roles.First);

    public bool Has(string role) => accessor.HttpContext?.User.IsInRole(role) == true;
}

internal sealed class Administrators(NacreDatabase database, AuditTrail audit, Accounts accounts, TimeProvider time)
{
    private const int Most = 1000;

    public static Failure OnlyTheFirst { get; } = new(ErrorCatalogue.Forbidden, "only the first administrator, whose token the server made, may do this");

    private static Failure RolesInvalid { get; } = new(ErrorCatalogue.RequestInvalid, $"'roles' must be some of {string.Join(", ", PeopleRoles.Staff)}, each once");

    /// <summary>The administrator with this token; null: none.</summary>
    public static Task<AdministratorRow?> FindAsync(NacreDatabase database, string untrustedToken, CancellationToken cancellationToken)
    {
        var hash = Hash(untrustedToken);
        return database.Administrators.AsNoTracking().SingleOrDefaultAsync(row => row.TokenHash == hash, cancellationToken);
    }

    public async Task<Result<CreatedAdministrator>> CreateAsync(CreateAdministrator untrusted, CancellationToken cancellationToken)
    {
        if (!Names.IsValid(untrusted.Name))
        {
            return IdentityErrors.NameInvalid("an administrator");
        }

        if (!TryRead(untrusted.Roles ?? [PeopleRoles.Administrator], out var roles))
        {
            return RolesInvalid;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (untrusted.Name == Roles.Administrator || await database.Administrators.AnyAsync(row => row.Name == untrusted.Name, cancellationToken))
        {
            return new Failure(ErrorCatalogue.AlreadyExists, $"there is an administrator '{untrusted.Name}' already");
        }

        if (await database.Administrators.CountAsync(cancellationToken) >= Most)
        {
            return new Failure(ErrorCatalogue.RequestInvalid, $"there are {Most} administrators, and can't be more");
        }

        var token = Text.Url(RandomNumberGenerator.GetBytes(32));
        database.Administrators.Add(new AdministratorRow { Name = untrusted.Name, TokenHash = Hash(token), Roles = roles, CreatedAt = time.Now() });

        // What others could do to the account of a user must not reach an administrator: it begins anew.
        await accounts.RemoveInTransactionAsync(untrusted.Name, cancellationToken);
        await audit.AppendAsync(Roles.Administrator, "administrator.create", untrusted.Name, roles, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new CreatedAdministrator(untrusted.Name, token);
    }

    public async Task<IReadOnlyList<Administrator>> ListAsync(CancellationToken cancellationToken) =>
        (await database.Administrators.AsNoTracking().OrderBy(row => row.Name).ToListAsync(cancellationToken)).ConvertAll(row => new Administrator(row.Name, row.CreatedAt, row.RoleList));

    /// <summary>Sets an administrator's roles, and ends the sessions that began with others.</summary>
    public async Task<Result<Administrator>> PutRolesAsync(string untrustedName, PutRoles untrusted, CancellationToken cancellationToken)
    {
        if (!TryRead(untrusted.Roles, out var roles))
        {
            return RolesInvalid;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Administrators.SingleOrDefaultAsync(row => row.Name == untrustedName, cancellationToken) is not { } row)
        {
            return NoAdministrator(untrustedName);
        }

        if (row.Roles != roles)
        {
            var before = row.Roles;
            row.Roles = roles;
            await Sessions.EndAllAsync(database, row.Name, cancellationToken);
            await audit.AppendAsync(Roles.Administrator, "administrator.roles", row.Name, $"from {before} to {roles}", cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }

        return new Administrator(row.Name, row.CreatedAt, row.RoleList);
    }

    public async Task<Result<Done>> RemoveAsync(string untrustedName, CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Administrators.SingleOrDefaultAsync(row => row.Name == untrustedName, cancellationToken) is not { } row)
        {
            return NoAdministrator(untrustedName);
        }

        database.Administrators.Remove(row);
        await accounts.RemoveInTransactionAsync(row.Name, cancellationToken);
        await audit.AppendAsync(Roles.Administrator, "administrator.remove", row.Name, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    private static Failure NoAdministrator(string untrustedName) =>
        new(ErrorCatalogue.NotFound, $"there is no administrator '{(Names.IsValid(untrustedName) ? untrustedName : "?")}' beside the first one");

    private static bool TryRead(IReadOnlyList<string>? untrusted, out string roles)
    {
        roles = string.Join(',', PeopleRoles.Staff.Where(role => untrusted?.Contains(role) == true));
        return untrusted is { Count: > 0 } && untrusted.Count <= PeopleRoles.Staff.Count && roles.Split(',').Length == untrusted.Count && untrusted.All(PeopleRoles.Staff.Contains);
    }

    private static byte[] Hash(string token) => SHA256.HashData(Encoding.UTF8.GetBytes(token));
}

internal static class AdministratorEndpoints
{
    public static void Map(Groups groups)
    {
        groups.Of(Roles.First).MapPost("/administrators", async (CreateAdministrator body, Administrators administrators, CancellationToken cancellationToken) =>
                (await administrators.CreateAsync(body, cancellationToken)).ToHttp(created => TypedResults.Created((string?)null, created)))
            .WithName("CreateAdministrator").WithSummary("Names an administrator with roles, and makes a token.")
            .Produces<CreatedAdministrator>(StatusCodes.Status201Created).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NameInvalid, ErrorCatalogue.AlreadyExists);
        groups.Of(Roles.Administrator, Roles.Approver, Roles.Auditor).MapGet("/administrators", (Administrators administrators, CancellationToken cancellationToken) => administrators.ListAsync(cancellationToken))
            .WithName("ListAdministrators").WithSummary("All administrators but the first.");
        groups.Of(Roles.First).MapPut("/administrators/{name}/roles", async (string name, PutRoles body, Administrators administrators, CancellationToken cancellationToken) =>
                (await administrators.PutRolesAsync(name, body, cancellationToken)).ToHttp(TypedResults.Ok))
            .WithName("PutRoles").WithSummary("Sets an administrator's roles, and ends the sessions of before.")
            .Produces<Administrator>().Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NotFound);
        groups.Of(Roles.First).MapDelete("/administrators/{name}", async (string name, Administrators administrators, CancellationToken cancellationToken) =>
                (await administrators.RemoveAsync(name, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("RemoveAdministrator").WithSummary("Takes an administrator's token, password and sessions away; approvals of that administrator count no more.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NotFound);
    }
}
