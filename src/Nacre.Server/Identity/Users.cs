using Microsoft.EntityFrameworkCore;
using Nacre.Contracts;

namespace Nacre.Server;

internal sealed class UserRow
{
    public required string Name { get; init; }

    public required string DisplayName { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }

    public User ToContract() => new(Name, DisplayName, CreatedAt);
}

internal static class IdentityErrors
{
    public static Failure NameInvalid(string what) => new(ErrorCatalogue.NameInvalid, $"this can't be the name of {what}");

    public static Failure UserExists(string name) => new(ErrorCatalogue.AlreadyExists, $"there is a user '{name}' already");

    public static Failure NoUser(string name) => new(ErrorCatalogue.NotFound, $"there is no user '{name}'");

    public static Failure DisplayNameInvalid { get; } = new(ErrorCatalogue.RequestInvalid, "'displayName' must have 1 to 200 printable characters");
}

internal sealed class Users(NacreDatabase database, AuditTrail audit, TimeProvider time)
{
    public async Task<Result<User>> CreateAsync(CreateUser untrusted, CancellationToken cancellationToken)
    {
        if (!Names.IsValid(untrusted.Name))
        {
            return IdentityErrors.NameInvalid("a user");
        }

        if (untrusted.DisplayName is not null && !Text.IsLabel(untrusted.DisplayName, 200))
        {
            return IdentityErrors.DisplayNameInvalid;
        }

        await using var transaction = await database.BeginWriteAsync(cancellationToken);
        if (await database.Users.AnyAsync(row => row.Name == untrusted.Name, cancellationToken))
        {
            return IdentityErrors.UserExists(untrusted.Name);
        }

        var user = new UserRow { Name = untrusted.Name, DisplayName = untrusted.DisplayName ?? untrusted.Name, CreatedAt = time.Now() };
        database.Users.Add(user);
        await audit.AppendAsync(Roles.Administrator, "user.create", user.Name, user.DisplayName, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return user.ToContract();
    }

    public async Task<IReadOnlyList<User>> ListAsync(CancellationToken cancellationToken) =>
        (await database.Users.AsNoTracking().OrderBy(row => row.Name).ToListAsync(cancellationToken)).ConvertAll(row => row.ToContract());
}

internal static class IdentityEndpoints
{
    public static void Map(Groups groups)
    {
        groups.Of(Roles.Administrator, Roles.HelpDesk).MapPost("/users", async (CreateUser body, Users users, CancellationToken cancellationToken) =>
                (await users.CreateAsync(body, cancellationToken)).ToHttp(user => TypedResults.Created((string?)null, user)))
            .WithName("CreateUser").WithSummary("Creates a user.")
            .Produces<User>(StatusCodes.Status201Created).Fails(ErrorCatalogue.RequestInvalid, ErrorCatalogue.NameInvalid, ErrorCatalogue.AlreadyExists);
        groups.Of(Roles.Administrator, Roles.Approver, Roles.HelpDesk, Roles.Auditor).MapGet("/users", (Users users, CancellationToken cancellationToken) => users.ListAsync(cancellationToken))
            .WithName("ListUsers").WithSummary("All users.");
    }
}
