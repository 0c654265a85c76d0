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

    public required DateTimeOffset CreatedAt { get; init; }
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

    /// <summary>Who it is, in the words of the audit log; null: nobody that is known.</summary>
    public string? Actor => accessor.HttpContext?.User is not { Identity.IsAuthenticated: true } user ? (SignedBy is null ? null : $"device:{SignedBy}")
        : user.IsInRole(Roles.Device) ? $"device:{Name}" : user.IsInRole(Roles.Administrator) ? Roles.Administrator : Roles.Replica;

    /// <summary>Whether it is the first administrator, who names the others and sets what releases must have.</summary>
    public bool IsFirst => Name == Roles.Administrator;
}

internal sealed class Administrators(NacreDatabase database, AuditTrail audit, Caller caller, TimeProvider time)
{
    private const int Most = 1000;

    public static Failure OnlyTheFirst { get; } = new(ErrorCatalogue.Forbidden, "only the first administrator, whose token the server made, may do this");

    /// <summary>The administrator with this token; null: none.</summary>
    public static async Task<string?> FindAsync(NacreDatabase database, string untrustedToken, CancellationToken cancellationToken)
    {
        var hash = Hash(untrustedToken);
        return (await database.Administrators.AsNoTracking().SingleOrDefaultAsync(row => row.TokenHash == hash, cancellationToken))?.Name;
    }

    public async Task<Result<CreatedAdministrator>> CreateAsync(CreateAdministrator untrusted, CancellationToken cancellationToken)
    {
        if (!caller.IsFirst)
        {
            return OnlyTheFirst;
        }

        if (!Names.IsValid(untrusted.Name))
        {
            return IdentityErrors.NameInvalid("an administrator");
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
        database.Administrators.Add(new AdministratorRow { Name = untrusted.Name, TokenHash = Hash(token), CreatedAt = time.Now() });
        await audit.AppendAsync(Roles.Administrator, "administrator.create", untrusted.Name, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new CreatedAdministrator(untrusted.Name, token);
    }

    public async Task<IReadOnlyList<Administrator>> ListAsync(CancellationToken cancellationToken) =>
        (await database.Administrators.AsNoTracking().OrderBy(row => row.Name).ToListAsync(cancellationToken)).ConvertAll(row => new Administrator(row.Name, row.CreatedAt));

    public async Task<Result<Done>> RemoveAsync(string untrustedName, CancellationToken cancellationToken)
    {
        if (!caller.IsFirst)
        {
            return OnlyTheFirst;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Administrators.SingleOrDefaultAsync(row => row.Name == untrustedName, cancellationToken) is not { } row)
        {
            return new Failure(ErrorCatalogue.NotFound, $"there is no administrator '{(Names.IsValid(untrustedName) ? untrustedName : "?")}' that could be removed");
        }

        database.Administrators.Remove(row);
        await audit.AppendAsync(Roles.Administrator, "administrator.remove", row.Name, "", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return default(Done);
    }

    private static byte[] Hash(string token) => SHA256.HashData(Encoding.UTF8.GetBytes(token));
}

internal static class AdministratorEndpoints
{
    public static void Map(Groups groups)
    {
        var group = groups.Administrator;
        group.MapPost("/administrators", async (CreateAdministrator body, Administrators administrators, CancellationToken cancellationToken) =>
                (await administrators.CreateAsync(body, cancellationToken)).ToHttp(created => TypedResults.Created((string?)null, created)))
            .WithName("CreateAdministrator").WithSummary("Names an administrator and makes a token.")
            .Produces<CreatedAdministrator>(StatusCodes.Status201Created).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NameInvalid, ErrorCatalogue.AlreadyExists);
        group.MapGet("/administrators", (Administrators administrators, CancellationToken cancellationToken) => administrators.ListAsync(cancellationToken))
            .WithName("ListAdministrators").WithSummary("All administrators but the first.");
        group.MapDelete("/administrators/{name}", async (string name, Administrators administrators, CancellationToken cancellationToken) =>
                (await administrators.RemoveAsync(name, cancellationToken)).ToHttp(_ => TypedResults.NoContent()))
            .WithName("RemoveAdministrator").WithSummary("Takes an administrator's token away; approvals of that administrator count no more.")
            .Produces(StatusCodes.Status204NoContent).Fails(ErrorCatalogue.NotFound);
    }
}
